"""Content of each chart of the report, from the figures of a comparison."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.ticker import MaxNLocator

from cxr_compare.evaluation.boxes.froc import FROC_RATES, FrocCurve
from cxr_compare.evaluation.boxes.lesion_hits import Hit
from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.figures import image_blind_name
from cxr_compare.evaluation.groups.failure_analysis import TREAT_ALL
from cxr_compare.evaluation.metrics.calibration_figures import equal_mass_bins
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.metrics.registry import RATE_LABELS
from cxr_compare.evaluation.report.chart import Axis, Chart, Curve, Point
from cxr_compare.evaluation.report.chart_drawing import MARKERS
from cxr_compare.evaluation.report.inline_svg import legend_sample
from cxr_compare.evaluation.report.interval_facts import is_calibrated
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.bands import roc_band, share_band
from cxr_compare.evaluation.statistics.figure_text import interval_text, number
from cxr_compare.evaluation.statistics.intervals import Interval
from cxr_compare.evaluation.system_result import SystemResult

_BAND = np.linspace(0, 1, 101)
"""False positive rates at which the band of a ROC curve is taken."""
_MOST_BANDS = 4
"""Largest number of systems whose curves have bands, and figures in the legend."""
_RESAMPLES = 500
"""Number of resamples of patients behind each band."""
_FIGURES = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "froc_mean": "mean share",
    "froc_centre_mean": "mean share",
    "brier": "Brier score",
}
"""Names of the figures beside the curves, by metric."""
_FROC_PREFIX: dict[Hit, str] = {"iou": "froc", "centre": "froc_centre"}
"""Prefix of the metrics for each rule that decides whether a box hits a lesion."""
_FROC_TITLES: dict[Hit, str] = {
    "iou": "FROC curve, hit by overlap",
    "centre": "FROC curve, hit by box centre",
}
_HIT_RULES: dict[Hit, str] = {
    "iou": "A box hits a lesion if their intersection over union (IoU) is at least 0.2.",
    "centre": "A box hits a lesion if its centre lies in the lesion's box, borders included.",
}
_CALIBRATION_METHODS = {
    "platt": "Platt scaling",
    "temperature": "temperature scaling",
    "isotonic": "isotonic regression",
    "none": "taking the score as it is",
}


@dataclass(frozen=True)
class _Cost:
    """Cost on which systems are compared, with its unit."""

    key: str
    name: str
    title: str
    divisor: float
    unit: str


_COSTS = (
    _Cost("cost-flops", "flops", "FLOPs per image", 1e9, "billion"),
    _Cost("cost-latency", "latency_ms", "Time per image", 1.0, "ms"),
)

_Line = tuple[Floats, Floats]
"""Coordinates x and y of a line."""


@dataclass(frozen=True)
class _System:
    """Figures and test images of one system, in the form that charts need."""

    name: str
    position: int
    """Position of the system among all systems."""
    result: SystemResult
    figures: Mapping[str, Interval]
    """Figures by metric; ``primary`` is the primary figure of the protocol."""
    image_blind: Mapping[str, Interval]
    """The same figures of its image-blind baseline."""
    test: Mapping[str, Floats]
    """Labels, scores and probabilities of the test images."""
    patients: npt.NDArray[Any]
    """Patient of each test image."""
    rates: Mapping[str, list[Interval]]
    """Share of lesions found at each of `FROC_RATES`, by prefix of the metric."""
    net_benefit: _Line | None
    """Net benefit by risk; None where the scores are no probabilities."""

    def curve(self, x: Floats, y: Floats, points: Sequence[Point] = (), **options: Any) -> Curve:
        """Return a curve in this system's name and colour."""
        return Curve(self.name, self.position, x, y, tuple(points), **options)


