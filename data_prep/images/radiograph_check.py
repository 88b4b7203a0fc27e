"""Rules by which DICOM headers of frontal chest radiographs are recognised.

Names of files, their extensions and SOP classes are not used.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.dicom_header import (
    clean_text,
    deflated_start,
    header_facts,
    ids_of,
)
from cxr_compare.data_prep.images.image import starts_like_dicom
from cxr_compare.data_prep.images.refused_files import plain_reason, require_file

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SMALLEST_SIDE = 64
"""A radiograph with a shorter side, in px, is an icon."""

_RADIOGRAPHS = frozenset({"CR", "DX", "DR", "RG", "OT", "SC"})
_CHEST = re.compile(
    "CHEST|THORA|TORAX|LUNG|PULM|POUMON|BRUST|PECHO|CXR|HEART|RIB|STERN|MEDIAST|WHOLE ?BODY|ГРУД|胸"
)
_NOT_CHEST = re.compile("SPINE|SPINAL|COLUMN")  # also a thoracic spine
_NO_BODY_PART = re.compile(r"(UNK(NOWN)?|OTHER|NONE|N/?A|UNDEFINED|DEFAULT|[\W\d_]*)")
_NOT_IMAGES = {
    "SR": "a structured report",
    "KO": "a selection of objects",
    "PR": "a presentation state",
    "DOC": "a document",
    "ECG": "a waveform",
    "EPS": "a waveform",
    "HD": "a waveform",
    "REG": "a registration",
    "SEG": "a segmentation",
}
_PIXELS = 0x7FE00010
_FLOATS = frozenset({0x7FE00008, 0x7FE00009})
_KEYWORDS = (
    "SOPInstanceUID",
    "StudyInstanceUID",
    "AccessionNumber",
    "PatientID",
    "IssuerOfPatientID",
    "PatientSex",
    "PatientAge",
    "Modality",
    "ViewPosition",
    "ViewCodeSequence",
    "BodyPartExamined",
    "PatientOrientation",
    "ImageType",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "SOPClassUID",
    "EncapsulatedDocument",
    "WaveformSequence",
    "ContentSequence",
    "DirectoryRecordSequence",
)
_MAX_VALUE_BYTES = 4096  # a longer value is a document or a waveform
_MAX_INFLATED_BYTES = 1 << 22  # bytes of a deflated file: enough for any header


@dataclass(frozen=True)
class DicomFile:
    """Facts in the header of a DICOM file, or the reason why it is no frontal chest radiograph.

    Attributes:
        path: Path relative to the folder that is read, with ``/``.
        reason: Reason why the file is no frontal chest radiograph; None if it may be one.
        image_id: SOPInstanceUID, or a digest of the path if that is missing.
        patient: PatientID with its issuer, if the issuer is stated; empty if missing.
        study: StudyInstanceUID; empty if missing.
        patient_id: PatientID alone, by which a label table may name the patient.
        accession_number: AccessionNumber, by which a label table may name the study. It is not
            written to a data set.
        view: ``PA``, ``AP``, ``LL``, ``other``, or None if unknown.
        sex: ``M``, ``F``, ``O``, or None if unknown.
        states_chest: True if the header states that the image shows a chest.
    """

    path: str
    reason: str | None = None
    image_id: str = ""
    patient: str = ""
    study: str = ""
    patient_id: str = ""
    accession_number: str = ""
    view: str | None = None
    sex: str | None = None
    age_years: float | None = None
    states_chest: bool = False


def why_no_radiograph(path: Path) -> tuple[str | None, bool]:
    """Return why a file is no frontal chest radiograph, and True if it is DICOM.

    The rules are those of ``cxr prepare --format dicom`` for headers. The reason is None if the
    file may be one, and for a file that is not DICOM.
    """
    with path.open("rb") as file:
        if not starts_like_dicom(file.read(132)):
            return None, False
    return check_dicom_file(path.parent, path.name).reason, True


def check_dicom_file(root: Path, name: str) -> DicomFile:
    """Read the header of a DICOM file, and check whether it is a frontal chest radiograph.

    `name` is the path relative to `root`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of odd values; those used are checked here
        return _check(name, root / name)


def _check(path: str, file: Path) -> DicomFile:
    try:
        require_file(file)
        header, pixels = _read_header(file)
        facts = header_facts(header)
        reason = _why_no_radiograph(header, pixels, facts)
        names = {} if reason else _names(header, path)
    except InputError as error:
        return DicomFile(path, str(error).removeprefix(f"{file}: "))
    except MemoryError:
        return DicomFile(path, "not enough memory to read its header")
    except Exception as error:  # noqa: BLE001 - pydicom raises all kinds on broken files
        return DicomFile(path, f"its header cannot be read ({plain_reason(error)})")
    if reason:
        return DicomFile(path, reason)
    patient_facts = {key: facts[key] for key in ("view", "sex", "age_years")}
    return DicomFile(path, **patient_facts, **names)


