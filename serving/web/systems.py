"""Facts about the systems of a server for its interface: figures, answers, disagreement."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.tables import read_table
from cxr_compare.data_prep.store.identify_folder import REPORT_MARKER
from cxr_compare.data_prep.store.prediction_info import MadeOn, PredictionsInfo
from cxr_compare.evaluation.metrics.registry import metric_title
from cxr_compare.evaluation.report.answer import AnswerInfo, EvaluatedOn
from cxr_compare.evaluation.report.files import DECISIONS
from cxr_compare.evaluation.statistics.arrays import is_positive
from cxr_compare.evaluation.statistics.bands import share_band
from cxr_compare.serving.answer import ActivationMap, Answer, Frame
from cxr_compare.serving.export_spec import EVALUATION_FILE, validation_folder
from cxr_compare.serving.known_limits import MeasuredAuroc
from cxr_compare.serving.run import Run
from cxr_compare.serving.web.schemas import Figure, ReportFigures, SystemFacts

_RESAMPLES = 2000
_OF_FIGURES = ("metric", "estimate", "ci_low", "ci_high", "policy")
_OF_SCORES = ("auroc", "average_precision", "ece")
_OF_DECISIONS = ("recall", "specificity", "precision")
_SAME_TRAINING = (
    "Measured with another back end or precision of the same training, not with this one."
)
_FLATTERING = "Threshold and weights were chosen on these images: on new ones expect less."
_FEW_MISSED = "These images chose the thresholds: on new ones expect more."
_PACKAGES = {
    "torch": ("torch",),
    "onnx": ("onnxruntime", "onnxruntime-gpu"),  # of which one is installed
    "openvino": ("openvino",),
}


class ServedSystem:
    """A system that the server predicts with, and facts about it that do not change.

    `facts` are those that the HTTP interface sends. `report` has the metrics of the system, None if
    none are known, and `report_url` the address of the report on this server.
    """

    def __init__(self, run: Run, report: ReportFigures | None, report_url: str | None) -> None:
        self.run = run
        run.test_auroc = _test_auroc(report)
        self.facts = SystemFacts(
            **run.system_fields,
            findings=list(run.model.findings),
            backend=run.model.backend,
            precision=run.model.precision,
            model_id=run.model.inference_id(),
            image_size=run.model.preprocess.size,
            trained_on=[data.name for data in run.model.info.training_sets],
            synthetic=run.synthetic,
            cautions=list(run.cautions),
            guard=run.guard is not None,
            report=report,
            report_url=report_url,
        )

    def with_map(self, answer: Answer) -> Answer:
        """Add a classifier's map, on the scale of validation; an answer without one is returned."""
        scale = self.run.map_scale
        if answer.grid is None or scale is None or scale[1] <= scale[0]:
            return answer
        values = np.nan_to_num(np.asarray(answer.grid.values, np.float64))
        shares = np.clip((values - scale[0]) / (scale[1] - scale[0]), 0.0, 1.0)
        frame = dict(zip(EDGES, answer.grid.frame, strict=True))
        target = sorted(self.run.target.any_of)
        finding = max(target, key=lambda name: answer.findings.get(name, 0.0))
        shown = ActivationMap(
            finding=finding, values=np.round(shares, 4).tolist(), frame=Frame(**frame)
        )
        return answer.model_copy(update={"map": shown})


def _test_auroc(report: ReportFigures | None) -> MeasuredAuroc | None:
    """Return the AUROC on the test images of a report; None without a report, or without AUROC."""
    if report is None or report.images != "test":
        return None
    figure = next((figure for figure in report.figures if figure.metric == "auroc"), None)
    if figure is None or figure.estimate is None:
        return None
    return MeasuredAuroc(figure.estimate, figure.ci_low, figure.ci_high, "test", report.n_images)


def disagreement(answers: Sequence[Answer]) -> bool | None:
    """Return True if one system decides that an image is positive and another that it is negative.

    `answers` are those of all systems for one image. None if fewer than two systems decide.
    """
    decisions = [answer.decision for answer in answers if answer.decision is not None]
    return len(set(decisions)) > 1 if len(decisions) > 1 else None


