"""The table of figures of systems, with intervals by patient, and the correction of p-values."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property, partial
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy  # its parts load when they are first used

from cxr_compare.evaluation.image_blind import image_blind_name
from cxr_compare.evaluation.metrics import (
    BOX_F1,
    CALLED_RIGHTLY,
    METRICS,
    OF_CLASSES,
    ONE_CLASS,
    rates_of,
)
from cxr_compare.evaluation.replicates import SystemFigures
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.bootstrap import BOOTSTRAP
from cxr_compare.evaluation.statistics.clustered_auroc import OBUCHOWSKI, AurocParts, auroc_parts
from cxr_compare.evaluation.statistics.clustered_counts import (
    CLUSTERED_COUNTS,
    ShareParts,
    confusion_by_patient,
    function_of_counts,
    mean_interval,
    rarer_class_inflation,
)
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.clustered_variance import effective_patients
from cxr_compare.evaluation.statistics.intervals import (
    LEVEL,
    NO_WIDTH,
    Interval,
    expanded_level,
    percentile_interval,
)
from cxr_compare.evaluation.truth import Truth

COLUMNS = (
    "first",
    "second",
    "metric",
    "policy",
    "estimate",
    "ci_low",
    "ci_high",
    "p_value",
    "p_holm",
    "method",
    "note",
    "n_images",
    "n_patients",
    "n_positive",
    "effective_patients",
)
"""Columns of the table; ``second`` is empty in the row of one system.

