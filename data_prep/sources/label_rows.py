"""Statements of label tables: which reader says that a finding is present, absent or uncertain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.box_classes import class_column, other_class
from cxr_compare.data_prep.contracts.box_readings import BoxForm, BoxUnit
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.table_files import is_table_file, refuse_line, to_numbers
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.label_names import Label, is_number
from cxr_compare.data_prep.sources.label_table import LabelTable
from cxr_compare.data_prep.sources.label_values import (
    dictionary,
    normal_classes,
    plain_cells,
    states_of_cells,
)

_MOST_SHARE = 1.1
_KEY = ["image_id", "finding", "reader"]
BOX_FORMS: dict[BoxForm, tuple[str, ...]] = {
    "xyxy": ("xmin", "ymin", "xmax", "ymax"),
    "xywh": ("xmin", "ymin", "width", "height"),
    "cxcywh": ("xcenter", "ycenter", "width", "height"),
}
"""Roles of the columns of a box's four numbers, by the form of the box."""


@dataclass
class LabelRows:
    """Labels and boxes of the rows of label tables.

    Attributes:
        labels: Columns ``image_id, finding, reader, state, origin, implied``; the last is True for
            findings that are absent because no row names them.
        boxes: Columns ``image_id, finding, reader``, and four numbers ``x1, y1, x2, y2`` of the
            form and unit below.
        form: Meaning of the four numbers: ``xyxy``, ``xywh`` or ``cxcywh``.
        unit: Their unit: ``px`` or ``share``.
        table: Table of the boxes.
        contradicted: Images with a finding beside "no finding".
    """

    labels: pd.DataFrame = field(default_factory=pd.DataFrame)
    boxes: pd.DataFrame = field(default_factory=pd.DataFrame)
    form: BoxForm = "xyxy"
    unit: BoxUnit = "px"
    table: LabelTable | None = None
    contradicted: list[str] = field(default_factory=list)


def _labels_of_cells(
    table: LabelTable, class_names: Sequence[str], findings: Sequence[str]
) -> dict[str, list[Label]]:
    """Return findings and states that each cell of the label column lists, none if unknown."""
    if not class_names and not table.has("state"):
        _refuse_cells_beside_states(table)
    listed = {cell: table.listed_labels(cell, class_names) for cell in table.labels}
    numbers = [cell for cell in table.labels if listed[cell] == [cell] and cell.isdecimal()]
    texts = chain.from_iterable(of for cell, of in listed.items() if cell not in numbers)
    labels = table.name(dict.fromkeys(texts), findings)
    if numbers:
        raise InputError(
            f"{table.path}: column '{table.columns['label'][0]}' numbers its classes "
            f"({numbers[0]}); name them, from 0 on: --class-names normal,mass"
        )
    return {cell: [labels[t] for t in texts if t in labels] for cell, texts in listed.items()}


def _refuse_cells_beside_states(table: LabelTable) -> None:
    """Refuse a cell that is no state in a column of states, such as ``x`` beside 1 and 0."""
    cells = table.cells("label")
    states = states_of_cells(cells)
    plain = plain_cells(cells)
    if not ((states == "present") | (plain == "0")).any():
        return  # "no" and "negative" are also written beside the names of findings
    is_understood = states.notna() | is_member(plain, list(table.unknown_labels))
    if plain[~is_understood].map(is_number).all():
        return  # numbered classes, or numbers that are no names
    reason = (
        f"column '{cells.name}' holds no state, as it does on other lines (such as 1 or 0, yes or "
        "no); correct the cell, or write 'unknown'"
    )
    refuse_line(~is_understood, table.path, reason)


def _refuse_minus_one_for_absent(table: LabelTable) -> None:
    """Ask about labels of 1 and -1 without a 0, where -1 may mean absent."""
    columns = table.columns.get("finding", ())
    if table.rules.name or table.has("no_finding") or not columns:
        return
    plain = plain_cells(pd.concat([table.text[column] for column in columns]))
    if {"1", "-1"} == set(plain) - {"", *table.unknown_labels}:
        refuse_line(
            plain == "-1",
            table.path,
            "the label is -1, and others are 1, but none is 0; write 0 where the finding is "
            "absent, or 'uncertain' where nobody could say",
        )


def _states(table: LabelTable, column: str) -> pd.Series:
    cells = table.text[column]
    states = states_of_cells(cells)
    states = states.mask(is_member(plain_cells(cells), list(table.unknown_labels)), "")
    reason = (
        f"column '{column}' holds no state; expected 1, 0, -1, present, absent, uncertain or "
        f"nothing. Say --columns unused={column} if it is no finding"
    )
    refuse_line(states.isna(), table.path, reason)
    return states


