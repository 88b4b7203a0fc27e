"""Model cards of the systems in folders, for `cxr show --card`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.finding_names import display_name
from cxr_compare.data_prep.contracts.schemas import SYNTHETIC_PATIENT
from cxr_compare.data_prep.contracts.tables import read_table
from cxr_compare.data_prep.store.identify_folder import folder_kind
from cxr_compare.data_prep.store.prediction_info import PredictionsInfo
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.prose import inside_sentence
from cxr_compare.evaluation.metrics.registry import metric_title
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.answer import AnswerInfo
from cxr_compare.evaluation.report.interval_facts import is_calibrated
from cxr_compare.evaluation.report.model_card import (
    CardEvaluation,
    ModelCard,
    hub_figure,
)
from cxr_compare.evaluation.report.system_cards import card_files, carded_systems
from cxr_compare.evaluation.report.table import text_table
from cxr_compare.evaluation.single_figure import estimate
from cxr_compare.evaluation.sources.eligibility import describe_training_data
from cxr_compare.evaluation.statistics.figure_text import number, range_text
from cxr_compare.evaluation.thresholds import DECLARED
from cxr_compare.serving.export_spec import (
    EVALUATION_FILE,
    ExportSpec,
    is_export,
    validation_folder,
)
from cxr_compare.training.run_info import RunInfo

_SYSTEMS = ("run", "export", "predictions")
_WITHOUT_THRESHOLD = ("auroc", "average_precision")
_AT_THRESHOLD = ("recall", "specificity", "precision", "f1")
_MAIN_POLICY = "max_f1"


def model_card(folder: Path, report: Path | None = None) -> str:
    """Return the model card of the system in a folder, or the cards of all systems of a report.

    A model card describes a model for its users: training data, figures, thresholds and limits. A
    system is a trained network with its threshold, or predictions of other software.

    It is Markdown; several cards are separated by an empty line. Without `report` the figures are
    those on validation images. Raises InputError if the folder holds neither a system nor a report,
    or the report does not evaluate the system.
    """
    kind = folder_kind(folder)
    if kind is not None and kind.name == "report":
        if report is not None:
            raise InputError(f"{folder}: is a report itself; leave --report out")
        return "\n".join(_stored_cards(folder).values())
    if kind is None or kind.name not in _SYSTEMS:
        found = "no folder that cxr made" if kind is None else f"a {kind.name}"
        raise InputError(
            f"{folder}: is {found}; --card is of a run, an export, predictions or a report"
        )
    facts, tables = _facts_of(folder, kind.name)
    if report is not None:
        return _card_in_report(folder, facts, report)
    return _card_of_files(facts, tables).to_markdown()


def _facts_of(folder: Path, kind: str) -> tuple[dict[str, Any], Path]:
    """Return the record of a system, and the folder with its decisions and validation tables."""
    tables = folder if kind == "predictions" else validation_folder(folder)
    if (tables / "predictions.json").is_file():
        predictions = Predictions.open(tables)
        record = predictions.info.to_json()
        record["trained_on"] = describe_training_data(predictions)
    else:  # a run that was stopped before its validation, or an export
        record = _export_record(folder) if is_export(folder) else _run_record(folder)
    return record, tables


def _run_record(folder: Path) -> dict[str, Any]:
    run = RunInfo.read(folder / "run.json")
    return run.to_json() | {
        "system": run.name,
        "kind": "boxes" if run.model_kind == "detector" else "scores",
        "backend": "torch",
        "trained_on": _counts_of_run(run),
    }


def _export_record(folder: Path) -> dict[str, Any]:
    spec = ExportSpec.open(folder)
    run = spec.run
    return {
        **run.to_json(),
        "system": run.name,
        "kind": spec.kind,
        "findings": list(spec.findings),
        "target": asdict(spec.target),
        "backend": spec.format,
        "precision": spec.precision,
        "recipe": {
            "config": {"model": {"weights": run.pretrained}},
            "preprocess": {"size": spec.size},
        },
        "trained_on": _counts_of_run(run),
    }


def _counts_of_run(run: RunInfo) -> dict[str, str] | str:
    if run.data_set is None:
        return "unknown"
    counts = {"data set": run.data_set.name}
    for role, n_images in (("train", run.n_train), ("val", run.n_val)):
        if n_images is not None:
            counts[role] = f"{n_images:,} images"
    return counts


def _stored_cards(report: Path) -> dict[str, str]:
    """Return the card of each system that a report holds, by the name of the system."""
    answer = AnswerInfo.read(report / files.ANSWER)
    carded = carded_systems(answer.systems, answer.provenance.systems)
    if not carded:
        raise InputError(
            f"{report}: its systems were imported, so it has no model cards; cxr show FOLDER "
            "--card prints that of a predictions folder"
        )
    cards = {}
    for name, file in card_files(carded).items():
        path = report / file
        if not path.is_file():
            raise InputError(
                f"{path}: is missing; make the report again with cxr compare --overwrite"
            )
        cards[name] = path.read_text(encoding="utf-8")
    return cards


def _card_in_report(folder: Path, record: Mapping[str, Any], report: Path) -> str:
    """Return the card of the system with the same predictions, or else of the same training."""
    evaluated = AnswerInfo.read(report / files.ANSWER).provenance.systems
    for key in ("inference_id", "training_id"):
        for name, facts in evaluated.items():
            if record.get(key) and _id_of(facts, key, record[key]):
                cards = _stored_cards(report)
                if name not in cards:
                    raise InputError(
                        f"--report {report}: {name} was imported, so there is no model card of it; "
                        "leave --report out"
                    )
                return cards[name]
    raise InputError(
        f"--report {report}: evaluates {', '.join(evaluated)}, not the system in {folder}; give "
        "the report of this system, or leave --report out"
    )


def _id_of(facts: Mapping[str, Any], key: str, value: Any) -> bool:
    """Return True if a system of a report, or one of its training seeds, has an id."""
    return any(of_one.get(key) == value for of_one in (facts, *facts.get("models", ())))


def _card_of_files(record: Mapping[str, Any], tables: Path) -> ModelCard:
    decision = _decision(tables, record)
    policies = {} if decision is None else dict(decision.thresholds)
    policies.pop(DECLARED, None)
    main = _MAIN_POLICY if _MAIN_POLICY in policies else next(iter(policies), "")
    thresholds = {
        policy: chosen.threshold
        for policy, chosen in policies.items()
        if chosen.threshold is not None
    }
    target = record.get("target")
    findings = tuple(map(str, record.get("findings") or ()))
    title = target.get("display_name") if isinstance(target, Mapping) else None
    title = title or (display_name(findings[0]) if findings else "an unknown finding")
    return ModelCard(
        name=str(record["system"]),
        kind=str(record["kind"]),
        finding=inside_sentence(str(title)),
        findings=findings,
        record=record,
        thresholds=thresholds,
        main_policy=main,
        calibrated=is_calibrated({"decision": decision and decision.to_json()}),
        evaluation=_on_validation(record, tables, decision, main, thresholds.get(main)),
    )


def _decision(tables: Path, record: Mapping[str, Any]) -> Choices | None:
    """Return the decision on the target, or on the only target; None where there is none."""
    stored = sorted((tables / "decisions").glob("*.json"))
    target = record.get("target")
    wanted = target.get("name") if isinstance(target, Mapping) else target
    named = [path for path in stored if path.stem == wanted] or stored
    return Choices.read(named[0]) if named else None


def _count_synthetic(scored: pd.DataFrame) -> int:
    """Return how many of the images are of a patient of the phantom."""
    return int(scored["patient_id"].str.contains(SYNTHETIC_PATIENT).sum())


def _on_validation(
    record: Mapping[str, Any],
    tables: Path,
    decision: Choices | None,
    policy: str,
    threshold: float | None,
) -> CardEvaluation | None:
    """Return the figures on validation images: with intervals if scores and labels are stored."""
    if decision is None:
        return None
    chosen_on = decision.chosen_on
    stored = {
        (metric, at): value
        for at in ("", policy)
        for metric, value in (decision.validation.get(at) or {}).items()
    }
    path = tables / EVALUATION_FILE
    rows: dict[str, list[tuple[str, str]]] = {"": [], policy: []}
    hub = []
    scored = None
    if path.is_file():
        named = PredictionsInfo.read(tables / "predictions.json").files
        scored = read_table(path, "decisions", files=named)
    for metric, at in [
        *((metric, "") for metric in _WITHOUT_THRESHOLD),
        *((metric, policy) for metric in _AT_THRESHOLD if threshold is not None),
    ]:
        value = stored.get((metric, at))
        text = number(value)
        if scored is not None and scored["label"].nunique() == 2:
            figure = estimate(
                metric,
                scored["label"].to_numpy(),
                scored["score"].to_numpy(),
                patients=scored["patient_id"].to_numpy(),
                threshold=threshold if at else None,
            )
            value = figure.estimate
            text = f"{number(value)} ({range_text(figure.ci_low, figure.ci_high)})"
        if value is None:
            continue
        rows[at].append((metric_title(metric), text))
        hub.append(hub_figure(metric, value, at))
    if not hub:
        return None
    heads = ("Figure", "Value" if scored is None else "Value (95 % interval)")
    titles = {"": "Without a threshold", policy: f"At the threshold for {policy_text(policy)}"}
    data_set = record.get("data_set") or {}
    return CardEvaluation(
        images="validation",
        data_set=str(data_set.get("name") or "not named"),
        split=str(data_set.get("split") or ""),
        counts={key: chosen_on.get(key) for key in ("n_images", "n_patients", "n_positive")},
        figures=[text_table(titles[at], heads, part) for at, part in rows.items() if part],
        hub=hub,
        synthetic=0 if scored is None else _count_synthetic(scored),
        bounded=scored is not None,
    )
