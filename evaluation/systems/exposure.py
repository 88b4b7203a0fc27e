"""What a system has learned from: never a test image, and at best no image that chooses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep.contracts.tables import InputError, read_table
from data_prep.contracts.text_lookup import is_member
from data_prep.store.dataset import DataSet, Target
from data_prep.store.predictions import Predictions
from evaluation.decisions.system_output import patients_of

SEEN_FILE = "seen.parquet"
"""Beside predictions: every image used to fit or to select, with its patient and role."""
_SHOWN = 5


def trained_on(system: Predictions) -> dict[str, str] | str:
    """What a system is known to have learned from, in words, by role.

    Args:
        system: Its predictions.

    Returns:
        How many images of how many patients it was fitted and selected on, or ``"unknown"``.
    """
    seen = _seen(system)
    if seen is None:
        return "unknown"
    counts = seen.groupby("role")[["image_id", "patient_id"]].nunique()
    known = {
        str(role): f"{row.image_id:,} images of {row.patient_id:,} patients"
        for role, row in zip(counts.index, counts.itertuples(), strict=True)
    }
    unknown = system.info.get("seen_unknown")  # members of an ensemble
    return known | {"unknown": ", ".join(unknown)} if unknown else known


def refuse_seen(name: str, system: Predictions, dataset: DataSet, image_ids: pd.Index) -> list[str]:
    """Refuse test images of patients that a system was fitted or selected on.

    Args:
        name: Display name, for messages.
        system: Its predictions.
        dataset: Where the images are.
        image_ids: Of test.

    Returns:
        Notes on what is not known.

    Raises:
        InputError: It has seen such a patient.
    """
    seen = _seen(system)
    if seen is None:
        return [f"What {name} was trained on is unknown: its test images may not be new to it."]
    unknown = system.info.get("seen_unknown") or []
    notes = [
        f"What {member} in {name} was trained on is unknown: test images may not be new to it."
        for member in unknown
    ]
    patients = patients_of(dataset.images, image_ids)
    leaked = _used(seen[seen["role"].isin(["train", "val"])], image_ids, patients)
    if leaked.any():
        shown = ", ".join(sorted(set(patients[leaked]))[:_SHOWN])
        raise InputError(
            f"{system.folder}: {name} has seen {len(set(patients[leaked]))} patients of "
            f"{int(leaked.sum())} test images in training ({shown}); compare on a split whose "
            "test patients it has not seen"
        )
    return notes


def learned_validation(
    name: str, system: Predictions, dataset: DataSet, target: Target, split: str
) -> list[str]:
    """Tell of validation images that a system was fitted on: it knows them too well to choose on.

    The figures on test stay honest, but thresholds and calibration are of scores surer than those
    of new images: they miss the sensitivity or specificity that they were chosen for. An ensemble
    of the models of a cross-validation has such images by its making, so this is told, not
    refused.

    Args:
        name: Display name.
        system: Its predictions.
        dataset: Labels and split.
        target: What is judged.
        split: Name of the split whose ``val`` images choose.

    Returns:
        A note, or nothing.
    """
    seen = _seen(system)
    if seen is None:
        return []
    known = dataset.labels(target).reindex(dataset.image_ids("val", split)).dropna().index
    fitted = _used(seen[seen["role"] == "train"], known, patients_of(dataset.images, known))
    if not fitted.any():
        return []
    return [
        f"{name} learned from patients of {int(fitted.sum())} of the {len(known)} validation "
        f"images of split '{split}': its thresholds and calibration are of scores surer than on "
        "new images."
    ]


def _seen(system: Predictions) -> pd.DataFrame | None:
    path = system.folder / SEEN_FILE
    return read_table(path, "seen") if path.is_file() else None


def _used(
    seen: pd.DataFrame, image_ids: pd.Index, patients: npt.NDArray[np.str_]
) -> npt.NDArray[np.bool_]:
    """Which images, or whose patients, are among those seen."""
    known = np.isin(patients, seen["patient_id"].to_numpy(dtype=str))
    return known | is_member(image_ids, seen["image_id"])
