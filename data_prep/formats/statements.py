"""Labels and boxes of each reader, read from the rows of label tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.box_classes import class_column, other_class
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.table_files import is_table_file
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.contracts.text_columns import refuse_line, to_numbers
from cxr_compare.data_prep.formats.class_names import plain_cells, states_of_cells
from cxr_compare.data_prep.formats.columns import SIDES, column_dictionary
from cxr_compare.data_prep.formats.implied_negatives import ImpliedNegatives
from cxr_compare.data_prep.formats.label_names import name_labels, normal_classes
from cxr_compare.data_prep.formats.label_table import (
    LabelTable,
    is_class_number,
    without_uncertain,
)
from cxr_compare.data_prep.formats.label_values import as_number
from cxr_compare.data_prep.formats.reference import LABEL_KEY
from cxr_compare.data_prep.formats.source import SourceBuilder

# Prefixes of a finding in a label column that state another state than present.
_UNCERTAIN = "uncertain_"
_ABSENT = "absent_"


def _classes(table: LabelTable, class_names: Sequence[str]) -> dict[str, list[str]]:
    """Return the findings that each cell of the label column names.

    An uncertain or absent finding has that prefix.
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
    labels = name_labels(bare_by_text.values(), where, kind).labels
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
    if plain[~is_understood].map(lambda cell: as_number(cell) is not None).all():
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


def _edges(table: LabelTable, builder: SourceBuilder) -> pd.DataFrame:
    """Return the box of each row as x1, y1, x2, y2 in px of the image; NaN without a box."""
    path = table.path
    box_roles = table.box_roles
    values = {}
    for role in box_roles:
        cells = table.cells(role)
        values[role] = to_numbers(cells, path, str(cells.name))
    edges = pd.DataFrame(index=table.text.index)
    for (low, high, side, middle), (first, last) in zip(
        SIDES, (["x1", "x2"], ["y1", "y2"]), strict=True
    ):
        if low in box_roles and (high in box_roles or side in box_roles):
            edges[first] = values[low]
            edges[last] = values[high] if high in box_roles else values[low] + values[side]
        elif middle in box_roles and side in box_roles:
            edges[first] = values[middle] - values[side] / 2
            edges[last] = values[middle] + values[side] / 2
        else:
            raise InputError(
                f"{path}: a box needs {low} and {high} or {side}, or {middle} and {side}; it has "
                f"{', '.join(sorted(box_roles)) or 'none'}: name the others with --columns"
            )
    edges = edges[EDGES]
    # Shares of the size, which may pass the border a little; no box in px is this small.
    if not max(column.max() for column in values.values()) <= _MOST_SHARE:
        return edges
    x, y = ((*table.columns.get(role, ()), "")[0] for role in ("xmin", "ymin"))
    if "xmax" not in box_roles and x.lower().endswith("x") and "xmin" not in table.assigned_roles:
        raise InputError(
            f"{path}: boxes are in shares of the image: are {x}, {y} the corner or the centre? Say "
            f"--columns xmin={x},ymin={y} or --columns xcenter={x},ycenter={y}"
        )
    paths = table.images["path"]
    boxed = paths[edges.notna().any(axis=1)].unique()
    sizes = {name: builder.labelled_size(name) for name in boxed}
    return edges * np.array([sizes.get(name, (np.nan, np.nan)) * 2 for name in paths])


def _bare_finding(name: str) -> str:
    return name.removeprefix(_UNCERTAIN).removeprefix(_ABSENT)


def _all_absent(names: Sequence[str]) -> bool:
    """Return True if a label states that findings are absent and that none is present."""
    return bool(names) and all(name.startswith(_ABSENT) for name in names)


_MOST_SHARE = 1.1
_SHOWN = 6  # largest number of findings that a note lists


