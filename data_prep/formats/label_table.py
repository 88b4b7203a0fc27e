"""Recognition of the columns of a user's label table.

Columns are recognised by their names, or because the table is that of a known data set
(``columns.toml``). The user sees the result with three rows, and can correct it by ``--columns
ROLE=COLUMN``. A column that may hold the labels of a second reader is never ignored: the user is
asked about it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.box_classes import class_column, names_finding
from cxr_compare.data_prep.contracts.box_values import are_box_texts
from cxr_compare.data_prep.contracts.column_names import (
    ambiguous_columns,
    headless_problem,
    lacks_head,
    plain_name,
)
from cxr_compare.data_prep.contracts.errors import InputError, counted, nearest_name
from cxr_compare.data_prep.contracts.finding_names import finding_name
from cxr_compare.data_prep.contracts.ids import is_member, renamed
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.contracts.text_columns import refuse_line
from cxr_compare.data_prep.formats.class_names import (
    class_finding,
    plain_cells,
    states_of_cells,
)
from cxr_compare.data_prep.formats.columns import (
    BOX_ROLES,
    SIDES,
    column_dictionary,
    read_column_names,
    require_role,
)
from cxr_compare.data_prep.formats.label_names import name_labels, normal_classes, split_labels
from cxr_compare.data_prep.formats.source import SourceBuilder

_TABLE = "TABLE"  # stands for a column that holds the name of the table
_MOST_READERS = 20
_MOST_LABELS = 8


@dataclass
class LabelTable:
    """Label table of the user, with the content (role) of each column as it was recognised.

    Attributes:
        path: Path of the table.
        text: Table of all cells as text.
        known: Description from ``columns.toml`` if the table is one of a known public data set,
            else empty.
        columns: Names of the table's columns by role (what a column contains), such as ``file`` or
            ``label``.
        names: By name of a column that holds the labels of one finding, the name of that finding.
        images: Columns ``image_id, path`` of the image of each row.
        assigned_roles: Those roles that the user assigned by an option, in contrast to recognised
            ones.
        labels: Distinct cells of the label column, over all rows of the file.
    """

    path: Path
    text: pd.DataFrame
    known: Mapping[str, Any]
    columns: dict[str, list[str]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    images: pd.DataFrame = field(default_factory=pd.DataFrame)
    assigned_roles: set[str] = field(default_factory=set)
    labels: Sequence[str] = ()

    def keep_matches(self, matches: pd.DataFrame) -> None:
        """Keep only the rows of this table whose image files were found, and record the files.

        Args:
            matches: Table with columns ``row`` (position in the label table), ``image_id`` and
                ``path``. A row that names several images is repeated for each.
        """
        self.labels = self.cells("label").unique().tolist()
        self.text = self.text.iloc[matches["row"].to_numpy()]
        self.images = matches[["image_id", "path"]].set_index(self.text.index)

    def assign_role(self, role: str, columns: Iterable[str]) -> None:
        """Record which columns of the table have a given content, in place of the recognised ones.

        Args:
            role: What the columns contain, such as ``patient``, or ``finding:NAME`` for the labels
                of one finding.
            columns: Names of the columns. Names that the table does not have are ignored.
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
        """Return True if a column with a given content was recognised.

        Args:
            role: What the column contains, such as ``label``.
        """
        return bool(self.columns.get(role))

    def cells(self, role: str) -> pd.Series:
        """Return the cells of the column with a given content, translated into standard terms.

        If several columns have this content, the first one that is not empty counts in each row.

        Args:
            role: What the column contains, such as ``view``.

        Returns:
            Cells as text, one for each row of the table; empty texts if no column has this content.
        """
        cells = pd.Series("", index=self.text.index, dtype=TEXT, name=role)
        for column in self.columns.get(role, ()):
            cells = cells.where(cells != "", self.text[column]).rename(column)
        meanings: dict[str, str] = {}
        for dictionary in (column_dictionary(), self.known):
            meanings |= dictionary.get("values", {}).get(role, {})
        lower = cells.str.lower()
        if role == "sex" and not self.known:
            meanings |= dict.fromkeys(_ambiguous_sexes(lower), "")
        return cells.where(~is_member(lower, list(meanings)), renamed(lower, meanings))

    def label_texts(self, cells: Iterable[str], class_names: Sequence[str]) -> dict[str, list[str]]:
        """Return the labels that each cell of the label column lists.

        Args:
            cells: Cells of the label column.
            class_names: Names of numbered classes. A number without a name stays.
        """
        texts = {}
        for cell in cells:
            texts[cell] = split_labels(cell)
            number = int(float(cell)) if is_class_number(cell) else len(class_names)
            if number < len(class_names):
                texts[cell] = [class_names[number]]
        return texts

    def describe_labels(self, class_names: Sequence[str] = (), *, quoted: bool = True) -> list[str]:
        """Return lines that explain labels with a meaning other than the name of a finding.

        Examples are a label that means "no finding" or has a sign, or -1 beside 1 and 0.

        Args:
            class_names: Names of numbered classes.
            quoted: True quotes cells of the table. False shows only labels that the package's file
                ``columns.toml`` contains, which cannot identify a patient.
        """
        columns = self.columns.get("label", ()) if not self.has("state") else ()
        if not columns:
            return self._describe_states()
        counts = pd.concat([self.text[column] for column in columns]).value_counts()
        rows = Counter[str]()
        for cell, texts in self.label_texts(counts.index, class_names).items():
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
        return lines[:_MOST_LABELS]

    def _describe_states(self) -> list[str]:
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

    @property
    def unknown_labels(self) -> set[str]:
        """Labels, in lower case, which say that nothing is known about the image."""
        return {*column_dictionary()["unknown"], *self.known.get("unknown", ())}

    @property
    def box_roles(self) -> set[str]:
        """Names of the recognised contents of columns that describe boxes, such as ``xmin``."""
        return {role for role in BOX_ROLES if self.has(role)}

    @property
    def unused(self) -> list[str]:
        """Names of columns that are not used, because their content was not recognised."""
        used = {column for columns in self.columns.values() for column in columns}
        return [column for column in self.text.columns if column not in used]

    def finding(self, column: str) -> str:
        """Return the name of the finding (disease) whose labels a column holds.

        Args:
            column: Name of the column in the table.
        """
        return self.names.get(column) or class_finding(column, str(self.path))

    def lines(self, *, quoted: bool = True) -> list[str]:
        """Return lines that show users what each column contains, in the terms of ``--columns``.

        Args:
            quoted: True also shows the cells of the first three rows.
        """
        rows = [*self._roles, *(("unused", column) for column in self.unused)]
        cells: list[tuple[str, ...]] = [("role", "column", "first rows", "", "")]
        shown = 3 if quoted else 0
        cells += [(*row, *(*self.text[row[1]][:shown], "", "", "")[:3]) for row in rows]
        cells = [tuple(c if len(c) < 29 else f"{c[:16]}...{c[-9:]}" for c in row) for row in cells]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        kind = "columns were recognised by their names"
        if self.known:
            kind = f"a table of {self.known['name']}"
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
        text = f"{self.path.name}: {counted(len(self.text), 'row')}"
        if self._n_without_label:
            text += f", {self._n_without_label:,} of them without a label"
        return text


