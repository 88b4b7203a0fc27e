"""Statements of a learning-curve study: differences, crossings and equal budgets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from cxr_compare.evaluation.metrics.prose import inside_sentence, listing
from cxr_compare.evaluation.metrics.registry import metric_title
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.figure_text import number, p_equation, range_text
from cxr_compare.evaluation.statistics.intervals import Interval
from cxr_compare.evaluation.statistics.learning_curve import Crossing, LearningCurve
from cxr_compare.evaluation.studies.annotation_times import Times
from cxr_compare.evaluation.studies.curve_study import KINDS, MAIN, CurveStudy, Difference, Kind
from cxr_compare.evaluation.studies.study_page import Statement

WORDS = {
    "images": "number of images",
    "time": "annotation time ({label} s a label, {box} s a box)",
    "cross": "By {by}, the fitted {title} curves cross at {at} {unit} ({low} to {high}), where "
    "both were measured: with less the {before} is ahead, with more the {after}.",
    "open": "By {by}, a crossing of the fitted {title} curves is not shown: {why}.",
    "apart": "there is no time at which both were measured",
    "beyond": "its interval reaches beyond the {start} to {end} {unit} at which both were measured",
    "budget": "{hours} hours are {first} images with boxes or {second} labelled images.",
    "far": " No {title} is given there: the {arm} was measured with {start} to {end}.",
    "budget_figures": " The fitted {title} is {first_figure} of the detector and {second_figure} "
    "of the classifier: ",
    "higher": "the {winner} is higher by {gap} ({low} to {high}).",
    "undecided": "a difference is not shown ({gap}, {low} to {high}).",
    "unclaimed": "a difference is not shown: {why}.",
}
"""Sentences that change with the times: for Python, and for the script of the page."""


_ONCE = " This holds for these trained models: each was trained once."


def curve_statements(study: CurveStudy, metric: str) -> Iterator[Statement]:
    """Return the statements on one metric: missing figures, differences, crossings, equal budgets.

    A statement says no more than the study shows.
    """
    title = title_in_sentence(metric)
    for arm in study.arms:
        if reason := study.absent.get((metric, arm.kind)):
            yield Statement(f"The {KINDS[arm.kind]} has no {title}: {reason}.", about="absent")
    for first, second in study.pairs(metric):
        statement = _difference(study.compared(metric, first, second), title, first, second)
        once = _ONCE if study.n_seeds == 1 and statement.shown else ""
        yield replace(statement, text=statement.text + once)
    yield from _misfits(study, metric)
    for times in (None, study.times):
        if (where := study.crossing(metric, times)) is not None:
            yield _crossing(study, metric, times, where)
    detector, classifier = (study.fitted(metric, kind) for kind in MAIN)
    if detector is not None and classifier is not None:
        yield _budget(study, metric, (detector, classifier))


def title_in_sentence(metric: str) -> str:
    """Return the title of a metric inside a sentence.

    Example:
        >>> title_in_sentence("froc_mean")
        'mean FROC'
    """
    title, _, kind = metric_title(metric).partition(", ")
    return inside_sentence(f"{kind} {title}".strip())


def _misfits(study: CurveStudy, metric: str) -> Iterator[Statement]:
    """State which models have no fitted curve, and which points depart from their curve."""
    for kind, curve in study.fits.get(metric, {}).items():
        of = f"of the {KINDS[kind]}"
        if curve.line is None:
            yield Statement(f"No curve {of} is fitted: {curve.reason}.", about="fit")
        elif not curve.fits:
            yield Statement(
                f"The points {of} depart from a power law ({p_equation(curve.lack_of_fit)}): its "
                "curve is drawn, and nothing is concluded from it.",
                about="fit",
            )


def _crossing(study: CurveStudy, metric: str, times: Times | None, where: Crossing) -> Statement:
    """State where the curves of detector and classifier cross, or why that is not shown."""
    about: Literal["images", "time"] = "images"
    scale = 1
    unit = "images"
    by = WORDS["images"]
    if times is not None:
        about = "time"
        scale = 3600
        unit = "hours"
        by = WORDS["time"].format(label=f"{times.label:g}", box=f"{times.box:g}")
    values = {"by": by, "title": title_in_sentence(metric), "unit": unit}
    if where.shown and where.effort is not None and where.interval is not None:
        before, after = MAIN if where.ahead == "second" else reversed(MAIN)
        places = (where.effort, *where.interval)
        at, low, high = (amount_text(place / scale, about) for place in places)
        values |= {"at": at, "low": low, "high": high, "before": before, "after": after}
        return Statement(WORDS["cross"].format(**values), True, about)
    why = study.never_crossing(metric)
    if not why and where.measured is None:
        why = WORDS["apart"]
    elif not why and where.measured:
        start, end = (amount_text(end / scale, about) for end in where.measured)
        why = WORDS["beyond"].format(start=start, end=end, **values)
    return Statement(WORDS["open"].format(why=why, **values), about=about)


def amount_text(value: float, about: Literal["images", "time"]) -> str:
    """Return a number of images, or hours with two or three digits.

    Example:
        >>> amount_text(1234.5, "images"), amount_text(2.345, "time")
        ('1,234', '2.3')
    """
    digits = 0 if about == "images" or value >= 10 else 1 if value >= 1 else 2
    return f"{value:,.{digits}f}"


def _budget(
    study: CurveStudy, metric: str, curves: tuple[LearningCurve, LearningCurve]
) -> Statement:
    """State what detector and classifier reach with the same annotation time."""
    seconds = study.hours_at_hand * 3600
    title = title_in_sentence(metric)
    images = [seconds / study.seconds_per_image(kind, study.times) for kind in MAIN]
    first, second = (amount_text(n, "images") for n in images)
    text = WORDS["budget"].format(hours=f"{study.hours_at_hand:g}", first=first, second=second)
    figures = []
    for kind, curve, n in zip(MAIN, curves, images, strict=True):
        start = float(curve.amounts[0])
        end = float(curve.amounts[-1])
        if not start <= n <= end:
            ends = {"start": amount_text(start, "images"), "end": amount_text(end, "images")}
            text += WORDS["far"].format(title=title, arm=kind, **ends)
            return Statement(text, about="budget")
        figures.append(_figures_at(curve, n))
    gaps = figures[0] - figures[1]
    gap = Interval(float(gaps[0]), *np.quantile(gaps[1:], [0.025, 0.975]).tolist())
    text += WORDS["budget_figures"].format(
        title=title, first_figure=number(figures[0][0]), second_figure=number(figures[1][0])
    )
    if why := study.unclaimed(metric):
        return Statement(text + WORDS["unclaimed"].format(why=why), about="budget")
    if not gap.excludes_zero:
        ends = {"gap": number(gap.estimate), "low": number(gap.low), "high": number(gap.high)}
        return Statement(text + WORDS["undecided"].format(**ends), about="budget")
    low, high = sorted((abs(gap.low), abs(gap.high)))
    ends = {"gap": number(abs(gap.estimate)), "low": number(low), "high": number(high)}
    text += WORDS["higher"].format(winner=MAIN[gap.estimate < 0], **ends)
    return Statement(text, True, "budget")


def _figures_at(curve: LearningCurve, images: float) -> Floats:
    """Return a curve's figure at a number of images, then that of each draw."""
    lines = np.vstack([np.array(curve.line), curve.draws])
    return np.asarray(1 - np.exp(np.minimum(lines[:, 0] - lines[:, 1] * math.log(images), 0.0)))


