"""The charts against hand-counted curves, and what reaches the page and the PNG files."""

import re
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_compare.evaluation.boxes.froc import FrocCurve
from cxr_compare.evaluation.boxes.lesion_hits import HIT_RULES
from cxr_compare.evaluation.figures import Figures
from cxr_compare.evaluation.metrics.registry import family
from cxr_compare.evaluation.report.chart import Axis, Chart, Curve, Point
from cxr_compare.evaluation.report.chart_drawing import draw_charts, draw_with_legend
from cxr_compare.evaluation.report.charts import froc_sensitivities, report_charts
from cxr_compare.evaluation.report.figure_files import draw_confusion, save_figures
from cxr_compare.evaluation.report.forest import forest_parts
from cxr_compare.evaluation.report.inline_svg import to_svg
from cxr_compare.evaluation.report.metric_table import metric_table
from cxr_compare.evaluation.report.whiskers import place_whiskers
from cxr_compare.evaluation.sources.stored_predictions import compare_predictions
from cxr_compare.evaluation.statistics.intervals import Interval


def charts_of(comparison):
    return {chart.key: chart for chart in report_charts(comparison)}


def lines_of(figure):
    return {line.get_gid(): line for line in figure.axes[0].lines}


def make_chart(x, y, points=(), **options):
    curve = Curve("A", 0, np.asarray(x), np.asarray(y), tuple(points))
    return Chart(
        key="k",
        title="T",
        x=Axis("x <&>"),
        y=Axis("y"),
        curves=(curve,),
        description="In words & <signs>.",
        **options,
    )


MATRICES = [[("A", {"tp": 3, "fn": 1, "fp": 0, "tn": 0})]]


def save(comparison, folder, confusion=MATRICES):
    of = {"charts": report_charts(comparison), "markers": []}
    save_figures(folder, forest=forest_parts(comparison), confusion=confusion, **of)


def test_figures_are_readable_images_and_undated_drawings(comparison, tmp_path):
    save(comparison, tmp_path)
    names = ["forest", "roc", "precision_recall", "confusion"]
    kinds = ["png", "pdf", "svg"]
    files = {kind: [tmp_path / f"{name}.{kind}" for name in names] for kind in kinds}
    assert {path for paths in files.values() for path in paths} == set(tmp_path.iterdir())
    for path in files["png"]:
        with Image.open(path) as image:
            assert min(image.size) > 300
    pdfs, svgs = [[path.read_bytes() for path in files[kind]] for kind in ("pdf", "svg")]
    assert all(each.startswith(b"%PDF-") and b"CreationDate" not in each for each in pdfs)
    assert not any(b"dc:date" in each for each in svgs)


def test_without_decisions_or_scores_there_is_no_figure_of_them(comparison, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "cxr_compare.evaluation.report.figure_files.save_figure",
        lambda figure, path: drawn.append(path.name),
    )
    for result in comparison.systems.values():
        result.curve.clear()
    assert not {"roc", "pr"} & set(charts_of(comparison))
    save(comparison, tmp_path, confusion=[[]])
    assert drawn == ["forest"]


def test_a_chart_of_the_page_alone_is_no_figure_of_a_paper(tmp_path):
    net_benefit = replace(make_chart([0, 1], [0, 1]), key="net-benefit")
    charts = {"charts": [net_benefit], "markers": []}
    save_figures(tmp_path, forest=[], confusion=[[]], **charts)
    assert list(tmp_path.iterdir()) == []


def test_confusion_figure_says_what_share_each_count_is():
    (axes,) = draw_confusion(MATRICES).axes
    words = [text.get_text() for text in axes.texts]
    assert words == ["3\n75.0 %", "1\n25.0 %", "0\n0.0 %", "0\n0.0 %"]


def test_operating_point_lies_at_its_rates(comparison):
    chart = charts_of(comparison)["roc"]
    point = chart.curves[0].points[0]
    assert (point.x, point.y) == (1 / 6, 4 / 6)  # 1 of 6 negatives is a false alarm
    assert point.label == "RetinaNet, threshold for best F1"
    drawn = lines_of(draw_charts(chart))["curve-0-point-0"]
    assert drawn.get_xydata().tolist() == [[1 / 6, 4 / 6]]


