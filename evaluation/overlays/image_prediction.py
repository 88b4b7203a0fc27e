"""Truth of one image, and the answer of one system to the image, as overlays show them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.overlays.contours import ActivationGrid
from cxr_compare.evaluation.overlays.shapes import (
    TRUTH_COLOUR,
    Label,
    LabelRequest,
    Shape,
    corner_brackets,
    place_labels,
    rectangle,
)

NO_BOXES: npt.NDArray[np.float64] = np.empty((0, 4))
_READER_COLOURS = ("#F0E442", "#56B4E9", "#E69FE0", "#00D0A0")
_CALLED = {True: "POSITIVE", False: "negative", None: "undecided"}
_TRIAGED = {"ruled_out": "ruled out", "referred": "refer to a reader", "ruled_in": "RULED IN"}


@dataclass(frozen=True)
class ImageTruth:
    """Truth of one image.

    Attributes:
        label: 1 if the finding is present, 0 if it is absent, NaN if unknown.
        boxes: Boxes of the lesions, xyxy in original px, shape ``(N, 4)``; None if nobody drew
            them.
        kind: Kind of a negative image, ``normal`` or ``not_normal``; empty if unknown.
        readers: Boxes that each single reader drew, by name of the reader, in addition to `boxes`.

    Example:
        >>> ImageTruth(1.0, np.array([[0.0, 0.0, 4.0, 2.0]])).title
        'Truth'
    """

    label: float
    boxes: npt.NDArray[np.float64] | None = None
    kind: str = ""
    readers: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Title of the panel: ``Truth``, or ``Readers`` where only readers' boxes are known."""
        is_complete = not np.isnan(self.label) and self.boxes is not None
        return "Truth" if is_complete or not self.readers else "Readers"

    def shapes(self, size: tuple[int, int], line: float) -> list[Shape | Label]:
        """Return the lesions as white corners, and readers' boxes with the name of the reader.

        The truth has the same mark here, on the panels of the systems and in every legend.

        Args:
            size: Width and height of the image in original px.
            line: Height of a text, as a share of the longer side of the image.

        Returns:
            Boxes and names, in the order in which they are drawn.
        """
        lesions = NO_BOXES if self.boxes is None else self.boxes
        requests = []
        for number, (reader, boxes) in enumerate(self.readers.items()):
            colour = _READER_COLOURS[number % len(_READER_COLOURS)]
            requests += [LabelRequest("truth", box, reader, colour) for box in boxes]
        return [
            *(Shape("truth", (rectangle(one.box),), one.colour, width=1.5) for one in requests),
            *(Shape("truth", corner_brackets(box), TRUTH_COLOUR, closed=False) for box in lesions),
            *place_labels(requests, size, max(size) * line),
        ]


@dataclass(frozen=True)
class ImagePrediction:
    """Answer of one system to one image; None means unknown or absent.

    Attributes:
        system: Display name of the system.
        colour: Colour of the system on the X-ray, ``#RRGGBB``.
        score: Score of the image, in [0, 1].
        threshold: Threshold on the score of the image.
        probability: Calibrated probability of the finding.
        decision: True if the image is called positive; None if it is undecided.
        triage: ``ruled_out``, ``referred`` or ``ruled_in``; empty without triage.
        withheld: True if a warning says that the answer must not be used.
        boxes: Predicted boxes ``x1, y1, x2, y2, score`` in original px, shape ``(N, 5)``.
        box_cut: Boxes with at least this score are drawn in full, other boxes thin and grey.
        grid: Activation map with the levels of its contours.
        contours: Probabilities that belong to the contours of the map.
        point: Scored point x, y in original px.
        localised: True if the scored point lies on a lesion.
        within_cell: True if the scored point lies on a lesion that is widened by one map cell.
        cell_of: Name of the system whose map has this cell; empty if it is this system.
        cell: Longer side of this cell, which is the coarsest of all systems, in original px.

    Example:
        >>> ImagePrediction("A", "#E06C00", decision=True).called
        'POSITIVE'
    """

    system: str
    colour: str
    score: float | None = None
    threshold: float | None = None
    probability: float | None = None
    decision: bool | None = None
    triage: str = ""
    withheld: bool = False
    boxes: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 5)))
    box_cut: float = 0.5
    grid: ActivationGrid | None = None
    contours: tuple[float, ...] = ()
    point: tuple[float, float] | None = None
    localised: bool | None = None
    within_cell: bool | None = None
    cell_of: str = ""
    cell: float = 0.0

    @property
    def called(self) -> str:
        """Decision in words; a decision for the finding is in capitals.

        Example:
            >>> ImagePrediction("A", "", decision=True).called
            'POSITIVE'
            >>> ImagePrediction("A", "", triage="referred").called
            'refer to a reader'
        """
        if self.withheld:
            return "no answer"
        return _TRIAGED.get(self.triage, _CALLED[self.decision])

    @property
    def contour_percentages(self) -> str:
        """Text of the probabilities that belong to the drawn contours of the map, in percent."""
        drawn = self.contours
        if self.grid is not None and self.grid.contoured:
            levels = zip(self.contours, self.grid.levels, strict=True)
            drawn = tuple(share for share, level in levels if level in self.grid.contoured)
        percentages = [f"{100 * share:.0f}" for share in drawn]
        return f"{', '.join(percentages)} %"

    @property
    def cell_text(self) -> str:
        """Text on the cell of the map's peak where it is drawn instead of contours, else empty.

        Example:
            >>> grid = ActivationGrid(np.eye(5), (0.0, 0.0, 50.0, 50.0), (0.5,))
            >>> ImagePrediction("A", "", grid=grid, contours=(0.5,)).cell_text
            'peak cell of a map of 5 × 5 cells'
        """
        if self.grid is None or not self.grid.shows_cell:
            return ""
        return f"peak cell of a map of {self.grid.size_text} cells"
