"""Tables of the synthetic images in the layout of the RSNA challenge."""

import hashlib
import uuid
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.sources.rsna import CLASS_INFO, CLASSES, LABELS, MAPPING
from cxr_compare.data_prep.synth.rendering import Patient, SynthImage

NORMAL_CLASS, _NOT_NORMAL, OPACITY_CLASS = CLASSES
_LABEL_COLUMNS = ["patientId", "x", "y", "width", "height", "Target"]
_MAPPING_COLUMNS = ["patientId", "nih_image", "nih_patient"]


def make_image_id(seed: int, patient: int | str, number: int) -> str:
    """Return the id of a synthetic image, in the form of image ids of the RSNA challenge.

    Args:
        seed: Random seed of the whole set of synthetic images.
        patient: Number of the patient in the set, from 0, or another name.
        number: Number of the image among the patient's images, from 0.

    Returns:
        The id, which depends only on the arguments.
    """
    digest = hashlib.blake2b(f"{seed}/{patient}/{number}".encode(), digest_size=16).digest()
    return str(uuid.UUID(bytes=digest, version=4))


def image_record(seed: int, patient: Patient, number: int, image: SynthImage) -> dict[str, Any]:
    """Return facts about a synthetic image, from which its rows in label tables are made.

    Args:
        seed: Random seed of the whole set of synthetic images.
        patient: Patient of the image.
        number: Number of the image among the patient's images, from 0.
        image: The drawn image.

    Returns:
        Facts by name, as values for JSON.
    """
    nih_patient = f"{patient.index + 1:08d}"
    return {
        "patientId": make_image_id(seed, patient.index, number),
        "nih_image": f"{nih_patient}_{number:03d}.png",
        "nih_patient": nih_patient,
        "number": number,
        "view": image.view,
        "sex": patient.sex,
        "age": patient.age,
        "stored": "jpeg" if image.jpeg else "plain",
        "distractors": "|".join(image.distractors),
        "lesions": [
            {
                "x": float(lesion.x1),
                "y": float(lesion.y1),
                "width": float(lesion.x2 - lesion.x1),
                "height": float(lesion.y2 - lesion.y1),
                "lesion": lesion.kind,
                "contrast_to_noise": round(lesion.contrast_to_noise, 4),
            }
            for lesion in image.lesions
        ],
    }


def rsna_tables(records: list[dict[str, Any]]) -> dict[str, pd.DataFrame]:
    """Return the label tables of synthetic images in the layout of the RSNA challenge.

    A table of the true lesions is added.

    Args:
        records: Facts about each image, from `image_record`.

    Returns:
        Tables by the name of the CSV file into which each belongs.
    """
    ordered = sorted(records, key=lambda record: record["patientId"])
    rows = [row for record in ordered for row in _rows(record)]
    frame = pd.DataFrame(rows)
    return {
        LABELS: frame[_LABEL_COLUMNS],
        CLASS_INFO: frame[["patientId", "class"]],
        MAPPING: frame[_MAPPING_COLUMNS].drop_duplicates(ignore_index=True),
        "truth.csv": frame.drop(columns=["Target", "nih_image"]),
    }


def _rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    common = {key: value for key, value in record.items() if key not in ("lesions", "number")}
    without_lesions = _NOT_NORMAL if record["distractors"] else NORMAL_CLASS
    common["class"] = OPACITY_CLASS if record["lesions"] else without_lesions
    nothing = dict.fromkeys(("x", "y", "width", "height"), np.nan)
    empty = {**nothing, "Target": 0, "lesion": None, "contrast_to_noise": np.nan}
    return [{**common, **lesion, "Target": 1} for lesion in record["lesions"]] or [
        {**common, **empty}
    ]
