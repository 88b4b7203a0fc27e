"""`train`: what a run holds, what is refused, own parts, and from which weights it starts."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from safetensors.torch import load_file

import cxr_compare
from tests.adapters import folders
from tests.adapters.commands import PROGRAM, cxr
from tests.adapters.training import (
    Constant,
    Noted,
    OwnNetwork,
    Spoilt,
    leak,
)
from tests.trainings import FILES, KINDS, USUAL, small, train

ROOT = Path(__file__).resolve().parents[2]


def refusal(capsys, *words):
    """The one line with which `cxr` refuses a call."""
    capsys.readouterr()
    assert cxr(*words) == 2
    return capsys.readouterr().err.splitlines()[-1]


# --- what a run holds -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_complete_and_lists_every_patient_that_it_saw(world, kind):
    run = world.run(kind)
    needed = {"config.toml", "started.json", "run.json", "model.json", "preprocess.json"}
    needed |= {"seen.parquet", "curves.png", "batch.png", "checkpoints", *FILES}
    assert needed == {path.name for path in run.iterdir()}
    assert "auto" in (run / "config.toml").read_text()  # for whoever trains it again elsewhere
    data = cxr_compare.DataSet.open(world.data)
    seen = pd.read_parquet(run / "seen.parquet").set_index("image_id")
    roles = data.split().set_index("image_id")["role"]
    roles = roles[roles.isin(["train", "val"])]
    assert seen["role"].to_dict() == roles.to_dict()
    patients = data.images.set_index("image_id")["patient_id"]
    assert (seen["patient_id"] == patients[seen.index]).all()
    record = json.loads((run / "run.json").read_text())
    assert record["synthetic"] is True
    assert record["n_train"] == (roles == "train").sum()


class Keep(Callback):
    """Keeps the weights of each epoch."""

    def __init__(self):
        self.weights = []

    def on_validation_end(self, trainer, pl_module):
        state = pl_module.model.state_dict()
        self.weights.append({name: value.clone() for name, value in state.items()})


@pytest.mark.parametrize(
    ("monitor", "best"),
    [
        ("auroc", 2),
        pytest.param("val_loss", 1, marks=pytest.mark.release),
        pytest.param("epoch", 3, marks=pytest.mark.release),
    ],
)
def test_the_epoch_with_the_best_figure_is_kept_the_first_of_equal_ones(
    world, tmp_path, monitor, best, capsys
):
    class Given(Noted):
        aurocs = (0.5, 0.9, 0.9)
        val_losses = (1.0, 1.0, 2.0)

    keep, keys = Keep(), {"training.monitor": monitor, "training.epochs": 3}
    small(world.data, tmp_path / "run", keys, module=Given, callbacks=[keep])
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["best_epoch"] == best
    stored = load_file(tmp_path / "run/model.safetensors")
    assert all(torch.equal(value, stored[name]) for name, value in keep.weights[best - 1].items())
    assert len(list((tmp_path / "run/checkpoints").glob("best-*"))) == 1
    few_chose = f"epoch {best} of 3 is kept" in capsys.readouterr().err
    assert few_chose == (best < 3)  # of the world's few validation images


def test_a_training_without_improvement_ends_early_and_trains_no_further(world, tmp_path):
    class Given(Noted):
        aurocs = (0.9, 0.5, 0.95)

    keys = {"training.patience": 1, "training.epochs": 3, "training.monitor": "auroc"}
    small(world.data, tmp_path / "run", keys, module=Given)
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert (record["best_epoch"], record["epochs"]) == (1, 2)
    (tmp_path / "run/run.json").unlink()  # killed there
    small(world.data, tmp_path / "run", keys, module=Given)
    assert json.loads((tmp_path / "run/run.json").read_text())["epochs"] == 2


@pytest.mark.release
def test_plateau_lowers_the_rate_after_three_epochs_that_did_not_improve(world, tmp_path):
    class Given(Noted):
        aurocs = (0.5, 0.5, 0.6, 0.1, 0.2, 0.3, 0.1, 0.1)
        val_losses = (1.0,) * 8

    keys = {
        "model.backbone": "densenet121",
        "training.epochs": 8,
        "training.monitor": "auroc",
        "training.schedule": "plateau",
        "training.learning_rate": 0.5,
        "training.batch_size": 16,
    }
    small(world.data, tmp_path / "run", keys, module=Given, model=OwnNetwork)
    rates_ = pd.read_csv(tmp_path / "run/metrics.csv")["learning_rate"].tolist()
    assert rates_ == pytest.approx([0.5] * 5 + [0.05] * 3)


@pytest.mark.release
@pytest.mark.parametrize("share", [0.0, pytest.param(0.7, marks=pytest.mark.release)])
def test_only_training_images_are_drawn_and_each_epoch_otherwise(world, tmp_path, share):
    note = Note()
    keys = {"training.positive_share": share, "training.epochs": 2, "training.batch_size": 4}
    small(world.data, tmp_path / "run", keys, callbacks=[note])
    data = cxr_compare.DataSet.open(world.data)
    drawn = [[i for epoch, ids in note.images if epoch == n for i in ids] for n in range(2)]
    assert set(drawn[0]) | set(drawn[1]) <= set(data.image_ids("train"))
    assert drawn[0] != drawn[1]
    if not share:
        assert len(set(drawn[0])) == len(drawn[0])


# --- what goes wrong ------------------------------------------------------------------------------


class Note(Callback):
    """Notes the images of each step."""

    def __init__(self):
        self.images = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.images.append((trainer.current_epoch, list(batch.image_ids)))


def test_a_loss_that_is_not_finite_names_the_images_and_the_last_whole_epoch_stays(world, tmp_path):
    note, run = Note(), tmp_path / "run"
    with pytest.raises(cxr_compare.InputError, match="epoch 2") as error:
        small(world.data, run, module=Spoilt, callbacks=[note])
    assert ", ".join(note.images[-1][1]) in str(error.value)
    assert "\n" not in str(error.value)
    assert len(pd.read_csv(run / "metrics.csv")) == 1
    assert not (run / "run.json").exists()
    best = run / "checkpoints/best-0001.safetensors"
    assert all(value.isfinite().all() for value in load_file(best).values())


def test_a_validation_loss_that_is_not_finite_ends_the_training(world, tmp_path):
    class Given(Noted):
        val_losses = (float("inf"), 1.0)

    with pytest.raises(cxr_compare.InputError, match="epoch 1: val_loss is inf"):
        small(world.data, tmp_path / "run", module=Given)


def test_an_image_that_cannot_be_read_is_named_in_one_line(tmp_path, capsys):
    xrays, folder = tmp_path / "xrays", tmp_path / "data"
    cxr_compare.synth(xrays, images=30, size=96, seed=4)
    data = cxr_compare.prepare(xrays, folder, format="rsna", size=[96], workers=0)
    name = data.image_ids("train")[0]
    path = data.image_file(name).path
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    words = ("train", "small_cnn", "--data", folder, "--out", tmp_path / "run")
    line = refusal(capsys, *words, "--device", "cpu", "--set", "data.image_size=64")
    assert path.name in line or name in line
    assert not (tmp_path / "run/run.json").exists()


def test_an_error_of_the_audit_is_refused_unless_it_is_set_aside(world, tmp_path):
    data = Path(shutil.copytree(world.data, tmp_path / "data"))
    leak(data)
    cxr_compare.check(data)
    with pytest.raises(cxr_compare.InputError, match=r"split 'default': .*patient"):
        small(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    small(data, tmp_path / "run", despite_audit=True)
    (error,) = json.loads((tmp_path / "run/run.json").read_text())["despite_audit"]
    assert "patient" in error


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--set", "data.split=mine"], ["mine", "default"]),
        (["--set", "data.target=mass"], ["mass", "opacity"]),
        (["--set", "training.batch_size=256"], ["training.batch_size", "256"]),
        (["--set", "training.precision=fp16"], ["training.precision", "fp16"]),
        (["--set", "model.weights=no/such.pth"], ["no/such.pth"]),
        (["--set", "model.backbone=inception_v3", "--set", "data.image_size=64"], ["96"]),
        (["--device", "cuda"], ["device", "cpu"]),
        (["--devices", "0"], ["devices", "0"]),
        (["--devices", "3"], ["training.batch_size", "3 processes"]),
    ],
    ids=lambda value: value[-1] if value[0].startswith("--") else "",
)
def test_a_refusal_is_one_line_and_leaves_no_folder(
    world, tmp_path, capsys, monkeypatch, words, parts
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    device = [] if "cuda" in words else ["--device", "cpu"]
    call = ("train", "chexnet_quickstart", "--data", world.data, "--out", tmp_path / "run")
    line = refusal(capsys, *call, *device, "--set", "model.last_stride=none", *words)
    assert all(part in line for part in parts), line
    assert not (tmp_path / "run").exists()


def test_a_detector_needs_boxes_and_every_model_both_kinds_of_images(world, tmp_path):
    data = cxr_compare.DataSet.open(world.data)
    labels = data.labels(data.target()).dropna()
    rows = [(data.image_file(name).path.name, int(label)) for name, label in labels.items()][:30]
    pd.DataFrame(rows, columns=["image", "opacity"]).to_csv(tmp_path / "labels.csv", index=False)
    images = data.image_file(labels.index[0]).path.parent
    made = tmp_path / "plain"
    cxr_compare.prepare(tmp_path / "labels.csv", images, made, size=[96], keep_ids=True)
    with pytest.raises(cxr_compare.InputError, match="boxes of 'opacity'"):
        train("detector", made, tmp_path / "run")

    copy = Path(shutil.copytree(world.data, tmp_path / "data"))
    positive = data.images["image_id"].isin(labels.index[labels == 1])
    patients = data.images["patient_id"]
    roles = data.split().set_index("image_id")["role"].reindex(data.images["image_id"])
    roles[patients.isin(patients[positive]).to_numpy()] = "test"
    roles.reset_index().to_csv(tmp_path / "roles.csv", index=False)
    cxr_compare.split(copy, name="negative", file=tmp_path / "roles.csv")
    for kind in KINDS:
        with pytest.raises(cxr_compare.InputError, match=r"split 'negative': .* 0 show"):
            train(kind, copy, tmp_path / "run", {"data.split": "negative"})
    assert not (tmp_path / "run").exists()


# --- own parts ------------------------------------------------------------------------------------


class Norms(Callback):
    """Keeps the norm of the gradient of each step."""

    def __init__(self):
        self.norms = []

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        if gradients:
            self.norms.append(torch.nn.utils.get_total_norm(gradients).item())


class AnotherNetwork(OwnNetwork):
    """A network whose last layer has another shape."""

    def __init__(self, preprocess, n_findings):
        super().__init__(preprocess, n_findings)
        self.classifier = torch.nn.Linear(8, n_findings)


def test_own_network_loss_callbacks_and_loggers_are_used(world, tmp_path):
    note, norms = Note(), Norms()
    loggers = [CSVLogger(tmp_path / "log"), TensorBoardLogger(tmp_path / "log")]
    parts = {"module": Constant, "model": OwnNetwork, "loggers": loggers}
    keys = {"model.backbone": "densenet121", "training.clip": 1e-4}
    run = small(world.data, tmp_path / "run", keys, callbacks=[note, norms], **parts)
    table = pd.read_csv(tmp_path / "run/metrics.csv")
    assert table["train_loss"].tolist() == [3.0, 3.0]
    # The mean over images, not over batches: 8, 8 and 2 of them.
    assert table["val_loss"].tolist() == pytest.approx([(64 + 64 + 4) / 18] * 2, rel=1e-5)
    assert len(note.images) == 6  # batches: two epochs of three
    assert norms.norms == pytest.approx([1e-4] * len(norms.norms), rel=1e-2)
    assert norms.norms
    (logged,) = (tmp_path / "log").rglob("metrics.csv")
    assert "val_loss" in pd.read_csv(logged)
    (events,) = (tmp_path / "log").rglob("events.*")
    assert b"val_loss" in events.read_bytes()
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert sorted(record["own_parts"]) == ["model", "module"]
    assert record["parameters"] == 4 * 64 + 4 + 4 + 1
    data = cxr_compare.DataSet.open(world.data)
    file = data.image_file(data.image_ids("test")[0]).path
    again = cxr_compare.Run.open(tmp_path / "run", device="cpu", model=OwnNetwork)
    assert again.predict(file).score == run.predict(file).score
    for another in (None, AnotherNetwork):
        with pytest.raises(cxr_compare.InputError, match=r"model\.json"):
            cxr_compare.Run.open(tmp_path / "run", device="cpu", model=another)
    compared = cxr_compare.compare({"own": again}, data=world.data, replicates=100)
    assert "own" in set(compared.figures["first"])
    recipe = compared.answer.provenance.systems["own"]["recipe"]  # which the page puts in words
    assert "user's own" in recipe["network"]
    assert "user's own" in recipe["config"]["training"]["module"]


# --- start weights --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chain(world, tmp_path_factory):
    """A training that starts from the world's classifier, on another split of the data."""
    folder = tmp_path_factory.mktemp("chain")
    data = Path(shutil.copytree(world.data, folder / "data"))
    cxr_compare.split(data, name="other", seed=1)
    start = Path(shutil.copytree(world.run("classifier"), folder / "start"))
    folders.edit_record(start / "preprocess.json", mean=0.3, std=0.2)
    keys = {"training.epochs": 1, "data.split": "other"}
    small(data, folder / "run", {**keys, "model.weights": str(start)})
    return folder, data, start