def is_class_number(cell: str) -> bool:
    """Return True if a cell of the label column is the number of a class."""
    return re.fullmatch(r"\d+(\.0)?", cell) is not None


def without_uncertain(label: str) -> str:
    """Return a label without the word ``uncertain`` in front of its finding."""
    return re.sub(r"(?i)^uncertain[\W_]+(?=\w)", "", label)


def _ambiguous_sexes(cells: pd.Series) -> set[str]:
    """Return letters that mean a man in one language and a woman in another.

    ``v`` is Dutch vrouw or Spanish varón, and ``m`` beside ``v`` or ``h`` is man or Spanish mujer.
    """
    letters = {"v", "h", "m"} & set(cells)
    ambiguous = letters & {"v"}
    return ambiguous | (letters & {"m"}) if letters - {"m"} else ambiguous


def _recognise(
    path: Path, text: pd.DataFrame, dictionaries: Sequence[Mapping[str, Any]]
) -> LabelTable:
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
    entries = [entry for dictionary in dictionaries for entry in dictionary.get("table", ())]
    fitting = (entry for entry in entries if set(entry["columns"]) <= set(text.columns))
    known: Mapping[str, Any] = next(fitting, {})
    table = LabelTable(path, text, known)
    for role, columns in known.get("roles", {}).items():
        table.assign_role(role, [columns] if isinstance(columns, str) else columns)
    plain = {plain_name(column): column for column in reversed(text.columns)}
    for dictionary in dictionaries:
        for role, names in dictionary.get("names", {}).items():
            free = [plain[name] for name in names if plain.get(name) in table.unused]
            if free and not table.has(role) and not (known and role in BOX_ROLES):
                table.assign_role(role, free[:1])
    for _, high, side, _ in SIDES:
        if (
            table.has(high) and table.has(side) and not known
        ):  # with corners, a width is that of the image
            table.assign_role(f"image_{side}", list(table.columns[side]))
    return table


