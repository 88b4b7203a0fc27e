"""Lesions that each system finds, and the kinds of its errors with boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.base.boxes import FIELD_WIDTH_MM
from cxr_compare.evaluation.boxes.error_types import count_error_types
from cxr_compare.evaluation.boxes.froc import find_lesions
from cxr_compare.evaluation.boxes.matching import BoxPairs
from cxr_compare.evaluation.compare import Comparison
from cxr_compare.evaluation.groups.images import COLUMNS, share_by_patient
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.subgroups import Groups
from cxr_compare.evaluation.truth import numbers_of

ERRORS = "errors"
"""Topic of the kinds of errors."""
_FEWEST_LESIONS = 10
ALL_LESIONS = "all lesions"
"""Topic of all lesions together."""
_PER_LESION = ("found", "poorly_boxed", "missed")
_PER_IMAGE = ("poor_box", "duplicate", "background")
_RULE = "_iou_50"
"""End of the names of the kinds of errors, by the IoU from which their boxes match a lesion."""
_SIZES_MM = (30.0, 60.0)
_NAMES_MM = ("up to 30 mm", "30 to 60 mm", "over 60 mm")


def lesion_table(comparison: Comparison) -> pd.DataFrame:
    """Return kinds of errors, and lesions found by size and view, of each system.

    Boxes count from the threshold of the image score of the main policy: they are those drawn. A
    detector whose image score is not that of its best box has no such threshold, and no row.
    False boxes of an image have no interval: they are counted, and no share.
    """
    rows: list[dict[str, Any]] = []
    test, policy = comparison.truth, comparison.main_policy
    for name in comparison.single:  # a joint system's threshold is not of its member's boxes
        system = comparison.systems[name]
        cut = system.choices.thresholds.get(policy)
        pairs = system.pairs
        is_reduced = system.output.boxes is not None and not system.output.is_best_box
        if pairs is None or cut is None or is_reduced or not len(pairs.truth.image):
            continue
        patients = test.patients[test.is_boxed]
        kinds = count_error_types(pairs, cut)
        of_system = {"system": name, "policy": policy}
        figures = {
            kind: share_by_patient(kinds[kind], kinds["lesions"], patients, test.n_patients)
            for kind in _PER_LESION
        }
        figures |= {kind: _per_image(kinds[kind], patients) for kind in _PER_IMAGE}
        for kind, figure in figures.items():
            name_of = f"{kind}{_RULE}"
            rows.append({"topic": ERRORS, "group": "", **of_system, "metric": name_of, **figure})
        reached = find_lesions(pairs).best >= cut
        owners = patients[pairs.truth.image]
        figure_of_all = share_by_patient(reached, np.ones(len(reached)), owners, test.n_patients)
        where = {"topic": ALL_LESIONS, "group": "", **of_system, "metric": "lesion_recall"}
        rows.append({**where, **figure_of_all})
        sized = test.images.assign(width=test.sizes["width"], height=test.sizes["height"])
        for topic, groups in lesion_groups(pairs, sized[test.is_boxed]).items():
            for group in sorted(set(groups) - {""}, key=_by_size):
                whole = groups == group
                if whole.sum() < _FEWEST_LESIONS:
                    continue
                figure = share_by_patient(reached & whole, whole, owners, test.n_patients)
                where = {"topic": topic, "group": group, **of_system, "metric": "lesion_recall"}
                rows.append({**where, **figure})
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS))


def _by_size(group: str) -> tuple[bool, bool, str]:
    """Return the order of groups of lesions: the smallest size first, all others by name."""
    return group.startswith("over "), not group.startswith("up to "), group


def _per_image(boxes: npt.ArrayLike, patients: Integers) -> dict[str, Any]:
    """Return the number of boxes of images, also as a mean."""
    count, n_images = float(np.sum(boxes)), float(len(patients))
    numbers = {"count": count, "of": n_images, "n_patients": float(len(np.unique(patients)))}
    return {"estimate": count / n_images, **numbers, "note": ""}


def lesion_groups(pairs: BoxPairs, images: pd.DataFrame) -> dict[str, Groups]:
    """Group true lesions by size and view.

    Sizes are in mm where the pixel spacing is known and plausible, otherwise thirds by the share of
    the image. A grouping in which all lesions are in one group is left out. The images have the
    order of those of `pairs`.
    """
    corners, image = pairs.truth.corners, pairs.truth.image
    sides = corners[:, 2:] - corners[:, :2]
    numbers = numbers_of(images, ["width", "height"]).to_numpy()
    groups = dict(_sizes(sides, numbers, images, image))
    if "view" in images:
        views = images["view"].astype(object)
        groups["view"] = views.where(views.notna(), "").to_numpy(object)[image]
    return {topic: group_of for topic, group_of in groups.items() if len(set(group_of) - {""}) > 1}


def _sizes(
    sides: Floats, numbers: Floats, images: pd.DataFrame, image: Integers
) -> Iterator[tuple[str, Groups]]:
    names = ["spacing_col_mm", "spacing_row_mm"]
    if set(names) <= set(images):
        spacing = numbers_of(images, names).to_numpy()
        field = spacing[:, 0] * numbers[:, 0]
        plausible = (field >= FIELD_WIDTH_MM[0]) & (field <= FIELD_WIDTH_MM[1])
        spacing = np.where(plausible[:, None], spacing, np.nan)
        millimetres = np.sqrt((sides * spacing[image]).prod(axis=1))
        if not np.isnan(millimetres).any():
            yield "lesion size", _cut(millimetres, _SIZES_MM, _NAMES_MM)
            return
    share = sides.prod(axis=1) / numbers[image].prod(axis=1)
    known_shares = share[~np.isnan(share)]
    if len(known_shares):
        lower, upper = np.quantile(known_shares, [1 / 3, 2 / 3])
        low, high = f"{100 * lower:.2g}", f"{100 * upper:.2g}"
        ends = (f"up to {low} %", f"{low} to {high} %", f"over {high} %")
        yield "lesion size", _cut(share, (lower, upper), [f"{end} of the image" for end in ends])


def _cut(values: Floats, edges: Sequence[float], names: Sequence[str]) -> Groups:
    """Return the name of the range in which each value lies; an empty name for NaN."""
    groups = np.array(names, dtype=object)[np.digitize(values, edges, right=True)]
    return np.where(np.isnan(values), "", groups).astype(object)
