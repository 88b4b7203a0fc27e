"""Patients of images, by a mapping that the user has, or by the names of NIH's images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.contracts.column_names import find_column, find_patient_columns
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.table_files import read_table_file, refuse_line
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.image_lists import image_name
from cxr_compare.data_prep.sources.patients import named_patients
from cxr_compare.data_prep.sources.rsna import MAPPING, read_mapping

RSNA = "rsna"
"""Word that stands for the mapping from RSNA's images to NIH's, wherever the user has it."""
NIH_NAME = r"\d{8}_\d{3}"
"""Pattern of the names of NIH's images: patient and number of the image."""


def nih_patients(image_ids: pd.Series) -> pd.DataFrame:
    """Read patients from image ids that are file names of NIH, such as ``00000013_005``.

    There is a row ``image_id, patient_id, patient_id_source`` for each such image; other ids have
    none.

    Example:
        >>> nih_patients(pd.Series(["00000013_005", "x"])).values.tolist()
        [['00000013_005', 'nih:00000013', 'mapped']]
    """
    named = image_ids[image_ids.str.fullmatch(NIH_NAME).to_numpy(dtype=bool)].drop_duplicates()
    return pd.DataFrame(
        {
            "image_id": named,
            "patient_id": "nih:" + named.str.slice(0, 8),
            "patient_id_source": "mapped",
        },
        dtype=TEXT,
    )


def find_rsna_mapping(folders: Sequence[Path]) -> Path:
    """Return the path of the mapping from images of RSNA to those of NIH, in the first folder."""
    for folder in folders:
        if (folder / MAPPING).is_file():
            return folder / MAPPING
    searched = ", ".join(dict.fromkeys(str(folder) for folder in folders))
    raise InputError(f"--mapping {RSNA}: no {MAPPING} is in {searched}; give the path of the file")


def read_patients(path: Path) -> pd.DataFrame:
    r"""Read the patient of each image from a file.

    The file is ``rsna_to_nih.csv`` (columns ``patientId``, the image id of the RSNA challenge,
    ``nih_image``, the name of the same image at NIH, and optionally ``mse``, their mean squared
    difference), or any CSV with a column of images and one of patients. Columns of the result are
    ``image_id``, ``patient_id`` and ``patient_id_source`` (``mapped_unverified`` of a doubtful
    patient). For pairs of RSNA and NIH, both ids of an image are in it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     text = "patientId,nih_image\nabc,00000013_005.png\n"
        ...     _ = Path(folder, "rsna_to_nih.csv").write_text(text)
        ...     table = read_patients(Path(folder, "rsna_to_nih.csv"))
        >>> table[["image_id", "patient_id"]].values.tolist()
        [['abc', 'nih:00000013'], ['00000013_005', 'nih:00000013']]
    """
    text = read_table_file(path).text
    columns = [str(name) for name in text.columns]
    if find_column(columns, ("nihimage",)):
        mapping = read_mapping(path)
        of_nih = nih_patients(mapping["nih_image"].map(image_name))
        return pd.concat([mapping[of_nih.columns], of_nih]).drop_duplicates("image_id")
    found = find_patient_columns(columns)
    if found is None:
        raise InputError(
            f"{path}: a mapping needs a column image_id and one patient_id (or patientId and "
            "nih_image, as the public mapping of RSNA's images has)"
        )
    image, patient = found
    table = pd.DataFrame({"image_id": text[image].map(image_name), "patient_id": text[patient]})
    refuse_line(table["patient_id"] == "", path, f"{patient} is empty; leave the line out")
    table = table.drop_duplicates()
    is_repeated = table["image_id"].duplicated()
    refuse_line(is_repeated, path, " has two patients; keep one line", table["image_id"])
    patients = named_patients(table["patient_id"], str(path))
    return table.assign(patient_id=patients, patient_id_source="given").dropna()
