"""Patients of images: stated ones, and those in the names of image files."""

from __future__ import annotations

import re

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member, spelling_key
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.label_values import dictionary
from cxr_compare.data_prep.sources.statements import Source

_REMEDY = "Give --patient-pattern if the file names contain the patient"


def add_patients(
    source: Source,
    prefix: str,
    pattern: str | None = None,
    *,
    where: str = "",
    in_path: bool = False,
    remedy: str = _REMEDY,
) -> None:
    """Give each image of a source its patient, and record how it is known.

    A patient is taken from the column ``patient_id`` of the images, else from the file name, else
    the image is the only one of its patient. A column ``patient_id_source`` of stated patients is
    kept. The images without a known patient are noted, but for unused ones.

    Args:
        source: Source whose images have ``image_id`` and ``path``.
        prefix: Prefix of the patient ids. It names the origin, so that equal ids of different
            hospitals stay different patients.
        pattern: Regular expression that finds the patient in a file name, if the user gives none.
        where: File that states patients, for messages; empty for the source.
        in_path: True if the pattern is searched in the whole path.
        remedy: What the user can do about images whose patient is not known.
    """
    images = source.images
    stated = images.get("patient_id", pd.Series(index=images.index, dtype=TEXT)).astype(TEXT)
    stated = _with_prefix(named_patients(stated, where or str(source.root)), prefix)
    names = images.get("path", images["image_id"]).astype(TEXT).fillna(images["image_id"])
    if not in_path:
        names = names.str.replace("\\", "/", regex=False).str.rsplit("/", n=1).str[-1]
    chosen = source.options.patient_pattern or pattern
    patients = stated.fillna(_patients_in_names(names, chosen, prefix))
    is_known = patients.notna()
    origin = pd.Series("given", index=images.index, dtype=TEXT)
    if "patient_id_source" in images:
        origin = images["patient_id_source"].astype(TEXT).where(stated.notna()).fillna("given")
    source.images = images.assign(
        patient_id=patients.where(is_known, f"{prefix}:image-" + images["image_id"]).astype(TEXT),
        patient_id_source=origin.where(is_known, "assumed_image").astype(TEXT),
    )
    unused = source.split.loc[source.split["role"] == "unused", "image_id"]
    n_unknown = int((~is_known & ~is_member(images["image_id"], unused)).sum())
    if n_unknown:
        unknown = f"the patient of {counted(n_unknown, 'image')} is not known, so each"
        warn_of_unknown_patients(source, unknown, remedy)


def warn_of_unknown_patients(source: Source, begin: str, remedy: str = "") -> None:
    """Note that each image of an unknown patient counts as one patient."""
    warning = (
        f"WARNING: {begin} counts as a patient of its own. The same person may then be in "
        "training and test, which makes the figures too good"
    )
    note = f"{warning}. {remedy}" if remedy else warning
    source.notes.append(note)
    source.patient_notes.append(note)


def _with_prefix(patients: pd.Series, prefix: str) -> pd.Series:
    """Put a prefix before the patient ids that have none, as in ``nih:00019124``."""
    return patients.where(patients.str.contains(":"), f"{prefix}:" + patients).astype(TEXT)


def _patients_in_names(names: pd.Series, pattern: str | None, prefix: str) -> pd.Series:
    r"""Return the patient that the first group of a pattern finds in each name; missing without.

    The name of the group, if it has one, becomes the prefix.
    """
    if pattern is None:
        return pd.Series(index=names.index, dtype=TEXT)
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"--patient-pattern {pattern!r}: {error}") from None
    if compiled.groups < 1:
        raise InputError(f"--patient-pattern {pattern!r}: put brackets around the patient's part")
    prefix = next(iter(compiled.groupindex), prefix)
    matches = names.map(compiled.search)
    patients = matches.map(lambda match: match[1] if match else None)
    return prefix + ":" + patients.astype(TEXT)


def named_patients(patients: pd.Series, where: str, files: pd.Series | None = None) -> pd.Series:
    """Return patients as text, missing where the cell names nobody; ask about two spellings.

    Refused are two patients that differ only in case, spaces, leading zeros or an added ``.0``.
    `where` is the file or argument that names the patients. With `files`, the file of each image,
    the message names files instead of patients, whose names it must not show.

    Example:
        >>> named_patients(pd.Series(["p1", "P1"]), "patients.csv")
        Traceback (most recent call last):
        ...
        cxr_compare.data_prep.contracts.errors.InputError: patients.csv: are patients 'p1' and ...
    """
    named = patients.astype(TEXT)
    nobody = ["", *dictionary()["unknown"], *dictionary()["nobody"]]
    named = named.mask(is_member(named.str.strip().str.lower(), nobody))
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
