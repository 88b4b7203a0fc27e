"""Prediction of a data set into a folder, in parts, so that an interrupted call can continue.

The parts are predicted in this process, or in worker processes that each load the model once.
"""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.atomic_files import atomic_path
from cxr_compare.data_prep.contracts.checksums import file_digest
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.contracts.tables import write_table
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.pixel_store import PixelStore
from cxr_compare.data_prep.store.prediction_info import MadeOn, PredictionsInfo
from cxr_compare.data_prep.store.prediction_writer import (
    Part,
    PredictionWriter,
    concat_parts,
    read_parts,
    remove_prediction_leftovers,
    split_part,
)
from cxr_compare.data_prep.store.predictions import SEEN_FILE, Predictions
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.data_prep.work.background_threads import write_behind
from cxr_compare.data_prep.work.map_images import Workers, map_images
from cxr_compare.data_prep.work.progress import Progress
from cxr_compare.data_prep.work.ray_cluster import RayCluster
from cxr_compare.data_prep.work.shards import Shard, ShardedWork
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.read_predictions import store_decision
from cxr_compare.evaluation.sources.stored_predictions import (
    read_validation_scores,
    tune_predictions,
)
from cxr_compare.evaluation.thresholds import POLICIES
from cxr_compare.serving.backends import open_model
from cxr_compare.serving.export_spec import EVALUATION_FILE, PREPROCESS_FILE, validation_folder
from cxr_compare.serving.joint_model import StoresBySize
from cxr_compare.training.run_info import RunInfo

if TYPE_CHECKING:
    from cxr_compare.serving.backends import Predictor

# Images in one file of a predictions folder: there are few files, and after Ctrl-C little is lost.
PART_SIZE = 1024
_MOST_SENT = 128  # images that a worker predicts before it answers
_LATENCY_IMAGES = 20
_NO_MAPS = "none"  # of a joint system without a classifier


def predict_data_set(  # noqa: PLR0913 - options of cxr predict
    model: Predictor,
    dataset: DataSet,
    out: Path,
    split: str,
    progress: Progress,
    *,
    batch_size: int | None = None,
    name: str | None = None,
    validation_of: Target | None = None,
    image_ids: Sequence[str] | None = None,
    made_before: Predictions | None = None,
    join: Sequence[Path] = (),
    cluster: RayCluster | None = None,
) -> Predictions:
    """Predict the val and test images of a split, or chosen images, into a predictions folder.

    An unfinished folder is continued. `validation_of` predicts only the validation images, to
    choose a threshold for this target; `image_ids` predicts no other images. `made_before` are
    predictions of the same model, whose rows are copied instead of computed again. `join` lists the
    folders of all shards that `predict_shard` made with the same options. Batch size and name are
    by default those of the model and its run; without a cluster this process predicts.

    The cost of one image is measured only if all val and test images are predicted, because only
    such predictions are compared by cost. Raises InputError if the model predicts a finding that
    the data set does not label, the folder holds other predictions, or the shards do not fit.
    """
    info = _describe(model, dataset, split, name)
    roles = dataset.split(split)
    asked = ["val", "test"] if validation_of is None else ["val"]
    predicted_ids = roles.loc[roles["role"].isin(asked), "image_id"].sort_values()
    if image_ids is not None:
        predicted_ids = pd.Series(sorted(image_ids), dtype=predicted_ids.dtype)
    at_once = batch_size or model.batch_size
    joined = None
    if join:
        work = _sharded_work(info, predicted_ids, at_once)
        joined = _JoinedShards(work, work.require_all(join), at_once)
    store = open_source(model, dataset, progress, cluster)
    sizes = dataset.images[["image_id", "width", "height"]]
    if validation_of is not None:
        info = info.with_values(target=validation_of)
    with PredictionWriter(out, info) as writer:
        if made_before is not None and not set(made_before.images["image_id"]) <= writer.done:
            tables = {table: getattr(made_before, table) for table in ("scores", "boxes", "maps")}
            filled = {table: rows for table, rows in tables.items() if len(rows)}
            writer.add(made_before.images, **filled)
        todo = pd.Index(predicted_ids[~predicted_ids.isin(writer.done)])
        of = "validation images" if validation_of is not None else f"with {info.system}"
        with progress.track(f"Predicting {of}", len(todo)) as advance:
            if joined is not None:
                parts = joined.batches(writer.done)
            elif cluster is None or isinstance(store, StoresBySize):
                parts = model.predict(store, todo, sizes, at_once)
            else:
                parts = predict_parts(cluster, model, store, todo, sizes, at_once)
            write_parts(writer, parts, advance, PART_SIZE)
        if validation_of is not None or image_ids is not None:
            copy_seen_images(model, writer, progress)
        else:
            samples = np.stack(
                [store.image(image_id) for image_id in predicted_ids[:_LATENCY_IMAGES]]
            )
            copy_seen_images(model, writer, progress)
            if not isinstance(store, StoresBySize):
                # Last: the machine is then quiet. And no bar: drawing it would be measured, too.
                progress.say(f"Last {of}: measuring the time of one image, for the table of costs")
            writer.info = writer.info.with_values(cost=model.cost(samples))
    made = Predictions.open(out)
    if "test" in asked and image_ids is None:
        test_set = LabelledSplit(dataset, next(iter(dataset.targets.values())), split)
        seen = test_set.seen_by(made, test_set.truth.ids_of("test"))
        for line in seen.describe_copies(made.name):
            progress.say(f"{line}; cxr compare refuses equal images and warns of near copies")
    return made


