from dataclasses import replace

import pandas as pd
import pytest

from evaluation.compare.compare import compare_systems
from evaluation.compare.shares import FAILURE_COLUMNS
from evaluation.report.charts import report_charts
from evaluation.report.grids import group_tables, where_tables


@pytest.fixture(scope="module")
def columns():
    return list(FAILURE_COLUMNS)


@pytest.fixture
def told(comparison, columns):
    """Two systems, a group, a lesion kind, an error kind, a curve; all made up."""

    def row(topic, group, system, metric, estimate, of=9.0):
        return (topic, group, system, "", metric, estimate, estimate - 0.1, estimate + 0.1, "b",
                1.0, of, 9, "")  # fmt: skip

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
            row("cost_curve", "0", name, "expected_cost", 0.2 + shift),
            row("cost_curve", "1", name, "expected_cost", 0.3 + shift),
        ]
    rows += [
        row("decision_curve", "0.1", "call every image positive", "net_benefit", 0.1),
        row("shortcut", "view", "shortcut", "auroc", 0.69),
        row("agreement", "", "RetinaNet & CheXNet", "kappa", 0.5),
    ]
    return replace(comparison, failures=pd.DataFrame(rows, columns=columns))


def charts_of(comparison):
    return {chart.key: chart for chart in report_charts(comparison)}


def rows_of(grids, title):
    (grid,) = [each for each in grids if each.title == title]
    assert all(len(row) == len(grid.columns) for row in grid.rows)
    return {row[0]: row[1:] for row in grid.rows}


def test_group_stands_with_its_gap_to_the_rest_and_the_rest_is_no_group(told):
    rows = rows_of(group_tables(told), "Sensitivity (recall)")
    assert rows == {
        "Sex: F": ("9", "0.600 (0.500 to 0.700)", "0.700 (0.600 to 0.800)",
                   "0.250 (0.150 to 0.350)", "0.350 (0.250 to 0.450)"),
    }  # fmt: skip


def test_small_lesions_come_before_large_ones(told):
    rows = rows_of(where_tables(told), "Kinds of lesion")
    assert list(rows) == ["Lesion size: up to 2 %", "Lesion size: over 6 %"]
    assert rows["Lesion size: up to 2 %"][:2] == ("3", "0.200 (0.100 to 0.300)")
    assert rows["Lesion size: up to 2 %"][3] == "−0.500 (−0.600 to −0.400)"


def test_shortcut_stands_beside_the_systems(told):
    rows = rows_of(where_tables(told), "Shortcuts")
    assert rows["Predicted from view"] == ("0.690 (0.590 to 0.790)",)
    assert rows["RetinaNet"] == ("0.891 (0.851 to 0.921)",)


def test_kinds_that_were_not_counted_have_no_row(told):
    assert list(rows_of(where_tables(told), "Kinds of error")) == ["Lesions missed"]
    titles = {grid.title for grid in where_tables(told)}
    assert "At the given prevalence" not in titles


def test_decision_curve_lies_where_its_figures_are(told):
    chart = charts_of(told)["net-benefit"]
    assert [curve.name for curve in chart.curves] == ["RetinaNet", "CheXNet"]
    assert (chart.y.ticks[0][1], chart.y.ticks[-1][1]) == ("−0.05", "0.30")
    assert (chart.x.high, chart.y.low, chart.y.high) == (0.8, -0.05, 0.3)
    assert chart.curves[0].x.tolist() == [0.1, 0.5]
    assert chart.curves[0].y.tolist() == [0.2, 0.1]
    assert chart.guides[0][1].tolist() == [0.1]  # calling every image positive


def test_cost_curve_is_drawn_for_the_systems_alone(told):
    assert [curve.name for curve in charts_of(told)["cost"].curves] == ["RetinaNet", "CheXNet"]


def test_comparison_without_these_figures_shows_none(comparison):
    assert where_tables(comparison) == group_tables(comparison) == []
    assert not {"net-benefit", "cost"} & set(charts_of(comparison))


def test_every_topic_of_a_real_comparison_is_shown(judged_set, predict):
    systems = {"Detector": predict("det", "boxes"), "Classifier": predict("cls", maps=True)}
    found = compare_systems(systems, judged_set, judged_set.target(), replicates=20)
    titles = {grid.title for grid in where_tables(found)}
    assert {"Kinds of error", "Kinds of lesion", "Agreement and combination"} <= titles
    missed = found.failures.query(
        "topic == 'errors' and metric == 'missed' and system == 'Detector'"
    )
    shown = rows_of(where_tables(found), "Kinds of error")["Lesions missed"][0]
    assert shown.startswith(f"{missed['estimate'].iloc[0]:.3f}")
    assert len(charts_of(found)["net-benefit"].curves) == 2
    assert len(charts_of(found)["cost"].curves) == 2
