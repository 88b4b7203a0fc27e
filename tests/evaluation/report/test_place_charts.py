"""The FROC charts against hand-counted curves."""

import re

import numpy as np
import pytest

from evaluation.boxes.froc import HITS
from evaluation.compare.compare import compare_systems
from evaluation.compare.intervals import find_interval
from evaluation.metrics.registry import family
from evaluation.report.charts import HEIGHT, LEFT, TOP, WIDTH
from evaluation.report.figures import save_figures
from evaluation.report.place_charts import froc_chart, froc_charts, sensitivity_at, steps
from evaluation.report.tables import metric_table


@pytest.fixture
def drawn(comparison):
    marks, found = np.array([0, 0.25, 1, 3.0]), np.array([0, 0.5, 0.75, 0.8])
    comparison.systems["CheXNet"].froc["iou"] = {"false_marks": marks, "sensitivity": found}
    return comparison


def corners(path):
    return [tuple(map(float, pair.split())) for pair in re.findall(r"[\d.]+ [\d.]+", path)]


def test_curve_is_drawn_in_steps_on_a_logarithmic_axis(drawn):
    (series,) = froc_chart(drawn, "iou").series
    assert (series.name, series.position) == ("CheXNet", 1)  # its colour in every chart
    x = {rate: LEFT + WIDTH * (np.log2(rate) + 3) / 6 for rate in (1 / 8, 1 / 4, 1, 3, 8)}
    y = {found: TOP + HEIGHT * (1 - found) for found in (0, 0.5, 0.75, 0.8)}
    expected = [(1 / 8, 0), (1 / 4, 0), (1 / 4, 0.5), (1, 0.5), (1, 0.75), (3, 0.75), (3, 0.8),
                (8, 0.8)]  # fmt: skip
    wanted = [(x[rate], y[found]) for rate, found in expected]
    np.testing.assert_allclose(corners(series.path), wanted, atol=0.3)


def test_points_and_words_are_those_at_the_seven_rates(drawn):
    chart = froc_chart(drawn, "iou")
    rates = [0, 0.5, 0.5, 0.75, 0.75, 0.8, 0.8]
    assert sensitivity_at(drawn.systems["CheXNet"].froc["iou"]) == rates
    points = chart.series[0].points
    assert points[1].label == "CheXNet: sensitivity 0.500 at 1/4 false marks an image"
    assert [point.y for point in points] == pytest.approx(
        [TOP + HEIGHT * (1 - found) for found in rates], abs=0.06
    )
    assert chart.x_labels == ("1/8", "1/4", "1/2", "1", "2", "4", "8")
    assert "CheXNet: sensitivity 0.000 at 1/8, 0.500 at 1/4" in chart.description


def test_without_boxes_there_is_nothing_to_draw(comparison, tmp_path):
    assert [chart.series for chart in froc_charts(comparison)] == [(), ()]
    assert "froc.png" not in [path.name for path in save_figures(comparison, tmp_path)]


def test_a_comparison_has_every_rate_with_interval_and_curve(judged_set, predict, tmp_path):
    systems = {"A": predict("A", "boxes", seed=1), "B": predict("B", "boxes", seed=2),
               "C": predict("C", seed=3)}  # fmt: skip
    found = compare_systems(systems, judged_set, judged_set.target(), replicates=100)
    for hit in HITS:
        names = family(f"froc_{hit}")
        assert [s.name for s in froc_chart(found, hit).series] == ["A", "B"]
        at = [find_interval(found.metrics, "A", name) for name in names]
        assert all(figure.bounded for figure in at)
        rising = [figure.estimate for figure in at[1:]]
        assert rising == sorted(rising)
        assert at[0].estimate == pytest.approx(np.mean(rising))
        assert rising == pytest.approx(sensitivity_at(found.systems["A"].froc[hit]))
        assert find_interval(found.metrics, "A - B", names[-1]).known
        assert find_interval(found.metrics, "C", names[0]).note.startswith("the system gives no")
    titles = [row.title for part in metric_table(found, "rates").sections for row in part.rows]
    assert titles[:2] == ["FROC, at 1/8", "FROC, at 1/4"]
    assert len(titles) == 14
    assert "froc.png" in [path.name for path in save_figures(found, tmp_path)]


def test_what_lies_beyond_eight_false_marks_is_not_drawn_at_eight(drawn):
    curve = drawn.systems["CheXNet"].froc["iou"]
    curve["false_marks"][-1] = 20.0
    rates, level = steps(curve)
    assert rates.tolist() == [1 / 8, 1 / 4, 1, 8]
    assert level.tolist() == [0, 0.5, 0.75, 0.75]
