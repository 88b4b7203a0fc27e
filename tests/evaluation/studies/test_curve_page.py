"""The page of a learning-curve study claims what is shown, and its script says what Python says."""

import csv
import html
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import scipy

from cxr_compare.evaluation.statistics.intervals import Interval
from cxr_compare.evaluation.statistics.learning_curve import fit_learning_curves
from cxr_compare.evaluation.studies.annotation_times import PRESETS, Times
from cxr_compare.evaluation.studies.curve_page import FILES, PAGE, STORED, write_curve
from cxr_compare.evaluation.studies.curve_statements import curve_statements
from cxr_compare.evaluation.studies.curve_study import (
    CurveModel,
    CurveStudy,
    Difference,
    SizeFigure,
    SizePoint,
)
from cxr_compare.evaluation.studies.study_sentences import study_sentence

NO_CUT = "its maps have no cut from validation"
SHARES = (0.125, 0.25, 0.5, 1.0)
IMAGES = np.array([54.0, 107.0, 215.0, 430.0])
POWERS = {  # of 1 - figure: a and b by metric and arm
    "auroc": {"detector": (0.55, 0.18), "classifier": (2.3, 0.45), "mixed": (0.6, 0.22)},
    "average_precision": {"detector": (0.9, 0.15), "classifier": (1.6, 0.24), "mixed": (0.9, 0.17)},
    "localised_sensitivity": {"detector": (1.3, 0.2), "mixed": (1.2, 0.2)},
}


def example(
    powers=None, *, seeds=3, error=0.008, spread=0.006, draws=512, sizes=IMAGES, offset=(), **rest
):
    """A study whose true curves are known.

    `error` is the standard error of a figure over patients, correlated 0.7 between any two;
    `spread` the standard deviation between seeds; `offset` is added to the figures at each size.
    """
    rng = np.random.default_rng(7)
    sizes = np.asarray(sizes, float)
    shares = SHARES[-len(sizes) :]
    points = {}
    differences = []
    fits = {}
    for metric, arms in (powers or POWERS).items():
        kinds = list(arms)
        common = rng.normal(0, error * np.sqrt(0.7))
        tables = [
            np.clip(
                1
                - a * sizes[:, None] ** -b
                + common
                + (np.array(offset)[:, None] if offset else 0)
                + rng.normal(0, spread, (len(sizes), seeds)),
                0.01,
                0.995,
            )
            for a, b in arms.values()
        ]
        count = len(kinds) * len(sizes) * seeds
        covariance = error**2 * (0.7 + 0.3 * np.eye(count))
        curves = fit_learning_curves([sizes] * len(kinds), tables, covariance, 150, draws=draws)
        fits[metric] = {k: c for k, c in zip(kinds, curves, strict=True) if k != "mixed"}
        reach = 1.96 * np.sqrt(error**2 + spread**2 / seeds)
        for kind, table in zip(kinds, tables, strict=True):
            for share, row in zip(shares, table, strict=True):
                mean = float(row.mean())
                figure = SizeFigure(Interval(mean, mean - reach, mean + reach), tuple(row.tolist()))
                points.setdefault((kind, share), {})[metric] = figure
        gap_error = np.sqrt(0.6 * error**2 + 2 * spread**2 / seeds)
        for first, second in (
            ("detector", "classifier"),
            ("mixed", "classifier"),
            ("mixed", "detector"),
        ):
            if first in kinds and second in kinds:
                one, other = (tables[kinds.index(kind)].mean(axis=1) for kind in (first, second))
                if (first, second) == ("mixed", "classifier"):
                    other = np.repeat(other[-1], len(other))
                for share, gap in zip(shares, (one - other).tolist(), strict=True):
                    ends = gap - 1.96 * gap_error, gap + 1.96 * gap_error
                    p = float(2 * scipy.special.ndtr(-abs(gap) / gap_error))
                    differences.append(
                        Difference(metric, share, first, second, Interval(gap, *ends), p)
                    )
    kinds = list(dict.fromkeys(kind for kind, _ in points))
    boxed = {"detector": 1.0, "classifier": 0.0, "mixed": 1.0}
    labelled = dict.fromkeys(kinds, sizes) | {"mixed": np.repeat(sizes[-1], len(sizes))}
    return CurveStudy(
        **{
            "data_set": "RSNA",
            "target": "Lung opacity",
            "folds": [f"fold-{at}" for at in range(5)],
            "n_seeds": seeds,
            "models": [CurveModel(kind, ARMS[kind][0], ARMS[kind][1]) for kind in kinds],
            "points": [
                SizePoint(
                    kind,
                    share,
                    m,
                    0.52 * n * boxed[kind],
                    n * boxed[kind],
                    0.32 * m,
                    points[kind, share],
                )
                for kind in kinds
                for share, n, m in zip(shares, sizes.tolist(), labelled[kind].tolist(), strict=True)
            ],
            "differences": differences,
            "fits": fits,
            "absent": {("localised_sensitivity", "classifier"): NO_CUT},
            "commands": ["cxr curve --detector retinanet_lite --data rsna"],
            "provenance": {"revision": "0123abc"},
            **rest,
        }
    )


