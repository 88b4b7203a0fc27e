"""The page and the files of a reader study."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.evaluation.report.study_page import (
    Section,
    StudyPage,
    Table,
    text_table,
    write_study,
)
from cxr_compare.evaluation.statistics.figure_text import DASH, number, p_value_text, range_text
from cxr_compare.evaluation.statistics.obuchowski_rockette import (
    FREEDOM_OF_A_CLAIM,
    FREEDOM_OF_THE_OVERALL_TEST,
    OverallTest,
)
from cxr_compare.studies.readers import reader_sentences
from cxr_compare.studies.readers.reader_analysis import ReaderAnalysis, StudyRow
from cxr_compare.studies.readers.reader_charts import (
    charts_by_reader,
    reader_chart,
    reader_curve_name,
)
from cxr_compare.studies.readers.reader_statements import (
    modality_title,
    overall_test_text,
    percent_text,
    precise_range,
    reader_notes,
    reader_statements,
    variance_text,
)


def write_readers(analysis: ReaderAnalysis, out: Path) -> Path:
    """Write the results of a reader study to a folder, and return the path of their page.

    The files are ``readers.csv``, ``readers.json`` and, last, ``readers.html``.
    """
    stored = _readers_dict(analysis)
    page = _page(analysis, stored["notes"])
    html = page.render(
        Path(__file__).with_name("readers.html.jinja"),
        analysis=analysis,
        least_for_claims=FREEDOM_OF_A_CLAIM,
        least_for_overall=FREEDOM_OF_THE_OVERALL_TEST,
    )
    return write_study(out, "readers", stored["figures"], stored, html)


def _readers_dict(analysis: ReaderAnalysis) -> dict[str, Any]:
    """Return the content of ``readers.json``."""
    sentences = reader_statements(analysis)
    return {
        "answer": sentences[0].text,
        "overall": _overall_dict(analysis),
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
        "against_systems": [asdict(against) for against in analysis.against],
        "notes": reader_notes(analysis),
        "provenance": provenance(),
    }


def _crossed(analysis: ReaderAnalysis) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return overall tests and variance components of crossed designs, by metric."""
    for metric, study in analysis.crossed.items():
        overall = None if study.overall is None else _test_dict(study.overall)
        components = None if study.components is None else asdict(study.components)
        yield metric, {"overall": overall, "components": components}


def _overall_dict(analysis: ReaderAnalysis) -> dict[str, Any] | None:
    """Return the overall test of the primary metric, for three modalities or more."""
    overall = analysis.overall(analysis.primary)
    if overall is None:
        return None
    return {
        "metric": analysis.primary,
        **_test_dict(overall.test),
        "n_modalities": overall.n_modalities,
        "freedom_between": overall.freedom_between,
        "decided": overall.decided,
        "pairs": overall.n_pairs,
        "pairs_decided": overall.n_pairs_shown,
    }


def _test_dict(test: OverallTest) -> dict[str, Any]:
    upper, lower = test.freedom
    freedom = [upper, None if lower == float("inf") else lower]
    return asdict(test) | {"freedom": freedom}


def _page(analysis: ReaderAnalysis, notes: list[str]) -> StudyPage:
    study = analysis.study
    truth = analysis.study.truth
    first, *further = reader_statements(analysis)
    n_compared = len(analysis.rows_of("difference", analysis.primary))
    scope = [] if first.shown or not n_compared else [reader_sentences.NOT_EQUAL]
    n_modalities = len(study.modalities)
    if n_modalities > 2 and analysis.primary not in analysis.crossed:
        scope.append(reader_sentences.no_overall(n_modalities))
    if n_compared > 1:
        scope.append(reader_sentences.simultaneous(n_compared))
    names = [*study.modalities, *dict.fromkeys(study.systems["reader"])]
    legend = [modality_title(name) for name in names]
    figures = _figure_table(analysis, analysis.primary)
    others = [
        _figure_table(analysis, metric) for metric in analysis.metrics if metric != analysis.primary
    ]
    differences = _difference_table(analysis)
    overall = _overall_table(analysis)
    components = _component_table(analysis)
    against = _against_table(analysis)
    sections = [
        Section(
            "figures",
            f"{figures.title} of each reader",
            charts=[reader_chart(analysis, legend)],
            beside=figures,
            note=f"The {percent_text(analysis.level)} interval is in brackets.",
            folded={"Other figures of each reader": others} if others else {},
        )
    ]
    readers = study.readings["reader"].nunique()
    if study.has_ratings and readers > 1:
        title = f"{reader_curve_name(study)} curve of each reader"
        sections.append(
            Section("by-reader", title, charts=list(charts_by_reader(analysis, legend)))
        )
    if len(differences.frame):
        primary_title = study.metrics[analysis.primary].title_in_sentence
        lead = reader_sentences.differences_lead(primary_title, _has_claims(analysis))
        tables = [differences]
        if len(overall.frame):
            tables = [overall, differences._replace(title="Comparisons")]
        sections.append(Section("differences", differences.title, lead, tables=tables))
    return StudyPage(
        title="Reader study",
        kicker=reader_sentences.kicker(
            readers,
            len(truth),
            truth["patient"].nunique(),
            int(truth["label"].sum()),
        ),
        answer=first.text,
        scope=[" ".join(scope)] if scope else [],
        statements=further,
        signs=n_compared > 0,
        notes=notes,
        sections=sections,
        details=[
            (table, note)
            for table, note in (
                (components, reader_sentences.COMPONENTS_NOTE),
                (against, reader_sentences.PROGRAM_NOTE),
            )
            if len(table.frame)
        ],
    )


