"""Truth of a COCO annotation file: images with a box of a finding are positive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.ids import ENDING
from cxr_compare.data_prep.base.names import display_name, finding_name
from cxr_compare.data_prep.base.user_tables import read_json_file, refuse_other_kind
from cxr_compare.evaluation.inputs.image_sizes import ImageFiles, with_files
from cxr_compare.evaluation.inputs.patients import fill_patients, patients_of
from cxr_compare.evaluation.inputs.rows import (
    numbers_in_cells,
    texts_of,
)
from cxr_compare.evaluation.inputs.true_boxes import keep_false_alarms, with_boxes
from cxr_compare.evaluation.truth import Truth


def coco_findings(path: Path) -> list[str]:
    """Return the findings of a COCO annotation file, in the order of its categories."""
    return list(dict.fromkeys(_coco_file(path)[1].values()))


def _coco_file(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the content of a COCO annotation file, and the finding of each category."""
    refuse_other_kind(path)
    data = read_json_file(path)
    if not isinstance(data, dict) or not {"images", "annotations"} <= set(data):
        raise InputError(f"{path}: a COCO annotation file has images, annotations and categories")
    kinds = _entries(data, "categories", ("id", "name"), path)
    numbers = texts_of(each["id"] for each in kinds)
    names = [finding_name(str(each["name"])) for each in kinds]
    return data, dict(zip(numbers, names, strict=True))


def truth_of_coco(
    path: Path,
    label: str | None,
    patients: Any,
    written: Mapping[str, str],
    files: ImageFiles | None = None,
) -> Truth:
    """Return the truth of a COCO annotation file: images with a box of the finding are positive."""
    data, names = _coco_file(path)
    listed = _entries(data, "images", ("id", "file_name"), path)
    annotations = _entries(data, "annotations", ("image_id", "category_id", "bbox"), path)
    if label is None and len(set(names.values())) != 1:
        raise InputError(
            f"target: {path} has the findings {', '.join(names.values())}; say which one is meant"
        )
    finding = label or next(iter(names.values()))
    if finding not in names.values():
        raise InputError(f"target: {path} has no '{finding}'; it has {', '.join(names.values())}")
    if not listed or not annotations:
        raise InputError(f"{path}: holds no image with an annotation")
    images = pd.DataFrame(listed)
    file_names = images["file_name"].astype(str)
    images["image_id"] = file_names.str.replace(ENDING, "", regex=True)
    images["coco_id"] = texts_of(images["id"])
    for column in ("coco_id", "image_id"):
        twice = images[column].duplicated()
        if twice.any():
            row = images[twice].iloc[0]
            raise InputError(
                f"{path}: images: '{row['file_name']}' (id {row['coco_id']}) has the id or the "
                "name of another image; correct it"
            )
    image_of = dict(zip(images["coco_id"], images["image_id"], strict=True))
    kinds = texts_of(each["category_id"] for each in annotations)
    owners = texts_of(each["image_id"] for each in annotations)
    for number, (kind, owner) in enumerate(zip(kinds, owners, strict=True)):
        if kind not in names or owner not in image_of:
            raise InputError(
                f"{path}: annotations, entry {number}: image {owner} or category {kind} is not in "
                "the lists of the file"
            )
    marks = [
        {**each, "image_id": image_of[owner]}
        for each, kind, owner in zip(annotations, kinds, owners, strict=True)
        if names[kind] == finding
    ]
    images["label"] = images["image_id"].isin([each["image_id"] for each in marks]).astype(float)
    images["role"] = "test"
    if patients is not None:
        images["patient_id"] = patients_of(patients, pd.Index(images["image_id"]), None)
    for column in {"width", "height"} & set(images):
        images[column] = numbers_in_cells(images[column], f"{path}: images")
    kept = ["label", "role", "coco_id", *({"width", "height", "patient_id"} & set(images))]
    images = images.set_index("image_id")[kept].sort_index()
    notes = fill_patients(images)
    title = display_name(finding)
    truth = Truth(images, finding=finding, title=title, notes=notes, categories=names)
    if not marks:
        return with_files(replace(truth, boxed=truth.ids), files)
    boxed = with_boxes(truth, marks, written, str(path), files)
    return with_files(keep_false_alarms(boxed, str(path)), files, written)


def _entries(
    data: Mapping[str, Any], key: str, needed: tuple[str, ...], path: Path
) -> list[dict[str, Any]]:
    """Return the entries of a list in a COCO file; InputError for one that lacks what is needed."""
    entries = data.get(key, [])
    if not isinstance(entries, list):
        raise InputError(f"{path}: {key} is no list")
    for number, entry in enumerate(entries):
        filled = entry.items() if isinstance(entry, dict) else ()
        known = {key for key, value in filled if value is not None and value == value}  # no NaN
        if not set(needed) <= known:
            raise InputError(f"{path}: {key}, entry {number}: needs {', '.join(needed)}")
    return entries
