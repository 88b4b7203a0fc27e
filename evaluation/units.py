"""Units of evaluation: images, or the studies or patients that the images belong to.

The score of a study or patient is the highest of its images. A study or patient is positive if any
of its images is positive, and negative if all are negative. If the label of an image is unknown and
no other image is positive, the study or patient is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.labelled_images import GroundTruth, LabelledImages
from cxr_compare.evaluation.statistics.arrays import Floats

Unit = Literal["image", "study", "patient"]
"""Name of a unit of evaluation."""
_NORMAL = "normal"
_Value = TypeVar("_Value", bound=np.generic)


@dataclass(frozen=True)
class Units:
    """Assignment of images to the units that are evaluated: images, studies or patients.

    Attributes:
        names: Names of the units that are evaluated, sorted, shape ``(U,)``.
        of_image: Index in `names` of the unit of each image, -1 for an image of a unit that is left
            out, shape ``(N,)``.
        n_left_out: Number of units that are left out because of an unknown label.

    Example:
        >>> Units(pd.Index(["p", "q"]), np.array([1, 0, 0])).n_left_out
        0
    """

    names: pd.Index
    of_image: npt.NDArray[np.int64]
    n_left_out: int = 0

    def highest(self, values: npt.ArrayLike) -> Floats:
        """Return, for each unit (image, study or patient), the highest value among its images.

        Args:
            values: Value of each image, shape ``(N,)``.

        Returns:
            Highest values, shape ``(U,)``.

        Example:
            >>> Units(pd.Index(["a", "b"]), np.array([1, 0, 0])).highest([0.5, 0.1, 0.3]).tolist()
            [0.3, 0.5]
        """
        used = self.of_image >= 0
        highest = np.full(len(self.names), -np.inf)
        np.maximum.at(highest, self.of_image[used], np.asarray(values, dtype=np.float64)[used])
        return highest

    def first(self, values: npt.NDArray[_Value]) -> npt.NDArray[_Value]:
        """Return, for each unit (image, study or patient), the value of its first image.

        Args:
            values: Value of each image, shape ``(N,)``.

        Returns:
            Values of the first images, shape ``(U,)``.

        Example:
            >>> Units(pd.Index(["a", "b"]), np.array([1, 0, 0])).first(np.array([7, 8, 9])).tolist()
            [8, 7]
        """
        used = np.flatnonzero(self.of_image >= 0)
        _, first = np.unique(self.of_image[used], return_index=True)
        return values[used[first]]


def _unit_names(truth: GroundTruth, image_ids: pd.Index, unit: Unit) -> npt.NDArray[np.str_]:
    """Return the study or patient of each image."""
    if unit == "image":
        return image_ids.to_numpy(dtype=str)
    patients = truth.patients(image_ids)
    if unit == "patient":
        return patients
    if "study_id" not in truth.images:
        raise InputError("--unit study: the data set names no studies; use --unit patient or image")
    studies = truth.images.set_index("image_id")["study_id"].reindex(image_ids)
    if studies.isna().any():
        raise InputError(
            f"--unit study: image '{studies.index[studies.isna()][0]}' has no study_id; use --unit "
            "patient or image"
        )
    return np.char.add(np.char.add(patients, " / "), studies.to_numpy(dtype=str))


def group_images(truth: GroundTruth, labels: pd.Series, image_ids: pd.Index, unit: Unit) -> Units:
    """Assign images to the units of an evaluation.

    Args:
        truth: Labels, studies and patients of all images.
        labels: Label of every image that has the same role (such as ``test``) as the images under
            evaluation: 1.0, 0.0 or NaN (unknown), by image id.
        image_ids: Ids of the images under evaluation, shape ``(N,)``.
        unit: What is evaluated: ``image``, ``study`` or ``patient``.

    Returns:
        The units with the images that belong to each. A unit that has an image of unknown label and
        no positive image is left out.

    Raises:
        InputError: `unit` is ``study``, and the study of an image is unknown.

    Example:
        >>> images = pd.DataFrame({"image_id": ["a", "b"], "patient_id": ["p", "p"]})
        >>> labels = pd.Series([1.0, 0.0], index=["a", "b"])
        >>> truth = GroundTruth(images, labels, pd.Series("test", index=["a", "b"]))
        >>> group_images(truth, labels, pd.Index(["a", "b"]), "patient").names.tolist()
        ['p']
    """
    names = _unit_names(truth, image_ids, unit)
    unknown = pd.Index(labels.index[labels.isna().to_numpy()])
    doubtful = set(_unit_names(truth, unknown, unit)) if len(unknown) else set()
    doubtful -= set(names[labels.reindex(image_ids).to_numpy() == 1])
    is_used = ~np.isin(names, sorted(doubtful))
    unit_names, index = np.unique(names[is_used], return_inverse=True)
    of_image = np.full(len(names), -1, dtype=np.int64)
    of_image[is_used] = index
    n_left_out = len(np.unique(names[~is_used]))
    return Units(pd.Index(unit_names, name="image_id"), of_image, n_left_out)


def evaluated_units(
    evaluated: LabelledImages, truth: GroundTruth, labels: pd.Series, unit: Unit
) -> tuple[Units, LabelledImages]:
    """Turn a set of evaluated images into a set of evaluated studies or patients.

    Args:
        evaluated: Images under evaluation, with their labels and patients.
        truth: Labels, studies and patients of all images.
        labels: Label of every image that has the same role (such as ``test``) as the images under
            evaluation: 1.0, 0.0 or NaN (unknown), by image id.
        unit: What is evaluated: ``image``, ``study`` or ``patient``.

    Returns:
        The assignment of images to units, and an evaluation set with units in place of images and
        without boxes. A unit is positive if any of its images is positive.

    Raises:
        InputError: `unit` is ``study``, and the study of an image is unknown.

    Example:
        >>> from cxr_compare.evaluation.labelled_images import describe_images
        >>> ids = pd.Index(["a", "b"])
        >>> images = pd.DataFrame({"image_id": ids, "patient_id": ["p", "p"]})
        >>> labels = pd.Series([1.0, 0.0], index=ids)
        >>> truth = GroundTruth(images, labels, pd.Series("test", index=ids))
        >>> evaluated = describe_images(truth, ids, labels)
        >>> units, by_patient = evaluated_units(evaluated, truth, labels, "patient")
        >>> by_patient.y_true.tolist()
        [True]
    """
    units = group_images(truth, labels, evaluated.image_ids, unit)
    count = len(units.names)
    kinds = None
    if evaluated.x_class is not None:
        other = units.highest(evaluated.x_class.to_numpy() != _NORMAL)
        kinds = pd.Series(np.where(other > 0, "not_normal", _NORMAL))
    whole = replace(
        evaluated,
        image_ids=units.names,
        y_true=units.highest(evaluated.y_true) > 0,
        patients=units.first(evaluated.patients),
        boxes_trusted=np.zeros(count, dtype=bool),
        truth=evaluated.truth.iloc[:0],
        x_class=kinds,
    )
    return units, whole
