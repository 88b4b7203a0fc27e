"""Labels, patients, roles and true boxes from arrays, frames and files."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.base.box_check import ROLES_OF_FORMS
from cxr_compare.data_prep.base.errors import InputError, counted
from cxr_compare.data_prep.base.names import (
    LABELS,
    column_names,
    display_name,
    find_column,
    finding_name,
    image_names,
    split_column,
)
from cxr_compare.data_prep.base.tables import ROLE_NAMES, SYNTHETIC_PATIENT
from cxr_compare.data_prep.base.user_tables import (
    is_table_file,
    read_text_table,
    refuse_other_kind,
)
from cxr_compare.data_prep.sources.patients import named_patients
from cxr_compare.data_prep.sources.unread_columns import refuse_second_box
from cxr_compare.data_prep.sources.words import (
    dictionary,
    is_circumstance,
    plain_cells,
    states_of_cells,
)
from cxr_compare.evaluation.inputs.coco_truth import truth_of_coco
from cxr_compare.evaluation.inputs.files import are_outputs
from cxr_compare.evaluation.inputs.frames import (
    flat_array,
    form_of,
    is_unnamed,
    read_frame,
    refuse_box_texts,
)
from cxr_compare.evaluation.inputs.image_sizes import ImageFiles, files_beside, with_files
from cxr_compare.evaluation.inputs.patients import fill_patients, patients_of, shared_patients
from cxr_compare.evaluation.inputs.rows import (
    COLUMNS,
    NUMBERS,
    are_blank,
    numbers_in_cells,
    place_of,
)
from cxr_compare.evaluation.inputs.true_boxes import keep_false_alarms, with_boxes
from cxr_compare.evaluation.notes import Note
from cxr_compare.evaluation.statistics.arrays import as_array
from cxr_compare.evaluation.truth import UNNAMED, Truth

_GROUPS = ("sex", "view", "width", "height")
"""Names that columns of the images keep, beside the age; each further one begins with ``x_``."""
_NUMBERS = ("width", "height", "age_years")


def read_truth(
    truth: Any,
    *,
    boxes: Any = None,
    patients: Any = None,
    label: str | None = None,
    columns: Mapping[str, str] | None = None,
    allow_shared_patients: bool = False,
    where: str = "truth",
    files: ImageFiles | None = None,
) -> Truth:
    """Return the truth of labels in a frame, Series, array, CSV or COCO file.

    A frame with a row for each box holds labels and boxes. Labels are 1 and 0, words of yes and no,
    or missing; -1 beside both is unknown. InputError for what is not understood, with its row.

    Args:
        truth: Labels, with what else is known of each image.
        boxes: True boxes; without them only figures of whole images are computed.
        patients: Patient of each image, in their order or by image id.
        label: Column of the labels, or finding of a COCO file.
        columns: Names of columns by role (image, label, patient, study, role), and how true boxes
            are written (box_form, box_unit).
        allow_shared_patients: True to note, and not refuse, patients of test images in other roles.
        where: Path of the file of a frame, whose index then has the lines; images of a file have no
            order.
        files: Image files, for sizes that the truth does not state; None takes those beside a file.
    """
    columns = dict(columns or {})
    written: dict[str, str] = {}
    for key in ("box_form", "box_unit"):
        if key in columns:
            written[key] = columns.pop(key)
    if isinstance(truth, str | Path):
        path, where = Path(truth), str(truth)
        files = files or files_beside(path)
        if path.suffix.lower() == ".json":
            return truth_of_coco(path, label, patients, written, files)
        truth = truth_table(path)
    if are_outputs(truth):
        boxes = truth if boxes is None else boxes
        truth = np.array([len(as_array(each["boxes"])) > 0 for each in truth], dtype=float)
    if isinstance(truth, pd.Series) and isinstance(truth.name, str) and label is None:
        label = None if truth.name.lower() in LABELS else truth.name
    if not isinstance(truth, pd.DataFrame):
        truth = _frame_of_values(truth, label or "label")
    frame = truth.set_axis([str(column) for column in truth.columns], axis=1)
    is_named = find_column([*frame.columns], image_names([*frame.columns])) or "image" in columns
    if where == "truth" and not is_named:
        frame = frame.assign(image_id=_numbered(len(frame)))
    found = _columns_of_truth(frame, columns, label, where)
    of_boxes = where if boxes is None and where != "truth" else "boxes"
    frame, boxes = _without_boxes(frame, found, boxes, where)
    named = found["label"]
    images, notes = _images_of(frame, found, where)
    role = found.get("role")
    if role not in (None, columns.get("role")) and not find_column([role], column_names("split")):
        notes += (Note(f"Column '{role}' holds only roles, and is read as the role of an image."),)
    order = None if where != "truth" else pd.Series(images.index.to_numpy(), frame.index)
    if patients is not None:
        images["patient_id"] = patients_of(patients, images.index, order)
    notes += fill_patients(images)
    images["synthetic"] = images["patient_id"].str.contains(SYNTHETIC_PATIENT)
    notes += shared_patients(images, where, allowed=allow_shared_patients)
    finding = UNNAMED if named.lower() in LABELS else finding_name(named)
    title = display_name(finding)
    states = _states_of(frame[named], frame[found["image"]].astype(str), where)
    uncertain = pd.Index(frame[found["image"]].astype(str)[(states == "uncertain").to_numpy()])
    made = Truth(
        images.sort_index(),
        uncertain=uncertain,
        finding=finding,
        title=title,
        notes=notes,
        order=order,
    )
    if boxes is not None:
        made = keep_false_alarms(with_boxes(made, boxes, written, of_boxes, files), where)
    return with_files(made, files, written)


def _without_boxes(
    frame: pd.DataFrame, found: Mapping[str, str], boxes: Any, where: str
) -> tuple[pd.DataFrame, Any]:
    """Return a frame with one row for each image, and the true boxes: `boxes`, or its own ones."""
    image = found["image"]
    _require_ids(frame, image, where)
    form, edges = form_of([*frame.columns])
    if form:
        texts = frame.astype("string").fillna("")
        facts = [c for c in map(str, texts) if describes_images(c) or c in ("width", "height")]
        others = texts.drop(columns=[*found.values(), *edges, *facts], errors="ignore")
        refuse_second_box(where, others, texts[edges], COLUMNS, [found["label"]])
        frame = _without_placeholders(frame, edges, found, where)
        own, frame = _divide(frame, edges, image, [*found.values()], where)
        boxes = own if boxes is None else boxes
    elif boxes is None:
        refuse_box_texts(frame.drop(columns=[*found.values()]), where)
    twice = frame[image].astype(str).duplicated()
    if twice.any():
        raise InputError(
            f"{where}: image '{frame[image][twice].iloc[0]}' appears more than once; keep one row"
        )
    return frame, boxes


def _without_placeholders(
    frame: pd.DataFrame, edges: list[str], found: Mapping[str, str], where: str
) -> pd.DataFrame:
    """Return a frame in which four zeros beside the label 0 are empty edges, as they are no box."""
    are_zero = frame[edges].apply(pd.to_numeric, errors="coerce").eq(0).all(axis=1)
    labels = labels_of(frame[found["label"]], frame[found["image"]].astype(str), where)
    is_placeholder = are_zero.to_numpy() & labels.eq(0).to_numpy()
    return frame.assign(**{name: frame[name].mask(is_placeholder) for name in edges})


def _images_of(
    frame: pd.DataFrame, found: Mapping[str, str], where: str
) -> tuple[pd.DataFrame, tuple[Note, ...]]:
    """Return the table of images, with what is known of them, from a frame with a row for each."""
    ids = frame[found["image"]].astype(str)
    images = pd.DataFrame({"label": labels_of(frame[found["label"]], ids, where).to_numpy()})
    images.index = pd.Index(ids, name="image_id")
    for role in {"patient_id", "study_id"} & found.keys():
        images[role] = frame[found[role]].astype("string").to_numpy()
    images["role"] = _roles(frame[found["role"]], ids, where) if "role" in found else "test"
    notes: tuple[Note, ...] = ()
    if "seen" in found:
        notes = _without_seen(images, frame[found["seen"]], where)
    if "patient_id" in images:
        images["patient_id"] = named_patients(images["patient_id"], where).to_numpy()
    for column in frame.columns.difference([*found.values()], sort=False):
        name = group_column(column)
        cells = frame[column]
        images[name] = (numbers_in_cells(cells, where) if name in _NUMBERS else cells).to_numpy()
    return images, notes


def truth_table(path: Path) -> pd.DataFrame:
    """Read a table file of labels; its index has the lines of the file."""
    refuse_other_kind(path)
    if not is_table_file(path):
        raise InputError(
            f"{path}: is no CSV of labels and no COCO file; cxr prepare reads other formats, and "
            "its data set is given as data"
        )
    table = read_text_table(path, ())
    table.index += 2
    return table


def group_column(column: str) -> str:
    """Return the name that a column which describes the images has in their table.

    Examples:
        >>> group_column("Age"), group_column("Ward no.")
        ('age_years', 'x_ward_no')
    """
    if find_column([column], column_names("age")):
        return "age_years"
    for side in ("width", "height"):
        if find_column([column], column_names(f"image_{side}")):
            return side
    plain = finding_name(column)
    return plain if plain in _GROUPS else f"x_{plain}"


def describes_images(column: str) -> bool:
    """Return True for a column that names or describes images and patients, and is no finding."""
    roles = ("patient", "study", "split", "sex")
    names = (*image_names([column]), *chain.from_iterable(map(column_names, roles)), "seen")
    is_known = find_column([column], names) is not None or is_circumstance(column)
    return is_known or not group_column(column).startswith("x_")


def _columns_of_truth(
    frame: pd.DataFrame, columns: Mapping[str, str], label: str | None, where: str
) -> dict[str, str]:
    """Return the column of each role; InputError if there is none of images, or of labels."""
    header = [*frame.columns]
    names = {
        "image": image_names(header),
        "label": LABELS,
        "patient_id": column_names("patient"),
        "study_id": ("study_id", *column_names("study")),
        "role": ("role",),
        "seen": ("seen",),
    }
    given = {
        f"{role}_id" if role in ("patient", "study") else role: c for role, c in columns.items()
    }
    if label is not None:
        given["label"] = label
    found: dict[str, str] = {}
    for role, usual in names.items():
        column = given.get(role) or find_column(header, usual)
        if column is None and role == "role":
            others = frame[[other for other in header if other not in found.values()]]
            column = split_column(others, where, "say columns role=COLUMN")
        if column is not None and column not in header:
            raise InputError(f"{where}: has no column '{column}'; it has {', '.join(header[:20])}")
        if column is not None and header.count(column) > 1:
            raise InputError(f"{where}: column '{column}' appears twice; keep one")
        if column is not None and (role == "image" or column != found.get("image")):
            found[role] = column
    if "image" not in found and "label" in found:
        raise InputError(
            f"{where}: no column names the images; it has {', '.join(header[:20])}; add image_id "
            "(1, 2, 3 ...), the same in each file, or give the columns to cxr_compare.compare from "
            "Python, as arrays in one order"
        )
    if not {"image", "label"} <= found.keys():
        raise InputError(
            f"{where}: needs image_id and label (1, 0 or nothing); it has {', '.join(header[:20])}"
        )
    return found


def _require_ids(frame: pd.DataFrame, image: str, where: str) -> None:
    if not len(frame):
        raise InputError(f"{where}: has no row")
    missing = are_blank(frame[image]).to_numpy()
    if missing.any():
        row = int(missing.argmax())
        label = frame.index[row]
        place = place_of(row if pd.isna(label) else label, where)
        raise InputError(f"{where}: {place}: {image} is missing; fill it in")


def _frame_of_values(values: Any, label: str) -> pd.DataFrame:
    """Return labels of an array or a Series as a frame; images without ids are numbered."""
    if isinstance(values, pd.Series) and values.index.nlevels > 1:
        raise InputError("truth: its index has several levels; give one of image ids")
    if isinstance(values, pd.Series) and not is_unnamed(values.index):
        ids = values.index.astype(str).where(values.index.notna(), None)
        return pd.DataFrame({"image_id": ids, label: values.to_numpy()}, index=values.index)
    array = flat_array(values, "truth")
    ids = pd.Index(_numbered(len(array)))
    index = values.index if isinstance(values, pd.Series) else ids
    return pd.DataFrame({"image_id": ids, label: array}, index=index)


def _numbered(count: int) -> list[str]:
    """Return ids of images without names."""
    width = len(str(count))
    return [f"image-{number:0{width}d}" for number in range(1, count + 1)]


def labels_of(cells: pd.Series, ids: pd.Series, where: str = "truth") -> pd.Series:
    """Return 1.0, 0.0 or NaN for cells of labels; refuse others with their row."""
    states = _states_of(cells, ids, where)
    return states.map({"present": 1.0, "absent": 0.0}).astype(np.float64)


def _states_of(cells: pd.Series, ids: pd.Series, where: str) -> pd.Series:
    """Return present, absent, uncertain or unknown for cells of labels; refuse others."""
    lines = cells.index
    cells = cells.reset_index(drop=True)
    text = cells.map(lambda cell: isinstance(cell, str)).astype(bool)
    words = plain_cells(cells[text].astype("string"))
    states = pd.Series(index=cells.index, dtype=object)
    states[text] = states_of_cells(words)
    states[words.index[words.isin(["", *dictionary()["unknown"]])]] = "unknown"
    numbers = pd.to_numeric(cells[~text], errors="coerce").astype(np.float64)
    states[~text] = numbers.map({1.0: "present", 0.0: "absent", -1.0: "uncertain"})
    states[cells.isna()] = "unknown"
    minus = pd.Series(False, index=cells.index)
    minus[text], minus[~text] = words == "-1", numbers == -1
    if not {"present", "absent"} <= set(states):
        states[minus] = None  # beside 1 alone, -1 may be the other class
    wrong = states.isna().to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        place = place_of(row if where == "truth" else lines[row], where)
        raise InputError(
            f"{where}: {place}, image '{ids.iloc[row]}': label={cells[row]!r}; write 1, 0 or "
            f"nothing ({int(wrong.sum())} are not)"
        )
    return states


def _roles(cells: pd.Series, ids: pd.Series, where: str) -> npt.NDArray[Any]:
    roles = cells.astype("string").str.strip().str.lower().map(ROLE_NAMES)
    wrong = roles.isna().to_numpy(bool)
    if wrong.any():
        row = int(wrong.argmax())
        place = place_of(cells.index[row], where)
        raise InputError(
            f"{where}: {place}, image '{ids.iloc[row]}': role={cells.iloc[row]!r}; write val, "
            "test, train or unused"
        )
    return roles.to_numpy()


def _without_seen(images: pd.DataFrame, cells: pd.Series, where: str) -> tuple[Note, ...]:
    """Leave test images out that a column ``seen`` says a system has seen, and note them."""
    states = labels_of(cells, pd.Series(images.index), where).to_numpy()
    if np.isnan(states).any():
        row = int(np.isnan(states).argmax())
        raise InputError(
            f"{where}: {place_of(cells.index[row], where)}, image '{images.index[row]}': "
            f"{cells.name}={cells.iloc[row]!r} is neither 1 nor 0; write one of them"
        )
    seen = (states == 1) & (images["role"] == "test").to_numpy()
    images.loc[seen, "role"] = "unused"
    if seen.any() and not (images["role"] == "test").any():
        raise InputError(f"{where}: every test image is 'seen'; give test images that none has")
    text = f"{counted(int(seen.sum()), 'test image')} left out, because a system has seen them."
    return (Note(text),) if seen.any() else ()


def _divide(
    frame: pd.DataFrame, edges: list[str], image: str, of_images: list[str], where: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Divide a frame with a row for each box into boxes and a frame of images.

    The columns `of_images` hold labels, patients and roles.
    """
    named = [name for name in of_images if name != image]
    columns = {"image": image, "score": ""}
    word = "row" if where == "truth" else "line"
    rows = read_frame(frame.drop(columns=named), columns, where, word=word)
    of_image = frame.drop(columns=edges)
    counts = of_image.groupby(image, sort=False).nunique(dropna=False)
    for column in named:
        several = counts.index[counts[column] > 1]
        if len(several):
            raise InputError(
                f"{where}: the rows of image '{several[0]}' have several values of {column}; "
                "correct them"
            )
    kept = [name for name in ("image_id", "finding", "crowd") if name in rows.table]
    corners = dict(zip(NUMBERS, ROLES_OF_FORMS[rows.form], strict=True))
    boxes = rows.table.rename(columns=corners)[[*kept, *corners.values()]]
    differ = counts.gt(1).any()  # what differs is of boxes
    images = of_image[[image, *differ.index[~differ]]].drop_duplicates(image)
    if is_unnamed(frame.index) and len(images) < len(frame) and where == "truth":
        images = images.reset_index(drop=True)
    return boxes, images
