"""The tables of docs/validity.md, docs/guarantees.md and docs/validity.csv, from stored results."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from tools.simulation.policy_designs import POLICIES, RATES

Results = Mapping[str, Sequence[Mapping[str, Any]]]
"""Results of the cases at two revisions, ``before`` and ``after``, in the order of the page."""


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        title: Title of the column.
        key: Name of the measured value.
        share: True if the value is a share, which is shown in percent.
        when: ``before`` or ``after``; only tables with a row for each case have columns of
            ``before``.
    """

    title: str
    key: str
    share: bool = True
    when: str = "after"  # only tables with a line a case have columns of ``before``


class Table(NamedTuple):
    """A table of a page.

    Attributes:
        name: Name in the comments around the table.
        design: Name of the design.
        columns: Columns of the table.
        rows: Part of the names of the cases that are shown; several are joined by ``|``.
        page: Name of the page.
        cases: Title of the first column of a table with a row for each case; empty for a table with
            a row for each value.
        ranged: True if cases whose names differ only in the last part share a row.
    """

    name: str
    design: str
    columns: tuple[Column, ...]
    rows: str = ""
    page: str = "validity"
    cases: str = ""
    ranged: bool = False


_WAYS = {
    "patients": "by patient",
    "images": "by image",
    "MAPIE": "MAPIE",
    "one image": "one image each",
    "Bonferroni": "Bonferroni",
}

_RINGS = {"monitor": "monitor", "CUSUM": "CUSUM", "MAPIE martingale of scores": "MAPIE"}
_NOT_FOUND = 9_999  # patients


