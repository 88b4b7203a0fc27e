"""Equal and near images: how grave they are."""

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.audit.copy_checks import check_duplicates, check_near_duplicates
from cxr_compare.data_prep.duplicates.near_duplicates import find_near_duplicates
from tests.data_prep.audit.small_tables import image_table, split_table


@pytest.mark.parametrize(
    ("patients", "roles", "labels", "expected"),
    [
        ("pp", ("train", "train"), (1, 1), {"image_repeated": "warning"}),
        ("pq", ("train", "train"), (1, 1), {"image_patients": "error"}),
        ("pq", ("train", "test"), (1, 1), {"image_patients": "error", "image_leak": "error"}),
        (
            "pp",
            ("train", "train"),
            (1, 0),
            {"image_repeated": "warning", "image_label": "error"},
        ),
        ("pp", ("train", "train"), (1, np.nan), {"image_repeated": "warning"}),  # not known
    ],
)
def test_equal_images_are_worse_the_more_they_disagree(patients, roles, labels, expected):
    images = image_table(patients)
    decode = images.assign(pixel_sha256="same")
    table = pd.DataFrame({"opacity": labels}, index=images["image_id"])
    found = check_duplicates(images, decode, table, {"default": split_table(*roles)})
    assert {p.check: p.severity for p in found if p.count} == expected


COPY_HASHES = ["0f" * 32, "0f" * 31 + "0e", "f0" * 8 + "0f" * 24]


@pytest.mark.parametrize(
    ("patients", "roles", "labels", "expected"),
    [
        ("ppz", ("train", "train", "test"), (1, 1, 0), {"near_repeated": "info"}),
        ("pqz", ("train", "train", "test"), (1, 1, 0), {"near_patients": "warning"}),
        (
            "pqz",
            ("train", "test", "test"),
            (1, 0, 0),
            {"near_patients": "warning", "near_leak": "error", "near_label": "warning"},
        ),
        ("ppz", ("train", "unused", "test"), (1, 1, 0), {"near_repeated": "info"}),
    ],
)
def test_near_copies_are_worse_the_more_they_disagree(patients, roles, labels, expected):
    images = image_table(patients)
    decode = images.assign(pixel_sha256=["1", "2", "3"], perceptual_hash=COPY_HASHES)
    table = pd.DataFrame({"opacity": labels}, index=images["image_id"]).astype("float64")
    near = find_near_duplicates(decode)
    found = check_near_duplicates(near, images, table, {"default": split_table(*roles)})
    assert {p.check: p.severity for p in found if p.count} == expected
    assert all(set(p.examples) == {"0", "1"} for p in found if p.count)


def test_copies_of_patients_that_are_only_assumed_contradict_nothing():
    images = image_table("pq").assign(patient_id_source="assumed_image")
    decode = images.assign(pixel_sha256="same")
    table = pd.DataFrame({"opacity": [1.0, 1.0]}, index=images["image_id"])
    found = check_duplicates(images, decode, table, {"default": split_table("train", "train")})
    assert {p.check for p in found if p.count} == {"image_repeated"}
