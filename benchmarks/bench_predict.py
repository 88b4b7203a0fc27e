"""Predictions by our program, for processes that import torch only if torch predicts."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.worker import Run
from cxr_compare.data_prep.store.loose_pixels import LoosePixels
from cxr_compare.scripts import console


def torch_predictions(images: str, batch: int, run: str, precision: Any, device: str) -> Run:
    """Set up the prediction of images with a run, by PyTorch.

    `images` is their file.
    """
    from cxr_compare.serving.trained_model import TrainedModel

    return _predictions(TrainedModel.open(run, precision=precision, device=device), images, batch)


def exported_predictions(images: str, batch: int, folder: str) -> Run:
    """Set up the prediction of images with an export.

    `images` is their file.
    """
    from cxr_compare.serving.exported_model import ExportedModel

    return _predictions(ExportedModel.open(folder), images, batch)


def _predictions(model: Any, images: str, batch: int) -> Run:
    squares = np.load(images)[:, 0]
    named = {str(number): square for number, square in enumerate(squares)}
    source = LoosePixels(named, squares.shape[-1])

    def predict() -> float:
        parts = model.predict(source, source.ids, source.sizes, batch)
        return float(sum(len(part.images) for part in parts))

    return predict


def predict_command(run: str, files: str, options: Sequence[str]) -> Run:
    """Set up the command `cxr predict` with a run or an export, in this process.

    `files` has the path of one image in each line; `options` are further words of the command line.
    """
    from cxr_compare.scripts.cli import build_app

    named = Path(files).read_text(encoding="utf-8").split("\n")
    table = Path(files).with_suffix(f".{os.getpid()}.csv")

    def answer() -> float:
        table.unlink(missing_ok=True)
        command = ["predict", run, *named, "--no-overlay", "--csv", str(table), *options]
        with console.silent(), redirect_stdout(io.StringIO()):
            build_app(command[0])(command)
        return float(len(named))

    return answer
