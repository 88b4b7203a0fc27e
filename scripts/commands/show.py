"""`cxr show`: describe a folder that cxr made, or this machine."""

from __future__ import annotations

import os
import shlex
import shutil
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.folder_kinds import KindName
from cxr_compare.data_prep.store.identify_folder import (
    MARKERS,
    SHARDS,
    folder_kind,
    read_marker,
    unfinished_kind,
)
from cxr_compare.evaluation.report.files import PAGE
from cxr_compare.scripts.next_steps import next_steps
from cxr_compare.scripts.outcome import Outcome
from cxr_compare.scripts.parameters import AnyPath, Argument, as_path
from cxr_compare.scripts.runner import command
from cxr_compare.training.launch import has_bf16_instructions

if TYPE_CHECKING:
    from collections.abc import Callable


@command
def show(
    folder: AnyPath | None = None,
    *,
    machine: bool = False,
    card: bool = False,
    report: Annotated[AnyPath | None, Argument(folder_kind="report")] = None,
) -> Outcome:
    """Describe a folder, print its model card, or describe this machine.

    Args:
        folder: Folder to describe: a data set, run (of cxr train), export, predictions, or another
            folder that a command of cxr made. Of a report its answer and main table are printed.
        machine: Describe this machine instead: processor, memory and torch.
        card: Print the model card of the run, export or predictions, or those of all systems of a
            report: Markdown in the layout of Mitchell et al. 2019, with the metadata block of the
            Hugging Face Hub. Predictions of other software have a card, too.
        report: Report of cxr compare from which the model card takes its figures. Without it the
            card of a run has figures on validation images.

    Returns:
        The facts, each with its name, or the model card.

    Raises:
        InputError: The folder was not made by cxr, or is unfinished; it is no system and has no
            card; or the report does not evaluate the system.

    Example:
        cxr show out/data

        cxr show out/chexnet --card --report out/report
    """
    folder = as_path(folder)
    report = as_path(report)
    if (folder is None) != machine:
        raise InputError("show: give a folder, or --machine")
    if report is not None and not card:
        raise InputError("show: --report gives a model card its figures; add --card")
    if card:
        if folder is None:
            raise InputError("show: --card is of a folder; leave --machine out")
        from cxr_compare.scripts.model_cards import model_card

        text = model_card(folder, report)
        return Outcome(text, {"card": text}, piped=True)
    if folder is not None and (kind := folder_kind(folder)) and kind.name == "report":
        return _report(folder)
    facts = _machine() if folder is None else describe_folder(folder)
    width = max(len(key) for key in facts)
    lines = [f"{key:>{width}}  {_words(value)}" for key, value in facts.items()]
    steps = () if folder is None else tuple(next_steps(folder))
    return Outcome("\n".join(lines), facts, next_steps=steps)


def _words(value: Any) -> str:
    """Return a value as text for people."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def _machine() -> dict[str, Any]:
    """Return facts about this machine for a bug report."""
    from cxr_compare.data_prep.contracts.processors import cpu_count, processor_name

    memory = "-"
    torch = "not installed; cxr train and a run's predictions need it"
    if hasattr(os, "sysconf"):  # not on Windows
        gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        memory = f"{gib:.1f} GiB"
    with suppress(metadata.PackageNotFoundError):
        torch = metadata.version("torch")
    return {
        "processor": processor_name(),
        "usable processors": cpu_count(),
        "memory": memory,
        "torch": torch,
        "bf16 instructions": "yes" if has_bf16_instructions() else "no",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "-"),
    }


def describe_folder(folder: Path) -> dict[str, Any]:
    """Return facts about a folder that cxr made, or about such folders inside it.

    The facts are by name, such as ``kind``; a folder of such folders has a description of each by
    its name. Raises InputError if the folder does not exist, was not made by cxr, or is unfinished.
    """
    if not folder.is_dir():
        what = "a file; give its folder" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {what}")
    readers: dict[KindName, Callable[[Path], dict[str, Any]]] = {
        "data set": _dataset,
        "run": _run,
        "export": _export,
        "predictions": _predictions,
        "report": lambda place: {"open": place / PAGE},
        "phantom": _phantom,
        **dict.fromkeys(SHARDS, _shard),
        "table of folds": lambda place: {"kind": "table of folds", "open": place / "folds.png"},
    }
    if kind := folder_kind(folder):
        return {"kind": f"{kind.name}, complete", **readers[kind.name](folder)}
    if begun := unfinished_kind(folder):
        raise InputError(
            f"{folder}: an unfinished {begun.name}; run the same {begun.command_line} again"
        )
    for page in sorted(folder.glob("*.html")):  # of a reader study
        if page.with_suffix(".json").is_file():
            return {"kind": f"results of cxr {page.stem}", "open": page}
    contents = _within(folder)
    if contents:
        return {"kind": "folder of folders"} | contents
    raise InputError(
        f"{folder}: not a cxr folder (it has none of {', '.join(MARKERS)}), nor one of its folders"
    )


def _within(folder: Path) -> dict[str, str]:
    """Return a line for each cxr folder directly inside a folder."""
    lines: dict[str, str] = {}
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        if kind := folder_kind(path):
            lines[path.name] = f"{kind.name}{_title(path)}"
        elif begun := unfinished_kind(path):
            lines[path.name] = f"unfinished {begun.name}; run the same {begun.command_line} again"
    return lines


def _title(folder: Path) -> str:
    """Return the name in a folder's marker file, with a space before it."""
    facts = read_marker(folder)
    systems = facts.get("systems")
    shown = facts.get("name") or facts.get("system")
    shown = shown or (" and ".join(systems) if isinstance(systems, list) else None)
    return f" {shown}" if shown else ""


