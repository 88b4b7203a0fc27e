"""The tables of docs/validity.md, docs/promises.md and docs/validity.csv, from stored results."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Results = Mapping[str, Sequence[Mapping[str, Any]]]
"""Results of the cases at two revisions, ``before`` and ``after``, in the order of the page."""


class Column(NamedTuple):
    """A column: its title, what was found, and whether that is a share (in percent)."""

    title: str
    key: str
    share: bool = True


class Table(NamedTuple):
    """A table: its place in the page, the design, its columns, and a part of its rows' names.

    With `cases`, the title of its first column, it has a line a case, else a line a figure.
    """

    name: str
    design: str
    columns: tuple[Column, ...]
    rows: str = ""
    page: str = "validity"
    cases: str = ""


_METRICS = {
    "recall": "sensitivity", "specificity": "specificity", "f1": "F1", "accuracy": "accuracy",
}  # fmt: skip


def _at(policy: str, kind: str = "") -> tuple[Column, ...]:
    return tuple(Column(title, f"{policy}|{name}{kind}") for name, title in _METRICS.items())


_AT_CUT = {
    "rsna_score": "RSNA score", "iobb_accuracy_25": "IoBB accuracy at 25 %",
    "iobb_false_marks_25": "IoBB false positives at 25 %",
}  # fmt: skip
_BOXES = {
    "ap50": "AP50", "ap": "AP[.5:.95]", "froc_mean": "FROC", "froc_centre_mean": "FROC by centre",
    "pointing_accuracy": "pointing accuracy", "localised_sensitivity": "localised sensitivity",
    **_AT_CUT,
}  # fmt: skip
_WAYS = {
    "patients": "by patient", "images": "by image", "MAPIE": "MAPIE",
    "one image": "one image each", "Bonferroni": "Bonferroni",
}  # fmt: skip

_RINGS = {"monitor": "monitor", "CUSUM": "CUSUM", "MAPIE martingale of scores": "MAPIE"}
_NOT_FOUND = 9_999  # patients


def _broken(other: str) -> tuple[Column, ...]:
    """How often a promise was broken, and what it leaves of the other figure."""
    broken = (Column(title, f"{way}|broken") for way, title in _WAYS.items())
    left = (Column(f"{other}: {title}", f"{way}|price") for way, title in _WAYS.items()
            if way != "MAPIE")  # fmt: skip
    return (*broken, *left)


_OPENING = (Column("headline", "headline"), Column("any sentence", "any"))
TABLES = (
    Table("max_f1", "thresholds", (*_at("max_f1"), *_OPENING)),
    Table("recall_coverage", "thresholds", (
        Column("95 % interval holds the mean sensitivity", "recall covers"),
        Column("thresholds held: holds that of this threshold", "recall covers|held"),
    )),
    Table("auroc", "auroc", (
        Column("95 % interval holds the AUROC", "covers"),
        Column("interval of the difference holds 0", "difference covers"),
        Column("headline wrong", "headline"),
        Column("any sentence wrong", "any"),
    )),
    Table("seeds", "seeds", (
        Column("AUROC", "auroc"),
        *_at("max_f1"),
        Column("interval holds the recipe's AUROC", "auroc covers"),
        Column("interval holds its sensitivity", "recall covers"),
    )),
    Table("several", "several", (*_OPENING, Column("one is called the highest", "highest"))),
    Table("readers", "readers", (
        Column("AUROC", "auroc"),
        Column("sensitivity", "recall"),
        Column("specificity", "specificity"),
        Column("interval holds the readers' mean AUROC", "covers"),
    )),
    Table("groups", "groups", (
        *(Column(f"{title}: interval leaves 0 out", f"{name}|A|interval")
          for name, title in (("auroc", "AUROC"), ("recall", "sensitivity"),
                              ("specificity", "specificity"))),
        Column("AUROC: p < 0.05", "auroc|A|test"),
        Column("difference of two systems: p < 0.05", "auroc|interaction|test"),
        Column("any of all tests, Holm", "any by Holm"),
        Column("AUROC: counts only", "auroc|A|none"),
    )),
    Table("transfer", "transfer", (
        Column("any of 2 drops shown", "any shown"),
        Column("interval holds a drop of 0", "drop covers"),
        Column("interval elsewhere holds the AUROC", "away covers"),
    )),
    Table("promises", "promises", tuple(
        Column(f"{title}, any of three marked", f"{policy}|any")
        for policy, title in (("max_f1", "best F1"), ("sensitivity>=0.95", "sensitivity >= 0.95"),
                              ("specificity>=0.90", "specificity >= 0.90"))
    )),
    Table("boxes", "boxes", (
        *(Column(title, name) for name, title in _BOXES.items()),
        *(Column(f"{_BOXES[name]}, cut held", f"{name}|held") for name in _AT_CUT),
        *(Column(f"{_BOXES[name]}: interval holds it", f"{name} covers")
          for name in ("ap50", "ap", "froc_centre_mean", *_AT_CUT)),
    )),
    Table("goals", "goals", (
        Column("sensitivity called met", "sensitivity"),
        Column("specificity called met", "specificity"),
        Column("both called met", "co-primary"),
        Column("a goal called missed", "missed"),
        Column("both called met, truth 0.1 above", "easy"),
    )),
    Table("predictive", "predictive", (
        Column("interval holds the PPV", "ppv covers"),
        Column("interval holds the NPV", "npv covers"),
    )),
    Table("verdicts", "verdicts", (
        Column("the verdict by one reader's labels is another", "one reader's is another"),
        Column("by any of three readers' labels", "any reader's is another"),
        Column("the verdict is the opposite", "turned round"),
    )),
    Table("shortcuts", "shortcuts", (
        Column("above 0.5", "above"), Column("below 0.5", "below"),
        Column("interval holds the AUROC", "covers"),
    )),
    Table("folds", "folds", (
        Column("one of two equal learners is higher", "claimed"),
        Column("any of 36 pairs differs (Holm)", "any of 36"),
        Column("interval holds the recipe's AUROC", "covers"),
    )),
    Table("plans", "plans", (Column("a difference is shown, planned: 80", "shown"),)),
    Table("few_readers", "few_readers", (
        Column("readers differ from an equal system", "claimed"),
        Column("interval holds the readers' mean AUROC", "covers"),
    )),
    Table("curves", "curves", (
        *(Column(f"band holds the AUROC at {size} images", f"covers|{size}")
          for size in (100, 200, 400, 800)),
        Column("at 1,600, where none is drawn", "covers|1600"),
        Column("lack of fit is found", "lack of fit"),
    )),
    Table("marks", "marks", (
        Column("weighted AFROC", "wafroc"),
        Column("AFROC", "afroc"),
        Column("FROC", "froc"),
        Column("lesion sensitivity", "lesion_sensitivity"),
        Column("AUROC, highest rating", "auroc"),
        Column("interval holds the readers' mean weighted AFROC", "covers"),
        Column("the cautious one, of fewer than 5 readers", "covers, cautious"),
        Column("weighted AFROC, against an equal system", "wafroc system"),
    )),
    Table("promised_sensitivity", "risk_control", _broken("specificity"),
          "sensitivity, ", "promises", "images a patient, correlation"),
    Table("promised_specificity", "risk_control", _broken("sensitivity"),
          "specificity, ", "promises", "images a patient, correlation"),
    Table("promised_two", "risk_control", (
        Column("PPV: broken", "ppv|broken"), Column("PPV: a threshold", "ppv|given"),
        Column("both: broken", "both|broken"), Column("both: a threshold", "both|given"),
    ), "two figures, ", "promises", "images a patient, correlation"),
    Table("promised_boxes", "risk_control", (
        Column("broken", "marks|broken"), Column("a threshold", "marks|given"),
        Column("true mean", "marks|mean", share=False),
    ), "false boxes, ", "promises", "images a patient, correlation"),
    Table("promised_real", "risk_control", (
        *(Column(f"{title}: {_WAYS[way]}", f"{way}|{key}")
          for way in ("patients", "images", "MAPIE")
          for key, title in (("other half", "other half"), ("broken", "all"))),
        Column("all, weighted: by patient", "patients|weighted"),
        Column("other figure: by patient", "patients|price"),
        Column("by image", "images|price"),
    ), "real patients, ", "promises", "promise"),
    Table("streams", "streams", (
        Column("by patient", "any alarm, by patient"), Column("by image", "any alarm, by image"),
        Column("call rate alone, by image", "call rate, by image"),
        Column("MAPIE's risk monitoring", "MAPIE risk monitoring of calls"),
        Column("MAPIE's martingale", "MAPIE martingale of scores"),
    ), "", "promises", "streams without a change"),
    Table("faults", "faults", tuple(
        Column(f"{title}: {_RINGS[way]}", f"{key}, {way}", share=key == "found")
        for key, title in (("median patients", "median patients"), ("found", "found"))
        for way in ("monitor", "CUSUM", "MAPIE martingale of scores")
    ), "", "promises", "change"),
)  # fmt: skip


def with_tables(page: str, results: Results, name: str = "validity") -> str:
    """The page of that name with every table between its two marks written again."""
    cases = {(row["design"], row["case"]) for rows in results.values() for row in rows}
    for table in (each for each in TABLES if each.page == name):
        if not any(table.design == design and table.rows in case for design, case in cases):
            continue
        begin, end = f"<!--{table.name}-->", f"<!--/{table.name}-->"
        if begin not in page or end not in page:
            raise ValueError(f"docs/{name}.md lacks the marks of table {table.name}")
        written = _by_case(table, results) if table.cases else _written(table, results)
        found = f"{begin}\n\n{written}\n\n{end}"
        page = re.sub(
            f"{re.escape(begin)}.*?{re.escape(end)}", lambda _, new=found: new, page, flags=re.S
        )
    return page


def every_row(results: Results) -> str:
    """All that was found, a line a figure, as CSV: the page has the range over a design's cases."""
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
    """A line a figure: its range over the cases of the design, before and now."""
    chosen = {
        when: [row for row in rows if row["design"] == table.design and table.rows in row["case"]]
        for when, rows in results.items()
    }
    cells = {
        (column.key, when): [row["found"][column.key] for row in rows if column.key in row["found"]]
        for column in table.columns
        for when, rows in chosen.items()
    }
    shown = [when for when in ("before", "after") if any(cells[c.key, when] for c in table.columns)]
    titles = {"before": "before", "after": "now"}
    lines = [_row(["", *(titles[when] for when in shown)]), _row(["---", *["---:" for _ in shown]])]
    lines += [
        _row([column.title, *(_range(cells[column.key, when], column) for when in shown)])
        for column in table.columns
    ]
    now = chosen["after"] or chosen["before"]
    errors = [
        each["error"] for c in table.columns if c.share for each in cells[c.key, shown[-1]]
    ] if shown else []  # fmt: skip
    return "\n".join([*lines, "", _source(now, max(errors, default=0.0))])


