"""Boxes as plain rows, and boxes of activation maps."""

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.boxes import box_iou
from cxr_compare.evaluation.boxes.average_precision import WeightedAveragePrecision
from cxr_compare.evaluation.boxes.error_types import count_error_types
from cxr_compare.evaluation.boxes.froc import WeightedFroc, find_lesions
from cxr_compare.evaluation.boxes.map_boxes import (
    MapBoxRule,
    map_parts,
    map_peaks,
    map_scale,
    upsample,
)
from cxr_compare.evaluation.boxes.matching import match_pairs, pair_boxes
from cxr_compare.evaluation.metrics import RATES

__all__ = [
    "box_iou",
    "map_boxes",
    "map_parts",
    "map_peaks",
    "map_scale",
    "matches",
    "upsample",
    "weighted_ap",
    "weighted_froc",
]
COLUMNS = ["image_id", "x1", "y1", "x2", "y2"]


def frame(rows, *scored):
    """Rows ``[image, x1, y1, x2, y2, score]`` as the table that the program keeps."""
    columns = [*COLUMNS, *scored]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[1:], float))


def _pairs(boxes, truth, images, crowds=None):
    true = frame(truth) if crowds is None else frame(truth).assign(crowd=crowds)
    return pair_boxes(frame(boxes, "score"), true, pd.Index(images))


def matches(boxes, truth, images, crowds=None):
    """Hits and ignored boxes at each threshold, by falling score, and lesions of each image."""
    found = match_pairs(_pairs(boxes, truth, images, crowds))
    return found.hit.T, found.is_ignored.T, found.n_true


def weighted_ap(boxes, truth, images, weights, crowds=None):
    """AP at each threshold with each image counted as often as its weight says."""
    n, found = len(images), match_pairs(_pairs(boxes, truth, images, crowds))
    return WeightedAveragePrecision(found, np.arange(n), n)(np.array([weights]))[0]


def weighted_froc(boxes, truth, images, weights):
    """FROC's mean and the sensitivity at each rate, with weights of images."""
    n = len(images)
    kernel = WeightedFroc(find_lesions(_pairs(boxes, truth, images)), np.arange(n), n)
    return np.ravel(kernel.figures(np.array([weights]), [*RATES.values()]))


def error_types(boxes, truth, images, threshold):
    """Counts of each kind of error by image, of the boxes with at least this score."""
    found = count_error_types(_pairs(boxes, truth, images), threshold)
    return {name: counts.tolist() for name, counts in found.items()}


def map_boxes(maps, scores, scale, level, **options):
    """Boxes around the parts of maps at a level of the scale, or of each map's own range."""
    return MapBoxRule(level, **options).apply(maps, scores, scale)
