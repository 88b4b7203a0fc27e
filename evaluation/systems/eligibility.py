"""Checks that systems predicted this data set, and that its test images are new to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.json_files import read_json
from cxr_compare.data_prep.contracts.tables import require_members
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.data_prep.work.store_addresses import path_from_record
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.systems.labelled_split import LabelledSplit

_SHOWN = 5  # largest number of patients that an error names


def describe_training_data(system: Predictions) -> dict[str, str] | str:
    """Describe what a system was trained on.

    Args:
        system: Predictions of the system.

    Returns:
        Texts on the numbers of images and patients by role, and on the data sets; ``unknown`` if
        nothing is known.
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
    """Return the data sets that a system was trained on, as pairs of name and content id.

    A content id is a digest of the ids and pixels of a data set's images.

    If the predictions do not record the data sets, these are read from the run. The list is empty
    if they are unknown.

    Args:
        system: Predictions of the system.

    Returns:
        Pairs of name and content id; empty if unknown.
    """
    recorded = system.info.get("trained_on")
    if isinstance(recorded, list):
        return [(str(entry["name"]), str(entry["content_id"])) for entry in recorded]
    path = path_from_record(str(system.info.get("run") or "")) / "run.json"
    run = read_json(path, "run") if system.info.get("run") and path.is_file() else {}
    return [(str(entry["name"]), str(entry["content_id"])) for entry in sets_of_run(run)]


def training_id(info: Mapping[str, Any]) -> str:
    """Return the id of the training behind predictions; an exported model has the id of its run.

    Neither device nor precision changes the id. Imported predictions have only an inference id.

    Args:
        info: Content of ``predictions.json``.

    Returns:
        The id of the training, or the inference id where the training is not recorded.

    Example:
        >>> training_id({"training_id": None, "exported_from": "run-1", "inference_id": "x"})
        'run-1'
    """
    keys = ("training_id", "exported_from", "inference_id")
    return str(next((info[key] for key in keys if info.get(key)), None))


def sets_of_run(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the data sets of a run and of the runs that it started from.

    Args:
        run: Content of ``run.json``.

    Returns:
        Records with ``name`` and ``content_id``; the first record is of the run's own data set.

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
    """Name the weights of unknown training that a run began with, directly or through other runs.

    Args:
        started: Content of ``run.json``, or the record of a run in it.

    Returns:
        File names of the weights; at most one, because a run begins with one file.

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
    """Refuse a system that was trained on test images; return notes if this cannot be excluded.

    Args:
        name: Display name of the system.
        system: Predictions of the system.
        split: Data set, target, and the split whose test images are evaluated.
        image_ids: Ids of these test images.

    Returns:
        Notes on training data that are unknown, and on images that may be copies.

    Raises:
        InputError: The system was trained on patients or copies of the test images.
    """
    seen = system.seen
    if seen is None:
        text = f"What {name} was trained on is unknown: its test images may not be new to it."
        return [Note("training", text)]
    unknown = system.info.get("seen_unknown") or []
    notes = [
        Note(
            "training",
            f"What {member} in {name} was trained on is unknown: test images may not be new to it.",
        )
        for member in unknown
    ]
    here = split.dataset.ids["content_id"]
    if "pixel_sha256" not in seen and any(made_on != here for _, made_on in training_sets(system)):
        notes.append(
            Note(
                "training",
                f"{name} was trained by an older version, which kept no fingerprints of its "
                "images: the same images under other ids are not found.",
            )
        )
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
            "not seen: cxr transfer leaves these out, cxr split keeps copies in one role"
        )
    warning = "Part of this test set may not be new to it: this is no sure external validation."
    return notes + [Note("copies", f"{line}. {warning}") for line in leaked.describe_copies(name)]


def check_data_set(name: str, system: Predictions, dataset: DataSet) -> None:
    """Refuse predictions that were not made on a data set.

    Args:
        name: Display name of the system.
        system: Predictions of the system.
        dataset: The data set under evaluation.

    Raises:
        InputError: The predictions are of loose files, of another data set, or of images that the
            data set does not contain.
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
