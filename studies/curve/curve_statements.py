"""Statements of a learning-curve study: differences, crossings and equal budgets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from cxr_compare.evaluation.metrics.prose import inside_sentence
from cxr_compare.evaluation.metrics.registry import metric_title
from cxr_compare.evaluation.report.study_page import Statement
from cxr_compare.evaluation.statistics.figure_text import p_equation
from cxr_compare.studies.curve import curve_sentences
from cxr_compare.studies.curve.curve_study import MAIN, CurveStudy, Difference, Kind
from cxr_compare.studies.curve.learning_curve import Crossing


def curve_statements(study: CurveStudy, metric: str) -> Iterator[Statement]:
    """Yield the sentences with the results of a learning-curve study for one metric.

    They say which models lack the metric, which models differ, and where the learning curves cross.
    A sentence states a difference only if it is statistically shown.

    Example:
        >>> from cxr_compare.studies.curve.curve_study import CurveModel
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
            text = curve_sentences.absent(curve_sentences.model(model.kind), title, reason)
            yield Statement(text, about="absent")
    for first, second in study.pairs(metric):
        statement = _difference(study.compared(metric, first, second), title, first, second)
        if study.n_seeds == 1 and statement.shown:
            text = f"{statement.text} {curve_sentences.TRAINED_ONCE}"
            statement = replace(statement, text=text)
        yield statement
    yield from _misfits(study, metric)
    if (where := study.crossing(metric)) is not None:
        yield _crossing(study, metric, where)


def title_in_sentence(metric: str) -> str:
    """Return the title of a metric as it is written inside a sentence, such as "mean FROC".

    Example:
        >>> title_in_sentence("froc_mean")
        'mean FROC'
    """
    title, _, kind = metric_title(metric).partition(", ")
    return inside_sentence(f"{kind} {title}".strip())


def _misfits(study: CurveStudy, metric: str) -> Iterator[Statement]:
    """State which models have no fitted curve, and which points depart from their curve."""
    for kind, curve in study.fits.get(metric, {}).items():
        model = curve_sentences.model(kind)
        if curve.line is None:
            yield Statement(curve_sentences.no_fit(model, curve.reason), about="fit")
        elif not curve.fits:
            text = curve_sentences.misfit(model, p_equation(curve.lack_of_fit))
            yield Statement(text, about="fit")


def _crossing(study: CurveStudy, metric: str, where: Crossing) -> Statement:
    """State where the curves of detector and classifier cross, or why a crossing is not shown."""
    title = title_in_sentence(metric)
    if where.shown and where.effort is not None and where.interval is not None:
        before, after = MAIN if where.ahead == "second" else reversed(MAIN)
        text = curve_sentences.cross(title, where.effort, *where.interval, before, after)
        return Statement(text, True, "images")
    why = study.never_crossing(metric)
    return Statement(curve_sentences.no_cross(title, why, where.measured), about="images")


def model_against(first: Kind, second: Kind) -> str:
    """Return the name of the second model of a comparison, as a sentence writes it.

    The mixed model (a detector that starts from the classifier's weights, which were learned from
    all labels) is compared with the classifier that was trained on all labels.

    Example:
        >>> model_against("mixed", "classifier")
        'classifier with all labels'
    """
    return curve_sentences.model(second, Difference.with_all_labels(first, second))


def _difference(rows: Sequence[Difference], title: str, first: Kind, second: Kind) -> Statement:
    """State at which sizes one model is higher, or that no difference is shown."""
    names = (curve_sentences.model(first), model_against(first, second))
    sides = []
    for (winner, loser), sign in ((names, 1), (names[::-1], -1)):
        gaps = [_gap(row) for row in rows if row.shown and row.gap.estimate * sign > 0]
        if gaps:
            sides.append(curve_sentences.Side(winner, loser, gaps))
    rest = [row.n_images for row in rows if not row.shown]
    unit = "boxed images" if first == "mixed" else "annotated images"
    text = curve_sentences.difference(title, *names, sides, rest, unit)
    return Statement(text, any(row.shown for row in rows), "difference")


def _gap(row: Difference) -> curve_sentences.Gap:
    """Return the size of a difference that is shown, without its sign."""
    low, high = sorted((abs(row.gap.ci_low), abs(row.gap.ci_high)))
    return curve_sentences.Gap(abs(row.gap.estimate), low, high, row.n_images)
