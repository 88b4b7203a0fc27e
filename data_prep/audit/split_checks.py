"""Checks of the splits: patients in two roles, images without a role, roles with one class."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from cxr_compare.data_prep.audit.image_groups import (
    EVALUATED_ROLES,
    evaluated_images,
    rows_that_differ,
)
from cxr_compare.data_prep.audit.problem import Problem
from cxr_compare.data_prep.contracts.ids import is_member, positions


def find_leaks(images: pd.DataFrame, split: pd.DataFrame) -> pd.DataFrame:
    """Find the images of patients who are in more than one of train, validation and test.

    Args:
        images: Table with columns ``image_id`` and ``patient_id``.
        split: Table with columns ``image_id`` and ``role``: ``train``, ``val``, ``test`` or
            ``unused``.

    Returns:
        A sorted table with columns ``patient_id, image_id, role``.
    """
    evaluated = evaluated_images(split)
    row = positions(evaluated["image_id"], images["image_id"])
    patient = images["patient_id"].array.take(row, allow_fill=True)
    known = evaluated.assign(patient_id=patient)[row >= 0]
    leaks = rows_that_differ(known, "patient_id", "role")
    columns = ["patient_id", "image_id", "role"]
    return leaks[columns].sort_values(columns, ignore_index=True)


def check_leaks(images: pd.DataFrame, split: pd.DataFrame, name: str) -> list[Problem]:
    """Report patients in two of train, validation and test, and images without such a role.

    Roles of images that are not in the data set are reported, too.

    Args:
        images: Images table: one row for each image, with patient, path and size.
        split: Table with columns ``image_id`` and ``role``: ``train``, ``val``, ``test`` or
            ``unused``.
        name: Name of the split, such as ``default``, for messages.

    Returns:
        One problem for each kind of fault that was found; an empty list if there is none.
    """
    leaks = find_leaks(images, split)
    missing = images.loc[~is_member(images["image_id"], split["image_id"]), "image_id"]
    unknown = split.loc[~is_member(split["image_id"], images["image_id"]), "image_id"]
    problems = [
        Problem.from_cases(
            "patient_leak",
            "error",
            f"split '{name}': patient in more than one role, which makes test figures too good",
            leaks["patient_id"],
            unit="patient",
            contrast=(leaks, "patient_id", "role"),
        ),
        Problem.from_cases(
            "split_lacks", "error", f"split '{name}': image without a role", missing
        ),
        Problem.from_cases(
            "split_unknown",
            "error",
            f"split '{name}': image not in the set",
            unknown,
            unit="foreign image",
        ),
    ]
    return [replace(problem, split=name) for problem in problems]


def check_roles(split: pd.DataFrame, labels: pd.DataFrame, name: str) -> list[Problem]:
    """Report each of train, validation and test that has no positive or no negative images.

    Args:
        split: Table with columns ``image_id`` and ``role``: ``train``, ``val``, ``test`` or
            ``unused``.
        labels: Label of each image (row, indexed by ``image_id``) for each target (column; findings
            that together make an image positive): 1 positive, 0 negative, NaN unknown.
        name: Name of the split, such as ``default``, for messages.

    Returns:
        One problem for each kind of fault that was found; an empty list if there is none.
    """
    lacking = []
    for role in EVALUATED_ROLES:
        chosen = labels[is_member(labels.index, split.loc[split["role"] == role, "image_id"])]
        if role == "train" and not len(chosen):
            continue  # a data set may be for evaluation only
        for target in labels.columns:
            for name_of_class, value in (("positive", 1.0), ("negative", 0.0)):
                if not (chosen[target] == value).any():
                    lacking.append(f"{role} has no {name_of_class} image of '{target}'")
    more = f", and {len(lacking) - 3} more such" if len(lacking) > 3 else ""
    text = f"split '{name}': {', '.join(lacking[:3])}{more}"
    advice = "add images, or draw a split with other shares; nothing can be evaluated there"
    return [Problem("one_class", "warning", text, len(lacking), (), advice, "case", split=name)]
