"""Format of three sets of COVID-19 radiographs, told apart by what lies in the folder.

- COVID-19 Radiography Database (Kaggle): a folder a class, each with ``images/`` and ``masks/``, or
  with the images themselves in the older releases, and ``*.metadata.xlsx``, which say where each
  image was taken from.
- COVID-19 image data collection, and others of its form: ``metadata.csv``.
- Hannover's image repository: ``data.csv`` and ``png/``.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from data_prep.contracts.csv_text import read_text_csv, to_numbers
from data_prep.contracts.errors import InputError
from data_prep.contracts.schemas import REFERENCE_READER
from data_prep.contracts.tables import empty_table
from data_prep.contracts.text_lookup import is_member
from data_prep.contracts.words import counted
from data_prep.formats.common import (
    display_name,
    finding_name,
    list_image_files,
    patients_from_names,
    require_unique_stems,
)
from data_prep.formats.source import (
    Exclusions,
    Format,
    SourceTables,
    has_columns,
    has_file,
    no_roles,
    normal_views,
    require_format,
)

COVID = "covid_19"
_JUDGED = (
    COVID, "pneumonia", "lung_opacity", "viral_pneumonia", "bacterial_pneumonia",
    "fungal_pneumonia", "tuberculosis",
)  # fmt: skip
_KINDS = ("viral", "bacterial", "fungal", "lipoid", "aspiration")
_UNKNOWN = {"", "todo", "unknown", "unclear"}
# There, the host alone names many sources.
_PLATFORMS = ("github.com", "kaggle.com")


def _covid_targets(findings: set[str]) -> dict[str, dict[str, Any]]:
    """A target for each finding that is worth judging; rare germs stay findings only.

    Example:
        >>> _covid_targets({"covid_19", "legionella"})
        {'covid_19': {'any_of': ['covid_19'], 'display_name': 'COVID-19'}}
    """
    return {
        name: {
            "any_of": [name],
            "display_name": "COVID-19" if name == COVID else display_name(name),
        }
        for name in _JUDGED
        if name in findings
    }


def _origin_of(address: str) -> str:
    """Where an image was taken from: the host, and on a platform the owner and set, too.

    Example:
        >>> _origin_of("https://www.sirm.org/en/category/articles/")
        'sirm.org'
        >>> _origin_of("https://github.com/armiro/COVID-CXNet/tree/master")
        'github.com/armiro/covid-cxnet'
    """
    try:
        parts = urlsplit(address.strip().lower())
    except ValueError:
        return ""
    host = parts.netloc.removeprefix("www.")
    names = [name for name in parts.path.split("/") if name]
    return "/".join([host, *names[:2]]) if host in _PLATFORMS else host


def _origins_of(addresses: pd.Series) -> pd.Series:
    """`_origin_of` each address; missing where there is none."""
    known = {address: _origin_of(address) for address in addresses.unique()}
    origins = addresses.map(known)
    return origins.where(origins != "").astype("str")


def _path_findings(cell: str) -> list[str]:
    """Take a published finding apart: each part of the path is one.

    Example:
        >>> _path_findings("Pneumonia/Viral/COVID-19")
        ['pneumonia', 'viral_pneumonia', 'covid_19']
        >>> _path_findings("COVID-19, ARDS"), _path_findings("todo")
        (['covid_19', 'ards'], [])
    """
    names = [finding_name(part) for part in re.split("[/,]", cell)]
    return [f"{n}_pneumonia" if n in _KINDS else n for n in names if n not in _UNKNOWN]


METADATA, HANNOVER = "metadata.csv", "data.csv"
_RADIOGRAPHS = ["X-RAY", "XRAY", "CR", "DX", "DR", ""]
_LATERAL = ["L", "LL", "RL", "LATERAL"]
_SLICES = ["AXIAL", "CORONAL", "SAGITTAL", "CT"]


def _read_collection(source: Path) -> SourceTables:
    """Read a folder with ``metadata.csv`` in the form of the COVID-19 image data collection."""
    path = source / METADATA
    text = _lower_columns(read_text_csv(path, ())).drop_duplicates()
    text = text.rename(columns={"imagename": "filename"})
    missing = {"patientid", "finding", "filename"} - set(text.columns)
    if missing:
        found = ", ".join(text.columns)
        raise InputError(f"{path}: column '{min(missing)}' is missing; found {found}")
    for column in {"view", "modality", "folder", "sex", "age", "offset", "url"} - set(text.columns):
        text[column] = "images" if column == "folder" else ""
    ids = text["filename"].str.replace(r"\.\w+$", "", regex=True)
    view = text["view"].str.upper()
    view = view.where(~view.str.startswith("AP"), "AP")  # supine, erect, semi erect
    images = pd.DataFrame(
        {
            "image_id": ids,
            "path": text["folder"] + "/" + text["filename"],
            "patient": text["patientid"],
            "view": normal_views(view),
            "sex": text["sex"].str.upper().where(text["sex"] != ""),
            "age_years": to_numbers(text["age"], path, "age"),
            "x_view": text["view"].where(text["view"] != ""),
            "x_offset_days": to_numbers(text["offset"], path, "offset"),
            "x_origin": _origins_of(text["url"]),
        }
    )
    modality = text["modality"].str.upper()
    out = Exclusions("labels")
    out.add(ids[is_member(view, _SLICES) | (modality == "CT")], "a CT slice, no radiograph")
    out.add(ids[is_member(view, _LATERAL)], "lateral view")
    out.add(ids[~is_member(modality, [*_RADIOGRAPHS, "CT"])], "of another modality than X-ray")
    parts = {cell: _path_findings(cell) for cell in text["finding"].unique()}
    mixed = [cell for cell, names in parts.items() if "no_finding" in names and len(names) > 1]
    out.add(ids[is_member(text["finding"], mixed)], "'No Finding' beside a finding")
    notes: list[str] = []
    images, excluded = _with_files(images, source, METADATA, out, notes)
    images = _with_patients(images, "covid_collection", notes)
    findings = _findings_of_paths(text.assign(image_id=ids), parts, images["image_id"])
    covid = findings.loc[findings["finding"] == COVID, "state"]
    n_present, n_absent = int((covid == "present").sum()), int((covid == "absent").sum())
    notes.append(
        f"COVID-19 is present on {n_present} and absent on {n_absent} of "
        f"{counted(len(images), 'image')}; on "
        "the others, which have another finding or none named, it is unknown"
    )
    return _tables(source, images, findings, excluded, notes)


def _read_hannover(source: Path) -> SourceTables:
    """Read the COVID-19 image repository of Hannover Medical School."""
    path = source / HANNOVER
    text = read_text_csv(path, ("patient_id", "image_id", "projection", "modality"))
    text = text.drop_duplicates()
    for column in {"sex", "age", "admission_offset"} - set(text.columns):
        text[column] = ""
    images = pd.DataFrame(
        {
            "image_id": text["image_id"],
            "path": "png/" + text["image_id"] + ".png",
            "patient": text["patient_id"],
            "view": normal_views(text["projection"]),
            "sex": text["sex"].str.upper().where(text["sex"] != ""),
            "age_years": to_numbers(text["age"], path, "age"),
            "x_modality": text["modality"].str.upper(),
            "x_admission_offset_days": to_numbers(
                text["admission_offset"], path, "admission_offset"
            ),
        }
    )
    out = Exclusions("labels")
    slices = ~is_member(images["x_modality"], _RADIOGRAPHS)
    out.add(images.loc[slices, "image_id"], "of another modality than X-ray")
    out.add(images.loc[images["view"] == "LL", "image_id"], "lateral view")
    notes: list[str] = []
    images, excluded = _with_files(images, source, HANNOVER, out, notes)
    images = _with_patients(images, "hannover", notes)
    findings = pd.DataFrame(
        {
            "image_id": images["image_id"],
            "finding": COVID,
            "reader": REFERENCE_READER,
            "state": "present",
            "origin": "folder",
        }
    )
    notes.append(
        f"WARNING: all {counted(images['patient_id'].nunique(), 'patient', 'have')} COVID-19, so "
        "the target has "
        "no negative: combine it with another set (cxr prepare A B --out C) to judge anything"
    )
    return _tables(source, images, findings, excluded, notes)


def _lower_columns(text: pd.DataFrame) -> pd.DataFrame:
    """The collection's early tables write ``Patientid`` for ``patientid``."""
    text = text.set_axis([str(c).lower() for c in text.columns], axis=1)
    return text.loc[:, ~text.columns.duplicated()]


