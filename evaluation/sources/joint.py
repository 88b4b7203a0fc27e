"""A joint system: one image score by logistic regression, which gates the boxes of the detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.records import Items, Record
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.box_choice import BOXES_BY
from cxr_compare.evaluation.boxes.box_figures import box_figure
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.reduction import Reduction
from cxr_compare.evaluation.reduction_choice import choose_reduction
from cxr_compare.evaluation.sources.read_predictions import read_output
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.joint_score import (
    METHOD,
    JointScore,
    cross_fitted_scores,
    fit_joint_score,
)

_Gate = Literal["rescaled", "multiplied", "untouched"]
_SAME = 1e-9


class JointFinding(Record):
    """Rule by which the outputs of all members for one finding become the joint output.

    Attributes:
        intercept: Constant of the joint score's log-odds.
        weights: Weight of each member's logit.
        at_zero: Term of each member for a score of 0.
        reductions: For each member the rule that reduces its boxes to an image score; None for a
            member that gives image scores.
        gate: Scores of the detector's boxes: ``rescaled`` so that the highest of an image equals
            the joint score, ``multiplied`` by the joint score, or ``untouched``.
        gates_tried: Figure of each gate on the validation images; empty if there are no boxes to
            choose by.
    """

    intercept: float
    weights: Items[float]
    at_zero: Items[float]
    reductions: Items[Reduction | None]
    gate: _Gate = "rescaled"
    gates_tried: dict[str, float] = Field(default_factory=dict)

    @property
    def score(self) -> JointScore:
        """Joint score of the members' image scores."""
        return JointScore(self.intercept, self.weights, self.at_zero)


class JointRule(Record):
    """Rule by which the outputs of several systems become those of one joint system, by finding.

    `boxes_by` is the figure whose highest value on validation chose how boxes are gated.
    """

    method: str = METHOD
    boxes_by: str = BOXES_BY
    findings: dict[str, JointFinding]

    def apply(
        self,
        members: Sequence[Predictions],
        image_ids: pd.Index,
        boxes: pd.DataFrame | None,
        held_out: Mapping[str, pd.Series] | None = None,
    ) -> dict[str, pd.DataFrame]:
        """Compute the tables ``scores`` and, with a detector, ``boxes`` of the joint system.

        The members are in the order in which the weights were fitted; `image_ids` ran in all of
        them. `boxes` are those of the detector or the fused ones of several; None without a
        detector. `held_out` has, by finding, the joint scores of validation images, computed with
        weights that were fitted on other patients; they replace those of the rule.
        """
        all_scores = []
        all_boxes = []
        for finding, rule in self.findings.items():
            columns = _score_columns(members, finding, rule.reductions, image_ids)
            scores = pd.Series(rule.score.probability(columns), index=image_ids)
            if held_out:
                scores.loc[held_out[finding].index] = held_out[finding]
            all_scores.append(
                pd.DataFrame(
                    {"image_id": image_ids, "finding": finding, "score": scores.to_numpy()}
                )
            )
            if boxes is not None:
                rows = boxes[(boxes["finding"] == finding).to_numpy()]
                all_boxes.append(gate_boxes(rows, scores, rule.gate))
        tables = {"scores": pd.concat(all_scores, ignore_index=True)}
        if boxes is not None:
            tables["boxes"] = pd.concat(all_boxes, ignore_index=True)
        return tables


def gate_boxes(boxes: pd.DataFrame, scores: pd.Series, gate: _Gate) -> pd.DataFrame:
    """Change the scores of boxes of one finding by the joint scores, given by image id."""
    own = boxes["score"].to_numpy(np.float64)
    joint = scores.reindex(boxes["image_id"]).to_numpy(np.float64)
    if gate == "untouched":
        return boxes
    if gate == "multiplied":
        return boxes.assign(score=own * joint)
    highest = boxes.groupby("image_id")["score"].transform("max").to_numpy(np.float64)
    share = np.divide(own, highest, out=np.ones_like(own), where=highest > 0)
    return boxes.assign(score=share * joint)


@dataclass(frozen=True)
class FittedJoint:
    """A joint rule with what it learned from.

    `held_out` has, by finding, the joint scores of the labelled validation images, computed with
    weights that were fitted on other patients. `fitted_on` are the validation images with a label
    on which weights were fitted.
    """

    rule: JointRule
    held_out: Mapping[str, pd.Series]
    fitted_on: pd.Index


