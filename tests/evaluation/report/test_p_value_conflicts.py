"""Differences whose p-value and interval conflict, and when McNemar's test and bootstrap do."""

import numpy as np
import pytest

from cxr_compare.evaluation.report.p_value_conflicts import conflict_kind
from cxr_compare.evaluation.report.table import Cell, RowGroup, Table
from cxr_compare.evaluation.statistics.intervals import Interval, expanded_level
from cxr_compare.evaluation.statistics.mcnemar import mcnemar_test


@pytest.mark.parametrize(
    ("difference", "p_value", "kind"),
    [
        (Interval(0.438, -0.1, 0.6), 1.0, "skewed"),
        (Interval(-0.438, -0.6, 0.1), 1.0, "skewed"),
        (Interval(0.44, 0.11, 0.78), 0.059, "interval_only"),
        (Interval(0.2, -0.01, 0.4), 0.04, "p_only"),
        (Interval(0.2, 0.1, 0.3), 0.01, None),
        (Interval(0.1, -0.2, 0.4), 0.5, None),
        (Interval(0.438, -0.1, 0.6), None, None),
        (Interval(0.438), 1.0, None),
    ],
)
def test_kind_of_conflict(difference, p_value, kind):
    assert conflict_kind(difference, p_value) == kind


def test_nine_positives_of_which_one_system_finds_four_more_are_a_conflict():
    first, second = np.ones(9), np.r_[np.zeros(4), np.ones(5)]
    test = mcnemar_test(first, second, np.arange(9))
    assert test.p_value == pytest.approx(0.0593, abs=0.0005)  # z = 4 / sqrt(9 / 8 * 4)
    level = expanded_level(0.95, 9)
    # Each bootstrap sample of 9 has binomial(9, 4 / 9) of the four images.
    found = np.random.default_rng(0).binomial(9, 4 / 9, 20_000) / 9
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    if low == 0:
        low, high = np.quantile(found, [0.025, 0.975])
    assert conflict_kind(Interval(4 / 9, low, high), test.p_value) == "interval_only"


def test_conflicts_of_a_table_are_gathered_by_kind_with_the_fewest_positives():
    def group(n_positive, *rows):
        return RowGroup(tuple(rows), n_positive=n_positive)

    table = Table(
        "Figures",
        ("Figure", "A", "B", "A − B"),
        (
            group(9, ("F1", Cell("0.1"), Cell("0.2"), Cell("0.3", conflict="skewed"))),
            group(20, ("Recall", Cell("0.1"), Cell("0.2"), Cell("0.3", conflict="skewed"))),
            group(7, ("AUROC", Cell("0.1"), Cell("0.2"), Cell("0.3", conflict="p_only"))),
        ),
        n_systems=2,
    )
    found = {each.kind: (each.titles, each.n_positive) for each in table.conflicts}
    assert found == {
        "skewed": (("F1 (A − B)", "Recall (A − B)"), 9),
        "p_only": (("AUROC (A − B)",), 7),
    }
