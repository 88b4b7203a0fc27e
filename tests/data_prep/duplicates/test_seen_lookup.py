"""Single images that a training has seen: equal pixels, near copies, and others."""

import pandas as pd

from cxr_compare.data_prep.duplicates.seen_lookup import SeenImage, SeenLookup
from cxr_compare.data_prep.images.decoded_image import DecodedImage
from tests.data_prep.duplicates.image_set import ImageSet
from tests.small_dicom import chest


def lookup() -> SeenLookup:
    seen = ImageSet(a=chest(1), b=chest(2), c=chest(3)).decode
    seen["role"] = ["train", "train", "val"]
    made = SeenLookup.from_table(seen)
    assert made is not None
    return made


def find(pixels) -> SeenImage | None:
    image = DecodedImage(pixels, {})
    return lookup().find(image.pixel_sha256, image.perceptual_hash)


def test_an_image_is_recognised_by_its_pixels_and_a_copy_by_its_fingerprint():
    assert find(chest(1)) == SeenImage("train", is_near=False)
    assert find(chest(2)[:, ::-1] // 2 + 40) == SeenImage("train", is_near=True)
    assert find(255 - chest(3)) == SeenImage("val", is_near=True)
    assert find(chest(4)) is None


def test_an_image_in_both_roles_counts_as_a_training_image():
    seen = ImageSet(a=chest(1), b=chest(1)).decode
    seen["role"] = ["val", "train"]
    found = SeenLookup.from_table(seen)
    assert found is not None
    assert found.find(seen["pixel_sha256"][0], None) == SeenImage("train", is_near=False)


def test_runs_of_older_versions_without_fingerprints_give_no_lookup():
    assert SeenLookup.from_table(pd.DataFrame({"image_id": ["a"], "role": ["train"]})) is None


def test_images_without_a_fingerprint_are_compared_by_their_pixels_alone():
    rows = {"role": ["train"], "pixel_sha256": ["1"], "perceptual_hash": [None]}
    found = SeenLookup.from_table(pd.DataFrame(rows))
    assert found is not None
    assert found.find("1", None) == SeenImage("train", is_near=False)
    assert found.find("2", "ff" * 32) is None