@cache
def versions_of(backends: frozenset[str]) -> dict[str, str]:
    """Return the versions of Python, numpy, this program and the packages that compute networks.

    The back ends are ``torch``, ``onnx`` or ``openvino``; a joint system whose members differ has
    several with `` + `` between them.
    """
    names = sorted({name for backend in backends for name in backend.split(" + ")})
    packages = ["cxr-compare", "numpy", *(each for name in names for each in _PACKAGES[name])]
    versions = {"python": platform.python_version()}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def report_figures(systems: Sequence[Run], folder: Path | None) -> list[ReportFigures | None]:
    """Return the figures of each system (AUROC and others), from a report or validation images.

    `folder` is a report of `cxr compare`; a system that it does not evaluate has the figures on its
    validation images, and None if it has none. Raises InputError if the report evaluates none of
    the systems.
    """
    if folder is None:
        return [_validation_figures(run) for run in systems]
    content = AnswerInfo.read(folder / REPORT_MARKER)
    stored = read_table(folder / "figures.parquet", "figures", files=content.files)
    stored = stored[(stored["unit"] == "image") & (stored["subgroup"] == "all")]
    figures = [_figures_of(run, content, stored) for run in systems]
    if all(of_system is None for of_system in figures):
        raise InputError(
            f"--report {folder}: evaluates {', '.join(content.provenance.systems)}, "
            "none of them a training that is served; give the report of these runs, or leave it out"
        )
    return [
        tested or _validation_figures(run) for run, tested in zip(systems, figures, strict=True)
    ]


def missed_together(systems: Sequence[Run], folder: Path | None) -> ReportFigures | None:
    """Return the share of positive images that every system decided as negative.

    `folder` is a report of `cxr compare`, for test images; validation images are taken without one,
    or if it does not evaluate all systems at the served thresholds. The share is the only value in
    `figures`. The result is None if not all systems have decided the same images.
    """
    if folder is not None:
        content = AnswerInfo.read(folder / REPORT_MARKER)
        names = [_evaluated_as_served(run, content) for run in systems]
        if None not in names and (folder / DECISIONS).is_file():
            table = read_table(folder / DECISIONS, "decisions", files=content.files)
            of_systems = [table[table["system"] == name] for name in names]
            missed = [_missed(run, rows) for run, rows in zip(systems, of_systems, strict=True)]
            cautions = {_SAME_TRAINING for run in systems if not _evaluated_itself(run, content)}
            made_on = content.provenance.data_set
            figures = _together(systems[0], missed, "test", made_on, [*cautions])
            if figures:
                return figures
    missed = [_missed_in_validation(run) for run in systems]
    learned_on = systems[0].model.info.data_set
    return _together(systems[0], missed, "validation", learned_on, [_FEW_MISSED])


def _missed(run: Run, rows: pd.DataFrame) -> pd.DataFrame | None:
    """Return the positive images with ``missed`` and the patient; None if unknown."""
    called = f"decision_{run.policy}"
    rows = rows[rows["label"] == 1].set_index("image_id")
    if not {called, "patient_id"} <= set(rows) or rows[called].isna().any():
        return None
    return rows[["patient_id"]].assign(missed=~rows[called].astype(bool))


def _missed_in_validation(run: Run) -> pd.DataFrame | None:
    """Return the missed positives of a run's validation images; None for another decision."""
    path = validation_folder(run.folder) / EVALUATION_FILE
    threshold = run.threshold
    if run.decision is None or threshold is None or not path.is_file():
        return None
    record = PredictionsInfo.read(path.parent / "predictions.json")
    rows = read_table(path, "decisions", files=record.files)
    missed = _missed(
        run, rows.assign(**{f"decision_{run.policy}": is_positive(rows["score"], threshold)})
    )
    misses = (run.decision.validation.get(run.policy) or {}).get("fn")
    return missed if missed is not None and missed["missed"].sum() == misses else None


def _together(
    run: Run,
    missed: Sequence[pd.DataFrame | None],
    images: Literal["test", "validation"],
    made_on: EvaluatedOn | MadeOn | None,
    cautions: list[str],
) -> ReportFigures | None:
    known = [each for each in missed if each is not None]
    if len(known) < len(missed) or any(set(each.index) != set(known[0].index) for each in known):
        return None
    patients = known[0]["patient_id"]
    by_all = np.all([each["missed"].reindex(patients.index) for each in known], axis=0)
    if (count := patients.nunique()) < 2:
        return None
    group = np.zeros(len(by_all), np.int64)
    (low,), (high,) = share_band(by_all, group, patients, resamples=_RESAMPLES)
    share = Figure(
        metric="missed_together",
        title="Positives that no system found",
        estimate=float(by_all.mean()),
        ci_low=low,
        ci_high=high,
        policy=run.policy,
    )
    return ReportFigures(
        images=images,
        data_set=made_on.name if made_on else None,
        n_images=None,
        n_patients=count,
        n_positive=len(by_all),
        figures=[share],
        cautions=cautions,
    )


