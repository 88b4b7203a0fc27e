"""Reader of three sets of COVID-19 radiographs, told apart by what lies in the folder.

- COVID-19 Radiography Database (Kaggle): a folder a class, each with ``images/`` and ``masks/``, or
  with the pictures themselves in the older releases, and ``*.metadata.xlsx``, which say where each
  picture was taken from.
- COVID-19 image data collection, and others of its form: ``metadata.csv``.
- Hannover's image repository: ``data.csv`` and ``png/``.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.schemas import REFERENCE_READER
from data_prep.contracts.tables import empty_table
from data_prep.contracts.text_lookup import is_member
from data_prep.formats.common import (
    finding_name,
    list_pictures,
    patients_from_names,
    require_unique_stems,
)
from data_prep.formats.covid_labels import COVID, covid_targets, origins_of
from data_prep.formats.covid_tables import HANNOVER, METADATA, read_collection, read_hannover
from data_prep.formats.source import Exclusions, SourceTables, no_roles, require_source

_HOLDER, _OLD_HOLDER = "COVID-19_Radiography_Dataset", "COVID-19 Radiography Database"
HOLDERS = ("", _HOLDER, f"{_HOLDER}/{_HOLDER}", _OLD_HOLDER)  # Kaggle's archive nests them
_CLASSES = {
    "covid": COVID,
    "covid_19": COVID,
    "lung_opacity": "lung_opacity",
    "normal": "normal",
    "viral_pneumonia": "viral_pneumonia",
}
_FINDINGS = (COVID, "lung_opacity", "viral_pneumonia")
_PLACE = r"(?i)^(?P<folder>[^/]+)/(?:images/)?(?P<name>[^/]+)\.\w+$"
# COVID-12, COVID-19 (12), NORMAL (12), Viral Pneumonia-12
_PUBLISHED = r"(?i)^(covid(?:-19)?|lung_opacity|normal|viral pneumonia)[-_ ]?\(?\d+\)?$"
_SOURCE_COLUMNS = ("FILE NAME", "URL")


def read_covid(source: Path, patient_pattern: str | None = None) -> SourceTables:
    """Read the tables, or the folders, of a COVID-19 set; no pixel is decoded.

    Args:
        source: Folder in one of the three layouts, or the one above the Radiography Database.
        patient_pattern: Finds the patient in the Radiography Database's file names. The other two
            name the patients themselves.

    Returns:
        Finding ``covid_19`` and others by source, a target each for the common ones. A folder or a
        row that names one finding says nothing of the others; only a normal one makes all absent.

    Raises:
        InputError: The folder is in none of the layouts, holds no picture, or a table is malformed.
    """
    require_source(source, "covid")
    base = next((source / name for name in HOLDERS if _class_folders(source / name)), None)
    if base is not None:
        return _read_radiography(source, base, patient_pattern)
    tables = {METADATA: read_collection, HANNOVER: read_hannover}
    name = next((name for name in tables if (source / name).is_file()), None)
    if name is None:
        raise InputError(
            f"{source}: holds no folder COVID with pictures; unpack the download there"
        )
    if patient_pattern is not None:
        raise InputError(f"{source / name}: names the patients; leave --patient-pattern out")
    return tables[name](source)


def _class_folders(folder: Path) -> list[str]:
    """The folders that are a class, if that of COVID-19 is among them."""
    if not folder.is_dir():
        return []
    names = sorted(p.name for p in folder.iterdir() if p.is_dir())
    known = [name for name in names if finding_name(name) in _CLASSES]
    return known if COVID in {_CLASSES[finding_name(name)] for name in known} else []


def _read_radiography(source: Path, base: Path, pattern: str | None) -> SourceTables:
    notes: list[str] = []
    pictures, excluded = _list_labelled(source, base, notes)
    images = pictures[["image_id"]].join(
        patients_from_names(
            pictures["name"], pattern, "covid_radiography", image_ids=pictures["image_id"]
        )
    )
    images["source"] = "covid_radiography"
    images["path"] = pictures["path"]
    images["x_class"] = pictures["x_class"]
    n_unknown = int((images["patient_id_source"] == "assumed_image").sum())
    if n_unknown:
        notes.append(
            f"WARNING: nobody published the patients, so each of {n_unknown} images counts as a "
            "patient of its own: the same person may be in training and test, and figures come out "
            "too good"
        )
    origins = _origins(pictures, base, notes)
    if origins is not None:
        images["x_origin"] = origins
    return SourceTables(
        format="covid",
        root=source,
        images=images,
        findings=_findings(images),
        boxes=empty_table("boxes"),
        box_coverage=empty_table("box_coverage"),
        excluded=excluded,
        targets=covid_targets(set(images["x_class"])),
        split=no_roles(),
        notes=tuple(notes),
    )


def _list_labelled(source: Path, base: Path, notes: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``image_id, path, folder, name, x_class`` of the usable pictures, and the others."""
    files = list_pictures(source, base.relative_to(source).as_posix())
    prefix = "" if base == source else f"{base.relative_to(source).as_posix()}/"
    files["inside"] = files["path"].str.removeprefix(prefix)
    masks = files["inside"].str.lower().str.contains("/masks/", regex=False)
    if masks.any():
        notes.append(f"{int(masks.sum())} masks are no radiographs: left out")
    files = files[~masks].reset_index(drop=True)
    files = files.join(files["inside"].str.extract(_PLACE))
    files["x_class"] = files["folder"].fillna("").map(finding_name).map(_CLASSES).astype("str")
    named = files["name"].fillna("").str.extract(_PUBLISHED)[0]
    named_class = named.fillna("").map(finding_name).map(_CLASSES).astype("str")
    out = Exclusions("labels")
    out.add(files.loc[files["x_class"].isna(), "path"], "not in the folder of a class")
    against = named_class.notna() & (named_class != files["x_class"])
    out.add(files.loc[against, "path"], "named as of another class than its folder")
    files["image_id"] = files["name"].where(
        named.notna(), files["inside"].str.replace(r"\.\w+$", "", regex=True)
    )
    kept = files[~is_member(files["path"], list(out.reasons))].reset_index(drop=True)
    if kept.empty:
        raise InputError(f"{base}: the folders of its classes hold no picture; unpack them there")
    require_unique_stems(kept.assign(stem=kept["image_id"]), source)
    return kept, out.table({})