ARMS = {
    "detector": ("RetinaNet lite", "retinanet_lite, 160 px, 8 epochs"),
    "classifier": ("DenseNet small", "chexnet_small, 160 px, 8 epochs"),
    "mixed": ("RetinaNet lite on the classifier's backbone", "a quarter boxed"),
}


def statements_on(study, about, metric="auroc"):
    return [each for each in curve_statements(study, metric) if each.about == about]


def test_each_direction_and_what_is_not_shown_has_its_sizes():
    first, second, third = statements_on(example(), "difference")
    assert re.fullmatch(
        r"The AUROC of the detector is higher than that of the classifier by 0\.\d+ \(.*\) with 54 "
        r"and 0\.\d+ \(.*\) with 107 annotated images; the AUROC of the classifier is higher than "
        r"that of the detector by 0\.\d+ \(.*\) with 430; with 215 a difference is not shown\.",
        first.text,
    )
    assert first.shown
    assert "classifier with all labels is higher than that of the mixed model" in second.text
    assert third.text.startswith("The AUROC of the mixed model is higher than that of the detector")
    assert " with 54 " in third.text, "the mixed model's size is that of its boxed images"


def test_holm_over_the_sizes_decides_not_each_size_alone():
    study = example()
    gap = Interval(0.03, 0.001, 0.059)
    rows = [Difference("auroc", share, "detector", "classifier", gap, 0.04) for share in SHARES]
    (statement,) = statements_on(replace(study, differences=rows), "difference")
    assert not statement.shown
    assert statement.text == (
        "A difference in AUROC between the detector and the classifier is not shown, with 54, 107, "
        "215 or 430 annotated images."
    )
    alone = replace(study, differences=rows[:1])
    assert [each.shown for each in statements_on(alone, "difference")] == [True]


def test_without_a_p_value_nothing_is_shown():
    row = Difference("auroc", 1.0, "detector", "classifier", Interval(0.3, 0.2, 0.4), None)
    assert not statements_on(replace(example(), differences=[row]), "difference")[0].shown


def test_a_crossing_names_the_better_model_on_either_side():
    (statement,) = statements_on(example(), "images")
    assert statement.shown
    assert re.search(
        r" at \d+ images \(\d+ to \d+\), .*less the detector .*more the classifier", statement.text
    )


def two_models(a, b):
    return {"auroc": {"detector": (1.0, 0.3), "classifier": (a, b)}}


@pytest.mark.parametrize(
    ("study", "about", "metric", "words"),
    [
        (
            {},
            "images",
            "average_precision",
            r"beyond the 54 to 430 images at which both were measured\.$",
        ),
        (
            {"times": Times(1.0, 3000.0)},
            "time",
            "auroc",  # boxes are dear
            r"not shown: there is no time at which both were measured\.$",
        ),
        ({"powers": two_models(1.1, 0.3)}, "images", "auroc", "not shown to differ in slope"),
        ({"powers": two_models(1.1, 0.3)}, "time", "auroc", "not shown to differ in slope"),
        (
            {"powers": two_models(1.0, 0.3), "error": 0.03, "times": Times(10.0, 0.0)},
            "budget",
            "auroc",
            r"a difference is not shown \(.* to .*\)\.$",
        ),
    ],
    ids=["beyond the sizes", "at no time", "parallel", "parallel in time", "equal"],
)
def test_what_is_not_shown_has_a_reason(study, about, metric, words):
    (statement,) = statements_on(example(**study), about, metric)
    assert not statement.shown
    assert re.search(words, statement.text)


def test_one_training_is_stated_and_gives_no_crossing():
    study = example(seeds=1)
    assert statements_on(study, "difference")[0].text.endswith("each was trained once.")
    assert not statements_on(study, "images")[0].shown
    assert "one training at each size" in statements_on(study, "images")[0].text
    assert "a difference is not shown: one training" in statements_on(study, "budget")[0].text


def test_a_missing_figure_of_a_model_has_a_reason():
    found = list(curve_statements(example(), "localised_sensitivity"))
    assert found[0].text == (f"The classifier has no localised sensitivity: {NO_CUT}.")
    assert {each.about for each in found} == {"absent", "difference"}  # no curve to cross


def test_points_that_are_no_power_law_give_a_curve_and_no_conclusion():
    study = example(error=0.002, spread=0.001, offset=(0.0, 0.05, 0.05, 0.0))
    first, second = statements_on(study, "fit")
    assert first.text.startswith("The points of the detector depart from a power law (p ")
    assert "nothing is concluded" in second.text
    assert "the points do not lie on a power law" in statements_on(study, "time")[0].text


def test_one_size_gives_no_curve_and_says_so():
    study = example(sizes=IMAGES[-1:])
    assert statements_on(study, "fit")[0].text.startswith("No curve of the detector")
    assert statements_on(study, "images") == []


