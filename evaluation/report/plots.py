"""Charts of a report: one function for each, which draws on matplotlib axes.

A chart is drawn from the table of curves (`curve_table`), the tidy table of figures, the names of
the systems in order and the facts of `chart_facts`, so that a stored result draws the same chart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cxr_compare.evaluation.boxes.froc import FROC_RATES
from cxr_compare.evaluation.figures import image_blind_name
from cxr_compare.evaluation.metrics.metric import ALL
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.metrics.registry import RATE_LABELS
from cxr_compare.evaluation.overlays.notebook_figure import NotebookFigure
from cxr_compare.evaluation.overlays.shapes import system_colour
from cxr_compare.evaluation.report.chart_style import (
    GUIDE,
    INK,
    MARKERS,
    PLOT_HEIGHT,
    QUIET,
    add_legend,
    draw_band,
    draw_line,
    line_style,
    marker_style,
    new_chart,
    share_axis,
    style_axes,
    wrapped,
)
from cxr_compare.evaluation.report.curves import FROC_PREFIX, RESAMPLES, SCORE_BINS
from cxr_compare.evaluation.report.table import value_text
from cxr_compare.evaluation.statistics.figure_text import number, range_text
from cxr_compare.evaluation.statistics.intervals import Interval

_HIT_RULES = {
    "froc-iou": "A box hits a lesion if their intersection over union (IoU) is at least 0.2.",
    "froc-centre": "A box hits a lesion if its centre lies in the lesion's box, borders included.",
}
_DASHED = (0, (6, 4))
_NEGATIVE = "#8A949E"  # grey of negative images, on white as on black
_NO_BREAK = "\N{NO-BREAK SPACE}"


class _Curves(NamedTuple):
    """Rows, names and texts from which the function of a chart draws it.

    `rows` are the chart's rows of the table of curves, and `legend` has the text of each system's
    line, of its image-blind baseline and of the line of orientation, by name.
    """

    rows: pd.DataFrame
    systems: Sequence[str]
    legend: Mapping[str, str]
    facts: Mapping[str, Any]


def chart_names(curves: pd.DataFrame, facts: Mapping[str, Any]) -> list[str]:
    """Return the names of the charts that a result has, such as ``roc``, in a fixed order."""
    drawn = set(curves["chart"])
    names = [name for name in _CHARTS if name in drawn]
    if facts["forest"]:
        names.insert(0, "forest")
    return [*names, "confusion"] if any(facts["confusion"].values()) else names


def draw(
    name: str,
    curves: pd.DataFrame,
    figures: pd.DataFrame,
    systems: Sequence[str],
    facts: Mapping[str, Any],
) -> Figure:
    """Draw one chart of `chart_names` with its title and its legend.

    `figures` is the tidy table of figures. The order of the systems decides their colours.
    """
    if name == "forest":
        return draw_forest(facts["forest"], systems)
    if name == "confusion":
        return draw_confusion(facts["confusion"], _policies(facts))
    chart = _CHARTS[name]
    rows = curves[curves["chart"] == name]
    legend = {"": _guide_text(name, rows)}
    for system in systems:
        legend[system] = _legend_text(figures, system, system, chart)
        blind = image_blind_name(system)
        label = f"constant boxes with {system}'s scores"
        legend[blind] = _legend_text(figures, blind, label, chart)
    height = max(PLOT_HEIGHT, _SCORE_ROW * len(systems)) if name == "scores" else PLOT_HEIGHT
    figure, axes = new_chart(chart.title, chart.x_title, chart.y_title, plot_height=height)
    chart.draw(axes, _Curves(rows, systems, legend, facts))
    add_legend(axes)
    return figure


def _policies(facts: Mapping[str, Any]) -> list[str]:
    """Return the rules by which at least one system has a threshold, in order."""
    return list(dict.fromkeys(rule for counts in facts["confusion"].values() for rule in counts))


def chart_note(name: str, curves: pd.DataFrame, facts: Mapping[str, Any]) -> str:
    """Return the text below a chart on the page; it may be empty."""
    if name == "forest":
        compared = [row for part in facts["forest"] for row in part["rows"]]
        return _forest_note(compared, facts["withdrawn"])
    if name == "confusion":
        return "Counts of test images, and their share of the images with this label."
    rows = curves[curves["chart"] == name]
    has_bands = bool((rows["kind"] == "band").any())
    sentences = []
    if name in _HIT_RULES:
        sentences.append(_HIT_RULES[name])
        sentences += [
            f"{system} never learned boxes: its boxes are parts of its maps."
            for system in facts["boxes_from_maps"]
            if system in set(rows["system"])
        ]
        if (rows["kind"] == "curve").any():
            sentences.append("Points: the rates over which the mean is taken.")
        if has_bands:
            sentences.append("Bands: 95 % intervals at these rates.")
        if (rows["kind"] == "image-blind").any():
            sentences.append(
                "Thin dashes: the best of the constant boxes, which do not depend on the image, "
                "with the image scores of a system."
            )
    elif name == "calibration":
        sentences += _calibration_sentences(facts, rows, has_bands=has_bands)
    elif name == "net-benefit" and facts["without_net_benefit"]:
        sentences.append(
            "Not drawn, because scores that were not calibrated on validation images are no "
            f"probabilities: {listing(facts['without_net_benefit'])}."
        )
    if (rows["kind"] == "mark").any():
        sentences.append(
            "Diamonds: systems without scores, which are one operating point (horizontal, vertical "
            "position)."
        )
    if name == "roc" and (rows["kind"] == "points").any():
        sentences.append(
            "A threshold that was chosen on validation images may give other rates here than it "
            "gave there."
        )
    if name == "roc" and has_bands:
        sentences.append(
            f"Bands: pointwise 95 % intervals of sensitivity, {RESAMPLES} resamples of patients."
        )
    return " ".join(sentences)


def _calibration_sentences(
    facts: Mapping[str, Any], rows: pd.DataFrame, *, has_bands: bool
) -> list[str]:
    methods = {name: method for name, method in facts["calibration"].items() if method}
    as_given = [name for name, method in facts["calibration"].items() if not method]
    sentences = []
    if len(methods) > 2 and len(set(methods.values())) == 1:
        sentences.append(f"Calibrated on validation images by {next(iter(methods.values()))}.")
    elif methods:
        named = ", ".join(f"{name} by {method}" for name, method in methods.items())
        sentences.append(f"Calibrated on validation images: {named}.")
    if as_given:
        sentences.append(
            f"Not calibrated, the score is taken as the probability: {listing(as_given)}."
        )
    points = rows.loc[rows["kind"] == "curve", "system"].value_counts()
    groups = " or ".join(map(str, sorted(set(points))))
    sentences.append(
        f"Each point is one of {groups} groups of equally many images, ordered by probability."
    )
    if has_bands:
        sentences.append(
            f"Bands: 95 % intervals of the observed share, {RESAMPLES} resamples of patients."
        )
    return sentences


def _guide_text(name: str, rows: pd.DataFrame) -> str:
    """Return the text of the dotted line of a chart."""
    if name == "pr":
        prevalence = rows.loc[rows["kind"] == "guide", "y"].iloc[0]
        return f"guessing (prevalence {number(prevalence)})"
    if name == "net-benefit":
        return "calling every image positive, or none (0)"
    return "perfect calibration" if name == "calibration" else "guessing"


def _legend_text(figures: pd.DataFrame, system: str, label: str, chart: _Chart) -> str:
    """Return a name with its figure and interval, as far as they are known."""
    of = (figures["first"] == system) & (figures["second"] == "")
    of &= figures["metric"] == chart.metric
    of &= (figures["subgroup"] == ALL) & (figures["policy"] == "") & (figures["unit"] == "image")
    rows = figures[of].dropna(subset=["estimate"])
    if rows.empty:
        return label
    figure = f"{chart.figure} {value_text(Interval.from_row(rows.iloc[0]))}"
    return f"{label}: {figure.replace(' ', _NO_BREAK)}"


def draw_rates(axes: Axes, curves: _Curves) -> None:
    """Draw ROC or precision-recall curves with the points of chosen thresholds."""
    share_axis(axes, "x")
    share_axis(axes, "y")
    _draw_systems(axes, curves)
    _draw_marks(axes, curves, 0, 1)
    _draw_thresholds(axes, curves)


def draw_froc(axes: Axes, curves: _Curves) -> None:
    """Draw FROC curves in steps over a logarithmic axis, with the points of their mean."""
    axes.set(xscale="log", xlim=(FROC_RATES[0], FROC_RATES[-1]))
    axes.xaxis.set_ticks(FROC_RATES, RATE_LABELS)
    axes.minorticks_off()
    share_axis(axes, "y")
    _draw_systems(axes, curves, drawstyle="steps-post")
    _draw_marks(axes, curves, FROC_RATES[0], FROC_RATES[-1])
    for position, name in enumerate(curves.systems):
        points = _rows_of(curves, name, "points")
        axes.plot(points["x"], points["y"], **marker_style(".", system_colour(position)))


_SCORE_ROW = 56.0  # least height of the histograms of a system, in points
_BAR_REACH = 0.36  # height of the tallest bar, as a share of a row


def draw_scores(axes: Axes, curves: _Curves) -> None:
    """Draw a row for each system: scores of positive images upwards, of negative ones downwards.

    Bars are shares of the images of their class, and the tallest bar of each row has one height.
    """
    share_axis(axes, "x")
    axes.set(ylim=(len(curves.systems) - 0.5, -0.5))
    axes.set_yticks([])
    for position, name in enumerate(curves.systems):
        base = position + 0.1  # the name stands above
        bars = {kind: _rows_of(curves, name, kind) for kind in ("positive", "negative")}
        tallest = max((rows["y"].max() for rows in bars.values() if len(rows)), default=0.0)
        text = f"{wrapped(name, 32, lines=1)}: tallest bar {100 * tallest:.0f} %"
        axes.text(
            0.0, position - 0.3, text, fontsize=10.5, color=INK, va="bottom", parse_math=False
        )
        for kind, direction, colour in (
            ("positive", -1, system_colour(position)),
            ("negative", 1, _NEGATIVE),
        ):
            rows = bars[kind]
            lengths = direction * _BAR_REACH * rows["y"] / tallest
            axes.bar(rows["x"], lengths, 0.9 / SCORE_BINS, base, color=colour, linewidth=0)
        axes.plot([0, 1], [base, base], color=QUIET, linewidth=1)
    for place, policy in enumerate(_policies(curves.facts)):
        look = marker_style(MARKERS[place % len(MARKERS)], QUIET)
        chosen = curves.rows[curves.rows["policy"] == policy]
        for position, name in enumerate(curves.systems):
            for threshold in chosen.loc[chosen["system"] == name, "x"]:
                base = position + 0.1
                ends = [base - _BAR_REACH, base + _BAR_REACH]
                axes.plot([threshold, threshold], ends, color=INK, linewidth=1)
                axes.plot(threshold, base, **look)
        if len(chosen):
            axes.plot([], [], **look, label=f"threshold for {policy_text(policy)}")


def draw_calibration(axes: Axes, curves: _Curves) -> None:
    """Draw the observed against the expected share of positives, a point for each group."""
    share_axis(axes, "x")
    share_axis(axes, "y")
    _draw_systems(axes, curves)
    for position, name in enumerate(curves.systems):
        points = _rows_of(curves, name, "curve")
        axes.plot(points["x"], points["y"], **marker_style(".", system_colour(position)))


def draw_net_benefit(axes: Axes, curves: _Curves) -> None:
    """Draw net benefit by the risk from which one would act."""
    drawn = curves.rows[curves.rows["kind"] == "curve"]
    low = -0.05
    high = math.ceil(max(0.05, drawn["y"].max()) * 20 - 1e-9) / 20
    right = max(0.8, drawn["x"].max())
    across = [right * part / 4 for part in range(5)]
    up = [low + (high - low) * part / 4 for part in range(5)]
    axes.set(xlim=(0, right), ylim=(low, high))
    axes.xaxis.set_ticks(across, [f"{tick:.2g}" for tick in across])
    axes.yaxis.set_ticks(up, [number(tick, 2) for tick in up])
    _draw_systems(axes, curves)
    axes.plot([0, right], [0, 0], **GUIDE)


def _rows_of(curves: _Curves, system: str, kind: str) -> pd.DataFrame:
    rows = curves.rows
    return rows[(rows["system"] == system) & (rows["kind"] == kind)]


def _draw_systems(axes: Axes, curves: _Curves, **style: Any) -> None:
    """Draw the band, the curve and the image-blind baseline of each system, and the guide."""
    for position, name in enumerate(curves.systems):
        band = _rows_of(curves, name, "band")
        if len(band):
            draw_band(axes, band["x"], band["low"], band["high"], position)
    strongest = _strongest_baseline(curves)
    for position, name in enumerate(curves.systems):
        rows = _rows_of(curves, name, "curve")
        if rows.empty:
            continue
        look = line_style(position) | style
        draw_line(axes, rows["x"], rows["y"], **look, label=curves.legend[name])
        blind = _rows_of(curves, name, "image-blind")
        if name == strongest and len(blind):
            thin = look | {"linewidth": 1.2, "linestyle": _DASHED}
            text = curves.legend[image_blind_name(name)]
            draw_line(axes, blind["x"], blind["y"], **thin, label=text)
    guide = _rows_of(curves, "", "guide")
    if len(guide):
        axes.plot(guide["x"], guide["y"], **GUIDE, label=curves.legend[""])


def _strongest_baseline(curves: _Curves) -> str:
    """Return the system whose image-blind baseline finds most: one such curve says enough."""
    blind = curves.rows[curves.rows["kind"] == "image-blind"]
    return str(blind.groupby("system", sort=False)["y"].max().idxmax()) if len(blind) else ""


def _draw_marks(axes: Axes, curves: _Curves, low: float, high: float) -> None:
    """Draw the point of each system without scores; beyond the axis it lies at its end."""
    for position, name in enumerate(curves.systems):
        marks = _rows_of(curves, name, "mark")
        if marks.empty:
            continue
        x, y = marks["x"].iloc[0], marks["y"].iloc[0]
        label = f"{name}: one point ({number(x)}, {number(y)})"
        style = marker_style("D", system_colour(position)) | {"markersize": 8}
        axes.plot([min(max(x, low), high)], [y], **style, label=label)


def _draw_thresholds(axes: Axes, curves: _Curves) -> None:
    """Mark each chosen threshold by the marker of its rule, in the colour of the system."""
    for place, policy in enumerate(_policies(curves.facts)):
        marker = MARKERS[place % len(MARKERS)]
        chosen = curves.rows[curves.rows["policy"] == policy]
        for position, name in enumerate(curves.systems):
            points = chosen[chosen["system"] == name]
            axes.plot(points["x"], points["y"], **marker_style(marker, system_colour(position)))
        if len(chosen):
            label = f"threshold for {policy_text(policy)}"
            axes.plot([], [], **marker_style(marker, QUIET), label=label)


class _Chart(NamedTuple):
    """Titles of a chart, the figure in its legend, and the function that draws it."""

    title: str
    x_title: str
    y_title: str
    metric: str
    figure: str
    draw: Callable[[Axes, _Curves], None]


_RATES_TITLE = "False positives per image (logarithmic)"
_CHARTS = {
    "roc": _Chart(
        "ROC curve",
        "1 − specificity (false alarms among negatives)",
        "Sensitivity",
        "auroc",
        "AUROC",
        draw_rates,
    ),
    "pr": _Chart(
        "Precision-recall curve",
        "Sensitivity (recall)",
        "Precision",
        "average_precision",
        "AP",
        draw_rates,
    ),
    "froc-iou": _Chart(
        "FROC curve, hit by overlap",
        _RATES_TITLE,
        "Lesions found",
        f"{FROC_PREFIX['iou']}_mean",
        "mean share",
        draw_froc,
    ),
    "froc-centre": _Chart(
        "FROC curve, hit by box centre",
        _RATES_TITLE,
        "Lesions found",
        f"{FROC_PREFIX['centre']}_mean",
        "mean share",
        draw_froc,
    ),
    "scores": _Chart(
        "Scores by class",
        "Score of the image",
        "Share of positives ↑, of negatives ↓",
        "",
        "",
        draw_scores,
    ),
    "calibration": _Chart(
        "Calibration",
        "Expected share of positives",
        "Observed share",
        "brier",
        "Brier score",
        draw_calibration,
    ),
    "net-benefit": _Chart(
        "Decision curve", "Risk from which one would act", "Net benefit", "", "", draw_net_benefit
    ),
}


_FOREST_WIDTH = 372.0  # points; narrow, so that its text can be read on a phone
_FOREST_FONT = 10.5


def draw_forest(parts: Sequence[Mapping[str, Any]], systems: Sequence[str]) -> Figure:
    """Draw the figures of systems on one axis, and their differences on another below.

    A filled dot marks a difference that the answer shows, a hollow dot one that it does not show,
    and † one that is not shown once all comparisons are corrected for. The parts are ``forest`` of
    `chart_facts`; the order of the systems decides their colours.
    """
    counts = [len(part["rows"]) for part in parts]
    names = [wrapped(row["name"], 17) for part in parts for row in part["rows"]]
    row_height = 28 if any("\n" in name for name in names) else 20
    height = row_height * sum(counts) + 58 * len(parts)
    figure = NotebookFigure(figsize=(_FOREST_WIDTH / 72, height / 72), dpi=72, layout="constrained")
    plots = figure.subplots(len(parts), squeeze=False, height_ratios=counts)[:, 0]
    for axes, part in zip(plots, parts, strict=True):
        style_axes(axes)
        axes.grid(visible=False, axis="y")
        axes.set_title(
            wrapped(part["title"], 44, lines=3), loc="left", fontsize=_FOREST_FONT, color=QUIET
        )
        for place, row in enumerate(part["rows"]):
            _draw_forest_row(axes, place, row, systems)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=3, steps=[1, 2, 5, 10]))
        axes.ticklabel_format(axis="x", useOffset=False)
        axes.set_yticks([])
        axes.tick_params(labelsize=9.5, pad=4)
        axes.set_ylim(len(part["rows"]) - 0.5, -0.5)
    return figure


def _draw_forest_row(
    axes: Axes, place: int, row: Mapping[str, Any], systems: Sequence[str]
) -> None:
    """Draw the dot and the interval of a row, its name at the left and its figure at the right."""
    is_difference = not row["system"]
    if is_difference:
        axes.axvline(0, color=QUIET, linewidth=1, linestyle=(0, (2, 2)))
    colour = INK if is_difference else system_colour(list(systems).index(row["system"]))
    filling = "white" if is_difference and not row["shown"] else colour
    axes.plot([row["ci_low"], row["ci_high"]], [place, place], color=colour, linewidth=2)
    axes.plot(
        row["estimate"],
        place,
        "o",
        color=colour,
        markersize=7.5,
        markeredgewidth=1.8,
        markerfacecolor=filling,
        clip_on=False,
    )
    beside = axes.get_yaxis_transform()
    text: dict[str, Any] = {"va": "center", "fontsize": _FOREST_FONT, "color": INK}
    text |= {"transform": beside, "parse_math": False}
    axes.text(-0.04, place, wrapped(row["name"], 17), **text, ha="right", linespacing=1.1)
    axes.text(1.04, place, _forest_text(row), **text)


def _forest_text(row: Mapping[str, Any]) -> str:
    mark = "†" if row.get("corrected") else ""
    return f"{number(row['estimate'])}{mark} ({range_text(row['ci_low'], row['ci_high'])})"


def _forest_note(rows: Sequence[Mapping[str, Any]], withdrawn: str) -> str:
    """Explain the marks of the differences, and give the notes of the rows."""
    sentences = []
    if any("shown" in row for row in rows):
        sentences.append(
            "● Shown to differ. ○ Not shown to differ, which is not the same as equal."
        )
    if any(row.get("corrected") for row in rows):
        sentences.append(withdrawn)
    sentences += [f"{row['name']}: {row['note']}." for row in rows if row["note"]]
    return " ".join(sentences)


_MATRIX = (180.0, 186.0)  # width and height of a confusion matrix with its titles, in points


def draw_confusion(
    confusion: Mapping[str, Mapping[str, Mapping[str, int]]], policies: Sequence[str]
) -> Figure:
    """Draw confusion matrices: one row for each system, one column for each rule for thresholds.

    `confusion` has the counts ``tp``, ``fp``, ``tn`` and ``fn`` by system and rule; a system may
    lack a rule. `policies` has the rules in the order of the columns.
    """
    width, height = _MATRIX[0] * len(policies), _MATRIX[1] * len(confusion)
    figure = NotebookFigure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
    grid = figure.subplots(len(confusion), len(policies), squeeze=False)
    for (name, matrices), line in zip(confusion.items(), grid, strict=True):
        for policy, axes in zip(policies, line, strict=True):
            title = f"{wrapped(name, 30)}\n{policy_text(policy)}"
            axes.set_title(title, fontsize=8, parse_math=False)
            _draw_matrix(axes, matrices.get(policy))
    return figure


def _draw_matrix(axes: Axes, counts: Mapping[str, int] | None) -> None:
    """Draw a confusion matrix with counts and shares of the row; correct decisions are tinted."""
    if not counts:
        axes.axis("off")
        axes.text(0.5, 0.5, "no threshold", ha="center", va="center", fontsize=8)
        return
    axes.imshow([[1, 0], [0, 1]], cmap="Blues", vmin=0, vmax=4)
    for row, keys in enumerate((("tp", "fn"), ("fp", "tn"))):
        whole = max(sum(counts[key] for key in keys), 1)
        for column, key in enumerate(keys):
            text = f"{counts[key]:,}\n{100 * counts[key] / whole:.1f} %"
            axes.text(column, row, text, ha="center", va="center", fontsize=9)
    axes.set_xticks([0, 1], ["called\npositive", "called\nnegative"], fontsize=7)
    axes.set_yticks([0, 1], ["positive", "negative"], fontsize=7)
    axes.spines[:].set_visible(False)
