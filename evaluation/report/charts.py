"""What each chart of the report shows, from the figures of a comparison; `plot` draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.ticker import MaxNLocator

from cxr_compare.evaluation.boxes.froc import FROC_RATES, FrocCurve
from cxr_compare.evaluation.boxes.lesion_hits import Hit
from cxr_compare.evaluation.compare.comparison import Comparison, SystemResult
from cxr_compare.evaluation.compare.failure_analysis import TREAT_ALL
from cxr_compare.evaluation.metrics.calibration_figures import equal_mass_bins
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.metrics.registry import RATE_LABELS
from cxr_compare.evaluation.report.chart import Axis, Chart, Curve, Point
from cxr_compare.evaluation.report.chart_drawing import MARKERS
from cxr_compare.evaluation.report.inline_svg import legend_sample
from cxr_compare.evaluation.report.templates import sentence
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.bands import roc_band, share_band
from cxr_compare.evaluation.statistics.figure_text import interval_text, number
from cxr_compare.evaluation.statistics.intervals import Interval

_BAND = np.linspace(0, 1, 101)  # false positive rates at which the band of a ROC curve is taken
_RESAMPLES = 500  # of patients, for bands
_CHOSEN = (
    "Thresholds were chosen on validation images: a rate that was reached there may be missed here."
)
_CURVE_FIGURES = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "froc_mean": "mean",
    "froc_centre_mean": "mean",
    "brier": "Brier score",
}
_HITS: dict[Hit, tuple[str, str, str]] = {  # prefix of its figures
    "iou": ("froc", "overlap", "A box hits at an intersection over union (IoU) of at least 0.2."),
    "centre": (
        "froc_centre",
        "box centre",
        "A box hits with its centre on the lesion, borders included.",
    ),
}
_COSTS = (
    ("cost-flops", "flops", "FLOPs per image", 1e9, "billion"),
    ("cost-latency", "latency_ms", "Time per image", 1.0, "ms"),
)

_Line = tuple[Floats, Floats]  # x, y


@dataclass(frozen=True)
class _System:
    """What the charts show of one system."""

    name: str
    position: int  # among all systems
    result: SystemResult
    figures: Mapping[str, Interval]  # by metric; "primary" is the protocol's
    test: Mapping[str, Floats]  # label, score and probability of the test images
    patients: npt.NDArray[Any]  # of the test images
    rates: Mapping[str, list[Interval]]  # lesions found at each of FROC_RATES, by prefix
    net_benefit: _Line | None  # by risk

    def curve(self, x: Floats, y: Floats, points: Sequence[Point] = (), **options: Any) -> Curve:
        """Return a curve in this system's name and colour."""
        return Curve(self.name, self.position, x, y, tuple(points), **options)


def report_charts(comparison: Comparison) -> list[Chart]:
    """Return every chart that has a curve, in reading order."""
    systems = _read_systems(comparison)
    policies = comparison.policies
    labels = comparison.decisions.drop_duplicates("image_id")["label"]
    all_positive = _decision_curve(comparison.failures, TREAT_ALL, "net_benefit")
    charts = [
        _roc_chart(systems, policies),
        _precision_recall_chart(systems, policies, float(labels.mean())),
        *(_froc_chart(systems, hit) for hit in _HITS),
        _calibration_chart(systems, comparison.systems),
        _net_benefit_chart(systems, all_positive),
    ]
    return [chart for chart in charts if chart.curves]


def cost_charts(comparison: Comparison) -> list[Chart]:
    """The primary figure against FLOPs and, where all were timed on one device, against time."""
    systems = _read_systems(comparison)
    devices = {each.cost.get("latency_device") for each in comparison.systems.values()} - {None}
    charts = []
    for key, cost, title, unit, word in _COSTS:
        costs = {
            system.name: float(value) / unit
            for system in systems
            if (value := system.result.cost.get(cost)) and system.figures["primary"].known
        }
        if len(costs) > 1 and not (cost == "latency_ms" and len(devices) > 1):
            charts.append(_cost_chart(key, title, word, comparison.protocol.title, costs, systems))
    return charts


def chart_legend(chart: Chart, policies: Sequence[str]) -> list[tuple[str, str]]:
    """Return a sample and its words for each system's line and each policy's marker."""
    if chart.names_beside:
        return []
    legend = {}
    drawn = set()
    for curve in chart.curves:
        drawn |= {point.marker for point in curve.points}
        if curve.figure or not curve.faint:
            words = f"{curve.name}: {curve.figure}" if curve.figure else curve.name
            legend[curve.name] = legend_sample(chart.key, curve.position), words
    return [
        *legend.values(),
        *(
            (legend_sample(chart.key, marker=marker), words)
            for marker, words in policy_markers(policies)
            if marker in drawn
        ),
    ]


