"""All splits of a data set that is being written: drawn, the publisher's, the user's, and grown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from data_prep.contracts.tables import read_json, read_table
from data_prep.contracts.text_lookup import is_member
from data_prep.formats.source import SourceTables
from data_prep.splits.add_split import draw_split, image_strata, picture_links
from data_prep.splits.given_split import official_split
from data_prep.splits.split import SplitRule, extend_split

Made = tuple[pd.DataFrame, dict[str, Any]]
"""A split table, and a JSON-ready mapping that says how it was made."""


def make_splits(
    folder: Path,
    tables: SourceTables,
    decode: pd.DataFrame,
    rule: SplitRule,
    default: str | Made | None = None,
) -> dict[str, Made]:
    """Make the splits of a data set, or bring those it has to its present images.

    Args:
        folder: The data set; splits that lie there are kept, and images that are new get the role
            of their patient, or one by the rule that the split was drawn by.
        tables: The complete tables.
        decode: The decode table: patients who share a picture stay together.
        rule: How the default split is drawn.
        default: The default split instead: ``official``, where the source has one, or one that the
            user gave.

    Returns:
        ``default`` and, where the publisher has one, ``official``, and whatever was there.
    """
    linked = picture_links(decode)
    made: dict[str, Made] = {}
    for path in sorted((folder / "splits").glob("*.json")):
        made[path.stem] = _grow(path, tables, linked, rule)
    if "official" not in made and len(tables.official):
        strata = image_strata(tables.images, tables.findings)
        made["official"] = official_split(
            tables.official, tables.images, linked, rule, strata=strata
        )
    if "default" not in made:
        made["default"] = _default(tables, decode, rule, default, made, linked)
    return made


def _default(
    tables: SourceTables,
    decode: pd.DataFrame,
    rule: SplitRule,
    default: str | Made | None,
    made: dict[str, Made],
    linked: pd.Series | None,
) -> Made:
    if default is None:
        return draw_split(tables.images, tables.findings, decode, tables.split, rule, linked)
    if isinstance(default, tuple):
        split, how = default
        return split[is_member(split["image_id"], tables.images["image_id"])], how
    return made["official"]


def _grow(path: Path, tables: SourceTables, linked: pd.Series | None, rule: SplitRule) -> Made:
    """A split that is there, for the images of now: old ones keep their roles."""
    split = read_table(path.with_suffix(".parquet"), "split")
    how = read_json(path, "split")["how"]
    images = tables.images
    kept = split[is_member(split["image_id"], images["image_id"])]
    n_new = len(images) - len(kept)
    if not n_new:
        return kept, how
    forced = tables.split[
        is_member(tables.split["image_id"], images["image_id"])
        & ~is_member(tables.split["image_id"], kept["image_id"])
    ]
    known = pd.concat([kept, forced.assign(fold=pd.array([pd.NA] * len(forced), dtype="Int64"))])
    stated = {key: value for key, value in how.get("rule", {}).items() if value is not None}
    drawn_by = SplitRule(**stated) if stated else rule
    strata = image_strata(images, tables.findings)
    grown = extend_split(known, images, strata, drawn_by, linked)
    return grown, {**how, "n_images_added": how.get("n_images_added", 0) + n_new}