def test_drawn_lines_are_the_curves_and_keep_each_systems_colour(comparison):
    comparison.systems["RetinaNet"].curve.clear()
    (curve,) = charts_of(comparison)["pr"].curves
    line = lines_of(draw_charts(charts_of(comparison)["pr"]))["curve-0"]
    assert (curve.name, curve.position) == ("CheXNet", 1)
    np.testing.assert_array_equal(line.get_xdata(), comparison.systems["CheXNet"].curve["recall"])
    np.testing.assert_array_equal(
        line.get_ydata(), comparison.systems["CheXNet"].curve["precision"]
    )
    assert line.get_color() == "#1F8FD6"


def test_file_has_a_legend_with_every_system_its_figure_and_every_policy(comparison):
    figure = draw_with_legend(charts_of(comparison)["roc"], [("o", "threshold: best F1")])
    words = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert words == [
        "RetinaNet AUROC 0.891 (0.851 to 0.921)",
        "CheXNet AUROC 0.862 (0.812 to 0.902)",
        "threshold: best F1",
    ]


def test_notes_speak_of_thresholds_only_where_one_is_marked(comparison):
    marked = charts_of(comparison)
    for result in comparison.systems.values():
        result.confusion.clear()
    unmarked = charts_of(comparison)
    for key in ("roc", "pr"):
        assert "hreshold" in marked[key].note
        assert "hreshold" not in unmarked[key].note


def test_no_two_of_sixteen_systems_look_alike():
    curves = tuple(Curve(f"{n}", n, np.arange(2), np.arange(2)) for n in range(16))
    figure = draw_charts(replace(make_chart([0], [0]), curves=curves))
    looks = {(line.get_color(), str(line._unscaled_dash_pattern)) for line in figure.axes[0].lines}
    assert len(looks) == 16
    assert len({dashes for _, dashes in looks}) == 9  # nine can be told apart without colour


def test_a_chart_without_a_curve_says_so():
    figure = draw_charts(replace(make_chart([0], [0]), curves=()))
    assert [text.get_text() for text in figure.axes[0].texts] == ["Nothing to draw"]


def test_svg_takes_colours_and_font_from_the_page_and_brings_no_names_of_its_own():
    drawing = to_svg(make_chart([0, 1], [0, 1], [Point(0.5, 0.5, "half < all")]))
    root = ET.fromstring(drawing)  # noqa: S314 - our own text
    assert root.get("aria-label") == "In words & <signs>."
    assert root.get("role") == "img"
    assert "var(--s0)" in drawing
    assert "var(--ink)" in drawing
    assert not re.findall(r"#[0-9a-f]{6}\b", drawing)
    for word in ("font-family", "<style", "<metadata", "matplotlib", "xmlns", "svg:"):
        assert word not in drawing, word
    assert [title.text for title in root.iter("title")] == ["half < all"]
    used = set(re.findall(r'(?:url\(|href=")#(\w+)', drawing))
    assert {node.get("id") for node in root.iter() if node.get("id")} == used


def test_curve_in_svg_lies_where_its_frame_says():
    chart = make_chart([0, 0, 1], [0, 0.5, 1])
    root = ET.fromstring(to_svg(chart))  # noqa: S314 - our own text
    left, top, width, height = chart.frame
    (path,) = [p.get("d") for p in root.iter("path") if "var(--s0)" in p.get("style", "")]
    corners = [tuple(map(float, corner.split())) for corner in path[1:].split("L")]
    wanted = [(left, top + height), (left, top + height / 2), (left + width, top)]
    np.testing.assert_allclose(corners, wanted, atol=0.01)


def test_svg_is_the_same_in_every_thread_and_differs_in_ids_by_chart():
    charts = [
        replace(make_chart([0, 1], [0, 1], [Point(0.5, 0.5, "p")]), key=key) for key in "abcdabcd"
    ]
    with ThreadPoolExecutor(4) as pool:
        drawings = list(pool.map(to_svg, charts))
    assert drawings == [to_svg(chart) for chart in charts]
    ids = [set(re.findall(r'id="(\w+)"', drawing)) for drawing in drawings[:4]]
    assert len(set.union(*ids)) == sum(map(len, ids)) > 0