def report_charts(comparison: Comparison) -> list[Chart]:
    """Return the charts of the report: ROC, precision-recall, FROC, calibration, decision curve.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        The charts in this order; FROC has one chart for each of two rules by which a box hits a
        lesion. A chart that would be empty, such as FROC where no system predicts boxes, is left
        out.
    """
    systems = _read_systems(comparison)
    policies = comparison.policies
    labels = comparison.decisions.drop_duplicates("image_id")["label"]
    all_positive = _decision_curve(comparison.failures, TREAT_ALL, "net_benefit")
    charts = [
        _roc_chart(systems, policies),
        _precision_recall_chart(systems, policies, float(labels.mean())),
        *(_froc_chart(systems, hit) for hit in _FROC_PREFIX),
        _calibration_chart(systems, comparison.systems),
        _net_benefit_chart(systems, all_positive),
    ]
    drawn = [chart for chart in charts if chart.curves]
    return drawn if len(systems) <= _MOST_BANDS else [_without_bands(chart) for chart in drawn]


def _without_bands(chart: Chart) -> Chart:
    """Return a chart of many systems without bands, which would cover each other."""
    curves = tuple(replace(curve, band=None) for curve in chart.curves)
    return replace(chart, curves=curves, note=re.sub(r" ?Bands: [^.]*\.", "", chart.note).strip())


def without_decision_curve(comparison: Comparison) -> str:
    """Return a sentence on why the report has no decision curve; empty where it has one.

    A decision curve (net benefit by the risk from which one would act) needs probabilities. Scores
    that were not calibrated on validation images are no probabilities.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        The sentence. It is also empty where decision curves were not computed at all.
    """
    failures = comparison.failures
    if failures.empty or "decision_curve" not in set(failures["topic"]):
        return ""
    absent = [system.name for system in _read_systems(comparison) if system.net_benefit is None]
    if len(absent) < len(comparison.systems):
        return ""
    return (
        "There is no decision curve, because it needs probabilities, and these scores were not "
        "calibrated on validation images."
    )


def cost_charts(comparison: Comparison) -> list[Chart]:
    """Return charts of the primary metric against FLOPs and against time per image.

    A chart needs at least two systems with a known cost. The chart of times is left out where
    systems were timed on different devices.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        At most two charts, in which each system is one point.
    """
    systems = _read_systems(comparison)
    devices = {result.cost.get("latency_device") for result in comparison.systems.values()}
    several_devices = len(devices - {None}) > 1
    charts = []
    for cost in _COSTS:
        costs = {}
        for system in systems:
            value = system.result.cost.get(cost.name)
            if value and system.figures["primary"].known:
                costs[system.name] = float(value) / cost.divisor
        if len(costs) < 2 or (cost.name == "latency_ms" and several_devices):
            continue
        charts.append(_cost_chart(cost, comparison.protocol.title, costs, systems))
    return charts


def chart_legend(chart: Chart, policies: Sequence[str]) -> list[tuple[str, str]]:
    """Return the legend of a chart as SVG samples of lines and markers, each with its text.

    Args:
        chart: The chart.
        policies: Rules by which thresholds were chosen, such as ``["max_f1", "youden"]``; the first
            rule has the first marker (a circle), and so on.

    Returns:
        SVG text and explanation for each system's line and for each marker in the chart. Empty for
        a chart in which the names of the systems are written beside their points.
    """
    if chart.names_beside:
        return []
    legend = {}
    markers = set()
    has_figures = len({curve.position for curve in chart.curves}) <= _MOST_BANDS
    for curve in chart.curves:
        markers |= {point.marker for point in curve.points}
        if curve.figure or not curve.faint:
            text = f"{curve.name}: {curve.figure}" if curve.figure and has_figures else curve.name
            sample = legend_sample(chart.key, curve.position, dashed=curve.dashed)
            legend[curve.name] = (sample, text)
    samples = list(legend.values())
    for marker, text in policy_markers(policies):
        if marker in markers:
            samples.append((legend_sample(chart.key, marker=marker), text))
    return samples


