"""Leaks between roles, and roles with one class."""

import pandas as pd

from cxr_compare.data_prep.audit.split_checks import check_leaks, check_roles, find_leaks
from tests.data_prep.audit.small_tables import image_table, split_table


def test_a_patient_in_train_and_test_leaks():
    leaks = find_leaks(image_table("ppq"), split_table("train", "test", "test"))
    assert leaks[["patient_id", "image_id", "role"]].to_numpy().tolist() == [
        ["p", "0", "train"],
        ["p", "1", "test"],
    ]


def test_an_unused_image_leaks_nothing():
    assert find_leaks(image_table("pp"), split_table("unused", "test")).empty


def test_a_role_with_one_class_is_reported_but_not_an_unwanted_train():
    labels = pd.DataFrame({"mass": [1.0, 1.0, 0.0]}, index=["0", "1", "2"])
    (problem,) = check_roles(split_table("val", "test", "test"), labels, "default")
    assert (problem.count, "val has no negative image of 'mass'" in problem.message) == (1, True)


def test_many_roles_with_one_class_are_one_problem():
    labels = pd.DataFrame({f"t{n}": [1.0, 1.0, 1.0] for n in range(9)}, index=["0", "1", "2"])
    (problem,) = check_roles(split_table("train", "val", "test"), labels, "default")
    assert problem.count == 27
    assert "and 24 more such" in problem.message


def test_a_leak_shows_two_images_of_the_patient_side_by_side():
    (leak, _, _) = check_leaks(image_table("ppq"), split_table("train", "test", "test"), "default")
    assert (leak.count, leak.unit, leak.images) == (1, "patient", (("1", "0"),))
    assert leak.split == "default"