TABLES = (
    Table(
        "max_f1",
        "thresholds",
        (
            Column("sensitivity", "max_f1|recall"),
            Column("F1", "max_f1|f1"),
            Column("headline", "headline"),
            Column("any sentence of the report", "any"),
        ),
    ),
    Table(
        "recall_coverage",
        "thresholds",
        (Column("interval holds the mean sensitivity", "recall covers"),),
    ),
    Table(
        "policies",
        "policies",
        tuple(
            Column(f"{policy_title}: {title}", f"{policy}|{metric}|covers")
            for policy, policy_title in POLICIES.items()
            for metric, title in RATES.items()
        ),
    ),
    Table(
        "floor_intervals",
        "policies",
        (
            Column("sensitivity >= 0.90: sensitivity", "sensitivity>=0.90|recall|covers"),
            Column("specificity", "sensitivity>=0.90|specificity|covers"),
            Column("precision", "sensitivity>=0.90|precision|covers"),
            Column("NPV", "sensitivity>=0.90|npv|covers"),
            Column("has an interval", "sensitivity>=0.90|specificity|interval"),
        ),
        cases="design",
    ),
    Table(
        "auroc",
        "auroc",
        (
            Column("interval holds the AUROC", "covers"),
            Column("interval of the difference includes 0", "difference covers"),
            Column("headline wrong", "headline"),
            Column("any sentence of the report wrong", "any"),
        ),
    ),
    Table(
        "chance",
        "chance",
        (
            Column("headline wrong", "headline"),
            Column("any sentence of the report wrong", "any"),
        ),
    ),
    Table(
        "seeds",
        "seeds",
        (
            Column("AUROC", "auroc"),
            Column("sensitivity", "max_f1|recall"),
            Column("interval holds the recipe's AUROC", "auroc covers"),
            Column("interval holds its sensitivity", "recall covers"),
        ),
    ),
    Table(
        "groups",
        "groups",
        (
            Column("AUROC: the interval excludes 0", "auroc|A|interval"),
            Column("AUROC: p < 0.05", "auroc|A|test"),
            Column("difference of two systems: p < 0.05", "auroc|interaction|test"),
            Column("any test, after Holm's correction", "any by Holm"),
        ),
    ),
    Table(
        "guarantees",
        "guarantees",
        tuple(
            Column(title, f"{policy}|any")
            for policy, title in (
                ("max_f1", "best F1"),
                ("sensitivity>=0.95", "sensitivity >= 0.95"),
                ("specificity>=0.90", "specificity >= 0.90"),
            )
        ),
    ),
    Table(
        "boxes",
        "boxes",
        (
            Column("AP50", "ap50"),
            Column("FROC", "froc_mean"),
            Column("localised sensitivity", "localised_sensitivity"),
            Column("RSNA score", "rsna_score"),
            Column("interval holds the true AP50", "ap50 covers"),
        ),
    ),
    Table(
        "overlaps",
        "overlaps",
        (
            Column("FROC", "froc_mean"),
            Column("RSNA score", "rsna_score"),
            Column("AP50 of the decided boxes", "ap50_decided"),
            Column("interval holds the true FROC", "froc_mean covers"),
            Column("that of the RSNA score", "rsna_score covers"),
            Column("that of the AP50 of the decided boxes", "ap50_decided covers"),
        ),
    ),
    Table(
        "reference",
        "reference",
        (
            Column("interval of the corrected AUROC holds the true one", "auroc covers"),
            Column("that of the corrected difference of AUROCs", "difference covers"),
            Column("that of the corrected sensitivity", "recall covers"),
            Column("that of the corrected specificity", "specificity covers"),
            Column(
                "interval of the AUROC by the labels as they are holds the true one",
                "auroc by the labels covers",
            ),
        ),
    ),
    Table(
        "verdicts",
        "verdicts",
        (
            Column("one reader's labels give another verdict", "one reader's is another"),
            Column(
                "the labels of at least one of three readers give another verdict",
                "any reader's is another",
            ),
            Column("the verdict is reversed", "turned round"),
        ),
    ),
    Table(
        "joined",
        "joined",
        (
            Column("better than each: AUROC", "auroc"),
            Column("F1", "f1"),
            Column("accuracy", "accuracy"),
            Column("weight of the second within 2 standard errors of 0", "weight within 2 errors"),
            Column("AUROC lost", "auroc lost", share=False),
            Column("F1 too high: cross-fitted", "optimism, cross-fitted", share=False),
            Column("F1 too high: not", "optimism, fitted", share=False),
        ),
        cases="second system, validation / test patients",
    ),
    Table(
        "joined_boxes",
        "joined_boxes",
        (
            Column("better than the detector: AP50", "ap50"),
            Column("FROC mean", "froc_mean"),
            Column("RSNA score", "rsna_score"),
            Column("mean gain: AP50", "ap50 gained", share=False),
            Column("FROC mean", "froc_mean gained", share=False),
            Column("RSNA score", "rsna_score gained", share=False),
        ),
        cases="classifier, validation / test patients",
    ),
    Table(
        "folds",
        "folds",
        (
            Column("one of two equal learners is higher", "claimed"),
            Column("any of 36 pairs differs (Holm)", "any of 36"),
            Column("interval holds the recipe's AUROC", "covers"),
        ),
    ),
    Table("plans", "plans", (Column("a difference is shown (planned: 80)", "shown"),)),
    Table(
        "reader_model",
        "reader_model",
        (
            Column("a pair: published", "pair, published"),
            Column("cautious", "pair, cautious"),
            Column("overall test: published", "overall, published"),
            Column("**any claim, as reported**", "any claim"),
            Column("power, a pair: published", "power, pair, published"),
            Column("cautious", "power, pair, cautious"),
            Column("**any claim, as reported**", "power, any claim"),
        ),
        "",
        "validity",
        "modalities, readers",
        True,
    ),
    Table(
        "nested_readers",
        "nested_readers",
        (
            Column("published", "pair, published"),
            Column("cautious", "pair, cautious"),
            Column("**as reported**", "any claim"),
        ),
        "",
        "validity",
        "readers of either modality",
    ),
    Table(
        "few_readers",
        "few_readers",
        (
            Column("readers differ from an equal system", "claimed"),
            Column("interval holds the readers' mean AUROC", "covers"),
        ),
    ),
    Table(
        "curves",
        "curves",
        (
            Column("band holds the AUROC at 200 images", "covers|200"),
            Column(
                "band at 1,600 images, where the page draws none, holds the AUROC", "covers|1600"
            ),
            Column("the test finds a lack of fit", "lack of fit"),
        ),
    ),
    Table(
        "marks",
        "marks",
        (
            Column("weighted AFROC", "wafroc"),
            Column("AFROC", "afroc"),
            Column("interval holds the readers' mean weighted AFROC", "covers"),
            Column("the cautious interval for fewer than 5 readers holds it", "covers, cautious"),
            Column("weighted AFROC, against an equal system", "wafroc system"),
        ),
    ),
    Table(
        "guaranteed_shares",
        "risk_control",
        (
            *(
                Column(_WAYS[way], f"{way}|broken")
                for way in ("patients", "images", "MAPIE", "one image")
            ),
            *(
                Column(f"other figure: {_WAYS[way]}", f"{way}|price")
                for way in ("patients", "images", "Bonferroni")
            ),
        ),
        "sensitivity, |specificity, |localised, ",
        "guarantees",
        "guarantee, images",
        True,
    ),
    Table(
        "guaranteed_two",
        "risk_control",
        (
            Column("PPV: violated", "ppv|broken"),
            Column("PPV: threshold found", "ppv|given"),
            Column("both: violated", "both|broken"),
            Column("both: threshold found", "both|given"),
        ),
        "two figures, ",
        "guarantees",
        "images a patient, correlation",
    ),
    Table(
        "guaranteed_boxes",
        "risk_control",
        (
            Column("violated", "marks|broken"),
            Column("threshold found", "marks|given"),
            Column("true mean", "marks|mean", share=False),
        ),
        "false boxes, ",
        "guarantees",
        "images a patient, correlation",
    ),
    Table(
        "guaranteed_real",
        "risk_control",
        (
            *(
                Column(f"all: {_WAYS[way]}", f"{way}|broken")
                for way in ("patients", "images", "MAPIE")
            ),
            *(
                Column(f"other half: {_WAYS[way]}", f"{way}|other half")
                for way in ("patients", "images")
            ),
            Column("other figure: by patient", "patients|price"),
            Column("by image", "images|price"),
        ),
        "real patients, ",
        "guarantees",
        "guarantee",
    ),
    Table(
        "guaranteed_few_real",
        "risk_control",
        (
            Column("violated: by patient", "patients|broken"),
            Column("violated: by image", "images|broken"),
            Column("threshold found", "patients|given"),
            Column("validation below the bound", "patients|own below"),
            Column("other figure", "patients|price"),
        ),
        "few real patients, ",
        "guarantees",
        "score, guarantee, patients",
    ),
    Table(
        "guaranteed_few",
        "risk_control",
        (
            Column("threshold found", "patients|given"),
            Column("violated, of all sets", "patients|broken of all"),
            Column("violated, of sets with a threshold", "patients|broken"),
        ),
        "few patients, ",
        "guarantees",
        "images a patient, patients",
    ),
    Table(
        "streams",
        "streams",
        (
            Column("by patient", "any alarm, by patient"),
            Column("by image", "any alarm, by image"),
            Column("call rate alone, by image", "call rate, by image"),
            Column("MAPIE's risk monitoring", "MAPIE risk monitoring of calls"),
            Column("MAPIE's martingale", "MAPIE martingale of scores"),
        ),
        "",
        "guarantees",
        "streams without a change",
    ),
    Table(
        "faults",
        "faults",
        tuple(
            Column(f"{title}: {_RINGS[way]}", f"{key}, {way}", share=key == "found")
            for key, title in (("median patients", "median patients"), ("found", "found"))
            for way in ("monitor", "CUSUM", "MAPIE martingale of scores")
        ),
        "",
        "guarantees",
        "change",
    ),
    Table(
        "quiet_hospitals",
        "quiet_hospitals",
        (Column("false alarm", "false alarm"),),
        "",
        "guarantees",
        "stream without a change",
    ),
    Table(
        "delays",
        "delays",
        (
            Column("median days", "median days, monitor", share=False),
            Column("found", "found, monitor"),
            Column("in 30 days", "found in 30 days, monitor"),
            Column("before: median days", "median days, monitor", share=False, when="before"),
            Column("before: found", "found, monitor", when="before"),
            Column("oracle: median days", "median days, oracle", share=False),
        ),
        "",
        "guarantees",
        "change",
    ),
)


