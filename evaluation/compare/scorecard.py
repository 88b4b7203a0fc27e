"""A trained model on the judged images: its decision, its output, and all of its figures.

With all weights 1 a scorecard gives the estimates, with the weights of a resample a replicate:
one definition of each figure serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import provenance
from data_prep.store.dataset import DataSet, Target
from data_prep.store.predictions import Predictions
from evaluation.boxes.average_precision import (
    WeightedAveragePrecision,
    coco_figures,
    localised,
    match_pairs,
)
from evaluation.boxes.froc import (
    HITS,
    Hit,
    WeightedFroc,
    WeightedIobb,
    WeightedRsnaScore,
    froc_curve,
)
from evaluation.boxes.iou import BoxPairs, pair_boxes
from evaluation.compare.comparison import SystemResult
from evaluation.compare.protocol import Protocol
from evaluation.decisions.decision import Decision
from evaluation.decisions.referral import Referral, ReferralFigures, doubt_of
from evaluation.decisions.system_output import SystemOutput
from evaluation.decisions.thresholds import ThresholdChoice
from evaluation.decisions.tuning import checked_decision, validation_scores
from evaluation.metrics.evaluation_set import ALL, VERSUS_NORMAL, EvaluationSet, MetricKey, Note
from evaluation.metrics.image_metrics import confusion_counts, rates
from evaluation.metrics.registry import METRICS, NEEDS, Need, family, why_undefined
from evaluation.statistics.bootstrap import Resamples, per_cluster
from evaluation.statistics.calibration_error import CalibrationFigures
from evaluation.statistics.ranking import Floats, Integers, RankedScores, curves, is_positive
from evaluation.systems.eligibility import describe_training_data, learned_validation


class Scorecard:
    """Every figure of one system."""

    def __init__(
        self,
        judged: EvaluationSet,
        scores: pd.Series,
        thresholds: Mapping[str, ThresholdChoice],
        *,
        points: pd.DataFrame | None = None,
        boxes: pd.DataFrame | None = None,
        box_cut: float | None = None,
        probability: Floats | None = None,
        referrals: Mapping[str, Referral] | None = None,
        spread: Floats | None = None,
    ) -> None:
        self.judged, self.thresholds, self.points, self.boxes = judged, thresholds, points, boxes
        self.box_cut, self.probability = box_cut, probability
        self.scores = scores.to_numpy(dtype=np.float64)
        self.localised = None if points is None else localised(points, judged.truth)
        self._ranked = RankedScores(judged.y_true, self.scores, judged.patients)
        self._ranked_normal = self._against_normal()
        self._calibration: CalibrationFigures | None = None
        if probability is not None:
            self._calibration = CalibrationFigures(judged.y_true, probability, judged.patients)
        self._pairs: BoxPairs | None = None
        self._precision: WeightedAveragePrecision | None = None
        self._placed: list[tuple[Sequence[str], Callable[[Integers], Floats]]] = []
        if boxes is not None:
            trusted = judged.boxes_trusted
            pairs = self._pairs = pair_boxes(boxes, judged.truth, judged.image_ids[trusted])
            of_patients = (judged.patients[trusted], judged.n_patients)
            self._precision = WeightedAveragePrecision(match_pairs(pairs), *of_patients)
            for hit in HITS:
                froc = WeightedFroc(pairs, *of_patients, hit).figures
                self._placed.append((family(f"froc_{hit}"), froc))
            if box_cut is not None:
                rsna = WeightedRsnaScore(pairs, *of_patients, [box_cut])
                iobb = WeightedIobb(pairs, *of_patients, box_cut)
                self._placed += [(family("rsna"), rsna), (family("iobb"), iobb)]
        self._count_names, self._counts = self._patient_counts()
        self._referrals = referrals or {}
        self.referred = self._refer(self._referrals, spread)

    def _refer(
        self, referrals: Mapping[str, Referral], spread: Floats | None
    ) -> dict[str, ReferralFigures]:
        found = {}
        for policy, referral in referrals.items():
            called, threshold = self.called(policy), self.thresholds[policy].threshold
            if called is None or threshold is None:
                continue
            doubt = doubt_of(self.scores, threshold, spread if referral.by == "spread" else None)
            found[policy] = ReferralFigures(
                self.judged.y_true, called, doubt, referral.cut, self.judged.patients
            )
        return found

    def _against_normal(self) -> RankedScores | None:
        chosen = self.judged.versus_normal
        if chosen is None:
            return None
        j = self.judged
        return RankedScores(j.y_true[chosen], self.scores[chosen], j.patients[chosen])

    def called(self, policy: str) -> npt.NDArray[np.bool_] | None:
        """Which images are called positive at a policy's threshold; `None` without one."""
        choice = self.thresholds.get(policy)
        threshold = None if choice is None else choice.threshold
        return None if threshold is None else is_positive(self.scores, threshold)

    def confusion(self, policy: str) -> dict[str, int] | None:
        """``tp``, ``fp``, ``tn``, ``fn`` at a policy's threshold; `None` without one."""
        threshold = self.thresholds[policy].threshold
        if threshold is None:
            return None
        return confusion_counts(self.judged.y_true, self.scores, threshold)

    def _patient_counts(self) -> tuple[list[tuple[str, str]], Floats]:
        """Everything that is counted, per patient, named by policy and count."""
        j = self.judged
        columns: dict[tuple[str, str], npt.NDArray[np.bool_]] = {}
        boxed = j.y_true & j.boxes_trusted
        if self.localised is not None:
            columns["", "boxed"] = boxed
            columns["", "pointed"] = boxed & self.localised
        for policy in self.thresholds:
            called = self.called(policy)
            if called is None:
                continue
            columns[policy, "tp"] = called & j.y_true
            columns[policy, "fp"] = called & ~j.y_true
            columns[policy, "tn"] = ~called & ~j.y_true
            columns[policy, "fn"] = ~called & j.y_true
            if j.versus_normal is not None:
                columns[policy, "normal_fp"] = called & ~j.y_true & j.versus_normal
                columns[policy, "normal_tn"] = ~called & ~j.y_true & j.versus_normal
            if self.localised is not None:
                columns[policy, "found"] = boxed & self.localised & called
        table = np.column_stack(list(columns.values())) if columns else np.empty((len(boxed), 0))
        return list(columns), per_cluster(table, j.patients, j.n_patients)

    def __call__(self, weights: Integers) -> dict[MetricKey, Floats]:
        """Every figure for every row of patient weights, each row by itself."""
        figures = {MetricKey(ALL, "", m): v for m, v in self._ranked.figures(weights).items()}
        if self._ranked_normal is not None:
            against = self._ranked_normal.figures(weights)
            figures |= {MetricKey(VERSUS_NORMAL, "", m): v for m, v in against.items()}
        if self._calibration is not None:
            kept = self._calibration.figures(weights)
            figures |= {MetricKey(ALL, "", m): v for m, v in kept.items()}
        sums = np.asarray(weights, dtype=np.float64) @ self._counts
        counts = dict(zip(self._count_names, sums.T, strict=True))
        if self.localised is not None:
            pointed = _share(counts["", "pointed"], counts["", "boxed"])
            figures[MetricKey(ALL, "", "pointing_accuracy")] = pointed
        if self._precision is not None:
            at_iou = self._precision(weights)
            figures[MetricKey(ALL, "", "ap50")] = at_iou[:, 0]
            figures[MetricKey(ALL, "", "ap")] = at_iou.mean(axis=1)
        for names, judge in self._placed:
            columns = judge(weights).reshape(len(weights), -1).T
            figures |= {MetricKey(ALL, "", m): v for m, v in zip(names, columns, strict=True)}
        for policy in self.thresholds:
            if (policy, "tp") not in counts:
                continue
            of_policy = {name: counts[policy, name] for name in family("counts")}
            values = {**rates(**of_policy), **of_policy}
            if self.localised is not None:
                found = _share(counts[policy, "found"], counts["", "boxed"])
                values["localised_sensitivity"] = found
            figures |= {MetricKey(ALL, policy, metric): v for metric, v in values.items()}
            if (policy, "normal_fp") in counts:
                normal = {"fp": counts[policy, "normal_fp"], "tn": counts[policy, "normal_tn"]}
                against = rates(**(of_policy | normal))
                figures |= {MetricKey(VERSUS_NORMAL, policy, m): v for m, v in against.items()}
        for policy, left in self.referred.items():
            figures |= {MetricKey(ALL, policy, m): v for m, v in left.figures(weights).items()}
        return figures

    def estimates(self) -> dict[MetricKey, float | None]:
        """Every figure on the images as they are; COCO's are those of pycocotools itself."""
        once = self(np.ones((1, self.judged.n_patients), dtype=np.int16))
        if self._calibration is not None:
            exact = self._calibration.figures()  # replicates are fitted on knots
            once |= {MetricKey(ALL, "", metric): value for metric, value in exact.items()}
        figures = {name: None if np.isnan(v[0]) else float(v[0]) for name, v in once.items()}
        if self._pairs is not None:
            coco = coco_figures(self._pairs)
            figures |= {MetricKey(ALL, "", metric): figure for metric, figure in coco.items()}
        return figures

    def froc(self) -> dict[Hit, dict[str, Floats]]:
        """The FROC curve for each kind of hit, as `froc_curve` gives it; none without boxes."""
        if self._pairs is None:
            return {}
        return {hit: froc_curve(self._pairs, hit) for hit in HITS}

    def missing(self) -> dict[MetricKey, str]:
        """Figures that this system cannot have, with the reason."""
        missing: dict[MetricKey, str] = {}
        if self.boxes is None:
            # Figures of called boxes have no row where nothing chose a cut.
            missing |= _without(
                "boxes", "", (each for each in METRICS if _needs(each) == {"boxes"})
            )
        if self.localised is None:
            missing |= _without(
                "point", "", (each for each in METRICS if _needs(each) == {"point"})
            )
        if self._calibration is None:
            missing |= _without("probability", "", family("calibration"))
        for policy, referral in self._referrals.items():
            if referral.cut is None:
                cut = [metric for metric in family("referral") if "referral" in _needs(metric)]
                missing |= {MetricKey(ALL, policy, m): f"no cut: {referral.reason}" for m in cut}
        placed = [each for each in METRICS if _needs(each) == {"threshold", "point"}]
        for policy, choice in self.thresholds.items():
            if choice.threshold is None:
                reason = f"no threshold: {choice.reason}"
                names = (*family("decision"), *placed)
                missing |= {MetricKey(ALL, policy, metric): reason for metric in names}
            elif self.localised is None:
                missing |= _without("point", policy, placed)
        return missing


