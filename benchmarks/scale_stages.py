"""Measurement of the stage times that `benchmarks.scale_model` simulates, in its format.

Workers are timed on real files and a real network, in one thread; the driver is timed by its
processor time with Ray, on invented rows. A store on the same machine does not behave like a real
one, so bytes are counted and the store's own seconds are left at 0; the network is then the limit.
The speed of Ray with one and two workers is measured to be compared with the simulation.
"""

from __future__ import annotations

import pickle
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from benchmarks.scale_growth import (
    SIDE,
    MadeUp,
    in_process,
    made_up,
    origin,
    predicted_by,
    prepared_by,
    start,
    table_options,
    train,
    write_source,
)
from cxr_compare.data_prep.contracts.json_files import write_json
from cxr_compare.data_prep.contracts.processors import cpu_count, processor_name
from cxr_compare.data_prep.store.decode import DecodedRow, DecodeTask, decode_row
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.data_prep.work.engine import Engine, open_engine
from cxr_compare.data_prep.work.local_engine import LocalEngine
from cxr_compare.scripts import console

_WORKERS = (1, 2)
_MADE_UP = 10_000  # rows for what the driver does
_LARGE = 1000  # rows with pixels of a real size, for what the driver does with these
_DECODE_SECONDS = 0.02  # that such a row takes, so that chunks are as large as real ones
_WARM = 24  # rows before the clock starts
_REQUESTS = 2.0  # of a store for a file: what it states of it, and the file
_SHARD = 4096  # images
Stage = dict[str, Any]


def stages(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    source: Annotated[Path, typer.Option(help="RSNA's folder, with DICOM files.")],
    run: Annotated[Path, typer.Option(help="A trained run that predicts.")],
    data: Annotated[Path, typer.Option(help="Data set with pixels of the run's size.")],
    size: Annotated[int, typer.Option(min=16, help="Pixels that prepare writes, px.")] = 512,
    images: Annotated[int, typer.Option(min=64, help="Files and images, at most.")] = 600,
) -> None:
    """Measure the stage times of prepare and predict, and the speed with one and two workers.

    Example: python -m benchmarks.scale stages --out stages.json --source rsna --run run --data data
    """
    with tempfile.TemporaryDirectory(prefix="cxr-stages-") as name:
        top = Path(name)
        driver = _driver_stages(top, size)
        prepare = [*in_process(partial(_file_stages, source, size, images)), *driver["prepare"]]
        forward, part = in_process(partial(_network_stages, run, data, images))
        work = {
            "prepare": {"stages": prepare},
            "predict": {"stages": [*forward, *driver["predict"]], "chunk": part},
        }
        measured = []
        for workers in _WORKERS:
            for measure in (
                partial(_prepare_rate, source, top / "real", size, images, workers),
                partial(_predict_rate, run, data, images, workers),
            ):
                measured.append(in_process(measure))
                console.say(
                    "{work}, {workers}: {images_per_second:.1f} a second".format(**measured[-1])
                )
                shutil.rmtree(top / "real", ignore_errors=True)
    for kind, each in work.items():
        for stage in each["stages"]:
            console.say(f"{kind}: {stage['stage']}: {stage['seconds'] * 1000:.4g} ms")
    write_json(
        out,
        "stages",
        {
            "work": work,
            "measured": measured,
            "source": str(source),
            "run": str(run),
            "size": size,
            "machine": f"{cpu_count()} processors of {processor_name()}",
            **origin(),
        },
    )


# ---------------------------------------------------------------------------------- workers


def _tasks(source: Path, size: int, images: int) -> list[DecodeTask]:
    from cxr_compare.data_prep.formats.registry import read_source
    from cxr_compare.data_prep.formats.source import ReadOptions

    rows = read_source(source, "rsna", ReadOptions()).images.dropna(subset="path")[:images]
    pairs = zip(rows["image_id"], rows["path"], strict=True)
    return [DecodeTask(image_id, source / path, (size,)) for image_id, path in pairs]


