"""Images of the rows of label tables by keys: names of files, or columns that are joined.

A table without names of files is joined with those that have some, or with the headers of DICOM
files, which are one more table of keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, counted, counted_phrase
from cxr_compare.data_prep.base.ids import TEXT, is_member, renamed
from cxr_compare.data_prep.base.image_names import Names
from cxr_compare.data_prep.base.names import headless_problem, names_by_role, plain_name
from cxr_compare.data_prep.base.user_tables import refuse_line
from cxr_compare.data_prep.sources.label_table import LabelTable
from cxr_compare.data_prep.sources.statements import Source
from cxr_compare.data_prep.sources.words import normal_views, plain_cells

_OWNERS = ["study", "patient"]
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
        files: Names of DICOM files as ``key``, with the columns of `images`.
        paths: Paths of all DICOM files, also of those that are left out.
    """

    where: str
    images: pd.DataFrame
    cells: pd.DataFrame
    roles: dict[str, list[str]]
    files: pd.DataFrame | None = None
    paths: pd.Series | None = None


def header_keys(files: pd.DataFrame, paths: pd.Series) -> Keys:
    """Return the keys in the headers of DICOM files; `paths` are those of all files."""
    bare = files["path"].str.replace(r"\.[A-Za-z][A-Za-z0-9]{0,5}$", "", regex=True)  # no UID part
    stems, names = (paths.str.rsplit("/", n=1).str[-1] for paths in (bare, files["path"]))
    uids = files["image_id"]
    images = _with_owners(files[["image_id", "path"]], files["study"], files["patient"])
    known = [images.assign(key=k) for k in (files["path"], bare, names, stems, uids, uids + ".dcm")]
    cells = {
        "StudyInstanceUID": files["study"],
        "AccessionNumber": files["accession_number"],
        "PatientID": files["patient_id"],
        "StudyDate": files["study_date"],
    }
    roles = {"study": ["StudyInstanceUID", "AccessionNumber"], "patient": ["PatientID"]}
    named = pd.concat(known).astype(TEXT).drop_duplicates(ignore_index=True)
    where = "the DICOM headers"
    return Keys(where, images, pd.DataFrame(cells, dtype=TEXT), roles, named, paths.astype(TEXT))


def table_keys(source: Source, tables: Sequence[LabelTable]) -> Keys:
    """Return the keys in tables that name files; lateral views, which are left out, have none."""
    parts = []
    for table in tables:
        held = [c for role in _OWNERS for c in table.columns.get(role, ())]
        free = [*table.unused, *(c for r in ("key", "view") for c in table.columns.get(r, ()))]
        part = table.text[[c for c in free if c not in held]].rename(columns=plain_name)
        part = part.loc[:, ~part.columns.duplicated()]
        part = part.assign(**{role: table.cells(role) for role in _OWNERS})
        names = table.cells("file").to_numpy()
        named = {"image_id": names, "path": names} if table.images.empty else table.images
        part[["image_id", "path"]] = pd.DataFrame(named).to_numpy()
        if not source.options.caller.compares:  # it takes any view
            part = part[normal_views(table.cells("view")).fillna("").ne("LL")]
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
) -> None:
    """Find the columns by which the rows of each table have images, whatever they are called."""
    keys = headers() if headers else None
    named = [t for t in tables if _names_files(source, t, keys) and not (keys and _is_owner(t))]
    first = tables[:1] if source.options.caller.compares else ()  # it loses no image
    for table in tables:
        known = keys or (table_keys(source, named) if named else None)
        if known is None or any(table is each for each in (*named, *first)):
            continue
        pairs = _pairs(table, known)
        if table.has("file") and "file" not in table.assigned:
            if keys or _counts_rows(table.cells("file")):  # else its files may be elsewhere
                raise _no_image(source, table, known)
        elif pairs:
            _join(table, pairs)
        elif _names_files(source, table, keys) or _take_files(source, table, keys):
            continue
        elif keys and any(map(table.has, ("file", *_OWNERS))):
            raise _no_image(source, table, known)


def _join(table: LabelTable, pairs: _Pairs) -> None:
    """Record that a table is joined by columns."""
    first = pairs[0][0]
    table.pairs = pairs
    table.add("key", [column for column, _ in pairs if column in table.unused])
    roles = ("file", *_OWNERS)
    table.key = next((role for role in roles if first in table.columns.get(role, ())), "key")


