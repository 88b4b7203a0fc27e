"""Answers as DICOM objects: a structured report (TID 1500) and a Secondary Capture overlay."""

from __future__ import annotations

import hashlib
import json
import uuid
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from functools import cache
from importlib import metadata
from typing import Any, Literal

import highdicom.sr as hd
import numpy as np
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sc import SCImage
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import DA, DT, TM

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.formats.finding_names import display_name, finding_name
from cxr_compare.serving.answer import Answer, render_answers
from cxr_compare.serving.dicom_objects.instance import (
    COPIED_WHERE_GIVEN,
    RESEARCH_USE,
    SOFTWARE,
    Algorithm,
    Source,
)

Kind = Literal["sr", "sc"]
"""A structured report, or a Secondary Capture."""

KINDS: tuple[Kind, ...] = ("sr", "sc")

_SERIES_NUMBERS: dict[Kind, int] = {"sr": 9901, "sc": 9902}  # behind what a hospital numbers
PRIVATE_SCHEME = "99CXRCOMPARE"
_MOST_VALUE, _MOST_MEANING = 16, 64  # characters of a code and of its meaning

# DICOM's own terms for chest X-rays (PS3.16, CID 6101 and 6104) come first, as they name what is
# seen; where it has none, what SNOMED CT calls the disorder. Others get a private code: a wrong
# code would be worse than none.
_FINDING_CODES: dict[str, tuple[str, str, str]] = {
    "atelectasis": ("46621007", "SCT", "Atelectasis"),
    "bacterial_pneumonia": ("53084003", "SCT", "Bacterial pneumonia"),
    "calcification": ("112063", "DCM", "Abnormal calcifications"),
    "cardiomegaly": ("8186001", "SCT", "Cardiomegaly"),
    "clavicle_fracture": ("58150001", "SCT", "Fracture of clavicle"),
    "consolidation": ("95436008", "SCT", "Lung consolidation"),
    "covid_19": ("840539006", "SCT", "COVID-19"),
    "edema": ("19242006", "SCT", "Pulmonary edema"),
    "effusion": ("60046008", "SCT", "Pleural effusion"),
    "emphysema": ("87433001", "SCT", "Pulmonary emphysema"),
    "fibrosis": ("51615001", "SCT", "Fibrosis of lung"),
    "ild": ("233703007", "SCT", "Interstitial lung disease"),
    "infiltration": ("112121", "DCM", "Infiltrate"),
    "infiltrate": ("112121", "DCM", "Infiltrate"),
    "lung_opacity": ("112001", "DCM", "Opacity"),
    "mass": ("4147007", "SCT", "Mass"),
    "nodule": ("27925004", "SCT", "Nodule"),
    "opacity": ("112001", "DCM", "Opacity"),
    "pleural_effusion": ("60046008", "SCT", "Pleural effusion"),
    "pneumonia": ("233604007", "SCT", "Pneumonia"),
    "pneumothorax": ("36118008", "SCT", "Pneumothorax"),
    "pulmonary_fibrosis": ("51615001", "SCT", "Fibrosis of lung"),
    "rib_fracture": ("33737001", "SCT", "Fracture of rib"),
    "viral_pneumonia": ("75570004", "SCT", "Viral pneumonia"),
}


def _private_code(name: str, meaning: str) -> hd.CodedConcept:
    """A concept of our own scheme; a name that is too long for a code keeps its start."""
    value = name
    if len(value) > _MOST_VALUE or not value.isascii():
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        start = "".join(c for c in name if c.isascii() and c.isalnum())
        value = f"{start[: _MOST_VALUE - 9]}_{digest}"
    plain = "".join(c for c in meaning if c.isprintable() and c != "\\")
    return hd.CodedConcept(value, PRIVATE_SCHEME, plain[:_MOST_MEANING].strip() or value)


