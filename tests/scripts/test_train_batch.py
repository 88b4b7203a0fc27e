"""The batch of `cxr train` that fits in memory, and what its draws count and keep."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from cxr_compare.configs.load import parse_config
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts.cli import run_command
from cxr_compare.scripts.commands.train import train
from cxr_compare.training import batch_size
from cxr_compare.training.detector import DetectorTask
from cxr_compare.training.hardware import available_memory
from cxr_compare.training.run_folder import RunFolder

_TINY = [
    "data.image_size=96", "training.epochs=1", "model.fpn_channels=16", "model.head_convs=1",
    "model.backbone=mobilenet_v3_small",
]  # fmt: skip


def _train(data: Path, out: Path, *overrides: str) -> None:
    keys = [*_TINY, *overrides]
    run_command(train, "retinanet_quickstart", data=data, out=out, set_=keys, device="cpu")


def test_batch_size_that_was_found_is_recorded_and_resumed_with(
    data, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(batch_size, "_MIN_STEPS", 4)
    _train(data, tmp_path, "training.batch_size=auto")
    assert "batch size: 4 images" in capsys.readouterr().err
    config = parse_config(RunFolder.open(tmp_path).config, "config.toml")
    assert config.training.batch_size == 4  # of 18 images, in at least 4 steps
    _train(data, tmp_path, "training.batch_size=auto")
    _train(data, tmp_path, "training.batch_size=4")
    assert capsys.readouterr().err.count("has ended before") == 2


def _failing_above(n_images: int, losses: Callable[..., Any]) -> Callable[..., Any]:
    """Losses of a step that runs out of memory above some images."""

    def failing(task: DetectorTask, model: Any, batch: Any) -> Any:
        if len(batch) > n_images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return losses(task, model, batch)

    return failing


@pytest.mark.parametrize(
    ("n_images", "message"),
    [
        (
            4,
            r"8 images do not fit in memory, 4 fit; choose another --out and add --set "
            r"training.batch_size=4 --set training.accumulate=2",
        ),
        (0, r"not even one image of 96 px fits in memory; choose a smaller data.image_size"),
    ],
)
def test_want_of_memory_says_the_batch_that_fits(data, tmp_path, monkeypatch, n_images, message):
    failing = _failing_above(n_images, DetectorTask.training_losses)
    monkeypatch.setattr(DetectorTask, "training_losses", failing)
    with pytest.raises(InputError, match=message) as caught:
        _train(data, tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_batch_beyond_the_free_memory_is_refused_before_anything_is_written(
    data, tmp_path, monkeypatch
):
    monkeypatch.setattr(batch_size, "available_memory", lambda: 400 * 2**20)
    with pytest.raises(InputError, match=r"256 images would need more than the memory .* fit"):
        _train(data, tmp_path / "run", "training.batch_size=256")
    assert not (tmp_path / "run").exists()


def test_free_memory_is_a_plausible_number() -> None:
    assert 2**24 < available_memory() < 2**50


def test_draws_change_what_is_learned_from_only_where_asked(data: Path, tmp_path: Path) -> None:
    _train(data, tmp_path / "run")
    assert "train_boxes" not in pd.read_csv(tmp_path / "run/metrics.csv").columns
    assert RunFolder.open(tmp_path / "run").info["boxes"] is None
