"""Labels and boxes that the rows of label tables state, reader by reader."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member, renamed
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.tables import refuse_line, to_numbers
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.formats.class_names import STATE_WORDS, class_finding
from cxr_compare.data_prep.formats.columns import SIDES, column_dictionary
from cxr_compare.data_prep.formats.image_size import image_size
from cxr_compare.data_prep.formats.label_table import LabelTable, absent_finding, normal_classes
from cxr_compare.data_prep.formats.reference import ROW
from cxr_compare.data_prep.formats.source import SourceBuilder

# before the finding in a label column: its state
_UNCERTAIN = "uncertain_"
_ABSENT = "absent_"


def _classes(table: LabelTable, class_names: Sequence[str]) -> dict[str, list[str]]:
    """The findings that each cell of the label column names; | or ; stand between several.

    Before one that is uncertain or absent stands that word.
    """
    where = f"{table.path}: column '{table.columns['label'][0]}'"
    found = {}
    for cell in table.labels:
        if re.fullmatch(r"\d+(\.0)?", cell):
            if int(float(cell)) >= len(class_names):
                raise InputError(
                    f"{where} numbers its classes ({cell}); name them, from 0 on: --class-names "
                    "normal,mass"
                )
            parts = [class_names[int(float(cell))]]
        elif cell.startswith("["):  # a list as Python writes it
            parts = ["".join(pair) for pair in re.findall(r"'([^']*)'|\"([^\"]*)\"", cell)]
        else:
            parts = re.split(r"[|;]", cell)
        named = [part for part in map(str.strip, parts) if part]
        known = [part for part in named if part.lower() not in table.unknown_words]
        found[cell] = [class_finding(part, where) for part in known]
    if table.has("state"):
        return found
    classes = {name.removeprefix(_UNCERTAIN) for names in found.values() for name in names}
    stated = {name: _stated(name, classes, where) for name in classes}
    return {cell: [stated.get(name, name) for name in names] for cell, names in found.items()}


def _stated(name: str, classes: Collection[str], where: str) -> str:
    """A class, or where it says that a finding is absent, that finding behind that word."""
    absent = absent_finding(name, classes)
    if absent:
        return f"{_ABSENT}{absent}"
    if (
        name.partition("_")[0] in column_dictionary()["absent_before"]
        and name not in normal_classes()
    ):
        raise InputError(
            f"{where}: does the class '{name.replace('_', ' ')}' say that something is absent? "
            "Write 'normal' where an image shows nothing, 'unknown' where nobody knows, or give "
            "the class another name"
        )
    return name


def _edges(table: LabelTable, root: Path) -> pd.DataFrame:
    """Corners of the box in each row, px of the image; NaN where there is none."""
    path = table.path
    given = table.box_roles
    values = {role: to_numbers(cells := table.cells(role), path, str(cells.name)) for role in given}
    edges = pd.DataFrame(index=table.text.index)
    for (low, high, side, middle), (first, last) in zip(
        SIDES, (["x1", "x2"], ["y1", "y2"]), strict=True
    ):
        if low in given and (high in given or side in given):
            edges[first] = values[low]
            edges[last] = values[high] if high in given else values[low] + values[side]
        elif middle in given and side in given:
            edges[first], edges[last] = (values[middle] + s * values[side] / 2 for s in (-1, 1))
        else:
            raise InputError(
                f"{path}: a box needs {low} and {high} or {side}, or {middle} and {side}; it has "
                f"{', '.join(sorted(given)) or 'none'}: name the others with --columns"
            )
    edges = edges[EDGES]
    if not max(column.max() for column in values.values()) <= 1:  # not shares of the size
        return edges
    x, y = ((*table.columns.get(role, ()), "")[0] for role in ("xmin", "ymin"))
    if "xmax" not in given and x.lower().endswith("x") and "xmin" not in table.asked:
        raise InputError(
            f"{path}: boxes are in shares of the image: are {x}, {y} the corner or the centre? Say "
            f"--columns xmin={x},ymin={y} or --columns xcenter={x},ycenter={y}"
        )
    paths = table.images["path"]
    sizes = {name: image_size(root / name) for name in paths[edges.notna().any(axis=1)].unique()}
    return edges * np.array([sizes.get(name, (np.nan, np.nan)) * 2 for name in paths])


def _bare_finding(name: str) -> str:
    return name.removeprefix(_UNCERTAIN).removeprefix(_ABSENT)


def _all_absent(names: Sequence[str]) -> bool:
    """Whether a label says of findings that they are absent, and names none."""
    return bool(names) and all(name.startswith(_ABSENT) for name in names)


class _Statements:
    """What tables say of images, reader by reader."""

    def __init__(self) -> None:
        self.said: list[pd.DataFrame] = []  # image, finding, reader and state
        self.silent: list[pd.DataFrame] = []  # image, finding and reader: absent if nothing is said
        self.boxes: list[pd.DataFrame] = []
        self.normal: list[pd.DataFrame] = []  # image and reader who says that nothing is there
        self.boxed_normal: list[str] = []  # images that such a row boxes, as some converters do

    def add(
        self, table: LabelTable, rows: pd.DataFrame, root: Path, class_names: Sequence[str]
    ) -> None:
        """Add what a table says; `rows` has the ``image_id`` and ``reader`` of its rows."""
        none = normal_classes()
        wide = table.columns.get("finding", [])
        only = class_names[0] if len(class_names) == 1 else ""
        of_box = pd.Series(table.finding(wide[0]) if len(wide) == 1 else only, index=rows.index)
        if table.has("label"):
            cells = table.cells("label")
            found = _classes(table, class_names)
            named = rows.assign(finding=cells.map(found), cell=cells, state="present")
            of_box = named["finding"].map(" ".join)
            if table.has("state"):
                named["state"] = _states(table, table.columns["state"][0])
                unnamed = (of_box == "") & (named["state"] != "")
                refuse_line(unnamed, table.path, "a state, but the finding is empty; fill it in")
            each = named.explode("finding").dropna(subset="finding")
            only_absent = named["finding"].map(_all_absent)
            for prefix, state in ((_UNCERTAIN, "uncertain"), (_ABSENT, "absent")):
                is_so = each["finding"].str.startswith(prefix)
                each["state"] = each["state"].mask(is_so, state)
                each["finding"] = each["finding"].str.removeprefix(prefix)
                of_box = of_box.str.removeprefix(prefix)
            normal = is_member(each["finding"], none)
            self.said.append(each[~normal & (each["state"] != "")])
            self.normal.append(each[normal])
            if not table.has("state") and not table.known.get("boxes_only"):
                empty = (cells == "") & bool(table.box_roles)
                speaks = rows[(empty | (of_box != "")) & ~only_absent]
                # Beside what is known of an image, a row may say that the rest is not.
                is_open = (cells != "") & (of_box == "")
                speaks = speaks.merge(rows[is_open].drop_duplicates(), how="left", indicator="open")
                speaks = speaks[speaks["open"] == "left_only"]
                classes = {_bare_finding(n) for names in found.values() for n in names}
                self._imply(speaks, classes - none)
        for column in wide:
            states = _states(table, column)
            said = rows.assign(finding=table.finding(column), state=states)
            self.said.append(said[states != ""])
        for column in table.columns.get("no_finding", ()):
            normal_rows = rows[_states(table, column) == "present"]
            self.normal.append(normal_rows)
            unsaid = column_dictionary()["nothing_on"]
            self._imply(normal_rows, {table.finding(c) for c in wide} - set(unsaid))
        if table.box_roles:
            edges = _edges(table, root)
            boxed = edges.notna().any(axis=1)
            is_normal = is_member(of_box, none)
            self.boxed_normal += rows.loc[boxed & is_normal, "image_id"].tolist()
            boxed &= ~is_normal
            reason = (
                "a box, but not one finding that it is of; say --columns label=COLUMN, or "
                "--class-names mass"
            )
            refuse_line(boxed & ((of_box == "") | of_box.str.contains(" ")), table.path, reason)
            self.boxes.append(rows.assign(finding=of_box, **edges)[boxed])

    def _imply(self, rows: pd.DataFrame, findings: Iterable[str]) -> None:
        names = pd.DataFrame({"finding": sorted(set(findings))}, dtype=TEXT)
        self.silent.append(rows[["image_id", "reader"]].drop_duplicates().merge(names, how="cross"))


def _states(table: LabelTable, column: str) -> pd.Series:
    states = renamed(table.text[column].str.lower(), {**STATE_WORDS, "": ""})
    reason = (
        f"column '{column}' holds no state; expected 1, 0, -1, present, absent, uncertain or "
        f"nothing. Say --columns unused={column} if it is no finding"
    )
    refuse_line(states.isna(), table.path, reason)
    return states


def _stacked(parts: Sequence[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """Rows of several tables, each once."""
    stacked = pd.concat([pd.DataFrame(columns=columns), *parts])[columns].drop_duplicates()
    types = {c: "float64" if c in EDGES else TEXT for c in columns}
    return stacked.astype(types).reset_index(drop=True)


def read_statements(
    builder: SourceBuilder, tables: Sequence[LabelTable]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Labels and boxes that placed tables state, reader by reader, silence included."""
    stated = _Statements()
    for table in tables:
        rows = table.images[["image_id"]].assign(reader=REFERENCE_READER)
        if table.has("reader"):
            rows["reader"] = table.cells("reader")
        refuse_line(rows["reader"] == "", table.path, "reader is empty; fill it in")
        stated.add(table, rows, builder.root, builder.options.class_names)
    said = _stacked(stated.said, [*ROW, "state"])
    boxes = _stacked(stated.boxes, [*ROW, *EDGES])
    known = pd.concat([said[ROW], boxes[ROW]]).drop_duplicates()
    silent = _stacked(stated.silent, ROW).merge(known, how="left", indicator="known")
    absent = silent.loc[silent["known"] == "left_only", ROW].assign(state="absent")
    if len(absent):
        builder.notes.append(
            f"{counted(len(absent), 'finding', 'are')} absent because the rows of an image do not "
            "name them, or say that nothing is there"
        )
    if idle := stated.boxed_normal:
        builder.notes.append(
            f"WARNING: {counted(len(idle), 'box')} on rows that say that nothing is there, the "
            f"first of {idle[0]}: passed over; where a box is right, correct the label"
        )
    normal = _stacked(stated.normal, ["image_id", "reader"])
    ill = pd.concat([said[said["state"] == "present"], boxes])[ROW]
    ill = ill[~is_member(ill["finding"], column_dictionary()["nothing_on"])].merge(normal)
    builder.out.add(ill["image_id"], "'no finding' beside a finding")
    labels = pd.concat([said, absent], ignore_index=True)
    if labels.empty and boxes.empty:
        what = "every row says that nothing is there" if len(normal) else "no row says anything"
        raise InputError(f"{tables[0].path}: {what}: no finding to learn; add images that show one")
    origin = next((t.known["origin"] for t in tables if "origin" in t.known), "consensus")
    by_reference = labels["reader"] == REFERENCE_READER
    labels["origin"] = by_reference.map({True: origin, False: "reader"}).astype(TEXT)
    return labels, boxes
