"""Patients of images, by a mapping that the user has, or by the names of NIH's images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.contracts.column_names import find_column, find_patient_columns
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.table_files import read_table_file, refuse_line
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.image_lists import image_name
from cxr_compare.data_prep.sources.patients import named_patients
from cxr_compare.data_prep.sources.rsna import MAPPING, read_mapping

RSNA = "rsna"
"""Word that stands for the mapping from RSNA's images to NIH's, wherever the user has it."""
NIH_NAME = r"\d{8}_\d{3}"
"""Pattern of the names of NIH's images: patient and number of the image."""


@dataclass(frozen=True)
class PatientLookup:
    """Patient of each image, from a user's table of images and patients.

    Attributes:
        patients: Patient id, such as ``nih:00000013``, indexed by image id; the index is unique.
        doubtful: Ids of the images whose patient is uncertain, because the table may match them
            with a wrong image.
        source: Name of the table's file, for messages.
    """

    patients: pd.Series
    doubtful: frozenset[str]
    source: str

    def with_nih_names(self, image_ids: pd.Series) -> PatientLookup:
        """Return a copy with patients of names of NIH's images, if its patients are NIH's."""
        if not self.patients.str.startswith("nih:").any():
            return self
        named = nih_patients(image_ids).patients
        new = named[~is_member(named.index, self.patients.index)]
        return replace(self, patients=pd.concat([self.patients, new]))


def nih_patients(image_ids: pd.Series) -> PatientLookup:
    """Read patients from image ids that are file names of NIH, such as ``00000013_005``.

    Example:
        >>> nih_patients(pd.Series(["00000013_005", "x"])).patients.to_dict()
        {'00000013_005': 'nih:00000013'}
    """
    named = image_ids[image_ids.str.fullmatch(NIH_NAME).to_numpy(dtype=bool)].drop_duplicates()
    patients = pd.Series(("nih:" + named.str.slice(0, 8)).to_numpy(), index=pd.Index(named))
    return PatientLookup(patients.astype(TEXT), frozenset(), "the names of NIH's images")


def find_rsna_mapping(folders: Sequence[Path]) -> Path:
    """Return the path of the mapping from images of RSNA to those of NIH, in the first folder."""
    for folder in folders:
        if (folder / MAPPING).is_file():
            return folder / MAPPING
    searched = ", ".join(dict.fromkeys(str(folder) for folder in folders))
    raise InputError(f"--mapping {RSNA}: no {MAPPING} is in {searched}; give the path of the file")


def read_patient_lookup(path: Path) -> PatientLookup:
    r"""Read the patient of each image from a file.

    Args:
        path: ``rsna_to_nih.csv`` (columns ``patientId``, the image id of the RSNA challenge,
            ``nih_image``, the name of the same image at NIH, and optionally ``mse``, their mean
            squared difference), any CSV with a column of images and one of patients, or a folder
            that holds the first one.

    Returns:
        Patient by image id. For pairs of RSNA and NIH, both ids of an image are in it.

    Raises:
        InputError: There is no such file, or it has no such content.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     text = "patientId,nih_image\nabc,00000013_005.png\n"
        ...     _ = Path(folder, "rsna_to_nih.csv").write_text(text)
        ...     read_patient_lookup(Path(folder)).patients.to_dict()
        {'abc': 'nih:00000013', '00000013_005': 'nih:00000013'}
    """
    if path.is_dir():
        path = find_rsna_mapping([path])
    columns = [str(name) for name in read_table_file(path).text.columns]
    if find_column(columns, ("nihimage",)):
        return _with_nih_names(read_mapping(path), path)
    return _read_patients(path)


def read_nih_names(path: Path) -> dict[str, str]:
    r"""Return the name of the original image at NIH, without suffix, of each image of RSNA.

    Args:
        path: ``rsna_to_nih.csv``, or a folder that holds it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     text = "patientId,nih_image\nabc,00000013_005.png\n"
        ...     _ = Path(folder, "rsna_to_nih.csv").write_text(text)
        ...     read_nih_names(Path(folder))
        {'abc': '00000013_005'}
    """
    if path.is_dir():
        path = find_rsna_mapping([path])
    mapping = read_mapping(path)
    return dict(zip(mapping["image_id"], mapping["nih_image"].map(image_name), strict=True))


def _with_nih_names(mapping: pd.DataFrame, path: Path) -> PatientLookup:
    patients = mapping.set_index("image_id")["patient_id"]
    of_nih = nih_patients(mapping["nih_image"].map(image_name)).patients
    unsure = mapping.loc[mapping["patient_id_source"] == "mapped_unverified", "image_id"]
    both = pd.concat([patients, of_nih.drop(of_nih.index.intersection(patients.index))])
    return PatientLookup(both, frozenset(unsure), path.name)


def _read_patients(path: Path) -> PatientLookup:
    """Read a table of images and their patients."""
    text = read_table_file(path).text
    columns = [str(name) for name in text.columns]
    found = find_patient_columns(columns)
    if found is None:
        raise InputError(
            f"{path}: a mapping needs a column image_id and one patient_id (or patientId and "
            "nih_image, as the public mapping of RSNA's images has)"
        )
    image, patient = found
    table = pd.DataFrame({"image": text[image].map(image_name), "patient": text[patient]})
    refuse_line(table["patient"] == "", path, f"{patient} is empty; leave the line out")
    table = table.drop_duplicates()
    refuse_line(
        table["image"].duplicated(), path, " has two patients; keep one line", table["image"]
    )
    patients = named_patients(table.set_index("image")["patient"], str(path)).dropna()
    return PatientLookup(patients, frozenset(), path.name)
