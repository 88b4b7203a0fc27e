"""Groups of images by columns of their table, such as sex, age and view."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.evaluation.truth import numbers_of

FEWEST = 5
"""Number of patients of a group below which its figures have no interval."""
_DEFAULT = ("sex", "age_band", "source", "view")
_AGES = {18: "under 18", 40: "18 to 39", 60: "40 to 59", 80: "60 to 79", 200: "80 up"}
_AGE = ("age", "age_years", "age_band")
_MOST_GROUPS = 12
_NO_GROUPS = (
    "label",
    "patient_id",
    "is_assumed",
    "study_id",
    "role",
    "synthetic",
    "width",
    "height",
)
Groups = npt.NDArray[np.object_]
"""Name of the group of each image or lesion; "" where the group is unknown."""


def image_groups(images: pd.DataFrame, columns: Sequence[str] = ()) -> dict[str, Groups]:
    """Group images by columns of their table; by default sex, age band, source and view.

    A column of the user's own is stored as ``x_`` and its name, and found by both. InputError if a
    requested column does not exist, or has more than 12 values.

    Examples:
        >>> table = pd.DataFrame({"sex": ["F", None, "M"], "age_years": [70.0, 30.0, None]})
        >>> {name: groups.tolist() for name, groups in image_groups(table).items()}
        {'sex': ['F', '', 'M'], 'age_band': ['60 to 79', '18 to 39', '']}
    """
    groups_of: dict[str, Groups] = {}
    for name in dict.fromkeys(columns or _DEFAULT):
        topic = "age_band" if name.lower() in _AGE else name
        source = _column(images, "age_years" if topic == "age_band" else name)
        if source is None:
            if columns:
                names = ", ".join(str(column) for column in images if column not in _NO_GROUPS)
                raise InputError(
                    f"subgroups: there is no column '{name}'; there are {names or 'none'}"
                )
            continue
        values = images[source]
        if topic == "age_band":
            edges = [-np.inf, *_AGES]
            years = numbers_of(images, [source])[source]
            values = pd.cut(years, edges, right=False, labels=[*_AGES.values()])
        groups = values.astype(object).where(values.notna(), "").astype(str).to_numpy(object)
        n_groups = len(set(groups) - {""})
        if columns and n_groups > _MOST_GROUPS:
            raise InputError(
                f"subgroups: '{name}' has {n_groups} values; at most {_MOST_GROUPS} are shown"
            )
        if 1 < n_groups <= _MOST_GROUPS or (columns and n_groups):
            groups_of[topic] = groups
    return groups_of


def in_order(groups: Groups) -> list[str]:
    """Return the names of the known groups: bands of age from the lowest up, others by name."""
    ages = [*_AGES.values()]
    names = set(groups) - {""}
    return sorted(names, key=lambda name: (ages.index(name) if name in ages else -1, name))


def _column(images: pd.DataFrame, name: str) -> str | None:
    """Return the column of images that a user names; None if there is none."""
    names = (name, name.lower(), f"x_{name.lower()}")
    return next((candidate for candidate in names if candidate in images), None)
