"""Parts of equal size with equal shares of each stratum."""

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from cxr_compare.data_prep.splits import balanced_folds
from cxr_compare.data_prep.splits.balanced_folds import balanced_parts, equal_folds


@pytest.mark.parametrize(
    ("n_groups", "n_strata", "n_folds"),
    [
        (300, 2, 2),
        (200, 2, 7),  # groups alike: rounding decides between folds that are as good
        (60, 9, 20),
        (30, 30, 25),
        (20, 3, 20),  # a group a fold
    ],
)
def test_equal_folds_are_those_of_scikit_learn(n_groups, n_strata, n_folds, monkeypatch):
    monkeypatch.setattr(balanced_folds, "_GROUPS_AT_ONCE", 16)  # so that there are several lots
    rng = np.random.default_rng(n_groups)
    samples = rng.integers(0, 4, (n_groups, n_strata)) * (rng.random((n_groups, n_strata)) < 0.5)
    samples[:, 0] = 1
    samples[:n_folds] += 1
    owner, stratum = np.nonzero(samples)
    counts = samples[owner, stratum]
    owner = np.repeat(owner, counts)
    stratum = np.repeat(stratum, counts)
    folds = StratifiedGroupKFold(n_folds).split(owner, stratum, owner)
    expected = np.full(n_groups, -1)
    for number, (_, rows) in enumerate(folds):
        expected[owner[rows]] = number
    assert equal_folds(samples.astype(np.float64), n_folds).tolist() == expected.tolist()


@pytest.mark.parametrize("seed", range(5))
def test_each_part_of_a_small_set_has_its_share_of_a_rare_stratum(seed):
    """Nine positive images of 30, for 20 folds: fewer than there are folds."""
    ids = pd.Index([f"i{number:02d}" for number in range(30)], name="image_id")
    group = pd.Series([f"p{number % 20}" for number in range(30)], index=ids)
    positive = pd.Series(np.arange(30) % 10 < 3, index=ids)
    shares = np.array([0.7, 0.15, 0.15])
    part = balanced_parts(group, positive.to_frame("positive"), shares, np.random.default_rng(seed))
    of_image = part[pd.factorize(group, sort=True)[0]]
    assert np.bincount(of_image[positive], minlength=3).min() >= 1
