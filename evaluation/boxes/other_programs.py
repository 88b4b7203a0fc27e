"""The average precision of the same boxes by the rules of other programs.

Programs differ in how they match boxes, in the area under the curve, and in which boxes and images
count. `protocol_figures` computes the figure of each program, for several lowest scores, of all
images and of those with a lesion.

Source:
    Everingham et al. 2010 and 2015 (Pascal VOC); Lin et al. 2014 (COCO); the source code of
    Ultralytics (pull request 24175 of April 2026 ended the line to recall 1) and of the RSNA
    challenge of 2018.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.evaluation.boxes.matching import (
    IOU_THRESHOLDS,
    BoxMatches,
    best_pairs,
    match_pairs,
    pair_boxes,
)
from cxr_compare.evaluation.statistics.arrays import Floats, Integers

RSNA_IOU = np.nextafter(np.linspace(0.4, 0.75, 8), 1.0)
"""IoU thresholds 0.40, 0.45, ... 0.75, as the next larger floats, since an IoU must exceed them."""
FLOORS = (0.0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.3, 0.5)


class _Protocol(NamedTuple):
    """Rules of a program: area under the curve, matching, corners as pixels, boxes of an image."""

    area: str
    best_only: bool = False
    pixels: bool = False
    most: int | None = None


_PROGRAMS = {
    "COCO (pycocotools, torchmetrics, supervision)": _Protocol("101", most=100),
    "Pascal VOC from 2010": _Protocol("every recall", best_only=True, pixels=True),
    "Pascal VOC 2007": _Protocol("11", best_only=True, pixels=True),
    "Ultralytics from April 2026": _Protocol("trapezoids", best_only=True, most=300),
    "Ultralytics before, YOLOv5": _Protocol("trapezoids to 1", best_only=True, most=300),
    "area under the raw curve": _Protocol("steps"),
}
_IOUS = {"0.5": [0], "0.75": [5], "0.5 to 0.95": list(range(10))}


def protocol_figures(
    boxes: pd.DataFrame, truth: pd.DataFrame, image_ids: Sequence[str] | pd.Index
) -> pd.DataFrame:
    """Compute the average precision of each class by each program's rules, averaged over classes.

    Both tables have ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (original px) and, with several
    classes, ``finding``; that of predicted boxes has ``score``, and a column ``crowd`` of the true
    boxes marks COCO's crowds. The columns are program, iou, floor (lowest score), images and value.
    """
    ids = pd.Index(image_ids)
    boxes = boxes.assign(finding=boxes.get("finding", "lesion"))
    crowd = pd.Series(truth.get("crowd", False), index=truth.index).eq(True)
    truth = truth.assign(finding=truth.get("finding", "lesion"))
    if not boxes["image_id"].isin(ids).any() or not truth.loc[~crowd, "image_id"].isin(ids).any():
        raise InputError("explain: the images evaluated have no predicted, or no true box")
    has_lesion = ids.isin(truth["image_id"])
    chosen = {"all": np.ones(len(ids), bool), "with a lesion": has_lesion}
    rows: list[Any] = []
    for program, protocol in _PROGRAMS.items():
        parts = []
        for finding in sorted(truth["finding"].unique()):
            of_class = truth["finding"] == finding
            parts.append(
                _of_class(
                    protocol,
                    _read(boxes[boxes["finding"] == finding], protocol),
                    _read(truth[of_class], protocol),
                    ids,
                    chosen,
                )
            )
        table = pd.concat(parts).groupby(["iou", "floor", "images"], sort=False)["value"].mean()
        rows += table.reset_index().assign(program=program).to_dict("records")
    rows += _rsna(boxes, truth[~crowd], ids, chosen)
    return pd.DataFrame(rows, columns=["program", "iou", "floor", "images", "value"])


def _read(table: pd.DataFrame, protocol: _Protocol) -> pd.DataFrame:
    if not protocol.pixels:
        return table
    return table.assign(x2=table["x2"] + 1.0, y2=table["y2"] + 1.0)


def _of_class(
    protocol: _Protocol,
    boxes: pd.DataFrame,
    truth: pd.DataFrame,
    ids: pd.Index,
    chosen: dict[str, Any],
) -> pd.DataFrame:
    pairs = pair_boxes(boxes, truth, ids, most=None)
    matches = match_pairs(best_pairs(pairs) if protocol.best_only else pairs)
    falling = np.argsort(-pairs.boxes.score, kind="stable")
    first = pairs.boxes.rank[falling] < (protocol.most or np.inf)
    rows = []
    for images, is_in in chosen.items():
        n_true = int(matches.n_true[is_in].sum())
        for floor in FLOORS:
            counts = first & is_in[matches.image] & (matches.score >= floor)
            areas = []
            for column in range(len(IOU_THRESHOLDS)):
                hit = matches.hit[:, column]
                counted = counts & ~matches.is_ignored[:, column]
                called = np.cumsum(counted)[hit & counted]
                areas.append(_area(protocol.area, called, n_true, int(counted.sum())))
            for name, positions in _IOUS.items():
                value = float(np.mean([areas[at] for at in positions]))
                rows.append({"iou": name, "floor": floor, "images": images, "value": value})
    return pd.DataFrame(rows)


def _best_precision(
    called: Integers, n_true: int, recall: Floats, *, beyond: bool = False
) -> Floats:
    """Find the highest precision at or above each recall level; 0 above the highest recall.

    With `beyond`, only precision at a recall strictly above the level counts.
    """
    true = np.arange(1, len(called) + 1)
    best = np.maximum.accumulate((true / (called + np.spacing(1)))[::-1])[::-1]
    side: Literal["left", "right"] = "right" if beyond else "left"
    return np.append(best, 0)[np.searchsorted(true / n_true, recall, side=side)]


def _area(rule: str, called: Integers, n_true: int, n_boxes: int) -> float:
    """Return the area under the curve; `called` are the ranks, from 1, of the boxes that match."""
    if not n_true:
        return np.nan
    true = np.arange(1, len(called) + 1)
    if rule == "steps":
        return float((true / called).sum() / n_true)
    if rule == "every recall":
        return float(_best_precision(called, n_true, true / n_true).sum() / n_true)
    points = np.linspace(0, 1, 11 if rule == "11" else 101)
    if rule in ("101", "11"):
        return float(_best_precision(called, n_true, points).mean())
    height = _best_precision(called, n_true, points, beyond=True)
    last = len(called) / n_true
    if rule == "trapezoids to 1" and 0 < last < 1:
        beyond = points >= last
        height[beyond] = len(called) / n_boxes * (1 - points[beyond]) / (1 - last)
    return float(np.trapezoid(height, points))


def _rsna(
    boxes: pd.DataFrame, truth: pd.DataFrame, ids: pd.Index, chosen: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return the score of the RSNA challenge 2018 (`metrics.rsna_score`) of all boxes."""
    matches = match_pairs(pair_boxes(boxes, truth, ids, most=None), RSNA_IOU)
    values = {floor: rsna_values(matches, floor) for floor in FLOORS}
    program = {"program": "RSNA 2018 (Kaggle)", "iou": "0.4 to 0.75"}
    rows = []
    for images, is_in in chosen.items():
        for floor, value in values.items():
            defined = value[is_in & ~np.isnan(value)]
            mean = float(defined.mean()) if len(defined) else np.nan
            rows.append({**program, "floor": floor, "images": images, "value": mean})
    return rows


