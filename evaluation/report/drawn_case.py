"""One case on a page: its panels as embedded images, with captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.overlays.draw import draw_panel, encode_jpeg, jpeg_source
from cxr_compare.evaluation.overlays.image_prediction import ImagePrediction, ImageTruth
from cxr_compare.evaluation.overlays.legend import DrawnMark, drawn_marks
from cxr_compare.evaluation.overlays.outcomes import outcome_kind
from cxr_compare.evaluation.overlays.prediction_shapes import prediction_shapes
from cxr_compare.evaluation.overlays.shapes import Shape
from cxr_compare.evaluation.overlays.sheet import Caption, Drawing
from cxr_compare.evaluation.report.cases import CaseSource

_BRIEF_BOXES = 3
_BRIEF_SIDE = 480  # px
_BRIEF_QUALITY = 80
_ENCODINGS = ((1000, 85), (640, 75), (480, 60), (320, 40), (160, 30))
"""Longer side in px and quality of the panels, the best first."""


@dataclass(frozen=True)
class DrawnCase:
    """An example image of the report, drawn with the true lesions and each system's prediction.

    Attributes:
        anchor: Name of the example in addresses on the page, such as ``all-miss-01``.
        facts: Line of text with view, sex and age.
        width: Width of a panel in px.
        height: Height of a panel in px.
        panels: Views of the image side by side: plain, with the true lesions, and with the
            prediction of each system; each is a caption and the ``src`` of an HTML image.
        outcomes: For each system a code that says whether it is right, such as ``placed`` (found,
            at the right position), ``missed``, ``alarm`` (false alarm) or ``clear`` (correctly
            called negative).
        lesion: Area of the largest true box in percent of the image; None without true boxes.
        gap: How differently the systems rank this image among all test images by score, from 0
            (equal ranks) to 1.
        brief: The image with the main shapes of all systems over one another, without texts, as the
            ``src`` of an HTML image.
        marks: What is drawn on the panels, for the legend.
        brief_marks: What is drawn on ``brief``, for the legend.
    """

    image_id: str
    anchor: str
    facts: str
    width: int
    height: int
    panels: tuple[tuple[Caption, str], ...]
    outcomes: tuple[str, ...]
    lesion: float | None
    gap: float
    brief: str
    marks: tuple[DrawnMark, ...]
    brief_marks: tuple[DrawnMark, ...]

    @classmethod
    def from_drawing(
        cls,
        drawing: Drawing,
        source: CaseSource,
        image_id: str,
        pixels: npt.NDArray[np.uint8],
        *,
        anchor: str,
        most: int,
        gap: float = 0.0,
    ) -> DrawnCase:
        """Embed the panels of an overlay file in a page, and draw the small image of the case.

        `pixels` are the grey values of the original image, uint8, shape ``(height, width)``. `most`
        is the largest size of all encoded panels together in bytes.
        """
        height, width = pixels.shape
        size = width, height
        truth = source.truth(image_id)
        predictions = source.predictions(image_id)
        by_system = [_brief(one, truth, size) for one in predictions]
        brief = [shape for shapes in by_system for shape in shapes]
        small = draw_panel(pixels, brief, min(_BRIEF_SIDE, max(drawing.panels[0].shape)))
        return cls(
            image_id=image_id,
            anchor=anchor,
            facts=source.facts(image_id),
            width=drawing.panels[0].shape[1],
            height=drawing.panels[0].shape[0],
            panels=tuple(zip(drawing.captions, embed_panels(drawing.panels, most), strict=True)),
            outcomes=tuple(outcome_kind(prediction, truth) for prediction in predictions),
            lesion=_largest_lesion(truth, width * height),
            gap=gap,
            brief=jpeg_source(small, _BRIEF_SIDE, _BRIEF_QUALITY),
            marks=tuple(drawing.marks),
            brief_marks=tuple(
                drawn_marks(
                    predictions,
                    by_system,
                    truth.shapes(size),
                    located=truth.boxes is not None,
                )
            ),
        )


def _largest_lesion(truth: ImageTruth, area: int) -> float | None:
    if truth.boxes is None or not len(truth.boxes):
        return None
    sides = truth.boxes[:, 2:4] - truth.boxes[:, :2]
    return round(float(sides.prod(axis=1).max()) / area * 100, 2)


def _brief(prediction: ImagePrediction, truth: ImageTruth, size: tuple[int, int]) -> list[Shape]:
    """Return the shapes of a system's most confident boxes and of its contour nearest to 50 %.

    Where the cell of the map's peak is drawn instead of contours, it is drawn here, too.
    """
    first = np.argsort(-prediction.boxes[:, 4], kind="stable")[:_BRIEF_BOXES]
    grid = prediction.grid
    if grid is not None and grid.contoured:
        probabilities = dict(zip(grid.levels, prediction.contours, strict=True))
        half = min(grid.contoured, key=lambda level: abs(probabilities[level] - 0.5))
        grid = replace(grid, levels=(half,))
    shown = replace(prediction, boxes=prediction.boxes[first], grid=grid)
    is_contour = grid is not None and not grid.shows_cell
    return [
        replace(shape, width=2.0, rim=2.0) if is_contour and shape.layer == "map" else shape
        for shape in prediction_shapes(shown, truth, size)
        if isinstance(shape, Shape)
    ]


def embed_panels(panels: Sequence[npt.NDArray[np.uint8]], most: int) -> list[str]:
    """Return the panels of a case as sources of images, smaller where they would be too large.

    The panels are RGB, uint8, shape ``(H, W, 3)`` each. `most` is the largest size of all encoded
    panels together in bytes.
    """
    side, quality = _ENCODINGS[-1]
    for side, quality in _ENCODINGS:
        # The last panel has the most drawn on it.
        if len(panels) * len(encode_jpeg(panels[-1], side, quality)) <= most:
            break
    return [jpeg_source(panel, side, quality) for panel in panels]
