"""Tables and charts of groups, lesions, errors and shortcuts."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cxr_compare.evaluation.figures import Figures
from cxr_compare.evaluation.groups.shares import FAILURE_COLUMNS, TOO_FEW
from cxr_compare.evaluation.report.curves import curve_table
from cxr_compare.evaluation.report.error_types import error_table
from cxr_compare.evaluation.report.further_tables import further_tables
from cxr_compare.evaluation.report.group_tables import (
    group_grids,
    group_tables,
    groups_lead,
    subgroup_tables,
)
from cxr_compare.evaluation.sources.stored_predictions import compare_predictions
from cxr_compare.evaluation.statistics.figure_text import DASH


def where_tables(comparison):
    tables = further_tables(comparison)
    return [*tables["errors"], *tables["corrections"], *tables["folded"]]


def test_subgroup_that_nobody_named_here_is_shown(comparison, make_metrics):
    rows = [
        ("RetinaNet", "", "auroc", 0.7, 0.6, 0.8),
        ("CheXNet", "", "auroc", 0.6, 0.5, 0.7),
        ("RetinaNet - CheXNet", "", "auroc", 0.1, -0.1, 0.3),
    ]
    extra = make_metrics(rows).assign(subgroup="x_scanner=mobile", n_images=7, n_positive=3)
    metrics = pd.concat([comparison.metrics, extra], ignore_index=True)
    (grid,) = subgroup_tables(replace(comparison, figures=Figures.from_table(metrics)), "max_f1")
    assert grid.rows == (
        (
            "x scanner=mobile",
            "7 images, 3 positive",
            "0.700 (0.600 to 0.800)",
            "0.600 (0.500 to 0.700)",
            "0.100 (−0.100 to 0.300)",
        ),
    )
    assert subgroup_tables(comparison, "max_f1") == []


@pytest.fixture
def failures_of_two(comparison):
    """Add invented figures to a comparison: a group, a kind of lesion, a kind of error, a curve."""

    def row(topic, group, system, metric, estimate, of=9.0):
        p = (0.01, 0.2) if group.endswith("rest") else (np.nan, np.nan)
        return (
            topic,
            group,
            system,
            "",
            metric,
            estimate,
            estimate - 0.1,
            estimate + 0.1,
            "b",
            1.0,
            of,
            9,
            "",
            *p,
        )

    rows = []
    for name, shift in (("RetinaNet", 0.0), ("CheXNet", 0.1), ("RetinaNet - CheXNet", -0.7)):
        rows += [
            row("sex", "F", name, "recall", 0.6 + shift),
            row("sex", "not F", name, "recall", 0.3 + shift),
            row("sex", "F - rest", name, "recall", 0.25 + shift),
            row("errors", "", name, "missed", 0.4 + shift),
            row("lesions by lesion_size", "over 6 %", name, "lesion_recall", 0.7 + shift, 5.0),
            row("lesions by lesion_size", "up to 2 %", name, "lesion_recall", 0.2 + shift, 3.0),
            row("decision_curve", "0.1", name, "net_benefit_calibrated", 0.2 + shift),
            row("decision_curve", "0.5", name, "net_benefit_calibrated", 0.1 + shift),
        ]
    rows += [
        row("decision_curve", "0.1", "call every image positive", "net_benefit", 0.1),
        row("shortcut", "view", "shortcut", "auroc", 0.69),
        row("beyond shortcut", "view", "RetinaNet", "auroc", 0.2),
        row("agreement", "", "RetinaNet & CheXNet", "kappa", 0.5),
    ]
    return replace(comparison, failures=pd.DataFrame(rows, columns=list(FAILURE_COLUMNS)))


def net_benefit(comparison):
    table = curve_table(comparison)
    return table[table["chart"] == "net-benefit"]


def rows_of(tables, title):
    (grid,) = [table for table in tables if table.title == title]
    assert all(len(row) == len(grid.columns) for row in grid.rows)
    return {row[0]: row[1:] for row in grid.rows}


def lowest_groups(table):
    """Return each system's lowest group, and True if the lead calls its difference shown."""
    pattern = r"(\w+) is lowest in (.*?), (and is|where it is not) shown"
    return {
        system: (group, verb == "and is") for system, group, verb in re.findall(pattern, table.lead)
    }


