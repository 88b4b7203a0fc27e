"""Balanced draws, hard negatives and counted boxes, from the configuration to the run folder."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from detection.dataset import LesionBatch
from detection.model import build_retinanet, training_losses, validation_losses
from scripts import console
from scripts.train import train
from tests.scripts.small_sets import interrupted_after
from training.detector import _scored_losses
from training.run_folder import RunFolder

_SMALL = [
    "data.image_size=96", "training.epochs=2", "model.fpn_channels=16", "model.head_convs=1",
    "model.backbone=mobilenet_v3_small",
]  # fmt: skip
_EVERYTHING = [
    *_SMALL, "training.hard_negatives=0.5", "augmentation.mosaic=0.5", "augmentation.scale=0.5",
    "augmentation.shift=0.4",
]  # fmt: skip


def _train(data: Path, out: Path, overrides: list[str]) -> None:
    train("retinanet_quickstart", data=data, out=out, set_=overrides, device="cpu")


@pytest.mark.long
def test_interrupted_training_with_all_of_it_resumes_exactly_and_counts_boxes(
    data, tmp_path, monkeypatch
):
    said: list[str] = []
    monkeypatch.setattr(console, "say", lambda text="": said.append(text))
    _train(data, tmp_path / "whole", _EVERYTHING)
    with interrupted_after(epoch=1):
        _train(data, tmp_path / "halves", _EVERYTHING)
    _train(data, tmp_path / "halves", _EVERYTHING)
    whole, halves = (load_file(tmp_path / f / "model.safetensors") for f in ("whole", "halves"))
    assert all(torch.equal(value, halves[name]) for name, value in whole.items())
    rows, again = (pd.read_csv(tmp_path / f / "metrics.csv") for f in ("whole", "halves"))
    columns = ["train_boxes", "train_boxes_out", "train_boxes_small", "train_boxes_covered"]
    pd.testing.assert_frame_equal(rows[columns], again[columns])

    boxes = RunFolder.open(tmp_path / "whole").info["boxes"]
    assert boxes == dict(zip(["given", "outside", "small", "covered"], rows[columns].sum(),
                             strict=True))  # fmt: skip
    assert 0 < boxes["outside"] < boxes["given"]
    line = next(text for text in said if text.startswith("augmentation: dropped"))
    assert f"out of the image {boxes['outside']}" in line


def test_draws_change_what_is_learned_from_only_where_asked(data: Path, tmp_path: Path) -> None:
    _train(data, tmp_path / "run", [*_SMALL, "training.epochs=1"])
    assert "train_boxes" not in pd.read_csv(tmp_path / "run/metrics.csv").columns
    assert RunFolder.open(tmp_path / "run").info["boxes"] is None


def test_scores_of_negatives_come_with_the_same_losses_as_without_them() -> None:
    torch.manual_seed(0)
    model = build_retinanet(
        backbone="resnet18", fpn_channels=16, head_convs=1, image_size=96, norm="group"
    )
    boxes = [torch.tensor([[10.0, 10.0, 50.0, 60.0]]), torch.zeros(0, 4), torch.zeros(0, 4)]
    labels = [torch.ones(len(b), dtype=torch.int64) for b in boxes]
    images = torch.randint(256, (3, 1, 96, 96), dtype=torch.uint8)
    batch = LesionBatch(["a", "b", "c"], images, boxes, labels)
    losses, ids, scores = _scored_losses(model, batch)
    plain = training_losses(model, batch)
    assert ids == ["b", "c"]
    assert all(torch.equal(value, plain[name]) for name, value in losses.items())
    assert not scores.requires_grad
    best = [image["scores"].max() for image in validation_losses(model, batch)[1]]
    torch.testing.assert_close(scores, torch.stack(best[1:]))  # group norm: the modes agree
