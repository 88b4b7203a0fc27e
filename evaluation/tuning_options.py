"""Options of a decision: calibration, reductions of boxes, and choice of boxes."""

from __future__ import annotations

from dataclasses import dataclass

from cxr_compare.evaluation.box_choice import BOXES_BY
from cxr_compare.evaluation.boxes.box_figures import check_boxes_by


@dataclass(frozen=True)
class TuningOptions:
    """Options for choosing a system's thresholds, calibration and rules on validation images.

    By default the usual choices are made. An InputError is raised if `boxes_by` is not a figure of
    ranked boxes.

    Attributes:
        calibration: Method that turns scores into probabilities, one of
            `evaluation.statistics.calibration.METHODS`, such as ``platt``; ``choose`` takes the
            method with the lowest log loss on held-out folds of patients. `None` takes ``platt``.
        reductions: Names of the rules to try for combining the box scores of an image to its score:
            ``max``, ``noisy_or``, ``top_k`` (see `Reduction`); empty for all three.
        boxes_by: Short name of the figure with whose highest value the rule for boxes is chosen,
            such as ``froc_mean``; `check_boxes_by` checks it.
    """

    calibration: str | None = None
    reductions: tuple[str, ...] = ()
    boxes_by: str = BOXES_BY

    def __post_init__(self) -> None:
        check_boxes_by(self.boxes_by)
