"""What is drawn of one image: the truth and what each system says, as shapes on the X-ray.

Everything an overlay shows is a set of polylines in original pixels, drawn as pixels or as SVG.
Right and wrong differ by line (solid, dashed) and not by colour alone; the truth is white, and a
system has one colour on X-rays, pages and paper.
`prediction_shapes` decides how a prediction looks, for the PNG files and for the report alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple, cast

import contourpy
import numpy as np
import numpy.typing as npt
import scipy  # whose parts load when they are first used

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.boxes.map_boxes import upsample
from cxr_compare.evaluation.statistics.figure_text import score_text

Points = npt.NDArray[np.float64]  # (N, 2) x, y in original px

TRUTH_COLOUR = "#FFFFFF"
FAINT_COLOUR = "#C8C8C8"
SYSTEM_COLOURS = ("#E06C00", "#1F8FD6", "#C763A2", "#009E73")
"""In the order of the systems; hues of Okabe and Ito 2008, of a contrast of at least 3 to paper and
5 to black. ``page.css.jinja`` has the same, and so has the page of `cxr serve`."""
_READER_COLOURS = ("#F0E442", "#56B4E9", "#E69FE0", "#00D0A0")


@dataclass(frozen=True)
class Shape:
    """Polylines that share one look."""

    layer: str
    paths: tuple[Points, ...]
    colour: str
    width: float = 2.0
    closed: bool = True
    dashed: bool = False
    tint: float = 0.0
    rim: float = 2.0


@dataclass(frozen=True)
class Label:
    """A short text on the image, one line high, as its shape looks; lengths in original px."""

    layer: str
    text: str
    corner: tuple[float, float]  # upper left
    size: float  # height of the line
    colour: str

    @property
    def width(self) -> float:
        """About how wide the text is: figures are six tenths as wide as a line is high."""
        return _GLYPH * self.size * len(self.text)


_GLYPH = 0.6


def _place_labels(
    wanted: Sequence[tuple[str, npt.NDArray[np.float64], str, str]],
    image: tuple[float, float],
    size: float,
) -> list[Label]:
    """Put a text at a corner of each box, inside the image and clear of the texts before it.

    Above the upper left corner where there is room, else below the lower left one, else inside
    the box, else at its right end; a text without a free place is left out. `wanted`: layer, box
    ``xyxy``, text and colour, the most important first; `image`: width and height; `size`: of a
    line; all lengths in original pixels.
    """
    width, height = image
    placed: list[Label] = []
    for layer, box, text, colour in wanted:
        label = Label(layer, text, (0.0, 0.0), size, colour)
        x1, y1, x2, y2 = (float(edge) for edge in box[:4])
        right = x2 - label.width
        corners = [(x, y) for x in (x1, right) for y in (y1 - size, y2, y1, y2 - size)]
        options = [
            replace(label, corner=(min(max(x, 0.0), max(width - label.width, 0.0)), y))
            for x, y in corners
            if 0 <= y <= height - size
        ]
        free = [option for option in options if not any(_meet(option, other) for other in placed)]
        placed += free[:1]
    return placed


def _meet(one: Label, other: Label) -> bool:
    across = one.corner[0] < other.corner[0] + other.width and (
        other.corner[0] < one.corner[0] + one.width
    )
    return across and abs(one.corner[1] - other.corner[1]) < one.size


def system_colour(position: int) -> str:
    """The colour of the system at this position (repeats after four)."""
    return SYSTEM_COLOURS[position % len(SYSTEM_COLOURS)]


def rectangle(box: Sequence[float] | npt.NDArray[np.float64]) -> Points:
    """The four corners of an ``xyxy`` box, clockwise from the top left."""
    x1, y1, x2, y2 = (float(edge) for edge in box[:4])
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])


def _corner_brackets(box: Sequence[float] | npt.NDArray[np.float64]) -> tuple[Points, ...]:
    """The four corners of a box as open angles: a truth that does not hide a finding."""
    x1, y1, x2, y2 = (float(edge) for edge in box[:4])
    arm = min(x2 - x1, y2 - y1) / 4
    corners = ((x1, y1, 1, 1), (x2, y1, -1, 1), (x2, y2, -1, -1), (x1, y2, 1, -1))
    return tuple(
        np.array([[x, y + arm * down], [x, y], [x + arm * right, y]])
        for x, y, right, down in corners
    )


def _cross(x: float, y: float, arm: float) -> tuple[Points, ...]:
    """An upright cross centred on a point, ``arm`` original pixels each way."""
    return (
        np.array([[x - arm, y], [x + arm, y]], dtype=np.float64),
        np.array([[x, y - arm], [x, y + arm]], dtype=np.float64),
    )


def _on_lesion(x: float, y: float, truth: npt.NDArray[np.float64]) -> bool:
    """Whether a point lies in any truth box, borders included."""
    inside = (truth[:, 0] <= x) & (x <= truth[:, 2]) & (truth[:, 1] <= y) & (y <= truth[:, 3])
    return bool(inside.any())


CONTOUR_PROBABILITIES = (0.25, 0.5, 0.75)
"""Contours lie where images whose map peaks there have these probabilities on average."""

_TINT_PER_LEVEL = 0.09
_OuterOffset = tuple[list[Points], list[npt.NDArray[np.uint32]]]


def contour_levels(peaks: npt.ArrayLike, probabilities: npt.ArrayLike) -> dict[float, float]:
    """Find the map values at which a system's contours lie, the same for all images.

    A class activation map adds up to a logit, so one of its values alone is no probability. The
    system's own probabilities say what a value means: rising regression of the images'
    probabilities on the peaks of their maps.

    No label is read. `peaks`: highest raw value of each image's map, NaN is left out;
    `probabilities`: the system's of each of these images. Gives the raw value by probability, for
    those of `CONTOUR_PROBABILITIES` that some map reaches with a value above 0, which speaks for
    the finding.

    Example:
        >>> contour_levels([1.0, 2.0, 3.0, 4.0], [0.1, 0.2, 0.6, 0.7])
        {0.25: 3.0, 0.5: 3.0}
    """
    peak, probability = (np.asarray(values, np.float64) for values in (peaks, probabilities))
    known = np.isfinite(peak) & np.isfinite(probability)
    if not known.any():
        return {}
    rising, inverse, counts = np.unique(peak[known], return_inverse=True, return_counts=True)
    means = np.bincount(inverse, probability[known]) / counts
    expected = scipy.optimize.isotonic_regression(means, weights=counts).x
    levels = {}
    for contour in CONTOUR_PROBABILITIES:
        reached = rising[(expected >= contour) & (rising > 0)]
        if len(reached):
            levels[contour] = float(reached[0])
    return levels


@dataclass(frozen=True)
class ActivationGrid:
    """One activation map and where its contours lie."""

    values: npt.NDArray[np.float64]  # raw contributions, (grid_h, grid_w)
    frame: tuple[float, float, float, float]  # outer frame xyxy, original px
    levels: tuple[float, ...]  # raw values of the contours, rising; fixed for a system

    @property
    def cell(self) -> tuple[float, float]:
        """Width and height of one cell in original pixels."""
        x1, y1, x2, y2 = self.frame
        rows, columns = self.values.shape
        return (x2 - x1) / columns, (y2 - y1) / rows


def map_shapes(grid: ActivationGrid, colour: str) -> list[Shape]:
    """The map's tinted areas and contour lines; none where it stays below the first.

    Nothing is normalised per image: two images with equal values look equal.
    """
    x, y, z = _refine(grid)
    generator = contourpy.contour_generator(x, y, z, fill_type=contourpy.FillType.OuterOffset)
    shapes = []
    for position, level in enumerate(grid.levels):
        areas = _areas(generator, level, float(z.max()))
        if areas:
            width = 1.0 + 0.4 * position
            shapes.append(Shape("map", areas, colour, width=width, tint=_TINT_PER_LEVEL, rim=0.0))
    return shapes


def _refine(grid: ActivationGrid) -> tuple[npt.NDArray, npt.NDArray, npt.NDArray]:
    """Interpolate as the map boxes do; coordinates in original pixels."""
    values = np.asarray(grid.values, dtype=np.float64)
    z = upsample(np.where(np.isfinite(values), values, 0.0))
    x1, y1, x2, y2 = grid.frame
    x = x1 + (np.arange(z.shape[1]) + 0.5) / z.shape[1] * (x2 - x1)
    y = y1 + (np.arange(z.shape[0]) + 0.5) / z.shape[0] * (y2 - y1)
    return x, y, z


def _areas(
    generator: contourpy.ContourGenerator, level: float, highest: float
) -> tuple[Points, ...]:
    """Return the rings (outer and holes) of the area at or above a level."""
    if highest < level:
        return ()
    # OuterOffset: the points of each polygon, and where its rings begin and end among them.
    polygons, offsets = cast(_OuterOffset, generator.filled(level, np.inf))
    return tuple(
        np.asarray(points[start:end], dtype=np.float64)
        for points, ends in zip(polygons, offsets, strict=True)
        for start, end in pairwise(ends)
    )


_MAX_FAINT_BOXES = 5
_MAX_FULL_BOXES = 8
"""More would hide the lungs; the caption then says how many there are."""
NO_EVIDENCE = ("no evidence above", "the first contour")
"""What stands on a map without contours, line by line, where the image has no caption."""
NO_CONTOUR = "below all contours"

OUTCOMES = {
    "placed": ("right", "found, on the lesion"),
    "near": ("right", "found; points beside the lesion, within one map cell"),
    "found": ("right", "found"),
    "misplaced": ("wrong", "right image, wrong place"),
    "missed": ("wrong", "missed"),
    "alarm": ("wrong", "false alarm"),
    "clear": ("right", "correctly clear"),
    "undecided": ("open", "undecided"),
    "unknown": ("open", "truth unknown"),
}
"""What can become of an image in a system: sign and words."""

_NO_BOXES: npt.NDArray[np.float64] = np.empty((0, 4))


@dataclass(frozen=True)
class ImageTruth:
    """What is known of one image; lesions are ``xyxy`` in original pixels, ``(N, 4)``."""

    label: float  # 1 present, 0 absent, NaN unknown
    boxes: npt.NDArray[np.float64] | None = None  # None where nobody drew them
    kind: str = ""  # of image: normal, not_normal, or ""
    readers: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    """Lesions as each single reader drew them, beside the reference."""

    @property
    def title(self) -> str:
        """Of its panel: where the reference says nothing, only readers do."""
        settled = not np.isnan(self.label) and self.boxes is not None
        return "Truth" if settled or not self.readers else "Readers"

    def shapes(self, size: tuple[int, int], line: float) -> list[Shape | Label]:
        """The lesions; each reader's in one colour, with the name (see `prediction_shapes`)."""
        lesions = _NO_BOXES if self.boxes is None else self.boxes
        named = [
            ("truth", box, reader, _READER_COLOURS[place % len(_READER_COLOURS)])
            for place, (reader, drawn) in enumerate(self.readers.items())
            for box in drawn
        ]
        return [
            *(Shape("truth", (rectangle(box),), colour, width=1.5) for _, box, _, colour in named),
            *(Shape("truth", (rectangle(box),), TRUTH_COLOUR) for box in lesions),
            *_place_labels(named, size, max(size) * line),
        ]


