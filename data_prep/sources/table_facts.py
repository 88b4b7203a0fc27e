"""Facts that label tables state of images, such as patient, view, age and size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, counted_phrase
from cxr_compare.data_prep.base.ids import TEXT, is_member
from cxr_compare.data_prep.base.names import missing_columns
from cxr_compare.data_prep.base.tables import VIEWS
from cxr_compare.data_prep.base.user_tables import refuse_line, to_numbers
from cxr_compare.data_prep.sources.label_table import LabelTable, Tables
from cxr_compare.data_prep.sources.patients import (
    add_patients,
    are_nih_images,
    mapped_patients,
)
from cxr_compare.data_prep.sources.shapes import LONGEST_SIDE_PX
from cxr_compare.data_prep.sources.statements import Source
from cxr_compare.data_prep.sources.words import years

FACTS = {
    "patient": "patient_id",
    "study": "study_id",
    "view": "view",
    "sex": "sex",
    "age": "age_years",
    "image_width": "width",
    "image_height": "height",
}
"""Column of the images table for each role that states a fact about the image."""

_MOST_IDS = 0.5  # share of rows with an id of a set from which its images are taken for the set's


def _read_facts(source: Source, table: LabelTable, *, sizes: bool) -> pd.DataFrame:
    """Return the facts of a table's rows, with ``image_id``; a cell without a fact is missing."""
    facts = table.images[["image_id"]].copy()
    joining = {column for column, _ in table.pairs}
    for role, columns in table.columns.items():
        is_fact = role in FACTS or role.startswith("x_")
        is_fact &= joining.isdisjoint(columns)
        if not columns or not is_fact or (role.startswith("image_") and not sizes):
            continue  # without boxes resized copies are welcome
        name = FACTS.get(role, role)
        cells = table.cells(role)
        filled = cells.mask(cells == "").astype(TEXT)
        if name == "patient_id" and are_nih_images(cells):
            facts = facts.join(mapped_patients(table.text, table.path, columns[0]))
        elif name == "view":
            is_view = filled.isna() | is_member(filled, VIEWS)
            facts[name] = filled.where(is_view, "other")
        elif name == "age_years":
            facts[name] = years(cells.rename(columns[0]), table.path)
            if n_odd := int((filled.notna() & facts[name].isna()).sum()):
                text = f"cells of '{cells.name}' are no age, and count as unknown"
                source.notes.append(counted_phrase(n_odd, text))
        elif name in ("width", "height"):
            facts[name] = _sides(cells.rename(name), table.path)
        elif name in table.rules.numbers:
            facts[name] = to_numbers(cells, table.path, name)
        else:
            facts[name] = filled
    field = table.rules.field
    if field and set(field) <= set(table.text.columns):
        facts = facts.join(field_sizes(table.text, table.path, field))
    return facts


def _columns_of(fact: str, tables: Tables) -> list[str]:
    """Return the columns of a fact that the user may leave out."""
    columns = [
        column
        for table in tables
        for role, listed in table.columns.items()
        for column in listed
        if FACTS.get(role, role) == fact and role not in table.rules.roles
    ]
    return list(dict.fromkeys(columns))


def _sides(cells: pd.Series, path: Path) -> pd.Series:
    """Return the sides of images, px; a cell that is no side is refused."""
    sides = to_numbers(cells, path, str(cells.name))
    is_side = sides.isna() | ((sides % 1 == 0) & sides.between(1, LONGEST_SIDE_PX))
    refuse_line(~is_side, path, " px is not the side of an image; correct or empty it", cells)
    return sides


def field_sizes(text: pd.DataFrame, path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Return the width and height in mm that each image shows, from four columns of a table."""
    missing = [name for name in columns if name not in text.columns]
    if missing:
        raise InputError(f"{path}: {missing_columns(missing)}; use the published file")
    width, height, across, down = (to_numbers(text[name], path, name) for name in columns)
    return pd.DataFrame({"field_width_mm": width * across, "field_height_mm": height * down})


def take_published_sizes(source: Source, tables: Tables) -> None:
    """Set the size of the published images of a set, if most images have ids of it."""
    for table in () if any(table.has("image_width") for table in tables) else tables:
        ids = table.images["image_id"]
        if table.rules.size and ids.str.fullmatch(table.rules.ids).mean() > _MOST_IDS:
            source.size = table.rules.size


def joined_facts(
    source: Source, tables: Tables, stated: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return what tables and label files state of each image; refuse two values of one image."""
    sizes = source.labels_alone or source.stretched or any(table.box_roles for table in tables)
    facts = [_read_facts(source, table, sizes=sizes) for table in tables]
    facts += [] if stated is None else [stated]
    rows = pd.concat(facts, ignore_index=True)
    repeated = rows[rows["image_id"].duplicated(keep=False)]
    several = repeated.groupby("image_id", sort=False).nunique().gt(1)
    if several.to_numpy().any():
        first = int(several.any(axis=1).to_numpy().argmax())
        image_id = several.index[first]
        fact = several.columns[int(several.iloc[first].to_numpy().argmax())]
        columns = _columns_of(fact, tables)
        ways = [tables[0].caller.remedy({"unused": columns}, "it does not count")]
        raise InputError(
            f"{tables[0].path}: the rows of {image_id} have several values for {fact}; correct "
            "them",
            ways if columns else [],
        )
    return rows.groupby("image_id", sort=False).first()


def add_facts(
    source: Source,
    tables: Tables,
    stated: pd.DataFrame | None = None,
    *,
    space: str = "",
) -> None:
    """Add what tables and label files state of images, and their patients; no lateral view counts.

    `space` is the name space of the patients, which the folder gives else.
    """
    space = space or source.root.resolve().name
    where = str(tables[0].path) if tables else str(source.root)
    facts = joined_facts(source, tables, stated)
    source.images = source.images.merge(facts.reset_index(), on="image_id", how="left")
    if "source" not in source.images:
        source.images["source"] = space
    if "view" in source.images and not source.options.caller.compares:  # it takes any view
        is_lateral = source.images["view"].eq("LL")
        source.exclude(source.images.loc[is_lateral, "image_id"], "lateral view")
    pattern = next((t.rules.patient_pattern for t in tables if t.rules.patient_pattern), None)
    columns = [
        column
        for table in tables
        for column in table.columns_of("patient")
        if "patient" not in table.answered and not table.rules.roles
    ]
    column = next(iter(columns), "")
    add_patients(source, space, pattern, where=where, column=column)
