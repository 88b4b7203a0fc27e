"""Subgroups of images by the columns of their table, such as sex, age and view."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError

Groups = npt.NDArray[np.object_]
"""Name of the group of each image or lesion; "" where the group is unknown."""
_DEFAULT = ("sex", "age_band", "source", "view")
_AGE_EDGES = (18, 40, 60, 80)
_AGE_NAMES = ("under 18", "18 to 39", "40 to 59", "60 to 79", "80 up")
MOST_GROUPS = 12
"""Largest number of groups that a column may have."""


def image_groups(images: pd.DataFrame, columns: Sequence[str] = ()) -> dict[str, Groups]:
    """Group images by columns of their table, such as sex, for figures by subgroup.

    ``a*b`` groups by two columns at once. By default sex, age band, source and view (projection)
    are used, if they are known and have 2 to 12 groups. An unknown group is "". InputError if a
    requested column does not exist, or has more than 12 values.

    Example:
        >>> table = pd.DataFrame({"sex": ["F", None, "M"], "age_years": [70.0, 30.0, None]})
        >>> {name: groups.tolist() for name, groups in image_groups(table).items()}
        {'sex': ['F', '', 'M'], 'age_band': ['60 to 79', '18 to 39', '']}
    """
    groups_of: dict[str, Groups] = {}
    requested = ["age_band" if name == "age_years" else name for name in columns or _DEFAULT]
    for column in dict.fromkeys(requested):
        source = "age_years" if column == "age_band" else column
        if source not in images and "*" not in column:
            if columns:
                hidden = ("image_id", "path", "file_sha256")
                names = ", ".join(str(name) for name in images if name not in hidden)
                raise InputError(f"subgroup '{column}': the images have no such column; {names}")
            continue
        if "*" in column:
            groups = _intersections(images, column)
        else:
            values = _age_bands(images[source]) if column == "age_band" else images[source]
            groups = values.astype(object).where(values.notna(), "").astype(str).to_numpy(object)
        n_groups = len(set(groups) - {""})
        if n_groups > MOST_GROUPS:
            if columns:
                raise InputError(
                    f"subgroup '{column}': has {n_groups} values; at most {MOST_GROUPS} are shown"
                )
            continue
        if n_groups > 1 or (columns and n_groups):
            groups_of[column] = groups
    return groups_of


def _intersections(images: pd.DataFrame, columns: str) -> Groups:
    """Join the groups of two columns; "" where either is unknown."""
    both: list[Groups] = []
    for column in columns.split("*"):
        both += image_groups(images, [column]).values()
    if len(both) != 2:
        raise InputError(f"subgroup '{columns}': give two columns whose values are known: sex*view")
    joined = [f"{one}, {other}" if one and other else "" for one, other in zip(*both, strict=True)]
    return np.array(joined, dtype=object)


def _age_bands(years: pd.Series) -> pd.Series:
    numbers = years.to_numpy(np.float64, na_value=np.nan)
    names = np.array(_AGE_NAMES, dtype=object)[np.digitize(np.nan_to_num(numbers), _AGE_EDGES)]
    return pd.Series(np.where(np.isnan(numbers), None, names), index=years.index, dtype=object)
