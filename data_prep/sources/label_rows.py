"""Statements of label tables: which reader says that a finding is present, absent or uncertain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.box_classes import class_column, other_class
from cxr_compare.data_prep.contracts.box_readings import BoxForm, BoxReading, BoxUnit
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import are_rows_of, is_member
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.table_files import is_table_file, refuse_line, to_numbers
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.descriptions import PublicSet
from cxr_compare.data_prep.sources.label_names import Label, is_number
from cxr_compare.data_prep.sources.label_table import LabelTable
from cxr_compare.data_prep.sources.label_values import (
    class_finding,
    dictionary,
    normal_classes,
    plain_cells,
    states_of_cells,
)
from cxr_compare.data_prep.sources.statements import (
    BOX,
    STATEMENT,
    Source,
    joined_statements,
    note_unlabelled,
)

_MOST_SHARE = 1.1
_KEY = ["image_id", "finding", "reader"]
_BOX_FORMS: dict[BoxForm, tuple[str, ...]] = {
    "xyxy": ("xmin", "ymin", "xmax", "ymax"),
    "xywh": ("xmin", "ymin", "width", "height"),
    "cxcywh": ("xcenter", "ycenter", "width", "height"),
}


def table_statements(
    source: Source,
    tables: Sequence[LabelTable],
    published: PublicSet | None = None,
    *,
    add_to_marks: bool = False,
) -> None:
    """Add what each reader (person) states in label tables to the statements of a source.

    A finding is absent on an image if the rows of the image name only other findings, or state that
    nothing is found. Images with a finding beside "no finding" are left out. Each table has the
    image of every row. Tables of which no row states a finding are refused.

    `published` is the public set whose tables they are: it says which findings are ruled out though
    no row names them, and the user need not be told what its labels imply. With `add_to_marks`, the
    source has the statements of label files, which may be all.
    """
    statements = source.statements
    if not add_to_marks:
        statements.reading = BoxReading(where=str(tables[0].path))
    reading = statements.reading if statements.frame()["boxed"].any() else None
    parts: list[pd.DataFrame] = []
    for table in (table for table in tables if len(table.images)):
        rows = _reader_rows(table)
        parts += _finding_columns(table, rows)
        found = pd.DataFrame(index=rows.index, columns=["finding", "state"], dtype=TEXT)
        found[:] = [_only_finding(table, tables, source.options.class_names), "present"]
        if table.has("label"):
            labels = _labels_of_cells(table, source.options.class_names, published)
            if not table.rules.boxes_only:
                parts += _label_column(table, rows, labels, tables, published)
            single = {cell: of[0] if len(of) == 1 else Label("") for cell, of in labels.items()}
            found[:] = [single[cell] for cell in table.cells("label")]
        if table.box_roles:
            numbers, own = _box_numbers(table)
            is_boxed = numbers.notna().any(axis=1)
            if is_boxed.any() and reading and (own.form, own.unit) != (reading.form, reading.unit):
                raise InputError(
                    f"{table.path}: boxes are {own.text}, those of {reading.where} {reading.text}; "
                    "write both in one form"
                )
            reading = own if is_boxed.any() else reading
            parts.append(_boxed_rows(table, rows.join(found), numbers[is_boxed], is_boxed))
    statements.reading = reading or statements.reading
    rows, normal = _consistent(source, parts, published)
    if not add_to_marks and rows.empty:
        reason = "every row states that the image shows nothing" if len(normal) else ""
        raise InputError(
            f"{tables[0].path}: {reason or 'no row states a label'}: no finding to learn; add "
            "images that show one"
        )
    if add_to_marks:
        drawn = statements.frame()
        rows = _without_marked(rows, normal, drawn)
        findings = drawn[["finding"]].drop_duplicates()
        denied = normal.assign(state="absent", origin="unknown", implied=True)
        statements.add_table(denied.merge(findings, how="cross"))
    statements.add_table(rows)
    statements.normal.update(normal.itertuples(index=False, name=None))
    source.implied_note = _implied_note(tables)
    note_unlabelled(source, unused=False)


def _consistent(
    source: Source, parts: Sequence[pd.DataFrame], published: PublicSet | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Join the rows of tables: what a row states is not implied, and no box is of "no finding".

    The second table has image and reader of the rows that state that nothing is found.
    """
    rows = joined_statements(parts)
    rows = rows[rows["state"] != ""]
    implied = rows[rows["implied"]].drop_duplicates(_KEY)
    rows = rows[~rows["implied"]].drop_duplicates()
    is_normal = is_member(rows["finding"], normal_classes())
    says_normal = is_normal & ~rows["boxed"] & (rows["state"] == "present")
    normal = rows.loc[says_normal, ["image_id", "reader"]].drop_duplicates()
    idle = rows.loc[rows["boxed"] & (is_normal | (rows["state"] == "absent")), "image_id"]
    if len(idle):
        source.notes.append(
            f"WARNING: {counted(len(idle), 'box')} on rows that state that the image shows nothing "
            f"or no such finding were ignored, the first on image {idle.iloc[0]}. If a box is "
            "right, correct the label"
        )
    rows = rows[~is_normal & ~(rows["boxed"] & (rows["state"] == "absent"))]
    is_closed = published is not None and published.closed  # then a box alone says nothing
    stated = rows.loc[~(rows["boxed"] & is_closed), _KEY].drop_duplicates()
    implied = implied.merge(stated, how="left", on=_KEY, indicator="named")
    implied = implied[implied["named"] == "left_only"]
    implied = implied.assign(implied=published is None)
    return pd.concat([rows, implied[STATEMENT]], ignore_index=True), normal


