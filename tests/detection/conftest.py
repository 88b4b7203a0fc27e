"""A small pixel store in memory, and detectors small enough to train in a second."""

from collections.abc import Callable, Iterator

import pandas as pd
import pytest
import torch

from cxr_compare.detection.detector import LesionBatch
from cxr_compare.detection.model import build_detector
from cxr_compare.detection.retinanet import LesionRetinaNet
from cxr_compare.training.datasets import LesionDataset, collate_lesions
from tests.memory_store import BOXES, ORIGINALS, MemoryStore

SIZE = 64


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
def fixed_sums(one_thread: None) -> None:
    """Bit-for-bit comparisons need one order of summation."""
    torch.manual_seed(0)


@pytest.fixture
def make_store() -> Callable[[int], MemoryStore]:
    """Makes the store of any side in pixels."""
    return lambda size: MemoryStore(ORIGINALS, size, brightness=80, boxes=BOXES)


@pytest.fixture
def store(make_store: Callable[[int], MemoryStore]) -> MemoryStore:
    return make_store(SIZE)


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
    return collate_lesions([dataset[row] for row in range(len(dataset))])


@pytest.fixture
def build_small() -> Callable[..., LesionRetinaNet]:
    """Build a tiny detector; keyword arguments override its settings."""

    def build(**arguments: object) -> LesionRetinaNet:
        small = {"backbone": "resnet18", "fpn_channels": 32, "head_convs": 1, "image_size": SIZE}
        return build_detector("retinanet", **(small | arguments))

    return build
