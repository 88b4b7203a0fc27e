"""Format `covid`: three data sets of COVID-19 radiographs, which are recognised by their files.

The Radiography Database has a folder for each class, the image data collection has
``metadata.csv``, and the Hannover repository has ``data.csv`` and ``png/``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.finding_names import finding_name
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.spreadsheets import sheet_names
from cxr_compare.data_prep.contracts.table_files import read_table_file, read_text_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.contracts.text_columns import to_numbers
from cxr_compare.data_prep.formats.folder_scan import has_columns, has_match, list_image_files
from cxr_compare.data_prep.formats.patients import patients_from_names
from cxr_compare.data_prep.formats.source import (
    NO_PIXELS,
    Format,
    SourceBuilder,
    SourceTables,
    reference_rows,
)
from cxr_compare.data_prep.formats.targets import targets_from_findings
from cxr_compare.data_prep.formats.views import normal_views

COVID = "covid_19"
_EVALUATED = (
    COVID,
    "pneumonia",
    "lung_opacity",
    "viral_pneumonia",
    "bacterial_pneumonia",
    "fungal_pneumonia",
    "tuberculosis",
)
_KINDS = ("viral", "bacterial", "fungal", "lipoid", "aspiration")
_UNKNOWN = {"", "todo", "unknown", "unclear"}
# These hosts publish many sources, so the origin also names the owner and the data set.
_PLATFORMS = ("github.com", "kaggle.com")


def _covid_targets(findings: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Make a target of each finding worth evaluating; rare pathogens remain findings only."""
    stated = set(findings)
    targets = targets_from_findings([name for name in _EVALUATED if name in stated])
    if COVID in targets:
        targets[COVID]["display_name"] = "COVID-19"
    return targets


def origin_from_url(address: str) -> str:
    """Return the website from which an image was taken, to tell image collections apart.

    For an image on a platform such as GitHub or Kaggle, owner and name of the repository or data
    set follow the host.

    Args:
        address: Web address of the image, as a published table states it.

    Example:
        >>> origin_from_url("https://www.github.com/a/b/c.png"), origin_from_url("no address")
        ('github.com/a/b', '')
    """
    try:
        parts = urlsplit(address.strip().lower())
    except ValueError:
        return ""
    host = parts.netloc.removeprefix("www.")
    names = [name for name in parts.path.split("/") if name]
    return "/".join([host, *names[:2]]) if host in _PLATFORMS else host


def _origins_of(addresses: pd.Series) -> pd.Series:
    """Return the origin of each address; missing without an address."""
    origins = addresses.map({address: origin_from_url(address) for address in addresses.unique()})
    return origins.where(origins != "").astype(TEXT)


def findings_from_path(cell: str) -> list[str]:
    """Divide a published finding such as ``Pneumonia/Viral/COVID-19`` into single findings.

    Args:
        cell: Cell of a published table: a finding (disease) with slashes between general and
            special names.

    Returns:
        Names of the findings, the most general first.

    Example:
        >>> findings_from_path("Pneumonia/Viral/COVID-19")
        ['pneumonia', 'viral_pneumonia', 'covid_19']
    """
    names = [finding_name(part) for part in re.split("[/,]", cell)]
    return [f"{n}_pneumonia" if n in _KINDS else n for n in names if n not in _UNKNOWN]


_METADATA = "metadata.csv"
_HANNOVER = "data.csv"
_RADIOGRAPHS = ["X-RAY", "XRAY", "CR", "DX", "DR", ""]
_LATERAL = ["L", "LL", "RL", "LATERAL"]
_SLICES = ["AXIAL", "CORONAL", "SAGITTAL", "CT"]


