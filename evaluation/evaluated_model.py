"""One trained model on the evaluated images: its output, with everything that validation chose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.box_choice import BOX_CUT, MAP_CUT, OVERLAP, BoxChoice, BoxRule
from cxr_compare.evaluation.boxes.froc import FrocCurve, froc_curve
from cxr_compare.evaluation.boxes.lesion_hits import HIT_RULES, find_lesions
from cxr_compare.evaluation.boxes.matching import BoxPairs, pair_boxes
from cxr_compare.evaluation.boxes.overlaps import OverlapRule, StoredPairs
from cxr_compare.evaluation.boxes.pointing import points_in_boxes
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.metrics.image_metrics import confusion_counts
from cxr_compare.evaluation.metrics.metric import ALL, NEEDS, VERSUS_NORMAL, MetricKey, Need
from cxr_compare.evaluation.metrics.registry import METRICS, family
from cxr_compare.evaluation.output import Output, SystemFacts
from cxr_compare.evaluation.statistics.arrays import Floats, is_positive
from cxr_compare.evaluation.thresholds import ThresholdChoice, ValidationScores, is_chosen

THRESHOLDS = "thresholds"
"""Name of the choice of thresholds in the description of an interval."""
PLACES = "constant positions"
"""Name of what an image-blind baseline learned, in the description of an interval."""


class Located(NamedTuple):
    """Places that a model gives on the N evaluated images, compared with the true boxes.

    `pairs` is None without boxes. `localised` is True for images on which the point lies on a
    lesion, shape ``(N,)``; None without points.
    """

    pairs: BoxPairs | None
    localised: npt.NDArray[np.bool_] | None


@dataclass(frozen=True, eq=False)
class EvaluatedModel:
    """One trained model on the evaluated images, its choices applied to its output.

    Attributes:
        name: Name of the system, with the number of the training seed if there are several.
        images: The N evaluated images.
        relearned: Functions that place the point and the boxes of an image-blind baseline where
            they were learned on a resample of the patients, one for each resample; empty for a
            system.

    Example:
        >>> images = LabelledImages.from_arrays(pd.Index(list("abcd")), [0, 0, 1, 1])
        >>> chosen = {"threshold=0.3": ThresholdChoice("threshold=0.3", 0.3)}
        >>> output = Output.from_scores(images.image_ids, [0.1, 0.4, 0.6, 0.9])
        >>> choices = Choices(target="opacity", chosen_on={}, thresholds=chosen)
        >>> model = EvaluatedModel("A", images, output, choices)
        >>> model.confusion("threshold=0.3")
        {'tp': 2, 'fp': 1, 'tn': 1, 'fn': 0}
    """

    name: str
    images: LabelledImages
    output: Output
    choices: Choices
    facts: SystemFacts = field(default_factory=SystemFacts)
    relearned: Sequence[Callable[[], Located]] = ()

    @cached_property
    def scores(self) -> Floats:
        """Score of each image, float64, shape ``(N,)``."""
        return self._score_by_image.to_numpy(np.float64)

    @cached_property
    def _score_by_image(self) -> pd.Series:
        return self.output.scores(self.choices.reduction)

    @cached_property
    def probability(self) -> Floats | None:
        """Calibrated probability of each image, shape ``(N,)``; None without a calibration."""
        return self.choices.probability(self.scores)

    @property
    def thresholds(self) -> Mapping[str, ThresholdChoice]:
        """Threshold by name of the rule that chose it, such as ``max_f1``."""
        return self.choices.thresholds

    @property
    def chosen_policies(self) -> list[str]:
        """Rules, such as ``max_f1``, whose threshold every bootstrap resample chooses again."""
        if self.choices.chosen_scores is None:
            return []
        return [
            policy
            for policy, choice in self.thresholds.items()
            if choice.threshold is not None and is_chosen(policy)
        ]

    @property
    def choices_made_again(self) -> list[ValidationScores | BoxChoice]:
        """Choices that every bootstrap resample of the validation patients makes again."""
        made: list[ValidationScores | BoxChoice] = []
        if self.choices.chosen_scores is not None and self.chosen_policies:
            policies = tuple(self.chosen_policies)
            made.append(replace(self.choices.chosen_scores, policies=policies))
        if self.choices.box_choice is not None:
            made.append(self.choices.box_choice)
        return made

    def called(self, policy: str) -> npt.NDArray[np.bool_] | None:
        """Return True for images called positive, shape ``(N,)``; None without a threshold."""
        choice = self.thresholds.get(policy)
        threshold = None if choice is None else choice.threshold
        return None if threshold is None else is_positive(self.scores, threshold)

    def confusion(self, policy: str) -> dict[str, int] | None:
        """Count ``tp``, ``fp``, ``tn`` and ``fn`` at a threshold; None without a threshold."""
        threshold = self.thresholds[policy].threshold
        if threshold is None:
            return None
        return confusion_counts(self.images.y_true, self.scores, threshold)

    @cached_property
    def points(self) -> pd.DataFrame | None:
        """Point that the model gives on each image, ``point_x`` and ``point_y`` in original px.

        It is the centre of the most confident box or the peak of the activation map.
        """
        return self.output.points()

    @cached_property
    def localised(self) -> npt.NDArray[np.bool_] | None:
        """True for images on which the point lies on a lesion, shape ``(N,)``; None without it."""
        return None if self.points is None else points_in_boxes(self.points, self.images.true_boxes)

    @cached_property
    def boxes(self) -> pd.DataFrame | None:
        """Boxes that are evaluated: those that the chosen rule keeps, or cuts out of maps."""
        return self._boxes_by(self.choices.box_rule)

    def _boxes_by(self, rule: BoxRule) -> pd.DataFrame | None:
        return self.output.boxes(self._score_by_image, self.choices.map_scale, rule)

    @cached_property
    def pairs(self) -> BoxPairs | None:
        """Pairs of the evaluated predicted boxes with the true boxes; None without boxes."""
        return self.pairs_by(self.choices.box_rule)

    @property
    def located(self) -> Located:
        """Evaluated boxes and points, compared with the true boxes."""
        return Located(self.pairs, self.localised)

    def pairs_by(self, rule: BoxRule) -> BoxPairs | None:
        """Return the pairs of the boxes that a rule gives with the true boxes."""
        if self.output.gives_boxes and isinstance(rule, OverlapRule):
            return self._stored_pairs.left(rule.limit)
        boxes = self._boxes_by(rule)
        if boxes is None:
            return None
        return pair_boxes(boxes, self.images.true_boxes, self.images.boxed_images)

    @cached_property
    def _stored_pairs(self) -> StoredPairs:
        """Stored boxes of a detector, paired with the true boxes once for all rules."""
        return StoredPairs.on_images(
            self.output.overlapping, self.images.true_boxes, self.images.boxed_images
        )

    def froc(self) -> dict[str, FrocCurve]:
        """Compute the FROC curves of the evaluated boxes, by the rule of a hit."""
        if self.pairs is None:
            return {}
        return {hit: froc_curve(find_lesions(self.pairs, rule)) for hit, rule in HIT_RULES.items()}

    @property
    def rule_is_open(self) -> bool:
        """True if resamples choose the rule of the boxes again."""
        choice = self.choices.box_choice
        return choice is not None and choice.is_open

    @property
    def boxes_are_decided(self) -> bool:
        """True if validation images with lesions chose the rule of the boxes.

        Otherwise they are as stored. The constant boxes of an image-blind baseline have no rule,
        and boxes without scores are decisions already.
        """
        is_constant = self.output.constant_points is not None
        return self.rule_is_open or is_constant or not self.output.has_scores

    def choices_of(self, key: MetricKey) -> dict[str, bool]:
        """Return the validation choices behind a figure, by name; True if resamples redo them."""
        if not self.output.has_scores:  # its boxes are decisions already
            return {PLACES: True} if self.relearned else {}
        metric = METRICS[key.metric]
        choices = {
            name: False for need, name in self.choices.fixed_choices.items() if need in metric.needs
        }
        if is_chosen(key.policy):
            choices[THRESHOLDS] = key.policy in self.chosen_policies
        if "boxes" in metric.needs and self.rule_is_open and not self.is_of_stored(key.metric):
            choices[OVERLAP if self.output.gives_boxes else MAP_CUT] = True
        if "box_cut" in metric.needs:
            choices[BOX_CUT] = self.choices.box_choice is not None
        if self.relearned:
            choices[PLACES] = True
        return choices

    def is_of_stored(self, metric: str) -> bool:
        """Return True for figures of all stored boxes of a detector, which rest on no choice."""
        return metric in family("coco") and self.output.gives_boxes

    def missing(self) -> dict[MetricKey, str]:
        """Return the reason, as a phrase, for each figure that the model cannot have, by key."""
        missing: dict[MetricKey, str] = {}
        if not self.output.has_scores:
            missing |= _without("scores", "", RANKINGS)
            missing |= {
                MetricKey(VERSUS_NORMAL, "", metric): NEEDS["scores"]
                for metric in family("ranking")
            }
        if self.pairs is None:
            # Figures of called boxes are left out: without a score cut they get no row.
            boxed = (metric for metric in METRICS if _needs(metric) == {"boxes"})
            missing |= _without("point" if self.points is None else "boxes", "", boxed)
        placed = [metric for metric in family("point") if "threshold" in _needs(metric)]
        if self.points is None:
            missing |= _without("point", "", (m for m in family("point") if m not in placed))
        if self.probability is None:
            missing |= _without("probability", "", family("calibration"))
        for policy, choice in self.thresholds.items():
            if choice.threshold is None:
                reason = f"no threshold: {choice.reason}"
                names = (*family("decision"), *placed)
                missing |= {MetricKey(ALL, policy, metric): reason for metric in names}
            elif self.points is None:
                missing |= _without("point", policy, placed)
        return missing

    def decisions(self, system: str) -> pd.DataFrame:
        """Return a table with the scores and decisions of the model, one row for each image.

        The columns are ``image_id``, ``system`` (as given), ``label`` (1.0 or 0.0), ``score``,
        ``probability`` (NaN without calibration), ``decision_RULE`` for each rule that chose a
        threshold (such as ``decision_max_f1``; True if called positive), ``point_x`` and
        ``point_y`` (point that the model gives, original px) and ``localised`` (True if the point
        lies on a lesion; missing but for positive images whose lesions are all boxed). There is a
        column ``x_class`` (kind of image, such as ``normal``) if it is known.
        """
        images = self.images
        frame = pd.DataFrame({"image_id": images.image_ids.to_numpy(), "system": system})
        frame["label"] = images.y_true.astype(np.float64)
        frame["score"] = self.scores
        frame["probability"] = np.nan if self.probability is None else self.probability
        for policy in self.thresholds:
            called = self.called(policy)
            column = pd.array([pd.NA] * len(frame) if called is None else called, dtype="boolean")
            frame[f"decision_{policy}"] = column
        points = np.full((len(frame), 2), np.nan) if self.points is None else self.points
        frame[["point_x", "point_y"]] = np.asarray(points, dtype=np.float64)
        localised = pd.Series(pd.array([pd.NA] * len(frame), dtype="boolean"))
        if self.localised is not None:
            boxed = images.y_true & images.is_boxed
            localised[boxed] = self.localised[boxed]
        frame["localised"] = localised
        if "x_class" in images.images:
            frame["x_class"] = images.images["x_class"].to_numpy()
        return frame


Models = Mapping[str, Sequence[EvaluatedModel]]
"""Evaluated models of each system by its display name, one for each training seed."""


RANKINGS = (
    *family("ranking"),
    *family("coco"),
    *family("coco_decided"),
    *family("froc_iou"),
    *family("froc_centre"),
    *family("afroc"),
    *family("vinbigdata"),
)
"""Metrics that rank images or boxes by their scores."""


def images_of(models: Models) -> LabelledImages:
    """Return the evaluated images, which are the same for all models of a comparison."""
    return next(iter(models.values()))[0].images


def _needs(metric: str) -> set[Need]:
    return set(METRICS[metric].needs)


def _without(need: Need, policy: str, metrics: Iterable[str]) -> dict[MetricKey, str]:
    return {MetricKey(ALL, policy, metric): NEEDS[need] for metric in metrics}
