"""Statements of a reader study: the overall test, comparisons of the primary metric, and notes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict

from cxr_compare.evaluation.report.study_page import Statement
from cxr_compare.evaluation.statistics.figure_text import (
    number,
    p_equation,
    p_value_text,
    range_text,
)
from cxr_compare.evaluation.statistics.obuchowski_rockette import (
    FREEDOM_OF_A_CLAIM,
    FREEDOM_OF_THE_OVERALL_TEST,
    OverallTest,
)
from cxr_compare.studies.readers import reader_sentences
from cxr_compare.studies.readers.reader_analysis import ReaderAnalysis, StudyRow
from cxr_compare.studies.readers.reader_files import ONLY_MODALITY

_FEW = 20


def reader_statements(analysis: ReaderAnalysis) -> list[Statement]:
    """Return the sentences with the results of a reader study for its most important metric.

    They compare the modalities (ways of reading) and systems; if there is nothing to compare, they
    give the means over readers. With three modalities or more, the test of all of them comes first.
    A difference is called shown only if the interval that holds for all comparisons at once
    excludes 0; the sentence quotes this interval.
    """
    differences = analysis.rows_of("difference", analysis.primary)
    if differences:
        pairs = [Statement(_compared(analysis, row), row.decided) for row in differences]
        return [*_overall_statements(analysis), *pairs]
    title = analysis.study.metrics[analysis.primary].title_in_sentence
    statements = []
    for row in analysis.rows_of("mean", analysis.primary):
        interval = _interval(analysis, row.ci_low, row.ci_high)
        text = reader_sentences.mean(
            _readers(row.first), title, row.estimate, interval, _scope(analysis, row)
        )
        statements.append(Statement(text))
    return statements


def _overall_statements(analysis: ReaderAnalysis) -> list[Statement]:
    """Return the statement of the overall test; empty without one."""
    overall = analysis.overall(analysis.primary)
    if overall is None:
        return []
    title = analysis.study.metrics[analysis.primary].title_in_sentence
    scope = _scope(analysis, analysis.pairs_of(analysis.primary)[0])
    test = overall_test_text(overall.test)
    word = reader_sentences.overall_differ if overall.decided else reader_sentences.overall_open
    sentences = [word(title, overall.n_modalities, test, scope)]
    if overall.significant and not overall.decided:
        sentences.append(
            reader_sentences.overall_weak(
                overall.freedom_between,
                FREEDOM_OF_THE_OVERALL_TEST,
            )
        )
    elif overall.significant or overall.n_pairs_shown:
        sentences.append(
            reader_sentences.pairs_shown(overall.n_pairs_shown, overall.n_pairs, overall.decided)
        )
    return [Statement(" ".join(sentences), overall.decided)]


def overall_test_text(test: OverallTest) -> str:
    """Return a test of several means as text.

    It is the F statistic if the denominator has finite degrees of freedom, else chi-square.

    Example:
        >>> overall_test_text(OverallTest(7.8003, (4, 36.793), 0.000117))
        'F(4, 36.79) = 7.80, p < 0.001'
    """
    upper, lower = test.freedom
    freedom = None if lower == float("inf") else lower
    return reader_sentences.overall_test(upper, freedom, test.statistic, p_equation(test.p_value))


def component_sentences(analysis: ReaderAnalysis) -> list[str]:
    """Return sentences with the variance components of readers against each system.

    A system is a program that read the cases alone. The metric is the one from which the
    conclusions of the study are drawn.

    The list is empty without a system.
    """
    title = analysis.study.metrics[analysis.primary].title_in_sentence
    sentences = []
    for against in analysis.against:
        if against.metric == analysis.primary:
            readers = _readers(against.modality, inside=True)
            parts = {
                name: variance_text(value) for name, value in asdict(against.components).items()
            }
            sentences.append(
                reader_sentences.program_components(title, readers, against.system, parts)
            )
    return sentences


def variance_text(value: float) -> str:
    """Return a variance or covariance as text, with three digits and a true minus sign.

    Example:
        >>> variance_text(0.00030459978), variance_text(-0.00030459978)
        ('0.000305', '−0.000305')
    """
    return f"{value:.3g}".replace("-", "−", 1) if value < 0 else f"{value:.3g}"


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
    # A pair that is analysed over the readers with both modalities may have other readers than
    # the means. The means are then left out, since their difference is another one.
    means_differ_by_gap = abs(means[names[0]] - means[names[1]] - gap) < 1e-9
    figures = [number(means[name]) if means_differ_by_gap else "" for name in names]
    if row.second in systems:
        first = _reader_or_system(names[0], figures[0], systems)
        second = _reader_or_system(names[1], figures[1], systems, inside=row.decided)
        higher, is_open = reader_sentences.system_higher, reader_sentences.system_open
    else:
        first, second = (
            reader_sentences.named(reader_sentences.modality(name), figure)
            for name, figure in zip(names, figures, strict=True)
        )
        higher, is_open = reader_sentences.modality_higher, reader_sentences.modality_open
    verdict = (higher if row.decided else is_open)(first, second, title)
    n_comparisons = len(analysis.rows_of("difference", row.metric))
    interval = _interval(analysis, low, high, n_comparisons=n_comparisons, cautious=row.cautious)
    text = reader_sentences.difference(verdict, gap, interval, _scope(analysis, row))
    if row.decided or row.p_value is None or row.p_value >= 1 - analysis.level:
        return text
    freedom = row.freedom_between if row.cautious else None
    p_value = p_equation(row.p_value)
    p_of_claim = p_value_text(row.p_value_all)
    reason = reader_sentences.small_p_value(p_value, freedom, n_comparisons, p_of_claim)
    return f"{text} {reason}"


def _reader_or_system(
    name: str, figure: str, systems: Collection[str], *, inside: bool = False
) -> str:
    if name in systems:
        return reader_sentences.named(name, figure)
    return _readers(name, figure, inside=inside)


def _readers(modality: str, figure: str = "", *, inside: bool = False) -> str:
    label = "" if modality == ONLY_MODALITY else reader_sentences.modality(modality)
    return reader_sentences.readers(label, figure, inside)


def modality_title(name: str) -> str:
    """Return the name of a modality or system as a column heading.

    A name that is only a number gets a word before it: "1" becomes "modality 1".

    Example:
        >>> modality_title("1"), modality_title("with AI")
        ('modality 1', 'with AI')
    """
    return f"modality {name}" if name.isdigit() else name


def _interval(
    analysis: ReaderAnalysis,
    low: float | None,
    high: float | None,
    *,
    n_comparisons: int = 1,
    cautious: bool = False,
) -> str:
    if low is None or high is None:
        return reader_sentences.NO_INTERVAL
    level = percent_text(analysis.level)
    return reader_sentences.interval(level, n_comparisons, precise_range(low, high), cautious)


def precise_range(low: float | None, high: float | None) -> str:
    """Return an interval as text, with four digits if three would round an end near 0 to 0.

    Example:
        >>> precise_range(-0.08796, 0.00036), precise_range(-0.0880, 0.0040)
        ('−0.0880 to 0.0004', '−0.088 to 0.004')
    """
    if low is None or high is None or min(abs(low), abs(high)) >= 5e-4 or low == high:
        return range_text(low, high)
    return f"{number(low, 4)} to {number(high, 4)}"


def percent_text(level: float) -> str:
    """Return a confidence level in percent as text.

    Example:
        >>> percent_text(0.95)
        '95 %'
    """
    return f"{100 * level:g} %"


def _scope(analysis: ReaderAnalysis, row: StudyRow) -> str:
    """Return for whom a result holds, which depends on whether readers and cases are random."""
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
    return reader_sentences.scope(kind, row.n_readers, alone, fixed_cases)


def _read_by_one(analysis: ReaderAnalysis) -> list[str]:
    """Return the modalities that only one reader used."""
    study = analysis.study
    return [modality for modality in study.modalities if len(study.readers(modality)) == 1]


def reader_notes(analysis: ReaderAnalysis) -> list[str]:
    """Return warnings on the results of a reader study, such as that it has few patients."""
    study = analysis.study
    notes = list(study.notes)
    for label, name in ((True, "positive"), (False, "negative")):
        n_patients = study.truth.loc[study.truth["label"] == label, "patient"].nunique()
        if n_patients < _FEW and analysis.cases == "random":
            notes.append(reader_sentences.few_patients(n_patients, name, _FEW))
    if analysis.readers == "random":
        notes += [reader_sentences.one_reader(modality) for modality in _read_by_one(analysis)]
    freedoms = {
        row.freedom_between
        for row in analysis.rows_of("difference", analysis.primary)
        if row.cautious and row.freedom_between is not None
    }
    if freedoms:
        notes.append(reader_sentences.few_freedom(sorted(freedoms), FREEDOM_OF_A_CLAIM))
    cautious = [
        f"{modality_title(row.first)} {range_text(row.ci_low_all, row.ci_high_all)}"
        for row in analysis.rows_of("mean", analysis.primary)
        if row.ci_low_all is not None
    ]
    if cautious:
        notes.append(reader_sentences.few_readers(cautious, FREEDOM_OF_A_CLAIM + 1))
    evaluated = {row.first for row in analysis.rows_of("system", analysis.metrics[-1])}
    systems = dict.fromkeys(study.systems["reader"])
    undecided = [name for name in systems if name not in evaluated]
    if undecided:
        notes.append(reader_sentences.undecided_systems(undecided))
    return notes
