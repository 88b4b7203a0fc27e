"""Image-blind baseline of a system: its boxes and image scores at constant positions.

Lungs are at the same position in nearly every image, so a point and boxes that never depend on the
image find many lesions. A localisation figure says something only beside that of such positions.
They are learned on the boxes of validation and training images, never on test boxes. The point is
learned again on resamples of their patients: learned once, a point that is only somewhat worse than
the best one would make a system of constant places "localise" on many test images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.base.boxes import EDGES, box_iou
from cxr_compare.data_prep.base.errors import counted
from cxr_compare.evaluation.boxes.pointing import in_boxes
from cxr_compare.evaluation.notes import Note
from cxr_compare.evaluation.statistics.arrays import Flags, Floats, Integers
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.statistics.clustered_variance import effective_patients
from cxr_compare.evaluation.truth import Truth

IMAGE_BLIND_PAGE = "docs/metrics.md#image-blind-baseline"
ENOUGH_BOXES = 100
"""Number of boxes that positions must be learned from, so that a claim may rest on them."""
ENOUGH_PATIENTS = 20
"""Effective number of patients with these boxes from which a claim may rest on the positions."""
_GRID = 100
"""Number of steps across the image in which the constant point is searched."""
_LIKELY = 0.5
"""Share of the images of the best point that others lie on which resamples may choose, too."""
_STREAM = 2
"""Random stream of the patients who teach the point, independent of those of others."""
_BOX_GRID = 25
"""Number of centres of constant boxes that are tried across the image, and down the image."""
_SIDES = (0.75, 1.0, 1.25, 1.5)
"""Sides of constant boxes that are tried, in median sides of the lesions."""
_FINDS = 0.3
"""IoU from which a constant box finds a lesion: above the 0.2 of FROC, as new lesions vary."""
_MOST_LESIONS = 1000
"""Number of lesions that the search for boxes takes at most, evenly from all."""
_ROUNDING = 1e-9
"""Difference below which two sums of IoU, or two relative distances, are taken as equal."""


def image_blind_name(system: str) -> str:
    """Return the name of the image-blind baseline of a system in all tables."""
    return f"image-blind with {system}'s scores"


@dataclass(frozen=True)
class Places:
    """Constant points and boxes, as shares of the image's size, or in px where one is unknown.

    Attributes:
        candidates: Points among which the best one is chosen, ``(G, 2)``.
        found: Number of images of each of Q patients on whose lesions each candidate lies,
            ``(Q, G)``.
        boxes: Constant boxes, the best first, ``(K, 4)``.
        sizes: Width and height of every image; 1 if positions are in px.
        n_boxes: Number of boxes that taught the positions.
        effective_patients: Effective number of patients of the images that have these boxes.
    """

    candidates: Floats
    found: npt.NDArray[np.float32]
    boxes: Floats
    sizes: pd.DataFrame
    n_boxes: int
    effective_patients: float

    @property
    def no_claim(self) -> str:
        """Reason why no claim may rest on differences from the baseline; empty if one may."""
        lacking = []
        if self.n_boxes < ENOUGH_BOXES:
            lacking.append(f"fewer than {ENOUGH_BOXES} boxes")
        if self.effective_patients < ENOUGH_PATIENTS:
            lacking.append(f"boxes of fewer than {ENOUGH_PATIENTS} patients (effective number)")
        if not lacking:
            return ""
        return f"the image-blind baseline was learned from {' and '.join(lacking)}"

    @cached_property
    def best(self) -> int:
        """Candidate that is the constant point."""
        return int(self._best(np.ones((1, len(self.found))))[0])

    def best_again(self, n_replicates: int, seed: int) -> Floats:
        """Return the best candidate, and that of each resample of the patients, ``(1 + R,)``."""
        chunks = Resamples(len(self.found), n_replicates, seed, _STREAM).chunks()
        return np.concatenate([[float(self.best)], *map(self._best, chunks)])

    def _best(self, weights: npt.NDArray[Any]) -> Integers:
        """Return the candidate on lesions of most images under weightings of the patients.

        Of several such candidates, the one that is nearest to their mean is taken.
        """
        chosen = []
        for count in weights.astype(np.float32) @ self.found:
            tied = np.flatnonzero(count == count.max())
            points = self.candidates[tied]
            distance = np.square(points - points.mean(axis=0)).sum(axis=1)
            nearest = distance <= distance.min() + _ROUNDING * distance.max()
            chosen.append(tied[nearest.argmax()])
        return np.array(chosen)

    def lesions_at(self, test: Truth) -> Callable[[int], Flags]:
        """Return the function from a candidate to the test images on whose lesion it lies.

        A resample may choose any of many candidates, so images are looked up once.
        """
        sizes = self.sizes.reindex(test.ids).to_numpy(np.float64)
        image = test.ids.get_indexer(pd.Index(test.boxes["image_id"]))
        corners = test.boxes[EDGES].to_numpy(np.float64)[image >= 0]
        image = image[image >= 0]
        return lambda candidate: in_boxes(sizes * self.candidates[candidate], image, corners)

    def move(self, boxes: pd.DataFrame) -> pd.DataFrame:
        """Return boxes, of which the k-th most confident of an image is at the k-th position.

        Boxes of equal scores rank in the order of their rows. Those beyond the last position are
        left out.
        """
        ranked = boxes.reset_index(drop=True).sort_values("score", ascending=False, kind="stable")
        position = ranked.groupby("image_id").cumcount().sort_index().to_numpy()
        is_kept = position < len(self.boxes)
        moved = boxes[is_kept].reset_index(drop=True)
        sizes = self.sizes.reindex(moved["image_id"]).to_numpy(np.float64)
        moved[EDGES] = np.tile(sizes, 2) * self.boxes[position[is_kept]]
        return moved

    def note(self) -> Note:
        """Return of what the baseline was learned, for readers."""
        in_px = ", in px as sizes of images are unknown" if (self.sizes == 1).all(axis=None) else ""
        patients = math.floor(10 * self.effective_patients) / 10  # 19.96 is fewer than 20
        n_patients = len(self.found)
        text = (
            f"Image-blind baseline: constant positions{in_px}, learned on {self.n_boxes:,} boxes "
            f"of {counted(n_patients, 'patient')}"
        )
        if patients < n_patients:
            text += f" (effective sample size: {patients:,.1f} patients with one image each)"
        text += "."
        if self.no_claim:
            text += f" Nothing is claimed about differences from it: {self.no_claim}."
        return Note(text, page=IMAGE_BLIND_PAGE)


def learn_places(truth: Truth) -> Places | None:
    """Learn the constant positions from the boxes of validation and training images; None without.

    Examples:
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
    images, names = pd.factorize(boxes["image_id"])
    owners = truth.images["patient_id"].reindex(names).to_numpy(dtype=str)
    patients = np.unique(owners, return_inverse=True)[1]
    return Places(
        *_points_on_lesions(corners, images, patients),
        _best_boxes(corners),
        sizes,
        len(boxes),
        effective_patients(np.bincount(patients)),
    )