def predict_shard(
    model: Predictor,
    dataset: DataSet,
    out: Path,
    split: str,
    progress: Progress,
    shard: Shard,
    *,
    batch_size: int | None = None,
    name: str | None = None,
    cluster: RayCluster | None = None,
) -> tuple[Path, int]:
    """Predict every n-th batch of images into a folder of its own, which a later call joins.

    The batches are those of `predict_data_set`, since the last bits of an image's figures depend on
    the number of images in its batch.

    The options are those of `predict_data_set`; `out` is the folder that is made when all shards
    are joined. Returns the folder of the shard and the number of its images. Raises InputError as
    `predict_data_set` does, or if the folder holds another shard.
    """
    info = _describe(model, dataset, split, name)
    roles = dataset.split(split)
    all_ids = roles.loc[roles["role"].isin(["val", "test"]), "image_id"].sort_values()
    at_once = batch_size or model.batch_size
    batch_of_image = np.arange(len(all_ids)) // at_once
    mine = pd.Index(all_ids[batch_of_image % shard.count == shard.number - 1])
    store = open_source(model, dataset, progress, cluster)
    sizes = dataset.images[["image_id", "width", "height"]]
    many = len(all_ids) > at_once
    folder = shard.folder(out)
    share = (_sharded_work(info, all_ids, at_once), shard)
    with PredictionWriter(folder, info, share) as writer:
        todo = mine[~mine.isin(writer.done)]
        with progress.track(f"Predicting with {info.system}", len(todo)) as advance:
            if cluster is not None and not isinstance(store, StoresBySize):
                parts = predict_parts(cluster, model, store, todo, sizes, at_once, many=many)
            else:
                parts = model.predict(store, todo, sizes, at_once, many=many)
            write_parts(writer, parts, advance, PART_SIZE)
    return folder, len(mine)


def _describe(model: Predictor, dataset: DataSet, split: str, name: str | None) -> PredictionsInfo:
    """Return what ``predictions.json`` says of system and data; check that these fit."""
    learnt = dict(zip(model.findings, model.names or model.learnt, strict=True))
    dataset.require_labelled(learnt, model.folder)
    made_on = MadeOn(
        name=dataset.name,
        content_id=dataset.ids.content_id,
        split=split,
        split_id=dataset.ids.split_ids[split],
    )
    return describe_system(model, name).with_values(data_set=made_on)


def _sharded_work(info: PredictionsInfo, image_ids: pd.Series, batch_size: int) -> ShardedWork:
    """Return the work of which each shard does a share: batches of the images, in order."""
    settings = {
        "system": info.system,
        "kind": info.kind,
        "findings": list(info.findings),
        "inference_id": info.inference_id,
        "data_set": None if info.data_set is None else info.data_set.to_json(),
        "batch_size": batch_size,
    }
    return ShardedWork("predictions_shard", settings, image_ids.tolist())


@dataclass(frozen=True)
class _JoinedShards:
    """Predictions of all shards, batch by batch in the order in which one call computes them."""

    work: ShardedWork
    folders: Sequence[Path]
    batch_size: int

    def batches(self, done: Collection[str]) -> Iterator[Part]:
        """Yield the batches of images that are not yet done."""
        streams = [self._stream(folder) for folder in self.folders]
        ids = self.work.rows
        for number, start in enumerate(range(0, len(ids), self.batch_size)):
            expected = ids[start : start + self.batch_size]
            shard = number % len(streams)
            part = next(streams[shard], None)
            if part is None or part.images["image_id"].tolist() != list(expected):
                raise InputError(
                    f"{self.folders[shard]}: lacks the image '{expected[0]}'; remove this shard "
                    "and make it again"
                )
            if expected[0] not in done:
                yield part

    def _stream(self, folder: Path) -> Iterator[Part]:
        for part in read_parts(folder, self.work.files(folder)):
            yield from split_part(part, self.batch_size)


