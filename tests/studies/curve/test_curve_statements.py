"""Findings of a learning-curve study."""

import re
from dataclasses import replace

import pytest

from cxr_compare.evaluation.statistics.intervals import Interval
from cxr_compare.studies.curve.curve_statements import curve_statements
from cxr_compare.studies.curve.curve_study import (
    Difference,
)
from tests.studies.curve.curve_example import IMAGES, NO_CUT, SHARES, example, two_models


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


@pytest.mark.parametrize(
    ("study", "metric", "words"),
    [
        ({}, "average_precision", r"beyond the 54 to 430 images at which both were measured\.$"),
        ({"powers": two_models(1.1, 0.3)}, "auroc", "not shown to differ in slope"),
    ],
    ids=["beyond the sizes", "parallel"],
)
def test_what_is_not_shown_has_a_reason(study, metric, words):
    (statement,) = statements_on(example(**study), "images", metric)
    assert not statement.shown
    assert re.search(words, statement.text)


def test_one_training_is_stated_and_gives_no_crossing():
    study = example(seeds=1)
    assert statements_on(study, "difference")[0].text.endswith("each was trained once.")
    assert not statements_on(study, "images")[0].shown
    assert "one training at each size" in statements_on(study, "images")[0].text


def test_a_missing_figure_of_a_model_has_a_reason():
    found = list(curve_statements(example(), "localised_sensitivity"))
    assert found[0].text == (f"The classifier has no localised sensitivity: {NO_CUT}.")
    assert {each.about for each in found} == {"absent", "difference"}  # no curve to cross


def test_points_that_are_no_power_law_give_a_curve_and_no_conclusion():
    study = example(error=0.002, spread=0.001, offset=(0.0, 0.05, 0.05, 0.0))
    first, second = statements_on(study, "fit")
    assert first.text.startswith("The points of the detector depart from a power law (p ")
    assert "nothing is concluded" in second.text
    assert "the points do not lie on a power law" in statements_on(study, "images")[0].text


def test_one_size_gives_no_curve_and_says_so():
    study = example(sizes=IMAGES[-1:])
    assert statements_on(study, "fit")[0].text.startswith("No curve of the detector")
    assert statements_on(study, "images") == []