@dataclass(frozen=True)
class ImagePrediction:
    """What one system says of one image; None stands for what is unknown or not there."""

    system: str  # display name
    colour: str  # ``#RRGGBB`` on the X-ray
    score: float | None = None  # of the image
    threshold: float | None = None  # on that score
    probability: float | None = None  # of the finding, calibrated
    decision: bool | None = None  # None: undecided
    triage: str = ""  # ruled_out, referred or ruled_in; empty without triage
    withheld: bool = False  # whether a warning speaks against it, so that it does not count
    # ``x1, y1, x2, y2, score`` in original pixels, ``(N, 5)``
    boxes: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 5)))
    box_cut: float = 0.5  # boxes scoring at least this are drawn in full, others thin and grey
    grid: ActivationGrid | None = None
    contours: tuple[float, ...] = ()  # probabilities at which the map's contours lie
    point: tuple[float, float] | None = None  # the scored point (x, y) in original pixels
    localised: bool | None = None  # whether that point lies on a lesion
    within_cell: bool | None = None  # whether it lies on one widened by one map cell
    cell_of: str = ""  # whose map, where it is another system's
    cell: float = 0.0  # longer side of that cell, the coarsest of all systems, original px

    @property
    def called(self) -> str:
        """What the system says of the image; what it finds stands out.

        Example:
            >>> ImagePrediction("A", "", decision=True).called
            'POSITIVE'
            >>> ImagePrediction("A", "", triage="referred").called
            'refer to a reader'
        """
        if self.withheld:
            return "no answer"
        decided = {True: "POSITIVE", False: "negative", None: "undecided"}[self.decision]
        words = {"ruled_out": "ruled out", "referred": "refer to a reader", "ruled_in": "RULED IN"}
        return words.get(self.triage, decided)

    @property
    def contour_percentages(self) -> str:
        """The probabilities at which the contours of the map lie."""
        return f"{', '.join(f'{share:.0%}'.rstrip('%') for share in self.contours)} %"


