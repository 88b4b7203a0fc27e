"""Legend of everything that is drawn on an X-ray.

The report, overlay files and the page of ``cxr serve`` take the meaning and the look of a mark from
`MARKS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.overlays.image_prediction import READER_COLOURS, ImagePrediction
from cxr_compare.evaluation.overlays.shapes import (
    SYSTEM_COLOURS,
    TRUTH_COLOUR,
    Label,
    Points,
    Shape,
    corner_brackets,
    cross,
    rectangle,
)

KEY_SIZE = (32, 22)
"""Width and height of the frame of a mark's example."""
KEY_GROUND = 60
"""Grey of the X-ray behind a mark's example."""
_BOX = (4.0, 3.0, 28.0, 19.0)


class Mark(NamedTuple):
    """One kind of mark on an X-ray.

    Attributes:
        text: Meaning of the mark.
        shapes: Example of the mark, in a frame of `KEY_SIZE` (32 by 22). What is drawn in the
            colour of its system has the colour of the first system.
    """

    text: str
    shapes: tuple[Shape, ...]


class DrawnMark(NamedTuple):
    """A mark that is drawn on an image; the fields after the first are those of a map.

    Attributes:
        name: Key of `MARKS`; empty for a map that is not drawn.
        system: Name of the classifier.
        cells: Number of the map's cells, such as ``6 × 6``.
        quantity: Name of the values of the map, such as ``probability``.
        levels: Values of the map at which it is drawn, in [0, 1].
    """

    name: str
    system: str = ""
    cells: str = ""
    quantity: str = ""
    levels: tuple[float, ...] = ()


def _example(
    paths: tuple[Points, ...],
    colour: str,
    width: float = 2.0,
    *,
    closed: bool = True,
    tint: float = 0.0,
) -> Shape:
    wide = width * 512 / KEY_SIZE[0]  # the width of a shape is that on an image of 512 px
    return Shape("key", paths, colour, wide, closed=closed, tint=tint, rim=0.0)


def _dashes(corners: Points) -> tuple[Points, ...]:
    """Return three dashes for each side: those of images are too long for an example."""
    sides = zip(corners, np.roll(corners, -1, axis=0), strict=True)
    stops = [np.linspace(start, end, 6) for start, end in sides]
    return tuple(points[at : at + 2] for points in stops for at in (0, 2, 4))


def _ellipse(across: float, down: float) -> Points:
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.column_stack([16 + across * np.cos(angle), 11 + down * np.sin(angle)])


def _marks() -> Mapping[str, Mark]:
    system = SYSTEM_COLOURS[0]
    box = (rectangle(_BOX),)
    whole = (_example(box, system),)
    contours = tuple(
        _example((_ellipse(*radii),), system, 1.0, tint=0.2)
        for radii in ((14, 9), (9.5, 6), (5, 3))
    )
    return {
        "truth": Mark(
            "true lesion", (_example(corner_brackets(_BOX), TRUTH_COLOUR, closed=False),)
        ),
        "reader": Mark("box of one radiologist", (_example(box, READER_COLOURS[0], 1.5),)),
        "box": Mark("box with its score", whole),
        "on_lesion": Mark("box centred on a lesion", whole),
        "elsewhere": Mark(
            "box centred elsewhere", (_example(_dashes(box[0]), system, closed=False),)
        ),
        "point": Mark(
            "scored point: centre of the highest-scoring box, or peak of the map",
            (_example(cross(16, 11, 7), system, closed=False),),
        ),
        "contours": Mark("contours of the map", contours),
        "cell": Mark(
            "cell at the peak of the map",
            (_example((rectangle((10, 5, 22, 17)),), system, 1.0, tint=0.3),),
        ),
    }


MARKS = _marks()
"""Every kind of mark, in the order of legends."""


def drawn_marks(
    predictions: Sequence[ImagePrediction],
    drawn: Sequence[Sequence[Shape | Label]],
    truth: Sequence[Shape | Label] | None = None,
    *,
    located: bool = True,
) -> list[DrawnMark]:
    """Return the marks that are drawn on an image, each once, in the order in which they are drawn.

    `drawn` has the lines and texts of each prediction, as `prediction_shapes` returns them. `truth`
    is None where the truth is not shown, and `located` False if the image has no true boxes to
    compare the predicted boxes with.

    Example:
        >>> answer = ImagePrediction("A", "#E06C00", point=(9.0, 9.0))
        >>> [mark.name for mark in drawn_marks([answer], [[Shape("point", (), "#E06C00")]])]
        ['point']
    """
    marks = [
        DrawnMark("reader" if shape.closed else "truth")
        for shape in truth or ()
        if isinstance(shape, Shape)
    ]
    for prediction, shapes in zip(predictions, drawn, strict=True):
        lines = [shape for shape in shapes if isinstance(shape, Shape)]
        if prediction.grid is not None and not prediction.contours:
            marks.append(DrawnMark("", prediction.system))
            lines = [shape for shape in lines if shape.layer != "map"]
        marks += (_mark(shape, prediction, located and truth is not None) for shape in lines)
    return list(dict.fromkeys(marks))


def _mark(shape: Shape, prediction: ImagePrediction, has_truth: bool) -> DrawnMark:
    if shape.layer == "boxes":
        located = "elsewhere" if shape.dashed else "on_lesion"
        return DrawnMark(located if has_truth else "box")
    if shape.layer != "map" or prediction.grid is None:
        return DrawnMark(shape.layer)
    grid = prediction.grid
    quantity = "score (not calibrated)" if prediction.probability is None else "probability"
    if grid.shows_cell:
        levels = prediction.contours[:1]
        return DrawnMark("cell", prediction.system, grid.size_text, quantity, levels)
    pairs = zip(prediction.contours, grid.levels, strict=True)
    levels = tuple(share for share, level in pairs if level in grid.contoured)
    return DrawnMark("contours", prediction.system, "", quantity, levels)


def legend(marks: Iterable[DrawnMark], *, cells: bool = False) -> list[Mark]:
    """Return the entries of the legend of one or more images, in the order of `MARKS`.

    Systems whose maps are drawn alike share one. With `cells`, the number of cells of a map of
    which one cell is drawn is given.
    """
    by_system: dict[tuple[str, str], DrawnMark] = {}
    for mark in marks:
        before = by_system.get((mark.name, mark.system), mark)
        levels = tuple(sorted({*before.levels, *mark.levels}))
        by_system[mark.name, mark.system] = mark._replace(levels=levels)
    systems: dict[tuple[str, str], list[str]] = {}
    for mark in by_system.values():
        systems.setdefault((mark.name, _text(mark, cells=cells)), []).append(mark.system)
    order = [*MARKS, ""]
    return [
        Mark(
            f"{text} ({listing(names)})" if any(names) else text,
            MARKS[name].shapes if name else (),
        )
        for (name, text), names in sorted(systems.items(), key=lambda item: order.index(item[0][0]))
    ]


def _text(mark: DrawnMark, *, cells: bool) -> str:
    """Return the meaning of a mark, with the levels of a map but without the names of systems."""
    levels = listing([f"{100 * level:.0f} %" for level in mark.levels])
    values = f"a {mark.quantity} of {levels}"
    if not mark.name:
        return "map not drawn: no value of it is known to stand for a probability of 25 % or more"
    text = MARKS[mark.name].text
    if mark.name == "cell":
        size = f" of {mark.cells} cells" if cells else ""
        return f"{text}{size}, where it reaches {values}"
    return f"{text} at {values}" if mark.name == "contours" else text
