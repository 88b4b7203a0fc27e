"""Tables of the folded part of the report, by their names in the template."""

from __future__ import annotations

from typing import Any

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.report.agreement_tables import agreement_tables, combination_table
from cxr_compare.evaluation.report.error_types import error_table
from cxr_compare.evaluation.report.exposure_tables import exposure_tables
from cxr_compare.evaluation.report.group_tables import group_tables, groups_lead, subgroup_tables
from cxr_compare.evaluation.report.joint_table import joint_table
from cxr_compare.evaluation.report.lesion_table import lesion_table
from cxr_compare.evaluation.report.prevalence_table import prevalence_table
from cxr_compare.evaluation.report.shortcut_table import shortcut_table
from cxr_compare.evaluation.report.table import Table
from cxr_compare.evaluation.report.validation_to_test import validation_to_test_table


def further_tables(comparison: Comparison) -> dict[str, Any]:
    """Return the tables of the part of the report that is folded at first.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        A table, a list of tables, or None, under the name by which the page's template uses it,
        such as ``transfer`` or ``subgroups``; and the text above the tables of groups as
        ``groups_lead``.
    """
    policy = comparison.main_policy
    return {
        "transfer": validation_to_test_table(comparison),
        "exposure": exposure_tables(comparison),
        "agreement": agreement_tables(comparison, policy),
        "subgroups": subgroup_tables(comparison, policy),
        "errors": error_table(comparison),
        "where": _where_tables(comparison),
        "groups": group_tables(comparison),
        "groups_lead": groups_lead(comparison),
    }


def _where_tables(comparison: Comparison) -> list[Table]:
    """Return those tables on lesions, combinations, prevalence and shortcuts that have a row."""
    if comparison.failures.empty:
        return []
    tables = (
        joint_table(comparison),
        lesion_table(comparison),
        combination_table(comparison),
        prevalence_table(comparison),
        shortcut_table(comparison),
    )
    return [table for table in tables if table is not None]
