"""What a system costs is told where it is known, "unknown" where not, and drawn legibly."""

from dataclasses import replace
from itertools import pairwise

import pandas as pd
import pytest
from matplotlib.text import Text

from cxr_compare.evaluation.figures import Figures
from cxr_compare.evaluation.report.chart_drawing import draw_charts
from cxr_compare.evaluation.report.charts import cost_charts
from cxr_compare.evaluation.report.cost_table import cost_table
from cxr_compare.evaluation.system_result import SystemResult

KNOWN = {
    "parameters": 6_954_000,
    "trainable_parameters": 1_025,
    "flops": 5.7e9,
    "size_bytes": 28_400_000,
    "train_seconds": 540.0,
    "train_device": "2 CPU cores",
    "train_peak_memory_bytes": 2_500_000_000,
    "latency_ms": 30.0,
    "latency_device": "2 CPU cores",
    "peak_memory_bytes": 91_000_000,
}


def with_systems(comparison, figures, costs):
    """A comparison of as many systems as there are figures: (estimate, low, high) by name."""
    rows = comparison.metrics[comparison.metrics["metric"] == "auroc"].iloc[:1]
    metrics = pd.concat(
        [
            rows.assign(system=name, estimate=estimate, ci_low=low, ci_high=high)
            for name, (estimate, low, high) in figures.items()
        ]
    )
    systems = {name: SystemResult(cost=costs.get(name, {})) for name in figures}
    return replace(comparison, systems=systems, figures=Figures.from_table(metrics))


def zoo(comparison, count):
    figures = {f"Network {n:02d}": (0.9 + 0.001 * n, 0.89, 0.96) for n in range(count)}
    costs = {name: {"flops": 1e8 * 1.5**n} for n, name in enumerate(figures)}
    return with_systems(comparison, figures, costs)


def test_the_page_has_one_table_of_costs_with_a_row_for_each_system(comparison):
    comparison.systems["CheXNet"] = SystemResult(cost=dict(KNOWN))
    table = cost_table(comparison)
    assert table.frame.loc["CheXNet"].to_dict() == {
        "Parameters": "7.0 million",
        "FLOPs per image": "5.7 billion",
        "Time per image": "30.0 ms",
        "Size of the weights": "28.4 MB",
    }


def test_an_unrecorded_cost_is_unknown_and_never_zero(comparison):
    comparison.systems["CheXNet"] = SystemResult()
    assert set(cost_table(comparison).frame.loc["CheXNet"]) == {"unknown"}
    comparison.systems["RetinaNet"] = SystemResult()
    assert cost_table(comparison) is None


def test_a_point_lies_at_its_cost_and_figure(comparison):
    figures = {"A": (0.90, 0.90, 0.90), "B": (0.95, 0.95, 0.95), "C": (1.0, 1.0, 1.0)}
    costs = {"A": {"flops": 1e9}, "B": {"flops": 1e10}, "C": {"flops": 1e11}}
    (chart,) = cost_charts(with_systems(comparison, figures, costs))
    axes = draw_charts(chart).axes[0]
    place = axes.transData.transform
    points = [line.get_xydata()[0] for line in axes.lines if "point" in str(line.get_gid())]
    assert [tuple(point) for point in points] == [(1, 0.90), (10, 0.95), (100, 1.0)]
    a, b, c = map(place, points)
    assert b[0] - a[0] == pytest.approx(c[0] - b[0])  # the cost is logarithmic
    assert b[1] - a[1] == pytest.approx(c[1] - b[1])  # the figure is not
    assert {"0.90", "1.00"} <= {words for _, words in chart.y.ticks}
    assert dict(chart.x.ticks)[10] == "10"


@pytest.mark.parametrize("count", [2, 3, 8, 20])
def test_names_and_ticks_never_overlap_and_stay_in_the_image(comparison, count):
    (chart,) = cost_charts(zoo(comparison, count))
    figure = draw_charts(chart)
    figure.set_dpi(72)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    names = figure.axes[0].texts
    boxes = sorted((Text.get_window_extent(text) for text in names), key=lambda box: box.y0)
    assert [text.get_text() for text in names] == [curve.name for curve in chart.curves]
    assert len(boxes) == count
    assert all(b.y0 + b.y1 - a.y0 - a.y1 >= 27.9 for a, b in pairwise(boxes))
    assert boxes[0].y0 > 0
    assert max(box.x1 for box in boxes) < chart.size[0]
    assert boxes[-1].y1 <= chart.size[1]
    for curve in chart.curves:
        assert chart.x.low <= curve.points[0].x <= chart.x.high
        assert chart.y.low <= curve.y[0] <= curve.points[0].y <= curve.y[1] <= chart.y.high
    assert axes.get_ylim() == (chart.y.low, chart.y.high)
    assert 2 <= len(chart.x.ticks) <= 7
    ticks = [axes.transData.transform((tick, chart.y.low))[0] for tick, _ in chart.x.ticks]
    assert all(b - a > 20 for a, b in pairwise(ticks))
    assert 3 <= len(chart.y.ticks) <= 8


def test_long_name_is_cut_and_stays_in_the_image(comparison):
    long = "A network with a very long name indeed"
    figures = dict.fromkeys((long, "B"), (0.9, 0.85, 0.95))
    costs = {long: {"flops": 1e9}, "B": {"flops": 2e9}}
    (chart,) = cost_charts(with_systems(comparison, figures, costs))
    figure = draw_charts(chart)
    figure.set_dpi(72)
    figure.draw_without_rendering()
    name = figure.axes[0].texts[0]
    assert name.get_text() == "A network wi…e indeed"
    assert Text.get_window_extent(name).x1 < chart.size[0]


def test_a_system_of_unknown_cost_is_named_and_not_drawn(comparison):
    figures = dict.fromkeys(("A", "B", "Reader"), (0.9, 0.85, 0.95))
    costs = {"A": {"flops": 1e9}, "B": {"flops": 2e9}, "Reader": {"flops": None}}
    (chart,) = cost_charts(with_systems(comparison, figures, costs))
    assert [curve.name for curve in chart.curves] == ["A", "B"]
    assert chart.note.endswith("unknown: Reader (0.900).")
    assert "A: 0.900 at 1 billion; B: 0.900 at 2 billion." in chart.description


def test_times_of_different_machines_are_not_drawn_beside_each_other(comparison):
    figures = dict.fromkeys(("A", "B"), (0.9, 0.85, 0.95))
    costs = {
        name: {"latency_ms": 5.0, "latency_device": device}
        for name, device in (("A", "cpu"), ("B", "cpu"))
    }
    (chart,) = cost_charts(with_systems(comparison, figures, costs))
    assert chart.key == "cost-latency"
    for other in ({"latency_ms": 5.0, "latency_device": "gpu"}, {}):
        assert not cost_charts(with_systems(comparison, figures, costs | {"B": other}))
