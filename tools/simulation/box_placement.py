"""Count how often the caution on misread boxes is wrong, and how often it names what was done.

    python -m tools.simulation.box_placement [--sets 200] [--seed 7]

Each set has as many negative as positive images, of 700 to 1,400 px or of one size, with one or two
lesions near the places of the lungs. Detectors differ in how near their boxes lie, how many lesions
they find, and in false boxes; two see nothing. The table of docs/validity.md is from its output.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.boxes.placement import Boxes
from cxr_compare.evaluation.notes import Note
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.verdict.box_checks import placement_notes


class Detector(NamedTuple):
    """How a detector draws boxes.

    Attributes:
        noise: Error of a centre in sides of the lesion, and 1/1.2 of that of a side's logarithm.
        found: Share of the lesions that it finds.
        false: Expected number of false boxes of an image.
        places: Where these lie: near the ``lungs``, ``anywhere``, or at one ``constant`` place.
        bias: Offset in x and y in shares of the image, and factors of width and height.
    """

    noise: float
    found: float
    false: float
    places: str = "lungs"
    bias: tuple[float, float, float, float] = (0, 0, 1, 1)


DETECTORS = {
    "good": Detector(0.08, 0.9, 0.3),
    "medium": Detector(0.12, 0.7, 0.7),
    "weak": Detector(0.2, 0.5, 1.5),
    "bad": Detector(0.2, 0.1, 2),
    "many false boxes": Detector(0.15, 0.7, 8),
    "anywhere": Detector(0.1, 0, 2, "anywhere"),
    "at one place": Detector(0.1, 0, 1, "constant"),
}
BIASED = {
    "0.85 as wide and high": (0, 0, 0.85, 0.85),
    "1.2 as wide and high": (0, 0, 1.2, 1.2),
    "1 % right and low": (0.01, 0.01, 1, 1),
    "2 % right and low, 0.9 as wide, 1.1 as high": (0.02, 0.02, 0.9, 1.1),
    "0.7 as wide and high": (0, 0, 0.7, 0.7),
}
"""Detectors that were read rightly, and draw other boxes than the readers."""
POSITIVE = (6, 12, 30, 100)
"""Numbers of positive images."""
_SQUARE = 640


class Drawn(NamedTuple):
    """True boxes, predicted ones, and width and height by image id."""

    true: pd.DataFrame
    predicted: pd.DataFrame
    sizes: pd.DataFrame


def draw(
    rng: np.random.Generator, n_positive: int, detector: Detector, *, varied: bool, scale: float = 1
) -> Drawn:
    """Draw images with lesions, and the boxes of a detector."""
    n_images = 2 * n_positive
    width = rng.integers(700, 1400, n_images) if varied else np.full(n_images, 1024)
    height = width * (rng.uniform(0.8, 1.25, n_images) if varied else 1)
    sizes = np.round(np.stack([width, height], axis=1) * scale)
    ids = pd.Index([f"image-{number:04d}" for number in range(n_images)])
    true, predicted = [], []
    for number, (image, size) in enumerate(zip(ids, sizes, strict=True)):
        lesions = [*_lesions(rng)] if number < n_positive else []
        true += [(image, *(box * np.tile(size, 2))) for box in lesions]
        found = [_near(rng, box, detector) for box in lesions if rng.random() < detector.found]
        scores = [*rng.beta(4, 2, len(found))]
        false = [_false_box(rng, detector.places) for _ in range(rng.poisson(detector.false))]
        scores += [*rng.beta(2, 4, len(false))]
        for box, score in zip([*found, *false], scores, strict=True):
            predicted.append((image, *(box * np.tile(size, 2)), score))
    return Drawn(
        pd.DataFrame(true, columns=["image_id", *EDGES]),
        pd.DataFrame(predicted, columns=["image_id", *EDGES, "score"]),
        pd.DataFrame(sizes, ids, ["width", "height"]),
    )


def _box(centre: Floats, sides: Floats) -> Floats:
    return np.hstack([centre - sides / 2, centre + sides / 2])


def _lesions(rng: np.random.Generator) -> Iterator[Floats]:
    """Yield one or two lesions, one in each lung, as shares of the image."""
    for place in rng.permutation([0.28, 0.72])[: rng.integers(1, 3)]:
        centre = np.array([place + rng.normal(0, 0.05), rng.normal(0.52, 0.13)])
        sides = np.exp(rng.normal(np.log([0.21, 0.32]), [0.25, 0.4]))
        box = np.clip(_box(centre, sides), 0, 1)
        if (box[2:] - box[:2] > 0.02).all():
            yield box


def _near(rng: np.random.Generator, lesion: Floats, detector: Detector) -> Floats:
    """Return the box of a lesion that is found."""
    sides = lesion[2:] - lesion[:2]
    centre = (lesion[:2] + lesion[2:]) / 2 + rng.normal(0, detector.noise, 2) * sides
    sides = sides * np.exp(rng.normal(0, 1.2 * detector.noise, 2))
    return _box(centre + detector.bias[:2], sides * detector.bias[2:])


def _false_box(rng: np.random.Generator, places: str) -> Floats:
    """Return a false box."""
    centre = rng.normal([rng.choice([0.28, 0.72]), 0.5], [0.08, 0.16])
    if places == "anywhere":
        centre = rng.uniform(0.1, 0.9, 2)
    if places == "constant":
        centre = rng.normal([0.45, 0.4], 0.01)
    return _box(centre, np.exp(rng.normal(np.log([0.21, 0.32]), 0.35)))


Change = Callable[[Floats, Floats], Floats]
"""Function from corners, ``(N, 4)``, and the sizes of their images to what is read."""


def _letterbox(corners: Floats, sizes: Floats) -> Floats:
    longer = sizes.max(axis=1, keepdims=True)
    return (corners - np.tile(sizes / 2, 2)) / longer * _SQUARE + _SQUARE / 2


def _mirrored(corners: Floats, sizes: Floats) -> Floats:
    x1, y1, x2, y2 = corners.T
    return np.stack([sizes[:, 0] - x2, y1, sizes[:, 0] - x1, y2], axis=1)


def _moved(corners: Floats, sizes: Floats, share: float) -> Floats:
    return corners + sizes[:, :1] * [share, 0, share, 0]


def _halves(corners: Floats, way: float) -> Floats:
    """Return boxes whose corner was taken for a centre (-1), or whose centre for a corner (1)."""
    return corners + way * np.tile((corners[:, 2:] - corners[:, :2]) / 2, 2)


class Misreading(NamedTuple):
    """What was done to boxes, the words by which a caution names it, and the scale of images."""

    change: Change
    named: tuple[str, ...]
    scale: float = 1


MISREADINGS = {
    "4 % to the right": Misreading(lambda c, s: _moved(c, s, 0.04), ("Corrected by", "with x min")),
    "8 % to the right": Misreading(lambda c, s: _moved(c, s, 0.08), ("Corrected by", "with x min")),
    "0.92 of all px": Misreading(lambda c, s: c * 0.92, ("times", "copies")),
    "half of all px": Misreading(lambda c, s: c * 0.5, ("times", "copies")),
    "two factors": Misreading(lambda c, s: c * [0.5, 0.44, 0.5, 0.44], ("times", "copies")),
    "px of squares of 640": Misreading(lambda c, s: c / np.tile(s, 2) * _SQUARE, ("copies",)),
    "px of padded squares": Misreading(_letterbox, ("padded", "copies")),
    "0 to 1000": Misreading(lambda c, s: c / np.tile(s, 2) * 1000, ("copies",), 2),
    "0 to 1000, y before x": Misreading(
        lambda c, s: (c / np.tile(s, 2) * 1000)[:, [1, 0, 3, 2]], ("yxyx) as px of copies",), 2
    ),
    "y before x": Misreading(lambda c, s: c[:, [1, 0, 3, 2]], ("yxyx",)),
    "mirrored": Misreading(_mirrored, ("mirrored",)),
    "centres as corners": Misreading(lambda c, s: _halves(c, 1), ("box_form=cxcywh",)),
    "corners as centres": Misreading(lambda c, s: _halves(c, -1), ("box_form=xywh",)),
}


def read(drawn: Drawn, change: Change | None = None) -> pd.DataFrame:
    """Return predicted boxes as they are read, cut at the border of their image."""
    boxes = drawn.predicted
    sizes = drawn.sizes.loc[boxes["image_id"]].to_numpy()
    corners = boxes[EDGES].to_numpy()
    corners = np.clip(corners if change is None else change(corners, sizes), 0, np.tile(sizes, 2))
    boxes = boxes.assign(**dict(zip(EDGES, corners.T, strict=True)))
    return boxes[(corners[:, :2] < corners[:, 2:]).all(axis=1)].reset_index(drop=True)


def notes(drawn: Drawn, boxes: pd.DataFrame, *, sized: bool = True) -> list[Note]:
    """Return what a report says of boxes; each image is a patient."""
    sizes = drawn.sizes if sized else drawn.sizes * np.nan
    pairs = pair_boxes(boxes, drawn.true, drawn.sizes.index)
    return placement_notes(Boxes(pairs, sizes, np.arange(len(sizes))), "A")


def count_right(detector: Detector, n_positive: int, sets: int, seed: int) -> tuple[int, int, int]:
    """Return how many sets have a caution, a line that names an offset or size, and a line."""
    counts = np.zeros(3, dtype=int)
    for number in range(sets):
        rng = np.random.default_rng([seed, number, n_positive])
        drawn = draw(rng, n_positive, detector, varied=number % 2 == 0)
        said = notes(drawn, read(drawn), sized=number % 4 != 3)
        text = said[0].text if said else ""
        has_line = "medians" in text
        counts += [bool(said and said[0].caution), has_line and "no shift" not in text, has_line]
    return int(counts[0]), int(counts[1]), int(counts[2])


def count_named(
    misreading: Misreading, detector: Detector, n_positive: int, sets: int, seed: int
) -> tuple[int, int]:
    """Return in how many sets a caution names a misreading, and in how many there is one."""
    named = cautions = 0
    for number in range(sets):
        rng = np.random.default_rng([seed, number, n_positive])
        drawn = draw(rng, n_positive, detector, varied=number % 2 == 0, scale=misreading.scale)
        for note in notes(drawn, read(drawn, misreading.change)):
            cautions += bool(note.caution)
            named += bool(note.caution) and any(words in note.text for words in misreading.named)
    return named, cautions


def main() -> None:
    """Print all counts."""
    parser = argparse.ArgumentParser(description="count cautions on where boxes lie")
    parser.add_argument("--sets", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    for name, detector in DETECTORS.items():
        for n_positive in POSITIVE:
            counts = count_right(detector, n_positive, given.sets, given.seed)
            print(f"right, {name}, {n_positive}: {counts} of {given.sets}", flush=True)
    some = {name: DETECTORS[name] for name in ("good", "medium", "weak")}
    for bias, values in BIASED.items():
        for name, detector in some.items():
            biased = detector._replace(bias=values)
            counts = count_right(biased, 60, given.sets, given.seed)
            print(f"biased, {bias}, {name}, 60: {counts} of {given.sets}", flush=True)
    for what, misreading in MISREADINGS.items():
        for name, detector in some.items():
            for n_positive in (20, 60):
                counts = count_named(misreading, detector, n_positive, given.sets, given.seed)
                print(f"{what}, {name}, {n_positive}: {counts} of {given.sets}", flush=True)


if __name__ == "__main__":
    main()
