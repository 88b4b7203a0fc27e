"""Time and memory of ``cxr prepare`` and ``cxr predict`` for a thousand to a million images.

Real images would cost too much here, so the workers return invented results, and the commands do
the rest:

- ``prepare`` lists a source of three CSV files, sends rows to workers, gathers answers, keeps the
  journal, and writes pixels of 32 px, tables, splits and audit; no file is decoded.
- ``predict`` reads pixels, predicts them by the smallest network, and writes parts: up to a hundred
  thousand images. The local engine is the command's own process, as in `cxr predict`.
- ``gather`` is what the driver of ``cxr predict --engine ray`` does: it sends parts, and gathers
  and writes answers, which repeat those of a worker's first batch.

Each run has its own process, whose peak memory is that of the driver without its workers. The start
of Ray, and of torch in its workers, is not counted; the start of the local pool is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import pandas as pd
import typer

from benchmarks.worker import peak_gib
from cxr_compare.data_prep.contracts.json_files import write_json
from cxr_compare.data_prep.contracts.processors import cpu_count, processor_name
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.formats.source import ReadOptions
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.data_prep.store.decode import DecodedRow, DecodeTask, decode_row
from cxr_compare.data_prep.store.prediction_writer import Part
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.data_prep.store.preprocess import letterbox
from cxr_compare.data_prep.work.engine import Engine, EngineName, open_engine
from cxr_compare.scripts import console

SEED = 0
ENGINES: tuple[EngineName, ...] = ("local", "ray")
SIDE = 32  # px, of an image that is made up and of what the network sees
_FIRST = 1000
_SLOPE_FROM = 10_000
_POSITIVE = 1 / 3
_MOST_PREDICTED = 100_000


@dataclass(frozen=True)
class Grown:
    """Time and memory that one command took for a number of images.

    Attributes:
        command: ``prepare``, ``predict`` or ``gather``.
        engine: ``local`` or ``ray``.
        images: Number of images.
        seconds: Time from the call to its end, s; workers were started before.
        driver_seconds: Processor time of the driver, s.
        peak_mib: Peak memory of the driver, MiB.
        result: Digest of the result, on which both engines must agree.
    """

    command: str
    engine: str
    images: int
    seconds: float
    driver_seconds: float
    peak_mib: float
    result: str


def origin() -> dict[str, Any]:
    """Return command, time, versions, hardware and seed of a measurement."""
    found = provenance()
    command = " ".join(["python", "-m", "benchmarks.scale", *sys.argv[1:]])
    hardware = {**found["hardware"], "processor": processor_name()}
    versions = {**found["versions"], "ray": version("ray")}
    origins = {"command": command, "versions": versions, "hardware": hardware, "seed": SEED}
    return {**found, **origins}


def growth(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    most: Annotated[int, typer.Option(min=_FIRST, help="Images of the largest set.")] = 1_000_000,
) -> None:
    """Measure time and memory of prepare and predict by the number of images, with each engine.

    Example: python -m benchmarks.scale growth --out growth.json
    """
    found: list[Grown] = []
    with tempfile.TemporaryDirectory(prefix="cxr-growth-") as name:
        for count in _counts(most):
            for each in _runs(Path(name) / str(count), Path(name) / "run", count):
                console.say(_line(each))
                found.append(each)
                _write(out, found)
    for (command, engine), slope in slopes(found).items():
        console.emit(
            f"{command} --engine {engine}: time grows as images to the power of {slope:.3f}"
        )


def _runs(folder: Path, run: Path, count: int) -> Iterator[Grown]:
    """Yield the measurement of each command and engine; a run is trained if there is none."""
    write_source(folder / "source", count)
    local, ray = ENGINES
    data = folder / local  # is predicted
    results = set()
    for engine in ENGINES:
        yield (prepared := in_process(partial(prepared_by, engine, folder, count)))
        results.add(prepared.result)
    shutil.rmtree(folder / ray)
    if not run.is_dir():
        train(data, run)
    few = [("predict", local), ("predict", ray)] if count <= _MOST_PREDICTED else []
    for command, engine in (*few, ("gather", ray)):
        out = folder / "predicted"
        yield (
            predicted := in_process(partial(predicted_by, command, engine, run, data, out, count))
        )
        results.add(predicted.result)
        shutil.rmtree(out)
    shutil.rmtree(folder)
    if len(results) > 2 + bool(few):  # one of each command: else times are worth nothing
        raise RuntimeError(f"{count} images: the engines' results differ")


def _write(out: Path, found: Sequence[Grown]) -> None:
    rows = [{k: value for k, value in asdict(each).items() if k != "result"} for each in found]
    fitted = [
        {"command": v, "engine": e, "slope": slope} for (v, e), slope in slopes(found).items()
    ]
    write_json(
        out,
        "growth",
        {
            "rows": rows,
            "slopes": fitted,
            "slope_from": _SLOPE_FROM,
            "workers": cpu_count(),
            "side": SIDE,
            **origin(),
        },
    )


def _counts(most: int) -> list[int]:
    """Return tenfold steps up to the largest number.

    Example:
        >>> _counts(300_000)
        [1000, 10000, 100000, 300000]
    """
    steps = [_FIRST]
    while steps[-1] < most:
        steps.append(min(most, steps[-1] * 10))
    return steps


def slopes(found: Sequence[Grown]) -> dict[tuple[str, str], float]:
    """Fit the exponent of the number of images in the seconds, by command and engine.

    The fit is by least squares of logarithms. Smaller sets are left out, because work that is done
    only once weighs most in them.

    Args:
        found: Measurements.

    Returns:
        Exponents; 1 is linear growth.

    Example:
        >>> rows = [Grown("prepare", "ray", n, n / 100, 0, 0, "") for n in (10_000, 100_000)]
        >>> round(slopes(rows)["prepare", "ray"], 6)
        1.0
    """
    fits = {}
    for key in dict.fromkeys((each.command, each.engine) for each in found):
        own = [f for f in found if (f.command, f.engine) == key and f.images >= _SLOPE_FROM]
        if len(own) > 1:
            at = np.log([f.images for f in own])
            seconds = np.log([f.seconds for f in own])
            fits[key] = float(np.polyfit(at, seconds, 1)[0])
    return fits


def _line(each: Grown) -> str:
    return (
        f"{each.command} --engine {each.engine}, {each.images:,} images: {each.seconds:.1f} s "
        f"({each.images / each.seconds:.0f} a second), driver {each.driver_seconds:.1f} s of "
        f"processor time, {each.peak_mib:.0f} MiB"
    )


def in_process(work: Callable[[], Any]) -> Any:
    """Run a function in its own process, which may have children; return the result."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work).result()