def model_against(first: Kind, second: Kind) -> str:
    """Return the second model of a difference, as a sentence names it."""
    return KINDS[second] + (" of all labels" if Difference.with_all_labels(first, second) else "")


def _difference(rows: Sequence[Difference], title: str, first: Kind, second: Kind) -> Statement:
    """State at which sizes one model is higher, or neither is shown to be."""
    parts: list[str] = []
    unit = "boxed images" if first == "mixed" else "annotated images"
    names = KINDS[first], model_against(first, second)
    for (winner, loser), sign in ((names, 1), (names[::-1], -1)):
        higher = [row for row in rows if row.shown and row.gap.estimate * sign > 0]
        if higher:
            by = [f"{_gap(row.gap)} with {row.n_images:,.0f}" for row in higher]
            word = f" {unit}" if not parts else ""
            parts.append(
                f"the {title} of the {winner} is higher than that of the {loser} by "
                f"{listing(by)}{word}"
            )
    rest = [f"{row.n_images:,.0f}" for row in rows if not row.shown]
    if parts and rest:
        parts.append(f"with {listing(rest)} a difference is not shown")
    if not parts:
        parts = [
            f"a difference in {title} between the {names[0]} and the {names[1]} is not shown, "
            f"with {listing(rest).replace(' and ', ' or ')} {unit}"
        ]
    text = "; ".join(parts)
    shown = any(row.shown for row in rows)
    return Statement(f"{text[0].upper()}{text[1:]}.", shown, "difference")


def _gap(gap: Interval) -> str:
    """Return the size of a difference that is shown, without its sign."""
    low, high = sorted((abs(gap.low), abs(gap.high)))
    return f"{number(abs(gap.estimate))} ({range_text(low, high)})"