def _correct(tables: Sequence[LabelTable], correction: str) -> None:
    """Apply one ROLE=COLUMN or ROLE=COLUMN+COLUMN of the user; ROLE= takes the role away."""
    role, equals, listed = correction.partition("=")
    require_role(role, f"--columns {correction}")
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


def _find_findings(table: LabelTable, class_names: Sequence[str], every: bool) -> None:
    """Assign the role of findings to columns of states.

    Args:
        table: Table whose other columns are recognised.
        class_names: Names of numbered classes; without them a label column of states is a finding.
        every: Take every column of states, not only those with the name of a known finding.
    """
    names = column_dictionary()["findings"]["names"]
    for column in table.unused if "finding" not in table.columns else ():
        counts = every and not column.startswith("x_") and holds_states(table.text[column])
        if counts or finding_name(column) in names:
            table.assign_role("finding", [column])
    coded = [role for role in ("label", "state") if table.has(role)]
    if len(coded) == 1 and not class_names and holds_states(table.cells(coded[0])):
        table.assign_role("finding", list(table.columns[coded[0]]))


def _leave_out_class_number(table: LabelTable, tables: Sequence[LabelTable]) -> None:
    """Take the one class number of all boxes for no finding where another table has the labels."""
    labelled = any(
        other.has("label") or other.has("finding") for other in tables if other is not table
    )
    if not labelled or not table.box_roles or table.known:
        return
    for role in {"label", "finding"} - table.assigned_roles:
        columns = table.columns.get(role, [])
        cells = {cell for column in columns for cell in table.text[column]} - {""}
        is_number = len(columns) == len(cells) == 1 and not names_finding(*cells)
        if is_number and class_column(table.text[columns]):
            table.assign_role("unused", list(columns))


def holds_states(cells: pd.Series) -> bool:
    """Return True if every cell with content says present or absent, as 1, 0, "yes" or "no" do.

    A cell may also say that nothing is known, as "n/a" does.

    Args:
        cells: Cells of a column as text.
    """
    states = states_of_cells(cells)
    is_unknown = is_member(plain_cells(cells), column_dictionary()["unknown"])
    return bool((states.notna() | is_unknown).all() and (states.fillna("") != "").any())


