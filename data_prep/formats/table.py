"""Tables of labels as people have them: which column says what, and what the rows then state.

Columns are recognised by names and by whole tables of known data sets (``columns.toml``), shown
with three rows, and corrected by ``--columns ROLE=COLUMN``. What looks like a second opinion is
never passed over: it is asked for.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.column_names import names_by_role
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member, renamed
from cxr_compare.data_prep.contracts.schemas import ORIGINS, REFERENCE_READER
from cxr_compare.data_prep.contracts.tables import refuse_line, to_numbers
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.contracts.text_files import read_toml_file
from cxr_compare.data_prep.formats.label_files import (
    NO_FINDING,
    STATE_WORDS,
    class_finding,
    image_size,
)
from cxr_compare.data_prep.formats.readers import ROW
from cxr_compare.data_prep.formats.source import SourceBuilder, finding_name

# Roles of what is said of an image beside its labels, and the columns of `images.csv`.
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
_BOX_ROLES = tuple(role for side in SIDES for role in side)
_ROLES = (
    "file",
    "label",
    "state",
    "finding",
    "no_finding",
    "reader",
    *FACTS,
    *_BOX_ROLES,
    "unused",
)
_TABLE = "TABLE"  # as a column: the name of the row's table
_MOST_READERS = 20
# before the finding in a label column: its state
_UNCERTAIN = "uncertain_"
_ABSENT = "absent_"
_MOST_WORDS = 8


@dataclass
class _Table:
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
        books = (_dictionary(), self.known)
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
            absent = _absent_finding(name, classes) if quoted else ""
            if cell.lower() in self.unknown_words:
                meaning = "unknown"
            elif name in _nothing():
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
        return {*_dictionary()["unknown"], *self.known.get("unknown", ())}

    @property
    def box_roles(self) -> set[str]:
        """The sides and points of boxes that it has."""
        return {role for role in _BOX_ROLES if self.has(role)}

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


def _nothing() -> set[str]:
    """Class names that say that nothing is there."""
    return {*NO_FINDING, *_dictionary()["normal"]}


def _plain_name(cell: str) -> str:
    """The class that a cell names alone; nothing where it has no letter, or lists several."""
    if not re.search(r"[^\W\d_]", cell) or re.search(r"[|;\[]", cell):
        return ""
    return class_finding(cell, "")


def _absent_finding(name: str, classes: Collection[str]) -> str:
    """The finding that a class says is absent, such as ``no_mass``; nothing where it says none.

    Example:
        >>> _absent_finding("no_mass", ["mass"]), _absent_finding("non_mass", ["nodule"])
        ('mass', '')
    """
    if name in _nothing():
        return ""
    word, _, finding = name.partition("_")
    known = set(classes)
    if word in _dictionary()["absent_before"]:
        known.update(_dictionary()["findings"]["names"])
    elif word not in _dictionary()["may_be_absent_before"]:
        return ""
    return finding if finding in known else ""


@cache
def _dictionary() -> dict[str, Any]:
    return {
        **_read_names(Path(__file__).with_name("columns.toml")),
        "names": names_by_role(),
    }


class _KnownTable(BaseModel):
    """A table of a known data set, as columns.toml explains it."""

    model_config = ConfigDict(strict=True)
    name: str
    columns: list[str]
    roles: dict[str, str | list[str]]
    origin: str = Field(default=ORIGINS[0], pattern=f"^({'|'.join(ORIGINS)})$")
    patient_pattern: str = ""
    boxes_only: bool = False
    unknown: list[str] = []
    values: dict[str, dict[str, str]] = {}


class _Names(BaseModel):
    """What is read of a file of names of columns and of whole tables."""

    model_config = ConfigDict(strict=True)
    names: dict[str, list[str]] = {}
    table: list[_KnownTable] = []


def _read_names(path: Path) -> dict[str, Any]:
    """Read names of columns and of whole tables."""
    content = read_toml_file(path)
    try:
        _Names.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        reason = first["msg"][:1].lower() + first["msg"][1:]
        raise InputError(
            f"{path}: {key}: {reason}; write it as data_prep/formats/columns.toml does"
        ) from None
    for role in content.get("names", {}):
        _require_role(role, str(path))
    for entry in content.get("table", ()):
        for role in entry["roles"]:
            _require_role(role, str(path))
    return content


def _require_role(role: str, where: str) -> None:
    kind = role.partition(":")[0]
    if kind not in _ROLES and not kind.startswith("x_"):
        near = _near(kind, _ROLES, f"roles are {', '.join(_ROLES)} and x_...")
        raise InputError(f"{where}: there is no role '{kind}'; {near}")


def _near(word: str, words: Sequence[str], otherwise: str) -> str:
    near = difflib.get_close_matches(word, words, 1, 0.5)
    return f"did you mean '{near[0]}'?" if near else otherwise


def _recognise(path: Path, text: pd.DataFrame, books: Sequence[Mapping[str, Any]]) -> _Table:
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
    table = _Table(path, text, known)
    for role, columns in known.get("roles", {}).items():
        table.give(role, [columns] if isinstance(columns, str) else columns)
    plain = {re.sub("[^a-z0-9]", "", column.lower()): column for column in reversed(text.columns)}
    for role, names in ((r, n) for book in books for r, n in book.get("names", {}).items()):
        free = [plain[name] for name in names if plain.get(name) in table.unused]
        if free and not table.has(role) and not (known and role in _BOX_ROLES):
            table.give(role, free[:1])
    for _, high, side, _ in SIDES:
        if table.has(high) and table.has(side) and not known:  # beside corners: of the image
            table.give(f"image_{side}", list(table.columns[side]))
    return table


def _correct(tables: Sequence[_Table], word: str) -> None:
    """Follow one ROLE=COLUMN of the user's, or ROLE=COLUMN+COLUMN; without a column nothing is."""
    role, equals, listed = word.partition("=")
    _require_role(role, f"--columns {word}")
    if not equals:
        raise InputError(f"--columns {word}: say {role}=COLUMN")
    known = [column for table in tables for column in table.text.columns]
    columns = [listed] if listed in known else [c for c in listed.split("+") if c]
    for column in columns:
        if column not in (*known, _TABLE):
            near = _near(column, known, f"it has {', '.join(known)}")
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


