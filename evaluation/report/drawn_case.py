"""One case on a page: an embedded image with one SVG drawing for each panel."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from cxr_compare.evaluation.overlays.draw import encode_webp
from cxr_compare.evaluation.overlays.image_prediction import ImagePrediction, ImageTruth
from cxr_compare.evaluation.overlays.legend import DrawnMark, drawn_marks
from cxr_compare.evaluation.overlays.outcomes import (
    describe_score,
    describe_truth,
    outcome,
    outcome_kind,
)
from cxr_compare.evaluation.overlays.prediction_shapes import NO_CONTOUR, prediction_shapes
from cxr_compare.evaluation.overlays.shapes import Label, Shape
from cxr_compare.evaluation.overlays.svg import to_svg
from cxr_compare.evaluation.report.cases import CaseSource

MAX_IMAGE_BYTES = 120_000
"""Largest size of one embedded image, bytes; the limit is lower where a page has more than 45."""


_LINE = 1 / 12


_FINE_LINE = 1 / 24  # height of a text on a small and on a large panel, as a share of its side


_BRIEF_BOXES = 3


PANEL = 500  # px of a panel's longer side; four in a row have 300 dpi at a width of 17 cm


_ENCODINGS = ((640, 82), (640, 50), (320, 40))  # longer side in px, quality; the last always fits


@dataclass(frozen=True)
class _Panel:
    """Panel of a case, with drawing, title and texts."""

    title: str
    text: str
    drawing: Markup
    colour: str = ""
    sign: str = ""
    score: str = ""
    is_truth: bool = False


@dataclass(frozen=True)
class DrawnCase:
    """An example image of the report, drawn with the true lesions and each system's prediction.

    Attributes:
        image_id: Id of the image.
        anchor: Name of the example in addresses on the page, such as ``all-miss-01``.
        facts: Line of text with view, sex and age.
        width: Width of the original image in px.
        height: Height of the original image in px.
        data_url: The encoded image as an address that begins with ``data:``.
        panels: Views of the image side by side: plain, with the true lesions, and with the
            prediction of each system.
        outcomes: For each system a code that says whether it is right, such as ``placed`` (found,
            at the right position), ``missed``, ``alarm`` (false alarm) or ``clear`` (correctly
            called negative).
        lesion: Area of the largest true box in percent of the image; None without true boxes.
        gap: How differently the systems rank this image among all test images by score, from 0
            (equal ranks) to 1.
        brief: Main shapes of all systems over one another as SVG, without texts.
        marks: What is drawn on the panels, for the legend.
        brief_marks: What is drawn on ``brief``, for the legend.
    """

    image_id: str
    anchor: str
    facts: str
    width: int
    height: int
    data_url: str
    panels: tuple[_Panel, ...]
    outcomes: tuple[str, ...] = ()
    lesion: float | None = None
    gap: float = 0.0
    brief: Markup = field(default_factory=Markup)
    marks: tuple[DrawnMark, ...] = ()
    brief_marks: tuple[DrawnMark, ...] = ()

    @classmethod
    def from_image(
        cls,
        source: CaseSource,
        image_id: str,
        pixels: npt.NDArray[np.uint8],
        *,
        anchor: str,
        most: int = MAX_IMAGE_BYTES,
        gap: float = 0.0,
    ) -> DrawnCase:
        """Draw one example image as SVG over the embedded pixels.

        Args:
            source: Object that reads labels, true boxes and predictions of the image.
            image_id: Id of the image to draw.
            pixels: Grey values of the original image, uint8, shape ``(height, width)``.
            anchor: Name of the example in addresses on its page, such as ``all-miss-01``.
            most: Largest size of the encoded image in bytes.
            gap: How differently the systems rank this image among all test images by score, from 0
                (equal ranks) to 1.

        Returns:
            The drawn image, with one view each for the plain image, the true lesions and each
            system.
        """
        height, width = pixels.shape
        size = width, height
        truth = source.truth(image_id)
        predictions = source.predictions(image_id)
        truth_text = describe_truth(truth, source.labelled.shown_name)
        of_truth = truth.shapes(size, 1 / 18)
        by_system = [prediction_shapes(one, truth, size, line=_FINE_LINE) for one in predictions]
        brief_by_system = [_brief(one, truth, size) for one in predictions]
        brief = [shape for shapes in brief_by_system for shape in shapes]
        is_located = truth.boxes is not None
        panels = [
            _Panel("Image", "", Markup("")),
            _Panel(
                truth.title,
                truth_text,
                to_svg(of_truth, "words names"),
                is_truth=True,
            ),
            *(
                _panel(prediction, truth, size, shapes)
                for prediction, shapes in zip(predictions, by_system, strict=True)
            ),
        ]
        return cls(
            image_id=image_id,
            anchor=anchor,
            facts=source.facts(image_id),
            width=width,
            height=height,
            data_url=embed_image(pixels, most),
            panels=tuple(panels),
            gap=gap,
            brief=to_svg(brief),
            marks=tuple(drawn_marks(predictions, by_system, of_truth, located=is_located)),
            brief_marks=tuple(
                drawn_marks(predictions, brief_by_system, of_truth, located=is_located)
            ),
            outcomes=tuple(outcome_kind(prediction, truth) for prediction in predictions),
            lesion=_largest_lesion(truth, width * height),
        )


def _largest_lesion(truth: ImageTruth, area: int) -> float | None:
    if truth.boxes is None or not len(truth.boxes):
        return None
    sides = truth.boxes[:, 2:4] - truth.boxes[:, :2]
    return round(float(sides.prod(axis=1).max()) / area * 100, 2)


def _panel(
    prediction: ImagePrediction,
    truth: ImageTruth,
    size: tuple[int, int],
    large: list[Shape | Label],
) -> _Panel:
    """Draw a panel; `large` is what is drawn of the prediction where the panel is large."""
    sign, text = outcome(prediction, truth)
    score = describe_score(prediction)
    small = [
        shape
        for shape in prediction_shapes(prediction, truth, size, line=_LINE)
        if isinstance(shape, Shape) or shape.layer == "map"  # texts of scores need a large panel
    ]
    is_drawn = any(shape.layer == "map" for shape in large)
    if prediction.contours and not is_drawn:
        score += f"; {NO_CONTOUR}"
    fine = [shape for shape in large if isinstance(shape, Label)]
    return _Panel(
        prediction.system,
        text,
        to_svg(small) + to_svg(fine, "words fine"),
        colour=prediction.colour,
        sign=sign,
        score=score,
    )


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
    shapes = prediction_shapes(shown, truth, size, faint=False)
    is_contour = grid is not None and not grid.shows_cell
    return [
        replace(shape, width=2.0, rim=2.0) if is_contour and shape.layer == "map" else shape
        for shape in shapes
        if isinstance(shape, Shape)
    ]


def embed_image(pixels: npt.NDArray[np.uint8], most: int) -> str:
    """Encode an image as a data URL, with fewer pixels where it would be too large.

    Args:
        pixels: Grey pixels, uint8, shape ``(H, W)``.
        most: Largest size of the encoded image in bytes.

    Returns:
        Address that begins with ``data:`` and contains a WebP file.
    """
    encoded = b""
    for side, quality in _ENCODINGS:
        encoded = encode_webp(pixels, side, quality=quality, method=2)
        if len(encoded) <= most:
            break
    return "data:image/webp;base64," + base64.b64encode(encoded).decode()
