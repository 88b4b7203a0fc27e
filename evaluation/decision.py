"""A decision rule per system and target: everything that validation images choose.

`cxr tune` writes it, `cxr compare` derives it again from the same rows and refuses where the two
differ: no threshold can have been chosen on test images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from data_prep.dataset import DataSet, Target
from data_prep.predictions import Predictions
from data_prep.tables import InputError
from evaluation.bootstrap import cluster_index
from evaluation.box_rule import AS_STORED, BoxRule
from evaluation.calibration import CLIP, PlattScaling, choose_calibration, fit_platt
from evaluation.evidence import Evidence, images_run, patients_of
from evaluation.json_difference import first_difference
from evaluation.lesion_figures import WeightedRsnaScore
from evaluation.maps import MAP_BOX_LEVELS, boxes_from_map, map_scale
from evaluation.matching import WeightedAveragePrecision, match_boxes
from evaluation.metrics import auroc, classification_metrics, confusion_counts
from evaluation.pairs import pair_boxes
from evaluation.reduction import CANDIDATES, Reduction
from evaluation.search_space import Search, search_space
from evaluation.sweep import sweep
from evaluation.sweep_images import sweep_images
from evaluation.thresholds import POLICIES, ThresholdChoice, choose_threshold

_SAME = 1e-9
_DEFAULT_LEVEL = 0.5
CHOSEN_ON = ("inference_id", "content_id", "labels_id", "split", "split_id")


@dataclass(frozen=True)
class Decision:
    """What validation chose for one system and target.

    Attributes:
        target: The target's name.
        chosen_on: Ids of the predictions, labels and split it was chosen on, and counts.
        reduction: How a detector's boxes become an image score; `None` for image scores.
        boxes: How a detector's stored boxes become the ones that are judged.
        box_cut: Score from which boxes are called in the RSNA score; `None` where validation has
            no lesion to choose it by.
        search: What was searched and what it gave; `None` without a search.
        calibration: Score to probability; `None` where validation cannot give it.
        map_scale: Low and high end of the map scale, raw; `None` without maps.
        map_box_level: Where boxes are cut out of maps, as a share of the scale.
        thresholds: A choice per policy.
        validation: Figures on the validation images per policy, and ``""`` without threshold.
        tried: Every setting tried, with the figure it was judged by.
    """

    target: str
    chosen_on: dict[str, Any]
    reduction: Reduction | None = None
    boxes: BoxRule = AS_STORED
    box_cut: float | None = None
    search: dict[str, Any] | None = None
    calibration: PlattScaling | None = None
    map_scale: tuple[float, float] | None = None
    map_box_level: float | None = None
    thresholds: dict[str, ThresholdChoice] = field(default_factory=dict)
    validation: dict[str, dict[str, float | None]] = field(default_factory=dict)
    tried: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The content of ``decisions/<target>.json``."""
        rule, platt = self.reduction, self.calibration
        return {
            "target": self.target,
            "chosen_on": self.chosen_on,
            "reduction": rule and {"rule": rule.rule, "min_score": rule.min_score},
            "box_fusion": self.boxes.to_json(),
            "box_cut": self.box_cut,
            "search": self.search,
            "calibration": platt
            and {
                "method": "platt",
                "slope": platt.slope,
                "intercept": platt.intercept,
                "clip": CLIP,
            },
            "map_scale": self.map_scale and list(self.map_scale),
            "map_box_level": self.map_box_level,
            "policies": {
                name: {
                    "threshold": choice.threshold,
                    "reason": choice.reason,
                    "validation": self.validation.get(name, {}),
                }
                for name, choice in self.thresholds.items()
            },
            "validation": self.validation.get("", {}),
            "settings_tried": self.search["settings_tried"] if self.search else len(self.tried),
            "tried": self.tried,
        }

    @classmethod
    def from_json(cls, payload: dict[str, Any]) -> Decision:
        """Read what `to_json` wrote.

        Raises:
            InputError: A key is missing or holds another type.
        """
        try:
            rule, platt, scale = (payload[key] for key in ("reduction", "calibration", "map_scale"))
            policies = payload["policies"]
            return cls(
                target=payload["target"],
                chosen_on=dict(payload["chosen_on"]),
                reduction=Reduction(rule["rule"], rule["min_score"]) if rule else None,
                boxes=BoxRule.from_json(payload["box_fusion"]),
                box_cut=payload.get("box_cut"),
                search=payload.get("search"),
                calibration=PlattScaling(platt["slope"], platt["intercept"]) if platt else None,
                map_scale=(scale[0], scale[1]) if scale else None,
                map_box_level=payload["map_box_level"],
                thresholds={
                    name: ThresholdChoice(name, spec["threshold"], spec["reason"])
                    for name, spec in policies.items()
                },
                validation={name: spec["validation"] for name, spec in policies.items()}
                | {"": payload["validation"]},
                tried=list(payload["tried"]),
            )
        except (KeyError, TypeError, IndexError) as error:
            raise InputError(f"decision: broken at {error}; run cxr tune again") from None

    def difference(self, other: Decision) -> str | None:
        """The first place where two decisions differ, `None` where they agree."""
        return first_difference(self.to_json(), other.to_json())


