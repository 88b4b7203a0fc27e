"""The batch of `cxr train` that fits in memory and in the data set."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts.cli import run_command
from cxr_compare.scripts.commands.train import train
from cxr_compare.training.module import DetectorModule

_TINY = [
    "data.image_size=96", "training.epochs=1", "model.fpn_channels=16", "model.head_convs=1",
    "model.backbone=mobilenet_v3_small",
]  # fmt: skip


def _train(data: Path, out: Path, *overrides: str) -> None:
    keys = [*_TINY, *overrides]
    run_command(train, "retinanet_quickstart", data=data, out=out, set_=keys, device="cpu")


def _fail(module: DetectorModule, batch: Any) -> Any:
    """In place of the losses of a step that runs out of memory."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


@pytest.mark.parametrize(
    ("batch_size", "message"),
    [
        (5, "training.batch_size=2 --set training.accumulate=3, which learns from 6 images"),
        (1, "not even one image of 96 px fits"),
    ],
)
def test_want_of_memory_names_a_smaller_batch(data, tmp_path, monkeypatch, batch_size, message):
    monkeypatch.setattr(DetectorModule, "losses", _fail)
    with pytest.raises(InputError, match=message) as caught:
        _train(data, tmp_path / "run", f"training.batch_size={batch_size}")
    assert "\n" not in str(caught.value)


def test_a_batch_larger_than_the_data_set_is_refused_before_pixels_are_read(
    data, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "cxr_compare.data_prep.dataset.DataSet.make_store", lambda *_: pytest.fail("decoded")
    )
    with pytest.raises(InputError, match=r"training\.batch_size: a step learns from 512 images"):
        _train(data, tmp_path / "run", "training.batch_size=256", "training.accumulate=2")
    assert not (tmp_path / "run").exists()


def test_a_network_that_images_are_too_small_for_is_refused_before_pixels_are_read(
    data, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "cxr_compare.data_prep.dataset.DataSet.make_store", lambda *_: pytest.fail("decoded")
    )
    keys = ["data.image_size=64", "model.backbone=inception_v3", "model.last_stride=none"]
    with pytest.raises(InputError, match=r"75 px.*set data\.image_size = 96$"):
        train("chexnet_quickstart", data=data, out=tmp_path / "run", set_=keys, device="cpu")
    keys = ["data.image_size=96", "model.backbone=inception_v3", "model.last_stride=16"]
    with pytest.raises(InputError, match=r"set model\.last_stride = none"):
        train("chexnet_quickstart", data=data, out=tmp_path / "run", set_=keys, device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_training_says_first_how_long_it_will_take(data, tmp_path, capsys):
    _train(data, tmp_path / "run")
    said = capsys.readouterr().err
    assert 0 < said.index(" on this machine: 1 epoch of about ") < said.index("epoch 1 of 1")
