"""Record of the columns of label tables: the role of each, and what its cells are taken for.

No cell that may name a person is kept. Words are, if they are labels or words of states, roles,
views and sexes, and the range of numbers of boxes, sizes and ages. Of all other columns it is
kept how many of their cells differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from cxr_compare.data_prep.base.tables import ROLE_NAMES
from cxr_compare.data_prep.sources.guard import shown_cells, unread_line
from cxr_compare.data_prep.sources.label_table import BOX_ROLES, REVERSED, LabelTable, Tables
from cxr_compare.data_prep.sources.record import label_meaning, words_of
from cxr_compare.data_prep.sources.statements import Source
from cxr_compare.data_prep.sources.words import dictionary, plain_cells, state_of_text, years

_STATES = ("finding", "no_finding", "state", "crowd")
_NUMBERS = (*BOX_ROLES, "image_width", "image_height", "field")


def record_columns(source: Source, tables: Tables, findings: Sequence[str] = ()) -> None:
    """Keep each column of tables, whose rows have found their images, with each of its roles.

    `findings` are those of a public set.
    """
    lines_shown = "\n".join(source.record.lines)
    for table in tables:
        is_shown = table.path.is_dir() or f"{table.path.name}: not read: " in lines_shown
        if not is_shown and (line := unread_line(table)):
            source.show(line)
        once = ~table.text.index.duplicated()  # rows of a patient or study
        rows = replace(table, text=table.text[once])
        labels = _labels(rows, source.options.class_names, findings)
        for column in rows.text.columns:
            roles = [role for role, columns in table.columns.items() if column in columns]
            for role in roles or ["field" if column in table.rules.field else "unused"]:
                if role == "unused" and table.path.is_dir():
                    continue  # a part of a path, which no user wrote as a column
                if role == "unused" and not (rows.text[column] != "").any():
                    continue  # empty, as behind a comma at the end of each line
                source.record.add(
                    "column",
                    file=file_name(table, tables),
                    column=column,
                    role=role,
                    cells=labels if role == "label" else _taken_for(rows, column, role),
                    rows=table.n_rows,
                    used=len(rows.text),
                )


def file_name(table: LabelTable, tables: Tables) -> str:
    """Return the name of a table's file, with its folder if several are called so."""
    path = table.path
    is_only = [other.path.name for other in tables].count(path.name) == 1
    return path.name if is_only else f"{path.resolve().parent.name}/{path.name}"


def _labels(table: LabelTable, class_names: Sequence[str], findings: Sequence[str]) -> str:
    """Return what each label of a table is taken for; no word without a column of labels."""
    counts = table.label_counts(class_names, findings) if table.has("label") else ()
    return words_of(
        (text, label_meaning(label.finding, label.state), n) for text, label, n in counts
    )


def _taken_for(table: LabelTable, column: str, role: str) -> str:
    """Return what the cells of a column are taken for, their range, or how many differ."""
    cells = table.text[column]
    if role in _STATES:
        unknown = dict.fromkeys([*dictionary()["unknown"], *table.rules.unknown], "")
        states = state_of_text()
        if column == table.negated:
            states = {text: REVERSED.get(state, state) for text, state in states.items()}
        return _words(cells, {**states, **unknown})
    if role in ("view", "sex", "split"):
        return _words(cells, {**(ROLE_NAMES if role == "split" else {}), **table.meanings(role)})
    if role == "age":
        return _range(years(table.cells(role), table.path))
    if role in _NUMBERS:
        return _range(pd.to_numeric(cells.drop_duplicates(), errors="coerce"))
    return shown_cells(cells)


def _words(cells: pd.Series, meanings: Mapping[str, str]) -> str:
    """Return the known words of a column with their meanings; others, as names, are counted."""
    counts = cells.value_counts()
    times: Counter[str] = Counter()
    for word, count in zip(plain_cells(counts.index.to_series()), counts, strict=True):
        times[word if word in meanings or not word else "other words"] += int(count)
    meanings = {"": "", "other words": "other", **meanings}
    return words_of((word, meanings[word] or "unknown", n) for word, n in times.items())


def _range(numbers: pd.Series) -> str:
    """Return the smallest and the largest number of a column."""
    if numbers.isna().all():
        return "no number"
    low, high = f"{numbers.min():g}", f"{numbers.max():g}"
    return low if low == high else f"{low} to {high}"
