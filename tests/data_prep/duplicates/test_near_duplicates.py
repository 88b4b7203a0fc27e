"""Copies are found without exception up to a distance, and the pixels have the last word."""

import numpy as np
import pandas as pd
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.duplicates.near_duplicates import (
    NEAR_CORRELATION,
    NearDuplicates,
    detail_correlation,
    find_near_duplicates,
    turn_image,
)

from cxr_compare.data_prep.images.fingerprint import TURNS
from cxr_compare.data_prep.images.image import read_image
from tests.data_prep.duplicates.image_set import ImageSet
from tests.small_dicom import chest


def flipped_bits(one: np.ndarray, places: np.ndarray) -> np.ndarray:
    bits = np.unpackbits(one)
    bits[places] ^= 1
    return np.packbits(bits)


def test_a_brighter_mirrored_copy_is_found_with_its_twins():
    images = ImageSet(a=chest(1), b=chest(2), c=chest(1)[:, ::-1] // 2 + 40, d=chest(1))
    found = find_near_duplicates(images.decode, images.read)
    assert found.pairs[["image_id", "other_id", "turn"]].to_numpy().tolist() == [
        ["a", "c", "mirrored"]
    ]
    assert found.pairs["correlation"].min() > 0.95
    assert found.groups.to_numpy().tolist() == [[0, "a"], [0, "c"], [0, "d"]]


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
