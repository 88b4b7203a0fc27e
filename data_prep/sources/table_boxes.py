"""Boxes in the rows of label tables: their four numbers, and the finding that each is of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.box_check import ROLES_OF_FORMS, BoxReading, BoxUnit
from cxr_compare.data_prep.base.boxes import NUMBERS
from cxr_compare.data_prep.base.errors import InputError, Remedy, counted_phrase
from cxr_compare.data_prep.base.tables import FINDING_KEY
from cxr_compare.data_prep.base.user_tables import line_of, to_numbers
from cxr_compare.data_prep.sources.label_table import LabelTable, Tables
from cxr_compare.data_prep.sources.statements import Source
from cxr_compare.data_prep.sources.words import class_finding, normal_classes

_MOST_SHARE = 1.1  # shares of the size may pass the border a little; no box in px is this small


def boxed_rows(
    source: Source,
    table: LabelTable,
    rows: pd.DataFrame,
    labels: pd.Series,
    tables: Tables,
) -> tuple[pd.DataFrame, BoxReading]:
    """Return the rows with a box, of the one finding that each row names, and how it is read."""
    numbers, reading = _read_boxes(source, table)
    numbers[numbers.eq(0).all(axis=1) & _says_nothing(table, labels)] = np.nan  # placeholders
    is_boxed = numbers.notna().any(axis=1)
    labels_of_boxes = labels[is_boxed]
    is_open = is_boxed & (labels.str.len() != 1)
    if is_open.any():
        raise _of_no_finding(table, line_of(is_open))
    boxed = rows[is_boxed].assign(
        finding=[label.finding for (label,) in labels_of_boxes],
        state=[label.state for (label,) in labels_of_boxes],
        boxed=True,
    )
    boxed = boxed.assign(**numbers[is_boxed])
    crowds = _crowds(source, table)[is_boxed]
    source.partial.update(boxed.loc[crowds, FINDING_KEY].itertuples(index=False, name=None))
    boxed.loc[crowds, NUMBERS] = np.nan
    return boxed.assign(boxed=~crowds), reading


def _of_no_finding(table: LabelTable, line: str) -> InputError:
    """Return the error of a box of which nothing says what it shows, or too much."""
    words = [
        c for c in table.unused if not pd.to_numeric(table.text[c], errors="coerce").notna().any()
    ]
    repeated = [c for c in words if 1 <= table.text[c].nunique() <= len(table.text) / 2]
    when = "'{}' names what a box shows"
    ways = [table.caller.remedy({"label": c}, when.format(c)) for c in repeated]
    if not (table.caller.compares or table.has("label", "finding")):
        ways.append(Remedy("all boxes are of one finding", {"class_names": "NAME"}))
    ways = ways or [Remedy(words="write a column label with the finding of each box")]
    problem = f"{line}: a box, but not one finding that it is of; it has {table.header}"
    return InputError(f"{table.path}: {problem}", ways)


def _crowds(source: Source, table: LabelTable) -> pd.Series:
    """Return True for rows of COCO's crowds, whose lesions have no box each."""
    crowds = pd.Series(False, table.text.index)
    for column in table.columns_of("crowd"):
        crowds |= table.states(column) == "present"
    if crowds.any():
        text = "boxes are crowds: findings of these are boxed in part"
        source.notes.append(counted_phrase(int(crowds.sum()), text))
    return crowds


def _read_boxes(source: Source, table: LabelTable) -> tuple[pd.DataFrame, BoxReading]:
    """Return the four numbers of each row, NaN where it has none, and how they are read."""
    form = table.box_form
    if form is None:
        raise InputError(f"{table.path}: has {', '.join(sorted(table.box_roles))} of boxes alone")
    cells = [table.cells(role) for role in ROLES_OF_FORMS[form]]
    columns = [to_numbers(column, table.path, str(column.name)) for column in cells]
    numbers = pd.DataFrame(dict(zip(NUMBERS, columns, strict=True)))
    are_shares = numbers.max().max() <= _MOST_SHARE
    # A comparison asks about shares.
    unit: BoxUnit = "share" if are_shares and not source.options.caller.compares else "px"
    is_answered = "xmin" in table.answered or source.options.role("box_form") is not None
    in_doubt = are_shares and form == "xywh" and not is_answered
    if in_doubt and (x := table.columns["xmin"][0]).lower().endswith("x"):
        ways = {"xywh": "they are the corner", "cxcywh": "they are the centre"}
        further = {"box_unit": "share"} if table.caller.compares else {}
        raise InputError(
            f"{table.path}: boxes are in shares of the image: what are '{x}' and "
            f"'{table.columns['ymin'][0]}'?",
            [
                table.caller.remedy({"box_form": form, **further}, when)
                for form, when in ways.items()
            ],
        )
    answered = set(ROLES_OF_FORMS[form][2:]) <= table.answered
    reading = BoxReading(form, unit, str(table.path), stated=True, answered=answered)
    return numbers, reading


def _says_nothing(table: LabelTable, labels: pd.Series) -> pd.Series:
    """Return True for rows without a label, or that state an absence or that nothing is found."""
    columns = table.columns_of("finding", "state")
    states = pd.DataFrame({c: table.states(c) for c in columns}, index=labels.index)
    normal = normal_classes()
    is_normal = labels.map(lambda listed: any(label.finding in normal for label in listed))
    is_empty = (labels.str.len() == 0) & table.has("label")
    denies = is_empty | is_normal.astype(bool) | (states == "absent").any(axis=1)
    return denies & ~(states == "present").any(axis=1)


def take_reading(source: Source, new_reading: BoxReading, *, has_boxes: bool) -> None:
    """Set how the boxes of a file are read; refuse another reading than that of boxes before."""
    reading = source.reading
    if has_boxes and (new_reading.form, new_reading.unit) != (reading.form, reading.unit):
        raise InputError(
            f"{new_reading.where}: boxes are {new_reading.text}, those of "
            f"{reading.where or 'another file'} {reading.text}; write both in one form"
        )
    source.reading = new_reading


def only_finding(table: LabelTable, tables: Tables, class_names: Sequence[str]) -> str:
    """Return the one finding that a table, or all together, are about; empty if there are more."""
    if class_names and not table.has("finding"):
        names = {class_finding(name, "class_names") for name in class_names}
    elif table.has("finding") or not any(other.has("label") for other in tables):
        group = [table] if table.has("finding") else tables
        names = {t.finding(column) for t in group for column in t.columns_of("finding")}
    else:
        names = set()
    return names.pop() if len(names) == 1 else ""
