"""Roles of the columns of label tables: what each column holds, such as files or labels.

Columns are recognised by their names, or because the table is that of a known data set
(``columns.toml``). The user sees the result with three rows, and can correct it by ``--columns
ROLE=COLUMN``. A column that may hold the labels of a second reader is never ignored: the user is
asked about it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cxr_compare.data_prep.contracts.box_numbers import are_box_texts
from cxr_compare.data_prep.contracts.column_names import (
    ambiguous_columns,
    headless_problem,
    lacks_head,
    names_by_role,
    plain_name,
)
from cxr_compare.data_prep.contracts.errors import InputError, counted, nearest_name
from cxr_compare.data_prep.contracts.finding_names import finding_name
from cxr_compare.data_prep.contracts.ids import is_member, renamed
from cxr_compare.data_prep.contracts.schemas import ORIGINS
from cxr_compare.data_prep.contracts.table_files import is_spreadsheet, read_table_file, refuse_line
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.contracts.text_files import read_toml_file
from cxr_compare.data_prep.sources.label_names import name_labels, split_labels
from cxr_compare.data_prep.sources.label_values import (
    ambiguous_sexes,
    class_finding,
    dictionary,
    holds_states,
    normal_classes,
    plain_cells,
    states_of_cells,
)

# Column of the images table for each role that states a fact about the image.
FACTS = {
    "patient": "patient_id",
    "study": "study_id",
    "view": "view",
    "sex": "sex",
    "age": "age_years",
    "split": "split",
    "image_width": "width",
    "image_height": "height",
}
SIDES = (("xmin", "xmax", "width", "xcenter"), ("ymin", "ymax", "height", "ycenter"))
BOX_ROLES = tuple(role for side in SIDES for role in side)
_ROLES = (
    "file",
    "label",
    "state",
    "finding",
    "no_finding",
    "reader",
    *FACTS,
    *BOX_ROLES,
    "unused",
)
_TABLE = "TABLE"  # stands for a column that holds the name of the table
_BOX_ANSWERS = ("box_form=", "box_unit=")  # which `statements.user_reading` takes
_MOST_READERS = 20
_MOST_LABELS = 8

Show = Callable[[str], None]


class KnownTable(BaseModel):
    """Description of a table of a public data set, or of the user's own tables.

    Attributes:
        name: Name of the table for people.
        columns: Columns by which the table is recognised: it has all of them.
        roles: Column of each role, or several of which the first filled one counts.
        origin: Kind of the labels.
        patient_pattern: Regular expression that finds the patient in the name of an image.
        boxes_only: True if the table adds boxes to labels of another table.
        closed: True if a row names every finding that is present; False if only a row that says
            that nothing is found rules out the others.
        separator: Regular expression between the labels of a cell, if it is not | or ;.
        unknown: Labels, in lower case, that name no finding.
        values: Meaning of cells by role, in lower case.
        extract: Regular expressions by role; the first group is taken of the cells.
        numbers: Roles ``x_...`` whose cells are numbers.
        field: Columns of width and height (px) and of the pixel spacing in x and y (mm) of the
            original image, whose products are the true size of what the image shows.
    """

    model_config = ConfigDict(strict=True)
    name: str
    columns: list[str]
    roles: dict[str, str | list[str]]
    origin: str = Field(default=ORIGINS[0], pattern=f"^({'|'.join(ORIGINS)})$")
    patient_pattern: str = ""
    boxes_only: bool = False
    closed: bool = True
    separator: str = ""
    unknown: list[str] = []
    values: dict[str, dict[str, str]] = {}
    extract: dict[str, str] = {}
    numbers: list[str] = []
    field: list[str] = []


class _ColumnFile(BaseModel):
    """Content of a file with names of columns and descriptions of whole tables."""

    model_config = ConfigDict(strict=True)
    names: dict[str, list[str]] = {}
    table: list[KnownTable] = []


def read_column_file(path: Path) -> _ColumnFile:
    """Read a TOML file that says what the columns of label tables hold, as ``columns.toml``."""
    try:
        content = _ColumnFile.model_validate(read_toml_file(path))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        reason = first["msg"][:1].lower() + first["msg"][1:]
        example = "data_prep/sources/columns.toml"
        raise InputError(f"{path}: {key}: {reason}; write it as {example} does") from None
    for role in (*content.names, *(role for table in content.table for role in table.roles)):
        _require_role(role, str(path))
    return content


def _require_role(role: str, where: str) -> None:
    kind = role.partition(":")[0]
    if kind not in _ROLES and not kind.startswith("x_"):
        near = nearest_name(kind, _ROLES, f"roles are {', '.join(_ROLES)} and x_...")
        raise InputError(f"{where}: there is no role '{kind}'; {near}")


@dataclass
class LabelTable:
    """Label table of the user, with the content (role) of each column as it was recognised.

    Attributes:
        path: Path of the table.
        text: All cells as text; the index is the line number minus 2.
        known: Description of the table if it is one of a known data set.
        columns: Names of columns by role (what a column holds), such as ``file`` or ``label``.
        names: By name of a column that holds the labels of one finding, the name of that finding.
        images: Columns ``image_id, path`` of the image of each row.
        assigned_roles: Roles that the user assigned, in contrast to recognised ones.
        labels: Distinct cells of the label column, over all rows of the file.
    """

    path: Path
    text: pd.DataFrame
    known: KnownTable | None = None
    columns: dict[str, list[str]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    images: pd.DataFrame = field(default_factory=pd.DataFrame)
    assigned_roles: set[str] = field(default_factory=set)
    labels: Sequence[str] = ()

    def keep_matches(self, matches: pd.DataFrame) -> None:
        """Keep the rows whose images were found, with columns ``row``, ``image_id``, ``path``.

        A row that names several images is repeated for each.
        """
        self.labels = self.cells("label").unique().tolist()
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
        meanings = dict(dictionary()["values"].get(role, {}))
        if self.known is not None:
            meanings |= self.known.values.get(role, {})
            if role in self.known.extract:
                found = cells.str.lower().str.extract(self.known.extract[role])[0]
                cells = found.fillna("").astype(TEXT).rename(cells.name)
        lower = cells.str.lower()
        if role == "sex" and self.known is None:
            meanings |= dict.fromkeys(ambiguous_sexes(lower), "")
        return cells.where(~is_member(lower, list(meanings)), renamed(lower, meanings))

    @property
    def unknown_labels(self) -> set[str]:
        """Labels, in lower case, which say that nothing is known about the image."""
        return {*dictionary()["unknown"], *(self.known.unknown if self.known else ())}

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

    def lines(self, *, quoted: bool = True) -> list[str]:
        """Return lines that show what each column holds, and with `quoted` three rows."""
        rows = [(role, column) for role, columns in self.columns.items() for column in columns]
        rows = [(f"{r}:{self.finding(c)}" if r == "finding" else r, c) for r, c in rows]
        rows += [("unused", column) for column in self.unused]
        cells: list[tuple[str, ...]] = [("role", "column", "first rows", "", "")]
        shown = 3 if quoted else 0
        cells += [(*row, *(*self.text[row[1]][:shown], "", "", "")[:3]) for row in rows]
        cells = [tuple(c if len(c) < 29 else f"{c[:16]}...{c[-9:]}" for c in row) for row in cells]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        kind = (
            f"a table of {self.known.name}"
            if self.known
            else "columns were recognised by their names"
        )
        rows_text = counted(len(self.text), "row")
        if self._n_without_label:
            rows_text += f", {self._n_without_label:,} of them without a label"
        lines = [f"{self.path.name}: {rows_text}; {kind}"]
        for row in cells:
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  " + "  ".join(padded).rstrip())
        return lines

    @property
    def _n_without_label(self) -> int:
        """Number of rows whose labels are empty or say that nothing is known."""
        columns = self.columns.get("state", ())
        if not columns:
            roles = ("label", "finding", "no_finding")
            columns = [column for role in roles for column in self.columns.get(role, ())]
        if not columns or self.box_roles:  # a row without a box may say that there is none
            return 0
        nothing = ["", *self.unknown_labels]
        is_empty = [is_member(plain_cells(self.text[column]), nothing) for column in columns]
        return int(np.logical_and.reduce(is_empty).sum())

    def label_texts(self, cells: Iterable[str], class_names: Sequence[str]) -> dict[str, list[str]]:
        """Return the labels that each cell of the label column lists.

        A number is the class of that number in `class_names`, if these have it.
        """
        texts = {}
        for cell in cells:
            if self.known and self.known.separator:
                listed = [part.strip() for part in re.split(self.known.separator, cell)]
                texts[cell] = [self._meaning(part) for part in listed if part]
            else:
                texts[cell] = [self._meaning(part) for part in split_labels(cell)]
            number = int(float(cell)) if is_class_number(cell) else len(class_names)
            if number < len(class_names):
                texts[cell] = [class_names[number]]
        return texts

    def _meaning(self, label: str) -> str:
        """Return what the label of a known data set means in standard terms."""
        meanings = self.known.values.get("label", {}) if self.known else {}
        return meanings.get(label.lower(), label)

    def label_lines(self, class_names: Sequence[str] = (), *, quoted: bool = True) -> list[str]:
        """Return lines on labels that mean something else than their finding, such as "no mass".

        With `quoted`, every label is listed with its number of rows, which shows misspelt ones.
        Without it only labels of ``columns.toml`` are shown, which cannot identify a patient.
        """
        columns = self.columns.get("label", ()) if not self.has("state") else ()
        if not columns:
            return self._state_lines()
        counts = pd.concat([self.text[column] for column in columns]).value_counts()
        rows = Counter[str]()
        for cell, texts in self.label_texts(map(str, counts.index), class_names).items():
            rows.update(dict.fromkeys(texts, int(counts[cell])))
        known = [text for text in rows if text.lower() not in self.unknown_labels]
        try:
            labels = name_labels(map(without_uncertain, known), str(self.path)).labels
        except InputError:  # raised again where the labels are read
            return []
        denied = {label.finding for label in labels.values() if label.state == "absent"}
        lines = []
        for text, count in rows.most_common():
            label = labels.get(text)
            if text.lower() in self.unknown_labels:
                meaning = "unknown"
            elif label is None:  # "uncertain mass"
                continue
            elif label.finding in normal_classes():
                meaning = "no finding"
            elif quoted and label.finding in denied:
                meaning = f"{label.finding} is {label.state}"
            else:
                continue
            shown = text if quoted else text.lower()  # then a label of the dictionary
            lines.append(f"  {shown}: taken for {meaning} ({counted(count, 'row')})")
        lines = lines[:_MOST_LABELS]
        if quoted and 1 < len(rows) <= 2 * _MOST_LABELS:
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


def is_class_number(cell: str) -> bool:
    """Return True if a cell of the label column is the number of a class."""
    return re.fullmatch(r"\d+(\.0)?", cell) is not None


def without_uncertain(label: str) -> str:
    """Return a label without the word ``uncertain`` in front of its finding."""
    return re.sub(r"(?i)^uncertain[\W_]+(?=\w)", "", label)


@cache
def _own_file() -> _ColumnFile:
    """Return the names and tables that come with the program."""
    content = {"names": names_by_role(), "table": dictionary()["table"]}
    return _ColumnFile.model_validate(content)


def known_table(name: str) -> KnownTable:
    """Return the description of a table in ``columns.toml``."""
    return next(table for table in _own_file().table if table.name == name)


def described_table(path: Path, text: pd.DataFrame, known: KnownTable) -> LabelTable:
    """Return a table whose columns have the roles of a description."""
    table = LabelTable(path, text, known)
    for role, columns in known.roles.items():
        kind, _, finding = role.partition(":")
        named = [columns] if isinstance(columns, str) else columns
        there = [column for column in named if column in text.columns]
        table.columns[kind] = [*table.columns.get(kind, []), *there]
        if finding:
            table.names |= dict.fromkeys(there, finding)
    return table


def recognise(path: Path, text: pd.DataFrame, described: Sequence[_ColumnFile] = ()) -> LabelTable:
    """Recognise the columns of a table of a known data set, or else by their names."""
    if text.empty:
        raise InputError(f"{path}: has no row")
    if len(text.columns) == 1 and re.search(r"[:|\s]", text.columns[0]):
        raise InputError(
            f"{path}: has one column, {text.columns[0]!r}; separate cells by commas, semicolons or "
            "tabs"
        )
    if lacks_head(list(text.columns)):
        raise InputError(f"{path}: {headless_problem(list(text.columns))}")
    files = [*described, _own_file()]
    fitting = (
        known for file in files for known in file.table if set(known.columns) <= set(text.columns)
    )
    known = next(fitting, None)
    table = LabelTable(path, text) if known is None else described_table(path, text, known)
    plain = {plain_name(column): column for column in reversed(text.columns)}
    for file in files:
        for role, names in file.names.items():
            free = [plain[name] for name in names if plain.get(name) in table.unused]
            if free and not table.has(role) and not (table.known and role in BOX_ROLES):
                table.assign_role(role, free[:1])
    for _, high, side, _ in SIDES:
        if table.has(high) and table.has(side) and table.known is None:
            table.assign_role(f"image_{side}", list(table.columns[side]))  # not that of the box
    return table


def _correct(tables: Sequence[LabelTable], correction: str) -> None:
    """Apply one ROLE=COLUMN or ROLE=COLUMN+COLUMN of the user; ROLE= takes the role away."""
    role, equals, listed = correction.partition("=")
    _require_role(role, f"--columns {correction}")
    if not equals:
        raise InputError(f"--columns {correction}: say {role}=COLUMN")
    existing = [column for table in tables for column in table.text.columns]
    columns = [listed] if listed in existing else [c for c in listed.split("+") if c]
    for column in columns:
        if column not in (*existing, _TABLE):
            near = nearest_name(column, existing, f"it has {', '.join(existing)}")
            raise InputError(
                f"--columns {correction}: {tables[0].path} has no column '{column}'; {near}"
            )
    for table in tables:
        if columns == [_TABLE]:
            same = [other for other in tables if other.path.name == table.path.name]
            named = table.path.parent if len(same) > 1 else table.path
            table.text[_TABLE] = named.name.partition(".")[0]
        if not columns or set(columns) & set(table.text.columns):
            table.columns[role.partition(":")[0]] = []
            table.assign_role(role, columns)
            table.assigned_roles.add(role)


def _find_findings(table: LabelTable, class_names: Sequence[str], *, every: bool) -> None:
    """Assign the role of findings to columns of states.

    With `every` all columns of states count, not only those with the name of a known finding.
    """
    names = dictionary()["findings"]["names"]
    for column in table.unused if "finding" not in table.columns else ():
        counts = every and not column.startswith("x_") and holds_states(table.text[column])
        if counts or finding_name(column) in names:
            table.assign_role("finding", [column])
    coded = [role for role in ("label", "state") if table.has(role)]
    if len(coded) == 1 and not class_names and holds_states(table.cells(coded[0])):
        table.assign_role("finding", list(table.columns[coded[0]]))


def read_tables(
    paths: Sequence[Path],
    sheet: str | None,
    show: Show,
    made: Mapping[Path, pd.DataFrame] | None = None,
) -> dict[Path, pd.DataFrame]:
    """Return the cells of label tables as text by path; `made` are tables of another reader."""
    tables = dict(made or {})
    for path in paths:
        if path in tables:
            continue
        table = read_table_file(path, sheet if is_spreadsheet(path) else None)
        tables[path] = table.text
        for note in table.notes:
            show(f"{path.name}: {note}")
    if sheet is not None and not any(map(is_spreadsheet, tables)):
        raise InputError(f"--sheet {sheet}: none of the tables is a spreadsheet; leave it out")
    return tables


def recognise_tables(
    texts: Mapping[Path, pd.DataFrame],
    columns: Sequence[str],
    class_names: Sequence[str],
    show: Show,
    notes: list[str],
    *,
    keys: Sequence[str] = ("file",),
    quoted: bool = True,
) -> list[LabelTable]:
    """Recognise the content of the columns of the user's label tables, and show the result.

    Args:
        texts: Cells as text by path of the table.
        columns: What columns hold, as the user says: ROLE=COLUMN, or paths of TOML files.
        class_names: Names of numbered classes.
        show: Function that is called with each line that the user should see.
        notes: Takes cautions about cells.
        keys: Roles by which a table may name its images; the first one that it has is used.
        quoted: True may show cells. If it is False, every column of states counts as a finding,
            because the user cannot check which columns are not findings.
    """
    files = [value for value in columns if value.endswith(".toml")]
    described = [read_column_file(Path(file)) for file in files]
    tables = [recognise(path, text, described) for path, text in texts.items()]
    for value in columns:
        if value not in files and not value.startswith(_BOX_ANSWERS):
            _correct(tables, value)
    for table in tables:
        _find_findings(table, class_names, every=not quoted)
        labels = table.label_lines(class_names, quoted=quoted)
        for line in (*table.lines(quoted=quoted), *labels):
            show(line)
        notes += _cautions(table)
    show("If a column is wrong, correct it with --columns ROLE=COLUMN[,ROLE=COLUMN ...]")
    _refuse_boxes_as_texts(tables)
    _require_columns(tables, keys)
    of_findings = [
        c for table in tables for c in table.columns.get("finding", ()) if c not in table.names
    ]
    name_labels(of_findings, f"{tables[0].path}: first line", "column")
    opinions = []
    for table in tables:
        if not any(table.has(key) for key in keys):
            _join(table, tables)
        key = next(key for key in keys if table.has(key))
        refuse_line(table.cells(key) == "", table.path, "no image is named; fill it in")
        opinions.append(_opinions(table, key))
        readers = table.columns.get("label", [])
        if len(readers) > 1:  # each column is a reader
            parts = [table.text.assign(label=table.text[c], reader=c) for c in readers]
            table.text = pd.concat(parts)
            table.columns |= {"label": ["label"], "reader": ["reader"]}
    differ = pd.concat(opinions).groupby(["image", "subject"])["statement"].nunique() > 1
    if len(tables) > 1 and differ.any():
        raise InputError(
            f"{tables[0].path}: tables state different labels for "
            f"{counted(int(differ.sum()), 'image')}; if each table is of one reader, give "
            "--columns reader=TABLE, else correct them"
        )
    return tables


def _refuse_boxes_as_texts(tables: Sequence[LabelTable]) -> None:
    """Refuse a column of boxes that are texts, unless a table has boxes that are read."""
    if any(table.known or table.box_roles for table in tables):
        return
    for table in tables:
        for column in table.unused:
            reason = (
                f"column '{column}' writes a box as one text, which may be corners or sizes; write "
                "each box in a row of its own with the columns x1,y1,x2,y2 or x,y,width,height, or "
                f"say --columns unused={column} to leave it out"
            )
            refuse_line(are_box_texts(table.text[column]), table.path, reason)


def _require_columns(tables: Sequence[LabelTable], keys: Sequence[str]) -> None:
    """Refuse tables without a column of images or of labels; all that is missing is named."""
    label_roles = ("label", "finding", "no_finding", *BOX_ROLES)
    missing = []
    if not any(table.has(role) for table in tables for role in label_roles):
        unused = [(table, column) for table in tables for column in table.unused]
        asked = ambiguous_columns([column for _, column in unused], "label")
        states = [column for table, column in unused if holds_states(table.text[column])]
        advice = "label=COLUMN"
        if len(states) == 1:
            advice = f"finding={states[0]} if it is a finding, else label=COLUMN"
        elif states:
            advice += f", or finding=COLUMN for each finding among {', '.join(states)}"
        problem = f"no column says what an image shows; say --columns {advice}"
        missing.append(problem + _question(asked, "label"))
    for table in tables:
        if any(table.has(key) for key in keys) or _named_elsewhere(table, tables):
            continue
        asked = ambiguous_columns(table.unused, "file")
        where = "" if table is tables[0] else f"{table.path}: "
        missing.append(
            f"{where}no column names the image; say --columns file=COLUMN{_question(asked, 'file')}"
        )
        break
    if missing:
        first = tables[0]
        columns = list(first.text.columns)
        problem = headless_problem(columns)
        if not problem:
            problem = f"{'; '.join(missing)}; it has {', '.join(columns[:20])}"
        raise InputError(f"{first.path}: {problem}")


def _question(columns: Sequence[str], role: str) -> str:
    return f" (is it {role}={' or '.join(columns)}?)" if columns else ""


def _named_elsewhere(table: LabelTable, others: Sequence[LabelTable]) -> str | None:
    """Return the column, study or patient, by which other tables list the images of a table."""
    for key in ("study", "patient"):
        if table.has(key) and any(other.has(key) and other.has("file") for other in others):
            return key
    return None


def _cautions(table: LabelTable) -> list[str]:
    """Warn of the label None, which programs write for a missing one, and of unclear sexes."""
    cautions = []
    columns = table.columns.get("label", ()) if not table.has("state") else ()
    count = sum(int((table.text[column] == "None").sum()) for column in columns)
    if count:
        cautions.append(
            f"WARNING: {counted(count, 'row', 'have')} the label None, which is taken for no "
            "finding. Leave the cell empty where it means that the label is missing, as pandas "
            "writes it"
        )
    columns = table.columns.get("sex", ()) if table.known is None else ()
    cells = pd.concat([pd.Series(dtype=TEXT), *(table.text[c].str.lower() for c in columns)])
    letters = sorted(ambiguous_sexes(cells))
    if letters:
        rows = counted(int(is_member(cells, letters).sum()), "row")
        cautions.append(
            f"WARNING: {table.path.name}: sex {' and '.join(letters)} taken for unknown "
            f"({rows}), as v is vrouw or varón, and m beside v or h is man or mujer. Write M and F"
        )
    return cautions


def _join(table: LabelTable, others: Sequence[LabelTable]) -> None:
    """Give a table that names only studies or patients the images that other tables list."""
    key = _named_elsewhere(table, others) or ""
    named = [other for other in others if other.has(key) and other.has("file")]
    pairs = [pd.DataFrame({key: t.cells(key), "file": t.cells("file")}) for t in named]
    text = table.text.assign(**{key: table.cells(key)}).drop(columns="file", errors="ignore")
    table.text = text.merge(pd.concat(pairs).drop_duplicates(), on=key)
    table.columns |= {key: [key], "file": ["file"]}


def _opinions(table: LabelTable, key: str) -> pd.DataFrame:
    """Return the statements of a table on its images; refuse a table with an unnamed second reader.

    The columns are ``image``, ``subject`` (what is labelled) and ``statement``, of the rows that
    contradict no other row.
    """
    text = table.text
    label_columns = [*table.columns.get("label", ()), *table.columns.get("finding", ())]
    subject: Any = "+".join(table.columns.get("finding", ()))
    if table.has("state"):
        subject = table.cells("label")
    rows = pd.DataFrame(
        {"image": table.cells(key), "subject": subject, "statement": ""}, dtype=TEXT
    )
    for column in (*label_columns, *table.columns.get("state", ())):
        rows["statement"] += "|" + text[column]
    differ = rows.groupby(["image", "subject"])["statement"].transform("nunique") > 1
    single_reader = bool(label_columns) and not table.has("reader") and not table.box_roles
    for column in table.unused:
        cells = text.loc[differ, column]
        values = set(text[column]) - {""}
        for other in label_columns:
            if not values or not values <= set(text[other]):
                continue
            has_similar_name = column.lower().startswith(other.lower())
            if has_similar_name or not holds_states(text[other]):
                raise InputError(
                    f"{table.path}: column '{column}' holds the same labels as '{other}'; if it is "
                    f"a second reader, give --columns label={other}+{column} (each is a reader), "
                    f"else unused={column}"
                )
        keys = ["image", "subject", "cell"]
        is_repeated = rows[differ].assign(cell=cells).duplicated(keys).any()
        may_name_reader = single_reader and differ.any() and not is_repeated and (cells != "").all()
        if may_name_reader and cells.nunique() <= _MOST_READERS:
            raise InputError(
                f"{table.path}: column '{column}' distinguishes {int(differ.sum())} rows that "
                f"label one image differently; if it names the reader, give --columns "
                f"reader={column}, else unused={column}"
            )
    return rows[~differ & single_reader]
