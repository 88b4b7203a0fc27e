"""A decision rule per system and target: everything that validation images choose.

`cxr tune` writes it, `cxr compare` derives it again from the same rows and refuses where the two
differ: no threshold can have been chosen on test images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.boxes.average_precision import WeightedAveragePrecision
from cxr_compare.evaluation.boxes.lesion_hits import find_lesions
from cxr_compare.evaluation.boxes.map_boxes import MAP_BOX_LEVELS, MapBoxRule, map_scale
from cxr_compare.evaluation.boxes.matching import match_pairs, pair_boxes
from cxr_compare.evaluation.boxes.pointing import points_in_boxes
from cxr_compare.evaluation.decisions.decision import (
    BoxCutChoice,
    Decision,
    Outcome,
    Triage,
    TuningOptions,
)
from cxr_compare.evaluation.decisions.ground_truth import EvaluationSet, GroundTruth
from cxr_compare.evaluation.decisions.guarantees import (
    MOST_MARKS,
    Guarantee,
    GuaranteedRate,
    GuaranteeImages,
    Places,
    read_guarantee,
)
from cxr_compare.evaluation.decisions.reduction import CANDIDATES, Reduction
from cxr_compare.evaluation.decisions.system_output import System, SystemOutput
from cxr_compare.evaluation.decisions.thresholds import (
    POLICIES,
    ThresholdChoice,
    ValidationScores,
    check_policy,
    choose_threshold,
)
from cxr_compare.evaluation.decisions.units import Unit, group_images
from cxr_compare.evaluation.metrics.image_metrics import (
    auroc,
    classification_metrics,
    confusion_counts,
)
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.bootstrap import cluster_index
from cxr_compare.evaluation.statistics.calibration import (
    METHODS,
    Calibration,
    choose_calibration,
    fit_calibration,
)
from cxr_compare.evaluation.statistics.clustered_auroc import auroc_difference
from cxr_compare.evaluation.statistics.clustered_share import exact_share
from cxr_compare.evaluation.statistics.folds import patient_folds

_CHOOSE = "choose"
_DEFAULT_LEVEL = 0.5
_SAME = 1e-9
_USUAL_SHARE = 0.9
_LEARNED = (
    "the system learned from patients of {} validation images, so nothing is guaranteed by them"
)


def _validation_labels(system: System, truth: GroundTruth) -> tuple[pd.Series, dict[str, Any]]:
    """Labels of the validation images that a decision may be chosen on, by id; and their counts."""
    known = truth.labels_of("val").dropna()
    ran = known.index.intersection(system.images_run).sort_values()
    y_true = known.reindex(ran)
    return y_true, {
        "role": "val",
        "n_images": len(ran),
        "n_patients": cluster_index(truth.patients(ran))[1],
        "n_positive": int(y_true.sum()),
        "n_not_run": len(known) - len(ran),
    }


def validation_scores(system: System, decision: Decision, truth: GroundTruth) -> pd.DataFrame:
    """Score the validation images as the test images are scored."""
    y_true, _ = _validation_labels(system, truth)
    if y_true.empty:
        return pd.DataFrame({"label": [], "score": []}, dtype=np.float64)
    output = system.output_on(y_true.index)
    return pd.DataFrame({"label": y_true, "score": output.scores(decision.reduction)})


@dataclass(frozen=True)
class _ReducedScores:
    """A reduction, the validation scores that it gives, and how it was chosen."""

    reduction: Reduction | None  # `None` for a system that gives image scores
    scores: pd.Series  # of the validation images
    tried: list[dict[str, Any]]  # every setting with its figure
    # Of the error of a guarantee: it is of a score that the same images chose, so the chances of
    # all reductions must add up; the usual one takes most.
    error_share: float = 1.0


def _choose_reduction(
    output: SystemOutput,
    y_true: pd.Series,
    patients: npt.NDArray[np.str_],
    rules: Sequence[str] = (),
) -> _ReducedScores:
    """The highest box, unless another rule's AUROC on validation is higher by more than chance.

    Of the `rules` that the user names, or of all; where ``max`` is not named, the simplest named.

    More than chance: p below 0.05 for the paired difference, by patient, divided by the number of
    other rules; of several such rules the one with the highest AUROC. Simply the highest AUROC
    can be luck where validation is small: on 68 images a fold it cost 0.010 of AUROC on test.
    """
    if not output.gives_boxes:
        return _ReducedScores(None, output.scores(None), [])
    candidates = [each for each in CANDIDATES if not rules or each.rule in rules]
    level = 0.05 / max(len(candidates) - 1, 1)
    columns = [output.scores(candidate) for candidate in candidates]
    figures = [auroc(y_true, column) for column in columns]
    # One score for all has AUROC 0.5, more than a weak detector, and allows no threshold.
    usable = [place for place, column in enumerate(columns) if column.nunique() > 1] or [0]
    best, best_gap = usable[0], 0.0
    for place in usable[1:]:
        gap = auroc_difference(y_true, columns[place], columns[usable[0]], patients)
        if gap is None or gap.p_value is None or gap.p_value >= level:
            continue
        if gap.value > best_gap + _SAME:
            best, best_gap = place, gap.value
    tried = [
        {"rule": candidate.rule, "min_score": candidate.min_score, "auroc": figure}
        for candidate, figure in zip(candidates, figures, strict=True)
    ]
    share = _USUAL_SHARE if best == 0 else (1 - _USUAL_SHARE) / (len(candidates) - 1)
    only = len(candidates) == 1
    return _ReducedScores(candidates[best], columns[best], tried, 1.0 if only else share)


def _box_cut_choice(
    output: SystemOutput, boxes: pd.DataFrame | None, truth: GroundTruth
) -> BoxCutChoice | None:
    """What the score cut of boxes is chosen on."""
    if boxes is None:
        return None
    evaluated = output.image_ids.intersection(truth.boxes_trusted).sort_values()
    pairs = pair_boxes(boxes, truth.true_boxes, evaluated)
    return BoxCutChoice(pairs, truth.patients(evaluated))


def _places(output: SystemOutput, scores: pd.Series, truth: GroundTruth) -> Places:
    """Where the system marks its images, for guarantees of places.

    A box is shown on a positive image from its own score on, its highest box always.
    """
    ids = output.image_ids
    boxed, points = ids.isin(truth.boxes_trusted), output.points()
    on_lesion = None if points is None else points_in_boxes(points, truth.true_boxes)
    if not output.gives_boxes:
        return Places(boxed, on_lesion)
    finds = find_lesions(pair_boxes(output.predicted_boxes, truth.true_boxes, ids))
    image = finds.mark_image[finds.false]
    own, of_image = finds.mark_score[finds.false], scores.to_numpy(np.float64)[image]
    highest = np.full(len(ids), -np.inf)
    np.maximum.at(highest, finds.mark_image, finds.mark_score)
    shown = np.where(own == highest[image], of_image, np.minimum(own, of_image))
    return Places(boxed, on_lesion, (image, shown))


def _choose_map_boxes(
    output: SystemOutput, scores: pd.Series, truth: GroundTruth
) -> tuple[tuple[float, float] | None, MapBoxRule | None, list[dict[str, Any]]]:
    """The map scale, and the level at which its boxes reach the highest AP50."""
    if output.gives_boxes or output.maps is None:
        return None, None, []
    scale = map_scale(output.maps)
    evaluated = output.image_ids.intersection(truth.boxes_trusted).sort_values()
    level, best_figure, tried = _DEFAULT_LEVEL, 0.0, []
    for candidate in MAP_BOX_LEVELS:
        boxes = MapBoxRule(candidate).apply(output.maps, scores, scale)
        matches = match_pairs(pair_boxes(boxes, truth.true_boxes, evaluated), [0.5])
        every = np.zeros(len(evaluated), dtype=np.int64)
        figure = WeightedAveragePrecision(matches, every, 1)(np.ones((1, 1), dtype=np.int64))[0, 0]
        tried.append({"map_box_level": candidate, "ap50": None if np.isnan(figure) else figure})
        if figure >= best_figure - _SAME and figure > 0:
            level, best_figure = candidate, float(figure)
    return scale, MapBoxRule(level), tried


def _calibrate(
    images: GuaranteeImages, folds: npt.NDArray[np.int64] | None, options: TuningOptions
) -> tuple[Calibration | None, dict[str, float]]:
    """How scores become probabilities, by default Platt's; also the log losses that decided."""
    if folds is not None:
        return choose_calibration(images.y_true, images.scores, folds, METHODS)
    method: Any = options.calibration or "platt"
    return fit_calibration(method, images.y_true, images.scores), {}


