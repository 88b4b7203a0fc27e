"""A decision rule per system and target: everything that validation images choose.

`cxr tune` writes it, `cxr compare` derives it again from the same rows and refuses where the two
differ: no threshold can have been chosen on test images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from data_prep.contracts.tables import InputError
from data_prep.store.dataset import DataSet, Target
from data_prep.store.predictions import Predictions
from evaluation.boxes.box_rule import AS_STORED
from evaluation.decisions.choices import Asked
from evaluation.decisions.decision import Decision
from evaluation.decisions.reduction import Reduction
from evaluation.decisions.referral import Referral, choose_referral, doubt_of
from evaluation.decisions.search_space import Search
from evaluation.decisions.system_output import Evidence
from evaluation.decisions.thresholds import (
    POLICIES,
    ThresholdChoice,
    check_policy,
    choose_threshold,
)
from evaluation.decisions.tuning_record import (
    JudgedScores,
    calibrate_scores,
    gather_units,
    read_places,
    score_images,
    validation_rows,
)
from evaluation.decisions.units import Unit
from evaluation.metrics.image_metrics import classification_metrics, confusion_counts

__all__ = ["CHOSEN_ON", "Decision", "checked_decision", "decision_ids", "tune"]

CHOSEN_ON = ("inference_id", "content_id", "labels_id", "split", "split_id")


def tune(
    predictions: Predictions,
    dataset: DataSet,
    target: Target,
    *,
    split: str = "default",
    policies: Sequence[str] = POLICIES,
    search: Search | None = None,
    asked: Asked | None = None,
    unit: Unit = "image",
    advance: Callable[[int], None] | None = None,
) -> Decision:
    """Choose a system's decision rule on the validation images of a split.

    An image scores as its highest box, unless another rule's AUROC is higher by more than chance;
    the level of map boxes is the one with the highest AP50, among equals the highest. A search
    chooses the fusion and scale of a detector's boxes, too, or how a classifier's maps become
    boxes. Thresholds follow.

    Args:
        predictions: The system.
        dataset: Labels and split.
        target: What is judged.
        split: Name of the split whose ``val`` images are used.
        policies: See `evaluation.decisions.thresholds.check_policy`.
        search: What to search, and for what; by default boxes stay as they are stored.
        asked: What else is asked for: calibration, reductions, referral.
        unit: Calibration, thresholds and referral are of images, studies or patients; a study's
            or patient's score is the highest of its images. All else is chosen on images.
        advance: Called with the steps of the search done.

    Returns:
        The decision. Where the system ran on no validation image of known label, its thresholds
        are `None` with that reason, but for declared ones, and nothing else is chosen.

    Raises:
        InputError: A policy is unknown, the predictions are broken, or there is nothing to search.
    """
    asked = asked or Asked()
    _check_boxes(predictions, search, asked)
    rows = validation_rows(predictions, dataset, target, split)
    chosen_on = decision_ids(predictions, dataset, split) | rows.counts
    evidence = Evidence(predictions, target, rows.image_ids)
    if not len(rows.image_ids):
        reason = f"the system ran on no validation image of split '{split}'"
        none = {policy: _without_validation(policy, reason) for policy in policies}
        reduction = Reduction("max") if evidence.gives_boxes else None
        return Decision(target.name, chosen_on, reduction=reduction, thresholds=none, asked=asked)
    scored = score_images(evidence, rows, dataset, search, asked, advance)
    placed = read_places(scored, rows, dataset, search, advance)
    judged = gather_units(scored, rows, dataset, unit, asked)
    calibration, told = calibrate_scores(judged, scored, asked, unit)
    thresholds = {
        policy: choose_threshold(judged.y_true, judged.scores, policy) for policy in policies
    }
    return Decision(
        target=target.name,
        chosen_on=chosen_on,
        reduction=scored.reduced.reduction,
        boxes=scored.swept.rule if scored.swept else AS_STORED,
        box_cut=placed.cut,
        search=placed.record if placed.record is None else placed.record | told.searched,
        calibration=calibration,
        map_scale=placed.scale,
        map_boxes=placed.rule,
        thresholds=thresholds,
        validation=_validation_figures(judged, thresholds),
        tried=scored.reduced.tried + placed.tried,
        asked=asked,
        choices=told.choices,
        referral=_choose_referrals(judged.scores, judged.spread, thresholds, asked.refer),
    )


def _check_boxes(predictions: Predictions, search: Search | None, asked: Asked) -> None:
    if asked.reductions and predictions.kind != "boxes":
        raise InputError(
            f"{predictions.folder}: {predictions.name} gives image scores, so there are no boxes "
            "to reduce; tune it without --reduction"
        )
    if asked.reductions and search is not None:
        raise InputError("tune: --search tries reductions of its own; leave out --reduction")


def checked_decision(
    name: str,
    system: Predictions,
    dataset: DataSet,
    target: Target,
    split: str,
    policies: Sequence[str],
    extra_policies: Sequence[str] = (),
) -> tuple[Decision, list[str]]:
    """A system's decision, derived from its validation rows and held against the stored one.

    Args:
        name: Display name, for messages.
        system: Its predictions.
        dataset: Labels and split.
        target: What is judged.
        split: Name of the split.
        policies: Used where no decision is stored.
        extra_policies: Used in any case.

    Returns:
        The decision and notes on it.

    Raises:
        InputError: The stored decision was chosen on something else, or differs.
    """
    payload = system.decision(target.name)
    if payload is None:
        wanted = list(dict.fromkeys((*policies, *extra_policies)))
        derived = tune(system, dataset, target, split=split, policies=wanted)
        if not derived.chosen_on["n_images"]:
            given = any(choice.threshold is not None for choice in derived.thresholds.values())
            declared = ", and declared thresholds," if given else ""
            kind = f"threshold-free figures{declared}"
            return derived, [f"{name} has no validation images: {kind} only."]
        return derived, [f"{name} was not tuned before: its decision is derived here."]
    stored = Decision.from_json(payload)
    here = decision_ids(system, dataset, split)
    for key in CHOSEN_ON:
        if stored.chosen_on.get(key) != here[key]:
            raise InputError(
                f"{system.folder}: the decision of {name} was chosen with {key} "
                f"{stored.chosen_on.get(key)}, here it is {here[key]}; run cxr tune again"
            )
    derived = tune(
        system,
        dataset,
        target,
        split=split,
        policies=list(dict.fromkeys((*stored.thresholds, *extra_policies))),
        search=Search.from_json(stored.search),
        asked=stored.asked,
    )
    changed = stored.difference(derived)
    if changed:
        raise InputError(
            f"{system.folder}: the decision of {name} is not what its validation images give "
            f"({changed}); run cxr tune again"
        )
    return derived, []  # it agrees, and tells what an older program did not tell yet


def _without_validation(policy: str, reason: str) -> ThresholdChoice:
    if check_policy(policy).kind == "threshold":
        return choose_threshold([], [], policy)
    return ThresholdChoice(policy, None, reason)


def _choose_referrals(
    scores: pd.Series,
    spread: pd.Series | None,
    thresholds: dict[str, ThresholdChoice],
    share: float | None,
) -> dict[str, Referral]:
    if share is None:
        return {}
    by, known = ("nearness", None) if spread is None else ("spread", spread.to_numpy())
    return {
        name: choose_referral(doubt_of(scores, choice.threshold, known), share, by)
        for name, choice in thresholds.items()
        if choice.threshold is not None
    }


def decision_ids(predictions: Predictions, dataset: DataSet, split: str) -> dict[str, Any]:
    """What a decision is bound to: `CHOSEN_ON`."""
    ids = dataset.ids
    return {
        "inference_id": predictions.info.get("inference_id"),
        "content_id": ids["content_id"],
        "labels_id": ids["labels_id"],
        "split": split,
        "split_id": ids.get("split_ids", {}).get(split),
    }


def _validation_figures(
    judged: JudgedScores, thresholds: dict[str, ThresholdChoice]
) -> dict[str, dict[str, Any]]:
    """By policy, and under "" the threshold-free ones."""
    at = {name: _figures(judged.y_true, judged.scores, c) for name, c in thresholds.items()}
    return {"": classification_metrics(judged.y_true, judged.scores)} | at


def _figures(y_true: pd.Series, scores: pd.Series, choice: ThresholdChoice) -> dict[str, Any]:
    if choice.threshold is None:
        return {}
    figures = classification_metrics(y_true, scores, choice.threshold)
    return confusion_counts(y_true, scores, choice.threshold) | {
        name: figure
        for name, figure in figures.items()
        if name not in ("auroc", "average_precision")
    }
