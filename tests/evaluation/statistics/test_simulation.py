"""Simulated test sets whose truth is known: do intervals cover it, do tests keep their level?

Patients have one to four images, and what makes an image hard or easy is partly the patient's.
"""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from evaluation.compare.scorecard import Scorecard
from evaluation.decisions.thresholds import ThresholdChoice
from evaluation.metrics.evaluation_set import EvaluationSet, MetricKey
from evaluation.statistics.auroc_variance import SeedSpread, auroc_parts, mean_parts
from evaluation.statistics.bootstrap import Resamples, cluster_bootstrap, percentile_interval
from evaluation.statistics.mcnemar import clustered_mcnemar, exact_mcnemar

pytestmark = pytest.mark.slow

PATIENTS, SETS = 150, 1500
PERSON, IMAGE, SHARED = 0.8, 0.6, 0.7  # standard deviations of what is the patient's, the image's
COVERED, REJECTED = (0.93, 0.97), (0.035, 0.065)
ALONE = np.sqrt(PERSON**2 + IMAGE**2)


class TestSet:
    """One simulated test set; both systems see the same patients."""

    __test__ = False

    def __init__(self, rng):
        self.rng = rng
        self.owner = np.repeat(np.arange(PATIENTS), rng.integers(1, 5, PATIENTS))
        ill = rng.random(PATIENTS)[self.owner]
        self.truth = rng.random(len(self.owner)) < np.where(ill < 0.4, 0.75, 0.15)
        # The patient's part of the score has nothing to do with the label.
        self.person = rng.normal(0, SHARED, PATIENTS)

    def scores(self, skill):
        """Normal in either class with standard deviation `ALONE`, alike within a patient."""
        own = self.rng.normal(0, np.sqrt(PERSON**2 - SHARED**2), PATIENTS)
        noise = self.rng.normal(0, IMAGE, len(self.owner))
        return skill * self.truth + (self.person + own)[self.owner] + noise

    def parts(self, scores, by_image=False):
        owner = np.arange(len(self.owner)) if by_image else self.owner
        return auroc_parts(self.truth, scores, owner, int(owner.max()) + 1)


def true_auroc(skill):
    """Of two images of different patients, as nearly all pairs are."""
    return norm.cdf(skill / (ALONE * np.sqrt(2)))


def share(flags):
    return float(np.mean(flags))


def inside(interval, truth):
    return interval is not None and interval[0] <= truth <= interval[1]


def test_intervals_of_auroc_cover_the_truth_by_patient_and_not_by_image():
    rng = np.random.default_rng(1)
    covered, paired, by_image = [], [], []
    for _ in range(SETS):
        drawn = TestSet(rng)
        first, second = drawn.scores(1.6), drawn.scores(1.2)
        parts = [drawn.parts(scores) for scores in (first, second)]
        covered.append(inside(parts[0].estimate().interval, true_auroc(1.6)))
        gap = (parts[0] - parts[1]).estimate().interval
        paired.append(inside(gap, true_auroc(1.6) - true_auroc(1.2)))
        by_image.append(inside(drawn.parts(first, True).estimate().interval, true_auroc(1.6)))
    assert COVERED[0] <= share(covered) <= COVERED[1]
    assert COVERED[0] <= share(paired) <= COVERED[1]
    assert share(by_image) < COVERED[0]  # the known mistake: images taken as independent


def test_equal_systems_are_told_apart_about_five_times_in_a_hundred():
    rng = np.random.default_rng(2)
    auroc, accuracy, recall, by_image = [], [], [], []
    for _ in range(SETS):
        drawn = TestSet(rng)
        first, second = drawn.scores(1.4), drawn.scores(1.4)
        gap = drawn.parts(first) - drawn.parts(second)
        auroc.append(gap.estimate().p_value < 0.05)
        right = [(s >= 0.7) == drawn.truth for s in (first, second)]
        for found, chosen in ((accuracy, np.ones_like(drawn.truth)), (recall, drawn.truth)):
            one, other = (each[chosen].astype(float) for each in right)
            found.append(
                clustered_mcnemar(one, other, drawn.owner[chosen], PATIENTS).p_value < 0.05
            )
        # The known mistake: each image there three times, taken as independent.
        only = [3 * int((right[a] & ~right[1 - a]).sum()) for a in (0, 1)]
        by_image.append(exact_mcnemar(*only) < 0.05)
    for rejected in (auroc, accuracy, recall):
        assert REJECTED[0] <= share(rejected) <= REJECTED[1]
    assert share(by_image) > 0.1


