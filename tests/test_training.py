"""`train`: the same bytes however often it is stopped, and nothing is learned by mistake."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from safetensors.torch import load_file

import cxr_compare
from tests.adapters.commands import cxr
from tests.adapters.training import (
    Constant,
    EpochSampler,
    Failing,
    Noted,
    OwnNetwork,
    Spoilt,
    albumentations,
    average_of,
    balancing_weights,
    changed,
    changes,
    figures_of_scores,
    leak,
    masked_cross_entropy,
    optimiser,
    positive_weights,
    precision,
    rates,
)

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("detector", "classifier")
FILES = ("model.safetensors", "metrics.csv", "decision.json")
# All that draws at random: augmentation, dropout, the order of images; and averaged weights.
KEYS = {
    "detector": (
        "retinanet_quickstart",
        {
            "model.fpn_channels": 16,
            "model.head_convs": 1,
            "augmentation.rotate_degrees": 10,
            "augmentation.scale": 0.1,
            "augmentation.mosaic": 0.5,
        },
    ),
    "classifier": (
        "chexnet_quickstart",
        {
            "model.backbone": "small_cnn",
            "model.dropout": 0.3,
            "augmentation.noise": 0.1,
            "augmentation.cutout": 0.3,
            "training.positive_weight": "balanced",
        },
    ),
}
USUAL = {
    "data.image_size": 96,
    "training.epochs": 2,
    "training.workers": 0,
    "training.ema_decay": 0.9,
}
SMALL = {**USUAL, "training.ema_decay": 0.0, "model.backbone": "small_cnn"}
PLACES = [
    ("on_train_batch_end", 0),  # before the first checkpoint
    ("on_save_checkpoint", 0),
    ("on_train_batch_end", 1),
    ("on_fit_end", 1),  # before the weights are in place
]


def train(kind, data, out, keys=None, **own):
    """Train a small model of a kind; other keys of its configuration, own parts from Python."""
    config, small = KEYS[kind]
    keys = {**USUAL, **small, **(keys or {})}
    return cxr_compare.train(config, data=data, out=out, set_=keys, device="cpu", **own)


def small(data, out, keys=None, config="chexnet_quickstart", **own):
    """Train a small network on grey values as they are."""
    given = {**SMALL, **(keys or {})}
    return cxr_compare.train(config, data=data, out=out, set_=given, device="cpu", **own)


def contents(folder):
    """The bytes of what a training makes."""
    return {name: (folder / name).read_bytes() for name in FILES}


def refusal(capsys, *words):
    """The one line with which `cxr` refuses a call."""
    capsys.readouterr()
    assert cxr(*words) == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """A training of each kind that nothing interrupts, made when it is asked for."""
    made = {}

    def run(kind):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("whole") / kind
            train(kind, world.data, made[kind])
        return made[kind]

    return run


@pytest.fixture(scope="module")
def own_data(world, tmp_path_factory):
    """Images of one's own to spoil, and their data set with other roles than the world's."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copytree(world.xrays, folder / "xrays")
    cxr_compare.prepare(
        folder / "xrays", folder / "data", format="rsna", size=[96], val=0.2, test=0.2
    )
    return folder


# --- the same bytes -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_training_gives_the_same_bytes(world, whole, tmp_path, kind):
    expected = contents(whole(kind))
    torch.randn(3)  # whatever was drawn before
    train(kind, world.data, tmp_path / "again")
    assert contents(tmp_path / "again") == expected


class Die(Callback):
    """Ends its process at once, at a place of an epoch."""

    def __init__(self, place, epoch):
        def die(trainer, *_):
            if trainer.current_epoch == epoch or place == "on_fit_end":
                os.kill(os.getpid(), signal.SIGKILL)

        setattr(self, place, die)


def train_and_die(kind, data, out, place, epoch):
    """Train in a process that ends before the training does."""
    torch.set_num_threads(1)
    train(kind, data, out, callbacks=[Die(place, epoch)])


def killed(kind, data, out, place, epoch):
    """Leave the folder of a training that was killed."""
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=train_and_die, args=(kind, data, out, place, epoch))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (out / "run.json").exists()


def test_a_killed_training_ends_with_the_same_bytes(world, whole, tmp_path):
    killed("classifier", world.data, tmp_path / "run", "on_train_batch_end", 1)
    assert (tmp_path / "run/checkpoints/last.ckpt").is_file()
    train("classifier", world.data, tmp_path / "run")
    assert contents(tmp_path / "run") == contents(whole("classifier"))


