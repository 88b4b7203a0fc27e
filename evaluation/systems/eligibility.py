"""Who may be compared on what: the same images for all, none of which a system has learned from."""

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

_SHOWN = 5


def describe_training_data(system: Predictions) -> dict[str, str] | str:
    """What a system is known to have learned from, in words, by role."""
    seen = system.seen
    if seen is None:
        return "unknown"
    counts = seen.groupby("role")[["image_id", "patient_id"]].nunique()
    known = {
        str(role): f"{row.image_id:,} images of {row.patient_id:,} patients"
        for role, row in zip(counts.index, counts.itertuples(), strict=True)
    }
    if names := dict.fromkeys(title for title, _ in training_sets(system)):
        known = {"data set": " and ".join(names)} | known
    unknown = system.info.get("seen_unknown")  # members of an ensemble
    return known | {"unknown": ", ".join(unknown)} if unknown else known


def training_sets(system: Predictions) -> list[tuple[str, str]]:
    """Name and content id of each data set that a system was trained on; empty where unknown.

    Where the predictions do not hold this, the run behind them does.
    """
    stored = system.info.get("trained_on")
    if isinstance(stored, list):
        return [(str(each["name"]), str(each["content_id"])) for each in stored]
    path = path_from_record(str(system.info.get("run") or "")) / "run.json"
    run = read_json(path, "run") if system.info.get("run") and path.is_file() else {}
    return [(str(each["name"]), str(each["content_id"])) for each in sets_of_run(run)]


def training_id(info: Mapping[str, Any]) -> str:
    """What tells one training from another: an export counts as the run that it was made from.

    Neither device nor precision counts. What was imported has its inference id alone.
    """
    known = ("training_id", "exported_from", "inference_id")
    return str(next((info[key] for key in known if info.get(key)), None))


def sets_of_run(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The data sets of a run's ``run.json`` and of those that it started from: name and id.

    Example:
        >>> origin = {"data_set": {"name": "nih", "content_id": "1"}}
        >>> here = {"data_set": {"name": "rsna", "content_id": "2"}, "started_from": origin}
        >>> [each["name"] for each in sets_of_run(here)]
        ['rsna', 'nih']
    """
    made_on, origin = run.get("data_set"), run.get("started_from")
    before = sets_of_run(origin) if isinstance(origin, dict) else []
    own = [{key: made_on[key] for key in ("name", "content_id")}] if made_on else []
    return [*own, *(each for each in before if each not in own)]


def unknown_training_data(started: Mapping[str, Any]) -> list[str]:
    """Weights that a run began with, at whatever remove, of which nobody knows the training data.

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
    """Refuse test images that a system has learned from; note where that cannot be ruled out."""
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
        text = f"{name} was trained by an older version, which kept no fingerprints of its images: "
        text += "the same images under other ids are not found."
        notes.append(Note("training", text))
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
    told = "Part of this test set may not be new to it: this is no sure external validation."
    return [*notes, *(Note("copies", f"{line}. {told}") for line in leaked.describe_copies(name))]


def check_data_set(name: str, system: Predictions, dataset: DataSet) -> None:
    """Refuse predictions of other images than a data set's."""
    made_on, here = system.info.get("data_set"), dataset.ids["content_id"]
    if not made_on:
        raise InputError(
            f"{system.folder}: predictions of {name} are of loose files, not of a data set; "
            f"predict {dataset.folder} with --data"
        )
    if made_on.get("content_id") != here:
        raise InputError(
            f"{system.folder}: predictions of {name} were made on a data set with content_id "
            f"{made_on.get('content_id')}, {dataset.folder} has {here}; predict again on this one"
        )
    require_members(system.images["image_id"], dataset.images, system.folder)
