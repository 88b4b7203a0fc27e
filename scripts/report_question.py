"""The question that a finished report answers, and how another question differs from it.

A report stores its question: the systems with a digest of their state, the target, the data, the
split and the options. If the same command is given again, nothing changes. A command with another
question is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.json_files import read_json
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.systems.labelled_split import LabelledSplit
from cxr_compare.scripts.systems import predicts, system_folder
from cxr_compare.serving.export_spec import is_export

State = dict[str, str]
"""Digests of the files of one training seed of a system, by step: trained, predicted, tuned."""

Finished = Literal["absent", "same", "shown otherwise"]
"""State of a report folder: it holds no finished report, one on the same systems, data and options
(``same``), or one that only shows other rows or images (``shown otherwise``).
"""

_CHANGES = {
    "target": "another target is asked for",
    "data_set": "these are other images",
    "labels": "the labels have changed since",
    "split": "this is another split",
}
_CHANGES_OF_A_SYSTEM = {
    "trained": "was another run, or not given as a run",
    "predicted": "had other predictions",
    "tuned": "was tuned otherwise",
}


def system_states(
    name: str | None,
    members: Sequence[Path | Predictions],
    test_set: LabelledSplit,
    out: Path,
) -> list[State]:
    """Return, for each training seed of a system, digests of the files that its results depend on.

    A finished report is made again only if one of these digests has changed. A system may be
    several trainings with different random seeds.

    Args:
        name: Display name of the system; None if the user gave none.
        members: Folder, or predictions in memory, of each training seed.
        test_set: Labelled test images; its target (finding that is evaluated) names the file of the
            decision rule.
        out: Report folder, which holds the predictions of systems that were given as runs.

    Returns:
        For each training seed a mapping from step to digest; steps are ``trained``, ``predicted``
        and ``tuned`` (threshold chosen).
    """
    states = []
    for number, member in enumerate(members, 1):
        if isinstance(member, Predictions):
            states.append({"predicted": _digest(member.info["inference_id"].encode())})
            continue
        step_files = {}
        predicted = member
        if predicts(member) and not (member / "predictions.json").is_file():
            one_of_several = f"{name}-{number}"
            seed_name = one_of_several if len(members) > 1 else name or system_folder(member)
            step_files["trained"] = member / ("export.json" if is_export(member) else "run.json")
            predicted = out / files.SYSTEMS / seed_name
        step_files["predicted"] = predicted / "predictions.json"
        step_files["tuned"] = predicted / "decisions" / f"{test_set.target.name}.json"
        states.append(
            {
                step: _digest(file.read_bytes())
                for step, file in step_files.items()
                if file.is_file()
            }
        )
    return states


def usual_name(member: Path | Predictions) -> str:
    """Return the default name of a system (detector or classifier) to which the user gave no name.

    Args:
        member: Folder of a training, of an export of its network, or of predictions; or predictions
            in memory.

    Returns:
        Name of the folder (for an export with that of its training), or of the predictions.
    """
    return system_folder(member) if isinstance(member, Path) else str(member)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def finished_report(out: Path, question: dict[str, Any]) -> Finished:
    """Return whether a folder holds a finished report, and whether on the same question.

    The question is everything on which a report's figures depend: data, systems and options. A
    system may be given as a training (run), or as the predictions of this training that the report
    stores.

    Args:
        out: Report folder; it need not exist.
        question: Question of the present call, from `ReportRequest.question`.

    Returns:
        ``absent`` if the folder holds no finished report, ``same`` if its question is the same, and
        ``shown otherwise`` if the question is the same, but the rows of the table or the shown
        images differ.

    Raises:
        InputError: The folder holds a report on another question; the message names what differs.
    """
    if not (out / files.METRICS).is_file():
        return "absent"
    report = read_json(out / files.METRICS, "metrics")
    stored = report.get("question") or {}
    if "shown" not in stored:  # stored by an earlier version
        stored = {}
    stored_systems = stored.get("systems", {})
    present = {**question, "shown": stored.get("shown")}
    present["systems"] = {
        name: stored_systems[name] if same_states(states, stored_systems.get(name, ())) else states
        for name, states in question["systems"].items()
    }
    for key, value in present.items():
        if stored.get(key) != value:
            evaluated = " and ".join(map(str, report.get("systems", [])))
            difference = describe_difference(key, stored[key], value) if stored else ""
            raise InputError(
                f"{out}: holds a finished report of {evaluated} on '{report.get('target')}'"
                f"{difference}; choose another --out, or add --overwrite"
            )
    return "same" if stored["shown"] == question["shown"] else "shown otherwise"


def same_states(states: Sequence[State], stored: Sequence[State]) -> bool:
    """Return True if the files that a system's results depend on are unchanged since a report.

    A digest that only the report has is ignored, because it may be unknown in the present call.

    Args:
        states: Digests by step (such as ``tuned``) of each training seed in the present call, from
            `system_states`.
        stored: The same digests, as the report stores them.

    Example:
        >>> same_states([{"tuned": "c"}], [{"trained": "a", "tuned": "c"}])
        True
    """
    if len(states) != len(stored):
        return False
    return all(now.items() <= before.items() for now, before in zip(states, stored, strict=True))


def describe_difference(key: str, before: Any, now: Any) -> str:
    """Return how the settings of a call differ from those of a finished report, for a message.

    Args:
        key: Name of the group of settings that differs: ``systems`` (that are compared),
            ``target``, ``data_set``, ``labels``, ``split`` or ``options``.
        before: Value of the group in the finished report, such as a mapping of options.
        now: Value of the group in the present call.

    Returns:
        Phrase that is appended to the message; empty if no single option differs.

    Example:
        >>> describe_difference("options", {"unit": "image"}, {"unit": "patient"})
        ' with unit image, not patient'
    """
    if key in _CHANGES:
        return f", and {_CHANGES[key]}"
    if key == "systems":
        return _describe_system(before, now)
    for option, value in now.items():
        if before.get(option) != value:
            return f" with {option} {_option_text(before.get(option))}, not {_option_text(value)}"
    return ""


def _describe_system(before: dict[str, list[State]], now: dict[str, list[State]]) -> str:
    if before.keys() != now.keys():
        return ", and these are other systems"
    for name, states in now.items():
        if before[name] == states:
            continue
        system = name.split(". ", 1)[-1]
        for stored, state in zip(before[name], states, strict=False):
            for step, step_digest in state.items():
                if stored.get(step) != step_digest:
                    return f", and {system} {_CHANGES_OF_A_SYSTEM[step]}"
        return f", and {system} had other training seeds"
    return ""


def _option_text(value: Any) -> str:
    return "none" if value is None or value == [] else str(value)
