"""Recognise the columns of a user's label table.

Columns are recognised by their names and by whole tables of known data sets (``columns.toml``),
shown with three rows, and corrected by ``--columns ROLE=COLUMN``. A column that may hold a second
reader's labels is never ignored: the user is asked about it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member, renamed
from cxr_compare.data_prep.contracts.tables import refuse_line
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.formats.class_names import NO_FINDING, STATE_WORDS, class_finding
from cxr_compare.data_prep.formats.columns import (
    BOX_ROLES,
    SIDES,
    column_dictionary,
    nearest_name,
    read_column_names,
    require_role,
)
from cxr_compare.data_prep.formats.finding_names import finding_name
from cxr_compare.data_prep.formats.source import SourceBuilder

_TABLE = "TABLE"  # as a column: the name of the row's table
_MOST_READERS = 20
_MOST_WORDS = 8


@dataclass
class LabelTable:
    """A table as it was read, and what its columns mean."""

    path: Path
    text: pd.DataFrame
    known: Mapping[str, Any]  # its entry in columns.toml, where it is of a known data set
    columns: dict[str, list[str]] = field(default_factory=dict)  # by role
    names: dict[str, str] = field(default_factory=dict)  # of columns that are findings
    images: pd.DataFrame = field(default_factory=pd.DataFrame)  # `image_id, path` of each row
    asked: set[str] = field(default_factory=set)  # roles that the user gave
    labels: Sequence[str] = ()  # all that stands in the label column, of whatever image

    def place(self, matches: pd.DataFrame) -> None:
        """Keep the rows that `matches` (``row, image_id, path``) has, once for each image."""
        self.labels = self.cells("label").unique().tolist()
        self.text = self.text.iloc[matches["row"].to_numpy()]
        self.images = matches[["image_id", "path"]].set_index(self.text.index)

    def give(self, role: str, columns: Iterable[str]) -> None:
        """Give columns a role in place of their own; ``finding:NAME`` names a finding, too."""
        role, _, finding = role.partition(":")
        given = [column for column in columns if column in self.text.columns]
        for others in self.columns.values():
            others[:] = [column for column in others if column not in given]
        kept = self.columns.get(role, []) if role in ("finding", "unused") else []
        self.columns[role] = [*kept, *given]
        self.names |= dict.fromkeys(given, finding) if finding else {}

    def has(self, role: str) -> bool:
        """Whether a column has a role."""
        return bool(self.columns.get(role))

    def cells(self, role: str) -> pd.Series:
        """The cells of a role: of several columns the first that is filled."""
        cells = pd.Series("", index=self.text.index, dtype=TEXT, name=role)
        for column in self.columns.get(role, ()):
            cells = cells.where(cells != "", self.text[column]).rename(column)
        books = (column_dictionary(), self.known)
        meaning = {k: v for b in books for k, v in b.get("values", {}).get(role, {}).items()}
        lower = cells.str.lower()
        return cells.where(~is_member(lower, list(meaning)), renamed(lower, meaning))

    def word_lines(self, *, quoted: bool = True) -> list[str]:
        """What words of the label column are taken for, where they name no finding."""
        columns = self.columns.get("label", ()) if not self.has("state") else ()
        if not columns:
            return []
        cells = pd.concat([self.text[column] for column in columns])
        counts = cells[cells != ""].value_counts()
        names = {str(cell): _plain_name(str(cell)) for cell in counts.index}
        classes = set(names.values())
        lines = []
        for cell, name in names.items():
            absent = absent_finding(name, classes) if quoted else ""
            if cell.lower() in self.unknown_words:
                meaning = "unknown"
            elif name in normal_classes():
                meaning = "no finding"
            elif absent:
                meaning = f"{absent} is absent"
            else:
                continue
            word = cell if quoted else cell.lower()  # which is then a word of the dictionary
            lines.append(f"  {word}: taken for {meaning} ({counted(int(counts[cell]), 'row')})")
        return lines[:_MOST_WORDS]

    @property
    def unknown_words(self) -> set[str]:
        """Words of the label column that name no finding, in lower case."""
        return {*column_dictionary()["unknown"], *self.known.get("unknown", ())}

    @property
    def box_roles(self) -> set[str]:
        """The sides and points of boxes that it has."""
        return {role for role in BOX_ROLES if self.has(role)}

    @property
    def unused(self) -> list[str]:
        """Columns without a role."""
        taken = {column for columns in self.columns.values() for column in columns}
        return [column for column in self.text.columns if column not in taken]

    def finding(self, column: str) -> str:
        """The finding that a column is of."""
        return self.names.get(column) or class_finding(column, str(self.path))

    def lines(self, *, quoted: bool = True) -> list[str]:
        """What was recognised, with three rows of the data if they may be quoted."""
        rows = [(role, column) for role, columns in self.columns.items() for column in columns]
        rows = [(f"finding {self.finding(c)}" if r == "finding" else r, c) for r, c in rows]
        rows += [("not used", column) for column in self.unused]
        cells: list[tuple[str, ...]] = [("role", "column", "first rows", "", "")]
        shown = 3 if quoted else 0
        cells += [(*row, *(*self.text[row[1]][:shown], "", "", "")[:3]) for row in rows]
        cells = [tuple(c if len(c) < 29 else f"{c[:16]}...{c[-9:]}" for c in row) for row in cells]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        by = f"a table of {self.known['name']}" if self.known else "columns are told by their names"
        lines = [f"{self.path.name}: {counted(len(self.text), 'row')}; {by}"]
        for row in cells:
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  " + "  ".join(padded).rstrip())
        return lines


def normal_classes() -> set[str]:
    """Class names that say that nothing is there."""
    return {*NO_FINDING, *column_dictionary()["normal"]}


def _plain_name(cell: str) -> str:
    """The class that a cell names alone; nothing where it has no letter, or lists several."""
    if not re.search(r"[^\W\d_]", cell) or re.search(r"[|;\[]", cell):
        return ""
    return class_finding(cell, "")


def absent_finding(name: str, classes: Collection[str]) -> str:
    """The finding that a class says is absent, such as ``no_mass``; nothing where it says none.

    Example:
        >>> absent_finding("no_mass", ["mass"]), absent_finding("non_mass", ["nodule"])
        ('mass', '')
    """
    if name in normal_classes():
        return ""
    word, _, finding = name.partition("_")
    known = set(classes)
    if word in column_dictionary()["absent_before"]:
        known.update(column_dictionary()["findings"]["names"])
    elif word not in column_dictionary()["may_be_absent_before"]:
        return ""
    return finding if finding in known else ""


def _recognise(path: Path, text: pd.DataFrame, books: Sequence[Mapping[str, Any]]) -> LabelTable:
    """Tell what the columns of a table mean: as a known set's, else by their names."""
    if text.empty:
        raise InputError(f"{path}: has no row")
    if len(text.columns) == 1 and re.search(r"[:|\s]", text.columns[0]):
        raise InputError(
            f"{path}: has one column, {text.columns[0]!r}; separate cells by commas, semicolons or "
            "tabs"
        )
    entries = [entry for book in books for entry in book.get("table", ())]
    fitting = (entry for entry in entries if set(entry["columns"]) <= set(text.columns))
    known: Mapping[str, Any] = next(fitting, {})
    table = LabelTable(path, text, known)
    for role, columns in known.get("roles", {}).items():
        table.give(role, [columns] if isinstance(columns, str) else columns)
    plain = {re.sub("[^a-z0-9]", "", column.lower()): column for column in reversed(text.columns)}
    for role, names in ((r, n) for book in books for r, n in book.get("names", {}).items()):
        free = [plain[name] for name in names if plain.get(name) in table.unused]
        if free and not table.has(role) and not (known and role in BOX_ROLES):
            table.give(role, free[:1])
    for _, high, side, _ in SIDES:
        if table.has(high) and table.has(side) and not known:  # beside corners: of the image
            table.give(f"image_{side}", list(table.columns[side]))
    return table


