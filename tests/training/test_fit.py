"""The order of a training: steps, epochs, checkpoints and ends, on a model of two layers."""

import itertools
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.training import callbacks, train
from cxr_compare.training.callbacks import FirstBatch, History, RampedAverage
from cxr_compare.training.launch import Launch
from tests.training.small_training import (
    Batch,
    SmallData,
    SmallModule,
    fit_small,
    run_in,
    small_model,
    training_settings,
)


class _StopAt(Callback):
    """Ctrl-C, or another error, in a step of a training."""

    def __init__(self, step: int, error: BaseException | None = None) -> None:
        self.step, self.error = step, error or KeyboardInterrupt()

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.fit_loop.epoch_loop.total_batch_idx == self.step:
            raise self.error


def _files(folder: Path) -> list[bytes]:
    """The table, and the weights of the best epochs."""
    weights = sorted((folder / "checkpoints").glob("best-*.safetensors"))
    return [path.read_bytes() for path in (folder / "metrics.csv", *weights)]


def _weights(folder: Path) -> dict[str, Tensor]:
    checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    return checkpoint["state_dict"]


_HOW: dict[str, dict[str, Any]] = {
    "one cycle": {},
    "sgd": {"optimiser": "sgd", "schedule": "cosine", "accumulate": 2, "clip": 0.5},
    "averaged weights": {"ema_decay": 0.9},
    "plateau": {"schedule": "plateau", "learning_rate": 0.5, "patience": 5},
    "step": {"schedule": "step"},
}


@pytest.mark.parametrize(
    ("how", "steps"),
    [
        ("one cycle", [3]),  # before the first checkpoint
        ("one cycle", [6, 13]),  # first step after a checkpoint, and once more
        ("sgd", [14]),
        ("averaged weights", [20]),  # in the last epoch
        ("plateau", [18]),
        ("step", [8]),
    ],
)
def test_an_interrupted_training_ends_with_the_same_bytes(tmp_path, how, steps):
    expected = fit_small(tmp_path / "whole", **_HOW[how])
    for step in steps:
        with pytest.raises(KeyboardInterrupt):
            fit_small(tmp_path / "parts", callbacks=[_StopAt(step)], **_HOW[how])
    history = fit_small(tmp_path / "parts", **_HOW[how])
    assert history.rows == expected.rows
    assert _files(tmp_path / "parts") == _files(tmp_path / "whole")
    whole, parts = _weights(tmp_path / "whole"), _weights(tmp_path / "parts")
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_processes_that_load_change_nothing(tmp_path):
    fit_small(tmp_path / "here", epochs=2)
    fit_small(tmp_path / "there", epochs=2, workers=1)
    assert _files(tmp_path / "here") == _files(tmp_path / "there")


def test_a_user_gets_the_seeds_of_a_training_whatever_was_drawn_before(tmp_path):
    before = torch.random.get_rng_state()
    fit_small(tmp_path / "one", epochs=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.randn(3)
    fit_small(tmp_path / "two", epochs=1)
    assert _files(tmp_path / "one") == _files(tmp_path / "two")


def test_accumulated_batches_learn_what_one_batch_learns(tmp_path):
    class Plain(SmallModule):
        def __init__(self, model: nn.Module, *arguments: Any) -> None:
            super().__init__(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)), *arguments)
            torch.nn.init.constant_(self.model[0].weight, 0.1)  # type: ignore[index]
            torch.nn.init.constant_(self.model[2].weight, 0.1)  # type: ignore[index]
            for layer in (0, 2):
                torch.nn.init.zeros_(self.model[layer].bias)  # type: ignore[index]

    how = {"optimiser": "sgd", "schedule": "constant", "learning_rate": 0.1, "clip": 0.2}
    fit_small(tmp_path / "one", Plain, batch_size=8, **how)
    fit_small(tmp_path / "parts", Plain, batch_size=2, accumulate=4, **how)
    one, parts = _weights(tmp_path / "one"), _weights(tmp_path / "parts")
    for name, value in one.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("optimiser", "precision"),
    [("sgd", "fp32"), ("sgd", "bf16"), ("adamw", "bf16")],
)
def test_the_norm_of_the_gradient_is_limited_in_every_number_format(tmp_path, optimiser, precision):
    norms = []

    class Note(Callback):
        def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            if gradients:
                norms.append(torch.nn.utils.get_total_norm(gradients).item())

    class Steep(SmallModule):
        factor = staticmethod(lambda batch: 100.0)

    how = {"optimiser": optimiser, "clip": 0.01, "epochs": 2}
    fit_small(tmp_path, Steep, precision=precision, callbacks=[Note()], **how)
    assert norms == pytest.approx([0.01] * len(norms), rel=1e-3)
    assert len(norms) > 5


