"""Figures of boxes as functions of tables, or of the outputs of a detection library."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.ids import ENDING
from cxr_compare.data_prep.base.names import finding_name
from cxr_compare.evaluation.boxes.average_precision import average_precision
from cxr_compare.evaluation.boxes.froc import FrocCurve, find_lesions, froc_curve
from cxr_compare.evaluation.boxes.matching import (
    best_pairs,
    match_pairs,
    pair_boxes,
)
from cxr_compare.evaluation.boxes.other_programs import RSNA_IOU, rsna_values
from cxr_compare.evaluation.inputs.box_classes import other_class
from cxr_compare.evaluation.inputs.boxes_table import checked_boxes

_EDGES = ["image_id", "x1", "y1", "x2", "y2"]
_VINBIGDATA_IOU = np.nextafter(0.4, 1.0)
_BACKGROUND = "background"
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
    return average_precision(predicted, true, ids)


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
    values = rsna_values(match_pairs(pair_boxes(called, true, ids), RSNA_IOU))
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None


def vinbigdata_score(
    boxes: Any, truth: Any, image_ids: Iterable[Any] | None = None
) -> float | None:
    """Compute the score of the VinBigData challenge of 2021 for one finding.

    It is the mean of two average precisions of Pascal VOC 2010. That of the finding counts boxes
    that match a lesion by an IoU above 0.4; a box can match only the lesion with which its IoU is
    highest. That of the class "No finding" counts images: each predicts it with 1 minus the score
    of its best box, and images of equal scores form one step. So half of the score ranks images.

    Args:
        boxes: Predicted boxes, as in `box_average_precision`.
        truth: True boxes, one for each lesion.
        image_ids: Ids of all images that are evaluated; None for two lists in one order.

    Returns:
        The score in [0, 1]; None if no image has a lesion, or if every image has one.

    Source:
        VinBigData Chest X-ray Abnormalities Detection 2021, evaluation page; Everingham et al. 2010
        (Pascal VOC).

    Examples:
        >>> from cxr_compare import metrics
        >>> truth = [{"boxes": [[0, 0, 9, 9]]}, {"boxes": []}]
        >>> predicted = [{"boxes": [[0, 0, 9, 9]], "scores": [0.9]}, {"boxes": [], "scores": []}]
        >>> metrics.vinbigdata_score(predicted, truth)
        1.0
    """
    predicted, true, ids = _tables(boxes, truth, image_ids)
    _refuse_crowds(true)
    pairs = pair_boxes(predicted, true, ids)
    healthy = pairs.truth.per_image == 0
    if healthy.all() or not healthy.any():
        return None
    hit = match_pairs(best_pairs(pairs), [_VINBIGDATA_IOU]).hit[:, 0]
    of_boxes = _voc_precision(hit, np.arange(len(hit)), int(pairs.truth.per_image.sum()))
    scores = np.zeros(len(ids))
    np.maximum.at(scores, pairs.boxes.image, pairs.boxes.score)
    surest = np.argsort(scores, kind="stable")
    of_images = _voc_precision(healthy[surest], scores[surest], int(healthy.sum()))
    return (of_boxes + of_images) / 2


def _voc_precision(hit: npt.NDArray[np.bool_], steps: npt.NDArray[Any], n_true: int) -> float:
    """Return the area under the best precision at or beyond each recall, of ranked items.

    Neighbouring items of one value in `steps` are called together.
    """
    ends = np.flatnonzero(np.append(steps[1:] != steps[:-1], True)[: len(steps)])
    n_found = np.cumsum(hit)[ends]
    precision = n_found / (ends + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((best * np.diff(n_found, prepend=0)).sum() / n_true)


def box_confusion(
    boxes: Any, truth: Any, image_ids: Iterable[Any] | None = None, *, threshold: float
) -> pd.DataFrame:
    """Count which finding is predicted where which finding is: the confusion matrix of a detector.

    A box and a lesion match at an IoU of at least 0.5. The boxes are matched in the order of
    falling scores, each to the unmatched lesion of its own finding with which its IoU is highest,
    as in COCO. Then the boxes that are left are matched in the same way to the lesions that are
    left, which are of other findings.

    Args:
        boxes: Predicted boxes, as in `box_average_precision`, with a column ``finding`` (outputs of
            a library with ``labels``).
        truth: True boxes, one for each lesion, with their findings. It must have the lesions of
            every finding on all images that are evaluated.
        image_ids: Ids of all images that are evaluated; None for two lists in one order.
        threshold: Score from which a box counts.

    Returns:
        Numbers of lesions and boxes. The row of a true finding has each of its lesions once, and
        the column of a predicted finding each of its boxes. The last row, ``background``, has the
        boxes that match no lesion, and the last column the lesions that no box matches.

    Raises:
        InputError: A box is invalid or has no finding, one table has numbers and the other names
            of findings, or the threshold is NaN.

    Examples:
        >>> from cxr_compare import metrics
        >>> truth = [{"boxes": [[0, 0, 9, 9], [20, 0, 29, 9]], "labels": ["mass", "nodule"]}]
        >>> predicted = [{"boxes": [[20, 0, 29, 9]], "labels": ["mass"], "scores": [0.9]}]
        >>> metrics.box_confusion(predicted, truth, threshold=0.5)
        predicted   mass  nodule  background
        true
        mass           0       0           1
        nodule         1       0           0
        background     0       0           0
    """
    predicted, true, ids = _tables(boxes, truth, image_ids, several=True)
    _refuse_crowds(true)
    for where, table in (("boxes", predicted), ("truth", true)):
        classes = table.get("finding", [_BACKGROUND] * len(table))
        table["finding"] = [finding_name(str(label)) for label in classes]
        if _BACKGROUND in set(table["finding"]):
            raise InputError(
                f"{where}: has boxes without a class, or of one called {_BACKGROUND}; "
                "name the finding of each as finding, or in labels"
            )
    if len(predicted) and len(true):
        kinds = [sorted(set(table["finding"])) for table in (predicted, true)]
        if len({all(name.isdigit() for name in names) for names in kinds}) > 1:
            first, second = (", ".join(names[:_SHOWN]) for names in kinds)
            raise InputError(
                f"boxes: has the classes {first}, and the truth {second}; name them alike"
            )
    called = _called(predicted, threshold)
    pairs = pair_boxes(called, true, ids, None)
    boxed = called["finding"].to_numpy()[pairs.boxes.row]
    lesions = true["finding"].to_numpy()[pairs.truth.row]
    differs = boxed[pairs.box] != lesions[pairs.true]
    rows = [_BACKGROUND] * len(boxed)
    columns = [_BACKGROUND] * len(lesions)
    # Of lesions of equal IoU the later one is matched first, as in COCO.
    order = np.lexsort((-pairs.true, -pairs.iou, pairs.box, differs))
    for pair in order[pairs.iou[order] >= 0.5]:
        box, lesion = pairs.box[pair], pairs.true[pair]
        if rows[box] == columns[lesion] == _BACKGROUND:
            rows[box], columns[lesion] = lesions[lesion], boxed[box]
    missed = np.array(columns) == _BACKGROUND
    actual, answers = [*rows, *lesions[missed]], [*boxed, *[_BACKGROUND] * missed.sum()]
    names = [*sorted({*boxed, *lesions}), _BACKGROUND]
    counts = pd.crosstab(actual, answers, rownames=["true"], colnames=["predicted"])
    return counts.reindex(index=names, columns=names, fill_value=0)


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
    boxes: Any, truth: Any, image_ids: Iterable[Any] | None, *, several: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame, pd.Index]:
    """Return predicted and true boxes as tables, of one class or `several`, with all image ids."""
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
        if len(kinds) > 1 and not several:
            listed = ", ".join(map(str, kinds[:_SHOWN]))
            raise InputError(f"{where}: has the classes {listed}; give the boxes of one")
    if "finding" in predicted and "finding" in true and len(true) and not several:
        other = other_class(
            predicted["finding"].astype(str), [finding_name(str(true["finding"][0]))]
        )
        if other:
            raise InputError(f"boxes: are of '{other[1]}', and truth of '{true['finding'][0]}'")
    if "score" not in predicted and len(predicted):
        raise InputError("boxes: have no scores")
    return predicted.assign(score=predicted.get("score", 0.0)), true, ids
