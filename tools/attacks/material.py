"""Small inputs of every command, made once by the program itself."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

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
    "synth": ("synth {d}/out --images 60 --size 96 --seed 4", ()),
    "prepare": ("prepare {w}/xrays {d}/out --format rsna --size 64", ()),
    "check": ("check {d}/data", ("data",)),
    "split": ("split {d}/data --name other --seed 5", ("data",)),
    "train": ("train {w}/tiny.toml --data {w}/data --out {d}/out --device cpu", ()),
    "curve": (
        "curve --detector {w}/boxes.toml --classifier {w}/tiny.toml --data {d}/data "
        "--out {d}/out --sizes 0.5,1 --seeds 1 "
        "--set training.epochs=1",
        ("data",),
    ),
    "predict --data": ("predict {w}/run --data {w}/data --out {d}/out", ()),
    "CXR_ENGINE=ray predict": ("CXR_ENGINE=ray predict {w}/run --data {w}/data --out {d}/out", ()),
    "CXR_ENGINE=ray prepare": (
        "CXR_ENGINE=ray prepare {w}/xrays {d}/out --format rsna --size 64",
        (),
    ),
    "predict": ("predict {w}/run {w}/xrays/stage_2_test_images --out {d}/out --csv {d}/a.csv", ()),
    "predict --dicom": (
        "predict {w}/run {w}/xrays/stage_2_test_images --no-overlay --dicom {d}/out",
        (),
    ),
    "import": ("import {w}/scores.csv --data {w}/data --out {d}/out --name Other", ()),
    "ensemble": ("ensemble {w}/predictions {w}/other --data {w}/data --out {d}/out", ()),
    "tune": ("tune {d}/predictions --data {w}/data", ("predictions",)),
    "compare": (
        "compare A={d}/predictions --data {w}/data --out {d}/out --replicates 200",
        ("predictions",),
    ),
    "readers": ("readers {w}/ratings.csv --truth {w}/truth.csv --out {d}/out", ()),
    "plan": ("plan --auroc 0.85,0.80 --prevalence 0.3 --out {d}/out", ()),
    "overlay": ("overlay A={w}/predictions --data {w}/data --out {d}/out --limit 6", ()),
    "overlay --blind": ("overlay --blind --data {w}/data --out {d}/out --limit 6", ()),
    "export run": ("export {d}/run --format onnx", ("run",)),
    "export openvino": ("export {w}/run {d}/out --format openvino", ()),
    "export set": ("export {w}/data {d}/out --format coco --images png", ()),
    "export yolo": ("export {w}/data {d}/out --format yolo", ()),
}


def cxr_command(*words: object) -> list[str]:
    """Return the words that run a command of the program in this tree.

    A first word such as ``CXR_ENGINE=ray`` is an environment variable, as in a shell.
    """
    if "=" in str(words[0]):
        return ["env", str(words[0]), *cxr_command(*words[1:])]
    return [
        sys.executable,
        "-c",
        "from cxr_compare.scripts.cli import main; main()",
        *map(str, words),
    ]


def cxr(
    *words: object, within: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with one thread.

    Args:
        *words: Words of the command line after ``cxr``.
        within: Working folder; None for the present one.
        **environment: Environment variables.

    Returns:
        The finished process with its output.
    """
    return subprocess.run(
        cxr_command(*words),
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
        cwd=within,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=900,
        check=False,
    )


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
    _write_tables(folder, data)
    imported = ("import", folder / "scores.csv", "--data", data, "--out", folder / "other")
    complete(folder, [("other/predictions.json", *imported, "--name", "Other")])
    return folder


def complete(folder: Path, steps: Iterable[tuple[object, ...]]) -> None:
    """Run the commands whose output is not in the folder yet.

    Args:
        folder: The folder.
        steps: For each command a file that it writes, then its words.
    """
    for marker, *words in steps:
        if not (folder / str(marker)).is_file():
            began = time.monotonic()
            done = cxr(*words)
            if done.returncode:
                raise SystemExit(f"{' '.join(map(str, words))}: {done.stderr}")
            print(f"made {marker} in {time.monotonic() - began:.0f} s", file=sys.stderr)


def _write_tables(folder: Path, data: Path) -> None:
    """Write random scores of other software, and random ratings of three readers."""
    split = pd.read_parquet(data / "splits" / "default.parquet")
    evaluated = split.loc[split["role"].isin(["val", "test"]), ["image_id"]]
    draw = random.Random(7)  # noqa: S311
    scores = [round(draw.random(), 4) for _ in range(len(evaluated))]
    evaluated.assign(score=scores).to_csv(folder / "scores.csv", index=False)
    truth = pd.DataFrame({"case": [f"c{n:02d}" for n in range(40)], "label": [0, 1] * 20})
    truth.to_csv(folder / "truth.csv", index=False)
    ratings = [
        (reader, case, modality, draw.randint(1, 5) + label)
        for reader in "ABC"
        for modality in ("film", "screen")
        for case, label in truth.itertuples(index=False)
    ]
    columns = ["reader", "case", "modality", "rating"]
    pd.DataFrame(ratings, columns=columns).to_csv(folder / "ratings.csv", index=False)
