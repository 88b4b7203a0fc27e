"""Statements of a reader study: comparisons of the primary metric, and notes."""

from __future__ import annotations

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.statistics.figure_text import number, range_text
from cxr_compare.evaluation.studies.reader_analysis import ReaderAnalysis, StudyRow
from cxr_compare.evaluation.studies.reader_files import ONLY_MODALITY
from cxr_compare.evaluation.studies.study_page import Statement

_FEW = 20


def reader_statements(analysis: ReaderAnalysis) -> list[Statement]:
    """Return the comparisons of the primary metric, or the means of readers if nothing is compared.

    A difference is shown only if the interval that holds for all comparisons at once excludes 0.
    This interval is quoted.
    """
    differences = analysis.rows_of("difference", analysis.primary)
    if differences:
        return [Statement(_compared(analysis, row), row.decided) for row in differences]
    title = analysis.study.metrics[analysis.primary].title_in_sentence
    return [
        Statement(
            f"{_who(row.first)} had a mean {title} of {number(row.estimate)} "
            f"({_interval(analysis, row.ci_low, row.ci_high)}), {_scope(analysis, row)}."
        )
        for row in analysis.rows_of("mean", analysis.primary)
    ]


def _compared(analysis: ReaderAnalysis, row: StudyRow) -> str:
    title = analysis.study.metrics[row.metric].title_in_sentence
    single = [*analysis.rows_of("mean", row.metric), *analysis.rows_of("system", row.metric)]
    means = {of.first: of.estimate for of in single}
    systems = {of.first for of in analysis.rows_of("system", row.metric)}
    gap = row.estimate
    low = row.ci_low_all
    high = row.ci_high_all
    names = [row.first, row.second]
    if row.decided and gap < 0:
        names.reverse()
        gap, low, high = -gap, *(None if end is None else -end for end in (high, low))
    # Where the pair is of the readers with both only, the means are of other readers.
    shown = abs(means[names[0]] - means[names[1]] - gap) < 1e-9
    figures = [number(means[name]) if shown else "" for name in names]
    if row.second in systems:
        one, other = (
            _in_brackets(name, figure) if name in systems else _who(name, figure)
            for name, figure in zip(names, figures, strict=True)
        )
        inside = other if names[1] in systems else other[0].lower() + other[1:]
        verdict = (
            f"{one} had a higher {title} than {inside}"
            if row.decided
            else f"{one} and {other} were not shown to differ in {title}"
        )
    else:
        one, other = (
            _in_brackets(_label(name), figure) for name, figure in zip(names, figures, strict=True)
        )
        verdict = (
            f"Readers' {title} was higher for {one} than for {other}"
            if row.decided
            else f"Readers' {title} was not shown to differ between {one} and {other}"
        )
    ends = _interval(analysis, low, high, of_all=len(analysis.rows_of("difference", row.metric)))
    return f"{verdict}: difference {number(gap)} ({ends}), {_scope(analysis, row)}."


def _in_brackets(text: str, *inside: str) -> str:
    """Append texts in brackets, if there are any."""
    held = ": ".join(filter(None, inside))
    return f"{text} ({held})" if held else text


def _who(modality: str, figure: str = "") -> str:
    return _in_brackets("Readers", "" if modality == ONLY_MODALITY else _label(modality), figure)


def _label(modality: str) -> str:
    """Return a modality's name inside a sentence; a bare number becomes "modality 1"."""
    return modality_title(modality) if modality.isdigit() else f"“{modality}”"


def modality_title(name: str) -> str:
    """Return a modality or system as a column heading; a bare number becomes "modality 1"."""
    return f"modality {name}" if name.isdigit() else name


def _interval(
    analysis: ReaderAnalysis, low: float | None, high: float | None, *, of_all: int = 1
) -> str:
    if low is None or high is None:
        return "no interval: nothing varies"
    words = f"{percent_text(analysis.level)} interval"
    words = words if of_all < 2 else f"simultaneous {words} of {of_all} comparisons"
    return f"{words} {precise_range(low, high)}"


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
    alone = _alone(analysis)
    names = [name for name in (row.first, row.second) if name in alone]
    if analysis.readers == "fixed" or (names and row.n_readers == 1):
        readers = "for this reader" if row.n_readers == 1 else f"for these {row.n_readers} readers"
    elif names:
        readers = f"for readers like these (with {listing(names)} for its one reader)"
    elif analysis.cases == "random":
        return "for readers and cases like these"
    else:
        readers = "for readers like these"
    if analysis.cases == "fixed":
        return f"{readers} on these {counted(row.n_cases, 'case')}"
    return f"{readers} and cases like these"


def _alone(analysis: ReaderAnalysis) -> list[str]:
    """Return the modalities that only one reader used."""
    study = analysis.study
    return [modality for modality in study.modalities if len(study.readers(modality)) == 1]


def reader_notes(analysis: ReaderAnalysis) -> list[str]:
    """Return what to know before relying on a reader study."""
    study = analysis.study
    notes = list(study.notes)
    for label, word in ((True, "positive"), (False, "negative")):
        n = study.truth.loc[study.truth["label"] == label, "patient"].nunique()
        if n < _FEW and analysis.cases == "random":
            notes.append(
                f"Only {counted(n, 'patient', 'have')} {word} cases; below {_FEW}, intervals may "
                "be too narrow."
            )
    if analysis.readers == "random":
        notes += [
            f"One reader read with {modality}: how readers differ there is unknown."
            for modality in _alone(analysis)
        ]
    means = analysis.rows_of("mean", analysis.primary)
    if few := [row for row in means if row.ci_low_all is not None]:
        told = [f"{modality_title(m.first)} {range_text(m.ci_low_all, m.ci_high_all)}" for m in few]
        notes.append(
            "Fewer than 5 readers: a published 95 % interval of their mean holds it in 88 to 94 %, "
            "and up to 12 % of studies without a difference show one. Claims rest on cautious "
            "intervals, as wide as the published ones of the tables or wider; of the mean: "
            f"{listing(told)}."
        )
    evaluated = {row.first for row in analysis.rows_of("system", analysis.metrics[-1])}
    if without := [
        name for name in dict.fromkeys(study.systems["reader"]) if name not in evaluated
    ]:
        notes.append(
            f"There is no sensitivity or specificity of {listing(without)}, which decided nothing."
        )
    return notes
