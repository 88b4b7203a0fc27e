"""The header of a source image, as far as result objects may copy it.

Each attribute is checked. Values that the standard does not allow are left out, so that a damaged
source image gives valid results.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom import uid
from pydicom.config import RAISE
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID
from pydicom.valuerep import DA, TM, validate_value

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.dicom_header import orientation
from cxr_compare.data_prep.images.refused_files import plain_reason

_UIDS = {
    "StudyInstanceUID": "study",
    "SeriesInstanceUID": "series",
    "SOPInstanceUID": "instance",
    "SOPClassUID": "kind of object",
}
# Attributes of type 2: results contain them, but empty if the source has no value to copy.
_EMPTY_WHERE_UNKNOWN = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
COPIED_WHERE_GIVEN = (
    "IssuerOfPatientID",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "StudyDescription",
)
_LOSSY = frozenset(
    {
        uid.JPEGBaseline8Bit,
        uid.JPEGExtended12Bit,
        uid.JPEGLSNearLossless,
        uid.JPEG2000,
    }
)
# Objects of these classes have one frame by the standard, even if a file says otherwise.
_SINGLE_FRAME = frozenset(
    {
        uid.ComputedRadiographyImageStorage,
        uid.DigitalXRayImageStorageForPresentation,
        uid.DigitalXRayImageStorageForProcessing,
        uid.SecondaryCaptureImageStorage,
        uid.CTImageStorage,
        uid.MRImageStorage,
        uid.PositronEmissionTomographyImageStorage,
        uid.UltrasoundImageStorage,
    }
)


def read_source(path: Path | str) -> Dataset:
    """Read the header of a DICOM file that `read_image` has accepted, without its pixels."""
    with _source_may_be_odd():
        try:
            return pydicom.dcmread(path, stop_before_pixels=True, force=True)
        except Exception as error:  # noqa: BLE001 - pydicom raises all kinds on broken files
            reason = plain_reason(error)
            raise InputError(f"{path}: its header cannot be read ({reason})") from None


@dataclass(frozen=True)
class Source:
    """Header facts of a source image that DICOM results copy, checked against the standard.

    Texts are in UTF-8. Values that the standard does not allow are left out.

    Attributes:
        header: UIDs, patient, study, size and modality of the image. If the source image has valid
            PatientOrientation and ImagerPixelSpacing, these as well; if not, the modality is
            ``OT``.
        instance_number: Number of the image in its series; 1 if the source has none.
        frames: Number of frames.
        orientation: Directions of the rows and columns, such as ``("L", "F")``; empty if unknown.
        radiograph: True if the modality is plain radiography (CR, DX, DR or RG).
        lossy: True if the image went through a lossy compression.
        chest: True if the header says that the image shows a chest.
    """

    header: Dataset
    instance_number: int
    frames: int
    orientation: tuple[str, ...]
    radiograph: bool
    lossy: bool
    chest: bool

    @classmethod
    def from_header(cls, source: Dataset) -> Source:
        """Take from the header of a source image the facts that results copy, after checking them.

        The facts are in a header of its own that leaves out all other attributes. A header without
        UIDs to refer to or without a size, or with a PatientID that cannot be copied, is refused.
        """
        with _source_may_be_odd():
            header = _carried_header(source)
            modality = _text(source, "Modality")
            stated = orientation(source)
            directions = tuple(stated.split("\\")) if stated else ()
            spacing = _numbers(source, "ImagerPixelSpacing")
            # highdicom describes a projection image by these two, or not at all.
            if directions and len(spacing) == 2 and min(spacing) > 0:
                header.ImagerPixelSpacing = spacing
                header.PatientOrientation = list(directions)
                header.Modality = modality or "OT"
            else:
                header.Modality = "OT"
            meta = getattr(source, "file_meta", None) or Dataset()
            lossy = _text(source, "LossyImageCompression") == "01"
            return cls(
                header,
                max(1, _whole_number(source, "InstanceNumber")),
                max(1, _whole_number(source, "NumberOfFrames")),
                directions,
                modality in ("CR", "DX", "DR", "RG"),
                lossy or _text(meta, "TransferSyntaxUID") in _LOSSY,
                _text(source, "BodyPartExamined") == "CHEST",
            )

    @property
    def frame_numbers(self) -> list[int] | None:
        """Number of the frame that was read, in a list; None if the image has one frame only."""
        several = self.frames > 1 and self.header.SOPClassUID not in _SINGLE_FRAME
        return [1] if several else None


@contextmanager
def _source_may_be_odd() -> Iterator[None]:
    """Silence pydicom's warnings about a source, whose values are checked here one by one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _carried_header(source: Dataset) -> Dataset:
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    for keyword, what in _UIDS.items():
        setattr(header, keyword, _uid(source, keyword, what))
    if _is_stated(source, "PatientID") and not _text(source, "PatientID"):
        raise InputError(
            "DICOM source: its PatientID is no DICOM text of one value and up to 64 characters, "
            "so its results would not be filed with its patient; correct it"
        )
    for keyword in _EMPTY_WHERE_UNKNOWN:
        setattr(header, keyword, _text(source, keyword))
    for keyword in COPIED_WHERE_GIVEN:
        if text := _text(source, keyword):
            setattr(header, keyword, text)
    for keyword in ("Rows", "Columns"):
        value = _whole_number(source, keyword)
        if value < 1:
            raise InputError(f"DICOM source: its header has no {keyword}; give an image")
        setattr(header, keyword, value)
    return header


