"""Patients of the images of a truth: read, filled in, and told apart by role."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, Remedy, as_typed, counted
from cxr_compare.data_prep.base.image_names import Names
from cxr_compare.data_prep.base.names import find_patient_columns
from cxr_compare.data_prep.base.tables import SYNTHETIC_PATIENT
from cxr_compare.data_prep.base.user_tables import read_text_table, refuse_line, sheet_of
from cxr_compare.data_prep.sources.patients import named_patients
from cxr_compare.evaluation.inputs.frames import (
    flat_array,
    ids_of_series,
)
from cxr_compare.evaluation.notes import Note


def set_patients(
    images: pd.DataFrame, patients: Any, order: pd.Series | None, where: str, *, allowed: bool
) -> tuple[Note, ...]:
    """Add the patient of each image, those of the user or the stated ones, and what that means."""
    if patients is not None:
        given = pd.Series(_patients_of(patients, images.index, order), images.index)
        if "patient_id" in images:
            _refuse_divided(images["patient_id"], given, where)
        images["patient_id"] = given
    notes = _fill_patients(images)
    images["synthetic"] = images["patient_id"].str.contains(SYNTHETIC_PATIENT)
    return notes + _shared_patients(images, where, allowed=allowed)


def _refuse_divided(stated: pd.Series, given: pd.Series, where: str) -> None:
    """Refuse patients that give images of one patient of the truth to several."""
    pairs = pd.DataFrame({"stated": stated.astype("string"), "given": given}).dropna()
    n_given = pairs.groupby("stated")["given"].nunique()
    if (n_given > 1).any():
        patient = n_given.index[n_given > 1][0]
        names = sorted(pairs.loc[pairs["stated"] == patient, "given"].astype(str).unique())
        raise InputError(
            f"patients: images of {names[0]!r} and {names[1]!r} are of one patient, {patient!r}, "
            f"in {where}; leave out the column of patients there, or patients"
        )


def _fill_patients(images: pd.DataFrame) -> tuple[Note, ...]:
    """Take images of unknown patients as patients of their own, and note that."""
    if "patient_id" not in images:
        images["patient_id"] = pd.Series(pd.NA, images.index, dtype="string")
    unknown = images["patient_id"].isna().to_numpy()
    patients = pd.Series(images.index, dtype=object)
    if not unknown.all():  # or an image would be one with a patient of its name
        patients = "image-" + patients
    patients = patients.where(unknown, images["patient_id"].to_numpy())
    images["patient_id"] = patients.astype(str).to_numpy()
    advice = (
        " Name the patients in a column patient_id of the truth, or in a table of images and "
        f"patients, by {as_typed({'patients': 'TABLE'})}."
    )
    return tuple(notes_on_unknown(unknown, "image", advice))


def notes_on_unknown(unknown: npt.NDArray[np.bool_], noun: str, advice: str = "") -> list[Note]:
    """Note that the patients of all images, or of some, are unknown."""
    if unknown.all():
        text = (
            "Intervals are by image, because no patient is known. They are too narrow where "
            f"patients have several images.{advice}"
        )
        return [Note(text, "by_image")]
    if not unknown.any():
        return []
    text = (
        f"The patients of {counted(int(unknown.sum()), noun)} are unknown, and each of these "
        "images counts as a patient of its own."
    )
    return [Note(text, "assumption")]


def _shared_patients(images: pd.DataFrame, where: str, *, allowed: bool) -> tuple[Note, ...]:
    """Refuse, or note, patients of test images who have images in another role."""
    patients = images["patient_id"]
    tested = set(patients[images["role"] == "test"].unique())
    others = set(patients[images["role"].isin(("val", "train"))].unique())
    shared = sorted(tested & others)
    if not shared:
        return ()
    if not allowed:
        raise InputError(
            f"{where}: patient {shared[0]!r} has test images and images in another role; give each "
            "patient one role",
            [Remedy("it is so on purpose", {"allow_shared_patients": True})],
        )
    text = (
        f"{counted(len(shared), 'patient')} of test images also in validation or training: the "
        "figures are too good for new patients."
    )
    return (Note(text, "copies"),)


def _patients_of(patients: Any, ids: pd.Index, order: pd.Series | None) -> npt.NDArray[Any]:
    """Return the patient of each image, NaN for nobody: by id, or an array in the order of truth.

    A file names a patient for every image.
    """
    where = "patients"
    needed = 1  # a table in memory may lack patients, as an array may
    if isinstance(patients, str | Path):
        where, needed = str(patients), 2
        patients = read_text_table(Path(patients), ())
    elif isinstance(patients, pd.DataFrame):
        patients = sheet_of(patients, where)
    if isinstance(patients, pd.DataFrame):
        header = [*patients.columns]
        columns = find_patient_columns(header)
        if columns is None:
            raise InputError(f"{where}: needs image_id and patient_id; it has {', '.join(header)}")
        image, patient = columns
        for column in columns[:needed]:
            reason = f"{column} is missing; fill it in"
            refuse_line(patients[column] == "", Path(where), reason)
        reason = "; the image appears more than once: keep one"
        refuse_line(patients[image].duplicated(), Path(where), reason, patients[image])
        by_name = pd.Series(patients[patient].to_numpy(), patients[image])
        patients = _by_image(by_name, ids, where)
    elif isinstance(patients, pd.Series):
        patients = patients.set_axis(ids_of_series(patients, order, "patients"))
        twice = patients.index.duplicated()
        if twice.any():
            raise InputError(f"patients: image '{patients.index[twice][0]}' appears more than once")
        patients = _by_image(patients, ids, where)
    else:
        array = flat_array(patients, "patients")
        if order is None or len(array) != len(ids):
            raise InputError(
                f"patients: has {len(array)} values, and truth has {len(ids)} images; give a frame "
                "with image_id and patient_id, or one patient for each image of a truth in memory"
            )
        patients = pd.Series(array, ids)
    return named_patients(patients, where).to_numpy()


def _by_image(patients: pd.Series, ids: pd.Index, where: str) -> pd.Series:
    """Return the patient of each image; names in the list may have an ending or a folder."""
    row_of, _ = Names(patients.index).match(ids, where, "the list of patients")
    return patients[[row_of[image_id] for image_id in ids]].set_axis(ids)
