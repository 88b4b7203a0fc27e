"""Tidy tables of a comparison, with one row for each figure, paired test or failure."""

from __future__ import annotations

import pandas as pd

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.report.unknown_patients import image_worded_table


def all_units(comparison: Comparison) -> pd.DataFrame:
    """Return the content of ``metrics.csv``: values of all metrics, by image, study or patient.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        One row for each metric of a system or of a difference (``A - B``), with columns such as
        ``unit``, ``subgroup``, ``system``, ``policy`` (rule for the threshold), ``metric``,
        ``estimate``, ``ci_low`` and ``ci_high``. Rows by study or patient are present if they were
        computed.
    """
    of_units = None if comparison.by_unit is None else comparison.by_unit.table()
    return _by_unit(comparison, pd.concat([comparison.metrics, of_units], ignore_index=True))


def tests_table(comparison: Comparison) -> pd.DataFrame:
    """Return the content of ``tests.csv``: tests of the differences between every two systems.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        One row for each test, with columns such as ``first`` and ``second`` (names of the systems),
        ``metric``, ``method``, ``p_value`` and ``p_holm`` (after Holm's correction).
    """
    return _by_unit(comparison, comparison.tests_with_holm.reset_index(drop=True))


def failures_table(comparison: Comparison) -> pd.DataFrame:
    """Return the content of ``where.csv``: metrics in groups of images, lesions and patients.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        One row for each value in a group, such as the AUROC of a system in an age group, with
        columns such as ``topic`` (such as ``sex``), ``group`` (such as ``F``), ``system``,
        ``metric``, ``estimate``, ``ci_low`` and ``ci_high``.
    """
    return _by_unit(comparison, comparison.failures.infer_objects())


def _by_unit(comparison: Comparison, table: pd.DataFrame) -> pd.DataFrame:
    return table if comparison.patients_known else image_worded_table(table)
