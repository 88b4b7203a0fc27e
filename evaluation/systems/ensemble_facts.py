"""What a system made of others cost, what it has seen, and which it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from data_prep.contracts.tables import read_table
from data_prep.store.dataset import DataSet
from data_prep.store.predictions import Predictions
from evaluation.systems.exposure import SEEN_FILE

_SUMMED = (
    "parameters", "trainable_parameters", "flops", "size_bytes", "train_seconds", "latency_ms",
)  # fmt: skip
_GREATEST = ("train_peak_memory_bytes", "peak_memory_bytes")
_SAME_FOR_ALL = ("latency_device", "train_device", "precision", "image_size", "batch_size")
_ROLE_ORDER = ("train", "val", "test", "unused")


def joined_cost(members: Sequence[Predictions], made_of: str) -> dict[str, Any]:
    """The members' cost, one after the other; unknown where one is, or where devices differ.

    Memory is that of the member that needs most: one after the other, each gives its back.
    """
    costs = [dict(member.info.get("cost") or {}) for member in members]
    total: dict[str, Any] = {"made_of": made_of}
    for key in (*_SUMMED, *_GREATEST):
        values = [cost.get(key) for cost in costs]
        known = [value for value in values if value is not None]
        whole = max(known, default=None) if key in _GREATEST else sum(known)
        total[key] = whole if len(known) == len(values) else None
    for key in _SAME_FOR_ALL:
        values = [cost.get(key) for cost in costs]
        total[key] = values[0] if all(value == values[0] for value in values) else None
    if total["latency_device"] is None or len({cost.get("precision") for cost in costs}) > 1:
        total["latency_ms"] = None
    if total["train_device"] is None:
        total["train_seconds"] = None
    return total


def joined_seen(members: Sequence[Predictions]) -> tuple[pd.DataFrame | None, list[str]]:
    """Every image that any member learned from, and the members of which that is unknown.

    Returns:
        ``image_id``, ``patient_id``, ``role`` (of several roles the one that taught most), or
        `None` where no member tells; and the names of the members that do not tell.
    """
    parts, unknown = [], []
    for member in members:
        path = member.folder / SEEN_FILE
        unknown += [*member.info.get("seen_unknown", [])]
        if path.is_file():
            parts.append(read_table(path, "seen"))
        elif not member.info.get("seen_unknown"):
            unknown.append(member.name)
    if not parts:
        return None, unknown
    every = pd.concat(parts, ignore_index=True)
    order = every["role"].map({role: rank for rank, role in enumerate(_ROLE_ORDER)})
    every = every.iloc[np.argsort(order.to_numpy(), kind="stable")]
    return every.drop_duplicates("image_id").sort_values("image_id").reset_index(drop=True), unknown


def joined_id(members: Sequence[Predictions], settings: dict[str, Any]) -> str:
    """Digest of all that decides the result: the members, in order, and the settings."""
    ids = [member.info.get("inference_id") for member in members]
    text = json.dumps([ids, settings], sort_keys=True, default=str)
    return "ensemble-" + hashlib.sha256(text.encode()).hexdigest()[:16]


def with_gate_images(seen: pd.DataFrame | None, dataset: DataSet, split: str) -> pd.DataFrame:
    """Add the validation images of a split: a gate chosen on them has seen them.

    On another split, where some of their patients are in the test part, `compare` then refuses.

    Args:
        seen: ``image_id``, ``patient_id``, ``role``, or `None`.
        dataset: Whose images they are.
        split: Name of the split.
    """
    chosen_on = dataset.image_ids("val", split)
    images = dataset.images.set_index("image_id").reindex(chosen_on)
    added = pd.DataFrame(
        {"image_id": chosen_on.to_numpy(), "patient_id": images["patient_id"].to_numpy()}
    ).assign(role="val")
    if seen is None:
        return added
    taught = seen[seen["role"].isin(["train", "val"])]
    every = pd.concat([taught, added, seen], ignore_index=True).drop_duplicates("image_id")
    return every.sort_values("image_id").reset_index(drop=True)
