"""Images of the rows of label tables that name no files: they are joined with those that do.

The headers of DICOM files are one more table of keys. Two tables are joined by what both call the
study or the patient, and by further columns of one name, such as the date, together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, counted, counted_phrase
from cxr_compare.data_prep.base.ids import TEXT, is_member, renamed, spelling_key
from cxr_compare.data_prep.base.image_names import Names
from cxr_compare.data_prep.base.names import column_names, plain_name
from cxr_compare.data_prep.base.user_tables import refuse_line
from cxr_compare.data_prep.sources.label_table import LabelTable, Tables
from cxr_compare.data_prep.sources.statements import Source
from cxr_compare.data_prep.sources.words import plain_cells

_OWNERS = ("study", "patient")
_DATE = r"((?:19|20)\d\d)[-/.]?(\d\d)[-/.]?(\d\d)(?:\D.*)?|(\d\d)\.(\d\d)\.(\d{4})"
_ROUNDED = r"\d(?:[.,]\d+)?E\+\d+"
_HALF = 0.5  # of the keys of the shorter list, which two columns of one name share
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
    """

    where: str
    images: pd.DataFrame
    cells: pd.DataFrame
    roles: dict[str, list[str]]
    files: pd.DataFrame = field(default_factory=pd.DataFrame)


def header_keys(files: pd.DataFrame) -> Keys:
    """Return the keys in the headers of DICOM files."""
    names = files["path"].str.rsplit("/", n=1).str[-1]
    bare, stems = (
        texts.str.replace(r"\.[A-Za-z][A-Za-z0-9]{0,5}$", "", regex=True)  # no UID part
        for texts in (files["path"], names)
    )
    uids = files["image_id"]
    images = _with_owners(files[["image_id", "path"]], files["study"], files["patient"])
    texts = (files["path"], bare, names, stems, uids, uids + ".dcm")
    files_by_key = pd.concat([images.assign(key=text) for text in texts]).astype(TEXT)
    cells = {
        "StudyInstanceUID": files["study"],
        "AccessionNumber": files["accession_number"],
        "PatientID": files["patient_id"],
        "StudyDate": files["study_date"],
    }
    roles = {"study": ["StudyInstanceUID", "AccessionNumber"], "patient": ["PatientID"]}
    unique = files_by_key.drop_duplicates(ignore_index=True)
    return Keys("the DICOM headers", images, pd.DataFrame(cells, dtype=TEXT), roles, unique)


def table_keys(source: Source, tables: Tables) -> Keys:
    """Return the keys in tables that name files; lateral views, which are left out, have none."""
    parts = [pd.DataFrame(columns=["image_id", "path", *_OWNERS])]
    for table in tables:
        part = table.text[table.unused].rename(columns=plain_name)
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
    where = " and ".join(table.path.name for table in tables)
    cells = rows.drop(columns=["image_id", "path"])
    return Keys(where, images, cells, {role: [role] for role in _OWNERS})


def _with_owners(images: pd.DataFrame, study: pd.Series, patient: pd.Series) -> pd.DataFrame:
    """Add study and patient of each image; an unknown one is of its image or study alone."""
    studies = ("study " + study).where(study != "", "image " + images["image_id"])
    patients = ("patient " + patient).where(patient != "", studies)
    return images.assign(study=studies, patient=patients).astype(TEXT)


def choose_keys(
    source: Source, tables: Tables, headers: Callable[[], Keys] | None
) -> list[LabelTable]:
    """Return tables of which those that name no files have the columns by which they are joined."""
    if all(table.has("file") for table in tables):
        return [*tables]
    keys = headers() if headers else table_keys(source, [t for t in tables if t.has("file")])
    chosen = []
    for number, table in enumerate(tables):
        loses_none = source.options.caller.compares and number == 0  # no image of its truth
        if table.has("file") or loses_none or keys.images.empty:
            chosen.append(table)
            continue
        pairs = tuple(_pairs(table, keys))
        joining = {column for column, _ in pairs}
        owners = [role for role in _OWNERS if table.has(role)]
        if owners and not pairs:
            raise _no_image(table, table.cells(owners[0]), source, keys)
        by = [role for role in owners if joining & {*table.columns_of(role)}]
        chosen.append(replace(table, pairs=pairs, key=by[0]) if by else table)
    return chosen


