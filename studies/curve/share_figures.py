"""Figures of runs that learned from shares of the patients, with the covariance of the figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_compare import Predictions
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.evaluated_model import EvaluatedModel
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
from cxr_compare.evaluation.metrics.registry import METRICS, why_undefined
from cxr_compare.evaluation.replicates import FiguresOfWeights
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.read_predictions import read_output
from cxr_compare.evaluation.sources.stored_predictions import read_decision, read_eligible
from cxr_compare.evaluation.statistics.bootstrap import Resamples, cluster_bootstrap
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.obuchowski_rockette import estimate_over_seeds
from cxr_compare.evaluation.thresholds import POLICIES
from cxr_compare.studies.curve.curve_study import CURVE_METRICS

_Floats = npt.NDArray[np.float64]


_POLICY = POLICIES[0]


class EvaluatedRun(NamedTuple):
    """A trained model that is to be evaluated on test images.

    `split` is the one whose test images evaluate the model; `part` is the smaller split that it was
    trained on, on whose validation images the threshold is chosen. The predictions are on the
    images of both.
    """

    split: str
    part: str
    predictions: Predictions


class _MetricValues(NamedTuple):
    """Values of one metric for several systems, as means over splits, ``(systems,)``.

    `covariance` is that of the means over patients; `reasons` say why a value is undefined (NaN).
    """

    values: _Floats
    covariance: _Floats
    reasons: Mapping[str, str]


@dataclass(frozen=True)
class ShareFigures:
    """Metrics of models that were trained on shares of the data, with their joint uncertainty.

    The function `evaluate_shares` computes them. Each value is a mean over splits (divisions into
    training, validation and test patients).

    Attributes:
        systems: Names of the systems (a model of one kind, share of the data and training seed), in
            the order of all values.
        figures: Values of each metric by its short name, such as ``auroc``: one for each system,
            NaN if undefined, with their covariance over test patients.
        n_images: Number of test images of all splits.
        n_patients: Number of test patients of all splits.
        freedom: Degrees of freedom of the covariances: the number of test patients of the rarer
            class minus the number of splits, at least 1.
        notes: Sentences on test images that were left out, with the reason.
    """

    systems: tuple[str, ...]
    figures: Mapping[str, _MetricValues]
    n_images: int
    n_patients: int
    freedom: float
    notes: tuple[str, ...] = ()

    def values(self, metric: str, names: Sequence[str]) -> _Floats:
        """Return the values of a metric for some systems, in their order; NaN if undefined."""
        return self.figures[metric].values[[self.systems.index(name) for name in names]]

    def estimate(self, metric: str, *groups: Sequence[str]) -> ClusteredEstimate:
        """Estimate the mean of a metric over the seeds of a model, or the difference of two models.

        Each group has the names of the systems that are the training seeds of one model; all must
        have the metric. The difference is the mean of the first group minus that of the second.
        """
        figure = self.figures[metric]
        members = [[self.systems.index(name) for name in group] for group in groups]
        rows = [row for group in members for row in group]
        values = [[float(figure.values[row]) for row in group] for group in members]
        covariance = figure.covariance[np.ix_(rows, rows)]
        return estimate_over_seeds(values, covariance, self.freedom, bounded=len(groups) == 1)


def evaluate_shares(
    systems: Mapping[str, Sequence[EvaluatedRun]],
    test_set: LabelledSplit,
    *,
    replicates: int = 1000,
    advance: Callable[[], None] = lambda: None,
) -> ShareFigures:
    """Evaluate models that were trained on shares of the data, for learning curves.

    The metrics are those of `CURVE_METRICS`, such as the AUROC. A metric that needs a threshold
    uses the one with the largest F1 on validation images.

    `systems` has for each system (a model of one kind, share of the data and training seed) its
    trained model for each split. `replicates` are bootstrap resamples of the test patients.
    `advance` is called without arguments for each evaluated model. Raises InputError if a system
    has no model for a split, a model was trained or selected on test patients, or no test image of
    a split can be evaluated.
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
        runs = {
            name: run
            for name, runs_of_system in systems.items()
            for run in runs_of_system
            if run.split == split
        }
        if len(runs) < len(systems):
            lacking = next(name for name in systems if name not in runs)
            raise InputError(f"{lacking} has no run of split '{split}', and others have")
        predictions = {name: run.predictions for name, run in runs.items()}
        # An image that one model cannot answer is left out, so that hours of training are not lost.
        of_split = replace(test_set, split=split)
        read = read_eligible(predictions, of_split, "common")
        evaluated = read.images.test
        notes += [f"{split}: {note.text}" for note in read.notes]
        of_classes = (
            evaluated.patients[in_class] for in_class in (evaluated.y_true, ~evaluated.y_true)
        )
        n_of_classes = (len(np.unique(patients)) for patients in of_classes)
        counts += len(evaluated.image_ids), evaluated.n_patients, *n_of_classes
        resamples = Resamples(evaluated.n_patients, replicates, stream=number)
        for column, (name, run) in enumerate(runs.items()):
            of_run = replace(of_split, split=run.part)
            decision = read_decision(name, run.predictions, of_run, [_POLICY])
            output = read_output(run.predictions, of_run.target, evaluated.image_ids)
            model = EvaluatedModel(name, evaluated, output, decision)
            figures_of = FiguresOfWeights(model)
            once = figures_of.once
            missing = model.missing()
            resampled = cluster_bootstrap(figures_of, resamples)
            for row, (metric, key) in enumerate(keys.items()):
                value = once.get(key)
                if value is None or np.isnan(value[0]):
                    reasons[metric][name] = missing.get(key) or why_undefined(metric)
                    continue
                values[number, row, column] = value[0]
                drawn[number, row, column] = resampled[key]
            advance()
    means = values.mean(axis=0)  # NaN if the value of one split is NaN
    figures = {
        metric: _MetricValues(means[row], _covariance(drawn[:, row]), reasons[metric])
        for row, metric in enumerate(keys)
    }
    n_images, n_patients, *classes = map(int, counts)
    freedom = max(min(classes) - len(splits), 1)
    return ShareFigures(tuple(systems), figures, n_images, n_patients, freedom, tuple(notes))


def _covariance(drawn: _Floats) -> _Floats:
    """Return the covariance of means over splits that have different patients.

    A resample without a positive patient has no figures and is left out.

    The resampled figures are ``(splits, systems, replicates)``.
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