class _Statements:
    """Labels and boxes of images, gathered table by table and reader by reader."""

    def __init__(self) -> None:
        self.labels: list[pd.DataFrame] = []  # image, finding, reader, state
        self.implied: list[pd.DataFrame] = []  # image, finding, reader: absent without a label
        self.boxes: list[pd.DataFrame] = []
        self.normal: list[pd.DataFrame] = []  # image and reader who found nothing
        self.boxed_normal: list[str] = []  # images with a box on a row that finds nothing

    def add(
        self,
        table: LabelTable,
        rows: pd.DataFrame,
        builder: SourceBuilder,
        only_finding: str = "",
        *,
        implies_absence: bool = True,
    ) -> None:
        """Add the statements of a table.

        Args:
            table: Label table whose rows have images.
            rows: The ``image_id`` and ``reader`` of its rows.
            builder: Object that knows the folder of images and the names of numbered classes.
            only_finding: Finding of boxes without a label; empty if the tables have several.
            implies_absence: True if a row means that the findings that it does not name are absent.
        """
        columns = table.columns.get("finding", [])
        _refuse_minus_one_for_absent(table)
        if len(columns) == 1:
            only_finding = table.finding(columns[0])
        box_finding = pd.Series(only_finding, index=rows.index)
        if table.has("label"):
            class_names = builder.options.class_names
            box_finding = self._add_label_column(table, rows, class_names, implies_absence)
        for column in columns:
            states = _states(table, column)
            labels = rows.assign(finding=table.finding(column), state=states)
            self.labels.append(labels[states != ""])
        for column in table.columns.get("no_finding", ()):
            normal_rows = rows[_states(table, column) == "present"]
            self.normal.append(normal_rows)
            not_implied = set(column_dictionary()["nothing_on"])
            self._imply(normal_rows, {table.finding(name) for name in columns} - not_implied)
        if table.box_roles:
            self._add_boxes(table, rows, builder, box_finding)

    def _add_label_column(
        self,
        table: LabelTable,
        rows: pd.DataFrame,
        class_names: Sequence[str],
        implies_absence: bool,
    ) -> pd.Series:
        """Add the labels of the label column; return the findings of each row, space-separated."""
        cells = table.cells("label")
        findings_by_cell = _classes(table, class_names)
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
        self.labels.append(labels[~is_normal & (labels["state"] != "")])
        self.normal.append(labels[is_normal])
        if implies_absence and not table.has("state"):
            is_empty = (cells == "") & bool(table.box_roles)
            complete = rows[(is_empty | (row_findings != "")) & ~only_absent]
            # A row of an image may state that its other findings are unknown.
            is_open = (cells != "") & (row_findings == "")
            complete = complete.merge(rows[is_open].drop_duplicates(), how="left", indicator="open")
            complete = complete[complete["open"] == "left_only"]
            classes = {_bare_finding(n) for names in findings_by_cell.values() for n in names}
            self._imply(complete, classes - normal_classes())
        return row_findings

    def _add_boxes(
        self, table: LabelTable, rows: pd.DataFrame, builder: SourceBuilder, box_finding: pd.Series
    ) -> None:
        """Add the box of each row, and note boxes on rows that found nothing."""
        edges = _edges(table, builder)
        is_boxed = edges.notna().any(axis=1)
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
        self.boxes.append(rows.assign(finding=box_finding, **edges)[is_boxed])

    def _imply(self, rows: pd.DataFrame, findings: Iterable[str]) -> None:
        names = pd.DataFrame({"finding": sorted(set(findings))}, dtype=TEXT)
        self.implied.append(
            rows[["image_id", "reader"]].drop_duplicates().merge(names, how="cross")
        )


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