def _correct(tables: Sequence[LabelTable], word: str) -> None:
    """Follow one ROLE=COLUMN of the user's, or ROLE=COLUMN+COLUMN; without a column nothing is."""
    role, equals, listed = word.partition("=")
    require_role(role, f"--columns {word}")
    if not equals:
        raise InputError(f"--columns {word}: say {role}=COLUMN")
    known = [column for table in tables for column in table.text.columns]
    columns = [listed] if listed in known else [c for c in listed.split("+") if c]
    for column in columns:
        if column not in (*known, _TABLE):
            near = nearest_name(column, known, f"it has {', '.join(known)}")
            raise InputError(f"--columns {word}: {tables[0].path} has no column '{column}'; {near}")
    for table in tables:
        if columns == [_TABLE]:
            same = [other for other in tables if other.path.name == table.path.name]
            named = table.path.parent if len(same) > 1 else table.path
            table.text[_TABLE] = named.name.partition(".")[0]
        if not columns or set(columns) & set(table.text.columns):
            table.columns[role.partition(":")[0]] = []
            table.give(role, columns)
            table.asked.add(role)


def _find_findings(table: LabelTable, class_names: Sequence[str], every: bool) -> None:
    """Take columns that are called as findings are (or `every`) for those; a coded label, too."""
    names = column_dictionary()["findings"]["names"]
    for column in table.unused if "finding" not in table.columns else ():
        counts = every and not column.startswith("x_") and holds_states(table.text[column])
        if counts or finding_name(column) in names:
            table.give("finding", [column])
    coded = [role for role in ("label", "state") if table.has(role)]
    if len(coded) == 1 and not class_names and holds_states(table.cells(coded[0])):
        table.give("finding", list(table.columns[coded[0]]))


def holds_states(cells: pd.Series) -> bool:
    """Return True if every filled cell is a state such as 1, 0, present or absent."""
    filled = cells[cells != ""].str.lower()
    return len(filled) > 0 and bool(is_member(filled, list(STATE_WORDS)).all())