SCORE = _private_code("score", "Score of the system, 0 to 1")
PROBABILITY = _private_code("probability", "Calibrated probability of the finding")
THRESHOLD = _private_code("threshold", "Score from which the system says positive")
TARGET = _private_code("target", "Finding that the system was asked for")
DECISION = _private_code("decision", "Decision of the system at its operating point")
_DECISIONS = {
    True: Code("10828004", "SCT", "Positive"),
    False: Code("260385009", "SCT", "Negative"),
    None: Code("82334004", "SCT", "Indeterminate"),
}
_CHEST_RADIOGRAPHY = Code("399208008", "SCT", "Plain chest X-ray")
_IMAGING = Code("363679005", "SCT", "Imaging procedure")
_NO_UNITS = codes.UCUM.NoUnits
_LONG_TEXT = 1024  # characters
_TITLE = "Research use only"
_PANEL = 512  # px; two or three side by side fill a screen


def _finding_code(finding: str) -> hd.CodedConcept:
    """A finding, by name or display name, as a coded concept, of our own scheme if need be."""
    name = finding_name(finding)
    if name in _FINDING_CODES:
        return hd.CodedConcept(*_FINDING_CODES[name])
    return _private_code(name or finding, display_name(name) if name else finding)


def dicom_results(
    source: Source,
    answers: Sequence[Answer],
    algorithms: Sequence[Algorithm],
    kinds: Iterable[Kind] = KINDS,
) -> dict[Kind, Dataset]:
    """What systems answered for one image, in the order of `algorithms`, as DICOM objects.

    Raises:
        InputError: Nothing was answered, or reports cannot refer to such an object.
    """
    makers = {"sr": _structured_report, "sc": _overlay_capture}
    return {kind: makers[kind](source, answers, algorithms) for kind in kinds}


def _structured_report(
    source: Source,
    answers: Sequence[Answer],
    algorithms: Sequence[Algorithm],
    *,
    made: datetime | None = None,
) -> hd.ComprehensiveSR:
    """Say in a structured report what systems answered for one image.

    Each system has a measurement group of the whole image, with what it was asked for, its score,
    calibrated probability, threshold and decision, and one for each box that counts: a finding,
    its place in pixels of the source, its score, and the decision on the image. An answer that a
    warning speaks against is indeterminate, and has no boxes. It claims no diagnosis: it is
    unverified and preliminary, and complete only where every system could decide.

    Source: DICOM PS3.16, TID 1500, 1501 and 1410.
    """
    if not answers or len(answers) != len(algorithms):
        raise InputError(
            f"structured report: {len(answers)} answers of {len(algorithms)} systems; give one of "
            "each, and at least one"
        )
    report_uid = _result_uid(source.header.SOPInstanceUID, "sr", algorithms)
    _region(source, hd.GraphicTypeValues.POINT, np.zeros((1, 2)))  # also where there is no box
    groups: list[hd.Template] = []
    for answer, algorithm in zip(answers, algorithms, strict=True):
        identified = _identified(algorithm)
        groups.append(_image_group(answer, identified, source, report_uid))
        counting = answer.boxes if answer.status == "ok" else answer.boxes[:0]
        groups += [
            _box_group(box, number, answer, identified, source, report_uid)
            for number, box in enumerate(counting.itertuples(), start=1)
        ]
    made = made or datetime.now()
    with _single_names_allowed():
        report = hd.ComprehensiveSR(
            evidence=[source.header],
            content=_document(groups, source, answers)[0],
            is_complete=all(answer.decision is not None for answer in answers),
            coding_schemes=[
                CodingSchemeIdentificationItem(
                    PRIVATE_SCHEME, name=SOFTWARE, responsible_organization=SOFTWARE
                )
            ],
            content_date=made.date(),
            content_time=made.time(),
            **_equipment("sr", source, algorithms),
        )
    _stamp(report, made)
    if report.CompletionFlag == "PARTIAL":
        report.CompletionFlagDescription = "Not every system gives an answer"
    return report


def _document(
    groups: Sequence[hd.Template], source: Source, answers: Sequence[Answer]
) -> hd.MeasurementReport:
    observer = hd.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.DeviceObserverIdentifyingAttributes(
            uid=_derived_uid("device"),
            name=SOFTWARE,
            manufacturer_name=SOFTWARE,
            model_name=f"{SOFTWARE} {_software_version()}",
        ),
    )
    try:
        hd.ImageLibrary([source.header])
        library = [source.header]
    except (KeyError, ValueError):  # highdicom knows no modality for this kind of object
        library = None
    document = hd.MeasurementReport(
        observation_context=hd.ObservationContext(observer_device_context=observer),
        procedure_reported=_CHEST_RADIOGRAPHY if source.radiograph else _IMAGING,
        imaging_measurements=groups,
        referenced_images=library,
    )
    said = (RESEARCH_USE, *Answer.joint_warnings(answers))
    document[0].ContentSequence.extend(_comment(text) for text in said)
    return document


