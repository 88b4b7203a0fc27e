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
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.statistics.arrays import Floats

Unit = Literal["image", "study", "patient"]
"""Name of a unit of evaluation."""
_NORMAL = "normal"
_Value = TypeVar("_Value", bound=np.generic)


@dataclass(frozen=True)
class Units:
    """Assignment of images to the U units that are evaluated: images, studies or patients.

    Attributes:
        names: Names of the units, sorted, shape ``(U,)``.
        of_image: Index in `names` of the unit of each image, -1 for an image of a unit that is left
            out, shape ``(N,)``.
        n_left_out: Number of units that are left out because of an unknown label.
    """

    names: pd.Index
    of_image: npt.NDArray[np.int64]
    n_left_out: int = 0

    def highest(self, values: npt.ArrayLike) -> Floats:
        """Return, for each unit, the highest value among its images; shapes ``(N,)`` to ``(U,)``.

        Example:
            >>> Units(pd.Index(["a", "b"]), np.array([1, 0, 0])).highest([0.5, 0.1, 0.3]).tolist()
            [0.3, 0.5]
        """
        used = self.of_image >= 0
        highest = np.full(len(self.names), -np.inf)
        np.maximum.at(highest, self.of_image[used], np.asarray(values, dtype=np.float64)[used])
        return highest

    def first(self, values: npt.NDArray[_Value]) -> npt.NDArray[_Value]:
        """Return, for each unit, the value of its first image; shapes ``(N,)`` to ``(U,)``.

        Example:
            >>> Units(pd.Index(["a", "b"]), np.array([1, 0, 0])).first(np.array([7, 8, 9])).tolist()
            [8, 7]
        """
        used = np.flatnonzero(self.of_image >= 0)
        _, first = np.unique(self.of_image[used], return_index=True)
        return values[used[first]]


def _unit_names(images: LabelledImages, image_ids: pd.Index, unit: Unit) -> npt.NDArray[np.str_]:
    """Return the study or patient of each image."""
    if unit == "image":
        return image_ids.to_numpy(dtype=str)
    patients = images.patients_of(image_ids)
    if unit == "patient":
        return patients
    if "study_id" not in images.images:
        raise InputError("--unit study: the data set names no studies; use --unit patient or image")
    studies = images.images.set_index("image_id")["study_id"].reindex(image_ids)
    if studies.isna().any():
        raise InputError(
            f"--unit study: image '{studies.index[studies.isna()][0]}' has no study_id; use --unit "
            "patient or image"
        )
    return np.char.add(np.char.add(patients, " / "), studies.to_numpy(dtype=str))


def group_images(images: LabelledImages, image_ids: pd.Index, unit: Unit, *, role: str) -> Units:
    """Assign images of one role to the units of an evaluation.

    `image_ids` are those under evaluation, shape ``(N,)``. Images of the role whose label is
    unknown belong to their units as well: a unit that has such an image and no positive image is
    left out. An InputError is raised if `unit` is ``study`` and the study of an image is unknown.
    """
    labels = images.labels_of(role)
    names = _unit_names(images, image_ids, unit)
    unknown = pd.Index(labels.index[labels.isna().to_numpy()])
    doubtful = set(_unit_names(images, unknown, unit)) if len(unknown) else set()
    doubtful -= set(names[labels.reindex(image_ids).to_numpy() == 1])
    is_used = ~np.isin(names, sorted(doubtful))
    unit_names, index = np.unique(names[is_used], return_inverse=True)
    of_image = np.full(len(names), -1, dtype=np.int64)
    of_image[is_used] = index
    n_left_out = len(np.unique(names[~is_used]))
    return Units(pd.Index(unit_names, name="image_id"), of_image, n_left_out)


def evaluated_units(images: LabelledImages, unit: Unit) -> tuple[Units, LabelledImages]:
    """Turn the evaluated test images into evaluated studies or patients.

    The units take the place of images in the second result, without boxes; a unit is positive if
    any of its images is. An InputError is raised if `unit` is ``study`` and the study of an image
    is unknown.

    Example:
        >>> images = LabelledImages.from_arrays(pd.Index(["a", "b"]), [1, 0], ["p", "p"])
        >>> units, by_patient = evaluated_units(images, "patient")
        >>> by_patient.y_true.tolist()
        [True]
    """
    test = images.test
    units = group_images(images, test.image_ids, unit, role="test")
    owners = units.first(test.patients_of(test.image_ids))
    whole = LabelledImages.from_arrays(
        units.names, units.highest(test.y_true), owners, finding=images.finding
    )
    table = whole.images
    if "x_class" in test.images:
        other = units.highest(test.images["x_class"].to_numpy() != _NORMAL)
        table = table.assign(x_class=np.where(other > 0, "not_normal", _NORMAL))
    # The patients stay those of all images, whose resamples the units share.
    return units, replace(whole, images=table, patient_ids=test.patient_names)
