"""Training images that appear in another data set."""

from cxr_compare.data_prep.duplicates.seen_images import SeenImages
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
