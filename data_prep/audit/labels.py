"""Checks of labels: boxes against images and labels, prevalence by group, shortcuts.

The functions take tables and return problems or figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy  # its parts are loaded when they are first used

from cxr_compare.data_prep.audit.problem import Problem, Severity
from cxr_compare.data_prep.contracts.boxes import EDGES, box_iou
from cxr_compare.data_prep.contracts.ids import is_member, positions
from cxr_compare.data_prep.contracts.schemas import OLDEST_YEARS, ROLES
from cxr_compare.data_prep.contracts.text import TEXT

# For comparison: the smallest RSNA box has sides of 40 px in an image of 1024 px, and the largest
# covers 48 % of its image.
_TINY_SIDE = 0.01
_HUGE_AREA = 0.6
_SAME_BOX_IOU = 0.9
_KEY = ["image_id", "finding", "reader"]
MISSING = "missing"
_IMPOSSIBLE = "impossible"
_AGE_EDGES = [0, 5, 18, 40, 60, 80, OLDEST_YEARS + 1]
_AGE_BANDS = ["0 to 4", "5 to 17", "18 to 39", "40 to 59", "60 to 79", "80 and above"]
_VALUES_SHOWN = 20
# AUROC from which metadata or image borders are reported. A system whose AUROC is not above that of
# a shortcut may have learned nothing else.
SHORTCUT_AUROC = 0.65
_SHORTCUT_ADVICE = {
    "person": "report systems on its subgroups, too; a difference in who was ill is not skill",
    "file": "a system may learn the kind of file instead of the disease: evaluate within one kind",
    "picture": "check if the two classes were exposed or processed differently",
    "border": "borders show little lung, so a system may learn how images are framed and marked. "
    "Evaluate it on images from elsewhere, and look at maps of where it finds the disease",
    "siblings": "never split by image, and keep every figure of a patient in one role",
    "together": "compare every result with this figure, which needs no information from the lungs",
}


def check_boxes(
    boxes: pd.DataFrame, images: pd.DataFrame, findings: pd.DataFrame, coverage: pd.DataFrame
) -> list[Problem]:
    """Check the boxes of all readers (people who labelled) against image sizes and labels.

    Args:
        boxes: Boxes table: the edges ``x1, y1, x2, y2`` of each lesion in px of the original image,
            by ``image_id``, ``finding`` and ``reader``.
        images: Images table: one row for each image, with ``width`` and ``height`` in px.
        findings: Findings table: the ``state`` (present, absent, uncertain) of each finding, by
            image and reader.
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
    labels = _check_box_labels(boxes, findings, coverage)
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
    advice = "draw the box again, or remove it"
    return [
        Problem.from_cases(check, severity, text, ids[bad], advice=advice)
        for check, severity, text, bad in kinds
    ]


def _overlapping(boxes: pd.DataFrame) -> np.ndarray:
    """Return the rows of boxes that nearly equal another box of the image, finding and reader."""
    group = boxes.groupby(_KEY, sort=False).ngroup().to_numpy()
    order = np.argsort(group, kind="stable")
    group = group[order]
    corners = boxes[EDGES].to_numpy(dtype="float64")[order]
    first = np.arange(len(boxes))
    rows = [np.empty(0, dtype=np.int64)]
    step = 1
    while len(first):
        first = first[first + step < len(boxes)]
        first = first[group[first] == group[first + step]]
        same = box_iou(corners[first], corners[first + step]) > _SAME_BOX_IOU
        rows.append(order[first[same] + step])
        step += 1
    return np.concatenate(rows)


