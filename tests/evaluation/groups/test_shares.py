"""Shares of groups, and their differences paired over patients."""

import numpy as np
import pytest
from scipy.stats import binomtest

from cxr_compare.evaluation.groups.shares import MOVER, ShareName, Shares
from cxr_compare.evaluation.statistics.intervals import NO_WIDTH
from tests.evaluation.evaluated_images import row_of


def test_a_gap_between_groups_is_paired_over_the_patients():
    shares = Shares(40, gaps={"sex"})
    rng = np.random.default_rng(1)
    patients, woman = np.repeat(np.arange(40), 2), np.tile([True, False], 40)
    right = np.repeat(rng.random(40) < 0.5, 2)  # both images of a patient alike
    for group, chosen in (("F", woman), ("not F", ~woman)):
        shares.add("A", ShareName("sex", group, "", "recall"), right & chosen, chosen, patients)
    table = shares.table(["A"])
    gap = row_of(table, group="F - rest")
    assert gap["estimate"] == 0.0
    assert np.isnan(gap["ci_low"])  # every patient has as many in both groups
    women = row_of(table, group="F")
    assert gap["note"] == NO_WIDTH
    assert women["estimate"] == right[woman].mean()
    assert (women["count"], women["of"], women["n_patients"]) == (right[woman].sum(), 40, 40)


def test_a_share_of_one_is_exact_and_so_its_gap_is_wide():
    shares, patients = Shares(60, gaps={"sex"}), np.arange(60)
    woman, right = patients < 10, patients != 30
    for group, chosen in (("F", woman), ("not F", ~woman)):
        shares.add("A", ShareName("sex", group, "", "recall"), right & chosen, chosen, patients)
    table = shares.table(["A"])
    exact = binomtest(10, 10).proportion_ci(method="exact")
    women, gap = row_of(table, group="F"), row_of(table, group="F - rest")
    assert (women["ci_low"], women["ci_high"]) == pytest.approx(tuple(exact))
    assert gap["estimate"] == pytest.approx(0.02)
    # All ten women and all men but one: nothing differs, however sure ten women look.
    assert gap["ci_low"] < -0.2 < 0 < gap["ci_high"]
    assert gap["ci_method"].startswith(MOVER)
