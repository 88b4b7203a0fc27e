"""`cxr train --devices 2`: the same training by two processes, through the same command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

from data_prep.assemble.prepare import prepare
from data_prep.contracts.errors import InputError
from data_prep.store.dataset import DataSet
from data_prep.synth.phantom import write_phantom
from scripts import train_devices
from scripts.train import train
from scripts.train_devices import require_shares, run_on_devices

ROOT = Path(__file__).resolve().parents[2]
# Group norm has no statistics that two processes would measure apart.
_TINY = [
    "data.image_size=96", "training.batch_size=4", "training.precision=fp32",
    "model.fpn_channels=16", "model.head_convs=1", "model.norm=group",
    "model.backbone=mobilenet_v3_small",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("devices")
    # 20 images to train: two processes share them without one that both take.
    write_phantom(folder / "source", n_images=31, seed=3, size=96, prevalence=0.4)
    prepare(folder / "source", folder / "data", format="rsna", sizes=[96], workers=0)
    assert len(DataSet.open(folder / "data").image_ids("train")) % 4 == 0
    return folder / "data"


def _start(data: Path, out: Path, epochs: int) -> subprocess.Popen[str]:
    keys = [*_TINY, f"training.epochs={epochs}"]
    sets = [word for override in keys for word in ("--set", override)]
    command = [
        sys.executable, "-m", "scripts.cli", "train", "retinanet_quickstart", "--data", str(data),
        "--out", str(out), "--device", "cpu", "--devices", "2", *sets,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # whoever started pytest may not
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=heeds
    )


def _finish(started: subprocess.Popen[str]) -> str:
    _, said = started.communicate()
    assert started.returncode == 0, said
    return said


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, pytest.param(2, marks=pytest.mark.long)])
def test_two_processes_learn_what_one_learns(data: Path, tmp_path: Path, epochs: int) -> None:
    keys = [*_TINY, f"training.epochs={epochs}"]
    train("retinanet_quickstart", data, tmp_path / "one", keys, resume=True, device="cpu")
    folder = tmp_path / "two"
    said = _finish(_start(data, folder, epochs))
    assert said.count(f"\nepoch 1 of {epochs}") == 1  # one of them speaks
    assert {p.name for p in (tmp_path / "one").iterdir()} == {p.name for p in folder.iterdir()}
    assert json.loads((folder / "run.json").read_text())["devices"] == 2
    one, two = (pd.read_csv(f / "metrics.csv") for f in (tmp_path / "one", folder))
    for name in ("train_loss", "val_loss", "learning_rate"):
        # Sums in another order: at first in the last digit, later rectifiers turn at it.
        assert two[name][0] == pytest.approx(one[name][0], rel=1e-3), name
        assert two[name].tolist() == pytest.approx(one[name].tolist(), rel=0.02, abs=1e-6), name


@pytest.mark.long
def test_interrupted_processes_are_gone_and_resume_exactly(data: Path, tmp_path: Path) -> None:
    # Ctrl-C reaches the first process of all; it passes it on, and nothing of it is left.
    started = _start(data, tmp_path / "halves", 2)
    while not (tmp_path / "halves/metrics.csv").exists() and started.poll() is None:
        time.sleep(0.05)
    started.send_signal(signal.SIGINT)
    _, said = started.communicate()
    assert started.returncode == 130, said
    assert said.count("cxr: interrupted") == 1
    assert "Traceback" not in said
    assert not (tmp_path / "halves/run.json").exists()
    for out in ("halves", "whole"):
        _finish(_start(data, tmp_path / out, 2))
    whole, halves = (load_file(tmp_path / f / "model.safetensors") for f in ("whole", "halves"))
    assert all(value.equal(halves[name]) for name, value in whole.items())


@pytest.mark.parametrize(("batch_size", "devices"), [(8, 2), (8, 1), (7, 1), ("auto", 3), (2, 2)])
def test_batch_that_can_be_shared_is_taken(batch_size: int | str, devices: int) -> None:
    require_shares(batch_size, devices)


@pytest.mark.parametrize(("batch_size", "near"), [(7, 6), (1, 2), (3, 2)])
def test_batch_that_cannot_be_shared_names_one_that_can(batch_size: int, near: int) -> None:
    with pytest.raises(InputError, match=rf"--devices 2: .* add --set training.batch_size={near}$"):
        require_shares(batch_size, 2)


def test_refusal_that_all_processes_share_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    words = ["train", "no-such-config", "--data", "d", "--out", "o", "--devices", "2"]
    assert run_on_devices(words, 2) == 2
    said = capfd.readouterr().err
    assert said.count("cxr: no-such-config: no such file") == 1
    assert len(said.splitlines()) == 1


def _watch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *scripts: str) -> int:
    monkeypatch.setattr(train_devices, "_REPORT_GRACE", 0.2)
    files = [(tmp_path / str(rank)).open("w+b") for rank in range(len(scripts))]
    started = [
        subprocess.Popen([sys.executable, "-c", script], stderr=file)
        for script, file in zip(scripts, files, strict=True)
    ]
    try:
        return train_devices._watch(started, files)
    finally:
        for one, file in zip(started, files, strict=True):
            one.kill()
            one.wait()
            file.close()


_WAITS = "import time; time.sleep(60)"


def test_line_of_the_process_that_failed_first_is_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fails = "import sys; sys.stderr.write('epoch 1\\ncxr: image b: bad\\n'); sys.exit(2)"
    assert _watch(monkeypatch, tmp_path, _WAITS, fails) == 2
    assert capsys.readouterr().err == "cxr: image b: bad\n"


def test_error_without_a_line_is_shown_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _watch(monkeypatch, tmp_path, _WAITS, "1 / 0") == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_process_that_the_system_ended_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = "import os; os.kill(os.getpid(), 9)"
    assert _watch(monkeypatch, tmp_path, _WAITS, killed) == 2
    said = capsys.readouterr().err
    assert said.startswith("cxr: process 2 of 2 was ended by signal 9 (out of memory?")
    assert len(said.splitlines()) == 1
