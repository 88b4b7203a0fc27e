"""The tables of docs/validity.md, from stored results of two revisions."""

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
    """A table: its place in the page, the design, its columns, and a part of its rows' names."""

    name: str
    design: str
    columns: tuple[Column, ...]
    rows: str = ""


_METRICS = {
    "recall": "sensitivity", "specificity": "specificity", "f1": "F1", "accuracy": "accuracy",
}  # fmt: skip


def _at(policy: str, kind: str = "") -> tuple[Column, ...]:
    return tuple(Column(title, f"{policy}|{name}{kind}") for name, title in _METRICS.items())


_OPENING = (Column("headline", "headline"), Column("any sentence", "any"))
TABLES = (
    Table("max_f1", "thresholds", (*_at("max_f1"), *_OPENING)),
    Table("sensitivity_floor", "thresholds", _at("sensitivity>=0.95")),
    Table("specificity_floor", "thresholds", _at("specificity>=0.90")),
    Table("held", "thresholds", _at("max_f1", "|held")),
    Table("p_values", "thresholds", _at("max_f1", "|test")),
    Table("matched", "thresholds", (
        Column("sensitivity at specificity 0.90", "matched|matched_recall_90"),
        Column("at 0.95", "matched|matched_recall_95"),
        Column("specificity at sensitivity 0.90", "matched|matched_specificity_90"),
        Column("at 0.95", "matched|matched_specificity_95"),
    )),
    Table("recall_coverage", "thresholds", (
        Column("95 % interval holds the mean sensitivity", "recall covers"),
        Column("thresholds held: holds that of this threshold", "recall covers|held"),
    )),
    Table("auroc", "auroc", (
        Column("95 % interval holds the AUROC", "covers"),
        Column("interval of the difference holds 0", "difference covers"),
        Column("headline wrong", "headline"),
        Column("any sentence wrong", "any"),
        Column("no interval", "no interval"),
        Column("width of the difference's interval", "width", share=False),
    )),
    Table("seeds", "seeds", (
        Column("AUROC", "auroc"),
        *_at("max_f1"),
        Column("interval holds the recipe's AUROC", "auroc covers"),
        Column("interval holds its sensitivity", "recall covers"),
    )),
    Table("several", "several", (*_OPENING, Column("one is called the highest", "highest"))),
    Table("power", "power", tuple(
        Column(title, f"{metric} {way}")
        for metric, words in (
            ("auroc", "AUROC"), ("f1", "F1"), ("recall", "sensitivity"),
            ("matched_recall_90", "sensitivity at specificity 0.90"),
        )
        for way, title in (("right", f"{words}: right"), ("wrong", "wrong way round"))
    )),
    Table("chance", "chance", (Column("caution shown", "caution"), *_OPENING)),
    *(
        Table(name, "calibration", tuple(
            Column(title, f"{name}|{kind}", share=False)
            for kind, title in (
                ("raw", "raw score"), ("platt", "Platt"), ("isotonic", "isotonic"),
                ("default", "default"), ("best", "true probability"),
            )
        ))
        for name in ("brier", "benefit")
    ),
    Table("readers", "readers", (
        Column("AUROC", "auroc"),
        Column("sensitivity", "recall"),
        Column("specificity", "specificity"),
        Column("interval holds the readers' mean AUROC", "covers"),
    )),
)  # fmt: skip


def with_tables(page: str, results: Results) -> str:
    """The page with every table between its two marks written again."""
    for table in TABLES:
        begin, end = f"<!-- table: {table.name} -->", f"<!-- end: {table.name} -->"
        if begin not in page or end not in page:
            raise ValueError(f"docs/validity.md lacks the marks of table {table.name}")
        found = f"{begin}\n\n{_written(table, results)}\n\n{end}"
        page = re.sub(
            f"{re.escape(begin)}.*?{re.escape(end)}", lambda _, new=found: new, page, flags=re.S
        )
    return page


def _written(table: Table, results: Results) -> str:
    before, after = (
        {row["case"]: row for row in results[when] if row["design"] == table.design}
        for when in ("before", "after")
    )
    names = list(dict.fromkeys([*after, *before]))
    cells = {
        (column.key, name): [
            rows.get(name, {}).get("found", {}).get(column.key) for rows in (before, after)
        ]
        for column in table.columns
        for name in names
    }
    # What one of the revisions does not have at all takes no room.
    told = {
        column.key: [
            place for place in (0, 1) if any(cells[column.key, name][place] for name in names)
        ]
        for column in table.columns
    }
    lines = [
        _row(["design", *(column.title for column in table.columns)]),
        _row(["---", *("---:" for _ in table.columns)]),
    ]
    for name in names:
        shown = [
            " → ".join(_cell(cells[column.key, name][at], column) for at in told[column.key])
            for column in table.columns
        ]
        lines.append(_row([name, *(each or "–" for each in shown)]))
    shares = [each for column in table.columns if column.share for each in [column.key]]
    errors = [each["error"] for (key, _), pair in cells.items() if key in shares for each in pair
              if each]  # fmt: skip
    used = [rows if any(place in each for each in told.values()) else {}
            for place, rows in enumerate((before, after))]  # fmt: skip
    source = _source(list(used[0].values()), list(used[1].values()), max(errors, default=0.0))
    return "\n".join([*lines, "", source])


def _cell(found: Mapping[str, float] | None, column: Column) -> str:
    if found is None:
        return "–"
    return f"{100 * found['mean']:.1f}" if column.share else f"{found['mean']:.3f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _source(before: list[Mapping[str, Any]], after: list[Mapping[str, Any]], error: float) -> str:
    told = []
    for when, rows in (("before", before), ("after", after)):
        if rows:
            sets = sorted({row["sets"] for row in rows})
            revisions = ", ".join(dict.fromkeys(row["revision"] for row in rows))
            told.append(f"{when}: revision {revisions}, {_range(sets)} data sets a row")
    seeds = sorted({row["seed"] for row in [*before, *after]})
    text = f"{'; '.join(told).capitalize()}; seed {_range(seeds)}."
    return text + (
        f" Monte-Carlo standard error at most {100 * error:.1f} points." if error else ""
    )


def _range(values: Sequence[int]) -> str:
    ends = dict.fromkeys([values[0], values[-1]]) if values else {}
    return " to ".join(f"{value:,}" for value in ends)