def _find_findings(table: _Table, class_names: Sequence[str], every: bool) -> None:
    """Take columns that are called as findings are (or `every`) for those; a coded label, too."""
    names = _dictionary()["findings"]["names"]
    for column in table.unused if "finding" not in table.columns else ():
        counts = every and not column.startswith("x_") and _holds_states(table.text[column])
        if counts or finding_name(column) in names:
            table.give("finding", [column])
    coded = [role for role in ("label", "state") if table.has(role)]
    if len(coded) == 1 and not class_names and _holds_states(table.cells(coded[0])):
        table.give("finding", list(table.columns[coded[0]]))


def _holds_states(cells: pd.Series) -> bool:
    filled = cells[cells != ""].str.lower()
    return len(filled) > 0 and bool(is_member(filled, list(STATE_WORDS)).all())


def read_tables(
    builder: SourceBuilder, keys: Sequence[str] = ("file",), *, quoted: bool = True
) -> list[_Table]:
    """Recognise the user's tables, show what was recognised, and refuse what is not clear.

    Each names images by one of the roles `keys`. Where cells must not be quoted, every column of
    states counts as a finding, as nobody can see which does not.
    """
    options = builder.options
    texts = builder.label_tables()
    if not texts:
        raise InputError("--format table: say cxr prepare labels.csv IMAGES OUT")
    files = [word for word in options.columns if word.endswith(".toml")]
    books = [*(_read_names(Path(file)) for file in files), _dictionary()]
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
    said = any(t.has(r) for t in tables for r in ("label", "finding", "no_finding", *_BOX_ROLES))
    if not said:
        states = "+".join(column for t, column in unused if _holds_states(t.text[column]))
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


