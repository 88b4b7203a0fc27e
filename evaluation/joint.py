"""A joint system: one image score by logistic regression, which gates the boxes of a detector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, counted
from cxr_compare.evaluation.box_figures import BoxFigures
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.choices import log_odds
from cxr_compare.evaluation.notes import Note
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.statistics.arrays import Flags, Floats
from cxr_compare.evaluation.statistics.folds import patient_folds
from cxr_compare.evaluation.truth import Truth

Gate = Literal["rescaled", "multiplied", "untouched"]
METHOD = "logistic regression"
_WEAK_PENALTY = 10.0
"""Inverse of the ridge penalty: too weak to matter, and weights stay finite without overlap."""
_SAME = 1e-9


@dataclass(frozen=True)
class JointScore:
    """Joint score: log-odds that are a sum of one term for each of M systems.

    The term of a system is ``weight * log-odds of its score``. A score of exactly 0, that of an
    image without a box, is a statement of its own: its term is `at_zero`.

    Examples:
        >>> joint = JointScore(0.0, (1.0, 0.0), (-3.0, 0.0))
        >>> joint.probability(np.array([[0.25, 0.9], [0.0, 0.9]])).round(3).tolist()
        [0.25, 0.047]
    """

    intercept: float
    weights: tuple[float, ...]
    at_zero: tuple[float, ...]

    @classmethod
    def fit(cls, positive: Flags, scores: Floats) -> JointScore:
        """Fit the weights of M systems on images, ``(N, M)``, that none of them learned from.

        Source:
            Stacking: Wolpert 1992.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        is_zero = scores == 0
        # A score of 0 means that there is no box, of which the line of other scores says nothing.
        lowest = np.where(is_zero, 1.0, scores).min(axis=0)  # of the scores above 0
        design = np.hstack([log_odds(np.where(is_zero, lowest, scores)), is_zero])
        scaler = StandardScaler()
        fit = LogisticRegression(C=_WEAK_PENALTY, tol=1e-12, max_iter=10_000)
        fit.fit(scaler.fit_transform(design), positive)
        slopes = fit.coef_[0] / scaler.scale_
        weights = slopes[: scores.shape[1]]
        at_zero = weights * log_odds(lowest) + slopes[scores.shape[1] :]
        intercept = float(fit.intercept_[0] - slopes @ scaler.mean_)
        return cls(intercept, tuple(weights.tolist()), tuple(at_zero.tolist()))

    def probability(self, scores: Floats) -> Floats:
        """Compute joint scores in [0, 1], ``(N,)``, from the scores of all systems, ``(N, M)``."""
        logits = np.full(len(scores), self.intercept)
        for weight, at_zero, column in zip(self.weights, self.at_zero, scores.T, strict=True):
            # Summed column by column, so that one image alone gets the same digits as many.
            logits = logits + np.where(column == 0, at_zero, weight * log_odds(column))
        return 1 / (1 + np.exp(-logits))


@dataclass(frozen=True)
class JointRule:
    """Rule by which the outputs of several systems become those of one joint system.

    Attributes:
        members: Names of the systems, in the order of the weights, in which `apply` takes them.
        gate: Scores of the detector's boxes: ``rescaled`` so that the highest of an image equals
            the joint score, ``multiplied`` by the joint score, or ``untouched``.
        gates_tried: Mean FROC of each gate on validation images; empty without boxes.
    """

    members: tuple[str, ...]
    score: JointScore
    gate: Gate
    gates_tried: Mapping[str, float]

    @classmethod
    def fit(cls, members: Mapping[str, Output], truth: Truth) -> tuple[JointRule, pd.Series]:
        """Fit the weights and choose the gate of boxes, on validation images only.

        With the rule come the joint scores of the validation images, computed with weights that
        were fitted on other patients: a threshold that is chosen on them is not too optimistic.
        InputError if fewer than two validation patients have, or do not have, a positive image.
        """
        validation = truth.of("val")
        ran = validation.ids
        for name, output in members.items():
            low, high = output.scores.min(), output.scores.max()
            if low < 0 or high > 1:
                raise InputError(
                    f"{name}: its scores lie between {low:g} and {high:g}, and probabilities are "
                    "joined; of a logit take 1 / (1 + exp(-score))"
                )
            ran = ran.intersection(output.ran)
        _require_predicted(members, validation)
        validation = validation.select(ran)
        positive, owners = validation.positive, validation.owners
        n_with = len(set(owners[positive]))
        n_without = len(set(owners) - set(owners[positive]))
        if min(n_with, n_without) < 2:
            raise InputError(
                f"both: weights are fitted on validation images, and {n_with} patients with and "
                f"{n_without} without {truth.finding} have any that all systems predicted; it "
                "takes two of each: give more patients the role val"
            )
        columns = _columns(members, validation.ids)
        # By patients that did not fit the weights, as a threshold is chosen on these scores.
        folds = patient_folds(owners, positive)
        held_out = np.empty(len(positive))
        for fold in np.unique(folds):
            fit = JointScore.fit(positive[folds != fold], columns[folds != fold])
            held_out[folds == fold] = fit.probability(columns[folds == fold])
        # The gate, too, is chosen on scores of held-out patients; the rule that stays learns from
        # all.
        scores = pd.Series(held_out, validation.ids)
        gate, tried = _best_gate(_boxes(members.values()), scores, validation)
        return cls(tuple(members), JointScore.fit(positive, columns), gate, tried), scores

    def apply(self, members: Mapping[str, Output], held_out: pd.Series | None = None) -> Output:
        """Return the joint output on all images that every member ran on.

        `held_out` are the joint scores of validation images, which replace those of the rule.
        """
        ran = next(iter(members.values())).ran
        for output in members.values():
            ran = ran.intersection(output.ran)
        scores = pd.Series(self.score.probability(_columns(members, ran)), ran)
        if held_out is not None:
            scores.loc[held_out.index] = held_out
        outputs = [member.select(ran) for member in members.values()]
        boxes = _boxes(outputs)
        maps = next((output.maps for output in outputs if output.maps is not None), None)
        boxes = None if boxes is None else gated(boxes, scores, self.gate)
        record = {"members": self.members, "rule": self, "cost": _cost(members)}
        return Output(scores, boxes, maps, record=record)


