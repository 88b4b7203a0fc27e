"""Files of a report folder for programs: tables as CSV and Parquet, and ``metrics.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.csv_files import write_csv
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.json_files import write_json
from cxr_compare.data_prep.contracts.tables import write_table
from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.cost_table import cost_frame
from cxr_compare.evaluation.report.metrics_json import metrics_json
from cxr_compare.evaluation.report.tidy_tables import all_units, failures_table, tests_table


def write_data_files(comparison: Comparison, out: Path, call: dict[str, Any] | None = None) -> None:
    """Write the files of a report that programs read.

    These are ``metrics.csv`` (all metrics), ``tests.csv`` (tests of differences), ``where.csv``
    (metrics in groups of images and lesions), ``costs.csv`` (size and time of each system) and
    ``decisions.parquet`` (scores and decisions for each image).
    ``metrics.json`` holds all tables but the decisions; it is written last, so its presence shows
    that the folder is complete.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        out: Folder of the report; it is made if necessary.
        call: Resolved call of the command that made the report, which is stored in
            ``metrics.json``; None to store none.
    """
    make_folder(out)
    tables = {
        files.METRICS_TABLE: all_units(comparison),
        files.TESTS_TABLE: tests_table(comparison),
        files.WHERE_TABLE: failures_table(comparison),
        files.COSTS_TABLE: cost_frame(comparison),
    }
    for name, table in tables.items():
        write_csv(table, out / name)
    decisions = comparison.decisions
    if not comparison.patients_known:  # the column then holds ids of images
        decisions = decisions.drop(columns="patient_id", errors="ignore")
    write_table(decisions, out / files.DECISIONS, "decisions")
    write_json(out / files.METRICS, "metrics", metrics_json(comparison) | {"call": call})
