"""Training images that appear in another data set, and single images that a training has seen."""

import pandas as pd
from cxr_compare.data_prep.duplicates.seen_images import SeenImage, SeenImages, SeenLookup

from cxr_compare.data_prep.images.decoded_image import DecodedImage
from tests.data_prep.duplicates.image_set import ImageSet
from tests.small_dicom import chest


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
    without = SeenImages.from_tables(images, seen[["image_id", "patient_id"]])
    assert without.by_id.tolist() == ["a", "n1"]
    assert without.describe_copies("CheXNet") == []


def test_of_many_copies_two_are_named():
    seen = ImageSet(**{f"s{seed}": chest(seed) for seed in range(3)}).decode
    seen["patient_id"] = seen["image_id"]
    images = seen.assign(image_id=["x", "y", "z"], patient_id=["x", "y", "z"])
    (line,) = SeenImages.from_tables(images, seen).describe_copies("A")
    assert "has seen 3 of 3 test images" in line
    assert line.endswith("(x = s0, y = s1, ...)")


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
