"""The overlay of an image as a DICOM Secondary Capture, beside the image that it was drawn on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np
from highdicom.sc import SCImage
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DA, TM

from data_prep.contracts.errors import InputError
from serving.answer import Answer, render_answers
from serving.dicom_objects.instance import (
    RESEARCH_USE,
    SOFTWARE,
    Algorithm,
    Source,
    copy_where_given,
    equipment,
    plain_text,
    single_names_allowed,
    software_version,
    stamp,
)

_TITLE = "Research use only"
_PANEL = 512  # px; two or three side by side fill a screen
_SHORT_TEXT = 1024  # characters


def overlay_capture(
    source: Source,
    answers: Sequence[Answer],
    algorithms: Sequence[Algorithm],
    *,
    made: datetime | None = None,
) -> SCImage:
    """Draw what systems answered for one image, with no name of a file: it may be a patient's."""
    titled = [replace(answer, image=_TITLE) for answer in answers]
    return secondary_capture(source, render_answers(titled, panel=_PANEL), algorithms, made=made)


def secondary_capture(
    source: Source,
    rgb: np.ndarray,
    algorithms: Sequence[Algorithm],
    *,
    made: datetime | None = None,
) -> SCImage:
    """Put an overlay, uint8 ``(h, w, 3)``, into a DICOM object of the same patient and study.

    Source: DICOM PS3.3, A.8.1 and C.8.6.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise InputError(f"overlay: expected uint8 (h, w, 3), but got {rgb.dtype} {rgb.shape}")
    header = source.header
    made = made or datetime.now()
    with single_names_allowed():
        capture = SCImage(
            pixel_array=np.ascontiguousarray(rgb),
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            # Several panels have no one orientation; highdicom asks for one, which is removed.
            patient_orientation=("L", "F"),
            study_instance_uid=header.StudyInstanceUID,
            patient_id=header.PatientID,
            patient_name=header.PatientName,
            patient_birth_date=header.PatientBirthDate,
            patient_sex=header.PatientSex,
            accession_number=header.AccessionNumber,
            study_id=header.StudyID,
            study_date=header.StudyDate,
            study_time=header.StudyTime,
            referring_physician_name=header.ReferringPhysicianName,
            specific_character_set=header.SpecificCharacterSet,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            **equipment("sc", source, algorithms),
        )
    copy_where_given(source, capture)
    capture.PatientOrientation = []
    stamp(capture, made)
    day, time = DA(made.date()), TM(made.time())
    capture.ContentDate, capture.ContentTime = day, time
    capture.DateOfSecondaryCapture, capture.TimeOfSecondaryCapture = day, time
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
        f"{RESEARCH_USE} Drawn by {SOFTWARE} {software_version()}: {systems}", _SHORT_TEXT
    )
    item = Dataset()
    item.ReferencedSOPClassUID = source.header.SOPClassUID
    item.ReferencedSOPInstanceUID = source.header.SOPInstanceUID
    if source.frame_numbers:
        item.ReferencedFrameNumber = source.frame_numbers
    purpose = codes.DCM.SourceImageForImageProcessingOperation
    item.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(purpose)]
    capture.SourceImageSequence = [item]
    if source.chest:
        capture.BodyPartExamined = "CHEST"
    else:
        capture.Laterality = ""  # the standard asks for it where the body part may be a paired one
    if source.lossy:
        capture.LossyImageCompression = "01"
