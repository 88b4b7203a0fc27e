"""Truth of one image, and the answer of one system to it, with the words that captions use."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.statistics.figure_text import score_text

Boxes = npt.NDArray[np.float64]
NO_BOXES: Boxes = np.empty((0, 4))


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


@dataclass(frozen=True)
class ImagePrediction:
    """Answer of one system to one image; what it does not give, or is unknown, is None.

    Attributes:
        decision: True if the system calls the image positive; None if it is undecided.
        boxes: Boxes xyxy in original px with their score, shape ``(N, 5)``.
        box_cut: Boxes with at least this score are drawn.
        heat: Activation map on the system's own fixed scale, 0 to 1, shape ``(rows, columns)``.
        frame: Rectangle that the map covers, xyxy in original px.
        point: Point that is scored, x and y in original px; `localised` says if it is on a lesion.
    """

    system: str
    colour: str
    score: float | None = None
    threshold: float | None = None
    probability: float | None = None
    decision: bool | None = None
    boxes: Boxes = field(default_factory=lambda: np.empty((0, 5)))
    box_cut: float = 0.5
    heat: npt.NDArray[np.float64] | None = None
    frame: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    point: tuple[float, float] | None = None
    localised: bool | None = None

    def outcome(self, truth: ImageTruth) -> tuple[str, str]:
        """Return a sign and words on whether the system is right."""
        if self.decision is None or np.isnan(truth.label):
            return "–", "undecided" if self.decision is None else "truth unknown"
        if truth.label < 1:
            return ("✗", "false alarm") if self.decision else ("✓", "correctly clear")
        if not self.decision:
            return "✗", "missed"
        if self.localised is None:
            return "✓", "found"
        return (
            ("✓", "found, on the lesion") if self.localised else ("✗", "right image, wrong place")
        )

    def score_words(self) -> str:
        """Return the score beside its threshold; full digits where both would look equal."""
        if self.score is None:
            return "no score"
        if self.threshold is None:
            return f"score {score_text(self.score)}, no threshold"
        sign = "≥" if self.score >= self.threshold else "<"
        shown = score_text(self.score), score_text(self.threshold)
        if shown[0] == shown[1] and self.score != self.threshold:
            shown = f"{self.score:.7g}", f"{self.threshold:.7g}"
        return f"score {shown[0]} {sign} {shown[1]}"