def _uid(source: Dataset, keyword: str, what: str) -> str:
    """Return a UID that results refer to; the file's meta header has a copy of two of them."""
    text = _text(source, keyword)
    if not text and keyword.startswith("SOP"):
        text = _text(getattr(source, "file_meta", Dataset()), f"MediaStorage{keyword}")
    # pydicom knows the form of a UID, not that it stands below one of three roots.
    rooted = text[:2] in ("0.", "1.", "2.") and text.strip("0.") != ""
    if not rooted or not UID(text).is_valid:
        state = "not valid" if _is_stated(source, keyword) else "missing"
        raise InputError(
            f"DICOM source: its {keyword} is {state}, so no DICOM object can refer to the "
            f"{what}; send it as your archive stores it"
        )
    return text


def _is_stated(source: Dataset, keyword: str) -> bool:
    element = _value(source, keyword)
    return element is not None and bool(str(element).strip(" \0"))


def _value(source: Dataset, keyword: str) -> Any:
    try:
        return source.get(keyword)
    except Exception:  # noqa: BLE001 - pydicom raises all kinds on broken values
        return None


def _text(source: Dataset, keyword: str) -> str:
    """Return an attribute as the standard allows it, else an empty text."""
    value = _value(source, keyword)
    if value is None or isinstance(value, MultiValue | bytes):
        return ""
    text = str(value).strip(" \0")
    if not text:
        return ""
    vr = dictionary_VR(keyword)
    text = text.replace({"DA": ".", "TM": ":"}.get(vr, "\0"), "")
    return text if _is_valid(vr, keyword, text) else ""


def _is_valid(vr: str, keyword: str, text: str) -> bool:
    if not text.replace("=", "").isprintable() or "\N{REPLACEMENT CHARACTER}" in text:
        return False
    if "\\" in text or (keyword == "PatientSex" and text not in ("M", "F", "O")):
        return False
    # 0 stands for unknown.
    if keyword in ("PatientSize", "PatientWeight") and not text.strip("+0.eE-"):
        return False
    # A name has at most five parts.
    if vr == "PN" and any(group.count("^") > 4 for group in text.split("=")):
        return False
    try:
        validate_value(vr, text, RAISE)
        if vr == "DA":
            DA(text)
        if vr == "TM":
            TM(text)
    except (ValueError, OverflowError):
        return False
    return True


def _numbers(source: Dataset, keyword: str) -> list[float]:
    value = _value(source, keyword)
    try:
        numbers = [float(number) for number in value or ()]
    except (TypeError, ValueError):
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def _whole_number(source: Dataset, keyword: str) -> int:
    """Return a number of the header; 0 where there is none that a DICOM integer can hold."""
    try:
        number = int(_value(source, keyword) or 0)
    except (TypeError, ValueError):
        return 0
    return number if abs(number) < 1 << 31 else 0