def _pairs(table: LabelTable, keys: Keys) -> Iterator[tuple[str, str]]:
    """Yield the columns of a table with the keys that have the same cells.

    A study of headers is told by its number alone; else the patient tells studies of one number
    apart. Columns of one name, such as the date, count beside them.
    """
    shared: dict[str, tuple[str, str]] = {}
    for role in _OWNERS:
        named_keys = [key for key in keys.roles[role] if (keys.cells[key] != "").any()]
        for column in table.columns_of(role):
            shares = [(_n_shared(table.text[column], keys.cells[key]), key) for key in named_keys]
            n_shared, key = max(shares, default=(0, ""))
            if n_shared:
                shared[role] = (column, key)
            elif named_keys and role == "study":
                return  # it names studies that are not here
    if len(keys.files) and "study" in shared:
        shared.pop("patient", None)
    yield from shared.values()
    same = {plain_name(str(key)): str(key) for key in keys.cells}
    for column in table.unused if shared else ():
        key = same.get(plain_name(column), "")
        if not key or column in table.answered:
            continue
        cells = table.text[column]
        if _are_dates(cells) or _n_shared(cells, keys.cells[key], _HALF):  # dates must agree
            yield column, key


def _are_dates(cells: pd.Series) -> bool:
    filled = cells[cells != ""]
    return len(filled) > 0 and bool(filled.str.fullmatch(_DATE).all())


def _plain_keys(cells: pd.Series) -> pd.Series:
    """Return keys as they are compared: dates as in DICOM, numbers without zeros in front."""
    if _are_dates(cells):
        return cells.str.replace(_DATE, r"\1\2\3\6\5\4", regex=True)
    plain = plain_cells(cells)
    short = renamed(plain, {text: spelling_key(text) for text in plain.unique()})
    is_apart = short.nunique() == plain.nunique()  # 01 and 1 may be two
    return short if is_apart else plain


def _n_shared(cells: pd.Series, keys: pd.Series, least: float = 0.0) -> int:
    """Return how many keys two columns share; 0 for fewer than a share of the shorter list."""
    one, other = ({*_plain_keys(part)} - {""} for part in (cells, keys))
    n_shared = len(one & other)
    return n_shared if n_shared >= least * min(len(one), len(other)) else 0


def _joined(table: LabelTable, keys: Keys) -> tuple[pd.Series, pd.Series]:
    """Return the key of each row of a table, and of each image; empty if a part of it is."""
    rows, images = ([], [])
    for column, key in table.pairs:
        rows.append(_plain_keys(table.text[column]))
        images.append(_plain_keys(keys.cells[key]))
    return _one_text(rows), _one_text(images)


def _one_text(parts: Sequence[pd.Series]) -> pd.Series:
    texts = parts[0]
    for part in parts[1:]:
        texts = (texts + "\0" + part).where((texts != "") & (part != ""), "")
    return texts


def _rows_of_files(source: Source, table: LabelTable, keys: Keys) -> pd.DataFrame:
    """Return the images of the rows that name DICOM files, by path, name or SOPInstanceUID."""
    cells = table.cells("file").str.replace("\\", "/", regex=False).str.removeprefix("./")
    for folder in (source.root, source.root.resolve()):
        cells = cells.str.removeprefix(folder.as_posix().rstrip("/") + "/")
    others = cells[~is_member(cells, keys.files["key"])].unique()
    fits, _ = Names(keys.files["path"].unique()).fitting(others)
    pairs = [(name, path) for name, paths in fits.items() for path in paths]
    further = pd.DataFrame(pairs, columns=["key", "path"], dtype=TEXT)
    images = keys.files.drop(columns="key").drop_duplicates()
    return _rows_of(cells, pd.concat([keys.files, further.merge(images, on="path")]))


def _rows_of(keys: pd.Series, images: pd.DataFrame) -> pd.DataFrame:
    """Return the images of the key of each row, of those with a ``key``; with ``row``."""
    rows = pd.DataFrame({"row": range(len(keys)), "key": keys.array})
    pairs = rows[rows["key"] != ""].merge(images, on="key").sort_values("row", kind="stable")
    return pairs.drop_duplicates(["row", "image_id"], ignore_index=True)


def named_files(source: Source, tables: Tables, keys: Keys) -> list[str]:
    """Return the paths of DICOM files that tables name, by their file or SOPInstanceUID."""
    by_file = [table for table in tables if not table.pairs]
    return [path for t in by_file for path in _rows_of_files(source, t, keys)["path"]]