def rsna_values(matches: BoxMatches, threshold: float = 0.0) -> Floats:
    """Return the value of each image in `rsna_score`, NaN where it is left out, ``(images,)``.

    `matches` are those at `RSNA_IOU`; boxes with a score below the threshold do not count.
    """
    called = matches.score >= threshold
    image, n_images = matches.image[called], len(matches.n_true)
    either = np.bincount(image, minlength=n_images) + matches.n_true
    values = np.zeros(n_images)
    for hit in matches.hit[called].T:
        hits = np.bincount(image[hit], minlength=n_images)
        values += hits / np.maximum(either - hits, 1) / len(RSNA_IOU)
    return np.where(either > 0, values, np.nan)


def rows_that_give(table: pd.DataFrame, figure: str) -> pd.DataFrame:
    """Return the rows that give a reported figure within half of its last digit, or 0.0001."""
    if not re.fullmatch(r"[0-9]*\.?[0-9]+", figure) or float(figure) > 1:
        raise InputError(f"figure: {figure}; give a figure in [0, 1], such as 0.4712")
    digits = max(1, len(figure.partition(".")[2]))
    distance = (table["value"] - float(figure)).abs()
    return table[distance <= max(0.5 * 10**-digits, 1e-4) + 1e-9]


def nearest(table: pd.DataFrame, figure: str) -> pd.DataFrame:
    """Return the rows that give a reported figure, or else the nearest one."""
    within = rows_that_give(table, figure)
    distance = (table["value"] - float(figure)).abs()
    return within if len(within) else table.loc[[distance.idxmin()]]