def test_group_stands_with_its_gap_to_the_rest_and_the_rest_is_no_group(failures_of_two):
    rows = rows_of(group_tables(failures_of_two), "Sensitivity (recall)")
    assert rows == {
        "Sex: F": (
            "9",
            "0.600 (0.500 to 0.700)",
            "0.700 (0.600 to 0.800)",
            "0.250 (0.150 to 0.350); Holm p 0.200",
            "0.350 (0.250 to 0.450); Holm p 0.200",
            "−0.450 (−0.550 to −0.350); Holm p 0.200",
        ),
    }


def test_the_lowest_group_is_named_with_whether_it_is_shown_and_a_shown_gap_is_marked(
    failures_of_two,
):
    (grid,) = group_tables(failures_of_two)
    assert grid.columns[1] == "Positive images"
    assert lowest_groups(grid) == {"RetinaNet": ("Sex: F", False), "CheXNet": ("Sex: F", False)}
    failures = failures_of_two.failures
    gap = (failures["group"] == "F - rest") & (failures["system"] == "CheXNet")
    failures.loc[gap, "p_holm"] = 0.04
    (grid,) = group_tables(failures_of_two)
    assert lowest_groups(grid) == {"RetinaNet": ("Sex: F", False), "CheXNet": ("Sex: F", True)}
    assert grid.rows[0][5] == "● 0.350 (0.250 to 0.450); Holm p 0.040"
    failures.loc[gap, "ci_low"] = -0.003  # p of another method does not show it alone
    assert group_tables(failures_of_two)[0].rows[0][5] == "0.350 (−0.003 to 0.450); Holm p 0.040"


def test_lead_of_groups_counts_the_tests(failures_of_two):
    lead = groups_lead(failures_of_two)
    assert "over all 3 tests" in lead
    failures = failures_of_two.failures
    gaps = failures["p_holm"].notna()
    failures.loc[gaps, "p_holm"] = float("nan")
    assert "Holm" not in groups_lead(failures_of_two)


def test_two_groups_have_one_difference_for_both(failures_of_two):
    failures = failures_of_two.failures
    failures.loc[failures["group"] == "not F", ["group", "estimate"]] = "M", 0.9
    failures.loc[failures["group"] == "F - rest", ["group", "p_holm"]] = "M - rest", 0.01
    (grid,) = group_tables(failures_of_two)
    assert lowest_groups(grid)["RetinaNet"] == ("Sex: F", True)


def test_a_group_of_too_few_patients_shows_its_counts(failures_of_two):
    failures = failures_of_two.failures
    few = (failures["group"] == "F") & (failures["system"] == "RetinaNet")
    failures.loc[few, ["ci_low", "ci_high", "note"]] = np.nan, np.nan, TOO_FEW
    failures.loc[few, ["count", "of"]] = 3.0, 4.0
    gap = (failures["group"] == "F - rest") & (failures["system"] == "RetinaNet")
    failures.loc[gap, ["ci_low", "ci_high", "p_holm", "of", "note"]] = (
        np.nan,
        np.nan,
        np.nan,
        np.nan,
        TOO_FEW,
    )
    cells = rows_of(group_tables(failures_of_two), "Sensitivity (recall)")["Sex: F"]
    assert (cells[1], cells[3]) == ("3 of 4", DASH)


def test_small_lesions_come_before_large_ones(failures_of_two):
    rows = rows_of(where_tables(failures_of_two), "Lesions found")
    assert list(rows) == ["Lesion size: up to 2 %", "Lesion size: over 6 %"]
    first, _, count = rows["Lesion size: up to 2 %"]
    assert (str(first), count) == ("0.200 (0.100 to 0.300)", "3")


def test_page_marks_a_group_that_is_shown_to_differ(failures_of_two):
    failures = failures_of_two.failures
    failures["policy"] = "max_f1"
    gap = (failures["group"] == "F - rest") & (failures["system"] == "CheXNet")
    failures.loc[gap, "p_holm"] = 0.04
    (grid,) = group_grids(failures_of_two)
    assert [str(cell) for cell in grid.rows[0]] == [
        "Sex: F",
        "0.600 (0.500 to 0.700)",
        "● 0.700 (0.600 to 0.800)",
        "9",
    ]


