"""Replacement of the ids of images, patients and studies by keyed hashes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.ids import renamed
from cxr_compare.data_prep.contracts.pseudonyms import hide_paths, keyed_hash
from cxr_compare.data_prep.sources.source_tables import SourceTables


def pseudonymise(tables: SourceTables, key: bytes) -> tuple[SourceTables, dict[str, str]]:
    """Replace the ids of images, patients and studies by keyed hashes; return new image ids by old.

    The key has 16 to 4,096 bytes. The prefix of a patient id is kept: ``dicom:17`` becomes
    ``dicom:`` and 24 hexadecimal digits. Paths are not changed, because the images must still be
    read; `hide_paths` replaces them before tables are written.
    """
    images = tables.images.copy()
    frames = (images, tables.findings, tables.boxes, tables.box_coverage, tables.split)
    ids = pd.concat([frame["image_id"] for frame in (*frames, tables.official)]).unique()
    names = {name: keyed_hash(key, f"image:{name}") for name in ids}
    people = {name: _hide_patient(key, name) for name in images["patient_id"].unique()}
    images["patient_id"] = renamed(images["patient_id"], people)
    if "study_id" in images.columns:
        studies = images["study_id"].dropna().unique()
        hidden_studies = {name: keyed_hash(key, f"study:{name}") for name in studies}
        images["study_id"] = renamed(images["study_id"], hidden_studies)

    def hide(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(image_id=renamed(frame["image_id"], names))

    names_of_tables = ("findings", "boxes", "box_coverage", "split", "official")
    labels: dict[str, Any] = {name: hide(getattr(tables, name)) for name in names_of_tables}
    hidden = replace(
        tables,
        images=hide(images),
        # An image without a file is listed by its id, which is hidden like a path.
        excluded=hide_paths(tables.excluded, key),
        **labels,
    )
    return hidden, {**names, **people}


def _hide_patient(key: bytes, name: str) -> str:
    space, colon, _ = name.partition(":")
    return f"{space if colon else 'hidden'}:{keyed_hash(key, f'patient:{name}')}"