def _without_marked(rows: pd.DataFrame, normal: pd.DataFrame, marked: pd.DataFrame) -> pd.DataFrame:
    """Drop absences that no row states, of findings that a label file states to be present.

    Absences of images that a row calls normal stay: a mark contradicts them.
    """
    present = marked.loc[marked["state"] == "present", ["image_id", "finding"]]
    is_marked = are_rows_of(rows[["image_id", "finding"]], present)
    is_normal = is_member(rows["image_id"], normal["image_id"])
    return rows[~(rows["implied"] & is_marked & ~is_normal)]


def _reader_rows(table: LabelTable) -> pd.DataFrame:
    """Return image, reader and origin of each row."""
    origin = table.rules.origin
    rows = table.images[["image_id"]].assign(reader=REFERENCE_READER, origin=origin)
    if table.has("reader"):
        rows["reader"] = table.cells("reader")
        rows["origin"] = np.where(rows["reader"] == REFERENCE_READER, origin, "reader")
    refuse_line(rows["reader"] == "", table.path, "reader is empty; fill it in")
    return rows


def _implied(rows: pd.DataFrame, findings: Iterable[str]) -> pd.DataFrame:
    """Return that findings are absent on the images of rows, unless another row names them."""
    names = pd.DataFrame({"finding": sorted(findings)}, dtype=TEXT)
    once = rows.drop_duplicates(["image_id", "reader"])
    return once.assign(state="absent", implied=True).merge(names, how="cross")