def seen_in(run):
    return pd.read_parquet(run / "seen.parquet").set_index("image_id")["role"]


def test_what_the_start_weights_saw_counts_as_seen(chain):
    folder, data, start = chain
    seen, before = seen_in(folder / "run"), seen_in(start)
    split = cxr_compare.DataSet.open(data).split("other").set_index("image_id")["role"]
    own = split[split.isin(["train", "val"])]
    assert set(seen.index) == set(own.index) | set(before.index)
    assert set(seen.index) > set(own.index)
    # An image that made the weights counts as one of training, also where it validates now.
    both = own.index[own == "val"].intersection(before.index[before == "train"])
    assert len(both)
    assert set(seen[both]) == {"train"}
    origin = json.loads((folder / "run/run.json").read_text())["started_from"]
    assert (origin["weights"], origin["model_kind"]) == (str(start), "classifier")
    assert origin["data_set"]["split"] == "default"


@pytest.mark.release
def test_a_head_learns_alone_on_the_features_of_a_run(chain, tmp_path):
    _, data, start = chain
    keys = {"training.epochs": 1, "model.weights": str(start), "model.trainable": "head"}
    small(data, tmp_path / "run", keys)
    old, new = (load_file(run / "model.safetensors") for run in (start, tmp_path / "run"))
    changed_names = {name for name in new if not torch.equal(new[name], old[name])}
    assert {name for name in changed_names if "num_batches" not in name} == {
        "classifier.weight",
        "classifier.bias",
    }
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["trainable_parameters"] == 257


