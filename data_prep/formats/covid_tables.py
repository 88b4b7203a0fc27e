"""COVID-19 sets that come with a table: the image data collection's, and Hannover's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.schemas import REFERENCE_READER
from data_prep.contracts.tables import empty_table
from data_prep.contracts.text_lookup import is_member
from data_prep.formats.common import list_pictures
from data_prep.formats.covid_labels import COVID, covid_targets, origins_of, path_findings
from data_prep.formats.source import (
    Exclusions,
    SourceTables,
    no_roles,
    normal_views,
    read_text_csv,
    to_numbers,
)

METADATA, HANNOVER = "metadata.csv", "data.csv"
_RADIOGRAPHS = ["X-RAY", "XRAY", "CR", "DX", "DR", ""]
_LATERAL = ["L", "LL", "RL", "LATERAL"]
_SLICES = ["AXIAL", "CORONAL", "SAGITTAL", "CT"]


def read_collection(source: Path) -> SourceTables:
    """Read a folder with ``metadata.csv`` in the form of the COVID-19 image data collection.

    Args:
        source: Folder with ``metadata.csv`` and the pictures, in the folder that its column
            ``folder`` names (``images`` where there is no such column).

    Returns:
        A finding for each part of the published path. ``No Finding`` makes all of them absent;
        of what a row does not name, nothing is known. CT and lateral views are excluded.

    Raises:
        InputError: A column is missing or a cell is malformed.
    """
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
            "x_origin": origins_of(text["url"]),
        }
    )
    modality = text["modality"].str.upper()
    out = Exclusions("labels")
    out.add(ids[is_member(view, _SLICES) | (modality == "CT")], "a CT slice, no radiograph")
    out.add(ids[is_member(view, _LATERAL)], "lateral view")
    out.add(ids[~is_member(modality, [*_RADIOGRAPHS, "CT"])], "of another modality than X-ray")
    parts = {cell: path_findings(cell) for cell in text["finding"].unique()}
    mixed = [cell for cell, names in parts.items() if "no_finding" in names and len(names) > 1]
    out.add(ids[is_member(text["finding"], mixed)], "'No Finding' beside a finding")
    notes: list[str] = []
    images, excluded = _with_pictures(images, source, METADATA, out, notes)
    images = _with_patients(images, "covid_collection", notes)
    findings = _findings(text.assign(image_id=ids), parts, images["image_id"])
    covid = findings.loc[findings["finding"] == COVID, "state"]
    n_present, n_absent = int((covid == "present").sum()), int((covid == "absent").sum())
    notes.append(
        f"COVID-19 is present on {n_present} and absent on {n_absent} of {len(images)} images; on "
        "the others, which have another finding or none named, it is unknown"
    )
    return _tables(source, images, findings, excluded, notes)


def read_hannover(source: Path) -> SourceTables:
    """Read the COVID-19 image repository of Hannover Medical School.

    Args:
        source: Folder with ``data.csv`` and ``png/``.

    Returns:
        One finding, ``covid_19``, present on every image: the set holds patients with COVID-19
        only.

    Raises:
        InputError: A column is missing or a cell is malformed.
    """
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
    images, excluded = _with_pictures(images, source, HANNOVER, out, notes)
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
        f"WARNING: all {images['patient_id'].nunique()} patients have COVID-19, so the target has "
        "no negative: combine it with another set (cxr prepare A B --out C) to judge anything"
    )
    return _tables(source, images, findings, excluded, notes)


def _lower_columns(text: pd.DataFrame) -> pd.DataFrame:
    """The collection's early tables write ``Patientid`` for ``patientid``."""
    text = text.set_axis([str(c).lower() for c in text.columns], axis=1)
    return text.loc[:, ~text.columns.duplicated()]


def _with_pictures(
    images: pd.DataFrame, source: Path, table: str, out: Exclusions, notes: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Keep the rows with a picture, or, where no picture is there at all, every row without one.

    Pictures of other folders than the table names (masks, drawings) are no part of the set.
    """
    ids = images["image_id"]
    out.add(ids[ids.duplicated()], f"two rows in {table}")
    folders = images["path"].str.rsplit("/", n=1).str[0].unique()
    pictures = list_pictures(source)
    pictures = pictures[is_member(pictures["path"].str.rsplit("/", n=1).str[0], folders)]
    there = is_member(images["path"], pictures["path"])
    if there.any():
        out.add(ids[~there], f"row in {table}, but no picture")
        out.add(
            pictures.loc[~is_member(pictures["path"], images["path"]), "path"], f"no row in {table}"
        )
    elif len(pictures):
        raise InputError(f"{source}: none of its {len(pictures)} pictures is listed in {table}")
    excluded = out.table(dict(zip(ids, images["path"], strict=True)))
    kept = out.keep(images).reset_index(drop=True)
    if kept.empty:
        why = excluded["reason"].iloc[0] if len(excluded) else "it lists none"
        raise InputError(f"{source / table}: leaves no image; {why}")
    if not there.any():
        notes.append("no picture is there: a data set without pixels, to judge predictions on only")
        kept["path"] = pd.Series(None, index=kept.index, dtype="str")
    return kept, excluded


def _with_patients(images: pd.DataFrame, name_space: str, notes: list[str]) -> pd.DataFrame:
    """Turn ``patient`` into ``patient_id`` and its source; add ``source``."""
    given = images["patient"] != ""
    if not given.all():
        notes.append(
            f"WARNING: the table names no patient for {int((~given).sum())} images, so each counts "
            "as a patient of its own"
        )
    patient = images["patient"].where(given, "image-" + images["image_id"])
    images.insert(1, "patient_id", f"{name_space}:" + patient)
    images.insert(2, "patient_id_source", np.where(given, "given", "assumed_image"))
    images.insert(3, "source", name_space)
    return images.drop(columns="patient")


def _findings(text: pd.DataFrame, parts: dict[str, list[str]], kept: pd.Series) -> pd.DataFrame:
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
        targets=covid_targets(set(findings["finding"])),
        split=no_roles(),
        notes=tuple(notes),
    )
