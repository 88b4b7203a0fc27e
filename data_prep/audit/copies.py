"""Pictures that stand in a data set more than once, the worse the more their copies disagree."""

from __future__ import annotations

import pandas as pd

from data_prep.audit.patients import (
    JUDGED_ROLES,
    aligned,
    contrasting_pairs,
    differing,
    find_duplicates,
)
from data_prep.audit.problem import Problem, Severity
from data_prep.contracts.text_lookup import is_member
from data_prep.duplicates.near_duplicates import NearDuplicates

_AGAIN = "draw the split anew: cxr split DATA --name NAME keeps copies together"
_PATIENTS = "find out whose film it is and correct the ids, or remove one of the two"
_LABELS = "read the film again and correct the label, or leave the film out"


def check_duplicates(
    images: pd.DataFrame,
    decode: pd.DataFrame,
    labels: pd.DataFrame,
    splits: dict[str, pd.DataFrame],
) -> list[Problem]:
    """Report pictures that are equal pixel for pixel.

    Args:
        images: Reads ``image_id``, ``patient_id``, ``patient_id_source``.
        decode: Reads ``image_id``, ``pixel_sha256``.
        labels: One column a target, indexed by ``image_id``.
        splits: Splits by name.
    """
    twins = find_duplicates(decode)
    return _check(twins, images, labels, splits, "picture", "the same picture", "error", "")


def check_near_duplicates(
    near: NearDuplicates,
    images: pd.DataFrame,
    labels: pd.DataFrame,
    splits: dict[str, pd.DataFrame],
) -> list[Problem]:
    """Report pictures that are copies of each other without being equal.

    Args:
        near: What `data_prep.duplicates.near_duplicates.find_near_duplicates` found.
        images: As for `check_duplicates`.
        labels: Likewise.
        splits: Likewise.
    """
    notes = []
    turned = int((near.pairs["turn"] != "as it is").sum())
    unseen = int(near.pairs["correlation"].isna().sum())
    if turned:
        notes.append(f"{turned:,} of {len(near.pairs):,} pairs mirrored, turned or inverted")
    if unseen:
        notes.append(f"{unseen:,} of {len(near.pairs):,} pairs by fingerprint alone")
    note = f" ({'; '.join(notes)})" if notes else ""
    what = "a copy of the picture (stretched, compressed, resized or turned)"
    undecided = Problem(
        "near_unchecked",
        "warning",
        "pair of pictures that may be copies, not looked at",
        near.undecided,
        (),
        "make a pixel store (cxr prepare ... --size 256) and check again, so that more are read",
        "pair",
    )
    cut = Problem(
        "near_incomplete",
        "warning",
        "very many pictures look alike, so the search for copies was cut short",
        int(not near.complete),
        (),
        "look for blank or placeholder pictures and leave them out",
        "search",
    )
    found = _check(near.groups, images, labels, splits, "near", what, "warning", note)
    return [*found, undecided, cut]


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
    """Report groups of copies that have two roles, two labels, two patients, or merely repeat."""
    if copies.empty:
        return []
    twins = copies.merge(images[["image_id", "patient_id", "patient_id_source"]], on="image_id")
    problems = []
    for name, split in splits.items():
        used = split.loc[is_member(split["role"], JUDGED_ROLES), ["image_id", "role"]]
        apart = differing(twins.merge(used, on="image_id"), "group", "role")
        text = f"split '{name}': {what} in more than one role{note}"
        problems.append(_problem(f"{kind}_leak", "error", text, apart, "role", _AGAIN))
    truths = aligned(labels, twins["image_id"])
    for column, target in enumerate(labels.columns):
        apart = differing(twins.assign(label=truths[:, column]), "group", "label")
        text = f"{what} is labelled differently for '{target}'"
        problems.append(_problem(f"{kind}_label", severity, text, apart, "label", _LABELS))
    # Where each film counts as a patient of its own, two ids contradict nothing.
    known = twins[(twins["patient_id_source"] != "assumed_image").to_numpy()]
    apart = differing(known, "group", "patient_id")
    text = f"{what} under more than one patient: one of the patient ids is wrong"
    problems.append(_problem(f"{kind}_patients", severity, text, apart, "patient_id", _PATIENTS))
    rest = twins[~is_member(twins["image_id"], apart["image_id"])]
    problems.append(
        Problem.of(
            f"{kind}_repeated",
            "warning" if severity == "error" else "info",
            f"{what} stands more than once{note}",
            rest["image_id"],
            advice="keep one: a film that stands twice counts twice",
            pairs=contrasting_pairs(rest, "group", "image_id"),
        )
    )
    return problems


def _problem(
    check: str, severity: Severity, text: str, apart: pd.DataFrame, column: str, advice: str
) -> Problem:
    pairs = contrasting_pairs(apart, "group", column)
    return Problem.of(check, severity, text, apart["image_id"], advice=advice, pairs=pairs)