``p_holm`` is that of `corrected`.
"""
Key = tuple[str, str]
"""Metric of a figure and the policy of its threshold, which is empty without one."""
AUROC: Key = ("auroc", "")
AP50: Key = ("ap50", "")
_JACCARD = (1, 1, 0, 1)
"""Outcomes of the images of which F1 is a function of the share that is called rightly."""
_OF_BOTH_CLASSES = (_JACCARD, (1, 1, 0, 0), (0, 0, 1, 1))
_RIGHT = np.array(CALLED_RIGHTLY)
_FEW_POSITIVE = 100
"""Positive images below which an average precision is too high on average."""


class FigureRows:
    """Rows of the table of figures of systems and baselines, each with its 95 % interval.

    `frames` are those of `replicates.replicates`, `primary` the figures that decide.
    """

    def __init__(
        self,
        truth: Truth,
        systems: Mapping[str, SystemFigures],
        frames: Mapping[str, pd.DataFrame],
        primary: Collection[Key] = (),
    ) -> None:
        self.truth, self.systems, self.frames, self.primary = truth, systems, frames, primary

    @cached_property
    def _values(self) -> dict[str, dict[tuple[str, str], Floats]]:
        """Replicates of each figure of each system."""
        return {
            name: {
                (str(key[0]), str(key[1])): frame[key].to_numpy(np.float64) for key in frame.columns
            }
            for name, frame in self.frames.items()
        }

    @cached_property
    def aurocs(self) -> dict[str, AurocParts | None]:
        """AUROC of each system with the contribution of each patient."""
        truth = self.truth
        return {
            name: auroc_parts(truth.positive, system.scores, truth.patients, truth.n_patients)
            for name, system in self.systems.items()
        }

    @cached_property
    def _sizes(self) -> dict[tuple[bool, int | None], dict[str, float]]:
        """Numbers that a figure rests on: of boxed images or all, of a class or the rarer one."""
        truth = self.truth
        sizes = {}
        for boxed, used in ((False, np.ones(len(truth.ids), dtype=bool)), (True, truth.is_boxed)):
            classes = [used & ~truth.positive, used & truth.positive]
            effective = [
                effective_patients(np.bincount(truth.patients[in_class])) for in_class in classes
            ]
            for label in (0, 1, None):
                sizes[boxed, label] = {
                    "n_images": int(used.sum()),
                    "n_patients": len(np.unique(truth.patients[used])),
                    "n_positive": int(classes[1].sum()),
                    "effective_patients": min(effective) if label is None else effective[label],
                }
        return sizes

    def size(self, metric: str) -> dict[str, float]:
        """Return the numbers of images and patients that a figure rests on, by their columns."""
        return self._sizes[METRICS[metric].boxed, METRICS[metric].of_class]

    @cached_property
    def keys(self) -> list[tuple[str, str]]:
        """Policy and metric of every figure, in the order of the table."""
        of_frames = [str(key[0]) for frame in self.frames.values() for key in frame.columns]
        of_boxes = {str(key[1]) for frame in self.frames.values() for key in frame.columns}
        reasons = [name for system in self.systems.values() for name in system.choices.reasons]
        policies = dict.fromkeys([*filter(None, of_frames), *reasons])
        return [
            (policy, name)
            for name, metric in METRICS.items()
            for policy in (policies if metric.at_threshold else ("",))
            if not metric.of_called_boxes or name in of_boxes
        ]

    def replicates(self, name: str, metric: str, policy: str = "") -> Floats | None:
        """Return a figure of a system on the images and on resamples; None if it has none."""
        return self._values[name].get((policy, metric))

    def is_compared(self, metric: str, policy: str) -> bool:
        """Return True if a figure has differences, and a value of each baseline."""
        return METRICS[metric].compared or (metric, policy) in self.primary

    def row(self, name: str, metric: str, policy: str = "") -> dict[str, Any] | None:
        """Return the row of a figure of a system; None if it lacks the figure."""
        system = self.systems[name]
        values = self.replicates(name, metric, policy)
        if values is None:
            return None
        size = self.size(metric)
        if METRICS[metric].family == "count":
            interval = {}
        elif METRICS[metric].interval == "ranks":
            interval = _auroc(self.aurocs[name], self.truth)
        elif METRICS[metric].interval == "losses":
            interval = _brier(self.truth, system, float(values[0]))
        elif policy:
            interval = _at_threshold(self.truth, system, policy, metric, float(values[0]))
        else:
            interval = _resampled(metric, values, size, self.truth)
        where = {"first": name, "second": "", "metric": metric, "policy": policy}
        return {**where, "estimate": float(values[0]), **interval, **size}

    def of_systems(self) -> pd.DataFrame:
        """Return a row for each figure of each system, with the reason for one that it lacks."""
        rows = []
        for name, system in self.systems.items():
            is_baseline = system.places is not None
            for policy, metric in self.keys:
                if is_baseline and not self.is_compared(metric, policy):
                    continue
                row = self.row(name, metric, policy)
                if row is None:
                    note = _why_none(self.truth, system, metric, policy)
                    row = {"first": name, "second": "", "metric": metric, "policy": policy}
                    row |= {"note": note, **self.size(metric)}
                rows.append(row)
        return pd.DataFrame(rows)


def corrected(
    tables: Sequence[pd.DataFrame],
    joint: str = "",
    *,
    primary: Collection[Key] = (AUROC,),
    with_boxes: Collection[str] = (),
) -> list[pd.DataFrame]:
    """Return tables of figures, one for each finding, with the corrected p-values, ``p_holm``.

    A difference in boxes which are not both systems' own, or are no better than constant ones, is
    not tested: it has the reason as its note, and no p-value.

    Holm's method corrects the `primary` figures together, over these figures, the pairs of systems
    and the findings; any other figure by itself, over the pairs and the findings. Pairs with an
    image-blind baseline are apart from others, and a pair with the system `joint`, which must
    exceed each of its members, is corrected over the findings alone.

    The p-value of a further figure of images is at least that of the primary one for the same pair
    and finding, so that nothing is shown in it before the primary figure is; that of a further
    figure of boxes at least that of the primary one of boxes, or of AP50, or of F1 of the boxes if
    these are a decision.
    """
    rows = pd.concat(tables, keys=range(len(tables)), names=["finding"])
    # A difference that nothing can be claimed of takes no share of the 5 % of its family, or the
    # others would be shown less often for it.
    untested = _untested_boxes(rows, with_boxes)
    rows = rows.assign(note=rows["note"].fillna("").where(untested == "", untested))
    rows["p_value"] = rows["p_value"].where(untested == "")
    tested = rows[rows["p_value"].notna()]
    families = _families(tested, joint, primary)
    # A figure that decides nothing is corrected by itself: with dozens of them in one family,
    # hardly a difference in the primary figure could be shown.
    of_family: dict[tuple[Any, ...], list[float]] = {}
    for family, p_value in zip(zip(*families, strict=True), tested["p_value"], strict=True):
        of_family.setdefault(family, []).append(p_value)
    holms = {family: iter(holm(p_values)) for family, p_values in of_family.items()}
    adjusted = [next(holms[family]) for family in zip(*families, strict=True)]
    p_holm = np.full(len(rows), np.nan)
    p_holm[rows["p_value"].notna()] = adjusted
    rows = rows.assign(p_holm=p_holm)
    # Each further figure is one more chance of a false claim between equal systems. Those of images
    # ask another question than those of boxes, so each kind waits for a leading figure of its own.
    of_images = [name for name, metric in METRICS.items() if not metric.of_places]
    ranked = [name for name in _of_boxes() if not METRICS[name].called]
    called = [name for name in _of_boxes() if METRICS[name].called]
    box_f1 = (BOX_F1, next(iter(rows.loc[rows["metric"] == BOX_F1, "policy"]), ""))
    for alike, usual in ((of_images, AUROC), (ranked, AP50), (called, box_f1)):
        gate = next((key for key in primary if key[0] in alike), usual)
        rows["p_holm"] = _after(rows, gate, rows["metric"].isin(alike))
    numbers = rows.index.get_level_values(0)
    return [rows[numbers == number].droplevel(0) for number in range(len(tables))]


def _of_boxes() -> list[str]:
    return [name for name, metric in METRICS.items() if metric.needs == "boxes"]


def _untested_boxes(rows: pd.DataFrame, with_boxes: Collection[str]) -> npt.NDArray[np.object_]:
    """Return why a difference in boxes is not tested, of each row; empty for all others.

    Boxes are no better than constant ones if those of both systems have a lower figure than
    constant positions with the same scores.
    """
    names = ["finding", "first", "second", "metric", "policy", "estimate"]
    listed = [*rows.reset_index("finding")[names].itertuples(index=False, name=None)]
    value_of = {row[:5]: row[5] for row in listed if not row[2]}
    is_tested = (rows["second"] != "") & rows["metric"].isin(_of_boxes()) & rows["p_value"].notna()
    why = np.full(len(rows), "", dtype=object)
    for number in np.flatnonzero(is_tested):
        finding, first, second, *key = listed[number][:5]
        # Where neither beats positions for which no image was read, the less bad one reads no
        # better.
        gaps = [
            value_of.get((finding, name, "", *key), np.nan)
            - value_of.get((finding, image_blind_name(name), "", *key), np.nan)
            for name in (first, second)
        ]
        if lacking := [name for name in (first, second) if name not in with_boxes]:
            why[number] = f"no own boxes of {' and '.join(lacking)}"
        elif np.max(gaps) < 0:  # not if one has no constant boxes
            why[number] = "both are worse than constant positions with their scores"
    return why


def _after(rows: pd.DataFrame, gate: Key, further: pd.Series) -> pd.Series:
    """Return the corrected p-values, of further figures at least that of the gate of their pair.

    NaN, a gate that is not tested, stays: nothing further is tested then.
    """
    is_gate = (rows["metric"] == gate[0]) & (rows["policy"] == gate[1])
    numbers = rows.index.get_level_values(0)
    pairs = [*zip(numbers, rows["first"], rows["second"], strict=True)]
    of_gate = dict(zip(compress(pairs, is_gate), rows.loc[is_gate, "p_holm"], strict=True))
    at_gate = np.array([of_gate.get(pair, np.nan) for pair in pairs])
    return rows["p_holm"].where(is_gate | ~further, np.maximum(rows["p_holm"], at_gate))


def _families(tested: pd.DataFrame, joint: str, primary: Collection[Key]) -> list[pd.Series]:
    """Return what the rows of a family of tests have in common, as columns."""
    first, second, metric, policy = (
        tested[name] for name in ("first", "second", "metric", "policy")
    )
    of_joint = first.eq(joint) | second.eq(joint)
    of_blind = second == first.map({name: image_blind_name(name) for name in first.unique()})
    of_primary = pd.Series(False, tested.index)
    for key in primary:
        of_primary |= metric.eq(key[0]) & policy.eq(key[1])
    of_primary &= ~of_joint & ~of_blind
    return [
        of_blind & ~of_joint,
        of_primary,
        first.where(of_joint, ""),
        second.where(of_joint, ""),
        metric.mask(of_primary, ""),
        policy.mask(of_primary, ""),
    ]


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust the p-values of several tests by Holm's method.

    If every adjusted p-value below 0.05 is called significant, the chance of any false one among
    the tests is at most 5 %. `None`, a test without a p-value, is not counted and stays `None`.

    Source:
        Holm 1979.

    Examples:
        >>> holm([0.25, None, 0.125])
        [0.25, None, 0.25]
    """
    tests = [position for position, p in enumerate(p_values) if p is not None]
    values = np.array([p_values[position] for position in tests], dtype=np.float64)
    order = np.argsort(values)
    raised = np.minimum(1.0, values[order] * np.arange(len(tests), 0, -1))
    adjusted: list[float | None] = [None] * len(p_values)
    for position, p in zip(order.tolist(), np.maximum.accumulate(raised).tolist(), strict=True):
        adjusted[tests[position]] = p
    return adjusted