def test_curve_size_does_not_grow_with_the_images():
    steps = np.sort(np.random.default_rng(0).random(200_000))
    ranks = np.random.default_rng(1).random(200_000).cumsum() / 100_000
    for y in (steps**0.3, np.minimum(ranks, 1)):
        assert len(to_svg(make_chart(steps, y))) < 40_000


def test_simplified_curve_keeps_its_corners():
    x = np.concatenate([np.zeros(500), np.linspace(0, 0.5, 500), np.full(500, 0.5), [1]])
    y = np.concatenate([np.linspace(0, 0.6, 500), np.full(500, 0.6), np.linspace(0.6, 1, 500), [1]])
    drawing = to_svg(make_chart(x, y))
    left, top, width, height = make_chart(x, y).frame
    (path,) = re.findall(r'<path d="M([^"]*)"[^>]*var\(--s0\)', drawing)
    for across, up in ((0, 0.6), (0.5, 0.6), (0.5, 1), (1, 1)):
        place = f"{left + across * width:.2f}", f"{top + (1 - up) * height:.2f}"
        assert " ".join(each.rstrip("0").rstrip(".") for each in place) in path


def test_point_that_is_undefined_is_not_drawn(comparison):
    comparison.systems["RetinaNet"].confusion["max_f1"] = {"tp": 0, "fp": 0, "tn": 6, "fn": 6}
    charts = charts_of(comparison)
    assert len(charts["pr"].curves[0].points) == 2  # nothing called: no precision
    assert len(charts["roc"].curves[0].points) == 3


@pytest.fixture
def drawn(comparison):
    marks = np.array([0, 0.25, 1, 3.0])
    found = np.array([0, 0.5, 0.75, 0.8])
    comparison.systems["CheXNet"].froc["iou"] = FrocCurve(marks, found)
    return comparison


def froc_corners(comparison):
    """Corners of the drawn steps inside the axes, in data units."""
    chart = charts_of(comparison)["froc-iou"]
    drawing = to_svg(chart)
    left, top, width, height = chart.frame
    (path,) = re.findall(r'<path d="M([^"]*)" clip-path[^>]*var\(--s1\)', drawing)
    corners = list(dict.fromkeys(path.split("L")))
    places = np.array([corner.split() for corner in corners], dtype=float)
    return 2 ** ((places[:, 0] - left) / width * 6 - 3), 1 - (places[:, 1] - top) / height


def test_froc_is_drawn_in_steps_on_a_logarithmic_axis(drawn):
    (curve,) = charts_of(drawn)["froc-iou"].curves
    assert (curve.name, curve.position) == ("CheXNet", 1)  # its colour in every chart
    rates, found = froc_corners(drawn)
    assert rates[0] < 1 / 8  # cut by the frame
    expected = [(1 / 4, 0), (1 / 4, 0.5), (1, 0.5), (1, 0.75), (3, 0.75), (3, 0.8), (8, 0.8)]
    np.testing.assert_allclose(rates[1:], [rate for rate, _ in expected], rtol=0.01)
    np.testing.assert_allclose(found[1:], [level for _, level in expected], atol=0.001)


def test_froc_points_and_words_are_those_at_the_seven_rates(drawn):
    chart = charts_of(drawn)["froc-iou"]
    rates = [0, 0.5, 0.5, 0.75, 0.75, 0.8, 0.8]
    assert froc_sensitivities(drawn.systems["CheXNet"].froc["iou"]) == rates
    points = chart.curves[0].points
    assert points[1].label == "CheXNet: sensitivity 0.500 at 1/4 false positives per image"
    assert [point.y for point in points] == rates
    assert [words for _, words in chart.x.ticks] == ["1/8", "1/4", "1/2", "1", "2", "4", "8"]
    assert "CheXNet: sensitivity 0.000 at 1/8, 0.500 at 1/4" in chart.description


def test_without_boxes_there_is_no_froc(comparison):
    assert not [key for key in charts_of(comparison) if key.startswith("froc")]