def _needs(metric: str) -> set[Need]:
    return set(METRICS[metric].needs)


def _without(need: Need, policy: str, metrics: Iterable[str]) -> dict[MetricKey, str]:
    return {MetricKey(ALL, policy, metric): NEEDS[need] for metric in metrics}


def _share(part: Floats, whole: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(part / whole)


@dataclass(frozen=True)
class ComparisonTask:
    """What systems are judged on.

    Attributes:
        dataset: Labels, boxes and split.
        target: What is judged.
        split: Name of the split.
        protocol: The question.
    """

    dataset: DataSet
    target: Target
    split: str
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
    """Derive every model's decision and score it on the judged images."""
    notes: list[Note] = []
    found: dict[str, list[JudgedModel]] = {}
    for system, models in systems.items():
        found[system] = []
        for name, predictions in models.items():
            model, of_model = _judge(name, predictions, judged, task, policies, extra_policies)
            found[system].append(model)
            notes += of_model
    return found, notes


def _judge(
    name: str,
    predictions: Predictions,
    judged: EvaluationSet,
    task: ComparisonTask,
    policies: Sequence[str],
    extra_policies: Sequence[str],
) -> tuple[JudgedModel, list[Note]]:
    dataset, target, policy = task.dataset, task.target, task.protocol.policy
    decision, notes = checked_decision(
        name, predictions, dataset, target, task.split, policies, extra_policies
    )
    notes = [*notes, *learned_validation(name, predictions, dataset, target, task.split)]
    if policy and policy not in decision.thresholds:
        raise InputError(
            f"{predictions.folder}: the protocol asks for policy '{policy}', {name} is "
            f"tuned for {', '.join(decision.thresholds)}; run cxr tune again with it"
        )
    output = SystemOutput(predictions, target, judged.image_ids, decision.boxes, dataset.images)
    return JudgedModel(name, predictions, decision, output, _card(output, decision, judged)), notes


def _card(output: SystemOutput, decision: Decision, judged: EvaluationSet) -> Scorecard:
    scores = output.scores(decision.reduction)
    spread = output.spread() if decision.referral else None
    return Scorecard(
        judged,
        scores,
        decision.thresholds,
        points=output.points(),
        boxes=output.boxes(scores, decision.map_scale, decision.map_boxes),
        box_cut=decision.box_cut,
        probability=decision.probability(scores),
        referrals=decision.referral,
        spread=None if spread is None else spread.to_numpy(dtype=np.float64),
    )


def scorecards(models: Mapping[str, Sequence[JudgedModel]]) -> dict[str, list[Scorecard]]:
    """The scorecards of each system, one per training seed."""
    return {name: [model.card for model in each] for name, each in models.items()}


def require_primary_metric(protocol: Protocol, cards: Mapping[str, Scorecard]) -> None:
    """Refuse systems of which one lacks the primary figure.

    An exploratory comparison is not refused: it says in its answer that there is none.
    """
    if not protocol.declared:
        return
    figure = MetricKey(ALL, protocol.policy, protocol.metric)
    for name, card in cards.items():
        weights = np.ones((1, card.judged.n_patients), dtype=np.int16)
        found = card(weights).get(figure)  # without pycocotools, which is slow and agrees
        if found is not None and not np.isnan(found[0]):
            continue
        lacking = card.missing().get(figure)
        reason = lacking or (_NEVER if found is None else why_undefined(figure.metric))
        raise InputError(
            f"protocol: the primary figure '{protocol.metric}' is undefined for {name}: {reason}; "
            "compare systems that have it, or fix another metric; nothing was told and no look "
            "was counted"
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
        validation=validation_scores(
            model.predictions, decision, task.dataset, task.target, task.split
        ),
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
    frame["localised"] = _localised_column(card)
    if judged.x_class is not None:
        frame["x_class"] = judged.x_class.to_numpy()
    return frame


def _localised_column(card: Scorecard) -> pd.Series:
    """Right place or not, known only for positive images whose boxes are trusted."""
    judged = card.judged
    column = pd.Series(pd.array([pd.NA] * len(judged.image_ids), dtype="boolean"))
    if card.localised is not None:
        boxed = judged.y_true & judged.boxes_trusted
        column[boxed] = card.localised[boxed]
    return column


_RECORDED = (
    "system", "seed", "kind", "inference_id", "maps", "command", "created", "revision", "versions",
)  # fmt: skip


def comparison_provenance(
    models: Mapping[str, Sequence[JudgedModel]], task: ComparisonTask, resamples: Resamples
) -> dict[str, Any]:
    """Ids, seeds, versions and what each system was trained on, as `Comparison.provenance`."""
    dataset, protocol = task.dataset, task.protocol
    systems = {name: _system_facts(each) for name, each in models.items()}
    return provenance() | {
        "data_set": {"name": dataset.name, **dataset.ids, "split": task.split},
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
            "folder": str(model.predictions.folder),
            **{key: model.predictions.info.get(key) for key in _RECORDED},
            "trained_on": describe_training_data(model.predictions),
            "decision": model.decision.to_json(),
        }
        for model in models
    ]
    if len(each) == 1:
        return each[0]
    return each[0] | {"seed": [facts["seed"] for facts in each], "models": each}
