"""Questions about columns of a label table that are not read, but look like one that is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pandas as pd

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.names import finding_name, plain_name
from cxr_compare.data_prep.base.tables import ROLE_NAMES
from cxr_compare.data_prep.sources.label_table import BOX_ROLES, LabelTable
from cxr_compare.data_prep.sources.words import (
    dictionary,
    holds_states,
    is_circumstance,
    is_number,
    normal_classes,
    plain_cells,
    split_labels,
    states_of_cells,
)

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


def refuse_unread_columns(table: LabelTable) -> None:
    """Ask about columns of a table that are not read, but look like findings, labels or a box."""
    if table.rules.name:
        return
    unread = table.text[table.unused]
    labels = table.columns.get("label", [])
    for cells in (unread[column] for column in unread):
        if not table.has("split"):
            _refuse_roles_as_states(table, cells)
        if labels and not table.has("state"):
            _refuse_states_of_labels(table, cells)
    _refuse_findings(table, unread)
    boxes = [column for role in BOX_ROLES for column in table.columns.get(role, ())]
    if not boxes:
        _refuse_unread_boxes(table, unread)
    _refuse_second_box(table, unread, table.text[boxes])
    for name in labels:
        _refuse_second_label(table, unread, table.text[name])


def _refuse_roles_as_states(table: LabelTable, cells: pd.Series) -> None:
    """Ask about a column of 0 and 1 that is called like a role, such as ``is_test``."""
    plain = plain_name(str(cells.name))
    names = {plain, plain.removeprefix("is"), plain.removeprefix("in"), plain.removesuffix("set")}
    if names & {*ROLE_NAMES, "holdout", "heldout"} and _divides_images(cells):
        column = str(cells.name)
        raise InputError(
            f"{table.path}: does column '{column}' say which images are for training and for the "
            "test? If so, write a column split with train, val or test on every line in its place; "
            f"{table.option.advice('finding', column)} if it holds a finding, and "
            f"{table.option.advice('unused', column)} if neither"
        )


def _refuse_states_of_labels(table: LabelTable, cells: pd.Series) -> None:
    """Ask about a column that may say whether the label of its row is present."""
    words = set(plain_cells(cells))
    says_both = {"present", "absent"} <= words or {"positive", "negative"} <= words
    if says_both and holds_states(cells):
        column = str(cells.name)
        raise InputError(
            f"{table.path}: does column '{column}' say whether the label of its row is present or "
            f"absent? If it does, {table.option.advice('state', column)}, else "
            f"{table.option.advice('unused', column)}"
        )


def _refuse_findings(table: LabelTable, unread: pd.DataFrame) -> None:
    """Ask about columns that hold states, present ones and others, as a column of a finding."""
    findings = [*table.columns.get("finding", ()), *table.columns.get("no_finding", ())]
    are_boxes = bool(table.box_roles) and not table.has("label")
    is_asked = (findings or are_boxes) and not table.option.wanted
    alike = columns_of_states(unread) if is_asked else []
    alike = [name for name in alike if _divides_images(unread[name])]
    if alike:
        like = f", as '{findings[0]}' does" if findings else ""
        finding = table.option.advice("finding", *alike)
        unused = table.option.advice("unused", *alike)
        question = f"does column {_quoted(alike)} hold a finding{like}?"
        answer = f"If it does, {finding}, else {unused}"
        if len(alike) > 1:
            question = f"do {_quoted(alike)} hold findings{like}?"
            answer = f"For those that do, {finding}; for the others, {unused}"
        raise InputError(f"{table.path}: {question} {answer}")


def _refuse_unread_boxes(table: LabelTable, unread: pd.DataFrame) -> None:
    """Ask about columns of numbers that are called like the edges of boxes, such as ``x1_1``."""
    kind_of: dict[str, str] = {}
    for name in map(str, unread):
        filled = unread[name][unread[name] != ""]
        are_numbers = not filled.empty and pd.to_numeric(filled, errors="coerce").notna().all()
        words = set(re.findall("[a-z]+", name.lower()))
        kinds = [kind for kind, edges in _EDGES.items() if words & edges]
        if kinds and are_numbers:
            kind_of[name] = kinds[0]
    if {"x", "y"} <= {*kind_of.values()} and len(kind_of) >= _N_NUMBERS:
        raise InputError(
            f"{table.path}: do {_quoted(kind_of)} hold boxes? Write each box in a row of its own "
            "with the columns xmin,ymin,xmax,ymax or xmin,ymin,width,height, or "
            f"{table.option.advice('unused', *kind_of)} if they hold none"
        )


def columns_of_states(text: pd.DataFrame) -> list[str]:
    """Return the columns that hold states and describe no image."""
    return [c for c in map(str, text) if not is_circumstance(c) and holds_states(text[c])]


def _divides_images(cells: pd.Series) -> bool:
    """Return True for states of which one is present, and a cell is another or empty."""
    states = states_of_cells(cells)
    return "present" in set(states) and states.nunique(dropna=False) > 1


def _refuse_second_box(table: LabelTable, unread: pd.DataFrame, boxes: pd.DataFrame) -> None:
    """Ask about four columns of numbers that may be another box of the row, and its label.

    `boxes` has the columns of the box that is read.
    """
    if len(boxes.columns) < _N_NUMBERS:
        return
    read = boxes.apply(pd.to_numeric, errors="coerce")
    is_boxed = read.notna().any(axis=1)
    alike = []
    for name in map(str, unread):
        filled = unread[name][unread[name] != ""]
        numbers = pd.to_numeric(filled, errors="coerce")
        if filled.empty or numbers.isna().any() or holds_states(filled):
            continue
        fits = numbers.between(0, read.max().max()).all() and is_boxed[filled.index].all()
        is_count = set(numbers.diff().dropna()) == {1.0}
        is_copy = _is_numbered_copy(name, [*boxes]) or _is_numbered_copy(name, [*_SIZES])
        if is_copy or (fits and not is_count):
            alike.append(name)
    if len(alike) >= _N_NUMBERS:
        alike += [
            name
            for name in map(str, unread)
            if _is_numbered_copy(name, table.columns.get("label", []))
        ]
        raise InputError(
            f"{table.path}: do {_quoted(alike)} hold another box of the row? Write each box in a "
            f"row of its own, or {table.option.advice('unused', *alike)} if they hold none"
        )


def are_box_texts(cells: pd.Series) -> pd.Series:
    """Return True for cells that write boxes as one text, such as ``[10, 20, 30, 40]``.

    In a column with a name of boxes, such as ``bbox``, any cell with four numbers is one.
    """
    are_boxes = cells.str.count(r"\d+(?:\.\d+)?") >= _N_NUMBERS
    if plain_name(str(cells.name)) in _BOX_COLUMNS:
        return are_boxes
    return are_boxes & cells.str.fullmatch(r"\s*[\[(][-\d.,;e\s()\[\]]*")


def _refuse_second_label(table: LabelTable, unread: pd.DataFrame, label: pd.Series) -> None:
    """Ask about a column with labels of the column that is read, or with its name and a number."""
    known = _names(label) - {"", *map(finding_name, dictionary()["unknown"])}
    is_chosen = "label" in table.assigned
    for column in map(str, unread):
        names = _names(unread[column])
        repeats = bool(names - normal_classes()) and names <= known and not is_chosen
        is_numbered = bool(names) and _is_numbered_copy(column, [str(label.name)])
        if is_numbered or (repeats and _adds_labels(unread[column], label)):
            raise InputError(
                f"{table.path}: does column '{column}' hold labels of the image, as '{label.name}' "
                "does? Write all labels of an image into one column, with | between them, or "
                f"{table.option.advice('unused', column)} if it does not count"
            )


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


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