def _why_none(truth: Truth, system: SystemFigures, metric: str, policy: str) -> str:
    """Return why a system lacks a figure."""
    record = METRICS[metric]
    if record.boxed and not (truth.positive & truth.is_boxed).any():
        return "no positive test image has boxes"
    if record.of_called_boxes:
        return "it gives no boxes of its own"
    if not system.output.ranks and record.family in ("ranking", "place", "calibration"):
        return "the boxes have no scores"
    if record.boxed and system.localised is None:
        return "it shows no places"
    if policy:
        return system.choices.reasons.get(policy, "there is no threshold")
    if record.family == "calibration":
        return "there is no calibration without validation images and probabilities"
    return "no validation image has boxes, so no rule cuts its maps into boxes"


def undefined(truth: Truth, metric: str) -> str:
    """Return why a figure is undefined, with the class that is absent."""
    text = METRICS[metric].undefined
    if not text.startswith(ONE_CLASS):
        return text
    if not truth.positive.any():
        return "no test image is positive"
    if truth.positive.all():
        return "no test image is negative"
    return text.removeprefix(f"{ONE_CLASS}, or ")


def _auroc(parts: AurocParts | None, truth: Truth) -> dict[str, Any]:
    """Return the closed interval of an AUROC."""
    if parts is None:
        return {"note": undefined(truth, "auroc")}
    return {**parts.estimate().to_row(), "method": OBUCHOWSKI}


