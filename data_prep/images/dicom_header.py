"""The few facts about the patient and the exposure that the tables have a column for."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

_VIEWS = {
    "PA": "PA", "AP": "AP", "LL": "LL", "RL": "LL", "LATERAL": "LL", "LAT": "LL", "RLAT": "LL",
    "LLAT": "LL",
}  # fmt: skip
_VIEW_CODES = {  # SNOMED CT and, before it, SNOMED RT: DICOM context group CID 4010
    "272479007": "PA", "R-40888": "PA", "399066004": "PA", "R-10214": "PA",
    "399348003": "AP", "R-10206": "AP",
    "399067008": "LL", "R-102CD": "LL", "399173006": "LL", "R-10236": "LL",
    "399198007": "LL", "R-10232": "LL",
}  # fmt: skip
# Defined and retired terms of PS3.3 C.7.3.1.1.1, and RG, SC and DR, which are met in practice.
_MODALITIES = frozenset({
    "AR", "AS", "ASMT", "AU", "BDUS", "BI", "BMD", "CD", "CF", "CFM", "CP", "CR", "CS", "CT",
    "CTPROTOCOL", "DD", "DF", "DG", "DM", "DMS", "DOC", "DR", "DS", "DX", "EC", "ECG", "EPS",
    "ES", "FA", "FID", "FS", "GM", "HC", "HD", "IO", "IOL", "IVOCT", "IVUS", "KER", "KO", "LEN",
    "LP", "LS", "M3D", "MA", "MG", "MR", "MS", "NM", "OAM", "OCT", "OP", "OPM", "OPR", "OPT",
    "OPTBSV", "OPTENF", "OPV", "OSS", "OT", "PA", "PLAN", "POS", "PR", "PT", "PX", "REG", "RESP",
    "RF", "RG", "RTDOSE", "RTIMAGE", "RTINTENT", "RTPLAN", "RTRAD", "RTRECORD", "RTSEGANN",
    "RTSTRUCT", "RWV", "SC", "SEG", "SM", "SMR", "SR", "SRF", "ST", "STAIN", "TEXTUREMAP", "TG",
    "US", "VA", "VF", "XA", "XAPROTOCOL", "XC",
})  # fmt: skip
_YEARS_PER_UNIT = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0, "": 1.0}


def header_facts(header: Dataset) -> dict[str, Any]:
    """Read view, sex, age and modality; no identifiers.

    Args:
        header: A DICOM data set.

    Returns:
        ``view`` ('PA', 'AP', 'LL', 'other' or None), ``sex`` ('M', 'F', 'O' or None),
        ``_age_years`` (float or None), ``modality`` (a term of the standard or None).
    """
    sex = _text(header, "PatientSex").upper()
    modality = _text(header, "Modality").upper()
    return {
        "view": _view(header),
        "sex": sex if sex in {"M", "F", "O"} else None,
        "age_years": _age_years(_text(header, "PatientAge")),
        "modality": modality if modality in _MODALITIES else None,
    }


def _age_years(text: str) -> float | None:
    """Turn a DICOM age into years.

    Example:
        >>> _age_years("045Y"), _age_years("006M"), _age_years("51"), _age_years("unknown")
        (45.0, 0.5, 51.0, None)
    """
    match = re.fullmatch(r"0*(\d{1,4})([DWMY]?)", text.strip().upper())
    return int(match[1]) * _YEARS_PER_UNIT[match[2]] if match else None


def pixel_spacing(header: Dataset) -> tuple[float | None, float | None]:
    """Read the spacing that the header states, as it states it."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        value = header.get(keyword)
        try:
            row, column = (float(v) for v in value or ())
        except (TypeError, ValueError):
            continue
        if all(math.isfinite(v) and v > 0 for v in (row, column)):
            return row, column
    return None, None


def burned_in_annotation(header: Dataset) -> str | None:
    """Whether the header says that text is burned into the image: yes, no, or None.

    Example:
        >>> header = Dataset()
        >>> header.BurnedInAnnotation = "YES"
        >>> burned_in_annotation(header)
        'yes'
    """
    text = _text(header, "BurnedInAnnotation").lower()
    return text if text in ("yes", "no") else None


def orientation(header: Dataset) -> str | None:
    r"""Directions of a row and a column in the patient, such as ``L\F``; None if not given."""
    value = header.get("PatientOrientation")
    parts = [str(v).strip().upper() for v in value] if value and not isinstance(value, str) else []
    known = len(parts) == 2 and all(re.fullmatch(r"[LRAPHF]{1,3}", part) for part in parts)
    return "\\".join(parts) if known else None


def _view(header: Dataset) -> str | None:
    text = _text(header, "ViewPosition").upper()
    if text:
        return _VIEWS.get(text, "other")
    codes = header.get("ViewCodeSequence")
    if codes:
        return _VIEW_CODES.get(_text(codes[0], "CodeValue"), "other")
    # Rows that run to the front or the back of the patient: seen from the side.
    return "LL" if (orientation(header) or "").startswith(("A\\", "P\\")) else None


def _text(header: Dataset, keyword: str) -> str:
    """An element's text; a value that pydicom cannot convert counts as not given."""
    try:
        value = header.get(keyword)
    except Exception:  # noqa: BLE001 - pydicom raises all kinds on broken values
        return ""
    return "" if value is None else str(value).strip()


def starts_like_dicom(start: bytes) -> bool:
    """Whether a file's first 132 bytes are a preamble, or the first element of a bare data set."""
    return start[128:132] == b"DICM" or (
        start[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08")
        and (start[4:6].isalpha() or start[6:8] == b"\x00\x00")
    )


def has_preamble(path: Path) -> bool:
    """Whether a file begins with DICOM's preamble; False where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def deflated_start(path: Path) -> int | None:
    """Where the deflated data set of a file begins, None in a file that is not deflated."""
    try:
        meta = read_file_meta_info(path)
    except Exception:  # noqa: BLE001 - no meta header: then it is not deflated either
        return None
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return None
    return 132 + 12 + int(meta.FileMetaInformationGroupLength)
