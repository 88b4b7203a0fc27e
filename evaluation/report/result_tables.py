"""The tables of a report folder, for programs and for other statisticians."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from data_prep.contracts.folders import atomic_path, make_folder
from data_prep.contracts.tables import write_json, write_table
from evaluation.compare.comparison import Comparison
from evaluation.report.cost_table import cost_table
from evaluation.report.files import (
    COSTS_TABLE,
    DECISIONS,
    METRICS,
    METRICS_TABLE,
    TESTS_TABLE,
    WHERE_TABLE,
)


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
    with atomic_path(out / METRICS_TABLE) as temporary:
        metrics.to_csv(temporary, index=False)
    tables = {
        TESTS_TABLE: comparison.tests,
        WHERE_TABLE: comparison.where,
        COSTS_TABLE: cost_table(comparison),
    }
    for name, table in tables.items():
        with atomic_path(out / name) as temporary:
            table.to_csv(temporary, index=False)
    write_table(comparison.decisions, out / DECISIONS, "decisions")
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
    write_json(out / METRICS, "metrics", payload)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for JSON; what is undefined is null."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in rows]
