"""Format `table`: one or more label tables with any columns, and a folder of images."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.contracts.column_names import column_names, find_column
from cxr_compare.data_prep.contracts.errors import InputError, counted, counted_phrase
from cxr_compare.data_prep.contracts.ids import spelling_key
from cxr_compare.data_prep.contracts.table_files import is_spreadsheet, is_table_file, read_header
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.image_facts import read_facts, refuse_differing, take_facts
from cxr_compare.data_prep.sources.image_files import (
    ImageIndex,
    folders_agree,
    ids_of_paths,
    require_unique_ids,
)
from cxr_compare.data_prep.sources.label_rows import table_statements
from cxr_compare.data_prep.sources.label_table import LabelTable
from cxr_compare.data_prep.sources.patients import add_patients
from cxr_compare.data_prep.sources.source_tables import Format, ReadOptions, Show, SourceTables
from cxr_compare.data_prep.sources.statements import Source, build
from cxr_compare.data_prep.sources.table_roles import read_tables, recognise_tables


def _read(root: Path, options: ReadOptions, show: Show) -> SourceTables:
    """Read the label tables of the user and find the images that they name."""
    if not options.labels:
        raise InputError("--format table: say cxr prepare labels.csv IMAGES OUT")
    source = Source("table", root, options, show)
    return read_own_tables(source, recognise_tables(read_tables(source, options.labels), source))


def read_own_tables(source: Source, tables: Sequence[LabelTable]) -> SourceTables:
    """Find the images that recognised tables name, and make the tables of the data set."""
    source.index = None if source.root.is_file() else ImageIndex(source.root)
    name_images(source, tables)
    add_facts(source, tables)
    table_statements(source, tables)
    return build(source, coverage="localised")


def name_images(
    source: Source,
    tables: Sequence[LabelTable],
    marked: Sequence[str] = (),
) -> dict[str, str]:
    """Give each image its id and each row of the tables its image; return the ids by path.

    The ``images`` of the source become those that the tables or label files (`marked`, paths) name.
    Tables of which no image is there, and two images with one id, are refused.
    """
    named: dict[str, str] = {}
    if tables:
        names = pd.concat([table.cells("file") for table in tables]).unique().tolist()
        named = _find_images(names, source)
    paths = pd.DataFrame({"path": list(dict.fromkeys([*marked, *named.values()]))}, dtype=TEXT)
    images = paths.assign(image_id=ids_of_paths(paths["path"]))
    require_unique_ids(images, source.root)
    source.images = images
    if source.index is not None:
        _note_unlisted(source, source.index, with_tables=bool(tables))
    files = pd.DataFrame({"name": list(named), "path": list(named.values())}, dtype=TEXT)
    files = files.merge(images, on="path")
    for table in tables:
        rows = pd.DataFrame({"name": table.cells("file"), "row": range(len(table.text))})
        table.keep_matches(rows.merge(files, on="name"))
    if source.index is None and tables:
        _require_labelled(tables, files.set_index("name")["image_id"])
    return dict(zip(images["path"], images["image_id"], strict=True))


def _note_unlisted(source: Source, index: ImageIndex, *, with_tables: bool) -> None:
    """Note the images of the folder that no table and no label file names."""
    n_unlisted = len(set(index.paths) - set(source.images["path"]))
    text = "images are in no label file: these are left out"
    if with_tables:
        text = (
            "images have no row in the table and were left out. Where an image was read and shows "
            "nothing, add a row with the label 'normal'"
        )
    if n_unlisted:
        source.notes.append(counted_phrase(n_unlisted, text))


def add_facts(
    source: Source, tables: Sequence[LabelTable], stated: pd.DataFrame | None = None
) -> None:
    """Add what tables and label files state of images, and their patients.

    The source takes the facts, and the user's own split. Each table has the image of every row;
    `stated` has ``image_id`` and the facts that label files state.
    """
    space = source.root.resolve().name
    where = str(tables[0].path) if tables else str(source.root)
    has_boxes = any(table.box_roles for table in tables)
    facts = [read_facts(table, sizes=has_boxes) for table in tables]
    if stated is not None:
        facts.append(stated)
    refuse_differing(facts, where)
    take_facts(source, source.images.assign(source=space), facts)
    pattern = next((t.rules.patient_pattern for t in tables if t.rules.patient_pattern), None)
    in_path = pattern is not None and not source.options.patient_pattern
    add_patients(source, space, pattern, where=where, in_path=in_path)
    _take_split(source, where)


def _require_labelled(tables: Sequence[LabelTable], ids: pd.Series) -> None:
    """Refuse boxes of images that the table of labels does not name: each would be a new image."""
    first, *others = tables
    if first.box_roles:
        return
    labelled = set(ids[first.cells("file")])
    for table in others:
        names = table.cells("file")
        unknown = names[~ids[names].isin(labelled).to_numpy()].unique()
        if len(unknown):
            plain = {spelling_key(name): name for name in labelled}
            near = plain.get(spelling_key(ids[unknown[0]]))
            question = f" (is it {near!r}?)" if near else ""
            raise InputError(
                f"{table.path}: {counted(len(unknown), 'image')} with boxes and no label in "
                f"{first.path}, such as {unknown[0]!r}{question}; give each image one id in both "
                "tables, or add its label"
            )


def _find_images(names: Sequence[str], source: Source) -> dict[str, str]:
    """Return the path of each image by its name in the tables; exclude names that fit no image."""
    index = source.index
    if index is None:  # a table alone, whose images need not be there
        return {name: name for name in names}
    path_by_name = {}
    times = Counter(posixpath.basename(name) for name in names)
    for name in names:
        matches = index.by_name(name, ("", "images"))
        if times[posixpath.basename(name)] > 1:  # also below folders of another machine
            matches = [path for path in matches if folders_agree(name, path)]
        if len(matches) == 1:
            path_by_name[name] = matches[0]
        else:
            source.exclude([name], f"fits {len(matches)} images" if matches else "no such image")
    first: dict[str, str] = {}
    for name, path in list(path_by_name.items()):
        other = first.setdefault(path, name)
        if not folders_agree(name, other):
            for one in (name, other):
                path_by_name.pop(one, None)
                source.exclude([one], f"fits {path}, as {name if one == other else other} does")
    if not path_by_name:
        raise InputError(
            f"{source.root}: holds {next(iter(index.paths), 'no image')}, but none of the "
            f"{len(names)} images that the table names, such as {names[0]!r}; give the right "
            "folder, or the right column with --columns file=COLUMN"
        )
    return path_by_name


def _take_split(source: Source, where: str) -> None:
    """Take the user's own split from the images; refuse a patient with images in two roles."""
    if "split" not in source.images:
        return
    roles = source.images["split"].rename("role")
    images = source.images = source.images.drop(columns="split")
    if roles.isna().all():
        return
    if roles.isna().any():
        image = images["image_id"][roles.isna()].iloc[0]
        raise InputError(f"{where}: image {image!r} has no role; give each image one")
    source.split = images[["image_id"]].assign(role=roles.astype(TEXT)).reset_index(drop=True)
    if source.root.is_file():  # cxr compare --truth asks about these
        return
    pairs = pd.DataFrame({"patient": images["patient_id"], "role": roles})
    pairs = pairs[pairs["role"] != "unused"].drop_duplicates()
    repeated = pairs["patient"].duplicated()
    if repeated.any():
        patient = pairs.loc[repeated, "patient"].iloc[0]
        both = " and ".join(pairs.loc[pairs["patient"] == patient, "role"])
        raise InputError(
            f"{where}: patient {patient!r} has images in {both} ({int(repeated.sum())} such "
            "patients); a patient has one role: correct the split column or leave it out"
        )


def first_table(folder: Path) -> Path | None:
    """Return the first file with a column that names images, else the first spreadsheet."""
    if folder.is_file():
        return folder if is_table_file(folder) else None
    paths = sorted(path for path in folder.glob("*") if is_table_file(path))
    naming = (path for path in paths if find_column(read_header(path), column_names("file")))
    return next(naming, None) or next(filter(is_spreadsheet, paths), None)


TABLE = Format(
    name="table",
    title="one table of labels with a folder of images",
    folder="images in any folders: `cxr prepare labels.csv IMAGES OUT`",
    detect=lambda folder: first_table(folder) is not None,
    read=_read,
    options=(
        "labels",
        "sheet",
        "columns",
        "reference",
        "class_names",
        "raw_boxes",
        "patient_pattern",
    ),
    labels_alone=True,
)
