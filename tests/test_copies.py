"""Copies of images: found in every turn, decided by pixels; images that a training has seen."""

import cv2
import numpy as np
import pytest

from tests.adapters import splits
from tests.adapters.images import read
from tests.small_dicom import chest

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


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_has_no_pairs(n):
    assert splits.pairs_of_hashes(np.zeros((n, 32), np.uint8)) == []


def test_many_equal_fingerprints_do_not_fill_the_memory():
    hashes = np.zeros((2500, 32), np.uint8)
    assert splits.pairs_of_hashes(hashes) == []


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


def test_equal_images_are_no_pair_and_unlike_ones_of_like_fingerprints_neither(monkeypatch):
    images = {"a": chest(1), "b": chest(1), "c": chest(2)}
    assert splits.pairs_of(images) == []
    decoded = splits.decoded
    same = lambda shown: decoded(shown).assign(perceptual_hash="0f" * 32)  # noqa: E731
    monkeypatch.setattr(splits, "decoded", same)
    assert splits.pairs_of(images) == []
    assert splits.pairs_of(images, with_pixels=False) == [("a", "c")]  # without pixels, believed


def test_images_of_one_grey_have_no_copies():
    images = {"a": np.zeros((9, 9), np.uint8), "b": np.ones((9, 9), np.uint8)}
    assert splits.pairs_of(images) == []


def test_stretched_copies_of_rsna_are_found_among_other_images(shared_data):
    """SOURCE.md: rsna_png holds 15 of the same images, half of them stretched."""
    images = {}
    for path in sorted((shared_data / "rsna_png").glob("*.png")):
        images[f"png {path.stem}"] = read(path)[1]
        source = shared_data / "rsna/stage_2_train_images" / f"{path.stem}.dcm"
        images[f"dcm {path.stem}"] = read(source)[1]
    pairs = splits.pairs_of(images)
    n_equal = splits.decoded(images)["pixel_sha256"].duplicated().sum()
    assert len(pairs) + n_equal == 15
    assert all(one[4:] == other[4:] for one, other in pairs)


@pytest.mark.release
def test_no_two_different_images_of_rsna_and_kermany_are_copies(shared_data):
    paths = [*(shared_data / "rsna/stage_2_train_images").glob("*.dcm")]
    paths += (shared_data / "kermany_224").rglob("*.jpeg")
    decoded = splits.decoded({str(path): read(path)[1] for path in paths})
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


def test_of_many_copies_two_are_named():
    trained = {f"s{number}": (f"p{number}", chest(number)) for number in range(3)}
    images = {name: (name, chest(number)) for number, name in enumerate("xyz")}
    (line,) = splits.seen_among(trained, images)[3]
    assert line.endswith("(x = s0, y = s1, ...)")


def test_one_image_is_recognised_by_its_pixels_and_a_copy_by_its_fingerprint():
    trained = {
        "a": ("train", chest(1)),
        "b": ("train", chest(2)),
        "c": ("val", chest(3)),
        "d": ("val", chest(1)),
        "e": ("val", np.zeros((9, 9), np.uint8)),
    }
    assert splits.seen_use(trained, chest(1)) == ("train", False)  # in both roles
    assert splits.seen_use(trained, chest(2)[:, ::-1] // 2 + 40) == ("train", True)
    assert splits.seen_use(trained, 255 - chest(3)) == ("val", True)
    assert splits.seen_use(trained, chest(4)) is None
    assert splits.seen_use(trained, np.zeros((9, 9), np.uint8)) == ("val", False)
    assert splits.seen_use(trained, np.ones((9, 9), np.uint8)) is None
