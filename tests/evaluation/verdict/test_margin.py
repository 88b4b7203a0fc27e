"""Intervals compared with a margin."""

import numpy as np
import pytest

from cxr_compare.evaluation.statistics.intervals import Interval
from cxr_compare.evaluation.verdict.margin import margin_statement


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
    statement = margin_statement("A", "B", "AUROC", Interval(estimate, low, high), 0.05)
    assert statement.values["standing"] == standing
    assert statement.text.startswith("AUROC: B ")


def test_printed_ends_never_contradict_the_standing_against_a_margin():
    statement = margin_statement("A", "B", "F1", Interval(-0.01, -0.03049, 0.010), 0.0304)
    assert "was not shown to be non-inferior to A by the margin of 0.0304" in statement.text
    assert "−0.0100 to 0.0305" in statement.text
    statement = margin_statement("A", "B", "precision", Interval(-0.01, -0.02996, 0.010), 0.03)
    assert statement.text.startswith("Precision: B")
    assert "is equivalent to A within the margin of 0.03000" in statement.text
    assert "−0.01000 to 0.02996" in statement.text