@pytest.mark.release
@pytest.mark.parametrize(("place", "epoch"), PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_killed_anywhere_ends_with_the_same_bytes(
    world, whole, tmp_path, kind, place, epoch
):
    killed(kind, world.data, tmp_path / "run", place, epoch)
    train(kind, world.data, tmp_path / "run")
    assert contents(tmp_path / "run") == contents(whole(kind))


@pytest.mark.parametrize("lost", [("decision.json",), ("decision.json", "run.json", FILES[0])])
def test_a_training_stopped_after_its_last_epoch_gets_what_it_lacks(world, whole, tmp_path, lost):
    run = Path(shutil.copytree(whole("classifier"), tmp_path / "run"))
    for name in lost:
        (run / name).unlink()
    train("classifier", world.data, run)
    assert contents(run) == contents(whole("classifier"))


def test_ctrl_c_ends_a_training_that_goes_on_afterwards(world, whole, tmp_path, monkeypatch):
    class Interrupt(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.current_epoch == 1:
                raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train("classifier", world.data, tmp_path / "run", callbacks=[Interrupt()])
    assert signal.getsignal(signal.SIGINT) is before
    train("classifier", world.data, tmp_path / "run")
    assert contents(tmp_path / "run") == contents(whole("classifier"))


def test_processes_that_load_change_no_byte(world, whole, tmp_path):
    train("classifier", world.data, tmp_path / "run", {"training.workers": 1})
    assert contents(tmp_path / "run") == contents(whole("classifier"))


def test_a_training_that_has_ended_is_left_as_it_is(world, whole):
    run = whole("classifier")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    train("classifier", world.data, run, {"training.workers": 1})
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.parametrize(
    ("keys", "own", "parts"),
    [
        ({"training.learning_rate": 0.1}, {}, ["training.learning_rate", "0.001", "0.1"]),
        ({"training.seed": 1}, {}, ["training.seed", "0", "1"]),
        ({"augmentation.noise": 0.2}, {}, ["augmentation.noise", "0.1", "0.2"]),
        ({"model.dropout": 0.4}, {}, ["model.dropout", "0.3", "0.4"]),
        ({}, {"augmentation": albumentations.HorizontalFlip(p=1)}, ["augmentation", "none"]),
        ({}, {"module": Constant}, ["module", "none"]),
    ],
    ids=["rate", "seed", "noise", "dropout", "own augmentation", "own loss"],
)
def test_another_training_in_the_same_folder_is_refused_with_the_first_difference(
    world, whole, keys, own, parts
):
    run = whole("classifier")
    before = contents(run)
    with pytest.raises(cxr_compare.InputError) as error:
        train("classifier", world.data, run, keys, **own)
    line = str(error.value)
    assert str(run) in line
    assert all(part in line for part in parts), line
    assert contents(run) == before


def test_other_data_in_the_same_folder_is_refused(whole, own_data):
    with pytest.raises(cxr_compare.InputError, match="split_id was"):
        train("classifier", own_data / "data", whole("classifier"))


def test_a_model_of_the_other_kind_in_the_same_folder_is_refused(world, whole):
    with pytest.raises(cxr_compare.InputError, match="was"):
        train("detector", world.data, whole("classifier"))


def with_another_bit(content):
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    "spoil", [lambda content: content[: len(content) // 2], lambda _: b"", with_another_bit]
)
def test_a_damaged_checkpoint_is_refused_in_one_line(world, whole, tmp_path, spoil):
    run = Path(shutil.copytree(whole("classifier"), tmp_path / "run"))
    (run / "run.json").unlink()
    checkpoint = run / "checkpoints/last.ckpt"
    checkpoint.write_bytes(spoil(checkpoint.read_bytes()))
    with pytest.raises(cxr_compare.InputError, match=r"last\.ckpt: ") as error:
        train("classifier", world.data, run)
    assert "\n" not in str(error.value)


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


@pytest.mark.parametrize(("monitor", "best"), [("auroc", 2), ("val_loss", 3), ("epoch", 4)])
def test_the_epoch_with_the_best_figure_is_kept_the_first_of_equal_ones(
    world, tmp_path, monitor, best
):
    class Given(Noted):
        aurocs = (0.5, 0.9, 0.9, 0.1)
        val_losses = (3.0, 2.0, 1.0, 1.0)

    keep, keys = Keep(), {"training.monitor": monitor, "training.epochs": 4}
    small(world.data, tmp_path / "run", keys, module=Given, callbacks=[keep])
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["best_epoch"] == best
    stored = load_file(tmp_path / "run/model.safetensors")
    assert all(torch.equal(value, stored[name]) for name, value in keep.weights[best - 1].items())
    assert len(list((tmp_path / "run/checkpoints").glob("best-*"))) == 1


def test_a_training_without_improvement_ends_early_and_trains_no_further(world, tmp_path):
    class Given(Noted):
        aurocs = (0.9, 0.5, 0.4, 0.95)

    keys = {"training.patience": 2, "training.epochs": 4, "training.monitor": "auroc"}
    small(world.data, tmp_path / "run", keys, module=Given)
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert (record["best_epoch"], record["epochs"], record["stopped_early"]) == (1, 3, True)
    (tmp_path / "run/run.json").unlink()  # killed there
    small(world.data, tmp_path / "run", keys, module=Given)
    assert json.loads((tmp_path / "run/run.json").read_text())["epochs"] == 3


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


def test_an_image_that_cannot_be_read_is_named_in_one_line(own_data, tmp_path, capsys):
    data = cxr_compare.DataSet.open(own_data / "data")
    name = data.image_ids("train")[0]
    path = data.image_file(name).path
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 3])
    try:
        words = ("train", "small_cnn", "--data", own_data / "data", "--out", tmp_path / "run")
        line = refusal(capsys, *words, "--device", "cpu", "--set", "data.image_size=64")
    finally:
        path.write_bytes(whole)
    assert path.name in line or name in line
    assert not (tmp_path / "run/run.json").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_an_own_augmentation_fails_on_is_named_in_one_line(world, tmp_path, workers):
    with pytest.raises(cxr_compare.InputError, match=r"^augmentation: .*image \S+ .*grey") as error:
        small(
            world.data,
            tmp_path / "run",
            {"training.workers": workers},
            augmentation=Failing(p=1),
        )
    assert "\n" not in str(error.value)


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


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_want_of_memory_names_the_batch(world, tmp_path, error):
    class Full(Callback):
        def on_train_batch_start(self, *_):
            raise error

    with pytest.raises(cxr_compare.InputError, match=r"^training\.batch_size: 8 ") as told:
        small(world.data, tmp_path / "run", callbacks=[Full()])
    assert "\n" not in str(told.value)


# --- own parts ------------------------------------------------------------------------------------


class Norms(Callback):
    """Keeps the norm of the gradient of each step."""

    def __init__(self):
        self.norms = []

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        if gradients:
            self.norms.append(torch.nn.utils.get_total_norm(gradients).item())


def test_own_network_loss_callbacks_and_logger_are_used(world, tmp_path):
    note, norms, logger = Note(), Norms(), CSVLogger(tmp_path / "log")
    parts = {"module": Constant, "model": OwnNetwork, "loggers": [logger]}
    keys = {"model.backbone": "densenet121", "training.clip": 1e-4}
    run = small(world.data, tmp_path / "run", keys, callbacks=[note, norms], **parts)
    table = pd.read_csv(tmp_path / "run/metrics.csv")
    assert table["train_loss"].tolist() == [3.0, 3.0]
    # The mean over images, not over batches: 8, 8 and 3 of them.
    assert table["val_loss"].tolist() == pytest.approx([(64 + 64 + 9) / 19] * 2, rel=1e-5)
    assert len(note.images) == 4
    assert norms.norms == pytest.approx([1e-4] * len(norms.norms), rel=1e-2)
    assert norms.norms
    (logged,) = (tmp_path / "log").rglob("metrics.csv")
    assert "val_loss" in pd.read_csv(logged)
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert sorted(record["own_parts"]) == ["model", "module"]
    assert record["parameters"] == 4 * 64 + 4 + 4 + 1
    data = cxr_compare.DataSet.open(world.data)
    file = data.image_file(data.image_ids("test")[0]).path
    again = cxr_compare.Run.open(tmp_path / "run", device="cpu", model=OwnNetwork)
    assert again.predict(file).score == run.predict(file).score
    compared = cxr_compare.compare({"own": again}, data=world.data, replicates=100)
    assert "own" in set(compared.figures["first"])
    recipe = compared.answer.provenance.systems["own"]["recipe"]  # which the page puts in words
    assert "user's own" in recipe["network"]
    assert "user's own" in recipe["config"]["training"]["module"]


def test_an_own_augmentation_replaces_the_pipeline_and_boxes_follow(world, tmp_path):
    keys = {"training.epochs": 1, "training.ema_decay": 0.0}
    flips = {"rotate_degrees": 0, "scale": 0, "mosaic": 0.0, "horizontal_flip": 1.0}
    named = {**keys, **{f"augmentation.{key}": value for key, value in flips.items()}}
    train("detector", world.data, tmp_path / "named", named)
    flip = albumentations.Compose([albumentations.HorizontalFlip(p=1)])
    train("detector", world.data, tmp_path / "own", keys, augmentation=flip)
    assert contents(tmp_path / "own") == contents(tmp_path / "named")


def test_an_own_augmentation_draws_by_the_seed_of_the_image(world, tmp_path):
    def run(name, workers):
        steps = [albumentations.GaussNoise(p=1), albumentations.HorizontalFlip(p=0.5)]
        own = albumentations.Compose(steps, p=0.7)
        keys = {"training.workers": workers, "training.epochs": 1}
        small(world.data, tmp_path / name, keys, augmentation=own)
        return contents(tmp_path / name)

    assert run("one", 0) == run("other", 1)


@pytest.mark.parametrize(
    ("own", "parts"),
    [
        (lambda image: image, ["augmentation", "albumentations"]),
        (albumentations.Resize(32, 32), ["augmentation", "(32, 32)"]),
        (albumentations.Normalize(0.5, 0.5), ["augmentation", "float32"]),
    ],
    ids=["function", "other size", "other type"],
)
def test_an_own_augmentation_that_cannot_be_is_refused(world, tmp_path, own, parts):
    with pytest.raises(cxr_compare.InputError) as error:
        small(world.data, tmp_path / "run", augmentation=own)
    assert all(part in str(error.value) for part in parts)


class OneTensor(Constant):
    """Its loss has no name."""

    def losses(self, batch):
        return self.model(batch.images)[0].mean()


@pytest.mark.parametrize("own", [OneTensor, torch.nn.BCELoss(), torch.nn.BCELoss])
def test_a_loss_that_is_no_module_or_gives_no_dictionary_is_refused_in_one_line(
    world, tmp_path, own
):
    with pytest.raises(cxr_compare.InputError, match=r"^module: "):
        small(world.data, tmp_path / "run", module=own)


# --- start weights --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chain(world, tmp_path_factory):
    """A training that starts from the world's classifier, on another split of the data."""
    folder = tmp_path_factory.mktemp("chain")
    data = Path(shutil.copytree(world.data, folder / "data"))
    cxr_compare.split(data, name="other", seed=8)
    start = Path(shutil.copytree(world.run("classifier"), folder / "start"))
    record = json.loads((start / "preprocess.json").read_text())
    (start / "preprocess.json").write_text(json.dumps({**record, "mean": 0.3, "std": 0.2}))
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
    assert (origin["data_set"]["split"], origin["n_images"]) == ("default", len(before))


def test_pixels_are_normalised_as_the_start_weights_learned_them(chain):
    folder, data, start = chain
    for weights, name in ((start / "model.safetensors", "file"), (start, "run")):
        if name == "file":  # a file in the folder of a run is that run
            keys = {"training.epochs": 1, "data.split": "other", "model.weights": str(weights)}
            small(data, folder / name, keys)
        made = json.loads((folder / name / "preprocess.json").read_text())
        assert (made["mean"], made["std"]) == (0.3, 0.2)
    assert seen_in(folder / "file").to_dict() == seen_in(folder / "run").to_dict()


def test_the_best_weights_of_a_training_that_did_not_end_bring_what_it_saw(world, chain, tmp_path):
    folder, data, start = chain
    begun = Path(shutil.copytree(folder / "run", tmp_path / "begun"))
    (begun / "run.json").unlink()
    keys = {"training.epochs": 1, "data.split": "other"}
    with pytest.raises(cxr_compare.InputError, match="not ended"):
        small(data, tmp_path / "run", {**keys, "model.weights": str(begun)})
    assert not (tmp_path / "run").exists()
    best = begun / "checkpoints/best-0001.safetensors"
    small(data, tmp_path / "run", {**keys, "model.weights": str(best)})
    assert seen_in(tmp_path / "run").to_dict() == seen_in(begun).to_dict()
    origin = json.loads((tmp_path / "run/run.json").read_text())["started_from"]
    assert origin["started_from"]["weights"] == str(start)


def test_a_file_from_elsewhere_is_recorded_as_unknown(world, chain, tmp_path):
    _, data, start = chain
    file = tmp_path / "elsewhere.safetensors"
    shutil.copyfile(start / "model.safetensors", file)
    keys = {"training.epochs": 1, "model.weights": str(file)}
    small(data, tmp_path / "run", keys)
    origin = json.loads((tmp_path / "run/run.json").read_text())["started_from"]
    assert (origin["weights"], origin["trained_on"]) == (str(file), "unknown")
    file.unlink()
    small(data, tmp_path / "run", keys)  # it has ended before: nothing is read again


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


def test_several_configurations_are_trained_one_by_one_and_one_that_fails_leaves_the_others(
    world, tmp_path, capsys
):
    out, far = tmp_path / "zoo", tmp_path / "far.toml"
    text = cxr_compare.configs("small_cnn").replace(
        "learning_rate = 0.0005", "learning_rate = 1e38"
    )
    far.write_text(text)
    sets = [
        "data.image_size=96",
        "training.epochs=1",
        "training.batch_size=8",
        "model.weights=none",
    ]
    words = [word for override in sets for word in ("--set", override)]
    names = f"small_cnn,{far},mobilenet_v3_small"
    call = ("train", names, "--data", world.data, "--out", out, "--device", "cpu", *words)
    assert cxr(*call, "--json") == 1
    made = json.loads(capsys.readouterr().out)
    assert list(made["runs"]) == ["small_cnn", "mobilenet_v3_small"]
    assert list(made["failed"]) == [str(far)]
    assert {path.name for path in out.iterdir()} == {"small_cnn", "far", "mobilenet_v3_small"}
    assert all((Path(run) / "decision.json").is_file() for run in made["runs"].values())


@pytest.mark.parametrize(
    ("names", "words", "parts"),
    [
        ("chexnet,densenet121", [], ["chexnet", "densenet121", "same"]),
        ("resnet18,resnet34", ["--set", "model.backbone=vgg16"], ["resnet18", "resnet34"]),
        ("small_cnn,small_cnn", [], ["small_cnn"]),
        ("small_cnn,resnet5", [], ["resnet5", "resnet50"]),
        ("small_cnn,", [], []),
        ("small_cnn,vgg16", ["--set", "training.loss=focal"], ["training.loss", "own-parts.md"]),
        ("small_cnn,vgg16", ["--set", "data.split=mine"], ["small_cnn", "mine"]),
        ("small_cnn,vgg16", ["--set", "training.batch_size=64"], ["training.batch_size", "64"]),
        ("small_cnn,vgg16", ["--devices", "2", "--set", "training.batch_size=8"], ["config"]),
    ],
)
def test_several_configurations_are_refused_before_the_first_is_trained(
    world, tmp_path, capsys, names, words, parts
):
    call = ("train", names, "--data", world.data, "--out", tmp_path / "zoo", "--device", "cpu")
    line = refusal(capsys, *call, *words)
    assert all(part in line for part in parts), line
    assert not (tmp_path / "zoo").exists()


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
        "one": ["-m", "cxr_compare.scripts.cli"],
        "torchrun": [
            *("-m", "torch.distributed.run", "--nproc_per_node", "2"),
            *("-m", "cxr_compare.scripts.cli"),
        ],
        "devices": ["-m", "cxr_compare.scripts.cli"],
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


# --- augmentation ---------------------------------------------------------------------------------

SIDE = 160
MOVES = [
    {"horizontal_flip": 0.5},
    {"rotate_degrees": 30},
    {"scale": 0.3},
    {"scale": 0.3, "stretch": True},
    {"shift": 0.2},
    {"rotate_degrees": 20, "scale": 0.2, "shift": 0.1, "horizontal_flip": 0.5, "stretch": True},
]
GREYS = [
    {"brightness": 0.3},
    {"contrast": 0.4},
    {"gamma": 0.8},
    {"blur": 1.5},
    {"noise": 0.08},
    {"cutout": 0.5},
]


def named(keys):
    return "+".join(keys)


def patch(centre, radii):
    """A bright ellipse in the dark, and its box."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    inside = ((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2 <= 1
    box = [centre[0] - radii[0], centre[1] - radii[1], centre[0] + radii[0], centre[1] + radii[1]]
    return np.where(inside, 220, 20).astype(np.uint8), box


@pytest.mark.parametrize("keys", MOVES, ids=named)
def test_a_box_follows_its_patch(keys):
    pipeline, draw = changes(**keys), np.random.default_rng(0)
    for seed in range(200):
        centre, radii = draw.uniform(64, SIDE - 64, 2), draw.uniform(8, 24, 2)
        pixels, box = patch(centre, radii)
        made = changed(pipeline, pixels, [box], seed)
        assert made.rows.tolist() == [0]
        rows, columns = np.nonzero(made.pixels > 120)
        drawn = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(made.boxes[0], np.clip(drawn, 0, SIDE), atol=1.6)


def test_boxes_of_a_mosaic_lie_on_their_patches_at_half_the_size():
    pipeline, draw = changes(mosaic=1.0, horizontal_flip=0.5, shift=0.05), np.random.default_rng(0)
    for seed in range(200):
        images = [patch(draw.uniform(40, SIDE - 40, 2), draw.uniform(10, 24, 2)) for _ in range(3)]
        shown = [
            (pixels * (0.4 + 0.2 * n)).astype(np.uint8) for n, (pixels, _) in enumerate(images)
        ]
        empty = (np.zeros((SIDE, SIDE), np.uint8), [])
        others = [(shown[1], [images[1][1]]), (shown[2], [images[2][1]]), empty]
        made = changed(pipeline, shown[0], [images[0][1]], seed, others)
        assert sorted(made.rows) == [0, 1, 2]
        for box, number in zip(made.boxes, made.rows, strict=True):
            x1, y1, x2, y2 = images[number][1]
            np.testing.assert_allclose(box[2:] - box[:2], [(x2 - x1) / 2, (y2 - y1) / 2], atol=1.1)
            left, top, right, bottom = box.round().astype(int)
            grey = made.pixels[(top + bottom) // 2, (left + right) // 2]
            assert abs(int(grey) - 220 * (0.4 + 0.2 * number)) < 5


@pytest.mark.parametrize("keys", GREYS, ids=named)
def test_a_change_of_greys_leaves_boxes_on_their_patch(keys):
    pipeline, draw = changes(**keys), np.random.default_rng(0)
    different = 0
    for seed in range(200):
        pixels, box = patch(draw.uniform(40, SIDE - 40, 2), draw.uniform(8, 24, 2))
        made = changed(pipeline, pixels, [box], seed)
        different += not np.array_equal(made.pixels, pixels)
        assert made.pixels.dtype == np.uint8
        if keys.keys() != {"cutout"}:
            np.testing.assert_allclose(made.boxes, [box], atol=1e-3)
        for x1, y1, x2, y2 in made.boxes:  # a hole may leave a part of it
            assert x1 >= box[0] - 1
            assert y1 >= box[1] - 1
            assert x2 <= box[2] + 1
            assert y2 <= box[3] + 1
    assert different > 60


@pytest.mark.parametrize(
    "keys", [{"shift": 0.4}, {"scale": 0.9}, {"rotate_degrees": 45}], ids=named
)
def test_a_box_of_which_less_than_three_tenths_stay_in_the_image_is_dropped(keys):
    pipeline, kept = changes(**keys), 0
    corner, inner = [0.0, 0.0, 20.0, 20.0], [60.0, 60.0, 100.0, 100.0]
    for seed in range(200):
        made = changed(pipeline, np.zeros((SIDE, SIDE), np.uint8), [corner, inner], seed)
        kept += 0 in made.rows
        assert (made.boxes >= 0).all()
        assert (made.boxes <= SIDE).all()
        assert (made.boxes[:, 2:] - made.boxes[:, :2] >= 1).all()
        assert 1 in made.rows or "scale" in keys
        if keys == {"shift": 0.4}:
            for row, box in zip(made.rows, made.boxes, strict=True):
                whole = 400 if row == 0 else 1600
                assert np.prod(box[2:] - box[:2]) >= 0.3 * whole - 1
    assert 0 < kept < 200


@pytest.mark.parametrize(
    "box",
    [(0, 0, 160, 160), (0, 0, 5, 5), (155, 155, 160, 160), (158, 0, 160, 160), (0, 40, 9, 42)],
)
def test_a_box_on_the_border_survives_a_flip(box):
    made = changed(changes(horizontal_flip=1.0), np.zeros((SIDE, SIDE), np.uint8), [box], 3)
    mirrored = [[SIDE - box[2], box[1], SIDE - box[0], box[3]]]
    np.testing.assert_allclose(made.boxes, mirrored, atol=1e-3)


def test_a_box_that_a_hole_covers_is_dropped():
    pipeline, box = changes(cutout=0.9), [60.0, 60.0, 90.0, 90.0]
    white = np.full((SIDE, SIDE), 255, np.uint8)
    gone = 0
    for seed in range(200):
        made = changed(pipeline, white, [box], seed)
        visible = (made.pixels[60:90, 60:90] == 255).mean()
        if len(made.rows) == 0:
            gone += 1
            assert visible < 0.5
        else:
            assert visible >= 0.1
        if visible < 0.01:
            assert len(made.rows) == 0
    assert gone > 5


def test_a_seed_alone_decides_what_an_image_becomes():
    keys = {key: value for each in (*MOVES[-1:], *GREYS) for key, value in each.items()}
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
    boxes = [[10.0, 10.0, 60.0, 60.0]]
    pipeline, seen = changes(**keys), set()
    for seed in range(20):
        first = changed(pipeline, noise, boxes, seed)
        changed(pipeline, noise[::-1].copy(), boxes, seed + 99)
        again = changed(changes(**keys), noise, boxes, seed)
        assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
        seen.add(first.pixels.tobytes())
    assert len(seen) == 20


def test_no_key_is_no_change_and_hearts_are_not_mirrored_unless_asked():
    assert changes() is None
    left = np.zeros((SIDE, SIDE), np.uint8)
    left[:, :50] = 200
    pipeline = changes(rotate_degrees=10, scale=0.15, shift=0.08, brightness=0.2, contrast=0.2)
    for seed in range(50):
        pixels = changed(pipeline, left, [], seed).pixels.astype(int)
        assert pixels[:, : SIDE // 2].sum() > pixels[:, SIDE // 2 :].sum()


# --- which images are drawn -----------------------------------------------------------------------


def epoch_of(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize("share", [0.0, 0.7])
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


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_positive_share_draws_that_share(share):
    positive = np.arange(2000) < 200
    sampler = EpochSampler(2000, seed=0, step=1, weights=balancing_weights(positive, share))
    drawn = np.array([row for row, _ in sampler])
    assert positive[drawn].mean() == pytest.approx(share, abs=0.04)
    assert len(np.unique(drawn[~positive[drawn]])) > 100  # all kinds, each as often as another


@pytest.mark.parametrize(("n_rows", "world_size"), [(24, 2), (29, 3), (11, 6), (6, 2)])
def test_processes_share_the_whole_steps_of_one_process(n_rows, world_size):
    size = 6
    one = epoch_of(EpochSampler(n_rows, seed=1, step=size), 2)
    assert len(one) == n_rows // size * size
    share = size // world_size
    parts = [
        epoch_of(EpochSampler(n_rows, 1, size, None, rank, world_size), 2)
        for rank in range(world_size)
    ]
    for step in range(len(one) // size):
        batch = [pair for part in parts for pair in part[step * share : (step + 1) * share]]
        assert sorted(batch) == sorted(one[step * size : (step + 1) * size])


def test_draws_of_a_configuration_and_seed_stay_what_they_were():
    weighted = EpochSampler(6, seed=3, step=1, weights=balancing_weights(np.arange(6) < 2, 0.5))
    assert next(iter(weighted)) == (0, 4418468347491149041)
    assert [row for row, _ in epoch_of(weighted, 1)] == [1, 1, 1, 1, 2, 5]
    plain = list(EpochSampler(4, seed=3, step=1))
    assert [row for row, _ in plain] == [3, 2, 1, 0]
    assert plain[0][1] == 7390452496230446619


# --- loss, optimiser, schedule --------------------------------------------------------------------


def test_unknown_labels_teach_nothing():
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        logits = torch.randn(6, 14, generator=draw, requires_grad=True)
        targets = (torch.rand(6, 14, generator=draw) < 0.5).float()
        unknown = torch.rand(6, 14, generator=draw) < 0.4
        weight = torch.rand(14, generator=draw) + 0.5
        loss = masked_cross_entropy(logits, targets.masked_fill(unknown, torch.nan), weight)
        loss.backward()
        assert not logits.grad[unknown].any()
        assert logits.grad[~unknown].all()
        each = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, targets, pos_weight=weight, reduction="none"
        )
        assert loss.item() == pytest.approx(each[~unknown].mean().item(), rel=1e-5)


def test_unknown_labels_count_for_no_figure():
    draw = np.random.default_rng(0)
    scores, targets = draw.random((40, 3)), draw.integers(0, 2, (40, 3)).astype(float)
    targets[draw.random((40, 3)) < 0.4] = np.nan
    spoiled = np.where(np.isnan(targets), 1 - scores, scores)
    assert figures_of_scores(spoiled, targets) == figures_of_scores(scores, targets)
    targets[:, 1] = np.nan  # never read: the mean of the others
    several = figures_of_scores(scores, targets)
    assert several == figures_of_scores(scores[:, [0, 2]], targets[:, [0, 2]])


def test_a_batch_of_unknown_labels_has_loss_0_and_no_gradient():
    logits = torch.randn(4, 2, requires_grad=True)
    loss = masked_cross_entropy(logits, torch.full((4, 2), torch.nan))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_balanced_positives_weigh_as_much_as_the_negatives():
    nan = np.nan
    targets = np.array([[1, 1, 0, nan], [0, 1, 0, nan], [0, 1, 0, 1], [nan, nan, nan, 0]], float)
    assert positive_weights("balanced", targets).tolist() == [2.0, 1.0, 1.0, 1.0]
    assert positive_weights(1.0, targets) is None
    assert positive_weights(3.0, targets).tolist() == [3.0]


@pytest.mark.parametrize(
    ("name", "kind", "arguments"),
    [
        ("adamw", torch.optim.AdamW, {"fused": True}),
        ("adam", torch.optim.Adam, {"fused": True}),
        ("sgd", torch.optim.SGD, {"momentum": 0.3, "nesterov": True, "fused": True}),
        ("rmsprop", torch.optim.RMSprop, {"momentum": 0.3, "alpha": 0.9, "centered": False}),
    ],
)
def test_optimisers_are_those_of_torch_and_norms_and_biases_do_not_decay(name, kind, arguments):
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.GroupNorm(1, 2))
    made = optimiser(model, optimiser=name, momentum=0.3, weight_decay=0.1)
    assert type(made) is kind
    assert all(
        group[key] == value for group in made.param_groups for key, value in arguments.items()
    )
    decays = {p.ndim: group["weight_decay"] for group in made.param_groups for p in group["params"]}
    assert decays == {4: 0.1, 1: 0.0}
    model[0].requires_grad_(False)
    groups = optimiser(model, optimiser=name).param_groups
    assert sum(len(group["params"]) for group in groups) == 2


def test_rmsprop_steps_as_torchs_own_with_its_arguments():
    torch.manual_seed(0)
    nets = [torch.nn.Linear(8, 8) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    own = optimiser(nets[0], optimiser="rmsprop", momentum=0.5, weight_decay=0.0)
    other = torch.optim.RMSprop(nets[1].parameters(), 0.05, alpha=0.9, momentum=0.5)
    for _ in range(5):
        for net, each in zip(nets, (own, other), strict=True):
            each.zero_grad()
            net(torch.ones(2, 8)).pow(2).sum().backward()
            each.step()
    assert torch.equal(nets[0].weight, nets[1].weight)


def test_schedules_rise_and_fall_as_documented():
    cycle = rates(100, epochs=10, learning_rate=1.0, warmup_epochs=2.0)
    assert max(cycle) == pytest.approx(1, abs=0.01)
    assert 18 <= int(np.argmax(cycle)) <= 21
    assert cycle[0] < 0.05
    assert cycle[-1] < 0.01
    cosine = rates(100, epochs=10, schedule="cosine", learning_rate=1.0, warmup_epochs=1.0)
    assert cosine[:10] == pytest.approx([(n + 1) / 10 for n in range(10)])
    assert cosine[55] == pytest.approx(0.5, abs=0.01)
    assert cosine[-1] < 0.001
    assert set(rates(12, schedule="constant", learning_rate=0.5, warmup_epochs=0.0)) == {0.5}


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
def test_a_warm_up_longer_than_the_training_is_harmless(schedule):
    keys = {"schedule": schedule, "learning_rate": 1.0, "warmup_epochs": 5.0}
    for epochs, steps in ((1, 1), (1, 2), (2, 5)):
        assert all(0 <= rate <= 1 for rate in rates(steps, epochs=epochs, **keys))


def test_the_average_of_weights_follows_its_formula_and_counters_are_copied():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    average = average_of(model, 0.5)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for step in range(5):
        model(torch.randn(6, 4))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn_like(parameter)
        average.update_parameters(model)
        share = 1 - min(0.5, (1 + step) / (10 + step)) if step else 1.0  # first it is a copy
        for name, value in model.state_dict().items():
            is_float = value.is_floating_point()
            expected[name] = expected[name].lerp(value, share) if is_float else value.clone()
    for name, value in average.module.state_dict().items():
        torch.testing.assert_close(value, expected[name])


# --- number format --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ({}, "fp32"),
        ({"bf16": True}, "bf16"),
        ({"gpu": True, "bf16": True}, "bf16"),
        ({"gpu": True, "capability": (7, 5)}, "fp16"),  # a T4
        ({"gpu": True, "capability": (6, 1)}, "fp32"),
    ],
)
def test_auto_takes_what_the_machine_computes_fast(machine, expected):
    assert precision("auto", **machine) == expected


@pytest.mark.parametrize("began", ["fp32", "bf16", "fp16"])
def test_a_training_goes_on_in_the_format_in_which_it_began(began):
    assert precision("auto", began=began, gpu=True, bf16=True) == began
    if began != "fp16":
        assert precision("auto", began=began, bf16=True) == began


@pytest.mark.parametrize("keys", [{}, {"began": "fp16"}])
def test_fp16_is_for_gpus_alone(keys):
    assert precision("fp16", gpu=True, **keys) == "fp16"
    with pytest.raises(cxr_compare.InputError, match=r"^training\.precision: "):
        precision("fp16", bf16=True, **keys)
