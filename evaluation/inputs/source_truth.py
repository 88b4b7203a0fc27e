"""Truth of labels that the readers of `cxr prepare` read: tables, frames and folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.base.errors import (
    InputError,
    Remedy,
    counted,
    nearest_name,
    require_extra,
    role_columns,
)
from cxr_compare.data_prep.base.names import (
    Target,
    display_name,
    finding_name,
    is_named,
)
from cxr_compare.data_prep.base.user_tables import (
    is_table_file,
    line_of,
    refuse_line,
    refuse_other_kind,
    sheet_of,
)
from cxr_compare.data_prep.dataset import boxed_images, image_labels, of_reference
from cxr_compare.data_prep.sources.coco import COCO
from cxr_compare.data_prep.sources.image_files import one_walk
from cxr_compare.data_prep.sources.label_table import LabelTable, Tables
from cxr_compare.data_prep.sources.own_table import TABLE, read_named_tables
from cxr_compare.data_prep.sources.record import ReadRecord
from cxr_compare.data_prep.sources.source import COMPARE, Format, ReadOptions, SourceTables
from cxr_compare.data_prep.sources.statements import Source
from cxr_compare.data_prep.sources.table_columns import recognise_tables
from cxr_compare.data_prep.sources.table_images import EMPTY_EDGES, name_images
from cxr_compare.data_prep.sources.voc import VOC
from cxr_compare.data_prep.sources.yolo import YOLO, line_of_other_kind
from cxr_compare.evaluation.inputs.boxes_table import checked_boxes
from cxr_compare.evaluation.inputs.frames import image_column, is_unnamed, with_named_index
from cxr_compare.evaluation.inputs.image_sizes import ImageFiles, with_files
from cxr_compare.evaluation.inputs.patients import set_patients
from cxr_compare.evaluation.inputs.rows import are_blank
from cxr_compare.evaluation.notes import Note, reading_notes
from cxr_compare.evaluation.truth import UNNAMED, Truth, no_boxes

_FACTS = ("study_id", "width", "height", "age_years")
_AS_WRITTEN = ("sex", "view")
_MOST_NAMES = 3  # of images, in one message
_ROLES = {name: role for role, name in COMPARE.roles.items()}
"""Roles of columns that `cxr prepare` calls otherwise."""


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of all findings, as a reader of `cxr prepare` gives them.

    Attributes:
        where: What messages call them.
        facts: All images by ``image_id``, in the order of the user: what else is said of them.
        seen: True for each image that a system has seen; None if nobody says it.
        order: Image ids in the order, and with the index, of a truth in memory.
        named: Finding that the user chooses by the column of its labels; empty if none.
        files: Image files of a folder of labels; None for a table or a file.
    """

    tables: SourceTables
    where: str
    facts: pd.DataFrame
    seen: pd.Series | None = None
    order: pd.Series | None = None
    named: str = ""
    files: ImageFiles | None = None


def _read_format(fmt: Format, path: Path, columns: Mapping[str, str]) -> SourceTables:
    """Read label files in a format of `cxr prepare`, with the lines that are shown as notes."""
    record = ReadRecord()
    texts = tuple(f"{role}={name}" for role, name in columns.items())
    options = ReadOptions(columns=texts, caller=COMPARE)
    tables = fmt.reader(Source(fmt, path, options, record))
    _refuse_left_out(tables, path)
    return replace(tables, notes=[*record.lines, *tables.notes])


def read_coco(path: Path, columns: Mapping[str, str]) -> Labels:
    """Read a COCO annotation file, whose images need not be there."""
    refuse_other_kind(path)
    tables = _read_format(COCO, path, columns)
    facts = tables.images.set_index("image_id")[["coco_id"]]
    return Labels(tables, str(path), facts)


@one_walk()
def read_folder(folder: Path, columns: Mapping[str, str]) -> Labels:
    """Read a folder of images with labels of YOLO or Pascal VOC; InputError for another."""
    if (folder / "dataset.json").is_file():
        raise InputError(
            f"truth: {folder} is a data set of cxr prepare; leave truth out",
            [Remedy(options={"data": str(folder)})],
        )
    fitting = [candidate for candidate in (YOLO, VOC) if candidate.detect(folder)]
    if len(fitting) != 1:
        raise InputError(_unread(folder))
    require_extra(f"truth: {folder}: sizes of its images", "images")
    tables = _read_format(fitting[0], folder, columns)
    images = tables.images.set_index("image_id")
    paths = {image_id: folder / path for image_id, path in images["path"].items()}
    files = ImageFiles(paths.get, str(folder))
    return Labels(tables, str(folder), images[[]], files=files)


