"""A decision rule per system and target: everything that validation images choose.

`cxr tune` writes it, `cxr compare` derives it again from the same rows and refuses where the two
differ: no threshold can have been chosen on test images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from data_prep.dataset import DataSet, Target
from data_prep.predictions import Predictions
from data_prep.tables import InputError
from evaluation.bootstrap import cluster_index
from evaluation.box_rule import AS_STORED
from evaluation.calibration import Calibration
from evaluation.calibration_fits import choose_calibration, fit_platt
from evaluation.choices import (
    CHOOSE,
    Asked,
    ReducedScores,
    calibrate,
    choose_among,
    choose_box_cut,
    choose_map_boxes,
    choose_reduction,
)
from evaluation.decision_rule import Decision
from evaluation.evidence import Evidence, images_run, patients_of
from evaluation.map_search import MapSearchResult, search_map_boxes
from evaluation.metrics import classification_metrics, confusion_counts
from evaluation.reduction import Reduction
from evaluation.referral import Referral, choose_referral, doubt_of
from evaluation.search_space import Search
from evaluation.selection import patient_folds
from evaluation.sweep import sweep
from evaluation.sweep_images import sweep_images
from evaluation.thresholds import POLICIES, ThresholdChoice, check_policy, choose_threshold
from evaluation.units import Unit, gather

__all__ = ["CHOSEN_ON", "Decision", "decision_ids", "tune"]

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

    The reduction rule is the one with the highest AUROC, the level of map boxes the one with the
    highest AP50; among equals the simpler rule and the highest level. A search chooses the fusion
    and scale of a detector's boxes, too, or how a classifier's maps become boxes. Thresholds
    follow.

    Args:
        predictions: The system.
        dataset: Labels and split.
        target: What is judged.
        split: Name of the split whose ``val`` images are used.
        policies: See `evaluation.thresholds.check_policy`.
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
    labels = dataset.labels(target).reindex(dataset.image_ids("val", split))
    known = labels.dropna()
    ran = known.index.intersection(images_run(predictions)).sort_values()
    y_true = known.reindex(ran)
    chosen_on = decision_ids(predictions, dataset, split) | {
        "role": "val",
        "n_images": len(ran),
        "n_patients": cluster_index(patients_of(dataset.images, ran))[1],
        "n_positive": int(y_true.sum()),
        "n_not_run": len(known) - len(ran),
    }
    evidence = Evidence(predictions, target, ran)
    if not len(ran):
        reason = f"the system ran on no validation image of split '{split}'"
        none = {policy: _without_validation(policy, reason) for policy in policies}
        reduction = Reduction("max") if evidence.gives_boxes else None
        return Decision(target.name, chosen_on, reduction=reduction, thresholds=none, asked=asked)
    found, folds = None, None
    if asked.reductions or asked.calibration == CHOOSE:
        folds = patient_folds(patients_of(dataset.images, ran), y_true.to_numpy() == 1)
    if search is not None and evidence.gives_boxes:
        found = sweep(sweep_images(evidence, y_true, dataset), search, advance)
        evidence = Evidence(predictions, target, ran, found.rule, dataset.images)
        scored = ReducedScores(found.reduction, evidence.scores(found.reduction), found.best)
    elif asked.reductions and folds is not None:
        scored = choose_among(evidence, y_true, asked.reductions, folds)
    else:
        scored = choose_reduction(evidence, y_true)
    scale, rule, levels_tried = choose_map_boxes(evidence, scored.scores, dataset)
    read = None
    if search is not None and found is None:
        read = _search_maps(evidence, y_true, scored.scores, scale, dataset, search, advance)
        rule, levels_tried = read.rule, read.best
    chosen_by = found or read
    record = None if chosen_by is None else dict(chosen_by.record)
    if chosen_by is None:
        cut = choose_box_cut(evidence, evidence.boxes(scored.scores, scale, rule), dataset)
    else:
        cut = chosen_by.cut
    choices = {} if scored.record is None else {"reduction": scored.record}
    truth, scores, spread = y_true, scored.scores, evidence.spread() if asked.refer else None
    if unit != "image":
        units = gather(dataset.images, labels, ran, unit)
        truth, scores = (pd.Series(units.highest(v), units.names) for v in (y_true, scores))
        spread = None if spread is None else pd.Series(units.highest(spread), units.names)
        folds = None if folds is None else units.first(folds)
    calibration: Calibration | None = fit_platt(truth, scores)
    if asked.calibration is not None:
        calibration, losses = calibrate(asked.calibration, truth, scores, folds)
        choices |= {} if losses is None else {"calibration": losses}
    elif found is not None and record is not None and unit == "image":
        calibration, record["calibration"] = choose_calibration(truth, scores, found.folds)
    thresholds = {policy: choose_threshold(truth, scores, policy) for policy in policies}
    return Decision(
        target=target.name,
        chosen_on=chosen_on,
        reduction=scored.reduction,
        boxes=found.rule if found else AS_STORED,
        box_cut=cut,
        search=record,
        calibration=calibration,
        map_scale=scale,
        map_boxes=rule,
        thresholds=thresholds,
        validation={"": classification_metrics(truth, scores)}
        | {name: _figures(truth, scores, choice) for name, choice in thresholds.items()},
        tried=scored.tried + levels_tried,
        asked=asked,
        choices=choices,
        referral=_choose_referrals(scores, spread, thresholds, asked.refer),
    )


def _check_boxes(predictions: Predictions, search: Search | None, asked: Asked) -> None:
    if asked.reductions and predictions.kind != "boxes":
        raise InputError(
            f"{predictions.folder}: {predictions.name} gives image scores, so there are no boxes "
            "to reduce; tune it without --reduction"
        )
    if asked.reductions and search is not None:
        raise InputError("tune: --search tries reductions of its own; leave out --reduction")


def _search_maps(
    evidence: Evidence,
    y_true: pd.Series,
    scores: pd.Series,
    scale: tuple[float, float] | None,
    dataset: DataSet,
    search: Search,
    advance: Callable[[int], None] | None,
) -> MapSearchResult:
    if evidence.maps is None or scale is None:
        system = evidence.predictions
        raise InputError(
            f"{system.folder}: {system.name} gives neither boxes nor maps, so there is nothing to "
            "search; tune it without --search"
        )
    images = sweep_images(evidence, y_true, dataset)
    return search_map_boxes(images, evidence.maps, scores, scale, search, advance)


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


def _figures(y_true: pd.Series, scores: pd.Series, choice: ThresholdChoice) -> dict[str, Any]:
    if choice.threshold is None:
        return {}
    figures = classification_metrics(y_true, scores, choice.threshold)
    return confusion_counts(y_true, scores, choice.threshold) | {
        name: figure
        for name, figure in figures.items()
        if name not in ("auroc", "average_precision")
    }
