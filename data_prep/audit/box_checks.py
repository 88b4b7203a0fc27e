"""Checks of boxes against their images and against the labels."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxr_compare.data_prep.audit.problem import Problem, Severity
from cxr_compare.data_prep.contracts.boxes import EDGES, box_iou
from cxr_compare.data_prep.contracts.ids import is_member, positions

# For comparison: the smallest RSNA box has sides of 40 px in an image of 1024 px, and the largest
# covers 48 % of its image.
_TINY_SIDE = 0.01
_HUGE_AREA = 0.6
_SAME_BOX_IOU = 0.9
_REDRAW = "draw the box again, or remove it"
_ASK_READER = "ask who labelled it; either the box or the label is wrong"
_KEY = ["image_id", "finding", "reader"]


def check_boxes(
    boxes: pd.DataFrame, images: pd.DataFrame, findings: pd.DataFrame, coverage: pd.DataFrame
) -> list[Problem]:
    """Check the boxes of all readers (people who labelled) against image sizes and labels.

    Args:
        boxes: Boxes table: the edges of each lesion in px of the original image, by image, finding
            and reader.
        images: Images table: one row for each image, with ``width`` and ``height`` in px.
        findings: Findings table: the state (present, absent, uncertain) of each finding, by image
            and reader.
        coverage: Box_coverage table: whether all or only some lesions of an image have a box, by
            finding and reader.

    Returns:
        One problem for each kind of fault that was found; an empty list if there is none.
    """
    alike = Problem.from_cases(
        "box_repeated",
        "warning",
        f"two boxes overlap by IoU above {_SAME_BOX_IOU:g}, so one lesion counts as two",
        boxes["image_id"].to_numpy()[_overlapping(boxes)],
        advice="keep one of the two",
    )
    geometry = _check_geometry(boxes, images)
    labels = _check_labels(boxes, findings, coverage)
    return [problem for problem in (*geometry, alike, *labels) if problem.count]


def _check_geometry(boxes: pd.DataFrame, images: pd.DataFrame) -> list[Problem]:
    edges = boxes[EDGES].to_numpy(dtype="float64")
    image_rows = positions(boxes["image_id"], images["image_id"])
    sizes = images[["width", "height"]].astype("float64").to_numpy()
    width, height = np.where(image_rows[:, None] >= 0, sizes[image_rows], np.nan).T
    x1, y1, x2, y2 = edges.T
    finite = np.isfinite(edges).all(axis=1)
    real = finite & (x1 < x2) & (y1 < y2)
    outside = real & ((x1 < 0) | (y1 < 0) | (x2 > width) | (y2 > height))
    narrow = np.minimum((x2 - x1) / width, (y2 - y1) / height) < _TINY_SIDE
    vast = (x2 - x1) * (y2 - y1) / (width * height) > _HUGE_AREA
    tiny = f"box with a side below {_TINY_SIDE:.0%} of the image, perhaps drawn by accident"
    huge = f"box that covers more than {_HUGE_AREA:.0%} of the image, perhaps no lesion"
    kinds: list[tuple[str, Severity, str, np.ndarray]] = [
        ("box_not_finite", "error", "box with a missing or infinite edge", ~finite),
        ("box_empty", "error", "box without area", finite & ~real),
        ("box_outside", "error", "box that leaves its image", outside),
        ("box_tiny", "warning", tiny, real & ~outside & narrow),
        ("box_huge", "warning", huge, real & ~outside & vast),
    ]
    ids = boxes["image_id"].to_numpy()
    return [
        Problem.from_cases(check, severity, text, ids[bad], advice=_REDRAW)
        for check, severity, text, bad in kinds
    ]


def _overlapping(boxes: pd.DataFrame) -> np.ndarray:
    """Return the rows of boxes that nearly equal another box of the image, finding and reader."""
    keys = [pd.factorize(boxes[column])[0] for column in _KEY]
    order = np.lexsort(keys)
    image, finding, reader = (key[order] for key in keys)
    corners = boxes[EDGES].to_numpy(dtype="float64")[order]
    live = np.arange(len(boxes))
    step = 1
    rows = [np.empty(0, dtype=np.int64)]
    while len(live):
        live = live[live + step < len(boxes)]
        other = live + step
        alike = (image[live] == image[other]) & (finding[live] == finding[other])
        live = live[alike & (reader[live] == reader[other])]
        other = live + step
        same = box_iou(corners[live], corners[other]) > _SAME_BOX_IOU
        rows.append(order[other[same]])
        step += 1
    return np.concatenate(rows)


def _check_labels(
    boxes: pd.DataFrame, findings: pd.DataFrame, coverage: pd.DataFrame
) -> list[Problem]:
    boxed = boxes[_KEY].drop_duplicates()
    on_boxed = findings.loc[is_member(findings["image_id"], boxed["image_id"]), [*_KEY, "state"]]
    absent = on_boxed.loc[on_boxed["state"] == "absent", _KEY]
    # A finding that nobody boxed has no missing boxes.
    may_be_boxed = pd.concat([boxes["finding"], coverage["finding"]]).unique()
    present = findings.loc[(findings["state"] == "present").to_numpy(), _KEY]
    present = present[is_member(present["finding"], may_be_boxed)]
    unboxed = _without(present, boxed)
    complete = coverage.loc[(coverage["coverage"] == "all").to_numpy(), _KEY]
    complete = complete[is_member(complete["image_id"], unboxed["image_id"])]
    expected = unboxed[is_member(unboxed["finding"], boxes["finding"])]
    bare = _without(expected, complete)
    drawn = boxed[_KEY[:2]].drop_duplicates()
    by_readers = bare.merge(drawn, how="left", indicator="_in")["_in"].to_numpy() == "both"
    consequence = "the detector does not learn from it, and localisation is not evaluated on it"
    kinds: list[tuple[str, Severity, str, pd.DataFrame, str]] = [
        (
            "box_on_negative",
            "error",
            "box of a finding that the label says is absent",
            boxed.merge(absent, on=_KEY),
            _ASK_READER,
        ),
        (
            "box_missing",
            "error",
            "the finding is present and all its lesions are declared boxed, but there is no box",
            unboxed.merge(complete, on=_KEY),
            _ASK_READER,
        ),
        (
            "positive_without_box",
            "warning",
            f"positive image whose lesions are not boxed: {consequence}",
            bare[~by_readers],
            "have the lesions boxed, or train the classifier only on these",
        ),
        (
            "box_disputed",
            "warning",
            "positive image whose readers agree on the finding, but not on its position: "
            f"{consequence}",
            bare[by_readers],
            "let another reader decide the position, or prepare with --reference any or "
            "reader:NAME",
        ),
    ]
    return [
        Problem.from_cases(check, severity, text, rows["image_id"], advice=advice)
        for check, severity, text, rows, advice in kinds
    ]


def _without(rows: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose key is not among the others."""
    merged = rows.merge(others, on=_KEY, how="left", indicator="_where")
    return merged.loc[merged["_where"] == "left_only", _KEY]
