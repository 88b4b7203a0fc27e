"""Boxes without scores: an image with a box is called, and nothing ranks images or boxes."""

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from cxr_compare import metrics
from tests.adapters import reports

EDGES = ["x1", "y1", "x2", "y2"]
CALLED = ["recall", "specificity", "precision", "f1", "accuracy"]
RANKED = ["auroc", "average_precision", "ap50", "ap", "froc_mean", "pointing_accuracy", "brier"]


@pytest.fixture(scope="module")
def tables(world):
    names = ("truth", "boxes", "true_boxes", "a")
    return {name: pd.read_csv(world.tables / f"{name}.csv") for name in names}


@pytest.fixture(scope="module")
def unscored(tables):
    """The boxes that a detector calls at 0.5."""
    return tables["boxes"].query("score >= 0.5").drop(columns="score")


def compared(systems, tables, **options):
    call = {"truth": tables["truth"], "boxes": tables["true_boxes"], "replicates": 100}
    return cxr_compare.compare(systems, **call | options)


@pytest.fixture(scope="module")
def result(tables, unscored):
    systems = {"U": unscored, "S": tables["a"]}
    return compared(systems, tables, columns=["U.box_unit=px"])


def of_system(result, name="U"):
    rows = result.figures
    return rows[(rows["first"] == name) & (rows["second"] == "")]


def test_decisions_have_the_figures_of_an_image_with_a_box(result, tables, unscored):
    test = tables["truth"].query("role == 'test'")
    called = test["image_id"].isin(unscored["image_id"]).astype(float)
    expected = metrics.classification_metrics(test["label"].to_numpy(), called.to_numpy(), 0.5)
    rows = of_system(result)
    for policy in rows.loc[rows["policy"] != "", "policy"].unique():
        found = rows[rows["policy"] == policy].set_index("metric")["estimate"]
        assert {name: found[name] for name in CALLED} == pytest.approx(
            {name: expected[name] for name in CALLED}
        )


def test_what_needs_a_ranking_is_undefined_and_says_why(result):
    rows = of_system(result).set_index("metric")
    assert rows.loc[RANKED, "estimate"].isna().all()
    assert rows.loc[RANKED, "note"].str.contains("scores").all()
    assert of_system(result, "S").set_index("metric").loc["auroc", "estimate"] > 0.5


def test_a_figure_that_both_have_decides(result):
    assert tuple(result.answer.primary) == ("f1", "max_f1")
    rows = result.figures.query("first == 'U' and second == 'S' and metric == 'f1'")
    at_best = rows[rows["policy"] == "max_f1"].iloc[0]
    assert np.isfinite([at_best["ci_low"], at_best["ci_high"], at_best["p_value"]]).all()


def test_they_have_no_threshold_and_an_answer_by_f1_names_none(result, tables, unscored):
    assert result.answer.thresholds["U"] == {}
    assert result.answer.thresholds["S"]
    shown = result.table["Score threshold"]
    assert shown["U"] == "–"
    assert shown["S"] != "–"
    alone = compared({"U": unscored}, tables, columns=["U.box_unit=px"])
    assert "Score threshold" not in alone.table
    assert "threshold" not in str(alone) + result.headline


def test_the_page_says_that_they_have_no_threshold(tables, unscored, tmp_path):
    call = {"columns": ["U.box_unit=px"], "out": tmp_path / "report"}
    page = compared({"U": unscored}, tables, **call).page.read_text(encoding="utf-8")
    assert "U gives boxes without scores" in page
    assert "Thresholds of" not in page
    assert "at the threshold" not in page
    assert "chosen on validation images" not in page


def test_the_chart_of_scores_names_only_systems_with_scores(result):
    names = [text.get_text() for text in result.plot("scores").legends[0].get_texts()]
    assert names == ["S"]


def test_a_guarantee_decides_nothing_between_them_and_scores():
    labels = np.arange(600) % 2
    ids = [f"i{number:03d}" for number in range(600)]
    truth = pd.DataFrame({"image_id": ids, "label": labels, "patient_id": ids})
    truth["role"] = np.where(np.arange(600) < 400, "val", "test")
    truth = truth.assign(width=100, height=100)
    scores = np.random.default_rng(2).normal(1.5 * labels, 1)
    scores = pd.Series(1 / (1 + np.exp(-scores)), ids)
    found = pd.DataFrame({"image_id": ids[1::2], "x1": 5.0, "y1": 5.0, "x2": 60.0, "y2": 60.0})
    result = cxr_compare.compare(
        {"U": found.iloc[::2], "S": scores},
        truth=truth,
        policy="specificity>=0.80@0.90",
        columns=["U.box_unit=px"],
        replicates=100,
    )
    assert result.answer.kind == "unknown"


def test_charts_have_one_point_and_no_curve(result):
    drawn = result.curves[result.curves["system"] == "U"]
    assert set(drawn["kind"]) == {"points"}
    assert drawn["chart"].value_counts().to_dict() == {"roc": 1, "pr": 1, "froc": 1}
    axes = result.plot("roc").axes[0]
    at = [line.get_xydata()[0] for line in axes.lines if "U" in str(line.get_label())]
    np.testing.assert_allclose(at, drawn.loc[drawn["chart"] == "roc", ["x", "y"]])


def test_kinds_of_errors_are_those_of_the_scored_boxes_that_are_called(result, tables):
    scored = tables["boxes"].query("score >= 0.5").assign(score=0.9)
    other = compared({"U": scored}, tables, policy="threshold=0.5")
    counts = [
        each.lesions.query("system == 'U' and topic == 'errors'").set_index("metric")["count"]
        for each in (result, other)
    ]
    pd.testing.assert_series_equal(*counts)


def test_without_validation_images_it_has_its_decisions(tables, unscored):
    truth = tables["truth"].query("role == 'test'").drop(columns="role")
    kept = tables["true_boxes"]["image_id"].isin(truth["image_id"])
    own = unscored[unscored["image_id"].isin(truth["image_id"])]
    call = {"truth": truth, "boxes": tables["true_boxes"][kept], "columns": ["U.box_unit=px"]}
    alone = of_system(compared({"U": own}, tables, **call))
    assert alone.query("metric == 'recall'")["estimate"].notna().all()


def test_a_report_of_them_alone_is_written(tables, unscored, tmp_path):
    with reports.undrawn():
        made = compared({"U": unscored}, tables, columns=["U.box_unit=px"], out=tmp_path / "report")
    assert made.page.is_file()
    opened = cxr_compare.Result.open(tmp_path / "report")
    pd.testing.assert_frame_equal(opened.figures, made.figures)
