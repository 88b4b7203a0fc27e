"""Rules that find what the values of the user's tables leave open; all of it is asked at once.

A rule goes by what the cells hold. Lists of words only propose, and settle what they know; where
few images could agree by chance, a rule is silent. Each way on is tried before it is offered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeAlias

import pandas as pd

from cxr_compare.data_prep.base.box_check import ROLES_OF_FORMS
from cxr_compare.data_prep.base.errors import InputError, Remedy, counted
from cxr_compare.data_prep.base.ids import is_member
from cxr_compare.data_prep.base.names import (
    class_column,
    column_names,
    columns_of_roles,
    finding_name,
    names_by_role,
    names_finding,
    plain_name,
)
from cxr_compare.data_prep.base.tables import ROLE_NAMES
from cxr_compare.data_prep.base.user_tables import NAMELESS, line_of
from cxr_compare.data_prep.sources.words import (
    dictionary,
    holds_states,
    is_circumstance,
    is_number,
    normal_classes,
    split_labels,
    states_of_cells,
    view_of,
)

Table: TypeAlias = Any
"""A `LabelTable`, whose module asks the questions of this one."""
_FEW = 12  # values of a column that may be of labels, states or readers, and are shown
_FEW_WORDS = 6  # of a column of words that are shown, each on so many patients:
_MANY_PATIENTS = 10
_CHANCE = 8  # images by which values agree by chance no more
_FEW_IMAGES = 4  # of which each has one of a few labels
_FEW_CLASSES = 5
_IS_FINDING = "1 says that a finding of this name is present"
_DOES, _DO = "what does it say?", "what do they say?"
_IS_CROWD = "1 says that the box is around several lesions"
_FEW_ROWS = 6  # two columns of two values each may go together by chance
_N_NUMBERS = 4  # of a box
_WORDS_OF_SENTENCE = 3  # and one more
_FEW_SENTENCES = 4  # that are no long names
_BOX_COLUMNS = (
    "bbox", "bboxes", "box", "boxes", "boundingbox", "boundingboxes", "predictionstring", "rle",
    "encodedpixels", "polygon", "polygons", "segmentation", "regionshapeattributes",
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """Something that is open: the columns in doubt, the question, and the ways on."""

    columns: Sequence[str]
    question: str
    ways: Sequence[Remedy]


def open_points(table: Table, tables: Sequence[Table]) -> list[InputError]:
    """Return all that is open in a table, in the order of the rules; no column is asked twice.

    `tables` are those that are read together. Of a published table only states are in doubt.
    """
    points: list[InputError] = []
    columns_asked: set[str] = set()
    for rule in (_spare,) if table.rules.roles else _rules(tables):
        for point in rule(table):
            if not columns_asked & {*point.columns}:
                columns_asked |= {*point.columns}
                points.append(point_of(table, point.question, point.ways))
    return points


def point_of(table: Table, question: str, ways: Sequence[Remedy]) -> InputError:
    """Return a question about a table, which begins with what it is."""
    return InputError(f"{table.path}: {table.kind}; {question}", ways)


def _free(table: Table) -> list[str]:
    """Return the filled columns in no role, but those that the user has decided on."""
    decided = {name for role in table.answered for name in names_by_role().get(role, ())}
    columns = [c for c in table.unused if c not in table.answered]
    return [c for c in columns if (table.text[c] != "").any() and plain_name(c) not in decided]


def _values(cells: pd.Series) -> list[str]:
    """Return the texts of a column, the most frequent first."""
    return [str(value) for value in cells[cells != ""].value_counts().index]


def _images(table: Table) -> pd.Series:
    """Return the image of each row, or by what it is joined; its number where nothing names it."""
    if table.has(table.key):
        return table.cells(table.key)
    return pd.Series(map(str, range(len(table.text))), table.text.index)


def _repeats(table: Table, column: str, others: Sequence[str]) -> bool:
    """Return True if other columns determine a column, by values that occur often enough."""
    if not others:
        return False
    keys = table.text.groupby([*others]).ngroup()
    is_enough = len(keys) >= max(_FEW_ROWS, 2 * keys.nunique())
    return is_enough and bool((table.text[column].groupby(keys).nunique() == 1).all())


def _listed(table: Table, columns: Iterable[str]) -> str:
    return ", ".join(shown_column(table, column) for column in columns)


def _unused(table: Table, *columns: str, when: str = "not") -> Remedy:
    return table.caller.remedy({"unused": [*columns]}, when)


def _ways_of_states(table: Table, column: str, also_unused: Sequence[str] = ()) -> list[Remedy]:
    """Return the ways in which a column may say whether the label of its row is present."""
    values = _values(table.text[column])
    further = {"unused": [*also_unused]} if also_unused else {}
    if holds_states(table.text[column]):
        roles = {
            "state": f"'{column}' says that the label of its row is present",
            "negated": f"'{column}' says that this label is absent",
        }
        return [
            table.caller.remedy({role: column, **further}, when) for role, when in roles.items()
        ]
    is_hidden = table.caller.hides_cells or any(map(_may_tell_of_person, values))
    ways = []
    for absent in values if 1 < len(values) <= _FEW_CLASSES and not is_hidden else ():
        meant = {f"means:{text}": "absent" if text == absent else "present" for text in values}
        when = f"'{absent}' says that the label of its row is absent"
        ways.append(table.caller.remedy({"state": column, **meant, **further}, when))
    return ways


def _grid(table: Table) -> Iterator[Point]:
    """Every image has a row for every label, so that a row alone cannot mean that it is present."""
    labels = table.columns_of("label")
    if not labels or table.has("state") or table.box_roles or "state" in table.answered:
        return
    readers = [table.text[column] for column in table.columns_of("reader")]
    groups = table.text.groupby([_images(table), *readers]).ngroup()
    rows = pd.DataFrame({"of": groups, "label": table.text[labels[0]]}).drop_duplicates()
    n_labels, n_groups = rows["label"].nunique(), rows["of"].nunique()
    if n_labels < 2 or n_groups < _CHANCE or len(rows) != n_groups * n_labels:
        return
    candidates = [
        column
        for column in _free(table)
        if 1 < table.text[column].nunique() <= _FEW and not _repeats(table, column, labels)
    ]
    ways = [
        way
        for column in candidates
        for way in _ways_of_states(
            table, column, [other for other in candidates if other != column]
        )
    ]
    as_read = {"state": "", **({"unused": candidates} if candidates else {})}
    of_state = (
        f", and not read is {_listed(table, candidates)}: which column says whether one is present?"
    )
    yield Point(
        candidates or labels,
        f"every image has a row for each of the {n_labels} labels in '{labels[0]}'"
        f"{of_state if candidates else ''}",
        [*ways, table.caller.remedy(as_read, "all of them are present on all images")],
    )


def classes_apart(table: Table) -> Iterator[Point]:
    """Every image has exactly one of a few labels, of which one may mean that nothing is found."""
    labels = table.columns_of("label")
    if not labels or table.has("state") or table.box_roles:
        return
    rows = pd.DataFrame({"image": _images(table), "label": table.text[labels[0]]})
    rows = rows[rows["label"] != ""].drop_duplicates()
    texts = [str(text) for text in rows["label"].unique()]
    names = {text: finding_name(text) or text for text in texts}
    known_findings = {*dictionary()["findings"]["names"]}
    strange = [t for t in texts if known_findings.isdisjoint({names[t], *names[t].split("_")})]
    is_settled = (
        not strange
        or not {*names.values()}.isdisjoint(normal_classes())
        or any(text.lower() in table.means or is_number(text) for text in texts)
        or (table.cells("label") != table.text[labels[0]]).any()
    )
    are_few = 1 < len(texts) <= _FEW_CLASSES and len(rows) >= max(_FEW_IMAGES, 2 * len(texts))
    if is_settled or not are_few or not rows["image"].is_unique:
        return
    ways = [
        table.caller.remedy({f"means:{text}": "normal"}, f"'{text}' means that nothing is found")
        for text in strange
    ]
    findings = {f"means:{text}": "finding" for text in strange}
    yield Point(
        labels,
        f"every image has one of {counted(len(texts), 'label')} in '{labels[0]}': does one of "
        f"{_quoted(strange)} mean that nothing is found?",
        [*ways, table.caller.remedy(findings, "each is a finding")],
    )


def _numbers_beside_words(table: Table) -> Iterator[Point]:
    """A column of words says what the numbers or states in the column that is read stand for."""
    wanted_findings = {*map(finding_name, table.caller.wanted)}
    for role in ("label", "finding"):
        for coded in table.columns_of(role):
            numbers = _values(table.text[coded])
            is_settled = coded in table.answered or finding_name(coded) in wanted_findings
            if is_settled or not (all(map(is_number, numbers)) or holds_states(table.text[coded])):
                continue
            for column in _free(table):
                pairs = table.text[[coded, column]].drop_duplicates()
                pairs = pairs[(pairs != "").all(axis=1)]
                are_words = not any(map(is_number, pairs[column])) and not is_circumstance(column)
                if (
                    len(pairs) != len(numbers)
                    or not 1 < len(numbers) <= _FEW
                    or not pairs[column].is_unique
                    or not _repeats(table, column, [coded])
                    or not are_words
                    or holds_states(table.text[column])
                    or _says_the_same(table, coded, pairs)
                ):
                    continue
                examples = ", ".join(f"{number} = {word}" for number, word in pairs.to_numpy())
                is_shown = not table.caller.hides_cells
                yield Point(
                    [column],
                    f"'{column}' says in words what '{coded}' says{f' ({examples})' * is_shown}: "
                    "which says what an image shows?",
                    [
                        table.caller.remedy({"label": column}, "the words"),
                        table.caller.remedy({"label": coded}, "1 as present")
                        if role == "finding"
                        else _unused(table, column, when="the numbers"),
                    ],
                )


def _says_the_same(table: Table, coded: str, pairs: pd.DataFrame) -> bool:
    """Return True if the word beside each state says the same as the state."""
    word_of = dict(zip(states_of_cells(pairs[coded]), pairs[str(pairs.columns[1])], strict=True))
    if word_of.keys() != {"present", "absent"}:
        return False
    finding = table.finding(coded)
    present, absent = (finding_name(word_of[state]) for state in ("present", "absent"))
    is_denied = absent in normal_classes() or absent in {f"no_{present}", f"no_{finding}"}
    return present == finding or (is_denied and present not in normal_classes())


def _edges(table: Table) -> Iterator[Point]:
    """Some of the four numbers of a box are in no column that is known."""
    if not table.box_roles or table.box_form is not None:
        return
    numbers = [column for column in _free(table) if _are_numbers(table.text[column])]
    box = [column for column in table.text if column in {*table.box_columns, *numbers}]
    lacking = [[r for r in roles if not table.has(r)] for roles in ROLES_OF_FORMS.values()]
    last = [role for roles in lacking if len(roles) == 1 for role in roles]
    ways = [table.caller.remedy({r: c}, f"'{c}' is {r}") for r in last for c in numbers]
    for roles in ROLES_OF_FORMS.values() if len(box) == _N_NUMBERS and not last else ():
        roles_of_box = dict(
            zip(roles, box, strict=True)
        )  # in their order, whatever their names say
        ways.append(table.caller.remedy(roles_of_box, f"{_quoted(box)} are {', '.join(roles)}"))
    yield Point(
        [*table.box_columns, *numbers],
        f"{_quoted(table.box_columns)} are {', '.join(sorted(table.box_roles))}: a box has two "
        "corners (xmin, ymin, xmax, ymax), a corner and a size (xmin, ymin, width, height) or a "
        "centre and a size (xcenter, ycenter, width, height): which columns are the others?",
        [*ways, _unused(table, *table.box_columns, when="no column holds boxes")],
    )


def _are_numbers(cells: pd.Series) -> bool:
    filled = cells[cells != ""]
    return len(filled) > 0 and bool(pd.to_numeric(filled, errors="coerce").notna().all())


def _boxes(table: Table) -> Iterator[Point]:
    """Columns of numbers that stand together and are filled in the same rows, as those of a box.

    Where all rows are filled, as with measures of images, the numbers must also be two corners.
    """
    free = _free(table)
    numbers = table.text[free].apply(pd.to_numeric, errors="coerce")
    is_filled = table.text[free] != ""
    largest = table.text[table.box_columns].apply(pd.to_numeric, errors="coerce").max().max()
    groups: dict[tuple[bool, ...], list[str]] = {}
    for column in free:
        cells = table.text[column]
        if _are_numbers(cells) and not (holds_states(cells) or counts_rows(cells)):
            groups.setdefault(tuple(is_filled[column]), []).append(column)
    columns = []
    for rows, group in groups.items():
        fours = [group[at : at + _N_NUMBERS] for at in range(0, len(group), _N_NUMBERS)]
        full_fours = [four for four in fours if len(four) == _N_NUMBERS]
        is_part = not all(rows)
        are_corners = any(_may_be_corners(numbers[four].dropna()) for four in full_fours)
        are_like = bool(table.box_columns) and bool((numbers[group].max() <= largest).all())
        if full_fours and (is_part or are_corners or are_like):
            columns += [column for column in free if column in group]
    if columns:
        copies = [c for c in free if c not in columns and _is_numbered(c, table.columns)]
        columns += copies
        yield Point(
            columns,
            f"do {_quoted(columns)} hold boxes? Write each box in a row of its own with the "
            "columns xmin,ymin,xmax,ymax or xmin,ymin,width,height",
            [_unused(table, *columns, when="they hold none")],
        )


def _is_numbered(column: str, columns_by_role: Mapping[str, Sequence[str]]) -> bool:
    """Return True for a column of labels of a further box, as label_2 is beside label."""
    bare = plain_name(column).rstrip("0123456789")
    return bare != plain_name(column) and any(
        bare == plain_name(label).rstrip("0123456789") for label in columns_by_role.get("label", ())
    )


def _may_be_corners(boxes: pd.DataFrame) -> bool:
    """Return True for four numbers of which the last two are larger than the first two."""
    x1, y1, x2, y2 = (boxes[column] for column in boxes)
    return len(boxes) > 0 and bool(((x1 >= 0) & (y1 >= 0) & (x2 > x1) & (y2 > y1)).all())


def _boxes_as_texts(table: Table, tables: Sequence[Table]) -> Iterator[Point]:
    """A column writes boxes as texts, and no column of any table holds boxes."""
    for column in table.unused if not any(other.box_roles for other in tables) else ():
        are_boxes = are_box_texts(table.text[column])
        if are_boxes.any() and column not in table.answered:
            yield Point(
                [column],
                f"{line_of(are_boxes)}: column '{column}' writes a box as one text, which may be "
                "corners or sizes; write each box in a row of its own with the columns "
                "x1,y1,x2,y2 or x,y,width,height",
                [_unused(table, column, when="it does not count")],
            )


def are_box_texts(cells: pd.Series) -> pd.Series:
    """Return True for cells that write boxes as one text, such as ``[10, 20, 30, 40]``.

    In a column with a name of boxes, such as ``bbox``, any cell with four numbers is one.
    """
    are_boxes = cells.str.count(r"\d+(?:\.\d+)?") >= _N_NUMBERS
    if not are_boxes.any() or plain_name(str(cells.name)) in _BOX_COLUMNS:
        return are_boxes
    return are_boxes & cells.str.fullmatch(r"\s*[\[(][-\d.,;e\s()\[\]]*")


def _contradictions(table: Table) -> Iterator[Point]:
    """Columns that tell apart the rows of images whose labels contradict one another."""
    images = table.cells(table.key)
    is_of_images = table.has(table.key) and not (table.has("reader") or table.box_roles)
    if not is_of_images or not images.duplicated().any():
        return
    states_of = {c: states_of_cells(table.text[c]) for c in table.columns_of("finding")}
    if table.has("label") and not table.has("state"):
        names = {cell: _names_in(cell) for cell in table.cells("label").unique()}
        state = {True: "absent", False: "present"}  # of any finding, by a row that says "normal"
        states_of["label"] = table.cells("label").map(
            {
                cell: state[findings <= normal_classes()]
                for cell, findings in names.items()
                if findings
            }
        )
    states = pd.DataFrame(states_of, images.index)
    states = states.where(states.isin(["present", "absent"]))
    differ = states.groupby(images.to_numpy()).nunique().gt(1).any(axis=1)
    rows = images.isin(differ.index[differ])
    for column in _free(table) if rows.any() else ():
        of_rows = table.text.loc[rows, [column]].assign(image=images)
        if 1 < table.text[column].nunique() <= _FEW and not of_rows.duplicated().any():
            yield Point(
                [column],
                f"rows of one image contradict one another, and {shown_column(table, column)} "
                "tells them apart: keep the rows that count",
                [
                    table.caller.remedy({"reader": column}, f"'{column}' says who read the image"),
                    _unused(table, column, when="such images may be left out"),
                ],
            )


def _names_in(cell: str) -> set[str]:
    """Return the labels that a cell lists, without numbers."""
    return {finding_name(text) or text for text in split_labels(cell) if not is_number(text)}


def _names_of(cells: pd.Series) -> set[str]:
    """Return the labels that the cells of a column list, without numbers."""
    return {name for cell in cells.unique() for name in _names_in(cell)}


def _two_of_one_role(table: Table) -> Iterator[Point]:
    """Two columns that may both be the split, the patient, the reader or the label."""
    splits = columns_of_roles(table.text[table.unused])
    if len(splits) > 1 and "split" not in table.answered and not table.has("split"):
        ways = [table.caller.remedy({"split": c}, f"'{c}' does") for c in splits]
        yield Point(splits, f"which of {_quoted(splits)} says the role of an image?", ways)
    several = ["reader"] if _images(table).duplicated().any() else []
    for role in ("label", "patient", "split", *several):
        for present in table.columns_of(role) if role not in table.answered else ():
            for column in _free(table):
                is_like = plain_name(column) in column_names(role)
                is_other = not table.text[column].equals(table.text[present])
                if is_like and is_other and not counts_rows(table.text[column]):
                    yield Point(
                        [column],
                        f"'{present}' and '{column}' may both be the {role}: which is it?",
                        [table.caller.remedy({role: c}, f"it is '{c}'") for c in (present, column)],
                    )


def _sentences(table: Table) -> Iterator[Point]:
    """A column of labels whose cells are sentences, hardly one of which is repeated."""
    if not table.has("label") or "label" in table.answered:
        return
    cells = table.cells("label")
    is_sentence = cells.str.count(r"\w+[.,]?\s+") >= _WORDS_OF_SENTENCE
    sentences = cells[is_sentence & ~cells.str.startswith(("[", "{"))]
    if len(sentences) >= _FEW_SENTENCES and sentences.nunique() > 0.8 * len(sentences):
        yield Point(
            [str(cells.name)],
            f"column '{cells.name}' holds {len(sentences):,} sentences; write a column with the "
            "findings of each report",
            [table.caller.remedy({"label": "COLUMN"}, "another column names them")],
        )


def _images_alone(table: Table, tables: Sequence[Table]) -> Iterator[Point]:
    """A table of which nothing but the images is read, though its cells differ.

    A table that another one is joined by is read for that.
    """
    roles = {role for role, columns in table.columns.items() if columns} - {"unused"}
    joining = {key for other in tables for _, key in other.pairs}
    if not roles <= {table.key, "file"} or {*map(plain_name, table.unused)} & joining:
        return
    columns = [c for c in _free(table) if _may_be_ids(table.text[c])]
    states = [c for c in columns if holds_states(table.text[c])]
    ways = [table.caller.remedy({"finding": states}, _IS_FINDING)] if states else []
    for column in columns if states != columns else ():
        called = "it" if len(columns) == 1 else f"'{column}'"
        ways.append(table.caller.remedy({"patient": column}, f"{called} is the patient"))
        if column not in states:
            ways.append(table.caller.remedy({"label": column}, f"cells of {called} name findings"))
    if columns:
        yield Point(
            columns,
            f"nothing but the images is read of its {len(table.text):,} rows, and not "
            f"{_listed(table, columns)}: {_DOES if len(columns) == 1 else _DO}",
            [*ways, _unused(table, *columns, when="none of these")],
        )


def _share_of_known(cells: pd.Series) -> float:
    """Return the share of the words of a column that are known."""
    words = _names_of(cells) - {""}
    return sum(map(_is_known_value, words)) / max(len(words), 1)


def _may_be_ids(cells: pd.Series) -> bool:
    """Return True for cells that differ and are not all known words, such as findings."""
    words = cells[cells != ""].unique()
    return len(words) > 1 and any(is_number(word) or not _is_known_value(word) for word in words)


def may_be_patients(table: Table) -> list[str]:
    """Return columns in no role that could name the patients of a table with images.

    Each image has one value, which is no fraction, and no sentence. The values are at least half
    as many as the images, or several images have one of many.
    """
    columns = []
    for column in () if table.rules.roles or table.path.is_dir() else _free(table):
        rows = table.text[[column]].assign(image=table.images["image_id"].to_numpy())
        rows = rows[rows[column] != ""].drop_duplicates()
        cells = rows[column]
        n_values = cells.nunique()
        are_many = n_values >= len(cells) / 2 or n_values >= _MANY_PATIENTS
        are_texts = pd.to_numeric(cells, errors="coerce").mod(1).fillna(0) == 0
        are_names = are_texts & (cells.str.count(r"\s+") < _WORDS_OF_SENTENCE)
        is_fact = counts_rows(cells) or is_circumstance(column)
        is_of_images = rows["image"].is_unique and not is_fact
        if n_values > 1 and are_many and are_names.all() and is_of_images:
            columns.append(column)
    return columns


def _spare(table: Table) -> Iterator[Point]:
    """Columns in no role that could change a label, a patient or which images are frontal."""
    labels = table.columns_of("label")
    images = _images(table)
    columns = [
        column
        for column in (_free(table) if table.states_labels else ())
        if not (counts_rows(table.text[column]) or is_circumstance(column))
        and not _repeats(table, column, table.labelled_columns)
    ]
    findings = [c for c in columns if not labels and _may_be_states(table, table.text[c])]
    if findings:
        ways = [table.caller.remedy({"finding": findings}, _IS_FINDING)]
        if len(findings) == 1:
            when = "1 says that nothing is found"
            ways.append(table.caller.remedy({"no_finding": findings[0]}, when))
        yield _point_of_spare(table, findings, [*ways, *_ways_of_roles(table, findings)])
    for column in columns:
        cells = table.text[column]
        sites = _key_of_sites(table, column, images)
        ways = [table.caller.remedy(*sites)] if sites else []
        if not table.has("view") and _are_views(_values(cells)):
            ways.append(table.caller.remedy({"view": column}, "it is the view"))
        if labels and _may_be_states(table, cells):
            if table.box_roles:
                ways.append(table.caller.remedy({"crowd": column}, _IS_CROWD))
            else:
                ways += _ways_of_states(table, column)
            ways.append(table.caller.remedy({"finding": column}, _IS_FINDING))
        elif labels and not table.rules.roles and _may_be_of_labels(table, column, images):
            ways += _ways_of_states(table, column)
            advice = "write all labels of an image into one column, with | between them"
            ways.append(Remedy(f"it holds further labels beside '{labels[0]}'", words=advice))
            ways.append(table.caller.remedy({"label": column}, "it alone holds the labels"))
            if images.duplicated().any():
                ways.append(table.caller.remedy({"reader": column}, "it says who read the image"))
        ways += _ways_of_roles(table, [column])
        if ways:
            yield _point_of_spare(table, [column], ways, are_sites=bool(sites))


def _point_of_spare(
    table: Table, columns: Sequence[str], ways: Sequence[Remedy], *, are_sites: bool = False
) -> Point:
    """Return the question about columns that are not read."""
    anew = ", and each of its groups counts its patients anew" if are_sites else ""
    is_read, question_word = ("is", _DOES) if len(columns) == 1 else ("are", _DO)
    question = f"{_listed(table, columns)} {is_read} not read{anew}: {question_word}"
    return Point(columns, question, [*ways, _unused(table, *columns, when="none of these")])


def _ways_of_roles(table: Table, columns: Sequence[str]) -> list[Remedy]:
    """Return the way on if a column of states is called like a role, such as ``is_test``."""
    like = [c for c in columns if _is_called_as_role(c) and _divides_images(table.text[c])]
    advice = "write a column split with train, val or test"
    is_free = bool(like) and not table.has("split")
    return [Remedy("it says which images are for the test", words=advice)] if is_free else []


def _are_views(values: Sequence[str]) -> bool:
    """Return True for words of projections, a lateral one among them."""
    views = {view_of(value) for value in values}
    return None not in views and "LL" in views


def _may_be_states(table: Table, cells: pd.Series) -> bool:
    """Return True for states of which one is present and a cell is another or empty.

    They do not repeat the labels that are read.
    """
    if table.has("state") or not _divides_images(cells):
        return False
    if not table.has("label"):
        return not table.caller.wanted
    label = table.cells("label")
    nothing = {*normal_classes(), *map(finding_name, dictionary()["unknown"])}
    has_finding = {cell: bool(_names_in(cell) - nothing) for cell in label.unique()}
    is_present = states_of_cells(cells).eq("present").fillna(False)
    # Classes are numbered by the alphabet, too: on exactly the other rows it repeats them.
    return (label.map(has_finding).astype(bool) == is_present).nunique() > 1


def _divides_images(cells: pd.Series) -> bool:
    """Return True for states of which one is present, and a cell is another or empty."""
    if not holds_states(cells):
        return False
    states = states_of_cells(cells)
    return "present" in set(states) and states.nunique(dropna=False) > 1


def _may_be_of_labels(table: Table, column: str, images: pd.Series) -> bool:
    """Return True for a column of few values that tell rows of an image apart, or name labels.

    What is the same on all rows of each image, as the site, is a fact of the image.
    """
    cells = table.text[column]
    is_of_rows = (cells.groupby(images.to_numpy()).nunique() > 1).any()
    are_few = 1 < cells.nunique() <= _FEW and not _counts_in_image(cells, images)
    if is_of_rows and are_few and not table.has("state") and not table.box_roles:
        return True
    return _adds_labels(table, _names_of(cells), column)


def _counts_in_image(cells: pd.Series, images: pd.Series) -> bool:
    """Return True for the numbers of the rows of each image."""
    numbers = cells.groupby(images.to_numpy()).cumcount()
    return any(cells.tolist() == (numbers + first).astype(str).tolist() for first in (0, 1))


def _adds_labels(table: Table, names: set[str], column: str) -> bool:
    """Return True for labels that their row does not have in the column that is read."""
    unknown = {"", *map(finding_name, dictionary()["unknown"])}
    doubts = {finding_name(word) for word in dictionary()["uncertain_words"]}
    for label in table.columns_of("label"):
        names_read = _names_of(table.text[label])
        known_names = {*names_read, *dictionary()["findings"]["names"], *doubts} - unknown
        names_taken = names_read if "label" in table.answered else normal_classes()
        if not names - names_taken - {""} or not names - {""} <= known_names:
            continue
        pairs = table.text[[column, label]].drop_duplicates().to_numpy()
        if any(_names_in(other) - _names_in(label_text) for other, label_text in pairs):
            return True
    return False


def _key_of_sites(
    table: Table, column: str, images: pd.Series
) -> tuple[dict[str, str], str] | tuple[()]:
    """Return how patients are told apart whom each group of a column, as a site, counts anew."""
    patient = table.columns_of("patient")
    groups_of = table.text[column].groupby(images.to_numpy()).nunique()
    if len(patient) != 1 or (groups_of > 1).any() or not 1 < table.text[column].nunique() <= _FEW:
        return ()
    numbers = pd.to_numeric(table.text[patient[0]], errors="coerce")
    groups = numbers.groupby(table.text[column])
    are_dense = (groups.max() - groups.min() < 2 * groups.nunique()).all()
    n_shared = len(set.intersection(*groups.agg(set)))
    n_most = groups.nunique().max()
    if not are_dense or 2 * n_shared < n_most or n_most < _CHANCE:
        return ()
    return {"patient": f"{column}+{patient[0]}"}, "patients of one number are several people"


def counts_rows(cells: pd.Series) -> bool:
    """Return True for whole numbers that rise by 1 from row to row, as an index that was saved."""
    is_index = len(cells) > 2 or str(cells.name).startswith(NAMELESS)
    return is_index and set(pd.to_numeric(cells, errors="coerce").diff().iloc[1:]) == {1.0}


def _is_called_as_role(column: str) -> bool:
    """Return True for a column that is called like a role, such as ``is_test``."""
    name = plain_name(column)
    names = {name, name.removeprefix("is"), name.removeprefix("in"), name.removesuffix("set")}
    return bool(names & {*ROLE_NAMES, "holdout", "heldout"})


def columns_of_states(text: pd.DataFrame) -> list[str]:
    """Return the columns that hold states and describe no image."""
    return [c for c in map(str, text) if not is_circumstance(c) and holds_states(text[c])]


def _rules(tables: Sequence[Table]) -> tuple[Callable[[Table], Iterator[Point]], ...]:
    """Return all rules for tables that are read together, in their order."""
    return (
        _edges,
        _grid,
        _numbers_beside_words,
        classes_apart,
        _boxes,
        partial(_boxes_as_texts, tables=tables),
        _contradictions,
        _two_of_one_role,
        _sentences,
        partial(_images_alone, tables=tables),
        _spare,
    )


def beside_folders(table: Table) -> list[InputError]:
    """Return the question about columns that may be labels, beside folders of classes."""
    known_findings = {*normal_classes(), *dictionary()["findings"]["names"]}
    unknown = set(map(finding_name, dictionary()["unknown"]))
    columns = []
    for column in _free(table):
        cells = table.text[column]
        names = _names_of(cells) - unknown
        are_states = holds_states(cells) and cells.nunique() > 1 and not counts_rows(cells)
        if (are_states and not is_circumstance(column)) or (names and names <= known_findings):
            columns.append(column)
    if not columns:
        return []
    ways = [
        table.caller.remedy({"finding": columns}, _IS_FINDING),
        *(table.caller.remedy({"label": c}, f"the cells of '{c}' name findings") for c in columns),
        _unused(table, *columns),
    ]
    question = (
        f"the folders of the images are classes: do {_listed(table, columns)} say what an image "
        "shows, too?"
    )
    return [point_of(table, question, ways)]


def ways_of_lacking(table: Table, *, lacks_images: bool) -> list[Remedy]:
    """Return the columns that may name the images, or say what they show."""
    free = _free(table)
    if lacks_images:
        people = table.columns_of("patient", "study")
        ways = [table.caller.remedy({"file": c}, f"'{c}' names it") for c in [*free, *people]]
        if not table.states_labels:
            pairs = [(file, label) for file in free for label in free if file != label]
            ways += [
                table.caller.remedy({"file": file, "label": label}, f"'{file}' names it")
                for file, label in pairs[:_FEW]
            ]
        return [*ways, table.caller.remedy({"file": "COLUMN"}, "another column does")]
    ways = []
    for column in sorted(free, key=lambda column: -_share_of_known(table.text[column])):
        are_states = holds_states(table.text[column])
        when = _IS_FINDING if are_states else f"cells of '{column}' name findings"
        role = "finding" if are_states else "label"
        ways.append(table.caller.remedy({role: column}, when))
    return [*ways, table.caller.remedy({"label": "COLUMN"}, "another column does")]


def ways_of_class(table: Table, is_boxed: pd.Series) -> list[Remedy]:
    """Return the columns that may name what each box of a table is of."""
    boxed = table.text[is_boxed.to_numpy()]
    class_columns = [
        c for c in _free(table) if (boxed[c] != "").all() and not _are_numbers(boxed[c])
    ]
    return [
        table.caller.remedy({"label": c}, f"'{c}' names what a box shows") for c in class_columns
    ]


def other_class(
    table: Table, is_boxed: pd.Series, findings_of_labels: Sequence[str]
) -> list[InputError]:
    """Return the question about boxes of a class that no label has, in an unread column."""
    boxed = table.text.loc[is_boxed.to_numpy(), table.unused]
    column = class_column(boxed)
    if column is None or not findings_of_labels or column in table.answered:
        return []
    classes = boxed[column]
    if classes.nunique() == 1 and not names_finding(classes.iloc[0]):
        return []
    findings = classes.map({text: finding_name(text) for text in classes.unique()})
    is_other = pd.Series(~is_member(findings, findings_of_labels), findings.index)
    if not is_other.any():
        return []
    question = (
        f"{line_of(is_other)}: {column}={classes[is_other].iloc[0]!r} of a box, and the finding is "
        f"'{findings_of_labels[0]}'"
    )
    label = table.caller.remedy({"label": column}, f"'{column}' names what a box shows")
    return [point_of(table, question, [label, _unused(table, column)])]


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
    values_shown: list[str] = []
    if not table.caller.hides_cells and 1 < len(counts) <= _FEW:
        values_shown = [str(value) for value in counts.index]
        is_few = patients.nunique() <= 3 * len(counts)
        if is_few or not all(map(_is_known_value, values_shown)):
            n_patients = patients.groupby(table.text[column].to_numpy()).nunique()
            are_many = (n_patients[values_shown] >= _MANY_PATIENTS) | (counts.index == "")
            is_of_people = plain_name(column) in names_by_role()["reader"]
            values_shown = (
                [] if is_of_people or len(counts) > _FEW_WORDS else [*counts.index[are_many]]
            )
            values_shown = [value for value in values_shown if not _may_tell_of_person(value)]
    n_others = len(counts.index[~is_member(counts.index.to_series(), ["", *values_shown])])
    if not any(values_shown):
        return f"{n_others:,} different"
    counted_values = [
        f"{value or 'empty'}{':' * is_number(value)} {counts[value]:,}" for value in values_shown
    ]
    return ", ".join([*counted_values, *([counted(n_others, "other")] if n_others else [])])


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
    for entry in rest:
        if isinstance(entry, str):
            words.add(finding_name(entry))
        else:
            rest += [*entry.values(), *entry] if isinstance(entry, dict) else entry
    return frozenset(words)


def unread_line(table: Table) -> str:
    """Return one line on the columns that are not read, facts of the images last."""
    filled = [column for column in table.unused if (table.text[column] != "").any()]
    columns = sorted(filled, key=is_circumstance)
    return f"{table.path.name}: not read: {_listed(table, columns)}" if columns else ""


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