def policy_markers(policies: Sequence[str]) -> list[tuple[str, str]]:
    """Return the marker of each rule by which thresholds were chosen, and its text in a legend.

    Args:
        policies: Rules by which thresholds were chosen, such as ``max_f1``.

    Returns:
        Shape of the marker (as matplotlib calls it) and text, for each rule.

    Example:
        >>> policy_markers(["max_f1"])
        [('o', 'threshold for best F1')]
    """
    return [
        (_marker(policy, policies), f"threshold for {policy_text(policy)}") for policy in policies
    ]


def _read_systems(comparison: Comparison) -> list[_System]:
    figures = comparison.figures
    failures = comparison.failures
    protocol = comparison.protocol
    decisions = comparison.decisions
    figure_keys = {metric: (metric, "") for metric in _FIGURES}
    figure_keys["primary"] = (protocol.metric, protocol.policy)
    systems = []
    for position, (name, result) in enumerate(comparison.systems.items()):
        rows = decisions[decisions["system"] == name]
        columns = [column for column in ("label", "score", "probability") if column in rows]
        rates: dict[str, list[Interval]] = {}
        for prefix in _FROC_PREFIX.values():
            metrics = [f"{prefix}_at_{label.replace('/', '_')}" for label in RATE_LABELS]
            rates[prefix] = [figures.get(name, metric) for metric in metrics]
        systems.append(
            _System(
                name=name,
                position=position,
                result=result,
                figures={metric: figures.get(name, *key) for metric, key in figure_keys.items()},
                image_blind={
                    metric: figures.get(image_blind_name(name), *key)
                    for metric, key in figure_keys.items()
                },
                test={
                    column: rows[column].to_numpy(np.float64, na_value=np.nan) for column in columns
                },
                patients=rows["patient_id"].to_numpy(),
                rates=rates,
                net_benefit=_decision_curve(failures, name, "net_benefit_calibrated"),
            )
        )
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
    curves = _threshold_curves(systems, policies, "fpr", "tpr", "auroc")
    return Chart(
        key="roc",
        title="ROC curve",
        x=Axis("1 − specificity (false alarms among negatives)"),
        y=Axis("Sensitivity"),
        curves=curves,
        guides=(((0, 1), (0, 1)),),
        guide_label="guessing",
        description=f"ROC curves. {_figures_text(systems, 'auroc')}",
        note=(
            f"{_thresholds_note(curves)} Bands: pointwise 95 % intervals of sensitivity, "
            f"{_RESAMPLES} resamples of patients."
        ).lstrip(),
    )


def _thresholds_note(curves: Sequence[Curve]) -> str:
    """Return what to know about marked thresholds; empty if the chart has none."""
    if not any(curve.points for curve in curves):
        return ""
    return (
        "A threshold that was chosen on validation images may give other rates here than it gave "
        "there."
    )


def _figures_text(systems: Sequence[_System], metric: str) -> str:
    figures = [
        f"{system.name}: {_FIGURES[metric]} {number(system.figures[metric].estimate)}"
        for system in systems
    ]
    return f"{'; '.join(figures)}."


def _roc_band(system: _System) -> tuple[Floats, Floats, Floats] | None:
    """Return the band of a ROC curve; None if all images have the same label."""
    labels = system.test["label"]
    scores = system.test["score"]
    is_known = np.isfinite(labels) & np.isfinite(scores)
    if len(np.unique(labels[is_known])) < 2:
        return None
    ends = roc_band(
        labels[is_known] >= 1,
        scores[is_known],
        system.patients[is_known],
        _BAND,
        resamples=_RESAMPLES,
    )
    return _BAND, *ends


def _precision_recall_chart(
    systems: Sequence[_System], policies: Sequence[str], prevalence: float
) -> Chart:
    curves = _threshold_curves(systems, policies, "recall", "precision", "average_precision")
    return Chart(
        key="pr",
        title="Precision-recall curve",
        x=Axis("Sensitivity (recall)"),
        y=Axis("Precision"),
        curves=curves,
        guides=(((0, 1), (prevalence, prevalence)),),
        guide_label=f"guessing (prevalence {number(prevalence)})",
        description=f"Precision-recall curves. {_figures_text(systems, 'average_precision')}",
        note=_thresholds_note(curves),
    )


