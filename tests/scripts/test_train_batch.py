"""The batch of `cxr train` that fits in memory, and what its draws count and keep."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts.cli import run_command
from cxr_compare.scripts.commands.train import train
from cxr_compare.training.detector import DetectorTask
from cxr_compare.training.run_folder import RunFolder

_TINY = [
    "data.image_size=96", "training.epochs=1", "model.fpn_channels=16", "model.head_convs=1",
    "model.backbone=mobilenet_v3_small",
]  # fmt: skip


def _train(data: Path, out: Path, *overrides: str) -> None:
    keys = [*_TINY, *overrides]
    run_command(train, "retinanet_quickstart", data=data, out=out, set_=keys, device="cpu")


def _fail(task: DetectorTask, model: Any, batch: Any) -> Any:
    """In place of the losses of a step that runs out of memory."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


@pytest.mark.parametrize(
    ("batch_size", "message"),
    [
        (8, "training.batch_size=4 --set training.accumulate=2"),
        (5, "training.batch_size=2 --set training.accumulate=3"),
        (1, "not even one image of 96 px fits"),
    ],
)
def test_want_of_memory_names_a_smaller_batch(data, tmp_path, monkeypatch, batch_size, message):
    monkeypatch.setattr(DetectorTask, "training_losses", _fail)
    with pytest.raises(InputError, match=message) as caught:
        _train(data, tmp_path / "run", f"training.batch_size={batch_size}")
    assert "\n" not in str(caught.value)


def test_draws_change_what_is_learned_from_only_where_asked(data: Path, tmp_path: Path) -> None:
    _train(data, tmp_path / "run")
    assert "train_boxes" not in pd.read_csv(tmp_path / "run/metrics.csv").columns
    assert RunFolder.open(tmp_path / "run").info.boxes is None
