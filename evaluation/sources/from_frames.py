"""Ground truth and systems in memory, from arrays and frames, as a notebook has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.box_classes import class_column, names_finding, other_class
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.column_names import (
    column_names,
    find_column,
    find_patient_columns,
    image_names,
)
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.finding_names import display_name, is_named
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.schemas import ROLE_NAMES, SYNTHETIC_PATIENT
from cxr_compare.data_prep.contracts.table_files import read_text_table
from cxr_compare.data_prep.contracts.tables import typed_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.label_values import dictionary, plain_cells, states_of_cells
from cxr_compare.data_prep.sources.patients import named_patients, with_named_patients
from cxr_compare.evaluation.boxes.box_checks import near_ids, refuse_box_texts
from cxr_compare.evaluation.boxes.boxes_table import boxes_table
from cxr_compare.evaluation.boxes.read_boxes import is_coco, is_detector_output, read_boxes
from cxr_compare.evaluation.boxes.read_table import ColumnNames, ReadTable, as_numbers
from cxr_compare.evaluation.boxes.reading_advice import ReadingAdvice
from cxr_compare.evaluation.boxes.table_columns import box_columns
from cxr_compare.evaluation.labelled_images import LabelledImages, no_boxes
from cxr_compare.evaluation.metrics.missing_sentences import uncertain_as
from cxr_compare.evaluation.metrics.notes import WARNING
from cxr_compare.evaluation.output import System
from cxr_compare.evaluation.sources.import_options import ImportOptions
from cxr_compare.evaluation.sources.imported import read_rows, system_of
from cxr_compare.evaluation.sources.known_images import KnownImages, by_last_parts
from cxr_compare.evaluation.sources.shortcuts import shortcut_facts
from cxr_compare.evaluation.sources.wide_tables import FINDING, LABEL_NAMES, finding_name
from cxr_compare.evaluation.statistics.arrays import as_array

_NAME_IMAGES = "give truth=pd.Series(labels, index=image_ids)"
_ROLE_COLUMNS = ("role", "split", "subset", "partition")
# Names of columns that have one value for an image, however many boxes it has.
_OF_IMAGES = (
    LABEL_NAMES,
    ("patient_id", *column_names("patient")),
    ("study_id", *column_names("study")),
    _ROLE_COLUMNS,
)
_LOST_DIGITS = r"^0+(?=\d)|\.0$"  # of ids that were read as numbers: 7 for 0007, 7.0 for 7
_STATE_OF_NUMBER = {1.0: "present", 0.0: "absent", -1.0: "uncertain"}
_IMAGE_COLUMNS = ("view", "sex", "age_years", "source", "width", "height")


def truth_from_values(
    truth: Any,
    *,
    boxes: Any = None,
    patients: Any = None,
    label: str | None = None,
    uncertain: Literal["positive", "negative"] | None = None,
) -> tuple[LabelledImages, pd.Series]:
    """Make the ground truth of images from labels in a Python array, list, Series or frame.

    The labels, shape ``(N,)``, are 1 or True (finding present), 0 or False (absent), -1 beside 1
    and 0 (uncertain), NaN or None (unknown), or words for them that label files may have, such as
    "yes", "uncertain" and "unknown". A DataFrame has them in the column `label` (None for the usual
    names), which also names the finding, and where known ``image_id``, ``patient_id``,
    ``study_id``, ``role`` (``val`` or ``test``) and further columns by which results can be
    grouped, such as ``sex``. It may have one row for each box with the columns of its edges, as
    RSNA's label file has (``patientId, x, y, width, height, Target``); its images are then those of
    the first row of each.

    `boxes` are the true lesions: a DataFrame ``image_id, x1, y1, x2, y2`` in px of the original
    image, or a CSV file. The boxes of a positive image without a row are unknown. `patients` is an
    array in the order of `truth`, a Series with its index or indexed by image id, a DataFrame
    ``image_id, patient_id``, or a CSV file; without it and without a column of patients, every
    image counts as a separate patient. `uncertain` is the label that test images of uncertain label
    get; None leaves them out.

    The ids of the images are returned too, in the order and with the index of `truth`. Images
    without ids are called ``image-1`` and so on. Without roles, all images are test images. An
    InputError is raised if a label is none of these, an image id repeats, a box is impossible or on
    a negative image, or lengths differ.

    Example:
        >>> truth, ids = truth_from_values([1, 0, None], patients=["p1", "p2", "p2"])
        >>> truth.images["patient_id"].nunique(), truth.label.tolist(), len(ids)
        (2, [1.0, 0.0, nan], 3)
    """
    if isinstance(truth, pd.DataFrame):
        truth, own_boxes = _without_boxes(truth)
        boxes = own_boxes if boxes is None else boxes
        if boxes is None:
            refuse_box_texts(truth, "truth")
    frame = _truth_frame(truth, label)
    ids = pd.Index(frame["image_id"])
    # An array has no index: its images are found by their ids, or by position.
    index = truth.index if isinstance(truth, pd.DataFrame | pd.Series) else ids
    rows = pd.Series(ids.to_numpy(), index=index)
    if patients is not None:
        frame["patient_id"] = _patients_by_image(patients, rows)
    images = _images_table(frame)
    labels = frame.set_index("image_id")["label"].sort_index()
    if "role" not in frame:
        frame["role"] = "test"
    roles = frame.set_index("image_id")["role"].sort_index()
    true_boxes, boxed = _true_boxes(boxes, frame)  # may name the finding
    notes = [*frame.attrs.get("label_notes", ()), *frame.attrs.get("notes", ())]
    doubtful = pd.Index(frame.attrs.get("uncertain", []), dtype=object)
    if uncertain is not None:
        counted_so = is_member(labels.index, doubtful) & (roles == "test").to_numpy()
        labels = labels.mask(counted_so, float(uncertain == "positive"))
        notes.append(uncertain_as(uncertain, int(counted_so.sum())))
        positive = labels.index[(labels == 1).to_numpy()]
        true_boxes = true_boxes[is_member(true_boxes["image_id"], positive)]
    is_trusted = (labels == 0) | ((labels == 1) & is_member(labels.index, boxed))
    trusted = labels.index[is_trusted.to_numpy(dtype=bool)]
    finding = str(frame.attrs.get("finding") or FINDING)
    tested = images[is_member(images["image_id"], roles.index[(roles == "test").to_numpy()])]
    is_synthetic = images["patient_id"].str.contains(SYNTHETIC_PATIENT).to_numpy(dtype=bool)
    truth = LabelledImages(
        images=images,
        labels=labels.rename_axis("image_id").to_frame(finding),
        roles=roles.rename_axis("image_id"),
        display_name=display_name(finding),
        findings=(finding,),
        true_boxes=true_boxes[is_member(true_boxes["image_id"], trusted)].reset_index(drop=True),
        boxes_trusted=pd.Index(trusted, name="image_id"),
        uncertain=doubtful,
        notes=tuple(notes),
        facts=shortcut_facts(tested, pd.DataFrame({"image_id": []})),
        synthetic=pd.Index(images.loc[is_synthetic, "image_id"]),
    )
    return truth, rows


def predictions_from_values(
    name: str,
    value: Any,
    known: KnownImages,
    image_ids: pd.Series | None = None,
    split: str = "default",
    columns: ColumnNames | None = None,
    scale: float | None = None,
) -> System:
    """Read the image scores or the boxes of a detector or classifier that Python has in memory.

    Scores in [0, 1] are an array, list or tensor, shape ``(N,)``, in the order of `image_ids`; a
    Series with the index of `image_ids` or indexed by image id; or a DataFrame ``image_id, score``.
    Boxes are a DataFrame ``image_id, x1, y1, x2, y2, score`` in px of the original image, or
    outputs of a detection library (see `boxes_table`). `image_ids` has the index of the truth; None
    if the values themselves name their images.

    A prediction is expected for each validation and test image of `split`. `columns` are names of
    the columns of a DataFrame; None for the usual names, where the user cannot name others. `scale`
    is the factor from the px of boxes to px of the original image; None asks where needed. An
    InputError is raised if lengths differ, a score is outside [0, 1], or an image is unknown.

    Example:
        >>> truth, ids = truth_from_values([1, 0])
        >>> read = predictions_from_values("A", [0.9, 0.2], KnownImages.of_truth(truth), ids)
        >>> read.scores["score"].tolist()
        [0.9, 0.2]
    """
    advice = _advice_for_values(name, names_columns=columns is not None)
    if image_ids is not None and _are_numbered(image_ids):
        advice = replace(advice, unknown_rows=f"{_NAME_IMAGES}: truth has no image ids")
    names = columns or ColumnNames()
    options = ImportOptions(name, columns=names, split=split, scale=scale, advice=advice)
    if isinstance(value, pd.DataFrame):
        return read_rows(value, known, options)
    if is_detector_output(value):
        read = _read_outputs(name, value, image_ids, names, advice)
        if not is_coco(value) and image_ids is not None:
            options = replace(options, images=[*map(str, image_ids)])
    else:
        rows = _score_frame(name, value, image_ids)
        read = ReadTable(rows, rows[["image_id", "score"]])
        options = replace(options, columns=ColumnNames(score_is_named=names.score_is_named))
    read.where = name
    return system_of(read, known, options)


def _advice_for_values(name: str, *, names_columns: bool) -> ReadingAdvice:
    """Return the advice for values in memory, which can be changed without most options."""
    return ReadingAdvice(
        column_option=f'columns=["{name}.{{role}}=COLUMN"]' if names_columns else "",
        frame=name,
    )


def _read_outputs(
    name: str,
    outputs: Any,
    image_ids: pd.Series | None,
    names: ColumnNames,
    advice: ReadingAdvice,
) -> ReadTable:
    """Read the outputs of a detector."""
    if image_ids is None and not is_coco(outputs) and not hasattr(outputs[0], "path"):
        raise InputError(
            f"{name}: a list of outputs does not name its images, and truth in a file or folder "
            "has no order; give truth as a frame, truth=pd.read_csv(FILE), or the boxes as a "
            "DataFrame with image_id"
        )
    read = read_boxes(outputs, image_ids, names, f"{name}: outputs", advice)
    columns = ["image_id", *(["score"] if "score" in read.rows else []), *EDGES, "finding"]
    read.content = read.rows.reindex(columns=columns)
    if "finding" not in read.rows:
        read.content = read.content.drop(columns="finding")
    elif not names.finding:  # the user says that no class is one
        read.rows = read.rows.drop(columns="finding")
    if names.image == "id":
        read.rows = read.rows.drop(columns="file_name", errors="ignore")
    return read


def _truth_frame(truth: Any, label: str | None) -> pd.DataFrame:
    """Return labels with their image ids: ``image_id``, ``label`` and further columns."""
    if isinstance(truth, pd.DataFrame):
        return _read_truth_frame(truth, label)
    if not isinstance(truth, pd.Series):
        truth = _flat(truth, "truth")
    if isinstance(truth, np.ndarray) or isinstance(truth.index, pd.RangeIndex):
        ids = numbered_ids(len(truth))
    elif isinstance(truth.index, pd.MultiIndex):
        raise InputError(
            f"truth: its index has {truth.index.nlevels} levels; give one of image ids"
        )
    else:
        ids = _id_texts(truth.index, "truth")
    _require_unique(ids, "truth")
    frame = _labelled_frame(truth, ids)
    if isinstance(truth, pd.Series) and truth.name is not None:
        frame.attrs["finding"] = finding_name(str(truth.name))
    return frame


def numbered_ids(count: int) -> pd.Index:
    """Make ids such as ``image-01`` for images without names; sorting keeps their order.

    Example:
        >>> numbered_ids(11)[[0, 10]].tolist()
        ['image-01', 'image-11']
    """
    width = len(str(count))
    return pd.Index([f"image-{number:0{width}d}" for number in range(1, count + 1)])


def _are_numbered(image_ids: pd.Series) -> bool:
    """Return True if the user named no image, so that each has its number."""
    return image_ids.tolist() == numbered_ids(len(image_ids)).tolist()


def _without_boxes(truth: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Divide a frame with one row for each box into one of images and one of boxes.

    The frame of images has no columns of edges. A frame without boxes is returned as it is, with
    None.
    """
    columns = [str(column) for column in truth.columns]
    image = find_column(columns, image_names(columns))
    edges = [*box_columns(columns).values()]
    if image is None or not edges:
        return truth, None
    _id_texts(truth[image], "truth")
    rows = truth.set_axis(columns, axis=1).rename(columns={image: "image_id"})
    images = rows.drop(columns=edges)
    boxes = rows[["image_id", *edges]]
    others = rows.loc[boxes[edges].notna().any(axis=1)].drop(columns=["image_id", *edges])
    free = [str(column) for column in others]
    of_images = [find_column(free, names) for names in _OF_IMAGES]
    kind = class_column(others[[column for column in free if column not in of_images]])
    if kind is not None:
        boxes = boxes.assign(finding=rows[kind])
    first = ~images["image_id"].duplicated()
    if first.all():
        return images, boxes
    differ = images.groupby("image_id", sort=False).nunique(dropna=False).gt(1)
    of_images = [find_column([str(name) for name in differ], names) for names in _OF_IMAGES]
    for column in filter(None, of_images):
        if differ[column].any():
            raise InputError(
                f"truth: the rows of image '{differ[column].idxmax()}' have several values for "
                f"{column}; correct them"
            )
    images = images.drop(columns=differ.columns[differ.any()])[first]  # what differs is of boxes
    if isinstance(truth.index, pd.RangeIndex):
        images = images.reset_index(drop=True)
    return images, boxes


