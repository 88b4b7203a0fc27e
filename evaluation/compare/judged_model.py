"""A trained model on the judged images: its decision, output, figures, and what is shown of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep.contracts.addresses import shown
from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import provenance
from data_prep.store.dataset import DataSet
from data_prep.store.predictions import Predictions
from evaluation.compare.comparison import SystemResult
from evaluation.compare.protocol import Protocol
from evaluation.compare.scorecard import Scorecard
from evaluation.decisions.decision import Decision
from evaluation.decisions.system_output import SystemOutput
from evaluation.decisions.test_set import TestSet
from evaluation.decisions.tuning import checked_decision, validation_scores
from evaluation.metrics.evaluation_set import ALL, EvaluationSet, MetricKey, Note
from evaluation.metrics.registry import why_undefined
from evaluation.statistics.bootstrap import Resamples
from evaluation.statistics.ranking import curves
from evaluation.systems.eligibility import describe_training_data, learned_validation


@dataclass(frozen=True)
class ComparisonTask:
    """What systems are judged on, and the question."""

    test_set: TestSet
    protocol: Protocol


@dataclass(frozen=True)
class JudgedModel:
    """A trained model on the judged images.

    Attributes:
        name: That of its system, with the number of the seed where there are several.
        predictions: Its folder.
        decision: What validation chose.
        output: What it gives on the judged images.
        card: Its figures.
    """

    name: str
    predictions: Predictions
    decision: Decision
    output: SystemOutput
    card: Scorecard


def judge_models(
    systems: Mapping[str, Mapping[str, Predictions]],
    judged: EvaluationSet,
    task: ComparisonTask,
    policies: Sequence[str],
    extra_policies: Sequence[str] = (),
) -> tuple[dict[str, list[JudgedModel]], list[Note]]:
    """Derive every model's decision and score it on the judged images.

    A figure of places with the tolerance of one cell has the same tolerance for all models: that
    of the coarsest map on each image.
    """
    notes: list[Note] = []
    made: dict[tuple[str, str], tuple[Decision, SystemOutput]] = {}
    for system, models in systems.items():
        for name, predictions in models.items():
            decision, of_model = _decide(name, predictions, task, policies, extra_policies)
            output = SystemOutput.of(predictions, task.test_set, judged.image_ids, decision.boxes)
            made[system, name] = decision, output
            notes += of_model
    cells = [size for _, output in made.values() if (size := output.cells()) is not None]
    judged = replace(judged, tolerance=np.max(cells, axis=0) if cells else None)
    found: dict[str, list[JudgedModel]] = {system: [] for system in systems}
    for (system, name), (decision, output) in made.items():
        card = Scorecard.of(output, decision, judged)
        found[system].append(JudgedModel(name, systems[system][name], decision, output, card))
    return found, notes


def _decide(
    name: str,
    predictions: Predictions,
    task: ComparisonTask,
    policies: Sequence[str],
    extra_policies: Sequence[str],
) -> tuple[Decision, list[Note]]:
    policy = task.protocol.policy
    decision, notes = checked_decision(name, predictions, task.test_set, policies, extra_policies)
    notes = [*notes, *learned_validation(name, predictions, task.test_set)]
    if policy and policy not in decision.thresholds:
        raise InputError(
            f"{predictions.folder}: the protocol asks for policy '{policy}', {name} is "
            f"tuned for {', '.join(decision.thresholds)}; run cxr tune again with it"
        )
    return decision, notes


def scorecards(models: Mapping[str, Sequence[JudgedModel]]) -> dict[str, list[Scorecard]]:
    """The scorecards of each system, one per training seed."""
    return {name: [model.card for model in each] for name, each in models.items()}


def require_primary_metric(protocol: Protocol, cards: Mapping[str, Scorecard]) -> None:
    """Refuse systems of which one lacks the primary figure.

    An exploratory comparison is not refused: it says in its answer that there is none.
    """
    if not protocol.declared:
        return
    for name, card in cards.items():
        weights = np.ones((1, card.judged.n_patients), dtype=np.int16)
        figures = card(weights)  # without pycocotools, which is slow and agrees
        for metric, policy in protocol.keys:
            figure = MetricKey(ALL, policy, metric)
            found = figures.get(figure)
            if found is not None and not np.isnan(found[0]):
                continue
            lacking = card.missing().get(figure)
            reason = lacking or (_NEVER if found is None else why_undefined(metric))
            raise InputError(
                f"protocol: the primary figure '{metric}' is undefined for {name}: {reason}; "
                "compare systems that have it, or fix another metric; no figure was shown, "
                "and no use of the test set was logged"
            )


_NEVER = "nothing on validation gives it (a score cut comes from boxes, cxr tune --search)"


def system_result(models: Sequence[JudgedModel], task: ComparisonTask) -> SystemResult:
    """What is drawn and listed of a system, from its first seed."""
    model = models[0]
    card, decision, output = model.card, model.decision, model.output
    one_unknown = len(models) == 1 and model.predictions.info.get("seed") is None
    confusion = {policy: card.confusion(policy) for policy in card.thresholds}
    return SystemResult(
        thresholds={policy: choice.threshold for policy, choice in card.thresholds.items()},
        curve=curves(card.judged.y_true, card.scores),
        confusion={policy: counts for policy, counts in confusion.items() if counts is not None},
        boxes=card.boxes,
        maps=None if output.gives_boxes else output.maps,
        map_scale=decision.map_scale,
        cost=dict(model.predictions.info.get("cost") or {}),
        froc=card.froc(),
        coverage={policy: left.curve() for policy, left in card.referred.items()},
        validation=validation_scores(model.predictions, decision, task.test_set),
        seeds=None if one_unknown else len(models),
    )


def decisions_table(models: Mapping[str, Sequence[JudgedModel]], dataset: DataSet) -> pd.DataFrame:
    """One row per image and system: systems in order, images sorted, the first seed of each."""
    table = pd.concat(
        [_decisions(name, each[0]) for name, each in models.items()], ignore_index=True
    )
    return table.merge(dataset.images[["image_id", "patient_id"]], on="image_id", how="left")


def _decisions(name: str, model: JudgedModel) -> pd.DataFrame:
    card, judged, platt = model.card, model.card.judged, model.decision.calibration
    frame = pd.DataFrame({"image_id": judged.image_ids.to_numpy(), "system": name})
    frame["label"] = judged.y_true.astype(np.float64)
    frame["score"] = card.scores
    frame["probability"] = np.nan if platt is None else platt.probability(card.scores)
    for policy in card.thresholds:
        called = card.called(policy)
        column = pd.array([pd.NA] * len(frame) if called is None else called, dtype="boolean")
        frame[f"decision_{policy}"] = column
        left = card.referred.get(policy)
        if left is not None and left.referred is not None:
            frame[f"referred_{policy}"] = pd.array(left.referred, dtype="boolean")
    points = np.full((len(frame), 2), np.nan) if card.points is None else card.points
    frame[["point_x", "point_y"]] = np.asarray(points, dtype=np.float64)
    frame["localised"] = _place_column(card, card.localised)
    frame["localised_tolerant"] = _place_column(card, card.localised_tolerant)
    if judged.x_class is not None:
        frame["x_class"] = judged.x_class.to_numpy()
    return frame


def _place_column(card: Scorecard, on_lesion: npt.NDArray[np.bool_] | None) -> pd.Series:
    """Right place or not, known only for positive images whose boxes are trusted."""
    judged = card.judged
    column = pd.Series(pd.array([pd.NA] * len(judged.image_ids), dtype="boolean"))
    if on_lesion is not None:
        boxed = judged.y_true & judged.boxes_trusted
        column[boxed] = on_lesion[boxed]
    return column


_RECORDED = (
    "system", "seed", "kind", "inference_id", "training_id", "exported_from", "maps", "command",
    "created", "revision", "versions",
)  # fmt: skip


def comparison_provenance(
    models: Mapping[str, Sequence[JudgedModel]], task: ComparisonTask, resamples: Resamples
) -> dict[str, Any]:
    """Ids, seeds, versions and what each system was trained on, as `Comparison.provenance`."""
    dataset, protocol = task.test_set.dataset, task.protocol
    systems = {name: _system_facts(each) for name, each in models.items()}
    return provenance() | {
        "data_set": {"name": dataset.name, **dataset.ids, "split": task.test_set.split},
        "bootstrap": {
            "replicates": resamples.n_replicates,
            "seed": resamples.seed,
            "interval": "percentile",
        },
        "seeds": {name: facts["seed"] for name, facts in systems.items()},
        "systems": systems,
        "protocol": protocol.to_json(),
    }


def _system_facts(models: Sequence[JudgedModel]) -> dict[str, Any]:
    each = [
        {
            "folder": shown(str(model.predictions.folder)),
            **{key: model.predictions.info.get(key) for key in _RECORDED},
            "trained_on": describe_training_data(model.predictions),
            "decision": model.decision.to_json(),
        }
        for model in models
    ]
    if len(each) == 1:
        return each[0]
    return each[0] | {"seed": [facts["seed"] for facts in each], "models": each}