def _warn_of_none(table: _Table, builder: SourceBuilder) -> None:
    """Note labels ``None``, which pandas and Python write where a label is missing, too."""
    columns = table.columns.get("label", ()) if not table.has("state") else ()
    count = sum(int((table.text[column] == "None").sum()) for column in columns)
    if count:
        builder.notes.append(
            f"WARNING: {counted(count, 'row')} with the label None: taken for no finding; where it "
            "means that nobody looked, as pandas writes it, leave the cell empty"
        )


def _join(table: _Table, others: Sequence[_Table]) -> None:
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


def _opinions(table: _Table, key: str) -> pd.DataFrame:
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
            if own and own <= set(text[other]) and (is_named_so or not _holds_states(text[other])):
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


def _classes(table: _Table, class_names: Sequence[str]) -> dict[str, list[str]]:
    """The findings that each cell of the label column names; | or ; stand between several.

    Before one that is uncertain or absent stands that word.
    """
    where = f"{table.path}: column '{table.columns['label'][0]}'"
    found = {}
    for cell in table.labels:
        if re.fullmatch(r"\d+(\.0)?", cell):
            if int(float(cell)) >= len(class_names):
                raise InputError(
                    f"{where} numbers its classes ({cell}); name them, from 0 on: --class-names "
                    "normal,mass"
                )
            parts = [class_names[int(float(cell))]]
        elif cell.startswith("["):  # a list as Python writes it
            parts = ["".join(pair) for pair in re.findall(r"'([^']*)'|\"([^\"]*)\"", cell)]
        else:
            parts = re.split(r"[|;]", cell)
        named = [part for part in map(str.strip, parts) if part]
        known = [part for part in named if part.lower() not in table.unknown_words]
        found[cell] = [class_finding(part, where) for part in known]
    if table.has("state"):
        return found
    classes = {name.removeprefix(_UNCERTAIN) for names in found.values() for name in names}
    stated = {name: _stated(name, classes, where) for name in classes}
    return {cell: [stated.get(name, name) for name in names] for cell, names in found.items()}


def _stated(name: str, classes: Collection[str], where: str) -> str:
    """A class, or where it says that a finding is absent, that finding behind that word."""
    absent = _absent_finding(name, classes)
    if absent:
        return f"{_ABSENT}{absent}"
    if name.partition("_")[0] in _dictionary()["absent_before"] and name not in _nothing():
        raise InputError(
            f"{where}: does the class '{name.replace('_', ' ')}' say that something is absent? "
            "Write 'normal' where an image shows nothing, 'unknown' where nobody knows, or give "
            "the class another name"
        )
    return name


def _edges(table: _Table, root: Path) -> pd.DataFrame:
    """Corners of the box in each row, px of the image; NaN where there is none."""
    path = table.path
    given = table.box_roles
    values = {role: to_numbers(cells := table.cells(role), path, str(cells.name)) for role in given}
    edges = pd.DataFrame(index=table.text.index)
    for (low, high, side, middle), (first, last) in zip(
        SIDES, (["x1", "x2"], ["y1", "y2"]), strict=True
    ):
        if low in given and (high in given or side in given):
            edges[first] = values[low]
            edges[last] = values[high] if high in given else values[low] + values[side]
        elif middle in given and side in given:
            edges[first], edges[last] = (values[middle] + s * values[side] / 2 for s in (-1, 1))
        else:
            raise InputError(
                f"{path}: a box needs {low} and {high} or {side}, or {middle} and {side}; it has "
                f"{', '.join(sorted(given)) or 'none'}: name the others with --columns"
            )
    edges = edges[EDGES]
    if not max(column.max() for column in values.values()) <= 1:  # not shares of the size
        return edges
    x, y = ((*table.columns.get(role, ()), "")[0] for role in ("xmin", "ymin"))
    if "xmax" not in given and x.lower().endswith("x") and "xmin" not in table.asked:
        raise InputError(
            f"{path}: boxes are in shares of the image: are {x}, {y} the corner or the centre? Say "
            f"--columns xmin={x},ymin={y} or --columns xcenter={x},ycenter={y}"
        )
    paths = table.images["path"]
    sizes = {name: image_size(root / name) for name in paths[edges.notna().any(axis=1)].unique()}
    return edges * np.array([sizes.get(name, (np.nan, np.nan)) * 2 for name in paths])


