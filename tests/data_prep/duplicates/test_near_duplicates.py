"""Copies are found without exception up to a distance, and the pixels have the last word."""

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.duplicates.fingerprint_pairs import (
    CERTAIN_DISTANCE,
    close_pairs,
    inverted_words,
)
from cxr_compare.data_prep.duplicates.near_duplicates import (
    NEAR_CORRELATION,
    NearDuplicates,
    detail_correlation,
    find_near_duplicates,
    turn_image,
)
from cxr_compare.data_prep.duplicates.seen_images import SeenImages
from cxr_compare.data_prep.images.decoded_image import pixel_digest
from cxr_compare.data_prep.images.fingerprint import TURNS, perceptual_hash
from cxr_compare.data_prep.images.image import read_image
from tests.small_dicom import chest


def random_hashes(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 32), dtype=np.uint8)


def flipped_bits(one: np.ndarray, places: np.ndarray) -> np.ndarray:
    bits = np.unpackbits(one)
    bits[places] ^= 1
    return np.packbits(bits)


def test_every_pair_within_the_certain_distance_is_found_in_every_turn():
    rng = np.random.default_rng(5)
    hashes = random_hashes(2000)
    for row in range(1000):  # each of the first thousand has a turned and damaged copy
        damaged = flipped_bits(hashes[row], rng.choice(256, CERTAIN_DISTANCE, replace=False))
        words = np.unpackbits(damaged).reshape(4, 64) ^ inverted_words()[row % 8][:, None]
        hashes[1000 + row] = np.packbits(words.ravel())
    found = close_pairs(hashes, 40)
    assert found.first.tolist() == list(range(1000))
    assert found.second.tolist() == list(range(1000, 2000))
    assert set(found.distance.tolist()) == {CERTAIN_DISTANCE}
    assert found.turn.tolist() == [row % 8 for row in range(1000)]
    assert found.complete


def test_the_worst_place_for_damage_is_covered_too():
    """Two wrong bits in each band but one, which has one: the pigeonhole's last hole."""
    hashes = random_hashes(2, seed=9)
    seen = flipped_bits(
        hashes[0], np.array([0, 64, *(band for b in range(1, 8) for band in (b, 64 + b))][1:])
    )
    hashes[1] = seen
    assert close_pairs(hashes, 40).distance.tolist() == [CERTAIN_DISTANCE]


def test_pairs_beyond_the_distance_asked_are_left_out():
    hashes = random_hashes(2, seed=9)
    hashes[1] = flipped_bits(hashes[0], np.arange(12))
    assert close_pairs(hashes, 11).first.size == 0
    assert close_pairs(hashes, 12).first.size == 1


def test_a_search_of_very_many_similar_fingerprints_is_cut_short_and_says_so(monkeypatch):
    monkeypatch.setattr("cxr_compare.data_prep.duplicates.fingerprint_pairs._PAIRS_AT_LEAST", 100)
    hashes = np.repeat(random_hashes(1), 200, axis=0)
    hashes[:, 31] = np.arange(200)
    assert not close_pairs(hashes, 40).complete


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_has_no_pairs(n):
    assert close_pairs(random_hashes(n), 40).first.size == 0


class ImageSet:
    """A set of images in memory, with a decode table."""

    def __init__(self, **arrays: np.ndarray) -> None:
        self.arrays = arrays
        self.reads = 0
        self.decode = pd.DataFrame(
            {
                "image_id": list(arrays),
                "pixel_sha256": [pixel_digest(pixels) for pixels in arrays.values()],
                "perceptual_hash": [perceptual_hash(pixels) for pixels in arrays.values()],
            }
        )

    def read(self, image_id: str) -> np.ndarray:
        self.reads += 1
        return self.arrays[image_id]


