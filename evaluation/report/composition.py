"""Composition of a data set: images, patients, labels and facts of each part, and their flow."""

from __future__ import annotations

import pandas as pd

from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.base.ids import is_member
from cxr_compare.data_prep.base.tables import ROLES
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.evaluation.truth import numbers_of

Counts = dict[tuple[str, str], float]
"""Numbers by group and value."""
_FACTS = {
    "sex": "sex",
    "view": "view",
    "source": "source",
    "x_set": "set",
    "manufacturer": "manufacturer",
    "model": "model",
}
"""Titles of columns of the images."""
_STEPS = {
    "files": "files found",
    "image_files": "image files found",
    "unnamed_files": "image files that no label names",
    "labels": "left out because of their labels, or without a file",
    "decode": "left out because they cannot be read",
    "size": "left out because their size is not the one that is stated",
    "list": "left out by a list of the user",
    "images": "images of the data set",
}
"""Facts of reading and stages of leaving out, from the files to the images."""


def composition(dataset: DataSet) -> pd.DataFrame:
    """Return who is where in a data set, for all targets: texts, a row a group, a column a part.

    A group, such as ``sex``, has a number for each of its values, such as ``F``.
    """
    images = dataset.images.set_index("image_id")
    images["role"] = dataset.split().set_index("image_id")["role"]
    images["is_assumed"] = images["patient_id_source"] == "assumed_image"
    labels = dataset.target_labels
    findings = [finding for name in labels for finding in dataset.targets[str(name)].any_of]
    boxes = dataset.boxes[is_member(dataset.boxes["finding"], findings)]
    n_boxes = boxes.drop_duplicates(["image_id", *EDGES])["image_id"].value_counts()
    images = images.assign(boxes=n_boxes.reindex(images.index).fillna(0))
    images = images.astype({name: "string" for name in _FACTS if name in images})
    parts = {role: images[images["role"] == role] for role in ROLES} | {"all": images}
    texts = {part: _texts(_counts(own, images, labels)) for part, own in parts.items() if len(own)}
    return pd.DataFrame(texts).reindex([*texts["all"]]).fillna("").rename_axis("")


def flow(dataset: DataSet) -> dict[str, int]:
    """Return the numbers of files found, of those left out by stage, and of images."""
    read = dataset.reading
    facts = read[read["number"].notna()].groupby("fact")["number"].sum()
    left_out = dataset.table("excluded")["stage"].value_counts()
    numbers = {**facts, **left_out, "images": len(dataset.images)}
    return {step: int(n) for stage, step in _STEPS.items() if (n := numbers.get(stage))}


def _texts(counts: Counts) -> dict[str, str]:
    """Return a text for each group; values that do not occur are left out."""
    texts: dict[str, list[str]] = {}
    for (group, value), number in counts.items():
        if number or not value:
            shown = f"{number:,.4g}" if isinstance(number, float) else f"{number:,}"
            texts.setdefault(group, []).append(f"{value}: {shown}" if value else shown)
    return {group: ", ".join(values) for group, values in texts.items()}


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