def _box_numbers(table: LabelTable) -> tuple[pd.DataFrame, BoxForm, BoxUnit]:
    """Return four numbers of each row's box, NaN without one, and their form and unit."""
    roles = table.box_roles
    form = next((form for form, needed in BOX_FORMS.items() if roles >= set(needed)), None)
    if form is None:
        has = ", ".join(sorted(roles)) or "none"
        raise InputError(
            f"{table.path}: a box needs xmin and xmax or width, ymin and ymax or height, or "
            f"xcenter, ycenter, width and height; it has {has}: name the others with --columns"
        )
    numbers = pd.DataFrame(index=table.text.index)
    for edge, role in zip(EDGES, BOX_FORMS[form], strict=True):
        cells = table.cells(role)
        numbers[edge] = to_numbers(cells, table.path, str(cells.name))
    # Shares of the size, which may pass the border a little; no box in px is this small.
    if not numbers.max().max() <= _MOST_SHARE:
        return numbers, form, "px"
    x, y = ((*table.columns.get(role, ()), "")[0] for role in ("xmin", "ymin"))
    if form == "xywh" and x.lower().endswith("x") and "xmin" not in table.assigned_roles:
        raise InputError(
            f"{table.path}: boxes are in shares of the image: are {x}, {y} the corner or the "
            f"centre? Say --columns xmin={x},ymin={y} or --columns xcenter={x},ycenter={y}"
        )
    return numbers, form, "share"


@dataclass
class _Gathered:
    """Statements of label tables, gathered table by table.

    Attributes:
        labels: Image, finding, reader, state and origin.
        implied: Image, finding, reader and origin of findings that may be absent.
        normal: Image and reader who found nothing.
        boxes: Image, finding, reader and edges.
        boxed_normal: Images with a box on a row that found nothing.
    """

    labels: list[pd.DataFrame] = field(default_factory=list)
    implied: list[pd.DataFrame] = field(default_factory=list)
    normal: list[pd.DataFrame] = field(default_factory=list)
    boxes: list[pd.DataFrame] = field(default_factory=list)
    boxed_normal: list[str] = field(default_factory=list)

    def add_label_column(
        self,
        table: LabelTable,
        rows: pd.DataFrame,
        labels: dict[str, list[Label]],
        findings: Sequence[str],
        *,
        only_boxes: bool,
    ) -> None:
        """Add the labels of the label column, whose meaning is known by cell.

        With `only_boxes`, a row says nothing of the findings that it does not name.
        """
        cells = table.cells("label")
        is_unnamed = cells.map({cell: not of for cell, of in labels.items()}).astype(bool)
        named = rows.assign(label=cells.map(labels))
        if table.has("state"):
            states = _states(table, table.columns["state"][0])
            reason = "a state, but the finding is empty; fill it in"
            refuse_line(is_unnamed & (states != ""), table.path, reason)
            named["state"] = states
        named = named.explode("label").dropna(subset="label")
        named["finding"] = [label.finding for label in named["label"]]
        if not table.has("state"):
            named["state"] = [label.state for label in named["label"]]
        is_normal = is_member(named["finding"], normal_classes())
        self.labels.append(named[~is_normal & (named["state"] != "")])
        self.normal.append(named[is_normal])
        if only_boxes or table.has("state"):
            return
        completes = {cell: _names_all(table, cell, of) for cell, of in labels.items()}
        complete = rows[cells.map(completes).to_numpy(dtype=bool)]
        # A row of an image may state that its other findings are unknown.
        open_rows = rows.loc[(cells != "") & is_unnamed, ["image_id", "reader"]].drop_duplicates()
        complete = complete.merge(open_rows, how="left", indicator="open")
        classes = {label.finding for of in labels.values() for label in of} | set(findings)
        self.imply(complete[complete["open"] == "left_only"], classes - normal_classes())

    def add_finding_columns(self, table: LabelTable, rows: pd.DataFrame) -> None:
        """Add the states in the columns of findings."""
        _refuse_minus_one_for_absent(table)
        columns = table.columns.get("finding", [])
        for column in columns:
            labels = rows.assign(finding=table.finding(column), state=_states(table, column))
            self.labels.append(labels[labels["state"] != ""])
        ruled_out = {table.finding(name) for name in columns} - set(dictionary()["nothing_on"])
        for column in table.columns.get("no_finding", ()):
            normal_rows = rows[_states(table, column) == "present"]
            self.normal.append(normal_rows)
            self.imply(normal_rows, ruled_out)

    def add_boxes(
        self, path: Path, rows: pd.DataFrame, numbers: pd.DataFrame, found: pd.DataFrame
    ) -> None:
        """Add the box of each row, of the ``finding`` and ``state`` that was found in the row."""
        is_boxed = numbers.notna().any(axis=1)
        is_normal = is_member(found["finding"], normal_classes()) | (found["state"] == "absent")
        self.boxed_normal += rows.loc[is_boxed & is_normal, "image_id"].tolist()
        is_boxed &= ~is_normal
        reason = (
            "a box, but not one finding that it is of; say --columns label=COLUMN, or "
            "--class-names mass"
        )
        refuse_line(is_boxed & (found["finding"] == ""), path, reason)
        self.boxes.append(rows.assign(finding=found["finding"], **numbers)[is_boxed])

    def imply(self, rows: pd.DataFrame, findings: Iterable[str]) -> None:
        """Add findings that are absent unless a row names them."""
        names = pd.DataFrame({"finding": sorted(set(findings))}, dtype=TEXT)
        columns = ["image_id", "reader", "origin"]
        self.implied.append(rows[columns].drop_duplicates(columns[:2]).merge(names, how="cross"))