def _validation_figures(run: Run) -> ReportFigures | None:
    """Return the figures of a run's validation images; None where it has no decision."""
    decision = run.decision
    if decision is None:
        return None
    best = run.model.info.best_figures
    at_threshold = decision.validation.get(run.policy) or {}
    chosen_on = decision.chosen_on
    made_on = run.model.info.data_set
    figures = [
        _figure({"metric": metric, "estimate": source[metric], "policy": policy})
        for source, metrics, policy in (
            (best, _OF_SCORES, ""),
            (at_threshold, _OF_DECISIONS, run.policy),
        )
        for metric in metrics
        if source.get(metric) is not None
    ]
    if run.validation_auroc is not None:  # with an interval, and of the scores that are given
        figures = [figure for figure in figures if figure.metric != "auroc"]
        figures.insert(
            0, _figure({"metric": "auroc", "policy": "", **asdict(run.validation_auroc)})
        )
    return ReportFigures(
        images="validation",
        data_set=made_on.name if made_on else None,
        n_images=chosen_on.get("n_images"),
        n_patients=chosen_on.get("n_patients"),
        n_positive=chosen_on.get("n_positive"),
        figures=figures,
        cautions=[_FLATTERING],
    )


def _evaluated_as(run: Run, content: AnswerInfo) -> str | None:
    """Return the name of a system in a report; None where the report does not evaluate it."""
    if content.target != run.target.name:
        return None
    own = {run.model.inference_id(), run.model.training_id()}
    evaluated = content.provenance.systems
    return next((name for name, facts in evaluated.items() if _ids(facts) & own), None)


def _evaluated_as_served(run: Run, content: AnswerInfo) -> str | None:
    """Return the name of a system that a report evaluates at the served threshold, or None."""
    name = _evaluated_as(run, content)
    evaluated = None if name is None else content.thresholds.get(name, {}).get(run.policy)
    if evaluated is None or run.threshold is None:
        return None
    # Two back ends compute one score to a few digits, so they choose almost the same threshold.
    return name if np.isclose(evaluated, run.threshold, rtol=0.01, atol=0) else None


def _evaluated_itself(run: Run, content: AnswerInfo) -> bool:
    """Return True if a report evaluates this very system, not another export of its training."""
    facts = content.provenance.systems.get(_evaluated_as(run, content) or "", {})
    return bool(facts.get("inference_id") == run.model.inference_id())


def _figures_of(run: Run, content: AnswerInfo, figures: pd.DataFrame) -> ReportFigures | None:
    name = _evaluated_as(run, content)
    if name is None:
        return None
    of_system = figures[(figures["first"] == name) & (figures["second"] == "")].astype(object)
    known = of_system.where(of_system.notna(), None)
    rows = [{str(key): value for key, value in row.items()} for row in known.to_dict("records")]
    keys = [(metric, "") for metric in _OF_SCORES]
    keys += [(metric, run.policy) for metric in (*_OF_DECISIONS, "localised_sensitivity")]
    by_key = {(row["metric"], row["policy"]): row for row in rows}
    first = rows[0] if rows else {}
    cautions = [str(caution) for caution in content.cautions]
    if not _evaluated_itself(run, content):
        cautions.append(_SAME_TRAINING)
    evaluated_on = content.provenance.data_set
    return ReportFigures(
        images="test",
        data_set=evaluated_on.name if evaluated_on else None,
        n_images=first.get("n_images"),
        n_patients=first.get("n_patients"),
        n_positive=first.get("n_positive"),
        figures=[_figure(by_key[key]) for key in keys if key in by_key],
        cautions=cautions,
    )


def _ids(facts: Mapping[str, Any]) -> set[str]:
    ids = (facts.get(key) for key in ("inference_id", "training_id", "exported_from"))
    return {str(value) for value in ids if value}


def _figure(row: Mapping[str, Any]) -> Figure:
    values: dict[str, Any] = {name: row.get(name) for name in _OF_FIGURES}
    return Figure(title=metric_title(row["metric"]), **values)