def write_source(folder: Path, count: int) -> None:
    """Write the three tables of a source and empty files for the images.

    Workers invent the images when they decode them.

    Args:
        folder: New folder.
        count: Number of images.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng([SEED, count])
    ids = pd.Series([f"image-{number:07d}" for number in range(count)])
    people = rng.integers(0, max(1, count // 3), count)  # three images each, as in NIH
    frame = pd.DataFrame({"image_id": ids, "patient_id": [f"p{n:07d}" for n in people]})
    frame.assign(path="images/" + ids + ".png").to_csv(folder / "images.csv", index=False)
    positive = rng.random(count) < _POSITIVE
    labels = pd.DataFrame({"image_id": ids, "finding": "opacity"})
    states = np.where(positive, "present", "absent")
    labels.assign(state=states).to_csv(folder / "labels.csv", index=False)
    boxes = labels[positive].assign(x1=5, y1=6, x2=15, y2=20)
    boxes.to_csv(folder / "boxes.csv", index=False)
    (folder / "images").mkdir()
    for name in ids:
        (folder / "images" / f"{name}.png").touch()


def table_options(source: Path) -> ReadOptions:
    """Return the options with which `prepare` reads the tables of `write_source`."""
    return ReadOptions(labels=tuple(source / f"{n}.csv" for n in ("images", "labels", "boxes")))


@dataclass(frozen=True)
class MadeUp:
    """An engine whose workers invent the results of decoding and prediction.

    Attributes:
        engine: Engine that runs the workers.
    """

    engine: Engine

    def map_rows(
        self,
        function: Callable[[Any], Any],
        rows: Iterable[Any],
        *,
        on_crash: Callable[[Any], Any],
        reads: Sequence[Path] = (),
    ) -> Iterator[Any]:
        """Process the rows, see `Engine.map_rows`.

        Args:
            function: Function of one row; decoding and prediction are replaced by inventions.
            rows: Arguments of the function.
            on_crash: Function that returns the result for a row on which every process crashes.
            reads: Files or folders that the function reads.

        Returns:
            The results in the order of the rows.
        """
        if function is decode_row:
            return self.engine.map_rows(made_up, rows, on_crash=on_crash)
        if type(function).__name__ == "_PartPredictor":
            return self.engine.map_rows(_Repeated(function), rows, on_crash=on_crash)
        return self.engine.map_rows(function, rows, on_crash=on_crash, reads=reads)


def made_up(task: DecodeTask) -> DecodedRow:
    """Return the result of decoding an image of noise, which differs for each name."""
    row = _true_row()
    digest = hashlib.sha256(task.image_id.encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    pixels = rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    own = {
        "pixel_sha256": digest.hex(),
        "perceptual_hash": digest[: len(row.facts["perceptual_hash"]) // 2].hex(),
        "file_sha256": digest[::-1].hex(),
    }
    return replace(
        row,
        image_id=task.image_id,
        facts={**row.facts, **own},
        squares={size: letterbox(pixels, size) for size in task.sizes},
    )


@cache
def _true_row() -> DecodedRow:
    """Return the row of a real file, with all columns that a decoder writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise.png"
        rng = np.random.default_rng(SEED)
        cv2.imwrite(str(path), rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8))
        row = decode_row(DecodeTask("noise", path))
    if row.error:
        raise RuntimeError(row.error)
    return row