def with_tables(page: str, results: Results, name: str = "validity") -> str:
    """Write every table of a page again.

    Args:
        page: Text of the page, with two comments around each table.
        results: Results of all cases, by column.
        name: Name of the page, ``validity`` or ``guarantees``.

    Returns:
        The text with new tables.

    Raises:
        ValueError: The page lacks the comments of a table.
    """
    cases = {(row["design"], row["case"]) for rows in results.values() for row in rows}
    for table in (each for each in TABLES if each.page == name):
        parts = table.rows.split("|")
        if not any(table.design == d and any(p in case for p in parts) for d, case in cases):
            continue
        begin = f"<!--{table.name}-->"
        end = f"<!--/{table.name}-->"
        if begin not in page or end not in page:
            raise ValueError(f"docs/{name}.md lacks the marks of table {table.name}")
        written = _by_case(table, results) if table.cases else _written(table, results)
        found = f"{begin}\n\n{written}\n\n{end}"
        page = re.sub(
            f"{re.escape(begin)}.*?{re.escape(end)}", lambda _, new=found: new, page, flags=re.S
        )
    return page


def every_row(results: Results) -> str:
    """Return all results as CSV, one line for each measured value.

    The page shows only the range over the cases of a design.

    Args:
        results: Results of all cases, by column.

    Returns:
        The text of the file.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ("design", "case", "figure", "when", "mean", "error", "sets", "seed", "revision")
    )
    for when, rows in results.items():
        for row in rows:
            for figure, found in row["found"].items():
                own = (found["mean"], found["error"], found["n"], row["seed"], row["revision"])
                writer.writerow((row["design"], row["case"], figure, when, *own))
    return out.getvalue()


def _written(table: Table, results: Results) -> str:
    """Return a table with a row for each value: its range over the cases of the design."""
    rows = [
        row
        for row in results["after"]
        if row["design"] == table.design and table.rows in row["case"]
    ]
    cells = [
        [row["found"][column.key] for row in rows if column.key in row["found"]]
        for column in table.columns
    ]
    error = 100 * max(each["error"] for cell in cells for each in cell)
    lines = [
        _row([f"{_designs(rows)} data sets, standard error at most {error:.1f}", "%"]),
        _row(["---", "---:"]),
    ]
    titled = zip(table.columns, cells, strict=True)
    return "\n".join([*lines, *(_row([c.title, _range(cell, c)]) for c, cell in titled)])


def _by_case(table: Table, results: Results) -> str:
    """Return a table with a row for each case of the design."""
    chosen = [
        row
        for row in results["after"]
        if row["design"] == table.design and row["case"].startswith(tuple(table.rows.split("|")))
    ]
    lines = [
        _row([table.cases, *(column.title for column in table.columns)]),
        _row(["---", *["---:" for _ in table.columns]]),
    ]
    by_case = {
        when: {(row["design"], row["case"]): row["found"] for row in rows}
        for when, rows in results.items()
    }
    titled = ((_title(row["case"], table), (row["design"], row["case"])) for row in chosen)
    for title, of in groupby(titled, key=itemgetter(0)):
        cases = [case for _, case in of]
        cells = []
        for column in table.columns:
            each = (by_case[column.when].get(case, {}) for case in cases)
            cells.append([figures[column.key] for figures in each if column.key in figures])
        titled_cells = zip(cells, table.columns, strict=True)
        lines.append(_row([title, *(_cell(found, column) for found, column in titled_cells)]))
    errors = [
        figures[column.key]["error"]
        for column in table.columns
        if column.share
        for row in chosen
        if column.key in (figures := by_case[column.when].get((row["design"], row["case"]), {}))
    ]
    return "\n".join([*lines, "", _source(chosen, max(errors, default=0.0))])


def _cell(found: Sequence[Mapping[str, float]], column: Column) -> str:
    """Return the range of several means; empty if nothing was measured before a change."""
    return _range(found, column) if found or column.when == "after" else ""


def _title(case: str, table: Table) -> str:
    name = case.removeprefix(table.rows).replace("rsna", "RSNA").replace("nih", "NIH")
    return name.rpartition(", ")[0] if table.ranged else name


def _range(found: Sequence[Mapping[str, float]], column: Column) -> str:
    """Return the lowest and the highest of several means as text."""
    digits, factor = (1, 100) if column.share else (3, 1)
    if column.key.startswith("median"):
        digits = 0
        found = [each for each in found if each["mean"] < _NOT_FOUND]
    means = [f"{factor * each['mean']:z.{digits}f}" for each in found]
    ends = (
        dict.fromkeys(sorted((min(means, key=float), max(means, key=float)), key=float))
        if means
        else ()
    )
    return "–".join(ends).replace("-", "−") or "–"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _source(rows: Sequence[Mapping[str, Any]], error: float) -> str:
    text = f"{_designs(rows)} data sets"
    return text + (f"; standard error at most {100 * error:.1f}." if error else ".")


def _designs(rows: Sequence[Mapping[str, Any]]) -> str:
    sets = sorted({row["sets"] for row in rows})
    each = "–".join(f"{count:,}" for count in dict.fromkeys([sets[0], sets[-1]]))
    return f"{len(rows)} designs of {each}"
