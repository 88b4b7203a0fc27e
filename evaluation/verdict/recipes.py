"""Settings in which the trainings of systems differ, from what their runs record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

_OF_RUN = ("parameters", "n_train", "n_boxes", "n_labels", "epochs", "seconds_training")
"""Facts of a run that stand beside its configuration."""
_NO_CONDITIONS = ("training.seed", "model.compile", "kind")


def recipe_table(records: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return the settings of each training: a row a setting, a column a system that was trained.

    The settings are those of the configuration, by key, with the input size and counts of the run.
    """
    columns = {
        name: pd.Series(_settings(record["recipe"]), dtype=object)
        for name, record in records.items()
        if record.get("recipe")
    }
    return pd.DataFrame(columns, dtype=object).fillna("").map(str)


def differing(table: pd.DataFrame) -> pd.DataFrame:
    """Return the settings in which not all systems are equal."""
    return table[table.nunique(axis=1) > 1]


def _settings(recipe: Mapping[str, Any]) -> dict[str, Any]:
    settings = {"network": recipe.get("network"), **(recipe.get("preprocess") or {})}
    for section, values in (recipe.get("config") or {}).items():
        if isinstance(values, Mapping):
            settings |= {f"{section}.{key}": value for key, value in values.items()}
    settings |= {key: (recipe.get("run") or {}).get(key) for key in _OF_RUN}
    return {key: value for key, value in settings.items() if key not in _NO_CONDITIONS}