def _read_collection(builder: SourceBuilder) -> SourceTables:
    """Read a folder with ``metadata.csv`` in the form of the COVID-19 image data collection."""
    path = builder.root / _METADATA
    notes = builder.notes
    exclusions = builder.exclusions
    # The collection's early tables write ``Patientid`` for ``patientid``.
    text = read_text_table(
        path,
        ("patientid", "finding", "filename"),
        ("view", "modality", "sex", "age", "offset", "url"),
        rename_column=lambda name: name.lower().replace("imagename", "filename"),
    )
    text = text.loc[:, ~text.columns.duplicated()].drop_duplicates()
    text["folder"] = text.get("folder", "images")
    ids = text["filename"].str.replace(r"\.\w+$", "", regex=True)
    view = text["view"].str.upper()
    view = view.where(~view.str.startswith("AP"), "AP")  # supine, erect, semi erect
    rows = pd.DataFrame(
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
    exclusions.add(ids[is_member(view, _SLICES) | (modality == "CT")], "a CT slice, no radiograph")
    exclusions.add(ids[is_member(view, _LATERAL)], "lateral view")
    exclusions.add(
        ids[~is_member(modality, [*_RADIOGRAPHS, "CT"])], "of another modality than X-ray"
    )
    parts = {cell: findings_from_path(cell) for cell in text["finding"].unique()}
    mixed = [cell for cell, names in parts.items() if "no_finding" in names and len(names) > 1]
    exclusions.add(ids[is_member(text["finding"], mixed)], "'No Finding' beside a finding")
    images = _with_patients(_with_files(rows, _METADATA, builder), "covid_collection", builder)
    findings = _findings_of_paths(text.assign(image_id=ids), parts, images["image_id"])
    covid = findings.loc[findings["finding"] == COVID, "state"]
    n_present = int((covid == "present").sum())
    n_absent = int((covid == "absent").sum())
    notes.append(
        f"COVID-19 is present on {n_present} and absent on {n_absent} of "
        f"{counted(len(images), 'image')}; it is unknown on the others, which have another "
        "finding or no label"
    )
    return builder.build(images, findings, _covid_targets(findings["finding"]), files=rows)


def _read_hannover(builder: SourceBuilder) -> SourceTables:
    """Read the COVID-19 image repository of Hannover Medical School."""
    path = builder.root / _HANNOVER
    exclusions = builder.exclusions
    required = ("patient_id", "image_id", "projection", "modality")
    text = read_text_table(path, required, ("sex", "age", "admission_offset")).drop_duplicates()
    rows = pd.DataFrame(
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
    slices = ~is_member(rows["x_modality"], _RADIOGRAPHS)
    exclusions.add(rows.loc[slices, "image_id"], "of another modality than X-ray")
    exclusions.add(rows.loc[rows["view"] == "LL", "image_id"], "lateral view")
    images = _with_patients(_with_files(rows, _HANNOVER, builder), "hannover", builder)
    findings = reference_rows(images["image_id"], COVID, state="present", origin="folder")
    builder.notes.append(
        f"WARNING: all {counted(images['patient_id'].nunique(), 'patient', 'have')} COVID-19, so "
        "the target has no negative image; combine this data set with another one (cxr prepare A "
        "B --out C) before you evaluate"
    )
    return builder.build(images, findings, _covid_targets([COVID]), files=rows)


def _with_files(images: pd.DataFrame, table: str, builder: SourceBuilder) -> pd.DataFrame:
    """Keep the rows with a file; if the source has no image file at all, keep every row.

    Images in folders that the table does not name (masks, drawings) are ignored.
    """
    source = builder.root
    exclusions = builder.exclusions
    ids = images["image_id"]
    exclusions.add(ids[ids.duplicated()], f"two rows in {table}")
    folders = images["path"].str.rsplit("/", n=1).str[0].unique()
    files = list_image_files(source)
    files = files[is_member(files["path"].str.rsplit("/", n=1).str[0], folders)]
    has_pixels = builder.match_files(images, files, "path", table)
    kept = exclusions.keep(images).reset_index(drop=True)
    if kept.empty:
        raise InputError(f"{source / table}: leaves no image; {exclusions.first('it lists none')}")
    if not has_pixels:
        builder.notes.append(NO_PIXELS)
        kept["path"] = pd.Series(None, index=kept.index, dtype=TEXT)
    return kept


def _with_patients(images: pd.DataFrame, name_space: str, builder: SourceBuilder) -> pd.DataFrame:
    """Replace ``patient`` by ``patient_id`` and ``patient_id_source``, and add ``source``."""
    patients = builder.patients(
        name_space + ":" + images["patient"].where(images["patient"] != ""),
        f"{name_space}:image-" + images["image_id"],
        lambda n: f"the table names no patient for {counted(n, 'image')}, so each",
    )
    people = images[["image_id"]].join(patients).assign(source=name_space)
    return people.join(images.drop(columns=["image_id", "patient"]))


def _findings_of_paths(
    text: pd.DataFrame, parts: dict[str, list[str]], kept: pd.Series
) -> pd.DataFrame:
    """Build findings from paths: each part is present; on healthy images all are absent."""
    rows = text.loc[is_member(text["image_id"], kept), ["image_id", "finding"]]
    pairs = [(cell, name) for cell, names in parts.items() for name in names]
    parts_of = pd.DataFrame(pairs, columns=["cell", "finding"], dtype=TEXT)
    rows = rows.rename(columns={"finding": "cell"}).merge(parts_of, on="cell")
    named = rows.drop(columns="cell").drop_duplicates()
    names = sorted({COVID, *named["finding"]} - {"no_finding"})
    return _with_healthy(named, "no_finding", names, origin="reader")


def _with_healthy(
    named: pd.DataFrame, healthy: str, names: list[str], *, origin: str
) -> pd.DataFrame:
    """Build findings: each named one is present; on images named healthy all are absent."""
    is_healthy = named["finding"] == healthy
    findings = pd.DataFrame({"finding": names}, dtype=TEXT)
    absent = named.loc[is_healthy, ["image_id"]].merge(findings, how="cross").assign(state="absent")
    rows = pd.concat([named[~is_healthy].assign(state="present"), absent], ignore_index=True)
    return reference_rows(rows["image_id"], rows["finding"], state=rows["state"], origin=origin)


_HOLDER = "COVID-19_Radiography_Dataset"
_OLD_HOLDER = "COVID-19 Radiography Database"
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


def _read_covid(builder: SourceBuilder) -> SourceTables:
    """Read the tables or folders of a COVID-19 data set; no pixel is decoded."""
    source = builder.root
    base = next((source / name for name in _HOLDERS if _has_classes(source / name)), None)
    if base is not None:
        return _read_radiography(builder, base)
    tables = {_METADATA: _read_collection, _HANNOVER: _read_hannover}
    name = next((name for name in tables if (source / name).is_file()), None)
    if name is None:
        raise InputError(f"{source}: holds no folder COVID with images; unpack the download there")
    if builder.options.patient_pattern is not None:
        raise InputError(f"{source / name}: names the patients; leave --patient-pattern out")
    return tables[name](builder)


def _has_classes(base: Path) -> bool:
    """Return True if one of the folders in a folder is that of COVID-19."""
    folders = [path.name for path in base.iterdir() if path.is_dir()] if base.is_dir() else []
    return any(_CLASSES.get(finding_name(name)) == COVID for name in folders)


def _read_radiography(builder: SourceBuilder, base: Path) -> SourceTables:
    files = _list_labelled(builder, base)
    space = "covid_radiography"
    pattern = builder.options.patient_pattern
    patients = builder.patients(
        patients_from_names(files["name"], pattern, space),
        f"{space}:" + files["image_id"],
        lambda n: f"the patients were not published, so each of {counted(n, 'image')}",
    )
    images = files[["image_id"]].join(patients)
    images = images.assign(source=space, path=files["path"], x_class=files["x_class"])
    origins = _origins(files, base, builder.notes)
    if origins is not None:
        images["x_origin"] = origins
    # The finding of the folder is present; on a normal image all findings are absent.
    named = images[["image_id", "x_class"]].rename(columns={"x_class": "finding"})
    stated = [name for name in _FINDINGS if (named["finding"] == name).any()]
    findings = _with_healthy(named, "normal", stated, origin="folder")
    return builder.build(images, findings, _covid_targets(images["x_class"]))


def _list_labelled(builder: SourceBuilder, base: Path) -> pd.DataFrame:
    """List the usable images: ``image_id, path, folder, name, x_class``."""
    source = builder.root
    exclusions = builder.exclusions
    files = list_image_files(source, base.relative_to(source).as_posix())
    prefix = "" if base == source else f"{base.relative_to(source).as_posix()}/"
    files["inside"] = files["path"].str.removeprefix(prefix)
    masks = files["inside"].str.lower().str.contains("/masks/", regex=False)
    if masks.any():
        builder.notes.append(
            f"{int(masks.sum())} masks were left out, since they are no radiographs"
        )
    files = files[~masks].reset_index(drop=True)
    files = files.join(files["inside"].str.extract(_PLACE))
    files["x_class"] = files["folder"].fillna("").map(finding_name).map(_CLASSES).astype(TEXT)
    named = files["name"].fillna("").str.extract(_PUBLISHED)[0]
    named_class = named.fillna("").map(finding_name).map(_CLASSES).astype(TEXT)
    exclusions.add(files.loc[files["x_class"].isna(), "path"], "not in the folder of a class")
    against = named_class.notna() & (named_class != files["x_class"])
    exclusions.add(files.loc[against, "path"], "named as of another class than its folder")
    empty = f"{base}: the folders of its classes hold no image; unpack them there"
    return builder.usable_files(files, named.notna(), empty)


def _origins(images: pd.DataFrame, base: Path, notes: list[str]) -> pd.Series | None:
    """Return the origin of each image from the ``*.metadata.xlsx`` of its class."""
    tables = {path.name.lower(): path for path in base.glob("*.xlsx")}
    parts = []
    for folder in images["folder"].unique():
        path = tables.get(f"{folder.lower()}.metadata.xlsx")
        if path is not None:
            parts.append(read_origins(path).assign(folder=folder))
    if not parts:
        return None
    sources = pd.concat(parts).drop_duplicates(["folder", "name"])
    # The tables write NORMAL-1 and COVID1 for Normal-1.png and COVID-1.png.
    keys = images[["folder"]].assign(name=_plain(images["name"]))
    origins = keys.merge(sources, on=["folder", "name"], how="left")["x_origin"].astype(TEXT)
    n_classes = images["x_class"].groupby(origins).transform("nunique")
    notes.append(
        f"WARNING: {int((n_classes == 1).sum())} of {counted(len(origins), 'image')} come from a "
        "source (x_origin) that gave one class only, so a system may learn the source instead of "
        f"the disease; {counted(int(origins.isna().sum()), 'image', 'have')} no known source"
    )
    return origins


def _plain(names: pd.Series) -> pd.Series:
    return names.str.lower().str.replace(r"[-_ ]", "", regex=True)


def read_origins(path: Path) -> pd.DataFrame:
    """Read the collection from which each image of the COVID-19 Radiography Database was taken.

    Args:
        path: Workbook ``*.metadata.xlsx`` of the database, whose first sheet is read.

    Returns:
        Table with columns ``name`` (of the image) and ``x_origin`` (website of the collection), one
        row for each image that the sheet lists.

    Raises:
        InputError: The file cannot be read as a workbook, or the sheet lacks a column.
    """
    text = read_table_file(path, sheet_names(path)[0]).text
    text.columns = pd.Index([" ".join(str(name).split()).upper() for name in text.columns])
    missing = [name for name in _SOURCE_COLUMNS if name not in text.columns]
    if missing:
        raise InputError(f"{path}: column '{missing[0]}' is missing in its first row")
    names, addresses = (text[name] for name in _SOURCE_COLUMNS)
    return pd.DataFrame({"name": _plain(names), "x_origin": _origins_of(addresses)})


def _looks_like_covid(folder: Path) -> bool:
    return (
        has_match("COVID", "COVID-19", _HOLDER, _OLD_HOLDER)(folder)
        or has_columns(folder / _METADATA, "patientid", "finding")
        or has_columns(folder / _HANNOVER, "patient_id", "image_id", "projection")
    )


COVID_SETS = Format(
    name="covid",
    title="three COVID-19 sets",
    folder="`COVID/` and `Normal/`; or `metadata.csv`; or `data.csv` with `png/`",
    detect=_looks_like_covid,
    read=_read_covid,
    options=("patient_pattern",),
    sources=(
        "kaggle.com/datasets/tawsifurrahman/covid19-radiography-database",
        "github.com/ieee8023/covid-chestxray-dataset",
        "github.com/ml-workgroup/covid-19-image-repository",
    ),
)