def _read_truth_frame(truth: pd.DataFrame, named: str | None) -> pd.DataFrame:
    """Recognise the columns of a frame of labels by their names, or the labels by `named`."""
    columns = [str(column) for column in truth.columns]
    label = named or find_column(columns, LABEL_NAMES)
    if label is None:
        raise InputError(
            f"truth: no column of labels; it has {', '.join(columns)}: call it 'label', with 1 "
            "(positive), 0 (negative) or nothing (unknown)"
        )
    column_by_role = {
        "image_id": find_column(columns, ("image_id", *column_names("file"))),
        "patient_id": find_column(columns, ("patient_id", *column_names("patient"))),
        "study_id": find_column(columns, ("study_id", *column_names("study"))),
        "role": find_column(columns, _ROLE_COLUMNS),
    }
    ids = numbered_ids(len(truth))
    if column_by_role["image_id"] is not None:
        ids = _id_texts(truth[column_by_role["image_id"]], "truth")
    _require_unique(ids, "truth")
    frame = _labelled_frame(truth[label], ids)
    for role in ("patient_id", "study_id"):
        if column_by_role[role] is not None:
            frame[role] = truth[column_by_role[role]].astype(TEXT).to_numpy()
    if column_by_role["role"] is not None:
        frame["role"] = _roles(truth[column_by_role["role"]], ids)
    used = {label, *(column for column in column_by_role.values() if column is not None)}
    for column in columns:
        if column not in used:
            frame[_group_column(column)] = truth[column].to_numpy()
    if named or is_named(finding_name(label)):
        frame.attrs["finding"] = finding_name(label)
    return frame


