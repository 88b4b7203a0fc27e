"""What label tables are asked about: each question is a rule with a name, a test and a sentence.

A test returns the columns in doubt, with further words of the sentence, or None. The sentence names
the columns, and answers of the user by the role that these would have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, counted
from cxr_compare.data_prep.base.ids import is_member
from cxr_compare.data_prep.base.names import (
    class_column,
    columns_of_roles,
    finding_name,
    names_by_role,
    names_finding,
    plain_name,
)
from cxr_compare.data_prep.base.tables import ROLE_NAMES
from cxr_compare.data_prep.base.user_tables import NAMELESS, line_of
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

Table: TypeAlias = Any
"""A `LabelTable`, whose module asks the questions about words of labels that stand here."""
Doubt = tuple[Sequence[str], dict[str, str]]
"""Columns in doubt, and further words of the sentence."""
_ANSWERS = re.compile(r"\{(finding|label|patient|reader|split|state|unused)\}")
_N_NUMBERS = 4  # of a box
_N_STATES = 2  # present and absent: so many rows may count by chance
_FEW_ROWS = 6  # two columns of two values each may go together by chance
_FEW_VALUES = 6  # of a column of words that are shown, each on so many patients:
_MANY_PATIENTS = 10
_MOST_VALUES = 12  # of a column that is shown with them
_WORDS_OF_SENTENCE = 3  # and one more
_FEW_SENTENCES = 4  # that are no long names
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

    def ask(self, table: Table, **facts: Any) -> None:
        """Ask the user, by an `InputError` that begins with the table, if the test says so."""
        doubt = self.test(table, **facts)
        if doubt is None:
            return
        columns, words = doubt
        for answer in _ANSWERS.findall(self.sentence):
            words.setdefault(answer, table.caller.advice(answer, *columns))
        asked = self.sentence.format(columns=_quoted(columns), **words)
        raise InputError(f"{table.path}: {table.kind}; {asked}")


def _unread(table: Table) -> pd.DataFrame:
    return table.text[table.unused]


def _two_splits(table: Table) -> Doubt | None:
    columns = columns_of_roles(_unread(table))
    return (columns, {}) if len(columns) > 1 else None


def _states(table: Table) -> Doubt | None:
    """Find columns of states, some present and some not, that may be of labels or of images."""
    asked = [name for name in table.unused if _may_be_states(table, table.text[name])]
    if not asked:
        return None
    ways = []
    if table.has("label") and not table.has("state"):
        counts = states_of_cells(table.text[asked[0]]).value_counts()
        n, m = (int(counts.get(state, 0)) for state in ("present", "absent"))
        state, negated = (table.caller.advice(role, asked[0]) for role in ("state", "negated"))
        ways.append(
            f"where the label of its row is present ({state}: {n:,} present, {m:,} absent) or "
            f"where it is absent ({negated}: {m:,} present, {n:,} absent)"
        )
    findings = table.columns.get("finding", ())
    like = f", as '{findings[0]}' does" if findings else ""
    ways.append(f"whether a finding is present{like} ({table.caller.advice('finding', *asked)})")
    if any(map(_is_called_as_role, asked)):
        ways.append("which images are for the test (write a column split with train, val or test)")
    listed = ", ".join(shown_column(table, name) for name in asked)
    return asked, {"listed": listed, "ways": ", or ".join(ways)}


def _may_be_states(table: Table, cells: pd.Series) -> bool:
    """Return True for states of which one is present, and a cell is another or empty.

    It is no fact of the images by its name, and does not repeat the labels that are read.
    """
    name = str(cells.name)
    is_stated = table.has("state") and not table.has("finding")
    if _is_called_as_role(name):
        return not table.has("split") and _divides_images(cells)
    if is_circumstance(name) or is_stated or not table.states_labels or counts_rows(cells):
        return False
    if not table.has("label"):
        return not table.caller.wanted and _divides_images(cells)
    is_new = _divides_images(cells) and not _repeats_labels(table, cells)
    return is_new or _grades_labels(table, cells)


def counts_rows(cells: pd.Series) -> bool:
    """Return True for whole numbers that rise by 1 from row to row, as an index that was saved."""
    is_index = len(cells) > _N_STATES or str(cells.name).startswith(NAMELESS)
    return is_index and set(pd.to_numeric(cells, errors="coerce").diff().iloc[1:]) == {1.0}


def _is_called_as_role(column: str) -> bool:
    """Return True for a column that is called like a role, such as ``is_test``."""
    name = plain_name(column)
    names = {name, name.removeprefix("is"), name.removeprefix("in"), name.removesuffix("set")}
    return bool(names & {*ROLE_NAMES, "holdout", "heldout"})


def _divides_images(cells: pd.Series) -> bool:
    """Return True for states of which one is present, and a cell is another or empty."""
    if not holds_states(cells):
        return False
    states = states_of_cells(cells)
    return "present" in set(states) and states.nunique(dropna=False) > 1


def _repeats_labels(table: Table, cells: pd.Series) -> bool:
    """Return True for states that are present on exactly the rows with the label of a finding.

    Or on exactly the others: classes are numbered by the alphabet, too.
    """
    nothing = {*normal_classes(), *map(finding_name, dictionary()["unknown"])}
    label = table.cells("label")
    named = {cell: bool(_names_in(cell) - nothing) for cell in label.unique()}
    is_present = states_of_cells(cells).eq("present").fillna(False)
    return (label.map(named).astype(bool) == is_present).nunique() == 1


def _words_of_states(table: Table) -> Doubt | None:
    """Find a column with a word for each state of a finding, of which the words say otherwise."""
    wanted = {*map(finding_name, table.caller.wanted)}
    if table.rules.roles or {"label", "finding"} & table.answered:
        return None
    for finding in table.columns.get("finding", ()):
        states = states_of_cells(table.text[finding])
        for column in table.unused if finding_name(finding) not in wanted else ():
            pairs = pd.DataFrame({"state": states, "word": table.text[column]})
            pairs = pairs[states.isin(["present", "absent"]) & (pairs["word"] != "")]
            word_of = pairs.drop_duplicates().set_index("state")["word"]
            is_pair = len(word_of) == _N_STATES and word_of.is_unique and word_of.index.is_unique
            if (
                not is_pair
                or len(pairs) < _FEW_ROWS
                or is_circumstance(column)
                or any(map(is_number, word_of))
                or holds_states(pairs["word"])
                or _names_state(table.finding(finding), word_of)
            ):
                continue
            shown, present = shown_column(table, column), word_of["present"]
            return [column], {
                "listed": f"{shown} and {shown_column(table, finding)}",
                "so": f", so that '{present}' would be present" if present in shown else "",
                "states": table.caller.advice("label", finding),
            }
    return None


def _names_state(finding: str, word_of: pd.Series) -> bool:
    """Return True if the word beside each state says the same as the state."""
    present, absent = (finding_name(word_of[state]) for state in ("present", "absent"))
    is_denied = absent in normal_classes() or absent in {f"no_{present}", f"no_{finding}"}
    return present == finding or (is_denied and present not in normal_classes())


def _grades_labels(table: Table, cells: pd.Series) -> bool:
    """Return True for grades from 0 on, such as 0 to 3, that differ between rows of an image."""
    grades = {*plain_cells(cells)} - {""}
    if not {"0", "1", "2"} <= grades <= {*"0123456789"} or not table.has(table.key):
        return False
    return bool(cells.groupby(table.cells(table.key).to_numpy()).nunique().gt(1).any())


def _rows_apart(table: Table) -> Doubt | None:
    """Find columns that tell apart the rows of images whose labels contradict one another."""
    images = table.cells(table.key)
    is_of_images = table.has(table.key) and not (table.has("reader") or table.box_roles)
    if not is_of_images or not images.duplicated().any():
        return None
    states_of = {c: states_of_cells(table.text[c]) for c in table.columns.get("finding", ())}
    if table.has("label") and not table.has("state"):
        names = {cell: _names_in(cell) for cell in table.cells("label").unique()}
        state = {True: "absent", False: "present"}  # of any finding, by a row that says "normal"
        states_of["label"] = table.cells("label").map(
            {cell: state[of <= normal_classes()] for cell, of in names.items() if of}
        )
    states = pd.DataFrame(states_of, images.index)
    states = states.where(states.isin(["present", "absent"]))
    differ = states.groupby(images.to_numpy()).nunique().gt(1).any(axis=1)
    rows = images.isin(differ.index[differ])
    columns = [c for c in table.unused if 1 < table.text[c].nunique() <= _MOST_VALUES]
    apart = [
        c for c in columns if not table.text.loc[rows, [c]].assign(i=images).duplicated().any()
    ]
    if not rows.any() or not apart:
        return None
    return apart, {"listed": ", ".join(shown_column(table, column) for column in apart)}


def _certainty(table: Table) -> Doubt | None:
    """Find a column with words of doubt beside labels."""
    doubt = re.compile(words_pattern("uncertain_words"))
    labels = {*normal_classes(), *dictionary()["findings"]["names"]}
    for column in table.unused if any(map(table.has, ("label", "finding"))) else ():
        values = {finding_name(cell) for cell in table.text[column].unique()} - {""}
        are_few = 1 < len(values) <= _MOST_VALUES and not values & labels
        if are_few and any(map(doubt.fullmatch, values)):
            return [column], {"listed": shown_column(table, column)}
    return None


def _sentences(table: Table) -> Doubt | None:
    """Find a column of labels whose cells are sentences, hardly one of which is repeated."""
    if not table.has("label") or "label" in table.answered:
        return None
    cells = table.cells("label")
    is_sentence = cells.str.count(r"\w+[.,]?\s+") >= _WORDS_OF_SENTENCE
    sentences = cells[is_sentence & ~cells.str.startswith(("[", "{"))]
    if len(sentences) < _FEW_SENTENCES or sentences.nunique() <= 0.8 * len(sentences):
        return None
    return [str(cells.name)], {"n": f"{len(sentences):,}", "label": table.caller.advice("label")}


def shown_column(table: Table, column: str) -> str:
    """Return a column with its values, or how many differ."""
    return f"'{column}' ({shown_cells(table, column)})"


def shown_cells(table: Table, column: str) -> str:
    """Return the values of a column that is not read with their numbers, or how many differ.

    Values are shown if they are few, on many patients, and numbers or words of ours; of fewer
    values each that stands on so many patients that it is none's own, and may not name a person.
    """
    counts = table.text[column].value_counts()
    patients = table.cells("patient" if table.has("patient") else table.key)
    shown: list[str] = []
    if not table.caller.hides_cells and 1 < len(counts) <= _MOST_VALUES:
        shown = [str(value) for value in counts.index]
        is_few = patients.nunique() <= 3 * len(counts)
        if is_few or not all(map(_is_known_value, shown)):
            n_patients = patients.groupby(table.text[column].to_numpy()).nunique()
            are_many = (n_patients[shown] >= _MANY_PATIENTS) | (counts.index == "")
            is_of_people = plain_name(column) in names_by_role()["reader"]
            shown = [] if is_of_people or len(counts) > _FEW_VALUES else [*counts.index[are_many]]
            shown = [value for value in shown if not _may_tell_of_person(value)]
    n_others = len(counts.index[~is_member(counts.index.to_series(), ["", *shown])])
    if not any(shown):
        return f"{n_others:,} different"
    values = [f"{value or 'empty'}{':' * is_number(value)} {counts[value]:,}" for value in shown]
    return ", ".join([*values, *([counted(n_others, "other")] if n_others else [])])


def _may_tell_of_person(value: str) -> bool:
    """Return True for a sentence, or several words with capitals, which no word of ours is."""
    words = re.findall(r"[^\s,^]+", value)
    is_name = len(words) > 1 and all(word[0].isupper() for word in words)
    is_named = is_name or "^" in value
    return len(words) > _WORDS_OF_SENTENCE or (is_named and not _is_known_value(value))


def _is_known_value(cell: str) -> bool:
    return cell == "" or is_number(cell) or finding_name(cell) in _known_words()


@cache
def _known_words() -> frozenset[str]:
    """Return states, roles and all words of ``columns.toml``, as names of findings."""
    words: set[str] = {*ROLE_NAMES}
    rest: list[Any] = [dictionary()]
    for each in rest:
        if isinstance(each, str):
            words.add(finding_name(each))
        else:
            rest += [*each.values(), *each] if isinstance(each, dict) else each
    return frozenset(words)


def unread_line(table: Table) -> str:
    """Return one line on the columns that are not read, facts of the images last."""
    columns = sorted(_filled(table), key=is_circumstance)
    listed = ", ".join(shown_column(table, column) for column in columns)
    return f"{table.path.name}: not read: {listed}" if listed else ""


def _filled(table: Table) -> list[str]:
    """Return the columns that are not read, without empty ones."""
    return [column for column in table.unused if (table.text[column] != "").any()]


def _images_alone(table: Table, *, joining: Collection[str]) -> Doubt | None:
    """Find the columns that may be ids in a table of which nothing but the images is read.

    A table that another one is joined by, with its columns `joining`, is read for that.
    """
    read = {role for role, columns in table.columns.items() if columns} - {"unused"}
    if not read <= {table.key, "file"} or {*map(plain_name, table.unused)} & {*joining}:
        return None
    asked = [column for column in _filled(table) if _may_be_ids(table.text[column])]
    if not asked:
        return None
    listed = ", ".join(shown_column(table, column) for column in asked)
    words = {"listed": listed, "n": f"{len(table.text):,}"}
    return asked, {**words, "patient": table.caller.advice("patient", asked[0])}


def _may_be_ids(cells: pd.Series) -> bool:
    """Return True for cells that differ and are not all known words, such as findings."""
    words = cells[cells != ""].unique()
    return len(words) > 1 and any(is_number(word) or not _is_known_value(word) for word in words)


def columns_of_states(text: pd.DataFrame) -> list[str]:
    """Return the columns that hold states and describe no image."""
    return [c for c in map(str, text) if not is_circumstance(c) and holds_states(text[c])]


def _unread_boxes(table: Table) -> Doubt | None:
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


def _second_box(table: Table) -> Doubt | None:
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
        is_copy = _is_numbered_copy(str(name), [*boxes, *_SIZES])
        if is_copy or (fits and not counts_rows(filled)):
            alike.append(str(name))
    if len(alike) < _N_NUMBERS:
        return None
    labels = table.columns.get("label", [])
    return [*alike, *(c for c in table.unused if _is_numbered_copy(c, labels))], {}


def _second_label(table: Table) -> Doubt | None:
    """Find a column with labels that their row does not have in the column that is read."""
    unknown = {"", *map(finding_name, dictionary()["unknown"])}
    for label in table.columns.get("label", ()):
        own = _names(table.text[label])
        labels = {*own, *dictionary()["findings"]["names"]} - unknown
        taken = own if "label" in table.answered else normal_classes()
        for column in table.unused:
            names = _names(table.text[column])
            if not names - taken or not names <= labels:
                continue
            pairs = {*zip(table.text[column], table.text[label], strict=True)}
            if any(_names_in(other) - _names_in(read) for other, read in pairs):
                return [column], {"label_column": label}
    return None


def _names(cells: pd.Series) -> set[str]:
    """Return the distinct labels in cells, without numbers."""
    return {name for cell in cells.unique() for name in _names_in(cell)}


def _names_in(cell: str) -> set[str]:
    """Return the labels that a cell lists, without numbers."""
    return {finding_name(text) or text for text in split_labels(cell) if not is_number(text)}


def _labels_beside_folders(table: Table) -> Doubt | None:
    """Find columns of a table without labels that may be labels, beside folders of classes."""
    known = {*normal_classes(), *dictionary()["findings"]["names"]}
    unknown = set(map(finding_name, dictionary()["unknown"]))
    asked = []
    for column in table.unused:
        cells = table.text[column]
        names = _names(cells) - unknown
        are_states = _divides_images(cells) and not counts_rows(cells)
        if (are_states and not is_circumstance(column)) or (names and names <= known):
            asked.append(column)
    listed = ", ".join(shown_column(table, column) for column in asked)
    return (asked, {"listed": listed}) if asked else None


def _is_numbered_copy(name: str, used: Sequence[str]) -> bool:
    """Return True for a name that differs from one of `used` in its digits alone, as xmin2."""
    return any(_without_digits(name) == _without_digits(other) for other in used)


def _without_digits(name: str) -> str:
    return plain_name(name).translate(str.maketrans("", "", "0123456789"))


def _boxes_as_texts(table: Table) -> Doubt | None:
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
    if not are_boxes.any() or plain_name(str(cells.name)) in _BOX_COLUMNS:
        return are_boxes
    return are_boxes & cells.str.fullmatch(r"\s*[\[(][-\d.,;e\s()\[\]]*")


def _other_class(table: Table, *, is_boxed: pd.Series, own: Sequence[str]) -> Doubt | None:
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
    return [column], {"position": shown, "of": own[0]}


def _corner_or_centre(table: Table, *, is_in_doubt: bool) -> Doubt | None:
    """Find shares of a corner or a centre that their columns call x and y."""
    columns = [column for role in ("xmin", "ymin") for column in table.columns.get(role, ())]
    if not is_in_doubt or not columns[0].lower().endswith("x"):
        return None
    return columns, {}


UNREAD = (
    Question(
        "states",
        _states,
        "do {listed} say {ways}? If not, {unused}",
    ),
    Question(
        "words and states of one label",
        _words_of_states,
        "{listed} go together row by row{so}: which says what an image shows? For the words "
        "{label}, for 1 as present {states}",
    ),
    Question(
        "rows that contradict one another",
        _rows_apart,
        "rows of one image contradict one another, and {listed} tell them apart: which rows count? "
        "Keep those alone; or {reader} if this says who read the image, or {unused} to do without "
        "such images",
    ),
    Question(
        "certainty of the labels",
        _certainty,
        "does {listed} say how sure a label is? Write 'uncertain' before each label that is not "
        "sure, or {unused} if all count alike",
    ),
    Question(
        "sentences as labels",
        _sentences,
        "column {columns} holds {n} sentences; {label}, or write a column with the findings of "
        "each report",
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
IMAGES_ALONE = Question(
    "a table of which nothing but the images is read",
    _images_alone,
    "nothing but the images is read of its {n} rows, and not {listed}: if this is the patient, "
    "{patient}; if it says what an image shows, {finding}, or {label} if its cells name findings; "
    "if neither, {unused}",
)
BESIDE_FOLDERS = Question(
    "labels beside class folders",
    _labels_beside_folders,
    "the folders of the images are classes: do {listed} say what an image shows, too? If so, "
    "{finding}, or {label} if its cells name findings, and the table counts; if not, {unused}",
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
    "{position} of a box, and the finding is '{of}'; {label} if the column names what a box shows, "
    "else {unused}",
)
CORNER_OR_CENTRE = Question(
    "corner or centre",
    _corner_or_centre,
    "boxes are in shares of the image: are {columns} the corner or the centre? For the corner "
    "say columns box_form=xywh, for the centre say columns box_form=cxcywh",
)


def of_which_findings(
    table: Table, texts_of: Mapping[str, list[str]], meanings: Mapping[str, tuple[str, str]]
) -> dict[str, str]:
    """Return, by finding, the question about a label that says "positive", and not of what.

    Such a word stands among names of findings. One that no finding can be called by is refused.
    """
    states = {text: state_of_text().get(text.lower(), "") for text in meanings}
    named = {meanings[text][0] for text, state in states.items() if not state}
    if table.has("state") or not named - normal_classes():
        return {}
    questions: dict[str, str] = {}
    cells = table.cells("label")
    for text, state in states.items():
        finding = meanings[text][0]
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