def _image_group(
    answer: Answer, identified: hd.AlgorithmIdentification, source: Source, report_uid: str
) -> hd.MeasurementsAndQualitativeEvaluations:
    values = ((SCORE, answer.score), (PROBABILITY, answer.probability),
              (THRESHOLD, answer.threshold))  # fmt: skip
    # Not as a finding: who reads findings alone must not take a negative answer for one.
    asked = hd.QualitativeEvaluation(name=TARGET, value=_finding_code(answer.finding))
    group = hd.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(answer.system, "image", report_uid),
        algorithm_id=identified,
        measurements=[_measured(name, value) for name, value in values if value is not None],
        qualitative_evaluations=[asked, _decided(answer)],
        source_images=[
            hd.SourceImageForMeasurementGroup(
                source.header.SOPClassUID, source.header.SOPInstanceUID, source.frame_numbers
            )
        ],
    )
    said = []
    if answer.triage:
        said.append(f": {answer.called.lower()} (score {answer.triage_rule})")
    said += [f", {guarantee}" for guarantee in answer.guarantees]
    if answer.undecided_because:
        said.append(f" is undecided: {answer.undecided_because}")
    if answer.status != "ok":
        said.append(f" gives no answer (status {answer.status}): see the warnings")
    group[0].ContentSequence.extend(_comment(answer.system + words) for words in said)
    return group


def _box_group(
    box: Any,
    number: int,
    answer: Answer,
    identified: hd.AlgorithmIdentification,
    source: Source,
    report_uid: str,
) -> hd.PlanarROIMeasurementsAndQualitativeEvaluations:
    header = source.header
    x1, x2 = (min(max(x, 0.0), float(header.Columns)) for x in (box.x1, box.x2))
    y1, y2 = (min(max(y, 0.0), float(header.Rows)) for y in (box.y1, box.y2))
    corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]])
    return hd.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(answer.system, f"box {number}", report_uid),
        referenced_region=_region(source, hd.GraphicTypeValues.POLYLINE, corners),
        finding_type=_finding_code(box.finding),
        algorithm_id=identified,
        measurements=[_measured(SCORE, box.score)],
        qualitative_evaluations=[_decided(answer)],
    )


def _region(source: Source, kind: hd.GraphicTypeValues, points: np.ndarray) -> hd.ImageRegion:
    header = source.header
    image = hd.SourceImageForRegion(header.SOPClassUID, header.SOPInstanceUID, source.frame_numbers)
    try:
        return hd.ImageRegion(kind, points, image)
    except KeyError:
        raise InputError(
            f"DICOM source: is a {header.SOPClassUID.name}, a kind of object that structured "
            "reports do not point into; send it as CR, DX or Secondary Capture"
        ) from None


def _identified(algorithm: Algorithm) -> hd.AlgorithmIdentification:
    return hd.AlgorithmIdentification(
        name=_plain_text(algorithm.name, _LONG_TEXT),
        version=f"{SOFTWARE} {_software_version()}",
        parameters=[
            f"model {algorithm.model_id}",
            f"computed by {algorithm.engine}",
            f"operating point {algorithm.policy}",
        ],
    )


def _tracking(system: str, what: str, report_uid: str) -> hd.TrackingIdentifier:
    uid = _derived_uid("tracking", str(report_uid), system, what)
    return hd.TrackingIdentifier(uid, _plain_text(f"{system}: {what}", _LONG_TEXT))


def _measured(name: hd.CodedConcept, value: float) -> hd.Measurement:
    return hd.Measurement(name=name, value=float(value), unit=_NO_UNITS)


def _decided(answer: Answer) -> hd.QualitativeEvaluation:
    return hd.QualitativeEvaluation(name=DECISION, value=_DECISIONS[answer.decision])