def prepared_by(name: EngineName, folder: Path, count: int) -> Grown:
    """Prepare the source of a folder by an engine.

    Args:
        name: ``local`` or ``ray``.
        folder: Folder with ``source``; the data set is written into its subfolder of the engine.
        count: Number of images that the data set must have.

    Returns:
        Time and memory.
    """
    from cxr_compare.data_prep.assemble.prepare import prepare
    from cxr_compare.data_prep.assemble.prepare_options import PrepareOptions
    from cxr_compare.data_prep.store.dataset import DataSet

    with open_engine(name, workers=cpu_count()) as engine:
        start(engine, made_up, [DecodeTask(str(n), Path()) for n in range(64)])
        watch = Watch()
        source = folder / "source"
        data = folder / name
        options = PrepareOptions(
            "table", table_options(source), sizes=(SIDE,), engine=MadeUp(engine)
        )
        prepare(source, data, options)
        took = watch.read()
    dataset = DataSet.open(data)
    if len(dataset.images) != count:
        raise RuntimeError(f"{data}: {len(dataset.images)} images of {count}")
    return Grown("prepare", name, count, **took, result=str(dataset.ids))


def train(data: Path, run: Path) -> None:
    """Train the smallest network for one epoch.

    Args:
        data: Folder of the data set.
        run: New folder of the run.
    """
    settings = ["model.backbone=small_cnn", "model.weights=none", "training.epochs=1"]
    settings += [f"data.image_size={SIDE}", "training.batch_size=32", f"training.seed={SEED}"]
    sets = [word for setting in settings for word in ("--set", setting)]
    cxr("train", "chexnet", "--data", data, "--out", run, *sets)


def cxr(*words: str | Path) -> None:
    """Run a command in its own process.

    Args:
        *words: Words of the command line after ``cxr``.

    Raises:
        RuntimeError: The command failed; the message ends with its output.
    """
    command = [sys.executable, "-P", "-m", "cxr_compare.scripts.cli", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)  # noqa: S603
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-500:]}")


def predicted_by(
    command: str, name: EngineName, run: Path, data: Path, out: Path, count: int
) -> Grown:
    """Predict a data set, or only gather its answers.

    Args:
        command: ``predict`` or ``gather``.
        name: ``local`` or ``ray``.
        run: Folder of the run.
        data: Folder of the data set.
        out: Folder of the predictions.
        count: Number of images.

    Returns:
        Time and memory.
    """
    from cxr_compare.scripts.runtime import tune_cpu

    tune_cpu()
    from cxr_compare.serving.predict_folder import predict_data_set
    from cxr_compare.serving.trained_model import TrainedModel

    dataset = DataSet.open(data)
    model = TrainedModel.open(run)
    ids = list(dataset.images["image_id"])
    with open_engine(name, workers=cpu_count()) as engine:
        if name == "ray":
            start(engine, _import_torch, range(4 * cpu_count()))
        parts_by: Engine | None = None  # as `cxr predict` does with the local one
        if name == "ray":
            parts_by = MadeUp(engine) if command == "gather" else engine
        watch = Watch()
        predict_data_set(model, dataset, out, "default", console, image_ids=ids, engine=parts_by)
        took = watch.read()
    scores = Predictions.open(out).scores
    if len(scores) != count:
        raise RuntimeError(f"{out}: {len(scores)} scores of {count} images")
    result = f"{scores['score'].mean():.5f}" if command == "predict" else ""
    return Grown(command, name, count, **took, result=result)


@dataclass(frozen=True)
class _Repeated:
    """Predictor that predicts the first images that it gets, and repeats these answers."""

    predictor: Callable[[Any], Part]

    def __call__(self, images: Any) -> Part:
        first = _ANSWERS.get("first")
        if first is None:
            few = replace(images, ids=images.ids[:_BATCH], sizes=images.sizes[:_BATCH])
            first = _ANSWERS["first"] = self.predictor(few)
        ids = np.asarray(images.ids)

        def repeated(frame: pd.DataFrame) -> pd.DataFrame:
            return frame.iloc[np.arange(len(ids)) % len(frame)].assign(image_id=ids)

        return Part(repeated(first.images), {n: repeated(t) for n, t in first.tables.items()})


_ANSWERS: dict[str, Part] = {}  # of this worker
_BATCH = 16


def _import_torch(row: int) -> None:
    """Let a worker import its modules, so slowly that each worker gets a row."""
    import cxr_compare.serving.trained_model  # noqa: F401

    time.sleep(0.2)


def start(engine: Engine, function: Callable[[Any], Any], rows: Iterable[Any]) -> None:
    """Start the workers of an engine by a first task.

    Args:
        engine: Engine.
        function: Function of one row.
        rows: Arguments of the function.
    """
    for _ in engine.map_rows(function, rows, on_crash=_none):
        pass


def _none(row: Any) -> None:
    return None


class Watch:
    """Clock and memory of this process, from its creation on."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._own = time.process_time()

    def read(self) -> Mapping[str, Any]:
        """Return the measured values by their names in `Grown`."""
        return {
            "seconds": time.perf_counter() - self._began,
            "driver_seconds": time.process_time() - self._own,
            "peak_mib": peak_gib() * 1024,
        }
