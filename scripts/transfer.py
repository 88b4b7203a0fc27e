"""`cxr transfer`: every system on every data set where its finding has a name."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_prep.contracts.errors import InputError
from scripts import console
from scripts.options import own_split, split_name
from scripts.systems import open_model, predicts, system_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from data_prep.store.dataset import DataSet
    from evaluation.studies.transfer_analysis import SystemOnSet

_SYSTEMS = "systems"
_POSITIVES = (10, 50)


def transfer(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN ... DATA ...",
            help="Runs or exports, and data sets, in any order, as PATH or NAME=PATH.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the page, the table and predictions.")],
    data: Annotated[
        list[str] | None,
        typer.Option(help="A data set, as PATH or NAME=PATH; the same as naming it above."),
    ] = None,
    same: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FINDING=FINDING",
            help="Two findings that count as one another, as lung_opacity=pneumonia, where a data "
            "set has only one of them. May be repeated.",
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(help="What is judged where a data set has several targets; may be repeated."),
    ] = None,
    policy: Annotated[
        str, typer.Option(help="Whose threshold decides, and is chosen anew on local positives.")
    ] = "max_f1",
    positives: Annotated[
        str, typer.Option(help="Numbers of local positive patients to choose thresholds on.")
    ] = ",".join(map(str, _POSITIVES)),
    replicates: Annotated[int, typer.Option(min=100, help="Bootstrap replicates.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap and of the local draws.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print transfer.json at the end.")
    ] = False,
) -> None:
    """Judge systems at home and on other data sets: what holds there, and what is lost.

    Predictions are made where they are missing; an interrupted command goes on. Thresholds come
    from home, and beside from a few local positives. Each data set's test images are judged,
    without patients that a system has seen.

    Example: cxr transfer out/retinanet out/chexnet data/rsna data/kermany --out out/transfer
    --same lung_opacity=pneumonia
    """
    from evaluation.decisions.thresholds import check_policy

    check_policy(policy)
    numbers = _numbers(positives)
    equal = _parse_same(same or [])
    systems, sets = _sort_out([*paths, *(data or [])])
    from data_prep.contracts.folders import folder_lock, make_folder
    from evaluation.report.files import require_only
    from evaluation.studies.study_page import study_files
    from evaluation.studies.transfer_analysis import judge_transfer
    from evaluation.studies.transfer_page import drops, write_transfer

    require_only(out, {*study_files("transfer"), _SYSTEMS}, "transfer")
    make_folder(out)
    with folder_lock(out):
        judged, notes = _predict(systems, sets, out, equal, target or [], policy)
        with console.progress("Judging", len(judged)) as advance:
            result = judge_transfer(
                judged, policy=policy, positives=numbers, replicates=replicates, seed=seed,
                notes=notes, advance=advance,
            )  # fmt: skip
        page = write_transfer(result, out)
    for drop in drops(result):
        console.say(drop.text)
    console.next_step(f"open {shlex.quote(str(page))} in a browser")
    if as_json:
        from data_prep.contracts.json_files import read_json

        console.emit_json(read_json(out / "transfer.json", "transfer"))


def _numbers(positives: str) -> list[int]:
    try:
        numbers = [int(each) for each in positives.split(",") if each]
    except ValueError:
        raise InputError(f"transfer --positives {positives}: are not numbers, as 10,50") from None
    if any(number < 1 for number in numbers):
        raise InputError(f"transfer --positives {positives}: are 1 or more")
    return sorted(set(numbers))


def _parse_same(given: Sequence[str]) -> dict[str, list[str]]:
    """Read A=B, both ways.

    Example:
        >>> _parse_same(["lung_opacity=pneumonia"])
        {'lung_opacity': ['pneumonia'], 'pneumonia': ['lung_opacity']}
    """
    equal: dict[str, list[str]] = {}
    for text in given:
        names = [part.strip() for part in text.split("=")]
        if len(names) != 2 or not all(names):
            raise InputError(f"transfer --same {text}: write FINDING=FINDING")
        for one, other in (names, names[::-1]):
            equal.setdefault(one, []).append(other)
    return equal


def _sort_out(given: Sequence[str]) -> tuple[dict[str, Path], dict[str, DataSet]]:
    """Tell runs from data sets, and name each."""
    from data_prep.store.dataset import DataSet

    systems: dict[str, Path] = {}
    sets: dict[str, DataSet] = {}
    for text in given:
        name, path = split_name(text)
        if predicts(path):
            called = name or system_folder(path)
            if called in systems:
                raise InputError(f"transfer: two systems are called {called}; write NAME={path}")
            systems[called] = path
            continue
        dataset = DataSet.open(path)  # which says what else it is
        called = name or dataset.name
        if called in sets:
            raise InputError(f"transfer: two data sets are called {called}; write NAME={path}")
        sets[called] = dataset
    if not systems or not sets:
        raise InputError("transfer: give runs and data sets: RUN [RUN ...] DATA [DATA ...]")
    return systems, sets


def _predict(
    systems: Mapping[str, Path],
    sets: Mapping[str, DataSet],
    out: Path,
    equal: Mapping[str, Sequence[str]],
    targets: Sequence[str],
    policy: str,
) -> tuple[list[SystemOnSet], list[str]]:
    """Predict every data set with every system; those without a name for its finding are noted."""
    from data_prep.store.predictions import Predictions
    from evaluation.decisions.test_set import TestSet
    from evaluation.studies.transfer_analysis import (
        SystemOnSet,
        decision_from_home,
        is_home,
        names_here,
        target_here,
    )
    from scripts.machines.runtime import choose_device, tune_cpu
    from serving.predict_folder import predict_data_set

    if unknown := [each for each in targets if not any(each in s.targets for s in sets.values())]:
        raise InputError(f"transfer --target {unknown[0]}: is a target of none of the data sets")
    tune_cpu()
    decisions = {system: decision_from_home(path, policy) for system, path in systems.items()}
    models = {system: open_model(path, choose_device("auto")) for system, path in systems.items()}
    splits, notes = _splits(systems, {s: model.info for s, model in models.items()}, sets)
    opened: list[SystemOnSet] = []
    for system, path in systems.items():
        model, decision = models[system], decisions[system]
        for name, dataset in sets.items():
            known = set(dataset.findings["finding"])
            names = names_here(model.learnt, known, equal)
            if not names:
                notes.append(_no_name(system, model.learnt, name, known))
                continue
            target = target_here(dataset, names.values(), targets)
            if target is None:
                own = ", ".join(names.values())
                notes.append(f"{system} on {name}: no target of {name} follows from {own} alone.")
                continue
            home, split = is_home(model.info, dataset), splits[name, system]
            folder = out / _SYSTEMS / name / system
            called = (
                model
                if list(names.items()) == [(n, n) for n in model.learnt]
                else (model.with_names(names))
            )
            if not (folder / "predictions.json").is_file():
                predict_data_set(called, dataset, folder, split, console, name=system)
            predictions = Predictions.open(folder)
            if predictions.info["inference_id"] != called.inference_id():
                raise InputError(
                    f"{folder}: holds predictions of another training than {path}; remove it, or "
                    "choose another --out"
                )
            opened.append(
                SystemOnSet(
                    system, name, home, predictions, TestSet(dataset, target, split), decision
                )
            )
        if decision is None:
            notes.append(
                f"{system} holds no operating point from its training ({path}): AUROC and local "
                "thresholds only."
            )
        if not any(each.home for each in opened if each.system == system):
            notes.append(
                f"The data set that {system} was trained on is not among these: no drop is told."
            )
    for name in dict.fromkeys(each.data_set for each in opened):
        if (sets[name].images["patient_id_source"] == "assumed_image").any():
            notes.append(
                f"{name} does not name all patients: an image without one counts as a patient, and "
                "intervals are rather too short."
            )
    if not opened:
        raise InputError(f"transfer: no system can be judged on any data set. {' '.join(notes)}")
    return opened, notes


def _splits(
    systems: Mapping[str, Path], infos: Mapping[str, Mapping[str, Any]], sets: Mapping[str, DataSet]
) -> tuple[dict[tuple[str, str], str], list[str]]:
    """The split that each data set judges each system on, and what to know about it.

    All systems are judged on the split of those that were trained there, where these have one.
    """
    from evaluation.studies.transfer_analysis import is_home
    from evaluation.systems.eligibility import sets_of_run

    found: dict[tuple[str, str], str] = {}
    notes = []
    for name, dataset in sets.items():
        at_home = [system for system in systems if is_home(infos[system], dataset)]
        own = {system: own_split(None, [systems[system]], dataset) for system in at_home}
        common = own_split(None, [], dataset) if len(set(own.values())) != 1 else own[at_home[0]]
        if len(set(own.values())) > 1:
            each = ", ".join(f"{system} '{split}'" for system, split in own.items())
            notes.append(
                f"{name}: each system trained there is judged on the test images of its own split "
                f"({each}), others on '{common}': compare them within one split only."
            )
        for system in systems:
            found[name, system] = own.get(system, common)
            learnt_on = (infos[system].get("data_set") or {}).get("split")
            if system in at_home and learnt_on and learnt_on != own[system]:
                notes.append(
                    f"{system} learned on split '{learnt_on}', which {name} does not have: judged "
                    f"on the test images of '{own[system]}' that it has not seen."
                )
            before = [each["content_id"] for each in sets_of_run(infos[system])]
            if system not in at_home and dataset.ids["content_id"] in before:
                notes.append(
                    f"{system} began with weights that had learned from {name}, which is no "
                    "external data set for it."
                )
    return found, notes


def _no_name(system: str, learnt: Sequence[str], data: str, known: set[str]) -> str:
    return (
        f"{system} learned {', '.join(learnt)}, which {data} does not label (it has "
        f"{', '.join(sorted(known))}); --same {learnt[0]}=NAME, where one of these means the same."
    )
