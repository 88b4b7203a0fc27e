"""Small inputs of every verb, made once by the program itself."""

import csv
import os
import random
import subprocess
import sys
import time
from pathlib import Path

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


def cxr_command(*words: object) -> list[str]:
    """A command of the program in this tree, as its console script runs it."""
    return [sys.executable, "-c", "from scripts.cli import main; main()", *map(str, words)]


def cxr(
    *words: object, within: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in English and with one thread."""
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
    """Make the inputs below a folder, but for those that are there; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.toml").write_text(_CLASSIFIER)
    (folder / "boxes.toml").write_text(_DETECTOR)
    data, run, predictions = folder / "data", folder / "run", folder / "predictions"
    steps = (
        ("xrays/synth.json", "synth", folder / "xrays", "--images", 90, "--size", 96,
         "--prevalence", 0.4, "--seed", 3),
        ("data/dataset.json", "prepare", folder / "xrays", data, "--format", "rsna",
         "--size", 64),
        ("run/run.json", "train", folder / "tiny.toml", "--data", data, "--out", run,
         "--device", "cpu"),
        ("predictions/predictions.json", "predict", run, "--data", data, "--out", predictions),
        ("other/predictions.json", "import", folder / "scores.csv", "--data", data, "--out",
         folder / "other", "--name", "Other"),
    )  # fmt: skip
    for marker, *words in steps:
        if words[0] == "import":
            _write_tables(folder, data)
        if not (folder / marker).is_file():
            began = time.monotonic()
            done = cxr(*words)
            if done.returncode:
                raise SystemExit(f"{' '.join(map(str, words))}: {done.stderr}")
            print(f"made {marker} in {time.monotonic() - began:.0f} s", file=sys.stderr)
    return folder


def _write_tables(folder: Path, data: Path) -> None:
    """Scores of another software, and ratings of three readers, at random."""
    import pandas as pd

    split = pd.read_parquet(data / "splits" / "default.parquet")
    judged = split[split["role"].isin(["val", "test"])]["image_id"]
    draw = random.Random(7)  # noqa: S311
    with (folder / "scores.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image_id", "score"])
        rows.writerows([image, round(draw.random(), 4)] for image in judged)
    cases = [f"c{number:02d}" for number in range(40)]
    with (folder / "truth.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["case", "label"])
        rows.writerows([case, number % 2] for number, case in enumerate(cases))
    with (folder / "ratings.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["reader", "case", "modality", "rating"])
        for reader in "ABC":
            for modality in ("film", "screen"):
                for number, case in enumerate(cases):
                    rating = draw.randint(1, 5) + number % 2
                    rows.writerow([reader, case, modality, rating])
