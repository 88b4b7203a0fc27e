"""What a DICOM header says: facts of patient and exposure, and whether it is a chest radiograph.

Names, extensions and SOP classes play no part.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_file_meta_info, read_partial
from pydicom.uid import DeflatedExplicitVRLittleEndian

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.decoded_image import plain_reason, require_file

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
OTHER = "other"
"""What a class of a closed list is called that the list does not name."""
MAKERS = {
    "agfa": "AGFA", "canon": "CANON|TOSHIBA", "carestream": "CARESTREAM|KODAK", "drgem": "DRGEM",
    "fujifilm": "FUJI", "ge": r"\bGE\b|GENERAL ELECTRIC|GEMS", "hologic": "HOLOGIC",
    "iray": r"\bI-?RAY\b", "konica minolta": "KONICA|MINOLTA", "mindray": "MINDRAY",
    "philips": "PHILIPS", "samsung": "SAMSUNG", "shimadzu": "SHIMADZU", "siemens": "SIEMENS",
    "swissray": "SWISSRAY", "united imaging": r"UNITED IMAGING|\bUIH\b", "varex": "VAREX|VARIAN",
}  # fmt: skip
"""Makers of detectors, and what their Manufacturer says in any case."""
_YEARS_PER_UNIT = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0, "": 1.0}


def header_facts(header: Dataset) -> dict[str, Any]:
    """Read view, sex, age, modality and maker, and whether it is synthetic; no identifiers."""
    sex = _text(header, "PatientSex").upper()
    modality = _text(header, "Modality").upper()
    return {
        "view": _view(header),
        "sex": sex if sex in {"M", "F", "O"} else None,
        "age_years": _age_years(_text(header, "PatientAge")),
        "modality": modality if modality in _MODALITIES else None,
        "maker": _maker(_text(header, "Manufacturer").upper()),
        "synthetic": _text(header, "ConversionType").upper() == "SYN",
    }


def _maker(text: str) -> str | None:
    """The detector's maker by the Manufacturer in capitals.

    Example:
        >>> _maker("GE HEALTHCARE"), _maker("FUJIFILM CORPORATION"), _maker("ACME"), _maker("")
        ('ge', 'fujifilm', 'other', None)
    """
    known = (name for name, pattern in MAKERS.items() if re.search(pattern, text))
    return next(known, OTHER) if text else None


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
    """Whether the header says that text is burned into the image: yes, no, or None."""
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
    """What a header says of one file."""

    path: str  # relative to the folder, with `/`
    reason: str | None = None  # why it is no chest radiograph; None where it may be one
    image_id: str = ""  # SOPInstanceUID; a digest of the path where that is missing
    patient: str = ""  # PatientID, after its issuer where that is given; empty if missing
    study: str = ""  # StudyInstanceUID; empty if missing
    patient_id: str = ""  # PatientID alone, as a label table may have it
    accession_number: str = ""  # AccessionNumber, likewise; it never gets into a data set
    # as `data_prep.images.dicom_header.header_facts` gives it, like the next two
    view: str | None = None
    sex: str | None = None
    age_years: float | None = None
    states_chest: bool = False  # whether the header states the body part


def why_no_radiograph(path: Path) -> tuple[str | None, bool]:
    """Say why a file is no frontal chest radiograph, by the rules for a folder of them."""
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
    if "LOCALIZER" in _clean_text(header, "ImageType").upper():
        return "a localizer"
    frames = _number(header, "NumberOfFrames")
    if frames is not None and frames > 1:
        return f"{frames} frames; a radiograph has one"
    photometric = _clean_text(header, "PhotometricInterpretation").upper()
    if (_number(header, "SamplesPerPixel") or 1) > 1 or photometric == "PALETTE COLOR":
        return "a colour image, such as a screenshot"
    body_part = _clean_text(header, "BodyPartExamined").upper()
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


def ids_of(header: Dataset) -> tuple[str, str]:
    """PatientID, after its issuer where that is given, and SOPInstanceUID; empty if missing."""
    patient, issuer = _clean_text(header, "PatientID"), _clean_text(header, "IssuerOfPatientID")
    patient = f"{issuer}/{patient}" if issuer and patient else patient
    return patient, _clean_text(header, "SOPInstanceUID")


def _names(header: Dataset, path: str) -> dict[str, Any]:
    """What the file is called by, and whether it states to be of the chest."""
    patient, uid = ids_of(header)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", uid):
        uid = "file-" + hashlib.sha256(path.encode(errors="surrogateescape")).hexdigest()[:20]
    return {
        "image_id": uid,
        "patient": patient,
        "study": _clean_text(header, "StudyInstanceUID"),
        "patient_id": _clean_text(header, "PatientID"),
        "accession_number": _clean_text(header, "AccessionNumber"),
        "states_chest": bool(_CHEST.search(_clean_text(header, "BodyPartExamined").upper())),
    }


def _clean_text(header: Dataset, keyword: str) -> str:
    return _text(header, keyword).replace("\0", "").strip()


def _number(header: Dataset, keyword: str) -> int | None:
    try:
        return int(_clean_text(header, keyword))
    except ValueError:
        return None
