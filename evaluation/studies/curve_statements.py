"""Statements of a learning-curve study: differences, crossings and equal budgets."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cxr_compare.evaluation.metrics.prose import inside_sentence
from cxr_compare.evaluation.metrics.registry import metric_title
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.figure_text import number, p_equation
from cxr_compare.evaluation.statistics.intervals import Interval
from cxr_compare.evaluation.statistics.learning_curve import Crossing, LearningCurve
from cxr_compare.evaluation.studies.annotation_times import Times
from cxr_compare.evaluation.studies.curve_study import MAIN, CurveStudy, Difference, Kind
from cxr_compare.evaluation.studies.study_page import Statement
from cxr_compare.evaluation.studies.study_sentences import study_sentence

TIME_SENTENCES: dict[str, str] = tomllib.loads(
    Path(__file__).with_name("curve_sentences.toml").read_text(encoding="utf-8")
)
"""Templates of sentences that depend on the annotation times, by kind.

Python and the script of the page use the same templates.
"""


def _sentence(macro: str, *values: Any) -> str:
    return study_sentence("curve", macro, *values)


def curve_statements(study: CurveStudy, metric: str) -> Iterator[Statement]:
    """Yield the sentences with the results of a learning-curve study for one metric.

    They say which models lack the metric, which models differ, where the learning curves cross, and
    which model is better for equal annotation time. A sentence states a difference only if it is
    statistically shown.

    Args:
        study: Result of a learning-curve study: performance of models that were trained on growing
            shares of the training data.
        metric: Short name of the metric, such as ``auroc``.

    Yields:
        The sentences, in the order of the result page.

    Example:
        >>> from cxr_compare.evaluation.studies.curve_study import CurveModel
        >>> model = CurveModel("classifier", "CheXNet")
        >>> absent = {("froc_mean", "classifier"): "its maps have no cut"}
        >>> study = CurveStudy("NIH", "opacity", ["default"], 1, [model], [], absent=absent)
        >>> [statement.text for statement in curve_statements(study, "froc_mean")]
        ['The classifier has no mean FROC: its maps have no cut.']
    """
    title = title_in_sentence(metric)
    for model in study.models:
        reason = study.absent.get((metric, model.kind))
        if reason:
            text = _sentence("absent", _sentence("model", model.kind), title, reason)
            yield Statement(text, about="absent")
    for first, second in study.pairs(metric):
        statement = _difference(study.compared(metric, first, second), title, first, second)
        if study.n_seeds == 1 and statement.shown:
            text = f"{statement.text} {_sentence('trained_once')}"
            statement = replace(statement, text=text)
        yield statement
    yield from _misfits(study, metric)
    for times in (None, study.times):
        if (where := study.crossing(metric, times)) is not None:
            yield _crossing(study, metric, times, where)
    detector, classifier = (study.fitted(metric, kind) for kind in MAIN)
    if detector is not None and classifier is not None:
        yield _budget(study, metric, (detector, classifier))


def title_in_sentence(metric: str) -> str:
    """Return the title of a metric as it is written inside a sentence, such as "mean FROC".

    Args:
        metric: Short name of the metric, such as ``auroc``.

    Returns:
        The title, which begins with a small letter unless it is an abbreviation.

    Example:
        >>> title_in_sentence("froc_mean")
        'mean FROC'
    """
    title, _, kind = metric_title(metric).partition(", ")
    return inside_sentence(f"{kind} {title}".strip())


def _misfits(study: CurveStudy, metric: str) -> Iterator[Statement]:
    """State which models have no fitted curve, and which points depart from their curve."""
    for kind, curve in study.fits.get(metric, {}).items():
        model = _sentence("model", kind)
        if curve.line is None:
            yield Statement(_sentence("no_fit", model, curve.reason), about="fit")
        elif not curve.fits:
            text = _sentence("misfit", model, p_equation(curve.lack_of_fit))
            yield Statement(text, about="fit")


def _crossing(study: CurveStudy, metric: str, times: Times | None, where: Crossing) -> Statement:
    """State where the curves of detector and classifier cross, or why a crossing is not shown."""
    about: Literal["images", "time"] = "images"
    scale = 1
    unit = "images"
    by = TIME_SENTENCES["images"]
    if times is not None:
        about = "time"
        scale = 3600
        unit = "hours"
        by = TIME_SENTENCES["time"].format(label=f"{times.label:g}", box=f"{times.box:g}")
    values = {"by": by, "title": title_in_sentence(metric), "unit": unit}
    if where.shown and where.effort is not None and where.interval is not None:
        before, after = MAIN if where.ahead == "second" else reversed(MAIN)
        positions = (where.effort, *where.interval)
        at, low, high = (amount_text(position / scale, about) for position in positions)
        values |= {"at": at, "low": low, "high": high, "before": before, "after": after}
        return Statement(TIME_SENTENCES["cross"].format(**values), True, about)
    why = study.never_crossing(metric)
    if not why and where.measured is None:
        why = TIME_SENTENCES["apart"]
    elif not why and where.measured:
        start, end = (amount_text(end / scale, about) for end in where.measured)
        why = TIME_SENTENCES["beyond"].format(start=start, end=end, **values)
    return Statement(TIME_SENTENCES["open"].format(why=why, **values), about=about)


def amount_text(value: float, about: Literal["images", "time"]) -> str:
    """Return a number of images, or hours with two or three digits, as text.

    Args:
        value: Number of images, or hours.
        about: ``images`` if `value` is a number of images, ``time`` if it is hours.

    Returns:
        The text, with thousands separated by commas.

    Example:
        >>> amount_text(1234.5, "images"), amount_text(2.345, "time")
        ('1,234', '2.3')
    """
    digits = 0 if about == "images" or value >= 10 else 1 if value >= 1 else 2
    return f"{value:,.{digits}f}"


def _budget(
    study: CurveStudy, metric: str, curves: tuple[LearningCurve, LearningCurve]
) -> Statement:
    """State which figures detector and classifier reach with the same annotation time."""
    seconds = study.hours_at_hand * 3600
    title = title_in_sentence(metric)
    images = [seconds / study.seconds_per_image(kind, study.times) for kind in MAIN]
    first, second = (amount_text(n, "images") for n in images)
    text = TIME_SENTENCES["budget"].format(
        hours=f"{study.hours_at_hand:g}", first=first, second=second
    )
    figures = []
    for kind, curve, n in zip(MAIN, curves, images, strict=True):
        start = float(curve.amounts[0])
        end = float(curve.amounts[-1])
        if not start <= n <= end:
            ends = {"start": amount_text(start, "images"), "end": amount_text(end, "images")}
            text += TIME_SENTENCES["far"].format(title=title, model=kind, **ends)
            return Statement(text, about="budget")
        figures.append(_figures_at(curve, n))
    gaps = figures[0] - figures[1]
    gap = Interval(float(gaps[0]), *np.quantile(gaps[1:], [0.025, 0.975]).tolist())
    text += TIME_SENTENCES["budget_figures"].format(
        title=title, first_figure=number(figures[0][0]), second_figure=number(figures[1][0])
    )
    if why := study.unclaimed(metric):
        return Statement(text + TIME_SENTENCES["unclaimed"].format(why=why), about="budget")
    if not gap.excludes_zero:
        ends = {"gap": number(gap.estimate), "low": number(gap.low), "high": number(gap.high)}
        return Statement(text + TIME_SENTENCES["undecided"].format(**ends), about="budget")
    low, high = sorted((abs(gap.low), abs(gap.high)))
    ends = {"gap": number(abs(gap.estimate)), "low": number(low), "high": number(high)}
    text += TIME_SENTENCES["higher"].format(winner=MAIN[gap.estimate < 0], **ends)
    return Statement(text, True, "budget")


def _figures_at(curve: LearningCurve, images: float) -> Floats:
    """Return a curve's figure at a number of images, then the figure of each draw of the curve."""
    lines = np.vstack([np.array(curve.line), curve.draws])
    return np.asarray(1 - np.exp(np.minimum(lines[:, 0] - lines[:, 1] * math.log(images), 0.0)))