def join(members: Mapping[str, Output], truth: Truth) -> Output:
    """Fit a joint system on validation images, and return its output on all images."""
    if sum(output.boxes is not None for output in members.values()) > 1:
        raise InputError("both: at most one detector is joined with classifiers")
    rule, held_out = JointRule.fit(members, truth)
    note = Note(
        f"Weights of {' + '.join(members)} were fitted on "
        f"{counted(len(held_out), 'validation image')}."
    )
    return replace(rule.apply(members, held_out), notes=(note,))


def _require_predicted(members: Mapping[str, Output], validation: Truth) -> None:
    """Refuse a truth without validation images, and systems that predicted none of them."""
    fitted = "both: weights are fitted on validation images"
    if not len(validation.ids):
        raise InputError(
            f"{fitted}, and there are none; give the truth a column 'role' with val and test (a "
            "data set gets both from cxr split), and each system predictions for both"
        )
    for name, output in members.items():
        if not validation.ids.isin(output.ran).any():
            raise InputError(
                f"{fitted}, and {name} has no prediction for any of the {len(validation.ids):,} "
                "images of role val; predict these, too, and add them to its file"
            )


def gated(boxes: pd.DataFrame, scores: pd.Series, gate: Gate) -> pd.DataFrame:
    """Change the scores of boxes by the joint scores, given by image id."""
    box_scores = boxes["score"].to_numpy(np.float64)
    joint = scores.reindex(boxes["image_id"]).to_numpy(np.float64)
    if gate == "untouched":
        return boxes
    if gate == "multiplied":
        return boxes.assign(score=box_scores * joint)
    highest = boxes.groupby("image_id")["score"].transform("max").to_numpy(np.float64)
    share = np.divide(box_scores, highest, out=np.ones_like(box_scores), where=highest > 0)
    return boxes.assign(score=share * joint)


def _columns(members: Mapping[str, Output], ids: pd.Index) -> Floats:
    return np.column_stack(
        [member.scores.reindex(ids).to_numpy(np.float64) for member in members.values()]
    )


def _cost(members: Mapping[str, Output]) -> dict[str, float]:
    """Return the sums of the numbers that the costs of all members have."""
    costs = [dict(member.record.get("cost") or {}) for member in members.values()]
    shared = [key for key in costs[0] if all(isinstance(c.get(key), int | float) for c in costs)]
    return {key: sum(cost[key] for cost in costs) for key in shared}


def _boxes(members: Iterable[Output]) -> pd.DataFrame | None:
    return next((member.boxes for member in members if member.boxes is not None), None)


def _best_gate(
    boxes: pd.DataFrame | None, scores: pd.Series, validation: Truth
) -> tuple[Gate, dict[str, float]]:
    """Choose the gate with the highest mean FROC on validation; of equal ones the first."""
    boxed = validation.ids[validation.is_boxed]
    chosen: Gate = "rescaled"
    tried: dict[str, float] = {}
    if boxes is None or not len(validation.boxes):
        return chosen, tried
    rows = boxes[boxes["image_id"].isin(boxed)]
    together = np.zeros(len(boxed), dtype=np.int64)
    for gate in get_args(Gate):
        pairs = pair_boxes(gated(rows, scores, gate), validation.boxes, boxed)
        figures = BoxFigures(pairs, only_50=True).with_patients(together, 1)
        value = float(figures(np.ones((1, 1), dtype=np.int64))["froc_mean"][0])
        if np.isnan(value):
            continue
        tried[gate] = value
        if value > tried.get(chosen, -1.0) + _SAME:
            chosen = gate
    return chosen, tried
