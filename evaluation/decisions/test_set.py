"""What systems are judged on: a data set, one of its targets, and a split."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep.duplicates.near_duplicates import patient_groups
from data_prep.store.dataset import DataSet, Target
from evaluation.metrics.metric import VERSUS_NORMAL, MetricKey
from evaluation.metrics.registry import METRICS


def patients_of(images: pd.DataFrame, image_ids: pd.Index) -> np.ndarray:
    """Patient of each image, shape ``(N,)``, in the order of `image_ids`."""
    return patient_groups(images).reindex(image_ids).to_numpy(dtype=str)


@dataclass(frozen=True)
class TestSet:
    """A data set, what is judged in it, and the split whose ``test`` images judge.

    The ``val`` images of the same split choose thresholds and all else of a decision.

    Attributes:
        dataset: Images, labels, boxes and splits.
        target: What is judged.
        split: Name of the split.
    """

    __test__ = False  # a name that pytest would collect

    dataset: DataSet
    target: Target
    split: str = "default"

    @property
    def ids(self) -> dict[str, Any]:
        """What a decision or a figure is bound to: content, labels and split."""
        ids = self.dataset.ids
        return {
            "content_id": ids["content_id"],
            "labels_id": ids["labels_id"],
            "split": self.split,
            "split_id": ids.get("split_ids", {}).get(self.split),
        }

    @property
    def images(self) -> pd.DataFrame:
        """The images table of the data set, all splits."""
        return self.dataset.images

    @cached_property
    def labels(self) -> pd.Series:
        """1.0, 0.0 or NaN (unknown) by id of every image of the data set."""
        return self.dataset.labels(self.target)

    @cached_property
    def boxes_trusted(self) -> pd.Index:
        """Images of the data set on which localisation may be judged."""
        return self.dataset.boxes_trusted(self.target)

    @cached_property
    def true_boxes(self) -> pd.DataFrame:
        """True boxes of the target on `boxes_trusted`, original px."""
        return self.dataset.target_boxes(self.target)

    def image_ids(self, role: str) -> pd.Index:
        """Sorted ids of the split's images of a role, ``val`` or ``test``."""
        return self.dataset.image_ids(role, self.split)

    def labels_of(self, role: str) -> pd.Series:
        """Labels of a role's images, NaN where unknown, by image id."""
        return self.labels.reindex(self.image_ids(role))

    def patients(self, image_ids: pd.Index) -> np.ndarray:
        """Patient of each image, shape ``(N,)``."""
        return patients_of(self.images, image_ids)


@dataclass(frozen=True)
class EvaluationSet:
    """The images that every system is scored on, and what is true of them.

    Attributes:
        image_ids: Shape ``(N,)``, sorted.
        y_true: Shape ``(N,)``.
        patients: Patient of each image as an index from 0, shape ``(N,)``.
        n_patients: How many patients.
        boxes_trusted: Whether localisation may be judged on an image, shape ``(N,)``.
        truth: True boxes of the target on these images, original px.
        x_class: The kind of each image, where the data set knows it.
        tolerance: Width and height of one map cell of the coarsest system on each image, by which
            a scored point may miss a lesion, original px, shape ``(N, 2)``; `None` without maps.
    """

    image_ids: pd.Index
    y_true: npt.NDArray[np.bool_]
    patients: npt.NDArray[np.int64]
    n_patients: int
    boxes_trusted: npt.NDArray[np.bool_]
    truth: pd.DataFrame
    x_class: pd.Series | None = None
    tolerance: npt.NDArray[np.float64] | None = None

    @cached_property
    def versus_normal(self) -> npt.NDArray[np.bool_] | None:
        """Positive images and those that are normal, shape ``(N,)``; `None` where unknown."""
        if self.x_class is None or not (self.x_class == "normal").any():
            return None
        return self.y_true | (self.x_class == "normal").to_numpy(dtype=bool)

    def population(self, figure: MetricKey) -> npt.NDArray[np.bool_]:
        """The images that a figure is computed on, shape ``(N,)``."""
        if figure.subgroup == VERSUS_NORMAL and self.versus_normal is not None:
            return self.versus_normal
        if figure.metric in METRICS and METRICS[figure.metric].boxed:
            return self.boxes_trusted
        return np.ones(len(self.image_ids), dtype=bool)
