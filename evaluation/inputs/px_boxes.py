"""Predicted boxes of rows in px of their images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.box_check import (
    PREDICTED_BOXES,
    BoxForm,
    BoxReading,
    BoxRules,
    BoxUnit,
    fit,
    in_columns,
)
from cxr_compare.data_prep.base.boxes import EDGES, NUMBERS
from cxr_compare.data_prep.base.errors import InputError, counted
from cxr_compare.evaluation.boxes.matching import MAX_BOXES
from cxr_compare.evaluation.inputs.frames import SIDES
from cxr_compare.evaluation.inputs.rows import Rows, require_probabilities
from cxr_compare.evaluation.truth import Truth


def boxes_in_px(
    rows: Rows,
    truth: Truth,
    columns: Mapping[str, str],
    *,
    name: str = "NAME",
) -> pd.DataFrame:
    """Return checked boxes in px of the original image, clipped to it, at most 100 of an image."""
    table = rows.table.reset_index(drop=True)
    if "score" not in table:
        table = table.assign(score=1.0)
    require_probabilities(table, rows.where)
    reading = BoxReading(
        cast("BoxForm", columns.get("box_form", rows.form)),
        cast("BoxUnit", columns.get("box_unit", rows.unit)),
        rows.where,
        rows.stated,
        "box_form" in columns,
        "box_unit" in columns,
        "box_order" not in columns,
        partial(in_columns, system=name),
    )
    if reading.unit != "px":
        truth = replace(truth, presumed=False)
    if columns.get("box_order") == "yxyx":  # first: a share of the height is none of the width
        table[NUMBERS] = table[NUMBERS].to_numpy()[:, [1, 0, 3, 2]]
    sizes = truth.sizes.reindex(table["image_id"]).to_numpy()
    stated, either = sizes, False
    if set(SIDES) <= set(table):
        stated = table[[*SIDES]].to_numpy(np.float64)
        _require_known_sizes(table, stated, truth, rows)
    elif reading.unit == "px":
        stated, either = truth.labelled.reindex(table["image_id"]).to_numpy(), True
    unsized = np.isnan(stated).any(axis=1)
    if reading.unit != "px" and unsized.any():
        row = table[unsized].iloc[0]
        raise InputError(
            f"{rows.where}: {row['position']}: the boxes are shares, and the size of image "
            f"'{row['image_id']}' is unknown; name the folder of the image files (images), or give "
            "px, or a truth with width and height"
        )
    rules = replace(PREDICTED_BOXES, either=either)
    table, notes = with_corners(table, reading, stated, sizes, rules)
    rows.notes += [f"{note[:1].upper()}{note[1:]}." for note in notes]
    return _at_most(table, rows)


def with_corners(
    table: pd.DataFrame,
    reading: BoxReading,
    stated: np.ndarray,
    sizes: np.ndarray,
    rules: BoxRules,
) -> tuple[pd.DataFrame, Sequence[str]]:
    """Return the boxes that `fit` accepts, with corners in place of their numbers, and its notes.

    Sizes that the boxes are of, and those of the images, are (N, 2) in px.
    """
    fitted = fit(table[NUMBERS].to_numpy(np.float64), reading, table, stated, sizes, rules)
    table = table.drop(columns=NUMBERS).assign(**dict(zip(EDGES, fitted.corners.T, strict=True)))
    return table[fitted.faults == ""], fitted.notes


def _require_known_sizes(table: pd.DataFrame, stated: np.ndarray, truth: Truth, rows: Rows) -> None:
    """Refuse a table that states a third size of an image, (N, 2): its boxes are of a copy."""
    sizes, labelled = (
        table_of_sizes.reindex(table["image_id"]).to_numpy()
        for table_of_sizes in (truth.sizes, truth.labelled)
    )
    is_other = (sizes != stated).any(axis=1) & (labelled != stated).any(axis=1)
    is_known = ~np.isnan(sizes).all(axis=1)
    reach = truth.boxes.groupby("image_id")[["x2", "y2"]].max().reindex(table["image_id"])
    differ = np.where(is_known, is_other, (reach.to_numpy() > stated + 1).any(axis=1))
    if differ.any():
        row = int(differ.argmax())
        size = sizes[row] if is_known[row] else reach.to_numpy()[row]
        of_table, of_truth = ("{:g} x {:g}".format(*sides) for sides in (stated[row], size))
        other = f"which has {of_truth}"
        if not is_known[row]:
            other = f"on which a true box reaches to {of_truth}"
        raise InputError(
            f"{rows.where}: {table['position'].iloc[row]}: states {of_table} px as the size of "
            f"image '{table['image_id'].iloc[row]}', {other}; give boxes in px of this image, or "
            f"leave out {SIDES[0]} and {SIDES[1]} if they are"
        )


def _at_most(table: pd.DataFrame, rows: Rows) -> pd.DataFrame:
    """Return the 100 boxes of each image with the highest scores."""
    rank = table["score"].rank(method="first", ascending=False).groupby(table["image_id"]).rank()
    best = table[rank <= MAX_BOXES]
    if len(best) < len(table):
        left_out = counted(len(table) - len(best), "box")
        rows.notes.append(f"{left_out} left out, beyond the {MAX_BOXES} best of an image.")
    twice = int(table.duplicated(["image_id", *EDGES, "score"]).sum())
    if twice:
        rows.notes.append(f"{counted(twice, 'box', 'are')} given twice, and count as false.")
    return best[["image_id", *EDGES, "score"]].reset_index(drop=True)
