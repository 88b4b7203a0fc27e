"""Validation figures beside those of the test images."""

import numpy as np
import pytest

from cxr_compare.evaluation.groups.validation_to_test import validation_to_test
from cxr_compare.evaluation.thresholds import ValidationScores, choose_threshold
from tests.evaluation.evaluated_images import evaluated_images, model_of, row_of


def test_validation_figures_are_compared_with_those_expected_on_test():
    rng = np.random.default_rng(6)

    def drawn(n, skill):
        truth = rng.random(n) < 0.4
        return truth, 1 / (1 + np.exp(-rng.normal(skill * truth - skill / 2, 1.0)))

    def figures(skill):
        (val_truth, val), (truth, scores) = drawn(60, 2.0), drawn(300, skill)
        chosen = ValidationScores(val_truth, val, np.arange(60).astype(str))
        thresholds = {"max_f1": choose_threshold(val_truth, val, "max_f1")}
        model = model_of(evaluated_images(truth), scores, thresholds, validation=chosen)
        table = validation_to_test({"A": [model]})
        accuracy = float(((val >= thresholds["max_f1"].threshold) == val_truth).mean())
        on_validation = row_of(table, group="validation", metric="accuracy")
        assert on_validation["estimate"] == pytest.approx(accuracy)
        return table[table["group"] == "test"].set_index("metric")

    alike, worse = figures(2.0), figures(0.3)
    assert list(alike.index) == ["recall", "specificity", "accuracy"]
    assert alike["estimate"].between(alike["ci_low"], alike["ci_high"]).all()
    assert worse.loc["accuracy", "estimate"] < worse.loc["accuracy", "ci_low"]