def test_a_brighter_mirrored_copy_is_found_with_its_twins():
    images = ImageSet(a=chest(1), b=chest(2), c=chest(1)[:, ::-1] // 2 + 40, d=chest(1))
    found = find_near_duplicates(images.decode, images.read)
    assert found.pairs[["image_id", "other_id", "turn"]].to_numpy().tolist() == [
        ["a", "c", "mirrored"]
    ]
    assert found.pairs["correlation"].min() > 0.95
    assert found.groups.to_numpy().tolist() == [[0, "a"], [0, "c"], [0, "d"]]


def test_seen_images_are_known_by_id_and_patient_and_under_other_names_by_their_pixels():
    seen = ImageSet(a=chest(1), b=chest(2), c=chest(3), d=chest(4)).decode
    seen["patient_id"] = ["pa", "pb", "pc", "pd"]
    arrays = {"a": chest(9), "n1": chest(8), "n2": chest(2), "n3": chest(7)}
    images = ImageSet(**arrays, n4=chest(3)[:, ::-1] // 2 + 40, n5=chest(5)).decode
    images["patient_id"] = ["new", "pd", "q2", "q3", "q4", "q5"]
    found = SeenImages.from_tables(images, seen)
    assert found.by_id.tolist() == ["a", "n1"]
    assert found.equal.to_dict() == {"n2": "b"}
    assert found.near.to_dict() == {"n4": "c"}
    assert found.all_ids.tolist() == ["a", "n1", "n2", "n4"]
    same, near = found.describe_copies("CheXNet")
    assert same == "CheXNet has seen 1 of 6 test images in training under other ids (n2 = b)"
    assert near.endswith("near copies of 1 of 6 test images in training under other ids (n4 = c)")
    without = SeenImages.from_tables(
        images, seen[["image_id", "patient_id"]]
    )  # of an older version
    assert without.by_id.tolist() == ["a", "n1"]
    assert without.describe_copies("CheXNet") == []


def test_of_many_copies_two_are_named():
    seen = ImageSet(**{f"s{seed}": chest(seed) for seed in range(3)}).decode
    seen["patient_id"] = seen["image_id"]
    images = seen.assign(image_id=["x", "y", "z"], patient_id=["x", "y", "z"])
    (line,) = SeenImages.from_tables(images, seen).describe_copies("A")
    assert "has seen 3 of 3 test images" in line
    assert line.endswith("(x = s0, y = s1, ...)")


def test_equal_images_alone_are_no_near_duplicates():
    images = ImageSet(a=chest(1), b=chest(1))
    assert find_near_duplicates(images.decode, images.read).groups.empty


def test_like_fingerprints_of_unlike_images_are_refused_on_pixels():
    images = ImageSet(a=chest(1), b=chest(2))
    images.decode["perceptual_hash"] = images.decode["perceptual_hash"].iloc[0]
    found = find_near_duplicates(images.decode, images.read)
    assert (found.candidates, len(found.pairs)) == (1, 0)
    assert len(find_near_duplicates(images.decode).pairs) == 1  # without pixels it is believed


def test_what_the_fingerprint_cannot_decide_is_counted_where_no_pixels_are():
    images = ImageSet(a=chest(1), b=chest(2))
    near = flipped_bits(
        np.frombuffer(bytes.fromhex(images.decode["perceptual_hash"].iloc[0]), np.uint8),
        np.arange(30) % 3 + 64 * (np.arange(30) // 3 % 2) + 8 * (np.arange(30) // 6),
    )
    images.decode.loc[1, "perceptual_hash"] = near.tobytes().hex()

    def gone(image_id: str) -> np.ndarray:
        raise InputError(f"{image_id}: gone")

    found = find_near_duplicates(images.decode, gone)
    assert (found.candidates, found.undecided, len(found.pairs)) == (1, 1, 0)
    assert find_near_duplicates(images.decode, images.read).undecided == 0


def test_no_more_images_are_read_than_allowed():
    images = ImageSet(**{f"f{n}": chest(n % 6) // (1 + n // 6) for n in range(12)})
    found = find_near_duplicates(images.decode, images.read, max_images=4)
    assert images.reads == 4
    assert len(found.pairs) == 6  # the others by fingerprint
    assert found.pairs["correlation"].isna().sum() == 4


def test_images_without_a_fingerprint_are_passed_over():
    images = ImageSet(a=np.zeros((9, 9), np.uint8), b=np.ones((9, 9), np.uint8))
    assert find_near_duplicates(images.decode).candidates == 0
    old = images.decode.drop(columns="perceptual_hash")
    assert find_near_duplicates(old).groups.empty


def test_linked_images_join_equal_and_near_ones():
    decode = pd.DataFrame({"image_id": list("abcd"), "pixel_sha256": ["1", "2", "2", "3"]})
    groups = pd.DataFrame({"group": [0, 0], "image_id": ["a", "d"]})
    keys = NearDuplicates(pd.DataFrame(), groups, 0, 0, complete=True).copy_keys(decode)
    assert keys["a"] == keys["d"] != keys["b"] == keys["c"]


def test_likeness_needs_the_right_turn():
    one = chest(3)
    assert detail_correlation(one, turn_image(one, "negative")) < -0.9
    assert detail_correlation(turn_image(one, "upside down"), one) < NEAR_CORRELATION
    assert all(detail_correlation(turn_image(turn_image(one, t), t), one) > 0.99 for t in TURNS)


def test_stretched_copies_of_rsna_are_found_among_other_images(shared_data):
    """SOURCE.md: rsna_png holds 15 of the same images, half of them stretched."""
    copies = sorted((shared_data / "rsna_png").glob("*.png"))
    sources = [shared_data / "rsna/stage_2_train_images" / f"{p.stem}.dcm" for p in copies]
    images = ImageSet(
        **{f"dcm {p.stem}": read_image(p).pixels for p in sources},
        **{f"png {p.stem}": read_image(p).pixels for p in copies},
    )
    found = find_near_duplicates(images.decode, images.read)
    equal = images.decode["pixel_sha256"].duplicated().sum()
    assert len(found.pairs) + equal == 15
    assert (found.pairs["image_id"].str[4:] == found.pairs["other_id"].str[4:]).all()


def test_squashed_copies_of_kermany_are_found_among_other_images(shared_data):
    """SOURCE.md: kermany_full may hold images of kermany_224, which are 224 x 224 px."""
    small = {p.stem: p for p in (shared_data / "kermany_224").rglob("*.jpeg")}
    full = {p.stem: p for p in (shared_data / "kermany_full").rglob("*.jpeg")}
    others = sorted(small.keys() - full.keys())[::20]
    images = ImageSet(
        **{f"full {name}": read_image(path).pixels for name, path in full.items()},
        **{f"k224 {name}": read_image(small[name]).pixels for name in [*full, *others]},
    )
    found = find_near_duplicates(images.decode, images.read)
    assert len(found.pairs) == 24
    assert (found.pairs["image_id"].str[5:] == found.pairs["other_id"].str[5:]).all()
