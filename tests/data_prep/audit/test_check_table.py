"""A table of a notebook is checked without a data set folder."""

import pandas as pd
import pytest

import cxr_compare
from cxr_compare.data_prep.contracts.errors import InputError


def image_table(**columns) -> pd.DataFrame:
    """Four images of three patients, one of whom is in training and test."""
    images = {"image_id": [1, 2, 3, 4], "patient_id": ["p", "p", "q", "r"]}
    images |= {"split": ["training", "test", "test", "train"], "label": [1, 0, 1, 0]}
    return pd.DataFrame(images | columns)


def found(images, **options) -> dict[str, tuple[str, ...]]:
    return {p.check: p.examples for p in cxr_compare.check_table(images, **options).problems}


def test_a_patient_in_two_parts_is_found_and_the_leak_of_a_split_by_image_told():
    assert found(image_table())["patient_leak"] == ("p",)
    apart = found(image_table(patient_id=list("pqrs")))
    assert not {"patient_leak", "split_by_image"} & set(apart)
    assert "split_by_image" in found(image_table().iloc[:3])


def test_copies_are_found_by_the_digest_of_their_pixels_and_by_their_fingerprint():
    digests = ["1", "2", "3", "1"]
    copies = found(image_table(pixel_sha256=digests))
    assert copies["image_label"] == copies["image_patients"] == ("1", "4")
    hashes = ["0f" * 32, "00ff" * 16, "0f" * 31 + "0e", None]
    alike = found(image_table(perceptual_hash=hashes, patient_id=list("pqrs")))
    assert alike["near_leak"] == alike["near_patients"] == ("1", "3")
    assert not {"image_patients", "near_patients"} & set(found(image_table()))


def test_a_part_without_one_of_the_classes_is_found_for_each_column_of_labels():
    images = image_table(split=["train", "train", "val", "test"], mass=[1, None, 1, 1])
    (problem,) = [
        p
        for p in cxr_compare.check_table(images, labels=["label", "mass"]).problems
        if p.check == "one_class"
    ]
    assert problem.count == 5  # two of label, and no part has a negative image of mass
    assert "one_class" not in found(images.drop(columns="label"))


def test_boxes_are_checked_against_sizes_and_labels():
    boxes = pd.DataFrame({"image_id": [1, 2], "x1": 5, "y1": 5, "x2": [60, 200], "y2": 50})
    assert found(image_table(width=100, height=100), boxes=boxes) == {
        "patient_leak": ("p",),
        "box_outside": ("2",),
        "box_on_negative": ("2",),
        "one_class": (),
        "image_small": ("1", "2", "3", "4"),
        "positive_without_box": ("3",),
    }


def test_an_image_of_an_unknown_patient_is_a_warning_and_leaks_nothing():
    problems = found(image_table(patient_id=[None, None, "q", "r"]))
    assert problems["patient_assumed"] == ("1", "2")
    assert "patient_leak" not in problems


def test_a_table_of_a_prepared_set_has_the_problems_of_its_audit(tmp_path):
    from tests.scripts.small_sets import table_set

    ids = [f"i{n}" for n in range(6)]
    roles = ["train", "train", "val", "val", "test", "test"]
    folder = table_set(tmp_path, ids, {"mass": [1, 0, 1, 0, 1, 1]}, split=roles, view="LL")
    data = cxr_compare.DataSet.open(folder)
    images = data.images.merge(data.split().rename(columns={"role": "split"}))
    images["mass"] = data.labels(data.target()).to_numpy()
    audit = {p.check for p in cxr_compare.check(folder).problems}
    assert set(found(images, labels="mass")) == audit - {"images_none", "near_unsought"}


@pytest.mark.parametrize(
    "wrong",
    [
        image_table().drop(columns="patient_id"),
        image_table().iloc[:0],
        image_table(image_id=[1, 2, 2, 3]),
        image_table(image_id=[1, 2, None, 3]),
        image_table(split="everything"),
        image_table(label=[0, 1, 2, -1]),
        image_table(width="wide"),
    ],
    ids=["no patients", "no rows", "repeated id", "no id", "role", "label", "width"],
)
def test_what_is_not_understood_is_refused(wrong):
    with pytest.raises(InputError):
        cxr_compare.check_table(wrong)


@pytest.mark.parametrize("labels", [["label"], ["label", "mass"]])
def test_boxes_of_a_foreign_image_and_of_an_unsaid_finding_are_refused(labels):
    images = image_table(mass=[1, 1, 0, 0])
    boxes = pd.DataFrame({"image_id": [7 if len(labels) == 1 else 1], "x1": 1, "y1": 1})
    with pytest.raises(InputError):
        cxr_compare.check_table(images, labels=labels, boxes=boxes.assign(x2=9, y2=9))
    with pytest.raises(InputError):
        cxr_compare.check_table(images, labels="unknown")
