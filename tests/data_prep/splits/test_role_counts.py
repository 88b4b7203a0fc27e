"""The table of images by role."""

from cxr_compare.data_prep.splits.stored_splits import role_lines


def test_many_targets_get_lines_of_their_own():
    few = {"images": 8, "patients": 4, "positive for a": 1}
    many = {**few, "positive for b": 2, "positive for c": 0, "positive for d": 3}
    assert role_lines({"train": few}) == ["  train  8 images, 4 patients, 1 positive for a"]
    lines = role_lines({"train": many, "val": many, "unused": {**many, "images": 0}})
    assert lines[:2] == ["  train  8 images, 4 patients", "  val    8 images, 4 patients"]
    assert lines[-1] == "  positive for d: 3 train, 3 val"