def is_column_of_images(column: str) -> bool:
    """Return True for a column that names or describes images and patients, such as ``sex``."""
    roles = (*image_names([column]), *column_names("file"), *_ROLE_COLUMNS)
    owners = (*column_names("patient"), *column_names("study"), "patient_id", "study_id")
    if find_column([column], ("image_id", *roles, *owners, *column_names("sex"))):
        return True
    return _group_column(column) in (*_IMAGE_COLUMNS, "age_years")


def _group_column(column: str) -> str:
    """Return the name that a further column has in the images table."""
    if find_column([column], ("age", "age_years", *column_names("age"))):
        return "age_years"
    plain = re.sub(r"[^0-9a-z]+", "_", column.lower()).strip("_")
    return plain if plain in _IMAGE_COLUMNS else f"x_{plain}"


def _labelled_frame(values: Any, ids: pd.Index) -> pd.DataFrame:
    """Return ``image_id`` and ``label``: 1.0, 0.0 or NaN; words mean what they mean in files.

    The attribute ``uncertain`` holds the ids of the images whose label is uncertain, and
    ``label_notes`` says how -1 was read.
    """
    cells = pd.Series(np.asarray(values, dtype=object))
    is_text = cells.map(lambda cell: isinstance(cell, str)).astype(bool)
    texts = plain_cells(cells[is_text].astype(TEXT))
    numbers = pd.to_numeric(cells[~is_text], errors="coerce").astype(np.float64)
    states = pd.concat([states_of_cells(texts), numbers.map(_STATE_OF_NUMBER)]).reindex(cells.index)
    states = states.astype(object)
    states[texts.index[texts.isin(["", *dictionary()["unknown"]])]] = "unknown"
    states[cells.isna()] = "unknown"
    is_minus = pd.concat([texts == "-1", numbers == -1]).reindex(cells.index).astype(bool)
    if not {"present", "absent"} <= set(states):
        # beside 1 alone, -1 is the other class, as in libraries that train on -1 and 1
        states[is_minus] = None
    is_wrong = states.isna().to_numpy()
    if is_wrong.any():
        row = int(np.flatnonzero(is_wrong)[0])
        count = counted(int(is_wrong.sum()), "row", "are")
        raise InputError(
            f"truth: row {row}, image '{ids[row]}': label={cells.iloc[row]!r}; a label is 1 or yes "
            "(positive), 0 or no (negative), -1 beside both (uncertain), or missing or 'unknown' "
            f"({count} not)"
        )
    labels = states.map({"present": 1.0, "absent": 0.0}).astype(np.float64)
    frame = pd.DataFrame({"image_id": ids.astype(TEXT), "label": labels.to_numpy()})
    frame.attrs["uncertain"] = ids[(states == "uncertain").to_numpy()].tolist()
    if is_minus.any():
        rows = counted(int(is_minus.sum()), "label")
        frame.attrs["label_notes"] = (f"-1 in the labels is taken for uncertain ({rows}).",)
    return frame


