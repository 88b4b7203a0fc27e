"""Choose the decision rule of a system for a target on validation images.

A rule is stored with a digest of the validation images' labels, scores, boxes and maps, and
`cxr compare` refuses it where one of them has changed since.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.box_choice import (
    BOXES_BY,
    BoxCandidate,
    BoxChoice,
)
from cxr_compare.evaluation.boxes.map_boxes import MapBoxRule, map_box_candidates, map_scale
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.boxes.overlaps import OverlapRule, StoredPairs, overlap_candidates
from cxr_compare.evaluation.choices import Choices, Declared
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.metrics.image_metrics import classification_metrics, confusion_counts
from cxr_compare.evaluation.output import Output, System
from cxr_compare.evaluation.reduction import Reduction
from cxr_compare.evaluation.reduction_choice import choose_reduction
from cxr_compare.evaluation.statistics.bootstrap import cluster_index
from cxr_compare.evaluation.statistics.calibration import (
    METHODS,
    Calibration,
    choose_calibration,
    fit_calibration,
)
from cxr_compare.evaluation.statistics.folds import patient_folds
from cxr_compare.evaluation.thresholds import (
    DECLARED,
    POLICIES,
    ThresholdChoice,
    ValidationScores,
    check_policy,
    choose_threshold,
)
from cxr_compare.evaluation.tuning_options import TuningOptions
from cxr_compare.evaluation.units import Unit, group_images

_CHOOSE = "choose"
_ANY_BOX = 0.5  # between the score 0 of an image without a box and the score 1 of any box
_BOUND_TO = ("inference_id", "content_id", "labels_id", "split", "split_id")
"""Ids that a stored decision must share with the predictions and labels at hand."""


def tune(
    system: System,
    truth: LabelledImages,
    *,
    policies: Sequence[str] = POLICIES,
    options: TuningOptions | None = None,
    unit: Unit = "image",
) -> Choices:
    """Choose a system's thresholds, calibration and rules for boxes on validation images.

    The score of an image is that of its most confident stored box, unless another rule to combine
    the boxes has a significantly higher AUROC. The boxes that are evaluated and drawn are selected
    or made by the rule with the highest mean sensitivity of the FROC curve, or with the highest
    value of the figure that `options` names (see `BoxChoice`). The thresholds are then chosen on
    the image scores.

    With the `unit` ``study`` or ``patient``, calibration and thresholds are computed by study or
    patient, whose score is the highest of its images; all else is chosen on images. If the system
    ran on no validation image of known label, only policies that state their threshold (such as
    ``threshold=0.5``) have one, and the others have a reason instead. An InputError is raised for
    an unknown policy, an image without a valid score, and rules to combine boxes of a system that
    gives image scores.

    Example:
        >>> ids = ["a", "b", "c", "d"]
        >>> images = pd.DataFrame({"image_id": ids, "patient_id": ids, "status": "ok"})
        >>> truth = LabelledImages.from_arrays(pd.Index(ids), [0, 0, 1, 1], role="val")
        >>> scores = pd.DataFrame(
        ...     {"image_id": ids, "finding": "label", "score": [0.125, 0.25, 0.75, 0.875]}
        ... )
        >>> system = System("CheXNet", "scores", images, scores)
        >>> tune(system, truth, policies=["max_f1"]).thresholds["max_f1"].threshold
        0.5
    """
    options = options or TuningOptions()
    policies = tuple(dict.fromkeys(policies))
    if options.reductions and system.kind != "boxes":
        raise InputError(
            f"{system.source}: {system.name} gives image scores, so there are no boxes "
            "to reduce; leave reductions out"
        )
    if not system.has_scores:
        return _as_decided(system, truth, policies, options)
    is_ranks_only = _has_ranks_only(system, policies, options)
    y_true = _validation_labels(system, truth)
    ids = y_true.index
    output = system.output_on(ids)
    chosen_on = {
        **_decision_ids(system, truth),
        "digest": _digest(output, y_true),
        **_validation_counts(truth, y_true),
    }
    if not len(ids):
        return Choices(
            target=truth.finding,
            chosen_on=chosen_on,
            reduction=Reduction("max") if output.reduces_boxes else None,
            thresholds=_thresholds_without_images(policies, truth.split),
            options=options,
        )
    patients = truth.patients_of(ids)
    folds = None
    if options.calibration == _CHOOSE:
        folds = patient_folds(patients, y_true.to_numpy() == 1)
    reduced = choose_reduction(output, y_true, patients, options.reductions)
    scale = None if output.gives_boxes or output.maps is None else map_scale(output.maps)
    box_choice = _box_choice(output, reduced.scores, scale, truth, options.boxes_by)
    box_rule = None if box_choice is None else box_choice.rule
    labels = y_true.to_numpy(np.float64)
    scores = reduced.scores.to_numpy(np.float64)
    if unit != "image":  # a study or patient scores as the highest of its images
        units = group_images(truth, ids, unit, role="val")
        labels = units.highest(labels)
        scores = units.highest(scores)
        patients = units.first(patients)
        folds = None if folds is None else units.first(folds)
    images = ValidationScores(labels == 1, scores, patients)
    calibration, losses = (None, {}) if is_ranks_only else _calibrate(images, folds, options)
    thresholds = {
        policy: choose_threshold(images.y_true, images.scores, policy) for policy in policies
    }
    return Choices(
        target=truth.finding,
        chosen_on=chosen_on,
        reduction=reduced.reduction,
        box_cut=None if box_choice is None else box_choice.cut,
        calibration=calibration,
        map_scale=scale,
        map_boxes=box_rule if isinstance(box_rule, MapBoxRule) else None,
        overlap=box_rule.limit if isinstance(box_rule, OverlapRule) else None,
        thresholds=thresholds,
        validation=_validation_figures(images, thresholds),
        tried=reduced.tried,
        boxes_tried=[] if box_choice is None else box_choice.figures(),
        options=options,
        losses=losses,
        chosen_scores=images,
        box_choice=box_choice,
    )


def _as_decided(
    system: System, truth: LabelledImages, policies: Sequence[str], options: TuningOptions
) -> Choices:
    """Return the choices of a system without scores, which decided itself: an operating point.

    An image with a box is called positive, whatever the policy is, and every box is called.
    """
    y_true = _validation_labels(system, truth)
    return Choices(
        target=truth.finding,
        chosen_on={
            **_decision_ids(system, truth),
            "digest": _digest(system.output_on(y_true.index), y_true),
            **_validation_counts(truth, y_true),
        },
        reduction=Reduction("max"),
        thresholds={policy: ThresholdChoice(policy, _ANY_BOX) for policy in policies},
        box_cut=_ANY_BOX,
        options=options,
    )


def declare(decision: Choices, declared: Declared) -> Choices:
    """Add a declared threshold to a decision that was chosen now, under the policy ``declared``.

    It replaces an earlier declared threshold. Its figures on the validation images are added too;
    they are empty without `Choices.chosen_scores`.

    Example:
        >>> scores = ValidationScores([False, True], [0.2, 0.8], ["p", "q"])
        >>> decision = Choices(target="opacity", chosen_on={}, chosen_scores=scores)
        >>> declare(decision, Declared("screening", 0.1, "our study")).validation["declared"]["fp"]
        1.0
    """
    choice = ThresholdChoice(DECLARED, declared.threshold)
    figures = {}
    if decision.chosen_scores is not None:
        figures = _validation_figures(decision.chosen_scores, {DECLARED: choice})[DECLARED]
    return decision.with_values(
        declared=declared,
        thresholds={**decision.thresholds, DECLARED: choice},
        validation={**decision.validation, DECLARED: figures},
    )


def checked_decision(
    name: str,
    system: System,
    truth: LabelledImages,
    policies: Sequence[str],
    extra_policies: Sequence[str] = (),
    *,
    boxes_by: str = BOXES_BY,
) -> Choices:
    """Return a system's stored thresholds and rules, or choose them on validation images.

    Stored ones are taken as they are, with the thresholds of `extra_policies` added, if the digest
    that is stored with them is that of the labels, scores, boxes and maps of the validation images.
    Otherwise they are refused with an InputError. `policies` and `boxes_by` (short name of the
    figure that chooses the rule for boxes) are used only if nothing is stored.
    """
    if system.decision is None:
        requested = list(dict.fromkeys((*policies, *extra_policies)))
        return tune(system, truth, policies=requested, options=TuningOptions(boxes_by=boxes_by))
    stored: Choices = system.decision
    ids = _decision_ids(system, truth)
    for key in _BOUND_TO:
        if stored.chosen_on.get(key) != ids[key]:
            raise InputError(
                f"{system.source}: the decision of {name} was chosen with {key} "
                f"{stored.chosen_on.get(key)}, here it is {ids[key]}; predict it again"
            )
    y_true = _validation_labels(system, truth)
    output = system.output_on(y_true.index)
    if stored.chosen_on.get("digest") != _digest(output, y_true):
        raise InputError(
            f"{system.source}: the decision of {name} was chosen on other scores or labels of the "
            "validation images than these; predict it again"
        )
    return _with_validation(stored, output, y_true, truth, extra_policies)


def _with_validation(
    stored: Choices,
    output: Output,
    y_true: pd.Series,
    truth: LabelledImages,
    extra_policies: Sequence[str],
) -> Choices:
    """Add to stored choices the validation images that they rest on, and further thresholds."""
    scores = output.scores(stored.reduction)
    images = ValidationScores(
        y_true.to_numpy() == 1, scores.to_numpy(np.float64), truth.patients_of(y_true.index)
    )
    further = {
        policy: choose_threshold(images.y_true, images.scores, policy)
        for policy in extra_policies
        if policy not in stored.thresholds
    }
    return stored.with_values(
        thresholds=stored.thresholds | further,
        validation=_validation_figures(images, further) | stored.validation,
        chosen_scores=images,
        box_choice=_box_choice(output, scores, stored.map_scale, truth, stored.options.boxes_by),
    )


def _digest(output: Output, y_true: pd.Series) -> str:
    """Return a digest of the labels of validation images, and of the output on them."""
    digest = hashlib.sha256("\n".join(y_true.index.astype(str)).encode())
    digest.update(y_true.to_numpy(np.float64).tobytes())
    for table, numbers in (
        (output.finding_scores, ["score"]),
        (output.finding_boxes, [*EDGES, "score"]),
        (output.finding_maps, EDGES),
    ):
        rows = table.sort_values(["image_id", "finding", *numbers])
        for column in ("image_id", "finding"):
            digest.update("\n".join(rows[column].astype(str).tolist()).encode())
        digest.update(rows[list(numbers)].to_numpy(np.float64).tobytes())
        for values in rows.get("values", ()):
            digest.update(np.asarray(values, np.float32).tobytes())
    return digest.hexdigest()[:16]


def validation_scores(system: System, decision: Choices, truth: LabelledImages) -> pd.DataFrame:
    """Compute the scores of the validation images in the same way as those of test images.

    The table has the columns ``label`` (0 or 1) and ``score`` and is indexed by image id. Images of
    unknown label, or on which the system did not run, are left out.
    """
    y_true = _validation_labels(system, truth)
    if y_true.empty:
        return pd.DataFrame({"label": [], "score": []}, dtype=np.float64)
    output = system.output_on(y_true.index)
    return pd.DataFrame({"label": y_true, "score": output.scores(decision.reduction)})


def _validation_labels(system: System, truth: LabelledImages) -> pd.Series:
    """Return the labels, by image id, of the validation images that a decision may be chosen on."""
    labels = truth.labels_of("val").dropna()
    return labels.reindex(labels.index.intersection(system.images_run).sort_values())


def _validation_counts(truth: LabelledImages, y_true: pd.Series) -> dict[str, Any]:
    n_labelled = int(truth.labels_of("val").notna().sum())
    return {
        "role": "val",
        "n_images": len(y_true),
        "n_patients": cluster_index(truth.patients_of(y_true.index))[1],
        "n_positive": int(y_true.sum()),
        "n_not_run": n_labelled - len(y_true),
    }


def _has_ranks_only(system: System, policies: Sequence[str], options: TuningOptions) -> bool:
    """Return True if image scores are outside [0, 1]; refuse what needs probabilities."""
    if system.kind != "scores" or system.scores.empty:
        return False
    scores = system.scores["score"]
    low, high = system.facts.score_range or (scores.min(), scores.max())
    if not (low < 0 or high > 1):
        return False
    declared = [policy for policy in policies if check_policy(policy).kind == "threshold"]
    if declared or options.calibration:
        asked = declared[0] if declared else f"calibration {options.calibration}"
        raise InputError(
            f"{system.name}: {asked} needs scores in [0, 1], and these lie between "
            f"{low:g} and {high:g}; give probabilities, or leave it out"
        )
    return True


def _decision_ids(system: System, truth: LabelledImages) -> dict[str, Any]:
    return {"inference_id": system.facts.inference_id, **truth.ids}


def _thresholds_without_images(policies: Sequence[str], split: str) -> dict[str, ThresholdChoice]:
    reason = f"the system ran on no validation image of split '{split}'"
    thresholds = {}
    for policy in policies:
        if check_policy(policy).kind == "threshold":
            thresholds[policy] = choose_threshold([], [], policy)
        else:
            thresholds[policy] = ThresholdChoice(policy, None, reason)
    return thresholds


def _box_choice(
    output: Output,
    scores: pd.Series,
    scale: tuple[float, float] | None,
    truth: LabelledImages,
    metric: str,
) -> BoxChoice | None:
    """Prepare the choice of boxes; None for a system without boxes and maps."""
    evaluated = output.image_ids.intersection(truth.boxes_trusted).sort_values()
    candidates: list[BoxCandidate] = []
    if output.gives_boxes:
        stored = StoredPairs.on_images(output.overlapping, truth.true_boxes, evaluated)
        candidates += (BoxCandidate(*each) for each in overlap_candidates(stored))
    elif output.maps is not None and scale is not None:
        for rule, boxes in map_box_candidates(output.maps, scores, scale):
            candidates.append(BoxCandidate(rule, pair_boxes(boxes, truth.true_boxes, evaluated)))
    else:
        return None
    return BoxChoice(candidates, truth.patients_of(evaluated), metric)


def _calibrate(
    images: ValidationScores, folds: npt.NDArray[np.int64] | None, options: TuningOptions
) -> tuple[Calibration | None, dict[str, float]]:
    """Fit the map from scores to probabilities, and return the log losses that chose its method."""
    if folds is not None:
        return choose_calibration(images.y_true, images.scores, folds, METHODS)
    method: Any = options.calibration or "platt"
    return fit_calibration(method, images.y_true, images.scores), {}


def _validation_figures(
    images: ValidationScores, thresholds: Mapping[str, ThresholdChoice]
) -> dict[str, dict[str, Any]]:
    """Compute the figures on validation, by policy; those that need no threshold are under ""."""
    truth = images.y_true
    scores = images.scores
    without_threshold = classification_metrics(truth, scores)
    figures: dict[str, dict[str, Any]] = {"": without_threshold}
    for policy, choice in thresholds.items():
        figures[policy] = {}
        if choice.threshold is None:
            continue
        counts = confusion_counts(truth, scores, choice.threshold)
        metrics = classification_metrics(truth, scores, choice.threshold)
        figures[policy] = counts | {
            name: value for name, value in metrics.items() if name not in without_threshold
        }
    return figures