def _findings(images: pd.DataFrame) -> pd.DataFrame:
    """The folder's own finding is present; of a normal image all are absent."""
    classes = images["x_class"]
    there = [name for name in _FINDINGS if (classes == name).any()]
    own = images.loc[classes != "normal", ["image_id", "x_class"]]
    present = own.rename(columns={"x_class": "finding"}).assign(state="present")
    normal = images.loc[classes == "normal", ["image_id"]]
    every = pd.DataFrame({"finding": there}, dtype="str")
    absent = normal.merge(every, how="cross").assign(state="absent")
    findings = pd.concat([present, absent], ignore_index=True)
    findings = findings.assign(reader=REFERENCE_READER, origin="folder")
    return findings[["image_id", "finding", "reader", "state", "origin"]]


def _origins(pictures: pd.DataFrame, base: Path, notes: list[str]) -> pd.Series | None:
    """Where each picture was taken from, by the ``*.metadata.xlsx`` of its class."""
    tables = {path.name.lower(): path for path in base.glob("*.xlsx")}
    parts = []
    for folder in pictures["folder"].unique():
        path = tables.get(f"{folder.lower()}.metadata.xlsx")
        if path is not None:
            parts.append(read_origins(path).assign(folder=folder))
    if not parts:
        return None
    known = pd.concat(parts).drop_duplicates(["folder", "name"])
    # The tables write NORMAL-1 and COVID1 for Normal-1.png and COVID-1.png.
    wanted = pictures[["folder"]].assign(name=_plain(pictures["name"]))
    origins = wanted.merge(known, on=["folder", "name"], how="left")["x_origin"].astype("str")
    notes.append(_origin_note(origins, pictures["x_class"]))
    return origins


def _origin_note(origins: pd.Series, classes: pd.Series) -> str:
    n_classes = classes.groupby(origins).transform("nunique")
    telling = int((n_classes == 1).sum())
    return (
        f"WARNING: {telling} of {len(origins)} images come from a source (x_origin) that gave one "
        "class only, so a system may learn the source instead of the disease; "
        f"{int(origins.isna().sum())} images have no known source"
    )


def _plain(names: pd.Series) -> pd.Series:
    return names.str.lower().str.replace(r"[-_ ]", "", regex=True)


def read_origins(path: Path) -> pd.DataFrame:
    """Read a ``*.metadata.xlsx`` of the Radiography Database.

    Args:
        path: Workbook whose first sheet has the columns ``FILE NAME`` and ``URL``.

    Returns:
        ``name`` (lower case, without ``-``, ``_`` and blanks) and ``x_origin``.

    Raises:
        InputError: The file is not such a workbook.
    """
    from openpyxl import load_workbook  # only this one set needs it, and it is slow to import

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles, which are nothing to us
            book = load_workbook(path, read_only=True, data_only=True)
            rows = list(book.worksheets[0].iter_rows(values_only=True))
            book.close()
    except Exception as error:  # noqa: BLE001 - a broken archive or XML raises anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: not readable as a workbook ({reason}); delete it") from None
    first = rows[0] if rows else ()
    header = [" ".join(str(cell or "").split()).upper() for cell in first]
    missing = [name for name in _SOURCE_COLUMNS if name not in header]
    if missing:
        raise InputError(f"{path}: column '{missing[0]}' is missing in its first row")
    columns = [header.index(name) for name in _SOURCE_COLUMNS]
    cells = [[str(row[c] or "") for c in columns] for row in rows[1:] if len(row) > max(columns)]
    table = pd.DataFrame(cells, columns=["name", "address"], dtype="str")
    return pd.DataFrame({"name": _plain(table["name"]), "x_origin": origins_of(table["address"])})