def model_against(first: Kind, second: Kind) -> str:
    """Return the name of the second model of a comparison, as a sentence writes it.

    The mixed model (a detector that starts from the classifier's weights, which were learned from
    all labels) is compared with the classifier that was trained on all labels.

    Args:
        first: Kind of the first model: ``detector``, ``classifier`` or ``mixed``.
        second: Kind of the second model.

    Returns:
        Name of the second model; "with all labels" is added for the pair mixed and classifier.

    Example:
        >>> model_against("mixed", "classifier")
        'classifier with all labels'
    """
    return _sentence("model", second, Difference.with_all_labels(first, second))


def _difference(rows: Sequence[Difference], title: str, first: Kind, second: Kind) -> Statement:
    """State at which sizes one model is higher, or that no difference is shown."""
    names = (_sentence("model", first), model_against(first, second))
    sides = []
    for (winner, loser), sign in ((names, 1), (names[::-1], -1)):
        gaps = [_gap(row) for row in rows if row.shown and row.gap.estimate * sign > 0]
        if gaps:
            sides.append({"winner": winner, "loser": loser, "gaps": gaps})
    rest = [row.n_images for row in rows if not row.shown]
    unit = "boxed images" if first == "mixed" else "annotated images"
    text = _sentence("difference", title, *names, sides, rest, unit)
    return Statement(text, any(row.shown for row in rows), "difference")


def _gap(row: Difference) -> dict[str, float]:
    """Return the size of a difference that is shown, without its sign."""
    low, high = sorted((abs(row.gap.low), abs(row.gap.high)))
    return {"size": abs(row.gap.estimate), "low": low, "high": high, "images": row.n_images}
