"""What is known of one image beside its truth: view, sex, age, and how its greys came about."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from data_prep.contracts.tables import read_table

if TYPE_CHECKING:
    from data_prep.store.dataset import DataSet

_VOI = {
    "full_range": "full range",
    "percentiles": "range of the pixels",
    "lut": "grey table of the file",
}


class ImageFacts:
    """Words for any image of a data set.

    Args:
        dataset: Its images table, and its decode table where there is one.
    """

    def __init__(self, dataset: DataSet) -> None:
        self._images = dataset.images.drop_duplicates("image_id").set_index("image_id")
        self._folder = getattr(dataset, "folder", None)

    @cached_property
    def _decoded(self) -> pd.DataFrame:
        """How each image was decoded; empty for a set without pixels."""
        path = None if self._folder is None else self._folder / "decode.parquet"
        if path is None or not path.exists():
            return pd.DataFrame()
        return read_table(path, "decode").set_index("image_id")

    def words(self, image_id: str) -> str:
        """Say view, sex, age, window and inversion, as far as the data set knows them."""
        row: Any = self._images.loc[image_id] if image_id in self._images.index else {}
        words = [str(row[name]) for name in ("view", "sex") if not pd.isna(row.get(name))]
        if not pd.isna(row.get("age_years")):
            words.append(f"{row['age_years']:.0f} years")
        if image_id in self._decoded.index:
            words.append(
                display_words(
                    {str(key): value for key, value in self._decoded.loc[image_id].items()}
                )
            )
        return ", ".join(words)


def display_words(decoded: dict[str, Any]) -> str:
    """Say how stored grey values became the ones on the screen.

    Args:
        decoded: ``voi``, ``window_center``, ``window_width``, ``inverted`` of the decode table.

    Example:
        >>> display_words({"voi": "window", "window_center": 40.0, "window_width": 400.0,
        ...                "inverted": True})
        'window 40/400 of the file, inverted'
        >>> display_words({"voi": "full_range", "inverted": False})
        'full range, not inverted'
    """
    voi, centre, width = (decoded.get(key) for key in ("voi", "window_center", "window_width"))
    told = "grey as stored" if pd.isna(voi) else _VOI.get(str(voi), str(voi).replace("_", " "))
    if not (pd.isna(centre) or pd.isna(width)):
        told = f"window {centre:g}/{width:g} of the file"
    return f"{told}, {'' if decoded.get('inverted') else 'not '}inverted"
