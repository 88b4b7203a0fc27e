"""Rows of label tables beside DICOM files: which images a row is of, by its file or its header."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, counted, counted_phrase
from cxr_compare.data_prep.base.ids import TEXT, is_member
from cxr_compare.data_prep.base.image_names import Names
from cxr_compare.data_prep.base.names import names_by_role, plain_name
from cxr_compare.data_prep.base.user_tables import refuse_line
from cxr_compare.data_prep.sources.label_table import LabelTable
from cxr_compare.data_prep.sources.statements import Source

_FILE = "file or SOPInstanceUID"
_STUDY = "StudyInstanceUID"
_ACCESSION = "AccessionNumber"
_PATIENT = "PatientID"
_KEYS_OF = {"file": [_FILE], "study": [_STUDY, _ACCESSION], "patient": [_PATIENT]}
"""Kinds of cells that a column may hold, by its role."""
_ROUNDED = r"[-+]?\d(?:[.,]\d+)?[eE]\+\d+"  # a long number as spreadsheets show it


def match_rows(
    source: Source, tables: Sequence[LabelTable], files: pd.DataFrame, paths: pd.Series
) -> None:
    """Find the images of each row by file, SOPInstanceUID, study, accession number or patient.

    `paths` are those of all files, also of those that are left out.

    Images whose patient or study a row names are left out if that does not say what they show: a
    label of a patient with several studies, or a box of a study with several images.
    """
    known = _known_keys(files)
    for table in tables:
        cells = _plain_paths(source, table.cells(table.key))
        found = {
            key: _matches(cells, known[known["kind"] == key], paths) for key in _keys_of(table)
        }
        key = max(found, key=lambda key: found[key]["row"].nunique())
        matches = found[key]
        _refuse_rounded(table, cells.mask(is_member(cells, matches["cell"]), ""))
        if matches.empty:
            raise InputError(f"{table.path}: {_no_match(source, table, cells, known)}")
        _note_differences(source, table, cells, matches, known)
        _refuse_several(table, matches)
        _exclude_unclear(source, table, matches)
        table.keep_matches(matches)


def are_named(source: Source, tables: Sequence[LabelTable], files: pd.DataFrame) -> np.ndarray:
    """Return True for each file that a table names, by its file or SOPInstanceUID."""
    cells = [_plain_paths(source, t.cells("file")) for t in tables if t.key == "file"]
    if not cells:
        return np.zeros(len(files), dtype=bool)
    known = _known_keys(files)
    is_named = (known["kind"] == _FILE) & is_member(known["key"], pd.concat(cells))
    return is_member(files["path"], known.loc[is_named, "path"])


def _known_keys(files: pd.DataFrame) -> pd.DataFrame:
    """Return what may name an image: ``kind`` and ``key``, with its patient and study."""
    bare = files["path"].str.replace(r"\.[A-Za-z][A-Za-z0-9]{0,5}$", "", regex=True)  # no UID part
    stems, names = (paths.str.rsplit("/", n=1).str[-1] for paths in (bare, files["path"]))
    of_kind = [(_FILE, k) for k in (files["path"], bare, names, stems, files["image_id"])]
    of_kind += [(_FILE, files["image_id"] + ".dcm"), (_STUDY, files["study"])]
    of_kind += [(_ACCESSION, files["accession_number"])]
    of_kind += [(_PATIENT, files["patient_id"])]
    image = "image " + files["image_id"]
    study = ("study " + files["study"]).where(files["study"] != "", image)
    patient = ("patient " + files["patient"]).where(files["patient"] != "", study)
    owner = files[["image_id", "path"]].assign(study=study, patient=patient)
    known = pd.concat([owner.assign(kind=kind, key=key) for kind, key in of_kind])
    return known[known["key"] != ""].astype(TEXT).drop_duplicates(ignore_index=True)


def _plain_paths(source: Source, cells: pd.Series) -> pd.Series:
    """Return cells without the folder of the source, and with / as Windows does not write it."""
    cells = cells.str.replace("\\", "/", regex=False).str.removeprefix("./")
    for folder in (source.root, source.root.resolve()):
        cells = cells.str.removeprefix(folder.as_posix().rstrip("/") + "/")
    return cells


def _keys_of(table: LabelTable) -> list[str]:
    """Return what the cells that name images may be, the likeliest first."""
    if table.key != "file" or "file" not in table.assigned:
        return _KEYS_OF[table.key]
    column = plain_name(str(table.cells("file").name))
    called = [role for role in ("study", "patient") if column in names_by_role()[role]]
    return [key for role in (*called, *_KEYS_OF) for key in _KEYS_OF[role]]


def _matches(cells: pd.Series, known: pd.DataFrame, paths: pd.Series) -> pd.DataFrame:
    """Return the images of each row: ``row``, ``cell``, ``key`` in the header, and the image.

    `paths` are those of all files, also of lateral views, which the rows may name.
    """
    names = pd.Series(cells.unique(), dtype=TEXT)
    others = names[~is_member(names, known["key"])]
    is_of_files = known["kind"].eq(_FILE).any()
    free = known["key"]
    if is_of_files:  # each file once, by its path
        free = paths[~is_member(paths, known.loc[is_member(known["key"], names), "path"])]
    free = free[~is_member(free, names)]
    key_of = dict(zip(names, names, strict=True))
    fits, _ = Names(free).fitting(others)
    own = {name: images[0] for name, images in fits.items() if images}
    # If one fits two, or two fit one, none is taken for another name.
    is_clear = len({*own.values()}) == sum(map(len, fits.values()))
    if is_clear and (is_of_files or not names.str.match("0.").any()):  # else no zeros were lost
        key_of |= own
    rows = pd.DataFrame({"row": range(len(cells)), "cell": cells.array, "key": cells.map(key_of)})
    found = rows.merge(known, on="key").sort_values("row", kind="stable")
    return found.drop_duplicates(["row", "image_id"], ignore_index=True)


def _no_match(source: Source, table: LabelTable, cells: pd.Series, known: pd.DataFrame) -> str:
    """Return that no row has an image, which columns can name one, and what else to give."""
    expected = " or ".join(_keys_of(table)) if "file" not in table.assigned else "name"
    option = source.options.caller
    ways = []
    for column in map(str, table.text.columns):
        kinds = known.loc[is_member(known["key"], _plain_paths(source, table.text[column])), "kind"]
        if len(kinds):
            ways.append(f"{option.text('file', column)} (it holds the {kinds.iloc[0]} of images)")
    way = " or ".join(ways) or (
        f"{option.text('file', 'COLUMN')} for a column with their file, SOPInstanceUID, "
        "StudyInstanceUID, AccessionNumber or PatientID, or give the folder of these images"
    )
    return (
        f"none of its {cells.nunique()} {cells.name} is the {expected} of a radiograph in "
        f"{source.root}, as the files and headers write it; say {way}"
    )


def _refuse_rounded(table: LabelTable, cells: pd.Series) -> None:
    reason = (
        f"column '{cells.name}' holds a long number that a spreadsheet rounded, such as 1.2E+15; "
        "export it anew with this column as text"
    )
    flags = pd.Series(cells.str.fullmatch(_ROUNDED).to_numpy(dtype=bool), table.text.index)
    refuse_line(flags, table.path, reason)


def _note_differences(
    source: Source,
    table: LabelTable,
    cells: pd.Series,
    matches: pd.DataFrame,
    known: pd.DataFrame,
) -> None:
    """Note rows whose image is not there, and rows that name it by another spelling."""
    is_found = is_member(cells, matches["cell"])
    where = f"{table.path.name}: "
    respelt = matches.loc[matches["cell"] != matches["key"], "cell"].nunique()
    if respelt:
        source.notes.append(
            f"{where}{counted(respelt, 'cell')} of {cells.name} found by another spelling (folder, "
            "file ending or zeros before a number)"
        )
    if not is_found.all():
        lost = (
            f"{where}{int((~is_found).sum())} of {len(cells)} rows name an image that is missing "
            "or was left out"
        )
        others = known[is_member(known["key"], cells[~is_found])]
        if len(others):
            kind = others["kind"].iloc[0]
            lost += (
                f". {others['key'].nunique()} of these names are the {kind} of an image: name all "
                "images in one way"
            )
        source.notes.append(lost)


def _refuse_several(table: LabelTable, matches: pd.DataFrame) -> None:
    """Refuse a row that names several files, or studies of several patients."""
    owners = matches.groupby("row")[["patient", "study", "path"]].nunique()
    is_several = (owners[["patient", "study"]] > 1).all(axis=1)
    if matches["kind"].iloc[0] == _FILE:
        is_several = owners["path"] > 1
    rows = set(owners.index[is_several])
    reason = (
        f"column '{table.cells(table.key).name}' fits several files, or studies of several "
        "patients; name each file with its folder, or its SOPInstanceUID"
    )
    index = table.text.index
    refuse_line(pd.Series([row in rows for row in range(len(index))], index), table.path, reason)


def _exclude_unclear(source: Source, table: LabelTable, matches: pd.DataFrame) -> None:
    """Leave out images of a patient with several studies, or of a study of which a row has a box.

    A table that only states facts of patients, such as the sex, is of all their images.
    """
    counts = matches.groupby("row")[["study", "image_id"]].transform("nunique")
    if table.states_labels and matches["kind"].iloc[0] == _PATIENT:
        ids = matches.loc[counts["study"] > 1, "image_id"]
        reason = "its patient has several studies, and the table does not say which one is labelled"
        source.exclude(ids, reason)
        if len(ids):
            text = (
                f"images are left out, since {table.path.name} labels patients who have several "
                "studies; add a column with the StudyInstanceUID of the labelled study"
            )
            source.notes.append(counted_phrase(ids.nunique(), text))
    edges = [table.cells(role) != "" for role in sorted(table.box_roles)]
    if edges:
        is_boxed = pd.concat(edges, axis=1).any(axis=1).to_numpy()[matches["row"]]
        ids = matches.loc[is_boxed & (counts["image_id"] > 1), "image_id"]
        reason = "one of several images of a study or patient, and the table does not say which one"
        source.exclude(ids, f"{reason} the box is of")
        if len(ids):
            text = (
                f"images are left out, since {table.path.name} has boxes of studies or patients "
                "that have several images; add a column with the SOPInstanceUID of the image"
            )
            source.notes.append(counted_phrase(ids.nunique(), text))