def _bare_finding(name: str) -> str:
    return name.removeprefix(_UNCERTAIN).removeprefix(_ABSENT)


def _all_absent(names: Sequence[str]) -> bool:
    """Whether a label says of findings that they are absent, and names none."""
    return bool(names) and all(name.startswith(_ABSENT) for name in names)


class _Statements:
    """What tables say of images, reader by reader."""

    def __init__(self) -> None:
        self.said: list[pd.DataFrame] = []  # image, finding, reader and state
        self.silent: list[pd.DataFrame] = []  # image, finding and reader: absent if nothing is said
        self.boxes: list[pd.DataFrame] = []
        self.normal: list[pd.DataFrame] = []  # image and reader who says that nothing is there
        self.boxed_normal: list[str] = []  # images that such a row boxes, as some converters do

    def add(
        self, table: _Table, rows: pd.DataFrame, root: Path, class_names: Sequence[str]
    ) -> None:
        """Add what a table says; `rows` has the ``image_id`` and ``reader`` of its rows."""
        none = _nothing()
        wide = table.columns.get("finding", [])
        only = class_names[0] if len(class_names) == 1 else ""
        of_box = pd.Series(table.finding(wide[0]) if len(wide) == 1 else only, index=rows.index)
        if table.has("label"):
            cells = table.cells("label")
            found = _classes(table, class_names)
            named = rows.assign(finding=cells.map(found), cell=cells, state="present")
            of_box = named["finding"].map(" ".join)
            if table.has("state"):
                named["state"] = _states(table, table.columns["state"][0])
                unnamed = (of_box == "") & (named["state"] != "")
                refuse_line(unnamed, table.path, "a state, but the finding is empty; fill it in")
            each = named.explode("finding").dropna(subset="finding")
            only_absent = named["finding"].map(_all_absent)
            for prefix, state in ((_UNCERTAIN, "uncertain"), (_ABSENT, "absent")):
                is_so = each["finding"].str.startswith(prefix)
                each["state"] = each["state"].mask(is_so, state)
                each["finding"] = each["finding"].str.removeprefix(prefix)
                of_box = of_box.str.removeprefix(prefix)
            normal = is_member(each["finding"], none)
            self.said.append(each[~normal & (each["state"] != "")])
            self.normal.append(each[normal])
            if not table.has("state") and not table.known.get("boxes_only"):
                empty = (cells == "") & bool(table.box_roles)
                speaks = rows[(empty | (of_box != "")) & ~only_absent]
                # Beside what is known of an image, a row may say that the rest is not.
                is_open = (cells != "") & (of_box == "")
                speaks = speaks.merge(rows[is_open].drop_duplicates(), how="left", indicator="open")
                speaks = speaks[speaks["open"] == "left_only"]
                classes = {_bare_finding(n) for names in found.values() for n in names}
                self._imply(speaks, classes - none)
        for column in wide:
            states = _states(table, column)
            said = rows.assign(finding=table.finding(column), state=states)
            self.said.append(said[states != ""])
        for column in table.columns.get("no_finding", ()):
            normal_rows = rows[_states(table, column) == "present"]
            self.normal.append(normal_rows)
            unsaid = _dictionary()["nothing_on"]
            self._imply(normal_rows, {table.finding(c) for c in wide} - set(unsaid))
        if table.box_roles:
            edges = _edges(table, root)
            boxed = edges.notna().any(axis=1)
            is_normal = is_member(of_box, none)
            self.boxed_normal += rows.loc[boxed & is_normal, "image_id"].tolist()
            boxed &= ~is_normal
            reason = (
                "a box, but not one finding that it is of; say --columns label=COLUMN, or "
                "--class-names mass"
            )
            refuse_line(boxed & ((of_box == "") | of_box.str.contains(" ")), table.path, reason)
            self.boxes.append(rows.assign(finding=of_box, **edges)[boxed])

    def _imply(self, rows: pd.DataFrame, findings: Iterable[str]) -> None:
        names = pd.DataFrame({"finding": sorted(set(findings))}, dtype=TEXT)
        self.silent.append(rows[["image_id", "reader"]].drop_duplicates().merge(names, how="cross"))


