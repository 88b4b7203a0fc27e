"""Figures of boxes as functions of tables, or of the outputs of a detection library."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.ids import ENDING
from cxr_compare.data_prep.base.names import finding_name
from cxr_compare.evaluation.boxes.average_precision import box_precision
from cxr_compare.evaluation.boxes.froc import FrocCurve, find_lesions, froc_curve
from cxr_compare.evaluation.boxes.matching import match_pairs, pair_boxes
from cxr_compare.evaluation.inputs.box_classes import other_class
from cxr_compare.evaluation.inputs.boxes_table import checked_boxes

_EDGES = ["image_id", "x1", "y1", "x2", "y2"]
_RSNA_IOU = np.nextafter(np.linspace(0.4, 0.75, 8), 1.0)
"""IoU thresholds 0.40, 0.45, ... 0.75, as the next larger floats, since an IoU must exceed them."""
_SHOWN = 5


def box_average_precision(
    boxes: Any, truth: Any, image_ids: Iterable[Any] | None = None
) -> dict[str, float | None]:
    """Compute COCO's AP50 and AP of the boxes of one class.

    Args:
        boxes: Predicted boxes, as a table (``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` in px of
            the original image, ``score``) or a list of outputs of a library, one for each image.
        truth: True boxes in one of the same two forms; a column ``crowd`` marks COCO's crowds.
        image_ids: Ids of all images that are evaluated; None for two lists in one order.

    Returns:
        ``ap50`` and ``ap`` in [0, 1]; None if no image has a true box.

    Raises:
        InputError: A box is invalid, or of no image that is evaluated.

    Examples:
        >>> from cxr_compare import metrics
        >>> truth = [{"boxes": [[0, 0, 9, 9]]}, {"boxes": []}]
        >>> predicted = [{"boxes": [[0, 0, 9, 9]], "scores": [0.9]}, {"boxes": [], "scores": []}]
        >>> found = metrics.box_average_precision(predicted, truth)
        >>> {name: round(value, 6) for name, value in found.items()}
        {'ap50': 1.0, 'ap': 1.0}
    """
    predicted, true, ids = _tables(boxes, truth, image_ids)
    return box_precision(predicted, true, ids)


def froc(boxes: Any, truth: Any, image_ids: Iterable[Any] | None = None) -> FrocCurve:
    """Compute the free-response ROC curve; a box finds a lesion by an IoU of at least 0.2.

    Args:
        boxes: Predicted boxes, as in `box_average_precision`.
        truth: True boxes, one for each lesion.
        image_ids: Ids of all images that are evaluated; None for two lists in one order.

    Returns:
        False positives per image and sensitivity, from (0, 0) to the point at which all count.

    Source:
        Chakraborty 1989.

    Examples:
        >>> from cxr_compare import metrics
        >>> truth = [{"boxes": [[0, 0, 9, 9]]}, {"boxes": []}]
        >>> predicted = [{"boxes": [[0, 0, 9, 9]], "scores": [0.9]}, {"boxes": [], "scores": []}]
        >>> metrics.froc(predicted, truth).sensitivity.tolist()
        [0.0, 1.0, 1.0]
    """
    predicted, true, ids = _tables(boxes, truth, image_ids)
    _refuse_crowds(true)
    return froc_curve(find_lesions(pair_boxes(predicted, true, ids)))


def rsna_score(
    boxes: Any, truth: Any, image_ids: Iterable[Any] | None = None, *, threshold: float
) -> float | None:
    """Compute the score of the RSNA Pneumonia Detection Challenge 2018 at a score threshold.

    At one IoU threshold, an image has the value ``TP / (TP + FP + FN)`` of the boxes with a score
    of at least the threshold. Its value is the mean over IoU 0.40, 0.45, ... 0.75, and the score is
    the mean over the images. An image with neither boxes nor lesions is left out.

    Args:
        boxes: Predicted boxes, as in `box_average_precision`.
        truth: True boxes, one for each lesion.
        image_ids: Ids of all images that are evaluated; None for two lists in one order.
        threshold: Score from which a box counts.

    Returns:
        The score in [0, 1]; None if every image is left out.

    Examples:
        >>> from cxr_compare import metrics
        >>> truth = [{"boxes": [[0, 0, 9, 9]]}, {"boxes": []}]
        >>> predicted = [{"boxes": [[0, 0, 9, 9]], "scores": [0.9]}, {"boxes": [], "scores": []}]
        >>> metrics.rsna_score(predicted, truth, threshold=0.5)
        1.0
    """
    predicted, true, ids = _tables(boxes, truth, image_ids)
    _refuse_crowds(true)
    called = _called(predicted, threshold)
    matches = match_pairs(pair_boxes(called, true, ids), _RSNA_IOU)
    either = np.bincount(matches.image, minlength=len(ids)) + matches.n_true
    values = np.zeros(len(ids))
    for hit in matches.hit.T:
        hits = np.bincount(matches.image[hit], minlength=len(ids))
        values += hits / np.maximum(either - hits, 1) / len(_RSNA_IOU)
    counted = either > 0
    return float(values[counted].mean()) if counted.any() else None


def _called(boxes: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Return the boxes with a score of at least the threshold."""
    if np.isnan(float(threshold)):
        raise InputError("threshold: nan is no score; give the score from which a box counts")
    return boxes[boxes["score"] >= float(threshold)]


def _refuse_crowds(truth: pd.DataFrame) -> None:
    if "crowd" in truth and truth["crowd"].any():
        raise InputError(
            "truth: has crowds, whose lesions have no box each; leave these images out"
        )


def _check_names(boxes: pd.Series, truth: pd.Series, ids: list[str]) -> None:
    """Refuse names that differ from one of `ids` in case or ending, and tables of other images."""
    plain = [_plain(name) for name in ids]
    id_of_plain = dict(zip(plain[::-1], ids[::-1], strict=True))
    predicted, true, listed = set(boxes.unique()), set(truth.unique()), set(ids)
    for where, names_of_table, names in (("boxes", boxes, predicted), ("truth", truth, true)):
        strays = names - listed
        for row, name in names_of_table[names_of_table.isin(strays)].items() if strays else ():
            near = id_of_plain.get(_plain(name))
            # Names that differ in case alone may be two images.
            if near is not None and not (near in names and near.lower() == name.lower()):
                raise InputError(
                    f"{where}: row {row}: is {name!r} the image '{near}' of image_ids?"
                )
        # Where all are strays, the other table alone can have images that are listed.
        apart = bool(names) and names <= strays
        if apart and not (predicted & true and (predicted | true) & listed):
            raise InputError(
                f"{where}: none of its images is in image_ids: it has "
                f"{names_of_table.iloc[0]!r}, and these {', '.join(map(repr, ids[:1]))}"
            )
    for name, key in zip(ids, plain, strict=True):
        first = id_of_plain[key]
        if name == first:
            continue
        apart = all((candidate in predicted) != (candidate in true) for candidate in (first, name))
        if name.lower() != first.lower() or apart:
            raise InputError(f"image_ids: are {first!r} and {name!r} one image? Give it one name")


def _plain(name: str) -> str:
    return ENDING.sub("", name).casefold()


def _tables(
    boxes: Any, truth: Any, image_ids: Iterable[Any] | None
) -> tuple[pd.DataFrame, pd.DataFrame, pd.Index]:
    """Return predicted and true boxes as tables, of one class, with all image ids."""
    if image_ids is None:
        if isinstance(boxes, pd.DataFrame) or isinstance(truth, pd.DataFrame):
            raise InputError("image_ids: give the id of every image, with and without boxes")
        if len(boxes) != len(truth):
            raise InputError(f"boxes: has {len(boxes)} outputs, and truth {len(truth)}")
        image_ids = [f"output {number}" for number in range(len(boxes))]
    texts = [str(image_id) for image_id in image_ids]
    ids = pd.Index(texts)
    if not ids.is_unique:
        raise InputError(f"image_ids: '{ids[ids.duplicated()][0]}' appears more than once")
    tables = []
    for where, value in (("boxes", boxes), ("truth", truth)):
        table = (
            checked_boxes(value, texts, where) if len(value) else pd.DataFrame(columns=["image_id"])
        )
        tables.append(table.reindex(columns=[*_EDGES, *table.columns.difference(_EDGES)]))
    predicted, true = tables
    _check_names(predicted["image_id"], true["image_id"], texts)
    for where, table in (("boxes", predicted), ("truth", true)):
        kinds = table["finding"].astype(str).unique() if "finding" in table else ()
        if len(kinds) > 1:
            listed = ", ".join(map(str, kinds[:_SHOWN]))
            raise InputError(f"{where}: has the classes {listed}; give the boxes of one")
    if "finding" in predicted and "finding" in true and len(true):
        other = other_class(
            predicted["finding"].astype(str), [finding_name(str(true["finding"][0]))]
        )
        if other:
            raise InputError(f"boxes: are of '{other[1]}', and truth of '{true['finding'][0]}'")
    if "score" not in predicted and len(predicted):
        raise InputError("boxes: have no scores")
    return predicted.assign(score=predicted.get("score", 0.0)), true, ids