def open_source(
    model: Predictor, dataset: DataSet, progress: Progress, workers: Workers | None = None
) -> PixelStore | StoresBySize:
    """Open the input of a model: the pixels of a data set.

    They are stored first if need be, by `workers` (processes or a Ray cluster; None uses processes
    of this machine). A joint system has a store for each size of its members. Raises InputError if
    an image cannot be read.
    """
    if model.kind == "both":
        return StoresBySize(dataset, progress, model.preprocess.size)
    return dataset.make_store(model.preprocess.size, progress, workers)


def predict_validation(
    run: Path,
    test_set: LabelledSplit,
    progress: Progress,
    *,
    device: Literal["cpu", "cuda"] = "cpu",
) -> Predictions:
    """Return the predictions of a run for its validation images; compute them if they are missing.

    `run` is the folder of a complete training, in which the predictions are stored, and `test_set`
    the data set, target and split of the training.
    """
    folder = validation_folder(run)
    if (folder / "predictions.json").is_file():
        remove_prediction_leftovers(folder)
    else:
        predict_data_set(
            open_model(run, device=device),
            test_set.dataset,
            folder,
            test_set.split,
            progress,
            validation_of=test_set.target,
        )
    return Predictions.open(folder)


def freeze_decision(
    run: Path,
    test_set: LabelledSplit,
    progress: Progress,
    *,
    device: Literal["cpu", "cuda"] = "cpu",
) -> None:
    """Choose and store a run's decision rule: threshold, calibration, and rules for boxes.

    This is the last step of training. The rule is the one that `cxr tune` chooses by default on the
    run's validation images. It is stored in the run folder with the predictions of these images. An
    existing rule stays unchanged.

    `run` is the folder of a complete training, and `test_set` the data set, target and split of it.
    """
    name = test_set.target.name
    if (validation_folder(run) / "decisions" / f"{name}.json").is_file():
        return
    predictions = predict_validation(run, test_set, progress, device=device)
    decision = tune_predictions(predictions, test_set)
    scored = read_validation_scores(predictions, decision, test_set)
    patients = test_set.truth.patients_of(scored.index)
    evaluated = scored.assign(system=predictions.name, probability=np.nan, patient_id=patients)
    evaluated = evaluated.rename_axis("image_id").reset_index()
    digest = write_table(evaluated, predictions.folder / EVALUATION_FILE, "decisions")
    files = {**predictions.info.files, EVALUATION_FILE: digest}
    predictions.info.with_values(files=files).write(predictions.folder / "predictions.json")
    store_decision(predictions, decision)
    policy = POLICIES[0]
    chosen = decision.thresholds[policy]
    point = (
        f"no threshold ({chosen.reason})"
        if chosen.threshold is None
        else f"positive from score {chosen.threshold:.3g} on"
    )
    images = counted(decision.chosen_on["n_images"], "validation image")
    progress.say(f"Operating point ({policy}, {images}): {point}")


def describe_system(model: Predictor, name: str | None) -> PredictionsInfo:
    """Return what ``predictions.json`` says of the system: name, findings, digests and others.

    The name None takes the name of the run.
    """
    info = model.info
    usual = info.name
    run = model.run_folder
    if model.backend != "torch":
        usual = f"{usual} ({model.backend} {model.precision})"
    has_maps = model.kind != "boxes" and model.maps != _NO_MAPS
    return PredictionsInfo(
        system=name or usual,
        kind=model.kind,
        seed=info.seed,
        findings=model.findings,
        names=dict(model.names) if model.names else None,
        inference_id=model.inference_id(),
        training_id=model.training_id(),
        backend=model.backend,
        precision=model.precision,
        exported_from=None if model.backend == "torch" else model.training_id(),
        run=Path(info.folder or model.folder).name,
        recipe=_recipe_of(run),
        trained_on=tuple(info.training_sets),
        seen_unknown=tuple(info.unknown_weights),
        tta=model.tta,
        maps={"method": model.maps} if has_maps else None,
    )


def _recipe_of(run: Path | None) -> dict[str, Any] | None:
    """Return how a run was trained, for the methods of a paper; None without its files."""
    if run is None or not (run / "config.toml").is_file():
        return None
    try:
        config = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
        model = config["model"]
    except (ValueError, KeyError):  # a damaged file: the methods then say less
        return None
    facts = RunInfo.read(run / "run.json").to_json()
    facts["pretrained"] = model["weights"] = Path(model["weights"]).name
    return {
        "network": model.get("backbone") or model.get("architecture"),
        "config": config,
        "preprocess": Preprocess.read(run / PREPROCESS_FILE).to_json(),
        "run": {
            k: v
            for k, v in facts.items()
            if k in ("penalties", "data_set")
            or (isinstance(v, str | int | float) and k != "command")
        },
    }


