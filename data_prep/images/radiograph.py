"""Whether a DICOM file is a frontal chest radiograph: its header says, without its pixels.

Names, extensions and SOP classes play no part.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_partial

from data_prep.contracts.errors import InputError
from data_prep.images.decoded_image import plain_reason, require_file
from data_prep.images.dicom_header import deflated_start, header_facts, starts_like_dicom

SMALLEST_SIDE = 64
"""A radiograph with a shorter side, in px, is an icon."""

_RADIOGRAPHS = frozenset({"CR", "DX", "DR", "RG", "OT", "SC"})
_CHEST = re.compile(
    "CHEST|THORA|TORAX|LUNG|PULM|POUMON|BRUST|PECHO|CXR|HEART|RIB|STERN|MEDIAST|WHOLE ?BODY|ГРУД|胸"
)
_NOT_CHEST = re.compile("SPINE|SPINAL|COLUMN")  # of the thorax, too
_NO_BODY_PART = re.compile(r"(UNK(NOWN)?|OTHER|NONE|N/?A|UNDEFINED|DEFAULT|[\W\d_]*)")
_NOT_IMAGES = {
    "SR": "a structured report", "KO": "a selection of objects", "PR": "a presentation state",
    "DOC": "a document", "ECG": "a waveform", "EPS": "a waveform", "HD": "a waveform",
    "REG": "a registration", "SEG": "a segmentation",
}  # fmt: skip
_PIXELS, _FLOATS = 0x7FE00010, frozenset({0x7FE00008, 0x7FE00009})
_KEYWORDS = (
    "SOPInstanceUID", "StudyInstanceUID", "AccessionNumber", "PatientID", "IssuerOfPatientID",
    "PatientSex", "PatientAge", "Modality", "ViewPosition", "ViewCodeSequence", "BodyPartExamined",
    "PatientOrientation", "ImageType", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "PhotometricInterpretation", "SOPClassUID", "EncapsulatedDocument", "WaveformSequence",
    "ContentSequence", "DirectoryRecordSequence",
)  # fmt: skip
_TAGS = [tag for tag in map(tag_for_keyword, _KEYWORDS) if tag is not None]
_LONGEST_VALUE = 4096  # bytes; what is longer is none of the above but a document or a waveform
_MOST_INFLATED = 1 << 22  # bytes of a deflated file: enough for any header


@dataclass(frozen=True)
class DicomFile:
    """What a header says of one file.

    Attributes:
        path: Relative to the folder, with ``/``.
        reason: Why it is no chest radiograph; None where it may be one.
        image_id: SOPInstanceUID; a digest of the path where that is missing.
        patient: PatientID, after its issuer where that is given; empty if missing.
        study: StudyInstanceUID; empty if missing.
        patient_id: PatientID alone, as a label table may have it.
        accession_number: AccessionNumber, likewise; it never gets into a data set.
        view: As `data_prep.images.dicom_header.header_facts` gives it, like the next two.
        sex: Likewise.
        age_years: Likewise.
        states_chest: Whether the header states the body part.
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
    """Say why a file is no frontal chest radiograph, by the rules for a folder of them.

    Args:
        path: A file of any kind; only a DICOM header is looked at.

    Returns:
        The reason, None where it may be one; and whether it is DICOM at all. Of other files
        nothing is known.
    """
    with path.open("rb") as file:
        if not starts_like_dicom(file.read(132)):
            return None, False
    return look_at_file((path.parent, path.name)).reason, True


def look_at_file(task: tuple[Path, str], copy: Path | None = None) -> DicomFile:
    """Read one header, without the pixels; of a copy of the file, where there is one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd values: those that count are checked here
        return _look(task[1], copy or task[0] / task[1])


def _look(path: str, file: Path) -> DicomFile:
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
    known = {key: facts[key] for key in ("view", "sex", "age_years")}
    return DicomFile(path, **known, **names)


def _read_header(path: Path) -> tuple[Dataset, int | None]:
    """The elements of interest, and the tag of the pixels that follow, None without any."""
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
                file, at_pixels, defer_size=_LONGEST_VALUE, force=True, specific_tags=list(_TAGS)
            )
        else:
            file.seek(deflated)
            inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            inflated = io.BytesIO(inflater.decompress(file.read(_MOST_INFLATED), _MOST_INFLATED))
            header = read_dataset(
                inflated, False, True, None, at_pixels, _LONGEST_VALUE, specific_tags=list(_TAGS)
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
    if "LOCALIZER" in _text(header, "ImageType").upper():
        return "a localizer"
    frames = _number(header, "NumberOfFrames")
    if frames is not None and frames > 1:
        return f"{frames} frames; a radiograph has one"
    photometric = _text(header, "PhotometricInterpretation").upper()
    if (_number(header, "SamplesPerPixel") or 1) > 1 or photometric == "PALETTE COLOR":
        return "a colour image, such as a screenshot"
    body_part = _text(header, "BodyPartExamined").upper()
    chest = _CHEST.search(body_part) and not _NOT_CHEST.search(body_part)
    if not chest and not _NO_BODY_PART.fullmatch(body_part):
        return "its header states a body part other than the chest"
    if facts["view"] == "LL":
        return "a lateral view"
    rows, columns = _number(header, "Rows"), _number(header, "Columns")
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
    """What the file is called by, and whether it states to be of the chest."""
    uid = _text(header, "SOPInstanceUID")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", uid):
        uid = "file-" + hashlib.sha256(path.encode(errors="surrogateescape")).hexdigest()[:20]
    patient, issuer = _text(header, "PatientID"), _text(header, "IssuerOfPatientID")
    return {
        "image_id": uid,
        "patient": f"{issuer}/{patient}" if issuer and patient else patient,
        "study": _text(header, "StudyInstanceUID"),
        "patient_id": patient,
        "accession_number": _text(header, "AccessionNumber"),
        "states_chest": bool(_CHEST.search(_text(header, "BodyPartExamined").upper())),
    }


def _text(header: Dataset, keyword: str) -> str:
    try:
        value = header.get(keyword)
    except Exception:  # noqa: BLE001 - a value that cannot be converted counts as not given
        return ""
    return "" if value is None else str(value).replace("\0", "").strip()


def _number(header: Dataset, keyword: str) -> int | None:
    try:
        return int(_text(header, keyword))
    except ValueError:
        return None