_CHOSEN_ON = ("inference_id", "content_id", "labels_id", "split", "split_id")


def tune(
    system: System,
    truth: GroundTruth,
    *,
    policies: Sequence[str] = POLICIES,
    options: TuningOptions | None = None,
    unit: Unit = "image",
) -> Decision:
    """Choose a system's decision rule on the validation images of a split.

    An image scores as its highest box, unless another rule's AUROC is higher by more than chance;
    the level of map boxes is the one with the highest AP50, among equals the highest. Thresholds
    follow.

    Args:
        system: The system.
        truth: Ground truth; its ``val`` images are used.
        policies: See `evaluation.decisions.thresholds.check_policy`.
        options: What else is chosen: calibration, reductions, triage.
        unit: Calibration and thresholds are of images, studies or patients; a study's or
            patient's score is the highest of its images. All else is chosen on images.

    Returns:
        The decision. Where the system ran on no validation image of known label, its thresholds
        are `None` with that reason, but for declared ones, and nothing else is chosen.

    Raises:
        InputError: A policy is unknown, the output is broken, or has no boxes to reduce.
    """
    options = options or TuningOptions()
    policies = tuple(dict.fromkeys((*policies, *options.triage)))
    if options.reductions and system.kind != "boxes":
        raise InputError(
            f"{system.source}: {system.name} gives image scores, so there are no boxes "
            "to reduce; tune it without --reduction"
        )
    y_true, chosen_on = _validation_labels(system, truth)
    chosen_on = _decision_ids(system, truth) | chosen_on
    ids = y_true.index
    output = system.output_on(ids)
    if not len(ids):
        reason = f"the system ran on no validation image of split '{truth.split}'"
        none = {
            policy: choose_threshold([], [], policy)
            if check_policy(policy).kind == "threshold"
            else ThresholdChoice(policy, None, reason)
            for policy in policies
        }
        reduction = Reduction("max") if output.gives_boxes else None
        return Decision(
            truth.finding, chosen_on, reduction=reduction, thresholds=none, options=options
        )
    patients, folds = truth.patients(ids), None
    if options.calibration == _CHOOSE:
        folds = patient_folds(patients, y_true.to_numpy() == 1)
    reduced = _choose_reduction(output, y_true, patients, options.reductions)
    scale, rule, tried = _choose_map_boxes(output, reduced.scores, truth)
    boxes = output.boxes(reduced.scores, scale, rule)
    cut_choice = _box_cut_choice(output, boxes, truth)
    labels = y_true.to_numpy(np.float64)
    scores = reduced.scores.to_numpy(np.float64)
    if unit != "image":  # a study or patient scores as the highest of its images
        units = group_images(truth, truth.labels_of("val"), ids, unit)
        labels = units.highest(labels)
        scores = units.highest(scores)
        patients = units.first(patients)
        folds = None if folds is None else units.first(folds)
    places = _places(output, reduced.scores, truth) if unit == "image" else None
    images = GuaranteeImages(labels == 1, scores, patients, places, reduced.error_share)
    calibration, losses = _calibrate(images, folds, options)
    learned = len(ids.intersection(system.facts.fitted_on))
    thresholds = {}
    for policy in policies:
        if (guarantee := read_guarantee(policy)) is None:
            thresholds[policy] = choose_threshold(images.y_true, images.scores, policy)
        else:
            found = (None, _LEARNED.format(learned)) if learned else images.choose(guarantee)
            thresholds[policy] = ThresholdChoice(policy, *found)
    return Decision(
        target=truth.finding,
        chosen_on=chosen_on,
        reduction=reduced.reduction,
        box_cut=None if cut_choice is None else cut_choice.chosen,
        calibration=calibration,
        map_scale=scale,
        map_boxes=rule,
        thresholds=thresholds,
        validation=_validation_figures(images, thresholds),
        tried=reduced.tried + tried,
        options=options,
        losses=losses,
        triage=Triage.of(options, thresholds, images.scores, images.patients),
        chosen_scores=ValidationScores(images.y_true, images.scores, images.patients),
        cut_choice=cut_choice,
    )


