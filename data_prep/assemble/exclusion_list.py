"""The user's list of images to leave out (option ``--exclude``)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.table_files import read_text_table, refuse_line
from cxr_compare.data_prep.sources.source_tables import SourceTables


def read_exclusions(path: Path) -> pd.DataFrame:
    """Read the user's list of images to leave out, with columns ``image_id`` and ``reason``.

    The CSV file needs the column ``image_id``; a missing reason becomes the name of the file.
    """
    rows = read_text_table(path, ["image_id"], ["reason"])
    rows["reason"] = rows["reason"].mask(rows["reason"] == "", f"named in {path.name}")
    return rows[["image_id", "reason"]].drop_duplicates("image_id")


def exclude_listed(tables: SourceTables, listed: pd.DataFrame, path: Path) -> SourceTables:
    """Move the listed images (``image_id``, ``reason``) from all tables to the table ``excluded``.

    `path` is the file of the list, for messages. A list of unknown images, or of all, is refused.
    """
    images = tables.images
    ids = listed["image_id"]
    unknown = pd.Series(~is_member(ids, images["image_id"]), index=ids.index)
    advice = f"whose ids look like {images['image_id'].iloc[0]!r}; correct the line or remove it"
    refuse_line(unknown, path, f" is no image of this source, {advice}", ids)
    kept: dict[str, Any] = {}
    for name in ("images", "findings", "boxes", "box_coverage", "split", "official"):
        table = getattr(tables, name)
        kept[name] = table[~is_member(table["image_id"], ids)].reset_index(drop=True)
    if kept["images"].empty:
        raise InputError(f"{path}: names every image of the source; keep some")
    paths = images.set_index("image_id")["path"].reindex(ids).fillna(pd.Series(ids.array, ids))
    gone = pd.DataFrame({"path": paths.array, "stage": "list", "reason": listed["reason"].array})
    kept["excluded"] = pd.concat([tables.excluded, gone], ignore_index=True)
    return replace(tables, **kept)
