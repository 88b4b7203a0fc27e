"""How a system did: by a report of `cxr compare`, else by its own validation images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.contracts.errors import InputError
from data_prep.contracts.json_files import read_json
from data_prep.store.folder_kinds import REPORT_MARKER
from evaluation.metrics.registry import metric_title
from serving.answer import LoadedRun
from serving.web.schemas import Figure, ReportFigures

_OF_SCORES = ("auroc", "average_precision", "ece")
_OF_DECISIONS = ("recall", "specificity", "precision", "localised_sensitivity")
_SAME_TRAINING = (
    "Measured with another back end or precision of the same training, not with this one."
)
_FLATTERING = "Threshold and weights were chosen on these images: on new ones expect less."


def report_figures(systems: Sequence[LoadedRun], folder: Path) -> list[ReportFigures | None]:
    """The figures of each system on its test images; None where the report does not judge it."""
    content = read_json(folder / REPORT_MARKER, "metrics")
    judged = content["provenance"]["systems"]
    figures = [_figures_of(run, content, judged) for run in systems]
    if all(of_system is None for of_system in figures):
        raise InputError(
            f"--report {folder}: judges {', '.join(judged)}, none of them a training that is "
            "served; give the report of these runs, or leave it out"
        )
    return figures


def validation_figures(run: LoadedRun) -> ReportFigures | None:
    """What training measured on its validation images; None where the run has no decision."""
    decision = run.decision
    if decision is None:
        return None
    best = run.model.info.get("best_figures") or {}
    at_threshold = decision.validation.get(run.policy) or {}
    chosen_on, made_on = decision.chosen_on, run.model.info.get("data_set") or {}
    return ReportFigures(
        images="validation",
        data_set=made_on.get("name"),
        n_images=chosen_on.get("n_images"),
        n_patients=chosen_on.get("n_patients"),
        n_positive=chosen_on.get("n_positive"),
        figures=[
            *_plain(best, _OF_SCORES, ""),
            *_plain(at_threshold, _OF_DECISIONS, run.policy),
        ],
        cautions=[_FLATTERING],
    )


def _figures_of(
    run: LoadedRun, content: Mapping[str, Any], judged: Mapping[str, Mapping[str, Any]]
) -> ReportFigures | None:
    own, training = run.model.inference_id(), run.model.training_id()
    name = next((name for name, facts in judged.items() if _ids(facts) & {own, training}), None)
    if name is None or content["target"] != run.target.name:
        return None
    rows = [
        row
        for row in content["metrics"]
        if (row["system"], row["unit"], row["subgroup"]) == (name, "image", "all")
    ]
    wanted = [(metric, "") for metric in _OF_SCORES]
    wanted += [(metric, run.policy) for metric in _OF_DECISIONS]
    by_key = {(row["metric"], row["policy"]): row for row in rows}
    first = rows[0] if rows else {}
    cautions = [str(words) for words in content["answer"]["cautions"]]
    if judged[name].get("inference_id") != own:
        cautions.append(_SAME_TRAINING)
    return ReportFigures(
        images="test",
        data_set=content["provenance"]["data_set"]["name"],
        n_images=first.get("n_images"),
        n_patients=first.get("n_patients"),
        n_positive=first.get("n_positive"),
        figures=[_figure(by_key[key]) for key in wanted if key in by_key],
        cautions=cautions,
    )


def _ids(facts: Mapping[str, Any]) -> set[str]:
    known = (facts.get(key) for key in ("inference_id", "training_id", "exported_from"))
    return {str(each) for each in known if each}


def _figure(row: Mapping[str, Any]) -> Figure:
    return Figure(
        metric=row["metric"],
        title=metric_title(row["metric"]),
        estimate=row["estimate"],
        ci_low=row["ci_low"],
        ci_high=row["ci_high"],
        policy=row["policy"],
    )


def _plain(figures: Mapping[str, Any], metrics: Iterable[str], policy: str) -> list[Figure]:
    return [
        Figure(
            metric=metric,
            title=metric_title(metric),
            estimate=figures[metric],
            ci_low=None,
            ci_high=None,
            policy=policy,
        )
        for metric in metrics
        if figures.get(metric) is not None
    ]
