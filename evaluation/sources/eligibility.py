"""Checks that systems predicted this data set, and that its test images are new to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.json_files import read_json
from cxr_compare.data_prep.contracts.tables import require_members
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.sources.eligible import unknown_training
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit

_SHOWN = 5  # largest number of patients that an error names


def describe_training_data(system: Predictions) -> dict[str, str] | str:
    """Describe in words the images and patients on which a detector or classifier was trained.

    Args:
        system: Stored predictions of the detector or classifier, which may list its training
            images.

    Returns:
        Texts such as ``{"data set": "rsna", "train": "900 images of 700 patients"}``: the names of
        the data sets; one text each for training (``train``) and validation (``val``) images; and
        under ``unknown``, for an ensemble, the names of its models without such a list. If no
        training images are listed, the text ``unknown`` instead of the dictionary.
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
    unknown_members = system.info.get("seen_unknown")
    if unknown_members:
        description["unknown"] = ", ".join(unknown_members)
    return description


def training_sets(system: Predictions) -> list[tuple[str, str]]:
    """Return the data sets on which a detector or classifier was trained.

    They are read from the predictions or, if these do not record them, from the training run that
    the predictions name.

    Args:
        system: Stored predictions of the detector or classifier.

    Returns:
        Pairs of a data set's name and its content id, a digest of the ids and pixels of its images.
        The list is empty if the data sets are unknown.
    """
    recorded = system.info.get("trained_on")
    if isinstance(recorded, list):
        return [(str(entry["name"]), str(entry["content_id"])) for entry in recorded]
    path = Path(str(system.info.get("run") or "")) / "run.json"
    run = read_json(path, "run") if system.info.get("run") and path.is_file() else {}
    return [(str(entry["name"]), str(entry["content_id"])) for entry in sets_of_run(run)]


def training_id(info: Mapping[str, Any]) -> str:
    """Return the id of the training run whose model made the predictions.

    An exported model has the id of the run that it was exported from. Neither device nor precision
    changes the id. Predictions that were imported from other software name no run.

    Args:
        info: Content of the file ``predictions.json`` in a folder of predictions, as a dictionary.

    Returns:
        The id of the training run, or the id of these predictions (``inference_id``) where the
        training run is not recorded.

    Example:
        >>> training_id({"training_id": None, "exported_from": "run-1", "inference_id": "x"})
        'run-1'
    """
    keys = ("training_id", "exported_from", "inference_id")
    return str(next((info[key] for key in keys if info.get(key)), None))


def sets_of_run(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the data sets of a training run and of the runs whose weights it started from.

    Args:
        run: Content of ``run.json``, the file in the folder of a training run, as a dictionary.

    Returns:
        Dictionaries with ``name`` and ``content_id`` (a digest of the images); the run's own data
        set is first.

    Example:
        >>> origin = {"data_set": {"name": "nih", "content_id": "1"}}
        >>> run = {"data_set": {"name": "rsna", "content_id": "2"}, "started_from": origin}
        >>> [entry["name"] for entry in sets_of_run(run)]
        ['rsna', 'nih']
    """
    data_set = run.get("data_set")
    origin = run.get("started_from")
    own_sets = []
    if data_set:
        own_sets = [{key: data_set[key] for key in ("name", "content_id")}]
    earlier_sets = sets_of_run(origin) if isinstance(origin, dict) else []
    return own_sets + [entry for entry in earlier_sets if entry not in own_sets]


def unknown_training_data(started: Mapping[str, Any]) -> list[str]:
    """Return the file of start weights whose training data are unknown.

    A training run may start from a file of weights, or from another run that itself started from
    such a file.

    Args:
        started: Content of ``run.json`` as a dictionary, or the dictionary of an earlier run under
            its key ``started_from``.

    Returns:
        File names of such weights; empty, or one name, because a run starts from one file.

    Example:
        >>> unknown_training_data({"started_from": {"weights": "a.pth", "trained_on": "unknown"}})
        ['a.pth']
        >>> unknown_training_data({"seed": 1})
        []
    """
    origin = started.get("started_from")
    if not origin:
        return []
    if origin.get("trained_on") == "unknown":
        return [PurePath(str(origin["weights"])).name]
    return unknown_training_data(origin)


def notes_on_seen_images(
    name: str, system: Predictions, split: LabelledSplit, image_ids: pd.Index
) -> list[Note]:
    """Refuse a detector or classifier that was trained on test images; note what is uncertain.

    Args:
        name: Name of the detector or classifier as shown to readers.
        system: Stored predictions of this detector or classifier, which may list its training
            images.
        split: The data set, with the finding to evaluate and the division of its images into
            validation and test images.
        image_ids: Ids of the test images under evaluation.

    Returns:
        Remarks for the report: on unknown training data, and on test images that look like copies
        of training images.

    Raises:
        InputError: The model was trained on a patient of the test images, or on an image with the
            same pixels as a test image.
    """
    seen = system.seen
    if seen is None:
        return [unknown_training([name])]
    unknown = system.info.get("seen_unknown") or []
    notes = [
        Note(
            "training",
            f"What {member} in {name} was trained on is unknown: test images may not be new to it.",
        )
        for member in unknown
    ]
    leaked = split.seen_by(system, image_ids)
    if len(leaked.by_id):
        patients = sorted(set(split.patients(leaked.by_id)))
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

    Args:
        name: Name of the detector or classifier as shown to readers.
        system: Stored predictions of this detector or classifier.
        dataset: The data set under evaluation.

    Raises:
        InputError: The predictions were made on image files without a data set, on another data
            set, or on images that this data set does not contain.
    """
    made_on = system.info.get("data_set")
    content_id = dataset.ids["content_id"]
    if not made_on:
        raise InputError(
            f"{system.folder}: predictions of {name} are of loose files, not of a data set; "
            f"predict {dataset.folder} with --data"
        )
    if made_on.get("content_id") != content_id:
        raise InputError(
            f"{system.folder}: predictions of {name} were made on a data set with content_id "
            f"{made_on.get('content_id')}, {dataset.folder} has {content_id}; predict again on "
            "this one"
        )
    require_members(system.images["image_id"], dataset.images, system.folder)
