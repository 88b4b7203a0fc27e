"""Answers for an image as DICOM objects: a structured report and a Secondary Capture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydicom.dataset import Dataset

from cxr_compare.hospital.dicom_objects.result_identity import Algorithm, Kind
from cxr_compare.hospital.dicom_objects.secondary_capture import overlay_capture
from cxr_compare.hospital.dicom_objects.source_header import Source
from cxr_compare.hospital.dicom_objects.structured_report import structured_report
from cxr_compare.serving.answer import Answer

KINDS: tuple[Kind, ...] = ("sr", "sc")


def dicom_results(
    source: Source,
    answers: Sequence[Answer],
    algorithms: Sequence[Algorithm],
    kinds: Iterable[Kind] = KINDS,
) -> dict[Kind, Dataset]:
    """Return the predictions for one image as DICOM objects.

    Args:
        source: Header facts of the image that was predicted, such as patient, study and UIDs.
        answers: One prediction for each system (trained network with its threshold).
        algorithms: Name and settings of each system, in the order of `answers`.
        kinds: Kinds of objects to make: ``sr`` for a structured report, ``sc`` for a Secondary
            Capture (image with the boxes or maps drawn in).

    Returns:
        The DICOM object of each kind.

    Raises:
        InputError: There is no prediction, the numbers of predictions and systems differ, or a
            structured report cannot refer to this kind of source image (SOP class).
    """
    makers = {"sr": structured_report, "sc": overlay_capture}
    return {kind: makers[kind](source, answers, algorithms) for kind in kinds}
