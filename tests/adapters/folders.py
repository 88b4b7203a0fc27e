"""Contents of each kind of folder, as texts: the one place that names its readers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare import DataSet, Predictions, Result, Run
from cxr_compare.data_prep.audit import Audit
from cxr_compare.data_prep.base.files import file_digest
from cxr_compare.data_prep.base.records import sealed
from cxr_compare.serving.guard import GUARD_FILE, Guard
from cxr_compare.training.callbacks import AtomicCheckpointIO
from cxr_compare.training.run_folder import RunFolder


def data_set(folder: Path) -> Iterable[Any]:
    """Everything that a data set contains: tables, splits, audit, copies and pixels."""
    data = DataSet.open(folder)
    yield from (data.info, data.images, data.findings, data.boxes, data.box_coverage)
    yield from (data.table(name) for name in ("decode", "excluded", "copies", "read"))
    for path in sorted((folder / "splits").glob("*.json")):
        yield from (data.split(path.stem), data.split_origin(path.stem))
    if (folder / "audit.json").is_file():
        yield Audit.read(folder / "audit.json").to_dict()
    for size in data.sizes:
        store = data.store(size)
        yield from (vars(store.placement(name)) for name in store.ids)
        yield from (store.image(name) for name in store.ids)


def run(folder: Path) -> Iterable[Any]:
    """Everything that a run contains, and what a resumed training reads."""
    training = RunFolder.open(folder)
    yield from (training.info, training.started, training.seen)
    yield training.config.model_dump()
    yield from answering(Run.open(folder, device="cpu"))
    if training.last_checkpoint.is_file():
        saved = AtomicCheckpointIO().load_checkpoint(training.last_checkpoint)
        yield from saved["state_dict"].values()
        yield str([saved["optimizer_states"], saved["callbacks"]])


def answering(opened: Run) -> Iterable[Any]:
    """Everything that answers of a run or an export rest on, with outputs for drawn squares."""
    network = opened.network
    yield from (opened.decision, opened.point, network.preprocess, network.map_frame)
    yield from vars(opened.guard).values() if opened.guard else ()
    side = network.preprocess.size
    squares = np.random.default_rng(1).integers(0, 256, (1, 1, side, side), np.uint8)
    yield from network(squares)


def predictions(folder: Path) -> Iterable[Any]:
    """Everything that predictions contain."""
    opened = Predictions.open(folder)
    yield from (opened.info, opened.images, opened.seen)
    for name in {opened.kind, "maps"} if (folder / "maps.parquet").exists() else {opened.kind}:
        table = getattr(opened, name)
        yield table
        yield opened.rows(name, sorted(set(table["finding"])), pd.Index(table["image_id"]))


def add_guard(folder: Path) -> None:
    """Write a guard of drawn numbers: the runs of these tests learn from too few images for one."""
    draw = np.random.default_rng(2)
    Guard(*(draw.random((4, 30)) for _ in fields(Guard))).write(folder / GUARD_FILE)
    name_files(folder)


def name_files(folder: Path) -> None:
    """Name the files of a folder, as they are, in its record and its own digest."""
    for record in sorted(folder.glob("*.json"), key=lambda path: path.name in READERS):
        content = json.loads(record.read_text(encoding="utf-8"))
        files = {}
        for name in content.get("files", ()):
            if (folder / name).is_file():
                files[name] = file_digest(folder / name)
        for path in (*folder.glob("*.parquet"), *folder.glob("*/*.parquet"), *folder.glob("*.npz")):
            if path.is_file() and record.name in READERS:
                files[path.relative_to(folder).as_posix()] = file_digest(path)
        for path in folder.glob("splits/*.json"):
            files[path.relative_to(folder).as_posix()] = file_digest(path)
        if "files" in content:
            content["files"] = files
        reseal(record, content)


def reseal(record: Path, content: dict[str, Any]) -> None:
    """Write a record with other content, as its command would have written it."""
    plain = {key: value for key, value in content.items() if key != "sha256"}
    record.write_text(sealed(plain), encoding="utf-8")


def edit_record(path: Path, **changes: Any) -> None:
    """Change values of a JSON file of a folder, as if its command had written it so."""
    reseal(path, {**json.loads(path.read_text(encoding="utf-8")), **changes})
    name_files(path.parent)


def exported(folder: Path) -> Iterable[Any]:
    """What an export states and answers."""
    yield from answering(Run.open(folder))


def report(folder: Path) -> Iterable[Any]:
    """The parts of a report that other commands read."""
    opened = Result.open(folder)
    yield from (opened.answer, opened.figures, opened.tests, opened.groups)
    yield from (opened.lesions, opened.decisions, opened.curves)


READERS = {
    "dataset.json": data_set,
    "run.json": run,
    "predictions.json": predictions,
    "export.json": exported,
    "answer.json": report,
}


def reader_of(folder: Path) -> Any:
    """The reader of a folder, by the record that it holds; None of another folder."""
    return next((READERS[name] for name in READERS if (folder / name).is_file()), None)


def content(folder: Path) -> list[str]:
    """A text for each item that the program reads in a folder."""
    return [_shown(item) for item in reader_of(folder)(folder)]


def _shown(item: Any) -> str:
    if isinstance(item, pd.DataFrame):
        frame = item.map(lambda value: value.tolist() if hasattr(value, "tolist") else value)
        return f"{list(frame.dtypes)} {frame.to_dict('list')}"
    if isinstance(item, dict):
        return str({key: _shown(value) for key, value in sorted(item.items())})
    if hasattr(item, "tobytes") or hasattr(item, "numpy"):
        array = np.asarray(item)
        return f"{array.dtype} {array.shape} {array.tobytes().hex()}"
    return repr(item)