def _file_stages(source: Path, size: int, images: int) -> list[Stage]:
    """Time decoding, measuring and resizing, each as the difference with and without it."""
    import cv2

    cv2.setNumThreads(1)
    tasks = _tasks(source, size, images)
    for task in tasks[:_WARM]:
        decode_row(task)
    kinds: dict[str, Callable[[DecodeTask], DecodeTask]] = {
        "decode": partial(replace, sizes=(), measure=False),
        "measure": partial(replace, sizes=()),
        "all": replace,
    }
    taken: dict[str, list[float]] = {name: [] for name in kinds}
    answers = []
    files = []
    for task in tasks:
        for name, change in kinds.items():
            began = time.process_time()
            row = decode_row(change(task))
            taken[name].append(time.process_time() - began)
        if row.error:
            raise RuntimeError(row.error)
        answers.append(len(pickle.dumps(row)))
        files.append(task.path.stat().st_size)
    mean = {name: float(np.mean(values)) for name, values in taken.items()}
    cv = float(np.std(taken["all"]) / mean["all"])

    def worker(stage: str, seconds: float) -> Stage:
        return {
            "stage": stage,
            "where": "worker",
            "seconds_per": "image",
            "seconds": max(seconds, 0.0),
            "cv": cv,
        }

    return [
        worker("decode", mean["decode"]),
        worker("measure", mean["measure"] - mean["decode"]),
        worker("resize", mean["all"] - mean["measure"]),
        _from_store("file and answer", float(np.mean(files)), _REQUESTS, float(np.mean(answers))),
    ]


def _from_store(stage: str, size: float, requests: float, answer: float) -> Stage:
    return {
        "stage": stage,
        "where": "store",
        "seconds_per": "image",
        "seconds": 0.0,
        "bytes": size,
        "bytes_written": answer,
        "requests": requests,
    }


class _Prediction(NamedTuple):
    """Parts of a prediction.

    Attributes:
        parts: The predicted parts, one by one.
        images: Number of all images.
        images_of_a_part: Number of images of a part.
    """

    parts: Iterator[Any]
    images: int
    images_of_a_part: int


def _predict(engine: Engine, run: Path, data: Path, images: int) -> _Prediction:
    """Start the prediction of some images of a data set."""
    import pandas as pd

    from cxr_compare.data_prep.store.dataset import DataSet
    from cxr_compare.serving.predict_folder import predict_parts, sent_size
    from cxr_compare.serving.trained_model import TrainedModel

    dataset = DataSet.open(data)
    model = TrainedModel.open(run)
    ids = pd.Index(dataset.images["image_id"].sort_values()[:images])
    sizes = dataset.images[["image_id", "width", "height"]]
    store = dataset.make_store(model.preprocess.size, console)
    parts = predict_parts(engine, model, store, ids, sizes, model.batch_size)
    return _Prediction(parts, len(ids), sent_size(model.batch_size))


def _network_stages(run: Path, data: Path, images: int) -> tuple[list[Stage], int]:
    """Measure reading pixels and predicting them, in one thread."""
    import torch

    torch.set_num_threads(1)
    parts, count, size = _predict(LocalEngine(1), run, data, images)
    first = next(parts)  # opens model and store
    began = time.process_time()
    rest = list(parts)
    taken = time.process_time() - began
    seen = count - len(first.images)
    if not rest:
        raise RuntimeError(f"{data}: {count} images make one part; more are needed")
    pixels = Preprocess.from_json(run / "preprocess.json").size ** 2
    answer = sum(len(pickle.dumps(part)) for part in rest) / seen
    forward = {
        "stage": "read and predict",
        "where": "worker",
        "seconds_per": "image",
        "seconds": taken / seen,
    }
    return [forward, _from_store("pixels and answer", pixels, 1 / _SHARD, answer)], size


# ----------------------------------------------------------------------------------- driver


@dataclass
class _Watched:
    """An engine that notes the driver's processor time when decoding begins and ends."""

    engine: Engine
    at: list[float] = field(default_factory=list)

    def map_rows(
        self,
        function: Callable[[Any], Any],
        rows: Iterable[Any],
        *,
        on_crash: Callable[[Any], Any],
        reads: Sequence[Path] = (),
    ) -> Iterator[Any]:
        """Process the rows, see `Engine.map_rows`."""
        self.at.append(time.process_time())
        yield from self.engine.map_rows(function, rows, on_crash=on_crash, reads=reads)
        self.at.append(time.process_time())


@dataclass(frozen=True)
class _AsSlow:
    """Engine that invents rows as slowly as real ones are decoded, so that chunks are as large."""

    engine: Engine

    def map_rows(
        self,
        function: Callable[[Any], Any],
        rows: Iterable[Any],
        *,
        on_crash: Callable[[Any], Any],
        reads: Sequence[Path] = (),
    ) -> Iterator[Any]:
        """Process the rows, see `Engine.map_rows`."""
        if function is decode_row:
            return self.engine.map_rows(_slowly, rows, on_crash=on_crash)
        return self.engine.map_rows(function, rows, on_crash=on_crash, reads=reads)


def _slowly(task: DecodeTask) -> DecodedRow:
    time.sleep(_DECODE_SECONDS)
    return made_up(task)


