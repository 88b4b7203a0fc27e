"""Facts that label tables state of images beside labels: patient, view, sex, age, size and role."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.contracts.column_names import missing_columns
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.schemas import ROLE_NAMES, ROLES
from cxr_compare.data_prep.contracts.table_files import refuse_line, to_numbers
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.descriptions import FACTS
from cxr_compare.data_prep.sources.label_table import LabelTable
from cxr_compare.data_prep.sources.label_values import normal_views, years
from cxr_compare.data_prep.sources.statements import Source

LONGEST_SIDE_PX = 1_000_000
"""Longest side of an image that a label file may state, px."""


def read_facts(table: LabelTable, *, sizes: bool) -> pd.DataFrame:
    """Return the facts of a table's rows, with ``image_id``; a cell without a fact is missing.

    With `sizes`, the width and height of the images that its boxes are of are read, too.
    """
    facts = table.images[["image_id"]].copy()
    for role, columns in table.columns.items():
        size_only = role.startswith("image_") and not sizes  # resized copies are welcome
        if columns and not size_only and (role in FACTS or role.startswith("x_")):
            facts[FACTS.get(role, role)] = table.cells(role)
    path = table.path
    for column in facts.columns:
        cells = facts[column]
        if column == "view":
            facts[column] = normal_views(cells)
        elif column == "age_years":
            facts[column] = years(cells.rename(table.columns["age"][0]), path)
        elif column in ("width", "height"):
            facts[column] = _sides(cells.rename(column), facts["image_id"], path)
        elif column == "split":
            facts[column] = _roles(cells, path)
        elif column in table.rules.numbers:
            facts[column] = to_numbers(cells, path, column)
        elif column != "image_id":
            facts[column] = cells.astype(TEXT).where(cells != "")
    field = table.rules.field
    if field and set(field) <= set(table.text.columns):
        facts = facts.join(field_sizes(table.text, path, field))
    return facts


def field_sizes(text: pd.DataFrame, path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Return the width and height in mm that each image shows, from four columns of a table.

    They are the width and height (px) and the pixel spacing in x and y (mm) of the original image.
    """
    missing = [name for name in columns if name not in text.columns]
    if missing:
        raise InputError(f"{path}: {missing_columns(missing)}; use the published file")
    width, height, across, down = (to_numbers(text[name], path, name) for name in columns)
    return pd.DataFrame({"field_width_mm": width * across, "field_height_mm": height * down})


def _sides(cells: pd.Series, image_ids: pd.Series, path: Path) -> pd.Series:
    """Return the heights or widths of images; refuse those that no image can have."""
    sides = to_numbers(cells, path, str(cells.name))
    known = sides.dropna()
    wrong = known[(known < 1) | (known > LONGEST_SIDE_PX) | (known % 1 != 0)]
    if len(wrong):
        raise InputError(
            f"{path}: image {image_ids[wrong.index[0]]!r}: {cells.name}={wrong.iloc[0]:g} px is "
            "not the side of an image; correct it, or leave the cell empty"
        )
    return sides


def _roles(cells: pd.Series, path: Path) -> pd.Series:
    """Return train, val, test or unused of each row; all are missing if the column is empty."""
    if (cells == "").all():
        return cells.where(cells != "")
    roles = cells.str.strip().str.lower().map(ROLE_NAMES)
    expected = f"; expected one of {', '.join(ROLES)} on every line, or no split column"
    refuse_line(roles.isna(), path, expected, cells.rename("split"))
    return roles.astype(TEXT)


def take_facts(source: Source, images: pd.DataFrame, facts: Sequence[pd.DataFrame]) -> None:
    """Set the images of a source, with the facts of its tables; lateral views are left out.

    Where tables state different facts of an image, the first table counts.
    """
    rows = pd.concat(facts, ignore_index=True).groupby("image_id", sort=False).first()
    source.images = images.merge(rows.reset_index(), on="image_id", how="left")
    if "view" in source.images:
        is_lateral = source.images["view"].eq("LL")
        source.exclude(source.images.loc[is_lateral, "image_id"], "lateral view")


def refuse_differing(facts: Sequence[pd.DataFrame], where: str) -> None:
    """Refuse tables that state different facts of an image."""
    several = pd.concat(facts, ignore_index=True).groupby("image_id", sort=False).nunique().gt(1)
    if several.to_numpy().any():
        image = several.any(axis=1).idxmax()
        column = several.any().idxmax()
        raise InputError(
            f"{where}: the rows of {image} have several values for {column}; correct them, or "
            "leave the column out with --columns unused=COLUMN"
        )
