"""The training loop, on a model small enough to be exact about."""

import math
import multiprocessing
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.training.ema import RampedAverage
from cxr_compare.training.fit import FitResult
from cxr_compare.training.loading import BatchLoader, NamedRows
from cxr_compare.training.loop import Loop
from cxr_compare.training.sampling import SeededSampler
from cxr_compare.training.task import GradualUnfreezing
from tests.training.small_training import (
    Batch,
    Rows,
    Task,
    collate,
    fit_small,
    losses_of,
    small_model,
    training_settings,
    validate,
)


class _Stopper:
    """Raises in the chosen training step, as Ctrl-C would."""

    def __init__(self, at: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.calls, self.at, self.error = 0, at, error

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        self.calls += 1
        if self.calls == self.at:
            raise self.error
        return losses_of(model, batch)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _require_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def _untimed(result: FitResult) -> FitResult:
    history = [{k: v for k, v in row.items() if k not in _TIMES} for row in result.history]
    return replace(result, history=history)


def _constant(outputs: list[Tensor]) -> dict[str, float]:
    return {"figure": 0.5}


_HOW = {
    "one cycle": training_settings(learning_rate=0.05),
    "sgd, cosine, accumulated, clipped": training_settings(
        optimiser="sgd", schedule="cosine", learning_rate=0.1, accumulate=2, clip=0.5
    ),
    "averaged weights": training_settings(learning_rate=0.05, ema_decay=0.9),
    "plateau": training_settings(schedule="plateau", learning_rate=0.5),
}
_TIMES = [
    "seconds", "processor_seconds", "seconds_validation", "seconds_checkpoint", "seconds_waiting",
]  # fmt: skip
_STALLED: dict[str, Any] = {"epochs": 6, "monitor": "figure", "validation_metrics": _constant}


@pytest.mark.parametrize(
    ("at", "how"),
    [
        (3, "one cycle"),  # before the first checkpoint
        (6, "one cycle"),  # first step after a checkpoint
        (13, "sgd, cosine, accumulated, clipped"),
        (18, "averaged weights"),  # in the last epoch
        (21, "plateau"),  # first step after the rate has fallen, see below
    ],
)
def test_interrupted_and_resumed_training_ends_with_the_same_weights(tmp_path, at, how):
    whole, halves = small_model(), small_model()
    changes = {"settings": _HOW[how], **(_STALLED if how == "plateau" else {})}
    expected = fit_small(tmp_path / "whole", whole, **changes)
    with pytest.raises(KeyboardInterrupt):
        fit_small(tmp_path / "halves", small_model(), training_losses=_Stopper(at), **changes)
    result = fit_small(tmp_path / "halves", halves, resume=True, **changes)

    assert result.best_epoch == expected.best_epoch
    _require_equal(whole.state_dict(), halves.state_dict())
    last = [torch.load(tmp_path / f / "checkpoints/last.ckpt") for f in ("whole", "halves")]
    _require_equal(*(checkpoint["state_dict"] for checkpoint in last))
    tables = [
        pd.read_csv(tmp_path / f / "metrics.csv").drop(columns=_TIMES) for f in ("whole", "halves")
    ]
    pd.testing.assert_frame_equal(*tables)


def test_processes_that_load_change_nothing_and_end_with_the_training(tmp_path):
    def loading(loaders: int) -> dict[str, BatchLoader]:
        sampler = SeededSampler(24, seed=3)
        return {"train_loader": BatchLoader(Rows(24), collate, 5, sampler, loaders=loaders)}

    whole, halves = small_model(), small_model()
    fit_small(tmp_path / "whole", whole)
    with pytest.raises(KeyboardInterrupt):
        fit_small(tmp_path / "halves", training_losses=_Stopper(8), **loading(2))
    assert multiprocessing.active_children() == []
    fit_small(tmp_path / "halves", halves, resume=True, **loading(1))
    assert multiprocessing.active_children() == []
    _require_equal(whole.state_dict(), halves.state_dict())


@pytest.mark.parametrize(("batch_size", "accumulate"), [(4, 2), (2, 4), (3, 3)])
def test_step_learns_the_mean_over_its_images_in_however_many_batches(
    tmp_path, batch_size, accumulate
):
    """Of 21 images the last step of an epoch has fewer, and its last batch fewer still."""
    step = batch_size * accumulate

    def trained(size: int, batches: int) -> tuple[nn.Module, list[float]]:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        sampler = SeededSampler(21, seed=3)
        loader = BatchLoader(Rows(21), collate, size, sampler)
        how = training_settings(
            optimiser="sgd", schedule="constant", learning_rate=0.1, accumulate=batches, clip=0.2
        )
        result = fit_small(tmp_path / f"{size}", model, how, train_loader=loader)
        return model, [row["train_loss"] for row in result.history]

    (whole, losses), (parts, shares) = trained(step, 1), trained(batch_size, accumulate)
    assert shares[1:] == pytest.approx(losses[1:], rel=0.05)  # measured between the steps
    for name, value in _weights(whole).items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_plateau_lowers_the_rate_after_three_epochs_that_did_not_improve(tmp_path):
    figures = iter([0.5, 0.5, 0.6, 0.1, 0.2, 0.3, 0.1, 0.1, 0.1])
    result = fit_small(
        tmp_path, settings=_HOW["plateau"], monitor="figure", epochs=9,
        validation_metrics=lambda outputs: {"figure": next(figures)},
    )  # fmt: skip
    rates = [row["learning_rate"] for row in result.history]
    assert rates == pytest.approx([0.5] * 6 + [0.05] * 3)  # at the end of each epoch
    last = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert last["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.005)


def test_plateau_remembers_across_an_interruption_how_long_nothing_improved(tmp_path):
    """Stalled in epochs 2, 3 and 4, of which the first two are before the interruption."""
    changes = {**_STALLED, "settings": _HOW["plateau"]}
    with pytest.raises(KeyboardInterrupt):
        fit_small(tmp_path, training_losses=_Stopper(17), **changes)
    result = fit_small(tmp_path, resume=True, **changes)
    rates = [row["learning_rate"] for row in result.history]
    assert rates == pytest.approx([0.5] * 4 + [0.05] * 2)


def test_resuming_a_training_that_had_ended_trains_no_further(tmp_path):
    first = fit_small(tmp_path / "run")
    again = fit_small(tmp_path / "run", resume=True, training_losses=_Stopper(1))
    assert _untimed(again) == _untimed(first)


def test_resuming_a_training_that_had_stopped_early_trains_no_further(tmp_path):
    falling = count(0, -1)
    changes: dict[str, Any] = {
        "validation_metrics": lambda outputs: {"figure": float(next(falling))},
        "monitor": "figure", "patience": 2, "epochs": 9,
    }  # fmt: skip
    first = fit_small(tmp_path, **changes)
    assert (first.best_epoch, len(first.history), first.stopped_early) == (1, 3, True)
    again = fit_small(tmp_path, resume=True, training_losses=_Stopper(1), **changes)
    assert _untimed(again) == _untimed(first)


def test_ctrl_c_reaches_the_caller_and_keeps_working_afterwards(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit_small(tmp_path, training_losses=_Stopper(2))
    assert signal.getsignal(signal.SIGINT) is before


def test_model_ends_with_the_best_weights_not_the_last(tmp_path):
    seen: list[dict[str, Tensor]] = []
    model = small_model()

    def falling(outputs: list[Tensor]) -> dict[str, float]:
        seen.append(_weights(model))
        return {"figure": [0.1, 0.9, 0.5, 0.9][len(seen) - 1]}

    result = fit_small(tmp_path, model, validation_metrics=falling, monitor="figure")
    assert (result.best_epoch, result.best_value) == (2, 0.9)  # the first of equals
    for name, value in seen[1].items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert [p.name for p in (tmp_path / "checkpoints").glob("best-*")] == ["best-0002.safetensors"]


def test_history_contains_losses_metrics_rate_and_time_per_epoch(tmp_path):
    def two(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        loss = losses_of(model, batch)["bce"]
        return {"a": loss, "b": loss * 2}

    fit_small(tmp_path, training_losses=two)
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table.columns.tolist() == [
        "epoch", "train_loss", "train_a", "train_b", "val_loss", "accuracy", "learning_rate",
        *_TIMES,
    ]  # fmt: skip
    assert table["epoch"].tolist() == [1, 2, 3, 4]
    parts = table["seconds_validation"] + table["seconds_checkpoint"]
    assert (parts > 0).all()
    assert (parts < table["seconds"]).all()
    assert table["train_loss"].tolist() == pytest.approx((table.train_a * 3).tolist(), rel=1e-4)


def test_validation_loss_is_a_mean_over_images_not_batches(tmp_path):
    def size(model: nn.Module, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        return {"size": torch.tensor(float(len(batch.image_ids)))}, torch.ones(1)

    loader = BatchLoader(Rows(10), collate, 8, range(10))
    result = fit_small(tmp_path, validation_step=size, val_loader=loader, epochs=1)
    assert result.history[0]["val_loss"] == pytest.approx((8 * 8 + 2 * 2) / 10)


def _nan_loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    return {
        "bce": losses_of(model, batch)["bce"] * (math.nan if "image7" in batch.image_ids else 1)
    }


def _nan_gradient(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    loss = losses_of(model, batch)["bce"]
    if "image7" in batch.image_ids:
        loss.register_hook(lambda gradient: gradient * math.inf)
    return {"bce": loss}


@pytest.mark.parametrize("losses", [_nan_loss, _nan_gradient])
def test_loss_or_gradient_that_is_not_finite_names_its_images(tmp_path, losses):
    with pytest.raises(InputError, match=r"epoch 1: .*image7, image5, image21, image19") as caught:
        fit_small(tmp_path, training_losses=losses)
    assert "\n" not in str(caught.value)


def test_checkpoint_before_a_loss_that_is_not_finite_remains(tmp_path):
    with pytest.raises(InputError, match=r"epoch 2: .*--set model.weights=\S+best-0001.safeten"):
        fit_small(tmp_path, training_losses=_growing(math.nan, after=7))
    assert len(fit_small(tmp_path, resume=True).history) == 4


def _growing(by: float, after: int) -> Callable[..., Any]:
    """Losses that are multiplied from some step on."""
    step = count(1)

    def losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        factor = by if next(step) > after else 1.0
        return {"bce": losses_of(model, batch)["bce"] * factor}

    return losses


def test_training_that_diverges_stops_and_keeps_the_best_checkpoint(tmp_path):
    with pytest.raises(InputError, match=r"epoch 3: .* 10 .*0.596 ") as caught:
        # From the middle of the second epoch on: a half is not a whole epoch.
        fit_small(tmp_path, training_losses=_growing(100.0, after=7))
    assert "\n" not in str(caught.value)
    advice = re.search(r"cxr train (\S+) .*=(\S+) --set model.weights=(\S+)$", str(caught.value))
    assert advice is not None
    assert Path(advice[1]).is_file()
    assert float(advice[2]) == 0.005  # a tenth
    assert Path(advice[3]).is_file()
    assert len(fit_small(tmp_path, resume=True).history) == 4  # from the end of the second epoch


def test_divergence_is_detected_in_a_resumed_training_too(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit_small(tmp_path, training_losses=_Stopper(8))
    with pytest.raises(InputError, match=r"epoch 2: .* 10 .*0.596 "):
        fit_small(tmp_path, resume=True, training_losses=_growing(100.0, after=0))


def test_training_whose_loss_grows_a_little_goes_on(tmp_path):
    assert len(fit_small(tmp_path, training_losses=_growing(5.0, after=5)).history) == 4


def test_validation_loss_that_is_not_finite_stops_the_training(tmp_path):
    def broken(model: nn.Module, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        losses, output = validate(model, batch)
        return {"bce": losses["bce"] * math.inf}, output

    with pytest.raises(InputError, match=r"epoch 1: .*validation loss .*inf.*no epoch"):
        fit_small(tmp_path, validation_step=broken, monitor="accuracy")


def test_outputs_that_are_not_finite_are_reported_as_divergence(tmp_path):
    def broken(model: nn.Module, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        return {"bce": torch.tensor(math.nan)}, torch.full((1,), math.nan)

    def metrics(outputs: list[Tensor]) -> dict[str, float]:
        raise ValueError("y_score must be finite")

    with pytest.raises(InputError, match=r"epoch 1: .*validation loss .*nan"):
        fit_small(tmp_path, validation_step=broken, validation_metrics=metrics)


@pytest.mark.parametrize("step", ["training_losses", "validation_step"])
def test_step_that_fails_names_its_images(tmp_path, step):
    def fails(model: nn.Module, batch: Batch) -> Any:
        raise RuntimeError("sizes differ")

    match = r"epoch 1: \w+ failed on the images image\d+, .*RuntimeError: sizes differ"
    with pytest.raises(InputError, match=match):
        fit_small(tmp_path, **{step: fails})


def test_want_of_memory_reaches_the_caller(tmp_path):
    with pytest.raises(torch.OutOfMemoryError):
        fit_small(tmp_path, training_losses=_Stopper(3, torch.OutOfMemoryError))


def test_unknown_monitor_lists_what_is_measured(tmp_path):
    with pytest.raises(InputError, match=r"training.monitor: 'auroc' .*val_loss, accuracy"):
        fit_small(tmp_path, monitor="auroc")


def test_undefined_monitor_is_refused_not_ranked(tmp_path):
    with pytest.raises(InputError, match=r"training.monitor: 'accuracy' .*nan "):
        fit_small(
            tmp_path, monitor="accuracy", validation_metrics=lambda outputs: {"accuracy": math.nan}
        )


def test_checkpoint_of_another_architecture_is_refused(tmp_path):
    fit_small(tmp_path, epochs=1)
    other = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
    with pytest.raises(InputError, match=r"last.ckpt: .*'0.bias' .*\(8,\).*\(3,\)"):
        fit_small(tmp_path, other, resume=True)


def test_damaged_checkpoint_is_refused(tmp_path):
    fit_small(tmp_path, epochs=1)
    (tmp_path / "checkpoints/last.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match=r"last.ckpt: ") as caught:
        fit_small(tmp_path, resume=True)
    assert "\n" not in str(caught.value)


def test_nothing_but_the_run_is_written(tmp_path, capfd):
    fit_small(tmp_path, epochs=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoints", "config.toml", "metrics.csv", "seen.parquet", "started.json",
    ]  # fmt: skip
    assert capfd.readouterr() == ("", "")


def test_progress_counts_every_batch_also_when_resumed(tmp_path):
    done: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        fit_small(tmp_path, training_losses=_Stopper(8))
    fit_small(tmp_path, resume=True, progress=done.append)
    assert sum(done) == 4 * (5 + 3)


def test_bf16_trains_with_weights_in_fp32(tmp_path):
    kinds: set[torch.dtype] = set()

    def losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits = model(batch.x)
        kinds.add(logits.dtype)
        return {"bce": nn.functional.binary_cross_entropy_with_logits(logits, batch.y)}

    model = small_model()
    fit_small(tmp_path, model, epochs=1, training_losses=losses, precision="bf16")
    assert kinds == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def _overflowing(above: float, batches: range) -> Callable[..., Any]:
    """Gradients of some batches that overflow where the loss is scaled above a number."""

    def losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        losses.calls += 1  # type: ignore[attr-defined]
        loss = losses_of(model, batch)["bce"].float()
        if losses.calls in batches:  # type: ignore[attr-defined]
            loss.register_hook(lambda gradient: gradient * (math.inf if gradient > above else 1))
        return {"bce": loss}

    losses.calls = 0  # type: ignore[attr-defined]
    return losses


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_fp16_skips_a_step_that_overflows_and_halves_the_scale(tmp_path, optimiser):
    model, after = small_model(), []

    def losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        after.append(_weights(model)["0.weight"])
        return overflowing(model, batch)

    overflowing = _overflowing(2.0**15, range(2, 4))  # scale 65,536 at first: both batches
    how = training_settings(optimiser=optimiser, learning_rate=0.05, clip=1.0)
    fit_small(tmp_path, model, epochs=1, training_losses=losses, precision="fp16", settings=how)
    moved = [not torch.equal(a, b) for a, b in pairwise(after)]
    assert moved == [True, False, True, True]  # the second is skipped, the third fits at half
    saved = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert saved["MixedPrecision"]["scale"] == 2.0**15
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_fp16_steps_do_not_depend_on_the_scale_and_are_resumed_exactly(tmp_path):
    whole, halves = small_model(), small_model()
    overflow = {"precision": "fp16", "training_losses": _overflowing(2.0**15, range(3, 4))}
    fit_small(tmp_path / "whole", whole, **overflow)
    stopped = _overflowing(2.0**15, range(3, 4))

    def interrupted(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        if stopped.calls == 12:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        return stopped(model, batch)

    with pytest.raises(KeyboardInterrupt):
        fit_small(tmp_path / "halves", precision="fp16", training_losses=interrupted)
    fit_small(tmp_path / "halves", halves, resume=True, precision="fp16")
    last = [torch.load(tmp_path / f / "checkpoints/last.ckpt") for f in ("whole", "halves")]
    assert last[0]["MixedPrecision"] == last[1]["MixedPrecision"]
    assert last[0]["MixedPrecision"]["scale"] == 2.0**15
    _require_equal(*(checkpoint["state_dict"] for checkpoint in last))


def test_fp16_gradient_that_is_not_finite_at_any_scale_names_its_images(tmp_path):
    with pytest.raises(InputError, match=r"the gradient is not finite on the images image"):
        fit_small(
            tmp_path, epochs=9, training_losses=_overflowing(0.0, range(1, 99)), precision="fp16"
        )


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


def test_batch_moves_to_a_gpu_without_waiting_and_an_unreadable_one_is_reported():
    moves: list[Any] = []
    batch = SimpleNamespace(to=lambda *devices, **how: moves.append((devices, how)))
    loop = Loop(Task(small_model()), training_settings(), lambda: "", 1, lambda: False)
    gpu = torch.device("cuda")
    loop.transfer_batch_to_device(batch, gpu, 0)
    assert moves == [((gpu,), {"non_blocking": True})]
    assert loop.transfer_batch_to_device(batch, torch.device("cpu"), 0) is batch
    bad = NamedRows([], lambda samples: 1 / 0).batch([])
    with pytest.raises(InputError, match="division by zero"):
        loop.transfer_batch_to_device(bad, gpu, 0)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_training_on_a_gpu_learns_as_on_the_cpu(tmp_path, precision):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    how = {"settings": _HOW["averaged weights"], "precision": precision}
    there = fit_small(tmp_path / "gpu", accelerator="cuda", **how)
    here = fit_small(tmp_path / "cpu", precision="fp32", settings=_HOW["averaged weights"])
    losses = [[row["val_loss"] for row in trained.history] for trained in (there, here)]
    assert losses[0] == pytest.approx(losses[1], rel=0.3)  # dropout draws other numbers there


def test_global_random_state_is_left_as_it_was(tmp_path):
    before = torch.random.get_rng_state()
    fit_small(tmp_path, epochs=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_every_epoch_is_fixed_once_it_begins_or_resumes():
    settled: list[int] = []
    callback = GradualUnfreezing(settled.append)
    trainer: Any = SimpleNamespace(world_size=1, current_epoch=3)
    callback.on_train_start(trainer, None)
    trainer.current_epoch = 4
    callback.on_train_epoch_start(trainer, None)
    assert settled == [3, 4]


def test_several_devices_are_refused_before_anything_is_settled():
    settled: list[int] = []
    trainer: Any = SimpleNamespace(world_size=2, current_epoch=0)
    with pytest.raises(InputError, match="parts cannot be unfrozen while several devices share"):
        GradualUnfreezing(settled.append).on_train_start(trainer, None)
    assert settled == []
