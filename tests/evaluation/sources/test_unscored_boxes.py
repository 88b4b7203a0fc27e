"""Boxes without scores, as of a vision-language model or a person, are one operating point."""

import json

import numpy as np
import pandas as pd
import pytest

from cxr_compare import compare, metrics
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError

SIDE = 512
CUT = 0.4
DECIDED = ["recall", "specificity", "precision", "f1", "accuracy"]
RANKINGS = ["auroc", "average_precision", "ap50", "froc_mean"]


@pytest.fixture(scope="module")
def drawn():
    """Truth of 120 images of 60 patients, true boxes, scored boxes and scores of a classifier."""
    rng = np.random.default_rng(0)
    n = np.arange(120)
    truth = pd.DataFrame(
        {
            "image_id": [f"i{number:03d}" for number in n],
            "patient_id": [f"p{number // 2:02d}" for number in n],
            "label": (rng.random(120) < 0.4).astype(int),
            "role": np.where(n // 2 % 2, "test", "val"),
            "width": SIDE,
            "height": SIDE,
        }
    )
    boxes = _boxes(rng, truth.loc[truth["label"] == 1, "image_id"], (100, 120))
    hits = boxes[rng.random(len(boxes)) < 0.8]
    hits = hits.assign(**(hits[EDGES] + rng.integers(0, 20, (len(hits), 4))))
    hits["score"] = rng.beta(4, 2, len(hits))
    false = _boxes(rng, rng.choice(truth["image_id"], 60, replace=False), (70, 70))
    false["score"] = rng.beta(2, 4, len(false))
    scores = 1 / (1 + np.exp(-(1.5 * truth["label"] - 0.7 + rng.normal(size=120))))
    classifier = truth[["image_id"]].assign(score=scores)
    return truth, boxes, pd.concat([hits, false], ignore_index=True), classifier


def _boxes(rng, images, size):
    left, top = rng.integers(10, 300, (2, len(images))).astype(float)
    corners = np.array([left, top, left + size[0], top + size[1]]).T
    return pd.DataFrame(corners, columns=EDGES).assign(image_id=np.asarray(images))


def _called(scored, cut=CUT):
    return scored.loc[scored["score"] >= cut, ["image_id", *EDGES]].reset_index(drop=True)


def _figures(result):
    table = result.to_frame()
    table = table[table["subgroup"] == "all"]
    return table.set_index(["first", "second", "metric", "policy"]).sort_index()


def _compare(drawn, systems, **options):
    truth, boxes, _, _ = drawn
    return compare(systems, truth=truth, boxes=boxes, replicates=100, **options)


@pytest.fixture(scope="module")
def result(drawn):
    _, _, scored, classifier = drawn
    systems = {"scored": scored, "called": _called(scored), "classifier": classifier}
    return _compare(drawn, systems, policy=[f"threshold={CUT}"])


@pytest.fixture(scope="module")
def alone(drawn):
    """The called boxes without another system."""
    return _compare(drawn, {"A": _called(drawn[2])})


def test_figures_are_those_of_the_scored_boxes_at_the_threshold(result):
    figures = _figures(result)
    for metric in DECIDED:
        pair = [
            figures.loc[(name, "", metric, f"threshold={CUT}")] for name in ("scored", "called")
        ]
        columns = ["estimate", "ci_low", "ci_high"]
        assert pair[0][columns].tolist() == pytest.approx(pair[1][columns].tolist()), metric
        assert pair[1]["ci_low"] < pair[1]["estimate"] < pair[1]["ci_high"]


def test_figures_of_boxes_are_those_of_scored_boxes_at_the_cut(drawn, result):
    truth, boxes, scored, _ = drawn
    tested = truth.loc[truth["role"] == "test", ["image_id", "patient_id"]]
    of_called = _figures(result).loc["called", ""]
    for metric in ("box_f1", "false_marks", "rsna_score"):
        cut = metrics.estimate(
            metric,
            boxes[boxes["image_id"].isin(tested["image_id"])],
            scored[scored["image_id"].isin(tested["image_id"])],
            image_ids=tested["image_id"],
            patients=tested["patient_id"],
            threshold=CUT,
        )
        assert of_called.loc[(metric, ""), "estimate"] == pytest.approx(cut.estimate)
        low, high = of_called.loc[(metric, ""), ["ci_low", "ci_high"]]
        assert low <= cut.estimate <= high


def test_it_is_tested_against_a_system_with_scores(result):
    figures = _figures(result)
    for metric in DECIDED:
        gap = figures.loc[("called", "classifier", metric, f"threshold={CUT}")]
        assert gap["ci_low"] <= gap["estimate"] <= gap["ci_high"]
        assert 0 < gap["p_value"] <= 1
    assert "F1" in result.headline


def test_rankings_are_undefined_with_the_reason(result):
    figures = _figures(result)
    for metric in RANKINGS:
        assert np.isnan(figures.loc[("called", "", metric, "")]["estimate"])
        assert figures.loc[("scored", "", metric, "")]["estimate"] > 0
    assert "need scores and are undefined" in str(result)


def test_charts_mark_its_point(result):
    marks = result.curves[result.curves["kind"] == "mark"].set_index("chart")
    assert set(marks["system"]) == {"called"}
    figures = _figures(result)
    recall = figures.loc[("called", "", "recall", f"threshold={CUT}")]["estimate"]
    false_marks = figures.loc[("called", "", "false_marks", "")]["estimate"]
    assert marks.loc["roc", "y"] == pytest.approx(recall)
    assert marks.loc["froc-iou", "x"] == pytest.approx(false_marks)
    for chart in ("roc", "froc-iou"):
        labels = [text.get_text() for text in result.plot(chart).axes[0].get_legend().get_texts()]
        assert any(label.startswith("called: one point") for label in labels), chart


def test_scores_that_are_all_one_are_no_ranking(drawn, alone):
    assert "no ranking" in str(_compare(drawn, {"A": _called(drawn[2]).assign(score=1.0)}))
    assert "no ranking" not in str(alone)


def test_half_of_the_scores_is_refused(drawn):
    called = _called(drawn[2])
    half = called.assign(score=np.where(called.index % 2, 0.5, np.nan))
    with pytest.raises(InputError, match="row 0"):
        _compare(drawn, {"A": half})
    with pytest.raises(InputError, match="certainty"):
        _compare(drawn, {"A": called.assign(certainty=np.linspace(0.1, 0.9, len(called)))})


def _tokens(box, steps, pattern, order):
    return "".join(pattern.format(int(getattr(box, edge) / SIDE * steps)) for edge in order)


YXYX = ("y1", "x1", "y2", "x2")
ANSWERS = {
    "PaliGemma": lambda box: _tokens(box, 1024, "<loc{:04d}>", YXYX) + " opacity ; ",
    "Florence": lambda box: "opacity" + _tokens(box, 1000, "<loc_{}>", EDGES),
}


@pytest.mark.parametrize("kind", [*ANSWERS, "box_2d", "entries"])
def test_the_format_of_an_answer_says_what_its_numbers_mean(drawn, alone, kind):
    truth, _, scored, _ = drawn
    called = _called(scored)
    rows = list(called.itertuples())
    entries = [
        {"box_2d": [round(getattr(box, edge) / SIDE * 1000) for edge in YXYX], "label": "opacity"}
        for box in rows
    ]
    if kind == "entries":
        pairs = zip(entries, rows, strict=True)
        of_kind = [entry | {"image_id": box.image_id} for entry, box in pairs]
    else:
        texts = dict.fromkeys(truth["image_id"], "no finding")
        for image in called["image_id"].unique():
            own = [number for number, box in enumerate(rows) if box.image_id == image]
            if kind == "box_2d":
                texts[image] = f"```json\n{json.dumps([entries[number] for number in own])}\n```"
            else:
                texts[image] = "".join(ANSWERS[kind](rows[number]) for number in own)
        of_kind = truth[["image_id"]].assign(answer=truth["image_id"].map(texts))
    read = _figures(_compare(drawn, {"A": of_kind}))["estimate"]
    expected = _figures(alone)["estimate"]
    for metric in ("box_f1", "false_marks"):
        assert read["A", "", metric, ""] == pytest.approx(expected["A", "", metric, ""], abs=0.02)


@pytest.mark.parametrize(
    "answer",
    [
        "<loc0010><loc0020><loc0030> opacity",
        '[{"box_2d": [1, 2, 3]}]',
        '[{"box_2d": [0, 0, 1200, 9]}]',
        '[{"box_2d": [0, 0, 9, 9]}',
        '[{"bbox_2d": [0, 0, 9, 9]}]',
        "<loc10><loc20><loc300><loc400> opacity",
        "<loc0000><loc0000><loc0009><loc1024> opacity",
        "<loc0000><loc0000><loc0009><loc0009> opacity <loc5>",
        "opacity <box>(10,20),(30,40)</box>",
        "opacity at [10, 20, 30, 40]",
    ],
)
def test_a_box_of_an_answer_that_is_not_understood_is_refused(drawn, answer):
    truth = drawn[0]
    answers = truth[["image_id"]].assign(answer=["<loc0000><loc0000><loc0009><loc0009>"] * 120)
    answers.loc[5, "answer"] = answer
    with pytest.raises(InputError, match="row 5, image 'i005'"):
        _compare(drawn, {"A": answers})


def _scaled(table, size, columns=EDGES):
    return table.assign(**(table[list(columns)] / SIDE * size).round())


def test_coordinates_to_1000_are_read_where_they_leave_the_image_and_asked_where_not(drawn):
    truth, boxes, scored, _ = drawn
    called = _called(scored).assign(**_called(scored)[EDGES].clip(0, SIDE).round())
    steps = _scaled(called, 1000)
    result = _compare(drawn, {"A": steps})
    assert "coordinates from 0 to 1000" in str(result)
    expected = _figures(_compare(drawn, {"A": called}))["estimate"]["A", "", "box_f1", ""]
    assert _figures(result)["estimate"]["A", "", "box_f1", ""] == pytest.approx(expected, abs=0.02)
    large = truth.assign(width=1024, height=1024)
    with pytest.raises(InputError, match="px, or coordinates from 0 to 1000"):
        compare({"A": steps}, truth=large, boxes=_scaled(boxes, 1024), replicates=100)
    stated = compare(
        {"A": steps},
        truth=large,
        boxes=_scaled(boxes, 1024),
        columns=["A.box_unit=thousandth"],
        replicates=100,
    )
    assert _figures(stated)["estimate"]["A", "", "box_f1", ""] == pytest.approx(expected, abs=0.02)
    unknown = truth.drop(columns=["width", "height"])
    with pytest.raises(InputError, match="no sizes of images are known"):
        compare({"A": steps}, truth=unknown, boxes=boxes, replicates=100)


def test_y_before_x_is_read_where_x_first_leaves_the_image(drawn):
    truth, boxes, scored, _ = drawn
    tall = truth.assign(height=4 * SIDE)

    def stretched(table):
        return table.assign(y1=table["y1"] * 4, y2=table["y2"] * 4)

    called = stretched(_called(scored)).round()
    turned = called.rename(columns={"x1": "y1", "y1": "x1", "x2": "y2", "y2": "x2"})
    results = [
        compare({"A": each}, truth=tall, boxes=stretched(boxes), replicates=100)
        for each in (called, turned)
    ]
    estimates = [_figures(each)["estimate"] for each in results]
    pd.testing.assert_series_equal(*estimates)
    assert "y1, x1, y2, x2" in str(results[1])


def test_files_give_the_same(drawn, alone, tmp_path):
    truth, boxes, scored, _ = drawn
    called = _called(scored)
    called.to_csv(tmp_path / "a.csv", index=False)
    truth.drop(columns=["width", "height"]).to_csv(tmp_path / "truth.csv", index=False)
    boxes.to_csv(tmp_path / "boxes.csv", index=False)
    by_file = compare(
        [f"A={tmp_path / 'a.csv'}"],
        truth=tmp_path / "truth.csv",
        boxes=tmp_path / "boxes.csv",
        columns=["A.box_unit=px"],
        out=tmp_path / "report",
        replicates=100,
    )
    in_memory = _figures(alone)["estimate"].dropna()
    pd.testing.assert_series_equal(_figures(by_file)["estimate"].dropna(), in_memory)
    assert "one operating point" in by_file.page.read_text()


def test_several_findings_and_uncertain_labels(drawn):
    truth, boxes, scored, classifier = drawn
    several = truth.drop(columns="label").assign(opacity=truth["label"])
    several["mass"] = np.roll(truth["label"], 2)
    several.loc[[3, 7], "mass"] = -1
    called = _called(scored)
    systems = {
        "A": pd.concat([called.assign(finding=name) for name in ("opacity", "mass")]),
        "B": classifier.rename(columns={"score": "opacity"}).assign(mass=classifier["score"]),
    }
    true = boxes.assign(finding="opacity")
    results = compare(systems, truth=several, boxes=true, target="all", replicates=100)
    alone = _compare(drawn, {"A": called, "B": classifier})
    columns = ["estimate", "ci_low", "ci_high"]
    of_opacity = _figures(results.results["opacity"])[columns]
    pd.testing.assert_frame_equal(of_opacity, _figures(alone)[columns])
    assert results.macro.empty
    assert set(results.left_out) == {"opacity", "mass"}
    assert "scores" in results.headline
    counts = [_figures(results.results[name])["n_images"].max() for name in ("opacity", "mass")]
    assert counts[0] - counts[1] == 2


def test_one_figure_needs_no_scores_of_boxes_that_are_all_called(drawn):
    truth, boxes, scored, _ = drawn
    images = truth["image_id"]
    for metric in ("box_f1", "false_marks", "rsna_score"):
        alone = metrics.estimate(metric, boxes, _called(scored), image_ids=images)
        cut = metrics.estimate(metric, boxes, scored, image_ids=images, threshold=CUT)
        assert alone.estimate == cut.estimate
    with pytest.raises(InputError, match="ap50 needs scores"):
        metrics.estimate("ap50", boxes, _called(scored), image_ids=images)
