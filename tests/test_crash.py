"""Interrupted and damaged work: it goes on to the same bytes, or says which file is damaged."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cxr_compare import InputError
from tests.adapters import folders
from tests.test_prepare import prepare, write_source
from tests.world import NETWORKS, SMALL

ROOT = Path(__file__).resolve().parents[1]
# Pages, pictures and tables for people, which the program does not read again; a record is text
# without a checksum of its own.
UNREAD = {".json", ".html", ".png", ".svg", ".pdf", ".tex", ".md", ".csv", ".txt", ".toml", ".lock"}


def outcome(folder, path, whole):
    """Outcome of reading a folder in which a file is damaged."""
    try:
        return "harmless" if folders.content(folder) == whole else "silent"
    except InputError as error:
        line = str(error)
        above = [path.name, *(p.name for p in path.parents if p.is_relative_to(folder))]
        assert "\n" not in line
        assert any(name in line for name in above), line
        return "refused"


def flip_bits(folder, count, seed):
    """Flip a bit in each of `count` drawn files, one at a time; count the outcomes."""
    draw = np.random.default_rng(seed)
    whole = folders.content(folder)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix not in UNREAD)
    files = [path for path in files if path.stat().st_size]
    outcomes = Counter()
    for number in range(count):
        path = files[number % len(files)]
        before = path.read_bytes()
        changed = bytearray(before)
        changed[draw.integers(len(changed))] ^= 1 << int(draw.integers(8))
        path.write_bytes(changed)
        outcomes[outcome(folder, path, whole)] += 1
        path.write_bytes(before)
    return outcomes


@pytest.mark.parametrize("part", ["data", "predictions", "report", "export", "run"])
def test_a_flipped_bit_is_refused_or_without_effect(world, part, tmp_path):
    of_part = {
        "data": lambda: world.data,
        "predictions": lambda: world.predictions("detector"),
        "report": lambda: world.report,
        "export": lambda: world.export("classifier"),
        "run": lambda: world.run("classifier"),
    }
    folder = Path(shutil.copytree(of_part[part](), tmp_path / part))
    if part in ("export", "run"):
        folders.add_guard(folder)
    outcomes = flip_bits(folder, 30, seed=31)
    assert outcomes["silent"] == 0
    assert outcomes["refused"] > 10


def digests(folder):
    """SHA-256 of the files of a run that do not say when they were made."""
    names = ("model.safetensors", "model.json", "preprocess.json", "seen.parquet", "config.toml")
    names += ("metrics.csv", "guard.npz", "decision.json")
    return {
        n: hashlib.sha256((folder / n).read_bytes()).hexdigest()
        for n in names
        if (folder / n).exists()
    }


def wait_for(path, process):
    """Wait until a file exists, or its process has ended."""
    while not path.exists() and process.poll() is None:
        time.sleep(0.01)


def test_a_killed_training_goes_on_to_the_same_weights(world, tmp_path):
    config, network = NETWORKS["classifier"]
    sets = [*SMALL, *network, "training.epochs=3"]
    options = [word for each in sets for word in ("--set", each)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(out):
        return subprocess.Popen(
            [sys.executable, "-m", "cxr_compare.scripts.cli", "train", config,
             "--data", str(world.data), "--out", str(out), *options],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    for name, moments in (("whole", ()), ("killed", ("run folder", "checkpoint", "model"))):
        out = tmp_path / name
        for moment in moments:
            awaited = {
                "run folder": out / "config.toml",
                "checkpoint": out / "checkpoints" / "last.ckpt",
                "model": out / "model.safetensors",
            }[moment]
            process = start(out)
            wait_for(awaited, process)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        process = start(out)
        _, said = process.communicate()
        assert process.returncode == 0, said
    whole = digests(tmp_path / "whole")
    assert "model.safetensors" in whole
    assert digests(tmp_path / "killed") == whole


# A child that ends itself with SIGKILL at the n-th call of a function.
KILLED = """
import os, signal, sys
from pathlib import Path
import PIL.Image
import cxr_compare
calls = {"read": (PIL.Image, "open"), "commit": (os, "fsync"), "rename": (os, "replace")}
owner, name = calls[sys.argv[1]]
real, left = getattr(owner, name), [int(sys.argv[2])]
def kill_or_call(*arguments, **options):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **options)
setattr(owner, name, kill_or_call)
source, out = Path(sys.argv[3]), sys.argv[4]
cxr_compare.prepare(source / "labels.csv", source / "images", out, size=[32], workers=0)
"""


def stored_bytes(folder):
    """Bytes of all files, but the time and the name of the folder."""
    content = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            stored = path.read_bytes()
            if path.name == "dataset.json":
                record = json.loads(stored)
                stored = {key: record[key] for key in record.keys() - {"created", "name"}}
            elif path.suffix == ".html":
                stored = re.sub(b"Audit of [a-z0-9-]+", b"", stored)
            content[path.relative_to(folder).as_posix()] = stored
    return content


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A source, and the data set of a run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("prepared")
    source = write_source(folder / "source", 80)
    prepare(source, folder / "whole", size=[32])
    return source, folder / "whole"


@pytest.mark.parametrize(
    ("call", "number", "tail"),
    [
        ("read", 40, b""),
        ("read", 70, b'{"image_id": "i0'),
        ("commit", 2, b""),
        ("rename", 4, b""),
        ("rename", 11, b""),
    ],
    ids=["an image", "a torn journal", "a commit", "between two tables", "between two splits"],
)
def test_a_killed_preparation_goes_on_to_the_same_bytes(prepared, tmp_path, call, number, tail):
    source, whole = prepared
    out = tmp_path / "set"
    command = [sys.executable, "-c", KILLED, call, str(number), str(source), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    killed = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (out / "dataset.json").exists()
    if tail:
        with (out / "decoded.jsonl").open("ab") as journal:
            journal.write(tail)
    prepare(source, out, size=[32])
    assert stored_bytes(out) == stored_bytes(whole)
    before = folders.content(out)
    prepare(source, out, size=[32])
    assert folders.content(out) == before
