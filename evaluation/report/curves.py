"""Numbers behind the charts of a result: one table, a row for each point of a curve."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.boxes.froc import FrocCurve, find_lesions, froc_curve
from cxr_compare.evaluation.boxes.matching import match_pairs
from cxr_compare.evaluation.compare import Comparison
from cxr_compare.evaluation.image_blind import image_blind_name
from cxr_compare.evaluation.metrics import RATES
from cxr_compare.evaluation.replicates import SystemFigures
from cxr_compare.evaluation.statistics.ranking import roc_and_pr_curves

SCORE_BINS = 20
"""Number of bins of equal width, from 0 to 1, of the histogram of scores."""
_PER_BIN = 25
_MOST_BINS = 10


def curve_table(comparison: Comparison) -> pd.DataFrame:
    """Return the points of all curves: ``chart``, ``system``, ``kind``, ``policy``, ``x``, ``y``.

    ``kind`` is ``curve``, ``points`` (chosen thresholds), ``image-blind``, ``guide``, or
    ``positive`` and ``negative`` (share of the images of this class in the bin around ``x``).
    """
    positive = comparison.truth.positive
    parts = list(_guides(float(positive.mean())))
    for name, system in comparison.systems.items():
        figures = comparison.rows.frames[name].iloc[0]
        system_parts = [*_of_thresholds(system, figures), *_of_scores(system)]
        if name in comparison.single:  # the joint system has the boxes of a member
            system_parts += _of_boxes(system, "curve")
            baseline = comparison.baselines.get(image_blind_name(name))
            system_parts += [] if baseline is None else _of_boxes(baseline, "image-blind")
        parts += [part.assign(system=name) for part in system_parts]
    table = pd.concat(parts, ignore_index=True)
    drawn = table.loc[table["system"] != "", "chart"].unique()
    return table[table["chart"].isin(drawn)].reset_index(drop=True)


def _rows(
    chart: str, kind: str, x: npt.ArrayLike, y: npt.ArrayLike, policy: str = ""
) -> pd.DataFrame:
    keys = {"chart": chart, "system": "", "kind": kind, "policy": policy}
    return pd.DataFrame({**keys, "x": np.asarray(x, np.float64), "y": np.asarray(y, np.float64)})


def _of_thresholds(system: SystemFigures, figures: pd.Series) -> Iterator[pd.DataFrame]:
    """Yield the ROC and the precision-recall curve, with the points of the chosen thresholds.

    `figures` are those of the system on the images themselves, by policy and metric.
    """
    curve = roc_and_pr_curves(system.truth.positive, system.scores)
    policy_names = {policy: policy for policy in system.choices.thresholds}
    if not system.output.ranks:  # all policies call the images with a box
        policy_names = {next(iter(policy_names)): ""}
    for chart, x, y in (("roc", "fpr", "recall"), ("pr", "recall", "precision")):
        if system.output.ranks and not np.isnan(curve[x] + curve[y]).all():
            yield _rows(chart, "curve", curve[x], curve[y])
        for policy, name in policy_names.items():
            recall = figures[policy, "recall"]
            point = (1 - figures[policy, "specificity"], recall)
            if chart == "pr":
                point = (recall, figures[policy, "precision"])
            yield _rows(chart, "points", point[:1], point[1:], name).dropna()


def _of_boxes(system: SystemFigures, kind: str) -> Iterator[pd.DataFrame]:
    """Yield the FROC curve, and the precision-recall curve of boxes at an IoU of 0.5."""
    if system.pairs is not None:
        froc = froc_curve(find_lesions(system.pairs))
        if not system.output.ranks:  # all boxes count at once
            yield _rows("froc", "points", froc[0][-1:], froc[1][-1:])
            return
        if len(froc.sensitivity):
            yield _rows("froc", kind, *_froc_steps(froc))
        matches = match_pairs(system.pairs, [0.5])
        counted = ~matches.is_ignored[:, 0]
        is_hit = matches.hit[counted, 0]  # in the order of falling scores
        n_hits, n_boxes = np.cumsum(is_hit)[is_hit], np.arange(1, len(is_hit) + 1)[is_hit]
        # As COCO's AP takes it: the highest precision from each recall on.
        precision = np.maximum.accumulate((n_hits / n_boxes)[::-1])[::-1]
        if len(n_hits):
            recall = np.append(0, n_hits / matches.n_true.sum())
            yield _rows("box_pr", kind, recall, np.append(precision[0], precision))


def _froc_steps(froc: FrocCurve) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return a FROC curve whose first step begins left of the axis and whose last one ends it."""
    rate, sensitivity = froc
    low, *_, high = RATES.values()
    ends = np.append(np.maximum(rate, low / 2), max(high, rate[-1]))
    return ends, np.append(sensitivity, sensitivity[-1])


def _of_scores(system: SystemFigures) -> Iterator[pd.DataFrame]:
    """Yield the histograms of scores, and the observed share by calibrated probability."""
    positive = system.truth.positive
    edges = np.linspace(0, 1, SCORE_BINS + 1)
    is_drawn = system.output.ranks and system.scores.min() >= 0 and system.scores.max() <= 1
    for kind, of_class in (("positive", positive), ("negative", ~positive)) if is_drawn else ():
        counts, _ = np.histogram(system.scores[of_class], edges)
        if counts.any():
            yield _rows("scores", kind, edges[:-1] + 0.5 / SCORE_BINS, counts / counts.sum())
    if system.choices.calibration is None:
        return
    probability = system.choices.calibration.probability(system.scores)
    n_bins = min(_MOST_BINS, max(2, len(probability) // _PER_BIN))
    # Equal probabilities stay together.
    bins = pd.qcut(pd.Series(probability).rank(method="average"), n_bins, duplicates="drop")
    table = pd.DataFrame({"x": probability, "y": positive.astype(np.float64)})
    means = table.groupby(bins.to_numpy(), observed=True).mean()
    yield _rows("calibration", "curve", means["x"], means["y"])


def _guides(prevalence: float) -> Iterator[pd.DataFrame]:
    """Yield what guessing would give."""
    for chart in ("roc", "calibration"):
        yield _rows(chart, "guide", [0, 1], [0, 1])
    yield _rows("pr", "guide", [0, 1], [prevalence] * 2)