def _by_case(table: Table, results: Results) -> str:
    """A line a case of the design, and the largest standard error of a share."""
    chosen = [row for row in results["after"]
              if row["design"] == table.design and row["case"].startswith(table.rows)]  # fmt: skip
    lines = [_row([table.cases, *(column.title for column in table.columns)]),
             _row(["---", *["---:" for _ in table.columns]])]  # fmt: skip
    for row in chosen:
        cells = [[row["found"][c.key]] if c.key in row["found"] else [] for c in table.columns]
        title = row["case"].removeprefix(table.rows).replace("rsna", "RSNA").replace("nih", "NIH")
        shown = (_range(cell, column) for cell, column in zip(cells, table.columns, strict=True))
        lines.append(_row([title, *shown]))
    shares = [column.key for column in table.columns if column.share]
    errors = [row["found"][key]["error"] for row in chosen for key in shares if key in row["found"]]
    return "\n".join([*lines, "", _source(chosen, max(errors, default=0.0))])


def _range(found: Sequence[Mapping[str, float]], column: Column) -> str:
    """The least and the greatest of several means."""
    digits, factor = (1, 100) if column.share else (3, 1)
    if column.key.startswith("median"):
        digits, found = 0, [each for each in found if each["mean"] < _NOT_FOUND]
    means = [f"{factor * each['mean']:.{digits}f}" for each in found]
    ends = (
        dict.fromkeys(sorted((min(means, key=float), max(means, key=float)), key=float))
        if means
        else ()
    )
    return "–".join(ends) or "–"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _source(rows: Sequence[Mapping[str, Any]], error: float) -> str:
    sets = sorted({row["sets"] for row in rows})
    each = "–".join(f"{count:,}" for count in dict.fromkeys([sets[0], sets[-1]]))
    text = f"{len(rows)} designs of {each} data sets"
    return text + (f"; standard error at most {100 * error:.1f}." if error else ".")
