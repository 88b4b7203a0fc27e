"""Checks that systems predicted this data set, and that its test images are new to them."""

from __future__ import annotations

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.tables import require_members
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.sources.eligible import unknown_training
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit

_SHOWN = 5  # largest number of patients that an error names


def describe_training_data(system: Predictions) -> dict[str, str] | str:
    """Describe in words the images and patients on which a detector or classifier was trained.

    The texts are such as ``{"data set": "rsna", "train": "900 images of 700 patients"}``: the names
    of the data sets; one text each for training (``train``) and validation (``val``) images; and
    under ``unknown``, for an ensemble, the names of its models without a list of training images.
    If no training images are listed, the text ``unknown`` is returned instead of the dictionary.
    """
    seen = system.seen
    if seen is None:
        return "unknown"
    counts = seen.groupby("role")[["image_id", "patient_id"]].nunique()
    description = {
        str(role): f"{row.image_id:,} images of {row.patient_id:,} patients"
        for role, row in zip(counts.index, counts.itertuples(), strict=True)
    }
    names = dict.fromkeys(title for title, _ in training_sets(system))
    if names:
        description = {"data set": " and ".join(names)} | description
    unknown_members = system.info.seen_unknown
    if unknown_members:
        description["unknown"] = ", ".join(unknown_members)
    return description


def training_sets(system: Predictions) -> list[tuple[str, str]]:
    """Return the data sets on which a detector or classifier was trained, as its record names them.

    Each is a name and a content id, a digest of the ids and pixels of its images. The list is empty
    if the data sets are unknown.
    """
    recorded = system.info.trained_on
    if recorded == "unknown":
        return []
    return [(each.name, each.content_id) for each in recorded]


def notes_on_seen_images(
    name: str, system: Predictions, split: LabelledSplit, image_ids: pd.Index
) -> list[Note]:
    """Refuse a detector or classifier that was trained on test images; note what is uncertain.

    The notes are on unknown training data, and on test images that look like copies of training
    images. An InputError is raised if the model was trained on a patient of the test images, or on
    an image with the same pixels as a test image.
    """
    seen = system.seen
    if seen is None:
        return [unknown_training([name])]
    unknown = system.info.seen_unknown
    notes = [
        Note(
            "training",
            f"What {member} in {name} was trained on is unknown: test images may not be new to it.",
        )
        for member in unknown
    ]
    leaked = split.seen_by(system, image_ids)
    if len(leaked.by_id):
        patients = sorted(set(split.truth.patients_of(leaked.by_id)))
        shown = ", ".join(patients[:_SHOWN])
        raise InputError(
            f"{system.folder}: {name} has seen {counted(len(patients), 'patient')} of "
            f"{counted(len(leaked.by_id), 'test image')} in training ({shown}); compare on a "
            "split whose test patients it has not seen"
        )
    if len(leaked.equal):
        raise InputError(
            f"{system.folder}: {leaked.describe_copies(name)[0]}; compare on images that it has "
            "not seen: cxr split keeps copies in one role"
        )
    warning = "Part of this test set may not be new to it: this is no sure external validation."
    return notes + [Note("copies", f"{line}. {warning}") for line in leaked.describe_copies(name)]


def check_data_set(name: str, system: Predictions, dataset: DataSet) -> None:
    """Refuse predictions that were made on images other than those of a data set.

    They are those of image files without a data set, of another data set, or of images that this
    data set does not contain.
    """
    made_on = system.info.data_set
    content_id = dataset.ids.content_id
    if made_on is None:
        raise InputError(
            f"{system.folder}: predictions of {name} are of loose files, not of a data set; "
            f"predict {dataset.folder} with --data"
        )
    if made_on.content_id != content_id:
        raise InputError(
            f"{system.folder}: predictions of {name} were made on a data set with content_id "
            f"{made_on.content_id}, {dataset.folder} has {content_id}; predict again on "
            "this one"
        )
    require_members(system.images["image_id"], dataset.images, system.folder)
