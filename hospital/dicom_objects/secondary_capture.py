"""The overlay of an image as a DICOM Secondary Capture."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import highdicom.sr as hd
import numpy as np
from highdicom.sc import SCImage
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DA, TM

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.hospital.dicom_objects.result_identity import (
    LONG_TEXT,
    SOFTWARE,
    Algorithm,
    equipment,
    plain_text,
    single_names_allowed,
    software_version,
    stamp,
)
from cxr_compare.hospital.dicom_objects.source_header import COPIED_WHERE_GIVEN, Source
from cxr_compare.serving.answer import RESEARCH_USE, Answer, render_answers

_TITLE = "Research use only"
_PANEL = 512  # px; two or three side by side fill a screen


def overlay_capture(
    source: Source,
    answers: Sequence[Answer],
    algorithms: Sequence[Algorithm],
    *,
    made: datetime | None = None,
) -> SCImage:
    """Draw the predictions for one image as a DICOM Secondary Capture (a derived image).

    The drawing shows no file name, because a file name may contain a patient's name. It shows no
    boxes or maps of a prediction with a warning, because a reader would take them for findings. The
    answers are in the order of the algorithms; None for `made` takes the present time. The object
    is of the same patient and study as the image.
    """
    titled = [answer.model_copy(update={"image": _TITLE}) for answer in answers]
    drawn = render_answers(titled, panel=_PANEL, draws_doubtful=False)
    return secondary_capture(source, drawn, algorithms, made=made)


def secondary_capture(
    source: Source,
    rgb: np.ndarray,
    algorithms: Sequence[Algorithm],
    *,
    made: datetime | None = None,
) -> SCImage:
    """Put a drawing of predictions into a DICOM object of the same patient and study.

    The drawing is uint8 ``(h, w, 3)``, else refused, and the object uncompressed RGB. None for
    `made` takes the present time.

    Source:
        DICOM PS3.3, A.8.1 and C.8.6.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise InputError(f"overlay: expected uint8 (h, w, 3), but got {rgb.dtype} {rgb.shape}")
    made = made or datetime.now()
    with single_names_allowed():
        capture = SCImage.from_ref_dataset(
            source.header,
            np.ascontiguousarray(rgb),
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            # Several panels have no one orientation; highdicom asks for one, which is removed.
            patient_orientation=("L", "F"),
            transfer_syntax_uid=ExplicitVRLittleEndian,
            **equipment("sc", source, algorithms),
        )
    for keyword in COPIED_WHERE_GIVEN:  # highdicom's copier knows not every kind of source
        if keyword in source.header:
            capture[keyword] = source.header[keyword]
    capture.PatientOrientation = []
    stamp(capture, made)
    day = DA(made.date())
    time = TM(made.time())
    capture.ContentDate = day
    capture.ContentTime = time
    capture.DateOfSecondaryCapture = day
    capture.TimeOfSecondaryCapture = time
    _describe(capture, source, algorithms)
    return capture


def _describe(capture: SCImage, source: Source, algorithms: Sequence[Algorithm]) -> None:
    """Say where the object comes from, and what it must not be source for."""
    systems = "; ".join(
        f"{system.name} (model {system.model_id}, {system.engine}, {system.policy})"
        for system in algorithms
    )
    capture.ConversionType = "WSD"  # made on a workstation
    capture.BurnedInAnnotation = "YES"
    capture.RecognizableVisualFeatures = "NO"
    capture.ImageComments = RESEARCH_USE
    capture.DerivationDescription = plain_text(
        f"{RESEARCH_USE} Drawn by {SOFTWARE} {software_version()}: {systems}", LONG_TEXT
    )
    item = Dataset()
    item.ReferencedSOPClassUID = source.header.SOPClassUID
    item.ReferencedSOPInstanceUID = source.header.SOPInstanceUID
    if source.frame_numbers:
        item.ReferencedFrameNumber = source.frame_numbers
    purpose = codes.DCM.SourceImageForImageProcessingOperation
    item.PurposeOfReferenceCodeSequence = [hd.CodedConcept.from_code(purpose)]
    capture.SourceImageSequence = [item]
    if source.chest:
        capture.BodyPartExamined = "CHEST"
    else:
        capture.Laterality = ""  # the standard asks for it where the body part may be a paired one
    if source.lossy:
        capture.LossyImageCompression = "01"
