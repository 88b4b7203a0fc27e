"""Guard, exports and predicting of this program, and the places where a test must reach into it."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import torch

from cxr_compare.data_prep.parallel import ray_cluster
from cxr_compare.data_prep.pixels import PixelStore
from cxr_compare.data_prep.predictions import PredictionWriter
from cxr_compare.data_prep.preprocess import letterbox
from cxr_compare.data_prep.synth.rendering import draw_image, draw_patient
from cxr_compare.serving import answer_files, predict_data
from cxr_compare.serving.guard import Guard, fit_guard
from cxr_compare.serving.network import TorchNetwork
from cxr_compare.serving.onnx_file import OnnxNetwork
from cxr_compare.serving.proof import prove
from tests.adapters.commands import cxr

__all__ = ["Guard"]
ROOT = Path(__file__).resolve().parents[2]
_SIDE = 128
# What an export must answer without.
_HEAVY = (
    *("torch", "torchvision", "lightning", "timm", "albumentations", "safetensors", "sklearn"),
)
_HIDDEN = f"""
import socket, sys
def refused(*words, **named):
    raise SystemExit(f"the network was asked for {{words}}")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refused
for name in {_HEAVY!r}:
    sys.modules[name] = None
from cxr_compare.scripts.cli import main
main()
"""


def draw(numbers):
    """Draw synthetic radiographs, one a patient of a number."""
    return [draw_image(draw_patient(1, number, 0.4), 0, _SIDE).pixels for number in numbers]


@contextmanager
def stopped_at(number):
    """Interrupt `cxr predict` before the answer for an image of a number; yield those answered."""
    real, answered = answer_files._answered, []

    def answer_or_stop(runs, file):
        if len(answered) + 1 == number:
            raise KeyboardInterrupt
        answered.append(file.path.name)
        return real(runs, file)

    with mock.patch.object(answer_files, "_answered", answer_or_stop):
        yield answered


_STEPS = {
    "reading": (PixelStore, "image"),
    "computing": (TorchNetwork, "__call__"),
    "writing": (PredictionWriter, "add"),
}


def heat_of(answer):
    """Return the values of the heat map of an answer, as the picture draws it; None without."""
    heat = answer._prediction.heat
    return None if heat is None else heat.values


def square(pixels):
    """The square in which a guard sees an image."""
    return letterbox(pixels, _SIDE)[0]


def learn(squares, patients=None, ages=None):
    """Fit a guard on squares by name."""
    names = list(squares)
    of_image = pd.Series(names if patients is None else patients, index=names)
    years = None if ages is None else pd.Series(ages, index=names)
    store = SimpleNamespace(image=lambda name: square(squares[name]))
    return fit_guard(store, of_image, years)


def proved(expected, got):
    """The line on two networks of which one gives `expected` and the other `got`."""
    return prove(lambda _: expected, lambda _: got, np.empty(1))


@contextmanager
def exported_otherwise(shift):
    """Exports whose outputs differ from those of their runs."""
    compute = OnnxNetwork.__call__

    def otherwise(self, squares):
        output = compute(self, squares)
        if isinstance(output, list):
            return [rows + np.array([0, 0, 0, 0, shift, 0]) for rows in output]
        return output[0] + shift, output[1]

    with mock.patch.object(OnnxNetwork, "__call__", otherwise):
        yield


@contextmanager
def failing(above):
    """Runs whose network gives NaN for all images of a higher mean grey."""
    compute = TorchNetwork.__call__

    def broken(self, squares):
        output = compute(self, squares)
        bright = squares.mean(axis=(1, 2, 3)) > above
        if isinstance(output, list):
            return [
                rows * np.nan if hit else rows for rows, hit in zip(output, bright, strict=True)
            ]
        scores, maps = (np.array(part) for part in output)
        scores[bright] = np.nan
        return scores, maps

    with mock.patch.object(TorchNetwork, "__call__", broken):
        yield


def _python(code, *words, **variables):
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        env=surroundings,
        capture_output=True,
        text=True,
        check=False,
    )


def predict_in_parts(*words, killed_after):
    """`cxr predict` in parts of four images, in a process that dies after some; its exit status."""
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=_predict_and_die, args=(words, killed_after))
    process.start()
    process.join()
    return process.exitcode


def _predict_and_die(words, killed_after):
    torch.set_num_threads(1)
    add, numbers = predict_data.PredictionWriter.add, itertools.count()

    def add_or_die(self, images, **tables):
        if next(numbers) == killed_after:
            os.kill(os.getpid(), signal.SIGKILL)
        add(self, images, **tables)

    predict_data._PART = 4
    predict_data.PredictionWriter.add = add_or_die
    cxr("predict", *words)


def without_torch(*words, home):
    """`cxr` without a network and what only a training needs: status, stdout and stderr."""
    done = _python(_HIDDEN, *words, HOME=str(home))
    return done.returncode, done.stdout, done.stderr


@contextmanager
def cluster(workers):
    """A Ray cluster of this machine, which `engine="ray"` then joins."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with mock.patch.dict(os.environ, PYTHONPATH=paths), ray_cluster(workers):
        yield
