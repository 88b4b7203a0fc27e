"""The record of a study: its protocol, seeds, versions and revision, and the steps that ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tomli_w

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.provenance import provenance
from tools.full_size.protocol import Protocol, ReadProtocol, read_protocol
from tools.full_size.steps import QUESTION

RECORD = "record.json"
PROTOCOL = "protocol.toml"
_STEPS = "steps.jsonl"


@dataclass(frozen=True)
class EndedStep:
    """A step that ended well.

    Attributes:
        name: Name of the step.
        seconds: Time that it took, s.
        ended: Time at which it ended (UTC, ISO 8601).
    """

    name: str
    seconds: float
    ended: str


def start_record(out: Path, source: Path, read: ReadProtocol, *, rehearsal: bool) -> None:
    """Write the record of a study, or add this call to the record of an earlier call.

    Args:
        out: Folder of results.
        source: File of the protocol.
        read: Content of that file.
        rehearsal: True for a rehearsal.

    Raises:
        InputError: The folder holds the results of another protocol.
    """
    path = out / RECORD
    protocol = read.protocol
    record: dict[str, Any] = {
        "protocol": protocol.name,
        "protocol_sha256": read.sha256,
        "rehearsal": rehearsal,
        "folders": {"training": protocol.data.training, "challenge": protocol.data.challenge},
        "seeds": {
            "folds": protocol.folds.seed,
            "trainings": {system.name: protocol.seeds_of(system) for system in protocol.system},
            "leaky trainings": {
                system.name: protocol.seeds_of(system, leaky=True) for system in protocol.system
            },
        },
        "calls": [],
    }
    if path.exists():
        earlier = read_record(out)
        for key in ("protocol_sha256", "rehearsal"):
            if earlier[key] != record[key]:
                what = (
                    "another protocol"
                    if key == "protocol_sha256"
                    else ("a rehearsal" if earlier["rehearsal"] else "the study itself")
                )
                raise InputError(
                    f"{out}: holds the results of {what}; choose another folder, or restore "
                    f"{source} as it was"
                )
        record["calls"] = earlier["calls"]
    elif out.exists() and any(entry.name != ".lock" for entry in out.iterdir()):
        raise InputError(f"{out}: holds files of something else; choose a new folder")
    record["calls"].append(provenance())
    out.mkdir(parents=True, exist_ok=True)
    if not (out / PROTOCOL).exists():
        write_text(out / PROTOCOL, source.read_text(encoding="utf-8"))
        question = protocol.question.model_dump(exclude_none=True, exclude_defaults=True)
        write_text(out / QUESTION, tomli_w.dumps(question))
    write_text(path, json.dumps(record, indent=1))


def read_record(out: Path) -> dict[str, Any]:
    """Return the record of a study.

    Raises:
        InputError: The folder has no record.
    """
    path = out / RECORD
    if not path.is_file():
        raise InputError(f"{out}: holds no study; run scripts/full_size.sh first")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def recorded_protocol(out: Path) -> Protocol:
    """Return the protocol of a study, with the small values of a rehearsal if it is one."""
    return read_protocol(out / PROTOCOL, rehearsal=read_record(out)["rehearsal"]).protocol


def ended_steps(out: Path) -> dict[str, EndedStep]:
    """Return the steps that ended well, by name. A line that a kill cut short is left out."""
    path = out / _STEPS
    steps = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            step = EndedStep(**json.loads(line))
        except (ValueError, TypeError):
            continue
        steps[step.name] = step
    return steps


def add_step(out: Path, step: EndedStep) -> None:
    """Note that a step ended well."""
    path = out / _STEPS
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if text and not text.endswith("\n"):
        text += "\n"
    write_text(path, text + json.dumps(asdict(step)) + "\n")


def seconds_by_system(out: Path, steps: Sequence[Any]) -> dict[str, float]:
    """Return the seconds that the trainings of each system on the folds by patient took."""
    ended = ended_steps(out)
    seconds: dict[str, float] = {}
    for step in steps:
        if step.kind == "train" and step.arm == "fold" and step.name in ended:
            seconds[step.system] = seconds.get(step.system, 0.0) + ended[step.name].seconds
    return seconds
