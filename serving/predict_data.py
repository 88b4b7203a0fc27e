"""Predictions of a network for a data set, going on where they stopped, and its decision."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.classification.inference import score_tables
from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.files import scratch_folder
from cxr_compare.data_prep.base.folders import folder_state
from cxr_compare.data_prep.base.names import Target
from cxr_compare.data_prep.base.provenance import cpu_count, provenance
from cxr_compare.data_prep.base.recipe import Recipe
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.parallel import Engine, Progress, in_thread, map_images
from cxr_compare.data_prep.pixels import PixelStore, index_name
from cxr_compare.data_prep.predictions import (
    MadeOn,
    Part,
    Predictions,
    PredictionsInfo,
    PredictionWriter,
)
from cxr_compare.detection.inference import box_tables
from cxr_compare.evaluation.choices import choose
from cxr_compare.evaluation.inputs.folders import output_of, truth_of
from cxr_compare.evaluation.policies import USUAL_POLICY
from cxr_compare.serving.decision import DECISION_FILE, Decision
from cxr_compare.serving.network import (
    Network,
    batch_size,
    device_name,
    open_network,
    read_squares,
    seen_by,
)
from cxr_compare.serving.onnx_file import Output
from cxr_compare.training.run_folder import RunFolder

_OWN = "of the user's own"
_Batch = tuple[list[str], Output]
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
    engine: Engine = "local",
    names_seen: bool = True,
) -> Predictions:
    """Predict images of a data set into a folder; one that is not complete is gone on with.

    `names_seen` adds the table of the images and patients that the training has seen. Of the
    engine ``ray`` the machines of a cluster, which see the same folders, compute.
    """
    info = network.info
    table = dataset.split(split)
    dataset.require_labelled(info.findings, network.folder)
    record = PredictionsInfo(
        system=name or info.name,
        kind=network.kind,
        seed=info.seed,
        findings=info.findings,
        classes=info.classes,
        inference_id=network.inference_id(),
        training_id=info.weights_digest[:16],
        backend=network.backend,
        run=network.folder.name,
        trained_on=tuple(info.training_sets),
        seen_unknown=tuple(info.unknown_weights),
        recipe=_recipe(network),
        cost={
            "parameters": info.parameters,
            "trainable_parameters": info.trainable_parameters,
            "flops": info.flops,
            "train_seconds": info.seconds,
        },
        data_set=_made_on(dataset, split),
    )
    ids_of_roles = table.loc[table["role"].isin(roles), "image_id"].sort_values()
    store = dataset.make_store(network.preprocess.size, progress)
    sizes = dataset.images.set_index("image_id")[["width", "height"]]
    with (
        PredictionWriter(out, record) as writer,
        ThreadPoolExecutor(1) as reading,
        ThreadPoolExecutor(1) as writing,
    ):
        remaining_ids = ids_of_roles[~ids_of_roles.isin(writer.done)].tolist()
        step = batch_size(network)
        batches = (
            remaining_ids[start : start + step] for start in range(0, len(remaining_ids), step)
        )
        outputs: Iterator[_Batch]
        if engine == "local":
            outputs = _outputs(network, store, batches, reading)
        else:
            index = dataset.info.files[index_name(store.size)]
            predict = _Predictor(network.folder, tuple(network.views), store.path, index)
            outputs = map_images(predict, batches, cpu_count(), on_crash=_refuse, engine=engine)

        def write(batch: _Batch) -> None:
            part = _output_tables(network, store, *batch, sizes)
            writer.add(part.images, **part.tables)

        started = time.perf_counter()
        with progress.track(f"Predicting with {record.system}", len(remaining_ids)) as advance:
            for _ in in_thread(writing, write, _joined(outputs, advance)):
                pass
        if remaining_ids and engine == "local":
            timed = {
                "latency_ms": 1000 * (time.perf_counter() - started) / len(remaining_ids),
                "latency_device": device_name(network.device),
            }
            writer.info = writer.info.with_values(cost={**(record.cost or {}), **timed})
        seen = seen_by(network) if names_seen else None
        if seen is not None:
            writer.add_seen(seen)
        writer.info = writer.info.with_values(**provenance())
    return Predictions.open(out)


def _output_tables(
    network: Network,
    store: PixelStore,
    image_ids: Sequence[str],
    output: Output,
    sizes: pd.DataFrame,
) -> Part:
    """Return the outputs for images as tables, in px of the originals.

    `sizes` has their width and height by ``image_id``.
    """
    findings = network.info.findings
    if isinstance(output, list):
        return box_tables(image_ids, output, findings, store.placement, sizes)
    frame: Any = network.map_frame
    frames = [store.placement(image_id).frame_to_original(frame) for image_id in image_ids]
    return score_tables(image_ids, *output, findings, frames)


def _made_on(dataset: DataSet, split: str) -> MadeOn:
    ids = dataset.ids
    split_id = ids.split_ids.get(split)
    return MadeOn(name=dataset.name, content_id=ids.content_id, split=split, split_id=split_id)


def _recipe(network: Network) -> Recipe | None:
    """Return how a run was trained and is predicted, for a page; None of an export."""
    if not (network.folder / "config.toml").is_file():
        return None
    trained = RunFolder(network.folder).config
    config = trained.model_dump()
    model = config["model"]
    model["weights"] = Path(model["weights"]).name  # without folders of the user
    model["trainable"] = trained.model.stages
    if network.kind == "boxes":
        model["architecture"] = "retinanet"
        model["views"] = list(network.views)
    own_parts = network.info.own_parts
    if "model" in own_parts:  # the keys are of the network that the configuration would have built
        config["model"] = model = {"backbone": f"a network {_OWN}", "weights": "none"}
    if "module" in own_parts:
        config["training"]["module"] = f"a class {_OWN}"
    if "augmentation" in own_parts:
        config["augmentation"] = {"transform": _OWN}
    info = network.info
    return Recipe(
        network=model["backbone"],
        size=network.preprocess.size,
        start=model["weights"],
        model_kind=info.model_kind,
        n_train=info.n_train,
        n_val=info.n_val,
        n_boxes=info.n_boxes,
        epochs=info.epochs,
        monitor=info.monitor,
        best_epoch=info.best_epoch,
        synthetic=info.synthetic,
        config=config,
    )


def predicted_before(
    network: Network, dataset: DataSet, out: Path, split: str
) -> Predictions | None:
    """Return complete predictions of this network for this split in a folder, or None."""
    if folder_state(out, "predictions") != "finished":
        return None
    dataset.split(split)
    stored = Predictions.open(out)
    stored_ids = stored.info.inference_id, stored.info.data_set
    return stored if stored_ids == (network.inference_id(), _made_on(dataset, split)) else None


def _outputs(
    network: Network, store: PixelStore, batches: Iterable[list[str]], reading: ThreadPoolExecutor
) -> Iterator[_Batch]:
    """Compute the batches here; the next one is read meanwhile."""

    def read(image_ids: list[str]) -> tuple[list[str], np.ndarray]:
        return image_ids, read_squares(network, store, image_ids)

    for image_ids, squares in in_thread(reading, read, batches):
        yield image_ids, network(squares)


@dataclass(frozen=True)
class _Predictor:
    """Function of a batch that a machine of a cluster can compute: it opens what it needs."""

    folder: Path
    views: tuple[str, ...]
    store: Path
    index: str

    def __call__(self, image_ids: list[str]) -> _Batch:
        network = _opened(self.folder, self.views)
        store = _store(self.store.resolve(), self.index)
        return image_ids, network(read_squares(network, store, image_ids))


@lru_cache(maxsize=1)
def _opened(folder: Path, views: tuple[str, ...]) -> Network:
    network = open_network(folder, "cpu")
    network.views = views
    return network


@lru_cache(maxsize=1)
def _store(path: Path, index: str) -> PixelStore:
    return PixelStore.open(path, {index_name(int(path.stem)): index})


def _refuse(image_ids: list[str]) -> _Batch:
    raise InputError(
        f"the process that predicts '{image_ids[0]}' and the next images ended, for want of "
        "memory perhaps; the same command goes on"
    )


def _joined(batches: Iterable[_Batch], advance: Any) -> Iterator[_Batch]:
    """Join batches to those of one file of the tables."""
    ids: list[str] = []
    outputs: list[Output] = []
    for image_ids, output in batches:
        ids += image_ids
        outputs.append(output)
        advance(len(image_ids))
        if len(ids) >= _PART:
            yield ids, _concat(outputs)
            ids, outputs = [], []
    if ids:
        yield ids, _concat(outputs)


def _concat(outputs: list[Any]) -> Output:
    """Join the outputs for several groups of images, in their order."""
    if isinstance(outputs[0], list):
        return [rows for output in outputs for rows in output]
    scores, maps = (np.concatenate(part) for part in zip(*outputs, strict=True))
    return scores, maps


def freeze_decision(
    network: Network, dataset: DataSet, target: Target, split: str, progress: Progress
) -> None:
    """Predict the validation images of a run, and store their scores and what they choose."""
    path = network.folder / DECISION_FILE
    if RunFolder(network.folder).has(DECISION_FILE):
        return
    validation = truth_of(dataset, target, split).of("val")
    with scratch_folder(path) as folder:
        predictions = predict_data_set(network, dataset, folder, split, progress, roles=["val"])
        output = output_of(predictions, validation, target)
        ran = validation.select(validation.ids.intersection(output.ran))
        chosen = choose(output, ran, [USUAL_POLICY])
    decision = Decision(
        weights=network.info.weights_digest,
        finding=target.display_name,
        calibration=chosen.calibration,
        map_levels=chosen.levels,
        positive=tuple(ran.positive.tolist()),
        scores=tuple(output.scores.reindex(ran.ids).tolist()),
        patients=tuple(ran.patients.tolist()),
    )
    decision.write(path)
    RunFolder(network.folder).name_files(DECISION_FILE)