def _threshold_curves(
    systems: Sequence[_System], policies: Sequence[str], x: str, y: str, metric: str
) -> tuple[Curve, ...]:
    """Return each system's curve over all thresholds, with points at the chosen thresholds."""
    curves = []
    for system in systems:
        curve = system.result.curve
        points = []
        if not curve:
            continue
        for policy, counts in system.result.confusion.items():
            rates = _rates(**counts)
            if not (math.isnan(rates[x]) or math.isnan(rates[y])):
                label = f"{system.name}, threshold for {policy_text(policy)}"
                points.append(Point(rates[x], rates[y], label, _marker(policy, policies)))
        band = _roc_band(system) if (x, y) == ("fpr", "tpr") else None
        figure = _legend_figure(system, metric)
        curves.append(system.curve(curve[x], curve[y], points, figure=figure, band=band))
    return tuple(curves)


def _rates(tp: int, fp: int, tn: int, fn: int) -> dict[str, float]:
    """Compute the rates of a confusion matrix; a rate is NaN where its denominator is 0."""
    recall = tp / (tp + fn) if tp + fn else math.nan
    return {
        "fpr": fp / (fp + tn) if fp + tn else math.nan,
        "tpr": recall,
        "recall": recall,
        "precision": tp / (tp + fp) if tp + fp else math.nan,
    }


def _marker(policy: str, policies: Sequence[str]) -> str:
    return MARKERS[policies.index(policy) % len(MARKERS)]


def _legend_figure(system: _System, metric: str) -> str:
    """Return the text of a figure for a legend; empty where the figure is undefined."""
    figure = system.figures[metric]
    if not figure.known:
        return ""
    interval = f" ({interval_text(figure)})" if figure.bounded else ""
    return f"{_FIGURES[metric]} {number(figure.estimate)}{interval}"


def _froc_chart(systems: Sequence[_System], hit: Hit) -> Chart:
    prefix = _FROC_PREFIX[hit]
    low = FROC_RATES[0]
    high = FROC_RATES[-1]
    curves = []
    described = []
    map_systems = []
    for system in systems:
        froc = system.result.froc.get(hit)
        if froc is None or not len(froc.sensitivity):
            continue
        at_rates = froc_sensitivities(froc)
        points, texts = [], []
        for rate, label, value in zip(FROC_RATES, RATE_LABELS, at_rates, strict=True):
            text = f"{number(value)} at {label}"
            points.append(
                Point(rate, value, f"{system.name}: sensitivity {text} false positives per image")
            )
            texts.append(text)
        curves.append(
            system.curve(
                *_froc_steps(froc),
                points,
                in_steps=True,
                figure=_legend_figure(system, f"{prefix}_mean"),
                band=_froc_band(system.rates[prefix]),
            )
        )
        blind = system.result.image_blind_froc.get(hit)
        if blind is not None and len(blind.sensitivity):
            label = f"Constant boxes with {system.name}'s scores"
            mean = system.image_blind[f"{prefix}_mean"].estimate
            figure = f"{_FIGURES[f'{prefix}_mean']} {number(mean)}"
            x, y = _froc_steps(blind)
            curves.append(
                Curve(label, system.position, x, y, dashed=True, in_steps=True, figure=figure)
            )
        if system.result.map_scale is not None:
            map_systems.append(system.name)
        described.append(f"{system.name}: sensitivity {', '.join(texts)} false positives per image")
    ticks = tuple(zip(FROC_RATES, RATE_LABELS, strict=True))
    maps = "".join(
        f"{name} never learned boxes: its boxes are parts of its maps. " for name in map_systems
    )
    dashed = ""
    if any(curve.dashed for curve in curves):
        dashed = (
            " Dashed: constant boxes, which do not depend on the image, with the image scores of "
            "each system."
        )
    return Chart(
        key=f"froc-{hit}",
        title=_FROC_TITLES[hit],
        x=Axis("False positives per image (logarithmic)", ticks, low, high, "log"),
        y=Axis("Lesions found"),
        curves=tuple(curves),
        description=f"FROC curves. {_HIT_RULES[hit]} {'; '.join(described)}.",
        note=(
            f"{_HIT_RULES[hit]} {maps}Points: the rates over which the mean is taken. Bands: 95 % "
            f"intervals at these rates.{dashed}"
        ),
    )