def read_label_tables(
    builder: SourceBuilder, keys: Sequence[str] = ("file",), *, quoted: bool = True
) -> list[LabelTable]:
    """Read the user's label tables, recognise the content of their columns, and show the result.

    Args:
        builder: Object that knows the user's folder and options, which name the tables.
        keys: Column contents (roles) by which a table may name its images, such as ``file`` or
            ``patient``. The first one that the table has is used.
        quoted: True may show cells to the user. If it is False, every column of yes-or-no labels
            counts as a finding, because the user cannot check which columns are not findings.

    Returns:
        The tables with the recognised content of their columns.

    Raises:
        InputError: A table names no image or no finding, or tables contradict each other.
    """
    options = builder.options
    texts = builder.label_tables()
    if not texts:
        raise InputError("--format table: say cxr prepare labels.csv IMAGES OUT")
    files = [value for value in options.columns if value.endswith(".toml")]
    dictionaries = [*(read_column_names(Path(file)) for file in files), column_dictionary()]
    tables = [_recognise(path, text, dictionaries) for path, text in texts.items()]
    for value in options.columns:
        if value not in files:
            _correct(tables, value)
    for table in tables:
        _find_findings(table, options.class_names, every=not quoted)
    for table in tables:
        _leave_out_class_number(table, tables)
        meanings = table.describe_labels(options.class_names, quoted=quoted)
        for line in (*table.lines(quoted=quoted), *meanings):
            builder.show(line)
        builder.read_as.append(table.summary)
        builder.read_as += [f"{table.path.name}: {meaning.strip()}" for meaning in meanings]
        _warn_of_none(table, builder)
        _warn_of_sexes(table, builder)
    builder.show("If a column is wrong, correct it with --columns ROLE=COLUMN[,ROLE=COLUMN ...]")
    path = tables[0].path
    _refuse_boxes_as_texts(tables)
    _require_columns(tables, keys)
    columns = [
        c for table in tables for c in table.columns.get("finding", ()) if c not in table.names
    ]
    name_labels(columns, f"{path}: first line", "column")
    opinions = []
    for table in tables:
        if not any(table.has(key) for key in keys):
            _join(table, tables)
        key = next(key for key in keys if table.has(key))
        refuse_line(table.cells(key) == "", table.path, "no image is named; fill it in")
        opinions.append(_opinions(table, key))
        columns = table.columns.get("label", [])
        if len(columns) > 1:  # each column is a reader
            parts = [table.text.assign(label=table.text[c], reader=c) for c in columns]
            table.text = pd.concat(parts)
            table.columns |= {"label": ["label"], "reader": ["reader"]}
    differ = pd.concat(opinions).groupby(["image", "subject"])["statement"].nunique() > 1
    if len(tables) > 1 and differ.any():
        raise InputError(
            f"{path}: tables state different labels for {counted(int(differ.sum()), 'image')}; if "
            "each table is of one reader, give --columns reader=TABLE, else correct them"
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


def _warn_of_none(table: LabelTable, builder: SourceBuilder) -> None:
    """Warn of the label ``None``, which pandas and Python also write for a missing label."""
    columns = table.columns.get("label", ()) if not table.has("state") else ()
    count = sum(int((table.text[column] == "None").sum()) for column in columns)
    if count:
        builder.notes.append(
            f"WARNING: {counted(count, 'row', 'have')} the label None, which is taken for no "
            "finding. Leave the cell empty where it means that the label is missing, as pandas "
            "writes it"
        )


def _warn_of_sexes(table: LabelTable, builder: SourceBuilder) -> None:
    """Warn of letters of a sex that are taken for unknown."""
    columns = table.columns.get("sex", ()) if not table.known else ()
    cells = pd.concat([pd.Series(dtype=TEXT), *(table.text[c].str.lower() for c in columns)])
    letters = sorted(_ambiguous_sexes(cells))
    if letters:
        count = counted(int(is_member(cells, letters).sum()), "row")
        builder.notes.append(
            f"WARNING: {table.path.name}: sex {' and '.join(letters)} taken for unknown "
            f"({count}), as v is vrouw or varón, and m beside v or h is man or mujer. Write M and F"
        )


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

    Returns:
        Columns ``image``, ``subject`` (what is labelled) and ``statement`` of the rows that
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