def _names_files(source: Source, table: LabelTable, keys: Keys | None) -> bool:
    """Return True if the column of files of a table names an image, in any spelling."""
    cells = table.cells("file")
    if not table.has("file"):
        return False
    if keys is not None:
        return not _rows_of_files(source, table, keys).empty
    return source.index is None or any(source.files.fitting(cells.unique())[0].values())


def _is_owner(table: LabelTable) -> bool:
    """Return True if the user names images by a column that is called as studies or patients."""
    called = plain_name(str(table.cells("file").name))
    return "file" in table.assigned and any(called in names_by_role()[role] for role in _OWNERS)


def _take_files(source: Source, table: LabelTable, keys: Keys | None) -> bool:
    """Take the column whose cells name files as that of images; ask if there are several."""
    if headless_problem(list(table.text.columns)):
        return False
    found = [c for c in table.unused if _share_of_files(source, table.text[c], keys) > 1 / 2]
    if len(found) > 1:
        ways = " or ".join(table.caller.text("file", column) for column in found)
        raise InputError(f"{table.path}: columns {', '.join(found)} name images; say {ways}")
    for column in found:
        table.columns["file"] = [column]
        source.show(f"{table.path.name}: column '{column}' names images, by its cells")
    return bool(found)


def _share_of_files(source: Source, cells: pd.Series, keys: Keys | None) -> float:
    """Return the share of the first names in a column that are files; 0 for a single name."""
    names = cells[cells != ""].drop_duplicates()[:_MOST_TRIED]
    if len(names) < 2 or (keys is None and source.index is None):
        return 0.0
    if keys is not None:
        return float(is_member(_plain_paths(source, names), keys.files["key"]).mean())
    return sum(bool(source.files.find(name, ("", "images"))) for name in names) / len(names)


def _pairs(table: LabelTable, keys: Keys) -> _Pairs:
    """Return the columns of a table and of keys that have the same cells; empty without any."""
    for role in ("file", *_OWNERS, ""):
        own = table.columns.get(role, [])
        own = own if role else [name for name in table.unused if _is_key(table.text[name])]
        alike = [(column, key) for column in own for key in _alike(column, role, keys)]
        found = {pair: _fit(table, keys, [pair], half=not role) for pair in alike}
        best = max(found, key=lambda pair: found[pair], default=None)
        if best is not None and found[best]:
            return _finer(table, keys, best)
        if own and alike:  # it names what is not here
            return ()
    return ()


def _alike(column: str, role: str, keys: Keys) -> list[str]:
    """Return the keys that a column may hold, the likeliest first."""
    called = [r for r in _OWNERS if role == "file" and plain_name(column) in names_by_role()[r]]
    same = [key for r in (role, *called) for key in keys.roles.get(r, ())]
    same += [key for key in keys.cells if plain_name(key) == plain_name(column)]
    if role not in _OWNERS and keys.files is not None:
        same += [key for listed in keys.roles.values() for key in listed]
    return list(dict.fromkeys(same))


def _is_key(cells: pd.Series) -> bool:
    """Return True for cells that may be ids: no numbers of rows, measures or dates."""
    filled = cells[cells != ""]
    others = (_DECIMAL, _DATE)
    return (
        filled.nunique() > 1
        and not _counts_rows(cells)
        and not any(filled.str.fullmatch(other).all() for other in others)
    )


def _counts_rows(cells: pd.Series) -> bool:
    """Return True for cells that are the numbers of their rows, from 0 or 1 on."""
    return any(cells.tolist() == [*map(str, range(n, n + len(cells)))] for n in (0, 1))


def _fit(table: LabelTable, keys: Keys, pairs: _Pairs, *, half: bool) -> int:
    """Return how many keys both have; 0 if `half` and it is less than half of the shorter list.

    Such a key tells the rows or the images apart.
    """
    cells, known = _joined(table, keys, pairs)
    here, there = cells[cells != ""], known[known != ""]
    n_both = len({*here} & {*there})
    is_doubtful = 2 * n_both < min(here.nunique(), there.nunique())
    is_doubtful |= not (here.is_unique or there.is_unique)
    return 0 if half and is_doubtful else n_both