def test_the_smallest_detectable_difference_is_detected_four_times_in_five():
    rng = np.random.default_rng(3)
    better = 1.4
    for _ in range(3):  # the better system's own variance is smaller: settle on both
        reach = np.mean([pair(rng, better, 1.4).detectable for _ in range(200)])
        better = norm.ppf(true_auroc(1.4) + reach) * ALONE * np.sqrt(2)
    found = [pair(rng, better, 1.4).p_value < 0.05 for _ in range(SETS)]
    assert 0.76 <= share(found) <= 0.84


def pair(rng, first, second):
    drawn = TestSet(rng)
    return (drawn.parts(drawn.scores(first)) - drawn.parts(drawn.scores(second))).estimate()


def test_intervals_over_seeds_cover_the_recipe_and_those_of_one_seed_do_not():
    rng = np.random.default_rng(4)
    several, one = [], []
    expected = np.mean(true_auroc(1.4 + rng.normal(0, 0.25, 200_000)))
    for _ in range(SETS):
        drawn = TestSet(rng)
        parts = [drawn.parts(drawn.scores(1.4 + rng.normal(0, 0.25))) for _ in range(4)]
        spread = SeedSpread.of([each.value for each in parts])
        several.append(inside(mean_parts(parts).estimate(spread).interval, expected))
        one.append(inside(parts[0].estimate().interval, expected))
    assert COVERED[0] <= share(several) <= 0.99  # it may err on the safe side, not on the other
    assert share(one) < COVERED[0]


def test_bootstrap_intervals_cover_the_truth():
    rng = np.random.default_rng(5)
    threshold, skill = 0.7, 1.4
    true = {
        "recall": norm.sf((threshold - skill) / ALONE),
        "specificity": norm.cdf(threshold / ALONE),
    }
    covered = {name: [] for name in (*true, "auroc")}
    by_image = []
    for _ in range(600):
        drawn = TestSet(rng)
        scores = drawn.scores(skill)
        for owner, found in ((drawn.owner, covered), (np.arange(len(scores)), None)):
            card = scorecard(drawn, scores, owner, threshold)
            resamples = Resamples(int(owner.max()) + 1, 300, seed=int(rng.integers(1 << 30)))
            values = cluster_bootstrap(card, resamples)
            if found is None:
                by_image.append(holds(values, MetricKey("all", "cut", "recall"), true["recall"]))
                continue
            for name, figure in true.items():
                found[name].append(holds(values, MetricKey("all", "cut", name), figure))
            found["auroc"].append(holds(values, MetricKey("all", "", "auroc"), true_auroc(skill)))
    for flags in covered.values():
        assert (
            COVERED[0] - 0.01 <= share(flags) <= COVERED[1]
        )  # 600 sets: one in a hundred of noise
    assert share(by_image) < min(COVERED[0], share(covered["recall"]))


def holds(values, figure, truth):
    interval = percentile_interval(values[figure])
    return interval.low <= truth <= interval.high


def scorecard(drawn, scores, owner, threshold):
    n = len(scores)
    judged = EvaluationSet(
        image_ids=pd.Index(np.arange(n).astype(str)),
        y_true=drawn.truth,
        patients=owner,
        n_patients=int(owner.max()) + 1,
        boxes_trusted=np.ones(n, dtype=bool),
        truth=pd.DataFrame(columns=["image_id", "x1", "y1", "x2", "y2"]),
    )
    choice = {"cut": ThresholdChoice("cut", threshold)}
    return Scorecard(judged, pd.Series(scores), choice)
