"""Classes that exclude each other: the decision for the class of the highest score.

Each class is a finding, with a comparison of its own. Their scores and labels also give a decision
among all classes, whose counts, true class by called class, are kept by patient. Figures are
functions of these counts, with intervals by patient as in `statistics.clustered_counts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.compare import Comparison
from cxr_compare.evaluation.figures import corrected, counted_interval, interval_of_counts
from cxr_compare.evaluation.findings import COLUMNS, resampled_gaps
from cxr_compare.evaluation.metrics import rates
from cxr_compare.evaluation.protocol import DECIDES
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.statistics.clustered_counts import (
    CLUSTERED_COUNTS,
    ShareParts,
    jackknife,
    joined_interval,
    mean_interval,
)
from cxr_compare.evaluation.statistics.clustered_variance import effective_patients
from cxr_compare.evaluation.statistics.intervals import Interval

NO_CLASS = "no class"
"""Called class of an image whose highest score is that of several classes."""
_OF_ONE_CLASS = ("recall", "precision", "specificity", "f1")


def counts_by_patient(
    y_true: Integers, called: Integers, patients: Integers, n_patients: int, n_classes: int
) -> Floats:
    """Count images by patient, true class and called class, ``(P, K, K + 1)``.

    The last column has the images without a called class, `n_classes`.

    Examples:
        >>> counts_by_patient(np.array([0, 1]), np.array([0, 2]), np.array([0, 0]), 1, 2).tolist()
        [[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]]
    """
    cells = (patients * n_classes + y_true) * (n_classes + 1) + called
    shape = (n_patients, n_classes, n_classes + 1)
    return np.bincount(cells, minlength=int(np.prod(shape))).reshape(shape).astype(np.float64)


def called_classes(scores: Floats) -> Integers:
    """Return the class of the highest score of each image, of scores ``(N, K)``.

    Images that share it among classes have none, K: to take the first of them would favour a class
    by its position.
    """
    highest = scores == scores.max(axis=1, keepdims=True)
    return np.where(highest.sum(axis=1) == 1, highest.argmax(axis=1), scores.shape[1])


def _right(counts: Floats) -> Floats:
    return np.diagonal(counts, axis1=-2, axis2=-1)


def accuracy(counts: Floats) -> Floats:
    """Return the share of images that are called rightly, of counts ``(..., K, K + 1)``."""
    return np.asarray(_right(counts).sum(axis=-1) / counts.sum(axis=(-2, -1)))


def balanced_accuracy(counts: Floats) -> Floats:
    """Return the mean over classes of the share of its images that are called it."""
    return np.asarray((_right(counts) / counts.sum(axis=-1)).mean(axis=-1))


def macro_f1(counts: Floats) -> Floats:
    """Return the mean over classes of the F1 of one class against the others."""
    called = counts.sum(axis=-2)[..., :-1]
    return np.asarray((2 * _right(counts) / (counts.sum(axis=-1) + called)).mean(axis=-1))


FIGURES: dict[str, Callable[[Floats], Floats]] = {
    DECIDES: balanced_accuracy,
    "accuracy": accuracy,
    "f1": macro_f1,
}
"""Figures of all classes, by the name of the metric."""


def class_tables(comparisons: Mapping[str, Comparison]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return figures of the decision among classes, and the called class of each image.

    Both are empty unless the classes exclude each other and each image is of one of those that are
    compared. `comparisons` are those of `findings.mean_table`. The figures of all classes have the
    ``class`` "" and differences of pairs of systems; ``p_holm`` is corrected over the pairs, and in
    further figures at least that of balanced accuracy.
    """
    truths = [comparison.truth for comparison in comparisons.values()]
    one, names = next(iter(comparisons.values())), list(comparisons)
    are_classes = all(truth.classes and truth.ids.equals(one.truth.ids) for truth in truths)
    if not are_classes or not (np.sum([truth.positive for truth in truths], axis=0) == 1).all():
        return no_classes(), no_calls()
    y_true = np.argmax([truth.positive for truth in truths], axis=0)
    calls, counts = [], {}
    for system in one.systems:
        scores = np.column_stack(
            [comparison.systems[system].scores for comparison in comparisons.values()]
        )
        called = called_classes(scores)
        counts[system] = counts_by_patient(
            y_true, called, one.truth.patients, one.truth.n_patients, len(names)
        )
        columns = {
            "system": system,
            "image_id": one.truth.ids,
            "class": np.array(names)[y_true],
            "called": np.array([*names, NO_CLASS])[called],
        }
        calls.append(pd.DataFrame(columns))
    figures = class_figures(counts, names, one.resamples, one.joint)
    return figures, pd.concat(calls, ignore_index=True)


