"""Scorecard: all figures of one trained model on the evaluated images, for any patient weights.

If all weights are 1, the figures are the estimates. If the weight of a patient is the number of
times that a bootstrap resample draws the patient, the figures are the replicates of this resample.
So each figure is defined once for both.

A figure may depend on a choice that was made on validation images, such as a threshold. Such a
figure has two replicates for each resample: one with the choice that is made again on resampled
validation patients, and one with the choice fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from threading import Lock
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.boxes.average_precision import coco_average_precision
from cxr_compare.evaluation.boxes.froc import FrocCurve, froc_curve
from cxr_compare.evaluation.boxes.matching import BoxPairs, pair_boxes
from cxr_compare.evaluation.boxes.overlaps import OverlappingBoxes, OverlapRule, StoredPairs
from cxr_compare.evaluation.boxes.pointing import points_in_boxes
from cxr_compare.evaluation.compare.box_figures import BoxFigures
from cxr_compare.evaluation.compare.estimates import THRESHOLDS, is_chosen
from cxr_compare.evaluation.decisions.box_choice import (
    BOX_CUT,
    BOX_RULE,
    MAP_CUT,
    OVERLAP,
    BoxChoice,
    BoxRule,
)
from cxr_compare.evaluation.decisions.decision import Decision
from cxr_compare.evaluation.decisions.ground_truth import EvaluationSet
from cxr_compare.evaluation.decisions.system_output import SystemOutput
from cxr_compare.evaluation.decisions.thresholds import ThresholdChoice, ValidationScores
from cxr_compare.evaluation.metrics.calibration_figures import CalibrationFigures
from cxr_compare.evaluation.metrics.image_metrics import confusion_counts, rates
from cxr_compare.evaluation.metrics.metric import ALL, NEEDS, VERSUS_NORMAL, MetricKey, Need
from cxr_compare.evaluation.metrics.registry import METRICS, family, why_undefined
from cxr_compare.evaluation.statistics.arrays import Floats, Integers, is_positive
from cxr_compare.evaluation.statistics.bootstrap import per_cluster
from cxr_compare.evaluation.statistics.ranking import FallingScores, RankedScores, RankingSums


class ScorecardReplicates(NamedTuple):
    """Figures of one model on R resamples of patients.

    Attributes:
        figures: Value of every figure by key (group of images, rule for the threshold, metric),
            shape ``(R,)`` each. Thresholds and other validation choices are those that each
            resample makes.
        fixed: The figures that depend on a validation choice, by key, shape ``(R,)`` each, with the
            choice fixed.
    """

    figures: dict[MetricKey, Floats]
    fixed: dict[MetricKey, Floats]


_Counts = dict[tuple[str, str], Floats]
"""Counts by policy (empty for those without one) and by name, shape ``(R,)``."""


class Scorecard:
    """Object that computes all figures of one trained model on the evaluated images.

    The figures can be computed for any weights of the patients, so that they can be resampled.

    Args:
        evaluated: The N evaluated images with their labels, patients and true boxes.
        scores: Score of each image, shape ``(N,)``, in the order of the evaluated images.
        thresholds: Threshold by name of the rule that chose it, such as ``max_f1``, on the image
            scores.
        validation: Scores and labels of the validation images, on which resamples choose thresholds
            again. `None` fixes the thresholds.
        points: Point that the model gives on each image, with columns ``point_x`` and ``point_y``
            in original px. It is the centre of the most confident box or the peak of the activation
            map. `None` without points.
        boxes: Boxes that are evaluated: the predicted boxes that the chosen rule keeps, or cuts out
            of activation maps; `None` without boxes.
        stored_boxes: All stored boxes of a detector, with the pairs of them that overlap each
            other. `None` for a classifier, whose evaluated boxes count as the stored ones.
        overlap: Largest IoU of two stored boxes of an image that are both evaluated; `None` keeps
            all stored boxes.
        boxes_by_rule: Function that takes a rule among the candidates of `box_choice` and returns
            the boxes that it cuts out of a classifier's activation maps. If both this function and
            `stored_boxes` are `None`, the rule is fixed.
        box_cut: Score from which a box counts as called, for figures such as the RSNA 2018 score;
            `None` without such a cut.
        box_choice: Choice, on validation images, of the rule for `boxes` and of `box_cut`, which
            resamples make again. `None` fixes both the rule and `box_cut`.
        fixed_choices: Names of further validation choices that no resample makes again, such as
            ``{"probability": "calibration"}``, by the part of the system that metrics depend on (a
            key of `evaluation.metrics.metric.NEEDS`).
        probability: Calibrated probability of each image in [0, 1], shape ``(N,)``; `None` without
            calibration.

    Attributes:
        evaluated: The evaluated images, as in the argument.
        scores: Score of each image as an array, shape ``(N,)``.
        thresholds: Threshold by name of the rule that chose it, as in the argument.
        validation: Scores and labels of the validation images, as in the argument.
        points: Point that the model gives on each image, as in the argument.
        boxes: Boxes that are evaluated, as in the argument.
        box_cut: Score from which on boxes are called, as in the argument.
        box_choice: Choice of the rule for `boxes` and of `box_cut`, as in the argument.
        probability: Calibrated probabilities, as in the argument.

    Example:
        >>> from cxr_compare.evaluation.decisions.ground_truth import no_boxes
        >>> n = np.arange(4)
        >>> evaluated = EvaluationSet(
        ...     pd.Index(n), n > 1, n, 4, np.zeros(4, dtype=bool), no_boxes())
        >>> chosen = {"threshold=0.3": ThresholdChoice("threshold=0.3", 0.3)}
        >>> scorecard = Scorecard(evaluated, pd.Series([0.1, 0.4, 0.6, 0.9]), chosen)
        >>> figures = scorecard.estimates()
        >>> figures[MetricKey("all", "", "auroc")]
        1.0
        >>> figures[MetricKey("all", "threshold=0.3", "specificity")]
        0.5
    """

    def __init__(  # noqa: PLR0913 - what each kind of system has
        self,
        evaluated: EvaluationSet,
        scores: pd.Series,
        thresholds: Mapping[str, ThresholdChoice],
        *,
        validation: ValidationScores | None = None,
        points: pd.DataFrame | None = None,
        boxes: pd.DataFrame | None = None,
        stored_boxes: OverlappingBoxes | None = None,
        overlap: float | None = None,
        boxes_by_rule: Callable[[BoxRule], pd.DataFrame | None] | None = None,
        box_cut: float | None = None,
        box_choice: BoxChoice | None = None,
        fixed_choices: Mapping[Need, str] | None = None,
        probability: Floats | None = None,
    ) -> None:
        self.evaluated = evaluated
        self.scores = scores.to_numpy(dtype=np.float64)
        self.thresholds = thresholds
        self.validation = validation
        self.points = points
        self.boxes = boxes
        self.box_cut = box_cut
        self.box_choice = box_choice
        self._stored_boxes = stored_boxes
        self._overlap = overlap
        self._boxes_by_rule = boxes_by_rule
        self.probability = probability
        self._fixed_choices = fixed_choices or {}
        self._rank_scores()
        self._locate_points()
        self._calibration: CalibrationFigures | None = None
        if probability is not None:
            self._calibration = CalibrationFigures(
                evaluated.y_true, probability, evaluated.patients
            )
        self._match_boxes()
        self._count_names, self._counts = self._patient_counts()

    def _rank_scores(self) -> None:
        evaluated = self.evaluated
        self._ranked = RankedScores(evaluated.y_true, self.scores, evaluated.patients)
        self._ranked_normal: RankedScores | None = None
        normal = evaluated.versus_normal
        if normal is not None:
            self._ranked_normal = RankedScores(
                evaluated.y_true[normal], self.scores[normal], evaluated.patients[normal]
            )

    def _locate_points(self) -> None:
        """Find the images whose scored point lies on a lesion, and rank these images by score."""
        evaluated = self.evaluated
        self._on_lesion: npt.NDArray[np.bool_] | None = None
        self._hits: FallingScores | None = None
        if self.points is not None:
            self._on_lesion = points_in_boxes(self.points, evaluated.truth)
            hits = evaluated.y_true & evaluated.boxes_trusted & self._on_lesion
            self._hits = FallingScores(self.scores[hits], evaluated.patients[hits])

    def _match_boxes(self) -> None:
        """Match predicted and true boxes, for all figures of boxes."""
        self._decided: BoxFigures | None = None
        self._stored: BoxFigures | None = None
        self._by_rule: dict[int, BoxFigures] = {}
        self._making_figures = Lock()
        if self.boxes is None:
            return
        self._decided = self._stored = self._box_figures(self._decided_pairs(self.boxes))
        if self._stored_pairs is not None and self._overlap is not None:
            self._stored = self._box_figures(self._stored_pairs.left(None))
        if self.box_choice is not None:
            self._by_rule[self.box_choice.index] = self._decided

    @cached_property
    def _stored_pairs(self) -> StoredPairs | None:
        """Stored boxes of a detector, paired with the true boxes once for all rules; or None."""
        if self._stored_boxes is None:
            return None
        return StoredPairs.on_images(
            self._stored_boxes, self.evaluated.truth, self.evaluated.boxed_images
        )

    def _decided_pairs(self, boxes: pd.DataFrame) -> BoxPairs:
        if self._stored_pairs is not None:
            return self._stored_pairs.left(self._overlap)
        return self._paired(boxes)

    def _paired(self, boxes: pd.DataFrame) -> BoxPairs:
        return pair_boxes(boxes, self.evaluated.truth, self.evaluated.boxed_images)

    def _box_figures(self, pairs: BoxPairs) -> BoxFigures:
        return BoxFigures(pairs, self.evaluated, called=self.box_cut is not None)

    def _figures_of_rule(self, index: int) -> BoxFigures:
        """Return the figures of the boxes that a candidate rule gives; they are kept for reuse."""
        with self._making_figures:  # replicates are computed by several threads
            if index not in self._by_rule and self.box_choice is not None:
                pairs = self._pairs_by_rule(self.box_choice.candidates[index].rule)
                if pairs is not None:
                    self._by_rule[index] = self._box_figures(pairs)
            return self._by_rule[index]

    def _pairs_by_rule(self, rule: BoxRule) -> BoxPairs | None:
        if self._stored_pairs is not None and isinstance(rule, OverlapRule):
            return self._stored_pairs.left(rule.limit)
        boxes = None if self._boxes_by_rule is None else self._boxes_by_rule(rule)
        return None if boxes is None else self._paired(boxes)

    @property
    def pairs(self) -> BoxPairs | None:
        """Pairs of the evaluated predicted boxes with the true boxes; None without boxes."""
        return None if self._decided is None else self._decided.pairs

    @property
    def _rule_is_open(self) -> bool:
        """True if resamples choose the rule of the boxes again."""
        choice = self.box_choice
        if choice is None or not choice.is_open:
            return False
        return self._boxes_by_rule is not None or self._stored_boxes is not None

    @classmethod
    def from_output(
        cls, output: SystemOutput, decision: Decision, evaluated: EvaluationSet
    ) -> Scorecard:
        """Make the object from the predictions of a model and its thresholds and rules.

        Args:
            output: Predictions of the model for the evaluated images.
            decision: Thresholds, calibration, and rules for image scores and boxes, which were
                chosen on the validation images.
            evaluated: The evaluated images with their labels, patients and true boxes.

        Returns:
            The object that computes the figures.
        """
        scores = output.scores(decision.reduction)
        boxes_by_rule = partial(output.boxes, scores, decision.map_scale)
        return cls(
            evaluated,
            scores,
            decision.thresholds,
            validation=decision.chosen_scores,
            points=output.points(),
            boxes=boxes_by_rule(decision.box_rule),
            stored_boxes=output.overlapping if output.gives_boxes else None,
            overlap=decision.overlap,
            boxes_by_rule=None if output.gives_boxes else boxes_by_rule,
            box_cut=decision.box_cut,
            box_choice=decision.box_choice,
            fixed_choices=decision.fixed_choices,
            probability=decision.probability(scores),
        )

    @property
    def localised(self) -> npt.NDArray[np.bool_] | None:
        """True for images on which the model points at a lesion, shape ``(N,)``.

        The point is the centre of the most confident box or the peak of the activation map. The
        value is `None` if the model gives no points.
        """
        return self._on_lesion

    def called(self, policy: str) -> npt.NDArray[np.bool_] | None:
        """Return True for the images that are called positive at a threshold.

        Args:
            policy: Name of the rule that chose the threshold, such as ``max_f1``.

        Returns:
            True for the images whose score is at least the threshold, shape ``(N,)``; None if the
            rule has no threshold.
        """
        choice = self.thresholds.get(policy)
        threshold = None if choice is None else choice.threshold
        return None if threshold is None else is_positive(self.scores, threshold)

    @property
    def choices(self) -> list[ValidationScores | BoxChoice]:
        """Choices on validation images that every resample of validation patients makes again.

        They are the choice of thresholds and that of the rule and the score cut for boxes.
        """
        choices: list[ValidationScores | BoxChoice] = []
        policies = self.chosen_policies
        if self.validation is not None and policies:
            choices.append(replace(self.validation, policies=tuple(policies)))
        if self.box_choice is not None:
            choices.append(self.box_choice)
        return choices

    def choices_of(self, key: MetricKey) -> dict[str, bool]:
        """Return the validation choices on which a figure depends.

        Args:
            key: Key of the figure: short name of its metric, such as ``recall``; rule that chose
                its threshold, such as ``max_f1``, or empty; and name of the images that it is
                computed on, such as ``all``.

        Returns:
            For each choice by its name, such as ``thresholds``, True if the bootstrap resamples
            make it again and False if it is fixed.
        """
        metric = METRICS[key.metric]
        choices = {
            name: False for need, name in self._fixed_choices.items() if need in metric.needs
        }
        if is_chosen(key.policy):
            choices[THRESHOLDS] = key.policy in self.chosen_policies
        if "boxes" in metric.needs and self._rule_is_open and not self._is_of_stored(key.metric):
            choices[OVERLAP if self._is_detector else MAP_CUT] = True
        if "box_cut" in metric.needs:
            choices[BOX_CUT] = self.box_choice is not None
        return choices

    def _is_of_stored(self, metric: str) -> bool:
        """Return True for figures of all stored boxes of a detector, which depend on no choice."""
        return metric in family("coco") and self._is_detector

    @property
    def _is_detector(self) -> bool:
        """True if the rule of the boxes is a limit of overlaps, and not a cut of maps."""
        choice = self.box_choice
        return choice is not None and isinstance(choice.candidates[0].rule, OverlapRule)

    @property
    def chosen_policies(self) -> list[str]:
        """Rules, such as ``max_f1``, whose threshold every bootstrap resample chooses again."""
        if self.validation is None:
            return []
        return [
            policy
            for policy, choice in self.thresholds.items()
            if choice.threshold is not None and is_chosen(policy)
        ]

    def confusion(self, policy: str) -> dict[str, int] | None:
        """Count correct and wrong decisions at a threshold, for both classes.

        Args:
            policy: Name of the rule that chose the threshold, such as ``max_f1``; a key of
                `thresholds`.

        Returns:
            Numbers of images ``tp``, ``fp``, ``tn`` and ``fn`` (true and false positives and
            negatives); None if the rule has no threshold.
        """
        threshold = self.thresholds[policy].threshold
        if threshold is None:
            return None
        return confusion_counts(self.evaluated.y_true, self.scores, threshold)

    def _patient_counts(self) -> tuple[list[tuple[str, str]], Floats]:
        """Count decisions and hits of each patient.

        Returns:
            Policy and name of each count, and the counts, shape ``(patients, counts)``.
        """
        evaluated = self.evaluated
        columns: dict[tuple[str, str], npt.NDArray[np.bool_]] = {}
        boxed = evaluated.y_true & evaluated.boxes_trusted
        if self._on_lesion is not None:
            columns["", "boxed"] = boxed
            columns["", "pointed"] = boxed & self._on_lesion
        for policy in self.thresholds:
            called = self.called(policy)
            if called is None:
                continue
            columns[policy, "tp"] = called & evaluated.y_true
            columns[policy, "fp"] = called & ~evaluated.y_true
            columns[policy, "tn"] = ~called & ~evaluated.y_true
            columns[policy, "fn"] = ~called & evaluated.y_true
            if evaluated.versus_normal is not None:
                columns[policy, "normal_fp"] = called & ~evaluated.y_true & evaluated.versus_normal
                columns[policy, "normal_tn"] = ~called & ~evaluated.y_true & evaluated.versus_normal
            if self._on_lesion is not None:
                columns[policy, "found"] = boxed & self._on_lesion & called
        table = np.column_stack(list(columns.values())) if columns else np.empty((len(boxed), 0))
        return list(columns), per_cluster(table, evaluated.patients, evaluated.n_patients)

    def __call__(self, weights: Integers) -> dict[MetricKey, Floats]:
        """Compute all figures for each row of patient weights, with all choices fixed.

        Args:
            weights: Whole-number weights of P patients in R weightings, shape ``(R, P)``, such as
                how often each patient was drawn in each of R bootstrap resamples.

        Returns:
            Values of the figures by key (group of images, rule for the threshold, metric), shape
            ``(R,)`` each; NaN where a figure is undefined.
        """
        return self.replicates(weights, {}).figures

    def replicates(self, weights: Integers, chosen: Mapping[str, Floats]) -> ScorecardReplicates:
        """Compute all figures for each row of patient weights, with the row's own thresholds.

        Args:
            weights: Whole-number weights of P patients in R weightings, shape ``(R, P)``, such as
                how often each patient was drawn in each of R bootstrap resamples.
            chosen: Choices that each row makes on its validation patients, by name, shape ``(R,)``
                each: the threshold by the name of its rule (such as ``max_f1``), the rule for boxes
                by the key `BOX_RULE` (its index among the candidates of `box_choice`), and the
                score cut of boxes by the key `BOX_CUT`. NaN where a row could choose nothing. All
                other choices are fixed.

        Returns:
            All figures, and those that depend on `chosen` a second time with the choice fixed.
        """
        thresholds = {what: values for what, values in chosen.items() if what in self.thresholds}
        ranked = self._ranked.sums(weights)
        normal = None
        figures = _of_ranking(ALL, ranked)
        if self._ranked_normal is not None:
            normal = self._ranked_normal.sums(weights, beside=ranked)  # the positives are the same
            figures |= _of_ranking(VERSUS_NORMAL, normal)
        if self._calibration is not None:
            calibration = self._calibration.figures(weights)
            figures |= {MetricKey(ALL, "", name): v for name, v in calibration.items()}
        weight = np.asarray(weights, dtype=np.float64)
        sums = weight @ self._counts
        counts = dict(zip(self._count_names, sums.T, strict=True))
        if self._on_lesion is not None:
            pointed = _share(counts["", "pointed"], counts["", "boxed"])
            figures[MetricKey(ALL, "", "pointing_accuracy")] = pointed
        fixed = self._at_thresholds(counts, thresholds)
        of_boxes = self._of_boxes(weights, chosen)
        figures |= of_boxes.figures
        fixed |= of_boxes.fixed
        counts |= self._refitted_counts(weights, thresholds, ranked, normal)
        figures |= self._at_thresholds(counts, self.thresholds)
        return ScorecardReplicates(figures, fixed)

    def _of_boxes(self, weights: Integers, chosen: Mapping[str, Floats]) -> ScorecardReplicates:
        """Compute the figures of boxes as described at `replicates`."""
        if self._decided is None or self._stored is None:
            return ScorecardReplicates({}, {})
        weight = np.asarray(weights, dtype=np.float64)
        once_chosen = np.full(len(weights), self.box_cut, dtype=np.float64)
        ranked = self._decided.precision(weights, family("coco_decided"))
        if self._stored is self._decided:
            names = [MetricKey(ALL, "", metric) for metric in family("coco")]
            of_stored = dict(zip(names, ranked.values(), strict=True))
        else:
            of_stored = self._stored.precision(weights, family("coco"))
        ranked |= self._decided.ranked(weights)
        called = self._decided.called(weight, once_chosen)
        figures = of_stored | ranked | called
        if BOX_CUT not in chosen:
            return ScorecardReplicates(figures, {})
        if not self._rule_is_open:
            refitted = self._decided.called(weight, chosen[BOX_CUT])
            return ScorecardReplicates(figures | refitted, called)
        rests_on_rule = ranked | called if self._is_of_stored("ap50") else figures
        refitted = {key: values.copy() for key, values in rests_on_rule.items()}
        for index in np.unique(chosen[BOX_RULE]).astype(int).tolist():
            rows = chosen[BOX_RULE] == index
            boxes = self._figures_of_rule(index)
            values = boxes.called(weight[rows], chosen[BOX_CUT][rows])
            if boxes is not self._decided:
                precision = boxes.precision(weights[rows], family("coco_decided"))
                values |= precision | boxes.ranked(weights[rows])
                if not self._is_of_stored("ap50"):  # boxes of maps are not stored
                    names = [MetricKey(ALL, "", metric) for metric in family("coco")]
                    values |= dict(zip(names, precision.values(), strict=True))
            for key, column in values.items():
                refitted[key][rows] = column
        return ScorecardReplicates(figures | refitted, rests_on_rule)

    def _refitted_counts(
        self,
        weights: Integers,
        thresholds: Mapping[str, Floats],
        ranked: RankingSums,
        normal: RankingSums | None,
    ) -> _Counts:
        """Count decisions and hits for each row of weights at the row's own thresholds."""
        counts: _Counts = {}
        if not thresholds:
            return counts
        sums_of_hits = None if self._hits is None else self._hits.sums(weights)
        for policy, cuts in thresholds.items():
            counts |= {(policy, name): count for name, count in ranked.counts(cuts).items()}
            if normal is not None:
                of_normal = normal.counts(cuts)
                counts |= {(policy, f"normal_{name}"): of_normal[name] for name in ("fp", "tn")}
            if self._hits is not None and sums_of_hits is not None:
                counts[policy, "found"] = self._hits.called(sums_of_hits, cuts)
        return counts

    def _at_thresholds(self, counts: _Counts, policies: Iterable[str]) -> dict[MetricKey, Floats]:
        """Compute all figures that follow from counts at the thresholds of policies."""
        figures: dict[MetricKey, Floats] = {}
        for policy in policies:
            if (policy, "tp") not in counts:
                continue
            of_policy = {name: counts[policy, name] for name in family("counts")}
            values = {**rates(**of_policy), **of_policy}
            if self._on_lesion is not None:
                share = _share(counts[policy, "found"], counts["", "boxed"])
                values["localised_sensitivity"] = share
            figures |= {MetricKey(ALL, policy, metric): v for metric, v in values.items()}
            if (policy, "normal_fp") in counts:
                normal = {"fp": counts[policy, "normal_fp"], "tn": counts[policy, "normal_tn"]}
                against = rates(**(of_policy | normal))
                figures |= {MetricKey(VERSUS_NORMAL, policy, m): v for m, v in against.items()}
        return figures

    def estimates(self) -> dict[MetricKey, float | None]:
        """Compute all figures on the evaluated images, without resampling.

        Average precision of boxes is computed by pycocotools.

        Returns:
            Value of every figure by key (group of images, rule for the threshold, metric); `None`
            where a figure is undefined.
        """
        return dict(self._estimates)

    @cached_property
    def once(self) -> dict[MetricKey, Floats]:
        """Figures on the evaluated images, without resampling and without pycocotools.

        The dictionary has arrays of shape ``(1,)`` by key (group of images, rule for the threshold,
        metric).
        """
        return self(np.ones((1, self.evaluated.n_patients), dtype=np.int16))

    @cached_property
    def _estimates(self) -> dict[MetricKey, float | None]:
        once = dict(self.once)
        if self._calibration is not None:
            exact = self._calibration.figures()  # without the knots that approximate replicates
            once |= {MetricKey(ALL, "", metric): value for metric, value in exact.items()}
        figures = {name: None if np.isnan(v[0]) else float(v[0]) for name, v in once.items()}
        if self._decided is not None and self._stored is not None:
            of_decided = coco_average_precision(self._decided.pairs)
            of_stored = of_decided
            if self._stored is not self._decided:
                of_stored = coco_average_precision(self._stored.pairs)
            for group, precision in (("coco", of_stored), ("coco_decided", of_decided)):
                names = [MetricKey(ALL, "", metric) for metric in family(group)]
                figures |= dict(zip(names, precision.values(), strict=True))
        return figures

    def froc(self) -> dict[str, FrocCurve]:
        """Compute the FROC curves of the evaluated boxes.

        Returns:
            Curves by name of the rule by which a box hits a lesion, ``iou`` and ``centre``; empty
            without boxes.
        """
        if self._decided is None:
            return {}
        return {hit: froc_curve(finds) for hit, finds in self._decided.finds.items()}

    def missing(self) -> dict[MetricKey, str]:
        """List the figures that this model cannot have.

        Returns:
            Reason for each such figure by key (group of images, rule for the threshold, metric), as
            a phrase for tables.
        """
        missing: dict[MetricKey, str] = {}
        if self.boxes is None:
            # Figures of called boxes are left out: without a score cut they get no row.
            missing |= _without(
                "boxes", "", (metric for metric in METRICS if _needs(metric) == {"boxes"})
            )
        missing |= self._without_place("", (m for m in family("point") if not _at_threshold(m)))
        if self._calibration is None:
            missing |= _without("probability", "", family("calibration"))
        placed = [metric for metric in family("point") if _at_threshold(metric)]
        for policy, choice in self.thresholds.items():
            if choice.threshold is None:
                reason = f"no threshold: {choice.reason}"
                names = (*family("decision"), *placed)
                missing |= {MetricKey(ALL, policy, metric): reason for metric in names}
            else:
                missing |= self._without_place(policy, placed)
        return missing

    def why_undefined(self, metric: str, policy: str) -> str:
        """Return the reason why a figure on all images is undefined.

        Args:
            metric: Short name of the metric, such as ``recall``.
            policy: Rule by which the threshold was chosen, such as ``max_f1``; empty for a figure
                without a threshold, such as ``auroc``.

        Returns:
            The reason as a phrase; empty if the figure is defined.
        """
        key = MetricKey(ALL, policy, metric)
        figure = self.once.get(key)  # without pycocotools, which is slow and gives the same
        if figure is not None and not np.isnan(figure[0]):
            return ""
        never = "nothing on validation gives it"
        return self.missing().get(key) or (never if figure is None else why_undefined(metric))

    def _without_place(self, policy: str, metrics: Iterable[str]) -> dict[MetricKey, str]:
        if self.localised is None:
            return _without("point", policy, metrics)
        return {}


def _of_ranking(subgroup: str, sums: RankingSums) -> dict[MetricKey, Floats]:
    """Return the figures that follow from the ranking of the images, without a chosen threshold."""
    return {MetricKey(subgroup, "", metric): value for metric, value in sums.figures().items()}


def _needs(metric: str) -> set[Need]:
    return set(METRICS[metric].needs)


def _at_threshold(metric: str) -> bool:
    return "threshold" in _needs(metric)


def _without(need: Need, policy: str, metrics: Iterable[str]) -> dict[MetricKey, str]:
    return {MetricKey(ALL, policy, metric): NEEDS[need] for metric in metrics}


def _share(part: Floats, whole: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(part / whole)


Scorecards = Mapping[str, Sequence[Scorecard]]
"""Scorecards of each system by its display name, one for each training seed."""


def evaluation_set_of(scorecards: Scorecards) -> EvaluationSet:
    """Return the evaluated images, which are the same for all scorecards of a comparison.

    Args:
        scorecards: Scorecards of at least one system by its display name, one for each training
            seed; a scorecard computes all figures of one trained model.

    Returns:
        The evaluated images of the first scorecard.
    """
    return next(iter(scorecards.values()))[0].evaluated