def _dataset(folder: Path) -> dict[str, Any]:
    from cxr_compare.data_prep.dataset import DataSet
    from cxr_compare.data_prep.store.pixel_store import stored_sizes

    dataset = DataSet.open(folder)
    images = dataset.images
    splits = sorted(p.stem for p in (folder / "splits").glob("*.parquet"))
    facts: dict[str, Any] = {
        "name": dataset.name,
        "images": len(images),
        "patients": images["patient_id"].nunique(),
        "pixels": "yes" if dataset.has_pixels else "none: for evaluation only",
        "pixel stores": ", ".join(f"{size} px" for size in stored_sizes(folder)) or "-",
    }
    for target in dataset.targets.values():
        labels = dataset.labels(target)
        facts[f"target {target.name}"] = (
            f"{int((labels == 1).sum())} positive, {int((labels == 0).sum())} negative, "
            f"{int(labels.isna().sum())} unknown; "
            f"{counted(len(dataset.target_boxes(target)), 'box')}"
        )
    for split in splits:
        counts = dataset.split(split)["role"].value_counts()
        facts[f"split {split}"] = ", ".join(f"{role} {counts[role]}" for role in counts.index)
    return facts | dataset.ids.to_json()


def _run(folder: Path) -> dict[str, Any]:
    from cxr_compare.training.run_info import RunInfo

    run = RunInfo.read(folder / "run.json").to_json()
    hidden = {"versions", "files"}
    weights = folder / "model.safetensors"
    size = weights.stat().st_size / 1e6
    return {
        "weights": f"{weights} ({size:.1f} MB)",
        "configuration": f"{folder / 'config.toml'} (cxr configs {shlex.quote(str(folder))})",
        **_answers(folder),
    } | {key: value for key, value in run.items() if key not in hidden}


def _export(folder: Path) -> dict[str, Any]:
    from cxr_compare.serving.export_spec import CARD_FILE, Card

    card = Card.read(folder / CARD_FILE)
    facts = {"is": card.kind, "of run": card.run, "learned from": card.learned_from}
    if card.calibrated_on:
        facts["calibrated on"] = card.calibrated_on
    return facts | {"compared with the run": card.proof.summary()}


def _answers(folder: Path) -> dict[str, str]:
    """Return the state of validation, decisions and guard, which a run needs to answer."""
    from cxr_compare.evaluation.choices import Choices

    absent = "none; the same cxr train command adds it"
    validation = folder / "validation"
    guard = folder / "guard.json"
    decisions = []
    for path in sorted((validation / "decisions").glob("*.json")):
        chosen = Choices.read(path).thresholds.get("max_f1")
        at = None if chosen is None else chosen.threshold
        cut = "no threshold" if at is None else f"positive from score {at:.3g} on"
        decisions.append(f"{path.stem} (max_f1: {cut})")
    return {
        "validation": str(validation) if folder_kind(validation) else absent,
        "decision": ", ".join(decisions) or absent,
        "guard": str(guard) if guard.is_file() else _missing_guard(folder),
    }


def _missing_guard(folder: Path) -> str:
    from cxr_compare.serving.guard import how_to_add_guard

    return f"none; {how_to_add_guard(folder)}"


def _predictions(folder: Path) -> dict[str, Any]:
    from cxr_compare.data_prep.store.predictions import Predictions

    predictions = Predictions.open(folder)
    made_on = predictions.info.data_set
    failed = int((predictions.images["status"] == "failed").sum())
    decisions = sorted(p.stem for p in (folder / "decisions").glob("*.json"))
    return {
        "system": predictions.name,
        "gives": predictions.kind,
        "images": f"{len(predictions.images):,}, {failed} failed",
        "data set": made_on and made_on.to_json(),
        "tuned for": ", ".join(decisions) or "nothing yet: cxr tune",
        "inference_id": predictions.info.inference_id,
    }


def _report(folder: Path) -> Outcome:
    """Return the answer of a comparison with its main table."""
    from cxr_compare.evaluation.report.result import Result

    result = Result.open(folder)
    table = result.table.to_string(line_width=shutil.get_terminal_size((100, 24)).columns)
    text = "\n\n".join(filter(None, (str(result), table, result.table_note)))
    return Outcome(text, result.to_dict(), next_steps=tuple(result.next_steps))


def _shard(folder: Path) -> dict[str, Any]:
    record = read_marker(folder)
    state = "complete" if record["complete"] else "unfinished"
    return {
        "kind": f"shard {record['number']} of {record['count']}, {state}",
        "made by": record["command"],
    }


def _phantom(folder: Path) -> dict[str, Any]:
    from cxr_compare.data_prep.sources.rsna import PhantomInfo

    facts = PhantomInfo.read(folder / "synth.json").to_json()
    return {"kind": "synthetic chest X-rays in RSNA layout"} | facts