def policy_markers(policies: Sequence[str]) -> list[tuple[str, str]]:
    """Return the marker of each policy and its words for a legend."""
    return [
        (_marker(policy, policies), f"threshold for {policy_text(policy)}") for policy in policies
    ]


def _read_systems(comparison: Comparison) -> list[_System]:
    figures = comparison.estimates
    failures = comparison.failures
    protocol = comparison.protocol
    decisions = comparison.decisions
    wanted = {
        "primary": (protocol.metric, protocol.policy),
        **{metric: (metric, "") for metric in _CURVE_FIGURES},
    }
    prefixes = {
        prefix: [f"{prefix}_at_{at.replace('/', '_')}" for at in RATE_LABELS]
        for prefix, _, _ in _HITS.values()
    }
    # Of the calibrated probabilities, else of the scores.
    calibrated = "net_benefit_calibrated"
    benefit = calibrated if calibrated in set(failures.get("metric", ())) else "net_benefit"
    systems = []
    for position, (name, result) in enumerate(comparison.systems.items()):
        rows = decisions[decisions["system"] == name]
        held = [column for column in ("label", "score", "probability") if column in rows]
        system = _System(
            name,
            position,
            result,
            {key: figures.get(name, *each) for key, each in wanted.items()},
            {column: rows[column].to_numpy(np.float64, na_value=np.nan) for column in held},
            rows["patient_id"].to_numpy(),
            {prefix: [figures.get(name, each) for each in at] for prefix, at in prefixes.items()},
            _decision_curve(failures, name, benefit),
        )
        systems.append(system)
    return systems


def _decision_curve(failures: pd.DataFrame, system: str, metric: str) -> _Line | None:
    if failures.empty:
        return None
    keys = failures[["topic", "system", "metric"]] == ["decision_curve", system, metric]
    rows = failures[keys.all(axis=1)].dropna(subset=["estimate"])
    if rows.empty:
        return None
    return rows["group"].to_numpy(dtype=np.float64), rows["estimate"].to_numpy(dtype=np.float64)


def _roc_chart(systems: Sequence[_System], policies: Sequence[str]) -> Chart:
    return Chart(
        key="roc",
        title="ROC curve",
        x=Axis("1 − specificity (false alarms among negatives)"),
        y=Axis("Sensitivity"),
        curves=_threshold_curves(systems, policies, "fpr", "tpr", "auroc"),
        guides=(((0, 1), (0, 1)),),
        guide_label="guessing",
        description=f"ROC curves. {_in_words(systems, 'auroc', 'AUROC')}",
        note=f"{_CHOSEN} Bands: pointwise 95 % intervals of sensitivity, {_RESAMPLES} resamples of "
        "patients.",
    )


def _roc_band(system: _System) -> tuple[Floats, Floats, Floats] | None:
    """The band of a ROC curve; none where its images have one label only."""
    labels = system.test["label"]
    scores = system.test["score"]
    known = np.isfinite(labels) & np.isfinite(scores)
    if len(np.unique(labels[known])) < 2:
        return None
    ends = roc_band(
        labels[known] >= 1, scores[known], system.patients[known], _BAND, resamples=_RESAMPLES
    )
    return _BAND, *ends


def _precision_recall_chart(
    systems: Sequence[_System], policies: Sequence[str], prevalence: float
) -> Chart:
    figures = _in_words(systems, "average_precision", "Average precision")
    return Chart(
        key="pr",
        title="Precision-recall curve",
        x=Axis("Sensitivity (recall)"),
        y=Axis("Precision"),
        curves=_threshold_curves(systems, policies, "recall", "precision", "average_precision"),
        guides=(((0, 1), (prevalence, prevalence)),),
        guide_label=f"guessing (prevalence {number(prevalence)})",
        description=f"Precision-recall curves. {figures}",
        note=_CHOSEN,
    )


