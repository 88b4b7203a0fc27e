"""What runs on a GPU, rehearsed on a pretended one (`tests/pretended_device.py`)."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import torch

from classification.dataset import LabelBatch
from classification.inference import MapMethod, predict_scores
from classification.model import build_classifier
from data_prep.store.preprocess import Placement
from detection.dataset import LesionBatch
from detection.inference import predict_boxes
from detection.model import build_retinanet
from networks.registry import NETWORKS, network_names
from tests.pretended_device import PretendedDevice, pretended_cuda

SIZE = 64
SMALL = {"resnet18", "mobilenet_v3_small", "squeezenet1_1", "small_cnn", "efficientnet_lite0"}
PLACE = Placement(1.0, 1.0, 0.0, 0.0)


def networks(kind: str) -> list[object]:
    """All that a kind of model may stand on; the large ones by hand."""
    return [
        pytest.param(name, marks=[] if name in SMALL else [pytest.mark.long])
        for name in network_names(kind)
    ]


@pytest.fixture(autouse=True)
def fixed_sums(one_thread: None) -> None:
    torch.manual_seed(0)


@pytest.fixture
def gpu() -> Iterator[PretendedDevice]:
    with pretended_cuda() as device:
        yield device


def draw_images(size: int, count: int = 3) -> torch.Tensor:
    draw = np.random.default_rng(0)
    return torch.from_numpy(draw.integers(0, 256, (count, 1, size, size), dtype=np.uint8))


def image_ids(images: torch.Tensor) -> list[str]:
    return [str(number) for number in range(len(images))]


def as_labels(images: torch.Tensor) -> LabelBatch:
    return LabelBatch(image_ids(images), images, torch.zeros(len(images), 1))


def as_lesions(images: torch.Tensor) -> LesionBatch:
    boxes = [torch.tensor([[8.0, 8.0, 40.0, 48.0], [20.0, 30.0, 60.0, 60.0]][:n % 3]).view(-1, 4)
             for n in range(len(images))]  # fmt: skip
    labels = [torch.ones(len(rows), dtype=torch.int64) for rows in boxes]
    return LesionBatch(image_ids(images), images, boxes, labels)


def test_the_device_refuses_what_cuda_refuses(gpu):
    there, here = torch.ones(3, device="cuda"), torch.ones(3)
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        there + here
    with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
        there.numpy()
    with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
        np.asarray(there)
    assert (there + torch.tensor(2.0)).tolist() == [3.0, 3.0, 3.0]  # a number may lie anywhere
    gpu.total_memory = gpu.allocated + 1_000
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        torch.empty(1_001, dtype=torch.uint8, device="cuda")


def test_the_device_counts_waits_and_what_is_sent(gpu):
    here = torch.tensor([1.0, 0.0, 2.0])
    there = here.to("cuda")
    assert (sum(gpu.waits.values()), sum(gpu.constants.values())) == (1, 1)
    gpu.forget_counts()
    here.pin_memory().to("cuda", non_blocking=True)
    there[there > 1] = 5.0  # one mask and one number need no places
    assert (sum(gpu.waits.values()), sum(gpu.constants.values())) == (0, 0)
    there[there > 1]
    there.nonzero()
    assert there.sum() > 0
    assert there.max().item() == 5.0
    assert there.tolist() == [1.0, 0.0, 5.0]
    assert sum(gpu.waits.values()) == 5


def test_a_gradient_is_that_of_the_processor(gpu):
    layers = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    moved = copy.deepcopy(layers).to("cuda")
    rows = torch.randn(5, 4)
    layers(rows).square().sum().backward()
    moved(rows.to("cuda")).square().sum().backward()
    for one, other in zip(layers.parameters(), moved.parameters(), strict=True):
        assert other.grad.device.type == "cuda"
        assert torch.equal(one.grad, other.grad.cpu())


@pytest.mark.parametrize("maps", ["cam", "gradcam", "layercam"])
@pytest.mark.parametrize("name", networks("classifier"))
def test_a_classifier_scores_and_maps_as_on_the_processor(gpu, name, maps: MapMethod):
    size = max(SIZE, NETWORKS[name].min_size)
    stride = max(NETWORKS[name].strides)
    model = build_classifier(name, image_size=size, last_stride=stride).eval()
    moved = copy.deepcopy(model)
    batches = [as_labels(draw_images(size))]
    how = {"placement": lambda _: PLACE, "maps": maps}
    (expected,) = predict_scores(model, batches, ["opacity"], **how)
    (found,) = predict_scores(moved, batches, ["opacity"], device="cuda", **how)
    pd.testing.assert_frame_equal(found.scores, expected.scores, rtol=1e-4)
    pd.testing.assert_frame_equal(found.maps, expected.maps, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", networks("detector"))
def test_a_detector_finds_as_on_the_processor(gpu, name):
    model = build_retinanet(backbone=name, fpn_channels=16, head_convs=1, image_size=SIZE).eval()
    moved = copy.deepcopy(model)
    images = draw_images(SIZE)
    sizes = pd.DataFrame({"image_id": image_ids(images), "width": SIZE, "height": SIZE})
    how = {"placement": lambda _: PLACE, "images": sizes}
    (expected,) = predict_boxes(model, [as_lesions(images)], ["opacity"], **how)
    (found,) = predict_boxes(moved, [as_lesions(images)], ["opacity"], device="cuda", **how)
    pd.testing.assert_frame_equal(found.images, expected.images)
    scores = ["image_id", "score"]
    pd.testing.assert_frame_equal(found.boxes[scores], expected.boxes[scores], rtol=1e-4)