def _at_threshold(
    truth: Truth, system: SystemFigures, policy: str, metric: str, value: float
) -> dict[str, Any]:
    """Return the interval of a figure at its printed threshold, from the counts of each patient."""
    called = system.scores >= system.choices.thresholds[policy]
    if np.isnan(value):
        return {"note": undefined(truth, metric)}
    if METRICS[metric].of_called_boxes and system.called_boxes is not None:
        top, bottom = system.called_boxes.ratios(system.choices.thresholds[policy])[metric]
        if METRICS[metric].interval == "overlap":  # of hits, and of all that is called or there
            share = ShareParts.from_sums(top / 2, bottom - top / 2).estimate()
            return counted_interval(share, value, lambda end: 2 * end / (1 + end))
        return counted_interval(ShareParts.from_sums(top, bottom).estimate(), value)
    if METRICS[metric].interval == "hits" and system.localised is not None:
        is_boxed_positive = truth.positive & truth.is_boxed
        hits, images = (
            np.bincount(truth.patients, flags, truth.n_patients).astype(np.float64)
            for flags in (is_boxed_positive & called & system.localised, is_boxed_positive)
        )
        return counted_interval(ShareParts.from_sums(hits, images).estimate(), value)
    counts = confusion_by_patient(truth.positive, called, truth.patients, truth.n_patients)
    return interval_of_counts(counts, metric, value)


def _brier(truth: Truth, system: SystemFigures, value: float) -> dict[str, Any]:
    """Return the interval of a mean of squared errors, by the rule of a precision."""
    if system.loss is None:
        return {}
    labels = confusion_by_patient(truth.positive, truth.positive, truth.patients, truth.n_patients)
    loss = np.bincount(truth.patients, system.loss, truth.n_patients).astype(np.float64)
    share = ShareParts.from_sums(loss, labels.sum(axis=1), rarer_class_inflation(labels))
    return counted_interval(share.estimate(), value)


def interval_of_counts(counts: Floats, metric: str, value: float) -> dict[str, Any]:
    """Return the interval of a metric of counts by patient (tp, fp, tn, fn), ``(patients, 4)``."""
    record = METRICS[metric]
    outcomes = _JACCARD if record.interval == "overlap" else record.share_of
    if outcomes is not None:
        inflation = rarer_class_inflation(counts) if outcomes in _OF_BOTH_CLASSES else 1.0
        in_share = np.array(outcomes)
        share = ShareParts.from_sums(
            counts @ (in_share * _RIGHT), counts @ in_share, inflation
        ).estimate()
        if record.interval == "overlap":
            return counted_interval(share, value, lambda end: 2 * end / (1 + end))
        interval = counted_interval(share, value)
        if in_share.all() and counts.sum(axis=1).max() > 1:
            # Samples often lack the large patients of a rare class; the share does not show that.
            of_classes = function_of_counts(partial(_scaled, metric), counts)
            return _containing(interval, counted_interval(of_classes, value))
        return interval
    if record.interval == "classes":
        classes = [np.array(of_class) for of_class in OF_CLASSES]
        mean = mean_interval(
            [
                ShareParts.from_sums(counts @ (in_share * _RIGHT), counts @ in_share)
                for in_share in classes
            ]
        )
        ends = {"ci_low": mean.ci_low, "ci_high": mean.ci_high, "method": CLUSTERED_COUNTS}
        return ends if mean.bounded else {"note": mean.note}
    span = 1 - record.lowest
    estimate = function_of_counts(partial(_scaled, metric), counts, rarer_class_inflation(counts))
    return counted_interval(estimate, value, lambda end: record.lowest + span * end)


