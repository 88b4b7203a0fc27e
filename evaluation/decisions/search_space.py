"""What `cxr tune --search` looks through: fusions, box scales, reductions, score cuts.

Every list begins with the simplest choice, because among equals the earlier setting wins: the
stored boxes before NMS (the higher IoU first: fewer boxes go), soft-NMS and weighted box fusion;
a scale nearer 1 before one further off; the reductions as in `evaluation.decisions.reduction`; the lower
score cut. Fusion decides before scale, and scale before reduction and cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from data_prep.contracts.tables import InputError
from evaluation.boxes.box_rule import BoxRule
from evaluation.boxes.fusion import Confidence
from evaluation.decisions.reduction import CANDIDATES, Reduction

SpaceName = Literal["default", "boxes", "full"]
Objective = Literal["auroc", "f1", "ap50", "rsna", "froc"]
IMAGE_OBJECTIVES = ("auroc", "f1")
CONFIDENCES: tuple[Confidence, ...] = ("max", "avg")
_FAINT = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03)
"""Score cuts for detectors whose scores are low throughout."""


@dataclass(frozen=True)
class Search:
    """What is searched, and for what.

    Attributes:
        space: ``default``, ``boxes`` (fusion and scale only, images by their best box) or
            ``full``.
        objective: The figure that decides.
    """

    space: SpaceName = "default"
    objective: Objective = "auroc"

    def __post_init__(self) -> None:
        for kind, value, known in (
            ("search", self.space, get_args(SpaceName)),
            ("objective", self.objective, get_args(Objective)),
        ):
            if value not in known:
                raise InputError(f"--{kind} {value}: choose one of {', '.join(known)}")

    @property
    def of_images(self) -> bool:
        """Whether the objective judges images, which the scale of boxes cannot change."""
        return self.objective in IMAGE_OBJECTIVES

    @classmethod
    def from_json(cls, payload: dict[str, Any] | None) -> Search | None:
        """The search that a decision's ``search`` records, to run it again."""
        return cls(payload["space"], payload["objective"]) if payload else None


@dataclass(frozen=True)
class Space:
    """The settings, the simpler first.

    Attributes:
        fusions: Without their scale.
        scales: Factors on width and height of boxes.
        reductions: From boxes to an image score.
        cuts: Scores from which boxes are called in the RSNA score, rising.
    """

    fusions: tuple[BoxRule, ...]
    scales: tuple[float, ...]
    reductions: tuple[Reduction, ...]
    cuts: tuple[float, ...]


def search_space(name: SpaceName) -> Space:
    """The settings of a named space.

    Example:
        >>> space = search_space("full")
        >>> len(space.fusions), len(space.scales), len(space.reductions), len(space.cuts)
        (62, 21, 15, 102)
    """
    if name == "full":
        fusions = (
            *(BoxRule("nms", iou=i / 20) for i in range(11, 0, -1)),
            *(BoxRule("soft_nms_linear", iou=i) for i in (0.5, 0.4, 0.3, 0.2, 0.1)),
            *(BoxRule("soft_nms_gaussian", sigma=s) for s in (0.1, 0.2, 0.3, 0.5, 0.7)),
            *_weighted((0.55, 0.5, 0.4, 0.3, 0.2), (0.0, 0.01, 0.05, 0.1)),
        )
        floors = (0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01, 0.001)
        noisy = tuple(Reduction("noisy_or", floor) for floor in floors)
        reductions = (Reduction("max"), Reduction("top_k"), *noisy)
        # Whole hundredths, so that a scale reads back as it was written.
        scales, cuts = range(70, 111, 2), np.arange(1, 100) / 100
    else:
        fusions = (
            *(BoxRule("nms", iou=i) for i in (0.5, 0.4, 0.3, 0.2, 0.1)),
            *(BoxRule("soft_nms_linear", iou=i) for i in (0.5, 0.3)),
            *(BoxRule("soft_nms_gaussian", sigma=s) for s in (0.1, 0.3, 0.5)),
            *_weighted((0.5, 0.3), (0.0, 0.05)),
        )
        reductions = CANDIDATES if name == "default" else (Reduction("max"),)
        scales, cuts = range(70, 111, 5), np.arange(1, 20) / 20
    nearest = sorted(scales, key=lambda percent: (abs(percent - 100), percent))
    return Space(
        fusions=(BoxRule(), *fusions),
        scales=tuple(percent / 100 for percent in nearest),
        reductions=reductions,
        cuts=tuple(sorted({*_FAINT, *cuts.tolist()})),
    )


def _weighted(overlaps: tuple[float, ...], floors: tuple[float, ...]) -> list[BoxRule]:
    return [
        BoxRule("wbf", iou=overlap, min_score=floor, confidence=confidence)
        for overlap in overlaps
        for floor in floors
        for confidence in CONFIDENCES
    ]
