"""Tables on where each system fails, by their names in the template of the page."""

from __future__ import annotations

from typing import Any

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.report.exposure_tables import exposure_tables
from cxr_compare.evaluation.report.group_tables import (
    group_grids,
    groups_lead,
    lesion_grid,
    subgroup_tables,
)
from cxr_compare.evaluation.report.joint_table import joint_table
from cxr_compare.evaluation.report.prevalence_table import prevalence_table
from cxr_compare.evaluation.report.shortcut_table import shortcut_table
from cxr_compare.evaluation.report.system_rows import corrections_table, error_kinds_table
from cxr_compare.evaluation.report.table import Table
from cxr_compare.evaluation.report.validation_to_test import validation_to_test_table


def further_tables(comparison: Comparison) -> dict[str, Any]:
    """Return the tables of errors, lesions, groups and corrections, and those that are folded.

    The values are lists of tables under the names by which the page's template uses them, and the
    text above the tables of groups as ``groups_lead``.
    """
    failures = comparison.failures
    errors = [error_kinds_table(comparison), lesion_grid(comparison)]
    corrections = [corrections_table(comparison)]
    folded = [validation_to_test_table(comparison)]
    if len(failures):
        corrections.append(joint_table(comparison))
        folded += [prevalence_table(comparison), shortcut_table(comparison)]
    return {
        "errors": _present(errors),
        "groups": group_grids(comparison),
        "groups_lead": groups_lead(comparison),
        "subgroups": subgroup_tables(comparison, comparison.main_policy),
        "corrections": _present(corrections),
        "folded": [*_present(folded), *exposure_tables(comparison)],
    }


def _present(tables: list[Table | None]) -> list[Table]:
    return [table for table in tables if table is not None]
