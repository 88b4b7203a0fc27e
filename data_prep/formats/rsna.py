"""Format `rsna`: the RSNA Pneumonia Detection Challenge (2018), as on Kaggle or as RSNA has it.

Kaggle's layout (stage 2) is read here, and RSNA's own in `data_prep.formats.rsna_release`. Kaggle's
column ``patientId`` names an image, not a patient. The patients come from the public mapping to NIH
ChestX-ray14 (``rsna_to_nih.csv`` in the same folder).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.schemas import SYNTHETIC
from cxr_compare.data_prep.contracts.table_files import read_text_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.contracts.text_columns import refuse_line, to_numbers
from cxr_compare.data_prep.formats.folder_scan import has_match, require_unique_ids
from cxr_compare.data_prep.formats.nih import SIDE, find_entries, read_field_sizes
from cxr_compare.data_prep.formats.rsna_classes import CLASSES, FINDING, TARGETS
from cxr_compare.data_prep.formats.rsna_mapping import (
    MAPPING,
    PHANTOM,
    read_mapping,
    with_patients,
)
from cxr_compare.data_prep.formats.rsna_release import ANNOTATIONS, is_release, read_release
from cxr_compare.data_prep.formats.source import (
    Format,
    SourceBuilder,
    SourceTables,
    boxes_from_sizes,
    reference_rows,
)
from cxr_compare.data_prep.formats.views import normal_views

TRAIN_IMAGES = "stage_2_train_images"
TEST_IMAGES = "stage_2_test_images"
LABELS = "stage_2_train_labels.csv"
CLASS_INFO = "stage_2_detailed_class_info.csv"
_BOX = ["x", "y", "width", "height"]


def _read_rsna(builder: SourceBuilder) -> SourceTables:
    """Join the tables of the source and exclude images that contradict themselves."""
    source = builder.root
    if is_release(source) and not (source / TRAIN_IMAGES).exists():
        return read_release(builder)
    notes = builder.notes
    exclusions = builder.exclusions
    labels = _read_labels(source / LABELS)
    train = _train_images(source, labels)
    test = _list_images(source, TEST_IMAGES)
    classes = read_classes(source / CLASS_INFO) if (source / CLASS_INFO).exists() else None
    mapping = read_mapping(source)
    entries = find_entries(source)
    sizes = read_field_sizes(entries) if entries else None
    header_table = _find_headers(source)
    people = read_header_table(header_table) if header_table else None
    rows = builder.drop_repeats(labels, LABELS)
    _exclude_contradictory(builder, rows, train, classes)
    images = exclusions.keep(
        pd.concat([train, test], ignore_index=True).drop_duplicates("image_id")
    )
    is_synthetic = (source / PHANTOM).exists()
    images["source"] = SYNTHETIC if is_synthetic else "rsna"
    if classes is None:
        notes.append(
            f"{CLASS_INFO} is missing, so 'normal' and 'not normal' cannot be distinguished"
        )
    else:
        images = images.merge(classes.drop_duplicates("image_id"), on="image_id", how="left")
    images = with_patients(
        images,
        mapping,
        test["image_id"],
        builder,
        f"Put the public {MAPPING} (columns patientId, nih_image) into the folder",
    )
    if sizes is not None and mapping is not None:
        sizes = mapping[["image_id", "nih_image"]].merge(sizes, on="nih_image")
        images = images.merge(sizes.drop(columns="nih_image"), on="image_id", how="left")
    if people is not None:
        images = images.merge(people, on="image_id", how="left")
    if images["path"].isna().all():
        notes.append(
            f"{TRAIN_IMAGES} is missing, so predictions can only be evaluated on this data set"
        )
        images["height"] = images["width"] = pd.array([SIDE] * len(images), dtype="Int64")
    rows = exclusions.keep(rows)
    first_rows = rows.drop_duplicates("image_id")
    boxed = rows[rows["x"].notna()]
    # All lesions are boxed, except on a positive image that came without any box.
    complete = rows[(rows["Target"] == 0) | rows["x"].notna()].drop_duplicates("image_id")
    state = np.where(first_rows["Target"] == 1, "present", "absent")
    origin = SYNTHETIC if is_synthetic else "consensus"
    return builder.build(
        images,
        reference_rows(first_rows["image_id"], FINDING, state=state, origin=origin),
        TARGETS,
        files=train.dropna(),
        boxes=boxes_from_sizes(boxed["image_id"], FINDING, *(boxed[side] for side in _BOX)),
        box_coverage=reference_rows(complete["image_id"], FINDING, coverage="all"),
        split=test[["image_id"]].assign(role="unused"),
    )


def _read_labels(path: Path) -> pd.DataFrame:
    """Read ``stage_2_train_labels.csv``."""
    text = read_text_table(path, ("patientId", *_BOX, "Target"))
    numbers = {column: to_numbers(text[column], path, column) for column in (*_BOX, "Target")}
    refuse_line(text["patientId"] == "", path, "patientId is empty; fill it in")
    return pd.DataFrame({"image_id": text["patientId"], **numbers}).reset_index(drop=True)


def read_classes(path: Path) -> pd.DataFrame:
    """Read the class of each image, such as "Lung Opacity" or "Normal".

    Args:
        path: File ``stage_2_detailed_class_info.csv`` of the RSNA challenge.

    Returns:
        Table with columns ``image_id`` and ``x_class``, one row for each image.
    """
    text = read_text_table(path, ("patientId", "class"))
    classes = text["class"].map(CLASSES)
    refuse_line(classes.isna(), path, f"; expected one of {', '.join(CLASSES)}", text["class"])
    return pd.DataFrame({"image_id": text["patientId"], "x_class": classes.astype(TEXT)})


def _find_headers(source: Path) -> Path | None:
    """Find the public table of RSNA's DICOM headers, ``*dicom_headers.csv`` or ``.csv.gz``."""
    paths = source.glob("*dicom_headers.csv*")
    return min((p for p in paths if p.name.endswith((".csv", ".csv.gz"))), default=None)


