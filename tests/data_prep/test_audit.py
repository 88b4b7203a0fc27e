"""The audit of a data set: each flaw is found with its images, as are copies; its page."""

import base64
import re

import cv2
import numpy as np
import pandas as pd
import pytest

import cxr_compare
from tests.adapters import images as image_files
from tests.adapters import splits
from tests.adapters.sets import prepare_tables, write_source
from tests.cases import load
from tests.outline import Outline
from tests.small_dicom import chest

N = 12


@pytest.mark.parametrize("case", load("../tests/cases/audit.json"))
def test_each_flaw_is_found_with_its_severity_and_images(case):
    found = {
        check: [severity, sorted(ids)] for check, (severity, ids) in splits.problems(case).items()
    }
    assert found == case["expect"]


def test_of_copies_one_stays_and_of_those_with_two_labels_none():
    found = splits.exclusions(
        [
            ["label", [["a", "b"]], 0],
            ["patients", [["a", "b"], ["c", "d", "e"]], 1],
            ["repeated", [["d", "f"], ["b", "g"]], 1],
            ["nothing to leave out", [["h"]], None],
        ]
    )
    assert found == {
        "a": "label",
        "b": "label",
        "d": "patients; c stays",
        "e": "patients; c stays",
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """12 images: b1 is a worn copy of b0 with another patient and label, b5 one of b4."""
    folder = tmp_path_factory.mktemp("audited")
    ids = [f"b{number}" for number in range(N)]
    patients = ["b4" if name == "b5" else name for name in ids]
    states = {"<b>mass</b>": [1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0]}
    ages = [400] + [50] * (N - 1)
    paths = [f"{name}.png" for name in ids]
    columns = {"path": paths, "age_years": ages, "patient_id": patients}
    source = write_source(folder / "source", ids, states, **columns)
    for number, name in enumerate(ids):
        pixels = (
            chest(number - 1, 150, 180) // 2 + 30 if number in (1, 5) else chest(number, 150, 180)
        )
        cv2.imwrite(str(source / f"{name}.png"), pixels)
    box = {"image_id": "b0", "finding": "<b>mass</b>", "x1": 10, "y1": 20, "x2": 60, "y2": 50}
    pd.DataFrame([box]).to_csv(source / "boxes.csv", index=False)
    prepare_tables(source, folder / "set", page=True)
    return folder / "set"


@pytest.fixture
def page(data):
    return (data / "data.html").read_text(encoding="utf-8")


def article(page, text):
    (found,) = (part for part in page.split("<article")[1:] if text in part)
    return found.partition("</article>")[0]


def pictures(part):
    sources = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', part)
    arrays = [np.frombuffer(base64.b64decode(source), np.uint8) for source in sources]
    return [cv2.imdecode(array, cv2.IMREAD_COLOR).astype(int) for array in arrays]


def test_the_page_opens_alone_and_escapes_what_the_source_says(page):
    outline = Outline(page)
    assert outline.open == outline.problems == []
    assert all(link.startswith(("data:", "#")) or link == "exclude.csv" for link in outline.links)
    assert "<script" not in page
    assert "<b>mass" not in page
    assert "&lt;b&gt;mass" in page


def test_the_page_says_how_many_images_to_leave_out(data, page):
    n_images = len(pd.read_csv(data / "exclude.csv"))
    assert n_images != page.count("<article") > 0
    assert f"lists {n_images} image" in re.sub("<[^>]*>", "", page)


def test_copies_are_shown_side_by_side_with_their_boxes(page):
    one, other = pictures(article(page, "under more than one patient"))
    yellow = [picture[..., 2] - picture[..., 0] > 60 for picture in (one, other)]
    assert [flags.any() for flags in yellow] == [True, False]
    rows, columns = np.nonzero(yellow[0])
    height, width, _ = one.shape  # of 150 x 180 px
    assert (columns.min(), rows.min()) == pytest.approx((width / 18, height * 20 / 150), abs=3)
    assert (columns.max(), rows.max()) == pytest.approx((width / 3, height / 3), abs=3)


def test_clean_synthetic_images_pass(world):
    audit = cxr_compare.check(world.data)
    assert audit.passed
    assert not [each for each in audit.problems if each.check.startswith(("image_", "near_"))]


# Copies of images: found in every turn, decided by pixels, also among those of a training

CERTAIN = 15  # bits up to which every pair is found


def flipped(one, bits):
    every = np.unpackbits(one)
    every[bits] ^= 1
    return np.packbits(every)


def turned_words(turn):
    """1 for the words of a fingerprint that a turn inverts: a chest tells each turn's own."""
    plain = np.frombuffer(
        bytes.fromhex(splits.decoded({"a": chest(1)})["perceptual_hash"][0]), np.uint8
    )
    shown = splits.turned(chest(1), turn)
    other = np.frombuffer(
        bytes.fromhex(splits.decoded({"a": shown})["perceptual_hash"][0]), np.uint8
    )
    differing = np.unpackbits(plain ^ other).reshape(4, 64).mean(axis=1)
    return (differing > 0.5).astype(np.uint8)


def test_every_pair_within_the_certain_distance_is_found_in_every_turn():
    rng = np.random.default_rng(5)
    hashes = rng.integers(0, 256, (400, 32), dtype=np.uint8)
    inverted = [turned_words(turn) for turn in splits.TURN_NAMES]
    for row in range(200):  # each of the first has a turned and damaged copy
        damaged = flipped(hashes[row], rng.choice(256, CERTAIN, replace=False))
        words = np.unpackbits(damaged).reshape(4, 64) ^ inverted[row % 8][:, None]
        hashes[200 + row] = np.packbits(words.ravel())
    expected = [(row, 200 + row, CERTAIN, row % 8) for row in range(200)]
    assert splits.pairs_of_hashes(hashes) == expected


def changed(pixels):
    """Copies of an image as people make them, by what was done."""
    height, width = pixels.shape
    _, coded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 60])
    return {
        "brighter": np.clip(pixels.astype(int) + 30, 0, 255).astype(np.uint8),
        "darker": (pixels * 0.6).astype(np.uint8),
        "compressed": cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE),
        "smaller": cv2.resize(pixels, (width // 2, height // 2), interpolation=cv2.INTER_AREA),
        "stretched": cv2.resize(pixels, (width, height * 3 // 4), interpolation=cv2.INTER_AREA),
        "mirrored": pixels[:, ::-1],
        "upside down": pixels[::-1],
        "turned": pixels[::-1, ::-1],
        "inverted": 255 - pixels,
    }


@pytest.mark.parametrize("what", changed(chest(0)))
def test_a_copy_is_found_and_no_other_chest(what):
    images = {f"{number}": chest(number, 200, 180) for number in range(6)}
    images["copy"] = np.ascontiguousarray(changed(images["3"])[what])
    assert splits.pairs_of(images) == [("3", "copy")]


@pytest.mark.release
def test_no_two_different_images_of_rsna_and_kermany_are_copies(shared_data):
    paths = [*(shared_data / "rsna/stage_2_train_images").glob("*.dcm")]
    paths += (shared_data / "kermany_224").rglob("*.jpeg")
    decoded = splits.decoded({str(path): image_files.read(path)[1] for path in paths})
    decoded = decoded.drop_duplicates("pixel_sha256")
    assert len(decoded) > 5000
    hashes = decoded["perceptual_hash"].map(bytes.fromhex)
    assert splits.pairs_of_hashes(np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 32)) == []


def test_patients_who_share_an_image_are_one_group_along_a_chain():
    """0 and 1 share an image, 1 and 2 another; 3 is alone, as is one without any key."""
    patients = ["d", "b", "b", "c", "e", "f"]
    keys = ["x", "x", "y", "y", "z", None]
    assert splits.groups(patients, keys) == ["b", "b", "b", "b", "e", "f"]


def test_seen_images_are_known_by_id_and_patient_and_under_other_names_by_their_pixels():
    trained = {
        "a": ("pa", chest(1)),
        "b": ("pb", chest(2)),
        "c": ("pc", chest(3)),
        "d": ("pd", chest(4)),
    }
    worn = chest(3)[:, ::-1] // 2 + 40
    images = {
        "a": ("new", chest(9)),
        "n1": ("pd", chest(8)),
        "n2": ("q2", chest(2)),
        "n3": ("q3", chest(7)),
        "n4": ("q4", worn),
        "n5": ("q5", worn.copy()),
        "n6": ("q6", chest(5)),
    }
    by_id, equal, near, lines = splits.seen_among(trained, images)
    assert by_id == ["a", "n1"]
    assert equal == {"n2": "b"}
    assert near == {"n4": "c", "n5": "c"}  # also the second of two equal test images
    same, similar = lines
    assert "A has seen 1 of 7 test images" in same
    assert same.endswith("(n2 = b)")
    assert "near copies of 2 of 7 test images" in similar


# Fingerprints


def grey_stretched(pixels):
    low, high = np.percentile(pixels, (1, 99))
    return np.clip((pixels - low) * 255.0 / (high - low), 0, 255).astype(np.uint8)


def compressed_again(pixels, quality=50):
    encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)


def resized(pixels, width, height):
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


COPIES = {
    "stretched": grey_stretched,
    "gamma": lambda pixels: (255 * (pixels / 255.0) ** 0.6).astype(np.uint8),
    "equalised": cv2.equalizeHist,
    "jpeg": compressed_again,
    "112 px": lambda pixels: resized(pixels, 112, 112),
    "squashed": lambda pixels: resized(pixels, 112, 150),
    "all at once": lambda pixels: compressed_again(resized(grey_stretched(pixels), 112, 112), 75),
}


@pytest.mark.parametrize("change", COPIES)
def test_a_copy_keeps_its_fingerprint(change):
    for seed in range(10):
        pixels = chest(seed)
        hashes = (
            image_files.perceptual_hash(pixels),
            image_files.perceptual_hash(COPIES[change](pixels)),
        )
        distance, turn = image_files.hash_distance(*hashes)
        assert (turn, distance <= 20) == (image_files.TURNS[0], True), seed


@pytest.mark.parametrize("turn", image_files.TURNS)
def test_a_turned_copy_is_known_with_its_turn(turn):
    for seed in range(5):
        turned = image_files.turn_image(chest(seed), turn)
        hashes = image_files.perceptual_hash(chest(seed)), image_files.perceptual_hash(turned)
        distance, found = image_files.hash_distance(*hashes)
        assert (found, distance <= 4) == (turn, True)