def checked_decision(
    name: str,
    system: System,
    truth: GroundTruth,
    policies: Sequence[str],
    extra_policies: Sequence[str] = (),
) -> tuple[Decision, list[Note]]:
    """A system's decision, derived from its validation rows and held against the stored one."""
    payload = system.decision
    if payload is None:
        wanted = list(dict.fromkeys((*policies, *extra_policies)))
        derived = tune(system, truth, policies=wanted)
        if not derived.chosen_on["n_images"]:
            given = any(choice.threshold is not None for choice in derived.thresholds.values())
            declared = ", and declared thresholds," if given else ""
            kind = f"threshold-free figures{declared}"
            return derived, [Note("validation", f"{name} has no validation images: {kind} only.")]
        text = f"{name} was not tuned before: its decision is derived here."
        return derived, [Note("not_tuned", text)]
    stored = Decision.from_dict(dict(payload))
    here = _decision_ids(system, truth)
    for key in _CHOSEN_ON:
        if stored.chosen_on.get(key) != here[key]:
            raise InputError(
                f"{system.source}: the decision of {name} was chosen with {key} "
                f"{stored.chosen_on.get(key)}, here it is {here[key]}; run cxr tune again"
            )
    derived = tune(
        system,
        truth,
        policies=list(dict.fromkeys((*stored.thresholds, *extra_policies))),
        options=stored.options,
    )
    changed = stored.difference(derived)
    if changed:
        raise InputError(
            f"{system.source}: the decision of {name} is not what its validation images give "
            f"({changed}); run cxr tune again"
        )
    return derived, []  # it agrees, and holds what an older program did not write yet


