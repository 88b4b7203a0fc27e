"""Statements of label tables: which reader says that a finding is present, absent or uncertain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

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
from cxr_compare.data_prep.sources.label_names import is_number, name_labels
from cxr_compare.data_prep.sources.label_table import LabelTable, is_class_number, without_uncertain
from cxr_compare.data_prep.sources.label_values import (
    dictionary,
    normal_classes,
    plain_cells,
    states_of_cells,
)

# Prefixes of a finding in a label column that state another state than present.
_UNCERTAIN = "uncertain_"
_ABSENT = "absent_"
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

    labels: pd.DataFrame
    boxes: pd.DataFrame
    form: BoxForm = "xyxy"
    unit: BoxUnit = "px"
    table: LabelTable | None = None
    contradicted: list[str] = field(default_factory=list)


def _classes(
    table: LabelTable, class_names: Sequence[str], findings: Sequence[str]
) -> dict[str, list[str]]:
    """Return the findings that each cell of the label column names.

    An uncertain or absent finding has that prefix. A cell may say that one of `findings` is absent
    though no cell says that it is present.
    """
    where = f"{table.path}: column '{table.columns['label'][0]}'"
    if not class_names and not table.has("state"):
        _refuse_cells_beside_states(table)
    texts_of_cell = table.label_texts(table.labels, class_names)
    unnamed = [
        cell
        for cell in table.labels
        if is_class_number(cell) and int(float(cell)) >= len(class_names)
    ]
    bare_by_text = {
        text: text if table.has("state") else without_uncertain(text)
        for cell, texts in texts_of_cell.items()
        for text in texts
        if cell not in unnamed and text.lower() not in table.unknown_labels
    }
    kind: Literal["label", "column"] = "column" if table.has("state") else "label"
    others = [name.replace("_", " ") for name in findings]
    labels = name_labels([*bare_by_text.values(), *others], where, kind).labels
    if unnamed:
        raise InputError(
            f"{where} numbers its classes ({unnamed[0]}); name them, from 0 on: --class-names "
            "normal,mass"
        )
    names = {}
    for text, bare in bare_by_text.items():
        label = labels[bare]
        prefix = _ABSENT if label.state == "absent" else ""
        names[text] = (prefix if text == bare else _UNCERTAIN) + label.finding
    return {
        cell: [names[text] for text in texts if text in names]
        for cell, texts in texts_of_cell.items()
    }


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
    if table.known or table.has("no_finding") or not columns:
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


class _Gathered:
    """Labels and boxes of images, gathered table by table and reader by reader."""

    def __init__(self, class_names: Sequence[str], findings: Sequence[str], closed: bool) -> None:
        self.class_names = class_names
        self.findings = findings
        self.closed = closed
        self.labels: list[pd.DataFrame] = []  # image, finding, reader, state, origin
        self.implied: list[pd.DataFrame] = []  # image, finding, reader, origin
        self.boxes: list[pd.DataFrame] = []
        self.normal: list[pd.DataFrame] = []  # image and reader who found nothing
        self.boxed_normal: list[str] = []  # images with a box on such a row
        self.form: BoxForm = "xyxy"
        self.unit: BoxUnit = "px"
        self.table: LabelTable | None = None

    def add(
        self, table: LabelTable, rows: pd.DataFrame, only_finding: str, *, only_boxes: bool
    ) -> None:
        """Add the statements of a table, whose rows have ``image_id``, ``reader``, ``origin``.

        Args:
            table: Label table whose rows have images.
            rows: Image, reader and origin of its rows.
            only_finding: Finding of boxes without a label; empty if the tables have several.
            only_boxes: True if a row says nothing of the findings that it does not name.
        """
        columns = table.columns.get("finding", [])
        _refuse_minus_one_for_absent(table)
        if len(columns) == 1:
            only_finding = table.finding(columns[0])
        box_finding = pd.Series(only_finding, index=rows.index)
        if table.has("label"):
            box_finding = self._add_label_column(table, rows, only_boxes=only_boxes)
        for column in columns:
            states = _states(table, column)
            labels = rows.assign(finding=table.finding(column), state=states)
            self.labels.append(labels[states != ""])
        for column in table.columns.get("no_finding", ()):
            normal_rows = rows[_states(table, column) == "present"]
            self.normal.append(normal_rows)
            not_implied = set(dictionary()["nothing_on"])
            self._imply(normal_rows, {table.finding(name) for name in columns} - not_implied)
        if table.box_roles:
            self._add_boxes(table, rows, box_finding)

    def _add_label_column(
        self, table: LabelTable, rows: pd.DataFrame, *, only_boxes: bool
    ) -> pd.Series:
        """Add the labels of the label column; return the findings of each row, space-separated."""
        cells = table.cells("label")
        findings_by_cell = _classes(table, self.class_names, self.findings)
        self._refuse_others(table, cells, findings_by_cell)
        named = rows.assign(finding=cells.map(findings_by_cell), cell=cells, state="present")
        row_findings = named["finding"].map(" ".join)
        if table.has("state"):
            named["state"] = _states(table, table.columns["state"][0])
            is_unnamed = (row_findings == "") & (named["state"] != "")
            refuse_line(is_unnamed, table.path, "a state, but the finding is empty; fill it in")
        only_absent = named["finding"].map(_all_absent)
        labels = named.explode("finding").dropna(subset="finding")
        for prefix, state in ((_UNCERTAIN, "uncertain"), (_ABSENT, "absent")):
            has_prefix = labels["finding"].str.startswith(prefix)
            labels["state"] = labels["state"].mask(has_prefix, state)
            labels["finding"] = labels["finding"].str.removeprefix(prefix)
        row_findings = row_findings.str.removeprefix(_UNCERTAIN)
        is_normal = is_member(labels["finding"], normal_classes())
        if not (table.known and table.known.boxes_only):
            self.labels.append(labels[~is_normal & (labels["state"] != "")])
            self.normal.append(labels[is_normal])
        if not only_boxes and not table.has("state"):
            classes = {_bare_finding(n) for names in findings_by_cell.values() for n in names}
            classes = {*classes, *self.findings} - normal_classes()
            is_empty = (cells == "") & bool(table.box_roles)
            complete = rows[(is_empty | (row_findings != "")) & ~only_absent]
            if table.known and not table.known.closed:  # then "normal" alone rules out the others
                complete = rows.loc[labels.index[is_normal]]
            # A row of an image may state that its other findings are unknown.
            is_open = (cells != "") & (row_findings == "")
            open_rows = rows.loc[is_open, ["image_id", "reader"]].drop_duplicates()
            complete = complete.merge(open_rows, how="left", indicator="open")
            self._imply(complete[complete["open"] == "left_only"], classes)
        return row_findings

    def _refuse_others(
        self, table: LabelTable, cells: pd.Series, findings_by_cell: dict[str, list[str]]
    ) -> None:
        """Refuse a label that is none of a closed list of findings."""
        if not self.closed:
            return
        for cell, names in findings_by_cell.items():
            others = {_bare_finding(name) for name in names} - {*self.findings, *normal_classes()}
            reason = f": '{min(others, default='')}' is none of the {len(self.findings)} findings"
            refuse_line((cells == cell) & bool(others), table.path, reason, cells)

    def _add_boxes(self, table: LabelTable, rows: pd.DataFrame, box_finding: pd.Series) -> None:
        """Add the box of each row, and note boxes on rows that found nothing."""
        numbers, form, unit = _box_numbers(table)
        is_boxed = numbers.notna().any(axis=1)
        if not is_boxed.any():
            return
        if self.table and (form, unit) != (self.form, self.unit):
            raise InputError(
                f"{table.path}: boxes are {form} in {unit}, those of {self.table.path} "
                f"{self.form} in {self.unit}; write both in one form"
            )
        self.form, self.unit, self.table = form, unit, table
        if not table.known and not table.has("label"):
            _refuse_other_class(table, is_boxed, box_finding)
        is_normal = is_member(box_finding, normal_classes()) | box_finding.str.startswith(_ABSENT)
        self.boxed_normal += rows.loc[is_boxed & is_normal, "image_id"].tolist()
        is_boxed &= ~is_normal
        reason = (
            "a box, but not one finding that it is of; say --columns label=COLUMN, or "
            "--class-names mass"
        )
        has_one_finding = (box_finding != "") & ~box_finding.str.contains(" ")
        refuse_line(is_boxed & ~has_one_finding, table.path, reason)
        self.boxes.append(rows.assign(finding=box_finding, **numbers)[is_boxed])

    def _imply(self, rows: pd.DataFrame, findings: Iterable[str]) -> None:
        names = pd.DataFrame({"finding": sorted(set(findings))}, dtype=TEXT)
        columns = ["image_id", "reader", "origin"]
        self.implied.append(rows[columns].drop_duplicates(columns[:2]).merge(names, how="cross"))


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


def _bare_finding(name: str) -> str:
    return name.removeprefix(_UNCERTAIN).removeprefix(_ABSENT)


def _all_absent(names: Sequence[str]) -> bool:
    """Return True if a label states that findings are absent and that none is present."""
    return bool(names) and all(name.startswith(_ABSENT) for name in names)


def _stacked(parts: Sequence[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """Join the rows of several tables and drop repeats."""
    stacked = pd.concat([pd.DataFrame(columns=columns), *parts])[columns].drop_duplicates()
    types = {c: "float64" if c in EDGES else TEXT for c in columns}
    return stacked.astype(types).reset_index(drop=True)


def _adds_only_boxes(table: LabelTable, tables: Sequence[LabelTable]) -> bool:
    """Return True if a table states nothing but boxes, because another table has the states."""
    if table.known and table.known.boxes_only:
        return True
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
    gathered = _Gathered(class_names, findings, closed)
    only_finding = _only_finding(tables, class_names)
    for table in (table for table in tables if len(table.images)):
        origin = table.known.origin if table.known else "unknown"
        rows = table.images[["image_id"]].assign(reader=REFERENCE_READER, origin=origin)
        if table.has("reader"):
            rows["reader"] = table.cells("reader")
            rows["origin"] = np.where(rows["reader"] == REFERENCE_READER, origin, "reader")
        refuse_line(rows["reader"] == "", table.path, "reader is empty; fill it in")
        only_boxes = _adds_only_boxes(table, tables)
        gathered.add(table, rows, only_finding, only_boxes=only_boxes)
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
    return LabelRows(labels, boxes, gathered.form, gathered.unit, gathered.table, contradicted)


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