def _driver_stages(top: Path, size: int) -> dict[str, list[Stage]]:
    """Return the driver's stages for an image and a chunk, and those done once for each image."""
    chunk = in_process(_chunk_seconds)
    write_source(top / "many", _MADE_UP)
    write_source(top / "large", _LARGE)
    many = in_process(partial(_phases, top / "many", top / "one", SIDE, MadeUp))
    large = in_process(partial(_phases, top / "large", top / "two", size, _AsSlow))
    in_chunk = round(0.25 / _DECODE_SECONDS)
    train(top / "one", top / "run")
    gathered = []
    for count in (1000, _MADE_UP):
        folder = top / f"predict-{count}"
        write_source(folder / "source", count)
        in_process(partial(prepared_by, "local", folder, count))
        work = partial(
            predicted_by, "gather", "ray", top / "run", folder / "local", folder / "out", count
        )
        gathered.append(in_process(work).driver_seconds)
    an_image = (gathered[1] - gathered[0]) / (_MADE_UP - 1000)

    def driver(stage: str, per: str, seconds: float, **more: Any) -> Stage:
        return {
            "stage": stage,
            "where": "driver",
            "seconds_per": per,
            "seconds": max(seconds, 0.0),
            **more,
        }

    return {
        "prepare": [
            driver("send", "chunk", chunk),
            driver("gather and write", "image", large.while_decoding / _LARGE - chunk / in_chunk),
            driver("list", "image", many.before / _MADE_UP, when="end"),
            driver("tables, splits, audit", "image", many.after / _MADE_UP, when="end"),
        ],
        "predict": [
            driver("send", "chunk", chunk),
            driver("gather and write", "image", an_image),
            driver("begin and end", "job", gathered[0] - 1000 * an_image),
        ],
    }


class _DriverTimes(NamedTuple):
    """Processor seconds of the driver in the phases of a preparation."""

    before: float
    while_decoding: float
    after: float


def _phases(source: Path, out: Path, size: int, wrap: Callable[[Engine], Engine]) -> _DriverTimes:
    """Measure the driver's processor time before, while and after rows are decoded."""
    from cxr_compare.data_prep.assemble.prepare import prepare
    from cxr_compare.data_prep.assemble.prepare_options import PrepareOptions

    with open_engine("ray") as engine:
        start(engine, made_up, [DecodeTask(str(n), Path()) for n in range(_WARM)])
        watched = _Watched(engine)
        began = time.process_time()
        options = PrepareOptions(
            "table", table_options(source), sizes=(size,), engine=wrap(watched)
        )
        prepare(source, out, options)
        ended = time.process_time()
    first, second = watched.at[:2]
    return _DriverTimes(first - began, second - first, ended - second)


def _chunk_seconds() -> float:
    """Measure the driver's processor time for a chunk of 256 rows that take almost no time."""
    chunks = 400
    with open_engine("ray") as engine:
        start(engine, abs, range(4096))
        began = time.process_time()
        start(engine, abs, range(256 * chunks))
        return (time.process_time() - began) / chunks


# ------------------------------------------------------------------------------------ rates


def _prepare_rate(source: Path, out: Path, size: int, images: int, workers: int) -> dict[str, Any]:
    from cxr_compare.data_prep.assemble.prepare import prepare
    from cxr_compare.data_prep.assemble.prepare_options import PrepareOptions
    from cxr_compare.data_prep.store.dataset import DataSet

    with open_engine("ray", workers=workers) as engine:
        start(engine, decode_row, _tasks(source, size, _WARM * workers))
        began = time.perf_counter()
        options = PrepareOptions("rsna", sizes=(size,), engine=engine)
        prepare(source, out, options)
        seconds = time.perf_counter() - began
    count = len(DataSet.open(out).images)
    return _rate("prepare", workers, count, seconds)


def _predict_rate(run: Path, data: Path, images: int, workers: int) -> dict[str, Any]:
    with open_engine("ray", workers=workers) as engine:
        warm = _predict(engine, run, data, images).parts
        start_all = list(warm)  # every worker opens model and store
        prediction = _predict(engine, run, data, images)
        began = time.perf_counter()
        if len(list(prediction.parts)) != len(start_all):
            raise RuntimeError(f"{data}: parts were lost")
        seconds = time.perf_counter() - began
    return _rate("predict", workers, prediction.images, seconds)


def _rate(work: str, workers: int, images: int, seconds: float) -> dict[str, Any]:
    return {
        "work": work,
        "workers": workers,
        "images": images,
        "images_per_second": images / seconds,
    }
