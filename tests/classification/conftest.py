"""A small pixel store in memory, and a compact classifier."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest
import torch

from classification.dataset import ImageLabelDataset, LabelBatch, collate
from classification.model import ImageClassifier, build_classifier
from data_prep.store.preprocess import Placement, letterbox

SIZE = 64
SHAPES = {"square": (128, 128), "wide": (100, 200), "high": (256, 128), "unknown": (64, 64)}
FINDINGS = ("opacity", "nodule")
LABELS = pd.DataFrame(
    {"opacity": [1.0, 0.0, 1.0], "nodule": [0.0, np.nan, 1.0]},
    index=pd.Index(["square", "wide", "high"], name="image_id"),
)


class MemoryStore:
    """Stands for a `PixelStore`: noise, brighter where the image has an opacity."""

    def __init__(self) -> None:
        self.size = SIZE
        self.ids = pd.Index(list(SHAPES))
        rng = np.random.default_rng(0)
        self._images: dict[str, np.ndarray] = {}
        self._placements: dict[str, Placement] = {}
        for image_id, shape in SHAPES.items():
            pixels = rng.integers(0, 120, size=shape, dtype=np.uint8)
            self._images[image_id], self._placements[image_id] = letterbox(pixels, SIZE)

    def image(self, image_id: str) -> np.ndarray:
        return self._images[image_id]

    def placement(self, image_id: str) -> Placement:
        return self._placements[image_id]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Exact comparisons need one order of summation."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def labels() -> pd.DataFrame:
    return LABELS.copy()


@pytest.fixture
def dataset(store: MemoryStore) -> ImageLabelDataset:
    return ImageLabelDataset(store, store.ids, LABELS, FINDINGS)


@pytest.fixture
def batch(dataset: ImageLabelDataset) -> LabelBatch:
    return collate([dataset[row] for row in range(len(dataset))])


@pytest.fixture
def build_small() -> Callable[..., ImageClassifier]:
    """Build a compact classifier; keyword arguments override its settings."""

    def build(name: str = "resnet18", **arguments: object) -> ImageClassifier:
        return build_classifier(name, **{"n_findings": 2, "image_size": SIZE, **arguments})

    return build
