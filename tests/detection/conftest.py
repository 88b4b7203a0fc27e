"""A small pixel store in memory, and detectors small enough to train in a second."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest
import torch

from data_prep.store.preprocess import Placement, letterbox
from detection.dataset import LesionBatch, LesionDataset, collate
from detection.model import build_retinanet
from detection.retinanet import LesionRetinaNet

SIZE = 64
ORIGINALS = {  # image id -> (height, width) px: square, wide and high
    "square": (128, 128),
    "wide": (100, 200),
    "high": (256, 128),
    "empty": (128, 128),
}
BOXES = pd.DataFrame(
    [
        ("square", "opacity", 20.0, 30.0, 70.0, 90.0),
        ("square", "opacity", 80.0, 10.0, 120.0, 60.0),
        ("wide", "opacity", 100.0, 20.0, 180.0, 80.0),
        ("high", "opacity", 10.0, 100.0, 110.0, 220.0),
    ],
    columns=["image_id", "finding", "x1", "y1", "x2", "y2"],
)


class MemoryStore:
    """Stands for a `PixelStore`: noise with a bright patch where a box is."""

    def __init__(self, size: int = SIZE) -> None:
        self.size = size
        self.ids = pd.Index(list(ORIGINALS))
        rng = np.random.default_rng(0)
        self._images: dict[str, np.ndarray] = {}
        self._placements: dict[str, Placement] = {}
        for image_id, shape in ORIGINALS.items():
            pixels = rng.integers(0, 80, size=shape, dtype=np.uint8)
            for box in BOXES[BOXES["image_id"] == image_id].itertuples():
                pixels[int(box.y1) : int(box.y2), int(box.x1) : int(box.x2)] += 150
            self._images[image_id], self._placements[image_id] = letterbox(pixels, size)

    def image(self, image_id: str) -> np.ndarray:
        return self._images[image_id]

    def placement(self, image_id: str) -> Placement:
        return self._placements[image_id]


@pytest.fixture(scope="session", autouse=True)
def no_values_without_content() -> Iterator[None]:
    """Tensors that have a shape alone get no initial values: half of the time of building them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("kaiming_normal_", "kaiming_uniform_", "normal_", "trunc_normal_", "uniform_"):
            patch.setattr(torch.nn.init, name, _with_content(getattr(torch.nn.init, name)))
        yield


def _with_content(fill: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda tensor, *rest, **by: tensor if tensor.is_meta else fill(tensor, *rest, **by)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Bit-for-bit comparisons need one order of summation."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def boxes() -> pd.DataFrame:
    return BOXES.copy()


@pytest.fixture
def originals() -> pd.DataFrame:
    rows = [(image_id, width, height) for image_id, (height, width) in ORIGINALS.items()]
    return pd.DataFrame(rows, columns=["image_id", "width", "height"])


@pytest.fixture
def dataset(store: MemoryStore) -> LesionDataset:
    return LesionDataset(store, store.ids, BOXES, ("opacity",))


@pytest.fixture
def batch(dataset: LesionDataset) -> LesionBatch:
    return collate([dataset[row] for row in range(len(dataset))])


@pytest.fixture
def build_small() -> Callable[..., LesionRetinaNet]:
    """Build a tiny detector; keyword arguments override its settings."""

    def build(**arguments: object) -> LesionRetinaNet:
        small = {
            "backbone": "resnet18",
            "fpn_channels": 32,
            "head_convs": 1,
            "image_size": SIZE,
        }
        return build_retinanet(**{**small, **arguments})

    return build