def prediction_shapes(
    prediction: ImagePrediction,
    truth: ImageTruth | None,
    size: tuple[int, int],
    *,
    faint: bool = True,
    line: float = 1 / 20,
) -> list[Shape | Label]:
    """One system's map, boxes and scored point, with the truth as thin corners.

    A box whose centre lies on a lesion is solid, any other is dashed; without a truth all are
    solid. Each of the eight most confident boxes from the cut on bears its score. Boxes below the
    cut are thin and grey, the five most confident of them, in a layer of their own. `size` is that
    of the image, width first, original px; `line` the height of a text, of the longer side.
    """
    lesions = _NO_BOXES if truth is None or truth.boxes is None else truth.boxes
    side = max(size)
    shapes: list[Shape | Label] = []
    grid = prediction.grid
    if grid is not None and grid.levels:  # a map without contours is not drawn
        seen = [area for area in map_shapes(grid, prediction.colour) if _shows(area, size)]
        shapes += seen
        if not seen and truth is None and not prediction.withheld:
            shapes += _no_evidence(prediction.colour, size, side * line)
    shapes += [
        Shape("truth", _corner_brackets(box), TRUTH_COLOUR, width=1.5, closed=False)
        for box in lesions
    ]
    evaluated = None if truth is None else lesions
    shapes += _box_shapes(prediction, evaluated, size, faint=faint, line=side * line)
    if prediction.point is not None and prediction.decision is not False:
        arms = _cross(*prediction.point, arm=side / 48)
        shapes.append(Shape("point", arms, prediction.colour, width=2.4, closed=False))
    return shapes