def _scaled(metric: str, counts: Floats) -> Floats:
    """Return a metric of counts, shape ``(..., 4)``, moved to [0, 1]."""
    lowest = METRICS[metric].lowest
    return (rates_of(counts)[metric] - lowest) / (1 - lowest)


def counted_interval(
    estimate: ClusteredEstimate, value: float, back: Any = float
) -> dict[str, Any]:
    """Return the interval of an estimate from counts, which contains the figure itself.

    `back` is the function from the scale of the estimate to that of the figure.
    """
    ends = estimate.interval_at(LEVEL)
    if ends is None:
        return {"note": estimate.note}
    low, high = (float(back(end)) for end in ends)
    return {"ci_low": min(low, value), "ci_high": max(high, value), "method": CLUSTERED_COUNTS}


def _containing(interval: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return an interval, widened to contain the other one, if both exist."""
    if "ci_low" not in interval or "ci_low" not in other:
        return interval
    low, high = (interval["ci_low"], other["ci_low"]), (interval["ci_high"], other["ci_high"])
    return {**interval, "ci_low": min(low), "ci_high": max(high)}


def _resampled(
    metric: str, values: Floats, size: Mapping[str, float], truth: Truth
) -> dict[str, Any]:
    """Return the percentile interval of a figure without a threshold."""
    value, drawn = float(values[0]), values[1:]
    record = METRICS[metric]
    of_boxes = record.averages_precision and record.boxed
    if np.isnan(value):
        return {"note": undefined(truth, metric)}
    if of_boxes:
        drawn = lower_for_bias(drawn, value)
    level = expanded_level(LEVEL, size["effective_patients"])
    percentiles = percentile_interval(drawn, level, estimate=value)
    low, high, note = percentiles.ci_low, percentiles.ci_high, percentiles.note
    if record.interval == "points" and note == NO_WIDTH and value in (0.0, 1.0):
        n_owners = len(np.unique(truth.patients[truth.positive & truth.is_boxed]))
        if n_owners > 1:
            exact = Interval.from_share(value, n_owners)
            low, high, note = exact.ci_low, exact.ci_high, ""
    if of_boxes:
        note = "; ".join(filter(None, [note, too_high(size["n_positive"])]))
    return {"ci_low": low, "ci_high": high, "note": note, "method": BOOTSTRAP}


def lower_for_bias(drawn: Floats, value: float) -> Floats:
    """Correct the replicates of an average precision for bias, for the lower end of its interval.

    With few lesions, an average precision is too high on average. The replicates are too high by
    the same bias once more, so the bias is estimated by their mean minus the figure, and twice the
    bias is subtracted from the replicates below their median, but none becomes lower than 0. The
    upper half stays as it is, because the replicates do not always show the whole bias.

    Examples:
        >>> lower_for_bias(np.array([0.25, 0.5, 0.75]), 0.25).tolist()
        [0.0, 0.5, 0.75]
    """
    defined = drawn[~np.isnan(drawn)]
    if not len(defined):
        return drawn
    bias = max(float(defined.mean()) - value, 0.0)
    return np.where(drawn < np.median(defined), np.maximum(drawn - 2 * bias, 0.0), drawn)


def too_high(n_positive: float) -> str:
    """Return the note of an average precision of few positive images; empty for many."""
    if n_positive >= _FEW_POSITIVE:
        return ""
    return "too high on average with so few positive images"


def bootstrap_p_value(drawn: Floats, patients: float | None) -> float:
    """Return the two-sided p-value of a difference of 0 from its replicates, ``(R,)``.

    It is corrected for a small effective number of `patients`, as intervals are; None does not.
    """
    n_known = int((~np.isnan(drawn)).sum())
    smaller = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    p_value = min(1.0, 2 * (smaller + 1) / (n_known + 1))
    if patients is None or not patients > 1:
        return p_value
    widened = scipy.special.ndtri(p_value / 2) * np.sqrt((patients - 1) / patients)
    return float(2 * scipy.special.stdtr(patients - 1, widened))