def test_the_same_time_buys_so_many_of_each_and_far_beyond_no_figure_is_given():
    study = example()
    (statement,) = statements_on(study, "budget")
    assert statement.text.startswith("1.7 hours are 187 images with boxes or 414 labelled images. ")
    assert statement.shown
    dear = replace(study, times=Times(1.0, 3000.0))
    assert statements_on(dear, "budget")[0].text.endswith(
        "the detector was measured with 54 to 430."
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curve")
    study = example(data_set="RSNA <b>", notes=["Small networks."], draws=128)
    return study, write_curve(study, folder).parent


def test_the_page_is_one_file_that_needs_no_other_and_escapes_what_it_shows(written):
    study, folder = written
    assert {path.name for path in folder.iterdir()} == FILES
    text = (folder / PAGE).read_text()
    assert len(re.findall(r"<svg [^>]*data-chart", text)) == 2 * len(study.metrics)
    assert "RSNA &lt;b&gt;" in text
    assert "RSNA <b>" not in text
    assert "Small networks." in text
    assert "28 comparisons in all." in text
    assert not re.search(r'(src|href)="(?!data:|#|curve\.(csv|json)")', text)
    assert "http" not in text.replace("http://www.w3.org", "")


def test_every_finding_stands_on_the_page_without_its_script(written):
    study, folder = written
    text = html.unescape(
        re.sub(r"<script.*?</script>", "", (folder / PAGE).read_text(), flags=re.S)
    )
    for metric in study.metrics:
        for each in curve_statements(study, metric):
            assert each.text in text


def test_lines_end_where_measuring_does(written):
    _, folder = written
    known = json.loads(
        re.search(r'id="study">(.*?)</script>', (folder / PAGE).read_text(), re.S)[1]
    )
    lines = [model["line"] for model in known["metrics"]["auroc"]["models"] if model["line"]]
    assert len(lines) == 2
    for line in lines:
        assert (line["images"][0], line["images"][-1]) == (IMAGES[0], IMAGES[-1])


@pytest.mark.parametrize(
    ("error", "overlap"),
    [(0.03, True), (0.002, False)],
    ids=["wide", "narrow"],
)
def test_the_charts_note_where_all_intervals_overlap(tmp_path, error, overlap):
    study = example(two_models(1.0 if overlap else 1.2, 0.3), error=error)
    page = html.unescape(write_curve(study, tmp_path).read_text())
    assert page.count(study_sentence("curve", "overlap")) == 2 * overlap, "below both charts"


def test_the_table_and_the_json_hold_every_point_with_its_seeds(written):
    study, folder = written
    rows = list(csv.DictReader((folder / "curve.csv").read_text().splitlines()))
    assert len(rows) == sum(len(point.figures) for point in study.points)
    row = rows[0]
    assert np.mean([float(row[f"seed_{at}"]) for at in range(3)]) == pytest.approx(
        float(row["estimate"])
    )
    assert float(row["hours"]) == pytest.approx((54 * 14.8 + 0.52 * 54 * 34.5) / 3600)
    stored = json.loads((folder / STORED).read_text())
    assert len(stored["points"]) == len(rows)
    assert {each["by"] for each in stored["crossings"]} == {"images", "seconds"}
    assert sum(each["shown"] for each in stored["differences"]) > 3


def test_a_study_of_one_model_still_has_a_page(tmp_path):
    study = example({"auroc": {"detector": (0.55, 0.18)}})
    text = write_curve(study, tmp_path).read_text()
    assert study_sentence("curve", "no_pair") in text
    assert len(re.findall(r"<svg [^>]*data-chart", text)) == 2


EDITED = (*PRESETS[1:], Times(30.0, 20.0), Times(1.0, 3000.0), Times(2.5, 0.0))


@pytest.mark.long
@pytest.mark.parametrize("times", EDITED, ids=lambda times: f"{times.label:g}-{times.box:g}")
@pytest.mark.parametrize("kind", ["three seeds", "parallel", "one seed"])
def test_the_script_says_what_python_says_at_other_times(tmp_path, browser, times, kind):
    powers = {"auroc": {"detector": (1.0, 0.3), "classifier": (1.05, 0.3)}}
    study = example(
        powers if kind == "parallel" else None, seeds=1 if kind == "one seed" else 3, draws=512
    )
    page = write_curve(study, tmp_path)
    other = replace(study, times=times)
    link = f"{page.as_uri()}#label={times.label}&box={times.box}&hours={other.hours_at_hand}"
    shown = html.unescape(browser.text_of(link))
    for metric in study.metrics:
        for each in curve_statements(other, metric):
            if each.about in ("time", "budget"):
                sign = "decided" if each.shown else "open"
                item = rf'<li class="{sign}" data-say="{each.about}" data-metric="{metric}">'
                assert re.search(item + r"<svg.*?</svg><span>" + re.escape(each.text), shown)