def _froc_steps(froc: FrocCurve) -> _Line:
    """Return a FROC curve whose first step begins left of the axis and whose last one ends it."""
    false_positives, sensitivity = froc
    low, high = FROC_RATES[0], FROC_RATES[-1]
    x = np.concatenate([np.maximum(false_positives, low / 2), [max(high, false_positives[-1])]])
    return x, np.append(sensitivity, sensitivity[-1])


def _froc_band(rates: Sequence[Interval]) -> tuple[Floats, Floats, Floats] | None:
    """Return the band of a FROC curve at `FROC_RATES`; None if an interval is missing."""
    if not all(rate.bounded for rate in rates):
        return None
    lows = np.array([rate.ci_low for rate in rates])
    highs = np.array([rate.ci_high for rate in rates])
    return np.array(FROC_RATES), lows, highs


def froc_sensitivities(curve: FrocCurve) -> list[float]:
    """Read from a FROC curve the share of lesions found at seven rates of false positives.

    The rates are `FROC_RATES`: 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives per image. The curve is
    constant between its points.

    Args:
        curve: False positives per image in rising order, beginning with 0, and the share of lesions
            found at each.

    Returns:
        Shares of lesions found, in the order of `FROC_RATES`.

    Example:
        >>> curve = FrocCurve(np.array([0.0, 1.0]), np.array([0.25, 0.75]))
        >>> froc_sensitivities(curve)[0], froc_sensitivities(curve)[-1]
        (0.25, 0.75)
    """
    last = np.searchsorted(curve.false_positives_per_image, FROC_RATES, side="right") - 1
    return list(map(float, curve.sensitivity[last]))


