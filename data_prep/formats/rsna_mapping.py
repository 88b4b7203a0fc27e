"""The mapping from RSNA's images to those of NIH ChestX-ray14, which names the patients.

Two files hold it: ``rsna_to_nih.csv``, which others made by comparing pixels, and RSNA's own
``pneumonia-challenge-dataset-mappings_2018.json``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.json_files import read_json
from cxr_compare.data_prep.contracts.table_files import read_text_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.contracts.text_columns import refuse_line, to_numbers
from cxr_compare.data_prep.contracts.text_files import read_json_file
from cxr_compare.data_prep.formats.source import SourceBuilder

MAPPING = "rsna_to_nih.csv"
MAPPINGS_JSON = "pneumonia-challenge-dataset-mappings_2018.json"
PHANTOM = "synth.json"
"""File of a folder that `cxr synth` made in RSNA's layout."""
# Mean squared grey-level difference above which the public match of an RSNA image to an NIH image
# is doubtful. 98 of 26,684 matches exceed it; all others are far below.
_DOUBTFUL_MSE = 20.0
_IN_JSON = ("subset_img_id", "img_id", "SOPInstanceUID")


def read_mapping(source: Path) -> pd.DataFrame | None:
    """Read from a folder which image of NIH ChestX-ray14 each image of the RSNA challenge was.

    The name of an image at NIH contains the number of the patient. In a folder that ``cxr synth``
    made, the images are synthetic, and the ids of their patients get another prefix.

    Args:
        source: Folder of the RSNA challenge, which may contain ``rsna_to_nih.csv``.

    Returns:
        Table with columns ``image_id``, ``nih_image``, ``patient_id`` and ``patient_id_source``
        (how certain the patient is); None if there is no such file.
    """
    path = source / MAPPING
    space = "nih"
    if (source / PHANTOM).exists():
        space = f"phantom-{read_json(source / PHANTOM, 'synth')['arguments']['seed']}"
    return read_mapping_file(path, space) if path.exists() else None


def read_mapping_file(path: Path, space: str = "nih") -> pd.DataFrame:
    """Read which image of NIH ChestX-ray14 each image of the RSNA challenge was made from.

    The file name at NIH contains the number of the patient.

    Args:
        path: CSV file with the columns ``patientId`` (image id in the RSNA challenge) and
            ``nih_image`` (file name at NIH). An optional column ``mse`` has the mean squared
            difference of the two images' grey values; the patient is recorded as uncertain if it is
            above 20 or missing. Without the column, the patients of an NIH image that is named
            twice are uncertain.
        space: Prefix of the patient ids, which names their origin, as in ``nih:00019124``.

    Returns:
        Table with one row for each image, and columns ``image_id``, ``nih_image``, ``patient_id``
        (with the prefix) and ``patient_id_source`` (how certain the patient is).

    Raises:
        InputError: A column is missing, or an image of the challenge has two rows.
    """
    text = read_text_table(path, ("patientId", "nih_image"))
    ids = text["patientId"]
    refuse_line(ids.duplicated(), path, " is mapped twice; keep one line", ids)
    doubtful = text["nih_image"].duplicated(keep=False)
    if "mse" in text.columns:
        # The difference tells which match of an NIH image that is named twice is right: one is
        # near 1 and the other near 90, or both are one image that was published twice.
        doubtful = ~(to_numbers(text["mse"], path, "mse") <= _DOUBTFUL_MSE)
    return _mapping_table(ids, text["nih_image"], doubtful, space)


def read_release_mapping(path: Path) -> pd.DataFrame:
    r"""Read the JSON file in which RSNA names the NIH image behind each image of its challenge.

    Args:
        path: The file: a list of records with ``subset_img_id`` (image id in the challenge on
            Kaggle), ``img_id`` (file name of the image at NIH) and ``SOPInstanceUID``.

    Returns:
        Table with one row for each image, and columns ``image_id``, ``nih_image``, ``patient_id``
        (such as ``nih:00000013``), ``patient_id_source`` and ``sop_uid``.

    Raises:
        InputError: The file is no such list, or names an image twice.

    Example:
        >>> import json, tempfile
        >>> record = {"subset_img_id": "a", "img_id": "00000013_005.png", "SOPInstanceUID": "1.2"}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "m.json").write_text(json.dumps([record]))
        ...     read_release_mapping(Path(folder, "m.json"))["patient_id"].tolist()
        ['nih:00000013']
    """
    records = read_json_file(path)
    if not isinstance(records, list) or not records:
        raise InputError(f"{path}: is no list of images; give RSNA's {MAPPINGS_JSON}")
    for number, record in enumerate(records, start=1):
        missing = [key for key in _IN_JSON if not isinstance(record, dict) or not record.get(key)]
        if missing:
            raise InputError(
                f"{path}: record {number} has no {missing[0]}; give RSNA's file unchanged"
            )
    columns = {key: pd.Series([str(row[key]) for row in records], dtype=TEXT) for key in _IN_JSON}
    for key in ("subset_img_id", "SOPInstanceUID"):
        repeated = columns[key][columns[key].duplicated()]
        if len(repeated):
            raise InputError(f"{path}: {key} {repeated.iloc[0]!r} is mapped twice; keep one record")
    nih_images = columns["img_id"]
    doubtful = nih_images.duplicated(keep=False)
    table = _mapping_table(columns["subset_img_id"], nih_images, doubtful, "nih")
    return table.assign(sop_uid=columns["SOPInstanceUID"])


def _mapping_table(
    ids: pd.Series, nih_images: pd.Series, doubtful: pd.Series, space: str
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_id": ids,
            "nih_image": nih_images,
            "patient_id": f"{space}:" + nih_images.str.split("_", n=1).str[0],
            "patient_id_source": np.where(doubtful, "mapped_unverified", "mapped"),
        }
    ).reset_index(drop=True)


def with_patients(
    images: pd.DataFrame,
    mapping: pd.DataFrame | None,
    unlabelled: pd.Series,
    builder: SourceBuilder,
    remedy: str,
) -> pd.DataFrame:
    """Add the patient of each image of the RSNA challenge, and note how many are unknown.

    Args:
        images: Images with the column ``image_id``.
        mapping: Table of images and patients, from `read_mapping` or `read_release_mapping`; None
            if the user has no such file, so that each image counts as a patient of its own.
        unlabelled: Ids of the images without a label. The note does not count them.
        builder: Object that collects notes for the user.
        remedy: Sentence that ends the note, and says which file the user needs so that patients are
            known.

    Returns:
        The images with ``patient_id`` and ``patient_id_source`` (how the patient is known).
    """
    columns = ["image_id", "patient_id", "patient_id_source"]
    if mapping is None:
        mapping = pd.DataFrame(columns=columns, dtype=TEXT)
    images = images.merge(mapping[columns], on="image_id", how="left")
    unknown = images["patient_id"].isna()
    images.loc[unknown, "patient_id"] = "rsna:" + images.loc[unknown, "image_id"]
    images.loc[unknown, "patient_id_source"] = "assumed_image"
    n_labelled = int((unknown & ~is_member(images["image_id"], unlabelled)).sum())
    if n_labelled:
        builder.warn_of_unknown_patients(
            f"the patient of {counted(n_labelled, 'image')} is not known, so each", remedy=remedy
        )
    n_doubtful = int((images["patient_id_source"] == "mapped_unverified").sum())
    if n_doubtful:
        builder.notes.append(
            f"{counted(n_doubtful, 'image', 'have')} a doubtful patient and are used for training "
            "only"
        )
    return images
