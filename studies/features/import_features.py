"""`cxr import-features`: a system of the features that a frozen encoder computed elsewhere."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pandas as pd
from scipy.special import expit

from cxr_compare import DataSet, InputError, Predictions
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.tables import write_table
from cxr_compare.data_prep.store.prediction_info import PredictionsInfo, TrainingSet
from cxr_compare.scripts import console
from cxr_compare.scripts.command_frame import AnyPath, Argument, DataFolder, as_path, command

if TYPE_CHECKING:
    from cxr_compare.classification.probe import FittedLayer
    from cxr_compare.data_prep.store.prediction_writer import Part
    from cxr_compare.studies.features.feature_table import FeatureTable

_ROLES = ("train", "val")
_LABELS = {"present": 1.0, "absent": 0.0}
_MAPS = "cam"  # each cell's part of the logit
_UNKNOWN_COST = ("parameters", "flops", "latency_ms", "latency_device", "batch_size")


@command
def import_features(
    file: Annotated[Path, Argument(read=Path)],
    *,
    data: DataFolder,
    out: AnyPath,
    name: str,
    revision: str,
    licence: str,
    image_column: str = "image_id",
    target: str | None = None,
    split: str = "default",
    ignore_unknown: bool = False,
) -> Predictions:
    """Fit a classifier to imported features of a frozen encoder.

    A Parquet file has one row for each image: the column image_id and one column of lists, or
    columns f0, f1, ... of numbers. With grid_h and grid_w the features are those of a grid of
    cells, row by row, all numbers of the first cell first; the grid covers the image, or its part
    x1, y1, x2, y2. The classifier is a logistic regression of the standardised features, as cxr
    train probe fits it to a network of its own: on the training images, with the penalty that the
    validation patients choose. Its scores of the validation and test images are written as
    predictions, with an activation map of each image if the features form a grid.

    Args:
        file: Parquet file of features.
        data: Data set that cxr prepare made.
        out: Predictions folder to make.
        name: Name of the encoder, which is that of the system in the report.
        revision: Revision of the encoder, such as a version or a commit; 'unknown' if nobody knows
            it.
        licence: Licence of the encoder, such as MIT; 'unknown' if nobody knows it.
        image_column: Column of the file that names the images. Names are ids of the data set, or
            names of its files.
        target: Target (a finding, or a group of findings) that is learned. Needed only if the data
            set has several targets.
        split: Split (which images are for training, validation and test) of the fit. Each of its
            images must be in the file.
        ignore_unknown: Leave out images that the data set does not have. Without it they are
            refused, and the message names them.

    Returns:
        The predictions of the validation and test images.

    Raises:
        InputError: A row is wrong, or an image is unknown or missing. The message names the file,
            the row and the value.

    Example:
        cxr import-features features.parquet --data out/data --out out/rad-dino --name RAD-DINO
        --revision COMMIT --licence MIT
    """
    from cxr_compare.data_prep.store.prediction_writer import PredictionWriter
    from cxr_compare.data_prep.store.predictions import SEEN_FILE
    from cxr_compare.studies.features.feature_table import FeatureTable

    for option, text in (("name", name), ("revision", revision), ("licence", licence)):
        if not text.strip():
            raise InputError(f"import-features --{option}: is empty; give the encoder's {option}")
    began = time.perf_counter()
    dataset = DataSet.open(as_path(data))
    findings = dataset.target(target).any_of
    table = FeatureTable.open(
        file, dataset, image_column=image_column, split=split, ignore_unknown=ignore_unknown
    )
    pooled, features_id = table.pooled()
    learned = _learned_images(dataset, findings, split)
    layer = _fit(
        pd.DataFrame(pooled, index=pd.Index(table.index["image_id"])), dataset, findings, learned
    )
    _say_fit(layer, findings)
    digest = hashlib.sha256(features_id.encode() + layer.weight.tobytes() + layer.bias.tobytes())
    cost = {
        **dict.fromkeys(_UNKNOWN_COST),
        "trainable_parameters": int(layer.weight.size + layer.bias.size),
        "train_seconds": round(time.perf_counter() - began, 1),
    }
    info = _record(dataset, split, name).with_values(
        findings=tuple(findings),
        inference_id=digest.hexdigest()[:16],
        description=(
            "is a probe, a classifier of whole images: a logistic regression of standardised "
            f"features of {name} (revision {revision}, licence {licence}), which were computed "
            "outside of this program."
        ),
        imported_from=file.name,
        cost=cost,
        maps={"method": _MAPS} if table.has_grid else None,
    )
    predicted = dataset.image_ids("val", split).union(dataset.image_ids("test", split))
    with PredictionWriter(as_path(out), info) as writer:
        todo = predicted.difference(pd.Index(sorted(writer.done)))
        for part in _predict(table, layer, findings, todo):
            writer.add(part.images, **part.tables)
        seen = _seen(dataset, learned)
        writer.files[SEEN_FILE] = write_table(seen, writer.folder / SEEN_FILE, "seen")
    return Predictions.open(as_path(out))


def _learned_images(dataset: DataSet, findings: Sequence[str], split: str) -> dict[str, pd.Index]:
    """Return the training and validation images with a known label, by role."""
    labelled = _labels(dataset, findings).index
    learned = {role: dataset.image_ids(role, split).intersection(labelled) for role in _ROLES}
    for role, image_ids in learned.items():
        if image_ids.empty:
            raise InputError(
                f"{dataset.folder}: split '{split}' has no {role} image with a known label of "
                f"{', '.join(findings)}; choose another --split or --target"
            )
    return learned


def _fit(
    features: pd.DataFrame,
    dataset: DataSet,
    findings: Sequence[str],
    learned: Mapping[str, pd.Index],
) -> FittedLayer:
    """Fit the layer to the mean features of images, which are the rows of `features`."""
    from cxr_compare.classification.probe import LabelledFeatures, fit_layer
    from cxr_compare.configs.settings import ProbeTrainingSettings

    labels = _labels(dataset, findings)
    patients = dataset.images.set_index("image_id")["patient_id"].astype(str)
    train, validation = (
        LabelledFeatures(
            features.loc[image_ids].to_numpy(),
            labels.loc[image_ids].to_numpy(np.float32),
            patients.loc[image_ids].tolist(),
        )
        for image_ids in (learned[role] for role in _ROLES)
    )
    return fit_layer(train, validation, ProbeTrainingSettings().penalties)


def _seen(dataset: DataSet, learned: Mapping[str, pd.Index]) -> pd.DataFrame:
    """Return the images that the fit used, with their roles, patients and fingerprints."""
    used = [pd.DataFrame({"image_id": ids, "role": role}) for role, ids in learned.items()]
    identities = dataset.identities(pd.Index(dataset.images["image_id"]))
    return pd.concat(used, ignore_index=True).merge(identities, on="image_id", validate="1:1")


def _labels(dataset: DataSet, findings: Sequence[str]) -> pd.DataFrame:
    """Return 1, 0 or NaN by image and finding, of the images with a known label."""
    rows = dataset.findings[dataset.findings["finding"].isin(findings)]
    rows = rows.assign(label=rows["state"].map(_LABELS)).dropna(subset="label")
    return rows.pivot(index="image_id", columns="finding", values="label").reindex(
        columns=list(findings)
    )


def _say_fit(layer: FittedLayer, findings: Sequence[str]) -> None:
    """Print the penalty of each finding."""
    for trial in layer.trials:
        if trial.finding in layer.constant:
            console.say(
                f"note: all known training labels of {findings[trial.finding]} are equal, so "
                "every image gets the same score for it"
            )
        elif trial.kept:
            console.say(
                f"{findings[trial.finding]}: penalty {trial.penalty:g} kept, loss "
                f"{trial.val_loss:.3f} of the validation patients"
            )


def _record(dataset: DataSet, split: str, name: str) -> PredictionsInfo:
    """Return what ``predictions.json`` says of any system of imported features."""
    from cxr_compare.data_prep.contracts.provenance import provenance
    from cxr_compare.evaluation.sources.import_folder import data_set_record

    known = TrainingSet(name=dataset.name, content_id=dataset.ids.content_id)
    return PredictionsInfo(
        system=name,
        seed=None,
        kind="scores",
        data_set=data_set_record(dataset, split),
        trained_on=(known,),
        seen_unknown=("the encoder",),
        **provenance(),
    )


def _predict(
    table: FeatureTable, layer: FittedLayer, findings: Sequence[str], image_ids: pd.Index
) -> Iterator[Part]:
    """Yield the scores, and the maps of a grid, of the images of each block of the file."""
    from cxr_compare.classification.frames import scores_frames

    for rows, features in table.blocks():
        is_predicted = rows["image_id"].isin(image_ids).to_numpy()
        if not is_predicted.any():
            continue
        rows = rows[is_predicted]
        cells = features[is_predicted] @ layer.weight.T  # (B, cells, K)
        logits = cells.mean(axis=1) + layer.bias  # (B, K)
        maps = cells.transpose(0, 2, 1).reshape(len(rows), len(findings), *table.grid)
        frames = [(0.0, 0.0, 0.0, 0.0)] * len(rows)  # of maps that are left out
        if table.has_grid:
            frames = list(rows[list(EDGES)].itertuples(index=False, name=None))
        part = scores_frames(
            rows["image_id"].tolist(), expit(logits), maps, _MAPS, findings, frames
        )
        yield part if table.has_grid else part.without("maps")
