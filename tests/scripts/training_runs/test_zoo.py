"""A list of models is trained one after another, and what fails does not take the rest along."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.load import parse_config
from data_prep.contracts.errors import InputError
from scripts import console
from scripts.machines import child_processes
from scripts.train import train
from scripts.training_runs import zoo
from scripts.training_runs.zoo import Outcome, _table
from training.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[3]
_ZOO = """
kind = "zoo"
[data]
image_size = 64
[model]
architecture = "small_cnn"
[training]
epochs = 1
batch_size = 8
learning_rate = 1e-3
[[models]]
name = "First one"
[[models]]
name = "Lost"
model.weights = "no/such.pth"
[[models]]
name = "Elsewhere"
data.split = "mine"
[[models]]
name = "Last"
training.optimiser = "rmsprop"
training.momentum = 0.0
"""
_ALL = ["first_one", "lost", "elsewhere", "last"]


@pytest.fixture(scope="module")
def data(drawn_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    (folder / "zoo.toml").write_text(_ZOO)
    return shutil.copytree(drawn_set, folder / "data")


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs each command here instead of in a process of its own; the list of what was trained."""
    return _run_here(monkeypatch)


def _run_here(patch: pytest.MonkeyPatch) -> list[str]:
    trained: list[str] = []

    def run(words: list[str]) -> int:
        options = dict(zip(words[2::2], words[3::2], strict=False))
        trained.append(Path(options["--out"]).name)
        try:
            train(words[1], Path(options["--data"]), Path(options["--out"]), device="cpu")
        except InputError:
            return 2
        return 0

    patch.setattr(zoo, "_run", run)
    return trained


class Ended(NamedTuple):
    """What training of the whole list left: its folder, what was tried, and what was said."""

    out: Path
    tried: list[str]
    said: list[str]
    status: object


@pytest.fixture(scope="module")
def ended(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    out, said = tmp_path_factory.mktemp("ended") / "zoo", []
    with pytest.MonkeyPatch.context() as patch:
        tried = _run_here(patch)
        patch.setattr(console, "say", lambda text="": said.extend(text.splitlines()))
        with pytest.raises(SystemExit) as caught:
            _train(data, out)
    return Ended(out, tried, said, caught.value.code)


@pytest.fixture(scope="module")
def two_targets(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("targets") / "data"
    shutil.copytree(data, folder)
    info = json.loads((folder / "dataset.json").read_text())
    (target,) = info["targets"].values()
    info["targets"]["twin"] = target
    (folder / "dataset.json").write_text(json.dumps(info))
    return folder


def _train(data: Path, out: Path, *overrides: str) -> None:
    train(str(data.parent / "zoo.toml"), data, out, list(overrides), device="cpu")


def test_models_are_trained_though_others_fail_and_only_those_are_tried_again(
    data: Path, ended: Ended, in_this_process: list[str]
) -> None:
    assert ended.status == 1
    assert ended.tried == _ALL
    assert any("2 of 4 models failed: Lost, Elsewhere;" in line for line in ended.said)
    row = next(line for line in ended.said if line.startswith("First one  "))
    assert "1 of 1" in row
    assert "auroc 0." in row or "auroc 1." in row
    info = RunFolder.open(ended.out / "first_one").info
    assert info["parameters"] == info["trainable_parameters"]
    assert f"{info['parameters']:,}" in row
    config = parse_config(RunFolder.open(ended.out / "last").config, "last")
    assert (config.name, config.training.optimiser) == ("Last", "rmsprop")
    with pytest.raises(SystemExit):
        _train(data, ended.out)
    assert in_this_process == ["lost", "elsewhere"]


def test_another_configuration_of_an_ended_model_is_not_passed_over(
    data: Path, ended: Ended, in_this_process: list[str]
) -> None:
    with pytest.raises(SystemExit):  # cxr train refuses to resume these with another seed
        _train(data, ended.out, "training.seed=5")
    assert in_this_process == _ALL
    assert RunFolder.open(ended.out / "last").info["seed"] == 0


def test_a_wrong_list_or_folder_is_refused_before_anything_is_trained(
    data: Path, tmp_path: Path, in_this_process: list[str]
) -> None:
    with pytest.raises(InputError, match=r"--set training\.epoch: unknown key"):
        _train(data, tmp_path / "runs", "training.epoch=3")
    with pytest.raises(InputError):
        _train(tmp_path, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    assert in_this_process == []


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ([], "has targets .*, twin; choose one"),
        (["data.target=lump"], "has no target 'lump'"),
        (["data.target=twin", "data.split=mine"], "has no split 'mine'"),
    ],
)
def test_what_all_models_lack_ends_the_list_before_it_begins(
    two_targets: Path,
    data: Path,
    tmp_path: Path,
    in_this_process: list[str],
    overrides: list[str],
    says: str,
) -> None:
    zoo = str(data.parent / "zoo.toml")
    with pytest.raises(InputError, match=says):
        train(zoo, two_targets, tmp_path / "runs", overrides, device="cpu")
    assert not (tmp_path / "runs").exists()
    assert in_this_process == []


def test_a_split_without_labels_or_a_missing_gpu_ends_the_list_too(
    data: Path, tmp_path: Path, in_this_process: list[str]
) -> None:
    lame = tmp_path / "data"
    shutil.copytree(data, lame)
    split = lame / "splits" / "default.parquet"
    _table = pd.read_parquet(split)
    metadata = pq.read_schema(split).metadata
    bare = pa.Table.from_pandas(_table[_table["role"] != "val"], preserve_index=False)
    pq.write_table(bare.replace_schema_metadata(metadata), lame / "splits" / "bare.parquet")
    zoo = str(data.parent / "zoo.toml")
    with pytest.raises(InputError, match="role 'val' has no images"):
        train(zoo, lame, tmp_path / "runs", ["data.split=bare"], device="cpu")
    with pytest.raises(InputError, match="--device gpu: choose auto, cpu or cuda"):
        train(zoo, lame, tmp_path / "runs", device="gpu")
    with pytest.raises(InputError, match="batch_size = 8 is the whole batch"):
        train(zoo, lame, tmp_path / "runs", device="cpu", devices=3)
    assert in_this_process == []


def _children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(stat.parent.name))
    return found


