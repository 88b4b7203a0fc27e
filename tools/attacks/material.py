"""Small inputs of the attacked commands, made by the program itself."""

import os
import random
import sys
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from tools.attacks.forked import ForkedCommand

ROOT = Path(__file__).resolve().parents[2]
_TRAINING = """epochs = 2
batch_size = 8
learning_rate = 1e-3
warmup_epochs = 0.0
"""
_CLASSIFIER = f"""kind = "classifier"
name = "Tiny"
[data]
image_size = 64
[model]
backbone = "small_cnn"
[training]
{_TRAINING}"""
_DETECTOR = f"""kind = "detector"
name = "TinyBoxes"
[data]
image_size = 96
[model]
backbone = "resnet18"
fpn_channels = 16
head_convs = 1
weights = "none"
norm = "group"
trainable = "all"
anchor_sizes = [12.0, 24.0, 48.0, 96.0, 192.0]
[training]
{_TRAINING}"""


# What each command writes: {w}, the inputs' folder; {d}, a folder with copies of the inputs named.
COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "import": ("import {w}/scores.csv --data {w}/data --out {d}/out --name Other", ()),
    "predict --data": ("predict {w}/run --data {w}/data --out {d}/out", ()),
    "export run": ("export {d}/run --format onnx", ("run",)),
    "export openvino": ("export {w}/run {d}/out --format openvino", ()),
    "export set": ("export {w}/data {d}/out --format coco --images png", ()),
    "train": ("train {w}/tiny.toml --data {w}/data --out {d}/out --device cpu", ()),
    "compare": (
        "compare A={d}/predictions --data {w}/data --out {d}/out --replicates 200",
        ("predictions",),
    ),
}


def cxr_command(*words: object) -> list[str]:
    """Return the words that run a command of the program in this tree."""
    return [
        sys.executable,
        "-c",
        "from cxr_compare.scripts.cli import main; main()",
        *map(str, words),
    ]


def make(folder: Path) -> Path:
    """Make the inputs below a folder, except those that exist; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.toml").write_text(_CLASSIFIER)
    (folder / "boxes.toml").write_text(_DETECTOR)
    data = folder / "data"
    run = folder / "run"
    predictions = folder / "predictions"
    complete(
        folder,
        (
            (
                "xrays/synth.json",
                "synth",
                folder / "xrays",
                "--images",
                90,
                "--size",
                96,
                "--seed",
                3,
            ),
            (
                "data/dataset.json",
                "prepare",
                folder / "xrays",
                data,
                "--format",
                "rsna",
                "--size",
                64,
            ),
            (
                "run/run.json",
                "train",
                folder / "tiny.toml",
                "--data",
                data,
                "--out",
                run,
                "--device",
                "cpu",
            ),
            ("predictions/predictions.json", "predict", run, "--data", data, "--out", predictions),
        ),
    )
    _write_scores(folder, data)
    return folder


def complete(folder: Path, steps: Iterable[tuple[object, ...]]) -> None:
    """Run the commands whose output is not in the folder yet.

    A step is a file that a command writes, then the words of the command.
    """
    for marker, *words in steps:
        if not (folder / str(marker)).is_file():
            line = [str(word) for word in words]
            command = ForkedCommand(line, {**os.environ, "OMP_NUM_THREADS": "1"})
            _, printed = command.communicate(timeout=900)
            if command.returncode:
                raise RuntimeError(f"{' '.join(line)}: {printed.decode()}")


def _write_scores(folder: Path, data: Path) -> None:
    """Write random scores of other software."""
    split = pd.read_parquet(data / "splits" / "default.parquet")
    evaluated = split.loc[split["role"].isin(["val", "test"]), ["image_id"]]
    draw = random.Random(7)  # noqa: S311
    scores = [round(draw.random(), 4) for _ in range(len(evaluated))]
    evaluated.assign(score=scores).to_csv(folder / "scores.csv", index=False)