def _roles(values: pd.Series, ids: pd.Index) -> np.ndarray:
    roles = values.astype(TEXT).str.lower().map(ROLE_NAMES)
    is_wrong = roles.isna().to_numpy(bool)
    if is_wrong.any():
        row = int(np.flatnonzero(is_wrong)[0])
        raise InputError(
            f"truth: row {row}, image '{ids[row]}': role={values.iloc[row]!r}; a role is val, "
            "test, train or unused"
        )
    return roles.to_numpy()


def _id_texts(ids: pd.Series | pd.Index, where: str) -> pd.Index:
    """Return image ids as texts; refuse a missing one."""
    missing = np.flatnonzero(ids.isna())
    if len(missing):
        row, column = missing[0], "the image id in its index"
        if isinstance(ids, pd.Series):
            row, column = ids.index[row], str(ids.name)
        raise InputError(f"{where}: row {row}: {column} is missing; fill it in")
    return pd.Index(ids.astype(str))


def _require_unique(ids: pd.Index, where: str) -> None:
    if not ids.is_unique:
        repeated = ids[ids.duplicated()][0]
        raise InputError(f"{where}: image '{repeated}' appears more than once; keep one row")


def _images_of_series(values: pd.Series, name: str, rows: pd.Series | None) -> pd.Index:
    """Return the image of each value of a Series.

    Its index is the index of truth, or holds image ids. Where it may be either, and this makes a
    difference, the user is asked. ``rows`` has the image ids with the index of truth; None for a
    data set.
    """
    index = values.index
    if isinstance(index, pd.MultiIndex):
        raise InputError(f"{name}: its index has {index.nlevels} levels; give one of image ids")
    if rows is None:
        return _id_texts(index, name)
    has_own_index = not rows.index.equals(pd.Index(rows))
    by_row = _images_by_row(index, rows) if has_own_index else None
    if not has_own_index and index.equals(pd.RangeIndex(len(rows))):
        by_row = pd.Index(rows)
    if by_row is not None:
        _ask_if_ids(values, name, by_row, rows)
        if len(by_row) == len(rows):
            return by_row
    ids = _id_texts(index, name)
    known = rows.astype(str)
    if not is_member(ids, known).any() and not by_last_parts(pd.Series(ids), known)[1]:
        common = f"{int(index.isin(rows.index).sum()):,} of {len(index):,} rows are in both"
        reason = (
            f"not that of truth ({common})"
            if has_own_index
            else "not 0, 1, ..., and truth has none"
        )
        raise InputError(
            f"{name}: its index is {reason}; give both as Series of the same images, or both as "
            "arrays in one order"
        )
    return ids


