"""A table of the user: the description of its columns, and what the cells of each role say."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

import pandas as pd
from pydantic import BaseModel, ConfigDict

from cxr_compare.data_prep.base.box_check import ROLES_OF_FORMS, BoxForm
from cxr_compare.data_prep.base.errors import InputError, Remedy, ask, counted
from cxr_compare.data_prep.base.ids import TEXT, is_member, renamed
from cxr_compare.data_prep.base.names import finding_name
from cxr_compare.data_prep.base.user_tables import refuse_line
from cxr_compare.data_prep.sources.label_names import Label, LabelError, name_labels
from cxr_compare.data_prep.sources.record import label_line
from cxr_compare.data_prep.sources.source import PREPARE, Caller
from cxr_compare.data_prep.sources.words import (
    ambiguous_sexes,
    are_class_numbers,
    class_finding,
    dictionary,
    is_number,
    normal_classes,
    plain_cells,
    split_labels,
    states_of_cells,
    view_of,
)

BOX_ROLES = ("xmin", "xmax", "width", "xcenter", "ymin", "ymax", "height", "ycenter")
LABEL_ROLES = ("label", "finding", "no_finding")
REVERSED = {"present": "absent", "absent": "present"}
"""States in a column that says what is not there."""
_MOST_WORDS = 40  # of views or sexes, the most frequent first


class TableRules(BaseModel):
    """Description of a label table: the contents of its columns and the meanings of its cells.

    Attributes:
        name: Name of the published table; such tables are recognised by their `columns`.
        columns: Columns that such a table all has.
        roles: Column, or columns of which the first filled one counts, by role.
        origin: Who gave the labels.
        patient_pattern: Finds the patient in the path of an image.
        boxes_only: The table states boxes, and no label.
        closed: A label names everything that is present.
        separator: Between labels of a cell, other than ``|`` and ``;``.
        unknown: Labels that say nothing.
        values: Other words for the cells of a role.
        numbers: Facts that are numbers.
        size: Width and height in px of the published images, of which the boxes are.
        ids: Pattern of the published ids: the size is that of images of which most have such ids.
        field: Columns of width, height (px) and spacing in x, y (mm) before an image was scaled.
        file: Glob patterns of the file.
        missing: Note if the file is not there; it is required without one.
    """

    model_config = ConfigDict(extra="forbid")
    name: str = ""
    columns: list[str] = []
    roles: dict[str, str | list[str]] = {}
    origin: str = "unknown"
    patient_pattern: str = ""
    boxes_only: bool = False
    closed: bool = True
    separator: str = ""
    unknown: list[str] = []
    values: dict[str, dict[str, str]] = {}
    numbers: list[str] = []
    size: tuple[int, int] | None = None
    ids: str = ""
    field: list[str] = []
    file: list[str] = []
    missing: str | None = None

    def find(self, root: Path) -> list[Path]:
        """Return the files of the table in a folder, of each pattern the newest name."""
        matches = [sorted(root.glob(pattern))[-1:] for pattern in self.file]
        return [path for paths in matches for path in paths]


@cache
def descriptions() -> dict[str, Any]:
    """Return the content of ``datasets.toml``: tables, formats and sets of published data."""
    path = Path(__file__).with_name("datasets.toml")
    return tomllib.loads(path.read_text(encoding="utf-8"))


@cache
def published_tables() -> list[TableRules]:
    """Return the descriptions of published tables, which are recognised by their columns."""
    tables = [t for entry in descriptions()["set"].values() for t in entry["table"] if "name" in t]
    return [TableRules.model_validate(table) for table in [*descriptions()["table"], *tables]]


def rules_of(columns: Sequence[str]) -> TableRules:
    """Return the description of the published table with these columns; an empty one without."""
    fitting = [rules for rules in published_tables() if {*rules.columns} <= {*columns}]
    return max(fitting, key=lambda rules: len(rules.columns), default=TableRules())


@dataclass(frozen=True, eq=False)
class Sheet:
    """A table of labels or of predictions, with the content (role) of its columns.

    It never changes: what is recognised or said next makes another one.

    Attributes:
        path: The file, or the folder whose paths are the rows.
        text: Cells as texts; those of predictions in memory have their own types.
        rules: Description of the table.
        columns: Columns by role; those of the description come first.
        names: Finding by column, where it is not called as its column.
        means: Meaning by text, as far as the user has said it, of labels, states and roles.
        answered: Roles and columns that the user has decided.
        caller: The command that reads the table.
        pairs: Columns by which it is joined, each with the key of images that it holds.
        negated: The column of states, if present means there that the label is absent.
    """

    path: Path
    text: pd.DataFrame
    rules: TableRules = field(default_factory=TableRules)
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    means: Mapping[str, str] = field(default_factory=dict)
    answered: Set[str] = frozenset()
    caller: Caller = PREPARE
    pairs: Sequence[tuple[str, str]] = ()
    negated: str = ""

    def __post_init__(self) -> None:
        """Give the columns the roles of the description, in a table that has none."""
        if not self.columns and self.rules.roles:
            table = replace(self, columns={"unused": []})
            for role, listed in self.rules.roles.items():
                table = table.having(role, *([listed] if isinstance(listed, str) else listed))
            object.__setattr__(self, "columns", table.columns)
            object.__setattr__(self, "names", table.names)

    def having(self, role: str, *columns: str) -> Self:
        """Return the table with further columns, as far as it has them, of a role."""
        kind, _, finding = role.partition(":")
        present = [column for column in columns if column in self.text.columns]
        names = {**self.names, **dict.fromkeys(present, finding)} if finding else self.names
        of_kind = [*self.columns_of(kind), *present]
        return replace(self, columns={**self.columns, kind: of_kind}, names=names)

    def without(self, *roles: str) -> Self:
        """Return the table without any column of some roles."""
        columns = {role: of_role for role, of_role in self.columns.items() if role not in roles}
        return replace(self, columns=columns)

    def corrected(self, role: str, column: str) -> Self:
        """Return the table with the role that the user gives a column, in place of another."""
        kind = "state" if role == "negated" else role.partition(":")[0]
        others = {r: [c for c in of_role if c != column] for r, of_role in self.columns.items()}
        if kind not in self.answered or kind not in ("finding", "unused"):
            others[kind] = []
        negated = "" if column == self.negated else self.negated
        return replace(
            self,
            columns=others,
            answered={*self.answered, kind, column},
            negated=column if role == "negated" else negated,
        ).having(kind if role == "negated" else role, column)

    def columns_of(self, *roles: str) -> list[str]:
        """Return the columns of some roles, in the order of the roles."""
        return [column for role in roles for column in self.columns.get(role, ())]

    def has(self, *roles: str) -> bool:
        """Return True if a column has one of these roles."""
        return bool(self.columns_of(*roles))

    @property
    def unused(self) -> list[str]:
        """Names of columns whose role is not known."""
        used = {column for columns in self.columns.values() for column in columns}
        used |= {*self.rules.field}
        return [column for column in self.text.columns if column not in used]

    @property
    def header(self) -> str:
        """Names of the first columns, for messages."""
        return ", ".join([*self.text.columns][:20])

    @property
    def box_roles(self) -> set[str]:
        """Roles of the columns that describe boxes, such as ``xmin``."""
        return {role for role in BOX_ROLES if self.has(role)}

    @property
    def box_columns(self) -> list[str]:
        """Columns that describe boxes."""
        return self.columns_of(*BOX_ROLES)

    @property
    def kind(self) -> str:
        """Contents of the table in a few words."""
        if self.path.is_dir():
            return "folders of classes"
        present = {
            "boxes": bool(self.box_roles),
            "labels": self.has(*LABEL_ROLES),
            "patients": self.has("patient"),
        }
        contents = [content for content, is_there in present.items() if is_there]
        return f"a table of {' and '.join(contents[:2]) or 'images'}"

    @property
    def box_form(self) -> BoxForm | None:
        """Form of the four numbers of a box; None if the columns do not make a box."""
        forms = ROLES_OF_FORMS.items()
        return next((form for form, needed in forms if self.box_roles >= {*needed}), None)


@dataclass(frozen=True, eq=False)
class LabelTable(Sheet):
    """A label table, whose cells are texts.

    Attributes:
        key: Role of the column that says which images a row is of.
        images: ``image_id`` and ``path`` of each row, once they were found.
    """

    key: str = "file"
    images: pd.DataFrame = field(default_factory=pd.DataFrame)

    def with_images(self, matches: pd.DataFrame) -> LabelTable:
        """Return the rows whose images were found; columns ``row``, ``image_id`` and ``path``."""
        text = self.text.iloc[matches["row"].to_numpy()]
        images = matches[["image_id", "path"]].set_index(text.index)
        return replace(self, text=text, images=images)

    def cells(self, role: str) -> pd.Series:
        """Return the cells of a role, translated into standard terms; empty texts without one."""
        cells, meanings = self._written(role), self.meanings(role)
        return renamed(cells.str.lower(), meanings).fillna(cells) if meanings else cells

    def _written(self, role: str) -> pd.Series:
        if not self.has(role):
            return pd.Series("", index=self.text.index, dtype=TEXT, name=role)
        first, *others = self.columns[role]
        cells = self.text[first]
        for column in others:
            cells = cells.where(cells != "", self.text[column]).rename(column)
        return cells

    @property
    def _meanings_of_labels(self) -> dict[str, str]:
        answers = {text: to for text, to in self.means.items() if to != "finding"}
        return {**self.rules.values.get("label", {}), **answers}

    def meanings(self, role: str) -> dict[str, str]:
        """Return standard terms, empty for unknown, by the words of a role in lower case."""
        meanings = {**dictionary()["values"].get(role, {}), **self.rules.values.get(role, {})}
        meanings |= self.means if role == "split" else {}
        cells = chain.from_iterable(self.text[c].unique() for c in self.columns_of(role))
        texts = {cell.lower() for cell in cells} if role in ("sex", "view") else set()
        if role == "sex":
            meanings |= dict.fromkeys(ambiguous_sexes(texts), "")
        if role == "view":
            views = {word: view_of(word) for word in texts - {*meanings}}
            meanings |= {word: view for word, view in views.items() if view is not None}
        return meanings

    def word_line(self, role: str) -> str:
        """Return a line on words of views or sexes, if one is not known or is of a lateral view."""
        counts = self._written(role).value_counts().drop("", errors="ignore")
        meanings = {**dict.fromkeys(dictionary()["unknown"], ""), **self.meanings(role)}
        meaning_of_word = [meanings.get(str(word).lower(), "not known") for word in counts.index]
        if {*meaning_of_word} <= {"PA", "AP", "M", "F", "O", ""}:
            return ""
        term_of = {"LL": "lateral, left out", "": "frontal" if role == "view" else "unknown"}
        rows = zip(counts.index, meaning_of_word, counts, strict=True)
        terms = [f"{word} = {term_of.get(meaning, meaning)} ({n:,})" for word, meaning, n in rows]
        more = f", and {len(terms) - _MOST_WORDS:,} others" if len(terms) > _MOST_WORDS else ""
        return f"{role}: {', '.join(terms[:_MOST_WORDS])}{more}"

    @property
    def labelled_columns(self) -> list[str]:
        """Columns that say what an image shows."""
        return self.columns_of(*LABEL_ROLES)

    @property
    def are_boxed(self) -> pd.Series:
        """True for each row with a number of a box."""
        return (self.text[self.box_columns] != "").any(axis=1)

    @property
    def states_labels(self) -> bool:
        """True if a column holds labels or boxes, and not only facts of the images."""
        return self.has(*LABEL_ROLES, *BOX_ROLES)

    def finding(self, column: str) -> str:
        """Return the name of the finding whose labels a column holds."""
        return self.names.get(column) or class_finding(column, str(self.path))

    def states(self, column: str) -> pd.Series:
        """Return the states in a column, empty where they are unknown."""
        cells = self.text[column]
        cells = renamed(cells.str.lower(), self.means).fillna(cells) if self.means else cells
        unknown = [*dictionary()["unknown"], *self.rules.unknown]
        states = states_of_cells(cells).mask(is_member(plain_cells(cells), unknown), "")
        reason = (
            f"column '{column}' holds no state; write 1 or yes, 0 or no, -1 or uncertain, or "
            "nothing"
        )
        is_known = bool(self.rules.roles)  # as the columns of a published table are
        ways = [self.caller.remedy({"unused": column}, "it is no finding")]
        # The cell is not quoted, which may be a name.
        refuse_line(states.isna(), self.path, reason, ways=[] if is_known else ways)
        return states.replace(REVERSED) if column == self.negated else states

    def name(self, texts: Iterable[str], findings: Sequence[str] = ()) -> dict[str, Label]:
        """Return finding and state of labels, without those which say that nothing is known."""
        unknown = {*dictionary()["unknown"], *self.rules.unknown}
        stating = [text for text in texts if text.lower() not in unknown]
        where = f"{self.path}: column '{[*self.columns_of('label'), 'label'][0]}'"
        others = [name.replace("_", " ") for name in findings]
        # Beside a state, "uncertain" and "no" in front are part of a name.
        kind: Literal["column", "label"] = "column" if self.has("state") else "label"
        names_by_user = [text for text in stating if self.means.get(text.lower()) == "finding"]
        labels_by_user = {text: Label(class_finding(text, where)) for text in names_by_user}
        unnamed = [
            text for text in dict.fromkeys([*stating, *others]) if text not in labels_by_user
        ]
        doubts: list[InputError] = []
        while True:
            try:
                is_published = bool(self.rules.roles)
                labels = name_labels(unnamed, where, kind, is_published=is_published)
            except LabelError as error:
                ways = [
                    self.caller.remedy({f"means:{error.text}": meaning}, when)
                    for when, meaning in error.meanings.items()
                ]
                doubts.append(InputError(error.problem, ways))
                unnamed.remove(error.text)
                continue
            ask(doubts)
            return {**labels, **labels_by_user}

    def labels(
        self, class_names: Sequence[str] = (), findings: Sequence[str] = ()
    ) -> tuple[dict[str, list[str]], dict[str, Label]]:
        """Return the labels that each cell of the label column lists, and what each of them means.

        One that says nothing has no meaning. `class_names` are those of numbers, `findings` those
        of a public set.
        """
        cells = self.cells("label")
        if self.caller.compares:
            numbers = [cell for cell in cells.unique() if is_number(cell)]
            of_classes = are_class_numbers(map(float, numbers)) and not self.box_roles
            of_classes = of_classes and bool(is_member(cells, ["", *numbers]).all())
            if of_classes and self.caller.numbers_classes:  # as an array of them is read
                names = {cell: f"{float(cell):.0f}" for cell in numbers}
                listed = {cell: [name] for cell, name in names.items()}
                return {"": [], **listed}, {name: Label(name) for name in names.values()}
            is_wrong = states_of_cells(cells).isna() & is_member(cells, numbers)
            image = next(iter(self.cells(self.key)[is_wrong]), "")
            reason = f", image '{image}'; write 1, 0 or nothing, or the name of each class"
            way = self.caller.remedy({"classes": "exclusive"}, "they number classes")
            refuse_line(is_wrong, self.path, reason, cells, [way] if of_classes else [])
        texts_of = {cell: self._texts(cell, class_names) for cell in cells.unique()}
        if not class_names and not self.has("state"):
            self._refuse_states_among(texts_of)
        for cell, texts_of_cell in texts_of.items():
            if texts_of_cell == [cell] and cell.isdecimal():
                last = len(class_names) - 1
                limits = f", and names were given for 0 to {last}" if class_names else ""
                raise InputError(
                    f"{self.path}: column '{cells.name}' numbers its classes ({cell[:20]}){limits}"
                    "; name each class from 0 on, in order",
                    [Remedy("", {"class_names": ["NAME", "NAME"]})],
                )
        texts = [*dict.fromkeys(chain.from_iterable(texts_of.values()))]
        return texts_of, self.name(texts, findings)

    def _refuse_states_among(self, texts_of: Mapping[str, Sequence[str]]) -> None:
        """Refuse a state, such as 1 or yes, among names: it does not say of which finding."""
        vague = {*dictionary()["unknown"], *self.rules.unknown}
        texts = [
            text
            for text in dict.fromkeys(chain.from_iterable(texts_of.values()))
            if text.lower() not in vague and finding_name(text) not in normal_classes()
        ]
        states = dict(zip(texts, states_of_cells(pd.Series(texts, dtype=TEXT)), strict=True))
        meant = {"present": "NAME", "absent": "normal"}
        stating = {text: meant[state] for text, state in states.items() if state in meant}
        others = {t for t, state in states.items() if pd.isna(state) and not is_number(t)}
        if not stating or not others:
            return
        cells = self.cells("label")
        rows = [
            cells.map({cell: not kind.isdisjoint(texts_of[cell]) for cell in texts_of}).astype(bool)
            for kind in ({*stating}, others)
        ]
        reason = (
            f": a state, such as '{next(iter(stating))[:20]}', stands beside names, such as "
            f"'{min(others)[:20]}', and does not say of which finding; write names alone, and "
            "'normal' where nothing is found, or 1 and 0 in a column for each finding"
        )
        answers = {f"means:{text}": meaning for text, meaning in stating.items()}
        ways = [self.caller.remedy(answers, "the states are of the finding NAME")]
        refuse_line(min(rows, key=sum), self.path, reason, cells, ways)

    def _texts(self, cell: str, class_names: Sequence[str]) -> list[str]:
        """Return the labels, as they are written, that a cell of the label column lists."""
        number = re.fullmatch(r"(\d{1,9})(?:\.0)?", cell)
        if number and int(number[1]) < len(class_names):
            return [class_names[int(number[1])]]
        separator = self.rules.separator
        texts = [t.strip() for t in re.split(separator, cell)] if separator else split_labels(cell)
        texts = [self._meanings_of_labels.get(text.lower(), text) for text in texts if text]
        return texts if separator else [part for text in texts for part in split_labels(text)]

    @property
    def summary(self) -> str:
        """One line on the number of rows, the role of each column and the unused columns."""
        pairs = [(role, column) for role, columns in self.columns.items() for column in columns]
        names = self.caller.roles
        negated = {self.negated: "negated "}
        roles = ", ".join(
            f"{column} as {negated.get(column, '')}{names.get(role, role)}"
            for role, column in pairs
            if role != "unused" and not (role == "patient" and self.caller.knows_patients)
        )
        rows = counted(len(self.text), "row")  # stored with the set, whoever makes it
        return (
            f"{self.path.name}: {rows}; columns: {roles} (to correct: option columns, ROLE=COLUMN)"
        )

    def label_line(self, class_names: Sequence[str] = ()) -> str:
        """Return a line on the labels, their numbers, and what else than a finding they mean."""
        texts_of, meanings = self.labels(class_names)
        counts: Counter[str] = Counter()
        for cell, n in self.cells("label").value_counts().items():
            for text in texts_of[str(cell)]:
                counts[text] += int(n)
        unknown = Label("unknown", "")
        return label_line((t, *meanings.get(t, unknown), n) for t, n in counts.most_common())


Tables: TypeAlias = Sequence[LabelTable]
"""Label tables that are read together."""