def fit_joint(
    members: Sequence[Predictions],
    truths: Mapping[str, LabelledImages],
    image_ids: pd.Index,
    boxes: pd.DataFrame | None,
    boxes_by: str = BOXES_BY,
) -> FittedJoint:
    """Fit the weights of the members and choose the gate of boxes, on validation images only.

    `truths` has findings that all members predict; `image_ids` ran in every member; `boxes` is that
    of `JointRule.apply`. The gate is that with the highest figure `boxes_by`. An InputError is
    raised if too few validation patients with or without a finding have a known label.
    """
    rules: dict[str, JointFinding] = {}
    held_out: dict[str, pd.Series] = {}
    fitted_on: dict[str, None] = {}
    for finding, truth in truths.items():
        labels = truth.labels_of("val").dropna()
        labels = labels[is_member(labels.index, image_ids)].sort_index()
        patients = truth.patients_of(labels.index)
        positive = labels.to_numpy() == 1
        _require_both_classes(finding, positive, patients, truth.split)
        reductions = tuple(
            choose_reduction(
                read_output(member, _target(finding), labels.index, maps=False), labels, patients
            ).reduction
            for member in members
        )
        columns = _score_columns(members, finding, reductions, labels.index)
        scores = pd.Series(cross_fitted_scores(positive, columns, patients), index=labels.index)
        gate: _Gate = "rescaled"
        tried: dict[str, float] = {}
        if boxes is not None:
            rows = boxes[(boxes["finding"] == finding).to_numpy()]
            gate, tried = _choose_gate(rows, scores, truth, boxes_by)
        score = fit_joint_score(positive, columns)
        rules[finding] = JointFinding(
            intercept=score.intercept,
            weights=score.weights,
            at_zero=score.at_zero,
            reductions=reductions,
            gate=gate,
            gates_tried=tried,
        )
        held_out[finding] = scores
        fitted_on |= dict.fromkeys(labels.index)
    rule = JointRule(method=METHOD, boxes_by=boxes_by, findings=rules)
    return FittedJoint(rule, held_out, pd.Index(fitted_on))


def _choose_gate(
    boxes: pd.DataFrame, scores: pd.Series, truth: LabelledImages, boxes_by: str
) -> tuple[_Gate, dict[str, float]]:
    """Choose the gate with the highest figure on validation; of equal ones the first."""
    evaluated = scores.index.intersection(truth.boxes_trusted).sort_values()
    rows = boxes[is_member(boxes["image_id"], evaluated)].drop(columns="finding")
    together = np.zeros(len(evaluated), dtype=np.int64)
    once = np.ones((1, 1), dtype=np.int64)
    tried: dict[str, float] = {}
    chosen: _Gate = "rescaled"
    for gate in get_args(_Gate):
        pairs = pair_boxes(gate_boxes(rows, scores, gate), truth.true_boxes, evaluated)
        if not (pairs.truth.per_image > 0).any():
            return chosen, {}
        value = float(box_figure(boxes_by, pairs, together, 1)(once)[0])
        if np.isnan(value):
            continue
        tried[gate] = value
        if value > tried.get(chosen, -1.0) + _SAME:
            chosen = gate
    return chosen, tried


def _require_both_classes(
    finding: str, positive: npt.NDArray[np.bool_], patients: npt.NDArray[np.str_], split: str
) -> None:
    """Refuse validation images on which no weights can be fitted."""
    n_with = len(set(patients[positive]))
    n_without = len(set(patients) - set(patients[positive]))
    if not len(patients):
        raise InputError(
            "ensemble: weights are fitted on validation images, and there is none; divide the "
            "images by a column role (val, test) of truth, or by --split of a data set"
        )
    if min(n_with, n_without) < 2:
        raise InputError(
            f"ensemble: weights are fitted on validation images, and those of split '{split}' that "
            f"all members predicted have {n_with} patients with and {n_without} without "
            f"'{finding}'; it takes two of each, so label and predict more validation images"
        )


def _score_columns(
    members: Sequence[Predictions],
    finding: str,
    reductions: Sequence[Reduction | None],
    image_ids: pd.Index,
) -> Floats:
    """Return the image score of each member for a finding, shape ``(N, M)``."""
    columns = [
        read_output(member, _target(finding), image_ids, maps=False).scores(rule)
        for member, rule in zip(members, reductions, strict=True)
    ]
    return np.column_stack(columns)


def _target(finding: str) -> Target:
    return Target(finding, (finding,), finding)
