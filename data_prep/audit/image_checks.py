"""Checks of patients and images: ages, sexes, views and size."""

from __future__ import annotations

import pandas as pd

from cxr_compare.data_prep.audit.image_groups import evaluated_images, rows_that_differ
from cxr_compare.data_prep.audit.problem import Problem
from cxr_compare.data_prep.contracts.ids import is_member

OLDEST_YEARS = 120.0
SMALLEST_SIDE = 128


def check_people(images: pd.DataFrame, splits: dict[str, pd.DataFrame]) -> list[Problem]:
    """Report impossible ages, patients with two sexes, and images of unknown patients.

    Args:
        images: Images table: one row for each image, with its patient, age and sex.
        splits: By name of a split, the table that gives each image the role train, val, test or
            unused. If there is a split, an image of an unknown patient is reported only if a split
            gives it a role other than unused.

    Returns:
        One problem for each kind of fault that was found; an empty list if there is none.
    """
    ages = images["age_years"]
    impossible = (ages < 0) | (ages > OLDEST_YEARS)
    sexes = rows_that_differ(images[is_member(images["sex"], ["M", "F"])], "patient_id", "sex")
    assumed = images.loc[(images["patient_id_source"] == "assumed_image").to_numpy(), "image_id"]
    if splits:
        used = pd.concat([evaluated_images(split)["image_id"] for split in splits.values()])
        assumed = assumed[is_member(assumed, used)]
    return [
        Problem.from_cases(
            "age",
            "warning",
            f"age below 0 or above {OLDEST_YEARS:g} years",
            images.loc[impossible.to_numpy(), "image_id"],
            advice="correct the source or leave the age empty; until then subgroups by age are "
            "wrong",
        ),
        Problem.from_cases(
            "two_sexes",
            "warning",
            "patient with images of both sexes, so the patient id may be wrong",
            sexes["patient_id"],
            advice="compare the images; if they show two people, give them two ids",
            unit="patient",
            contrast=(sexes, "patient_id", "sex"),
        ),
        Problem.from_cases(
            "patient_assumed",
            "warning",
            "image of an unknown patient, which counts as a patient of its own: the same person "
            "may be in training and test",
            assumed,
            advice="give patient ids (--patient-pattern, or a patient_id column); until then every "
            "interval is too narrow",
            shown=(),
        ),
    ]


def check_images(images: pd.DataFrame) -> list[Problem]:
    """Report images with lateral or unusual views, and small images.

    Args:
        images: Images table: one row for each image, with patient, path and size.

    Returns:
        One problem for each kind of fault that was found; an empty list if there is none.
    """
    ids = images["image_id"]
    lateral, unknown = (is_member(images["view"], [view]) for view in ("LL", "other"))
    small = (images[["width", "height"]].min(axis=1) < SMALLEST_SIDE).fillna(False)
    kinds = [
        (
            "view_lateral",
            f"lateral view among {int((~lateral).sum()):,} images of other views",
            ids[lateral & ~lateral.all()],
            "leave lateral views out, or evaluate them as a subgroup",
        ),
        (
            "view_other",
            "view that is neither PA nor AP nor lateral",
            ids[unknown],
            "look at them, since oblique and special images may have to be left out",
        ),
        (
            "image_small",
            f"image with a side below {SMALLEST_SIDE} px, which does not show small lesions",
            ids[small.to_numpy(dtype=bool)],
            "use the original images",
        ),
    ]
    return [
        Problem.from_cases(check, "warning", text, cases, advice=advice)
        for check, text, cases, advice in kinds
    ]
