"""Truth of a prepared data set, and outputs from the predictions folders that belong to it."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, counted
from cxr_compare.data_prep.base.names import Target
from cxr_compare.data_prep.base.records import digest_of
from cxr_compare.data_prep.base.tables import require_members
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.predictions import Predictions
from cxr_compare.data_prep.seen import SeenImages
from cxr_compare.evaluation.inputs.patients import notes_on_unknown
from cxr_compare.evaluation.notes import Note, unknown_training
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.statistics.clustered_auroc import CHANCE
from cxr_compare.evaluation.truth import Truth

_SHOWN = 5
_OF_INFO = (
    "system",
    "seed",
    "kind",
    "inference_id",
    "training_id",
    "command",
    "created",
    "revision",
    "versions",
    "backend",
    "recipe",
    "cost",
)
_TOLD_APART = ("path", "file_sha256", "patient_id_source")


def truth_of(dataset: DataSet, target: Target, split: str = "default") -> Truth:
    """Return labels, roles, patients and true boxes of a data set for one target and split."""
    images = dataset.images.set_index("image_id").drop(columns=list(_TOLD_APART), errors="ignore")
    roles = dataset.split(split).set_index("image_id")["role"]
    labels = dataset.labels(target)
    images = images.assign(label=labels.reindex(images.index), role=roles.reindex(images.index))
    images["patient_id"] = images["patient_id"].astype(str)
    images["synthetic"] = dataset.synthetic.to_numpy(dtype=bool)
    images["is_assumed"] = (dataset.images["patient_id_source"] == "assumed_image").to_numpy()
    images = images[images["role"].notna()].sort_index()
    boxes = dataset.target_boxes(target).drop(columns="finding")
    boxes = boxes[boxes["image_id"].isin(images.index)].reset_index(drop=True)
    ids = dataset.ids
    return Truth(
        images,
        boxes,
        dataset.boxes_trusted(target),
        finding=target.name,
        title=target.display_name,
        notes=tuple(_notes(dataset, images, split)),
        shortcut=_audited_shortcut(dataset, target.name),
        record={
            "name": dataset.name,
            "content_id": ids.content_id,
            "labels_id": ids.labels_id,
            "split": split,
            "split_id": ids.split_ids.get(split),
        },
    )


def _audited_shortcut(dataset: DataSet, target: str) -> dict[str, Any] | None:
    """Return the strongest shortcut that the audit found, if it is one."""
    from cxr_compare.data_prep.audit import strongest_shortcut

    shortcut = strongest_shortcut(dataset, target)
    return shortcut if shortcut and (shortcut["ci_low"] or 0) > CHANCE else None


def _notes(dataset: DataSet, images: pd.DataFrame, split: str) -> list[Note]:
    """Return notes on patients that are unknown or in several roles, and on the audit."""
    # The audit loads decoders of images, which nothing else here needs.
    from cxr_compare.data_prep.audit import split_errors

    origin = dataset.images.set_index("image_id")["patient_id_source"]
    tested = images.index[(images["role"] == "test").to_numpy()]
    notes = notes_on_unknown((origin.reindex(tested) == "assumed_image").to_numpy(), "test image")
    errors = split_errors(dataset, split)
    if errors is None:
        text = "Whether a patient is in both training and test data was not checked (cxr check)."
        notes.append(Note(text, "no_audit"))
    for problem in errors or ():
        text = f"The audit of this data set found an error: {problem.counted_message}."
        notes.append(Note(text, "audit"))
    return notes


def output_of(predictions: Predictions, truth: Truth, target: Target) -> Output:
    """Return the output of the system in a predictions folder on the images of a truth.

    InputError if an image that ran has no score.
    """
    ran = predictions.images_run
    output = _stored_output(predictions, target.any_of, ran[ran.isin(truth.ids)])
    recorded = predictions.info.to_json()
    record = {key: value for key, value in recorded.items() if key in _OF_INFO}
    record |= {"folder": predictions.folder.name, "findings": list(target.any_of)}
    record["trained_on"] = _trained_on(predictions)
    record["learned_from"] = learned_from(predictions, truth)
    return replace(output, record=record)


def _stored_output(predictions: Predictions, findings: tuple[str, ...], ran: pd.Index) -> Output:
    """Return scores, boxes and maps of some images; of several findings the highest score counts.

    Boxes and maps have their ``finding``.
    """
    if predictions.kind == "boxes":
        return Output.of_detector(predictions.rows("boxes", findings, ran), ran)
    scores = predictions.rows("scores", findings, ran).groupby("image_id")["score"].max()
    scores = scores.reindex(ran).astype(np.float64)
    if scores.isna().any():
        raise InputError(
            f"{predictions.folder}: {counted(int(scores.isna().sum()), 'image')} ran without a "
            f"score for {' or '.join(findings)}, first '{scores.index[scores.isna()][0]}'"
        )
    return Output(scores, maps=_one_map_each(predictions, findings, ran))


def _one_map_each(
    predictions: Predictions, findings: tuple[str, ...], ids: pd.Index
) -> pd.DataFrame | None:
    """Return the activation map of each image, that of the finding with the highest score."""
    maps = predictions.rows("maps", findings, ids)
    if maps.empty:
        return None
    maps = maps[maps["method"] == maps["method"].min()]
    scores = predictions.rows("scores", findings, ids)
    scored = maps.merge(scores, on=["image_id", "finding"], how="left").fillna({"score": 0.0})
    scored = scored.sort_values(["image_id", "score", "finding"], ascending=[True, False, True])
    return scored.drop_duplicates("image_id").drop(columns="score").reset_index(drop=True)


def _trained_on(predictions: Predictions) -> dict[str, str]:
    """Return in words the images and patients on which a system was trained; empty if unknown."""
    seen = predictions.seen
    if seen is None:
        return {}
    counts = seen.groupby("role")[["image_id", "patient_id"]].nunique()
    described = {
        str(role): f"{row.image_id:,} images of {row.patient_id:,} patients"
        for role, row in zip(counts.index, counts.itertuples(), strict=True)
    }
    return {"data set": ", ".join(dict.fromkeys(_data_sets(predictions).values())), **described}


def learned_from(predictions: Predictions, truth: Truth) -> dict[str, Any]:
    """Return the number of images that a system learned from, of positive ones, and a digest.

    Empty if they are unknown; `positive` is None if some are no images of the truth.
    """
    seen = predictions.seen
    if seen is None:
        return {}
    ids = sorted(seen.loc[seen["role"] == "train", "image_id"].astype(str))
    labels = truth.images["label"].reindex(ids)
    positive = int((labels == 1).sum()) if set(ids) <= set(truth.images.index) else None
    return {"images": len(ids), "positive": positive, "digest": digest_of(ids)}


def _data_sets(predictions: Predictions) -> dict[str, str]:
    """Return the names of the data sets on which a system was trained, by content id."""
    recorded = predictions.info.trained_on
    return (
        {}
        if recorded == "unknown"
        else {training_set.content_id: training_set.name for training_set in recorded}
    )


def refuse_seen(
    name: str, predictions: Predictions, dataset: DataSet, tested: pd.Index
) -> list[Note]:
    """Refuse a system that has seen patients of test images, and note what is uncertain.

    InputError if the predictions are of another data set or of loose files, or if the system was
    trained on a patient of the test images, or on an image with the same pixels.
    """
    folder, made_on = predictions.folder, predictions.info.data_set
    if made_on is None:
        raise InputError(
            f"{folder}: predictions of {name} are of loose files, not of a data set; write "
            f"cxr predict RUN --data {shlex.quote(str(dataset.folder))} --out PREDICTIONS"
        )
    if made_on.content_id != dataset.ids.content_id:
        raise InputError(
            f"{folder}: predictions of {name} were made on a data set with content_id "
            f"{made_on.content_id}, {dataset.folder} has {dataset.ids.content_id}; predict again "
            "on this one"
        )
    require_members(predictions.images["image_id"], dataset.images, folder)
    seen = predictions.seen
    if seen is None:
        return [unknown_training(name)]
    overlap = SeenImages(seen).among(dataset.identities(tested))
    if len(overlap.by_id):
        owners = dataset.images.set_index("image_id")["patient_id"].reindex(overlap.by_id)
        patients = sorted(set(owners.astype(str)))
        raise InputError(
            f"{folder}: {name} has seen {counted(len(patients), 'patient')} of "
            f"{counted(len(overlap.by_id), 'test image')} in training "
            f"({', '.join(patients[:_SHOWN])}); compare on a split whose test patients it has not "
            "seen"
        )
    copies = overlap.describe_copies(name)
    if len(overlap.equal):
        raise InputError(
            f"{folder}: {copies[0]}; compare on images that it has not seen: cxr split keeps "
            "copies in one role"
        )
    warning = "Part of this test set may not be new to it: this is no sure external validation."
    notes = [Note(f"{line}. {warning}", "copies") for line in copies]
    others = {
        key: set_name
        for key, set_name in _data_sets(predictions).items()
        if key != made_on.content_id
    }
    if others:
        trained = ", ".join(
            dict.fromkeys(set_name or "another data set" for set_name in others.values())
        )
        here = dataset.name or "this data set"
        text = f"{name} learned from {trained}; these images are of {here}."
        recipe = predictions.info.recipe
        if recipe is not None and recipe.synthetic and not dataset.synthetic.any():
            text = f"{name} learned from synthetic X-rays; these are real."
        notes.append(Note(text, "elsewhere"))
    weights = predictions.info.seen_unknown
    return [*notes, *(unknown_training(f"{weights_name} in {name}") for weights_name in weights)]


def learned_validation(
    name: str, predictions: Predictions, dataset: DataSet, validation: pd.Index
) -> list[Note]:
    """Note how many of the labelled validation images a system learned from."""
    if predictions.seen is None:
        return []
    trained = predictions.seen[predictions.seen["role"] == "train"]
    learned = SeenImages(trained).among(dataset.identities(validation)).all_ids
    text = (
        f"{name} learned from patients, or from copies, of {len(learned):,} of the "
        f"{len(validation):,} validation images. It scores these more surely than new ones, so its "
        "thresholds and its calibration may not fit new images."
    )
    return [Note(text)] if len(learned) else []
