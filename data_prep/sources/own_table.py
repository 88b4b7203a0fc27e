"""Format `table`: one or more label tables with any columns, and a folder of images."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.contracts.column_names import column_names, find_column
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import spelling_key
from cxr_compare.data_prep.contracts.table_files import is_spreadsheet, is_table_file, read_header
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.image_facts import read_facts, refuse_differing, take_facts
from cxr_compare.data_prep.sources.image_files import ImageIndex, ids_of_paths, without_suffix
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
    return read_own_tables(source, recognise_tables(read_tables(source), source))


def read_own_tables(source: Source, tables: Sequence[LabelTable]) -> SourceTables:
    """Find the images that recognised tables name, and make the tables of the data set."""
    root = source.root
    names = pd.concat([table.cells("file") for table in tables]).unique().tolist()
    paths = pd.Series(_find_images(names, source), dtype=TEXT)
    unique = paths.drop_duplicates()
    ids = dict(zip(unique, ids_of_paths(unique), strict=True))
    files = pd.DataFrame({"path": paths, "image_id": paths.map(ids).astype(TEXT)})
    for table in tables:
        named = pd.DataFrame({"name": table.cells("file"), "row": range(len(table.text))})
        table.keep_matches(named.merge(files, left_on="name", right_index=True))
    if root.is_file():
        _require_labelled(tables, files["image_id"])
    has_boxes = any(table.box_roles for table in tables)
    facts = [read_facts(table, sizes=has_boxes) for table in tables]
    path = tables[0].path
    refuse_differing(facts, str(path))
    space = root.resolve().name
    take_facts(source, files[["image_id", "path"]].drop_duplicates().assign(source=space), facts)
    pattern = next((t.rules.patient_pattern for t in tables if t.rules.patient_pattern), None)
    in_path = pattern is not None and not source.options.patient_pattern
    add_patients(source, space, pattern, where=str(path), in_path=in_path)
    _take_split(source, path)
    return build(source, table_statements(source, tables), coverage="localised")


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
    if source.root.is_file():  # a table alone, whose images need not be there
        return {name: name for name in names}
    index = ImageIndex(source.root)
    path_by_name = {}
    times = Counter(posixpath.basename(name) for name in names)
    for name in names:
        matches = index.by_name(name, ("", "images"))
        if len(matches) > 1 or times[posixpath.basename(name)] > 1:  # the folders must agree, too
            ends = [(_end(name), _end(path)) for path in matches]
            agree = [one.endswith(other) or other.endswith(one) for one, other in ends]
            matches = [path for path, agrees in zip(matches, agree, strict=True) if agrees]
        if len(matches) == 1:
            path_by_name[name] = matches[0]
        else:
            source.exclude([name], f"fits {len(matches)} images" if matches else "no such image")
    if not path_by_name:
        raise InputError(
            f"{source.root}: holds {next(iter(index.paths), 'no image')}, but none of the "
            f"{len(names)} images that the table names, such as {names[0]!r}; give the right "
            "folder, or the right column with --columns file=COLUMN"
        )
    if n_unlisted := len(index.paths) - len(set(path_by_name.values())):
        source.notes.append(
            f"{counted(n_unlisted, 'image', 'have')} no row in the table and were left out. Where "
            "an image was read and shows nothing, add a row with the label 'normal'"
        )
    return path_by_name


def _end(path: str) -> str:
    return "/" + without_suffix(path).lstrip("./")


def _take_split(source: Source, path: Path) -> None:
    """Take the user's own split from the images; refuse a patient with images in two roles."""
    if "split" not in source.images:
        return
    roles = source.images["split"].rename("role")
    images = source.images = source.images.drop(columns="split")
    if roles.isna().all():
        return
    if roles.isna().any():
        image = images["image_id"][roles.isna()].iloc[0]
        raise InputError(f"{path}: image {image!r} has no role; give each image one")
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
            f"{path}: patient {patient!r} has images in {both} ({int(repeated.sum())} such "
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
