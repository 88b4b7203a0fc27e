"""Number of wrong labels that overturn a comparison, against trying every set of labels."""

from itertools import combinations

import numpy as np
import pytest

from cxr_compare.evaluation.statistics.clustered_auroc import auroc_difference
from cxr_compare.studies.wrong_labels.overturning_labels import overturning_labels


def is_shown(truth, first, second, patients=None):
    """Sign of a shown difference, 0 where the interval includes 0, None without an interval."""
    gap = auroc_difference(truth, first, second, patients)
    if gap is None or not gap.has_interval:
        return None
    low, high = gap.ci_low, gap.ci_high
    return int(low > 0) - int(high < 0)


def fewest_by_trying(truth, first, second, patients, most):
    """Size of the smallest set of labels whose change overturns the conclusion."""
    start = is_shown(truth, first, second, patients)
    for size in range(1, most + 1):
        for changed in combinations(range(len(truth)), size):
            labels = truth.copy()
            labels[list(changed)] ^= True
            now = is_shown(labels, first, second, patients)
            if now is not None and now != start:
                return size
    return None


CASES = [(0, 1.8), (3, 1.8), (8, 1.8), (1, 1.4), (5, 1.8), (9, 2.4)]


@pytest.mark.parametrize(("seed", "gap"), CASES)
def test_no_smaller_set_of_labels_overturns_the_conclusion(seed, gap):
    rng = np.random.default_rng(seed)
    truth = rng.random(18) < 0.5
    first = gap * truth + rng.normal(size=18)
    second = 0.3 * truth + rng.normal(size=18)
    patients = np.arange(18)
    result = overturning_labels(truth, first, second, patients)
    changed = truth.copy()
    changed[result.most_harmful] ^= True
    before, after = (is_shown(labels, first, second, patients) for labels in (truth, changed))
    assert before != after
    assert result.fewest == fewest_by_trying(truth, first, second, patients, result.fewest)


def clear_study(n=300):
    rng = np.random.default_rng(3)
    truth = rng.random(n) < 0.4
    return truth, 2.5 * truth + rng.normal(size=n), 0.5 * truth + rng.normal(size=n)


def test_a_large_difference_needs_more_wrong_labels_than_a_small_one():
    truth, good, poor = clear_study()
    middle = (good + poor) / 2
    large = overturning_labels(truth, good, poor)
    small = overturning_labels(truth, good, middle)
    assert large.shown
    assert small.shown
    assert small.fewest < large.fewest
    assert large.fewest_share == large.fewest / 300
    assert small.at_random is not None
    assert large.at_random is None or small.at_random <= large.at_random


def test_random_errors_pull_both_systems_towards_chance():
    truth, good, poor = clear_study()
    curve = overturning_labels(truth, good, poor).curve
    aurocs = np.array([errors.first[0] for errors in curve])
    assert (np.diff(aurocs) < 0).all()
    # A share s of wrong labels in two classes of similar size keeps about 1 - 2 s of the excess.
    at_quarter = next(errors for errors in curve if errors.share == 0.25)
    full = overturning_labels(truth, good, poor).curve[0].first[0]
    assert at_quarter.first[0] - 0.5 == pytest.approx(0.5 * (full - 0.5), abs=0.06)


def test_result_is_the_same_for_systems_in_either_order():
    truth, good, poor = clear_study(120)
    one, other = overturning_labels(truth, good, poor), overturning_labels(truth, poor, good)
    assert (one.fewest, one.at_random) == (other.fewest, other.at_random)


def test_patients_with_several_images_need_fewer_overturning_labels():
    truth, good, poor = clear_study(60)
    copied = np.repeat(np.arange(60), 4)
    by_patient = overturning_labels(truth[copied], good[copied], poor[copied], copied)
    by_image = overturning_labels(truth[copied], good[copied], poor[copied])
    assert by_patient.fewest <= by_image.fewest


def test_one_class_has_no_result():
    assert overturning_labels(np.ones(6), np.arange(6.0), np.arange(6.0)) is None