def test_a_comparison_has_every_rate_with_interval_and_curve(test_set, predict):
    systems = {
        "A": predict("A", "boxes", seed=1),
        "B": predict("B", "boxes", seed=2),
        "C": predict("C", seed=3),
    }
    found = compare_predictions(systems, test_set, replicates=100)
    for hit in HIT_RULES:
        names = family(f"froc_{hit}")
        curves = charts_of(found)[f"froc-{hit}"].curves
        assert [curve.name for curve in curves if not curve.dashed] == ["A", "B"]
        assert [curve.position for curve in curves if curve.dashed] == [0, 1]  # constant boxes
        at = [found.figures.get("A", name) for name in names]
        assert all(figure.bounded for figure in at)
        rising = [figure.estimate for figure in at[1:]]
        assert rising == sorted(rising)
        assert at[0].estimate == pytest.approx(np.mean(rising))
        assert rising == pytest.approx(froc_sensitivities(found.systems["A"].froc[hit]))
        assert found.figures.difference("A", "B", names[-1]).known
        assert found.figures.get("C", names[0]).note.startswith("the system gives neither")
    titles = [row[0] for part in metric_table(found, "rates").groups for row in part.rows]
    assert titles[:3] == ["FROC, at 1/8", "FROC, at 1/8, image-blind", "FROC, at 1/4"]
    assert len(titles) == 28


def test_what_lies_beyond_eight_false_positives_is_not_drawn_at_eight(drawn):
    drawn.systems["CheXNet"].froc["iou"].false_positives_per_image[-1] = 20.0
    assert charts_of(drawn)["froc-iou"].curves[0].points[-1].y == 0.75
    rates, found = froc_corners(drawn)
    assert found[rates < 8.2].max() == pytest.approx(0.75, abs=0.001)


def test_whiskers_share_one_axis_with_round_figures_and_zero():
    placed = place_whiskers(
        [Interval(0.1, -0.02, 0.18), Interval(0, 0, 0, "x"), Interval(0.1, 0.02, 0.11), Interval()],
        around_zero=True,
    )
    positions = {text: position for position, text in placed.ticks}
    assert list(positions) == ["−0.10", "0", "0.10", "0.20"]
    assert placed.whiskers[1].dot == positions["0"]
    assert [whisker.decided for whisker in placed.whiskers[:3]] == [False, False, True]
    assert placed.whiskers[3] is None


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
    table = metric_table(replace(comparison, figures=Figures.from_table(metrics)))
    ends = [(part.ticks[0][1], part.ticks[-1][1]) for part in table.groups[:2]]
    assert ends == [("−0.05", "0.10"), ("−0.20", "0.60")]
    assert {part.count for part in table.groups} == {"12 images, 6 positive"}


def test_degenerate_intervals_still_have_an_axis():
    placed = place_whiskers([Interval(1.0, 1.0, 1.0)])
    assert placed.whiskers[0] is not None
    assert [text for _, text in placed.ticks] == ["1.00", "1.01"]


def calibration_charts(comparison, chance=(), label=()):
    """Return the calibration chart of a comparison with these probabilities and labels, if any."""
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


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("none", "Not calibrated, the score is taken as the probability: RetinaNet. Each"),
        ("platt", "Calibrated on validation images: RetinaNet by Platt scaling. Each"),
    ],
)
def test_a_score_that_was_not_calibrated_is_not_called_calibrated(comparison, method, words):
    decision = SimpleNamespace(to_dict=lambda: {"calibration": {"method": method}})
    result = replace(comparison.systems["RetinaNet"], decisions=(decision,))
    chance = np.linspace(0, 1, 100)
    changed = replace(comparison, systems=comparison.systems | {"RetinaNet": result})
    (chart,) = calibration_charts(changed, chance, (chance > 0.5) * 1.0)
    assert chart.note.startswith(words)


def test_calibration_points_are_the_means_of_equal_groups(comparison):
    chance = np.repeat([0.1, 0.3, 0.8, 0.9], 13)
    (chart,) = calibration_charts(comparison, chance, np.repeat([0.0, 1.0], [20, 32]))
    points = [(point.x, point.y) for point in chart.curves[0].points]
    assert points == [pytest.approx((0.2, 6 / 26)), pytest.approx((0.85, 1.0))]
