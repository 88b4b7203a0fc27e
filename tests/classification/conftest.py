"""A small pixel store in memory, and a compact classifier."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch

from cxr_compare.classification.dataset import ImageLabelDataset, LabelBatch, collate
from cxr_compare.classification.model import ImageClassifier, build_classifier
from tests.memory_store import MemoryStore

SIZE = 64
SHAPES = {"square": (128, 128), "wide": (100, 200), "high": (256, 128), "unknown": (64, 64)}
FINDINGS = ("opacity", "nodule")
LABELS = pd.DataFrame(
    {"opacity": [1.0, 0.0, 1.0], "nodule": [0.0, np.nan, 1.0]},
    index=pd.Index(["square", "wide", "high"], name="image_id"),
)


@pytest.fixture(autouse=True)
def fixed_sums(one_thread: None) -> None:
    """Exact comparisons need one order of summation."""
    torch.manual_seed(0)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(SHAPES, SIZE)


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
