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
    """Return the predictions for one image as DICOM objects, by kind.

    The kinds are ``sr``, see `structured_report`, and ``sc``, see `overlay_capture`. There is one
    answer for each algorithm, in the same order.
    """
    makers = {"sr": structured_report, "sc": overlay_capture}
    return {kind: makers[kind](source, answers, algorithms) for kind in kinds}