def tune(
    predictions: Predictions,
    dataset: DataSet,
    target: Target,
    *,
    split: str = "default",
    policies: Sequence[str] = POLICIES,
    search: Search | None = None,
    advance: Callable[[int], None] | None = None,
) -> Decision:
    """Choose a system's decision rule on the validation images of a split.

    The reduction rule is the one with the highest AUROC, the level of map boxes the one with the
    highest AP50; among equals the simpler rule and the highest level. A search chooses the fusion
    and scale of a detector's boxes, too. Thresholds follow.

    Args:
        predictions: The system.
        dataset: Labels and split.
        target: What is judged.
        split: Name of the split whose ``val`` images are used.
        policies: See `evaluation.thresholds.check_policy`.
        search: What to search, and for what; by default boxes stay as they are stored.
        advance: Called with the steps of the search done.

    Returns:
        The decision. Where the system ran on no validation image of known label, its thresholds
        are `None` with that reason and nothing else is chosen.

    Raises:
        InputError: A policy is unknown, the predictions are broken, or there is nothing to search.
    """
    if search is not None and predictions.kind != "boxes":
        raise InputError(
            f"{predictions.folder}: {predictions.name} gives no boxes, so there is no fusion to "
            "search; tune it without --search"
        )
    validation = dataset.image_ids("val", split)
    labels = dataset.labels(target).reindex(validation).dropna()
    ran = labels.index.intersection(images_run(predictions)).sort_values()
    y_true = labels.reindex(ran)
    chosen_on = decision_ids(predictions, dataset, split) | {
        "role": "val",
        "n_images": len(ran),
        "n_patients": cluster_index(patients_of(dataset.images, ran))[1],
        "n_positive": int(y_true.sum()),
        "n_not_run": len(labels) - len(ran),
    }
    evidence = Evidence(predictions, target, ran)
    if not len(ran):
        reason = f"the system ran on no validation image of split '{split}'"
        none = {policy: ThresholdChoice(policy, None, reason) for policy in policies}
        reduction = Reduction("max") if evidence.gives_boxes else None
        return Decision(target.name, chosen_on, reduction=reduction, thresholds=none)
    found = None
    if search is None:
        reduction, tried = _choose_reduction(evidence, y_true)
    else:
        found = sweep(sweep_images(evidence, y_true, dataset), search, advance)
        reduction, tried = found.reduction, found.best
        evidence = Evidence(predictions, target, ran, found.rule, dataset.images)
    scores = evidence.scores(reduction)
    calibration, record = fit_platt(y_true, scores), None
    if found is not None:
        calibration, losses = choose_calibration(y_true, scores, found.folds)
        record = found.record | {"calibration": losses}
    scale, level, levels_tried = _choose_map_boxes(evidence, scores, dataset)
    thresholds = {policy: choose_threshold(y_true, scores, policy) for policy in policies}
    return Decision(
        target=target.name,
        chosen_on=chosen_on,
        reduction=reduction,
        boxes=found.rule if found else AS_STORED,
        box_cut=found.cut if found else _choose_box_cut(evidence, dataset),
        search=record,
        calibration=calibration,
        map_scale=scale,
        map_box_level=level,
        thresholds=thresholds,
        validation={"": classification_metrics(y_true, scores)}
        | {name: _figures(y_true, scores, choice) for name, choice in thresholds.items()},
        tried=tried + levels_tried,
    )


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


def _choose_reduction(
    evidence: Evidence, y_true: pd.Series
) -> tuple[Reduction | None, list[dict[str, Any]]]:
    """The reduction with the highest AUROC on validation; among equals the simpler."""
    if not evidence.gives_boxes:
        return None, []
    best, best_figure, tried = CANDIDATES[0], -1.0, []
    for candidate in CANDIDATES:
        figure = auroc(y_true, evidence.scores(candidate))
        tried.append({"rule": candidate.rule, "min_score": candidate.min_score, "auroc": figure})
        if figure is not None and figure > best_figure + _SAME:
            best, best_figure = candidate, figure
    return best, tried


def _choose_box_cut(evidence: Evidence, dataset: DataSet) -> float | None:
    """The cut with the highest RSNA score on validation; among equals the lowest."""
    if not evidence.gives_boxes:
        return None
    judged = evidence.image_ids.intersection(dataset.boxes_trusted(evidence.target)).sort_values()
    pairs = pair_boxes(evidence.predicted_boxes, dataset.target_boxes(evidence.target), judged)
    if not pairs.n_true.any():
        return None
    cuts = search_space("full").cuts
    every = np.zeros(len(judged), dtype=np.int64)
    scores = WeightedRsnaScore(pairs, every, 1, cuts)(np.ones((1, 1), dtype=np.int64))[0]
    return cuts[int(np.nanargmax(scores))]


def _choose_map_boxes(
    evidence: Evidence, scores: pd.Series, dataset: DataSet
) -> tuple[tuple[float, float] | None, float | None, list[dict[str, Any]]]:
    """The map scale, and the level at which its boxes reach the highest AP50."""
    if evidence.gives_boxes or evidence.maps is None:
        return None, None, []
    scale = map_scale(evidence.maps)
    judged = evidence.image_ids.intersection(dataset.boxes_trusted(evidence.target)).sort_values()
    truth = dataset.target_boxes(evidence.target)
    level, best_figure, tried = _DEFAULT_LEVEL, 0.0, []
    for candidate in MAP_BOX_LEVELS:
        boxes = boxes_from_map(evidence.maps, scores, scale=scale, level=candidate)
        matches = match_boxes(boxes, truth, judged, [0.5])
        every = np.zeros(len(judged), dtype=np.int64)
        figure = WeightedAveragePrecision(matches, every, 1)(np.ones((1, 1), dtype=np.int64))[0, 0]
        tried.append({"map_box_level": candidate, "ap50": None if np.isnan(figure) else figure})
        if figure >= best_figure - _SAME and figure > 0:
            level, best_figure = candidate, float(figure)
    return scale, level, tried
