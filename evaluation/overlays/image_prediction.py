"""Truth of one image, and the answer of one system to the image, as overlays show them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.overlays.contours import ActivationGrid
from cxr_compare.evaluation.overlays.shapes import (
    LINE_SHARE,
    TRUTH_COLOUR,
    Label,
    LabelRequest,
    Shape,
    corner_brackets,
    place_labels,
    rectangle,
)

NO_BOXES: npt.NDArray[np.float64] = np.empty((0, 4))
READER_COLOURS = ("#F0E442", "#56B4E9", "#E69FE0", "#00D0A0")
"""Colours of the boxes of single radiologists, which are drawn beside the truth."""
_CALLED = {True: "POSITIVE", False: "negative", None: "undecided"}


@dataclass(frozen=True)
class ImageTruth:
    """Label and true boxes of one image, which the predictions are compared with.

    Attributes:
        label: 1.0 if the finding is present, 0.0 if it is absent, NaN if unknown.
        boxes: Boxes of the true lesions, ``x1, y1, x2, y2`` in px of the original image, shape
            ``(N, 4)``; None if nobody drew boxes on this image.
        kind: For an image without the finding: ``normal``, or ``not_normal`` if it shows another
            abnormality. Empty if unknown.
        readers: Boxes that each single radiologist drew, by the radiologist's name, in the format
            of ``boxes``. They are shown in addition to ``boxes``.
    """

    label: float
    boxes: npt.NDArray[np.float64] | None = None
    kind: str = ""
    readers: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Title of the image with the true lesions: ``Truth`` or ``Readers``.

        ``Readers`` is used where there are boxes of single radiologists, but the label or the
        agreed boxes are unknown.
        """
        is_complete = not np.isnan(self.label) and self.boxes is not None
        return "Truth" if is_complete or not self.readers else "Readers"

    def shapes(self, size: tuple[int, int]) -> list[Shape | Label]:
        """Return what is drawn for the truth: white corners, and named boxes of radiologists.

        The truth is drawn in the same way on every image and in every legend. `size` is width and
        height of the original image in px.
        """
        lesions = NO_BOXES if self.boxes is None else self.boxes
        requests = []
        for number, (reader, boxes) in enumerate(self.readers.items()):
            colour = READER_COLOURS[number % len(READER_COLOURS)]
            requests += [LabelRequest("truth", box, reader, colour) for box in boxes]
        return [
            *(Shape("truth", (rectangle(one.box),), one.colour, width=1.5) for one in requests),
            *(Shape("truth", corner_brackets(box), TRUTH_COLOUR, closed=False) for box in lesions),
            *place_labels(requests, size, max(size) * LINE_SHARE),
        ]


@dataclass(frozen=True)
class ImagePrediction:
    """Prediction of one system (a detector or classifier) for one image.

    None, or an empty text, means that the value is unknown or that the system does not give it.

    Attributes:
        colour: Colour in which the system is drawn on the X-ray, ``#RRGGBB``.
        score: Score of the image, in [0, 1].
        threshold: Score of the image from which the system calls it positive, in [0, 1].
        probability: Calibrated probability that the finding is present, in [0, 1].
        decision: True if the system calls the image positive, False if negative; None if it is
            undecided, for example without a threshold.
        withheld: True if the prediction must not be used, because a warning says so; the text is
            then "no answer".
        boxes: Predicted boxes, columns ``x1, y1, x2, y2`` in px of the original image and
            ``score``, shape ``(N, 5)``.
        box_cut: Boxes with at least this score are drawn.
        grid: Activation map of a classifier, with the map values at which its contours are drawn.
        contours: Probability that each level in ``grid.levels`` stands for, in the same order, such
            as ``(0.25, 0.5)``; empty if it is unknown, and the map is then not drawn.
        point: Most suspicious point x, y in px of the original image: the centre of the
            highest-scoring box, or the peak of the map.
        localised: True if ``point`` lies on a true lesion.
        has_own_boxes: True if the boxes are those of a detector although there is a map.
    """

    system: str
    colour: str
    score: float | None = None
    threshold: float | None = None
    probability: float | None = None
    decision: bool | None = None
    withheld: bool = False
    boxes: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 5)))
    box_cut: float = 0.5
    grid: ActivationGrid | None = None
    contours: tuple[float, ...] = ()
    point: tuple[float, float] | None = None
    localised: bool | None = None
    has_own_boxes: bool = False

    @property
    def called(self) -> str:
        """Decision in words, such as ``POSITIVE`` or ``negative``.

        A decision that the finding is present is in capitals. A prediction that must not be used
        gives "no answer".
        """
        if self.withheld:
            return "no answer"
        return _CALLED[self.decision]
