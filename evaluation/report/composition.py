"""Composition of a data set: images, patients, labels and facts of each part, and their flow.

Each part (train, val, test, unused, and all) has numbers by group, such as ``sex``, and value, such
as ``F``. The group ``flow`` leads from the files that were found to what is evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.base.ids import is_member
from cxr_compare.data_prep.base.tables import ROLES
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.evaluation.inputs.folders import FLOW, steps_of
from cxr_compare.evaluation.truth import numbers_of

Counts = dict[tuple[str, str], float]
"""Numbers by group and value."""
Rows = tuple[dict[str, Any], ...]
"""A row for each group and value, with the number of each part."""
_FACTS = {
    "sex": "sex",
    "view": "view",
    "source": "source",
    "x_set": "set",
    "manufacturer": "manufacturer",
    "model": "model",
}
"""Titles of columns of the images."""


def composition(dataset: DataSet) -> Rows:
    """Return who is where in a data set, for all targets, and how it came."""
    images = dataset.images.set_index("image_id")
    images["role"] = dataset.split().set_index("image_id")["role"]
    images["is_assumed"] = images["patient_id_source"] == "assumed_image"
    labels = dataset.target_labels
    findings = [finding for name in labels for finding in dataset.targets[str(name)].any_of]
    boxes = dataset.boxes[is_member(dataset.boxes["finding"], findings)]
    return _rows(images, labels, boxes.drop_duplicates(["image_id", *EDGES]), steps_of(dataset))


def _rows(
    images: pd.DataFrame, labels: pd.DataFrame, boxes: pd.DataFrame, flow: Mapping[Any, int]
) -> Rows:
    """Return a row for each group and value, with the number of each part that has images."""
    n_boxes = boxes["image_id"].value_counts()
    images = images.assign(boxes=n_boxes.reindex(images.index).fillna(0))
    images = images.astype({name: "string" for name in _FACTS if name in images})
    parts = {role: images[images["role"] == role] for role in ROLES} | {"all": images}
    counts = {part: _counts(own, images, labels) for part, own in parts.items() if len(own)}
    counts["all"] |= flow
    return tuple(
        {"group": key[0], "value": key[1], **{part: of.get(key) for part, of in counts.items()}}
        for key in counts["all"]
    )


def _counts(part: pd.DataFrame, images: pd.DataFrame, labels: pd.DataFrame) -> Counts:
    """Return the numbers of a part of the images."""
    counts: Counts = {("images", ""): len(part)}
    if not images["is_assumed"].all():
        patients = part["patient_id"].value_counts()
        counts |= {("patients", ""): len(patients), **_spread("images of a patient", patients)}
    if images["is_assumed"].any():
        assumed = int(part["is_assumed"].sum())
        counts[("images of unknown patients, each counted as one", "")] = assumed
    for name, of_part in labels.loc[part.index].items():
        counts[(str(name), "positive")] = int((of_part == 1).sum())
        counts[(str(name), "negative")] = int((of_part == 0).sum())
        counts[(str(name), "unknown")] = int(of_part.isna().sum())
    counts[("boxes", "")] = int(part["boxes"].sum())
    counts[("images with boxes", "")] = int((part["boxes"] > 0).sum())
    column = "age_years" if "age_years" in images else "age"
    years = numbers_of(part, [column])[column].dropna()
    if numbers_of(images, [column])[column].notna().any():
        counts |= _spread("age, years", years) if len(years) else {}
        counts[("age, years", "not stated")] = len(part) - len(years)
    for name, title in _FACTS.items():
        if name in images and images[name].notna().any():
            values = part[name].value_counts()
            for value in images[name].value_counts().index:
                counts[(title, str(value))] = int(values.get(value, 0))
            counts[(title, "not stated")] = int(part[name].isna().sum())
    return counts


def _spread(group: str, numbers: pd.Series) -> Counts:
    values = {"median": numbers.median(), "lowest": numbers.min(), "highest": numbers.max()}
    return {(group, name): round(float(value), 1) for name, value in values.items()}


def shown_composition(
    rows: Sequence[Mapping[str, Any]],
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return a table of texts with one row for each group, and the numbers of the flow."""
    texts: dict[str, dict[str, list[str]]] = {}
    flow = {}
    for row in rows:
        group, value = row["group"], row["value"]
        if group == FLOW:
            flow[value] = row["all"]
            continue
        for part in [*row][2:]:
            cells = texts.setdefault(part, {})
            number = row[part]
            if number or (number == 0 and not value):
                shown = f"{number:,.4g}" if isinstance(number, float) else f"{number:,}"
                cells.setdefault(group, []).append(f"{value}: {shown}" if value else shown)
    table = pd.DataFrame(texts).reindex([*texts.get("all", ())]).map(", ".join, na_action="ignore")
    return table.fillna("").rename_axis(""), flow
