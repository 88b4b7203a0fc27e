"""Search for the constant point and boxes that find the most lesions, for weighted patients."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_compare.data_prep.contracts.boxes import box_iou
from cxr_compare.evaluation.statistics.arrays import Floats, Integers

_MOST = 4
"""Largest number of constant boxes: further ones find few lesions that these do not find."""
_GRID = 100
"""Number of steps across the image in which the constant point is searched."""
_BOX_GRID = 25
"""Number of centres of constant boxes that are tried across the image, and down the image."""
_SIDES = (0.75, 1.0, 1.25, 1.5)
"""Sides of constant boxes that are tried, in median sides of the lesions."""
_FINDS = 0.3
"""IoU from which a constant box finds a lesion: above the 0.2 of FROC, as new lesions vary."""
_MOST_LESIONS = 1000
"""Number of lesions that the search for boxes takes at most, evenly from all."""
_IMAGES_AT_ONCE = 500


class Places(NamedTuple):
    """Constant point and boxes, as shares of the image's width and height.

    Attributes:
        point: Position x and y, shape ``(2,)``.
        boxes: Corners xyxy of boxes, the best first, shape ``(K, 4)``.
    """

    point: Floats
    boxes: Floats


class PlaceSearch:
    """Constant positions for many weightings of the patients whose boxes teach them.

    Which lesions each candidate finds is computed once for all weightings. `corners` (xyxy) are
    shares of the image's size, shape ``(L, 4)``; `images` and `patients` number the image and the
    patient of each of the L lesions from 0.
    """

    def __init__(self, corners: Floats, images: Integers, patients: Integers) -> None:
        self._corners = corners
        self._images = images
        self._patients = patients
        lesions = corners[:: math.ceil(len(corners) / _MOST_LESIONS)]
        self._patient_of_lesion = patients[:: math.ceil(len(corners) / _MOST_LESIONS)]
        centres = (lesions[:, :2] + lesions[:, 2:]) / 2
        half = np.median(lesions[:, 2:] - lesions[:, :2], axis=0) / 2
        axes = np.linspace(centres.min(axis=0), centres.max(axis=0), _BOX_GRID)
        middle = np.stack(np.meshgrid(*axes.T), axis=-1).reshape(-1, 2)
        by_side = [np.hstack([middle - half * side, middle + half * side]) for side in _SIDES]
        self._candidates = np.vstack(by_side)  # (C, 4)
        self._iou = np.vstack([box_iou(boxes[:, None], lesions) for boxes in by_side])  # (C, L)
        self._finds = (self._iou >= _FINDS).astype(np.float32)  # whose sums are exact

    def learn(self, weights: npt.NDArray[np.generic]) -> list[Places]:
        """Return the best positions for each row of patient weights, shape ``(R, P)``.

        A lesion counts as often as its patient. At least one lesion of each row has a weight.
        """
        of_rows = np.asarray(weights, dtype=np.float64)
        points = self._best_points(of_rows)
        boxes = self._best_boxes(of_rows[:, self._patient_of_lesion])
        return [Places(*places) for places in zip(points, boxes, strict=True)]

    def _best_points(self, weights: Floats) -> list[Floats]:
        """Return the grid point that lies on a lesion of most images, for each row of weights.

        Of several such points, the one that is nearest to their mean is taken.
        """
        corners = self._corners
        axes = np.linspace(corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0), _GRID + 1)
        first = [np.searchsorted(axes[:, a], corners[:, a]) for a in (0, 1)]
        after = [np.searchsorted(axes[:, a], corners[:, a + 2], side="right") for a in (0, 1)]
        counts = np.zeros((len(weights), (_GRID + 1) ** 2))
        n_images = int(self._images.max()) + 1
        for start in range(0, n_images, _IMAGES_AT_ONCE):
            of_part = (self._images >= start) & (self._images < start + _IMAGES_AT_ONCE)
            size = min(_IMAGES_AT_ONCE, n_images - start)
            on_lesion = np.zeros((size, _GRID + 1, _GRID + 1))  # (images, y, x)
            patients = np.zeros(size, dtype=np.int64)
            for box in np.flatnonzero(of_part).tolist():
                image = self._images[box] - start
                patients[image] = self._patients[box]
                on_lesion[image, first[1][box] : after[1][box], first[0][box] : after[0][box]] = 1
            counts += weights[:, patients] @ on_lesion.reshape(size, -1)
        points = []
        for count in counts.reshape(-1, _GRID + 1, _GRID + 1):
            rows, columns = np.nonzero(count == count.max())
            tied = np.column_stack([axes[columns, 0], axes[rows, 1]])
            nearest = np.square(tied - tied.mean(axis=0)).sum(axis=1).argmin()
            points.append(np.asarray(tied[nearest]))
        return points

    def _best_boxes(self, weights: Floats) -> list[Floats]:
        """Return boxes, each of which finds the most lesions that no box before it found.

        Candidates have their centres on a grid, and the median sides of the lesions times a factor.
        Of equally good ones, the one with the highest mean IoU is taken. `weights` are those of the
        lesions, shape ``(R, L)``.
        """
        left = weights.astype(np.float32)
        chosen: list[list[int]] = [[] for _ in weights]
        for rank in range(_MOST):
            found = left @ self._finds.T  # (R, C)
            most = found.max(axis=1)
            for row in np.flatnonzero(left.any(axis=1) & ((most > 0) | (rank == 0))).tolist():
                tied = np.flatnonzero(found[row] == most[row])
                best = int(tied[(self._iou[tied] @ left[row]).argmax()])
                chosen[row].append(best)
                left[row] *= 1 - self._finds[best]
        return [self._candidates[of_row] for of_row in chosen]