def read_tables(
    builder: SourceBuilder, keys: Sequence[str] = ("file",), *, quoted: bool = True
) -> list[LabelTable]:
    """Recognise the user's tables, show what was recognised, and refuse what is not clear.

    Each names images by one of the roles `keys`. Where cells must not be quoted, every column of
    states counts as a finding, as nobody can see which does not.
    """
    options = builder.options
    texts = builder.label_tables()
    if not texts:
        raise InputError("--format table: say cxr prepare labels.csv IMAGES OUT")
    files = [word for word in options.columns if word.endswith(".toml")]
    books = [*(read_column_names(Path(file)) for file in files), column_dictionary()]
    tables = [_recognise(path, text, books) for path, text in texts.items()]
    for word in options.columns:
        if word not in files:
            _correct(tables, word)
    for table in tables:
        _find_findings(table, options.class_names, every=not quoted)
        for line in (*table.lines(quoted=quoted), *table.word_lines(quoted=quoted)):
            builder.say(line)
        _warn_of_none(table, builder)
    builder.say("Not so? Correct it with --columns ROLE=COLUMN[,ROLE=COLUMN ...]")
    path = tables[0].path
    unused = [(t, column) for t in tables for column in t.unused]
    said = any(t.has(r) for t in tables for r in ("label", "finding", "no_finding", *BOX_ROLES))
    if not said:
        states = "+".join(column for t, column in unused if holds_states(t.text[column]))
        advice = f"finding={states}" if states else "label=COLUMN"
        raise InputError(f"{path}: no column says what an image shows; say --columns {advice}")
    opinions = []
    for table in tables:
        if not any(table.has(key) for key in keys):
            _join(table, tables)
        key = next(key for key in keys if table.has(key))
        refuse_line(table.cells(key) == "", table.path, "no image is named; fill it in")
        opinions.append(_opinions(table, key))
        if len(columns := table.columns.get("label", [])) > 1:  # each is a reader
            parts = [table.text.assign(label=table.text[c], reader=c) for c in columns]
            table.text = pd.concat(parts)
            table.columns |= {"label": ["label"], "reader": ["reader"]}
    differ = pd.concat(opinions).groupby(["image", "of"])["said"].nunique() > 1
    if len(tables) > 1 and differ.any():
        raise InputError(
            f"{path}: tables say different things of {counted(int(differ.sum()), 'image')}: is "
            "each a reader's? Say --columns reader=TABLE, or correct them"
        )
    return tables


def _warn_of_none(table: LabelTable, builder: SourceBuilder) -> None:
    """Note labels ``None``, which pandas and Python write where a label is missing, too."""
    columns = table.columns.get("label", ()) if not table.has("state") else ()
    count = sum(int((table.text[column] == "None").sum()) for column in columns)
    if count:
        builder.notes.append(
            f"WARNING: {counted(count, 'row')} with the label None: taken for no finding; where it "
            "means that nobody looked, as pandas writes it, leave the cell empty"
        )


def _join(table: LabelTable, others: Sequence[LabelTable]) -> None:
    """Name the images of a table that names studies or patients: those of the other tables."""
    for key in ("study", "patient"):
        named = [other for other in others if other.has(key) and other.has("file")]
        if table.has(key) and named:
            pairs = [pd.DataFrame({key: t.cells(key), "file": t.cells("file")}) for t in named]
            text = table.text.assign(**{key: table.cells(key)}).drop(
                columns="file", errors="ignore"
            )
            table.text = text.merge(pd.concat(pairs).drop_duplicates(), on=key)
            table.columns |= {key: [key], "file": ["file"]}
            return
    found = ", ".join(table.text.columns)
    raise InputError(
        f"{table.path}: no column names the image; say --columns file=COLUMN; it has {found}"
    )


def _opinions(table: LabelTable, key: str) -> pd.DataFrame:
    """What rows say of an image, where one voice should say it; a second one is refused by name."""
    text = table.text
    said = [column for role in ("label", "finding") for column in table.columns.get(role, ())]
    of = table.cells("label") if table.has("state") else "+".join(table.columns.get("finding", ()))
    rows = pd.DataFrame({"image": table.cells(key), "of": of, "said": ""}, dtype=TEXT)
    for column in (*said, *table.columns.get("state", ())):
        rows["said"] += "|" + text[column]
    differ = rows.groupby(["image", "of"])["said"].transform("nunique") > 1
    one_voice = bool(said) and not table.has("reader") and not table.box_roles
    for column in table.unused:
        cells = text.loc[differ, column]
        own = set(text[column]) - {""}
        for other in said:
            is_named_so = column.lower().startswith(other.lower())
            if own and own <= set(text[other]) and (is_named_so or not holds_states(text[other])):
                raise InputError(
                    f"{table.path}: column '{column}' holds what '{other}' holds: a second reader? "
                    f"Say --columns label={other}+{column} (each is a reader), or unused={column}"
                )
        twice = rows[differ].assign(cell=cells).duplicated(["image", "of", "cell"]).any()
        may_name = one_voice and differ.any() and not twice and (cells != "").all()
        if may_name and cells.nunique() <= _MOST_READERS:
            raise InputError(
                f"{table.path}: column '{column}' tells apart {int(differ.sum())} rows that say "
                f"different things of one image: a reader? Say --columns reader={column}, or "
                f"unused={column}"
            )
    return rows[~differ & one_voice]
