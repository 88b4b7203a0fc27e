"""Predicted boxes that match the true ones far better if they are read in another way.

The most confident boxes of an image, as many as it has true ones, are set against these. Boxes that
were misread as a whole are not near at all: each single pair states a way from all true to all
predicted boxes, x and y apart, and the way that most boxes agree on is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.box_check import FORMS, corners_of, numbers_in_form
from cxr_compare.data_prep.base.boxes import box_iou
from cxr_compare.evaluation.boxes.average_precision import WeightedAveragePrecision
from cxr_compare.evaluation.boxes.matching import BoxPairs, match_pairs
from cxr_compare.evaluation.statistics.arrays import Flags, Floats, Integers, undefined_is_nan

_MATCH = 0.5
"""IoU of a match, and share of the boxes that another reading must keep."""
_FEWEST = 5
"""True boxes on which a fit rests at least, and that must match by another reading alone."""
_RISE = 0.1
"""Least rise of the AP50, or F1, by another reading; more for few true boxes."""
_COST = 0.02
"""Part of this rise that each fitted number takes away: one may fit better by chance."""
_SAME = 0.8
"""Median IoU of boxes by both readings from which these do not differ."""
_MOST_WAYS = 200
"""Pairs of which each states a way."""
_NEAR = 0.3
"""IoU from which a pair agrees with a way enough to improve it."""
_SMALL = 0.02
"""Share of the image, or of a factor, that counts as none in a way."""


class Reading(NamedTuple):
    """Another way to read boxes.

    Attributes:
        words: What is done, as the beginning of a sentence.
        corners: Corners xyxy in px of all boxes by it, shape ``(N, 4)``.
        role: Roles of columns that say so, such as ``box_order=yxyx``; empty without one.
        n_fitted: Number of numbers that were fitted to the true boxes, and of further changes.
        now, after: AP50 of the boxes as they are, and by this reading; F1 without scores.
    """

    words: str
    corners: Floats
    role: str = ""
    n_fitted: int = 0
    now: float = 0.0
    after: float = 0.0


def better_reading(
    pairs: BoxPairs, sizes: pd.DataFrame, *, ranks: bool = True, unit: str = "px"
) -> Reading | None:
    """Return the reading by which far more boxes match a true one; None without such a one.

    `sizes` has width and height of each image in px, NaN if unknown; the boxes were written in
    `unit`.
    """
    image = pairs.boxes.image[pairs.box]
    # Further boxes of an image are guesses, some of which lie near a lesion by chance.
    is_confident = pairs.boxes.rank[pairs.box] < pairs.truth.per_image[image]
    kept = np.flatnonzero(is_confident | (not ranks))
    if not len(kept):
        return None
    corners = pairs.boxes.corners
    confident = np.unique(pairs.box[kept])
    # The figure of few lesions rises by chance, and by each number that is fitted.
    now, lesions_found = _figure(pairs, corners, ranks), _found(pairs, kept, corners)
    highest = now + max(_RISE, 1 / np.sqrt(max(1, len(pairs.truth.image))))
    best = None
    for reading in _readings(pairs, kept, sizes.to_numpy(np.float64), unit):
        is_usable = (reading.corners[:, :2] < reading.corners[:, 2:]).all(axis=1)
        is_same = np.median(_iou(reading.corners[confident], corners[confident])) > _SAME
        if is_usable.mean() < _MATCH or is_same:
            continue
        # The right reading finds far more lesions than it loses; by chance, it finds others.
        other = _found(pairs, kept, reading.corners)
        if (other & ~lesions_found).sum() < (lesions_found & ~other).sum() + _FEWEST:
            continue
        after = _figure(pairs, reading.corners, ranks)
        if after - _COST * reading.n_fitted >= highest:
            highest = after - _COST * reading.n_fitted
            best = reading._replace(now=now, after=after)
    return best


def _readings(pairs: BoxPairs, kept: Integers, sizes: Floats, unit: str) -> Iterator[Reading]:
    """Yield other readings, those without a fitted number first."""
    corners = pairs.boxes.corners
    turned = corners[:, [1, 0, 3, 2]]
    sides = np.tile(sizes[pairs.boxes.image], 2)  # (N, 4), px
    in_order, order = "Read with y before x", "box_order=yxyx"
    if unit != "px":  # a share of the height is one of the width
        turned = turned * sides / sides[:, [1, 0, 3, 2]]
    elif np.isfinite(sizes).all():
        words, role = "Read as numbers from 0 to 1000", "box_unit=thousandth"
        yield Reading(words, corners * sides / 1000, role)
        yield Reading(f"{words} with y before x", turned * sides / 1000, f"{role},{order}", 1)
    yield Reading(in_order, turned, order)
    unknown = np.full((len(corners), 2), np.nan)
    for form_read in FORMS:
        for written in FORMS:
            if form_read != written:
                other = corners_of(numbers_in_form(corners, form_read), written, "px", unknown)
                words = f"Read as {written}, not as {form_read}"
                yield Reading(words, other, f"box_form={written}")
    units = [np.ones_like(sizes)]
    if np.isfinite(sizes).all():
        mirrored = corners.copy()
        mirrored[:, [0, 2]] = sizes[pairs.boxes.image, :1] - corners[:, [2, 0]]
        yield Reading("Read mirrored left to right", mirrored)
        units.append(sizes)
    ways = (("Read", corners, ""), (in_order, turned, order))
    for n_changes, (words, numbers, role) in enumerate(ways):
        for scale in units:
            way = _agreed_way(pairs, kept, numbers, scale)
            if way is not None:
                back = (numbers - np.tile(way[0], 2)) / np.tile(way[1], 2)
                back *= np.tile(scale[pairs.boxes.image], 2)
                n_fitted = n_changes + int((way[0] != 0).sum() + (way[1] != 1).sum())
                words_of_way = words + _words_of(way, is_share=scale is sizes)
                yield Reading(words_of_way, back, role, n_fitted)


def _words_of(way: Floats, *, is_share: bool) -> str:
    """Return what is to be done with the numbers that were read."""
    start, step = way
    signs = np.where(start > 0, "minus", "plus")
    moved = zip("xy", signs, start, strict=True)
    parts = [f"{axis} {sign} {abs(by):.0f}" for axis, sign, by in moved if by]
    if is_share:
        size = f" as px of images of {step[0]:.0f} x {step[1]:.0f} px, divided by these sides"
        return size + (f", after {' and '.join(parts)}" if parts else "")
    factors = [f"{axis} times {1 / n:.3g}" for axis, n in zip("xy", step, strict=True) if n != 1]
    resized = ", as px of resized images" if factors else ""
    return f" with {' and '.join([*parts, *factors])}{resized}"


def _agreed_way(pairs: BoxPairs, kept: Integers, corners: Floats, unit: Floats) -> Floats | None:
    """Return start and step of x and y, ``(2, 2)``, on which most pairs agree; None for few.

    A predicted number is start + step * true number / `unit`, which is a number of each image.
    """
    numbers = corners[pairs.box[kept]]
    of_pair = np.tile(unit[pairs.boxes.image[pairs.box[kept]]], 2)
    true = pairs.truth.corners[pairs.true[kept]] / of_pair
    order = np.argsort(-pairs.boxes.score[pairs.box[kept]], kind="stable")
    best, way = _FEWEST - 1, None
    # Each pair votes by itself: a box and a lesion that it does not mean would bend a line through
    # all.
    for pair in order[:_MOST_WAYS]:
        step = (numbers[pair, 2:] - numbers[pair, :2]) / (true[pair, 2:] - true[pair, :2])
        stated = np.stack([numbers[pair, :2] - step * true[pair, :2], step])
        agree = int((_iou_by(stated, numbers, true) >= _MATCH).sum())
        if (step > 0).all() and agree > best:
            best, way = agree, stated
    if way is None:
        return None
    # One pair has the error of one box; the line through all that agree has hardly any.
    for _ in range(3):
        agrees = _iou_by(way, numbers, true) >= _NEAR
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


def _plain(way: Floats, numbers: Floats, true: Floats) -> Floats:
    """Return a way without a start, or without a step, where it hardly has one."""
    # Nearly no start, or a factor of nearly 1, is an error of the fit, and nothing that was done.
    agrees = _iou_by(way, numbers, true) >= _NEAR
    for axis in (0, 1):
        x, y = true[agrees][:, axis::2].ravel(), numbers[agrees][:, axis::2].ravel()
        if abs(way[0, axis]) < _SMALL * way[1, axis] * np.max(x):
            way[:, axis] = 0, (x @ y) / (x @ x)
        elif abs(way[1, axis] - 1) < _SMALL:
            way[:, axis] = np.median(y - x), 1
    return way


def _found(pairs: BoxPairs, kept: Integers, corners: Floats) -> Flags:
    """Return True for the true boxes that a confident box overlaps enough, ``(T,)``."""
    is_found = np.zeros(len(pairs.truth.image), dtype=bool)
    iou = _iou(corners[pairs.box[kept]], pairs.truth.corners[pairs.true[kept]])
    is_found[pairs.true[kept[iou >= _MATCH]]] = True
    return is_found


def _figure(pairs: BoxPairs, corners: Floats, ranks: bool) -> float:
    """Return the AP50 of boxes, or their F1 at the same IoU where they have no scores."""
    boxes = replace(pairs.boxes, corners=corners)
    iou = _iou(corners[pairs.box], pairs.truth.corners[pairs.true])
    matches = match_pairs(replace(pairs, boxes=boxes, iou=iou), [_MATCH])
    if not ranks:
        n_counted = np.count_nonzero(~matches.is_ignored) + len(pairs.truth.image)
        return 2 * np.count_nonzero(matches.hit) / n_counted
    together = np.zeros(len(pairs.truth.per_image), np.int64)
    precision = WeightedAveragePrecision(matches, together, 1)
    return float(precision(np.ones((1, 1), np.int64))[0, 0])


def _iou(boxes: Floats, true: Floats) -> Floats:
    """Return the IoU of each two boxes; 0 for a box without a size."""
    is_usable = np.all(boxes[:, :2] < boxes[:, 2:], axis=1, keepdims=True)
    iou: Floats = box_iou(np.where(is_usable, boxes, true), true)
    return iou * is_usable[:, 0]


def _iou_by(way: Floats, numbers: Floats, true: Floats) -> Floats:
    """Return the IoU of true boxes and of those that were written in a way of `_agreed_way`."""
    with undefined_is_nan():
        return _iou((numbers - np.tile(way[0], 2)) / np.tile(way[1], 2), true)
