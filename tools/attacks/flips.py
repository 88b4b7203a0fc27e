"""Flipped bits: one random bit in each file that the program writes, which is then opened.

A flip is refused in one line that names the file and a remedy, or harmless (what is read is equal),
or silent (what is read differs), or gives a traceback. ``tests/scripts/test_flips.py`` runs the
attack, in which none may be silent or give a traceback.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.configs.load import parse_config
from cxr_compare.data_prep.audit.audit import Audit
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.choices import Choices
from tools.attacks import material

OUTCOMES = ("refused", "harmless", "silent", "traceback")
# Pages, pictures and tables for people and other programs: the program does not read them again.
# A record (JSON) has no checksum of its own: it is text, and another value in it is another value.
UNREAD = {
    ".json",
    ".html",
    ".png",
    ".svg",
    ".pdf",
    ".webp",
    ".js",
    ".tex",
    ".md",
    ".csv",
    ".txt",
    ".dcm",
    ".lock",
}
Reader = Callable[[Path], Iterable[Any]]


def data_set(folder: Path) -> Iterable[Any]:
    """Yield everything that a data set contains: tables, splits, audit, copies and pixels."""
    from cxr_compare.data_prep.duplicates.dataset_copies import find_dataset_copies
    from cxr_compare.data_prep.store.pixel_store import stored_sizes

    data = DataSet.open(folder)
    yield from (data.info, data.images, data.findings, data.boxes, data.box_coverage)
    yield from (data.optional_table(name) for name in ("decode", "excluded"))
    for path in sorted((folder / "splits").glob("*.json")):
        yield from (data.split(path.stem), data.split_rule(path.stem))
    if (folder / "audit.json").is_file():
        yield Audit.read(folder / "audit.json").to_dict()
    yield find_dataset_copies(data).pairs.to_dict("list")
    for size in stored_sizes(folder):
        store = data.store(size)
        yield from (vars(store.placement(name)) for name in store.ids)
        yield from (store.image(name) for name in store.ids)


def run(folder: Path) -> Iterable[Any]:
    """Yield everything that a run contains, and what a resumed training reads."""
    from cxr_compare.serving.run import Run
    from cxr_compare.training.run_folder import RunFolder
    from cxr_compare.training.weights import read_checkpoint

    opened = RunFolder.open(folder)
    yield from (opened.info, opened.started, opened.seen)
    yield parse_config(opened.config, str(folder / "config.toml")).model_dump()
    loaded: Any = Run.open(folder, device="cpu").load()
    yield from (loaded.model.preprocess.to_json(), loaded.operating_point, loaded.map_levels)
    yield from loaded.model.model.state_dict().values()
    yield from (loaded.guard.to_json(),) if loaded.guard else ()
    last = opened.last_checkpoint
    if last.is_file():
        saved = read_checkpoint(last)
        yield from saved["state_dict"].values()
        yield str(saved["optimizer_states"])
    yield from predictions(opened.validation)


def predictions(folder: Path) -> Iterable[Any]:
    """Yield everything that predictions contain."""
    opened = Predictions.open(folder)
    yield from (opened.info, opened.images, opened.seen)
    name = opened.kind
    for name in {opened.kind, "maps"} if (folder / "maps.parquet").exists() else {opened.kind}:
        table = getattr(opened, name)
        yield table
        yield opened.rows(name, sorted(set(table["finding"])), pd.Index(table["image_id"]))
    yield from (Choices.read(path) for path in sorted(folder.glob("decisions/*.json")))


def exported(folder: Path) -> Iterable[Any]:
    """Yield what an export states, and what its network answers."""
    from cxr_compare.serving.export_spec import CARD_FILE, Card
    from cxr_compare.serving.run import Run

    loaded: Any = Run.open(folder).load()
    yield from (loaded.model.spec, loaded.model.preprocess, loaded.operating_point)
    yield from (loaded.guard.to_json(),) if loaded.guard else ()
    yield Card.read(folder / CARD_FILE)
    grey = np.random.default_rng(1).integers(0, 256, (1, 1, *2 * [loaded.model.spec.size]))
    yield from loaded.model.session.run(grey.astype(np.uint8)).values()
    if loaded.model.kind == "boxes":
        yield loaded.model.anchors


def report(folder: Path) -> Iterable[Any]:
    """Yield the parts of a report that other commands read."""
    from cxr_compare.evaluation.report.result import Result

    opened = Result.open(folder)
    yield from (opened.answer, opened.figures, opened.tests, opened.groups)
    yield from (opened.decisions, opened.curves)
    for path in sorted((folder / "systems").glob("*")):
        yield from predictions(path)


READERS: dict[str, Reader] = {
    "dataset.json": data_set,
    "run.json": run,
    "predictions.json": predictions,
    "export.json": exported,
    "answer.json": report,
}


def content(folder: Path, reader: Reader) -> list[str]:
    """Return a text for each item that the program reads in a folder."""
    return [_shown(item) for item in reader(folder)]


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


def kind_of(path: Path, folder: Path) -> str:
    """Return the kind of a file: its path in the folder, without numbers of parts and epochs."""
    name = path.relative_to(folder).as_posix()
    return re.sub(
        r"-\d+|(?<=pixels/)\d+|(?<=systems/)[^/]+(?=/)|(?<=decisions/)[^/]+(?=\.json)", "*", name
    )


def attempt(folder: Path, path: Path, reader: Reader, whole: list[str]) -> tuple[str, str]:
    """Open a folder in which a file was changed; return the outcome and the error message.

    The outcome is ``refused``, ``harmless``, ``silent`` or ``traceback``; `whole` is the content of
    the unchanged folder.
    """
    try:
        now = content(folder, reader)
    except InputError as error:
        line = str(error)
        above = [path.name, *(p.name for p in path.parents if p.is_relative_to(folder))]
        named = any(name in line for name in above) and ";" in line and "\n" not in line
        return ("refused" if named else "traceback"), line
    except Exception as error:  # noqa: BLE001
        return "traceback", f"{type(error).__name__}: {error}"
    return ("harmless", "") if now == whole else ("silent", "")


def attack(folders: Iterable[Path], flips: int, seed: int) -> dict[str, Counter[str]]:
    """Flip bits, as many for each kind of file; return the numbers by outcome, by kind of file."""
    draw = random.Random(seed)  # noqa: S311
    targets = []
    for folder in folders:
        reader = next(READERS[name] for name in READERS if (folder / name).is_file())
        files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix not in UNREAD]
        kinds = sorted({kind_of(path, folder) for path in files})
        whole = content(folder, reader)
        for kind in kinds:
            those = [p for p in files if kind_of(p, folder) == kind and p.stat().st_size]
            targets += [(folder, kind, those, reader, whole)] if those else []
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for number in range(flips):
        folder, kind, those, reader, whole = targets[number % len(targets)]
        path = draw.choice(those)
        position = draw.randrange(path.stat().st_size)
        bit = draw.randrange(8)
        before = path.read_bytes()
        changed = bytearray(before)
        changed[position] ^= 1 << bit
        path.write_bytes(changed)
        outcome, words = attempt(folder, path, reader, whole)
        path.write_bytes(before)
        table[f"{folder.name}/{kind}"][outcome] += 1
        if outcome in OUTCOMES[2:]:
            print(f"{outcome}: {path} byte {position} bit {bit}: {words[:300]}", flush=True)
    return dict(table)


def folders_of(work: Path) -> list[Path]:
    """Return the folders that `make` makes."""
    names = ("data", "run", "detector", "predictions", "onnx", "openvino", "report")
    return [work / name for name in names]


def make(folder: Path) -> None:
    """Make a data set, two runs, their predictions, exports and a report below a folder."""
    work = material.make(folder)
    material.complete(
        work,
        (
            (
                "detector/run.json",
                "train",
                work / "boxes.toml",
                "--data",
                work / "data",
                "--out",
                work / "detector",
                "--device",
                "cpu",
            ),
            ("onnx/export.json", "export", work / "run", work / "onnx", "--format", "onnx"),
            (
                "openvino/export.json",
                "export",
                work / "detector",
                work / "openvino",
                "--format",
                "openvino",
            ),
            (
                "report/answer.json",
                "compare",
                f"Tiny={work / 'run'}",
                f"Boxes={work / 'detector'}",
                "--data",
                work / "data",
                "--out",
                work / "report",
            ),
        ),
    )
