"""Numbers behind the charts of a report: one table of curves, and a few facts beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.boxes.froc import FROC_RATES, FrocCurve
from cxr_compare.evaluation.boxes.lesion_hits import Hit
from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.figures import Figure
from cxr_compare.evaluation.metrics.calibration_figures import equal_mass_bins
from cxr_compare.evaluation.metrics.net_benefit import RISKS, decision_curve
from cxr_compare.evaluation.metrics.registry import METRICS, RATE_LABELS
from cxr_compare.evaluation.report.metric_table import (
    is_decided,
    shown_contrasts,
    withdrawn_text,
)
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.bands import roc_band, share_band
from cxr_compare.evaluation.statistics.intervals import note_without_counts
from cxr_compare.evaluation.system_result import SystemResult

RESAMPLES = 500
"""Number of resamples of patients behind each band."""
MOST_BANDS = 4
"""Largest number of systems whose curves have bands; more bands would cover each other."""
SCORE_BINS = 20
"""Number of bins of equal width, from 0 to 1, of the histogram of scores."""
FROC_PREFIX: dict[Hit, str] = {"iou": "froc", "centre": "froc_centre"}
"""Prefix of the metrics for each rule that decides whether a box hits a lesion."""
_BAND_RATES = np.linspace(0, 1, 101)  # false positive rates of a ROC band
_CALIBRATION_METHODS = {
    "platt": "Platt scaling",
    "temperature": "temperature scaling",
    "isotonic": "isotonic regression",
}
_NUMBERS = ("x", "y", "low", "high")
_TEXTS = ("chart", "system", "kind", "policy")


def curve_table(comparison: Comparison) -> pd.DataFrame:
    """Return the numbers of all curves of a report as one tidy table, a row for each point.

    ``chart`` is ``roc``, ``pr``, ``froc-iou``, ``froc-centre``, ``scores``, ``calibration`` or
    ``net-benefit``; ``system`` is a name, empty for a line of orientation; ``kind`` is ``curve``,
    ``mark`` (the one operating point of a system without scores), ``points`` (thresholds with their
    ``policy``, or the rates of an FROC mean), ``band`` (ends ``low`` and ``high`` at ``x``),
    ``image-blind``, ``guide``, or ``positive`` and ``negative`` (share ``y`` of the images of this
    class whose score lies in the bin around ``x``). A chart that would be empty has no rows.
    """
    parts: list[pd.DataFrame] = []
    has_bands = len(comparison.systems) <= MOST_BANDS
    for name, result in comparison.systems.items():
        images = comparison.decisions[comparison.decisions["system"] == name]
        parts += _threshold_curves(name, result, images if has_bands else None)
        for hit in FROC_PREFIX:
            parts += _froc_curves(comparison, name, hit, has_bands=has_bands)
        parts += _score_histograms(name, result, images)
        parts += _calibration_curve(name, images, has_bands=has_bands)
        known = _known_probabilities(images)
        if known is not None:
            worth = decision_curve(known["label"] >= 1, known["probability"])
            parts.append(_rows("net-benefit", name, "curve", RISKS, worth))
    charts = {part["chart"].iloc[0] for part in parts if len(part)}
    parts += [part for part in _guides(comparison) if part["chart"].iloc[0] in charts]
    if not parts:
        return _rows("", "", "", [], [])
    return pd.concat(parts, ignore_index=True)


def chart_facts(comparison: Comparison) -> dict[str, Any]:
    """Return what charts and their notes need beside the curves, as JSON values.

    The keys are ``calibration`` (the method of each system with probabilities; an empty text for a
    score that was not calibrated), ``without_net_benefit`` (systems without probabilities),
    ``boxes_from_maps`` (systems that never learned boxes), ``withdrawn`` (meaning of †), ``forest``
    (parts of the forest plot) and ``confusion`` (counts by system and rule).
    """
    calibration = {}
    without = []
    for name, result in comparison.systems.items():
        images = comparison.decisions[comparison.decisions["system"] == name]
        if _known_probabilities(images) is None:
            without.append(name)
        else:
            calibration[name] = _calibration_method(result)
    return {
        "calibration": calibration,
        "without_net_benefit": without,
        "boxes_from_maps": [
            name for name, result in comparison.systems.items() if result.map_scale is not None
        ],
        "withdrawn": withdrawn_text(comparison.joint),
        "forest": [part for part in _forest(comparison) if part["rows"]],
        "confusion": {
            name: {policy: dict(counts) for policy, counts in result.confusion.items()}
            for name, result in comparison.systems.items()
        },
    }


def froc_sensitivities(curve: FrocCurve) -> list[float]:
    """Read from a FROC curve the share of lesions found at the seven rates of `FROC_RATES`.

    The rates are 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives per image. The curve, which begins
    with 0 false positives, is constant between its points.

    Example:
        >>> curve = FrocCurve(np.array([0.0, 1.0]), np.array([0.25, 0.75]))
        >>> froc_sensitivities(curve)[0], froc_sensitivities(curve)[-1]
        (0.25, 0.75)
    """
    last = np.searchsorted(curve.false_positives_per_image, FROC_RATES, side="right") - 1
    return list(map(float, curve.sensitivity[last]))


def _rows(
    chart: str,
    system: str,
    kind: str,
    x: npt.ArrayLike,
    y: npt.ArrayLike = math.nan,
    *,
    policy: str = "",
    band: Sequence[Floats] | None = None,
) -> pd.DataFrame:
    """Return rows of the table of curves; the columns have the same types in every part."""
    low, high = (math.nan, math.nan) if band is None else band
    of = {"chart": chart, "system": system, "kind": kind, "policy": policy}
    rows = pd.DataFrame(
        {**of, "x": np.asarray(x, dtype=np.float64), "y": y, "low": low, "high": high}
    )
    return rows.astype(dict.fromkeys(_TEXTS, str) | dict.fromkeys(_NUMBERS, np.float64))


def _threshold_curves(
    name: str, result: SystemResult, images: pd.DataFrame | None
) -> Iterator[pd.DataFrame]:
    """Yield the ROC and the precision-recall curve, with the points of the chosen thresholds.

    `images` are the rows of the system's test images; None leaves the band of the ROC curve out.
    """
    curve = result.curve
    if not result.has_scores and result.confusion:
        rates = _rates(**next(iter(result.confusion.values())))
        yield _rows("roc", name, "mark", [rates["fpr"]], [rates["tpr"]])
        yield _rows("pr", name, "mark", [rates["recall"]], [rates["precision"]])
    if not curve:
        return
    for chart, x, y in (("roc", "fpr", "tpr"), ("pr", "recall", "precision")):
        yield _rows(chart, name, "curve", curve[x], curve[y])
        for policy, counts in result.confusion.items():
            rates = _rates(**counts)
            if not (math.isnan(rates[x]) or math.isnan(rates[y])):
                yield _rows(chart, name, "points", [rates[x]], [rates[y]], policy=policy)
    if images is None:
        return
    labels = images["label"].to_numpy(np.float64, na_value=np.nan)
    scores = images["score"].to_numpy(np.float64, na_value=np.nan)
    known = np.isfinite(labels) & np.isfinite(scores)
    if len(np.unique(labels[known])) == 2:
        patients = images["patient_id"].to_numpy()[known]
        band = roc_band(
            labels[known] >= 1, scores[known], patients, _BAND_RATES, resamples=RESAMPLES
        )
        yield _rows("roc", name, "band", _BAND_RATES, band=band)


def _rates(tp: int, fp: int, tn: int, fn: int) -> dict[str, float]:
    """Compute the rates of a confusion matrix; a rate is NaN where its denominator is 0."""
    recall = tp / (tp + fn) if tp + fn else math.nan
    return {
        "fpr": fp / (fp + tn) if fp + tn else math.nan,
        "tpr": recall,
        "recall": recall,
        "precision": tp / (tp + fp) if tp + fp else math.nan,
    }


def _froc_curves(
    comparison: Comparison, name: str, hit: Hit, *, has_bands: bool
) -> Iterator[pd.DataFrame]:
    chart = f"froc-{hit}"
    result = comparison.systems[name]
    froc = result.froc.get(hit)
    if froc is None or not len(froc.sensitivity):
        return
    if not result.has_scores:  # all boxes count at once
        marks, found = froc.false_positives_per_image[-1:], froc.sensitivity[-1:]
        yield _rows(chart, name, "mark", marks, found)
        return
    yield _rows(chart, name, "curve", *_froc_steps(froc))
    yield _rows(chart, name, "points", FROC_RATES, froc_sensitivities(froc))
    rates = [
        comparison.figures.get(name, f"{FROC_PREFIX[hit]}_at_{label.replace('/', '_')}")
        for label in RATE_LABELS
    ]
    if has_bands and all(rate.bounded for rate in rates):
        ends = np.array([(rate.ci_low, rate.ci_high) for rate in rates]).T
        yield _rows(chart, name, "band", FROC_RATES, band=tuple(ends))
    blind = result.image_blind_froc.get(hit)
    if blind is not None and len(blind.sensitivity):
        yield _rows(chart, name, "image-blind", *_froc_steps(blind))


def _froc_steps(froc: FrocCurve) -> tuple[Floats, Floats]:
    """Return a FROC curve whose first step begins left of the axis and whose last one ends it."""
    false_positives, sensitivity = froc
    low, high = FROC_RATES[0], FROC_RATES[-1]
    x = np.concatenate([np.maximum(false_positives, low / 2), [max(high, false_positives[-1])]])
    return x, np.append(sensitivity, sensitivity[-1])


def _score_histograms(
    name: str, result: SystemResult, images: pd.DataFrame
) -> Iterator[pd.DataFrame]:
    """Yield the share of each class's images in each bin of scores, and the chosen thresholds."""
    labels = images["label"].to_numpy(np.float64, na_value=np.nan)
    scores = images["score"].to_numpy(np.float64, na_value=np.nan)
    if not result.curve:
        return
    edges = np.linspace(0, 1, SCORE_BINS + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    for kind, of_class in (("positive", labels >= 1), ("negative", labels < 1)):
        counts, _ = np.histogram(scores[of_class & np.isfinite(scores)], edges)
        if counts.any():
            yield _rows("scores", name, kind, middles, counts / counts.sum())
    for policy, threshold in result.thresholds.items():
        if threshold is not None and 0 <= threshold <= 1:
            yield _rows("scores", name, "points", [threshold], [0.0], policy=policy)


def _known_probabilities(images: pd.DataFrame) -> pd.DataFrame | None:
    """Return label, probability and patient of the images that have both; None if none has."""
    if "probability" not in images or "label" not in images:
        return None
    known = pd.DataFrame(
        {
            name: images[name].to_numpy(np.float64, na_value=np.nan)
            for name in ("label", "probability")
        }
    ).assign(patient_id=images["patient_id"].to_numpy())
    known = known.replace([math.inf, -math.inf], math.nan).dropna(subset=["label", "probability"])
    return None if known.empty else known


def _calibration_curve(
    name: str, images: pd.DataFrame, *, has_bands: bool
) -> Iterator[pd.DataFrame]:
    """Yield the observed share of positives against the expected share, with its interval."""
    known = _known_probabilities(images)
    if known is None:
        return
    bins = equal_mass_bins(known["probability"].to_numpy(), min(10, max(2, len(known) // 25)))
    labels = known["label"].to_numpy()
    present, position = np.unique(bins, return_inverse=True)
    sizes = np.bincount(bins)[present]
    expected = np.bincount(bins, weights=known["probability"])[present] / sizes
    observed = np.bincount(bins, weights=labels)[present] / sizes
    yield _rows("calibration", name, "curve", expected, observed)
    if has_bands:
        patients = known["patient_id"].to_numpy()
        ends = share_band(labels >= 1, position, patients, resamples=RESAMPLES)
        yield _rows("calibration", name, "band", expected, band=ends)


def _calibration_method(result: SystemResult) -> str:
    """Return the method that made a score a probability; empty if the score is taken as it is."""
    calibration = result.decisions[0].calibration if result.decisions else None
    if calibration is None:
        return "a method that was not recorded"
    return "" if calibration.method == "none" else _CALIBRATION_METHODS[calibration.method]


def _guides(comparison: Comparison) -> Iterator[pd.DataFrame]:
    """Yield the lines of orientation: what guessing and calling every image positive would give."""
    labels = comparison.decisions.drop_duplicates("image_id")["label"]
    prevalence = float(labels.mean())
    yield _rows("roc", "", "guide", [0, 1], [0, 1])
    yield _rows("pr", "", "guide", [0, 1], [prevalence, prevalence])
    yield _rows("calibration", "", "guide", [0, 1], [0, 1])
    treat_all = decision_curve(labels >= 1, np.ones(len(labels)))
    yield _rows("net-benefit", "", "guide", RISKS, treat_all)


def _forest(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Yield the parts of the forest plot: the primary figure of each system, and differences.

    A row is left out if it has no interval.
    """
    protocol = comparison.protocol
    figures = comparison.answer_figures
    suffixes = [""] * len(protocol.metrics)
    if protocol.partner:
        suffixes = [f": {METRICS[metric].title_in_sentence}" for metric in protocol.metrics]
    keys = list(zip(protocol.keys, suffixes, strict=True))
    title = f"{protocol.title[0].upper()}{protocol.title[1:]} with 95 % interval"
    values = [
        _forest_row(f"{name}{suffix}", figures.get(name, *key), system=name)
        for key, suffix in keys
        for name in comparison.names
    ]
    yield {"title": title, "rows": [row for row in values if row]}
    contrasts = shown_contrasts(comparison)
    title = "Paired difference with 95 % interval"
    if len(contrasts) > 1:
        title = f"{contrasts[0][0]} minus each other system: paired difference with 95 % interval"
    differences = []
    for key, suffix in keys:
        for first, second in contrasts:
            gap = figures.difference(first, second, *key)
            name = f"{first} − {second}" if len(contrasts) == 1 else f"− {second}"
            decides = is_decided(comparison, (first, second), key)
            row = _forest_row(f"{name}{suffix}", gap)
            if row:
                row["shown"] = decides is True
                row["corrected"] = decides is False and bool(gap.excludes_zero)
                differences.append(row)
    yield {"title": title, "rows": differences}


def _forest_row(name: str, figure: Figure, *, system: str = "") -> dict[str, Any]:
    """Return a row of the forest plot; empty if the figure has no interval."""
    if not figure.bounded:
        return {}
    return {
        "name": name,
        "system": system,
        "estimate": float(figure.estimate),
        "ci_low": float(figure.ci_low),
        "ci_high": float(figure.ci_high),
        "note": note_without_counts(figure.note),
    }