@dataclass(frozen=True)
class GuaranteeResult:
    """A guarantee of a threshold, and what was observed on test images, with the threshold held."""

    system: str  # of several training seeds with the number of one
    policy: str
    guarantee: Guarantee  # what that policy says
    threshold: float
    patients: list[int]  # validation patients whose images its figures count, of each
    outcomes: dict[str, Outcome]  # by figure, of those that are defined on the test images
    words: str  # guarantee and what was observed on test, in a line

    @classmethod
    def of(
        cls, system: str, decision: Decision, output: SystemOutput, truth: GroundTruth,
        evaluated: EvaluationSet,
    ) -> list[GuaranteeResult]:  # fmt: skip
        """Hold every guarantee of a decision that has a threshold against evaluated images."""
        scores, results = output.scores(decision.reduction), []
        places = _places(output, scores, truth)
        values, patients = scores.to_numpy(np.float64), evaluated.patients.astype(str)
        images = GuaranteeImages(evaluated.y_true, values, patients, places)
        for policy, choice in decision.thresholds.items():
            guarantee, cut = read_guarantee(policy), choice.threshold
            if guarantee is None or cut is None:
                continue
            found = (_outcome(images, part, cut) for part in guarantee.parts)
            outcomes = {each.figure: each for each in found if each is not None}
            line = f"{system}, {decision.guarantee_line(policy, guarantee, outcomes)}"
            guaranteed_on = decision.guaranteed(policy)
            results.append(cls(system, policy, guarantee, cut, guaranteed_on, outcomes, line))
        return results


def _outcome(images: GuaranteeImages, part: GuaranteedRate, threshold: float) -> Outcome | None:
    """A guaranteed figure at a threshold, with its exact interval by patient (Korn and Graubard).

    That of the positive predictive value follows from the intervals of sensitivity and specificity
    by MOVER (Zou and Donner 2008) on the log of their likelihood ratio.
    """
    if part.figure != "ppv":
        rate = _rate(images, part.figure, threshold)
    else:
        reached, spared = (
            _rate(images, each, threshold) for each in ("sensitivity", "specificity")
        )
        if reached is None or spared is None:
            return None
        logs = np.log(np.maximum([reached, 1 - spared[[0, 2, 1]]], 1e-12))
        reach, share = np.abs(logs[:, 1:] - logs[:, :1]), part.prevalence or 0.0
        below, above = np.hypot(reach[0], reach[1, ::-1])
        ends = np.array([0, -below, above])
        middle = np.log(share / (1 - share)) + logs[0, 0] - logs[1, 0]
        rate = 1 / (1 + np.exp(-(middle + ends)))
    if rate is None:
        return None
    estimate, low, high = rate.tolist()
    return Outcome(part.figure, estimate, low, high, *images.size_of(part.figure))


def _rate(images: GuaranteeImages, figure: str, threshold: float) -> Floats | None:
    """A figure with both ends of its interval; `None` where it is not defined."""
    counts = images.good_images(figure, threshold)
    if counts is None:
        return None
    good, of_patients = counts[0], counts[1].astype(np.float64)
    rate = np.array([good.sum() / of_patients.sum(), *exact_share(good, of_patients)])
    return MOST_MARKS * (1 - rate[[0, 2, 1]]) if figure == "false_marks" else rate


def _decision_ids(system: System, truth: GroundTruth) -> dict[str, Any]:
    """What a decision is bound to: `_CHOSEN_ON`."""
    return {"inference_id": system.facts.inference_id, **truth.ids}


def _validation_figures(
    images: GuaranteeImages, thresholds: dict[str, ThresholdChoice]
) -> dict[str, dict[str, Any]]:
    """By policy, and under "" the threshold-free ones."""
    truth, scores = images.y_true, images.scores
    figures: dict[str, dict[str, Any]] = {"": classification_metrics(truth, scores)}
    for policy, choice in thresholds.items():
        figures[policy] = {}
        if choice.threshold is not None:
            at = classification_metrics(truth, scores, choice.threshold)
            counts = confusion_counts(truth, scores, choice.threshold)
            figures[policy] = counts | {name: at[name] for name in at if name not in figures[""]}
            guarantee = read_guarantee(policy)
            for part in guarantee.parts if guarantee else ():
                figures[policy][part.counted_as] = images.size_of(part.figure)[1]
    return figures