def _finding_columns(table: LabelTable, rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the states in the columns of findings."""
    _refuse_minus_one_for_absent(table)
    columns = table.columns.get("finding", [])
    parts = [rows.assign(finding=table.finding(c), state=_states(table, c)) for c in columns]
    ruled_out = {table.finding(name) for name in columns} - set(dictionary()["nothing_on"])
    for column in table.columns.get("no_finding", ()):
        normal = rows[_states(table, column) == "present"]
        parts += [normal.assign(finding="normal", state="present"), _implied(normal, ruled_out)]
    return parts


def _label_column(
    table: LabelTable,
    rows: pd.DataFrame,
    labels: dict[str, list[Label]],
    tables: Sequence[LabelTable],
    published: PublicSet | None,
) -> list[pd.DataFrame]:
    """Return the labels of the label column, whose meaning is known by cell."""
    cells = table.cells("label")
    is_unnamed = cells.map({cell: not of for cell, of in labels.items()}).astype(bool)
    named = rows.assign(label=cells.map(labels))
    if table.has("state"):
        named["state"] = _states(table, table.columns["state"][0])
        reason = "a state, but the finding is empty; fill it in"
        refuse_line(is_unnamed & (named["state"] != ""), table.path, reason)
    named = named.explode("label").dropna(subset="label")
    named["finding"] = [label.finding for label in named["label"]]
    if table.has("state"):
        return [named]
    named["state"] = [label.state for label in named["label"]]
    if _adds_only_boxes(table, tables):
        return [named]
    completes = {cell: _names_all(table, cell, of) for cell, of in labels.items()}
    complete = rows[cells.map(completes).to_numpy(dtype=bool)]
    # A row of an image may state that its other findings are unknown.
    open_rows = rows.loc[(cells != "") & is_unnamed, ["image_id", "reader"]].drop_duplicates()
    complete = complete.merge(open_rows, how="left", indicator="open")
    classes = {label.finding for of in labels.values() for label in of}
    classes |= set(published.findings if published else ())
    return [named, _implied(complete[complete["open"] == "left_only"], classes - normal_classes())]


def _names_all(table: LabelTable, cell: str, labels: Sequence[Label]) -> bool:
    """Return True if findings that a cell does not name are absent."""
    if not table.rules.closed:
        return any(label.finding in normal_classes() for label in labels)
    if not labels:
        return cell == "" and bool(table.box_roles)
    return any(label.state != "absent" for label in labels)


def _boxed_rows(
    table: LabelTable, rows: pd.DataFrame, numbers: pd.DataFrame, is_boxed: pd.Series
) -> pd.DataFrame:
    """Return the rows with a box, of the one finding that each row names."""
    if len(numbers) and not table.rules.name and not table.has("label"):
        _refuse_other_class(table, is_boxed, rows["finding"])
    reason = (
        "a box, but not one finding that it is of; say --columns label=COLUMN, or --class-names "
        "mass"
    )
    refuse_line(is_boxed & (rows["finding"] == ""), table.path, reason)
    return rows[is_boxed].assign(boxed=True, **numbers)


def _labels_of_cells(
    table: LabelTable, class_names: Sequence[str], published: PublicSet | None
) -> dict[str, list[Label]]:
    """Return findings and states that each cell of the label column lists, none if unknown."""
    if not class_names and not table.has("state"):
        _refuse_cells_beside_states(table)
    findings = published.findings if published else []
    cells = table.cells("label")
    listed = {cell: table.listed_labels(cell, class_names) for cell in cells.unique()}
    numbers = [cell for cell, of in listed.items() if of == [cell] and cell.isdecimal()]
    texts = chain.from_iterable(of for cell, of in listed.items() if cell not in numbers)
    labels = table.name(dict.fromkeys(texts), findings)
    if numbers:
        raise InputError(
            f"{table.path}: column '{cells.name}' numbers its classes ({numbers[0]}); name them, "
            "from 0 on: --class-names normal,mass"
        )
    of_cell = {cell: [labels[t] for t in texts if t in labels] for cell, texts in listed.items()}
    if published and published.closed:
        allowed = {*findings, *normal_classes()}
        for cell, of in of_cell.items():
            is_other = (cells == cell) & any(label.finding not in allowed for label in of)
            refuse_line(is_other, table.path, f" is none of the {len(findings)} findings", cells)
    return of_cell


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
        f"column '{column}' holds no state; write 1 or yes, 0 or no, -1 or uncertain, or "
        f"nothing. Say --columns 'unused={column}' if it is no finding"
    )
    refuse_line(states.isna(), table.path, reason)  # not quoted: it may be a name
    return states


def _box_numbers(table: LabelTable) -> tuple[pd.DataFrame, BoxReading]:
    """Return four numbers of each row's box, NaN without one, and how they are read."""
    roles = table.box_roles
    form = next((form for form, needed in _BOX_FORMS.items() if roles >= set(needed)), None)
    if form is None:
        has = ", ".join(sorted(roles)) or "none"
        raise InputError(
            f"{table.path}: a box needs xmin and xmax or width, ymin and ymax or height, or "
            f"xcenter, ycenter, width and height; it has {has}: name the others with --columns"
        )
    numbers = pd.DataFrame(index=table.text.index)
    for edge, role in zip(BOX, _BOX_FORMS[form], strict=True):
        cells = table.cells(role)
        numbers[edge] = to_numbers(cells, table.path, str(cells.name))
    # Shares of the size may pass the border a little; no box in px is this small.
    unit: BoxUnit = "share" if numbers.max().max() <= _MOST_SHARE else "px"
    x, y = (str(table.cells(role).name) for role in _BOX_FORMS[form][:2])
    is_guess = form == "xywh" and x.lower().endswith("x") and "xmin" not in table.assigned_roles
    if unit == "share" and is_guess:
        raise InputError(
            f"{table.path}: boxes are in shares of the image: are {x}, {y} the corner or the "
            f"centre? Say --columns xmin={x},ymin={y} or --columns xcenter={x},ycenter={y}"
        )
    return numbers, BoxReading(
        form=form,
        unit=unit,
        where=str(table.path),
        stated=True,
        affirmed=set(_BOX_FORMS[form][2:]) <= table.assigned_roles,
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


def _adds_only_boxes(table: LabelTable, tables: Sequence[LabelTable]) -> bool:
    """Return True if a table states nothing but boxes, because another table has the states."""
    if not any(other.has("state") for other in tables) or not is_table_file(table.path):
        return False
    sides = [table.cells(role) for role in table.box_roles]
    return bool(sides) and all((cells != "").all() for cells in sides)


def _only_finding(
    table: LabelTable, tables: Sequence[LabelTable], class_names: Sequence[str]
) -> str:
    """Return the one finding that a table, or all together, are about; empty if there are more."""
    if class_names and not table.has("finding"):
        return class_finding(class_names[0], "--class-names") if len(class_names) == 1 else ""
    for group in ([table], tables):
        names = {t.finding(column) for t in group for column in t.columns.get("finding", ())}
        if len(names) == 1 and not any(t.has("label") for t in group):
            return names.pop()
    return ""


def _implied_note(tables: Sequence[LabelTable]) -> str:
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
