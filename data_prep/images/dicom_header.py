"""Facts in a DICOM header about the patient, the exposure and the file."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # pydicom takes long to import, and tables of labels need none of it
    from pydicom.dataset import Dataset

_VIEWS = {"PA": "PA", "AP": "AP"} | dict.fromkeys(
    ("LL", "RL", "LATERAL", "LAT", "RLAT", "LLAT"), "LL"
)
_VIEW_CODES = {  # SNOMED CT and, before it, SNOMED RT: DICOM context group CID 4010
    "272479007": "PA",
    "R-40888": "PA",
    "399066004": "PA",
    "R-10214": "PA",
    "399348003": "AP",
    "R-10206": "AP",
    "399067008": "LL",
    "R-102CD": "LL",
    "399173006": "LL",
    "R-10236": "LL",
    "399198007": "LL",
    "R-10232": "LL",
}
# Defined and retired terms of PS3.3 C.7.3.1.1.1, and RG, SC and DR, which are met in practice.
_MODALITIES = """
AR AS ASMT AU BDUS BI BMD CD CF CFM CP CR CS CT CTPROTOCOL DD DF DG DM DMS DOC DR DS DX EC
ECG EPS ES FA FID FS GM HC HD IO IOL IVOCT IVUS KER KO LEN LP LS M3D MA MG MR MS NM OAM OCT
OP OPM OPR OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF RG RTDOSE RTIMAGE
RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SC SEG SM SMR SR SRF ST STAIN
TEXTUREMAP TG US VA VF XA XAPROTOCOL XC
"""
YEARS_PER_UNIT = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0, "": 1.0}
"""Years by the letter that ends an age, such as ``006M``; none is years."""


def header_facts(header: Dataset) -> dict[str, Any]:
    """Read facts about patient and exposure from a DICOM header that identify nobody.

    They are ``view`` ("PA", "AP", "LL", "other" or None), ``sex`` ("M", "F", "O" or None),
    ``age_years`` (float or None), ``manufacturer`` and ``model`` of the machine (text or None),
    ``modality`` (a standard term or None), ``spacing_row_mm`` and ``spacing_col_mm`` (distances
    between rows and between columns, float or None) and ``synthetic`` (bool).

    Examples:
        >>> from pydicom import Dataset
        >>> header = Dataset()
        >>> header.PatientAge = "051Y"
        >>> header_facts(header)["age_years"]
        51.0
    """
    sex = clean_text(header, "PatientSex").upper()
    modality = clean_text(header, "Modality").upper()
    row_mm, col_mm = _pixel_spacing(header)
    return {
        "view": _view(header),
        "sex": sex if sex in {"M", "F", "O"} else None,
        "age_years": _age_in_years(clean_text(header, "PatientAge")),
        "manufacturer": _name_of_machine(clean_text(header, "Manufacturer")),
        "model": _name_of_machine(clean_text(header, "ManufacturerModelName")),
        "modality": modality if modality in _MODALITIES.split() else None,
        "spacing_row_mm": row_mm,
        "spacing_col_mm": col_mm,
        "synthetic": clean_text(header, "ConversionType").upper() == "SYN",
    }


def _age_in_years(text: str) -> float | None:
    """Convert an age in DICOM's notation, such as ``045Y``, to years; None if it is no age.

    The unit is years (Y, or none), months (M), weeks (W) or days (D).

    Examples:
        >>> _age_in_years("045Y"), _age_in_years("006M"), _age_in_years("unknown")
        (45.0, 0.5, None)
    """
    match = re.fullmatch(r"0*(\d{1,4})([DWMY]?)", text.strip().upper())
    return int(match[1]) * YEARS_PER_UNIT[match[2]] if match else None


def _pixel_spacing(header: Dataset) -> tuple[float | None, float | None]:
    """Return the distances between rows and between columns that a header states, mm, or None."""
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
    """Return "yes" or "no" as a header says on text burned into the pixels; None if it does not."""
    text = clean_text(header, "BurnedInAnnotation").lower()
    return text if text in ("yes", "no") else None


def orientation(header: Dataset) -> str | None:
    r"""Return the directions of rows and columns relative to the patient, such as ``L\F``, or None.

    Examples:
        >>> from pydicom import Dataset
        >>> header = Dataset()
        >>> header.PatientOrientation = ["L", "F"]
        >>> print(orientation(header))
        L\F
    """
    value = header.get("PatientOrientation")
    parts = [str(v).strip().upper() for v in value] if value and not isinstance(value, str) else []
    is_valid = len(parts) == 2 and all(re.fullmatch(r"[LRAPHF]{1,3}", part) for part in parts)
    return "\\".join(parts) if is_valid else None


def _view(header: Dataset) -> str | None:
    text = clean_text(header, "ViewPosition").upper()
    if text:
        return _VIEWS.get(text, "other")
    codes = header.get("ViewCodeSequence")
    if codes:
        return _VIEW_CODES.get(clean_text(codes[0], "CodeValue"), "other")
    # Rows that run to the front or the back of the patient: seen from the side.
    return "LL" if (orientation(header) or "").startswith(("A\\", "P\\")) else None


def _name_of_machine(text: str) -> str | None:
    """Return the name of a machine; None for a text with signs of names of people or of damage."""
    return text if re.fullmatch(r"[\w .,&()/+-]{1,64}", text, re.ASCII) else None


def clean_text(header: Dataset, keyword: str) -> str:
    """Return the text of an element without padding; "" if it is missing or unreadable."""
    try:
        value = header.get(keyword)
    except Exception:  # noqa: BLE001 - pydicom raises all kinds on broken values
        return ""
    return "" if value is None else str(value).replace("\0", "").strip()


def has_preamble(path: Path) -> bool:
    """Return True if a file has ``DICM`` at byte 128; False also if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def ids_of(header: Dataset) -> tuple[str, str]:
    """Return the PatientID, preceded by a stated issuer, and the SOPInstanceUID; "" if missing."""
    patient = clean_text(header, "PatientID")
    issuer = clean_text(header, "IssuerOfPatientID")
    if issuer and patient:
        patient = f"{issuer}/{patient}"
    return patient, clean_text(header, "SOPInstanceUID")
