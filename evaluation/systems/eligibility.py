"""Who may be compared on what: the same images for all, none of which a system has learned from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Literal

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.folders import read_json
from cxr_compare.data_prep.contracts.tables import require_members
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.data_prep.work.object_store import path_of
from cxr_compare.evaluation.decisions.test_set import EvaluationSet, TestSet
from cxr_compare.evaluation.metrics.metric import Note
from cxr_compare.evaluation.statistics.bootstrap import cluster_index

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
    path = path_of(str(system.info.get("run") or "")) / "run.json"
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


def _refuse_seen_images(
    name: str, system: Predictions, test_set: TestSet, image_ids: pd.Index
) -> list[Note]:
    """Refuse test images of which, or of whose patients, a system has learned."""
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
    here = test_set.dataset.ids["content_id"]
    if "pixel_sha256" not in seen and any(made_on != here for _, made_on in training_sets(system)):
        text = f"{name} was trained by an older version, which kept no fingerprints of its images: "
        text += "the same images under other names are not found."
        notes.append(Note("training", text))
    leaked = test_set.seen_by(system, image_ids)
    if len(leaked.known):
        patients = sorted(set(test_set.patients(leaked.known)))
        shown = ", ".join(patients[:_SHOWN])
        raise InputError(
            f"{system.folder}: {name} has seen {counted(len(patients), 'patient')} of "
            f"{counted(len(leaked.known), 'test image')} in training ({shown}); compare on a "
            "split whose test patients it has not seen"
        )
    if len(leaked.same):
        raise InputError(
            f"{system.folder}: {leaked.copy_lines(name)[0]}; compare on images that it has not "
            "seen: cxr transfer leaves these out, cxr split keeps copies in one role"
        )
    told = "Part of this test set may not be new to it: this is no sure external validation."
    return [*notes, *(Note("copies", f"{line}. {told}") for line in leaked.copy_lines(name))]


def learned_validation(name: str, system: Predictions, test_set: TestSet) -> list[Note]:
    """Note validation images that a system was fitted on: it knows them too well to choose on.

    The figures on test stay honest, but thresholds and calibration are of scores surer than those
    of new images: they miss the sensitivity or specificity that they were chosen for. An ensemble
    of the models of a cross-validation has such images by its making, so this is noted, not
    refused.
    """
    known = test_set.labels_of("val").dropna().index
    fitted = test_set.seen_by(system, known, ["train"]).all_ids
    if not len(fitted):
        return []
    text = (
        f"{name} learned from patients or copies of {len(fitted)} of the {len(known)} validation "
        f"images of split '{test_set.split}': its thresholds and calibration are of scores surer "
        "than on new images."
    )
    return [Note("validation", text)]


Images = Literal["all", "common"]


def common_test_images(
    systems: Mapping[str, Predictions], test_set: TestSet, *, images: Images = "all"
) -> tuple[EvaluationSet, list[Note]]:
    """The test images of known label that all systems are scored on."""
    for name, system in systems.items():
        check_data_set(name, system, test_set.dataset)
    labels = test_set.labels_of("test")
    known = labels.dropna()
    notes: list[Note] = []
    if len(known) < len(labels):
        unknown = labels.index[labels.isna()]
        states = test_set.dataset.findings
        unsure = states["finding"].isin(test_set.target.any_of) & (states["state"] == "uncertain")
        called = int(unknown.isin(states.loc[unsure, "image_id"]).sum())
        text = f"{counted(len(unknown), 'test image', 'have')} no known label for "
        text += test_set.target.display_name
        text += f", {called:,} of them because readers were uncertain." if called else "."
        notes.append(Note("left_out", text))
    ran = {
        name: known.index.intersection(system.images_run, sort=False)
        for name, system in systems.items()
    }
    common = known.index
    for ids in ran.values():
        common = common.intersection(ids, sort=False)
    differing = {name: ids.difference(common) for name, ids in ran.items()}
    if any(len(ids) for ids in differing.values()):
        if images != "common":
            raise InputError(_difference_line(ran))
        counts = "; ".join(f"{name} ran on {len(ids)}" for name, ids in ran.items())
        text = f"Judged on the {len(common)} test images that all systems ran on; {counts}."
        notes.append(Note("left_out", text))
    if images != "common":
        _refuse_failures(systems, known.index)
    if len(common) < len(known):
        text = f"{len(known) - len(common)} of {counted(len(known), 'test image')} are not judged."
        notes.append(Note("left_out", text))
    if not len(common):
        raise InputError(
            f"no test image of split '{test_set.split}' with a known label was run by "
            f"{' and '.join(systems)}; predict the test images of this data set"
        )
    common = common.sort_values()
    told = test_set.images.set_index("image_id")["patient_id_source"].reindex(common)
    if n_own := int((told == "assumed_image").sum()):
        which = "no patient is known" if n_own == len(told) else f"{n_own:,} patients are unknown"
        text = f"Intervals are by image, for {which}: too narrow where patients have several."
        notes.append(Note("by_image", text))
    for name, system in systems.items():
        notes += _refuse_seen_images(name, system, test_set, common)
    return describe_images(test_set, common, known), notes


def describe_images(test_set: TestSet, image_ids: pd.Index, labels: pd.Series) -> EvaluationSet:
    """What is true of images that are judged: sorted ids, and a label of each by image id."""
    patients, n_patients = cluster_index(test_set.patients(image_ids))
    truth = test_set.true_boxes
    table = test_set.images.set_index("image_id").reindex(image_ids)
    return EvaluationSet(
        image_ids=image_ids,
        y_true=labels.reindex(image_ids).to_numpy() == 1,
        patients=patients,
        n_patients=n_patients,
        boxes_trusted=test_set.boxes_trusted.get_indexer(image_ids) >= 0,
        truth=truth[image_ids.get_indexer(pd.Index(truth["image_id"])) >= 0].reset_index(drop=True),
        x_class=table.get("x_class"),
    )


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


def _difference_line(ran: Mapping[str, pd.Index]) -> str:
    """Which images the systems do not share, up to five a side."""
    union = pd.Index(sorted(set().union(*ran.values())))
    sides = []
    for name, ids in ran.items():
        lacking = union.difference(ids)
        if len(lacking):
            shown = ", ".join(map(str, lacking[:_SHOWN]))
            more = ", ..." if len(lacking) > _SHOWN else ""
            sides.append(f"{name} lacks {len(lacking)} that others ran on ({shown}{more})")
    return (
        "the systems' test images differ: " + "; ".join(sides) + "; predict them, or compare on "
        "the images that all have with --images common"
    )


def _refuse_failures(systems: Mapping[str, Predictions], known: pd.Index) -> None:
    """Refuse images that every system failed on; those of some are refused as different."""
    for name, system in systems.items():
        rows = system.images[system.images["status"] == "failed"]
        rows = rows[rows["image_id"].isin(known)]
        if len(rows):
            shown = ", ".join(map(str, rows["image_id"].sort_values()[:_SHOWN]))
            raise InputError(
                f"{system.folder}: {name} failed on {counted(len(rows), 'test image')} ({shown}); "
                "predict them again, or compare on the images that all have with --images common, "
                "where failures are counted against and for a system beside"
            )
