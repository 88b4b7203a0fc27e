"""Selections of images that several checks share."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.ids import is_member, positions

EVALUATED_ROLES = ("train", "val", "test")


def evaluated_images(split: pd.DataFrame) -> pd.DataFrame:
    """Return the images of a split that are used: those for train, validation and test.

    Args:
        split: Table with columns ``image_id`` and ``role``: ``train``, ``val``, ``test`` or
            ``unused``.

    Returns:
        Rows of these images with columns ``image_id`` and ``role``.
    """
    return split.loc[is_member(split["role"], EVALUATED_ROLES), ["image_id", "role"]]


def find_duplicates(images: pd.DataFrame) -> pd.DataFrame:
    """Group the images that are equal pixel for pixel.

    Args:
        images: Table with columns ``image_id`` and ``pixel_sha256``, the digest of the pixels.

    Returns:
        A table with columns ``group`` (number of the group) and ``image_id``, with only those
        images that have an equal one.
    """
    present = images.dropna(subset="pixel_sha256")
    repeated = present[present["pixel_sha256"].duplicated(keep=False)].sort_values("image_id")
    groups = repeated.assign(group=pd.factorize(repeated["pixel_sha256"])[0])[["group", "image_id"]]
    return groups.sort_values(["group", "image_id"], ignore_index=True)


def rows_that_differ(rows: pd.DataFrame, group: str, column: str) -> pd.DataFrame:
    """Return the rows of groups in which a column has more than one value.

    For example, these are the images of patients with two sexes. Rows in which the column is
    missing are left out.

    Args:
        rows: Table with the two columns.
        group: Name of the column by which rows are grouped, such as ``patient_id``.
        column: Name of the column whose values are compared within a group, such as ``sex``.
    """
    present = rows[rows[column].notna()]
    group_codes = pd.factorize(present[group])[0]
    values = pd.DataFrame({"group": group_codes, "value": pd.factorize(present[column])[0]})
    lowest = values.groupby("group")["value"].transform("min").to_numpy()
    highest = values.groupby("group")["value"].transform("max").to_numpy()
    return present[lowest != highest]


def labels_of_images(labels: pd.DataFrame, image_ids: pd.Series) -> np.ndarray:
    """Return the labels of some images as an array.

    Args:
        labels: Label of each image (row, indexed by ``image_id``) for each target (column; findings
            that together make an image positive): 1 positive, 0 negative, NaN unknown.
        image_ids: Ids of N images, which may repeat.

    Returns:
        Labels, float64, shape ``(N, targets)``; NaN for an image that `labels` lacks.
    """
    rows = positions(image_ids, labels.index)
    values = labels.to_numpy(dtype="float64")
    chosen = values[rows] if len(values) else np.full((len(rows), values.shape[1]), np.nan)
    chosen[rows < 0] = np.nan
    return chosen
