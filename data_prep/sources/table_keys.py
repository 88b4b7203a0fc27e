"""Images of the rows of label tables by keys: names of files, or columns that are joined.

A table without names of files is joined with those that have some, or with the headers of DICOM
files, which are one more table of keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, counted, counted_phrase
from cxr_compare.data_prep.base.ids import TEXT, is_member, renamed
from cxr_compare.data_prep.base.image_names import Names
from cxr_compare.data_prep.base.names import headless_problem, names_by_role, plain_name
from cxr_compare.data_prep.base.user_tables import refuse_line
from cxr_compare.data_prep.sources.label_table import LabelTable
from cxr_compare.data_prep.sources.statements import Source
from cxr_compare.data_prep.sources.words import plain_cells

_OWNERS = ("study", "patient")
_ROLES = ("file", *_OWNERS)
_ROUNDED = r"[-+]?\d(?:[.,]\d+)?[eE]\+\d+"  # a long number as spreadsheets show it
_DATE = (
    r"((?:19|2\d)\d\d)[-/.]?(0[1-9]|1[0-2])[-/.]?(0[1-9]|[12]\d|3[01])(?:\D.*)?"
    r"|(\d\d)\.(\d\d)\.(\d{4})"
)
_DECIMAL = r"-?\d*[.,]\d+"
_MOST_TRIED = 50  # names of a column that are looked for among the files
_Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Keys:
    """What may name images: their headers, or the rows of tables that name their files.

    Attributes:
        where: What messages call them.
        images: ``image_id``, ``path``, ``study`` and ``patient`` of each image.
        cells: Its keys, by column; empty if unknown.
        roles: Columns of studies and of patients.
        files: Names of DICOM files as ``key``, with the columns of `images`; empty for tables.
        paths: Paths of all DICOM files, also of those that are left out.
    """

    where: str
    images: pd.DataFrame
    cells: pd.DataFrame
    roles: dict[str, list[str]]
    files: pd.DataFrame = field(default_factory=pd.DataFrame)
    paths: pd.Series = field(default_factory=lambda: pd.Series(dtype=TEXT))


def header_keys(files: pd.DataFrame, paths: pd.Series) -> Keys:
    """Return the keys in the headers of DICOM files; `paths` are those of all files."""
    bare = files["path"].str.replace(r"\.[A-Za-z][A-Za-z0-9]{0,5}$", "", regex=True)  # no UID part
    stems, names = (paths.str.rsplit("/", n=1).str[-1] for paths in (bare, files["path"]))
    uids = files["image_id"]
    images = _with_owners(files[["image_id", "path"]], files["study"], files["patient"])
    texts = (files["path"], bare, names, stems, uids, uids + ".dcm")
    files_by_key = pd.concat([images.assign(key=text) for text in texts])
    cells = {
        "StudyInstanceUID": files["study"],
        "AccessionNumber": files["accession_number"],
        "PatientID": files["patient_id"],
        "StudyDate": files["study_date"],
    }
    roles = {"study": ["StudyInstanceUID", "AccessionNumber"], "patient": ["PatientID"]}
    files_by_key = files_by_key.astype(TEXT).drop_duplicates(ignore_index=True)
    where = "the DICOM headers"
    return Keys(
        where, images, pd.DataFrame(cells, dtype=TEXT), roles, files_by_key, paths.astype(TEXT)
    )


def table_keys(source: Source, tables: Sequence[LabelTable]) -> Keys:
    """Return the keys in tables that name files; lateral views, which are left out, have none."""
    parts = [pd.DataFrame(columns=["image_id", "path", *_OWNERS])]
    for table in tables:
        of_owners = table.columns_of(*_OWNERS)
        free = [*table.unused, *table.columns_of("key", "view")]
        part = table.text[[c for c in free if c not in of_owners]].rename(columns=plain_name)
        part = part.loc[:, ~part.columns.duplicated()]
        part = part.assign(**{role: table.cells(role) for role in _OWNERS})
        names = table.cells("file").to_numpy()
        file_columns = {"image_id": names, "path": names} if table.images.empty else table.images
        part[["image_id", "path"]] = pd.DataFrame(file_columns).to_numpy()
        if not source.options.caller.compares:  # it takes any view
            part = part[table.cells("view").ne("LL")]
        parts.append(part)
    rows = pd.concat(parts).replace("", np.nan).groupby("image_id", sort=False).first()
    rows = rows.reset_index().astype(TEXT).fillna("")
    studies = (rows["patient"] + " " + rows["study"]).where(rows["study"] != "", "")
    images = _with_owners(rows[["image_id", "path"]], studies, rows["patient"])
    roles = {role: [role] for role in _OWNERS}
    where = " and ".join(table.path.name for table in tables)
    return Keys(where, images, rows.drop(columns=["image_id", "path"]), roles)


def _with_owners(images: pd.DataFrame, study: pd.Series, patient: pd.Series) -> pd.DataFrame:
    """Add study and patient of each image; an unknown one is of its image or study alone."""
    studies = ("study " + study).where(study != "", "image " + images["image_id"])
    patients = ("patient " + patient).where(patient != "", studies)
    return images.assign(study=studies, patient=patients).astype(TEXT)


def choose_keys(
    source: Source, tables: Sequence[LabelTable], headers: Callable[[], Keys] | None
) -> list[LabelTable]:
    """Return tables with the columns by which their rows have images, whatever they are called."""
    keys = headers() if headers else None
    by_file = [_with_files(source, table, keys) for table in tables]
    tables_of_files = [of_files for of_files in by_file if of_files is not None]
    chosen = []
    for number, (table, of_files) in enumerate(zip(tables, by_file, strict=True)):
        loses_none = source.options.caller.compares and number == 0  # no image of its truth
        if of_files is not None or loses_none:
            chosen.append(of_files or table)
            continue
        others = keys or table_keys(source, tables_of_files)
        pairs = _pairs(table, others)
        if table.has("file") and "file" not in table.answered:
            if keys or (pairs and _counts_rows(table.cells("file"))):  # else files are elsewhere
                raise _no_image(source, table, others, pairs)
        elif pairs:
            key = _role(table, pairs[0][0]) or "key"
            key_columns = [column for column, _ in pairs if column in table.unused]
            table = replace(table, pairs=pairs, key=key).having("key", *key_columns)
        elif (with_file_column := _take_files(source, table, keys, table.unused)) is not None:
            tables_of_files.append(table := with_file_column)
        elif keys and table.has(*_ROLES):
            raise _no_image(source, table, others)
        chosen.append(table)
    return chosen


def _role(table: LabelTable, column: str) -> str:
    return next((role for role in _ROLES if column in table.columns_of(role)), "")


def _with_files(source: Source, table: LabelTable, keys: Keys | None) -> LabelTable | None:
    """Return a table of which a column names images as files, in any spelling; None for another.

    A column that is called otherwise is taken if the table has none and names no study.
    """
    if not table.has("file"):
        return _take_files(source, table, keys, table.columns_of("study") or table.unused)
    if keys is not None:
        return None if _rows_of_files(source, table, keys).empty else table
    names = table.cells("file").unique()
    parts = (names[:_MOST_TRIED], names)
    are_files = any(any(source.files.fitting(n)[0].values()) for n in parts if source.index)
    return table if source.index is None or are_files else None


def _take_files(
    source: Source, table: LabelTable, keys: Keys | None, columns: Sequence[str]
) -> LabelTable | None:
    """Take the one of some columns whose cells name files as that of images; ask if it is not one.

    An image may be called by its study.
    """
    if table.has("file") or headless_problem(list(table.text.columns)):
        return None
    file_columns = [c for c in columns if _share_of_files(source, table.text[c], keys) > 1 / 2]
    if len(file_columns) > 1:
        ways = [table.caller.remedy({"file": column}) for column in file_columns]
        raise InputError(f"{table.path}: columns {', '.join(file_columns)} name images", ways)
    for column in file_columns:
        source.show(f"{table.path.name}: column '{column}' names images, as its cells are files")
        study = [c for c in table.columns_of("study") if c != column]
        return table.with_roles({"study": study}).having("file", column)
    return None


def _share_of_files(source: Source, cells: pd.Series, keys: Keys | None) -> float:
    """Return the share of the first names in a column that are files.

    It is 0 for a single name, and for numbers that count the rows or repeat themselves.
    """
    names = cells[cells != ""].drop_duplicates()
    are_counts = names.str.isdecimal().all() and (not cells.is_unique or _counts_rows(cells))
    if len(names) < 2 or are_counts:
        return 0.0
    names = names[:_MOST_TRIED]
    if keys is not None:
        return float(is_member(_plain_paths(source, names), keys.files["key"]).mean())
    index = source.index
    return sum(bool(index and index.find(name, ("", "images"))) for name in names) / len(names)


def _pairs(table: LabelTable, keys: Keys) -> _Pairs:
    """Return the columns of a table and of keys that have the same cells; empty without any."""
    headers = [key for listed in keys.roles.values() for key in listed if len(keys.files)]
    roles = ("file", *_OWNERS) if "file" in table.answered else _OWNERS
    for role in (*roles, ""):
        columns = table.columns_of(role)
        if not role:
            columns = [column for column in table.unused if _is_key(table.text[column])]
        n_common = {}
        for column in columns:
            for key in (*_alike(table, column, keys), *(() if role in _OWNERS else headers)):
                n_both, is_most, _ = _common(table, keys, [(column, key)])
                n_common[column, key] = n_both if role or is_most else 0
        best = max(n_common, key=lambda pair: n_common[pair], default=None)
        if best is not None and n_common[best]:
            return _finer(table, keys, best)
        if n_common:  # it names what is not here
            break
    return ()


def _alike(table: LabelTable, column: str, keys: Keys) -> list[str]:
    """Return the keys that a column may hold, the likeliest first."""
    name, role = plain_name(column), _role(table, column)
    called = [r for r in _OWNERS if role == r or name in names_by_role()[r]]
    same = [key for r in called for key in keys.roles[r]]
    same += [key for key in map(str, keys.cells) if plain_name(key) == name]
    if _are_dates(table.text[column]):
        same += [key for key in map(str, keys.cells) if _are_dates(keys.cells[key])]
    return list(dict.fromkeys(same))


def _is_key(cells: pd.Series) -> bool:
    """Return True for cells that may be ids: no numbers of rows, measures or dates."""
    filled = cells[cells != ""]
    is_other = _counts_rows(cells) or _are_dates(cells) or filled.str.fullmatch(_DECIMAL).all()
    return filled.nunique() > 1 and not is_other


def _counts_rows(cells: pd.Series) -> bool:
    """Return True for cells that are the numbers of their rows, from 0 or 1 on."""
    return any(cells.tolist() == [*map(str, range(n, n + len(cells)))] for n in (0, 1))


def _common(table: LabelTable, keys: Keys, pairs: _Pairs) -> tuple[int, bool, int]:
    """Return how many keys both have, True for half of the shorter list, and how many images do."""
    row_keys, image_keys = _joined(table, keys, pairs)
    keys_of_rows, keys_of_images = {*row_keys} - {""}, {*image_keys} - {""}
    n_both = len(keys_of_rows & keys_of_images)
    return n_both, 2 * n_both >= min(len(keys_of_rows), len(keys_of_images)), len(keys_of_images)


def _finer(table: LabelTable, keys: Keys, first: tuple[str, str]) -> _Pairs:
    """Return pairs of columns that tell more images apart than one does, as patient and date do."""
    candidates = [*table.columns_of("patient", "view"), *table.unused]
    chosen, n_apart = [first], _common(table, keys, [first])[2]
    for column in candidates:
        for key in _alike(table, column, keys) if column not in dict(chosen) else ():
            _, is_most, n_finer = _common(table, keys, [*chosen, (column, key)])
            if is_most and n_finer > n_apart:
                chosen, n_apart = [*chosen, (column, key)], n_finer
                break
    return chosen


def _are_dates(cells: pd.Series) -> bool:
    filled = cells[cells != ""]
    return bool(len(filled) and filled.str.fullmatch(_DATE).all())


def _plain_keys(cells: pd.Series) -> pd.Series:
    """Return keys as they are compared: dates as in DICOM, whole numbers without decimals."""
    if _are_dates(cells):
        return cells.str.replace(_DATE, r"\1\2\3\6\5\4", regex=True)
    return plain_cells(cells)


def _joined(table: LabelTable, keys: Keys, pairs: _Pairs) -> tuple[pd.Series, pd.Series]:
    """Return the key of each row of a table, and of each image; empty if a part of it is."""
    texts = []
    for column, key in pairs:
        image_keys = _plain_keys(keys.cells[key])
        row_keys = _plain_keys(table.text[column])
        texts.append((renamed(row_keys, _spelling(row_keys, image_keys)), image_keys))
    return _one_text([rows for rows, _ in texts]), _one_text([images for _, images in texts])


def _one_text(parts: Sequence[pd.Series]) -> pd.Series:
    texts = parts[0]
    for part in parts[1:]:
        texts = (texts + "\0" + part).where((texts != "") & (part != ""), "")
    return texts


def _spelling(cells: pd.Series, keys: pd.Series, free: pd.Series | None = None) -> dict[str, str]:
    """Return the key of each cell, in another spelling if each such cell has one of its own.

    `free` are the keys that a cell of another spelling may be.
    """
    names = pd.Series(cells.unique(), dtype=TEXT)
    spelt = dict(zip(names, names, strict=True))
    others = names[~is_member(names, keys)]
    if free is None and names.str.match("0.").any():  # it has lost no zeros
        return spelt
    free = keys if free is None else free
    images = Names(free[~is_member(free, names)])
    fits, _ = images.fitting(others)
    key_of = {name: fitting[0] for name, fitting in fits.items() if fitting}
    # If one fits two, or two fit one, none is taken for another name.
    is_clear = len({*key_of.values()}) == sum(map(len, fits.values()))
    spelt |= key_of if is_clear else {}
    return spelt


def _plain_paths(source: Source, cells: pd.Series) -> pd.Series:
    """Return cells without the folder of the source, and with / as Windows does not write it."""
    cells = cells.str.replace("\\", "/", regex=False).str.removeprefix("./")
    for folder in (source.root, source.root.resolve()):
        cells = cells.str.removeprefix(folder.as_posix().rstrip("/") + "/")
    return cells


def _rows_of_files(source: Source, table: LabelTable, keys: Keys) -> pd.DataFrame:
    """Return the images of the rows that name DICOM files, by path, name or SOPInstanceUID."""
    cells, files = _plain_paths(source, table.cells("file")), keys.files
    named_paths = files["path"][is_member(files["key"], cells)]
    free = keys.paths[~is_member(keys.paths, named_paths)]  # also lateral views
    return _rows_of(renamed(cells, _spelling(cells, files["key"], free)), files)


def _rows_of(keys: pd.Series, images: pd.DataFrame) -> pd.DataFrame:
    """Return the images of the key of each row, of those with a ``key``; with ``row``."""
    rows = pd.DataFrame({"row": range(len(keys)), "key": keys.array})
    pairs = rows[rows["key"] != ""].merge(images, on="key").sort_values("row", kind="stable")
    return pairs.drop_duplicates(["row", "image_id"], ignore_index=True)


def named_files(source: Source, tables: Sequence[LabelTable], keys: Keys) -> list[str]:
    """Return the paths of DICOM files that tables name, by their file or SOPInstanceUID."""
    by_file = [table for table in tables if table.has("file") and not table.pairs]
    return [path for t in by_file for path in _rows_of_files(source, t, keys)["path"]]


def match_rows(source: Source, table: LabelTable, keys: Keys) -> LabelTable:
    """Return a table with the images of its rows, by its key or by names of DICOM files.

    Images whose patient or study a row names are left out if that does not say what they show: a
    label of a patient with several studies, or a box of a study with several images.
    """
    if table.pairs:
        written = _one_text([_plain_keys(table.text[column]) for column, _ in table.pairs])
        row_keys, image_keys = _joined(table, keys, table.pairs)
        matches = _rows_of(row_keys, keys.images.assign(key=image_keys))
    else:
        written = _plain_paths(source, table.cells("file"))
        matches = _rows_of_files(source, table, keys)
    _refuse_rounded(table, matches)
    if matches.empty:
        raise _no_image(source, table, keys)
    is_respelt = written.to_numpy()[matches["row"]] != matches["key"]
    _note_rows(source, table, keys, matches, matches["key"][is_respelt].nunique())
    _refuse_several(table, matches)
    is_of_patient = not any(key in keys.roles["study"] for _, key in table.pairs)
    if table.pairs and is_of_patient and table.states_labels:
        _refuse_contradictions(table, keys, matches)
        _exclude_studies(source, table, matches)
    _exclude_boxed(source, table, matches)
    return table.with_images(matches)


def _no_image(source: Source, table: LabelTable, keys: Keys, pairs: _Pairs = ()) -> InputError:
    """Return the error of a table whose rows have no image; `pairs` would give them some."""
    cells = table.cells(next(role for role in (*_ROLES, "key") if table.has(role)))
    when = "a column holds their file, SOPInstanceUID, StudyInstanceUID, AccessionNumber or "
    way = table.caller.remedy({"file": "COLUMN"}, f"{when}PatientID")
    for column, key in pairs[:1]:
        way = table.caller.remedy({"file": column}, f"'{column}' holds the {key} of images")
        if keys.files.empty:  # the other table has this column, too
            way = table.caller.remedy({"unused": str(cells.name)}, f"'{column}' joins both")
    return InputError(
        f"{table.path}: none of its {cells.nunique()} {cells.name} names an image in "
        f"{source.root}, as the files and {keys.where} write it; give the folder of these images",
        [way],
    )


def _refuse_rounded(table: LabelTable, matches: pd.DataFrame) -> None:
    cells = table.cells(table.key)
    is_lost = ~np.isin(np.arange(len(cells)), matches["row"])
    reason = (
        f"column '{cells.name}' holds a long number that a spreadsheet rounded, such as 1.2E+15; "
        "export it anew with this column as text"
    )
    refuse_line(cells.str.fullmatch(_ROUNDED).astype(bool) & is_lost, table.path, reason)


def _called(table: LabelTable) -> str:
    """Return the columns that name images, for messages."""
    columns = [column for column, _ in table.pairs] or [str(table.cells("file").name)]
    return " and ".join(columns)


def _note_rows(
    source: Source, table: LabelTable, keys: Keys, matches: pd.DataFrame, n_respelt: int
) -> None:
    """Say by what a table is joined, and note rows without an image, and names that were spelt."""
    called, n_rows = _called(table), len(table.text)
    n_lost = n_rows - matches["row"].nunique()
    if table.pairs:
        n_images = counted(matches["image_id"].nunique(), "image")
        source.show(
            f"{table.path.name}: joined with {keys.where} by {called}: {n_rows - n_lost:,} of "
            f"{n_rows:,} rows, {n_images}"
        )
    where = f"{table.path.name}: "
    if n_respelt:
        source.notes.append(
            f"{where}{counted(n_respelt, 'cell')} of {called} found by another spelling (folder, "
            "file ending or zeros before a number)"
        )
    if n_lost and source.options.caller.compares:
        raise InputError(f"{where}{n_lost} of {n_rows} rows have no image, by {called}")
    if n_lost:
        source.notes.append(
            f"{where}{n_lost} of {n_rows} rows name an image that is missing or was left out"
        )


def _refuse_several(table: LabelTable, matches: pd.DataFrame) -> None:
    """Refuse a row that names several files, or studies of several patients."""
    owners = matches.groupby("row")[["patient", "study", "path"]].nunique()
    is_several = (owners[["patient", "study"]] > 1).all(axis=1)
    if not table.pairs:
        is_several = owners["path"] > 1
    rows = set(owners.index[is_several])
    way = "add a column with the study or the image" if table.pairs else "name it with its folder"
    reason = (
        f"column '{_called(table)}' fits several files, or studies of several patients; {way}, "
        "such as its SOPInstanceUID"
    )
    index = table.text.index
    refuse_line(pd.Series([row in rows for row in range(len(index))], index), table.path, reason)


def _refuse_contradictions(table: LabelTable, keys: Keys, matches: pd.DataFrame) -> None:
    """Refuse a row whose image has another value in a column that both have, such as the date.

    So are rows of one patient that are of several dates.
    """
    rows, noun = matches["row"], _called(table)
    same = {plain_name(key): key for key in map(str, keys.cells)}
    for column in table.unused:
        cells = _plain_keys(table.text[column]).iloc[rows]
        ways = [table.caller.remedy({"unused": column}, f"'{column}' does not count")]
        n_values = cells.groupby(matches["key"].to_numpy()).transform("nunique")
        reason = (
            f"rows of one {noun} have several dates in column '{column}', and no date in "
            f"{keys.where} says which is that of the image; leave the others out"
        )
        refuse_line((n_values > 1) & _are_dates(cells), table.path, reason, ways=ways)
        if key := same.get(plain_name(column)):
            of_image = _plain_keys(keys.cells[key]).set_axis(keys.images["image_id"])
            other = of_image[matches["image_id"]].to_numpy()
            reason = (
                f"column '{column}' is otherwise in {keys.where} for the same {noun}; correct it"
            )
            differ = (cells != other) & (cells != "") & (other != "")
            refuse_line(differ, table.path, reason, ways=ways)


def _exclude_studies(source: Source, table: LabelTable, matches: pd.DataFrame) -> None:
    """Leave out the images of a patient with several studies, of which a row has labels.

    A table that only states facts of patients, such as the sex, is of all their images.
    """
    is_several = matches.groupby("row")["study"].transform("nunique") > 1
    reason = "its patient has several studies, and the table does not say which one is labelled"
    text = (
        f"images are left out, since {table.path.name} labels patients who have several studies; "
        "add a column with the StudyInstanceUID or the date of the labelled study"
    )
    _exclude(source, matches["image_id"][is_several], reason, text)


def _exclude_boxed(source: Source, table: LabelTable, matches: pd.DataFrame) -> None:
    """Leave out the images of a study or patient with several images, of which a row has a box."""
    is_several = matches.groupby("row")["image_id"].transform("nunique") > 1
    is_several &= table.are_boxed.to_numpy()[matches["row"]]
    reason = "one of several images of a study or patient, and the table does not say which one"
    text = (
        f"images are left out, since {table.path.name} has boxes of studies or patients that have "
        "several images; add a column with the SOPInstanceUID of the image"
    )
    _exclude(source, matches["image_id"][is_several], f"{reason} the box is of", text)


def _exclude(source: Source, ids: pd.Series, reason: str, text: str) -> None:
    source.exclude(ids, reason)
    source.notes += [counted_phrase(ids.nunique(), text)] if len(ids) else []
