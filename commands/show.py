"""`cxr show`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxr_compare.commands.console import Shown
from cxr_compare.commands.options import AnyPath
from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.files import require_unchanged
from cxr_compare.data_prep.base.folders import folder_kind, unfinished_kind


def show(folder: AnyPath) -> Shown:
    """Say what a folder is; of a report, print its sentence and its table.

    A folder of which a file is lost or changed that its record names is refused.

    Args:
        folder: Data set, run, export, predictions, report, table of folds, or synthetic images.
    """
    from cxr_compare.data_prep.base.records import require_whole

    folder = Path(folder)
    kind = folder_kind(folder)
    if kind is not None:
        require_whole(folder, kind.record)
    if kind is not None and kind.name == "report":
        return _report(folder)
    if kind is not None and kind.name == "report on several findings":
        return _reports(folder)
    if kind is not None and kind.name == "data set":
        return _data_set(folder)
    if kind is None or kind.name == "set of overlays":
        raise InputError(f"{folder}: {_what_it_is(folder)}")
    of_kind = _run(folder) if kind.name == "run" else _recorded(folder, kind.record)
    facts = {**of_kind, "kind": kind.name}
    lines = _fact_lines({name: value for name, value in facts.items() if name != "kind"})
    return Shown("\n".join([f"{folder}: {kind.name}", *lines]), facts)


def _fact_lines(facts: Mapping[str, Any]) -> list[str]:
    return [f"  {name}: {_words(value)}" for name, value in facts.items() if value is not None]


def _what_it_is(folder: Path) -> str:
    if not folder.exists():
        return "no such folder"
    if not folder.is_dir():
        return "is a file; give its folder"
    begun = unfinished_kind(folder)
    if begun is not None:
        return f"holds an unfinished {begun.name}; the same cxr {begun.command} goes on"
    return "is no data set, run, export, predictions, table of folds, phantom or report"


def _words(value: Any) -> str:
    """Return a value as text for people."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _report(folder: Path) -> Shown:
    from cxr_compare.evaluation.report.result import Result

    result = Result.open(folder)
    return Shown(str(result), result.to_dict())


def _reports(folder: Path) -> Shown:
    """Return the answer on each finding of a comparison on several."""
    from cxr_compare.evaluation.report.files import ANSWER, ANSWERS, MACRO_CSV
    from cxr_compare.evaluation.report.result import Result
    from cxr_compare.evaluation.report.results_by_target import AnswerByFinding

    record = AnswerByFinding.read(folder / ANSWERS)
    for name in record.findings:
        require_unchanged(folder / name / ANSWER, record.files.get(f"{name}/{ANSWER}"))
    results = [Result.open(folder / name) for name in record.findings]
    lines = [record.headline]
    lines += [f"{result.answer.target}: {result.headline}" for result in results]
    lines.append(f"Means over findings: {folder / MACRO_CSV}")
    return Shown("\n".join(lines), {result.answer.target: result.to_dict() for result in results})


def _data_set(folder: Path) -> Shown:
    """Return what a data set holds, and what its files were taken for when they were read."""
    from cxr_compare.data_prep.dataset import DataSet, count_roles, known_patients, table_lines
    from cxr_compare.data_prep.sources.record import shown_lines, titled_facts

    dataset = DataSet.open(folder)
    patients = known_patients(dataset.images)
    facts: dict[str, Any] = {
        "name": dataset.name or None,
        "images": len(dataset.images),
        "patients": int(patients.nunique()),
        "images of unknown patients": int(patients.isna().sum()),
    }
    if dataset.sizes:
        facts["squares"] = [f"{size} px" for size in dataset.sizes]
    for name in dataset.ids.split_ids:
        roles = count_roles(dataset, dataset.split(name))
        facts[f"split {name}"] = {role: counts["images"] for role, counts in roles.items()}
    lines = [f"{folder}: data set", *_fact_lines(facts), *table_lines(dataset.label_counts)]
    lines_read = [f"{title}: {text}" for title, text in titled_facts(dataset.reading).items()]
    lines_read += shown_lines(dataset.reading)
    lines += [f"  {line}" for line in lines_read]
    targets = dataset.label_counts.to_dict("index")
    return Shown(
        "\n".join(lines), {"kind": "data set", **facts, "targets": targets, "read": lines_read}
    )


def _run(folder: Path) -> dict[str, Any]:
    from cxr_compare.training.run_info import RunInfo

    info = RunInfo.read(folder / "run.json")
    return {
        "name": info.name,
        "model": info.model_kind,
        "target": info.target,
        "findings": list(info.findings),
        "data set": info.data_set.name or None,
        "split": info.data_set.split,
        "images": {"training": info.n_train, "validation": info.n_val},
        "best epoch": f"{info.best_epoch} of {info.epochs}, {info.monitor} {info.best_value:.4g}",
        "parameters": info.parameters,
        "flops": info.flops,
        "seed": info.seed,
    }


def _recorded(folder: Path, record: str) -> dict[str, Any]:
    """Return the texts and numbers of a record."""
    from cxr_compare.data_prep.base.user_tables import read_json_file

    content = read_json_file(folder / record)
    kinds = (str, int, float)
    return {name: value for name, value in content.items() if isinstance(value, kinds)}