def copy_seen_images(model: Predictor, writer: PredictionWriter, progress: Progress) -> None:
    """Copy the table of the images that the training used into the predictions folder.

    If the run of an export is not found, the table is missing, and a message says so.
    """
    folder = model.run_folder
    if folder is None:
        progress.say(
            f"{model.folder}: its run is not at hand ({model.info.folder}), so which patients "
            "it learned from is unknown; put the run back there and predict again"
        )
    else:
        with atomic_path(writer.folder / SEEN_FILE) as temporary:
            shutil.copyfile(folder / SEEN_FILE, temporary)
        writer.files[SEEN_FILE] = file_digest(writer.folder / SEEN_FILE, "sha256")
    writer.info = writer.info.with_values(**provenance())


def sent_size(batch_size: int) -> int:
    """Return the number of images that a worker process predicts before it sends the results back.

    It is a multiple of `batch_size`, chosen so that few large results fill one file of a
    predictions folder.

    Example:
        >>> sent_size(16), sent_size(48), sent_size(300)
        (128, 96, 300)
    """
    of_file = -(-PART_SIZE // batch_size)
    most = max(1, _MOST_SENT // batch_size)
    return batch_size * max(n for n in range(1, most + 1) if of_file % n == 0)


def write_parts(
    writer: PredictionWriter,
    batches: Iterable[Part],
    advance: Callable[[int], object],
    size: int,
) -> None:
    """Write predictions to files while the next ones are computed.

    The `batches` are computed when they are requested. `advance` is called with the number of
    images of each; `size` is the number of images in one file.
    """

    def reported() -> Iterator[Part]:
        for batch in batches:
            yield batch
            advance(len(batch.images))

    write_behind(lambda part: writer.add(part.images, **part.tables), _join(reported(), size))


def _join(parts: Iterable[Part], size: int) -> Iterator[Part]:
    """Gather batches into parts of about `size` images: one file each on the disk."""
    parts_in_memory: list[Part] = []
    for part in parts:
        parts_in_memory.append(part)
        if sum(len(p.images) for p in parts_in_memory) >= size:
            yield concat_parts(parts_in_memory)
            parts_in_memory = []
    if parts_in_memory:
        yield concat_parts(parts_in_memory)


@dataclass(frozen=True)
class _PartPredictor:
    """Predicts the images of one part: a pure function of ``image_id, width, height``."""

    folder: Path
    names: tuple[tuple[str, str], ...] | None
    how: tuple[tuple[str, Any], ...]  # arguments with which a run is opened
    store: Path
    batch_size: int
    many: bool

    def __call__(self, images: pd.DataFrame) -> Part:
        store = open_store(self.store)
        model = _open_model(self.folder, self.names, self.how)
        ids = pd.Index(images["image_id"])
        return concat_parts(
            list(model.predict(store, ids, images, self.batch_size, many=self.many))
        )


@lru_cache(maxsize=1)
def open_store(path: Path) -> PixelStore:
    """Open a pixel store once in each process."""
    return PixelStore.open(path)


@lru_cache(maxsize=1)
def _open_model(
    folder: Path,
    names: tuple[tuple[str, str], ...] | None,
    how: tuple[tuple[str, Any], ...],
) -> Predictor:
    model = open_model(folder, **dict(how))
    return model if names is None else model.with_names(dict(names))


def predict_parts(
    workers: Workers,
    model: Predictor,
    store: PixelStore,
    image_ids: pd.Index,
    sizes: pd.DataFrame,
    batch_size: int,
    *,
    many: bool | None = None,
) -> Iterator[Part]:
    """Predict images in worker processes of this machine or a cluster.

    The batches hold the same images as those of ``model.predict``, so the tables are equal byte for
    byte. `sizes` are those of the original images, with columns ``image_id, width, height`` in px.
    `many` lets an export compute several batches at the same time; by default it is True for more
    than one batch. Each `Part` has as many images as `sent_size` says. Raises InputError if a
    worker could not open the model or the pixel store, or has ended each time that it tried the
    same images.
    """
    many = len(image_ids) > batch_size if many is None else many
    how = ("precision", "views", "maps") if model.backend == "torch" else ()
    predictor = _PartPredictor(
        model.folder,
        None if model.names is None else tuple(model.names.items()),
        tuple((name, getattr(model, name)) for name in how),
        store.path,
        batch_size,
        many,
    )
    ordered = sizes.set_index("image_id").reindex(image_ids).rename_axis("image_id").reset_index()
    step = sent_size(batch_size)
    parts = (ordered.iloc[start : start + step] for start in range(0, len(ordered), step))
    reads = [model.folder, store.path]
    return map_images(predictor, parts, workers, on_crash=_refuse, reads=reads)


def _refuse(images: pd.DataFrame) -> Part:
    first, last = images["image_id"].iloc[[0, -1]]
    raise InputError(
        f"the process that predicts images '{first}' to '{last}' ended whenever it was tried, for "
        "want of memory perhaps; run the same command again to go on"
    )
