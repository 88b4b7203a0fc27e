"""Predictions of a network for a data set, going on where they stopped, and its decision."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.checksums import file_digest
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.pixel_store import PixelStore
from cxr_compare.data_prep.store.prediction_info import PredictionsInfo
from cxr_compare.data_prep.store.prediction_writer import Part, PredictionWriter, concat_parts
from cxr_compare.data_prep.store.predictions import SEEN_FILE, Predictions
from cxr_compare.data_prep.work.map_images import Workers, map_images
from cxr_compare.data_prep.work.progress import Progress
from cxr_compare.evaluation.decided_output import map_levels
from cxr_compare.evaluation.sources.import_folder import data_set_record
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.read_predictions import read_system
from cxr_compare.evaluation.sources.stored_predictions import (
    read_validation_scores,
    tune_predictions,
)
from cxr_compare.serving.limits import DECISION_FILE, USUAL_POLICY, Decision
from cxr_compare.serving.network import (
    Network,
    batch_size,
    device_name,
    open_network,
    predict_part,
)
from cxr_compare.training.run_folder import RunFolder

_OWN = "of the user's own"
_PART = 1024
"""Images of one file of the tables: what an interruption costs at most."""


def predict_data_set(
    network: Network,
    dataset: DataSet,
    out: Path,
    split: str,
    progress: Progress,
    *,
    name: str | None = None,
    roles: Sequence[str] = ("val", "test"),
    workers: Workers = 1,
) -> Predictions:
    """Predict images of a data set into a folder; one that is not complete is gone on with.

    `workers` may be a Ray cluster, whose machines see the same folders.
    """
    info = network.info
    table = dataset.split(split)
    dataset.require_labelled({finding: finding for finding in info.findings}, network.folder)
    training = info.weights_digest[:16]
    record = PredictionsInfo(
        system=name or info.name,
        kind=network.kind,
        seed=info.seed,
        findings=info.findings,
        inference_id=network.inference_id(),
        training_id=training,
        exported_from=None if network.backend == "torch" else training,
        backend=network.backend,
        precision=network.precision,
        run=network.folder.name,
        trained_on=tuple(info.training_sets),
        seen_unknown=tuple(info.unknown_weights),
        maps={"method": "cam"} if network.kind == "scores" else None,
        recipe=_recipe(network),
        cost={
            "parameters": info.parameters,
            "trainable_parameters": info.trainable_parameters,
            "flops": info.flops,
            "train_seconds": info.seconds,
        },
        data_set=data_set_record(dataset, split),
    )
    wanted = table.loc[table["role"].isin(roles), "image_id"].sort_values()
    store = dataset.make_store(network.preprocess.size, progress, None if workers == 1 else workers)
    sizes = dataset.images.set_index("image_id")[["width", "height"]]
    with PredictionWriter(out, record) as writer:
        todo = wanted[~wanted.isin(writer.done)].tolist()
        step = batch_size(network)
        batches = (sizes.loc[todo[start : start + step]] for start in range(0, len(todo), step))
        predict = _Predictor(network.folder, store.path, network if workers == 1 else None)
        parts = map_images(
            predict, batches, workers, on_crash=_refuse, reads=[network.folder, store.path]
        )
        started = time.perf_counter()
        with progress.track(f"Predicting with {record.system}", len(todo)) as advance:
            for part in _joined(parts, advance):
                writer.add(part.images, **part.tables)
        if todo and workers == 1:
            timed = {
                "latency_ms": 1000 * (time.perf_counter() - started) / len(todo),
                "latency_device": device_name(network.device),
            }
            writer.info = writer.info.with_values(cost={**(record.cost or {}), **timed})
        seen = network.folder / SEEN_FILE
        if seen.is_file():
            shutil.copyfile(seen, out / SEEN_FILE)
            writer.files[SEEN_FILE] = file_digest(out / SEEN_FILE, "sha256")
        writer.info = writer.info.with_values(**provenance())
    return Predictions.open(out)


def _recipe(network: Network) -> dict[str, Any] | None:
    """Return how a run was trained, for the page of a comparison; None of an export."""
    if not (network.folder / "config.toml").is_file():
        return None
    config = RunFolder(network.folder).config.model_dump()
    model = config["model"]
    model["weights"] = Path(model["weights"]).name  # without folders of the user
    if network.kind == "boxes":
        model["architecture"] = "retinanet"
    own = network.info.own_parts
    if "model" in own:  # the keys are of the network that the configuration would have built
        config["model"] = model = {"backbone": f"a network {_OWN}", "weights": "none"}
    if "module" in own:
        config["training"]["module"] = f"a class {_OWN}"
    if "augmentation" in own:
        config["augmentation"] = {"transform": _OWN}
    facts = network.info.to_json()
    kinds = (str, int, float)
    run = {k: v for k, v in facts.items() if isinstance(v, kinds) and k != "command"}
    return {
        "network": model["backbone"],
        "config": config,
        "preprocess": network.preprocess.to_json(),
        "run": {**run, "pretrained": model["weights"], "data_set": facts["data_set"]},
    }


def predicted_before(
    network: Network, dataset: DataSet, out: Path, split: str
) -> Predictions | None:
    """Return complete predictions of this network for this split in a folder, or None."""
    if not (out / "predictions.json").is_file():
        return None
    dataset.split(split)
    stored = Predictions.open(out)
    made = stored.info.inference_id, stored.info.data_set
    return stored if made == (network.inference_id(), data_set_record(dataset, split)) else None


@dataclass(frozen=True)
class _Predictor:
    """Function of a batch that a machine of a cluster can compute: it opens what it needs."""

    folder: Path
    store: Path
    network: Network | None

    def __call__(self, sizes: pd.DataFrame) -> Part:
        network = self.network or _opened(self.folder)
        return predict_part(network, _store(self.store), sizes.index.tolist(), sizes)


@lru_cache(maxsize=1)
def _opened(folder: Path) -> Network:
    return open_network(folder, "cpu")


@lru_cache(maxsize=1)
def _store(path: Path) -> PixelStore:
    return PixelStore.open(path)


def _refuse(sizes: pd.DataFrame) -> Part:
    raise InputError(
        f"the process that predicts '{sizes.index[0]}' and the next images ended, for want of "
        "memory perhaps; the same command goes on"
    )


def _joined(parts: Iterable[Part], advance: Any) -> Iterator[Part]:
    held: list[Part] = []
    for part in parts:
        held.append(part)
        advance(len(part.images))
        if sum(len(each.images) for each in held) >= _PART:
            yield concat_parts(held)
            held = []
    if held:
        yield concat_parts(held)


def freeze_decision(
    network: Network, dataset: DataSet, split: LabelledSplit, progress: Progress
) -> None:
    """Predict the validation images of a run, and store their scores and what they choose."""
    path = network.folder / DECISION_FILE
    if path.is_file():
        return
    with tempfile.TemporaryDirectory(dir=network.folder, prefix=".validation-") as folder:
        made = predict_data_set(
            network, dataset, Path(folder) / "made", split.split, progress, roles=["val"]
        )
        choices = tune_predictions(made, split)
        scored = read_validation_scores(made, choices, split)
        levels = {}
        if network.kind == "scores":
            levels = map_levels(read_system(made, split.target), choices)
    patients = pd.factorize(split.truth.patients_of(scored.index))[0]
    known = {"calibration", "reduction", "map_scale", "map_boxes", "overlap"}
    kept = {name: getattr(choices, name) for name in known}
    decision = Decision(
        weights=network.info.weights_digest,
        finding=split.target.display_name,
        choices=type(choices)(target=choices.target, chosen_on=choices.chosen_on, **kept),
        positive=tuple(bool(label) for label in scored["label"] == 1),
        scores=tuple(map(float, np.asarray(scored["score"], np.float64))),
        patients=tuple(map(int, patients)),
        levels=tuple((float(level), float(value)) for level, value in levels.items()),
    )
    decision.write(path)
    chosen = decision.threshold(USUAL_POLICY)
    point = f"no threshold ({chosen.reason})"
    if chosen.threshold is not None:
        point = f"positive from score {chosen.threshold:.3g} on"
    images = counted(len(scored), "validation image")
    progress.say(f"Operating point ({USUAL_POLICY}, {images}): {point}")
