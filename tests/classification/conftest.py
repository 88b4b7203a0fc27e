"""A small pixel store in memory, and a compact classifier."""

from collections.abc import Callable

import pandas as pd
import pytest
import torch

from cxr_compare.classification.loss import LabelBatch
from cxr_compare.classification.model import ImageClassifier, build_classifier
from cxr_compare.training.datasets import ImageLabelDataset, collate_labels
from tests.memory_store import LABELLED_ORIGINALS, LABELS, MemoryStore

SIZE = 64
FINDINGS = ("opacity", "nodule")


@pytest.fixture(autouse=True)
def fixed_sums(one_thread: None) -> None:
    """Exact comparisons need one order of summation."""
    torch.manual_seed(0)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(LABELLED_ORIGINALS, SIZE)


@pytest.fixture
def labels() -> pd.DataFrame:
    return LABELS.copy()


@pytest.fixture
def dataset(store: MemoryStore) -> ImageLabelDataset:
    return ImageLabelDataset(store, store.ids, LABELS, FINDINGS)


@pytest.fixture
def batch(dataset: ImageLabelDataset) -> LabelBatch:
    return collate_labels([dataset[row] for row in range(len(dataset))])


@pytest.fixture
def build_small() -> Callable[..., ImageClassifier]:
    """Build a compact classifier; keyword arguments override its settings."""

    def build(name: str = "resnet18", **arguments: object) -> ImageClassifier:
        return build_classifier(name, **{"n_findings": 2, "image_size": SIZE, **arguments})

    return build
