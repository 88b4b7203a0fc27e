"""Truth of one image, and the answer of one system to it, with the words that captions use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.overlays.colours import SystemMark
from cxr_compare.evaluation.statistics.figure_text import score_text

Boxes = npt.NDArray[np.float64]
NO_BOXES: Boxes = np.empty((0, 4))
_BROAD = 1 / 3
"""Share of the cells that are high from which a map points at nothing."""


@dataclass(frozen=True)
class ImageTruth:
    """Label (NaN if unknown) and true boxes of one image, xyxy in original px.

    `boxes` is None if nobody drew boxes; `readers` has those of each single radiologist by name.
    """

    label: float
    boxes: Boxes | None = None
    kind: str = ""
    readers: dict[str, Boxes] = field(default_factory=dict)

    def words(self, finding: str) -> str:
        """Return label and number of boxes in words."""
        if np.isnan(self.label):
            return f"{finding}: unknown"
        if self.label < 1:
            kind = f" ({self.kind.replace('_', ' ')})" if self.kind else ""
            return f"{finding}: absent{kind}"
        return f"{finding}: present" + ("" if self.boxes is None else f", boxes: {len(self.boxes)}")


class HeatMap(NamedTuple):
    """Activation map as it is drawn.

    Attributes:
        values: Raw values, shape ``(rows, columns)``.
        frame: Rectangle that they cover, xyxy in original px.
        levels: Raw values that all maps of the system share: above the first a value is high, above
            the second it is among the highest, and the third has the deepest tint.
    """

    values: npt.NDArray[np.float64]
    frame: tuple[float, float, float, float]
    levels: tuple[float, float, float]


@dataclass(frozen=True)
class ImagePrediction:
    """Answer of one system to one image; what it does not give, or is unknown, is None.

    Attributes:
        decision: True if the system calls the image positive; None if it is undecided.
        boxes: Boxes xyxy in original px with their score, shape ``(N, 5)``.
        box_cut: Boxes with at least this score are drawn.
        heat: Activation map.
        point: Point that is scored, x and y in original px; `localised` says if it is on a lesion.
    """

    system: str
    mark: SystemMark
    score: float | None = None
    threshold: float | None = None
    probability: float | None = None
    decision: bool | None = None
    boxes: Boxes = field(default_factory=lambda: np.empty((0, 5)))
    box_cut: float = 0.5
    heat: HeatMap | None = None
    point: tuple[float, float] | None = None
    localised: bool | None = None

    def has_map(self, truth: ImageTruth | None) -> bool:
        """Return True if the map is drawn: not on images that are called negative, but on missed.

        A map on an image that is rightly called negative would show evidence where there is none.
        """
        is_missed = truth is not None and truth.label >= 1
        return self.heat is not None and (self.decision is not False or is_missed)

    def has_point(self, truth: ImageTruth | None) -> bool:
        """Return True if the point is drawn: not on images called negative, unless a map is high.

        The peak of a map that is low everywhere would mark a place where no evidence is.
        """
        is_seen = self.decision is not False or (self.has_map(truth) and self.high_share > 0)
        return self.point is not None and is_seen

    def map_words(self, truth: ImageTruth | None) -> str:
        """Return in words that the map which is drawn points at no place; empty if it does."""
        if not self.has_map(truth):
            return ""
        if self.high_share > _BROAD:
            return f"heat map diffuse: {100 * self.high_share:.0f} % is high"
        low = "heat map: nothing is high"
        if self.decision is not False:
            low += "; the cross is its peak"
        return "" if self.high_share else low

    @property
    def high_share(self) -> float:
        """Share of the cells of the map that are high; 0 without a map."""
        if self.heat is None:
            return 0.0
        return float((self.heat.values > self.heat.levels[0]).mean())

    def outcome(self, truth: ImageTruth) -> tuple[str, str]:
        """Return a sign and words on whether the system is right."""
        if self.decision is None or np.isnan(truth.label):
            return "–", "undecided" if self.decision is None else "truth unknown"
        if truth.label < 1:
            return ("✗", "false alarm") if self.decision else ("✓", "rightly not called")
        if not self.decision:
            return "✗", "missed"
        if self.localised is None:
            return "✓", "called positive"
        return "✓", f"called, {'on' if self.localised else '✗ off'} the lesion"

    def score_words(self) -> str:
        """Return the score beside its threshold; full digits where both would look equal."""
        if self.score is None:
            return "no score"
        if self.threshold is None:
            return f"score {score_text(self.score)}, no threshold"
        sign = "≥" if self.score >= self.threshold else "<"
        texts = score_text(self.score), score_text(self.threshold)
        if texts[0] == texts[1] and self.score != self.threshold:
            texts = f"{self.score:.7g}", f"{self.threshold:.7g}"
        return f"score {texts[0]} {sign} {texts[1]}"