def _names_all(table: LabelTable, cell: str, labels: Sequence[Label]) -> bool:
    """Return True if findings that a cell does not name are absent."""
    if not table.rules.closed:
        return any(label.finding in normal_classes() for label in labels)
    if not labels:
        return cell == "" and bool(table.box_roles)
    return any(label.state != "absent" for label in labels)


def _refuse_other_class(table: LabelTable, is_boxed: pd.Series, finding: pd.Series) -> None:
    """Refuse boxes of a class that is not their finding, in a column that was not recognised."""
    boxed = table.text.loc[is_boxed.to_numpy(), table.unused]
    column = class_column(boxed)
    if column is None:
        return
    other = other_class(boxed[column], finding.unique().tolist())
    if other is not None:
        is_other = (table.text[column] == other[1]) & is_boxed.to_numpy()
        reason = (
            f" of a box, and the finding is {finding.iloc[0]!r}; say --columns label={column} if "
            f"the column names what a box shows, else unused={column}"
        )
        refuse_line(is_other, table.path, reason, table.text[column])


def _stacked(parts: Sequence[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """Join the rows of several tables and drop repeats."""
    stacked = pd.concat([pd.DataFrame(columns=columns), *parts])[columns].drop_duplicates()
    types = {c: "float64" if c in EDGES else TEXT for c in columns}
    return stacked.astype(types).reset_index(drop=True)


def _adds_only_boxes(table: LabelTable, tables: Sequence[LabelTable]) -> bool:
    """Return True if a table states nothing but boxes, because another table has the states."""
    if not any(other.has("state") for other in tables) or not is_table_file(table.path):
        return False
    sides = [table.cells(role) for role in table.box_roles]
    return bool(sides) and all((cells != "").all() for cells in sides)


def _only_finding(tables: Sequence[LabelTable], class_names: Sequence[str]) -> str:
    """Return the one finding that all tables together are about; empty if there are several."""
    if class_names:
        return class_names[0] if len(class_names) == 1 else ""
    if any(table.has("label") for table in tables):
        return ""
    findings = {
        table.finding(column) for table in tables for column in table.columns.get("finding", ())
    }
    return findings.pop() if len(findings) == 1 else ""


def read_label_rows(
    tables: Sequence[LabelTable],
    class_names: Sequence[str],
    notes: list[str],
    findings: Sequence[str] = (),
    *,
    closed: bool = False,
) -> LabelRows:
    """Read the labels and boxes of each reader (person) from label tables.

    A finding is absent on an image if the rows of the image name only other findings, or state that
    nothing is found.

    Args:
        tables: Label tables, each with the image of every row.
        class_names: Names of numbered classes.
        notes: Takes cautions about rows.
        findings: Findings that rows rule out even if no row names them.
        closed: True if rows may name no other finding, and each row decides all of them.

    Raises:
        InputError: A cell cannot be understood, or no row states a finding.
    """
    gathered = _Gathered()
    result = LabelRows()
    only_finding = _only_finding(tables, class_names)
    for table in (table for table in tables if len(table.images)):
        rows = _reader_rows(table)
        columns = [table.finding(column) for column in table.columns.get("finding", ())]
        only = columns[0] if len(columns) == 1 else only_finding
        found = [Label(only)] * len(rows)
        if table.has("label"):
            of_cells = _labels_of_cells(table, class_names, findings)
            if closed:
                _refuse_others(table, of_cells, findings)
            single = {cell: of[0] if len(of) == 1 else Label("") for cell, of in of_cells.items()}
            found = [single[cell] for cell in table.cells("label")]
            if not table.rules.boxes_only:
                only_boxes = _adds_only_boxes(table, tables)
                gathered.add_label_column(table, rows, of_cells, findings, only_boxes=only_boxes)
        gathered.add_finding_columns(table, rows)
        if table.box_roles:
            labelled = pd.DataFrame(found, rows.index, ["finding", "state"], dtype=TEXT)
            _take_boxes(gathered, result, table, rows, labelled)
    stated = _stacked(gathered.labels, [*_KEY, "state", "origin"])
    boxes = _stacked(gathered.boxes, [*_KEY, *EDGES])
    labelled = pd.concat([stated[_KEY], boxes[_KEY]] if not closed else [stated[_KEY]])
    implied = _stacked(gathered.implied, [*_KEY, "origin"]).drop_duplicates(_KEY)
    implied = implied.merge(labelled.drop_duplicates(), how="left", indicator="_in")
    absent = implied.loc[implied["_in"] == "left_only", [*_KEY, "origin"]]
    idle = gathered.boxed_normal
    if idle:
        notes.append(
            f"WARNING: {counted(len(idle), 'box')} on rows that state that the image shows nothing "
            f"or no such finding were ignored, the first on image {idle[0]}. If a box is right, "
            "correct the label"
        )
    normal = _stacked(gathered.normal, ["image_id", "reader"])
    present = pd.concat([stated[stated["state"] == "present"], boxes])[_KEY]
    present = present[~is_member(present["finding"], dictionary()["nothing_on"])]
    labels = pd.concat(
        [stated.assign(implied=False), absent.assign(state="absent", implied=True)],
        ignore_index=True,
    )
    if labels.empty and boxes.empty:
        reason = "no row states a label"
        if len(normal):
            reason = "every row states that the image shows nothing"
        raise InputError(
            f"{tables[0].path}: {reason}: no finding to learn; add images that show one"
        )
    contradicted = present.merge(normal)["image_id"].tolist()
    return replace(result, labels=labels, boxes=boxes, contradicted=contradicted)


def _reader_rows(table: LabelTable) -> pd.DataFrame:
    """Return image, reader and origin of each row."""
    origin = table.rules.origin
    rows = table.images[["image_id"]].assign(reader=REFERENCE_READER, origin=origin)
    if table.has("reader"):
        rows["reader"] = table.cells("reader")
        rows["origin"] = np.where(rows["reader"] == REFERENCE_READER, origin, "reader")
    refuse_line(rows["reader"] == "", table.path, "reader is empty; fill it in")
    return rows


def _refuse_others(
    table: LabelTable, labels: dict[str, list[Label]], findings: Sequence[str]
) -> None:
    """Refuse a label that is none of a closed list of findings."""
    cells = table.cells("label")
    for cell, of in labels.items():
        others = {label.finding for label in of} - {*findings, *normal_classes()}
        reason = f": '{min(others, default='')}' is none of the {len(findings)} findings"
        refuse_line((cells == cell) & bool(others), table.path, reason, cells)


def _take_boxes(
    gathered: _Gathered,
    result: LabelRows,
    table: LabelTable,
    rows: pd.DataFrame,
    found: pd.DataFrame,
) -> None:
    """Add the boxes of a table, and note how they are written."""
    numbers, form, unit = _box_numbers(table)
    is_boxed = numbers.notna().any(axis=1)
    if not is_boxed.any():
        return
    if result.table and (form, unit) != (result.form, result.unit):
        raise InputError(
            f"{table.path}: boxes are {form} in {unit}, those of {result.table.path} "
            f"{result.form} in {result.unit}; write both in one form"
        )
    result.form, result.unit, result.table = form, unit, table
    if not table.rules.name and not table.has("label"):
        _refuse_other_class(table, is_boxed, found["finding"])
    gathered.add_boxes(table.path, rows, numbers, found)


def implied_note(tables: Sequence[LabelTable]) -> str:
    """Return the end of a note that begins with the number of implied labels."""
    if any(table.path.is_dir() for table in tables):
        return "labels count as absent because their image is in the folder of another class"
    advice = "empty the cell that says that the image shows nothing"
    if any(table.has("label") for table in tables):
        advice = "add a row with the image and the label 'unknown'"
    files = ", ".join(table.path.name for table in tables)
    return (
        f"labels count as absent because the rows of {files} name other findings only, or say that "
        f"the image shows nothing. If nobody looked for a finding on an image, {advice}"
    )
