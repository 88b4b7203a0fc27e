"""Conditions of training, such as the input size, in which the compared systems differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cxr_compare.data_prep.contracts.errors import counted


def unequal_conditions(records: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Find the conditions of training, such as the input size, in which systems differ.

    If two systems were trained under unequal conditions, the difference in their figures may come
    from the conditions, and not only from the kinds of the systems.

    Args:
        records: Record of each system by its display name: what is known about its training. The
            record of a system that cxr-compare trained has the key ``recipe``, a dictionary with
            ``config``, ``preprocess`` and ``run``. Systems without this key are left out.

    Returns:
        By condition, such as ``input size``, and display name, the value of each system in words. A
        condition is included if it is known for at least two systems and not equal for all of them.

    Example:
        >>> def record(size):
        ...     preprocess = {"size": size}
        ...     run = {"n_train": 500, "epochs": 6}
        ...     return {"recipe": {"config": {}, "preprocess": preprocess, "run": run}}
        >>> unequal_conditions({"A": record(128), "B": record(96)})
        {'input size': {'A': '128 px', 'B': '96 px'}}
    """
    by_system = {
        name: _conditions(record["recipe"])
        for name, record in records.items()
        if record.get("recipe")
    }
    kinds = dict.fromkeys(kind for conditions in by_system.values() for kind in conditions)
    unequal: dict[str, dict[str, str]] = {}
    for kind in kinds:
        values = {name: each[kind] for name, each in by_system.items() if kind in each}
        if len(set(values.values())) > 1:
            unequal[kind] = values
    return unequal


def _conditions(recipe: Mapping[str, Any]) -> dict[str, str]:
    """Return the known conditions of one training, each in words."""
    conditions: dict[str, str] = {}
    size = (recipe.get("preprocess") or {}).get("size")
    if size is not None:
        conditions["input size"] = f"{size} px"
    run = recipe.get("run") or {}
    if run.get("n_train") is not None:
        conditions["training images"] = f"{run['n_train']:,}"
    if run.get("epochs") is not None:
        conditions["length of training"] = counted(run["epochs"], "epoch")
    weights = (recipe.get("config") or {}).get("model", {}).get("weights")
    if weights is not None:
        conditions["first weights"] = "random" if weights == "none" else str(weights)
    return conditions
