"""Leaks between roles, and roles with one class."""

import numpy as np
import pandas as pd
import pytest
from cxr_compare.data_prep.audit.splits import (
    check_leaks,
    check_roles,
    expected_image_leak,
    find_leaks,
)

from tests.data_prep.audit.small_tables import image_table, split_table
from tests.rsna_tables import read_rsna_tables


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


@pytest.fixture(scope="module")
def rsna_tables(shared_data):
    return read_rsna_tables(shared_data)


def test_published_leak_of_a_split_by_image_is_reproduced(rsna_tables):
    """SOURCE.md: the ids lie on 11,439 patients; about 70 % of the test images leak."""
    leak = expected_image_leak(rsna_tables[0])
    assert leak["n_patients"] == 11_439
    assert leak["expected_share"] == pytest.approx(0.70, abs=0.01)


def test_expected_leak_is_that_of_random_splits():
    rng = np.random.default_rng(0)
    patient = rng.choice(40, size=100, p=rng.dirichlet(np.ones(40)))
    shares = []
    for _ in range(3000):
        order = rng.permutation(100)
        test, train = patient[order[:20]], patient[order[20:]]
        shares.append(np.isin(test, train).mean())
    leak = expected_image_leak(pd.DataFrame({"patient_id": patient.astype(str)}))
    assert leak["expected_share"] == pytest.approx(np.mean(shares), abs=0.01)


@pytest.mark.parametrize("patients", [["p"] * 5, ["a", "b", "c"]])
def test_leak_of_one_patient_and_of_strangers(patients):
    leak = expected_image_leak(pd.DataFrame({"patient_id": patients}))
    assert leak["expected_share"] == pytest.approx(1.0 if len(set(patients)) == 1 else 0.0)
