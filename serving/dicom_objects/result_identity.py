"""Identity of a result object: its systems, UIDs, series, equipment and time."""

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
from cxr_compare.serving.dicom_objects.source_header import Source

SOFTWARE = "cxr-compare"
RESEARCH_USE = "Research use only, not a medical device."
Kind = Literal["sr", "sc"]
"""A structured report, or a Secondary Capture."""
_SERIES_NUMBERS: dict[Kind, int] = {"sr": 9901, "sc": 9902}  # behind what a hospital numbers
LONG_TEXT = 1024  # characters


@dataclass(frozen=True)
class Algorithm:
    """A system as its results name it; all of it tells one result from another."""

    name: str
    model_id: str  # digest of all that decides a prediction
    engine: str  # back end and precision
    policy: str  # operating point that decides
    threshold: float | None  # on the score; None where it does not decide

    @classmethod
    def from_run(cls, run: Run) -> Algorithm:
        """Describe the system of a run or export; reads its weights once, for their digest."""
        chosen = None if run.decision is None else run.decision.thresholds[run.policy].threshold
        engine = f"{run.model.backend} {run.model.precision}"
        return cls(run.name, run.model.inference_id(), engine, run.policy, chosen)


def to_bytes(instance: Dataset) -> bytes:
    """Return an object as the content of a DICOM file.

    Args:
        instance: A complete DICOM object.

    Returns:
        Bytes with the preamble and the file meta information.
    """
    buffer = io.BytesIO()
    instance.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def equipment(kind: Kind, source: Source, algorithms: Sequence[Algorithm]) -> dict[str, Any]:
    """Return series, instance and equipment as arguments of highdicom."""
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
    """Say when an object was made."""
    instance.InstanceCreationDate = DA(made.date())
    instance.InstanceCreationTime = TM(made.time())
    for software in instance.ContributingEquipmentSequence:
        software.ContributionDateTime = DT(made)


def result_uid(source_uid: str, kind: Kind, algorithms: Sequence[Algorithm]) -> UID:
    """Return the SOP Instance UID of a result: the same for the same image, systems and program.

    What is sent twice is so the same instance, which an archive keeps once.
    """
    return derived_uid("instance", kind, str(source_uid), _as_json(algorithms))


def _as_json(algorithms: Sequence[Algorithm]) -> list[dict[str, Any]]:
    return [asdict(algorithm) for algorithm in algorithms]


def derived_uid(*parts: Any) -> UID:
    """Return a UID below 2.25 that follows from JSON-ready parts and the program's version."""
    text = json.dumps([SOFTWARE, software_version(), *parts], sort_keys=True)
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, text).int}")


@cache
def software_version() -> str:
    """Return the version of this program."""
    return metadata.version(SOFTWARE)


def plain_text(text: str, most: int) -> str:
    """Return printable text without backslashes, of at most `most` characters."""
    plain = "".join(c if c.isprintable() and c != "\\" else " " for c in text).strip()
    return plain if len(plain) <= most else plain[: most - 3].rstrip() + "..."


@contextmanager
def single_names_allowed() -> Iterator[None]:
    """Silence highdicom's warning about names of one part, which anonymised images have."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The string .* is unlikely to represent", UserWarning)
        yield