def _threshold_curves(
    systems: Sequence[_System], policies: Sequence[str], x: str, y: str, metric: str
) -> tuple[Curve, ...]:
    """A curve a system over all thresholds, with the frozen ones on it."""
    curves = []
    for system in systems:
        curve = system.result.curve
        points = []
        if not curve:
            continue
        for policy, counts in system.result.confusion.items():
            rates = _rates(**counts)
            if not (math.isnan(rates[x]) or math.isnan(rates[y])):
                words = f"{system.name}, threshold for {policy_text(policy)}"
                points.append(Point(rates[x], rates[y], words, _marker(policy, policies)))
        band = _roc_band(system) if (x, y) == ("fpr", "tpr") else None
        words = _words(system, metric)
        curves.append(system.curve(curve[x], curve[y], points, figure=words, band=band))
    return tuple(curves)


def _rates(tp: int, fp: int, tn: int, fn: int) -> dict[str, float]:
    """Return the rates of a confusion matrix; NaN where a denominator is 0."""
    recall = tp / (tp + fn) if tp + fn else math.nan
    return {
        "fpr": fp / (fp + tn) if fp + tn else math.nan,
        "tpr": recall,
        "recall": recall,
        "precision": tp / (tp + fp) if tp + fp else math.nan,
    }


def _in_words(systems: Sequence[_System], metric: str, title: str) -> str:
    words = (f"{each.name}: {title} {number(each.figures[metric].estimate)}" for each in systems)
    return "; ".join(words) + "."


def _marker(policy: str, policies: Sequence[str]) -> str:
    return MARKERS[policies.index(policy) % len(MARKERS)]


def _words(system: _System, metric: str) -> str:
    """A figure for a legend; empty where it is undefined."""
    figure = system.figures[metric]
    if not figure.known:
        return ""
    ends = f" ({interval_text(figure)})" if figure.bounded else ""
    return f"{_CURVE_FIGURES[metric]} {number(figure.estimate)}{ends}"


def _froc_chart(systems: Sequence[_System], hit: Hit) -> Chart:
    (prefix, by, meaning) = _HITS[hit]
    (low, high) = (FROC_RATES[0], FROC_RATES[-1])
    curves = []
    sentences = []
    for system in systems:
        froc = system.result.froc.get(hit)
        if froc is None or not len(froc.sensitivity):
            continue
        marks, level = froc
        found = list(zip(FROC_RATES, RATE_LABELS, _sensitivity_at(froc), strict=True))
        points = tuple(
            Point(
                rate, y, f"{system.name}: sensitivity {number(y)} at {at} false positives per image"
            )
            for rate, at, y in found
        )
        # The first level begins left of the axis, the last goes on to its end.
        x = np.concatenate([np.maximum(marks, low / 2), [max(high, marks[-1])]])
        y = np.append(level, level[-1])
        ends = system.rates[prefix]
        band = None
        if all(each.bounded for each in ends):
            lows, highs = ([getattr(each, end) for each in ends] for end in ("low", "high"))
            band = np.array(FROC_RATES), np.array(lows), np.array(highs)
        words = _words(system, f"{prefix}_mean")
        if system.result.maps is not None:
            meaning += f" {system.name} never learned boxes: its are cut out of its maps."
        curves.append(system.curve(x, y, points, in_steps=True, figure=words, band=band))
        at = ", ".join(f"{number(y)} at {words}" for _, words, y in found)
        sentences.append(f"{system.name}: sensitivity {at} false positives per image")
    ticks = tuple(zip(FROC_RATES, RATE_LABELS, strict=True))
    return Chart(
        key=f"froc-{hit}",
        title=f"FROC curve, hit by {by}",
        x=Axis("False positives per image (logarithmic)", ticks, low, high, "log"),
        y=Axis("Lesions found"),
        curves=tuple(curves),
        description=f"FROC curves. {meaning} {'; '.join(sentences)}.",
        note=f"{meaning} Points: the rates of the mean. Bands: 95 % intervals there.",
    )


def _sensitivity_at(curve: FrocCurve) -> list[float]:
    """Return the sensitivity at each of `FROC_RATES`, by the step rule."""
    last = np.searchsorted(curve.false_positives_per_image, FROC_RATES, side="right") - 1
    return list(map(float, curve.sensitivity[last]))