def test_errors_and_corrections_count_every_image_once(comparison):
    # hand-counted from the twelve images; p05 and p06 are right as images, whatever the place
    (errors,) = further_tables(comparison)["errors"]
    missed, alarms = ([str(row[place]) for row in errors.rows] for place in (1, 2))
    assert (missed, alarms) == (
        ["2 (of 6 (33 %))", "2 (of 6 (33 %))"],
        ["1 (of 6 (17 %))", "1 (of 6 (17 %))"],
    )
    (corrections,) = further_tables(comparison)["corrections"]
    assert [[str(cell) for cell in row] for row in corrections.rows] == [
        ["RetinaNet", "3", "", "2 (1 missed, 1 false alarms)"],
        ["CheXNet", "3", "2 (1 missed, 1 false alarms)", ""],
    ]


def test_undecided_system_corrects_nobody(comparison):
    called = comparison.decisions["system"] == "CheXNet"
    comparison.decisions.loc[called, "decision_max_f1"] = pd.NA
    assert further_tables(comparison)["corrections"] == []


def test_shortcut_stands_beside_the_systems(failures_of_two):
    rows = rows_of(where_tables(failures_of_two), "Shortcuts")
    assert rows["Predicted from view"] == ("0.690 (0.590 to 0.790)", "")
    # The difference has a column of its own: it is no AUROC.
    assert rows["RetinaNet"] == ("0.891 (0.851 to 0.921)", "0.200 (0.100 to 0.300)")
    assert [grid.title for grid in group_tables(failures_of_two)] == ["Sensitivity (recall)"]


def test_kinds_that_were_not_counted_have_no_row(failures_of_two):
    assert [row[0].split(":")[0] for row in error_table(failures_of_two).rows] == ["Missed lesion"]
    titles = {grid.title for grid in where_tables(failures_of_two)}
    assert "At the given prevalence" not in titles


def test_errors_are_counts_with_intervals(failures_of_two):
    (row,) = error_table(failures_of_two).rows
    assert row[1:] == ("4 (3 to 4)", "4 (4 to 5)")  # 0.4 and 0.5 of nine, each to 0.1 more


def test_decision_curve_lies_where_its_figures_are(failures_of_two):
    rows = net_benefit(failures_of_two)
    curve = rows[rows["system"] == "RetinaNet"]
    assert set(rows["system"]) == {"RetinaNet", "CheXNet", ""}
    assert (curve["x"].tolist(), curve["y"].tolist()) == ([0.1, 0.5], [0.2, 0.1])
    assert rows.loc[rows["kind"] == "guide", "y"].tolist() == [0.1]  # calling all positive


def test_comparison_without_these_figures_shows_none(comparison):
    assert group_grids(comparison) == group_tables(comparison) == []
    assert error_table(comparison) is None
    assert net_benefit(comparison).empty


def test_every_topic_of_a_real_comparison_is_shown(test_set, predict):
    systems = {"Detector": predict("det", "boxes"), "Classifier": predict("cls", maps=True)}
    compared = compare_predictions(systems, test_set, replicates=20)
    titles = {grid.title for grid in where_tables(compared)}
    assert {"Kinds of error", "Lesions found", "Which system corrects whom"} <= titles
    kinds = {row[0].split(":")[0]: row[1:] for row in error_table(compared).rows}
    titles = ["Missed lesion", "Poorly placed box", "Duplicate box", "Box on background"]
    assert list(kinds) == titles
    counts = compared.failures.query("topic == 'errors'").set_index(["metric", "system"])["count"]
    assert kinds["Missed lesion"][0].startswith(f"{counts['missed', 'Detector']:.0f} (")
    assert kinds["Box on background"][1].startswith(f"{counts['background', 'Classifier']:.0f} (")
    assert set(net_benefit(compared)["system"]) == {"Detector", "Classifier", ""}