def _points_on_lesions(
    corners: Floats, images: Integers, patients: Integers
) -> tuple[Floats, npt.NDArray[np.float32]]:
    """Return likely points of a grid, and on lesions of how many images of a patient they lie.

    `images` has the image of each box, and `patients` the patient of each image. Likely are points
    on lesions of at least half as many images as the best one.
    """
    axes = np.linspace(corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0), _GRID + 1)
    first = [np.searchsorted(axes[:, axis], corners[:, axis]) for axis in (0, 1)]
    after = [np.searchsorted(axes[:, axis], corners[:, axis + 2], side="right") for axis in (0, 1)]
    n_hit = np.zeros((patients.max() + 1, _GRID + 1, _GRID + 1), dtype=np.uint16)  # (Q, y, x)
    boxes_of = np.split(np.argsort(images, kind="stable"), np.cumsum(np.bincount(images))[:-1])
    for boxes, patient in zip(boxes_of, patients.tolist(), strict=True):
        on_lesion = np.zeros(n_hit.shape[1:], dtype=bool)
        for box in boxes.tolist():
            on_lesion[first[1][box] : after[1][box], first[0][box] : after[0][box]] = True
        n_hit[patient] += on_lesion
    count = n_hit.sum(axis=0)
    down, across = np.nonzero(count >= _LIKELY * count.max())
    points = np.column_stack([axes[across, 0], axes[down, 1]])
    return points, n_hit[:, down, across].astype(np.float32)


def _best_boxes(corners: Floats) -> Floats:
    """Return boxes, each of which finds the most lesions that no box before it found.

    Candidates have their centres on a grid, and the median sides of the lesions times a factor. Of
    equally good ones, the one with the highest mean IoU is taken. The search ends when no candidate
    finds a further lesion.
    """
    lesions = corners[:: math.ceil(len(corners) / _MOST_LESIONS)]
    centres = (lesions[:, :2] + lesions[:, 2:]) / 2
    half = np.median(lesions[:, 2:] - lesions[:, :2], axis=0) / 2
    axes = np.linspace(centres.min(axis=0), centres.max(axis=0), _BOX_GRID)
    middle = np.stack(np.meshgrid(*axes.T), axis=-1).reshape(-1, 2)
    candidates = np.vstack([np.hstack([middle - half * s, middle + half * s]) for s in _SIDES])
    iou = box_iou(candidates[:, None], lesions)  # (candidates, lesions)
    finds = iou >= _FINDS
    is_left = np.ones(len(lesions))
    chosen: list[int] = []
    while is_left.any():
        n_found = finds @ is_left
        if not n_found.any() and chosen:
            break
        tied = np.flatnonzero(n_found == n_found.max())
        overlap = iou[tied] @ is_left
        chosen.append(int(tied[(overlap >= overlap.max() - _ROUNDING).argmax()]))
        is_left = is_left * ~finds[chosen[-1]]
    return candidates[chosen]
