"""What systems are judged on: a data set, one of its targets, and a split.

Images may be grouped by study or patient: the score of a unit is the highest of its images. A unit
is positive where any of its images is, negative where all are. One that has an image of unknown
label and no positive one is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.duplicates.near_duplicates import patient_groups
from data_prep.store.dataset import DataSet, Target
from evaluation.metrics.metric import VERSUS_NORMAL, MetricKey
from evaluation.metrics.registry import METRICS
from evaluation.statistics.ranking import Floats

Unit = Literal["image", "study", "patient"]
_NORMAL = "normal"
_Value = TypeVar("_Value", bound=np.generic)


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


@dataclass(frozen=True)
class Units:
    """Which images make which units."""

    names: pd.Index  # of the units that are judged, sorted, shape `(U,)`
    # unit of each image, -1 for an image of a unit that is left out, shape `(N,)`
    of_image: npt.NDArray[np.int64]
    n_left_out: int = 0  # units left out for an unknown label

    def highest(self, values: npt.ArrayLike) -> Floats:
        """The highest value of each unit's images, shape ``(U,)``.

        Example:
            >>> Units(pd.Index(["a", "b"]), np.array([1, 0, 0])).highest([0.5, 0.1, 0.3]).tolist()
            [0.3, 0.5]
        """
        used = self.of_image >= 0
        highest = np.full(len(self.names), -np.inf)
        np.maximum.at(highest, self.of_image[used], np.asarray(values, dtype=np.float64)[used])
        return highest

    def first(self, values: npt.NDArray[_Value]) -> npt.NDArray[_Value]:
        """The value of each unit's first image, shape ``(U,)``."""
        used = np.flatnonzero(self.of_image >= 0)
        place = np.unique(self.of_image[used], return_index=True)[1]
        return values[used[place]]


def _unit_names(images: pd.DataFrame, image_ids: pd.Index, unit: Unit) -> npt.NDArray[np.str_]:
    """The study or patient of each image."""
    if unit == "image":
        return image_ids.to_numpy(dtype=str)
    patients = patients_of(images, image_ids)
    if unit == "patient":
        return patients
    if "study_id" not in images:
        raise InputError("--unit study: the data set names no studies; use --unit patient or image")
    studies = images.set_index("image_id")["study_id"].reindex(image_ids)
    if studies.isna().any():
        raise InputError(
            f"--unit study: image '{studies.index[studies.isna()][0]}' has no study_id; use --unit "
            "patient or image"
        )
    return np.char.add(np.char.add(patients, " / "), studies.to_numpy(dtype=str))


def group_images(images: pd.DataFrame, labels: pd.Series, image_ids: pd.Index, unit: Unit) -> Units:
    """Group images into units."""
    names = _unit_names(images, image_ids, unit)
    unknown = pd.Index(labels.index[labels.isna().to_numpy()])
    doubtful = set(_unit_names(images, unknown, unit)) if len(unknown) else set()
    doubtful -= set(names[labels.reindex(image_ids).to_numpy() == 1])
    kept = ~np.isin(names, sorted(doubtful))
    chosen, place = np.unique(names[kept], return_inverse=True)
    of_image = np.full(len(names), -1, dtype=np.int64)
    of_image[kept] = place
    left_out = len(np.unique(names[~kept]))
    return Units(pd.Index(chosen, name="image_id"), of_image, left_out)


def judged_units(judged: EvaluationSet, units: Units) -> EvaluationSet:
    """The units in the place of images; without places, which belong to images."""
    count = len(units.names)
    kinds = None
    if judged.x_class is not None:
        other = units.highest(judged.x_class.to_numpy() != _NORMAL)
        kinds = pd.Series(np.where(other > 0, "not_normal", _NORMAL))
    return replace(
        judged,
        image_ids=units.names,
        y_true=units.highest(judged.y_true) > 0,
        patients=units.first(judged.patients),
        boxes_trusted=np.zeros(count, dtype=bool),
        truth=judged.truth.iloc[:0],
        x_class=kinds,
    )
