"""Figures of systems that were trained on shares of a data set, and how they vary over patients.

Each run is judged on the test images of its split, by the decision that its own validation images
give. Splits that are folds test different patients: a figure is then the mean over folds, and
patients are drawn within each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from data_prep.contracts.errors import InputError
from data_prep.store.dataset import DataSet, Target
from data_prep.store.predictions import Predictions
from evaluation.compare.scorecard import Scorecard
from evaluation.decisions.system_output import SystemOutput
from evaluation.decisions.test_set import EvaluationSet, TestSet
from evaluation.decisions.thresholds import POLICIES
from evaluation.decisions.tuning import checked_decision
from evaluation.metrics.metric import ALL, MetricKey
from evaluation.metrics.registry import METRICS, why_undefined
from evaluation.statistics.bootstrap import Resamples, cluster_bootstrap
from evaluation.statistics.clustered_tests import over_seeds
from evaluation.statistics.obuchowski_rockette import ClusteredEstimate
from evaluation.statistics.ranking import Floats
from evaluation.studies.curve_results import CURVE_METRICS
from evaluation.systems.eligibility import common_test_images

_POLICY = POLICIES[0]


class JudgedRun(NamedTuple):
    """A run to judge."""

    split: str  # whose test images judge it
    part: str  # the split that it learned from, whose validation images decide
    predictions: Predictions  # of both


class _MetricValues(NamedTuple):
    """One metric of several systems."""

    values: Floats  # means over splits, NaN where undefined, (systems,)
    covariance: Floats  # over patients, (systems, systems)
    reasons: Mapping[str, str]  # why a value is undefined, by system


@dataclass(frozen=True)
class ShareFigures:
    """What `judge_shares` gives, of all splits."""

    systems: tuple[str, ...]  # names, in the order of all figures
    figures: Mapping[str, _MetricValues]  # by metric
    n_images: int  # test images
    n_patients: int  # test patients
    freedom: float  # of the covariances: patients of the rarer class, less one a split
    notes: tuple[str, ...] = ()  # which test images were left out, and why

    def values(self, metric: str, names: Sequence[str]) -> Floats:
        """A metric of some systems, NaN where it is undefined."""
        return self.figures[metric].values[[self.systems.index(name) for name in names]]

    def estimate(self, metric: str, *groups: Sequence[str]) -> ClusteredEstimate:
        """A metric's mean over the seeds of one group of systems, or the difference of two groups.

        All of them have the figure.
        """
        figure = self.figures[metric]
        members = [[self.systems.index(name) for name in group] for group in groups]
        rows = [row for group in members for row in group]
        values = [[float(figure.values[row]) for row in group] for group in members]
        covariance = figure.covariance[np.ix_(rows, rows)]
        return over_seeds(values, covariance, self.freedom, bounded=len(groups) == 1)


def judge_shares(
    systems: Mapping[str, Sequence[JudgedRun]],
    dataset: DataSet,
    target: Target,
    *,
    replicates: int = 1000,
    advance: Callable[[], None] = lambda: None,
) -> ShareFigures:
    """Judge systems, each with one run a split, by `CURVE_METRICS`; thresholds by the first policy.

    Raises:
        InputError: A run has seen test patients, or none of a split's test images is judged.
    """
    splits = list(dict.fromkeys(run.split for runs in systems.values() for run in runs))
    keys = {
        metric: MetricKey(ALL, _POLICY if "threshold" in METRICS[metric].needs else "", metric)
        for metric in CURVE_METRICS
    }
    values = np.full((len(splits), len(keys), len(systems)), np.nan)
    drawn = np.full((len(splits), len(keys), len(systems), replicates), np.nan)
    counts = np.zeros(4, dtype=int)
    reasons: dict[str, dict[str, str]] = {metric: {} for metric in keys}
    notes: list[str] = []
    for number, split in enumerate(splits):
        runs = {name: run for name, of in systems.items() for run in of if run.split == split}
        if len(runs) < len(systems):
            lacking = next(name for name in systems if name not in runs)
            raise InputError(f"{lacking} has no run of split '{split}', and others have")
        predictions = {name: run.predictions for name, run in runs.items()}
        # After hours of training, one image that a model cannot answer must not end everything.
        test_set = TestSet(dataset, target, split)
        judged, left_out = common_test_images(predictions, test_set, images="common")
        notes += [f"{split}: {note.text}" for note in left_out]
        counts += len(judged.image_ids), judged.n_patients, *_patients_of_classes(judged)
        resamples = Resamples(judged.n_patients, replicates, stream=number)
        for column, (name, run) in enumerate(runs.items()):
            card = _judge(name, run, judged, replace(test_set, split=run.part))
            estimates, missing = card.estimates(), card.missing()
            resampled = cluster_bootstrap(card, resamples)
            for row, (metric, key) in enumerate(keys.items()):
                value = estimates.get(key)
                if value is None:
                    reasons[metric][name] = missing.get(key) or why_undefined(metric)
                    continue
                values[number, row, column] = value
                drawn[number, row, column] = resampled[key]
            advance()
    means = values.mean(axis=0)  # undefined where one split is
    figures = {
        metric: _MetricValues(means[row], _covariance(drawn[:, row]), reasons[metric])
        for row, metric in enumerate(keys)
    }
    n_images, n_patients, *of_classes = map(int, counts)
    freedom = max(min(of_classes) - len(splits), 1)
    return ShareFigures(tuple(systems), figures, n_images, n_patients, freedom, tuple(notes))


def _patients_of_classes(judged: EvaluationSet) -> list[int]:
    """Patients with a positive image, and those with a negative one."""
    return [len(np.unique(judged.patients[of])) for of in (judged.y_true, ~judged.y_true)]


def _judge(name: str, run: JudgedRun, judged: EvaluationSet, test_set: TestSet) -> Scorecard:
    decision, _ = checked_decision(name, run.predictions, test_set, [_POLICY])
    output = SystemOutput.of(run.predictions, test_set, judged.image_ids, decision.boxes)
    return Scorecard.of(output, decision, replace(judged, tolerance=None))


def _covariance(drawn: Floats) -> Floats:
    """Of means over splits, whose patients are different, shape ``(splits, systems, replicates)``.

    A resample without a positive patient defines nothing and is left out.
    """
    total = np.zeros((drawn.shape[1],) * 2)
    for of_split in drawn:
        defined = ~np.isnan(of_split).all(axis=1)
        rows = of_split[defined]
        whole = rows[:, ~np.isnan(rows).any(axis=0)]
        part = np.full(total.shape, np.nan)
        if whole.shape[1] > 1:
            part[np.ix_(defined, defined)] = np.cov(whole)
        total = total + part
    return total / len(drawn) ** 2