def match_rows(source: Source, table: LabelTable, keys: Keys) -> LabelTable:
    """Return a table with the images of its rows, by its key or by names of DICOM files.

    Images whose patient or study a row names are left out if that does not say what they show: a
    label of a patient with several studies, or a box of a study with several images.
    """
    if table.pairs:
        row_keys, image_keys = _joined(table, keys)
        matches = _rows_of(row_keys, keys.images.assign(key=image_keys))
    else:
        matches = _rows_of_files(source, table, keys)
    cells = table.cells(table.key)
    reason = f"column '{cells.name}' holds a number that a spreadsheet rounded; export it as text"
    refuse_line(cells.str.fullmatch(_ROUNDED).astype(bool), table.path, reason)
    if matches.empty:
        raise _no_image(table, cells, source, keys)
    _note_rows(source, table, keys, matches)
    _refuse_several(table, matches)
    is_of_patient = not any(key in keys.roles["study"] for _, key in table.pairs)
    if table.pairs and is_of_patient and table.states_labels:
        _refuse_other_rows(table, matches)
        _exclude(
            source,
            matches["image_id"][matches.groupby("row")["study"].transform("nunique") > 1],
            "its patient has several studies, and the table does not say which one is labelled",
            f"images are left out, since {table.path.name} labels patients who have several "
            "studies; add a column with the StudyInstanceUID or the date of the labelled study",
        )
    is_several = matches.groupby("row")["image_id"].transform("nunique") > 1
    is_several &= table.are_boxed.to_numpy()[matches["row"]]
    _exclude(
        source,
        matches["image_id"][is_several],
        "one of several images of a study or patient, and the table does not say which one the box "
        "is of",
        f"images are left out, since {table.path.name} has boxes of studies or patients that have "
        "several images; add a column with the SOPInstanceUID of the image",
    )
    return table.with_images(matches)


def _no_image(table: LabelTable, cells: pd.Series, source: Source, keys: Keys) -> InputError:
    """Return the error of a table whose rows have no image."""
    further = [column for column, _ in table.pairs if column in table.unused]
    called = " and ".join([str(cells.name), *further])
    ways = {"study": "StudyInstanceUID or AccessionNumber", "file": "file or SOPInstanceUID"}
    return InputError(
        f"{table.path}: none of its {cells.nunique()} {called} names an image in "
        f"{source.root}, as the files and {keys.where} write it; give the folder of these images",
        [
            *(
                table.caller.remedy({"unused": column}, f"'{column}' does not count")
                for column in further or [str(cells.name)]
            ),
            *(
                table.caller.remedy({role: "COLUMN"}, f"a column holds their {names}")
                for role, names in ways.items()
            ),
        ],
    )


def _called(table: LabelTable) -> str:
    """Return the columns that name images, for messages."""
    return " and ".join(column for column, _ in table.pairs) or str(table.cells("file").name)


def _note_rows(source: Source, table: LabelTable, keys: Keys, matches: pd.DataFrame) -> None:
    """Say by what a table is joined, and note rows without an image."""
    called, n_rows = _called(table), len(table.text)
    n_lost = n_rows - matches["row"].nunique()
    if table.pairs:
        n_images = counted(matches["image_id"].nunique(), "image")
        source.show(
            f"{table.path.name}: joined with {keys.where} by {called}: {n_rows - n_lost:,} of "
            f"{n_rows:,} rows, {n_images}"
        )
    where = f"{table.path.name}: "
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


def _refuse_other_rows(table: LabelTable, matches: pd.DataFrame) -> None:
    """Refuse rows of one patient that differ in a column that is not read, such as a date.

    They may be of several images, and no column says which is that of the image.
    """
    joining = {column for column, _ in table.pairs}
    for column in table.unused:
        if column in joining or plain_name(column) in column_names("patient"):
            continue
        cells = table.text[column].iloc[matches["row"]]
        differ = cells.groupby(matches["key"].to_numpy()).transform("nunique") > 1
        reason = (
            f"rows of one {_called(table)} differ in column '{column}': of which image are they? "
            "Leave the others out"
        )
        ways = [table.caller.remedy({"unused": column}, f"'{column}' does not count")]
        refuse_line(differ & (column not in table.answered), table.path, reason, ways=ways)


def _exclude(source: Source, ids: pd.Series, reason: str, text: str) -> None:
    source.exclude(ids, reason)
    source.notes += [counted_phrase(ids.nunique(), text)] if len(ids) else []