def read_labels(truth: Path | pd.DataFrame, boxes: Any, columns: Any, **options: Any) -> Labels:
    """Read labels and true boxes in a folder, a COCO file, or a table; see `read_label_table`."""
    if isinstance(truth, pd.DataFrame) or not (truth.is_dir() or truth.suffix.lower() == ".json"):
        return read_label_table(truth, boxes, columns, **options)
    if boxes is not None:
        raise InputError(f"boxes: {boxes}: {truth} holds true boxes itself; leave boxes out")
    return read_folder(truth, columns) if truth.is_dir() else read_coco(truth, columns)


def read_label_table(
    truth: Path | pd.DataFrame,
    boxes: Any,
    columns: Mapping[str, str],
    *,
    target: Sequence[str] = (),
    files: ImageFiles | None = None,
    **asked: bool,
) -> Labels:
    """Read a table of labels, of names of findings, or of boxes.

    `boxes` are true boxes of its images; `columns` has names of columns by role; `target` names
    findings; `asked` are attributes of `Caller`.
    """
    frame, sheets = None, {}
    if isinstance(truth, pd.DataFrame):
        path, frame = Path("truth"), _with_ids(truth, columns)
        sheets[path] = sheet_of(frame, "truth")
    else:
        path = truth
        _require_table(path)
    paths = [path]
    if boxes is not None and not isinstance(boxes, str | os.PathLike | pd.DataFrame):
        ids = None if frame is None else frame[image_column(frame, columns)].astype(str)
        boxes = checked_boxes(boxes, None if ids is None else ids.tolist(), "boxes")
    if boxes is not None and not (isinstance(boxes, pd.DataFrame) and boxes.empty):
        paths.append(Path("boxes" if isinstance(boxes, pd.DataFrame) else boxes))
        if isinstance(boxes, pd.DataFrame):
            sheets[paths[1]] = sheet_of(_with_ids(boxes, {}), "boxes")
        elif Path(boxes).is_file() and not is_table_file(Path(boxes)):
            raise InputError(
                f"{boxes}: boxes beside labels are a table of image_id,x1,y1,x2,y2; a COCO file "
                "holds the labels, too: leave boxes out",
                [Remedy(options={"truth": str(boxes)}, verb="write")],
            )
    texts = tuple(f"{_ROLES.get(role, role)}={name}" for role, name in role_columns(columns))
    caller = replace(COMPARE, wanted=tuple(target), **asked)
    options = ReadOptions(labels=tuple(paths), columns=texts, caller=caller)
    measure = None if files is None else files.size
    named_finding = finding_name(columns.get("label", ""))
    return _read_sheets(path, options, sheets, frame, measure, named_finding)


def _read_sheets(
    path: Path,
    options: ReadOptions,
    sheets: Mapping[Path, pd.DataFrame],
    frame: pd.DataFrame | None,
    measure: Callable[[str], tuple[int, int] | None] | None,
    named_finding: str,
) -> Labels:
    """Read tables of labels and boxes, or ask; `frame` is the first one in memory."""
    source = Source(TABLE, path, options, unnamed=UNNAMED, measure=measure)
    paths = options.labels
    tables = recognise_tables(source, sheets=sheets)
    _require_one_row(tables[0])
    tables, _ = name_images(source, tables)
    tables_read = read_named_tables(source, tables)
    _refuse_left_out(tables_read, path, tables)
    for finding, image_id in source.unlabelled.items():
        labelled = ", ".join(sorted({*tables_read.targets} - {*source.unlabelled}))
        raise InputError(
            f"{paths[-1]}: image '{image_id}' has a box of '{finding}', and the labels are of "
            f"{labelled}; leave such boxes out"
        )
    if not tables_read.targets:
        raise InputError(f"{path}: no test image has a known label; write 1 or 0 for some")
    in_columns = [t.finding(c) for t in tables for c in t.columns_of("finding")]
    in_order = {
        name: tables_read.targets[name] for name in in_columns if name in tables_read.targets
    }
    tables_read = replace(
        tables_read,
        targets={**in_order, **tables_read.targets},
        notes=[*source.record.lines, *tables_read.notes],
    )
    text = tables[0].text
    # One array of texts: rows of 10,000 columns of their own are taken a column at a time.
    raw = pd.DataFrame(text.to_numpy(dtype=object), text.index, text.columns, dtype=object)
    raw = raw if frame is None else frame.set_axis([*text.columns], axis=1)
    facts, seen = _facts_of(tables[0], raw)
    order = None if frame is None else _order(tables[0], frame)
    return Labels(tables_read, str(path), facts, seen, order, named_finding)


