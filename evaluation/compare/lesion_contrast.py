"""How far a lesion stands out from what lies around it, from the pixel store."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep.store.dataset import DataSet
from data_prep.store.pixel_store import PixelStore
from evaluation.statistics.ranking import Floats

_PLAIN = re.compile(r"letterbox-(\d+)")
_AROUND = 0.5
"""The surroundings: half the box's width and height on each side, without the box."""
THIRDS = ("lowest third", "middle third", "highest third")


def open_largest_store(dataset: DataSet) -> PixelStore | None:
    """The largest store of whole, untreated pictures; `None` where there is none.

    Raises:
        InputError: It is damaged.
    """
    folders = (dataset.folder / "pixels").glob("letterbox-*")
    sizes = [int(m[1]) for folder in folders if (m := _PLAIN.fullmatch(folder.name))]
    return dataset.store(max(sizes)) if sizes else None


def lesion_contrast(truth: pd.DataFrame, store: PixelStore) -> Floats:
    """Mean grey level of each lesion's box less that of its surroundings, without the sign.

    Args:
        truth: ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` in original px, one row a lesion.
        store: Pictures as uint8 squares.

    Returns:
        In grey levels of 255, shape ``(lesions,)``; NaN where the image is not in the store or
        the box has no surroundings.
    """
    contrast = np.full(len(truth), np.nan)
    known = set(store.ids)
    corners = truth[["x1", "y1", "x2", "y2"]].to_numpy(np.float64)
    for row, image_id in enumerate(truth["image_id"]):
        if image_id in known:
            box = store.placement(image_id).to_store(corners[row : row + 1])[0]
            contrast[row] = box_contrast(store.image(image_id), box)
    return contrast


def box_contrast(picture: npt.NDArray[np.uint8], box: Floats) -> float:
    """Mean grey level inside a box less that around it, without the sign.

    Args:
        picture: Shape ``(H, W)``.
        box: ``x1, y1, x2, y2`` in px of the picture.

    Example:
        >>> picture = np.full((40, 40), 50, dtype=np.uint8)
        >>> picture[10:20, 10:20] = 90
        >>> box_contrast(picture, np.array([10.0, 10.0, 20.0, 20.0]))
        40.0
    """
    reach = (box[2:] - box[:2]) * _AROUND
    inner = _window(picture, box)
    outer = _window(picture, np.concatenate([box[:2] - reach, box[2:] + reach]))
    around = outer.size - inner.size
    if not inner.size or not around:
        return float("nan")
    ring = (float(outer.sum()) - float(inner.sum())) / around
    return abs(float(inner.mean()) - ring)


def _window(picture: npt.NDArray[np.uint8], box: Floats) -> npt.NDArray[np.uint8]:
    height, width = picture.shape
    x1, y1 = (int(max(0, np.floor(each))) for each in box[:2])
    x2, y2 = min(width, int(np.ceil(box[2]))), min(height, int(np.ceil(box[3])))
    return picture[y1 : max(y1, y2), x1 : max(x1, x2)]


def contrast_thirds(contrast: Floats) -> npt.NDArray[np.object_]:
    """The third of the lesions that each belongs to by its contrast; "" where it is unknown.

    Example:
        >>> contrast_thirds(np.array([1.0, 5.0, 9.0, np.nan])).tolist()
        ['lowest third', 'middle third', 'highest third', '']
    """
    known = ~np.isnan(contrast)
    groups = np.full(len(contrast), "", dtype=object)
    if known.any():
        edges = np.quantile(contrast[known], [1 / 3, 2 / 3])
        groups[known] = np.array(THIRDS, dtype=object)[
            np.digitize(contrast[known], edges, right=True)
        ]
    return groups
