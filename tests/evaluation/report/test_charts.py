"""The charts of a report: their numbers against scikit-learn and hand counts, and their files."""

import re
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

from cxr_compare.evaluation.boxes.froc import FROC_RATES, FrocCurve
from cxr_compare.evaluation.boxes.lesion_hits import HIT_RULES
from cxr_compare.evaluation.metrics.net_benefit import net_benefit
from cxr_compare.evaluation.metrics.registry import family
from cxr_compare.evaluation.protocol import Protocol
from cxr_compare.evaluation.report.chart_style import ShownChart, new_chart, save_pages, svg_bytes
from cxr_compare.evaluation.report.curves import chart_facts, curve_table, froc_sensitivities
from cxr_compare.evaluation.report.plots import chart_names, chart_note, draw, draw_forest
from cxr_compare.evaluation.statistics.intervals import Interval
from tests.compared import compare_predictions
from tests.saved_report import save_report


def drawn_chart(comparison, name):
    facts = chart_facts(comparison)
    return draw(name, curve_table(comparison), comparison.metrics, comparison.names, facts)


def rows_of(comparison, chart, system, kind):
    table = curve_table(comparison)
    keys = table[["chart", "system", "kind"]] == [chart, system, kind]
    return table[keys.all(axis=1)]


def note_of(comparison, name):
    return chart_note(name, curve_table(comparison), chart_facts(comparison))