def _finer(table: LabelTable, keys: Keys, first: tuple[str, str]) -> _Pairs:
    """Return pairs of columns that tell more images apart than one does, as patient and date do."""
    dated = [c for c in table.unused if _are_dates(table.text[c])]
    pairs = [(c, k) for c in dated for k in keys.cells if _are_dates(keys.cells[k])]
    others = {role: table.columns.get(role, ()) for role in ("patient", "view")}
    pairs += [(c, k) for role, own in others.items() for c in own for k in _alike(c, role, keys)]
    pairs += [(c, k) for c in table.unused for k in _alike(c, "view", keys)]
    chosen = [first]
    for pair in dict.fromkeys(pairs):
        if pair[0] in (column for column, _ in chosen):
            continue
        n_told = [_joined(table, keys, p)[1].nunique() for p in (chosen, [*chosen, pair])]
        cells, known = _joined(table, keys, [*chosen, pair])
        n_both = len({*cells} & {*known} - {""})
        if n_told[1] > n_told[0] and 2 * n_both >= min(cells.nunique(), known.nunique()):
            chosen.append(pair)
    return chosen


def _are_dates(cells: pd.Series) -> bool:
    filled = cells[cells != ""]
    return bool(len(filled)) and bool(filled.str.fullmatch(_DATE).all())


def _plain_keys(cells: pd.Series) -> pd.Series:
    """Return keys as they are compared: dates as in DICOM, whole numbers without decimals."""
    if _are_dates(cells):
        return cells.str.replace(_DATE, r"\1\2\3\6\5\4", regex=True)
    return plain_cells(cells)


def _joined(table: LabelTable, keys: Keys, pairs: _Pairs) -> tuple[pd.Series, pd.Series]:
    """Return the key of each row of a table, and of each image; empty if a part of it is."""
    texts = []
    for column, key in pairs:
        known = _plain_keys(keys.cells[key])
        cells = _plain_keys(table.text[column])
        texts.append((renamed(cells, _spelling(cells, known)), known))
    one, other = (pd.concat(side, axis=1) for side in zip(*texts, strict=True))
    return _one_text(one), _one_text(other)


def _one_text(parts: pd.DataFrame) -> pd.Series:
    texts = parts.iloc[:, 0].str.cat(parts.iloc[:, 1:], sep="\0")
    return texts.where((parts != "").all(axis=1), "")


def _spelling(cells: pd.Series, known: pd.Series, free: pd.Series | None = None) -> dict[str, str]:
    """Return each cell as it is known, by another spelling if each such cell has one of its own.

    `free` are those that a cell of another spelling may be.
    """
    names = pd.Series(cells.unique(), dtype=TEXT)
    spelt = dict(zip(names, names, strict=True))
    others = names[~is_member(names, known)]
    if free is None and names.str.match("0.").any():  # it has lost no zeros
        return spelt
    images = Names((known if free is None else free)[lambda keys: ~is_member(keys, names)])
    fits, _ = images.fitting(others)
    own = {name: found[0] for name, found in fits.items() if found}
    # If one fits two, or two fit one, none is taken for another name.
    is_clear = len({*own.values()}) == sum(map(len, fits.values()))
    spelt |= own if is_clear else {}
    return spelt


def _plain_paths(source: Source, cells: pd.Series) -> pd.Series:
    """Return cells without the folder of the source, and with / as Windows does not write it."""
    cells = cells.str.replace("\\", "/", regex=False).str.removeprefix("./")
    for folder in (source.root, source.root.resolve()):
        cells = cells.str.removeprefix(folder.as_posix().rstrip("/") + "/")
    return cells


def _rows_of_files(source: Source, table: LabelTable, keys: Keys) -> pd.DataFrame:
    """Return the images of the rows that name DICOM files, by path, name or SOPInstanceUID."""
    cells, known = _plain_paths(source, table.cells("file")), keys.files
    named = known.loc[is_member(known["key"], cells), "path"]
    free = keys.paths[~is_member(keys.paths, named)]  # also lateral views
    return _rows_of(renamed(cells, _spelling(cells, known["key"], free)), known)


def _rows_of(keys: pd.Series, known: pd.DataFrame) -> pd.DataFrame:
    """Return the images that are `known` by the key of each row: ``row`` and ``key``, too."""
    rows = pd.DataFrame({"row": range(len(keys)), "key": keys.array})
    found = rows[rows["key"] != ""].merge(known, on="key").sort_values("row", kind="stable")
    return found.drop_duplicates(["row", "image_id"], ignore_index=True)


def named_files(source: Source, tables: Sequence[LabelTable], keys: Keys) -> list[str]:
    """Return the paths of DICOM files that tables name, by their file or SOPInstanceUID."""
    by_file = [table for table in tables if table.has("file") and not table.pairs]
    return [path for t in by_file for path in _rows_of_files(source, t, keys)["path"]]


