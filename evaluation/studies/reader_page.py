"""What a reader study shows: the sentences, the chart and tables of its page, and its files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.evaluation.metrics.image_metrics import rates
from cxr_compare.evaluation.metrics.metric import DASH, listing, number, p_words, span_words
from cxr_compare.evaluation.report.page import Table
from cxr_compare.evaluation.report.plot import Axis, Chart, Curve, Point, legend_sample
from cxr_compare.evaluation.statistics.ranking import Floats, curves
from cxr_compare.evaluation.studies.reader_analysis import (
    MarkedStudy,
    ReaderAnalysis,
    ReaderStudy,
    StudyRow,
)
from cxr_compare.evaluation.studies.readings import ONLY_MODALITY
from cxr_compare.evaluation.studies.study_page import (
    Section,
    ShownChart,
    Statement,
    StudyPage,
    write_study,
)

_FEW = 20
_STEPS = np.linspace(0.0, 1.0, 401)


def write_readers(analysis: ReaderAnalysis, out: Path) -> Path:
    """Write ``readers.csv``, ``readers.json`` and, last, ``readers.html``."""
    stored = _readers_dict(analysis)
    page = _page(analysis, stored["notes"])
    html = page.render("readers.html.jinja", analysis=analysis)
    return write_study(out, "readers", stored["figures"], stored, html)


def _readers_dict(analysis: ReaderAnalysis) -> dict[str, Any]:
    """All of a reader study, as ``readers.json`` holds it."""
    sentences = reader_statements(analysis)
    return {
        "answer": sentences[0].text,
        "findings": [{"text": sentence.text, "decided": sentence.shown} for sentence in sentences],
        "readers": analysis.readers,
        "cases": analysis.cases,
        "level": analysis.level,
        "primary": analysis.primary,
        "n_cases": len(analysis.study.truth),
        "n_patients": int(analysis.study.truth["patient"].nunique()),
        "n_positive": int(analysis.study.truth["label"].sum()),
        "figures": [asdict(row) for row in analysis.rows],
        "crossed": dict(_crossed(analysis)),
        "notes": _notes(analysis),
        "provenance": provenance(),
    }


def reader_statements(analysis: ReaderAnalysis) -> list[Statement]:
    """Every comparison of the primary metric in words; without one the means of the readers.

    A difference is claimed only where the interval that holds for all comparisons at once excludes
    0, and that is the interval quoted.
    """
    differences = analysis.of("difference", analysis.primary)
    if differences:
        return [Statement(_compared(analysis, row), row.decided) for row in differences]
    title = analysis.study.metrics[analysis.primary].inside
    return [
        Statement(
            f"{_who(row.first)} had a mean {title} of {number(row.estimate)} "
            f"({_interval(analysis, row.ci_low, row.ci_high)}), {_scope(analysis, row)}."
        )
        for row in analysis.of("mean", analysis.primary)
    ]


def _compared(analysis: ReaderAnalysis, row: StudyRow) -> str:
    title = analysis.study.metrics[row.metric].inside
    single = [*analysis.of("mean", row.metric), *analysis.of("system", row.metric)]
    means = {of.first: of.estimate for of in single}
    systems = {of.first for of in analysis.of("system", row.metric)}
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
    ends = _interval(analysis, low, high, of_all=len(analysis.of("difference", row.metric)))
    return f"{verdict}: difference {number(gap)} ({ends}), {_scope(analysis, row)}."


def _in_brackets(text: str, *inside: str) -> str:
    """Append what there is in brackets."""
    held = ": ".join(filter(None, inside))
    return f"{text} ({held})" if held else text


def _who(modality: str, figure: str = "") -> str:
    return _in_brackets("Readers", "" if modality == ONLY_MODALITY else _label(modality), figure)


def _label(modality: str) -> str:
    """A modality's name inside a sentence: a bare number says what it numbers."""
    return _title(modality) if modality.isdigit() else f"“{modality}”"


def _title(name: str) -> str:
    """A modality or system at the head of a column: a bare number says what it numbers."""
    return f"modality {name}" if name.isdigit() else name


def _interval(
    analysis: ReaderAnalysis, low: float | None, high: float | None, *, of_all: int = 1
) -> str:
    if low is None or high is None:
        return "no interval: nothing varies"
    words = f"{_percent(analysis.level)} interval"
    words = words if of_all < 2 else f"simultaneous {words} of {of_all} comparisons"
    return f"{words} {_span(low, high)}"


