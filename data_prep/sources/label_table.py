"""A label table of the user or of a public data set, with the content (role) of its columns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member, renamed
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.descriptions import BOX_ROLES, TableRules
from cxr_compare.data_prep.sources.label_names import Label, name_labels, split_labels
from cxr_compare.data_prep.sources.label_values import (
    ambiguous_sexes,
    class_finding,
    dictionary,
    normal_classes,
    plain_cells,
    states_of_cells,
)

_MOST_LABELS = 8


@dataclass
class LabelTable:
    """Label table of the user, with the content (role) of each column as it was recognised.

    Attributes:
        path: Path of the table.
        text: All cells as text; the index is the line number minus 2.
        rules: Description of the table; one without a name if its columns were recognised.
        columns: Names of columns by role (what a column holds), such as ``file`` or ``label``.
        names: By name of a column that holds the labels of one finding, the name of that finding.
        images: Columns ``image_id, path`` of the image of each row.
        assigned_roles: Roles that the user assigned, in contrast to recognised ones.
    """

    path: Path
    text: pd.DataFrame
    rules: TableRules = field(default_factory=TableRules)
    columns: dict[str, list[str]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    images: pd.DataFrame = field(default_factory=pd.DataFrame)
    assigned_roles: set[str] = field(default_factory=set)

    def keep_matches(self, matches: pd.DataFrame) -> None:
        """Keep the rows whose images were found, with columns ``row``, ``image_id``, ``path``.

        A row that names several images is repeated for each.
        """
        self.text = self.text.iloc[matches["row"].to_numpy()]
        self.images = matches[["image_id", "path"]].set_index(self.text.index)

    def assign_role(self, role: str, columns: Iterable[str]) -> None:
        """Record which columns hold a role, in place of the recognised ones.

        A role ``finding:NAME`` is that of the labels of one finding.
        """
        role, _, finding = role.partition(":")
        assigned = [column for column in columns if column in self.text.columns]
        for others in self.columns.values():
            others[:] = [column for column in others if column not in assigned]
        earlier = self.columns.get(role, []) if role in ("finding", "unused") else []
        self.columns[role] = [*earlier, *assigned]
        if finding:
            self.names |= dict.fromkeys(assigned, finding)

    def has(self, role: str) -> bool:
        """Return True if a column of this role was recognised."""
        return bool(self.columns.get(role))

    def cells(self, role: str) -> pd.Series:
        """Return the cells of a role, translated into standard terms; empty texts without one.

        If several columns have the role, the first one that is not empty counts in each row.
        """
        cells = pd.Series("", index=self.text.index, dtype=TEXT, name=role)
        for column in self.columns.get(role, ()):
            cells = cells.where(cells != "", self.text[column]).rename(column)
        meanings = {**dictionary()["values"].get(role, {}), **self.rules.values.get(role, {})}
        lower = cells.str.lower()
        if role == "sex" and not self.rules.name:
            meanings |= dict.fromkeys(ambiguous_sexes(lower), "")
        return cells.where(~is_member(lower, list(meanings)), renamed(lower, meanings))

    @property
    def unknown_labels(self) -> set[str]:
        """Labels, in lower case, which say that nothing is known about the image."""
        return {*dictionary()["unknown"], *self.rules.unknown}

    @property
    def box_roles(self) -> set[str]:
        """Roles of the columns that describe boxes, such as ``xmin``."""
        return {role for role in BOX_ROLES if self.has(role)}

    @property
    def unused(self) -> list[str]:
        """Names of columns whose role is not known."""
        used = {column for columns in self.columns.values() for column in columns}
        return [column for column in self.text.columns if column not in used]

    def finding(self, column: str) -> str:
        """Return the name of the finding whose labels a column holds."""
        return self.names.get(column) or class_finding(column, str(self.path))

    def lines(self, n_rows: int = 3) -> list[str]:
        """Return lines that show what each column holds, with its first rows."""
        rows = [*self._roles, *(("unused", column) for column in self.unused)]
        blank = [""] * n_rows
        cells: list[tuple[str, ...]] = [("role", "column", *["first rows", *blank][:n_rows])]
        cells += [(*row, *[*self.text[row[1]][:n_rows], *blank][:n_rows]) for row in rows]
        cells = [tuple(c if len(c) < 29 else f"{c[:16]}...{c[-9:]}" for c in row) for row in cells]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        name = self.rules.name
        kind = f"a table of {name}" if name else "columns were recognised by their names"
        lines = [f"{self._counts}; {kind}"]
        for row in cells:
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  " + "  ".join(padded).rstrip())
        return lines

    @property
    def summary(self) -> str:
        """One line on the number of rows, the role of each column and the unused columns."""
        roles = ", ".join(f"{column} as {role}" for role, column in self._roles)
        unused = f"; unused: {', '.join(self.unused)}" if self.unused else ""
        return f"{self._counts}; columns: {roles}{unused} (correct: --columns ROLE=COLUMN)"

    @property
    def _roles(self) -> list[tuple[str, str]]:
        """Role and name of each column that is used."""
        pairs = [(role, column) for role, columns in self.columns.items() for column in columns]
        return [(f"{r}:{self.finding(c)}" if r == "finding" else r, c) for r, c in pairs]

    @property
    def _counts(self) -> str:
        """Name of the file, and how many rows it has."""
        return f"{self.path.name}: {counted(len(self.text), 'row')}"

    def label_lines(self, class_names: Sequence[str] = ()) -> list[str]:
        """Return lines on labels that mean something else than their finding, such as "no mass".

        Every label is listed with its number of rows, which shows misspelt ones.
        """
        if not self.has("label") or self.has("state"):
            return self._state_lines()
        counts = pd.concat([self.text[column] for column in self.columns["label"]]).value_counts()
        rows = Counter[str]()
        for cell, count in counts.items():
            rows.update(dict.fromkeys(self.listed_labels(str(cell), class_names), int(count)))
        try:
            labels = self.name(rows)
        except InputError:  # raised again where the labels are read
            return []
        lines = []
        for text, count in rows.most_common():
            label = labels.get(text)
            if label is None:
                meaning = "unknown"
            elif label.finding in normal_classes():
                meaning = "no finding"
            elif label.state != "present":
                meaning = f"{label.finding} is {label.state}"
            else:
                continue
            lines.append(f"  {text}: taken for {meaning} ({counted(count, 'row')})")
        lines = lines[:_MOST_LABELS]
        if 1 < len(rows) <= 2 * _MOST_LABELS:
            shown = ", ".join(f"{text} ({count})" for text, count in rows.most_common())
            lines.append(f"  labels: {shown}")
        return lines

    def _state_lines(self) -> list[str]:
        """Return lines that count the cells that say neither present nor absent."""
        columns = [*self.columns.get("finding", ()), *self.columns.get("state", ())]
        if not columns:
            return []
        counts = plain_cells(pd.concat([self.text[c] for c in columns])).value_counts()
        states = states_of_cells(pd.Series(counts.index, dtype=TEXT))
        meanings = states.where(states == "uncertain", "unknown")
        is_told = (states == "uncertain") | is_member(counts.index, list(self.unknown_labels))
        return [
            f"  {cell}: taken for {meaning} ({counted(int(counts[cell]), 'cell')})"
            for cell, meaning in zip(counts.index[is_told], meanings[is_told], strict=True)
        ]

    def listed_labels(self, cell: str, class_names: Sequence[str]) -> list[str]:
        """Return the labels that a cell of the label column lists.

        A number is the class of that number in `class_names`, if these have it.
        """
        if re.fullmatch(r"\d+(\.0)?", cell) and int(float(cell)) < len(class_names):
            return [class_names[int(float(cell))]]
        if not self.rules.separator:
            parts = split_labels(cell)
        else:
            parts = [part.strip() for part in re.split(self.rules.separator, cell)]
        meanings = self.rules.values.get("label", {})
        return [meanings.get(part.lower(), part) for part in parts if part]

    def name(self, texts: Iterable[str], findings: Sequence[str] = ()) -> dict[str, Label]:
        """Return finding and state of labels, without those which say that nothing is known.

        A label may say that one of `findings` is absent though none says that it is present.
        """
        known = [text for text in texts if text.lower() not in self.unknown_labels]
        where = f"{self.path}: column '{(*self.columns.get('label', ()), 'label')[0]}'"
        others = [name.replace("_", " ") for name in findings]
        # Beside a state, "uncertain" and "no" in front are part of a name.
        return name_labels(
            [*known, *others], where, "column" if self.has("state") else "label"
        ).labels


def described_table(path: Path, text: pd.DataFrame, rules: TableRules) -> LabelTable:
    """Return a table whose columns have the roles of a description."""
    if rules.label:
        text = text.assign(label=rules.label)
    table = LabelTable(path, text, rules)
    for role, columns in rules.roles.items():
        kind, _, finding = role.partition(":")
        named = [columns] if isinstance(columns, str) else columns
        there = [column for column in named if column in text.columns]
        table.columns[kind] = [*table.columns.get(kind, []), *there]
        if finding:
            table.names |= dict.fromkeys(there, finding)
    return table
