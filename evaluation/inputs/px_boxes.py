"""Boxes of rows in px of their images: the size that each box is of, its scale and the border."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.box_check import (
    MANY,
    BoxForm,
    BoxReading,
    BoxUnit,
    box_faults,
    corners_of,
    size_text,
    sorted_corners,
)
from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.base.errors import InputError, counted
from cxr_compare.evaluation.boxes.matching import LEAST_SCORE, MAX_BOXES
from cxr_compare.evaluation.inputs.frames import SIDES
from cxr_compare.evaluation.inputs.predicted_boxes import FAR, check_predictions, row_text
from cxr_compare.evaluation.inputs.rows import NUMBERS, Rows, box_answers, require_probabilities
from cxr_compare.evaluation.truth import Truth

_ROUNDING = 0.01
"""Px by which a box reaches beyond its image by rounding alone."""
_BY_CHANCE = 0.01
"""Chance, above which one asks, that all boxes of larger images fit a smaller size."""


def boxes_in_px(
    rows: Rows,
    truth: Truth,
    columns: Mapping[str, str],
    *,
    name: str = "NAME",
    as_given: bool = False,
) -> pd.DataFrame:
    """Return checked boxes in px of the original image, clipped to it, at most 100 of an image.

    With `as_given` none is clipped or left out, and further columns stay.
    """
    table = rows.table.reset_index(drop=True)
    if "score" not in table:
        table = table.assign(score=1.0)
    require_probabilities(table, rows.where)
    reading = BoxReading(
        cast("BoxForm", columns.get("box_form", rows.form)),
        cast("BoxUnit", columns.get("box_unit", rows.unit)),
        rows.where,
        rows.stated,
        "box_form" in columns or "box_unit" in columns,
        box_answers(name),
    )
    if reading.unit != "px":
        truth = replace(truth, presumed=False)
    numbers = table[NUMBERS].to_numpy(np.float64)
    if columns.get("box_order") == "yxyx":  # first: a share of the height is none of the width
        numbers = numbers[:, [1, 0, 3, 2]]
    own_sizes = truth.sizes.reindex(table["image_id"]).to_numpy()
    sizes = _sizes(table, numbers, reading, truth, rows)
    unsized = np.isnan(sizes).any(axis=1)
    if reading.unit != "px" and unsized.any():
        row = table[unsized].iloc[0]
        raise InputError(
            f"{rows.where}: {row['place']}: the boxes are shares, and the size of image "
            f"'{row['image_id']}' is unknown; name the folder of the image files (images), or give "
            "px, or a truth with width and height"
        )
    corners = corners_of(numbers, reading.form, reading.unit, sizes)
    table = table.drop(columns=NUMBERS).assign(**dict(zip(EDGES, corners.T, strict=True)))
    table, notes = check_predictions(table, reading, sizes)
    rows.notes += [f"{note[:1].upper()}{note[1:]}." for note in notes]
    factors = np.nan_to_num((own_sizes / sizes)[table.index], nan=1.0)
    scaled = table[EDGES].to_numpy(np.float64) * np.tile(factors, 2)
    table = table.assign(**dict(zip(EDGES, scaled.T, strict=True)))
    if as_given:
        return table
    return _at_most(clipped(table, truth, rows), rows)


def _sizes(
    table: pd.DataFrame, numbers: np.ndarray, reading: BoxReading, truth: Truth, rows: Rows
) -> np.ndarray:
    """Return the size in px that each box is of: of the file, the labels, or the table; (N, 2).

    InputError for a table that states a third size: its boxes are of a copy.
    """
    sizes = truth.sizes.reindex(table["image_id"]).to_numpy()
    labelled = truth.labelled.reindex(table["image_id"]).to_numpy()
    labelled = np.where(np.isnan(labelled), sizes, labelled)
    if not set(SIDES) <= set(table):
        is_copy = (labelled != sizes).any(axis=1) & ~np.isnan(sizes).any(axis=1)
        if reading.unit != "px" or not is_copy.any():
            return sizes
        return _fitting_sizes(table, numbers, reading, sizes, labelled, rows)
    stated = table[[*SIDES]].to_numpy(np.float64)
    is_other = (sizes != stated).any(axis=1) & (labelled != stated).any(axis=1)
    is_known = ~np.isnan(sizes).all(axis=1)
    reach = truth.boxes.groupby("image_id")[["x2", "y2"]].max().reindex(table["image_id"])
    differ = np.where(is_known, is_other, (reach.to_numpy() > stated + 1).any(axis=1))
    if differ.any():
        row = int(differ.argmax())
        size = sizes[row] if is_known[row] else reach.to_numpy()[row]
        of_table, of_truth = ("{:g} x {:g}".format(*each) for each in (stated[row], size))
        has = f"which has {of_truth}"
        if not is_known[row]:
            has = f"on which a true box reaches to {of_truth}"
        raise InputError(
            f"{rows.where}: {table['place'].iloc[row]}: states {of_table} px as the size of image "
            f"'{table['image_id'].iloc[row]}', {has}; give boxes in px of this image, or leave out "
            f"{SIDES[0]} and {SIDES[1]} if they are"
        )
    return stated


def _fitting_sizes(
    table: pd.DataFrame,
    numbers: np.ndarray,
    reading: BoxReading,
    sizes: np.ndarray,
    labelled: np.ndarray,
    rows: Rows,
) -> np.ndarray:
    """Return the sizes of the files or those that the labels state, whichever boxes in px fit.

    Both are width and height in px, ``(N, 2)``. Boxes that fit both are of the smaller one, as
    boxes of the larger would not all lie in its corner; InputError if they might by chance.
    """
    is_copy = (labelled != sizes).any(axis=1) & ~np.isnan(sizes).any(axis=1)
    unknown = np.full_like(sizes, np.inf)
    written = corners_of(numbers, reading.form, "px", unknown)
    corners, _ = sorted_corners(written, reading.form, unknown)
    fit_files, fit_labels = (
        (box_faults(corners, each, FAR)[is_copy] != "").mean() < MANY for each in (sizes, labelled)
    )
    if fit_files and fit_labels:
        areas = [each[is_copy].prod(axis=1).sum() for each in (sizes, labelled)]
        n_images = table["image_id"][is_copy].nunique()
        if (min(areas) / max(areas)) ** n_images > _BY_CHANCE:
            row = int(is_copy.argmax())
            raise InputError(
                f"{row_text(table, row, rows.where)}: are the boxes px of the image file "
                f"({size_text(sizes[row])}), or of the size that the labels state "
                f"({size_text(labelled[row])})? They fit both; write {SIDES[0]} and {SIDES[1]} "
                "beside each box, or give shares"
            )
        fit_labels = areas[1] < areas[0]
    chosen, name = (
        (labelled, "size that the labels state") if fit_labels else (sizes, "image files")
    )
    size = size_text(chosen[int(is_copy.argmax())])
    rows.notes.append(f"The boxes are taken as px of the {name} ({size}), into which they fit.")
    return chosen


def clipped(table: pd.DataFrame, truth: Truth, rows: Rows) -> pd.DataFrame:
    """Return boxes cut at the borders of their images; refuse one that lies outside."""
    limit = truth.sizes.reindex(table["image_id"]).fillna(np.inf).to_numpy()
    corners = table[EDGES].to_numpy(np.float64)
    cut = np.clip(corners, 0, np.tile(limit, 2))
    outside = ~(cut[:, :2] < cut[:, 2:]).all(axis=1)
    if outside.any():
        row = table[outside].iloc[0]
        edges = ", ".join(f"{edge}={row[edge]:g}" for edge in EDGES)
        raise InputError(
            f"{rows.where}: {row['place']}, image '{row['image_id']}': {edges}: the box lies "
            "outside its image"
        )
    n_cut = int((np.abs(cut - corners) > _ROUNDING).any(axis=1).sum())
    if n_cut:
        rows.notes.append(f"{counted(n_cut, 'box')} reached beyond their image and were clipped.")
    return table.assign(**dict(zip(EDGES, cut.T, strict=True)))


def _at_most(table: pd.DataFrame, rows: Rows) -> pd.DataFrame:
    """Return the 100 boxes of each image with the highest scores, from a score of 0.001."""
    rank = table["score"].rank(method="first", ascending=False).groupby(table["image_id"]).rank()
    kept = table[(rank <= MAX_BOXES) & (table["score"] >= LEAST_SCORE)]
    if len(kept) < len(table):
        left_out = counted(len(table) - len(kept), "box")
        rows.notes.append(
            f"{left_out} left out: below score {LEAST_SCORE}, or beyond the {MAX_BOXES} best of "
            "an image."
        )
    twice = int(table.duplicated(["image_id", *EDGES, "score"]).sum())
    if twice:
        rows.notes.append(f"{counted(twice, 'box', 'are')} given twice, and count as false.")
    return kept[["image_id", *EDGES, "score"]].reset_index(drop=True)