def _span(low: float | None, high: float | None) -> str:
    """An interval; with four digits where three would have it touch 0.

    Example:
        >>> _span(-0.08796, 0.00036), _span(-0.0880, 0.0040)
        ('−0.0880 to 0.0004', '−0.088 to 0.004')
    """
    if low is None or high is None or min(abs(low), abs(high)) >= 5e-4 or low == high:
        return span_words(low, high)
    return f"{number(low, 4)} to {number(high, 4)}"


def _percent(level: float) -> str:
    """A level in percent."""
    return f"{100 * level:g} %"


def _scope(analysis: ReaderAnalysis, row: StudyRow) -> str:
    """For whom a result holds: what is random, in words."""
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
    """Modalities that only one reader read with."""
    study = analysis.study
    return [modality for modality in study.modalities if len(study.readers(modality)) == 1]


def _notes(analysis: ReaderAnalysis) -> list[str]:
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
    means = analysis.of("mean", analysis.primary)
    if few := [row for row in means if row.ci_low_all is not None]:
        told = [f"{_title(m.first)} {span_words(m.ci_low_all, m.ci_high_all)}" for m in few]
        notes.append(
            "Fewer than 5 readers: a published 95 % interval of their mean holds it in 88 to 94 %, "
            "and up to 12 % of studies without a difference show one. Claims rest on cautious "
            "intervals, as wide as the published ones of the tables or wider; of the mean: "
            f"{listing(told)}."
        )
    evaluated = {row.first for row in analysis.of("system", analysis.metrics[-1])}
    if without := [
        name for name in dict.fromkeys(study.systems["reader"]) if name not in evaluated
    ]:
        notes.append(
            f"There is no sensitivity or specificity of {listing(without)}, which decided nothing."
        )
    return notes


def _crossed(analysis: ReaderAnalysis) -> Iterator[tuple[str, dict[str, Any]]]:
    """Overall tests and variance components, of designs in which all read with each modality."""
    for metric, study in analysis.crossed.items():
        overall = None
        if study.overall is not None:
            upper, lower = study.overall.freedom
            freedom = [upper, None if np.isinf(lower) else lower]
            overall = asdict(study.overall) | {"freedom": freedom}
        components = None if study.components is None else asdict(study.components)
        yield metric, {"overall": overall, "components": components}


def _page(analysis: ReaderAnalysis, notes: list[str]) -> StudyPage:
    study = analysis.study
    truth = analysis.study.truth
    chart = _chart(analysis)
    first, *further = reader_statements(analysis)
    n_compared = len(analysis.of("difference", analysis.primary))
    scope = [] if first.shown or not n_compared else [_NOT_EQUAL]
    if n_compared > 1:
        scope.append(f"Intervals here hold for all {n_compared} comparisons at once (Bonferroni).")
    names = [*study.modalities, *dict.fromkeys(study.systems["reader"])]
    legend = [(legend_sample(chart.key, at), _title(name)) for at, name in enumerate(names)]
    figures = _figure_table(analysis, analysis.primary)
    others = [
        _figure_table(analysis, metric) for metric in analysis.metrics if metric != analysis.primary
    ]
    differences = _difference_table(analysis)
    components = _component_table(analysis)
    sections = [
        Section(
            "figures",
            f"{figures.title} of each reader",
            charts=[ShownChart(chart, legend)],
            beside=figures,
            note=f"In brackets: {_percent(analysis.level)} interval.",
            folded={"Other figures of each reader": others} if others else {},
        )
    ]
    readers = study.readings["reader"].nunique()
    if study.has_ratings and readers > 1:
        title = f"{_curve_name(study)} curve of each reader"
        sections.append(Section("by-reader", title, charts=list(_charts_by_reader(analysis))))
    if differences.rows:
        lead = (
            "Each interval and p-value is of that comparison alone. Only "
            f"{study.metrics[analysis.primary].inside} decides the answer above; other figures are "
            "exploratory."
        )
        sections.append(Section("differences", differences.title, lead, tables=[differences]))
    return StudyPage(
        title="Reader study",
        kicker=f"Reader study · {counted(readers, 'reader')} · "
        f"{counted(len(truth), 'case')} of {counted(truth['patient'].nunique(), 'patient')}, "
        f"{truth['label'].sum():,} positive",
        answer=first.text,
        scope=[" ".join(scope)] if scope else [],
        statements=further,
        signs=n_compared > 0,
        notes=notes,
        sections=sections,
        details=[(components, _COMPONENTS)] if components.rows else [],
    )


