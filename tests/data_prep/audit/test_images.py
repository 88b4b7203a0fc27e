"""Copies and how grave they are, views, people, text in the pixels, files left out."""

import numpy as np
import pandas as pd
import pytest
from cxr_compare.data_prep.audit.images import (
    check_burned_in_text,
    check_duplicates,
    check_excluded,
    check_images,
    check_near_duplicates,
    check_people,
    find_duplicates,
)
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
    found = check_duplicates(
        find_duplicates(decode), images, table, {"default": split_table(*roles)}
    )
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
    found = check_duplicates(
        find_duplicates(decode), images, table, {"default": split_table("train", "train")}
    )
    assert {p.check for p in found if p.count} == {"image_repeated"}


def test_missing_digests_are_no_duplicates():
    images = pd.DataFrame({"image_id": ["a", "b"], "pixel_sha256": [None, None]})
    assert find_duplicates(images).empty


def test_impossible_people_are_reported():
    images = image_table("ppqr").assign(
        age_years=[40.0, 41.0, 155.0, -1.0], sex=["M", "F", "M", None], patient_id_source="given"
    )
    found = {p.check: p.examples for p in check_people(images, {}) if p.count}
    assert found == {"age": ("2", "3"), "two_sexes": ("p",)}


def test_laterals_among_frontals_and_small_images_are_reported():
    images = image_table("pqrs").assign(
        view=["PA", "LL", "other", None], width=[900, 900, 100, None], height=900
    )
    images = images.astype({"width": "Int64", "height": "Int64"})
    found = {p.check: p.examples for p in check_images(images) if p.count}
    assert found == {"view_lateral": ("1",), "view_other": ("2",), "image_small": ("2",)}
    lateral = check_images(images.assign(view="LL"))
    assert not [p for p in lateral if p.check == "view_lateral" and p.count]


def test_burned_in_text_is_flagged_by_the_header_or_by_the_pixels():
    decode = pd.DataFrame(
        {"image_id": list("abcd"), "burned_in_annotation": ["yes", "no", None, None]}
    )
    lines = pd.DataFrame({"image_id": ["c"], "x1": 1.0, "y1": 2.0, "x2": 30.0, "y2": 9.0})
    (problem,) = check_burned_in_text(decode, lines)
    assert problem.images == (("c",), ("a",))
    (stated,) = check_burned_in_text(decode)
    assert stated.examples == ("a",)
    (none,) = check_burned_in_text(decode[["image_id"]])
    assert none.count == 0


def test_a_thousand_reasons_for_leaving_out_stay_a_short_list():
    reasons = [f"cannot be read (code {n})" for n in range(1000)] + ["not an image"] * 7
    paths = [f"{n}.dcm" for n in range(1007)]
    excluded = pd.DataFrame({"path": paths, "stage": "decode", "reason": reasons})
    problems = check_excluded(excluded)
    assert len(problems) == 21
    assert sum(p.count for p in problems) == 1007
    assert any(p.count == 7 for p in problems)
    assert [p for p in check_excluded(excluded.iloc[:0]) if p.count] == []


def test_equal_reasons_of_label_files_are_one_problem_whatever_their_line():
    reasons = [f"label file, line {n % 3}: box of zero size" for n in range(12)]
    excluded = pd.DataFrame({"path": list("abcdefghijkl"), "stage": "labels", "reason": reasons})
    assert [problem.count for problem in check_excluded(excluded) if problem.count] == [12]
