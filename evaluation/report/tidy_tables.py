"""Tidy tables of a comparison, with one row for each figure, paired test or failure."""

from __future__ import annotations

import pandas as pd

from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.report.unknown_patients import image_worded_table


def all_units(comparison: Comparison) -> pd.DataFrame:
    """Return the tidy table of all figures by image and, if evaluated, by study or patient.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        One row for each figure and paired difference.
    """
    of_units = None if comparison.by_unit is None else comparison.by_unit.table()
    return _by_unit(comparison, pd.concat([comparison.metrics, of_units], ignore_index=True))


def tests_table(comparison: Comparison) -> pd.DataFrame:
    """Return the paired tests of every pair of systems.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        One row for each test.
    """
    return _by_unit(comparison, comparison.tests_with_holm.reset_index(drop=True))


def failures_table(comparison: Comparison) -> pd.DataFrame:
    """Return the figures of groups of images, lesions and patients.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        One row for each figure of a group.
    """
    return _by_unit(comparison, comparison.failures.infer_objects())


def _by_unit(comparison: Comparison, table: pd.DataFrame) -> pd.DataFrame:
    return table if comparison.patients_known else image_worded_table(table)