def _require_one_row(table: LabelTable) -> None:
    """Refuse an image of two rows in a table of states, which was joined wrongly."""
    if table.box_roles or table.has("label"):
        return
    cells = table.cells("file")
    reason = "; the image appears more than once: keep one row"
    refuse_line(cells.duplicated(), table.path, reason, cells)


def _refuse_left_out(tables_read: SourceTables, where: Path, tables: Tables = ()) -> None:
    """Refuse labels by which `cxr prepare` leaves images out: a comparison loses no test image."""
    if tables_read.excluded.empty:
        return
    path, reason = tables_read.excluded[["path", "reason"]].iloc[0]
    paths = tables_read.excluded.loc[tables_read.excluded["reason"] == reason, "path"].tolist()
    start = f"{where}:"
    for table in tables[::-1]:
        rows = table.images["path"] == path
        rows = rows & table.are_boxed if (rows & table.are_boxed).any() else rows
        if rows.any():
            cells = table.text.loc[rows, table.labelled_columns].iloc[0]
            labels = "".join(f", {column}={cell!r}" for column, cell in cells.items())
            start = f"{table.path}: {line_of(rows)}{labels}: image"
            break
    names = ", ".join(f"'{path}'" for path in paths[:_MOST_NAMES])
    raise InputError(f"{start} {names}: {reason}; correct it")


def _require_table(path: Path) -> None:
    refuse_other_kind(path)
    if not is_table_file(path):
        raise InputError(
            f"{path}: is no CSV of labels and no COCO file; make a data set of it by "
            "cxr prepare, and leave truth out",
            [Remedy(options={"data": "FOLDER"})],
        )