def match_rows(source: Source, table: LabelTable, keys: Keys) -> None:
    """Find the images of each row of a table, by its key or by names of DICOM files.

    Images whose patient or study a row names are left out if that does not say what they show: a
    label of a patient with several studies, or a box of a study with several images.
    """
    if table.pairs:
        cells, known = _joined(table, keys, table.pairs)
        matches = _rows_of(cells, keys.images.assign(key=known))
    else:
        matches = _rows_of_files(source, table, keys)
    _refuse_rounded(table, matches)
    if matches.empty:
        raise _no_image(source, table, keys)
    _note_rows(source, table, keys, matches)
    _refuse_several(table, matches)
    if not any(key in keys.roles["study"] for _, key in table.pairs):
        _refuse_contradictions(table, keys, matches)
    _exclude_unclear(source, table, keys, matches)
    table.keep_matches(matches)


def _no_image(source: Source, table: LabelTable, keys: Keys) -> InputError:
    """Return the error of a table whose rows have no image, with the columns that give them one."""
    role = next(role for role in ("file", *_OWNERS, "key") if table.has(role))
    cells, ways = table.cells(role), []
    for column in map(str, table.text.columns):
        held = [k for k in keys.cells if _fit(table, keys, [(column, k)], half=role == "key")]
        if _share_of_files(source, table.text[column], keys):
            held = ["file or SOPInstanceUID"]
        if held:
            way = table.caller.text("file", column)
            ways.append(f"{way} (it holds the {held[0]} of images)")
    way = " or ".join(ways) or (
        f"{table.caller.text('file', 'COLUMN')} for a column with their file, SOPInstanceUID, "
        "StudyInstanceUID, AccessionNumber or PatientID, or give the folder of these images"
    )
    return InputError(
        f"{table.path}: none of its {cells.nunique()} {cells.name} names a radiograph in "
        f"{source.root}, as the files and {keys.where} write it; say {way}"
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


def _note_rows(source: Source, table: LabelTable, keys: Keys, matches: pd.DataFrame) -> None:
    """Say by what a table is joined, and note rows without an image, or of another spelling."""
    called, n_rows = _called(table), len(table.text)
    n_lost = n_rows - matches["row"].nunique()
    if table.pairs:
        n_images = counted(matches["image_id"].nunique(), "image")
        source.show(
            f"{table.path.name}: joined with {keys.where} by {called}: {n_rows - n_lost:,} of "
            f"{n_rows:,} rows, {n_images}"
        )
    keys_of = matches.drop_duplicates("row")
    written = _plain_paths(source, table.cells(table.key)).iloc[keys_of["row"]]
    respelt = written[(written != keys_of["key"].to_numpy())].nunique() if not table.pairs else 0
    where = f"{table.path.name}: "
    if respelt:
        source.notes.append(
            f"{where}{counted(respelt, 'cell')} of {called} found by another spelling (folder, "
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
    reason = (
        f"column '{_called(table)}' fits several files, or studies of several patients; name each "
        "file with its folder, or its SOPInstanceUID"
    )
    index = table.text.index
    refuse_line(pd.Series([row in rows for row in range(len(index))], index), table.path, reason)


def _refuse_contradictions(table: LabelTable, keys: Keys, matches: pd.DataFrame) -> None:
    """Refuse a row whose image has another value in a column that both have, such as the date."""
    of_image = keys.cells.set_axis(keys.images["image_id"])
    for column in table.unused:
        for key in (k for k in of_image if plain_name(k) == plain_name(column)):
            own = _plain_keys(table.text[column]).iloc[matches["row"]]
            other = _plain_keys(of_image[key])[matches["image_id"]].to_numpy()
            reason = (
                f"column '{column}' is otherwise in {keys.where} for the same {_called(table)}; "
                f"correct it, or {table.caller.advice('unused', column)}"
            )
            refuse_line((own != other) & (own != "") & (other != ""), table.path, reason)


def _exclude_unclear(source: Source, table: LabelTable, keys: Keys, matches: pd.DataFrame) -> None:
    """Leave out images of a patient with several studies, or of a study of which a row has a box.

    A table that only states facts of patients, such as the sex, is of all their images.
    """
    counts = matches.groupby("row")[["study", "image_id"]].transform("nunique")
    if table.states_labels:
        ids = matches.loc[counts["study"] > 1, "image_id"]
        reason = "its patient has several studies, and the table does not say which one is labelled"
        source.exclude(ids, reason)
        if len(ids):
            text = (
                f"images are left out, since {table.path.name} labels patients who have several "
                "studies; add a column with the StudyInstanceUID or the date of the labelled study"
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