def _figures(*values: float) -> type[SmallModule]:
    """A module whose validations measure these figures."""

    class Measured(SmallModule):
        figure = staticmethod(itertools.chain(values, itertools.repeat(values[-1])).__next__)

    return Measured


def test_the_best_weights_are_kept_and_not_the_last(tmp_path):
    history = fit_small(tmp_path, _figures(0.1, 0.9, 0.5, 0.9), monitor="figure")
    assert history.best["epoch"] == 2  # the first of equals
    history.remove_earlier_weights()
    assert [p.name for p in (tmp_path / "checkpoints").glob("best-*")] == ["best-0002.safetensors"]


def test_the_last_epoch_is_kept_on_request(tmp_path):
    assert fit_small(tmp_path, monitor="epoch", patience=1).best["epoch"] == 4


def test_plateau_lowers_the_rate_after_three_epochs_that_did_not_improve(tmp_path):
    figures = _figures(0.5, 0.5, 0.6, 0.1, 0.2, 0.3, 0.1)
    history = fit_small(
        tmp_path, figures, schedule="plateau", learning_rate=0.5, monitor="figure", epochs=8
    )
    rates = [row["learning_rate"] for row in history.rows]
    assert rates == pytest.approx([0.5] * 5 + [0.05] * 3)  # after the epoch


def test_a_training_that_stopped_early_trains_no_further(tmp_path):
    changes: dict[str, Any] = {"monitor": "figure", "patience": 2, "epochs": 9}
    first = fit_small(tmp_path, _figures(0.9, 0.5, 0.4), **changes)
    assert (first.best["epoch"], len(first.rows)) == (1, 3)
    again = fit_small(tmp_path, _figures(0.9, 0.5, 0.4), **changes)
    assert again.rows == first.rows


def test_a_training_that_ended_trains_no_further(tmp_path):
    first = fit_small(tmp_path)
    again = fit_small(tmp_path, callbacks=[_StopAt(0)])
    assert again.rows == first.rows


def test_ctrl_c_reaches_the_caller_and_keeps_working_afterwards(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit_small(tmp_path, callbacks=[_StopAt(2)])
    assert signal.getsignal(signal.SIGINT) is before


def test_a_row_has_losses_figures_and_rate_and_no_times(tmp_path):
    class Two(SmallModule):
        def losses(self, batch: Batch) -> dict[str, Tensor]:
            loss = super().losses(batch)["bce"]
            return {"a": loss, "b": loss * 2}

    fit_small(tmp_path, Two)
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table.columns.tolist() == [
        "epoch", "train_loss", "train_a", "train_b", "val_loss", "accuracy", "learning_rate"
    ]  # fmt: skip
    assert table["epoch"].tolist() == [1, 2, 3, 4]
    assert table["train_loss"].tolist() == pytest.approx((table.train_a * 3).tolist(), rel=1e-4)


def test_validation_loss_is_a_mean_over_images_not_batches(tmp_path):
    class Sizes(SmallModule):
        def validate(self, batch: Batch) -> tuple[dict[str, Tensor], Any]:
            return {"size": torch.tensor(float(len(batch)))}, torch.ones(1)

    history = fit_small(tmp_path, Sizes, batch_size=10, epochs=1)
    assert history.rows[0]["val_loss"] == pytest.approx((10 * 10 + 10 * 10 + 4 * 4) / 24)


def _factors(factor: Callable[[Batch], float]) -> type[SmallModule]:
    class Spoilt(SmallModule):
        pass

    Spoilt.factor = staticmethod(factor)  # type: ignore[assignment]
    return Spoilt


def test_a_loss_that_is_not_finite_names_the_images_of_its_batch(tmp_path):
    bad: list[str] = []

    def factor(batch: Batch) -> float:
        if "image7" not in batch.image_ids:
            return 1.0
        bad.extend(batch.image_ids)
        return math.nan

    with pytest.raises(InputError) as caught:
        fit_small(tmp_path, _factors(factor))
    assert ", ".join(bad) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_checkpoint_before_a_loss_that_is_not_finite_remains(tmp_path):
    count = itertools.count()
    with pytest.raises(InputError, match="epoch 2"):
        fit_small(tmp_path, _factors(lambda batch: math.nan if next(count) > 8 else 1.0))
    assert len(fit_small(tmp_path).rows) == 4


def test_a_validation_loss_that_is_not_finite_stops_the_training(tmp_path):
    class Broken(SmallModule):
        def validate(self, batch: Batch) -> tuple[dict[str, Tensor], Any]:
            _, output = super().validate(batch)
            return {"bce": torch.tensor(math.inf)}, output

    with pytest.raises(InputError, match="epoch 1: the validation loss is inf"):
        fit_small(tmp_path, Broken)


def test_an_unknown_or_undefined_monitor_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"'auroc' .*val_loss, accuracy"):
        fit_small(tmp_path / "unknown", monitor="auroc")
    with pytest.raises(InputError, match="'figure' is nan"):
        fit_small(tmp_path / "undefined", _figures(math.nan), monitor="figure")


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("spoil", [_flip_a_bit, lambda path: path.write_bytes(b"")])
def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path, spoil):
    fit_small(tmp_path, epochs=1)
    spoil(tmp_path / "checkpoints/last.ckpt")
    with pytest.raises(InputError, match=r"last\.ckpt: the checkpoint ") as caught:
        fit_small(tmp_path, epochs=2)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    class Wider(SmallModule):
        def __init__(self, model: nn.Module, *arguments: Any) -> None:
            super().__init__(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1)), *arguments)

    fit_small(tmp_path, epochs=1)
    with pytest.raises(InputError, match=r"another architecture: '0\.weight'.*\(8, 4\).*\(3, 4\)"):
        fit_small(tmp_path, Wider, epochs=2)


