"""Validation beside test: hand-counted rates, and that no test image is among validation."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from evaluation.compare.compare import compare_systems
from evaluation.compare.figures import Figures
from evaluation.decisions.system_output import SystemOutput
from evaluation.report.charts import report_charts
from evaluation.report.grids import transfer_table
from evaluation.report.plot import draw


def transfer_charts(comparison):
    return [chart for chart in report_charts(comparison) if chart.key.startswith("transfer")]


@pytest.fixture
def shifted(comparison):
    """CheXNet called 1 of 4 negatives on validation, calls 1 of 6 on test; sensitivity likewise."""
    known = pd.DataFrame({"label": [1, 1, 0, 0, 0, 0.0], "score": [0.9, 0.8, 0.5, 0.4, 0.3, 0.1]})
    comparison.systems["CheXNet"] = replace(comparison.systems["CheXNet"], validation=known)
    return comparison


def test_table_gives_the_rates_of_validation_at_the_threshold_that_test_was_judged_at(shifted):
    table = transfer_table(shifted)
    assert [row[0] for row in table.rows][:1] == ["CheXNet, threshold for best F1"]
    sensitivity, specificity, accuracy = table.rows[0][1], table.rows[0][3], table.rows[0][5]
    assert (sensitivity, specificity, accuracy) == ("1.000", "0.750", "0.833")  # 0.5 is called


def test_a_rate_that_the_interval_on_test_does_not_hold_is_marked(shifted, make_metrics):
    metrics = make_metrics([("CheXNet", "max_f1", "specificity", 0.4, 0.3, 0.6),
                            ("CheXNet", "max_f1", "recall", 0.9, 0.7, 1.0)])  # fmt: skip
    figures = Figures.from_table(metrics)
    first = transfer_table(replace(shifted, figures=figures)).rows[0]
    assert first[4].endswith("▲")  # 0.750 on validation
    assert not first[2].endswith("▲")  # 1.000 on validation


def test_charts_draw_validation_thin_and_test_with_its_thresholds(shifted):
    negatives, positives = transfer_charts(shifted)
    thin, thick = negatives.curves
    assert (thin.faint, thick.faint, thin.position, thick.position) == (True, False, 1, 1)
    assert not thin.points
    # A threshold of 0.5 is the middle of the log-odds axis; 1 of 6 negatives is called there.
    axes = draw(negatives).axes[0]
    point = next(line for line in axes.lines if line.get_gid() == "curve-1-point-0")
    assert point.get_xydata().tolist() == [[0.5, pytest.approx(1 / 6)]]
    pixels = axes.transData.transform((0.5, 1 / 6))
    assert axes.transAxes.inverted().transform(pixels) == pytest.approx([0.5, 1 / 6])
    assert axes.lines[0].get_linewidth() < axes.lines[1].get_linewidth()
    assert "0.250 of the negative images called positive on validation, 0.167 on test" in (
        negatives.description
    )
    assert "1.000 of the positive images called positive on validation" in positives.description


def test_a_system_without_validation_images_is_left_out(comparison):
    assert transfer_table(comparison) is None
    assert transfer_charts(comparison) == []


@pytest.mark.parametrize("kind", ["boxes", "scores"])
def test_validation_is_scored_as_test_is_and_holds_no_test_image(predict, judged_set, kind):
    system, target = predict("A", kind), judged_set.target()
    found = compare_systems({"A": system}, judged_set, target, replicates=100)
    known = found.systems["A"].validation
    assert sorted(known.index) == sorted(
        judged_set.labels(target).reindex(judged_set.image_ids("val")).dropna().index
    )
    assert not set(known.index) & set(found.decisions["image_id"])
    if kind == "scores":
        expected = SystemOutput(system, target, known.index).scores(None)
        np.testing.assert_array_equal(known["score"], expected)
