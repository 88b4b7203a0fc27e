"""Questions about columns of a label table that are not read, but look like one that is."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.names import finding_name, plain_name
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
_BOX_COLUMNS = (
    "bbox", "bboxes", "box", "boxes", "boundingbox", "boundingboxes", "predictionstring", "rle",
    "encodedpixels", "polygon", "polygons", "segmentation", "regionshapeattributes",
)  # fmt: skip


def refuse_unread_columns(table: LabelTable) -> None:
    """Ask about columns of a table that are not read, but look like findings, labels or a box."""
    if table.rules.name:
        return
    path, unread = table.path, table.text[table.unused]
    labels = table.columns.get("label", [])
    if labels and not table.has("state"):
        _refuse_states_of_labels(path, unread)
    findings = [*table.columns.get("finding", ()), *table.columns.get("no_finding", ())]
    if findings:
        _refuse_findings(path, unread, findings[0])
    boxes = [column for role in BOX_ROLES for column in table.columns.get(role, ())]
    refuse_second_box(str(path), unread, table.text[boxes], labels)
    for name in labels:
        is_chosen = "label" in table.assigned
        _refuse_second_label(path, unread, table.text[name], is_chosen=is_chosen)


def _refuse_states_of_labels(path: Path, unread: pd.DataFrame) -> None:
    """Ask about a column that may say whether the label of its row is present."""
    for column in map(str, unread):
        words = set(plain_cells(unread[column]))
        says_both = {"present", "absent"} <= words or {"positive", "negative"} <= words
        if says_both and holds_states(unread[column]):
            raise InputError(
                f"{path}: does column '{column}' say whether the label of its row is present or "
                f"absent? Say {_columns('state', [column])} if it does, else "
                f"{_columns('unused', [column])}"
            )


def _refuse_findings(path: Path, unread: pd.DataFrame, finding: str) -> None:
    """Ask about columns that hold states, present ones and others, as a column of a finding."""
    others = [name for name in map(str, unread) if not is_circumstance(name)]
    alike = [name for name in others if _divides_images(unread[name])]
    if alike:
        asked = f"does column {_quoted(alike)} hold a finding"
        if len(alike) > 1:
            asked = f"do {_quoted(alike)} hold findings"
        raise InputError(
            f"{path}: {asked}, as '{finding}' does? Say {_columns('finding', alike)} for what "
            f"does, and {_columns('unused', alike)} for what does not"
        )


def _divides_images(cells: pd.Series) -> bool:
    """Return True for states of which one is present, and a cell is another or empty."""
    states = states_of_cells(cells)
    return holds_states(cells) and "present" in set(states) and states.nunique(dropna=False) > 1


def refuse_second_box(
    where: str,
    unread: pd.DataFrame,
    boxes: pd.DataFrame,
    labels: Sequence[str] = (),
    *,
    has_option: bool = True,
) -> None:
    """Ask about four columns of numbers that may be another box of the row, and its label.

    `boxes` has the columns of the box that is read, `labels` the names of the columns of its label.
    All cells are texts. `has_option` says that ``--columns`` can leave columns out.
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
        if _is_numbered_copy(name, [*boxes]) or (fits and not is_count):
            alike.append(name)
    if len(alike) >= _N_NUMBERS:
        alike += [name for name in map(str, unread) if _is_numbered_copy(name, labels)]
        option = f" ({_columns('unused', alike)})" if has_option else ""
        raise InputError(
            f"{where}: do {_quoted(alike)} hold another box of the row? Write each box "
            f"in a row of its own, or remove the columns if they hold none{option}"
        )


def are_box_texts(cells: pd.Series) -> pd.Series:
    """Return True for cells that write boxes as one text, such as ``[10, 20, 30, 40]``.

    In a column with a name of boxes, such as ``bbox``, any cell with four numbers is one.
    """
    are_boxes = cells.str.count(r"\d+(?:\.\d+)?") >= _N_NUMBERS
    if plain_name(str(cells.name)) in _BOX_COLUMNS:
        return are_boxes
    return are_boxes & cells.str.fullmatch(r"\s*[\[(][-\d.,;e\s()\[\]]*")


def _refuse_second_label(
    path: Path, unread: pd.DataFrame, label: pd.Series, *, is_chosen: bool
) -> None:
    """Ask about a column with labels of the column that is read, or with its name and a number."""
    known = _names(label) - {"", *map(finding_name, dictionary()["unknown"])}
    for column in map(str, unread):
        names = _names(unread[column])
        repeats = bool(names - normal_classes()) and names <= known and not is_chosen
        is_numbered = bool(names) and _is_numbered_copy(column, [str(label.name)])
        if is_numbered or (repeats and not unread[column].equals(label)):
            raise InputError(
                f"{path}: does column '{column}' hold labels of the image, as '{label.name}' does? "
                "Write all labels of an image into one column, with | between them, or remove the "
                f"column that does not count ({_columns('unused', [column])})"
            )


def _names(cells: pd.Series) -> set[str]:
    """Return the distinct labels in cells, without numbers."""
    texts = {text for cell in cells.unique() for text in split_labels(cell)}
    return {finding_name(text) or text for text in texts if not is_number(text)}


def _is_numbered_copy(name: str, used: Sequence[str]) -> bool:
    """Return True for a name that differs from one of `used` in its digits alone, as xmin2."""
    return any(_without_digits(name) == _without_digits(other) for other in used)


def _without_digits(name: str) -> str:
    return plain_name(name).translate(str.maketrans("", "", "0123456789"))


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _columns(role: str, names: Sequence[str]) -> str:
    """Return the option that gives columns a role, as a shell takes it."""
    return "--columns " + shlex.quote(",".join(f"{role}={name}" for name in names))