def _stacked(parts: Sequence[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """Join the rows of several tables and drop repeats."""
    stacked = pd.concat([pd.DataFrame(columns=columns), *parts])[columns].drop_duplicates()
    types = {c: "float64" if c in EDGES else TEXT for c in columns}
    return stacked.astype(types).reset_index(drop=True)


def _adds_only_boxes(table: LabelTable, tables: Sequence[LabelTable]) -> bool:
    """Return True if a table states nothing but boxes, because another table has the states."""
    if table.known.get("boxes_only"):
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


def _implied_note(absent: pd.DataFrame, tables: Sequence[LabelTable]) -> str:
    """Return a note on images that count as negative although no row says so of the finding.

    Args:
        absent: One row for each such label: columns ``image_id``, ``finding`` and ``reader``.
        tables: The label tables.
    """
    counts = absent.drop_duplicates(["image_id", "finding"])["finding"].value_counts(sort=False)
    counts = counts.sort_index().sort_values(ascending=False, kind="stable")
    most = [*counts.iloc[:_SHOWN].items()]
    parts = [f"{count:,} for {finding}" for finding, count in most[1:]]
    if len(counts) > _SHOWN:
        parts.append(f"others for {counted(len(counts) - _SHOWN, 'more finding')}")
    first = f"{counted(int(most[0][1]), 'image', 'count')} as negative for {most[0][0]}"
    negatives = " and ".join([", ".join([first, *parts[:-1]]), parts[-1]] if parts else [first])
    has_labels = any(table.has("label") for table in tables)
    advice = (
        "add a row with the image and the label 'unknown'"
        if has_labels
        else "empty the cell that says that the image shows nothing"
    )
    return (
        f"{', '.join(table.path.name for table in tables)}: {negatives}, because their rows name "
        f"other findings only, or say that the image shows nothing. If nobody looked for a finding "
        f"on an image, {advice}"
    )


def read_labels_and_boxes(
    builder: SourceBuilder, tables: Sequence[LabelTable]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the labels and boxes of each reader (person) from label tables.

    A finding is absent on an image if the rows of the image name only other findings, or state that
    nothing is found.

    Args:
        builder: Object that collects notes and excluded images. Images with contradictory labels
            are left out.
        tables: Label tables, each with the image of every row and the recognised content of its
            columns.

    Returns:
        Two tables: the labels with columns ``image_id, finding, reader, state`` (present, absent or
        uncertain) and ``origin`` (kind of label), and the boxes with columns ``image_id, finding,
        reader, x1, y1, x2, y2`` in px of the original image.

    Raises:
        InputError: A cell cannot be understood, or no row states a finding.
    """
    stated = _Statements()
    only_finding = _only_finding(tables, builder.options.class_names)
    for table in tables:
        rows = table.images[["image_id"]].assign(reader=REFERENCE_READER)
        if table.has("reader"):
            rows["reader"] = table.cells("reader")
        refuse_line(rows["reader"] == "", table.path, "reader is empty; fill it in")
        stated.add(
            table,
            rows,
            builder,
            only_finding,
            implies_absence=not _adds_only_boxes(table, tables),
        )
    stated_labels = _stacked(stated.labels, [*LABEL_KEY, "state"])
    boxes = _stacked(stated.boxes, [*LABEL_KEY, *EDGES])
    labelled = pd.concat([stated_labels[LABEL_KEY], boxes[LABEL_KEY]]).drop_duplicates()
    implied = _stacked(stated.implied, LABEL_KEY).merge(labelled, how="left", indicator="_in")
    absent = implied.loc[implied["_in"] == "left_only", LABEL_KEY].assign(state="absent")
    if len(absent):
        describe = partial(_implied_note, tables=tables)
        builder.implied = ImpliedNegatives(absent[LABEL_KEY], describe)
    idle = stated.boxed_normal
    if idle:
        builder.notes.append(
            f"WARNING: {counted(len(idle), 'box')} on rows that state that the image shows nothing "
            f"or no such finding were ignored (the first on image {idle[0]}). If a box is right, "
            "correct the label"
        )
    normal = _stacked(stated.normal, ["image_id", "reader"])
    present = pd.concat([stated_labels[stated_labels["state"] == "present"], boxes])[LABEL_KEY]
    present = present[~is_member(present["finding"], column_dictionary()["nothing_on"])]
    contradicted = present.merge(normal)
    builder.exclusions.add(contradicted["image_id"], "'no finding' beside a finding")
    labels = pd.concat([stated_labels, absent], ignore_index=True)
    if labels.empty and boxes.empty:
        reason = "no row states a label"
        if len(normal):
            reason = "every row states that the image shows nothing"
        raise InputError(
            f"{tables[0].path}: {reason}: no finding to learn; add images that show one"
        )
    origin = next((t.known["origin"] for t in tables if "origin" in t.known), "unknown")
    by_reference = labels["reader"] == REFERENCE_READER
    labels["origin"] = by_reference.map({True: origin, False: "reader"}).astype(TEXT)
    return labels, boxes
