"""`cxr show`: what is in this folder, and is it complete."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_prep.contracts.errors import InputError
from evaluation.report.files import METRICS, PAGE
from scripts import console

if TYPE_CHECKING:
    from collections.abc import Callable


def show(
    folder: Annotated[
        Path | None, typer.Argument(help="A data set, run, predictions or report folder.")
    ] = None,
    machine: Annotated[
        bool, typer.Option("--machine", help="This machine, and the settings chosen for it.")
    ] = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="With --machine: measure it anew, some seconds.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """Say what a folder holds and whether it is complete; or, with --machine, what this machine is.

    Example: cxr show out/data
    """
    if (folder is None) != machine or (calibrate and not machine):
        raise InputError("show: give a folder, or --machine, which may have --calibrate")
    facts = _machine(calibrate) if folder is None else describe(folder)
    table = facts.pop("table") if machine and not as_json else []
    if as_json:
        console.emit_json(facts)
        return
    width = max(len(key) for key in facts)
    for key, value in facts.items():
        console.say(f"{key:>{width}}  {value}")
    for row in table:
        console.say(
            f"{row['ms']:>9.1f} ms  {row['ratio']:5.2f}x  {row['work']:5}  {row['settings']}"
        )


def _machine(calibrate: bool) -> dict[str, Any]:
    """This machine, and its calibration."""
    from scripts.calibration import describe_machine

    return describe_machine(anew=calibrate)


def describe(folder: Path) -> dict[str, Any]:
    """Facts about any folder that the project writes."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    readers: dict[str, Callable[[Path], dict[str, Any]]] = {
        "dataset.json": _dataset,
        "run.json": _run,
        "predictions.json": _predictions,
        METRICS: _report,
        "synth.json": _phantom,
    }
    for marker, reader in readers.items():
        if (folder / marker).is_file():
            return reader(folder)
    for sign, kind, verb in (
        ("unfinished.json", "predictions", "cxr predict"),
        ("synth.started.json", "phantom", "cxr synth"),
        (".prepare", "data set", "cxr prepare"),
        ("checkpoints", "run", "cxr train"),
        ("images.parquet", "data set", "cxr prepare"),
    ):
        if (folder / sign).exists():
            raise InputError(f"{folder}: an unfinished {kind}; run the same {verb} again")
    known = ", ".join(readers)
    raise InputError(f"{folder}: not a cxr folder (it has none of {known})")


def _dataset(folder: Path) -> dict[str, Any]:
    from data_prep.store.dataset import DataSet

    dataset = DataSet.open(folder)
    images = dataset.images
    splits = sorted(p.stem for p in (folder / "splits").glob("*.parquet"))
    facts: dict[str, Any] = {
        "kind": "data set, complete",
        "name": dataset.name,
        "images": len(images),
        "patients": images["patient_id"].nunique(),
        "pixels": "yes" if dataset.has_pixels else "none: for judging only",
        "pixel stores": ", ".join(sorted(p.name for p in (folder / "pixels").glob("*-*"))) or "-",
    }
    for target in dataset.targets.values():
        labels = dataset.labels(target)
        facts[f"target {target.name}"] = (
            f"{int((labels == 1).sum())} positive, {int((labels == 0).sum())} negative, "
            f"{int(labels.isna().sum())} unknown; {len(dataset.target_boxes(target))} boxes"
        )
    for split in splits:
        counts = dataset.split(split)["role"].value_counts()
        facts[f"split {split}"] = ", ".join(f"{role} {counts[role]}" for role in counts.index)
    return facts | dataset.ids


def _run(folder: Path) -> dict[str, Any]:
    from data_prep.contracts.tables import read_json

    run = read_json(folder / "run.json", "run")
    hidden = {"schema_version", "contract", "versions"}
    return {"kind": "run, complete"} | {k: v for k, v in run.items() if k not in hidden}


def _predictions(folder: Path) -> dict[str, Any]:
    from data_prep.store.predictions import Predictions

    predictions = Predictions.open(folder)
    failed = int((predictions.images["status"] == "failed").sum())
    decisions = sorted(p.stem for p in (folder / "decisions").glob("*.json"))
    return {
        "kind": "predictions, complete",
        "system": predictions.name,
        "gives": predictions.kind,
        "images": f"{len(predictions.images)}, {failed} failed",
        "data set": predictions.info.get("data_set"),
        "tuned for": ", ".join(decisions) or "nothing yet: cxr tune",
        "inference_id": predictions.info.get("inference_id"),
    }


def _report(folder: Path) -> dict[str, Any]:
    from data_prep.contracts.tables import read_json

    metrics = read_json(folder / METRICS, "metrics")
    return {
        "kind": "report, complete",
        "open": folder / PAGE,
        "target": metrics.get("target"),
        "systems": metrics.get("systems"),
    }


def _phantom(folder: Path) -> dict[str, Any]:
    from data_prep.contracts.tables import read_json

    facts = read_json(folder / "synth.json", "synth")
    return {"kind": "synthetic chest X-rays in RSNA layout"} | {
        k: v for k, v in facts.items() if k not in {"schema_version", "contract"}
    }