def _shows(area: Shape, size: tuple[int, int]) -> bool:
    """Whether some of an area lies on the image: a map's frame may reach beyond it."""
    least = 0.001 * size[0] * size[1]
    for path in area.paths:
        low, high = path.min(axis=0).clip(0, size), path.max(axis=0).clip(0, size)
        if float((high - low).prod()) >= least:
            return True
    return False


def _no_evidence(colour: str, size: tuple[int, int], line: float) -> list[Label]:
    """Say on an empty map that it is empty, in two lines at its foot."""
    width, height = size
    least = min(line, *(width / (0.6 * len(words)) for words in NO_EVIDENCE))
    lines = []
    for below, words in enumerate(reversed(NO_EVIDENCE)):
        label = Label("map", words, (0.0, 0.0), least, colour)
        corner = ((width - label.width) / 2, height - (1.2 + below) * least)
        lines.append(replace(label, corner=corner))
    return lines[::-1]


def _box_shapes(
    prediction: ImagePrediction,
    lesions: npt.NDArray[np.float64] | None,
    size: tuple[int, int],
    *,
    faint: bool,
    line: float,
) -> list[Shape | Label]:
    """Return the boxes, the faint ones first so that they lie below; solid without lesions."""
    ordered = prediction.boxes[np.argsort(-prediction.boxes[:, 4], kind="stable")]
    full = ordered[:, 4] >= prediction.box_cut
    below = ordered[~full][:_MAX_FAINT_BOXES] if faint else _NO_BOXES
    thin = [Shape("faint", (rectangle(box),), FAINT_COLOUR, width=1.0, rim=0.8) for box in below]
    called = ordered[full][:_MAX_FULL_BOXES]
    strong = []
    for box in called[::-1]:
        centre = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        dashed = lesions is not None and not _on_lesion(*centre, lesions)
        corners = (rectangle(box),)
        strong.append(Shape("boxes", corners, prediction.colour, width=2.4, dashed=dashed))
    scores = [
        *(("boxes", box, f"{box[4]:.2f}", prediction.colour) for box in called),
        *(("faint", box, f"{box[4]:.2f}", FAINT_COLOUR) for box in below),
    ]
    return [*thin, *strong, *_place_labels(scores, size, line)]


class KeyEntry(NamedTuple):
    """One entry of a legend: shapes in a frame of `KEY_SIZE`, and what they mean."""

    shapes: tuple[Shape, ...]
    words: str


KEY_SIZE = (32, 22)
_KEY_WIDTH = 30.0  # of lines; drawn about 2 px wide


