"""The CSV files of the RSNA Pneumonia Detection Challenge, and the public ones that go with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.formats.source import first_line, normal_views, read_text_csv, to_numbers

CLASSES = {
    "Normal": "normal",
    "No Lung Opacity / Not Normal": "not_normal",
    "Lung Opacity": "lung_opacity",
}
# Mean squared grey-level difference above which the public match of an RSNA image to an NIH image
# is doubtful: 98 of 26,684; the others lie far below.
DOUBTFUL_MSE = 20.0
BOX_EDGES = ["x", "y", "width", "height"]


def read_labels(path: Path) -> pd.DataFrame:
    """Read ``stage_2_train_labels.csv``.

    Returns:
        ``image_id, x, y, width, height`` (px, NaN where empty), ``Target`` (as written), one row a
        box or negative image, in the order of the file.

    Raises:
        InputError: A column is missing or a cell is not a number.
    """
    text = read_text_csv(path, ("patientId", *BOX_EDGES, "Target"))
    numbers = {c: to_numbers(text[c], path, c) for c in (*BOX_EDGES, "Target")}
    labels = pd.DataFrame({"image_id": text["patientId"], **numbers})
    nameless = labels["image_id"] == ""
    if nameless.any():
        raise InputError(f"{path}: line {first_line(nameless)}: patientId is empty; fill it in")
    return labels.reset_index(drop=True)


def read_classes(path: Path) -> pd.DataFrame:
    """Read ``stage_2_detailed_class_info.csv`` as ``image_id, x_class``, one row a row.

    Raises:
        InputError: A column is missing or a class is unknown.
    """
    text = read_text_csv(path, ("patientId", "class"))
    classes = text["class"].map(CLASSES)
    strange = classes.isna()
    if strange.any():
        raise InputError(
            f"{path}: line {first_line(strange)}: class={text['class'][strange].iloc[0]!r}; "
            f"expected one of {', '.join(CLASSES)}"
        )
    return pd.DataFrame({"image_id": text["patientId"], "x_class": classes.astype("str")})


def read_mapping(path: Path, name_space: str = "nih") -> pd.DataFrame:
    """Read the mapping from RSNA images to NIH images.

    Args:
        path: CSV with ``patientId``, ``nih_image`` (``00019124_092.png``) and, where there is
            one, ``mse``, the difference between the matched pictures.
        name_space: Put before the patient's number.

    Returns:
        ``image_id, nih_image, patient_id`` (``nih:00019124``), ``patient_id_source`` (``mapped``,
        or ``mapped_unverified`` where the match is doubtful), one row an image.

    Raises:
        InputError: An image is mapped twice, or a column is missing.
    """
    text = read_text_csv(path, ("patientId", "nih_image"))
    twice = text["patientId"].duplicated()
    if twice.any():
        name = text["patientId"][twice].iloc[0]
        raise InputError(
            f"{path}: line {first_line(twice)}: patientId {name!r} is mapped twice; keep one line"
        )
    claimed_twice = text["nih_image"].duplicated(keep=False)
    if "mse" in text.columns:
        # With the difference known, a picture claimed twice is told by it: one of a pair is
        # near 1 and the other near 90, or both are one picture, published twice.
        mse = to_numbers(text["mse"], path, "mse")
        doubtful = ~(mse <= DOUBTFUL_MSE)
    else:
        doubtful = claimed_twice
    return pd.DataFrame(
        {
            "image_id": text["patientId"],
            "nih_image": text["nih_image"],
            "patient_id": f"{name_space}:" + text["nih_image"].str.split("_", n=1).str[0],
            "patient_id_source": np.where(doubtful, "mapped_unverified", "mapped"),
        }
    ).reset_index(drop=True)


def find_headers(folder: Path) -> Path | None:
    """Find the public table of RSNA's DICOM headers, ``*dicom_headers.csv`` or ``.csv.gz``."""
    found = [p for p in folder.glob("*dicom_headers.csv*") if p.name.endswith((".csv", ".csv.gz"))]
    return min(found, default=None)


def read_headers(path: Path) -> pd.DataFrame:
    """Read what the DICOM headers say of each image's person and view.

    Its PixelSpacing is left out: that of NIH's original file, not of the 1024 px one.

    Args:
        path: CSV with ``PatientID`` (which here names an image) and, where there are any,
            ``ViewPosition, PatientSex, PatientAge`` (years).

    Returns:
        ``image_id, view, sex, age_years``, one row an image.

    Raises:
        InputError: An image stands twice with different values, or an age is not a number.
    """
    text = read_text_csv(path, ("PatientID",))
    for column in {"ViewPosition", "PatientSex", "PatientAge"} - set(text.columns):
        text[column] = ""
    people = pd.DataFrame(
        {
            "image_id": text["PatientID"],
            "view": normal_views(text["ViewPosition"]),
            "sex": text["PatientSex"].str.upper().where(text["PatientSex"] != ""),
            "age_years": to_numbers(text["PatientAge"], path, "PatientAge"),
        }
    ).drop_duplicates()
    twice = people["image_id"].duplicated()
    if twice.any():
        name = people["image_id"][twice].iloc[0]
        raise InputError(
            f"{path}: line {first_line(twice)}: PatientID {name!r} stands twice with different "
            "values; keep one line"
        )
    return people.reset_index(drop=True)
