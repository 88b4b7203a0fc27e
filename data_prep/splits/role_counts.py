"""Count images, patients and positives in each role of a split."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from cxr_compare.data_prep.contracts.schemas import ROLES
from cxr_compare.data_prep.store.dataset import DataSet

_POSITIVE = "positive for "
_TARGETS_IN_LINE = 3


def count_roles(dataset: DataSet, split: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Count what each role of a split holds."""
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
    """Say what `count_roles` counted."""
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
