"""Counts of images, patients and positives in each role of a split."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from cxr_compare.data_prep.contracts.schemas import ROLES
from cxr_compare.data_prep.store.dataset import DataSet

_POSITIVE = "positive for "
_TARGETS_IN_LINE = 3


def count_roles(dataset: DataSet, split: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Count images, patients and positive images in each role (train, val, test, unused).

    Args:
        dataset: A prepared data set.
        split: Table with columns ``image_id`` and ``role``: train, val, test or unused.

    Returns:
        Counts by role and noun, such as ``{"train": {"images": 3, "patients": 2}}``; positive
        images are counted under ``positive for TARGET`` for each target (findings under one name).
        Empty roles are left out.
    """
    rows = dataset.images[["image_id", "patient_id"]].merge(split, on="image_id")
    labels = {
        str(name): rows["image_id"].map(dataset.labels(target)) == 1
        for name, target in dataset.targets.items()
    }
    counts = {}
    for role in ROLES:
        chosen = rows["role"] == role
        if chosen.any():
            positives = {_POSITIVE + k: int((flag & chosen).sum()) for k, flag in labels.items()}
            patients = int(rows.loc[chosen, "patient_id"].nunique())
            counts[role] = {"images": int(chosen.sum()), "patients": patients, **positives}
    return counts


def role_lines(roles: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return the counts of `count_roles` as lines of text for display.

    Args:
        roles: Counts by role (train, val, test, unused) and noun, such as ``images``.

    Returns:
        The lines without line breaks.

    Example:
        >>> role_lines({"test": {"images": 1200, "patients": 900}})
        ['  test   1,200 images, 900 patients']
    """
    filled = {role: counts for role, counts in roles.items() if counts["images"]}
    nouns = list(dict.fromkeys(noun for counts in filled.values() for noun in counts))
    targets = [noun for noun in nouns if noun.startswith(_POSITIVE)]
    own_lines = targets if len(targets) > _TARGETS_IN_LINE else []
    lines = []
    for role, counts in filled.items():
        texts = [f"{n:,} {noun}" for noun, n in counts.items() if noun not in own_lines]
        lines.append(f"  {role:6s} {', '.join(texts)}")
    for noun in own_lines:
        texts = [f"{counts[noun]:,} {role}" for role, counts in filled.items()]
        lines.append(f"  {noun}: {', '.join(texts)}")
    return lines
