"""What a server says of its systems, how they did, and of one image, as its schemas name it."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import read_json
from data_prep.store.folder_kinds import REPORT_MARKER
from evaluation.metrics.registry import metric_title
from evaluation.systems.eligibility import sets_of_run
from serving.answer import Answer
from serving.dicom_objects.instance import Algorithm
from serving.run import Run
from serving.web.schemas import (
    ActivationMap,
    Figure,
    FindingScore,
    Frame,
    ReportFigures,
    SystemAnswer,
    SystemFacts,
)

_OF_FIGURES = ("metric", "estimate", "ci_low", "ci_high", "policy")
_OF_SCORES = ("auroc", "average_precision", "ece")
_OF_DECISIONS = ("recall", "specificity", "precision", "localised_sensitivity")
_SAME_TRAINING = (
    "Measured with another back end or precision of the same training, not with this one."
)
_FLATTERING = "Threshold and weights were chosen on these images: on new ones expect less."
_PACKAGES = {"torch": "torch", "onnx": "onnxruntime", "openvino": "openvino"}


class ServedSystem:
    """A system with what never changes while it is served."""

    def __init__(self, run: Run, report: ReportFigures | None, report_url: str | None) -> None:
        self.run = run
        self.algorithm = Algorithm.of(run)
        threshold, probability = self.algorithm.threshold, None
        if run.decision is not None and threshold is not None:
            probability = run.decision.probability(np.array([threshold]))
        self.facts = SystemFacts(
            system=run.name,
            kind=run.model.kind,  # type: ignore[arg-type]
            finding=run.target.display_name,
            findings=list(run.model.findings),
            policy=run.policy,
            threshold=threshold,
            threshold_probability=None if probability is None else float(probability[0]),
            undecided_because=run.undecided_because,
            backend=run.model.backend,
            precision=run.model.precision,
            model_id=self.algorithm.model_id,
            image_size=run.model.preprocess.size,
            trained_on=[str(data["name"]) for data in sets_of_run(run.model.info)],
            guard=run.guard is not None,
            report=report,
            report_url=report_url,
        )

    def describe(self, answer: Answer, *, maps: bool) -> SystemAnswer:
        """One answer as the interface gives it."""
        shared = {k: v for k, v in answer.to_dict().items() if k in SystemAnswer.model_fields}
        scores = answer.finding_scores.items()
        return SystemAnswer(
            **shared,
            model_id=self.facts.model_id,
            backend=self.facts.backend,
            threshold_probability=self.facts.threshold_probability,
            findings=[FindingScore(finding=name, score=score) for name, score in scores],
            map=self._map(answer) if maps else None,
        )

    def _map(self, answer: Answer) -> ActivationMap | None:
        """A classifier's map on the scale that validation chose; None where there is none."""
        scale = None if self.run.decision is None else self.run.decision.map_scale
        if answer.map is None or scale is None or scale[1] <= scale[0]:
            return None
        values = np.nan_to_num(np.asarray(answer.map.values, np.float64))
        shares = np.clip((values - scale[0]) / (scale[1] - scale[0]), 0.0, 1.0)
        x1, y1, x2, y2 = answer.map.frame
        target = sorted(self.run.target.any_of)
        finding = max(target, key=lambda name: answer.finding_scores.get(name, 0.0))
        return ActivationMap(
            finding=finding,
            values=np.round(shares, 4).tolist(),
            frame=Frame(x1=x1, y1=y1, x2=x2, y2=y2),
        )


def disagreement(answers: Sequence[SystemAnswer]) -> bool | None:
    """Whether systems decide differently; None with fewer than two decisions."""
    decisions = [answer.decision for answer in answers if answer.decision is not None]
    return len(set(decisions)) > 1 if len(decisions) > 1 else None


@cache
def versions_of(backends: frozenset[str]) -> dict[str, str]:
    """The versions of what answers."""
    packages = ["cxr-compare", "numpy", *(_PACKAGES[backend] for backend in sorted(backends))]
    versions = {"python": platform.python_version()}
    return versions | {package: metadata.version(package) for package in packages}


def report_figures(systems: Sequence[Run], folder: Path) -> list[ReportFigures | None]:
    """The figures of each system on its test images; None where the report does not judge it."""
    content = read_json(folder / REPORT_MARKER, "metrics")
    judged = content["provenance"].get("systems", {})
    figures = [_figures_of(run, content, judged) for run in systems]
    if all(of_system is None for of_system in figures):
        raise InputError(
            f"--report {folder}: judges {', '.join(judged)}, none of them a training that is "
            "served; give the report of these runs, or leave it out"
        )
    return figures


def validation_figures(run: Run) -> ReportFigures | None:
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
            _figure({"metric": metric, "estimate": source[metric], "policy": policy})
            for source, metrics, policy in (
                (best, _OF_SCORES, ""),
                (at_threshold, _OF_DECISIONS, run.policy),
            )
            for metric in metrics
            if source.get(metric) is not None
        ],
        cautions=[_FLATTERING],
    )


def _figures_of(
    run: Run, content: Mapping[str, Any], judged: Mapping[str, Mapping[str, Any]]
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
    ids = (facts.get(key) for key in ("inference_id", "training_id", "exported_from"))
    return {str(value) for value in ids if value}


def _figure(row: Mapping[str, Any]) -> Figure:
    values: dict[str, Any] = {name: row.get(name) for name in _OF_FIGURES}
    return Figure(title=metric_title(row["metric"]), **values)