_NOT_EQUAL = "Not shown to differ is not the same as equal."
_COMPONENTS = (
    "Var(R): readers. Var(TR): readers by modalities. Cov1: same reader, other modality. Cov2: "
    "other reader, same modality. Cov3: both differ. A negative variance is estimated as it stands."
)


def _figure_table(analysis: ReaderAnalysis, metric: str) -> Table:
    """Readers by modalities and systems; the last row has means and systems with intervals."""
    study = analysis.study
    single = {
        (row.reader, row.first): number(row.estimate) for row in analysis.of("reader", metric)
    }
    means = analysis.of("mean", metric)
    systems = analysis.of("system", metric)
    readers = list(dict.fromkeys(study.readings["reader"]))
    rows = [
        (reader, *(single.get((reader, mean.first), DASH) for mean in means), *[""] * len(systems))
        for reader in readers
    ]
    last = tuple(_with_ends(row) for row in (*means, *systems))
    columns = (
        "Reader",
        *(row.first for row in means),
        *(f"{row.first}, system" for row in systems),
    )
    name = "Mean of readers, or system" if systems else "Mean of readers"
    return Table.of(study.metrics[metric].title, "", columns, (*rows, (name, *last)))


def _with_ends(row: StudyRow) -> str:
    if row.ci_low is None:
        return number(row.estimate)
    return f"{number(row.estimate)} ({span_words(row.ci_low, row.ci_high)})"


def _difference_table(analysis: ReaderAnalysis) -> Table:
    rows = [
        (
            analysis.study.metrics[row.metric].title,
            f"{_title(row.first)} − {_title(row.second)}",
            number(row.estimate),
            _span(row.ci_low, row.ci_high),
            number(row.std_error, 4),
            "normal" if row.df is None else f"{row.df:.1f}",
            p_words(row.p_value),
            row.design,
        )
        for row in analysis.rows
        if row.kind == "difference"
    ]
    columns = (
        "Figure",
        "Comparison",
        "Difference",
        f"{_percent(analysis.level)} interval",
        "Standard error",
        "Degrees of freedom",
        "p",
        "Design",
    )
    return Table.of("Differences", "", columns, tuple(rows))


def _component_table(analysis: ReaderAnalysis) -> Table:
    rows = []
    for metric, study in analysis.crossed.items():
        if study.components is None:
            continue
        test = study.overall
        words = DASH
        if test is not None:
            upper, lower = test.freedom
            name = f"χ²({upper})" if np.isinf(lower) else f"F({upper}, {lower:.2f})"
            words = f"{name} = {test.statistic:.2f}, p {p_words(test.p_value)}"
        parts = asdict(study.components).values()
        title = analysis.study.metrics[metric].title
        rows.append((title, words, *(f"{value:.3g}" for value in parts)))
    columns = (
        "Figure",
        "All modalities equal",
        "Var(R)",
        "Var(TR)",
        "Cov1",
        "Cov2",
        "Cov3",
        "Var(error)",
    )
    return Table.of("Overall test and variance components", "", columns, tuple(rows))


def _chart(analysis: ReaderAnalysis) -> Chart:
    """The mean of a modality's readers, and each system."""
    study = analysis.study
    drawn: list[Curve] = []
    for at, modality in enumerate(study.modalities):
        readings = study.readings[study.readings["modality"] == modality]
        drawn += _modality_curves(analysis, readings, modality, at)
    title = "Each reader, and the mean"
    note = ""
    if study.has_ratings:
        title = f"{_curve_name(study)}, mean of readers"
        note = "The mean is that of the readers' curves, upwards at each place of the axis. "
    if study.has_decisions and not isinstance(study, MarkedStudy):
        note += "Dots: decisions of one reader; diamonds: their mean, or a system."
    description = f"{title}: {reader_statements(analysis)[0].text}"
    curves = (*drawn, *_system_curves(analysis))
    return _framed(
        study, key="readers", title=title, curves=curves, description=description, note=note
    )


def _curve_name(study: ReaderStudy) -> str:
    return "Weighted AFROC" if isinstance(study, MarkedStudy) else "ROC"


