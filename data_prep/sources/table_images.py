"""Images of the rows of label tables, by the names that the rows give them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, counted
from cxr_compare.data_prep.base.ids import TEXT, is_member, renamed
from cxr_compare.data_prep.base.image_names import Names, folders_agree, without_ending
from cxr_compare.data_prep.sources.image_files import (
    columns_of_images,
    ids_of_paths,
    require_unique_ids,
)
from cxr_compare.data_prep.sources.label_table import LABEL_ROLES, LabelTable, Tables
from cxr_compare.data_prep.sources.source import unlabelled_line
from cxr_compare.data_prep.sources.statements import Source
from cxr_compare.data_prep.sources.table_keys import match_rows, table_keys

EMPTY_EDGES = "give each a row with its name and empty edges"
"""Way in which a table of boxes says that images show nothing."""


def name_images(
    source: Source, tables: Tables, marked: Sequence[str] = ()
) -> tuple[list[LabelTable], dict[str, str]]:
    """Give each image its id; return the tables with the images of their rows, and ids by path."""
    by_file = [table for table in tables if not table.pairs]
    cells = [table.cells("file") for table in by_file]
    if source.labels_alone and tables:  # a table alone, whose images need not be there
        partly = by_file[0].has(*LABEL_ROLES)  # where boxes are the labels, each counts
        as_first = (_as_first(source, table, cells[0], partly=partly) for table in by_file[1:])
        cells = [cells[0], *as_first]
    path_of = _find_images(pd.concat(cells).dropna(), source) if tables else {}
    paths = pd.DataFrame({"path": list(dict.fromkeys([*marked, *path_of.values()]))}, dtype=TEXT)
    to_ids = ids_of_names if source.labels_alone else ids_of_paths
    source.images = images = paths.assign(image_id=to_ids(paths["path"]))
    require_unique_ids(images, source.root)
    id_of = dict(images[["path", "image_id"]].itertuples(index=False, name=None))
    all_paths = () if source.index is None else source.index.images
    of_several = {path for paths in source.ambiguous.values() for path in paths} - {*id_of}
    n_unlisted = len(set(all_paths) - {*id_of, *source.left_out, *of_several})
    if n_unlisted:
        way = way_to_show_nothing(source, tables)
        source.notes.append(unlabelled_line(n_unlisted, "left out", way))
    with_images: dict[LabelTable, LabelTable] = {}
    for table, names in zip(by_file, cells, strict=True):
        path = renamed(names, path_of)
        rows = {"row": range(len(path)), "image_id": renamed(path, id_of), "path": path}
        with_images[table] = table.with_images(pd.DataFrame(rows).dropna())
        if with_images[table].images.empty and not source.labels_alone:
            raise _no_image(source, table, names)
    if len(with_images) < len(tables):
        keys = table_keys(source, [*with_images.values()])
        with_images |= {t: match_rows(source, t, keys) for t in tables if t.pairs}
    return [with_images[table] for table in tables], id_of


def ids_of_names(names: pd.Series) -> pd.Series:
    """Return ids of images without files: their names, without an ending if they stay apart."""
    short = names.map(without_ending).astype(TEXT)
    return short.where(~short.duplicated(keep=False), names)


def way_to_show_nothing(source: Source, tables: Tables) -> str:
    """Return how label files of the format, or rows of tables, say that images show nothing."""
    if source.format.shows_nothing:
        return source.format.shows_nothing
    if any(table.has("label") and not table.has("state") for table in tables):
        return "give each a row with the label 'normal'"
    if any(table.has("finding", "state") for table in tables):
        return "give each a row with 0 for each finding"
    return EMPTY_EDGES


def _as_first(source: Source, table: LabelTable, first: pd.Series, *, partly: bool) -> pd.Series:
    """Return the images of a table by their names in the first one; missing for other images."""
    cells = table.cells("file")
    remedy = "give each the name that it has there, or leave this table out"
    name_of, note = Names(first).match(cells, str(table.path), remedy=remedy, partly=partly)
    source.notes += [note] if note else []
    names = renamed(cells, name_of)
    if n_others := cells[names.isna()].nunique():
        others = counted(n_others, "image")
        source.notes.append(f"{table.path}: the boxes of {others} outside the truth are left out.")
    return names


def _find_images(cells: pd.Series, source: Source) -> dict[str, str]:
    """Return the path of each image by its name in the tables; exclude names that fit no image."""
    names = cells.unique().tolist()
    if source.index is None:
        return {name: name for name in names}
    names_of: dict[str, list[str]] = {}
    for name, path in source.find_images(names).items():
        names_of.setdefault(path, []).append(name)
    if source.ambiguous:
        n_rows = int(is_member(cells, source.ambiguous).sum())
        name, paths = next(iter(source.ambiguous.items()))
        line = (
            f"{counted(n_rows, 'row', 'name')} several images, as '{name}' fits "
            f"{paths[0]} and {paths[1]}: write the folder, too, as in {paths[0]}"
        )
        if 2 * n_rows > len(cells):
            raise InputError(f"{source.root}: {line}")
        source.notes.append(f"{line}; no label is taken from such a row")
    path_of: dict[str, str] = {}
    for path, names_of_image in names_of.items():
        if all(folders_agree(name, names_of_image[0]) for name in names_of_image):
            path_of |= dict.fromkeys(names_of_image, path)
        else:
            source.exclude(
                names_of_image, f"fits {path}, as {names_of_image[0]} and {names_of_image[1]} do"
            )
    return path_of


def _no_image(source: Source, table: LabelTable, names: pd.Series) -> InputError:
    """Return the error of a table whose names are of no image, with the columns that are."""
    name = names.iloc[0]
    columns = columns_of_images(table.text, source.has_image) or ["COLUMN"]
    return InputError(
        f"{table.path}: none of its {names.nunique()} {names.name} names an image in "
        f"{source.root}, such as {name!r} ({source.left_out.get(name, 'no such image')}); the "
        f"folder holds {next(iter(source.files.images), 'no image')}: is it the right one?",
        [
            *(table.caller.remedy({"file": c}, f"'{c}' names the image") for c in columns),
            table.caller.remedy({"unused": str(names.name)}, f"'{names.name}' counts rows"),
        ],
    )