def _check_box_labels(
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
    ask_reader = "ask who labelled it; either the box or the label is wrong"
    return [
        Problem.from_cases(
            "box_on_negative",
            "error",
            "box of a finding that the label says is absent",
            boxed.merge(absent, on=_KEY)["image_id"],
            advice=ask_reader,
        ),
        Problem.from_cases(
            "box_missing",
            "error",
            "the finding is present and all its lesions are declared boxed, but there is no box",
            unboxed.merge(complete, on=_KEY)["image_id"],
            advice=ask_reader,
        ),
        Problem.from_cases(
            "positive_without_box",
            "warning",
            f"positive image whose lesions are not boxed: {consequence}",
            bare.loc[~by_readers, "image_id"],
            advice="have the lesions boxed, or train the classifier only on these",
        ),
        Problem.from_cases(
            "box_disputed",
            "warning",
            "positive image whose readers agree on the finding, but not on its position: "
            f"{consequence}",
            bare.loc[by_readers, "image_id"],
            advice="let another reader decide the position, or prepare with --reference any or "
            "reader:NAME",
        ),
    ]


def _without(rows: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose key is not among the others."""
    merged = rows.merge(others, on=_KEY, how="left", indicator="_where")
    return merged.loc[merged["_where"] == "left_only", _KEY]


def count_prevalence(
    images: pd.DataFrame, labels: pd.DataFrame, splits: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """Count images, patients and positive images by role, view, sex, age and source.

    The images need ``image_id``, ``patient_id``, ``view``, ``sex``, ``age_years`` and ``source``.
    There is one row for each target, grouping (column ``by``, such as ``sex``) and group
    (``value``), with ``n_images, n_patients, n_known, n_positive, prevalence, ci_low, ci_high``
    (Wilson's 95 % interval, which takes images for independent).
    """
    labels = labels.set_axis(labels.columns.astype(str), axis=1)
    ids = images["image_id"]
    everything = pd.Categorical.from_codes(
        np.zeros(len(images), dtype=int), pd.Index(["all images"])
    )
    groupings: dict[str, tuple[pd.Series, Sequence[str]]] = {
        "all": (pd.Series(everything, images.index), [])
    }
    for name, split in splits.items():
        role = split["role"].array.take(positions(ids, split["image_id"]), allow_fill=True)
        groupings[f"role in split {name}"] = (pd.Series(role, images.index), list(ROLES))
    groupings["view"] = (images["view"], [])
    groupings["sex"] = (images["sex"], [])
    groupings["age"] = (_age_bands(images["age_years"]), [*_AGE_BANDS, _IMPOSSIBLE])
    groupings["source"] = (images["source"], [])
    patient, patients = pd.factorize(images["patient_id"])
    n_patients = len(patients)
    unlabelled = np.full((1, labels.shape[1]), np.nan)  # at row -1, of an image without a label
    truth = np.vstack([labels.to_numpy("float64"), unlabelled])[positions(ids, labels.index)]
    parts = []
    for by, (values, order) in groupings.items():
        value = _common_values(values, order)
        codes, n_values = value.codes, len(value.categories)
        n_images = np.bincount(codes, minlength=n_values)
        # Each pair of a value and a patient once.
        pairs = pd.unique(codes * np.int64(n_patients) + patient)
        people = np.bincount(pairs // n_patients, minlength=n_values)
        for number, target in enumerate(labels.columns):
            labelled = codes[~np.isnan(truth[:, number])]
            positive = codes[truth[:, number] == 1]
            part = pd.DataFrame(
                {
                    "target": target,
                    "by": by,
                    "value": value.categories,
                    "n_images": n_images,
                    "n_patients": people,
                    "n_known": np.bincount(labelled, minlength=n_values),
                    "n_positive": np.bincount(positive, minlength=n_values),
                }
            )
            parts.append(part[n_images > 0])
    if not parts:
        return pd.DataFrame(columns=["target", "by", "value"])
    table = pd.concat(parts, ignore_index=True)
    known = table["n_known"].where(table["n_known"] > 0)
    low, high = _wilson_interval(table["n_positive"], known)
    table = table.assign(prevalence=table["n_positive"] / known, ci_low=low, ci_high=high)
    order_of_target = positions(table["target"], labels.columns)
    return table.iloc[np.argsort(order_of_target, kind="stable")].reset_index(drop=True)


def _wilson_interval(hits: pd.Series, n: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Return the limits of Wilson's 95 % interval of shares."""
    z = float(scipy.special.ndtri(0.975))
    share = hits / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (middle - half).clip(0, 1), (middle + half).clip(0, 1)


def _age_bands(ages: pd.Series) -> pd.Series:
    band = np.searchsorted(_AGE_EDGES, ages.to_numpy(dtype="float64", na_value=np.nan), "right") - 1
    impossible = (band < 0) | (band >= len(_AGE_BANDS))
    codes = np.where(ages.isna(), -1, np.where(impossible, len(_AGE_BANDS), band))
    bands = pd.Categorical.from_codes(codes, pd.Index([*_AGE_BANDS, _IMPOSSIBLE]))
    return pd.Series(bands, ages.index)


def _common_values(values: pd.Series, order: Sequence[str]) -> pd.Categorical:
    """Return the commonest values in order, "other" and "missing"."""
    codes, uniques = pd.factorize(values)
    names = pd.Index(uniques).astype(TEXT)
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    common = names[np.argsort(-counts, kind="stable")[:_VALUES_SHOWN]]
    listed = [name for name in order if name in common]
    shown = [*listed, *sorted(set(common) - set(listed))]
    categories = pd.Index([*shown, "other", MISSING])
    renumbered = categories.get_indexer(names)
    renumbered = np.where(renumbered < 0, len(shown), renumbered)
    return pd.Categorical.from_codes(np.append(renumbered, len(shown) + 1)[codes], categories)


def check_shortcuts(measured: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """Report metadata and image borders that predict the label without the lungs (shortcuts).

    `measured` has a dictionary for each kind of metadata (such as the view) and each label, with
    its AUROC and 95 % interval. Of each kind of metadata only the strongest is reported.
    """
    strong = [
        row
        for row in sorted(measured, key=lambda row: -row["auroc"])
        if row["auroc"] >= SHORTCUT_AUROC and (row["ci_low"] or 1.0) > 0.5
    ]
    kinds = [[row for row in strong if row["kind"] == kind] for kind in _SHORTCUT_ADVICE]
    return [_shortcut_problem(rows[0], len(rows) - 1) for rows in kinds if rows]


def _shortcut_problem(row: Mapping[str, Any], more: int) -> Problem:
    ends = f" ({row['ci_low']:.3f} to {row['ci_high']:.3f})" if row["ci_low"] else ""
    subject = {
        "together": "metadata and image borders together predict",
        "siblings": "other images of the same patient predict",
    }.get(row["kind"], f"{row['fact']} alone predict{'' if '+' in row['fact'] else 's'}")
    text = f"{subject} '{row['target']}' with AUROC {row['auroc']:.3f}{ends}"
    if more:
        text += f", and {more} more facts or targets have an AUROC of 0.65 or above"
    severity: Severity = "warning" if row["kind"] == "file" else "info"
    advice = _SHORTCUT_ADVICE[row["kind"]]
    return Problem(f"shortcut_{row['kind']}", severity, text, row["n_known"], (), advice)