def legend(
    predictions: Sequence[ImagePrediction], drawn: Sequence[Sequence[Shape | Label]]
) -> list[KeyEntry]:
    """Say what each system's shapes mean, where no truth is drawn; of those that are `drawn`."""
    entries = []
    for prediction, shapes in zip(predictions, drawn, strict=True):
        colour, name = prediction.colour, prediction.system
        layers = {shape.layer for shape in shapes}
        box = Shape("boxes", (rectangle([4, 3, 28, 19]),), colour, width=_KEY_WIDTH, rim=0)
        point = Shape("point", _cross(16, 11, 7), colour, width=_KEY_WIDTH, closed=False, rim=0)
        of_map = prediction.grid is not None
        if of_map and not prediction.contours:
            entries.append(KeyEntry((), f"{name}: activation map not drawn, its scale is unknown"))
            continue
        rings = tuple(
            Shape("map", (_ellipse(16, 11, *radii),), colour, width=_KEY_WIDTH / 2, tint=0.2, rim=0)
            for radii in ((14, 9), (9.5, 6), (5, 3))
        )
        means = f"contours where images average a probability of {prediction.contour_percentages}"
        of_box, of_point = "box with its score", "centre of its highest-scoring box"
        if of_map:
            of_box, of_point = "box cut out of the map", "highest point of the map"
        keys = {"map": rings, "boxes": (box,), "point": (point,)}
        words = {"map": f"activation map, {means}", "boxes": of_box, "point": of_point}
        entries += [KeyEntry(keys[at], f"{name}: {words[at]}") for at in keys if at in layers]
    return entries


def _ellipse(x: float, y: float, across: float, down: float) -> Points:
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.column_stack([x + across * np.cos(angle), y + down * np.sin(angle)])


def outcome_kind(prediction: ImagePrediction, truth: ImageTruth) -> str:
    """Name the outcome of one image in one system: a key of `OUTCOMES`."""
    if prediction.decision is None:
        return "undecided"
    if np.isnan(truth.label):
        return "unknown"
    if truth.label < 1:
        return "alarm" if prediction.decision else "clear"
    if not prediction.decision:
        return "missed"
    if prediction.localised is None:
        return "found"
    return "placed" if prediction.localised else "near" if prediction.within_cell else "misplaced"


def outcome(prediction: ImagePrediction, truth: ImageTruth) -> tuple[str, str]:
    """What became of one image in one system: ``right``, ``wrong`` or ``open``, and the words."""
    kind = outcome_kind(prediction, truth)
    sign, words = OUTCOMES[kind]
    if kind == "near":
        words += f" of {prediction.cell_of}" * bool(prediction.cell_of)
        words += f" ({prediction.cell:.0f} px)" * bool(prediction.cell)
    return sign, words


def describe_score(prediction: ImagePrediction) -> str:
    """The score beside its threshold."""
    if prediction.score is None:
        return "no score"
    score = score_text(prediction.score)
    if prediction.threshold is None:
        return f"score {score}, no threshold{_left_out(prediction)}"
    sign = "≥" if prediction.score >= prediction.threshold else "<"
    limit = score_text(prediction.threshold)
    if score == limit and prediction.score != prediction.threshold:
        score, limit = f"{prediction.score:.7g}", f"{prediction.threshold:.7g}"
    return f"score {score} {sign} {limit}{_left_out(prediction)}"


def _left_out(prediction: ImagePrediction) -> str:
    """How many of the boxes that count are drawn, where that is not all of them."""
    count = int((prediction.boxes[:, 4] >= prediction.box_cut).sum())
    return f"; {_MAX_FULL_BOXES} of {count} boxes" if count > _MAX_FULL_BOXES else ""


def describe_truth(truth: ImageTruth, finding: str) -> str:
    """The truth of an image in words."""
    words = f"{finding}: {_state(truth)}"
    single = [f"{reader} {counted(len(boxes), 'box')}" for reader, boxes in truth.readers.items()]
    return f"{words}; {', '.join(single)}" if single else words


def _state(truth: ImageTruth) -> str:
    if np.isnan(truth.label):
        return "unknown"
    if truth.label < 1:
        kind = truth.kind.replace("_", " ")
        return "absent" + (f" ({kind})" if kind else "")
    return "present, " + ("not boxed" if truth.boxes is None else counted(len(truth.boxes), "box"))
