"""Truth of labels that `cxr prepare` reads: YOLO folders, and tables of boxes or finding names."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.names import (
    LABELS,
    Target,
    column_names,
    find_column,
    image_names,
    names_finding,
)
from cxr_compare.data_prep.dataset import boxed_images, image_labels, of_reference
from cxr_compare.data_prep.sources.image_files import ids_of_paths, one_walk
from cxr_compare.data_prep.sources.own_table import read_own_tables
from cxr_compare.data_prep.sources.source import ReadOptions, SourceTables
from cxr_compare.data_prep.sources.statements import Source
from cxr_compare.data_prep.sources.table_columns import recognise_tables
from cxr_compare.data_prep.sources.words import holds_states, label_of_pair
from cxr_compare.data_prep.sources.yolo import YOLO, line_of_other_kind
from cxr_compare.evaluation.inputs.frames import form_of, is_unnamed
from cxr_compare.evaluation.inputs.image_sizes import ImageFiles
from cxr_compare.evaluation.inputs.read_truth import labels_of, read_truth, truth_table
from cxr_compare.evaluation.inputs.rows import COLUMNS, texts_of
from cxr_compare.evaluation.notes import reading_notes
from cxr_compare.evaluation.truth import Truth

_FACTS = ("image_id", "study_id", "view", "sex", "age_years", "width", "height")
_ROLES = {name: role for role, name in COLUMNS.roles.items()}
"""Roles of columns that `cxr prepare` calls otherwise."""


_NAMES = tuple(name for name in column_names("label") if name not in LABELS)


@one_walk()
def read_folder(folder: Path) -> SourceTables:
    """Read a folder of YOLO's images and labels; InputError for another, or for wrong labels."""
    if (folder / "dataset.json").is_file():
        raise InputError(f"truth: {folder} is a data set of cxr prepare; give it as data")
    if not YOLO.detect(folder):
        raise InputError(_unread(folder))
    shown: list[str] = []
    read = _checked(YOLO.read(folder, ReadOptions(), shown.append), folder)
    return replace(read, notes=[*shown, *read.notes])


def read_table(
    table: Path | pd.DataFrame, boxes: Any, columns: Mapping[str, str]
) -> tuple[SourceTables, pd.Series | None]:
    """Read a table of boxes or of names of findings, and return the order of a frame's images.

    `boxes` is a second table, of true boxes; `columns` has names of columns by role.
    """
    if boxes is not None and not isinstance(boxes, str | os.PathLike | pd.DataFrame):
        raise InputError("boxes: beside names of findings they are a table or a file; give one")
    frame = table
    if isinstance(table, pd.DataFrame):
        table = _with_ids(table, columns)
    header = [*(table if isinstance(table, pd.DataFrame) else truth_table(table)).columns]
    seen = find_column(header, ("seen",))
    columns = {"seen": seen, **columns} if seen else columns
    texts = tuple(f"{_ROLES.get(role, role)}={name}" for role, name in columns.items())
    with tempfile.TemporaryDirectory(prefix="cxr-") as folder:
        labels = _as_file(table, Path(folder, "truth"))
        tables = [labels, *(() if boxes is None else [_as_file(boxes, Path(folder, "boxes"))])]
        try:
            options = ReadOptions(labels=tuple(tables), columns=texts)
            shown: list[str] = []
            source = Source("table", labels, options, shown.append, columns_option=COLUMNS)
            read = _checked(read_own_tables(source, recognise_tables(source)), labels)
        except InputError as error:  # a frame has no path
            raise InputError(str(error).replace(f"{folder}/", "")) from None
    read = replace(read, notes=[*shown, *read.notes])
    if not isinstance(table, pd.DataFrame) or not isinstance(frame, pd.DataFrame):
        return read, None
    ids = _ids_in_order(table, read, columns)
    order = None if ids is None else pd.Series(ids.to_numpy(), frame.index)
    return replace(read, root=Path("the truth")), order


def _as_file(table: Any, path: Path) -> Path:
    """Return the path of a table, to which a frame is written."""
    if not isinstance(table, pd.DataFrame):
        return Path(table)
    table.to_csv(path, index=False)
    return path


