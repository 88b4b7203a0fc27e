"""The tables of groups and of what changed between validation and test, and what opens them."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_compare.evaluation.compare.estimates import Estimates
from cxr_compare.evaluation.compare.shares import FAILURE_COLUMNS, TOO_FEW
from cxr_compare.evaluation.compare.validation_to_test import VALIDATION
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.report.agreement_tables import agreement_tables
from cxr_compare.evaluation.report.charts import report_charts
from cxr_compare.evaluation.report.error_types import error_table
from cxr_compare.evaluation.report.further_tables import further_tables
from cxr_compare.evaluation.report.group_tables import group_tables, subgroup_tables
from cxr_compare.evaluation.report.methods import UNKNOWN, methods, read_entries
from cxr_compare.evaluation.report.published_figures import published_figures, published_table
from cxr_compare.evaluation.report.validation_to_test import validation_to_test_table
from cxr_compare.evaluation.statistics.figure_text import DASH
from cxr_compare.evaluation.systems.stored_predictions import compare_predictions


def test_agreement_counts_every_image_once(comparison):
    (grid,) = agreement_tables(comparison, "max_f1")
    rows = {row[0]: tuple(map(int, row[1:])) for row in grid.rows}
    # hand-counted from the twelve images; p05 and p06 are right as images, whatever the place
    assert rows == {
        "Both right": (3, 4, 7),
        "Only RetinaNet right": (1, 1, 2),
        "Only CheXNet right": (1, 1, 2),
        "Both wrong": (1, 0, 1),
    }


def where_tables(comparison):
    return further_tables(comparison, ())["where"]


def test_undecided_system_has_no_agreement(comparison):
    called = comparison.decisions["system"] == "CheXNet"
    comparison.decisions.loc[called, "decision_max_f1"] = pd.NA
    assert agreement_tables(comparison, "max_f1") == []
    assert agreement_tables(comparison, "no such policy") == []


def test_subgroup_that_nobody_named_here_is_shown(comparison, make_metrics):
    rows = [
        ("RetinaNet", "", "auroc", 0.7, 0.6, 0.8),
        ("CheXNet", "", "auroc", 0.6, 0.5, 0.7),
        ("RetinaNet - CheXNet", "", "auroc", 0.1, -0.1, 0.3),
    ]
    extra = make_metrics(rows).assign(subgroup="x_scanner=mobile", n_images=7, n_positive=3)
    metrics = pd.concat([comparison.metrics, extra], ignore_index=True)
    (grid,) = subgroup_tables(
        replace(comparison, estimates=Estimates.from_table(metrics)), "max_f1"
    )
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


def test_published_figures_are_shown_only_with_related_data(comparison):
    assert published_table(comparison, {"vindr"}, "max_f1") is None
    grid = published_table(comparison, {"rsna"}, "max_f1")
    published = ["0.2547", "0.3272 (0.3006 to 0.3538)", "0.435 (0.387 to 0.481)"]
    assert [row[2] for row in grid.rows] == published
    f1 = grid.rows[-1]
    assert f1[3].startswith("0.760")  # RetinaNet's, at the threshold for best F1
    assert all(len(row) == len(grid.columns) for row in grid.rows)


def test_every_published_figure_says_where_it_is_from_and_why_it_may_not_be_compared():
    for figure in published_figures():
        assert 0 < figure["value"] < 1
        assert re.search(r"doi 10\.\d{4,}/\S+|arXiv:\d{4}\.\d{5}|https://\S+", figure["source"]), (
            figure
        )
        assert len(figure["comparable"]) > 20
        assert len(figure["data"]) > 20


def checklists(comparison, image_set):
    """The answers of each checklist by item."""
    return [
        {row[0]: row[2] for row in grid.rows}
        for grid in methods(comparison, image_set)["checklists"]
    ]


def paragraphs(comparison, image_set):
    return " ".join(methods(comparison, image_set)["paragraphs"])


def test_checklists_say_what_the_run_knows_and_leave_the_rest_open(comparison, image_set):
    stard, claim, tripod = checklists(comparison, image_set)
    assert "6 positive, 6 negative" in stard["24"] == claim["35"] == tripod["20a"]
    assert "best F1 0.500" in stard["15c"]
    assert "cannot be decoded (1)" in stard["7"]
    assert stard["5"] == claim["5"] == UNKNOWN
    assert stard["38"] == claim["44"] == tripod["18a"] == UNKNOWN
    assert "sex F 12" in tripod["20b"]
    assert "3 test images have no known label" in stard["20"] == claim["12"] == tripod["11"]
    assert "a consensus of readers (12)" in stard["12"]
    assert claim["9"] == claim["25"] == UNKNOWN  # nothing is known of how these were trained
    assert UNKNOWN not in paragraphs(comparison, image_set)


def test_every_item_has_its_published_number_once_and_a_sentence_that_exists():
    counts = {}
    for each in read_entries("checklists").values():
        numbers = [item for item, _, _ in each["items"]]
        assert len(set(numbers)) == len(numbers)
        counts[each["title"]] = len(numbers), len({re.sub("[a-z]", "", n) for n in numbers})
        known = (Path(methods.__code__.co_filename).parent / "checklists.txt.jinja").read_text()
        assert all(f"macro {topic}(run)" in known for _, _, topic in each["items"] if topic)
    assert counts == {
        "STARD-AI 2025": (48, 40),
        "CLAIM 2024": (44, 44),
        "TRIPOD+AI 2024": (52, 27),
    }


def test_split_is_named_with_its_id(comparison, image_set):
    _, claim, _ = checklists(comparison, image_set)
    assert "Split “default” (51d)" in claim["20"]


def test_every_note_answers_the_item_that_it_belongs_to(comparison, image_set):
    notes = [
        Note("training", "What CheXNet learned from is not known."),
        Note("validation", "RetinaNet has threshold-free figures only."),
        Note("not_tuned", "The decision of CheXNet is derived here."),
        Note("uses", "A note on nothing in particular."),
    ]
    stard, claim, _ = checklists(replace(comparison, notes=notes), image_set)
    assert notes[0].text in claim["25"]
    assert notes[1].text in stard["15c"]
    assert notes[2].text in claim["26"]
    assert claim["12"] == stard["20"] != UNKNOWN
    assert not any(note.text in claim["10"] for note in notes)


def test_every_partition_says_who_is_in_it(comparison, image_set):
    _, claim, _ = checklists(comparison, image_set)
    assert claim["36"] == (
        "val: 2 images of 2 patients; sex F 2; age median 50 (quartiles 50 to 50); view PA 2. "
        "test: 10 images of 10 patients; sex F 10; age median 50 (quartiles 50 to 50); view PA 10."
    )


def test_measures_are_those_that_this_report_has(comparison, image_set):
    has = "evaluated by AUROC, average precision"
    lacks = "AP50"
    assert lacks in checklists(comparison, image_set)[0]["1"]
    metrics = comparison.metrics.copy()
    metrics.loc[metrics["metric"] == "ap50", "estimate"] = np.nan
    fewer = replace(comparison, estimates=Estimates.from_table(metrics))
    text = checklists(fewer, image_set)[0]["1"]
    assert has in text
    assert lacks not in text


def test_nothing_to_choose_is_not_written_as_a_count_of_zero(comparison, image_set):
    decision = {
        "settings_tried": 0,
        "chosen_on": {"n_images": 40, "n_patients": 40, "n_positive": 9},
    }
    comparison.records["CheXNet"]["decision"] = decision
    _, claim, _ = checklists(comparison, image_set)
    assert "tried on validation: nothing" in claim["26"]
    assert " tried" not in paragraphs(comparison, image_set)


def calibration_charts(comparison, chance=(), label=()):
    """Of a comparison with these probabilities and labels, if any."""
    if len(chance):
        ids = [f"i{number}" for number in range(len(chance))]
        frame = pd.DataFrame({"image_id": ids, "patient_id": ids, "label": label, "score": chance})
        frame = frame.assign(system="RetinaNet", probability=chance)
        comparison = replace(comparison, decisions=frame)
    return [chart for chart in report_charts(comparison) if chart.key == "calibration"]


def test_calibration_chart_needs_probabilities(comparison):
    assert calibration_charts(comparison) == []
    rng = np.random.default_rng(0)
    chance = rng.random(5000)
    (chart,) = calibration_charts(comparison, chance, (rng.random(5000) < chance) * 1.0)
    (curve,) = chart.curves
    assert len(curve.points) == 10
    for point in curve.points:  # honest probabilities lie on the diagonal
        assert point.x == pytest.approx(point.y, abs=0.06)


def test_calibration_points_are_the_means_of_equal_groups(comparison):
    chance = np.repeat([0.1, 0.3, 0.8, 0.9], 13)
    (chart,) = calibration_charts(comparison, chance, np.repeat([0.0, 1.0], [20, 32]))
    points = [(point.x, point.y) for point in chart.curves[0].points]
    assert points == [pytest.approx((0.2, 6 / 26)), pytest.approx((0.85, 1.0))]


@pytest.fixture
def failures_of_two(comparison):
    """Two systems, a group, a lesion kind, an error kind, a curve; all made up."""

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


def charts_of(comparison):
    return {chart.key: chart for chart in report_charts(comparison)}


def rows_of(tables, title):
    (grid,) = [table for table in tables if table.title == title]
    assert all(len(row) == len(grid.columns) for row in grid.rows)
    return {row[0]: row[1:] for row in grid.rows}


def lowest_groups(table):
    """Return each system's lowest group, and whether the lead says that it is shown to differ."""
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
            "0.250 (0.150 to 0.350); p 0.200",
            "0.350 (0.250 to 0.450); p 0.200",
            "−0.450 (−0.550 to −0.350); p 0.200",
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
    assert grid.rows[0][5] == "● 0.350 (0.250 to 0.450); p 0.040"
    failures.loc[gap, "ci_low"] = -0.003  # p of another method does not show it alone
    assert group_tables(failures_of_two)[0].rows[0][5] == "0.350 (−0.003 to 0.450); p 0.040"


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
    rows = rows_of(where_tables(failures_of_two), "Kinds of lesion")
    assert list(rows) == ["Lesion size: up to 2 %", "Lesion size: over 6 %"]
    assert rows["Lesion size: up to 2 %"][:2] == ("3", "0.200 (0.100 to 0.300)")
    assert rows["Lesion size: up to 2 %"][3] == "−0.500 (−0.600 to −0.400)"


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
    chart = charts_of(failures_of_two)["net-benefit"]
    assert [curve.name for curve in chart.curves] == ["RetinaNet", "CheXNet"]
    assert (chart.y.ticks[0][1], chart.y.ticks[-1][1]) == ("−0.05", "0.30")
    assert (chart.x.high, chart.y.low, chart.y.high) == (0.8, -0.05, 0.3)
    assert chart.curves[0].x.tolist() == [0.1, 0.5]
    assert chart.curves[0].y.tolist() == [0.2, 0.1]
    assert chart.guides[0][1].tolist() == [0.1]  # calling every image positive


