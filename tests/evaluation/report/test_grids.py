from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from evaluation.compare.figures import Figures
from evaluation.metrics.evaluation_set import Note
from evaluation.metrics.image_metrics import classification_metrics
from evaluation.report.charts import report_charts
from evaluation.report.checklists import UNKNOWN, checklists, methods_paragraph
from evaluation.report.facts import decision_rows
from evaluation.report.grids import (
    agreement,
    published,
    published_figures,
    related_figures,
    subgroups,
)


def test_agreement_counts_every_image_once(comparison):
    (grid,) = agreement(comparison, "max_f1")
    rows = {row[0]: tuple(map(int, row[1:])) for row in grid.rows}
    # hand-counted from the twelve images; p05 and p06 are right as images, whatever the place
    assert rows == {
        "Both right": (3, 4, 7),
        "Only RetinaNet right": (1, 1, 2),
        "Only CheXNet right": (1, 1, 2),
        "Both wrong": (1, 0, 1),
    }


def test_undecided_system_has_no_agreement(comparison):
    called = comparison.decisions["system"] == "CheXNet"
    comparison.decisions.loc[called, "decision_max_f1"] = pd.NA
    assert agreement(comparison, "max_f1") == []
    assert agreement(comparison, "no such policy") == []


def test_subgroup_that_nobody_named_here_is_shown(comparison, make_metrics):
    rows = [("RetinaNet", "", "auroc", 0.7, 0.6, 0.8), ("CheXNet", "", "auroc", 0.6, 0.5, 0.7),
            ("RetinaNet - CheXNet", "", "auroc", 0.1, -0.1, 0.3)]  # fmt: skip
    extra = make_metrics(rows).assign(subgroup="x_scanner=mobile", n_images=7, n_positive=3)
    metrics = pd.concat([comparison.metrics, extra], ignore_index=True)
    (grid,) = subgroups(replace(comparison, figures=Figures.from_table(metrics)), "max_f1")
    assert grid.rows == (
        ("x scanner=mobile", "7 (3 positive)", "0.700 (0.600 to 0.800)", "0.600 (0.500 to 0.700)",
         "0.100 (−0.100 to 0.300)"),
    )  # fmt: skip
    assert subgroups(comparison, "max_f1") == []


def test_published_figures_stand_only_beside_related_data(comparison):
    assert published(comparison, {"vindr"}, "max_f1") is None
    grid = published(comparison, {"rsna"}, "max_f1")
    told = ["0.2547", "0.3272 (0.3006 to 0.3538)", "0.435 (0.387 to 0.481)"]
    assert [row[2] for row in grid.rows] == told
    f1 = grid.rows[-1]
    assert f1[3].startswith("0.760")  # RetinaNet's, at the threshold for best F1
    assert all(len(row) == len(grid.columns) for row in grid.rows)


def test_every_published_figure_says_where_it_is_from_and_why_it_may_not_be_compared():
    for figure in published_figures():
        assert 0 < figure.value < 1
        assert len(figure.source) > 20
        assert len(figure.comparable) > 20
        assert len(figure.data) > 20


def test_counts_behind_the_resnet_study_are_those_it_is_said_to_have():
    figures = {each.metric: each.value for each in related_figures({"kermany"}, {"pneumonia"})
               if each.system == "ResNet50"}  # fmt: skip
    truth = np.repeat([True, False], [390, 234])
    called = np.concatenate([np.arange(390) < 387, np.arange(234) >= 197])
    found = classification_metrics(truth, called.astype(float), 0.5)
    assert found["accuracy"] == pytest.approx(figures["accuracy"], abs=5e-5)
    assert found["recall"] == pytest.approx(figures["recall"], abs=5e-5)
    assert found["specificity"] == pytest.approx(0.842, abs=5e-4)


def test_checklist_says_what_the_run_knows_and_leaves_the_rest_open(comparison, picture_set):
    stard, claim = checklists(comparison, picture_set)
    told = {row[0]: row[2] for row in stard.rows if row[0] != "AI"}
    assert "6 positive, 6 negative" in told["19"]
    assert "best F1 0.500" in told["12a"]
    assert told["28–30"] == UNKNOWN
    assert told["18"] == UNKNOWN
    assert "sex F 12" in told["20"]
    assert "3 test images have no known label" in told["15, 16"]
    known = {row[0]: row[2] for row in claim.rows}
    assert "RetinaNet: trained on unknown" in known["24, 25"]
    assert known["40–42"] == UNKNOWN