def _images_by_row(index: pd.Index, rows: pd.Series) -> pd.Index | None:
    """Return the images of the rows of truth that an index names; None if it names others."""
    if index.equals(rows.index):
        return pd.Index(rows)
    if not (index.is_unique and rows.index.is_unique):
        return None
    found = rows.index.get_indexer(index)
    return pd.Index(rows.iloc[found]) if (found >= 0).all() else None


def _ask_if_ids(values: pd.Series, name: str, by_row: pd.Index, rows: pd.Series) -> None:
    """Ask whether an index of rows holds image ids, where both fit and give different values."""
    by_id, of_rows, ids = (
        pd.Index(index).astype(str).str.replace(_LOST_DIGITS, "", regex=True)
        for index in (values.index, by_row, rows)
    )
    if not by_id.is_unique or not is_member(by_id, ids).all():
        return  # the index holds no image ids
    texts = pd.Series(values.astype(str).to_numpy(), by_id)
    differs = (texts.reindex(of_rows).to_numpy() != texts.to_numpy()).nonzero()[0]
    if not len(differs):
        return
    row = differs[0]
    raise InputError(
        f"{name}: is {values.index[row]} in its index a row of truth, of image '{by_row[row]}', or "
        f"image '{by_id[row]}'? Give an array in the order of truth if it holds rows, or a frame "
        "with image_id if it holds image ids"
    )


