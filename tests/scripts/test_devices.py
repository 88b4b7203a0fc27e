"""One training by several processes: of `--devices`, of torchrun, of SLURM."""

import json
import os
import re
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
from cxr_compare.scripts.child_processes import own_rank, wait_for_processes
from cxr_compare.training.rank import Rank
from cxr_compare.training.request import require_shares
from cxr_compare.training.start import with_loading_of
from tests.scripts.launched import alone, launched, slurm, torchrun, wait_for
from tests.scripts.small_sets import drawn_images
from tests.scripts.test_scale_page import sbatch_words

ROOT = Path(__file__).resolve().parents[2]
_LIVE_NORM = [
    "model.backbone=small_cnn", "training.batch_size=4", "training.epochs=3",
    "training.precision=fp32", "training.positive_share=0", "training.optimiser=sgd",
    "training.learning_rate=0.01",
]  # fmt: skip
_CLASSIFIER = [*_LIVE_NORM, "model.backbone=squeezenet1_1"]  # it has no batch norm
# Group norm: a batch norm measures a batch, and so changes where batches are accumulated.
_DETECTOR = [
    "data.image_size=96", "training.precision=fp32", "training.epochs=1", "model.weights=none",
    "model.fpn_channels=16", "model.head_convs=1", "model.norm=group", "model.trainable=all",
    "model.backbone=mobilenet_v3_small", "training.workers=0", "training.positive_share=0.5",
]  # fmt: skip
_LOSSES = ("train_loss", "val_loss", "learning_rate")
# Sums in another order: at first in the last digits, later rectifiers and pools turn at it.
_FIRST_EPOCH, _LATER = 1e-3, 1e-2  # relative
_SOON = "import cxr_compare.training.processes as them; them.GRACE = 1.0\n"
# Which each process draws for itself.
_NO_DROPOUT = "from torch import nn; nn.Dropout.forward = lambda self, values: values\n"
_AT_EPOCH = """
import os, signal, time
from pathlib import Path
from cxr_compare.training.epoch_record import EpochRecord
begin = EpochRecord.on_train_epoch_start
def begin_or_end(self, trainer, module):
    begin(self, trainer, module)
    if trainer.current_epoch == {after}:
        {what}
EpochRecord.on_train_epoch_start = begin_or_end
"""
_DIES = _AT_EPOCH.format(after=1, what="os.kill(os.getpid(), signal.SIGKILL)")
_WAITS = _AT_EPOCH.format(after=2, what="Path({path!r}).touch(); time.sleep(120)")
_NO_IMAGE = """
from cxr_compare.training.datasets import ImageLabelDataset
def unreadable(self, key):
    raise OSError("the disk is gone")
ImageLabelDataset.__getitem__ = unreadable
"""


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
    for name in _LOSSES:
        assert other[name][0] == pytest.approx(one[name][0], rel=_FIRST_EPOCH)
        assert other[name].tolist() == pytest.approx(one[name].tolist(), rel=_LATER, abs=1e-7)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing ended, of one process."""
    folder = tmp_path_factory.mktemp("whole")
    arguments = _words("chexnet_quickstart", data, folder / "run", _CLASSIFIER)
    alone(arguments, folder / "logs", _NO_DROPOUT)
    return folder / "run"


def _require_continued(
    arguments: list[object], whole: Path, out: Path, logs: Path, last: int
) -> None:
    """One process goes on after the last epoch that two ended, and learns what one learns."""
    (history_row,) = _history(out)
    output = alone(arguments, logs, _NO_DROPOUT)
    assert "epoch 3 of 3: loss" in output
    assert f"epoch {last} of 3: loss" not in output
    assert {p.name for p in whole.iterdir()} == {p.name for p in out.iterdir()}
    one, continued = _history(whole, out)
    _require_equal(one, continued)
    columns = list(_LOSSES)
    pd.testing.assert_frame_equal(history_row[columns], continued[columns][:last])  # was kept


@pytest.mark.slow
@pytest.mark.long  # 27 s; tests/architectures tests resuming
def test_training_goes_on_with_one_process_where_one_of_two_was_killed(data, whole, tmp_path):
    out, logs = tmp_path / "run", tmp_path / "logs"
    arguments = _words("chexnet_quickstart", data, out, _CLASSIFIER)
    before = [_NO_DROPOUT + _SOON, _NO_DROPOUT + _DIES]
    with launched(arguments, torchrun(2), logs, before) as two:
        assert two.wait() == [2, -signal.SIGKILL]
        first, second = two.outputs()
    assert first.count("\ncxr: ") == 1, first
    assert "cxr: process 1 of 2: " in first
    assert "run the same command again to go on" in first
    assert "Traceback" not in first
    assert not second  # the others are silent
    _require_continued(arguments, whole, out, logs, last=1)


@pytest.mark.long
def test_training_goes_on_with_one_process_where_two_were_terminated(data, whole, tmp_path):
    out, logs = tmp_path / "run", tmp_path / "logs"
    arguments = _words("chexnet_quickstart", data, out, _CLASSIFIER)
    waits = _WAITS.format(path=str(tmp_path / "waits"))  # the other one for it, in a reduction
    with launched(arguments, torchrun(2), logs, before=[_NO_DROPOUT + waits, _NO_DROPOUT]) as two:
        wait_for(tmp_path / "waits", two)
        for process in two.processes:  # as SLURM and torchrun do
            os.kill(process.pid, signal.SIGTERM)
        assert two.wait(60) == [143, 143], two.outputs()
        first, second = two.outputs()
    assert first.count("cxr: ended by SIGTERM") == 1, first
    assert not second
    assert not list(out.rglob("*.tmp*"))  # nothing is half written
    _require_continued(arguments, whole, out, logs, last=2)


@pytest.mark.long
def test_slurm_job_of_the_page_learns_what_one_process_learns(data, tmp_path):
    """Its command on two nodes of one task each, a step accumulated of two batches there."""
    arguments = sbatch_words()
    folders = {"--data": str(data), "--out": str(tmp_path / "two")}
    for option, value in folders.items():
        arguments[arguments.index(option) + 1] = value
    accumulated = [*_DETECTOR, "training.batch_size=2", "training.accumulate=2"]
    sets = [argument for override in accumulated for argument in ("--set", override)]
    with launched([*arguments, "--device", "cpu", *sets], slurm(2, nodes=2), tmp_path) as two:
        assert two.wait() == [0, 0], two.outputs()
        first, second = two.outputs()
    assert first.count("\nepoch 1 of 1") == 1  # the first speaks
    assert not second
    whole = [*_DETECTOR, "training.batch_size=4"]
    alone(_words(str(arguments[1]), data, tmp_path / "one", whole), tmp_path)
    _require_equal(*_history(tmp_path / "one", tmp_path / "two"))
    one, two_ = (json.loads((tmp_path / f / "run.json").read_text()) for f in ("one", "two"))
    assert (one["devices"], two_["devices"]) == (1, 2)
    # Every image was trained on and validated once, also where the last batch has one only.
    assert one["boxes"] == two_["boxes"]
    assert one["best_figures"]["ap50"] == pytest.approx(two_["best_figures"]["ap50"], rel=0.05)


@pytest.mark.long
def test_error_of_one_process_is_reported_once(data, tmp_path):
    arguments = _words("chexnet_quickstart", data, tmp_path / "run", _CLASSIFIER)
    with launched(arguments, torchrun(2), tmp_path, before=[_SOON, _NO_IMAGE]) as two:
        assert two.wait(90) == [2, 2], two.outputs()
        first, second = two.outputs()
    assert "cxr: " not in first
    line = r"cxr: image \S+: cannot be loaded \(OSError: the disk is gone\).*\n"
    assert re.fullmatch(line, second)


def test_refusal_that_all_processes_share_is_reported_once(data, tmp_path):
    arguments = _words("chexnet_quickstart", data, tmp_path / "run", ["training.batch_size=5"])
    with launched(arguments, slurm(2), tmp_path) as two:
        assert two.wait(90) == [2, 2], two.outputs()
        first, second = two.outputs()
    (line,) = first.splitlines()
    assert line.startswith("cxr: --devices 2: training.batch_size = 5 ")
    assert not second
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("environment", "devices", "expected_rank"),
    [
        ({}, 2, None),
        ({"RANK": "0", "WORLD_SIZE": "1"}, 1, None),
        ({"SLURM_NTASKS": "4", "SLURM_JOB_ID": "1"}, 1, None),  # a batch script without srun
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_LOCALID": "0"}, 4, None),
    ],
)
def test_one_process_of_a_launcher_is_an_ordinary_one(
    monkeypatch, environment, devices, expected_rank
):
    monkeypatch.setattr(os, "environ", environment)
    assert own_rank(devices) is expected_rank


def test_job_of_several_tasks_with_one_process_names_srun(monkeypatch, capsys):
    monkeypatch.setattr(os, "environ", {"SLURM_NTASKS": "4"})
    own_rank(1)
    assert "SLURM job has 4 tasks" in capsys.readouterr().err


def test_devices_beside_a_launcher_are_refused_unless_they_are_as_many(monkeypatch):
    monkeypatch.setattr(os, "environ", next(slurm(4, nodes=2)))
    rank = own_rank(4)
    assert rank is not None
    assert (rank.world_size, rank.local_world_size) == (4, 2)
    with pytest.raises(InputError, match=r"--devices 2: slurm .* 4 processes"):
        own_rank(2)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "1", "WORLD_SIZE": "2"}, "torchrun: .*LOCAL_RANK"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "torchrun: RANK=x "),
        (
            {"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "a",
             "MASTER_PORT": "1"},
            "torchrun: process 2 of 2 ",
        ),
    ],
)  # fmt: skip
def test_launcher_variables_that_do_not_fit_are_refused(environment, message):
    with pytest.raises(InputError, match=message):
        Rank.from_environment(environment)


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "problem"),
    [(2, 2, None), (1, 4, None), (2, 1, "training.batch_size was 4, is now 2")],
)
def test_run_is_resumed_in_other_batches_where_a_step_learns_from_as_many_images(
    batch_size, accumulate, problem
):
    path = find_config("chexnet_quickstart")
    before = read_config(path, ["training.batch_size=4"])
    sizes = [f"training.batch_size={batch_size}", f"training.accumulate={accumulate}"]
    now = read_config(path, [*sizes, "training.workers=3"])  # which load the same
    assert first_difference(with_loading_of(now, before), now) == problem


@pytest.mark.long
def test_what_follows_from_an_epoch_is_the_same_on_all_processes(data, tmp_path):
    """Averaged weights, a falling rate, early stopping, hard negatives and counts of boxes."""
    keys = [
        *_DETECTOR, "training.epochs=6", "training.batch_size=4", "training.ema_decay=0.9",
        "training.schedule=plateau", "training.patience=4",
        "training.monitor=val_loss", "augmentation.shift=0.2", "training.learning_rate=0.01",
    ]  # fmt: skip
    arguments = [_words("retinanet_quickstart", data, tmp_path / f, keys) for f in ("one", "two")]
    alone(arguments[0], tmp_path)
    with launched(arguments[1], torchrun(2), tmp_path) as two:
        assert two.wait() == [0, 0], two.outputs()
    one, both = _history(tmp_path / "one", tmp_path / "two")
    assert one["train_boxes"].tolist() == both["train_boxes"].tolist()
    assert one["learning_rate"].tolist() == pytest.approx(both["learning_rate"].tolist())
    for name in _LOSSES:
        assert both[name].tolist() == pytest.approx(one[name].tolist(), rel=0.05)


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
    assert output.count("cxr: interrupted") == 1
    assert "Traceback" not in output
    assert not (tmp_path / "halves/run.json").exists()
    for out in ("halves", "whole"):
        output = _finish(_start(data, tmp_path / out))
        assert output.count("\nepoch 3 of 3") == 1
        assert output.count("note: on CPUs batch norm ") == 1
    whole, halves = (load_file(tmp_path / f / "model.safetensors") for f in ("whole", "halves"))
    assert all(value.equal(halves[name]) for name, value in whole.items())


@pytest.mark.parametrize(("batch_size", "devices"), [(8, 2), (8, 1), (7, 1), (2, 2)])
def test_batch_that_can_be_shared_is_taken(batch_size, devices):
    require_shares(batch_size, devices)


@pytest.mark.parametrize(("batch_size", "near"), [(7, 6), (1, 2), (3, 2)])
def test_batch_that_cannot_be_shared_names_one_that_can(batch_size, near):
    with pytest.raises(InputError, match=rf"--devices 2: .* --set training.batch_size={near}$"):
        require_shares(batch_size, 2)


@pytest.mark.parametrize(
    ("script", "status", "message"),
    [
        (
            "import sys; sys.stderr.write('epoch 1\\ncxr: image b: bad\\n'); sys.exit(2)",
            2,
            r"cxr: image b: bad",
        ),
        ("1 / 0", 1, r"(?s)Traceback.*ZeroDivisionError.*"),
        (
            "import os; os.kill(os.getpid(), 9)",
            2,
            r"cxr: process 2 of 2 was ended by signal 9 \(out of memory\?.*",
        ),
    ],
    ids=["its own line", "all that it wrote", "ended by the system"],
)
def test_output_of_the_process_that_failed_first_is_reported(
    monkeypatch, tmp_path, script, status, message
):
    monkeypatch.setattr("cxr_compare.scripts.child_processes._REPORT_GRACE", 0.2)
    scripts = ["import time; time.sleep(60)", script]
    files = [(tmp_path / str(rank)).open("w+b") for rank in range(2)]
    started = [
        subprocess.Popen([sys.executable, "-c", code], stderr=file)
        for code, file in zip(scripts, files, strict=True)
    ]
    try:
        ended, error = wait_for_processes(started, files)
    finally:
        for process, file in zip(started, files, strict=True):
            process.kill()
            process.wait()
            file.close()
    assert ended == status
    assert re.fullmatch(message, error)