# --- several configurations -----------------------------------------------------------------------


# --- several processes ----------------------------------------------------------------------------


@pytest.mark.release
def test_two_processes_learn_and_evaluate_as_one_on_images_that_do_not_divide(world, tmp_path):
    data = cxr_compare.DataSet.open(world.data)
    assert len(data.image_ids("val")) % 2 == 1  # one process has an image more
    assert len(data.image_ids("train")) % 4
    # Group norm: a batch norm measures a batch, and so differs where processes share it.
    keys = {
        **USUAL,
        "model.fpn_channels": 16,
        "model.head_convs": 1,
        "model.norm": "group",
        "training.batch_size": 4,
        "training.ema_decay": 0.0,
        "training.precision": "fp32",
        "training.optimiser": "sgd",
    }
    sets = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    launchers = {
        "one": PROGRAM[1:],
        "torchrun": [
            *("-m", "torch.distributed.run", "--nproc_per_node", "2"),
            *PROGRAM[1:],
        ],
        "devices": PROGRAM[1:],
    }
    histories = {}
    for name, launcher in launchers.items():
        call = ["train", "retinanet_quickstart", "--data", world.data, "--out", tmp_path / name]
        extra = ["--devices", "2"] if name == "devices" else []
        command = [sys.executable, *launcher, *map(str, call), "--device", "cpu", *extra, *sets]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, cwd=tmp_path
        )
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr.count("epoch 2 of 2: ") == 1  # one process writes and speaks
        assert (tmp_path / name / "decision.json").is_file()
        histories[name] = pd.read_csv(tmp_path / name / "metrics.csv")
    for name in ("torchrun", "devices"):
        pd.testing.assert_frame_equal(histories[name], histories["one"], rtol=1e-4, atol=1e-6)
        assert json.loads((tmp_path / name / "run.json").read_text())["devices"] == 2
