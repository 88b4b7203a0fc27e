"""Output of one system on the test images, from which a report draws its curves and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.evaluation.boxes.froc import FrocCurve
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.evaluated_model import EvaluatedModel
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.ranking import roc_and_pr_curves


@dataclass(frozen=True)
class SystemResult:
    """Output of one system on the test images, as a report shows it.

    If the system was trained with several random seeds, the output is that of the first.

    Attributes:
        thresholds: Threshold by name of the rule that chose it, such as ``max_f1``; `None` where
            the validation images give none.
        threshold_ranges: Ends between which 95 % of the resamples of the validation patients choose
            the threshold, by name of the rule; empty where no resample chooses it.
        curve: Points of the ROC and precision-recall curves by name: ``threshold``, ``fpr`` (false
            positive rate), ``tpr`` (true positive rate), ``precision`` and ``recall``, shape
            ``(points,)`` each; empty where they are unknown.
        confusion: Numbers of images ``tp``, ``fp``, ``tn`` and ``fn`` by name of the rule that
            chose the threshold.
        boxes: Table of the evaluated boxes on the test images with ``image_id``, ``x1``, ``y1``,
            ``x2``, ``y2`` (original px) and ``score``. Those of a classifier are cut out of its
            activation maps. `None` without boxes.
        maps: Table of activation maps, one row for each image; `None` without maps.
        map_scale: Lower and upper end of the scale on which all maps are drawn, in raw values;
            `None` without maps.
        cost: Size and time of the system by name, such as ``parameters``, ``flops`` and
            ``latency_ms`` (time for one image in ms); a value is `None` if it was not measured.
        froc: FROC curve by name of the rule by which a box hits a lesion, ``iou`` or ``centre``;
            empty without boxes.
        image_blind_froc: That of its image-blind baseline; empty without a baseline.
        seeds: Number of training runs of the system; `None` where it is unknown, as for other
            software and readers.
        decisions: What was chosen on validation images, for each training seed.
        training_id: Id of the training, which a training run and the models exported from it share;
            `None` where it is unknown.
        has_scores: False for boxes without scores: the system is one point of the charts.
    """

    thresholds: dict[str, float | None] = field(default_factory=dict)
    threshold_ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    curve: dict[str, Floats] = field(default_factory=dict)
    confusion: dict[str, dict[str, int]] = field(default_factory=dict)
    boxes: pd.DataFrame | None = None
    maps: pd.DataFrame | None = None
    map_scale: tuple[float, float] | None = None
    cost: dict[str, Any] = field(default_factory=dict)
    froc: dict[str, FrocCurve] = field(default_factory=dict)
    image_blind_froc: dict[str, FrocCurve] = field(default_factory=dict)
    seeds: int | None = None
    decisions: tuple[Choices, ...] = ()
    training_id: str | None = None
    has_scores: bool = True

    @classmethod
    def from_models(
        cls,
        models: Sequence[EvaluatedModel],
        again: Mapping[str, Floats] | None = None,
        image_blind: Sequence[EvaluatedModel] = (),
    ) -> SystemResult:
        """Collect the output of a system from its evaluated models, one for each training seed.

        The output is that of the first seed, with the decisions of all seeds. `again` has the
        values that every resample of the validation patients chooses for the first seed, by name,
        shape ``(R,)``. `image_blind` has the baseline of each model; empty without a baseline.
        """
        first = models[0]
        facts = first.facts
        confusion = {policy: first.confusion(policy) for policy in first.thresholds}
        seed_unknown = len(models) == 1 and facts.seed is None
        return cls(
            thresholds={policy: choice.threshold for policy, choice in first.thresholds.items()},
            threshold_ranges={
                policy: _middle(again[policy])
                for policy in first.chosen_policies
                if again is not None and not np.isnan(again[policy]).all()
            },
            curve=(
                roc_and_pr_curves(first.images.y_true, first.scores)
                if first.output.has_scores
                else {}
            ),
            confusion={policy: counts for policy, counts in confusion.items() if counts},
            boxes=first.boxes,
            maps=None if first.output.reduces_boxes else first.output.maps,
            map_scale=first.choices.map_scale,
            cost=dict(facts.cost),
            froc=first.froc(),
            image_blind_froc=image_blind[0].froc() if image_blind else {},
            seeds=None if seed_unknown else len(models),
            decisions=tuple(model.choices for model in models),
            training_id=facts.training_id,
            has_scores=first.output.has_scores,
        )

    def __repr__(self) -> str:
        return f"<SystemResult of the policies {', '.join(self.thresholds) or 'none'}>"


def _middle(values: Floats) -> tuple[float, float]:
    """Return the ends of the middle 95 % of the known values."""
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)
