"""One training by several processes: of `--devices`, of torchrun, of SLURM."""

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

from cxr_compare.configs.load import find_config, first_difference, read_config
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.scripts.commands.train import _launched, train
from cxr_compare.training.launch import Launch, read_launch
from cxr_compare.training.run_folder import resumable
from cxr_compare.training.train import require_shares
from tests.scripts.launched import alone, launched, slurm, torchrun
from tests.scripts.small_sets import drawn_images, table_set
from tests.scripts.test_scale_page import sbatch_words

ROOT = Path(__file__).resolve().parents[2]
_LIVE_NORM = [
    "model.backbone=small_cnn", "training.batch_size=4", "training.epochs=3",
    "training.precision=fp32", "training.positive_share=0", "training.optimiser=sgd",
    "training.learning_rate=0.01",
]  # fmt: skip
# Group norm: a batch norm measures a batch, and so differs where processes share it.
_DETECTOR = [
    "data.image_size=96", "training.precision=fp32", "training.epochs=1", "model.weights=none",
    "model.fpn_channels=16", "model.head_convs=1", "model.norm=group", "model.trainable=all",
    "model.backbone=mobilenet_v3_small", "training.workers=0", "training.positive_share=0.5",
    "training.batch_size=4", "training.optimiser=sgd",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = drawn_images(tmp_path_factory.mktemp("devices"), 32, 96, [96], prevalence=0.4)
    images = {role: len(DataSet.open(data).image_ids(role)) for role in ("train", "val")}
    # Of two processes one has no image of the last batch, and one has more to validate.
    assert images["train"] % 4 == 1
    assert images["val"] % 2 == 1
    return data


def _words(config: str, data: Path, out: Path, sets: list[str]) -> list[object]:
    overrides = [argument for override in sets for argument in ("--set", override)]
    return ["train", config, "--data", data, "--out", out, "--device", "cpu", *overrides]


def _history(*folders: Path) -> list[pd.DataFrame]:
    return [pd.read_csv(folder / "metrics.csv") for folder in folders]


def _require_equal(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """All figures of an evaluation that slices share, but for the order of sums."""
    for name in one.columns:
        assert other[name].tolist() == pytest.approx(one[name].tolist(), rel=1e-4, abs=1e-6), name


@pytest.mark.long
def test_two_processes_learn_and_evaluate_as_one_on_images_that_do_not_divide(data, tmp_path):
    words = [_words("retinanet_quickstart", data, tmp_path / f, _DETECTOR) for f in ("one", "two")]
    alone(words[0], tmp_path)
    with launched(words[1], torchrun(2), tmp_path) as two:
        assert two.wait() == [0, 0], two.outputs()
        first, second = two.outputs()
    assert first.count("\nepoch 1 of 1") == 1
    assert not second  # the others are silent
    _require_equal(*_history(tmp_path / "one", tmp_path / "two"))


@pytest.mark.long
def test_slurm_job_of_the_page_trains_on_two_nodes(data, tmp_path):
    arguments = sbatch_words()
    for option, value in {"--data": str(data), "--out": str(tmp_path / "two")}.items():
        arguments[arguments.index(option) + 1] = value
    sets = [argument for override in _DETECTOR for argument in ("--set", override)]
    with launched([*arguments, "--device", "cpu", *sets], slurm(2, nodes=2), tmp_path) as two:
        assert two.wait() == [0, 0], two.outputs()
        assert two.outputs()[0].count("\nepoch 1 of 1") == 1
    assert (tmp_path / "two/run.json").is_file()


@pytest.mark.release
def test_refusal_that_all_processes_share_leaves_no_folder(data, tmp_path):
    arguments = _words("chexnet_quickstart", data, tmp_path / "run", ["training.batch_size=5"])
    with launched(arguments, slurm(2), tmp_path) as two:
        assert two.wait(90) == [2, 2], two.outputs()
        (line,) = two.outputs()[0].splitlines()
    assert line.startswith("cxr: --devices 2: training.batch_size = 5 ")
    assert not (tmp_path / "run").exists()


def test_of_several_trainings_one_whose_processes_fail_leaves_the_others(tmp_path, monkeypatch):
    def fail(words: list[str], devices: int) -> None:
        raise SystemExit(2)  # the first process has said why

    monkeypatch.setattr("cxr_compare.scripts.commands.train.run_on_devices", fail)
    data = table_set(tmp_path, ["a", "b"], {"opacity": ["present", "absent"]})
    names = ["chexnet_quickstart", "small_cnn"]
    made = train(names, data=data, out=tmp_path / "zoo", device="cpu", devices=2)
    assert list(made.failed) == names
    assert made.exit_status == 1


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Launch()),
        ({"RANK": "0", "WORLD_SIZE": "1"}, Launch()),
        ({"RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}, Launch("torchrun", 4, 2, 1)),
        ({"SLURM_NTASKS": "4", "SLURM_JOB_ID": "1"}, Launch()),  # a batch script without srun
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_LOCALID": "0"}, Launch()),
        ({"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4"}, Launch("slurm", 4, 4, 2)),
        (
            {
                "SLURM_PROCID": "2",
                "SLURM_STEP_NUM_TASKS": "8",
                "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
            },
            Launch("slurm", 8, 4, 2),
        ),
    ],
)
def test_processes_of_a_launcher_are_counted(monkeypatch, environment, expected):
    monkeypatch.setattr(os, "environ", environment)
    assert read_launch() == expected


def test_job_of_several_tasks_with_one_process_names_srun(monkeypatch, capsys):
    monkeypatch.setattr(os, "environ", {"SLURM_NTASKS": "4"})
    _launched(1)
    assert "SLURM job has 4 tasks" in capsys.readouterr().err


def test_devices_beside_a_launcher_are_refused_unless_they_are_as_many(monkeypatch):
    monkeypatch.setattr(os, "environ", next(slurm(4, nodes=2)))
    assert _launched(4) == Launch("slurm", 4, 2, 0)
    with pytest.raises(InputError, match=r"--devices 2: slurm .* 4 processes"):
        _launched(2)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (["training.workers=3", "training.loggers=['tensorboard']"], None),
        (["training.batch_size=2"], "training.batch_size was 4, is now 2"),
    ],
)
def test_settings_that_change_no_figure_may_change_where_a_run_goes_on(changes, problem):
    path = find_config("chexnet_quickstart")
    before = read_config(path, ["training.batch_size=4"])
    now = read_config(path, ["training.batch_size=4", *changes])
    assert first_difference(resumable(before, now), now) == problem


