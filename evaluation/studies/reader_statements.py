"""Statements of a reader study: comparisons of the primary metric, and notes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from cxr_compare.evaluation.statistics.figure_text import number, range_text
from cxr_compare.evaluation.studies.reader_analysis import ReaderAnalysis, StudyRow
from cxr_compare.evaluation.studies.reader_files import ONLY_MODALITY
from cxr_compare.evaluation.studies.study_page import Statement
from cxr_compare.evaluation.studies.study_sentences import study_sentence

_FEW = 20


def reader_statements(analysis: ReaderAnalysis) -> list[Statement]:
    """Return the comparisons of the primary metric, or the means of readers if nothing is compared.

    A difference is shown only if the interval that holds for all comparisons at once excludes 0.
    This interval is quoted.

    Args:
        analysis: The analysed study.

    Returns:
        The statements, in the order of the page.
    """
    differences = analysis.rows_of("difference", analysis.primary)
    if differences:
        return [Statement(_compared(analysis, row), row.decided) for row in differences]
    title = analysis.study.metrics[analysis.primary].title_in_sentence
    statements = []
    for row in analysis.rows_of("mean", analysis.primary):
        interval = _interval(analysis, row.ci_low, row.ci_high)
        text = _sentence(
            "mean", _readers(row.first), title, row.estimate, interval, _scope(analysis, row)
        )
        statements.append(Statement(text))
    return statements


def _sentence(macro: str, *values: Any) -> str:
    return study_sentence("readers", macro, *values)


def _compared(analysis: ReaderAnalysis, row: StudyRow) -> str:
    title = analysis.study.metrics[row.metric].title_in_sentence
    system_rows = analysis.rows_of("system", row.metric)
    systems = {system.first for system in system_rows}
    means = {
        mean.first: mean.estimate for mean in (*analysis.rows_of("mean", row.metric), *system_rows)
    }
    gap = row.estimate
    low = row.ci_low_all
    high = row.ci_high_all
    names = [row.first, row.second]
    if row.decided and gap < 0:
        names.reverse()
        gap = -gap
        low, high = (None if end is None else -end for end in (high, low))
    # If the pair is analysed over the readers with both, the means are of other readers.
    means_differ_by_gap = abs(means[names[0]] - means[names[1]] - gap) < 1e-9
    figures = [number(means[name]) if means_differ_by_gap else "" for name in names]
    if row.second in systems:
        first = _reader_or_system(names[0], figures[0], systems)
        second = _reader_or_system(names[1], figures[1], systems, inside=row.decided)
        kind = "system_higher" if row.decided else "system_open"
    else:
        first, second = (
            _sentence("named", _sentence("modality", name), figure)
            for name, figure in zip(names, figures, strict=True)
        )
        kind = "modality_higher" if row.decided else "modality_open"
    verdict = _sentence(kind, first, second, title)
    n_comparisons = len(analysis.rows_of("difference", row.metric))
    interval = _interval(analysis, low, high, n_comparisons=n_comparisons)
    return _sentence("difference", verdict, gap, interval, _scope(analysis, row))


def _reader_or_system(
    name: str, figure: str, systems: Collection[str], *, inside: bool = False
) -> str:
    if name in systems:
        return _sentence("named", name, figure)
    return _readers(name, figure, inside=inside)


def _readers(modality: str, figure: str = "", *, inside: bool = False) -> str:
    label = "" if modality == ONLY_MODALITY else _sentence("modality", modality)
    return _sentence("readers", label, figure, inside)


def modality_title(name: str) -> str:
    """Return a modality or system as a column heading; a bare number becomes "modality 1".

    Example:
        >>> modality_title("1"), modality_title("with AI")
        ('modality 1', 'with AI')
    """
    return _sentence("modality_title", name)


def _interval(
    analysis: ReaderAnalysis, low: float | None, high: float | None, *, n_comparisons: int = 1
) -> str:
    if low is None or high is None:
        return _sentence("no_interval")
    level = percent_text(analysis.level)
    return _sentence("interval", level, n_comparisons, precise_range(low, high))


def precise_range(low: float | None, high: float | None) -> str:
    """Return an interval, with four digits where three would make it touch 0.

    Example:
        >>> precise_range(-0.08796, 0.00036), precise_range(-0.0880, 0.0040)
        ('−0.0880 to 0.0004', '−0.088 to 0.004')
    """
    if low is None or high is None or min(abs(low), abs(high)) >= 5e-4 or low == high:
        return range_text(low, high)
    return f"{number(low, 4)} to {number(high, 4)}"


def percent_text(level: float) -> str:
    """Return a level in percent."""
    return f"{100 * level:g} %"


def _scope(analysis: ReaderAnalysis, row: StudyRow) -> str:
    """Return for whom a result holds, which depends on what is random."""
    modalities = _read_by_one(analysis)
    alone = [name for name in (row.first, row.second) if name in modalities]
    fixed_cases = row.n_cases if analysis.cases == "fixed" else None
    if analysis.readers == "fixed" or (alone and row.n_readers == 1):
        kind = "one_reader" if row.n_readers == 1 else "these_readers"
    elif alone:
        kind = "readers_alone"
    elif analysis.cases == "random":
        kind = "random_both"
    else:
        kind = "random_readers"
    return _sentence("scope", kind, row.n_readers, alone, fixed_cases)


def _read_by_one(analysis: ReaderAnalysis) -> list[str]:
    """Return the modalities that only one reader used."""
    study = analysis.study
    return [modality for modality in study.modalities if len(study.readers(modality)) == 1]


def reader_notes(analysis: ReaderAnalysis) -> list[str]:
    """Return what to know before relying on a reader study."""
    study = analysis.study
    notes = list(study.notes)
    for label, name in ((True, "positive"), (False, "negative")):
        n_patients = study.truth.loc[study.truth["label"] == label, "patient"].nunique()
        if n_patients < _FEW and analysis.cases == "random":
            notes.append(_sentence("few_patients", n_patients, name, _FEW))
    if analysis.readers == "random":
        notes += [_sentence("one_reader", modality) for modality in _read_by_one(analysis)]
    cautious = [
        {
            "title": modality_title(row.first),
            "range": range_text(row.ci_low_all, row.ci_high_all),
        }
        for row in analysis.rows_of("mean", analysis.primary)
        if row.ci_low_all is not None
    ]
    if cautious:
        notes.append(_sentence("few_readers", cautious))
    evaluated = {row.first for row in analysis.rows_of("system", analysis.metrics[-1])}
    systems = dict.fromkeys(study.systems["reader"])
    undecided = [name for name in systems if name not in evaluated]
    if undecided:
        notes.append(_sentence("undecided_systems", undecided))
    return notes
