"""Format `rsna`: the RSNA Pneumonia Detection Challenge (2018), stage 2, as on Kaggle.

Its column ``patientId`` names an image, not a patient. The patients come from the public mapping to
NIH ChestX-ray14 (``rsna_to_nih.csv`` in the same folder).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.json_files import read_json
from cxr_compare.data_prep.contracts.schemas import SYNTHETIC
from cxr_compare.data_prep.contracts.table_files import read_text_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.contracts.text_columns import refuse_line, to_numbers
from cxr_compare.data_prep.formats.folder_scan import has_match, require_unique_ids
from cxr_compare.data_prep.formats.nih import SIDE, find_entries, read_field_sizes
from cxr_compare.data_prep.formats.source import (
    Format,
    SourceBuilder,
    SourceTables,
    boxes_from_sizes,
    reference_rows,
)
from cxr_compare.data_prep.formats.views import normal_views

CLASSES = {
    "Normal": "normal",
    "No Lung Opacity / Not Normal": "not_normal",
    "Lung Opacity": "lung_opacity",
}
FINDING = "lung_opacity"
TRAIN_IMAGES = "stage_2_train_images"
TEST_IMAGES = "stage_2_test_images"
LABELS = "stage_2_train_labels.csv"
CLASS_INFO = "stage_2_detailed_class_info.csv"
MAPPING = "rsna_to_nih.csv"
_PHANTOM = "synth.json"
_BOX = ["x", "y", "width", "height"]
# Mean squared grey-level difference above which the public match of an RSNA image to an NIH image
# is doubtful. 98 of 26,684 matches exceed it; all others are far below.
_DOUBTFUL_MSE = 20.0


def _read_rsna(builder: SourceBuilder) -> SourceTables:
    """Join the tables of the source and exclude images that contradict themselves."""
    source = builder.root
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
    images["source"] = SYNTHETIC if (source / _PHANTOM).exists() else "rsna"
    if classes is None:
        notes.append(
            f"{CLASS_INFO} is missing, so 'normal' and 'not normal' cannot be distinguished"
        )
    else:
        images = images.merge(classes.drop_duplicates("image_id"), on="image_id", how="left")
    images = _with_patients(images, mapping, test["image_id"], builder)
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
    return builder.build(
        images,
        reference_rows(first_rows["image_id"], FINDING, state=state, origin="consensus"),
        {"opacity": {"any_of": [FINDING], "display_name": "Lung opacity"}},
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
        Columns ``image_id, x_class``.
    """
    text = read_text_table(path, ("patientId", "class"))
    classes = text["class"].map(CLASSES)
    refuse_line(classes.isna(), path, f"; expected one of {', '.join(CLASSES)}", text["class"])
    return pd.DataFrame({"image_id": text["patientId"], "x_class": classes.astype(TEXT)})


def read_mapping(source: Path) -> pd.DataFrame | None:
    """Read the mapping from RSNA images to NIH images; return None if there is no such file.

    The patient ids are those of NIH, or for synthetic images those of the synthetic patients.

    Args:
        source: Folder of the RSNA challenge.
    """
    path = source / MAPPING
    space = "nih"
    if (source / _PHANTOM).exists():
        space = f"phantom-{read_json(source / _PHANTOM, 'synth')['arguments']['seed']}"
    if not path.exists():
        return None
    text = read_text_table(path, ("patientId", "nih_image"))
    ids = text["patientId"]
    refuse_line(ids.duplicated(), path, " is mapped twice; keep one line", ids)
    doubtful = text["nih_image"].duplicated(keep=False)
    if "mse" in text.columns:
        # The difference tells which match of an NIH image that is named twice is right: one is
        # near 1 and the other near 90, or both are one image that was published twice.
        doubtful = ~(to_numbers(text["mse"], path, "mse") <= _DOUBTFUL_MSE)
    return pd.DataFrame(
        {
            "image_id": text["patientId"],
            "nih_image": text["nih_image"],
            "patient_id": f"{space}:" + text["nih_image"].str.split("_", n=1).str[0],
            "patient_id_source": np.where(doubtful, "mapped_unverified", "mapped"),
        }
    ).reset_index(drop=True)


def _find_headers(source: Path) -> Path | None:
    """Find the public table of RSNA's DICOM headers, ``*dicom_headers.csv`` or ``.csv.gz``."""
    paths = source.glob("*dicom_headers.csv*")
    return min((p for p in paths if p.name.endswith((".csv", ".csv.gz"))), default=None)


def read_header_table(path: Path) -> pd.DataFrame:
    """Read view, sex and age of each image from the public table of DICOM headers.

    PixelSpacing is ignored: it is that of NIH's original file and not of the image with 1024 px.

    Args:
        path: Path of the public table.
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


def _with_patients(
    images: pd.DataFrame,
    mapping: pd.DataFrame | None,
    unlabelled: pd.Series,
    builder: SourceBuilder,
) -> pd.DataFrame:
    """Add ``patient_id`` and its source; note the labelled images of unknown patients."""
    columns = ["image_id", "patient_id", "patient_id_source"]
    if mapping is None:
        mapping = pd.DataFrame(columns=columns, dtype=TEXT)
    images = images.merge(mapping[columns], on="image_id", how="left")
    unknown = images["patient_id"].isna()
    images.loc[unknown, "patient_id"] = "rsna:" + images.loc[unknown, "image_id"]
    images.loc[unknown, "patient_id_source"] = "assumed_image"
    n_labelled = int((unknown & ~is_member(images["image_id"], unlabelled)).sum())
    if n_labelled:
        builder.warn_of_unknown_patients(
            f"the patient of {counted(n_labelled, 'image')} is not known, so each",
            remedy=f"Put the public {MAPPING} (columns patientId, nih_image) into the folder",
        )
    n_doubtful = int((images["patient_id_source"] == "mapped_unverified").sum())
    if n_doubtful:
        builder.notes.append(
            f"{counted(n_doubtful, 'image', 'have')} a doubtful patient and are used for training "
            "only"
        )
    return images


RSNA = Format(
    name="rsna",
    title="RSNA Pneumonia Detection Challenge 2018",
    folder="`stage_2_train_labels.csv`; pixels in `stage_2_train_images/`",
    detect=has_match(TRAIN_IMAGES, LABELS),
    read=_read_rsna,
    sources=("kaggle.com/c/rsna-pneumonia-detection-challenge",),
)
