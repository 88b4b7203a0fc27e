"""Format `table`: one or more label tables with any columns, and a folder of images."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.table_files import is_spreadsheet, is_table_file
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.formats.columns import FACTS, SIDES
from cxr_compare.data_prep.formats.csv_files import tables_from_image_rows
from cxr_compare.data_prep.formats.folder_scan import has_columns
from cxr_compare.data_prep.formats.image_index import ImageIndex
from cxr_compare.data_prep.formats.label_table import read_label_tables
from cxr_compare.data_prep.formats.patients import patients_from_names
from cxr_compare.data_prep.formats.source import Format, SourceBuilder, SourceTables
from cxr_compare.data_prep.formats.statements import read_labels_and_boxes
from cxr_compare.data_prep.formats.views import normal_views


def _read_table_set(builder: SourceBuilder) -> SourceTables:
    """Read the label tables of the user and find the images that they name."""
    tables = read_label_tables(builder)
    names = pd.concat([table.cells("file") for table in tables]).unique().tolist()
    paths = pd.Series(_find_images(names, builder), dtype=TEXT)
    bare = paths.map(_bare).str[1:]
    stem = bare.map(posixpath.basename)
    alone = stem.groupby(stem).transform(lambda same: paths[same.index].nunique()) == 1
    files = pd.DataFrame({"path": paths, "image_id": stem.where(alone, bare)})
    for table in tables:
        named = pd.DataFrame({"name": table.cells("file"), "row": range(len(table.text))})
        table.keep_matches(named.merge(files, left_on="name", right_index=True))
    images = _facts(tables, builder).merge(files.drop_duplicates(), on="path")
    if "view" in images:
        lateral = normal_views(images["view"]) == "LL"
        builder.exclusions.add(images.loc[lateral, "image_id"], "lateral view")
    labels, boxes = read_labels_and_boxes(builder, tables)
    sides = [(t, high, side) for t in tables for _, high, side, _ in SIDES if t.has(high)]
    advice = ",".join(f"{side}={table.columns[high][0]}" for table, high, side in sides)
    path = tables[0].path
    if_widths = f"Say --columns {advice}"
    return tables_from_image_rows(builder, images, labels, boxes, path, if_widths=if_widths)


def _find_images(names: Sequence[str], builder: SourceBuilder) -> dict[str, str]:
    """Return the path of each image by its name in the tables; exclude names that fit no image."""
    if builder.root.is_file():  # a table alone, whose images need not be there
        return {name: name for name in names}
    index = ImageIndex(builder.root)
    path_by_name = {}
    times = Counter(posixpath.basename(name) for name in names)
    for name in names:
        matches = index.by_name(name, ("", "images"))
        if len(matches) > 1 or times[posixpath.basename(name)] > 1:  # the folders must agree, too
            ends = [(_bare(name), _bare(path)) for path in matches]
            agree = [one.endswith(other) or other.endswith(one) for one, other in ends]
            matches = [path for path, agrees in zip(matches, agree, strict=True) if agrees]
        if len(matches) == 1:
            path_by_name[name] = matches[0]
        else:
            builder.exclusions.add(
                [name], f"fits {len(matches)} images" if matches else "no such image"
            )
    if not path_by_name:
        raise InputError(
            f"{builder.root}: holds {next(iter(index.paths), 'no image')}, but none of the "
            f"{len(names)} images that the table names, such as {names[0]!r}; give the right "
            "folder, or the right column with --columns file=COLUMN"
        )
    if n_unlisted := len(index.paths) - len(set(path_by_name.values())):
        builder.notes.append(
            f"{counted(n_unlisted, 'image', 'have')} no row in the table and were left out. Where "
            "an image was read and shows nothing, add a row with the label 'normal'"
        )
    return path_by_name


def _bare(path: str) -> str:
    return "/" + posixpath.splitext(path.replace("\\", "/"))[0].lstrip("./")


def _facts(tables: Sequence[Any], builder: SourceBuilder) -> pd.DataFrame:
    """Collect what the tables state of each image beside labels, as columns of `images.csv`."""
    space = builder.root.resolve().name
    parts = []
    has_boxes = any(table.box_roles for table in tables)
    for table in tables:
        frame = table.images[["path"]]
        for role, columns in table.columns.items():
            size_only = role.startswith("image_") and not has_boxes  # resized copies are welcome
            if columns and not size_only and (role in FACTS or role.startswith("x_")):
                frame = frame.assign(**{FACTS.get(role, role): table.cells(role)})
        pattern = builder.options.patient_pattern or table.known.get("patient_pattern")
        if pattern and "patient_id" not in frame:
            frame["patient_id"] = patients_from_names(table.cells("file"), pattern, space)
        parts.append(frame)
    rows = pd.concat(parts).replace("", None)
    several = rows.groupby("path").nunique().gt(1)
    if several.to_numpy().any():
        path = several.any(axis=1).idxmax()
        column = several.any().idxmax()
        raise InputError(
            f"{tables[0].path}: the rows of {path} have several values for {column}; correct them, "
            "or leave the column out with --columns unused=COLUMN"
        )
    facts = rows.groupby("path").first().fillna("").reset_index()
    facts["patient_id"] = facts.get("patient_id", "")
    if "age_years" in facts:
        facts["age_years"] = facts["age_years"].str.replace(r"^0*(\d+)[Yy]$", r"\1", regex=True)
    return facts


def _holds_table(folder: Path) -> bool:
    """Return True if a folder holds a table that may be one of labels."""
    return first_table(folder) is not None


def first_table(folder: Path) -> Path | None:
    """Return the path of a label table in a user's folder.

    Args:
        folder: Folder to search.

    Returns:
        The first file with a column that names images, else the first spreadsheet, else None.
    """
    names = ("image_id", "image", "filename", "file", "path", "image_path", "image index")
    paths = sorted(path for path in folder.glob("*") if is_table_file(path))
    naming = (path for path in paths if any(has_columns(path, name) for name in names))
    return next(naming, None) or next(filter(is_spreadsheet, paths), None)


TABLE = Format(
    name="table",
    title="one table of labels with a folder of images",
    folder="images in any folders: `cxr prepare labels.csv IMAGES OUT`",
    detect=_holds_table,
    read=_read_table_set,
    options=("labels", "sheet", "columns", "reference", "class_names", "patient_pattern"),
    is_deep=True,
)
