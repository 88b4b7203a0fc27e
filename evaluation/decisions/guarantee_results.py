"""Guarantees of thresholds, compared with the figures of test images at the same thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cxr_compare.evaluation.boxes.lesion_hits import find_lesions
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.boxes.overlaps import OverlapRule
from cxr_compare.evaluation.boxes.pointing import points_in_boxes
from cxr_compare.evaluation.decisions.box_choice import BoxRule
from cxr_compare.evaluation.decisions.decision import Decision
from cxr_compare.evaluation.decisions.ground_truth import EvaluationSet, GroundTruth
from cxr_compare.evaluation.decisions.guaranteed_threshold import (
    FalseBoxes,
    GuaranteeImages,
    Localisation,
)
from cxr_compare.evaluation.decisions.guarantees import (
    FALSE_POSITIVES,
    MAX_FALSE_POSITIVES,
    Guarantee,
    GuaranteedRate,
    ObservedRate,
    read_guarantee,
)
from cxr_compare.evaluation.decisions.system_output import SystemOutput
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.clustered_share import exact_share


@dataclass(frozen=True)
class GuaranteeResult:
    """A threshold with a guarantee, and the guaranteed figures at it on test images.

    Attributes:
        system: Name of the system; if it was trained with several random seeds, with the number of
            the seed.
        policy: Guarantee as text, such as ``sensitivity>=0.90@0.90`` (sensitivity at least 0.90
            with 90 % confidence).
        guarantee: The same guarantee as figures, bounds and confidence.
        threshold: Threshold of the score, as chosen on validation images.
        patients: Number of validation patients that each figure of the guarantee was computed on,
            in the order of the guarantee's figures.
        observed: Observed rate on the test images, by name of the figure, such as ``sensitivity``.
            Figures that are undefined on these images are absent.
        text: Guarantee and observed rates in one line for readers.

    Example:
        >>> guarantee = read_guarantee("sensitivity>=0.90@0.90")
        >>> rate = ObservedRate("sensitivity", 0.93, 0.90, 0.95, 400, 380)
        >>> GuaranteeResult(
        ...     system="CheXNet",
        ...     policy="sensitivity>=0.90@0.90",
        ...     guarantee=guarantee,
        ...     threshold=0.4,
        ...     patients=[200],
        ...     observed={"sensitivity": rate},
        ...     text="",
        ... ).observed["sensitivity"].estimate
        0.93
    """

    system: str
    policy: str
    guarantee: Guarantee
    threshold: float
    patients: list[int]
    observed: dict[str, ObservedRate]
    text: str


def guarantee_results(
    system: str,
    decision: Decision,
    output: SystemOutput,
    truth: GroundTruth,
    evaluated: EvaluationSet,
) -> list[GuaranteeResult]:
    """Compare the guarantees of a system's thresholds with the rates on test images.

    A guarantee says that, at the threshold, a figure such as the sensitivity is at least a bound,
    with a stated confidence. A system is a detector, a classifier or a reader.

    Args:
        system: Name of the system.
        decision: Thresholds and rules of the system, as chosen on validation images.
        output: Output of the system on the test images.
        truth: Labels, patients and true boxes of all images, of which the test images are a part.
        evaluated: Test images with their labels and patients.

    Returns:
        One result for each guarantee for which a threshold was found, in the order of the
        decision's thresholds.

    Example:
        >>> import pandas as pd
        >>> from cxr_compare.evaluation.decisions.ground_truth import describe_images
        >>> from cxr_compare.evaluation.decisions.system_output import System
        >>> from cxr_compare.evaluation.decisions.thresholds import ThresholdChoice
        >>> ids = pd.Index(["a", "b"], name="image_id")
        >>> images = pd.DataFrame({"image_id": ids, "patient_id": ids, "status": "ok"})
        >>> labels = pd.Series([0.0, 1.0], index=ids)
        >>> truth = GroundTruth(images, labels, pd.Series("test", index=ids))
        >>> scores = pd.DataFrame({"image_id": ids, "finding": "label", "score": [0.1, 0.9]})
        >>> output = System("CheXNet", "scores", images, scores).output_on(ids)
        >>> policy = "sensitivity>=0.80@0.90"
        >>> chosen = {policy: ThresholdChoice(policy, 0.5)}
        >>> decision = Decision("label", {"n_patients": 40}, thresholds=chosen)
        >>> evaluated = describe_images(truth, ids, labels)
        >>> results = guarantee_results("CheXNet", decision, output, truth, evaluated)
        >>> results[0].observed["sensitivity"].estimate
        1.0
    """
    scores = output.scores(decision.reduction)
    images = GuaranteeImages(
        evaluated.y_true,
        scores.to_numpy(np.float64),
        evaluated.patients.astype(str),
        locate_predictions(output, scores.to_numpy(np.float64), truth, decision.box_rule),
    )
    results = []
    for policy, choice in decision.thresholds.items():
        guarantee = read_guarantee(policy)
        if guarantee is None or choice.threshold is None:
            continue
        observed = {}
        for part in guarantee.parts:
            rate = observe_rate(images, part, choice.threshold)
            if rate is not None:
                observed[part.figure] = rate
        result = GuaranteeResult(
            system=system,
            policy=policy,
            guarantee=guarantee,
            threshold=choice.threshold,
            patients=decision.guaranteed_patients(policy),
            observed=observed,
            text=f"{system}, {decision.guarantee_line(policy, observed)}",
        )
        results.append(result)
    return results


def locate_predictions(
    output: SystemOutput, scores: Floats, truth: GroundTruth, box_rule: BoxRule | None
) -> Localisation:
    """Find where a system points on each image, and compare the point with the lesions.

    The point is the centre of the most confident box, or the peak of the activation map. Guarantees
    (figures that hold for new patients with a stated confidence) of the localised sensitivity
    (share of positive images that are called positive and whose point lies on a lesion) and of
    false positives per image use the result.

    A box of a detector is shown on an image that is called positive if the box score is not below
    the threshold. The box with the highest score of such an image is always shown.

    Args:
        output: Output of the system.
        scores: Score of each image, shape ``(N,)``.
        truth: Labels and true boxes of the images.
        box_rule: Rule that selects or makes the system's boxes; `None` keeps all stored boxes.

    Returns:
        For each image, whether all lesions are boxed and whether the point lies on a lesion; for a
        detector also the boxes that overlap no lesion.

    Example:
        >>> import pandas as pd
        >>> from cxr_compare.evaluation.decisions.system_output import System
        >>> ids = pd.Index(["a"], name="image_id")
        >>> images = pd.DataFrame({"image_id": ids, "patient_id": ids, "status": "ok"})
        >>> labels = pd.Series([1.0], index=ids)
        >>> lesions = pd.DataFrame(
        ...     {"image_id": ids, "x1": [0.0], "y1": [0.0], "x2": [4.0], "y2": [4.0]}
        ... )
        >>> roles = pd.Series("test", index=ids)
        >>> truth = GroundTruth(images, labels, roles, true_boxes=lesions, boxes_trusted=ids)
        >>> boxes = lesions.assign(finding="label", score=0.9)
        >>> output = System("RetinaNet", "boxes", images, boxes=boxes).output_on(ids)
        >>> locate_predictions(output, np.array([0.9]), truth, None).on_lesion.tolist()
        [True]
    """
    ids = output.image_ids
    boxed = ids.isin(truth.boxes_trusted)
    points = output.points()
    on_lesion = None if points is None else points_in_boxes(points, truth.true_boxes)
    if not output.gives_boxes:
        return Localisation(boxed, on_lesion)
    boxes = output.predicted_boxes
    if isinstance(box_rule, OverlapRule):
        boxes = output.overlapping.left(box_rule.limit)
    finds = find_lesions(pair_boxes(boxes, truth.true_boxes, ids))
    image = finds.mark_image[finds.false]
    box_score = finds.mark_score[finds.false]
    image_score = scores[image]
    highest = np.full(len(ids), -np.inf)
    np.maximum.at(highest, finds.mark_image, finds.mark_score)
    is_highest = box_score == highest[image]
    shown_up_to = np.where(is_highest, image_score, np.minimum(box_score, image_score))
    return Localisation(boxed, on_lesion, FalseBoxes(image, shown_up_to))


def observe_rate(
    images: GuaranteeImages, part: GuaranteedRate, threshold: float
) -> ObservedRate | None:
    """Compute a guaranteed figure at a threshold, with its exact 95 % interval by patient.

    Args:
        images: Labels, scores and patients of the test images.
        part: Guaranteed figure, such as the sensitivity, and its bound.
        threshold: Score from which an image is called positive.

    Returns:
        The figure and its interval; `None` if no image counts for this figure.

    Source:
        Korn and Graubard 1998. The interval of a positive predictive value follows from those of
        sensitivity and specificity by MOVER (Zou and Donner 2008) on the log of their likelihood
        ratio.

    Example:
        >>> truth, scores = np.array([False, True, True]), np.array([0.1, 0.4, 0.9])
        >>> images = GuaranteeImages(truth, scores, np.array(["p", "q", "r"]))
        >>> observe_rate(images, GuaranteedRate("sensitivity", 0.9), 0.5).estimate
        0.5
    """
    if part.figure == "ppv":
        rate = _predictive_rate(images, threshold, part.prevalence or 0.0)
    else:
        rate = _rate(images, part.figure, threshold)
    if rate is None:
        return None
    estimate, low, high = rate.tolist()
    size = images.count(part.figure)
    return ObservedRate(part.figure, estimate, low, high, size.n_images, size.n_patients)


def _rate(images: GuaranteeImages, figure: str, threshold: float) -> Floats | None:
    """Return a figure with both ends of its interval, shape ``(3,)``; None if undefined."""
    counts = images.good_images(figure, threshold)
    if counts is None:
        return None
    n_images = counts.counted.astype(np.float64)
    share = counts.good.sum() / n_images.sum()
    rate = np.array([share, *exact_share(counts.good, n_images)])
    if figure == FALSE_POSITIVES:
        return MAX_FALSE_POSITIVES * (1 - rate[[0, 2, 1]])
    return rate


def _predictive_rate(images: GuaranteeImages, threshold: float, prevalence: float) -> Floats | None:
    sensitivity = _rate(images, "sensitivity", threshold)
    specificity = _rate(images, "specificity", threshold)
    if sensitivity is None or specificity is None:
        return None
    false_share = 1 - specificity[[0, 2, 1]]
    logs = np.log(np.maximum([sensitivity, false_share], 1e-12))  # (2, 3): value, low, high
    reach = np.abs(logs[:, 1:] - logs[:, :1])  # (2, 2): below and above
    below, above = np.hypot(reach[0], reach[1, ::-1])
    prior = np.log(prevalence / (1 - prevalence))
    log_odds = prior + logs[0, 0] - logs[1, 0]
    return np.asarray(1 / (1 + np.exp(-(log_odds + np.array([0, -below, above])))))