def _start(data: Path, out: Path) -> subprocess.Popen[str]:
    arguments = _words("chexnet_quickstart", data, out, _LIVE_NORM)
    command = [
        sys.executable,
        "-P",
        "-m",
        "cxr_compare.scripts.cli",
        *map(str, arguments),
        "--devices",
        "2",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # whoever started pytest may not
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=heeds
    )


def _finish(started: subprocess.Popen[str]) -> str:
    _, output = started.communicate()
    assert started.returncode == 0, output
    return output


@pytest.mark.long
def test_interrupted_processes_are_gone_and_resume_exactly(data, tmp_path):
    # Ctrl-C reaches the first process of all; it passes it on, and nothing of it is left.
    started = _start(data, tmp_path / "halves")
    while not (tmp_path / "halves/metrics.csv").exists() and started.poll() is None:
        time.sleep(0.05)
    started.send_signal(signal.SIGINT)
    _, output = started.communicate()
    assert started.returncode == 130, output
    assert "Traceback" not in output
    assert not (tmp_path / "halves/run.json").exists()
    for out in ("halves", "whole"):
        assert _finish(_start(data, tmp_path / out)).count("\nepoch 3 of 3") == 1
    whole, halves = (load_file(tmp_path / f / "model.safetensors") for f in ("whole", "halves"))
    assert all(value.equal(halves[name]) for name, value in whole.items())


@pytest.mark.parametrize(("batch_size", "devices"), [(8, 2), (7, 1), (2, 2)])
def test_batch_that_can_be_shared_is_taken(batch_size, devices):
    require_shares(batch_size, devices)


@pytest.mark.parametrize(("batch_size", "near"), [(7, 6), (1, 2)])
def test_batch_that_cannot_be_shared_names_one_that_can(batch_size, near):
    with pytest.raises(InputError, match=rf"--devices 2: .* --set training.batch_size={near}$"):
        require_shares(batch_size, 2)