def _figure_table(analysis: ReaderAnalysis, metric: str) -> Table:
    """Return a table of readers by modalities and systems; the last row has means and intervals."""
    study = analysis.study
    single = {
        (row.reader, row.first): number(row.estimate) for row in analysis.rows_of("reader", metric)
    }
    means = analysis.rows_of("mean", metric)
    systems = analysis.rows_of("system", metric)
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
    return text_table(study.metrics[metric].title, columns, (*rows, (name, *last)))


def _with_ends(row: StudyRow) -> str:
    if row.ci_low is None:
        return number(row.estimate)
    return f"{number(row.estimate)} ({range_text(row.ci_low, row.ci_high)})"


def _has_claims(analysis: ReaderAnalysis) -> bool:
    """Return True if a claim is based on another p-value than the published one."""
    rows = [row for row in analysis.rows if row.kind == "difference"]
    n_compared = len(analysis.rows_of("difference", analysis.primary))
    return n_compared > 1 or any(row.cautious for row in rows)


def _difference_table(analysis: ReaderAnalysis) -> Table:
    with_claims = _has_claims(analysis)
    rows = []
    for row in analysis.rows:
        if row.kind != "difference":
            continue
        cells = [
            analysis.study.metrics[row.metric].title,
            f"{modality_title(row.first)} − {modality_title(row.second)}",
            number(row.estimate),
            precise_range(row.ci_low, row.ci_high),
            number(row.std_error, 4),
            "normal" if row.df is None else f"{row.df:.1f}",
            p_value_text(row.p_value),
        ]
        if with_claims:
            n_compared = len(analysis.rows_of("difference", row.metric))
            freedom = row.freedom_between if row.cautious else None
            cells.append(p_value_text(row.p_value_all))
            cells.append(reader_sentences.claim_basis(n_compared, freedom))
        rows.append((*cells, row.design))
    columns = (
        "Figure",
        "Comparison",
        "Difference",
        f"{percent_text(analysis.level)} interval",
        "Standard error",
        "Degrees of freedom",
        "p",
        *(("p of the claim", "The claim rests on") if with_claims else ()),
        "Design",
    )
    return text_table("Differences", columns, rows)


def _overall_table(analysis: ReaderAnalysis) -> Table:
    """Return the overall tests of three modalities or more, one row for each metric."""
    rows = []
    for metric in analysis.metrics:
        overall = analysis.overall(metric)
        if overall is None:
            continue
        verdict = reader_sentences.overall_verdict(
            overall.decided,
            overall.significant,
            overall.freedom_between,
            FREEDOM_OF_THE_OVERALL_TEST,
        )
        title = analysis.study.metrics[metric].title
        rows.append((title, overall_test_text(overall.test), verdict))
    columns = ("Figure", "Overall test", "Modalities")
    return text_table("Overall test", columns, rows)


def _against_table(analysis: ReaderAnalysis) -> Table:
    """Return the variance components of readers against stand-alone systems."""
    rows = []
    for against in analysis.against:
        parts = against.components
        values = (parts.mean_square, parts.reader, parts.cov2, parts.error)
        rows.append(
            (
                analysis.study.metrics[against.metric].title,
                f"{modality_title(against.modality)} − {against.system}",
                *(variance_text(value) for value in values),
            )
        )
    columns = ("Figure", "Comparison", "MS(R)", "Var(R)", "Cov2", "Var(error)")
    title = "Variance components of readers against a system"
    return text_table(title, columns, rows)


def _tested(analysis: ReaderAnalysis, metric: str) -> str:
    """Return the test of all modalities, with a remark if its small p-value does not decide."""
    test = analysis.crossed[metric].overall
    if test is None:
        return DASH
    text = overall_test_text(test)
    overall = analysis.overall(metric)
    decided = analysis.pairs_of(metric)[0].decided if overall is None else overall.decided
    if test.p_value is not None and test.p_value < 1 - analysis.level and not decided:
        return reader_sentences.not_enough(text)
    return text


def _component_table(analysis: ReaderAnalysis) -> Table:
    rows = []
    for metric, study in analysis.crossed.items():
        if study.components is None:
            continue
        components = asdict(study.components).values()
        title = analysis.study.metrics[metric].title
        rows.append(
            (title, _tested(analysis, metric), *(variance_text(value) for value in components))
        )
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
    return text_table("Overall test and variance components", columns, rows)