def legend_of(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


@pytest.fixture
def of_scores(test_set, predict):
    """Comparison of two systems of which one has boxes, with its decisions."""
    systems = {"A": predict("A", "boxes", seed=1), "B": predict("B", seed=2)}
    return compare_predictions(systems, test_set, replicates=20)


def test_curves_are_those_of_scikit_learn(of_scores):
    for system in ("A", "B"):
        images = of_scores.decisions.query("system == @system")
        label, score = images["label"].to_numpy(float), images["score"].to_numpy(float)
        roc = rows_of(of_scores, "roc", system, "curve")
        fpr, tpr, _ = roc_curve(label, score, drop_intermediate=False)
        np.testing.assert_allclose(roc[["x", "y"]], np.stack([fpr, tpr], axis=1), atol=1e-9)
        precision, recall, _ = precision_recall_curve(label, score)
        # the first point calls no image positive
        pr = rows_of(of_scores, "pr", system, "curve").iloc[1:]
        oracle = np.stack([recall, precision], axis=1)[-2::-1]
        np.testing.assert_allclose(pr[["x", "y"]], oracle, atol=1e-9)


def test_columns_have_their_types_also_in_an_empty_table(of_scores):
    empty = replace(of_scores, systems={})
    kinds = curve_table(of_scores).dtypes
    assert list(kinds.index) == ["chart", "system", "kind", "policy", "x", "y", "low", "high"]
    pd.testing.assert_series_equal(curve_table(empty).dtypes, kinds)
    assert curve_table(empty).empty


def test_operating_point_lies_at_its_rates(comparison):
    points = rows_of(comparison, "roc", "RetinaNet", "points")
    point = points[points["policy"] == "max_f1"].iloc[0]
    assert (point["x"], point["y"]) == (1 / 6, 4 / 6)  # 1 of 6 negatives is a false alarm


def test_point_that_is_undefined_is_not_drawn(comparison):
    comparison.systems["RetinaNet"].confusion["max_f1"] = {"tp": 0, "fp": 0, "tn": 6, "fn": 6}
    assert len(rows_of(comparison, "pr", "RetinaNet", "points")) == 2  # no precision
    assert len(rows_of(comparison, "roc", "RetinaNet", "points")) == 3


def test_drawn_lines_are_the_curves_and_keep_each_systems_colour(comparison):
    comparison.systems["RetinaNet"].curve.clear()
    line = drawn_chart(comparison, "pr").axes[0].lines[0]
    curve = comparison.systems["CheXNet"].curve
    np.testing.assert_array_equal(line.get_xdata(), curve["recall"])
    np.testing.assert_array_equal(line.get_ydata(), curve["precision"])
    assert line.get_color() == "#1F8FD6"


def test_saved_chart_has_a_legend_of_every_system_and_rule_inside(comparison):
    figure = drawn_chart(comparison, "roc")
    texts = [text.replace("\u00a0", " ") for text in legend_of(figure)]
    assert texts[:4] == [
        "RetinaNet: AUROC 0.891 (0.851 to 0.921)",
        "CheXNet: AUROC 0.862 (0.812 to 0.902)",
        "guessing",
        "threshold for best F1",
    ]
    assert "AUROC" in svg_bytes(figure).decode()
    extent = figure.axes[0].get_legend().get_window_extent()
    assert min(extent.x0, extent.y0) >= 0
    assert extent.x1 <= figure.bbox.x1


def test_a_name_is_shown_as_it_is_and_stays_inside(comparison):
    names = ["_hidden $x$", "a system with a name that is longer than the chart is wide, by far"]
    results = dict(zip(names, comparison.systems.values(), strict=True))
    figure = drawn_chart(replace(comparison, systems=results), "roc")
    assert legend_of(figure)[0] == names[0]
    assert figure.axes[0].get_legend().get_window_extent().x1 <= figure.bbox.x1


def test_files_embed_their_fonts_and_are_the_same_on_a_second_run(comparison, tmp_path):
    names = ("roc", "forest", "confusion")
    pages = []
    for run in ("first", "second"):
        figures = [drawn_chart(comparison, name) for name in names]
        save_pages(figures, tmp_path / f"{run}.pdf")
        pages.append([(tmp_path / f"{run}.pdf").read_bytes(), *map(svg_bytes, figures)])
    first, second = pages
    assert first == second
    assert b"/FontFile2" in first[0]
    assert b"/Type3" not in first[0]
    assert all(b"<text" in svg and b"Date" not in svg for svg in first[1:])


def test_nine_systems_can_be_told_apart_in_colour_and_in_grey(comparison):
    result = comparison.systems["RetinaNet"]
    systems = {f"Network {n}": result for n in range(16)}
    lines = drawn_chart(replace(comparison, systems=systems), "pr").axes[0].lines[:16]
    looks = [(line.get_color(), str(line._unscaled_dash_pattern)) for line in lines]
    assert len(set(looks)) == 16
    assert len({colour for colour, _ in looks[:9]}) == len({dash for _, dash in looks[:9]}) == 9


def test_confusion_chart_says_what_share_each_count_is(comparison):
    counts = {"tp": 3, "fn": 1, "fp": 0, "tn": 0}
    facts = chart_facts(comparison) | {"confusion": {name: {"max_f1": counts} for name in "AB"}}
    figure = draw("confusion", curve_table(comparison), comparison.metrics, ["A", "B"], facts)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["3\n75.0 %", "1\n25.0 %", "0\n0.0 %", "0\n0.0 %"]
    figure.draw_without_rendering()
    above, below = figure.axes
    lowest = min(label.get_window_extent().y0 for label in above.get_xticklabels())
    assert lowest > below.title.get_window_extent().y1


def test_charts_without_content_are_absent(comparison):
    names = chart_names(curve_table(comparison), chart_facts(comparison))
    assert names == ["forest", "roc", "pr", "scores", "confusion"]  # no boxes and no probabilities
    for result in comparison.systems.values():
        result.curve.clear()
        result.confusion.clear()
    assert chart_names(curve_table(comparison), chart_facts(comparison)) == ["forest"]


def test_a_note_speaks_of_thresholds_once_and_only_where_one_is_marked(comparison):
    marked = [note_of(comparison, name) for name in ("roc", "pr")]
    for result in comparison.systems.values():
        result.confusion.clear()
    unmarked = [note_of(comparison, name) for name in ("roc", "pr")]
    assert ["hreshold" in note for note in marked] == [True, False]
    assert not any("hreshold" in note for note in unmarked)


def test_curve_size_does_not_grow_with_the_images():
    figure, axes = new_chart("T", "x", "y")
    axes.plot(np.linspace(0, 1, 200_000), np.sort(np.random.default_rng(0).random(200_000)) ** 0.3)
    assert len(svg_bytes(figure)) < 60_000


@pytest.fixture
def with_boxes(comparison):
    marks = np.array([0, 0.25, 1, 20.0])
    found = np.array([0, 0.5, 0.75, 0.8])
    comparison.systems["CheXNet"].froc["iou"] = FrocCurve(marks, found)
    return comparison


def test_froc_is_drawn_in_steps_on_a_logarithmic_axis_to_eight(with_boxes):
    axes = drawn_chart(with_boxes, "froc-iou").axes[0]
    assert (axes.get_xscale(), axes.get_xlim()) == ("log", (1 / 8, 8))
    ticks = [text.get_text() for text in axes.get_xticklabels()]
    assert ticks == ["1/8", "1/4", "1/2", "1", "2", "4", "8"]
    line = axes.lines[0]
    assert line.get_drawstyle() == "steps-post"
    assert line.get_color() == "#1F8FD6"  # its colour in every chart
    assert line.get_xdata()[0] < 1 / 8  # cut by the frame
    points = rows_of(with_boxes, "froc-iou", "CheXNet", "points")
    assert points["x"].tolist() == list(FROC_RATES)
    assert points["y"].tolist() == [0, 0.5, 0.5, 0.75, 0.75, 0.75, 0.75]


def test_a_comparison_has_every_rate_with_interval_and_curve(test_set, predict):
    systems = {
        "A": predict("A", "boxes", seed=1),
        "B": predict("B", "boxes", seed=2),
        "C": predict("C", seed=3),
    }
    found = compare_predictions(systems, test_set, replicates=100)
    table = curve_table(found)
    for hit in HIT_RULES:
        names = family(f"froc_{hit}")
        chart = table[table["chart"] == f"froc-{hit}"]
        assert set(chart["system"]) == {"A", "B"}
        kinds = {"curve", "points", "band", "image-blind"}
        assert all(set(rows["kind"]) == kinds for _, rows in chart.groupby("system"))
        at = [found.figures.get("A", name) for name in names]
        assert all(figure.bounded for figure in at)
        rising = [figure.estimate for figure in at[1:]]
        assert rising == sorted(rising)
        assert at[0].estimate == pytest.approx(np.mean(rising))
        assert rising == pytest.approx(froc_sensitivities(found.systems["A"].froc[hit]))
        assert found.figures.difference("A", "B", names[-1]).known
        assert found.figures.get("C", names[0]).note.startswith("the system gives neither")


def calibrated(comparison, chance, label):
    """Return the comparison with these probabilities and labels of the first system."""
    ids = [f"i{number}" for number in range(len(chance))]
    frame = pd.DataFrame({"image_id": ids, "patient_id": ids, "label": label, "score": chance})
    return replace(comparison, decisions=frame.assign(system="RetinaNet", probability=chance))


def test_calibration_curve_needs_probabilities(comparison):
    assert rows_of(comparison, "calibration", "RetinaNet", "curve").empty
    rng = np.random.default_rng(0)
    chance = rng.random(5000)
    found = calibrated(comparison, chance, (rng.random(5000) < chance) * 1.0)
    curve = rows_of(found, "calibration", "RetinaNet", "curve")
    assert len(curve) == 10
    assert curve["y"].to_numpy() == pytest.approx(curve["x"].to_numpy(), abs=0.06)


def test_calibration_points_are_the_means_of_equal_groups(comparison):
    chance = np.repeat([0.1, 0.3, 0.8, 0.9], 13)
    found = calibrated(comparison, chance, np.repeat([0.0, 1.0], [20, 32]))
    curve = rows_of(found, "calibration", "RetinaNet", "curve")
    assert curve["x"].tolist() == pytest.approx([0.2, 0.85])
    assert curve["y"].tolist() == pytest.approx([6 / 26, 1.0])


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("none", "Not calibrated"),
        ("platt", "Platt scaling"),
    ],
)
def test_a_score_that_was_not_calibrated_is_not_called_calibrated(comparison, method, words):
    decision = SimpleNamespace(calibration=SimpleNamespace(method=method))
    result = replace(comparison.systems["RetinaNet"], decisions=(decision,))
    chance = np.linspace(0, 1, 100)
    changed = replace(comparison, systems=comparison.systems | {"RetinaNet": result})
    assert words in note_of(calibrated(changed, chance, (chance > 0.5) * 1.0), "calibration")


