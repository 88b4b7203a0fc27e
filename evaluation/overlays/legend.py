"""Legend of the shapes of systems on an image without a drawn truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cxr_compare.evaluation.overlays.image_prediction import ImagePrediction
from cxr_compare.evaluation.overlays.shapes import Label, Points, Shape, cross, rectangle

KEY_SIZE = (32, 22)
"""Width and height of the frame of a legend's shapes."""
_KEY_WIDTH = 30.0  # width of a key's lines, which gives about 2 px in a frame of `KEY_SIZE`


class KeyEntry(NamedTuple):
    """One entry of the legend below drawn predictions: example shapes and their explanation.

    Attributes:
        shapes: Example of what is drawn, with coordinates in a frame of `KEY_SIZE` (32 by 22);
            empty where the text says that something is not drawn.
        text: Explanation of the shapes, such as "A: box with its score".
    """

    shapes: tuple[Shape, ...]
    text: str


def legend(
    predictions: Sequence[ImagePrediction], drawn: Sequence[Sequence[Shape | Label]]
) -> list[KeyEntry]:
    """Return the legend that explains what is drawn for each system (detector or classifier).

    Args:
        predictions: What each system predicts for the image.
        drawn: Lines and texts that are drawn for each of the predictions, in the same order, as
            `prediction_shapes` returns them.

    Returns:
        Entries of the legend, one for each kind of shape that is drawn, system by system.

    Example:
        >>> answer = ImagePrediction("A", "#E06C00", point=(9.0, 9.0))
        >>> [entry.text for entry in legend([answer], [[Shape("point", (), "#E06C00")]])]
        ['A: centre of its highest-scoring box']
    """
    entries = []
    for prediction, shapes in zip(predictions, drawn, strict=True):
        if prediction.grid is not None and not prediction.contours:
            text = f"{prediction.system}: activation map not drawn, its scale is unknown"
            entries.append(KeyEntry((), text))
            continue
        layers = {shape.layer for shape in shapes}
        entries += [
            KeyEntry(_key_shapes(layer, prediction), f"{prediction.system}: {meaning}")
            for layer, meaning in _meanings(prediction).items()
            if layer in layers
        ]
    return entries


def _meanings(prediction: ImagePrediction) -> dict[str, str]:
    """Return a text for each layer of a system's shapes."""
    percentages = prediction.contour_percentages
    own_boxes = {"boxes": "box with its score", "point": "centre of its highest-scoring box"}
    contours = f"activation map, contours where images average a probability of {percentages}"
    if prediction.grid is None:
        return own_boxes
    drawn_map = {"map": prediction.cell_text or contours}
    if prediction.has_own_boxes:
        return drawn_map | own_boxes
    return {
        **drawn_map,
        "boxes": "box cut out of the map",
        "point": "highest point of the map",
    }


def _key_shapes(layer: str, prediction: ImagePrediction) -> tuple[Shape, ...]:
    """Return example shapes of a layer of a system's answer."""
    colour = prediction.colour
    if layer == "map" and prediction.cell_text:
        cell = (rectangle([10, 5, 22, 17]),)
        return (Shape("map", cell, colour, width=_KEY_WIDTH / 2, tint=0.3, rim=0),)
    if layer == "boxes":
        return (Shape("boxes", (rectangle([4, 3, 28, 19]),), colour, width=_KEY_WIDTH, rim=0),)
    if layer == "point":
        arms = cross(16, 11, 7)
        return (Shape("point", arms, colour, width=_KEY_WIDTH, closed=False, rim=0),)
    return tuple(
        Shape("map", (_ellipse(16, 11, *radii),), colour, width=_KEY_WIDTH / 2, tint=0.2, rim=0)
        for radii in ((14, 9), (9.5, 6), (5, 3))
    )


def _ellipse(x: float, y: float, across: float, down: float) -> Points:
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.column_stack([x + across * np.cos(angle), y + down * np.sin(angle)])