def answers(grid):
    return {row[0]: row[2] for row in grid.rows}


def test_split_is_named_with_its_id(comparison, picture_set):
    _, claim = checklists(comparison, picture_set)
    assert "Split “default” (51d)" in answers(claim)["20, 21"]
    assert "Split “default” (51d)" in methods_paragraph(comparison, picture_set)


def test_every_note_answers_the_item_that_it_belongs_to(comparison, picture_set):
    notes = [
        Note("training", "What CheXNet learned from is not known."),
        Note("validation", "RetinaNet has threshold-free figures only."),
        Note("not_tuned", "The decision of CheXNet is derived here."),
        Note("uses", "A note on nothing in particular."),
    ]
    stard, claim = checklists(replace(comparison, notes=notes), picture_set)
    told = answers(claim)
    assert notes[0].text in told["24, 25"]
    assert notes[1].text in answers(stard)["12a"]
    assert notes[2].text in told["26"]
    missing = "No test image was left out, and no system failed on one."
    assert told["13"] == answers(stard)["15, 16"] == missing
    assert not any(note.text in told["10"] for note in notes)


def test_every_partition_says_who_is_in_it(comparison, picture_set):
    _, claim = checklists(comparison, picture_set)
    assert answers(claim)["34"] == (
        "val: 2 images of 2 patients; sex F 2; age median 50 (quartiles 50 to 50); view PA 2. "
        "test: 10 images of 10 patients; sex F 10; age median 50 (quartiles 50 to 50); view PA 10."
    )


def test_measures_are_those_that_this_report_has(comparison, picture_set):
    has, lacks = "judged by AUROC, average precision", "AP50"
    assert lacks in methods_paragraph(comparison, picture_set)
    metrics = comparison.metrics.copy()
    metrics.loc[metrics["metric"] == "ap50", "estimate"] = np.nan
    text = methods_paragraph(replace(comparison, figures=Figures.from_table(metrics)), picture_set)
    assert has in text
    assert lacks not in text


def test_nothing_to_choose_is_not_told_as_a_count_of_zero(comparison, picture_set):
    decision = {"settings_tried": 0, "chosen_on": {"n_images": 40, "n_patients": 40,
                                                     "n_positive": 9}}  # fmt: skip
    comparison.provenance["systems"]["CheXNet"]["decision"] = decision
    _, claim = checklists(comparison, picture_set)
    assert "CheXNet: settings tried on validation: nothing to choose" in answers(claim)["26"]
    (row,) = [row for row in decision_rows(comparison) if row.title == "Settings tried"]
    assert row.cells[1].text == "nothing to choose: its scores are taken as they are"


def test_methods_paragraph_states_no_unknown_as_fact(comparison, picture_set):
    text = methods_paragraph(comparison, picture_set)
    assert "trained on unknown" in text
    assert UNKNOWN not in text


def calibration_charts(comparison):
    return [chart for chart in report_charts(comparison) if chart.key == "calibration"]


def test_calibration_chart_needs_probabilities(comparison):
    assert calibration_charts(comparison) == []
    rng = np.random.default_rng(0)
    chance = rng.random(5000)
    label = (rng.random(5000) < chance) * 1.0
    frame = pd.DataFrame({"system": "RetinaNet", "label": label, "probability": chance})
    frame["image_id"] = [f"i{number}" for number in range(len(frame))]
    (chart,) = calibration_charts(replace(comparison, decisions=frame))
    (curve,) = chart.curves
    assert len(curve.points) == 10
    for point in curve.points:  # honest probabilities lie on the diagonal
        assert point.x == pytest.approx(point.y, abs=0.06)


def test_calibration_points_are_the_means_of_equal_groups(comparison):
    chance = np.repeat([0.1, 0.3, 0.8, 0.9], 13)
    label = np.concatenate([np.zeros(20), np.ones(32)])
    frame = pd.DataFrame({"system": "RetinaNet", "label": label, "probability": chance})
    frame["image_id"] = [f"i{number}" for number in range(len(frame))]
    (chart,) = calibration_charts(replace(comparison, decisions=frame))
    points = [(point.x, point.y) for point in chart.curves[0].points]
    assert points == [pytest.approx((0.2, 6 / 26)), pytest.approx((0.85, 1.0))]
