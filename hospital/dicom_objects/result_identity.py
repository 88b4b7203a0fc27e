"""Identity of a result object: its UIDs, its series, and the systems and program that made it."""

from __future__ import annotations

import io
import json
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pydicom.valuerep import DA, DT, TM

if TYPE_CHECKING:
    from cxr_compare.serving.run import Run
from cxr_compare.hospital.dicom_objects.source_header import Source

SOFTWARE = "cxr-compare"
Kind = Literal["sr", "sc"]
"""Kind of a DICOM result: ``sr``, a structured report, or ``sc``, a Secondary Capture."""
# Numbers that are higher than those of a hospital's series.
_SERIES_NUMBERS: dict[Kind, int] = {"sr": 9901, "sc": 9902}
LONG_TEXT = 1024  # largest number of characters of a long text


@dataclass(frozen=True)
class Algorithm:
    """Name and settings of a system (trained network with its threshold), for DICOM results.

    Results of different systems differ in at least one of these fields.

    Attributes:
        name: Name of the system for people.
        model_id: Digest of all that decides a prediction, such as the weights.
        engine: Program and number format that compute the network, such as ``torch fp32``.
        policy: Name of the rule that chose the threshold on validation images, such as ``max_f1``.
        threshold: Lowest score at which an image is positive; None if the system does not decide.
    """

    name: str
    model_id: str
    engine: str
    policy: str
    threshold: float | None

    @classmethod
    def from_run(cls, run: Run) -> Algorithm:
        """Describe the system of a run (folder of a training) or of an export of its network.

        The weights are read once for their digest.
        """
        engine = f"{run.model.backend} {run.model.precision}"
        return cls(run.name, run.model.inference_id(), engine, run.policy, run.threshold)


def to_bytes(instance: Dataset) -> bytes:
    """Return a DICOM object as the content of a file, with preamble and file meta information."""
    buffer = io.BytesIO()
    instance.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def equipment(kind: Kind, source: Source, algorithms: Sequence[Algorithm]) -> dict[str, Any]:
    """Return the arguments that describe the series, the object and the program in a DICOM result.

    A result is a DICOM object with predictions for an image by the algorithms: ``sr``, a structured
    report, or ``sc``, a Secondary Capture. The arguments are those of highdicom's classes, such as
    ``series_instance_uid`` and ``manufacturer``.
    """
    header = source.header
    names = ", ".join(algorithm.name for algorithm in algorithms)
    described = f"{SOFTWARE}, research use only: {names}"
    series = (str(header.SeriesInstanceUID), _as_json(algorithms))
    return {
        "series_instance_uid": derived_uid("series", kind, *series),
        "series_number": _SERIES_NUMBERS[kind],
        "series_description": plain_text(described, 64),
        "sop_instance_uid": result_uid(header.SOPInstanceUID, kind, algorithms),
        "instance_number": source.instance_number,
        "manufacturer": SOFTWARE,
        "manufacturer_model_name": SOFTWARE,
        "software_versions": software_version(),
    }


def stamp(instance: Dataset, made: datetime) -> None:
    """Write the time at which a DICOM object with predictions was made into the object."""
    instance.InstanceCreationDate = DA(made.date())
    instance.InstanceCreationTime = TM(made.time())
    for software in instance.ContributingEquipmentSequence:
        software.ContributionDateTime = DT(made)


def result_uid(source_uid: str, kind: Kind, algorithms: Sequence[Algorithm]) -> UID:
    """Return the SOP Instance UID of a DICOM object with predictions (a result).

    The same image, systems and version of the program give the same UID. A result that is sent
    twice is therefore the same instance, which an archive stores once.
    """
    return derived_uid("instance", kind, str(source_uid), _as_json(algorithms))


def _as_json(algorithms: Sequence[Algorithm]) -> list[dict[str, Any]]:
    return [asdict(algorithm) for algorithm in algorithms]


def derived_uid(*parts: Any) -> UID:
    """Return a DICOM UID that depends only on the given parts and on the version of the program.

    The parts are values that JSON can hold. The UID begins with 2.25, the root for UIDs from
    numbers.
    """
    text = json.dumps([SOFTWARE, software_version(), *parts], sort_keys=True)
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, text).int}")


@cache
def software_version() -> str:
    """Return the version of this program."""
    return metadata.version(SOFTWARE)


def plain_text(text: str, most: int) -> str:
    """Return a text without backslashes and unprintable characters, cut to a length.

    One of more than `most` characters ends with three dots.
    """
    plain = "".join(c if c.isprintable() and c != "\\" else " " for c in text).strip()
    return plain if len(plain) <= most else plain[: most - 3].rstrip() + "..."


@contextmanager
def single_names_allowed() -> Iterator[None]:
    """Suppress highdicom's warning about a patient name of a single part within a ``with`` block.

    Anonymised images have such names.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The string .* is unlikely to represent", UserWarning)
        yield