def test_scores_without_calibration_have_no_decision_curve(comparison):
    assert "net-benefit" not in set(curve_table(comparison)["chart"])
    decisions = comparison.decisions.copy()
    of_detector = decisions["system"] == "RetinaNet"
    decisions.loc[of_detector, "probability"] = decisions["score"]
    found = replace(comparison, decisions=decisions)
    curve = rows_of(found, "net-benefit", "RetinaNet", "curve").set_index("x")["y"]
    rows = decisions[of_detector]
    assert curve[0.2] == pytest.approx(net_benefit(rows["label"], rows["score"], 0.2))
    treat_all = rows_of(found, "net-benefit", "", "guide").set_index("x")["y"]
    everybody = np.ones(len(rows))
    assert treat_all[0.2] == pytest.approx(net_benefit(rows["label"], everybody, 0.2))
    assert "CheXNet" in note_of(found, "net-benefit")  # it is not drawn, and the note says why
    assert drawn_chart(found, "net-benefit").axes[0].get_xlim() == (0, 0.8)


def test_forest_shows_the_primary_figure_and_the_differences(comparison):
    upper, lower = drawn_chart(comparison, "forest").axes
    assert [text.get_text() for text in upper.texts[:2]] == ["RetinaNet", "0.891 (0.851 to 0.921)"]
    assert lower.texts[0].get_text() == "RetinaNet −\nCheXNet"
    low, high = lower.get_xlim()
    assert low <= 0 <= high
    declared = replace(comparison, protocol=Protocol(metric="f1", policy="max_f1", declared=True))
    upper, _ = drawn_chart(declared, "forest").axes
    title = upper.get_title(loc="left").replace("\n", " ")
    assert title == "F1 at the threshold for best F1 with 95 % interval"
    assert upper.texts[1].get_text().startswith("0.760 (")
    both = Protocol(metric="recall", partner="specificity", policy="max_f1", declared=True)
    figures, differences = chart_facts(replace(comparison, protocol=both))["forest"]
    assert figures["rows"][0]["name"] == "RetinaNet: sensitivity (recall)"
    assert differences["rows"][-1]["name"] == "RetinaNet − CheXNet: specificity"


