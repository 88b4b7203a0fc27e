"""Patients of images, which are found in the names of image files."""

from __future__ import annotations

import re

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member, spelling_key
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.formats.columns import column_dictionary


def patients_from_names(names: pd.Series, pattern: str | None, name_space: str) -> pd.Series:
    r"""Return the patient of each image, which is found in its file name.

    Args:
        names: File names of images.
        pattern: Regular expression whose first group is the patient number. If the group has a
            name, as in ``(?P<nih>...)``, that name is the prefix of the patient ids. None finds no
            patient.
        name_space: Prefix of the patient ids if the pattern names no prefix. It names the origin,
            so that equal numbers of different hospitals stay different patients.

    Returns:
        Ids ``prefix:patient``, one for each file name, in the same order; missing if the pattern
        does not match.

    Raises:
        InputError: The pattern is no regular expression, or has no group.

    Example:
        >>> names = pd.Series(["00019124_092.png", "x.png"])
        >>> patients_from_names(names, r"(?P<nih>\d{8})_", "ward").tolist()
        ['nih:00019124', nan]
    """
    if pattern is None:
        return pd.Series(index=names.index, dtype=TEXT)
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"--patient-pattern {pattern!r}: {error}") from None
    if compiled.groups < 1:
        raise InputError(f"--patient-pattern {pattern!r}: put brackets around the patient's part")
    space = next(iter(compiled.groupindex), name_space)
    matches = names.map(compiled.search)
    patients = matches.map(lambda match: match[1] if match else None)
    return space + ":" + patients.astype(TEXT)


def without_nobody(patients: pd.Series) -> pd.Series:
    """Return patients as text; missing where the cell is empty or names nobody, as "unknown" does.

    Args:
        patients: Patient of each image, as its table writes it.

    Example:
        >>> without_nobody(pd.Series(["p1", "NA", "Anonymous"])).isna().tolist()
        [False, True, True]
    """
    text = patients.astype(TEXT)
    nobody = ["", *column_dictionary()["unknown"], *column_dictionary()["nobody"]]
    return text.mask(is_member(text.str.strip().str.lower(), nobody))


def named_patients(patients: pd.Series, where: str, files: pd.Series | None = None) -> pd.Series:
    """Return patients as text, missing where none is named; ask about two spellings of one.

    Args:
        patients: Patient of each image, as its table writes it.
        where: File or argument that names the patients, for the error message.
        files: File of each image, with the index of `patients`. The message then names files
            instead of patients, whose names it must not show.

    Raises:
        InputError: Two patients differ only in case, spaces, leading zeros or an added ``.0``.

    Example:
        >>> named_patients(pd.Series(["p1", "P1"]), "patients.csv")
        Traceback (most recent call last):
        ...
        cxr_compare.data_prep.contracts.errors.InputError: patients.csv: are patients 'p1' and ...
    """
    named = without_nobody(patients)
    spellings = named.dropna().drop_duplicates()
    keys = spellings.map(spelling_key).to_numpy(dtype=object)
    is_second = pd.Series(keys).duplicated().to_numpy()
    if is_second.any():
        row = int(is_second.argmax())
        rows = [int((keys == keys[row]).argmax()), row]
        if files is None:
            pair = "patients {!r} and {!r}".format(*spellings.iloc[rows])
        else:
            pair = "the patients of {} and {}".format(*files[spellings.index].iloc[rows])
        count = counted(int(is_second.sum()), "patient", "have")
        raise InputError(
            f"{where}: are {pair} one person, written with other case, spaces or zeros? Write each "
            f"patient in one way ({count} two spellings)"
        )
    return named


def with_named_patients(images: pd.DataFrame, named: pd.Series) -> pd.DataFrame:
    """Give each image its patient; an image without one is the only image of its own patient.

    Args:
        images: Table with ``image_id``.
        named: Patient of each image, missing if unknown, with the index of `images`.

    Returns:
        The table with the columns ``patient_id`` and ``patient_id_source``.

    Example:
        >>> images = pd.DataFrame({"image_id": ["a", "b"]})
        >>> with_named_patients(images, pd.Series(["p", None]))["patient_id"].tolist()
        ['p', 'image-b']
    """
    is_known = named.notna()
    return images.assign(
        patient_id=named.where(is_known, "image-" + images["image_id"]).astype(TEXT),
        patient_id_source=is_known.map({True: "given", False: "assumed_image"}).astype(TEXT),
    )
