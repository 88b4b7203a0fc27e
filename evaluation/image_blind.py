"""Image-blind baseline of a system: constant positions with the system's own image scores.

Lungs are at the same position in nearly every image, so a point and boxes that never depend on the
image find many lesions. A localisation figure says something only beside that of such positions.
They are learned once, on the boxes of validation and training images, never on test boxes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.boxes import EDGES, box_iou
from cxr_compare.evaluation.boxes.matching import BoxPairs
from cxr_compare.evaluation.notes import Note
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.truth import Truth

ENOUGH_BOXES = 100
"""Number of boxes below which nothing is claimed: 25 for each of four constant boxes."""
FEW_BOXES = f"the image-blind baseline was learned from fewer than {ENOUGH_BOXES} boxes"
"""Reason why no claim rests on the difference from a baseline."""
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


@dataclass(frozen=True)
class Places:
    """Constant point ``(2,)`` and boxes ``(K, 4)``, the best first, as shares of the image's size.

    They are in px where the size of an image is unknown. `sizes` has width and height of every
    image, 1 in that case; `n_boxes` is the number of boxes that taught them.
    """

    point: Floats
    boxes: Floats
    sizes: pd.DataFrame
    n_boxes: int

    @property
    def no_claim(self) -> str:
        """Reason why no claim may rest on differences from the baseline; empty if one may."""
        return FEW_BOXES if self.n_boxes < ENOUGH_BOXES else ""

    def output(self, scores: pd.Series, most: int) -> Output:
        """Return the output of the best `most` constant boxes with the scores of a system."""
        sizes = self.sizes.reindex(scores.index).to_numpy(np.float64)
        boxes = self.boxes[:most]
        corners = (np.tile(sizes, 2)[:, None, :] * boxes).reshape(-1, 4)
        table = pd.DataFrame(corners, columns=EDGES)
        table.insert(0, "image_id", np.repeat(scores.index.to_numpy(), len(boxes)))
        table["score"] = np.repeat(scores.to_numpy(np.float64), len(boxes))
        points = pd.DataFrame(sizes * self.point, scores.index, ["point_x", "point_y"])
        return Output(scores, table, fixed_points=points)

    def note(self) -> Note:
        """Return what the baseline is, for readers."""
        x, y = self.point
        point = f"at {x:.2f} of the width and {y:.2f} of the height"
        if bool((self.sizes == 1).all(axis=None)):
            point = f"x {x:.0f}, y {y:.0f} px: the sizes of images are unknown"
        text = (
            f"Image-blind baseline of each system: the best constant point ({point}) and the best "
            "constant boxes (as many an image as the system gives, at most four) with its own "
            f"image scores, learned on {self.n_boxes:,} boxes of validation and training images. "
            "A localisation figure says something only beside it."
        )
        if self.no_claim:
            text += f" Nothing is claimed about differences from it: {self.no_claim}."
        return Note(text)


def boxes_given(pairs: BoxPairs | None) -> int:
    """Return the mean number of boxes of a system on an image, rounded, at least one."""
    if pairs is None or not len(pairs.truth.per_image):
        return 1
    return max(1, round(len(pairs.boxes.image) / len(pairs.truth.per_image)))


def learn_places(truth: Truth) -> Places | None:
    """Learn the constant positions from the boxes of validation and training images; None without.

    Example:
        >>> images = pd.DataFrame({"label": 1.0, "patient_id": "p", "role": "val", "width": 100,
        ...     "height": 100}, index=["a"])
        >>> boxes = pd.DataFrame({"image_id": ["a"], "x1": 20.0, "y1": 40.0, "x2": 40.0,
        ...     "y2": 60.0})
        >>> learn_places(Truth(images, boxes)).boxes.round(6).tolist()
        [[0.2, 0.4, 0.4, 0.6]]
    """
    roles = truth.images["role"].reindex(truth.boxes["image_id"]).to_numpy()
    boxes = truth.boxes[np.isin(roles, ("val", "train"))]
    if boxes.empty:
        return None
    sizes = truth.sizes.copy()
    if sizes.isna().any(axis=None):
        sizes[:] = 1.0
    of_boxes = sizes.reindex(boxes["image_id"]).to_numpy()
    corners = boxes[EDGES].to_numpy(np.float64) / np.tile(of_boxes, 2)
    images = pd.factorize(boxes["image_id"])[0]
    return Places(_best_point(corners, images), _best_boxes(corners), sizes, len(boxes))


def _best_point(corners: Floats, images: Integers) -> Floats:
    """Return the grid point that lies on a lesion of most images.

    Of several such points, the one that is nearest to their mean is taken.
    """
    axes = np.linspace(corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0), _GRID + 1)
    first = [np.searchsorted(axes[:, axis], corners[:, axis]) for axis in (0, 1)]
    after = [np.searchsorted(axes[:, axis], corners[:, axis + 2], side="right") for axis in (0, 1)]
    count = np.zeros((_GRID + 1, _GRID + 1), dtype=np.int64)  # (y, x)
    for rows in np.split(np.argsort(images, kind="stable"), np.cumsum(np.bincount(images))[:-1]):
        on_lesion = np.zeros_like(count)
        for box in rows.tolist():
            on_lesion[first[1][box] : after[1][box], first[0][box] : after[0][box]] = 1
        count += on_lesion
    down, across = np.nonzero(count == count.max())
    tied = np.column_stack([axes[across, 0], axes[down, 1]])
    return np.asarray(tied[np.square(tied - tied.mean(axis=0)).sum(axis=1).argmin()])


def _best_boxes(corners: Floats) -> Floats:
    """Return boxes, each of which finds the most lesions that no box before it found.

    Candidates have their centres on a grid, and the median sides of the lesions times a factor. Of
    equally good ones, the one with the highest mean IoU is taken.
    """
    lesions = corners[:: math.ceil(len(corners) / _MOST_LESIONS)]
    centres = (lesions[:, :2] + lesions[:, 2:]) / 2
    half = np.median(lesions[:, 2:] - lesions[:, :2], axis=0) / 2
    axes = np.linspace(centres.min(axis=0), centres.max(axis=0), _BOX_GRID)
    middle = np.stack(np.meshgrid(*axes.T), axis=-1).reshape(-1, 2)
    candidates = np.vstack([np.hstack([middle - half * s, middle + half * s]) for s in _SIDES])
    iou = box_iou(candidates[:, None], lesions)  # (candidates, lesions)
    finds = iou >= _FINDS
    left = np.ones(len(lesions))
    chosen: list[int] = []
    while len(chosen) < _MOST and left.any():
        found = finds @ left
        if not found.any() and chosen:
            break
        tied = np.flatnonzero(found == found.max())
        chosen.append(int(tied[(iou[tied] @ left).argmax()]))
        left = left * ~finds[chosen[-1]]
    return candidates[chosen]