def _comment(text: str) -> hd.TextContentItem:
    return hd.TextContentItem(
        name=codes.DCM.Comment,
        value=_plain_text(text, _LONG_TEXT),
        relationship_type=hd.RelationshipTypeValues.CONTAINS,
    )


def _overlay_capture(
    source: Source,
    answers: Sequence[Answer],
    algorithms: Sequence[Algorithm],
    *,
    made: datetime | None = None,
) -> SCImage:
    """Draw what systems answered for one image, with no name of a file: it may be a patient's.

    Of a doubtful answer nothing is drawn on the image: who sees a box there takes it for a finding.
    """
    titled = [replace(answer, image=_TITLE) for answer in answers]
    drawn = render_answers(titled, panel=_PANEL, draws_doubtful=False)
    return _secondary_capture(source, drawn, algorithms, made=made)


def _secondary_capture(
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
    made = made or datetime.now()
    with _single_names_allowed():
        capture = SCImage.from_ref_dataset(
            source.header,
            np.ascontiguousarray(rgb),
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            # Several panels have no one orientation; highdicom asks for one, which is removed.
            patient_orientation=("L", "F"),
            transfer_syntax_uid=ExplicitVRLittleEndian,
            **_equipment("sc", source, algorithms),
        )
    for keyword in COPIED_WHERE_GIVEN:  # highdicom's copier knows not every kind of source
        if keyword in source.header:
            capture[keyword] = source.header[keyword]
    capture.PatientOrientation = []
    _stamp(capture, made)
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
    capture.DerivationDescription = _plain_text(
        f"{RESEARCH_USE} Drawn by {SOFTWARE} {_software_version()}: {systems}", _LONG_TEXT
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


def _equipment(kind: Kind, source: Source, algorithms: Sequence[Algorithm]) -> dict[str, Any]:
    """What names the series, the instance and what made them, as arguments of highdicom."""
    header = source.header
    names = ", ".join(algorithm.name for algorithm in algorithms)
    described = f"{SOFTWARE}, research use only: {names}"
    series = (str(header.SeriesInstanceUID), _as_json(algorithms))
    return {
        "series_instance_uid": _derived_uid("series", kind, *series),
        "series_number": _SERIES_NUMBERS[kind],
        "series_description": _plain_text(described, 64),
        "sop_instance_uid": _result_uid(header.SOPInstanceUID, kind, algorithms),
        "instance_number": source.instance_number,
        "manufacturer": SOFTWARE,
        "manufacturer_model_name": SOFTWARE,
        "software_versions": _software_version(),
    }


def _stamp(instance: Dataset, made: datetime) -> None:
    """Say when an object was made."""
    instance.InstanceCreationDate, instance.InstanceCreationTime = DA(made.date()), TM(made.time())
    for software in instance.ContributingEquipmentSequence:
        software.ContributionDateTime = DT(made)


def _result_uid(source_uid: str, kind: Kind, algorithms: Sequence[Algorithm]) -> UID:
    """SOP Instance UID of a result: the same for the same image, systems and program.

    What is sent twice is so the same instance, which an archive keeps once.
    """
    return _derived_uid("instance", kind, str(source_uid), _as_json(algorithms))


def _as_json(algorithms: Sequence[Algorithm]) -> list[dict[str, Any]]:
    return [asdict(algorithm) for algorithm in algorithms]


def _derived_uid(*parts: Any) -> UID:
    """A UID below 2.25 that follows from JSON-ready parts and the program's version."""
    text = json.dumps([SOFTWARE, _software_version(), *parts], sort_keys=True)
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, text).int}")


@cache
def _software_version() -> str:
    """The version of this program."""
    return metadata.version(SOFTWARE)


def _plain_text(text: str, most: int) -> str:
    """Text that DICOM can hold: printable, without backslashes, of at most so many characters."""
    plain = "".join(c if c.isprintable() and c != "\\" else " " for c in text).strip()
    return plain if len(plain) <= most else plain[: most - 3].rstrip() + "..."


@contextmanager
def _single_names_allowed() -> Iterator[None]:
    """Names of one part are common in what is anonymised; highdicom warns of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The string .* is unlikely to represent", UserWarning)
        yield