def _with_ids(frame: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """Return a frame with a column of images: that of the user, its index, or numbers."""
    frame = with_named_index(frame, columns)
    if not len(frame) or image_column(frame, columns) is not None:
        return frame
    return frame.assign(image_id=numbered(len(frame)))


def numbered(count: int) -> list[str]:
    """Return ids of images without names."""
    width = len(str(count))
    return [f"image-{number:0{width}d}" for number in range(1, count + 1)]


def _order(table: LabelTable, frame: pd.DataFrame) -> pd.Series:
    """Return the images of the rows of a frame; one for each image if the rows are of boxes."""
    order = pd.Series(table.images["image_id"].to_numpy(dtype=object), frame.index)
    if not table.box_roles or order.is_unique:
        return order
    order = order.drop_duplicates()
    return order.reset_index(drop=True) if is_unnamed(frame.index) else order


def _facts_of(table: LabelTable, raw: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series | None]:
    """Return what columns without a role, and of sex and view, say of each image, as written.

    What differs between the rows of an image is of its boxes. The second value is the column
    ``seen``, if there is one.
    """
    seen = next(iter(table.columns_of("x_seen")), None)
    names = {column: f"x_{finding_name(column)}" for column in table.unused}
    for role in _AS_WRITTEN:
        columns = table.columns_of(role)
        names |= dict.fromkeys(columns[:1], role)
        for other in columns[1:]:  # of several the first filled one counts
            cells = raw[columns[0]]
            raw = raw.assign(**{columns[0]: cells.mask(are_blank(cells), raw[other])})
    ids = pd.Index(table.images["image_id"].to_numpy(dtype=object), name="image_id")
    rows = raw[[column for column in raw if column in names]].rename(columns=names).set_axis(ids)
    if ids.is_unique:
        facts = rows
    else:
        differ = rows.groupby(level=0).nunique(dropna=False).gt(1).any()
        facts = rows[[*differ.index[~differ]]]
        facts = facts[~facts.index.duplicated()]
    if seen is None:
        return facts, None
    states = table.states(seen).set_axis(ids)
    return facts, states[~ids.duplicated()]


def wanted_targets(
    targets: Mapping[str, Target], texts: Sequence[str], where: str, named_finding: str = ""
) -> list[Target]:
    """Return the wanted findings; if none is, `named_finding`, that without a name or the only one.

    A wanted name is given to the only finding if it has none.
    """
    names = [finding_name(name) for name in texts]
    unnamed = [name for name in targets if not is_named(name)]
    if "all" in names and "all" not in targets:
        return list(targets.values())
    if not names:
        chosen = [named_finding] if named_finding in targets else unnamed or [*targets]
        if len(chosen) > 1:
            raise InputError(
                f"target: {where} has the findings {', '.join(targets)}; name one, or, to compare, "
                "all"
            )
        return [targets[chosen[0]]]
    if len(targets) == len(unnamed) == len(names) == 1 and names[0] not in targets:
        return [replace(targets[unnamed[0]], name=names[0], display_name=display_name(names[0]))]
    for name in names:
        if name not in targets:
            near = nearest_name(name, [*targets], f"it has {', '.join(targets)}")
            raise InputError(f"target: {where} has no '{name}'; {near}")
    return [targets[name] for name in names]


def truth_of_labels(
    labels: Labels,
    target: Target,
    *,
    patients: Any = None,
    allow_shared_patients: bool = False,
    files: ImageFiles | None = None,
) -> Truth:
    """Return the truth of one finding.

    An image without a label is unknown. Images have the roles of the published split; without one
    all are test images.
    """
    tables, where = labels.tables, labels.where
    findings = of_reference(tables.findings)
    images = labels.facts.copy()
    ids = pd.Series(images.index, dtype=object)
    label = image_labels(ids, findings, target.any_of).to_numpy()
    images.insert(0, "label", label)
    stored = tables.images.set_index("image_id").reindex(images.index)
    for name in _FACTS:
        if name in stored:
            images[name] = stored[name].to_numpy()
    images["role"] = _roles(tables, ids)
    notes = _without_seen(images, labels.seen, where)
    is_stated = stored["patient_id_source"] != "assumed_image"
    images["patient_id"] = pd.Series(
        [  # a data set names its source before the patient
            str(patient).removeprefix(f"{source}:")
            for patient, source in zip(
                stored["patient_id"].to_numpy(object),
                stored["source"].to_numpy(object),
                strict=True,
            )
        ],
        images.index,
        dtype="string",
    ).where(is_stated & stored["patient_id"].notna())
    notes += set_patients(images, patients, labels.order, where, allowed=allow_shared_patients)
    notes += reading_notes([*tables.notes, *tables.label_notes("majority"), *tables.implied_notes])
    boxes = of_reference(tables.boxes)
    boxes = boxes.loc[boxes["finding"].isin(target.any_of), ["image_id", *EDGES]]
    boxes = boxes.astype({"image_id": object}).reset_index(drop=True)
    coverage = of_reference(tables.box_coverage)
    boxed = boxed_images(images["label"], findings, coverage, target.any_of)
    finding = target.name if is_named(target.name) else UNNAMED
    truth = Truth(
        images.sort_index(),
        boxes if len(boxes) else no_boxes(),
        boxed if len(boxes) else boxed[:0],
        finding=finding,
        title=display_name(finding),
        notes=tuple(notes),
        order=labels.order,
        categories=tables.categories,
    )
    return with_files(keep_false_alarms(truth, where), files or labels.files, tables.reading)


def _without_seen(images: pd.DataFrame, seen: pd.Series | None, where: str) -> list[Note]:
    """Leave test images out that a column ``seen`` says a system has seen, and note them."""
    if seen is None:
        return []
    unclear = ~seen.isin(["present", "absent"])
    if unclear.any():
        raise InputError(
            f"{where}: image '{seen.index[unclear][0]}': seen is neither 1 nor 0; write one of them"
        )
    is_left = (seen.reindex(images.index) == "present") & (images["role"] == "test")
    images.loc[is_left, "role"] = "unused"
    if is_left.any() and not (images["role"] == "test").any():
        raise InputError(f"{where}: every test image is 'seen'; give test images that none has")
    text = f"{counted(int(is_left.sum()), 'test image')} left out, because a system has seen them."
    return [Note(text)] if is_left.any() else []


def _roles(tables: SourceTables, ids: pd.Series) -> list[str]:
    """Return the role of each image; InputError for a published split without test images."""
    split = tables.split if tables.official.empty else tables.official
    if not tables.official.empty and not (split["role"] == "test").any():
        parts = ", ".join(sorted(set(split["role"])))
        raise InputError(
            f"{tables.root}: its split has no test images ({parts}); give the tested images and "
            "their labels alone"
        )
    role = dict(zip(split["image_id"], split["role"], strict=True))
    return [role.get(image_id, "test") for image_id in ids]


def keep_false_alarms(truth: Truth, where: str) -> Truth:
    """Return a truth that says how images without a lesion are listed, if it lists none.

    To remove the predictions for them would remove false alarms.
    """
    if truth.boxes.empty or (truth.images["label"] == 0).any():
        return truth
    way = COCO.shows_nothing if where.lower().endswith(".json") else EMPTY_EDGES
    remedy = (
        f"{where} lists no image without a lesion: if they show nothing, {way} there, so that "
        "boxes on it count as false"
    )
    return replace(truth, unlisted=remedy)


def _unread(folder: Path) -> str:
    """Return what a folder holds that is no truth, and what to do."""
    if other := line_of_other_kind(folder):
        return f"{folder}: {other}"
    return (
        f"{folder}: holds no labels of YOLO or Pascal VOC alone; make a data set of it by cxr "
        "prepare, and write data in place of truth"
    )