def class_figures(
    counts: Mapping[str, Floats], names: list[str], resamples: Resamples, joint: str = ""
) -> pd.DataFrame:
    """Return the figures of each system, of counts by patient, with differences of all pairs."""
    of_classes = next(iter(counts.values())).sum(axis=2)  # (P, K) images
    effective = min(map(effective_patients, of_classes.T))
    parts = [
        _rows_of(system, counts_of_system, names) for system, counts_of_system in counts.items()
    ]
    for metric, formula in FIGURES.items():
        drawn = np.stack(
            [
                _replicates(formula, counts_of_system, resamples)
                for counts_of_system in counts.values()
            ]
        )
        gaps = resampled_gaps(drawn, list(counts), effective)
        parts.append(gaps.assign(metric=metric, **{"class": ""}))
    table = pd.concat(parts, ignore_index=True).reindex(columns=list(no_classes()))
    texts = ["second", "method", "note"]
    table = table.assign(policy="", **table[texts].astype(object).fillna(""))
    (table,) = corrected([table], joint, primary=[(DECIDES, "")])
    return table[[*no_classes()]]


def no_classes() -> pd.DataFrame:
    """Return a table of figures without a row."""
    return pd.DataFrame(columns=["class", *COLUMNS[:-1]])


def no_calls() -> pd.DataFrame:
    """Return a table of called classes without a row."""
    return pd.DataFrame(columns=["system", "image_id", "class", "called"])


def _replicates(
    formula: Callable[[Floats], Floats], counts: Floats, resamples: Resamples
) -> Floats:
    """Return a figure of the images, and of the resamples of their patients, ``(1 + R,)``."""
    flat = counts.reshape(len(counts), -1)
    weights: Iterable[npt.NDArray[Any]] = chain([np.ones((1, len(counts)))], resamples.chunks())
    with np.errstate(invalid="ignore"):
        return np.concatenate([formula((w @ flat).reshape(-1, *counts.shape[1:])) for w in weights])


def _of_class(counts: Floats, position: int) -> Floats:
    """Count ``tp``, ``fp``, ``tn`` and ``fn`` of one class against the others, ``(P, 4)``."""
    tp = counts[:, position, position]
    fp = counts[:, :, position].sum(axis=1) - tp
    fn = counts[:, position].sum(axis=1) - tp
    return np.column_stack([tp, fp, counts.sum(axis=(1, 2)) - tp - fp - fn, fn])


def _of_outcomes(metric: str, outcomes: Floats) -> Floats:
    """Return a metric of counts ``tp``, ``fp``, ``tn`` and ``fn``, ``(..., 4)``."""
    sums = dict(zip(("tp", "fp", "tn", "fn"), np.moveaxis(outcomes, -1, 0), strict=True))
    return rates(sums)[metric]


def _rows_of(system: str, counts: Floats, names: list[str]) -> pd.DataFrame:
    """Return the figures of one system: of all classes, and of each against the others."""
    rows: list[dict[str, Any]] = []
    outcomes = [_of_class(counts, position) for position in range(len(names))]
    for name, of_class in zip(names, outcomes, strict=True):
        for metric in _OF_ONE_CLASS:
            value = float(_of_outcomes(metric, of_class.sum(axis=0)))
            ends: dict[str, Any] = {"note": "no image is called it"}
            if not np.isnan(value):
                ends = interval_of_counts(of_class, metric, value)
            rows.append({"class": name, "metric": metric, "estimate": value} | ends)
    images = counts.sum(axis=2)
    recalls = [ShareParts.from_sums(*pair) for pair in zip(_right(counts).T, images.T, strict=True)]
    share = ShareParts.from_sums(_right(counts).sum(axis=-1), images.sum(axis=1))
    f1 = pd.DataFrame([row for row in rows if row["metric"] == "f1"])
    f1 = f1.reindex(columns=["estimate", "ci_low", "ci_high"]).astype(np.float64)
    f1_values, low, high = f1.to_numpy().T
    contributions = np.stack(
        [jackknife(partial(_of_outcomes, "f1"), outcome) for outcome in outcomes]
    )
    intervals = {
        DECIDES: _ends(mean_interval(recalls)),
        "accuracy": counted_interval(share.estimate(), share.value),
        "f1": _ends(joined_interval(f1_values, low, high, contributions)),
    }
    of_all = [
        {"class": "", "metric": metric, "estimate": float(formula(counts.sum(axis=0)))}
        | intervals[metric]
        for metric, formula in FIGURES.items()
    ]
    return pd.DataFrame([*of_all, *rows]).assign(first=system)


def _ends(mean: Interval) -> dict[str, Any]:
    if not mean.bounded:
        return {"note": mean.note or "no interval: a class has none"}
    return {"ci_low": mean.ci_low, "ci_high": mean.ci_high, "method": CLUSTERED_COUNTS}
