"""Look-ups that several checks share: evaluated images, equal images, rows that differ."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.ids import is_member, positions

EVALUATED_ROLES = ("train", "val", "test")


def evaluated_images(split: pd.DataFrame) -> pd.DataFrame:
    """Return ``image_id, role`` of the images of a split that are used for train, val or test."""
    return split.loc[is_member(split["role"], EVALUATED_ROLES), ["image_id", "role"]]


def find_duplicates(images: pd.DataFrame) -> pd.DataFrame:
    """Group the images that are equal pixel for pixel.

    Args:
        images: Columns ``image_id`` and ``pixel_sha256``.

    Returns:
        Columns ``group, image_id`` of the images with an equal one.
    """
    present = images.dropna(subset="pixel_sha256")
    repeated = present[present["pixel_sha256"].duplicated(keep=False)].sort_values("image_id")
    groups = repeated.assign(group=pd.factorize(repeated["pixel_sha256"])[0])[["group", "image_id"]]
    return groups.sort_values(["group", "image_id"], ignore_index=True)


def rows_that_differ(rows: pd.DataFrame, group: str, column: str) -> pd.DataFrame:
    """Return the rows of the groups in which a column has several values; missing ones are ignored.

    Args:
        rows: Rows in groups.
        group: Column of the group.
        column: Column that is compared.
    """
    present = rows[rows[column].notna()]
    group_codes = pd.factorize(present[group])[0]
    values = pd.DataFrame({"group": group_codes, "value": pd.factorize(present[column])[0]})
    lowest = values.groupby("group")["value"].transform("min").to_numpy()
    highest = values.groupby("group")["value"].transform("max").to_numpy()
    return present[lowest != highest]


def labels_of_images(labels: pd.DataFrame, image_ids: pd.Series) -> np.ndarray:
    """Return the labels of the given images, ``(N, targets)``; NaN for images without a label."""
    rows = positions(image_ids, labels.index)
    values = labels.to_numpy(dtype="float64")
    chosen = values[rows] if len(values) else np.full((len(rows), values.shape[1]), np.nan)
    chosen[rows < 0] = np.nan
    return chosen