def _states(table: _Table, column: str) -> pd.Series:
    states = renamed(table.text[column].str.lower(), {**STATE_WORDS, "": ""})
    reason = (
        f"column '{column}' holds no state; expected 1, 0, -1, present, absent, uncertain or "
        f"nothing. Say --columns unused={column} if it is no finding"
    )
    refuse_line(states.isna(), table.path, reason)
    return states


def _stacked(parts: Sequence[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """Rows of several tables, each once."""
    stacked = pd.concat([pd.DataFrame(columns=columns), *parts])[columns].drop_duplicates()
    types = {c: "float64" if c in EDGES else TEXT for c in columns}
    return stacked.astype(types).reset_index(drop=True)


def read_statements(
    builder: SourceBuilder, tables: Sequence[_Table]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Labels and boxes that placed tables state, reader by reader, silence included."""
    stated = _Statements()
    for table in tables:
        rows = table.images[["image_id"]].assign(reader=REFERENCE_READER)
        if table.has("reader"):
            rows["reader"] = table.cells("reader")
        refuse_line(rows["reader"] == "", table.path, "reader is empty; fill it in")
        stated.add(table, rows, builder.root, builder.options.class_names)
    said = _stacked(stated.said, [*ROW, "state"])
    boxes = _stacked(stated.boxes, [*ROW, *EDGES])
    known = pd.concat([said[ROW], boxes[ROW]]).drop_duplicates()
    silent = _stacked(stated.silent, ROW).merge(known, how="left", indicator="known")
    absent = silent.loc[silent["known"] == "left_only", ROW].assign(state="absent")
    if len(absent):
        builder.notes.append(
            f"{counted(len(absent), 'finding', 'are')} absent because the rows of an image do not "
            "name them, or say that nothing is there"
        )
    if idle := stated.boxed_normal:
        builder.notes.append(
            f"WARNING: {counted(len(idle), 'box')} on rows that say that nothing is there, the "
            f"first of {idle[0]}: passed over; where a box is right, correct the label"
        )
    normal = _stacked(stated.normal, ["image_id", "reader"])
    ill = pd.concat([said[said["state"] == "present"], boxes])[ROW]
    ill = ill[~is_member(ill["finding"], _dictionary()["nothing_on"])].merge(normal)
    builder.out.add(ill["image_id"], "'no finding' beside a finding")
    labels = pd.concat([said, absent], ignore_index=True)
    if labels.empty and boxes.empty:
        what = "every row says that nothing is there" if len(normal) else "no row says anything"
        raise InputError(f"{tables[0].path}: {what}: no finding to learn; add images that show one")
    origin = next((t.known["origin"] for t in tables if "origin" in t.known), "consensus")
    by_reference = labels["reader"] == REFERENCE_READER
    labels["origin"] = by_reference.map({True: origin, False: "reader"}).astype(TEXT)
    return labels, boxes