def _read_header(path: Path) -> tuple[Dataset, int | None]:
    """Return the elements of interest, and the tag of the pixels (None without any)."""
    from pydicom.datadict import tag_for_keyword  # pydicom takes long to import: for DICOM alone
    from pydicom.filereader import read_dataset, read_partial

    tags = [tag for tag in map(tag_for_keyword, _KEYWORDS) if tag is not None]
    pixels: list[int] = []

    def at_pixels(tag: int, vr: str | None, length: int) -> bool:
        if tag == _PIXELS or tag in _FLOATS:
            pixels.append(int(tag))
        return bool(pixels)

    with path.open("rb") as file:
        start = file.read(132)
        if not starts_like_dicom(start):
            raise InputError(f"{path}: is not a DICOM file")
        deflated = deflated_start(path)
        header: Dataset
        if deflated is None:
            file.seek(0)
            header = read_partial(
                file, at_pixels, defer_size=_MAX_VALUE_BYTES, force=True, specific_tags=tags
            )
        else:
            file.seek(deflated)
            inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            inflated = io.BytesIO(
                inflater.decompress(file.read(_MAX_INFLATED_BYTES), _MAX_INFLATED_BYTES)
            )
            header = read_dataset(
                inflated, False, True, None, at_pixels, _MAX_VALUE_BYTES, specific_tags=tags
            )
    if len(header) == 0 and start[128:] != b"DICM":
        raise InputError(f"{path}: is not a DICOM file")
    return header, pixels[0] if pixels else None


def _why_no_radiograph(header: Dataset, pixels: int | None, facts: dict[str, Any]) -> str | None:
    """Say why a file is left out, or None; no text of the header is quoted."""
    modality = facts["modality"]
    if pixels is None:
        return _what_it_holds(header, modality)
    if modality is not None and modality not in _RADIOGRAPHS:
        return f"no radiograph: its modality is {modality}"
    if pixels in _FLOATS:
        return "holds floating-point values, not an image"
    if "LOCALIZER" in clean_text(header, "ImageType").upper():
        return "a localizer"
    frames = _number(header, "NumberOfFrames")
    if frames is not None and frames > 1:
        return f"{frames} frames; a radiograph has one"
    photometric = clean_text(header, "PhotometricInterpretation").upper()
    if (_number(header, "SamplesPerPixel") or 1) > 1 or photometric == "PALETTE COLOR":
        return "a colour image, such as a screenshot"
    body_part = clean_text(header, "BodyPartExamined").upper()
    chest = _CHEST.search(body_part) and not _NOT_CHEST.search(body_part)
    if not chest and not _NO_BODY_PART.fullmatch(body_part):
        return "its header states a body part other than the chest"
    if facts["view"] == "LL":
        return "a lateral view"
    rows = _number(header, "Rows")
    columns = _number(header, "Columns")
    if rows is None or columns is None:
        return "its header does not state the size of the image"
    if min(rows, columns) < SMALLEST_SIDE:
        return f"too small: a side of {min(rows, columns)} px"
    return None


def _what_it_holds(header: Dataset, modality: str | None) -> str:
    if "DirectoryRecordSequence" in header:
        return "a DICOMDIR, which lists other files"
    if "EncapsulatedDocument" in header:
        return "holds a document, no image"
    if "WaveformSequence" in header:
        return "holds a waveform, no image"
    if modality in _NOT_IMAGES:
        return f"holds {_NOT_IMAGES[modality]}, no image"
    if "ContentSequence" in header:
        return "holds a structured report, no image"
    return "holds no image" + (f" (modality {modality})" if modality else "")


def _names(header: Dataset, path: str) -> dict[str, Any]:
    """Return the identifiers of a file, and whether it states that it shows the chest."""
    patient, uid = ids_of(header)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", uid):
        uid = "file-" + hashlib.sha256(path.encode(errors="surrogateescape")).hexdigest()[:20]
    return {
        "image_id": uid,
        "patient": patient,
        "study": clean_text(header, "StudyInstanceUID"),
        "patient_id": clean_text(header, "PatientID"),
        "accession_number": clean_text(header, "AccessionNumber"),
        "states_chest": bool(_CHEST.search(clean_text(header, "BodyPartExamined").upper())),
    }


def _number(header: Dataset, keyword: str) -> int | None:
    try:
        return int(clean_text(header, keyword))
    except ValueError:
        return None
