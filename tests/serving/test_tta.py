"""Test-time augmentation: views are joined where they belong, recorded, and paid for."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cxr_compare.data_prep.contracts.boxes import Boxes
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.data_prep.store.views import parse_views
from cxr_compare.detection.model import build_detector
from cxr_compare.networks.cost import count_flops
from cxr_compare.serving.trained_model import MultiViewDetector, TrainedModel
from cxr_compare.training.run_info import RunInfo

SIZE = 96
EVERY = parse_views("flip,scale0.75,scale1.25")


class PatchFinder(nn.Module):
    """Finds the bright patch of an image exactly; blind where the image is smaller."""

    n_findings = 2

    def __init__(self, *, blind_below: int = 0) -> None:
        super().__init__()
        self.preprocess = Preprocess(size=SIZE, mean=0.5, std=0.25)
        self.blind_below = blind_below
        self.sides: list[int] = []

    def forward(self, images: Tensor) -> list[Boxes]:
        assert self.preprocess.size == images.shape[-1]
        self.sides.append(images.shape[-1])
        return [self._find(image[0].numpy()) for image in images]

    def _find(self, pixels: np.ndarray) -> Boxes:
        rows, columns = np.nonzero(pixels > 127)
        seen = len(rows) and len(pixels) >= self.blind_below
        boxes = [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]] if seen else []
        corners = np.array(boxes, np.float32).reshape(-1, 4)
        return Boxes(corners, np.full(len(boxes), 0.8), np.full(len(boxes), 2))


def patch_images() -> Tensor:
    images = torch.zeros(2, 1, SIZE, SIZE, dtype=torch.uint8)
    images[0, 0, 20:44, 8:40] = 255
    return images


def test_boxes_of_all_views_meet_where_the_lesion_is() -> None:
    model: Any = PatchFinder()
    patch, nothing = MultiViewDetector(model, EVERY)(patch_images())
    assert patch is not None
    np.testing.assert_allclose(patch.corners, [[8, 20, 40, 44]], atol=0.7)
    assert patch.labels.tolist() == [2]
    assert patch.scores.tolist() == pytest.approx([0.8])
    assert nothing is not None
    assert len(nothing) == 0
    assert model.sides == [96, 96, 96, 128]
    assert model.preprocess.size == SIZE, "and the model is as it was"


def test_a_box_that_one_view_alone_saw_counts_less() -> None:
    model: Any = PatchFinder(blind_below=128)
    boxes = MultiViewDetector(model, EVERY)(patch_images())[0]
    assert boxes is not None
    assert boxes.scores.tolist() == pytest.approx([0.8 / 4])


def detector() -> nn.Module:
    torch.manual_seed(0)
    return build_detector(
        "retinanet", backbone="resnet18", fpn_channels=16, head_convs=1, image_size=SIZE
    ).eval()


def test_operations_are_those_of_all_views() -> None:
    model: Any = detector()
    plain, both = count_flops(model, SIZE), count_flops(MultiViewDetector(model, EVERY[:2]), SIZE)
    assert both == 2 * plain
    assert count_flops(MultiViewDetector(model, EVERY), SIZE) > 4 * plain


def test_a_mirrored_image_gives_mirrored_boxes() -> None:
    inner: Any = detector()
    model = MultiViewDetector(inner, parse_views("flip"))
    images = torch.randint(256, (1, 1, SIZE, SIZE), dtype=torch.uint8)
    with torch.inference_mode():
        one, two = model(images)[0], model(images.flip(3))[0]
    assert one is not None
    assert two is not None
    assert len(one) > 10
    np.testing.assert_allclose(one.scores, two.scores, atol=1e-5, rtol=0)
    best = two.corners[:3, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [SIZE, 0, SIZE, 0]
    distances = np.abs(one.corners[None] - best[:, None]).max(2).min(1)
    assert distances.max() < 0.5


def test_views_are_part_of_the_record_and_of_the_identity(tmp_path: Path) -> None:
    for name in ("model.safetensors", "model.json", "preprocess.json"):
        (tmp_path / name).write_bytes(b"{}")
    run: Any = SimpleNamespace(folder=tmp_path, info=RunInfo(name="run", findings=["opacity"]))
    opened = {
        views: TrainedModel(
            run, detector(), Preprocess(size=SIZE, mean=0.5, std=0.25), "fp32", "cpu", views
        )
        for views in (EVERY[:1], EVERY[:2], EVERY)
    }
    assert len({model.inference_id() for model in opened.values()}) == 3
    assert opened[EVERY[:1]].tta is None
    assert opened[EVERY[:1]].viewed is opened[EVERY[:1]].model
    assert opened[EVERY[:2]].tta == {
        "views": ["plain", "flip"], "joined_by": "fusion of best boxes", "iou": 0.5,
    }  # fmt: skip
    assert opened[EVERY[:2]].kind == "boxes"
    # Predictions of before must still be known as those of the same system.
    before = "4da7cea44ac6e49f"
    assert opened[EVERY[:1]].inference_id() == before