def test_comparison_without_these_figures_shows_none(comparison):
    assert where_tables(comparison) == group_tables(comparison) == []
    assert error_table(comparison) is None
    assert "net-benefit" not in charts_of(comparison)


def test_every_topic_of_a_real_comparison_is_shown(test_set, predict):
    systems = {"Detector": predict("det", "boxes"), "Classifier": predict("cls", maps=True)}
    found = compare_predictions(systems, test_set, replicates=20)
    titles = {grid.title for grid in where_tables(found)}
    assert {"Kinds of lesion", "Agreement and combination"} <= titles
    kinds = {row[0].split(":")[0]: row[1:] for row in error_table(found).rows}
    titles = ["Missed lesion", "Poorly placed box", "Duplicate box", "Box on background"]
    assert list(kinds) == titles
    counts = found.failures.query("topic == 'errors'").set_index(["metric", "system"])["count"]
    assert kinds["Missed lesion"][0].startswith(f"{counts['missed', 'Detector']:.0f} (")
    assert kinds["Box on background"][1].startswith(f"{counts['background', 'Classifier']:.0f} (")
    assert len(charts_of(found)["net-benefit"].curves) == 2


def test_rates_on_validation_stand_beside_test_and_what_is_outside_is_marked(comparison):
    of = {"topic": VALIDATION, "system": "CheXNet", "policy": "max_f1", "note": ""}
    figures = (
        ("recall", 1.0, (0.9, 0.8, 1.0)),
        ("specificity", 0.75, (0.4, 0.5, 0.9)),
        ("accuracy", 0.833, (0.7, np.nan, np.nan)),
    )
    rows = []
    for metric, then, (now, low, high) in figures:
        rows.append(of | {"metric": metric, "group": "validation", "estimate": then})
        ends = {"ci_low": low, "ci_high": high}
        rows.append(of | {"metric": metric, "group": "test", "estimate": now, **ends})
    table = validation_to_test_table(replace(comparison, failures=pd.DataFrame(rows)))
    assert table.rows[0] == (
        "CheXNet, threshold for best F1",
        "1.000",
        "0.900 (0.800 to 1.000)",
        "0.750",
        "0.400 (0.500 to 0.900) ▲",
        "0.833",
        "0.700",
    )


def test_a_system_without_validation_images_is_left_out(comparison):
    assert validation_to_test_table(comparison) is None
