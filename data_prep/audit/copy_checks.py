"""Checks for images that a data set contains more than once, and for copies whose labels differ."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from cxr_compare.data_prep.audit.image_groups import (
    evaluated_images,
    find_duplicates,
    labels_of_images,
    rows_that_differ,
)
from cxr_compare.data_prep.audit.problem import Problem, Severity
from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.duplicates.near_duplicates import NearDuplicates

_PATIENTS = "find out whose image it is and correct the ids, or remove one copy"
_LABELS = "read the image again and correct the label, or leave the image out"


def check_duplicates(
    images: pd.DataFrame,
    decode: pd.DataFrame,
    labels: pd.DataFrame,
    splits: dict[str, pd.DataFrame],
) -> list[Problem]:
    """Report images that are equal pixel for pixel.

    Args:
        images: Images table: one row for each image, with patient, path and size.
        decode: Decode table with the digest ``pixel_sha256`` of the pixels of each image.
        labels: Label of each image (row, indexed by ``image_id``) for each target (column; findings
            that together make an image positive): 1 positive, 0 negative, NaN unknown.
        splits: By name of a split, the table that gives each image the role train, val, test or
            unused.

    Returns:
        Problems: images that occur more than once, and more serious ones if copies have different
        labels, patients or roles.
    """
    twins = find_duplicates(decode)
    return _check(twins, images, labels, splits, "image", "the same image", "error", "")


def check_near_duplicates(
    near: NearDuplicates,
    images: pd.DataFrame,
    labels: pd.DataFrame,
    splits: dict[str, pd.DataFrame],
) -> list[Problem]:
    """Report copies of images that are not equal pixel for pixel, such as a compressed copy.

    Args:
        near: Pairs of images that look alike, as the search for near duplicates found them in the
            data set.
        images: Images table: one row for each image, with patient, path and size.
        labels: Label of each image (row, indexed by ``image_id``) for each target (column; findings
            that together make an image positive): 1 positive, 0 negative, NaN unknown.
        splits: By name of a split, the table that gives each image the role train, val, test or
            unused.

    Returns:
        Problems: such copies, and more serious ones if copies have different labels, patients or
        roles.
    """
    notes = []
    turned = int((near.pairs["turn"] != "as it is").sum())
    unseen = int(near.pairs["correlation"].isna().sum())
    pairs = counted(len(near.pairs), "pair")
    if turned:
        notes.append(f"{turned:,} of {pairs} mirrored, turned or inverted")
    if unseen:
        notes.append(f"{unseen:,} of {pairs} by fingerprint alone")
    note = f" ({'; '.join(notes)})" if notes else ""
    what = "a copy of the image (stretched, compressed, resized or turned)"
    text = "pair of images that may be copies, but whose pixels were not compared"
    advice = (
        "make a pixel store (cxr prepare ... --size 256) and check again, so that more images are "
        "compared"
    )
    unchecked = Problem("near_unchecked", "warning", text, near.undecided, (), advice, "pair")
    text = "very many images look alike, so the search for copies was cut short"
    advice = "look for blank or placeholder images and leave them out"
    cut = Problem("near_incomplete", "warning", text, int(not near.complete), (), advice, "search")
    problems = _check(near.groups, images, labels, splits, "near", what, "warning", note)
    return [*problems, unchecked, cut]


def _check(
    copies: pd.DataFrame,
    images: pd.DataFrame,
    labels: pd.DataFrame,
    splits: dict[str, pd.DataFrame],
    kind: str,
    what: str,
    severity: Severity,
    note: str,
) -> list[Problem]:
    """Report groups of copies with several roles, labels or patients, and other repeats."""
    if copies.empty:
        return []
    # A merge would look at all images, although there are few copies.
    is_copy = is_member(images["image_id"], copies["image_id"])
    of_copies = images.loc[is_copy, ["image_id", "patient_id", "patient_id_source"]]
    twins = copies.merge(of_copies, on="image_id")
    problems = []
    for name, split in splits.items():
        roles = evaluated_images(split[is_member(split["image_id"], twins["image_id"])])
        apart = rows_that_differ(twins.merge(roles, on="image_id"), "group", "role")
        text = f"split '{name}': {what} in more than one role{note}"
        leak = _problem(f"{kind}_leak", "error", text, apart, "role", "")
        problems.append(replace(leak, split=name))
    truths = labels_of_images(labels, twins["image_id"])
    for column, target in enumerate(labels.columns):
        apart = rows_that_differ(twins.assign(label=truths[:, column]), "group", "label")
        text = f"{what} is labelled differently for '{target}'"
        problems.append(_problem(f"{kind}_label", severity, text, apart, "label", _LABELS))
    # Where each image counts as a patient of its own, two ids do not contradict each other.
    named = twins[(twins["patient_id_source"] != "assumed_image").to_numpy()]
    apart = rows_that_differ(named, "group", "patient_id")
    text = f"{what} under more than one patient: one of the patient ids is wrong"
    problems.append(_problem(f"{kind}_patients", severity, text, apart, "patient_id", _PATIENTS))
    rest = twins[~twins["group"].isin(apart["group"])]
    problems.append(
        Problem.from_cases(
            f"{kind}_repeated",
            "warning" if severity == "error" else "info",
            f"{what} appears more than once{note}",
            rest["image_id"],
            advice="keep one: an image that appears more than once is counted more than once",
            contrast=(rest, "group", "image_id"),
        )
    )
    return problems


def _problem(
    check: str, severity: Severity, text: str, apart: pd.DataFrame, column: str, advice: str
) -> Problem:
    contrast = (apart, "group", column)
    return Problem.from_cases(
        check, severity, text, apart["image_id"], advice=advice, contrast=contrast
    )
