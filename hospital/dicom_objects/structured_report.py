"""The answers for an image as a DICOM structured report (TID 1500)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import highdicom.sr as hd
import numpy as np
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.hospital.dicom_objects.finding_codes import (
    PRIVATE_SCHEME,
    finding_code,
    private_code,
)
from cxr_compare.hospital.dicom_objects.result_identity import (
    LONG_TEXT,
    SOFTWARE,
    Algorithm,
    derived_uid,
    equipment,
    plain_text,
    result_uid,
    single_names_allowed,
    software_version,
    stamp,
)
from cxr_compare.hospital.dicom_objects.source_header import Source
from cxr_compare.serving.answer import RESEARCH_USE, Answer

SCORE = private_code("score", "Score of the system, 0 to 1")
PROBABILITY = private_code("probability", "Calibrated probability of the finding")
THRESHOLD = private_code("threshold", "Score from which the system says positive")
TARGET = private_code("target", "Finding that the system was asked for")
DECISION = private_code("decision", "Decision of the system at its operating point")
_DECISIONS = {
    True: Code("10828004", "SCT", "Positive"),
    False: Code("260385009", "SCT", "Negative"),
    None: Code("82334004", "SCT", "Indeterminate"),
}
_CHEST_RADIOGRAPHY = Code("399208008", "SCT", "Plain chest X-ray")
_IMAGING = Code("363679005", "SCT", "Imaging procedure")
_NO_UNITS = codes.UCUM.NoUnits


def structured_report(
    source: Source,
    answers: Sequence[Answer],
    algorithms: Sequence[Algorithm],
    *,
    made: datetime | None = None,
) -> hd.ComprehensiveSR:
    """Write the predictions of systems for one image as a DICOM structured report.

    For each system the report has one measurement group of the whole image: the finding that is
    decided, its score, calibrated probability, threshold and decision. It has another group for
    each box of a positive image: the finding, its position in pixels of the source, its score, and
    the decision on the image. A prediction with a warning is indeterminate and has no boxes. The
    report claims no diagnosis: it is marked unverified and preliminary, and complete only if every
    system could decide.

    The answers, at least one, are in the order of the algorithms; None for `made` takes the present
    time. The object is of the same patient and study as the image. A source image to which a
    structured report cannot refer (SOP class) is refused.

    Source:
        DICOM PS3.16, TID 1500, 1501 and 1410.
    """
    if not answers or len(answers) != len(algorithms):
        raise InputError(
            f"structured report: {len(answers)} answers of {len(algorithms)} systems; give one of "
            "each, and at least one"
        )
    report_uid = result_uid(source.header.SOPInstanceUID, "sr", algorithms)
    # Raises the error for an unsuitable image even if there is no box.
    _region(source, hd.GraphicTypeValues.POINT, np.zeros((1, 2)))
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
    with single_names_allowed():
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
            **equipment("sr", source, algorithms),
        )
    stamp(report, made)
    if report.CompletionFlag == "PARTIAL":
        report.CompletionFlagDescription = "Not every system gives an answer"
    return report


def _document(
    groups: Sequence[hd.Template], source: Source, answers: Sequence[Answer]
) -> hd.MeasurementReport:
    observer = hd.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.DeviceObserverIdentifyingAttributes(
            uid=derived_uid("device"),
            name=SOFTWARE,
            manufacturer_name=SOFTWARE,
            model_name=f"{SOFTWARE} {software_version()}",
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
    values = (
        (SCORE, answer.score),
        (PROBABILITY, answer.probability),
        (THRESHOLD, answer.threshold),
    )
    # Not as a finding: who reads findings alone must not take a negative answer for one.
    asked = hd.QualitativeEvaluation(name=TARGET, value=finding_code(answer.finding))
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
    said = [f", {answer.declared}"] if answer.declared else []
    if answer.undecided_because:
        said.append(f" is undecided: {answer.undecided_because}")
    if answer.status != "ok":
        said.append(f" gives no answer (status {answer.status}): see the warnings")
    comments = [answer.system + words for words in said]
    comments += [f"{text[:1].upper()}{text[1:]}" for text in answer.cautions]
    group[0].ContentSequence.extend(_comment(text) for text in comments)
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
        finding_type=finding_code(box.finding),
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
        name=plain_text(algorithm.name, LONG_TEXT),
        version=f"{SOFTWARE} {software_version()}",
        parameters=[
            f"model {algorithm.model_id}",
            f"computed by {algorithm.engine}",
            f"operating point {algorithm.policy}",
        ],
    )


def _tracking(system: str, what: str, report_uid: str) -> hd.TrackingIdentifier:
    uid = derived_uid("tracking", str(report_uid), system, what)
    return hd.TrackingIdentifier(uid, plain_text(f"{system}: {what}", LONG_TEXT))


def _measured(name: hd.CodedConcept, value: float) -> hd.Measurement:
    return hd.Measurement(name=name, value=float(value), unit=_NO_UNITS)


def _decided(answer: Answer) -> hd.QualitativeEvaluation:
    return hd.QualitativeEvaluation(name=DECISION, value=_DECISIONS[answer.decision])


def _comment(text: str) -> hd.TextContentItem:
    return hd.TextContentItem(
        name=codes.DCM.Comment,
        value=plain_text(text, LONG_TEXT),
        relationship_type=hd.RelationshipTypeValues.CONTAINS,
    )
