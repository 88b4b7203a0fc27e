"""What label tables are asked about: each question is a rule with a name, a test and a sentence.

A test returns the columns in doubt, with further words of the sentence, or None. The sentence names
the columns, and answers of the user by the role that these would have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, counted
from cxr_compare.data_prep.base.ids import is_member
from cxr_compare.data_prep.base.names import (
    class_column,
    columns_of_roles,
    finding_name,
    names_finding,
    plain_name,
)
from cxr_compare.data_prep.base.tables import ROLE_NAMES
from cxr_compare.data_prep.base.user_tables import line_of
from cxr_compare.data_prep.sources.words import (
    class_finding,
    dictionary,
    holds_states,
    is_circumstance,
    is_number,
    normal_classes,
    plain_cells,
    split_labels,
    state_of_text,
    states_of_cells,
)

if TYPE_CHECKING:
    from cxr_compare.data_prep.sources.label_names import Label
    from cxr_compare.data_prep.sources.label_table import LabelTable

Doubt = tuple[Sequence[str], dict[str, str]]
"""Columns in doubt, and further words of the sentence."""
_N_NUMBERS = 4  # of a box
_SIZES = ("w", "h", "width", "height")
_EDGES = {
    "x": {"x", "xmin", "xmax", "xcenter", "xc", "cx"},
    "y": {"y", "ymin", "ymax", "ycenter", "yc", "cy"},
    "size": {*_SIZES},
}
_BOX_COLUMNS = (
    "bbox", "bboxes", "box", "boxes", "boundingbox", "boundingboxes", "predictionstring", "rle",
    "encodedpixels", "polygon", "polygons", "segmentation", "regionshapeattributes",
)  # fmt: skip
_MINUS = re.compile("^\\s*[!\uff01]|[-\u2010-\u2015\u2212\uff0d]\\s*\\)?\\s*$")
_SHOWN = 60  # characters of a label in a message


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


@dataclass(frozen=True)
class Question:
    """A question about the columns of a table.

    Attributes:
        name: What is in doubt.
        test: Function from a table, and what else it needs, to the doubt; None without one.
        sentence: The question, with the answers: ``{columns}`` are the columns in doubt, and a
            role, such as ``{unused}``, is what the user says so that they have it.
    """

    name: str
    test: Callable[..., Doubt | None]
    sentence: str

    def ask(self, table: LabelTable, **known: Any) -> None:
        """Ask the user, by an `InputError` that begins with the table, if the test says so."""
        doubt = self.test(table, **known)
        if doubt is None:
            return
        columns, words = doubt
        for answer in re.findall(r"\{(finding|label|split|state|unused)\}", self.sentence):
            words[answer] = table.caller.advice(answer, *columns)
        asked = self.sentence.format(columns=_quoted(columns), **words)
        raise InputError(f"{table.path}: {table.kind}; {asked}")


def _unread(table: LabelTable) -> pd.DataFrame:
    return table.text[table.unused]


def _two_splits(table: LabelTable) -> Doubt | None:
    found = columns_of_roles(_unread(table))
    return (found, {}) if len(found) > 1 else None


def _roles_as_states(table: LabelTable) -> Doubt | None:
    """Find a column of 0 and 1 that is called like a role, such as ``is_test``."""
    for column, cells in _unread(table).items() if not table.has("split") else ():
        name = plain_name(str(column))
        names = {name, name.removeprefix("is"), name.removeprefix("in"), name.removesuffix("set")}
        if names & {*ROLE_NAMES, "holdout", "heldout"} and _divides_images(cells):
            return [str(column)], {}
    return None


def _states_of_labels(table: LabelTable) -> Doubt | None:
    """Find a column that may say whether the label of its row is present."""
    is_asked = table.has("label") and not table.has("state")
    for column, cells in _unread(table).items() if is_asked else ():
        words = set(plain_cells(cells))
        says_both = {"present", "absent"} <= words or {"positive", "negative"} <= words
        if says_both and holds_states(cells):
            return [str(column)], {}
    return None


def _findings(table: LabelTable) -> Doubt | None:
    """Find columns that hold states, present ones and others, as a column of a finding."""
    findings = [*table.columns.get("finding", ()), *table.columns.get("no_finding", ())]
    are_boxes = bool(table.box_roles) and not table.has("label")
    is_asked = (findings or are_boxes) and not table.caller.wanted
    alike = columns_of_states(_unread(table)) if is_asked else []
    alike = [name for name in alike if _divides_images(table.text[name])]
    like = f", as '{findings[0]}' does" if findings else ""
    return (alike, {"like": like}) if alike else None


def columns_of_states(text: pd.DataFrame) -> list[str]:
    """Return the columns that hold states and describe no image."""
    return [c for c in map(str, text) if not is_circumstance(c) and holds_states(text[c])]


def _divides_images(cells: pd.Series) -> bool:
    """Return True for states of which one is present, and a cell is another or empty."""
    states = states_of_cells(cells)
    return "present" in set(states) and states.nunique(dropna=False) > 1


def _unread_boxes(table: LabelTable) -> Doubt | None:
    """Find columns of numbers that are called like the edges of boxes, such as ``x1_1``."""
    kind_of: dict[str, str] = {}
    for name, cells in _unread(table).items() if not table.box_roles else ():
        filled = cells[cells != ""]
        are_numbers = not filled.empty and pd.to_numeric(filled, errors="coerce").notna().all()
        words = set(re.findall("[a-z]+", str(name).lower()))
        kinds = [kind for kind, edges in _EDGES.items() if words & edges]
        if kinds and are_numbers:
            kind_of[str(name)] = kinds[0]
    are_boxes = {"x", "y"} <= {*kind_of.values()} and len(kind_of) >= _N_NUMBERS
    return ([*kind_of], {}) if are_boxes else None


def _second_box(table: LabelTable) -> Doubt | None:
    """Find four columns of numbers that may be another box of the row, and its label."""
    boxes = table.text[table.box_columns]
    if len(boxes.columns) < _N_NUMBERS:
        return None
    read = boxes.apply(pd.to_numeric, errors="coerce")
    is_boxed = read.notna().any(axis=1)
    alike = []
    for name, cells in _unread(table).items():
        filled = cells[cells != ""]
        numbers = pd.to_numeric(filled, errors="coerce")
        if filled.empty or numbers.isna().any() or holds_states(filled):
            continue
        fits = numbers.between(0, read.max().max()).all() and is_boxed[filled.index].all()
        is_count = set(numbers.diff().dropna()) == {1.0}
        is_copy = _is_numbered_copy(str(name), [*boxes, *_SIZES])
        if is_copy or (fits and not is_count):
            alike.append(str(name))
    if len(alike) < _N_NUMBERS:
        return None
    labels = table.columns.get("label", [])
    return [*alike, *(c for c in table.unused if _is_numbered_copy(c, labels))], {}


def _second_label(table: LabelTable) -> Doubt | None:
    """Find a column with labels of the column that is read, or with its name and a number."""
    for label in table.columns.get("label", ()):
        known = _names(table.text[label]) - {"", *map(finding_name, dictionary()["unknown"])}
        is_chosen = "label" in table.assigned
        for column in table.unused:
            cells = table.text[column]
            names = _names(cells)
            repeats = bool(names - normal_classes()) and names <= known and not is_chosen
            is_numbered = bool(names) and _is_numbered_copy(column, [label])
            if is_numbered or (repeats and _adds_labels(cells, table.text[label])):
                return [column], {"label_column": label}
    return None


def _adds_labels(cells: pd.Series, label: pd.Series) -> bool:
    """Return True if a row has a label in `cells` that it has not in the column that is read."""
    pairs = {*zip(cells, label, strict=True)}
    return any(_names_in(other) - _names_in(read) for other, read in pairs)


def _names(cells: pd.Series) -> set[str]:
    """Return the distinct labels in cells, without numbers."""
    return {name for cell in cells.unique() for name in _names_in(cell)}


def _names_in(cell: str) -> set[str]:
    """Return the labels that a cell lists, without numbers."""
    return {finding_name(text) or text for text in split_labels(cell) if not is_number(text)}


def _is_numbered_copy(name: str, used: Sequence[str]) -> bool:
    """Return True for a name that differs from one of `used` in its digits alone, as xmin2."""
    return any(_without_digits(name) == _without_digits(other) for other in used)


def _without_digits(name: str) -> str:
    return plain_name(name).translate(str.maketrans("", "", "0123456789"))


def _boxes_as_texts(table: LabelTable) -> Doubt | None:
    """Find a column that writes boxes as texts."""
    for column in table.unused:
        are_boxes = are_box_texts(table.text[column])
        if are_boxes.any():
            return [column], {"line": line_of(are_boxes)}
    return None


def are_box_texts(cells: pd.Series) -> pd.Series:
    """Return True for cells that write boxes as one text, such as ``[10, 20, 30, 40]``.

    In a column with a name of boxes, such as ``bbox``, any cell with four numbers is one.
    """
    are_boxes = cells.str.count(r"\d+(?:\.\d+)?") >= _N_NUMBERS
    if plain_name(str(cells.name)) in _BOX_COLUMNS:
        return are_boxes
    return are_boxes & cells.str.fullmatch(r"\s*[\[(][-\d.,;e\s()\[\]]*")


def _other_class(table: LabelTable, *, is_boxed: pd.Series, own: Sequence[str]) -> Doubt | None:
    """Find boxes of a class that is none of their `own` findings, in a column that is not read."""
    boxed = table.text.loc[is_boxed.to_numpy(), table.unused]
    column = class_column(boxed)
    if column is None or not own:
        return None
    classes = boxed[column]
    if classes.nunique() == 1 and not names_finding(classes.iloc[0]):
        return None
    named = classes.map({text: finding_name(text) for text in classes.unique()})
    is_other = pd.Series(~is_member(named, own), named.index)
    if not is_other.any():
        return None
    shown = f"{line_of(is_other)}: {column}={classes[is_other].iloc[0]!r}"
    return [column], {"place": shown, "of": own[0]}


def _corner_or_centre(table: LabelTable, *, is_in_doubt: bool) -> Doubt | None:
    """Find shares of a corner or a centre that their columns call x and y."""
    columns = [column for role in ("xmin", "ymin") for column in table.columns.get(role, ())]
    if not is_in_doubt or not columns[0].lower().endswith("x"):
        return None
    return columns, {}


UNREAD = (
    Question(
        "roles as 0 and 1",
        _roles_as_states,
        "does column {columns} say which images are for training and for the test? If so, write a "
        "column split with train, val or test on every line in its place; {finding} if it holds a "
        "finding, and {unused} if neither",
    ),
    Question(
        "states of the labels",
        _states_of_labels,
        "does column {columns} say whether the label of its row is present or absent? If it does, "
        "{state}, else {unused}",
    ),
    Question(
        "further findings",
        _findings,
        "do {columns} hold findings{like}? For each that does, {finding}, else {unused}",
    ),
    Question(
        "boxes that are not read",
        _unread_boxes,
        "do {columns} hold boxes? Write each box in a row of its own with the columns "
        "xmin,ymin,xmax,ymax or xmin,ymin,width,height, or {unused} if they hold none",
    ),
    Question(
        "a second box in a row",
        _second_box,
        "do {columns} hold another box of the row? Write each box in a row of its own, or {unused} "
        "if they hold none",
    ),
    Question(
        "a second column of labels",
        _second_label,
        "does column {columns} hold labels of the image, as '{label_column}' does? Write all "
        "labels of an image into one column, with | between them, or {unused} if it does not count",
    ),
)
"""Questions about columns that are not read, in the order in which they are asked."""
TWO_SPLITS = Question(
    "two columns of roles",
    _two_splits,
    "which of {columns} says the role of an image? If one does, {split}",
)
BOXES_AS_TEXTS = Question(
    "boxes as texts",
    _boxes_as_texts,
    "{line}: column {columns} writes a box as one text, which may be corners or sizes; write each "
    "box in a row of its own with the columns x1,y1,x2,y2 or x,y,width,height, or {unused} to "
    "leave it out",
)
OTHER_CLASS = Question(
    "the class of boxes",
    _other_class,
    "{place} of a box, and the finding is '{of}'; {label} if the column names what a box shows, "
    "else {unused}",
)
CORNER_OR_CENTRE = Question(
    "corner or centre",
    _corner_or_centre,
    "boxes are in shares of the image: are {columns} the corner or the centre? For the corner "
    "say columns box_form=xywh, for the centre say columns box_form=cxcywh",
)


def of_which_findings(
    table: LabelTable, texts_of: Mapping[str, list[str]], meaning: Mapping[str, Label]
) -> dict[str, str]:
    """Return, by finding, the question about a label that says "positive", and not of what.

    Such a word stands among names of findings. One that no finding can be called by is refused.
    """
    states = {text: state_of_text().get(text.lower(), "") for text in meaning}
    named = {meaning[text].finding for text, state in states.items() if not state}
    if table.has("state") or not named - normal_classes():
        return {}
    questions: dict[str, str] = {}
    cells = table.cells("label")
    for text, state in states.items():
        finding = meaning[text].finding
        if state in ("present", "absent") and finding not in normal_classes():
            is_here = cells.map(lambda cell, text=text: text in texts_of[cell]).astype(bool)
            where = f"{line_of(is_here)}: column '{cells.name}'"
            if table.path.is_dir():
                where = f"folder '{text}'"
            question = (
                f"{table.path}: {where} says '{text}' beside names of findings, and not of which "
                f"finding ({counted(int(is_here.sum()), 'row')}); write the name of the finding, "
                "or 'normal' where nothing is found"
            )
            if state == "absent" or len(text) == 1:
                raise InputError(question)
            questions[finding] = question
    return questions


@dataclass(frozen=True)
class LabelQuestion:
    """A question about a label: a test, what the label may mean, and what the user then writes."""

    test: Callable[[Any], bool]
    meaning: str
    answer: str

    def asked(self, text: str, where: str, **words: Any) -> InputError:
        """Return the question about a label; `where` names the file and the column."""
        meaning = self.meaning.format(**words)
        return InputError(f"{where}: does the label '{text[:_SHOWN]}' {meaning}? {self.answer}")


def _doubts_within(text: str) -> bool:
    """Return True for a word of doubt between others; one in front or behind is understood."""
    name = class_finding(text, "")
    doubt = words_pattern("uncertain_words")
    bare = without_doubt(name)
    is_alone = re.fullmatch(doubt, name) is not None
    return not is_alone and re.search(rf"(?:^|_){doubt}(?:_|$)", bare) is not None


def _tells_of_past(text: str) -> bool:
    name = without_doubt(class_finding(text, ""))
    return re.search(rf"(?:^|_){words_pattern('past_before')}_", name) is not None


def without_doubt(name: str) -> str:
    """Return the name of a finding without the words of doubt before or behind it."""
    doubt = words_pattern("uncertain_words")
    return re.sub(rf"^{doubt}_|_{doubt}$", "", name)


@cache
def words_pattern(words: str) -> str:
    """Return the pattern of a list of words of ``columns.toml``, in names of findings."""
    names = [class_finding(word, "columns.toml") for word in dictionary()[words]]
    names.sort(key=len, reverse=True)
    return f"(?:{'|'.join(names)})"


DOUBTS = (
    LabelQuestion(
        lambda text: "?" in text,
        "say that a finding is uncertain",
        "Write 'uncertain mass', or no question mark",
    ),
    LabelQuestion(
        _doubts_within,
        "say that a finding is uncertain",
        "Write 'uncertain mass', with | between labels",
    ),
    LabelQuestion(
        _tells_of_past,
        "say that a finding was there before",
        "Write the finding alone if the image shows it, else 'unknown', or other words",
    ),
)
"""Questions about a label alone, in the order in which they are asked."""
ABSENT = LabelQuestion(
    lambda text: _MINUS.search(text) is not None,
    "say that something is absent",
    "Write 'normal' where an image shows nothing, or give the class another name",
)
NORMAL = LabelQuestion(
    lambda name: not {"normal", "healthy"}.isdisjoint(name.split("_")),
    "mean that the image shows nothing",
    "Write 'normal', or give it the name of a finding",
)
LIST = LabelQuestion(
    lambda parts: len(parts) > 1,
    "list {n_labels} labels",
    "Write | or ; between labels; if it is one, give it a name of other words",
)
