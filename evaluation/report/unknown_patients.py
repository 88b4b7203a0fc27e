"""Wording of a report in which patients are unknown, so that each image counts separately.

The statistics are the same: they group by patient, and each group is one image. Texts must then
speak of images instead of patients.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import pandas as pd

COUNTS = ("n_patients", "effective_patients")
"""Columns of tables that are empty where no patient is known."""
_KEPT = (
    "no patient is known",
    "where patients have several",
    "diagnosis of any patient",
    "care of a patient",
    "Involvement of patients and the public",
    "name the patients",
    "--patients",
    "patient_id",
    "n_patients",
    "effective_patients",
    "validation_patients",
)
"""Phrases that speak of patients in general, or name a column or an option."""
# Only the separate word is replaced, because "patient-0001" may be the id of an image.
_BEFORE = r"(?<![\w./-])"
_AFTER = r"(s?)(?![./-]?\w)"
_RULES = (
    (r"([\d,]+) ((?:test |validation )?images?) of [\d,]+ patients?", r"\1 \2"),
    (r"resamples of patients", "resamples of images"),
    (r"patients \(not images\) are resampled", "images are resampled"),
    (r"patient-cluster bootstrap", "bootstrap of images"),
    (r"clustered by patient", "by image"),
    (
        r"summed by patient, each patient('|&#39;)s part",  # also as a page escapes the apostrophe
        r"summed over images, each image\1s part",
    ),
    (_BEFORE + "Patient" + _AFTER, r"Image\1"),
    (_BEFORE + "patient" + _AFTER, r"image\1"),
)


@cache
def _protected(systems: tuple[str, ...]) -> re.Pattern[str]:
    names = sorted({*systems, *map(html.escape, systems)}, key=len, reverse=True)
    return re.compile("|".join(re.escape(phrase) for phrase in (*names, *_KEPT)))


def image_wording(text: str, systems: Sequence[str] = ()) -> str:
    """Replace "patient" by "image" in a text of a report whose images have no known patients.

    Each image then counts as a separate patient, and the report must not speak of patients. Phrases
    that speak of patients in general stay, and so do the names of systems. The text is plain or
    HTML.

    Example:
        >>> image_wording("200 test images of 200 patients; 2,000 resamples of patients")
        '200 test images; 2,000 resamples of images'
        >>> image_wording("Image patient-01: intervals are by image because no patient is known.")
        'Image patient-01: intervals are by image because no patient is known.'
    """
    parts = []
    end = 0
    for kept in _protected(tuple(systems)).finditer(text):
        parts += [_replaced(text[end : kept.start()]), kept.group()]
        end = kept.end()
    return "".join([*parts, _replaced(text[end:])])


def _replaced(text: str) -> str:
    for pattern, replacement in _RULES:
        text = re.sub(pattern, replacement, text)
    return text


def image_worded_table(table: pd.DataFrame, systems: Sequence[str] = ()) -> pd.DataFrame:
    """Return a copy of a table that speaks of images instead of patients.

    The texts are changed as by `image_wording`. The columns ``n_patients`` and
    ``effective_patients``, which count patients, become empty.
    """
    changed = table.copy()
    for name, column in table.items():
        if name in COUNTS:
            changed[name] = pd.array([pd.NA] * len(table), dtype="Float64")
        elif not pd.api.types.is_numeric_dtype(column):
            changed[name] = [image_wording(v, systems) if isinstance(v, str) else v for v in column]
    return changed


def image_worded_record(value: Any, systems: Sequence[str] = ()) -> Any:
    """Return a copy of a JSON value that speaks of images instead of patients.

    The texts are changed as by `image_wording`. Values under the keys ``n_patients`` and
    ``effective_patients``, which count patients, become None.
    """
    if isinstance(value, dict):
        return {
            key: None if key in COUNTS else image_worded_record(item, systems)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [image_worded_record(item, systems) for item in value]
    return image_wording(value, systems) if isinstance(value, str) else value