def _framed(study: ReaderStudy, **options: Any) -> Chart:
    """A chart of readers' curves with its axes."""
    if isinstance(study, MarkedStudy):
        x = "Cases without a lesion that have a false mark"
        y = "Lesions found, weighted"
        return Chart(x=Axis(x), y=Axis(y), **options)
    x = "1 − specificity (false alarms among negatives)"
    y = "Sensitivity"
    guides = (((0, 1), (0, 1)),)
    return Chart(x=Axis(x), y=Axis(y), guides=guides, guide_label="guessing", **options)


def _charts_by_reader(analysis: ReaderAnalysis) -> Iterator[ShownChart]:
    """A chart of each reader: the curve with every modality, and each system."""
    study = analysis.study
    for place, (reader, readings) in enumerate(study.readings.groupby("reader", sort=False)):
        curves = []
        for modality, rows in readings.groupby("modality", sort=False):
            name = f"{reader}, {modality}"
            at = study.modalities.index(str(modality))
            point = _point(analysis, rows, name, ".")
            curves.append(Curve(name, at, *_line(analysis, rows), point))
        title = f"Reader {reader}" if str(reader).isdigit() else str(reader)
        yield ShownChart(
            _framed(
                study,
                key=f"reader-{place}",
                title=title,
                curves=(*curves, *_system_curves(analysis)),
                description=f"{_curve_name(study)} of {title}",
            )
        )


def _system_curves(analysis: ReaderAnalysis) -> Iterator[Curve]:
    study = analysis.study
    systems = study.systems.groupby("reader", sort=False)
    for at, (name, rows) in enumerate(systems, len(study.modalities)):
        line = _line(analysis, rows) if study.has_ratings else (np.empty(0), np.empty(0))
        yield Curve(str(name), at, *line, _point(analysis, rows, str(name), "D"))


def _modality_curves(
    analysis: ReaderAnalysis, readings: pd.DataFrame, modality: str, at: int
) -> Iterator[Curve]:
    nothing = np.empty(0)
    heights: list[Floats] = []
    points: list[Point] = []
    for reader, rows in readings.groupby("reader", sort=False):
        label = f"{reader}, {modality}"
        point = _point(analysis, rows, label, ".")
        points += point
        if analysis.study.has_ratings:
            heights.append(np.interp(_STEPS, *_line(analysis, rows)))
        if point:
            yield Curve(label, at, nothing, nothing, point, faint=True)
    middle: tuple[Point, ...] = ()
    if points:
        x, y = (float(np.mean([getattr(point, of) for point in points])) for of in "xy")
        middle = (Point(x, y, f"{modality}: mean of {counted(len(points), 'reader')}", "D"),)
    if heights:
        mean = np.concatenate([[0.0], np.mean(heights, axis=0)])
        yield Curve(modality, at, np.concatenate([[0.0], _STEPS]), mean, middle)
    elif middle:
        yield Curve(modality, at, nothing, nothing, middle)


def _line(analysis: ReaderAnalysis, rows: pd.DataFrame) -> tuple[Floats, Floats]:
    """The ROC curve of ratings, the weighted AFROC curve of marks."""
    if isinstance(analysis.study, MarkedStudy):
        finds, weight = analysis.study.finds(rows)
        return finds.afroc_curve(weight)
    line = curves(analysis.study.truth["label"].loc[rows["case"]], rows["rating"])
    return line["fpr"], line["tpr"]


def _point(
    analysis: ReaderAnalysis, rows: pd.DataFrame, label: str, marker: str
) -> tuple[Point, ...]:
    """Where decisions lie on an ROC curve; nothing without any."""
    of_marks = isinstance(analysis.study, MarkedStudy)
    if of_marks or "decision" not in rows or rows["decision"].isna().any():
        return ()
    truth = analysis.study.truth["label"].loc[rows["case"]].to_numpy(dtype=bool)
    called = rows["decision"].to_numpy() == 1
    kinds = (truth & called, ~truth & called, ~truth & ~called, truth & ~called)
    values = rates(*(kind.sum() for kind in kinds))
    sensitivity = float(values["recall"])
    specificity = float(values["specificity"])
    words = f"{label}: sensitivity {number(sensitivity)}, specificity {number(specificity)}"
    return (Point(1 - specificity, sensitivity, words, marker),)
