"""Output of one system on the test images, as a report draws and lists it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from cxr_compare.evaluation.boxes.froc import FrocCurve
from cxr_compare.evaluation.compare.evaluated_models import EvaluatedModel
from cxr_compare.evaluation.decisions.decision import Decision
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.ranking import roc_and_pr_curves


@dataclass(frozen=True)
class SystemResult:
    """Output of one system on the test images; with several training seeds, of the first one.

    Attributes:
        thresholds: Threshold of each policy; `None` where validation gives none.
        curve: ``threshold``, ``fpr``, ``tpr``, ``precision``, ``recall``; empty where unknown.
        confusion: ``tp``, ``fp``, ``tn``, ``fn`` of each policy with a threshold.
        boxes: Boxes on the test images; those of a classifier are cut out of its maps. `None`
            without boxes.
        maps: Activation maps, one for each image; `None` without maps.
        map_scale: Fixed low and high end of the maps.
        cost: Parameters, FLOPs, latency; values may be `None`.
        froc: FROC curve of each hit rule (``iou``, ``centre``); empty without boxes.
        seeds: Number of training runs behind the system; `None` where unknown (other software,
            readers).
        decisions: What validation chose, for each training seed.
        training_id: Id that tells one training from another; `None` where unknown.
        exported: True if the system is an export of a run.

    Example:
        >>> SystemResult(thresholds={"max_f1": 0.4}, seeds=3).boxes is None
        True
    """

    thresholds: dict[str, float | None] = field(default_factory=dict)
    curve: dict[str, Floats] = field(default_factory=dict)
    confusion: dict[str, dict[str, int]] = field(default_factory=dict)
    boxes: pd.DataFrame | None = None
    maps: pd.DataFrame | None = None
    map_scale: tuple[float, float] | None = None
    cost: dict[str, Any] = field(default_factory=dict)
    froc: dict[str, FrocCurve] = field(default_factory=dict)
    seeds: int | None = None
    decisions: tuple[Decision, ...] = ()
    training_id: str | None = None
    exported: bool = False

    @classmethod
    def from_models(cls, models: Sequence[EvaluatedModel]) -> SystemResult:
        """Collect the output of a system from its models, one for each training seed."""
        first = models[0]
        scorecard = first.scorecard
        facts = first.system.facts
        confusion = {policy: scorecard.confusion(policy) for policy in scorecard.thresholds}
        seed_unknown = len(models) == 1 and facts.seed is None
        return cls(
            thresholds={
                policy: choice.threshold for policy, choice in scorecard.thresholds.items()
            },
            curve=roc_and_pr_curves(scorecard.evaluated.y_true, scorecard.scores),
            confusion={policy: counts for policy, counts in confusion.items() if counts},
            boxes=scorecard.boxes,
            maps=None if first.output.gives_boxes else first.output.maps,
            map_scale=first.decision.map_scale,
            cost=dict(facts.cost),
            froc=scorecard.froc(),
            seeds=None if seed_unknown else len(models),
            decisions=tuple(model.decision for model in models),
            training_id=facts.training_id,
            exported=facts.exported,
        )

    def __repr__(self) -> str:
        localised = "with boxes or maps" if self.points else "without boxes and maps"
        return f"<SystemResult {localised}, policies {', '.join(self.thresholds) or 'none'}>"

    @property
    def points(self) -> bool:
        """True if the system points at positions in the image, with boxes or maps."""
        return self.boxes is not None or self.maps is not None
