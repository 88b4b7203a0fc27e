"""The images table of label files: what each picture is called, and who the patient is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.formats.common import patients_from_names
from data_prep.formats.cxr_extension import as_number
from data_prep.formats.match_pictures import name_images
from data_prep.formats.source import VIEW_NAMES

FREE_KEYS = ("patient_id", "study_id", "view", "sex", "age_years")
"""What a label file may say of an image in plain words, beside its labels."""

_SEXES = {"M": "M", "MALE": "M", "F": "F", "FEMALE": "F", "O": "O", "OTHER": "O"}
_NEEDED = ("image_id", "patient_id", "patient_id_source", "source")
_TEXTS = (*_NEEDED, "study_id", "view", "sex")


def plain_facts(given: dict[str, Any]) -> dict[str, Any]:
    """Take what is known of the free keys; what is no such value counts as not there.

    Example:
        >>> plain_facts({"sex": "female", "age_years": "51", "view": "pa", "patient_id": 7})
        {'patient_id': '7', 'view': 'PA', 'sex': 'F', 'age_years': 51.0}
    """
    words = {
        key: str(given[key]).strip()
        for key in FREE_KEYS
        if isinstance(given.get(key), str | int | float)
    }
    facts: dict[str, Any] = {key: words.get(key) for key in ("patient_id", "study_id")}
    view = words.get("view", "").upper()
    facts["view"] = VIEW_NAMES.get(view, "other") if view else None
    facts["sex"] = _SEXES.get(words.get("sex", "").upper())
    facts["age_years"] = as_number(given.get("age_years"))
    return {key: value for key, value in facts.items() if value not in (None, "")}


def stated_size(given: Any) -> int | None:
    """A height or width that a label file states, px; None where it states none.

    Example:
        >>> stated_size("1024"), stated_size(1024.0), stated_size(0), stated_size("big")
        (1024, 1024, None, None)
    """
    number = as_number(given)
    return int(number) if number is not None and number >= 1 and number.is_integer() else None


def images_table(
    pictures: dict[str, dict[str, Any]], root: Path, pattern: str | None, notes: list[str]
) -> pd.DataFrame:
    """Make the images table.

    Args:
        pictures: Path -> the columns of the images table that its label file gives.
        root: The source folder; its name is the source and the name space of its patients.
        pattern: Finds the patient in the file's name, where no label file names one.
        notes: Takes a warning where patients are assumed.

    Returns:
        The images table, in the order of `pictures`.

    Raises:
        InputError: Two images have one id, or the pattern is no regular expression.
    """
    space = root.resolve().name
    paths = pd.Series(list(pictures), dtype="str")
    facts = pd.DataFrame(list(pictures.values()), index=paths.index)
    facts = facts.dropna(axis="columns", how="all")
    for column in _TEXTS:
        if column in facts.columns:
            facts[column] = facts[column].astype("str")
        elif column in _NEEDED:
            facts[column] = pd.Series(index=paths.index, dtype="str")
    unnamed = facts["image_id"].isna()
    ids = facts["image_id"].where(~unnamed, paths.map(name_images(paths[unnamed], root)))
    twice = ids.duplicated()
    if twice.any():
        raise InputError(f"{root}: two images have the id {ids[twice].iloc[0]!r}; rename one")
    guessed = patients_from_names(
        paths.str.rsplit("/", n=1).str[-1], pattern, space, "image-" + ids
    )
    named = facts["patient_id"].notna()
    patient = facts["patient_id"].where(
        facts["patient_id"].fillna(":").str.contains(":"), space + ":" + facts["patient_id"]
    )
    facts["patient_id"] = patient.where(named, guessed["patient_id"])
    facts["patient_id_source"] = (
        facts["patient_id_source"].fillna("given").where(named, guessed["patient_id_source"])
    )
    assumed = int((facts["patient_id_source"] == "assumed_image").sum())
    if assumed:
        notes.append(
            f"WARNING: the patient of {assumed:,} images is not known, so each counts as a patient "
            "of its own: the same person may be in training and test, and figures come out too "
            "good. Give --patient-pattern if the file names tell the patient"
        )
    facts["source"] = facts["source"].fillna(space)
    return facts.assign(image_id=ids, path=paths)
