from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from evaluation.compare.intervals import Interval
from evaluation.report.charts import HEIGHT, LEFT, TOP, WIDTH, curve_path, roc_chart, whiskers
from evaluation.report.figures import save_figures
from evaluation.report.tables import metric_table


def test_figures_are_readable_pictures(comparison, tmp_path):
    files = save_figures(comparison, tmp_path)
    assert [path.name for path in files] == ["roc.png", "precision_recall.png", "confusion.png"]
    for path in files:
        with Image.open(path) as picture:
            assert min(picture.size) > 400


def test_no_confusion_figure_without_decisions(comparison, tmp_path):
    for result in comparison.systems.values():
        result.confusion.clear()
    assert len(save_figures(comparison, tmp_path)) == 2


def test_operating_point_lies_at_its_rates(comparison):
    point = roc_chart(comparison).series[0].points[0]
    assert point.x == pytest.approx(LEFT + WIDTH * 1 / 6)  # 1 of 6 negatives is a false alarm
    assert point.y == pytest.approx(TOP + HEIGHT * (1 - 4 / 6))


def test_curve_size_does_not_grow_with_the_images():
    steps = np.sort(np.random.default_rng(0).random(200_000))
    assert len(curve_path(steps, steps**0.3)) < 40_000


def test_simplified_curve_keeps_its_corners():
    x = [0, 0, 0, 0.2, 0.5, 0.5, 1]
    y = [0, 0.1, 0.6, 0.6, 0.6, 1, 1]
    assert curve_path(x, y).count("L") == 4


def test_whiskers_share_one_axis_with_zero_in_the_middle():
    placed, (low, high) = whiskers(
        [Interval(0.1, 0.02, 0.18), Interval(0, 0, 0, "x"), Interval()], around_zero=True
    )
    assert low == -high
    assert placed[0].decided
    assert placed[1].dot == 50.0
    assert placed[2] is None


@pytest.mark.parametrize(
    ("interval", "decided", "why"),
    [
        (Interval(0.2, 0.1, 0.3), True, "all above 0"),
        (Interval(-0.2, -0.3, -0.1), True, "all below 0"),
        (Interval(0.1, 0.0, 0.2), False, "an end on 0 does not exclude it"),
        (Interval(0.1, 0.0004, 0.2), False, "printed as 0.000"),
        (Interval(0.01, -0.2, -0.1), False, "percentile interval beside its own estimate"),
        (Interval(0.1), False, "no interval"),
        (Interval(), False, "undefined"),
    ],
)
def test_a_difference_is_claimed_only_where_its_interval_excludes_zero(interval, decided, why):
    assert interval.excludes_zero is decided, why
    assert interval.reversed().excludes_zero is decided, why


def test_each_group_of_figures_has_its_own_axis_and_says_on_how_many_images(comparison):
    metrics = comparison.metrics.copy()
    wide = (metrics["policy"] == "max_f1") & (metrics["system"] == "RetinaNet - CheXNet")
    metrics.loc[wide, "ci_high"] = 0.42
    table = metric_table(replace(comparison, metrics=metrics))
    assert [part.axis for part in table.sections[:2]] == ["−0.10 to 0.10", "−0.45 to 0.45"]
    assert {part.count for part in table.sections} == {"12 images, 6 positive"}


def test_degenerate_intervals_still_have_an_axis():
    placed, (low, high) = whiskers([Interval(1.0, 1.0, 1.0)])
    assert placed[0] is not None
    assert low < high
