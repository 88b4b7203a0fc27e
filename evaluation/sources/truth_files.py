"""Labels and true boxes in files, as a data set in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.contracts.box_readings import cut_boxes
from cxr_compare.data_prep.contracts.column_names import find_patient_columns
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.ids import positions
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.table_files import is_table_file, read_text_table, refuse_line
from cxr_compare.data_prep.contracts.tables import empty_table, frame_digest, typed_table
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.sources.patients import named_patients, with_named_patients
from cxr_compare.data_prep.sources.registry import (
    all_formats,
    format_of_file,
    likely_format,
)
from cxr_compare.data_prep.sources.source_tables import Format, ReadOptions
from cxr_compare.data_prep.store.dataset_info import DataSetInfo
from cxr_compare.evaluation.sources.imported import without_garbage_collector
from cxr_compare.evaluation.sources.known_images import ids_from_names

_SIZE_TYPES = {"width": "float64", "height": "float64"}


def _find_format(path: Path) -> Format | None:
    """Return the format that reads a file or folder of labels without images; None without one."""
    formats = all_formats()
    if path.is_dir():  # other formats get their files by name
        folders = (f for f in formats.values() if f.labels_alone and not f.takes_label_files)
        return next((found for found in folders if found.detect(path)), None)
    name = format_of_file(path)
    if name is None:
        return formats["coco"] if path.suffix.lower() == ".json" else None
    return formats[name] if formats[name].labels_alone else None


@without_garbage_collector()
def truth_set(
    path: Path,
    patients: Path | None,
    show: Callable[[str], None] = lambda line: None,
    boxes: Path | None = None,
    columns: tuple[str, ...] = (),
    targets: Mapping[str, Sequence[str]] | None = None,
) -> DataSet:
    """Read labels and true boxes from files as a data set in memory, without image files.

    `path` is a COCO annotation file, a file of VIA 2, a CSV file of labels or boxes, or a folder of
    YOLO labels or of COCO files. `patients` is a CSV file with the columns ``image_id,patient_id``,
    and `boxes` one of true boxes beside a CSV file of labels. `columns` are meanings of columns
    whose names are not recognised, such as ``label=opacity``; `show` is called with each line of a
    table of the recognised ones. `targets` has the findings of each target (what is evaluated) that
    the user defines; by default each finding is a target.

    Every image is a test image, unless the files themselves say which images are for training,
    validation and test. ``info.notes`` says how the files were read; a sentence that begins with
    ``WARNING: `` is a caution. An InputError is raised if the labels are malformed or missing, a
    box reaches beyond its image, or an image has no patient in `patients`.
    """
    if (path / "dataset.json").is_file():
        raise InputError(f"{path}: is a set that cxr prepare made; give it by --data")
    labels = _find_format(path)
    if labels is None or not path.exists():
        raise InputError(f"{path}: {_other_truth(path)}")
    label_files = (path,) if boxes is None else (path, boxes)
    if boxes is not None and labels.name != "table":
        raise InputError(f"{boxes}: boxes in a file of their own need labels in a CSV")
    if boxes is not None and not is_table_file(boxes):
        raise InputError(
            f"{boxes}: boxes beside labels are a table with the columns image_id,x1,y1,x2,y2; COCO "
            "and YOLO files hold the labels, too, so give them as --truth alone; other formats are "
            "read by cxr prepare, and its data set is given as --data"
        )
    options = ReadOptions(columns=columns)
    if labels.takes_label_files:
        options = replace(options, labels=label_files)
    tables = labels.read(path, options, show).with_targets(targets or {})
    # A comparison finds images of unknown patients itself, whatever the truth is.
    notes = [*tables.read_as, *(note for note in tables.notes if note not in tables.patient_notes)]
    for image, reason in tables.excluded[["path", "reason"]].itertuples(index=False):
        raise InputError(f"{path}: {image}: {reason}; correct it")
    if tables.boxes.empty and tables.findings.empty:
        raise InputError(f"{path}: holds neither boxes nor labels of images")
    images = tables.images.assign(path=None)
    all_columns = images.columns.union(empty_table("images").columns, sort=False)
    images = images.reindex(columns=all_columns).sort_values("image_id", ignore_index=True)
    if patients is not None:
        images = _with_patients(images, patients, path)
    typed_tables = {"images": typed_table(images, "images")}
    for name in ("findings", "boxes", "box_coverage"):
        rows = getattr(tables, name).drop(columns="implied", errors="ignore")
        typed_tables[name] = typed_table(rows[rows["reader"] == REFERENCE_READER], name)
    sizes = images.set_index("image_id")[["width", "height"]].astype(_SIZE_TYPES)
    of_boxes = sizes.reindex(typed_tables["boxes"]["image_id"].to_numpy()).to_numpy()
    typed_tables["boxes"], note = cut_boxes(typed_tables["boxes"], of_boxes)
    if note:
        notes.append(f"{path.name}: {note}")
    has_official_test = (tables.official["role"] == "test").any()
    roles = tables.official if has_official_test else tables.split
    split = images[["image_id"]].merge(roles, how="left").fillna({"role": "test"})
    split_ids = {"default": frame_digest(split, ["image_id", "role"])}
    info = DataSetInfo(
        name=path.stem,
        source_format=tables.format,
        source_root=str(path),
        targets=tables.targets,
        settings={},
        notes=tuple(notes),
        ids=DataSet.digests(*typed_tables.values()).with_values(split_ids=split_ids),
    )
    return DataSet(path, info, splits={"default": split}).with_tables(typed_tables)


def _other_truth(path: Path) -> str:
    """Return what a file or folder is that is no truth, and what to do."""
    reads = "COCO file, CSV, or folder of COCO or YOLO files"
    kind = format_of_file(path) if path.is_file() else likely_format(path)
    if kind is None:
        return f"no {reads}"
    folder = path.parent if path.is_file() else path
    name = "an XML file" if path.suffix.lower() == ".xml" else f"of the format {kind}"
    return (
        f"no {reads}, but {name}; make a data set of it with cxr prepare {folder} OUT, give it "
        "with --data OUT"
    )


def _with_patients(images: pd.DataFrame, patients: Path, path: Path) -> pd.DataFrame:
    """Add the patients of a list to the images; the list may contain further images."""
    rows = read_text_table(patients, ())
    columns = [str(column) for column in rows.columns]
    found = find_patient_columns(columns)
    if found is None:
        raise InputError(
            f"{patients}: needs the columns image_id and patient_id; it has {', '.join(columns)}"
        )
    rows = rows.rename(columns=dict(zip(found, ("image_id", "patient_id"), strict=True)))
    refuse_line(rows["patient_id"] == "", patients, "patient_id is empty; fill it in")
    ids = ids_from_names(rows["image_id"], {name: name for name in images["image_id"]})
    refuse_line(ids.duplicated(), patients, " appears more than once; keep one line", ids)
    row = positions(images["image_id"], ids)
    for image in images.loc[row < 0, "image_id"]:
        raise InputError(f"{patients}: has no line for image '{image}' of {path}; add it")
    named = named_patients(rows["patient_id"].iloc[row], str(patients)).reset_index(drop=True)
    return with_named_patients(images, named)
