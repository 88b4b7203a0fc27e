"""Intervals compared with a margin."""

import numpy as np
import pytest

from cxr_compare.evaluation.statistics.intervals import Interval
from cxr_compare.evaluation.verdict.margin import against_margin, margin_text


@pytest.mark.parametrize(
    ("low", "high", "standing"),
    [
        (-0.02, 0.03, "equivalent"),
        (-0.02, 0.09, "non-inferior"),
        (-0.09, 0.02, "open"),
        (-0.05, 0.02, "open"),
        (-0.20, -0.06, "worse"),
        (float("nan"), float("nan"), "unknown"),
    ],
)
def test_a_margin_is_compared_with_the_whole_interval(low, high, standing):
    estimate = 0.0 if np.isnan(low) else (low + high) / 2
    difference = Interval(estimate, low, high)
    assert against_margin(difference, 0.05) == standing
    assert margin_text("A", "B", "AUROC", difference, 0.05).startswith("AUROC: B ")


def test_printed_ends_never_contradict_the_standing_against_a_margin():
    text = margin_text("A", "B", "F1", Interval(-0.01, -0.03049, 0.010), 0.0304)
    assert "was not shown to be non-inferior to A by the margin of 0.0304" in text
    assert "−0.0100 to 0.0305" in text
    text = margin_text("A", "B", "precision", Interval(-0.01, -0.02996, 0.010), 0.03)
    assert text.startswith("Precision: B")
    assert "is equivalent to A within the margin of 0.03000" in text
    assert "−0.01000 to 0.02996" in text