def test_a_difference_that_the_answer_does_not_show_has_a_hollow_dot(comparison):
    (row,) = chart_facts(comparison)["forest"][1]["rows"]
    dot = drawn_chart(comparison, "forest").axes[1].lines[-1]
    assert not row["shown"]
    assert dot.get_markerfacecolor() == "white"


@pytest.mark.parametrize(
    ("interval", "decided", "why"),
    [
        (Interval(0.2, 0.1, 0.3), True, "all above 0"),
        (Interval(-0.2, -0.3, -0.1), True, "all below 0"),
        (Interval(0.1, 0.0, 0.2), False, "an end on 0 does not exclude it"),
        (Interval(0.1, 0.0004, 0.2), True, "printed as 0.0004"),
        (Interval(0.1, 1e-9, 0.2), False, "a rounding error"),
        (Interval(0.01, -0.2, -0.1), False, "percentile interval beside its own estimate"),
        (Interval(0.1), False, "no interval"),
        (Interval(), False, "undefined"),
    ],
)
def test_a_difference_is_claimed_only_where_its_interval_excludes_zero(interval, decided, why):
    assert interval.excludes_zero is decided, why
    assert interval.reversed().excludes_zero is decided, why


def test_page_embeds_the_files_and_each_chart_stands_once(comparison, image_set, tmp_path):
    page = save_report(comparison, image_set.labelled, None, tmp_path).read_text()
    shown = re.findall(r'<figure class="chart[^>]*>\s*<svg[^>]*aria-label="([^"]+)"', page)
    files = {path.stem: path.read_text() for path in (tmp_path / "figures").glob("*.svg")}
    assert set(files) == {"forest", "roc", "pr", "scores", "confusion"}
    assert len(shown) == 4  # the counts of the confusion matrices are a table
    assert "RetinaNet: AUROC" in shown[1]