def test_a_checkpoint_is_replaced_at_once_also_from_another_file_system(tmp_path, monkeypatch):
    """Lightning's own would pass through the temporary folder."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "absent"))
    replaced: list[Path] = []
    rename = os.replace

    def note(source: Any, target: Any) -> None:
        replaced.append(Path(source))
        rename(source, target)

    monkeypatch.setattr(os, "replace", note)
    fit_small(tmp_path / "run", epochs=1)
    assert any("last.ckpt" in path.name for path in replaced)
    assert {path.parent.parent for path in replaced} <= {tmp_path / "run", tmp_path}


def test_want_of_memory_reaches_the_caller(tmp_path):
    with pytest.raises(torch.OutOfMemoryError):
        fit_small(tmp_path, callbacks=[_StopAt(3, torch.OutOfMemoryError("no memory"))])


def test_nothing_is_printed(tmp_path, capfd):
    fit_small(tmp_path, epochs=1)
    assert capfd.readouterr() == ("", "")


def test_average_of_weights_follows_the_formula_and_counters_are_copied():
    model = small_model()
    average = RampedAverage(model, 0.5)
    expected = {k: v.clone() for k, v in model.state_dict().items()}
    for step in range(5):
        model(torch.randn(6, 4)).sum().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
        average.update_parameters(model)
        weight = 1 - min(0.5, (1 + step) / (10 + step)) if step else 1.0  # first, it is a copy
        for name, value in model.state_dict().items():
            counter = not value.is_floating_point()
            expected[name] = value if counter else expected[name].lerp(value, weight)
    for name, value in average.module.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_training_on_a_gpu_learns_as_on_the_cpu(tmp_path, precision):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    there: History = fit_small(tmp_path / "gpu", precision=precision, ema_decay=0.9)
    here = fit_small(tmp_path / "cpu", ema_decay=0.9)
    losses = [[row["val_loss"] for row in trained.rows] for trained in (there, here)]
    assert losses[0] == pytest.approx(losses[1], rel=0.3)  # dropout draws other numbers there


class _Ramp(SmallModule):
    """A loss of the user's own that asks how long the training is, and logs a figure."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        share = (self.current_epoch + 1) / self.trainer.max_epochs
        self.log("share", share, batch_size=len(batch))
        return {name: share * loss for name, loss in super().losses(batch).items()}


def test_the_time_is_also_said_of_a_loss_that_reads_the_trainer(tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "draw_training_batch", lambda *_: None)
    own = {"first_batch": lambda data: next(iter(data.train_dataloader())), "n_workers": 0}
    for name, value in {**own, "findings": ()}.items():
        monkeypatch.setattr(SmallData, name, value, raising=False)
    said: list[str] = []
    first = FirstBatch(run_in(tmp_path), said.append)
    fit_small(tmp_path, _Ramp, callbacks=[first], epochs=1)
    assert "on this machine: 1 epoch" in said[0]


class _Built(Exception):  # noqa: N818 - it ends a test
    """All is ready, and Lightning's trainer would be made."""


def test_norms_of_several_gpus_keep_the_activation_that_timm_has_in_them(tmp_path, monkeypatch):
    def build_trainer(**options: Any) -> None:
        assert not options.get("sync_batchnorm")  # torch's own conversion would follow
        raise _Built

    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setattr(train, "Trainer", build_trainer)
    monkeypatch.setattr(train, "read_launch", lambda: Launch("torchrun", 2, 2, 0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    model = nn.Sequential(nn.Conv2d(1, 4, 1), BatchNormAct2d(4)).eval()
    images = torch.randn(2, 1, 4, 4)
    before = model(images)
    learner = SmallModule(model, training_settings())
    with pytest.raises(_Built):
        train.fit(learner, SmallData(training_settings()), run_in(tmp_path))
    assert isinstance(learner.model[1], nn.SyncBatchNorm)
    torch.testing.assert_close(learner.model(images), before)
