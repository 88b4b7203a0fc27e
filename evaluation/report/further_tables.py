"""The tables of the folded part of the report, by their names in its template."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.report.agreement_tables import (
    agreement_tables,
    combination_table,
    reader_verdict_tables,
)
from cxr_compare.evaluation.report.error_types import error_table
from cxr_compare.evaluation.report.group_tables import group_tables, lesion_table, subgroup_tables
from cxr_compare.evaluation.report.prevalence_table import prevalence_table
from cxr_compare.evaluation.report.published_figures import published_table
from cxr_compare.evaluation.report.shortcut_table import shortcut_table
from cxr_compare.evaluation.report.table import Table
from cxr_compare.evaluation.report.templates import sentence
from cxr_compare.evaluation.report.uncounted_images import uncounted_table
from cxr_compare.evaluation.report.validation_to_test import validation_to_test_table


def further_tables(comparison: Comparison, sources: Collection[str]) -> dict[str, Any]:
    """The tables of the folded part of the report, by their names in the template."""
    policy = comparison.main_policy
    return {
        "published": published_table(comparison, sources, policy),
        "transfer": validation_to_test_table(comparison),
        "uncounted": uncounted_table(comparison, policy),
        "agreement": reader_verdict_tables(comparison) + agreement_tables(comparison, policy),
        "subgroups": subgroup_tables(comparison, policy),
        "errors": error_table(comparison),
        "where": _where_tables(comparison),
        "groups": group_tables(comparison),
        "groups_lead": sentence("groups"),
    }


def _where_tables(comparison: Comparison) -> list[Table]:
    """Return kinds of lesion, combination, predictive values and shortcuts."""
    if comparison.failures.empty:
        return []
    tables = (lesion_table, combination_table, prevalence_table, shortcut_table)
    return [grid for table in tables if (grid := table(comparison)) is not None]
