"""The tables of a report folder, for programs and for other statisticians."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from data_prep.folders import atomic_path, make_folder
from data_prep.tables import write_json, write_table
from evaluation.comparison import Comparison
from evaluation.costs import cost_table


def write_tables(comparison: Comparison, out: Path) -> None:
    """Write what programs read; ``metrics.json`` comes last and marks the folder complete.

    Beside it: ``metrics.csv``, ``tests.csv``, ``where.csv``, ``costs.csv``, ``decisions.parquet``.

    Args:
        comparison: From `compare_systems`.
        out: Report folder; made if need be.

    Raises:
        InputError: The folder cannot be written.
    """
    make_folder(out)
    metrics = pd.concat([comparison.metrics, comparison.by_unit], ignore_index=True)
    with atomic_path(out / "metrics.csv") as temporary:
        metrics.to_csv(temporary, index=False)
    tables = {
        "tests": comparison.tests,
        "where": comparison.where,
        "costs": cost_table(comparison),
    }
    for name, table in tables.items():
        with atomic_path(out / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
    write_table(comparison.decisions, out / "decisions.parquet", "decisions")
    payload = {
        "target": comparison.target.name,
        "systems": comparison.systems,
        "thresholds": comparison.thresholds,
        "costs": comparison.costs,
        "notes": comparison.notes,
        "metrics": _records(metrics),
        "coverage": comparison.coverage,
        "tests": _records(comparison.tests),
        "where": _records(comparison.where),
        "provenance": comparison.provenance,
    }
    write_json(out / "metrics.json", "metrics", payload)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for JSON; what is undefined is null."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in rows]