def read_header_table(path: Path) -> pd.DataFrame:
    """Read view, sex and age of each image from the public table of DICOM headers.

    PixelSpacing is ignored: it is that of NIH's original file and not of the image with 1024 px.

    Args:
        path: Path of the table, a CSV file that users published on Kaggle.

    Returns:
        Table with one row for each image, and columns for its id, view, sex and age.
    """
    text = read_text_table(path, ("PatientID",), ("ViewPosition", "PatientSex", "PatientAge"))
    people = pd.DataFrame(
        {
            "image_id": text["PatientID"],
            "view": normal_views(text["ViewPosition"]),
            "sex": text["PatientSex"].str.upper().where(text["PatientSex"] != ""),
            "age_years": to_numbers(text["PatientAge"], path, "PatientAge"),
        }
    ).drop_duplicates()
    ids = people["image_id"].rename("PatientID")
    reason = " appears more than once with different values; keep one line"
    refuse_line(ids.duplicated(), path, reason, ids)
    return people.reset_index(drop=True)


def _train_images(source: Path, labels: pd.DataFrame) -> pd.DataFrame:
    """List ``image_id, path`` of the labelled images; the path is missing without a folder."""
    if not (source / TRAIN_IMAGES).exists() and not (source / TEST_IMAGES).exists():
        ids = labels["image_id"].drop_duplicates().reset_index(drop=True)
        if ids.empty:
            raise InputError(f"{source / LABELS}: lists no image")
        return pd.DataFrame({"image_id": ids, "path": None}, dtype=TEXT)
    train = _list_images(source, TRAIN_IMAGES)
    if train.empty:
        raise InputError(f"{source / TRAIN_IMAGES}: holds no images; unpack the download there")
    return train


def _list_images(source: Path, folder: str) -> pd.DataFrame:
    """List ``image_id, path`` of all files in a folder; their content is not read."""
    names: list[str] = []
    if (source / folder).is_dir():
        with os.scandir(source / folder) as entries:
            names = sorted(e.name for e in entries if e.is_file() and not e.name.startswith("."))
    columns = {"image_id": [Path(n).stem for n in names], "path": [f"{folder}/{n}" for n in names]}
    images = pd.DataFrame(columns, dtype=TEXT)
    require_unique_ids(images, source)
    return images


def _exclude_contradictory(
    builder: SourceBuilder, rows: pd.DataFrame, train: pd.DataFrame, classes: pd.DataFrame | None
) -> None:
    """Exclude images whose labels contradict each other; a wrong box is a wrong label."""
    exclusions = builder.exclusions
    ids = rows["image_id"]
    edges = rows[_BOX]
    exclusions.add(train.loc[~is_member(train["image_id"], ids), "image_id"], f"no row in {LABELS}")
    exclusions.add(ids[~is_member(ids, train["image_id"])], f"row in {LABELS}, but no image file")
    exclusions.add(ids[~rows["Target"].isin([0, 1])], "Target is neither 0 nor 1")
    targets = rows.groupby("image_id")["Target"].nunique()
    exclusions.add(targets.index[targets > 1], "Target is both 0 and 1")
    has_box = edges.notna().any(axis=1)
    exclusions.add(ids[(rows["Target"] == 0) & has_box], "Target 0 with a box")
    builder.exclude_invalid_boxes(
        boxes_from_sizes(ids, FINDING, *(rows[s] for s in _BOX))[has_box.to_numpy()]
    )
    if classes is None:
        return
    kinds = classes.drop_duplicates()
    exclusions.add(
        kinds.loc[kinds["image_id"].duplicated(), "image_id"], f"two classes in {CLASS_INFO}"
    )
    opaque = ids.map(kinds.drop_duplicates("image_id").set_index("image_id")["x_class"])
    disagree = opaque.notna() & ((opaque == "lung_opacity") != (rows["Target"] == 1))
    exclusions.add(ids[disagree], f"Target disagrees with {CLASS_INFO}")


RSNA = Format(
    name="rsna",
    title="RSNA Pneumonia Detection Challenge 2018",
    folder="Kaggle's `stage_2_train_labels.csv`, pixels in `stage_2_train_images/`; or RSNA's own "
    "adjudicated annotations (JSON) with folders of studies",
    detect=has_match(TRAIN_IMAGES, LABELS, ANNOTATIONS),
    read=_read_rsna,
    sources=(
        "kaggle.com/c/rsna-pneumonia-detection-challenge",
        "rsna.org/rsnai/ai-image-challenge/rsna-pneumonia-detection-challenge-2018",
    ),
)
