"""Groups of images and of lesions, in which a system may fail more than in others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep.contracts.errors import InputError
from evaluation.metrics.evaluation_set import EvaluationSet
from evaluation.statistics.ranking import Floats

Groups = npt.NDArray[np.object_]
"""Name of each image's or lesion's group, "" where it is unknown."""

_DEFAULT = ("sex", "age_band", "source", "view")
_AGE_EDGES, _AGE_NAMES = (18, 40, 60, 80), ("under 18", "18 to 39", "40 to 59", "60 to 79", "80 up")
MOST_GROUPS = 12
FIELD_MM = (250.0, 500.0)
"""A chest X-ray shows this much, from side to side: another width means a wrong pixel spacing."""
SIZE_EDGES_MM, _SIZE_NAMES_MM = (30.0, 60.0), ("up to 30 mm", "30 to 60 mm", "over 60 mm")
SIZE_EDGES, _SIZE_NAMES = (
    (0.02, 0.06),
    ("up to 2 % of the image", "2 to 6 % of the image", "over 6 % of the image"),
)


def image_groups(images: pd.DataFrame, columns: Sequence[str] = ()) -> dict[str, Groups]:
    """Group images by what the images table knows of them.

    Example:
        >>> table = pd.DataFrame({"sex": ["F", None, "M"], "age_years": [70.0, 30.0, None]})
        >>> {name: groups.tolist() for name, groups in image_groups(table).items()}
        {'sex': ['F', '', 'M'], 'age_band': ['60 to 79', '18 to 39', '']}
    """
    found: dict[str, Groups] = {}
    for column in dict.fromkeys("age_band" if c == "age_years" else c for c in columns or _DEFAULT):
        source = "age_years" if column == "age_band" else column
        if source not in images:
            if columns:
                known = ", ".join(
                    str(c) for c in images if c not in ("image_id", "path", "file_sha256")
                )
                raise InputError(f"subgroup '{column}': the images have no such column; {known}")
            continue
        values = _age_bands(images[source]) if column == "age_band" else images[source]
        groups = values.astype(object).where(values.notna(), "").astype(str).to_numpy(object)
        names = set(groups) - {""}
        if len(names) > MOST_GROUPS:
            if columns:
                raise InputError(
                    f"subgroup '{column}': has {len(names)} values; at most {MOST_GROUPS} are shown"
                )
            continue
        if len(names) > 1 or (columns and names):
            found[column] = groups
    return found


def _age_bands(years: pd.Series) -> pd.Series:
    numbers = years.to_numpy(np.float64, na_value=np.nan)
    names = np.array(_AGE_NAMES, dtype=object)[np.digitize(np.nan_to_num(numbers), _AGE_EDGES)]
    return pd.Series(np.where(np.isnan(numbers), None, names), index=years.index, dtype=object)


def lesion_groups(
    truth: pd.DataFrame, image: npt.NDArray[np.int64], images: pd.DataFrame
) -> dict[str, Groups]:
    """Group true lesions by size, number in the image, place and view."""
    corners = truth[["x1", "y1", "x2", "y2"]].to_numpy(np.float64)
    sides = corners[:, 2:] - corners[:, :2]
    centre = (corners[:, :2] + corners[:, 2:]) / 2
    height, width = (images[name].to_numpy(np.float64)[image] for name in ("height", "width"))
    share = sides.prod(axis=1) / (height * width)
    count = np.bincount(image, minlength=len(images))[image]
    found: dict[str, Groups] = {
        "lesion_size": _cut(share, SIZE_EDGES, _SIZE_NAMES),
        "lesion_count": np.array(["1", "2", "3 or more"], dtype=object)[np.minimum(count, 3) - 1],
        "third": _cut(centre[:, 1] / height, (1 / 3, 2 / 3), ("upper", "middle", "lower")),
        "side": _cut(centre[:, 0] / width, (0.5,), ("left of the image", "right of the image")),
    }
    spacing = _trusted_spacing(images)[image]
    if not np.isnan(spacing).all():
        millimetres = np.sqrt((sides * spacing).prod(axis=1))
        sizes = _cut(millimetres, SIZE_EDGES_MM, _SIZE_NAMES_MM)
        found["lesion_size_mm"] = np.where(np.isnan(millimetres), "", sizes)
    if "view" in images:
        views = images["view"].astype(object)
        found["view"] = views.where(views.notna(), "").to_numpy(object)[image]
    return {topic: groups for topic, groups in found.items() if len(set(groups) - {""}) > 1}


def _trusted_spacing(images: pd.DataFrame) -> Floats:
    """Pixel spacing of each image in mm (column, row), NaN where it cannot be right.

    Example:
        >>> table = pd.DataFrame({"width": [2000, 1024], "spacing_row_mm": [0.2, 0.143],
        ...                       "spacing_col_mm": [0.2, 0.143]})
        >>> _trusted_spacing(table).tolist()
        [[0.2, 0.2], [nan, nan]]
    """
    names = ["spacing_col_mm", "spacing_row_mm"]
    if not set(names) <= set(images):
        return np.full((len(images), 2), np.nan)
    spacing = images[names].astype("float64").to_numpy(np.float64)
    field = spacing[:, 0] * images["width"].to_numpy(np.float64)
    wrong = ~((field >= FIELD_MM[0]) & (field <= FIELD_MM[1]))
    return np.where(wrong[:, None], np.nan, spacing)


def _cut(values: Floats, edges: Sequence[float], names: Sequence[str]) -> Groups:
    return np.array(names, dtype=object)[np.digitize(values, edges, right=True)]


def images_of(judged: EvaluationSet, images: pd.DataFrame) -> pd.DataFrame:
    """Rows of the images table in the order of the judged images."""
    rows = images.drop_duplicates("image_id").set_index("image_id")
    return rows.reindex(judged.image_ids).reset_index()
