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
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.tables import is_member, read_text_csv, to_numbers
from data_prep.contracts.words import counted
from data_prep.formats.source import (
    NO_PIXELS,
    Format,
    ReadOptions,
    SourceBuilder,
    SourceTables,
    display_name,
    finding_name,
    has_columns,
    has_file,
    list_image_files,
    normal_views,
    patients_from_names,
    reference_rows,
    require_format,
    require_unique_stems,
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


def _covid_targets(findings: Iterable[str]) -> dict[str, dict[str, Any]]:
    """A target for each finding that is worth judging; rare germs stay findings only."""
    names = set(findings)
    return {
        name: {
            "any_of": [name],
            "display_name": "COVID-19" if name == COVID else display_name(name),
        }
        for name in _JUDGED
        if name in names
    }


def _origin_of(address: str) -> str:
    """Where an image was taken from: the host, and on a platform the owner and set, too."""
    try:
        parts = urlsplit(address.strip().lower())
    except ValueError:
        return ""
    host = parts.netloc.removeprefix("www.")
    names = [name for name in parts.path.split("/") if name]
    return "/".join([host, *names[:2]]) if host in _PLATFORMS else host


def _origins_of(addresses: pd.Series) -> pd.Series:
    """`_origin_of` each address; missing where there is none."""
    origins = addresses.map({address: _origin_of(address) for address in addresses.unique()})
    return origins.where(origins != "").astype("str")


def _path_findings(cell: str) -> list[str]:
    """Take a published finding apart: each part of the path is one."""
    names = [finding_name(part) for part in re.split("[/,]", cell)]
    return [f"{n}_pneumonia" if n in _KINDS else n for n in names if n not in _UNKNOWN]


METADATA, HANNOVER = "metadata.csv", "data.csv"
_RADIOGRAPHS = ["X-RAY", "XRAY", "CR", "DX", "DR", ""]
_LATERAL = ["L", "LL", "RL", "LATERAL"]
_SLICES = ["AXIAL", "CORONAL", "SAGITTAL", "CT"]


def _read_collection(builder: SourceBuilder) -> SourceTables:
    """Read a folder with ``metadata.csv`` in the form of the COVID-19 image data collection."""
    path, notes, out = builder.root / METADATA, builder.notes, builder.out
    text = _lower_columns(read_text_csv(path, ())).drop_duplicates()
    text = text.rename(columns={"imagename": "filename"})
    missing = {"patientid", "finding", "filename"} - set(text.columns)
    if missing:
        columns = ", ".join(text.columns)
        raise InputError(f"{path}: column '{min(missing)}' is missing; found {columns}")
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
    out.add(ids[is_member(view, _SLICES) | (modality == "CT")], "a CT slice, no radiograph")
    out.add(ids[is_member(view, _LATERAL)], "lateral view")
    out.add(ids[~is_member(modality, [*_RADIOGRAPHS, "CT"])], "of another modality than X-ray")
    parts = {cell: _path_findings(cell) for cell in text["finding"].unique()}
    mixed = [cell for cell, names in parts.items() if "no_finding" in names and len(names) > 1]
    out.add(ids[is_member(text["finding"], mixed)], "'No Finding' beside a finding")
    images, paths = _with_files(images, METADATA, builder)
    images = _with_patients(images, "covid_collection", builder)
    findings = _findings_of_paths(text.assign(image_id=ids), parts, images["image_id"])
    covid = findings.loc[findings["finding"] == COVID, "state"]
    n_present, n_absent = int((covid == "present").sum()), int((covid == "absent").sum())
    notes.append(
        f"COVID-19 is present on {n_present} and absent on {n_absent} of "
        f"{counted(len(images), 'image')}; on the others, which have another finding or none "
        "named, it is unknown"
    )
    return builder.tables(images, findings, _covid_targets(findings["finding"]), paths=paths)


def _read_hannover(builder: SourceBuilder) -> SourceTables:
    """Read the COVID-19 image repository of Hannover Medical School."""
    path, out = builder.root / HANNOVER, builder.out
    required = ("patient_id", "image_id", "projection", "modality")
    text = read_text_csv(path, required, ("sex", "age", "admission_offset")).drop_duplicates()
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
    slices = ~is_member(images["x_modality"], _RADIOGRAPHS)
    out.add(images.loc[slices, "image_id"], "of another modality than X-ray")
    out.add(images.loc[images["view"] == "LL", "image_id"], "lateral view")
    images, paths = _with_files(images, HANNOVER, builder)
    images = _with_patients(images, "hannover", builder)
    findings = reference_rows(images["image_id"], COVID, state="present", origin="folder")
    builder.notes.append(
        f"WARNING: all {counted(images['patient_id'].nunique(), 'patient', 'have')} COVID-19, so "
        "the target has no negative: combine it with another set (cxr prepare A B --out C) to "
        "judge anything"
    )
    return builder.tables(images, findings, _covid_targets([COVID]), paths=paths)


def _lower_columns(text: pd.DataFrame) -> pd.DataFrame:
    """The collection's early tables write ``Patientid`` for ``patientid``."""
    text = text.set_axis([str(c).lower() for c in text.columns], axis=1)
    return text.loc[:, ~text.columns.duplicated()]


def _with_files(
    images: pd.DataFrame, table: str, builder: SourceBuilder
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Keep the rows with a file, or, where no file is there at all, every row without one.

    Images of other folders than the table names (masks, drawings) are no part of the set. Gives
    the path of each row's image, too.
    """
    source, out, ids = builder.root, builder.out, images["image_id"]
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
    kept = out.keep(images).reset_index(drop=True)
    if kept.empty:
        why = next(iter(out.reasons.values()), "it lists none")
        raise InputError(f"{source / table}: leaves no image; {why}")
    if not there.any():
        builder.notes.append(NO_PIXELS)
        kept["path"] = pd.Series(None, index=kept.index, dtype="str")
    return kept, dict(zip(ids, images["path"], strict=True))


def _with_patients(images: pd.DataFrame, name_space: str, builder: SourceBuilder) -> pd.DataFrame:
    """Turn ``patient`` into ``patient_id`` and its source; add ``source``."""
    given = images["patient"] != ""
    if not given.all():
        builder.warn_of_own_patients(
            f"the table names no patient for {counted(int((~given).sum()), 'image')}"
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
    parts_of = pd.DataFrame(pairs, columns=["cell", "finding"], dtype="str")
    rows = rows.rename(columns={"finding": "cell"}).merge(parts_of, on="cell")
    named = rows.drop(columns="cell").drop_duplicates()
    names = sorted({COVID, *named["finding"]} - {"no_finding"})
    return _with_healthy(named, "no_finding", names, origin="reader")


def _with_healthy(
    named: pd.DataFrame, healthy: str, names: list[str], *, origin: str
) -> pd.DataFrame:
    """Each named finding is present; on images that are named healthy all are absent."""
    is_healthy = named["finding"] == healthy
    every = pd.DataFrame({"finding": names}, dtype="str")
    absent = named.loc[is_healthy, ["image_id"]].merge(every, how="cross").assign(state="absent")
    rows = pd.concat([named[~is_healthy].assign(state="present"), absent], ignore_index=True)
    return reference_rows(rows["image_id"], rows["finding"], state=rows["state"], origin=origin)


_HOLDER, _OLD_HOLDER = "COVID-19_Radiography_Dataset", "COVID-19 Radiography Database"
_HOLDERS = ("", _HOLDER, f"{_HOLDER}/{_HOLDER}", _OLD_HOLDER)  # Kaggle's archive nests them
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


def _read_covid(source: Path, options: ReadOptions) -> SourceTables:
    """Read the tables, or the folders, of a COVID-19 set; no pixel is decoded."""
    require_format(source, COVID_SETS)
    builder, pattern = SourceBuilder("covid", source), options.patient_pattern
    base = next((source / name for name in _HOLDERS if _class_folders(source / name)), None)
    if base is not None:
        return _read_radiography(builder, base, pattern)
    tables = {METADATA: _read_collection, HANNOVER: _read_hannover}
    name = next((name for name in tables if (source / name).is_file()), None)
    if name is None:
        raise InputError(f"{source}: holds no folder COVID with images; unpack the download there")
    if pattern is not None:
        raise InputError(f"{source / name}: names the patients; leave --patient-pattern out")
    return tables[name](builder)


def _class_folders(folder: Path) -> list[str]:
    """The folders that are a class, if that of COVID-19 is among them."""
    if not folder.is_dir():
        return []
    names = sorted(p.name for p in folder.iterdir() if p.is_dir())
    classes = [name for name in names if finding_name(name) in _CLASSES]
    return classes if COVID in {_CLASSES[finding_name(name)] for name in classes} else []


def _read_radiography(builder: SourceBuilder, base: Path, pattern: str | None) -> SourceTables:
    files = _list_labelled(builder, base)
    images = files[["image_id"]].join(
        patients_from_names(
            files["name"], pattern, "covid_radiography", image_ids=files["image_id"]
        )
    )
    images = images.assign(source="covid_radiography", path=files["path"], x_class=files["x_class"])
    n_unknown = int((images["patient_id_source"] == "assumed_image").sum())
    if n_unknown:
        builder.warn_of_own_patients(
            "nobody published the patients", which=f"each of {counted(n_unknown, 'image')}"
        )
    origins = _origins(files, base, builder.notes)
    if origins is not None:
        images["x_origin"] = origins
    return builder.tables(images, _findings_of_folders(images), _covid_targets(images["x_class"]))


def _list_labelled(builder: SourceBuilder, base: Path) -> pd.DataFrame:
    """``image_id, path, folder, name, x_class`` of the usable images."""
    source, out = builder.root, builder.out
    files = list_image_files(source, base.relative_to(source).as_posix())
    prefix = "" if base == source else f"{base.relative_to(source).as_posix()}/"
    files["inside"] = files["path"].str.removeprefix(prefix)
    masks = files["inside"].str.lower().str.contains("/masks/", regex=False)
    if masks.any():
        builder.notes.append(f"{int(masks.sum())} masks are no radiographs: left out")
    files = files[~masks].reset_index(drop=True)
    files = files.join(files["inside"].str.extract(_PLACE))
    files["x_class"] = files["folder"].fillna("").map(finding_name).map(_CLASSES).astype("str")
    named = files["name"].fillna("").str.extract(_PUBLISHED)[0]
    named_class = named.fillna("").map(finding_name).map(_CLASSES).astype("str")
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
    return kept


def _findings_of_folders(images: pd.DataFrame) -> pd.DataFrame:
    """The folder's own finding is present; of a normal image all are absent."""
    named = images[["image_id", "x_class"]].rename(columns={"x_class": "finding"})
    there = [name for name in _FINDINGS if (named["finding"] == name).any()]
    return _with_healthy(named, "normal", there, origin="folder")


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
    sources = pd.concat(parts).drop_duplicates(["folder", "name"])
    # The tables write NORMAL-1 and COVID1 for Normal-1.png and COVID-1.png.
    wanted = images[["folder"]].assign(name=_plain(images["name"]))
    origins = wanted.merge(sources, on=["folder", "name"], how="left")["x_origin"].astype("str")
    notes.append(_origin_note(origins, images["x_class"]))
    return origins


def _origin_note(origins: pd.Series, classes: pd.Series) -> str:
    n_classes = classes.groupby(origins).transform("nunique")
    telling = int((n_classes == 1).sum())
    return (
        f"WARNING: {telling} of {counted(len(origins), 'image')} come from a source (x_origin) "
        "that gave one class only, so a system may learn the source instead of the disease; "
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
    read=_read_covid,
    options=("patient_pattern",),
    sources=(
        "kaggle.com/datasets/tawsifurrahman/covid19-radiography-database",
        "github.com/ieee8023/covid-chestxray-dataset",
        "github.com/ml-workgroup/covid-19-image-repository",
    ),
)
