"""Guard against misread boxes: would far more of them match a true box if read in another way?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.base.box_check import FORMS, corners_of, values_of
from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.evaluation.boxes.average_precision import WeightedAveragePrecision
from cxr_compare.evaluation.boxes.matching import match_pairs, pair_boxes
from cxr_compare.evaluation.notes import Note
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.truth import Truth

_ENOUGH = 0.5
"""AP50 from which nothing is tried, IoU of a match, and share of boxes that a reading must keep."""
_RISE = 0.1
"""Least rise of the AP50; more for few true boxes."""
_BETTER = 0.02
_FEWEST = 5
"""True boxes that must match by the other reading alone."""


def doubt(boxes: pd.DataFrame, truth: Truth, name: str) -> list[Note]:
    """Return a caution if far more boxes match a true box by another reading; at most one."""
    if not len(boxes) or not len(truth.boxes):
        return []
    now = _ap50(boxes, truth)
    if now >= _ENOUGH:
        return []
    best, said = now + max(_RISE, 1 / np.sqrt(len(truth.boxes))), ""
    found = _found(boxes, truth)
    for reading, corners in _readings(boxes, truth):
        usable: npt.NDArray[np.bool_] = np.all(corners[:, :2] < corners[:, 2:], axis=1)
        if usable.mean() < _ENOUGH:
            continue
        other = boxes.assign(**dict(zip(EDGES, corners.T, strict=True))).loc[usable]
        if (_found(other, truth) & ~found).sum() < _FEWEST:
            continue
        value = _ap50(other, truth)
        if value > best + _BETTER or (not said and value >= best):
            best, said = value, reading
    if not said:
        return []
    text = (
        f"Read {said}, the AP50 of {name} would be {best:.2f} (now {now:.2f}); if that is meant, "
        "say so."
    )
    return [Note(text, "other_reading")]


def _readings(boxes: pd.DataFrame, truth: Truth) -> Iterator[tuple[str, Floats]]:
    """Yield other readings of the boxes, in words, with the corners xyxy in px that they give."""
    corners = boxes[EDGES].to_numpy(np.float64)
    sizes = truth.sizes.reindex(boxes["image_id"]).to_numpy()
    unknown = np.full((len(boxes), 2), np.nan)
    yield "with y before x (box_order=yxyx)", corners[:, [1, 0, 3, 2]]
    for read in FORMS:
        for written in FORMS:
            if read != written:
                other = corners_of(values_of(corners, read), written, "px", unknown)
                yield f"as {written}, not as {read} (box_form={written})", other
    if not np.isnan(sizes).any():
        thousandths = corners * np.tile(sizes, 2) / 1000
        yield "as coordinates from 0 to 1000 (box_unit=thousandth)", thousandths
        turned = corners[:, [1, 0, 3, 2]] * np.tile(sizes, 2) / 1000
        yield "with y before x from 0 to 1000", turned
        mirrored = corners.copy()
        mirrored[:, [0, 2]] = sizes[:, :1] - corners[:, [2, 0]]
        yield "mirrored left to right", mirrored
    reach = [np.quantile(each[["x2", "y2"]].max(axis=1), 0.9) for each in (truth.boxes, boxes)]
    if min(reach) > 0 and abs(np.log(reach[0] / reach[1])) > np.log(1.05):
        factor = float(f"{reach[0] / reach[1]:.2g}")
        yield f"in px of a resized image (multiply by {factor:g})", corners * factor


def _ap50(boxes: pd.DataFrame, truth: Truth) -> float:
    matches = match_pairs(pair_boxes(boxes, truth.boxes, truth.ids), [_ENOUGH])
    together = np.zeros(len(truth.ids), np.int64)
    precision = WeightedAveragePrecision(matches, together, 1)
    return float(precision(np.ones((1, 1), np.int64))[0, 0])


def _found(boxes: pd.DataFrame, truth: Truth) -> npt.NDArray[np.bool_]:
    """Return True for the true boxes that overlap enough with any box."""
    pairs = pair_boxes(boxes, truth.boxes, truth.ids)
    found = np.zeros(len(pairs.truth.image), dtype=bool)
    found[pairs.true[pairs.iou >= _ENOUGH]] = True
    return found