def test_a_chart_is_black_on_white_in_its_file_and_in_the_colours_of_the_page_there(comparison):
    shown = ShownChart(drawn_chart(comparison, "roc"), description="Two systems")
    file, page = shown.file.decode(), ElementTree.fromstring(shown.svg)  # noqa: S314
    assert "#ffffff" in file
    assert page.get("aria-label").endswith("Two systems")
    styles = " ".join(element.get("style", "") for element in page.iter())
    assert not re.search("#(ffffff|000000|59636e|d9dcd8)", styles)
    assert "var(--quiet)" in styles
    assert page.get("fill") == "currentColor"
    (_, width, height) = page.get("viewBox").rsplit(" ", 2)
    covers = [
        path.get("d")
        for path in page.iter("path")
        if f"{width} 0" in path.get("d", "") and f"0 {height}" in path.get("d", "")
    ]
    assert covers == []  # transparent


def test_ids_of_two_charts_on_a_page_differ_and_what_they_refer_to_is_there(comparison):
    drawings = [ShownChart(drawn_chart(comparison, name)).svg for name in ("roc", "pr")]
    ids = [re.findall(r'id="(.*?)"', drawing) for drawing in drawings]
    assert not set(ids[0]) & set(ids[1])
    for own, drawing in zip(ids, drawings, strict=True):
        assert set(re.findall(r'(?:url\(|href=")#([\w-]+)', drawing)) <= set(own)


def test_histogram_of_scores_has_the_shares_of_each_class_and_the_thresholds(comparison):
    images = comparison.decisions.query("system == 'RetinaNet'")
    for kind, of_class in (("positive", images["label"] >= 1), ("negative", images["label"] < 1)):
        bars = rows_of(comparison, "scores", "RetinaNet", kind)
        counts, _ = np.histogram(images.loc[of_class, "score"].astype(float), 20, (0, 1))
        assert bars["y"].tolist() == pytest.approx(list(counts / of_class.sum()))
        assert bars["x"].iloc[0] == pytest.approx(0.025)
    points = rows_of(comparison, "scores", "RetinaNet", "points").set_index("policy")["x"]
    assert points.to_dict() == comparison.systems["RetinaNet"].thresholds


@pytest.mark.parametrize("n_systems", [2, 9])
def test_ticks_of_the_forest_stand_apart(comparison, n_systems):
    names = [f"a network of some size {number}" for number in range(n_systems)]
    parts = [{"title": "AUROC", "rows": []}]
    for position, name in enumerate(names):
        low = position / n_systems
        row = {"name": name, "system": name, "estimate": low + 0.1, "ci_low": low, "note": ""}
        parts[0]["rows"].append(row | {"ci_high": low + 0.2})
    figure = draw_forest(parts, names)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
    boxes = [tick.label1.get_window_extent() for tick in ticks]
    assert len(boxes) >= 2
    assert all(one.x1 + 2 < other.x0 for one, other in pairwise(boxes))
