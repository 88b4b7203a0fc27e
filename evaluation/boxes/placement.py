"""Position of predicted boxes against true ones, and matches if they are read in another way.

The most confident boxes of an image, as many as it has true ones, are set against these. A right
detector shows by its nearest pairs how far it is off. Boxes that were misread as a whole are not
near at all: each single pair then states a way from all predicted to all true boxes, x and y apart,
and the way that most boxes agree on is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy  # its parts load when they are first used

from cxr_compare.data_prep.base.box_check import FORMS, corners_of, numbers_in_form
from cxr_compare.data_prep.base.boxes import box_iou
from cxr_compare.evaluation.boxes.average_precision import WeightedAveragePrecision
from cxr_compare.evaluation.boxes.matching import BoxPairs, match_pairs
from cxr_compare.evaluation.statistics.arrays import Floats, Integers

_MATCH = 0.5
"""IoU of a match, and share of the boxes that another reading must keep."""
_LEVEL = 0.0025
"""Chance that the interval of one of the four medians leaves out the true one."""
_FEWEST = 5
"""True boxes on which a fit rests at least, and that must match by another reading alone."""
_RISE = 0.1
"""Least rise of the AP50 by another reading; more for few true boxes."""
_COST = 0.02
"""Part of this rise that each fitted number takes away: one may fit better by chance."""
_SAME = 0.8
"""Median IoU of boxes by both readings from which these do not differ."""
_MOST_WAYS = 200
"""Pairs of which each states a way."""
NEAR = 0.3
"""IoU from which a box lies on a lesion, and a pair agrees with a way enough to improve it."""


_SMALL = 0.02
"""Share of the image, or of a factor, that counts as none in a way."""


class Reading(NamedTuple):
    """Another way to read boxes.

    Attributes:
        name: What is done: ``order``, ``form``, ``mirrored``, ``moved``, ``scaled``, ``copy`` or
            ``padded``.
        corners: Corners xyxy in px of all boxes by it, shape ``(N, 4)``.
        n_fitted: Number of numbers that were fitted to the true boxes.
        now, after: AP50 of the boxes as they are, and by this reading.
        details: Names of the forms read and written; or start and step of x, and those of y, in
            the predicted numbers: where a true 0 lies, and how many they are for a true 1.
    """

    name: str
    corners: Floats
    details: tuple[str, ...] | Floats = ()
    n_fitted: int = 0
    now: float = 0.0
    after: float = 0.0


class Placement(NamedTuple):
    """Median offsets of the centres and ratios of the sides, predicted against true boxes.

    Attributes:
        values: Offsets in x and y, and ratios of widths and heights, ``(4,)``; offsets in shares
            of the image's sides, or in px where sizes are unknown.
        shown: True for those whose interval leaves out 0, or 1.
        n_pairs: Number of pairs.
        iou: Median IoU of the pairs.
    """

    values: Floats
    shown: npt.NDArray[np.bool_]
    n_pairs: int
    iou: float


class Boxes:
    """Predicted and true boxes of the same images, the most confident ones of each image paired.

    Attributes:
        pairs: All pairs of a predicted and a true box of an image.
        sizes: Width and height in px of each image, ``(images, 2)``; NaN if unknown.
        near: Nearest pairs, as positions in `pairs`.
    """

    def __init__(
        self, pairs: BoxPairs, sizes: pd.DataFrame, patients: Integers, *, ranks: bool = True
    ) -> None:
        self.pairs, self._patients = pairs, patients
        self.is_sized = not sizes.isna().any(axis=None)
        self.sizes = sizes.to_numpy(np.float64)
        image = pairs.boxes.image[pairs.box]
        # Further boxes of an image are guesses, some of which lie near a lesion by chance.
        is_confident = pairs.boxes.rank[pairs.box] < pairs.truth.per_image[image]
        self._kept = np.flatnonzero(is_confident | (not ranks))
        self._image = image[self._kept]
        self._true = pairs.truth.corners[pairs.true[self._kept]]
        self.near = self._kept[self._nearest()]

    @property
    def is_one_size(self) -> bool:
        """True if all images are known to have the same size."""
        return self.is_sized and bool((self.sizes == self.sizes[:1]).all())

    def _nearest(self) -> npt.NDArray[np.bool_]:
        """Return True for pairs of which each box is the nearest to the other, by their centres."""
        predicted = self.pairs.boxes.corners[self.pairs.box[self._kept]]
        distance = np.hypot(*(_centres(predicted) - _centres(self._true)).T)
        nearest = np.ones(len(distance), dtype=bool)
        # Each the nearest to the other: else a missed lesion would be paired with the box of
        # another.
        for owner in (self.pairs.box[self._kept], self.pairs.true[self._kept]):
            least = np.full(owner.max(initial=-1) + 1, np.inf)
            np.minimum.at(least, owner, distance)
            nearest &= distance == least[owner]
        return nearest

    def near_centres(self) -> tuple[Floats, Floats]:
        """Return the true and the predicted centres of the nearest pairs, as `Placement` does."""
        unit = self._unit(self.pairs.boxes.image[self.pairs.box[self.near]])
        true = self.pairs.truth.corners[self.pairs.true[self.near]]
        predicted = self.pairs.boxes.corners[self.pairs.box[self.near]]
        return _centres(true) / unit, _centres(predicted) / unit

    def _unit(self, image: Integers) -> Floats:
        return self.sizes[image] if self.is_sized else np.ones((len(image), 2))

    def placement(self) -> Placement | None:
        """Return where the nearest pairs show the boxes to be; None for too few patients.

        A patient counts once, with the median of its pairs.
        """
        if not len(self.near):
            return None
        true, predicted = self.near_centres()
        sides = [
            _sides(corners)
            for corners in (
                self.pairs.boxes.corners[self.pairs.box[self.near]],
                self.pairs.truth.corners[self.pairs.true[self.near]],
            )
        ]
        values = np.hstack([predicted - true, sides[0] / sides[1]])
        owners = self._patients[self.pairs.boxes.image[self.pairs.box[self.near]]]
        # A patient once: boxes on several images of one may be misplaced alike.
        ordered = np.sort(pd.DataFrame(values).groupby(owners).median().to_numpy(), axis=0)
        n = len(ordered)
        # The ends are order statistics, so that the interval of a median supposes no law of
        # offsets.
        chances = scipy.special.bdtr(np.arange(n + 1), n, 0.5)  # of at most 0, 1, ... heads
        first = int(np.searchsorted(chances, _LEVEL / 2)) - 1
        if first < 0:
            return None
        low, high = ordered[first], ordered[-1 - first]
        none = np.array([0.0, 0.0, 1.0, 1.0])
        is_shown = (none < low) | (none > high)
        iou = float(np.median(self.pairs.iou[self.near]))
        return Placement(np.median(ordered, axis=0), is_shown, len(self.near), iou)

    def better_reading(self, placement: Placement | None) -> Reading | None:
        """Return the reading by which far more boxes match a true one; None without such a one."""
        if not len(self._kept):
            return None
        corners = self.pairs.boxes.corners
        confident = np.unique(self.pairs.box[self._kept])
        # The AP50 of few lesions rises by chance, and by each number that is fitted.
        ap50_now, lesions_found = self._ap50(corners), self._found(corners)
        highest = ap50_now + max(_RISE, 1 / np.sqrt(max(1, len(self.pairs.truth.image))))
        best = None
        for reading in self._readings(placement):
            is_usable = (reading.corners[:, :2] < reading.corners[:, 2:]).all(axis=1)
            is_same = np.median(_iou(reading.corners[confident], corners[confident])) > _SAME
            if is_usable.mean() < _MATCH or is_same:
                continue
            # The right reading finds far more lesions than it loses; by chance, it finds others
            # instead.
            other = self._found(reading.corners)
            if (other & ~lesions_found).sum() < (lesions_found & ~other).sum() + _FEWEST:
                continue
            ap50_after = self._ap50(reading.corners)
            if ap50_after - _COST * reading.n_fitted >= highest:
                highest = ap50_after - _COST * reading.n_fitted
                best = reading._replace(now=ap50_now, after=ap50_after)
        return best

    def _readings(self, placement: Placement | None) -> Iterator[Reading]:
        """Yield other readings, those that explain most with the fewest numbers first."""
        corners = self.pairs.boxes.corners
        turned = corners[:, [1, 0, 3, 2]]
        unit = self._unit(self.pairs.boxes.image)
        yield Reading("order", turned)
        unknown = np.full((len(corners), 2), np.nan)
        for form_read in FORMS:
            for written in FORMS:
                if form_read != written:
                    other = corners_of(numbers_in_form(corners, form_read), written, "px", unknown)
                    yield Reading("form", other, (form_read, written))
        if self.is_sized:
            mirrored = corners.copy()
            mirrored[:, [0, 2]] = unit[:, :1] - corners[:, [2, 0]]
            yield Reading("mirrored", mirrored)
        if placement is not None and placement.shown.any():
            values = np.where(placement.shown, placement.values, [0, 0, 1, 1])
            centres = _centres(corners) - values[:2] * unit
            halves = _sides(corners) / values[2:] / 2
            moved = np.hstack([centres - halves, centres + halves])
            yield Reading("moved", moved, n_fitted=int(placement.shown.sum()))
        zero, one = np.zeros_like(self.sizes), np.ones_like(self.sizes)
        spaces = {"scaled": (zero, one)}
        if self.is_sized and not self.is_one_size:
            spaces["copy"] = (zero, self.sizes)
            longer = self.sizes.max(axis=1, keepdims=True)
            spaces["padded"] = ((self.sizes - longer) / 2, np.hstack([longer, longer]))
        for order, numbers in (("", corners), (" order", turned)):
            for name, (origin, scale) in spaces.items():
                way = self._agreed_way(numbers, origin[self._image], scale[self._image])
                if way is None:
                    continue
                image = self.pairs.boxes.image
                shares = (numbers - np.tile(way[0], 2)) / np.tile(way[1], 2)
                back = shares * np.tile(scale[image], 2) + np.tile(origin[image], 2)
                n_fitted = int((way[0] != 0).sum() + (way[1] != 1).sum())
                yield Reading(name + order, back, way, n_fitted)

    def _agreed_way(self, corners: Floats, origin: Floats, unit: Floats) -> Floats | None:
        """Return start and step of x and y, ``(2, 2)``, on which most pairs agree; None for few.

        A predicted number is start + step * (true number - `origin`) / `unit`.
        """
        numbers = corners[self.pairs.box[self._kept]]
        true = (self._true - np.tile(origin, 2)) / np.tile(unit, 2)
        order = np.argsort(-self.pairs.boxes.score[self.pairs.box[self._kept]], kind="stable")
        best, way = _FEWEST - 1, None
        # Each pair votes by itself: a box and a lesion that it does not mean would bend a line
        # through all.
        for pair in order[:_MOST_WAYS]:
            step = _sides(numbers[pair : pair + 1])[0] / _sides(true[pair : pair + 1])[0]
            stated = np.stack([numbers[pair, :2] - step * true[pair, :2], step])
            agree = int((_iou_by(stated, numbers, true) >= _MATCH).sum())
            if (step > 0).all() and agree > best:
                best, way = agree, stated
        if way is None:
            return None
        # One pair has the error of one box; the line through all that agree has hardly any.
        for _ in range(3):
            agrees = _iou_by(way, numbers, true) >= NEAR
            edges = [
                (true[agrees][:, axis::2].ravel(), numbers[agrees][:, axis::2].ravel())
                for axis in (0, 1)
            ]
            if any(len(x) < 2 * _FEWEST or np.ptp(x) == 0 for x, _ in edges):
                break
            way = np.array([np.polyfit(x, y, 1)[::-1] for x, y in edges]).T
            if not (way[1] > 0).all():
                return None
        return _plain(way, numbers, true)

    def _found(self, corners: Floats) -> npt.NDArray[np.bool_]:
        """Return True for the true boxes that a confident box overlaps enough, ``(T,)``."""
        is_found = np.zeros(len(self.pairs.truth.image), dtype=bool)
        iou = _iou(corners[self.pairs.box[self._kept]], self._true)
        is_found[self.pairs.true[self._kept[iou >= _MATCH]]] = True
        return is_found

    def _ap50(self, corners: Floats) -> float:
        pairs, boxes = self.pairs, replace(self.pairs.boxes, corners=corners)
        iou = _iou(corners[pairs.box], pairs.truth.corners[pairs.true])
        matches = match_pairs(replace(pairs, boxes=boxes, iou=iou), [_MATCH])
        together = np.zeros(len(pairs.truth.per_image), np.int64)
        precision = WeightedAveragePrecision(matches, together, 1)
        return float(precision(np.ones((1, 1), np.int64))[0, 0])


def _plain(way: Floats, numbers: Floats, true: Floats) -> Floats:
    """Return a way without a start, or without a step, where it hardly has one."""
    # Nearly no start, or a factor of nearly 1, is an error of the fit, and nothing that was done.
    agrees = _iou_by(way, numbers, true) >= NEAR
    for axis in (0, 1):
        x, y = true[agrees][:, axis::2].ravel(), numbers[agrees][:, axis::2].ravel()
        if abs(way[0, axis]) < _SMALL * way[1, axis] * np.max(x):
            way[:, axis] = 0, (x @ y) / (x @ x)
        elif abs(way[1, axis] - 1) < _SMALL:
            way[:, axis] = np.median(y - x), 1
    return way


def _centres(corners: Floats) -> Floats:
    return (corners[:, :2] + corners[:, 2:]) / 2


def _sides(corners: Floats) -> Floats:
    return corners[:, 2:] - corners[:, :2]


def _iou(boxes: Floats, true: Floats) -> Floats:
    """Return the IoU of each two boxes; 0 for a box without a size."""
    is_usable = np.all(boxes[:, :2] < boxes[:, 2:], axis=1, keepdims=True)
    iou: Floats = box_iou(np.where(is_usable, boxes, true), true)
    return iou * is_usable[:, 0]


def _iou_by(way: Floats, numbers: Floats, true: Floats) -> Floats:
    """Return the IoU of true boxes and of those that were written in a way of `_agreed_way`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return _iou((numbers - np.tile(way[0], 2)) / np.tile(way[1], 2), true)