def _with_ids(frame: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """Return a frame with texts as names of columns, and with the images of its index as one."""
    frame = frame.set_axis([*map(str, frame.columns)], axis=1)
    if _image_column(frame, columns) is None and not is_unnamed(frame.index):
        return frame.rename_axis("image_id").reset_index()
    return frame


def _image_column(frame: pd.DataFrame, columns: Mapping[str, str]) -> str | None:
    header = [*frame.columns]
    return columns.get("image") or find_column(header, image_names(header))


def _ids_in_order(
    frame: pd.DataFrame, read: SourceTables, columns: Mapping[str, str]
) -> pd.Series | None:
    """Return the images in the order of a frame with a row for each; None for other frames."""
    image = _image_column(frame, columns)
    if image is None:
        return None
    ids = ids_of_paths(frame[image].astype(str))
    return ids if ids.is_unique and set(ids) == set(read.images["image_id"]) else None


def names_of_findings(frame: pd.DataFrame, label: str | None) -> str | None:
    """Return the column with names of findings of a table without a column of labels; else None.

    A column with a name for labels has names of findings if the rows are boxes and one of its cells
    is a name. `label` is the column of labels that the user names.
    """
    header = [*map(str, frame.columns)]
    if len(set(header)) < len(header):
        return None
    plain = frame.set_axis(header, axis=1)
    named = find_column(header, _NAMES) or label_of_pair(plain, _image_column(plain, {}))
    of_boxes = find_column(header, LABELS) if form_of(header)[0] else None
    if named is None and of_boxes and any(map(names_finding, texts_of(plain[of_boxes].dropna()))):
        named = of_boxes
    if named is None or label not in (None, named):
        return None
    labels = find_column(header, LABELS)
    if label is None and labels and holds_states(plain[labels].dropna().astype(str)):
        return None
    try:
        labels_of(plain[named], plain[named])
    except InputError:
        return named
    return None


def _checked(tables: SourceTables, where: Path) -> SourceTables:
    for image, reason in tables.excluded[["path", "reason"]].itertuples(index=False):
        raise InputError(f"{where}: {image}: {reason}; correct it")
    for question in tables.questions.values():  # a comparison has no targets of several findings
        raise InputError(question)
    return tables


def truth_of_source(
    tables: SourceTables,
    target: Target,
    *,
    files: ImageFiles | None = None,
    order: pd.Series | None = None,
    **options: Any,
) -> Truth:
    """Return the truth of one target; the options are those of `read_truth`.

    An image without a label is unknown. Images have the roles of the published split; without one
    all are test images. `order` has the images in the order of a frame.
    """
    images = tables.images
    if order is not None:  # patients may be given in this order, too
        images = images.set_index("image_id").loc[order].reset_index().set_axis(order.index)
    table = images[[name for name in _FACTS if name in images]].copy()
    findings = of_reference(tables.findings)
    labels = image_labels(images["image_id"], findings, target.any_of)
    table[target.name] = labels.to_numpy()
    if "x_seen" in images:
        table["seen"] = images["x_seen"].to_numpy()
    known = images["patient_id_source"] != "assumed_image"
    stated = [  # a data set names its source before the patient
        patient.removeprefix(f"{source}:")
        for patient, source in zip(images["patient_id"], images["source"], strict=True)
    ]
    table["patient_id"] = pd.Series(stated, images.index, dtype="string").where(known)
    table["role"] = _roles(tables, table["image_id"])
    boxes = of_reference(tables.boxes)
    boxes = boxes.loc[boxes["finding"].isin(target.any_of), ["image_id", *EDGES]]
    boxes = boxes.reset_index(drop=True)
    truth = read_truth(
        table,
        boxes=boxes if len(boxes) else None,
        label=target.name,
        columns={"box_form": "xyxy", "box_unit": "px"},
        where=str(tables.root) if order is None else "truth",
        files=files or _files(tables),
        **options,
    )
    notes = [*tables.notes, *tables.label_notes("majority")]
    notes += tables.name_notes("give both one name")
    boxed = truth.boxed
    if len(boxes):
        coverage = of_reference(tables.box_coverage)
        boxed = boxed_images(truth.images["label"], findings, coverage, target.any_of)
    return replace(truth, notes=(*truth.notes, *reading_notes(notes)), boxed=boxed)


def _roles(tables: SourceTables, ids: pd.Series) -> list[str]:
    """Return the role of each image; InputError for a published split without test images."""
    published = tables.split if tables.official.empty else tables.official
    if not tables.official.empty and not (published["role"] == "test").any():
        parts = ", ".join(sorted(set(published["role"])))
        raise InputError(
            f"{tables.root}: its split has no test images ({parts}); give the tested images and "
            "their labels alone"
        )
    role = dict(zip(published["image_id"], published["role"], strict=True))
    return [role.get(image_id, "test") for image_id in ids]


def _files(tables: SourceTables) -> ImageFiles | None:
    """Return the image files of a folder; None for a table."""
    if not tables.root.is_dir():
        return None
    named = zip(tables.images["image_id"], tables.images["path"], strict=True)
    paths = {image: tables.root / path for image, path in named}
    return ImageFiles(paths.get, str(tables.root))


def _unread(folder: Path) -> str:
    """Return what a folder holds that is no truth, and what to do."""
    if other := line_of_other_kind(folder):
        return f"{folder}: {other}"
    return (
        f"{folder}: holds no labels of YOLO; cxr prepare reads other folders, and its data set is "
        "given as data"
    )