def _calibration_chart(systems: Sequence[_System], results: Mapping[str, SystemResult]) -> Chart:
    """Chart the observed share of positives against the expected share, in groups of equal size."""
    curves = []
    group_counts = set()
    calibrated = []
    as_given = []
    for system in systems:
        if "probability" not in system.test or "label" not in system.test:
            continue
        labels = system.test["label"]
        probabilities = system.test["probability"]
        is_known = np.isfinite(probabilities) & np.isfinite(labels)
        if not is_known.any():
            continue
        labels = labels[is_known]
        probabilities = probabilities[is_known]
        bins = equal_mass_bins(probabilities, min(10, max(2, int(is_known.sum()) // 25)))
        present, position = np.unique(bins, return_inverse=True)
        sizes = np.bincount(bins)[present]
        expected = np.bincount(bins, weights=probabilities)[present] / sizes
        observed = np.bincount(bins, weights=labels)[present] / sizes
        group_counts.add(len(sizes))
        decisions = results[system.name].decisions
        decision = decisions[0].to_dict() if decisions else {}
        if is_calibrated({"decision": decision}) or not decision.get("calibration"):
            method = (decision.get("calibration") or {}).get("method")
            name = _CALIBRATION_METHODS.get(str(method), "a method that was not recorded")
            calibrated.append((system.name, name))
        else:
            as_given.append(system.name)
        points = []
        for x, y in zip(expected.tolist(), observed.tolist(), strict=True):
            text = f"{system.name}: expected {number(x)}, observed {number(y)}"
            points.append(Point(x, y, text))
        ends = share_band(labels >= 1, position, system.patients[is_known], resamples=_RESAMPLES)
        curves.append(
            system.curve(
                expected,
                observed,
                points,
                figure=_legend_figure(system, "brier"),
                band=(expected, *ends),
            )
        )
    return Chart(
        key="calibration",
        title="Calibration",
        x=Axis("Expected share of positives"),
        y=Axis("Observed share"),
        curves=tuple(curves),
        guides=(((0, 1), (0, 1)),),
        guide_label="perfect calibration",
        description="Calibration curves: observed share of positive images against probability.",
        note=_calibration_note(calibrated, as_given, sorted(group_counts)),
    )


def _calibration_note(
    calibrated: Sequence[tuple[str, str]], as_given: Sequence[str], group_counts: Sequence[int]
) -> str:
    text = ""
    if len(calibrated) > 2 and len({method for _, method in calibrated}) == 1:
        text += f"Calibrated on validation images by {calibrated[0][1]}. "
    elif calibrated:
        named = ", ".join(f"{name} by {method}" for name, method in calibrated)
        text += f"Calibrated on validation images: {named}. "
    if as_given:
        text += f"Not calibrated, the score is taken as the probability: {listing(as_given)}. "
    return (
        f"{text}Each point is one of {' or '.join(map(str, group_counts))} groups of equally many "
        "images, ordered by probability. Bands: 95 % intervals of the observed share, "
        f"{_RESAMPLES} resamples of patients."
    )


def _net_benefit_chart(systems: Sequence[_System], all_positive: _Line | None) -> Chart:
    curves = [system.curve(*system.net_benefit) for system in systems if system.net_benefit]
    absent = [system.name for system in systems if system.net_benefit is None]
    low = -0.05
    highest = max([0.05, *(float(curve.y.max()) for curve in curves)])
    high = math.ceil(highest * 20 - 1e-9) / 20
    right = max([0.8, *(float(curve.x.max()) for curve in curves)])
    ticks = [low + (high - low) * part / 4 for part in range(5)]
    note = ""
    if absent:
        note = (
            "Not drawn, because scores that were not calibrated on validation images are no "
            f"probabilities: {listing(absent)}."
        )
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
        note=note,
    )


def _cost_chart(
    cost: _Cost, figure: str, costs: Mapping[str, float], systems: Sequence[_System]
) -> Chart:
    """Chart a figure against a cost; each system is a point with an interval and a name."""
    curves = []
    absent = []
    labels = []
    for system in systems:
        score = system.figures["primary"]
        if system.name not in costs:
            absent.append(f"{system.name} ({number(score.estimate)})")
            continue
        value = costs[system.name]
        label = f"{system.name}: {number(score.estimate)} at {value:.3g} {cost.unit}"
        labels.append(label)
        ends = (score.ci_low, score.ci_high) if score.bounded else (score.estimate, score.estimate)
        point = Point(value, score.estimate, label)
        curves.append(system.curve(np.array([value, value]), np.array(ends), [point]))
    ticks = _ticks(min(min(curve.y) for curve in curves), max(max(curve.y) for curve in curves))
    y_ticks = tuple((tick, f"{tick:.3f}".rstrip("0").ljust(4, "0")) for tick in ticks)
    title = cost.title if cost.title.startswith("FLOPs") else cost.title.lower()
    note = "Lines: 95 % intervals. The cost is on a logarithmic scale."
    if absent:
        note += f" Not drawn, because cost or figure is unknown: {', '.join(absent)}."
    return Chart(
        key=cost.key,
        title=f"{figure} against {title}",
        x=Axis.log(
            f"{cost.title} ({cost.unit})", min(costs.values()) / 1.15, max(costs.values()) * 1.15
        ),
        y=Axis(figure, y_ticks, ticks[0], ticks[-1]),
        curves=tuple(curves),
        description=f"{figure} against {cost.title}. {'; '.join(labels)}.",
        note=note,
        names_beside=True,
    )


def _ticks(low: float, high: float) -> list[float]:
    """Return round values that enclose the range from `low` to `high`, none of them above 1."""
    if high - low < 0.002:
        low = low - 0.002
        high = min(high + 0.002, max(high, 1.0))
    ticks = MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [round(float(tick), 4) for tick in ticks if tick <= max(high, 1.0) + 1e-9]
