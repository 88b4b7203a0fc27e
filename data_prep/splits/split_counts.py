"""What each role of a split holds, for a person and for a program."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from data_prep.contracts.schemas import ROLES
from data_prep.store.dataset import DataSet

_POSITIVE = "positive for "
_TARGETS_IN_LINE = 3


def count_roles(dataset: DataSet, split: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Count what each role of a split holds.

    Args:
        dataset: The data set.
        split: One of its splits.

    Returns:
        By role: ``images``, ``patients``, and ``positive for TARGET`` of each target; roles
        without an image are left out.
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
    """Say what `count_roles` counted.

    Args:
        roles: As from `count_roles`.

    Returns:
        A line a role; where there are more than three targets, a line a target besides.

    Example:
        >>> role_lines({"test": {"images": 1200, "patients": 9, "positive for mass": 3}})
        ['  test   1,200 images, 9 patients, 3 positive for mass']
    """
    held = {role: count for role, count in roles.items() if count["images"]}
    wanted = list(dict.fromkeys(word for count in held.values() for word in count))
    targets = [word for word in wanted if word.startswith(_POSITIVE)]
    apart = targets if len(targets) > _TARGETS_IN_LINE else []
    lines = []
    for role, count in held.items():
        words = [f"{n:,} {word}" for word, n in count.items() if word not in apart]
        lines.append(f"  {role:6s} {', '.join(words)}")
    for word in apart:
        found = [f"{count[word]:,} {role}" for role, count in held.items()]
        lines.append(f"  {word}: {', '.join(found)}")
    return lines
