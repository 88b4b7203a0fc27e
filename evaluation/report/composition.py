"""Composition of a data set: images, patients, labels and facts of each part, and their flow.

Each part (train, val, test, unused, and all) has numbers by group, such as ``sex``, and value, such
as ``F``. The group ``flow`` leads from the files that were found to what is evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.base.ids import is_member
from cxr_compare.data_prep.base.tables import ROLES
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.evaluation.compare import Comparison
from cxr_compare.evaluation.truth import Truth, numbers_of

Counts = dict[tuple[str, str], float]
"""Numbers by group and value."""
Rows = tuple[dict[str, Any], ...]
"""A row for each group and value, with the number of each part."""
_FACTS = {"sex": "sex", "view": "view", "source": "source", "x_set": "set"} | {
    name: name for name in ("manufacturer", "model")
}
"""Titles of columns of the images."""
_FLOW = "flow"
_AGE = "age, years"
_PATIENTS = ("patients", "images of a patient")
_ASSUMED = "images of unknown patients, each counted as one"
_IDS = "ids"
_OF_TRUTH = (_FLOW, "images of the truth")
_FOUND = {
    "files": "files found",
    "image_files": "image files found",
    "unnamed_files": "image files that no label names",
}
_STAGES = {
    "labels": "left out because of their labels, or without a file",
    "decode": "left out because they cannot be read",
    "size": "left out because their size is not the one that is stated",
    "list": "left out by a list of the user",
}


def composition(
    dataset: DataSet, split: str = "default", truth: Truth | None = None
) -> dict[str, Counts]:
    """Return who is where in a data set, for all targets or that of a truth, and how it came."""
    images = dataset.images.set_index("image_id")
    if truth is None:
        labels = dataset.target_labels
    elif truth.classes:  # one of them is no finding
        labels = truth.images[["label"]].set_axis([truth.finding], axis=1).reindex(images.index)
    else:
        labels = dataset.target_labels[[truth.finding]]
    images["role"] = dataset.split(split).set_index("image_id")["role"]
    images["is_assumed"] = images["patient_id_source"] == "assumed_image"
    if truth is None:
        findings = [finding for target in dataset.targets.values() for finding in target.any_of]
        boxes = dataset.boxes[is_member(dataset.boxes["finding"], findings)]
    else:
        boxes = truth.boxes
    parts = _by_part(images, labels, _boxed(boxes))
    hidden = "hashed with a key (id_key)" if dataset.info.id_key else "as in the files"
    parts["all"] |= {(_IDS, hidden): len(images), **_flow_of_files(dataset)}
    return parts


def _boxed(boxes: pd.DataFrame) -> pd.Series:
    """Return the image of each box of a data set, of which several readers may have drawn one."""
    return boxes.drop_duplicates(["image_id", *EDGES])["image_id"]


def composition_of(made: Comparison, full: Truth, dataset: DataSet | None, split: str) -> Rows:
    """Return who is where in a comparison, whose flow ends with what is evaluated.

    `full` is the truth with the images of all parts, of a data set and its split if there is one.
    """
    if dataset is not None:
        parts = composition(dataset, split, full)
    else:
        parts = _of_truth(full)
        parts["all"][_OF_TRUTH] = len(full.images)
    parts["all"] |= _evaluated(made, full)
    return composition_rows(parts)


def _of_truth(truth: Truth) -> dict[str, Counts]:
    """Return the numbers of the images of a truth, which may be that of a data set."""
    images = truth.images.assign(is_assumed=not truth.patients_known)
    name = truth.finding if truth.record else truth.finding_title
    boxed = _boxed(truth.boxes) if truth.record else truth.boxes["image_id"]
    return _by_part(images, images[["label"]].set_axis([name], axis=1), boxed)


def _evaluated(made: Comparison, full: Truth) -> Counts:
    """Return the end of the flow: the test images, and what is evaluated of them."""
    tested = full.images[full.images["role"] == "test"]
    n_unknown = int(tested["label"].isna().sum())
    return {
        (_FLOW, "test images"): len(tested),
        (_FLOW, "test images of unknown label, which are left out"): n_unknown,
        (_FLOW, f"{made.units} that are evaluated"): len(made.truth.ids),
    }


def counted_again(rows: Rows, made: Comparison) -> tuple[Rows, int]:
    """Return the rows with each number that the inputs of a report give, and how many they do not.

    Inputs lack training images, facts of validation images, and what is known of the files alone.
    """
    truth, stored = made.request.truth, {(row["group"], row["value"]): row for row in rows}
    evaluable = truth.images["role"].isin(("val", "test"))
    counted = _of_truth(replace(truth, images=truth.images[evaluable]))
    evaluated = _evaluated(made, truth)
    names = dict.fromkeys([name for row in rows[:1] for name in [*row][2:]] + [*counted])
    if names.keys() != counted.keys():
        del counted["all"]
    elif _OF_TRUTH in stored:
        evaluated[_OF_TRUTH] = len(truth.images)
    facts = {*_FACTS.values(), _AGE}
    for part in counted.keys() - {"test"}:
        counted[part] = {key: n for key, n in counted[part].items() if key[0] not in facts}
    free = {*facts, _ASSUMED, _IDS, _FLOW, *(() if truth.patients_known else _PATIENTS)}
    again, n_stated = [], 0
    for group, value in dict.fromkeys([*stored, *counted["test"], *evaluated]):
        row: dict[str, Any] = {"group": group, "value": value}
        for part in names:
            counts = counted.get(part, {})
            number = stored.get((group, value), {}).get(part)
            if any(group == known for known, _ in counts):
                number = counts.get((group, value), 0)
            elif part == "all" and (group, value) in evaluated:
                number = evaluated[(group, value)]
            elif counts and group not in free:
                number = None
            else:
                n_stated += number is not None
            row[part] = number
        again.append(row)
    return tuple(again), n_stated


def _by_part(images: pd.DataFrame, labels: pd.DataFrame, boxes: pd.Series) -> dict[str, Counts]:
    """Return the numbers of each part that has images, and of all."""
    images = images.assign(boxes=boxes.value_counts().reindex(images.index).fillna(0))
    images = images.astype({name: "string" for name in _FACTS if name in images})
    parts = {role: images[images["role"] == role] for role in ROLES} | {"all": images}
    return {part: _counts(own, images, labels) for part, own in parts.items() if len(own)}


def _counts(part: pd.DataFrame, images: pd.DataFrame, labels: pd.DataFrame) -> Counts:
    """Return the numbers of a part of the images."""
    counts: Counts = {("images", ""): len(part)}
    if not images["is_assumed"].all():
        patients = part["patient_id"].value_counts()
        counts |= {(_PATIENTS[0], ""): len(patients), **_spread(_PATIENTS[1], patients)}
    if images["is_assumed"].any():
        counts[(_ASSUMED, "")] = int(part["is_assumed"].sum())
    for name, of_part in labels.loc[part.index].items():
        counts[(str(name), "positive")] = int((of_part == 1).sum())
        counts[(str(name), "negative")] = int((of_part == 0).sum())
        counts[(str(name), "unknown")] = int(of_part.isna().sum())
    counts[("boxes", "")] = int(part["boxes"].sum())
    counts[("images with boxes", "")] = int((part["boxes"] > 0).sum())
    column = "age_years" if "age_years" in images else "age"
    years = numbers_of(part, [column])[column].dropna()
    if numbers_of(images, [column])[column].notna().any():
        counts |= _spread(_AGE, years) if len(years) else {}
        counts[(_AGE, "not stated")] = len(part) - len(years)
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


def _flow_of_files(dataset: DataSet) -> Counts:
    """Return the numbers of files found, of those left out by stage, and of images."""
    read = dataset.reading
    facts = read[(read["kind"] == "fact") & read["rows"].notna()].groupby("role")["rows"].sum()
    found = {title: int(facts[role]) for role, title in _FOUND.items() if role in facts}
    stages = dataset.table("excluded")["stage"].value_counts()
    found |= {title: int(stages[stage]) for stage, title in _STAGES.items() if stage in stages}
    found["images of the data set"] = len(dataset.images)
    return {(_FLOW, title): n for title, n in found.items()}


def composition_rows(parts: Mapping[str, Counts]) -> Rows:
    """Return a row for each group and value, with the number of each part; None where unknown."""
    return tuple(
        {"group": group, "value": value}
        | {part: counts.get((group, value)) for part, counts in parts.items()}
        for group, value in parts["all"]
    )


def shown_composition(
    rows: Sequence[Mapping[str, Any]],
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return a table of texts with one row for each group, and the numbers of the flow."""
    table: dict[str, dict[str, str]] = {}
    flow = {}
    for row in rows:
        group, value = row["group"], row["value"]
        if group == _FLOW:
            flow[value] = row["all"]
            continue
        for part in [*row][2:]:
            cells = table.setdefault(part, {})
            number = row[part]
            if number or (number == 0 and not value):
                shown = f"{number:,.4g}" if isinstance(number, float) else f"{number:,}"
                text = f"{value}: {shown}" if value else shown
                cells[group] = ", ".join(filter(None, [cells.get(group), text]))
    frame = pd.DataFrame(table).reindex([*table.get("all", ())])
    return frame.fillna("").rename_axis(""), flow