def _calibration_chart(systems: Sequence[_System], results: Mapping[str, SystemResult]) -> Chart:
    """Expected against observed share of positives in groups by probability, of equal size."""
    curves = []
    groups = set()
    methods = []
    for system in systems:
        labels, chances = (system.test.get(key, np.empty(0)) for key in ("label", "probability"))
        known = np.isfinite(chances) & np.isfinite(labels if len(chances) else chances)
        if not known.any():
            continue
        bins = equal_mass_bins(chances[known], min(10, max(2, int(known.sum()) // 25)))
        sizes = np.bincount(bins)[np.unique(bins)]
        groups.add(len(sizes))
        decisions = results[system.name].decisions
        decision = decisions[0].to_dict() if decisions else {}
        methods.append(f"{system.name} by {sentence('calibrated_by', decision)}")
        expected, observed = (
            np.bincount(bins, weights=each[known])[np.unique(bins)] / sizes
            for each in (chances, labels)
        )
        points = tuple(
            Point(x, y, f"{system.name}: expected {number(x)}, observed {number(y)}")
            for x, y in zip(expected.tolist(), observed.tolist(), strict=True)
        )
        ends = share_band(
            labels[known] >= 1,
            np.unique(bins, return_inverse=True)[1],
            system.patients[known],
            resamples=_RESAMPLES,
        )
        words = _words(system, "brier")
        band = expected, *ends
        curves.append(system.curve(expected, observed, points, figure=words, band=band))
    return Chart(
        key="calibration",
        title="Calibration",
        x=Axis("Expected share of positives"),
        y=Axis("Observed share"),
        curves=tuple(curves),
        guides=(((0, 1), (0, 1)),),
        guide_label="perfect calibration",
        description="Calibration curves of the probabilities that validation gave the scores.",
        note=f"Calibrated on validation images: {listing(methods)}. Each point: one of "
        f"{' or '.join(map(str, sorted(groups)))} groups of equally many images, by probability. "
        f"Bands: 95 % intervals of the observed share, {_RESAMPLES} resamples of patients.",
    )


def _net_benefit_chart(systems: Sequence[_System], all_positive: _Line | None) -> Chart:
    curves = [system.curve(*system.net_benefit) for system in systems if system.net_benefit]
    low = -0.05
    highest = max([0.05, *(float(curve.y.max()) for curve in curves)])
    high = math.ceil(highest * 20 - 1e-9) / 20
    right = max([0.8, *(float(curve.x.max()) for curve in curves)])
    ticks = [low + (high - low) * part / 4 for part in range(5)]
    return Chart(
        key="net-benefit",
        title="Decision curve",
        x=Axis(
            "Risk from which one would act",
            tuple((right * part / 4, f"{right * part / 4:.2g}") for part in range(5)),
            0,
            right,
        ),
        y=Axis("Net benefit", tuple((tick, number(tick, 2)) for tick in ticks), low, high),
        curves=tuple(curves),
        guides=(*([all_positive] if all_positive else []), ((0, right), (0, 0))),
        guide_label="calling every image positive, or none (0)",
        description="Decision curves: net benefit against the risk from which one would act.",
    )


def _cost_chart(
    key: str,
    title: str,
    word: str,
    figure: str,
    costs: Mapping[str, float],
    systems: Sequence[_System],
) -> Chart:
    """A figure against a cost: a point a system, with its interval and its name."""
    curves = []
    sentences = []
    absent = []
    for system in systems:
        score = system.figures["primary"]
        cost = costs.get(system.name)
        if cost is None:
            absent.append(f"{system.name} ({number(score.estimate)})")
            continue
        sentences.append(f"{system.name}: {number(score.estimate)} at {cost:.3g} {word}")
        ends = (score.low, score.high) if score.bounded else (score.estimate, score.estimate)
        point = Point(cost, score.estimate, sentences[-1])
        curves.append(system.curve(np.array([cost, cost]), np.array(ends), [point]))
    y = _ticks(min(min(curve.y) for curve in curves), max(max(curve.y) for curve in curves))
    left_out = f" Not drawn, since its cost or figure is unknown: {', '.join(absent)}."
    return Chart(
        key=key,
        title=f"{figure} against {title if title.startswith('FLOPs') else title.lower()}",
        x=Axis.log(f"{title} ({word})", min(costs.values()) / 1.15, max(costs.values()) * 1.15),
        y=Axis(figure, tuple((t, f"{t:.3f}".rstrip("0").ljust(4, "0")) for t in y), y[0], y[-1]),
        curves=tuple(curves),
        description=f"{figure} against {title}. {'; '.join(sentences)}.",
        note="Lines: 95 % intervals. The cost is on a logarithmic scale."
        + (left_out if absent else ""),
        names_beside=True,
    )


def _ticks(low: float, high: float) -> list[float]:
    """Round figures from below the least to above the greatest, and none above 1."""
    if high - low < 0.002:
        low = low - 0.002
        high = min(high + 0.002, max(high, 1.0))
    ticks = MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [round(float(tick), 4) for tick in ticks if tick <= max(high, 1.0) + 1e-9]
