"""First answers: whole commands, each in a new process, against the bare imports of its libraries.

A ratio near 1 says that a command is as fast as its libraries allow.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.bench import Row
from benchmarks.bench_inference import make_export
from benchmarks.bench_models import sizes
from benchmarks.worker import Candidate, Run

if TYPE_CHECKING:
    from benchmarks.bench import Setting

_IMAGES = 1000  # rows of a table
_BARE = "bare imports"
_CLI = ("-m", "cxr_compare.scripts.cli")


def first_answers(setting: Setting) -> Iterator[dict[str, Any]]:
    """Yield rows of the first answers of `cxr`, in seconds from the start of the process."""
    truth, systems = _tables(setting)
    report = setting.scratch / "first-report"
    export = make_export(setting, "classifier", sizes(setting)["classifier"], "onnx fp32")
    compared = ["compare", *systems, "--truth", truth, "--out", str(report), "--overwrite"]
    predicted = ["predict", str(export), str(setting.images[0]), "--no-overlay"]
    works = {
        "cxr --help": (["--help"], "cyclopts, rich.console, rich.table", 0.3),
        "cxr predict IMAGE with an export": (
            predicted,
            "cyclopts, numpy, pandas, pydantic, pydicom, cv2, onnxruntime",
            1.5,
        ),
        f"cxr compare --truth, two tables of {_IMAGES:,} rows": (
            compared,
            "cyclopts, numpy, pandas, pydantic, scipy.special, matplotlib.pyplot, jinja2",
            4.0,
        ),
    }
    for work, (words, modules, limit) in works.items():
        candidates = {
            "first answer": Candidate.from_setup(command_run, words=[*_CLI, *words]),
            _BARE: Candidate.from_setup(command_run, words=["-c", f"import {modules}"]),
        }
        row = Row(work, "s", "first answer", _BARE, limit=limit)
        yield from setting.meter.measure(candidates, [row], warm=True)


def command_run(words: Sequence[str]) -> Run:
    """Set up a new process of Python, from its start to its end.

    `words` come behind the interpreter.
    """
    environment = dict(os.environ)
    # Where a container sets it, each process compiles all modules anew, which no user's does.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def run() -> None:
        command = [sys.executable, *words]
        subprocess.run(  # noqa: S603  our own command
            command, check=True, capture_output=True, env=environment
        )

    return run


def _tables(setting: Setting) -> tuple[str, list[str]]:
    """Write a table of truth and the scores of two systems; return their paths as words."""
    rng = np.random.default_rng(setting.seed)
    names = [f"image-{number}" for number in range(_IMAGES)]
    labels = (rng.random(_IMAGES) < 0.3).astype(int)
    patients = [f"patient-{number // 2}" for number in range(_IMAGES)]
    truth = setting.scratch / "first-truth.csv"
    table = pd.DataFrame({"image_id": names, "patient_id": patients, "label": labels})
    table.to_csv(truth, index=False)
    systems = []
    for name, separation in (("A", 0.3), ("B", 0.2)):
        scores = rng.normal(0.4 + separation * labels, 0.15).clip(0, 1)
        path = setting.scratch / f"first-{name}.csv"
        pd.DataFrame({"image_id": names, "score": scores}).to_csv(path, index=False)
        systems.append(f"{name}={path}")
    return str(truth), systems


BLOCKS = {"start": (first_answers,)}