def _patients_by_image(patients: Any, rows: pd.Series) -> np.ndarray:
    """Return the patient of each image, in the order of the rows of truth."""
    ids = pd.Index(rows)
    if isinstance(patients, str | Path):
        patients = read_text_table(Path(patients), ())
    if isinstance(patients, pd.DataFrame):
        columns = [str(column) for column in patients.columns]
        found = find_patient_columns(columns)
        if found is None:
            raise InputError(f"patients: needs image_id and patient_id; it has {list(columns)}")
        image, patient = found
        index, values = _id_texts(patients[image], "patients"), patients[patient]
    elif isinstance(patients, pd.Series):
        index, values = _images_of_series(patients, "patients", rows), patients
    else:
        flat = _flat(patients, "patients")
        _require_length("patients", flat, ids)
        return pd.Series(flat).astype(TEXT).to_numpy()
    _require_unique(index, "patients")
    position = index.get_indexer(pd.Index(ids.astype(str)))
    is_missing = position < 0
    if is_missing.any():
        raise InputError(f"patients: has no patient of image '{ids[int(is_missing.argmax())]}'")
    return values.astype(TEXT).to_numpy()[position]


def _images_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the images table; where no patients are given, each image is a separate patient."""
    images = frame.drop(columns=["label", "role"], errors="ignore")
    if "patient_id" in images:
        images = with_named_patients(images, named_patients(images["patient_id"], "patients"))
    else:
        images = images.assign(patient_id=images["image_id"], patient_id_source="assumed_image")
    return typed_table(images.sort_values("image_id"), "images")


def _true_boxes(boxes: Any, frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.Index]:
    """Return the true boxes, and the ids of the images whose lesions are all boxed."""
    if boxes is None:
        return no_boxes(), pd.Index([], dtype=object)
    source = read_text_table(Path(boxes), ()) if isinstance(boxes, str | Path) else boxes
    sizes = frame.reindex(columns=["image_id", "width", "height"])
    table = boxes_table(source, frame["image_id"], image_sizes=sizes)
    if "finding" in table:
        _require_class(table, frame)
    is_crowd = table.get("crowd", pd.Series(False, table.index)).eq(True)
    table = table[["image_id", *EDGES]]
    table["image_id"], notes = by_last_parts(table["image_id"], frame["image_id"])
    is_repeated = table.duplicated()
    if is_repeated.any():
        repeated = counted(int(is_repeated.sum()), "true box", "are")
        first = table["image_id"][is_repeated].iloc[0]
        notes.append(f"{WARNING}{repeated} given twice (first: image '{first}'); each counts.")
    frame.attrs["notes"] = tuple(notes)
    is_unknown = ~is_member(table["image_id"], frame["image_id"])
    if is_unknown.any():
        first = table["image_id"].to_numpy()[int(is_unknown.argmax())]
        near = near_ids([first], frame["image_id"])
        advice = f"; is it '{near[first]}'? Give both one id" if near else "; add it there"
        if _are_numbered(frame["image_id"]):
            advice = (
                f", which has no image ids; {_NAME_IMAGES}, or the boxes as the list of the "
                "outputs, in the order of the labels"
            )
        raise InputError(f"boxes: image '{first}' has no label in truth{advice}")
    labels = frame.set_index("image_id")["label"].reindex(table["image_id"]).to_numpy()
    if (labels == 0).any():
        first = table["image_id"].to_numpy()[int((labels == 0).argmax())]
        raise InputError(f"boxes: image '{first}' has a box, and its label says negative")
    in_part = table.loc[is_crowd, "image_id"]  # a crowd is not boxed lesion by lesion
    boxed = pd.Index(table["image_id"].unique()).difference(in_part)
    return table[~is_crowd].reset_index(drop=True), boxed


def _require_class(boxes: pd.DataFrame, frame: pd.DataFrame) -> None:
    """Refuse true boxes of another finding than the labels, whose finding they may name."""
    finding = str(frame.attrs.get("finding") or FINDING)
    other = other_class(boxes["finding"], [finding])
    kinds = boxes["finding"].unique()
    if other is not None:
        row, kind = other
        of_labels = f"'{finding}'" if is_named(finding) else "one finding"
        raise InputError(
            f"boxes: are of {', '.join(map(repr, kinds[:5]))}, and the labels are of {of_labels} "
            f"(image '{boxes['image_id'].iloc[row]}' has a box of '{kind}'); keep the boxes of the "
            "finding, or leave the classes out if they are something else"
        )
    if not is_named(finding) and len(kinds) == 1 and names_finding(kinds[0]):
        frame.attrs["finding"] = finding_name(kinds[0])


def _score_frame(name: str, value: Any, image_ids: pd.Series | None) -> pd.DataFrame:
    """Return scores as ``image_id, score``."""
    if isinstance(value, pd.Series) and not (
        image_ids is None and isinstance(value.index, pd.RangeIndex)
    ):
        ids = _images_of_series(value, name, image_ids).astype(str)
        return _score_rows(ids, _flat(value, name), name)
    values = _flat(value, name)
    if image_ids is None:
        raise InputError(
            f"{name}: the images of a data set have no order; give a Series with image ids as its "
            "index, or a frame image_id, score"
        )
    _require_length(name, values, image_ids)
    return _score_rows(image_ids.astype(str).to_numpy(), values, name)


def _score_rows(ids: Any, values: np.ndarray, name: str) -> pd.DataFrame:
    """Return scores as ``image_id, score, place``; texts of numbers are numbers."""
    rows = pd.DataFrame({"image_id": ids, "score": values}).astype({"image_id": TEXT})
    rows["place"] = [f"row {number}" for number in range(len(rows))]
    rows["score"] = as_numbers(rows, "score", name)
    return rows


def _flat(value: Any, name: str) -> np.ndarray:
    """Convert values, also a tensor on any device, to an array of shape ``(N,)``."""
    if isinstance(value, Mapping):
        raise InputError(f"{name}: is a dict; give pd.Series(values, index=image_ids)")
    if not hasattr(value, "__len__"):  # nor have a model and a function
        raise InputError(
            f"{name}: is a {type(value).__name__}; give what a model says of the images, scores or "
            "boxes"
        )
    if np.ma.isMaskedArray(value) and np.ma.getmaskarray(value).any():
        raise InputError(f"{name}: has masked values; leave these images out, or give NaN")
    array = as_array(value)
    if array.ndim == 2 and array.shape[1] == 1:  # as a network with one output gives them
        array = array[:, 0]
    if array.ndim != 1:
        advice = "; take one column, such as values[:, 1]" if array.ndim == 2 else ""
        raise InputError(
            f"{name}: expected one value for each image, got the shape {array.shape}{advice}"
        )
    if np.iscomplexobj(array):
        raise InputError(f"{name}: has complex numbers; give real ones")
    return array


def _require_length(name: str, values: np.ndarray, ids: pd.Index | pd.Series) -> None:
    if len(values) != len(ids):
        raise InputError(
            f"{name}: has {len(values):,} values, and truth has {counted(len(ids), 'image')}; give "
            "a Series or a frame with image ids, or values in the order of truth"
        )