def _wait_for(reached: Callable[[], object], seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < until, "took too long"
        time.sleep(0.1)


def _lives(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_what_ends_the_list_ends_the_training_that_it_started(
    data: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    words = ["train", data.parent / "zoo.toml", "--data", data, "--out", tmp_path / "runs"]
    words += ["--device", "cpu", "--set", "training.epochs=100000"]
    command = [sys.executable, "-P", "-m", "scripts.cli", *map(str, words)]
    # As in a background job, where Ctrl-C is ignored, and as in a terminal.
    heeds = signal.SIG_DFL if number == signal.SIGINT else signal.SIG_IGN
    with (tmp_path / "said").open("w") as said:
        started = subprocess.Popen(
            command, stderr=said, cwd=ROOT, preexec_fn=partial(signal.signal, signal.SIGINT, heeds)
        )
    try:
        _wait_for(lambda: (tmp_path / "runs/first_one/metrics.csv").exists())
        (child,) = _children(started.pid)
        started.send_signal(number)
        assert started.wait(90) == status
        _wait_for(lambda: not _lives(child), 10)
    finally:
        started.kill()
        started.wait()
    lines = (tmp_path / "said").read_text().splitlines()
    if number == signal.SIGTERM:
        assert lines[-1] == "cxr: ended by SIGTERM; run the same command again to go on"
    assert not any("Traceback" in line for line in lines)


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (0, None),
        (2, "failed with status 2"),
        (-9, "ended by SIGKILL, perhaps for want of memory"),
        (-15, "ended by SIGTERM"),
        (143, "ended by SIGTERM"),
    ],
)
def test_status_of_a_process_is_told_in_words(status: int, problem: str | None) -> None:
    assert child_processes.problem_of(status) == problem


def test_an_interruption_ends_the_whole_list() -> None:
    with pytest.raises(KeyboardInterrupt):
        child_processes.problem_of(130)


def test_a_process_of_its_own_gives_its_status() -> None:
    assert zoo._run(["train", "no-such-configuration", "--data", "x", "--out", "y"]) == 2


def test_failed_models_have_a_line_too() -> None:
    lines = _table(
        [Outcome("A", Path("a"), "ended by SIGKILL"), Outcome("Long name", Path("b"), "x")]
    )
    assert [line.split()[0] for line in lines[2:]] == ["A", "Long"]
    assert lines[2].endswith("ended by SIGKILL")