def _with_files(
    images: pd.DataFrame, source: Path, table: str, out: Exclusions, notes: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Keep the rows with a file, or, where no file is there at all, every row without one.

    Images of other folders than the table names (masks, drawings) are no part of the set.
    """
    ids = images["image_id"]
    out.add(ids[ids.duplicated()], f"two rows in {table}")
    folders = images["path"].str.rsplit("/", n=1).str[0].unique()
    files = list_image_files(source)
    files = files[is_member(files["path"].str.rsplit("/", n=1).str[0], folders)]
    there = is_member(images["path"], files["path"])
    if there.any():
        out.add(ids[~there], f"row in {table}, but no image")
        out.add(files.loc[~is_member(files["path"], images["path"]), "path"], f"no row in {table}")
    elif len(files):
        raise InputError(f"{source}: none of its {len(files)} images is listed in {table}")
    excluded = out.table(dict(zip(ids, images["path"], strict=True)))
    kept = out.keep(images).reset_index(drop=True)
    if kept.empty:
        why = excluded["reason"].iloc[0] if len(excluded) else "it lists none"
        raise InputError(f"{source / table}: leaves no image; {why}")
    if not there.any():
        notes.append("no image is there: a data set without pixels, to judge predictions on only")
        kept["path"] = pd.Series(None, index=kept.index, dtype="str")
    return kept, excluded


def _with_patients(images: pd.DataFrame, name_space: str, notes: list[str]) -> pd.DataFrame:
    """Turn ``patient`` into ``patient_id`` and its source; add ``source``."""
    given = images["patient"] != ""
    if not given.all():
        notes.append(
            f"WARNING: the table names no patient for {counted(int((~given).sum()), 'image')}, so "
            "each counts "
            "as a patient of its own"
        )
    patient = images["patient"].where(given, "image-" + images["image_id"])
    images.insert(1, "patient_id", f"{name_space}:" + patient)
    images.insert(2, "patient_id_source", np.where(given, "given", "assumed_image"))
    images.insert(3, "source", name_space)
    return images.drop(columns="patient")


def _findings_of_paths(
    text: pd.DataFrame, parts: dict[str, list[str]], kept: pd.Series
) -> pd.DataFrame:
    """Present for each part of a row's path; on healthy images every finding is absent."""
    rows = text.loc[is_member(text["image_id"], kept), ["image_id", "finding"]]
    pairs = [(cell, name) for cell, names in parts.items() for name in names]
    named = pd.DataFrame(pairs, columns=["finding", "name"], dtype="str")
    named = rows.merge(named, on="finding").drop(columns="finding").drop_duplicates()
    healthy = named.loc[named["name"] == "no_finding", ["image_id"]]
    present = named[named["name"] != "no_finding"].assign(state="present")
    every = pd.DataFrame({"name": sorted({COVID, *present["name"]})}, dtype="str")
    absent = healthy.merge(every, how="cross").assign(state="absent")
    findings = pd.concat([present, absent], ignore_index=True).rename(columns={"name": "finding"})
    return findings.assign(reader=REFERENCE_READER, origin="reader")


def _tables(
    source: Path,
    images: pd.DataFrame,
    findings: pd.DataFrame,
    excluded: pd.DataFrame,
    notes: list[str],
) -> SourceTables:
    return SourceTables(
        format="covid",
        root=source,
        images=images,
        findings=findings[["image_id", "finding", "reader", "state", "origin"]],
        boxes=empty_table("boxes"),
        box_coverage=empty_table("box_coverage"),
        excluded=excluded,
        targets=_covid_targets(set(findings["finding"])),
        split=no_roles(),
        notes=tuple(notes),
    )


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


def _read_covid(source: Path, patient_pattern: str | None = None) -> SourceTables:
    """Read the tables, or the folders, of a COVID-19 set; no pixel is decoded."""
    require_format(source, COVID_SETS)
    base = next((source / name for name in HOLDERS if _class_folders(source / name)), None)
    if base is not None:
        return _read_radiography(source, base, patient_pattern)
    tables = {METADATA: _read_collection, HANNOVER: _read_hannover}
    name = next((name for name in tables if (source / name).is_file()), None)
    if name is None:
        raise InputError(f"{source}: holds no folder COVID with images; unpack the download there")
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
    files, excluded = _list_labelled(source, base, notes)
    images = files[["image_id"]].join(
        patients_from_names(
            files["name"], pattern, "covid_radiography", image_ids=files["image_id"]
        )
    )
    images["source"] = "covid_radiography"
    images["path"] = files["path"]
    images["x_class"] = files["x_class"]
    n_unknown = int((images["patient_id_source"] == "assumed_image").sum())
    if n_unknown:
        notes.append(
            f"WARNING: nobody published the patients, so each of {counted(n_unknown, 'image')} "
            "counts as a "
            "patient of its own: the same person may be in training and test, and figures come out "
            "too good"
        )
    origins = _origins(files, base, notes)
    if origins is not None:
        images["x_origin"] = origins
    return SourceTables(
        format="covid",
        root=source,
        images=images,
        findings=_findings_of_folders(images),
        boxes=empty_table("boxes"),
        box_coverage=empty_table("box_coverage"),
        excluded=excluded,
        targets=_covid_targets(set(images["x_class"])),
        split=no_roles(),
        notes=tuple(notes),
    )


def _list_labelled(source: Path, base: Path, notes: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``image_id, path, folder, name, x_class`` of the usable images, and the others."""
    files = list_image_files(source, base.relative_to(source).as_posix())
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
        raise InputError(f"{base}: the folders of its classes hold no image; unpack them there")
    require_unique_stems(kept.assign(stem=kept["image_id"]), source)
    return kept, out.table({})


def _findings_of_folders(images: pd.DataFrame) -> pd.DataFrame:
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


def _origins(images: pd.DataFrame, base: Path, notes: list[str]) -> pd.Series | None:
    """Where each image was taken from, by the ``*.metadata.xlsx`` of its class."""
    tables = {path.name.lower(): path for path in base.glob("*.xlsx")}
    parts = []
    for folder in images["folder"].unique():
        path = tables.get(f"{folder.lower()}.metadata.xlsx")
        if path is not None:
            parts.append(_read_origins(path).assign(folder=folder))
    if not parts:
        return None
    known = pd.concat(parts).drop_duplicates(["folder", "name"])
    # The tables write NORMAL-1 and COVID1 for Normal-1.png and COVID-1.png.
    wanted = images[["folder"]].assign(name=_plain(images["name"]))
    origins = wanted.merge(known, on=["folder", "name"], how="left")["x_origin"].astype("str")
    notes.append(_origin_note(origins, images["x_class"]))
    return origins


def _origin_note(origins: pd.Series, classes: pd.Series) -> str:
    n_classes = classes.groupby(origins).transform("nunique")
    telling = int((n_classes == 1).sum())
    return (
        f"WARNING: {telling} of {counted(len(origins), 'image')} come from a source (x_origin) "
        "that gave one "
        "class only, so a system may learn the source instead of the disease; "
        f"{counted(int(origins.isna().sum()), 'image', 'have')} no known source"
    )


def _plain(names: pd.Series) -> pd.Series:
    return names.str.lower().str.replace(r"[-_ ]", "", regex=True)


def _read_origins(path: Path) -> pd.DataFrame:
    """Read a ``*.metadata.xlsx`` of the Radiography Database."""
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
    return pd.DataFrame({"name": _plain(table["name"]), "x_origin": _origins_of(table["address"])})


_looks_like_radiography = has_file(
    "COVID", "COVID-19", "COVID-19_Radiography_Dataset", "COVID-19 Radiography Database"
)


def _looks_like_covid(folder: Path) -> bool:
    return (
        _looks_like_radiography(folder)
        or has_columns(folder / "metadata.csv", "patientid", "finding")
        or has_columns(folder / "data.csv", "patient_id", "image_id", "projection")
    )


COVID_SETS = Format(
    name="covid",
    title="three COVID-19 sets",
    folder="the folders `COVID/` and `Normal/`; or `metadata.csv`; or `data.csv` with `png/`",
    detect=_looks_like_covid,
    read=lambda source, options: _read_covid(source, options.patient_pattern),
    options=("patient_pattern",),
    sources=(
        "kaggle.com/datasets/tawsifurrahman/covid19-radiography-database",
        "github.com/ieee8023/covid-chestxray-dataset",
        "github.com/ml-workgroup/covid-19-image-repository",
    ),
)
