"""The cases of `figures/`, as programs are asked them: one figure of one case at a time.

This module, `check` and `plugin` need the standard library alone (`plugin` pytest, too).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "figures"
SUITE = "1.2"
"""Version of the suite, which CHANGELOG.md describes."""
LEVELS = ("core", "coco", "camelyon", "voc", "undefined", "patients")
"""Sets of rules that a program may claim; README.md says which each is."""
RATES = {"1_8": 1 / 8, "1_4": 1 / 4, "1_2": 1 / 2, "1": 1, "2": 2, "4": 4, "8": 8}
"""False marks an image of FROC, by their text in names."""
SINGLE_PRECISION = 1e-6
"""Difference that is the rounding of 32 bits, in which several programs compute."""


@dataclass(frozen=True)
class Case:
    """Data of a case for one figure.

    Attributes:
        images: Ids of all evaluated images, in the order in which equal scores rank.
        truth: True boxes, rows of image, x1, y1, x2, y2, class, and whether it is a crowd.
        boxes: Predicted boxes, rows of image, x1, y1, x2, y2, score, class, in the order of images.
        classes: Names of the classes, one without a name if the case has none.
        labels: List of 0 or 1 of each image, or of a list by class if there are several.
        scores: Scores of the images, shaped as `labels`; of two systems those of the first.
        others: Scores of the second system; None if there is one system.
        patients: Patient of each image; None if the case states none.
        threshold: Score from which an image or a box is called; NaN if the figure has none.
    """

    images: list[str]
    truth: list[tuple[Any, ...]]
    boxes: list[tuple[Any, ...]]
    classes: list[str]
    labels: Any
    scores: Any
    others: Any
    patients: Any
    threshold: float

    def rows(self, image: str) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        """Return true and predicted boxes of an image."""
        return [r for r in self.truth if r[0] == image], [r for r in self.boxes if r[0] == image]


@dataclass(frozen=True, eq=False)
class Question:
    """A figure of a case, its name without threshold and class, and the right answer.

    Its levels are the sets of rules that give this answer, of `LEVELS`; none if no set does.
    """

    case: str
    figure: str
    name: str
    data: Case
    value: float | None
    tolerance: float
    kind: str
    levels: tuple[str, ...]

    def is_equal(self, answer: float | None) -> bool:
        """Tell whether an answer is the right one; None is undefined."""
        if answer is None or self.value is None:
            return answer is self.value
        return abs(answer - self.value) <= max(self.tolerance, SINGLE_PRECISION)


def digest(cases: list[dict[str, Any]]) -> str:
    """Return the SHA-256 of all names, data and values of cases; what only explains is left out."""
    values = [
        {"name": case["name"], "data": case["data"], "figures": _without_sources(case["figures"])}
        for case in cases
    ]
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _without_sources(figures: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {key: value for key, value in figure.items() if key != "source"}
        for name, figure in figures.items()
    }


def read(path: Path) -> list[dict[str, Any]]:
    """Return the cases of a file; ValueError if its version or its values are not as it states."""
    file = json.loads(path.read_text(encoding="utf-8"))
    if file["suite"] != SUITE:
        raise ValueError(f"{path.name}: is of suite {file['suite']}, and this runner of {SUITE}")
    found = digest(file["cases"])
    if found != file["sha256"]:
        raise ValueError(
            f"{path.name}: its values have the SHA-256 {found}, and it states {file['sha256']}"
        )
    return list(file["cases"])


def suite_digest() -> str:
    """Return the SHA-256 of the whole suite: of the digests of its files, in the order of names."""
    digests = [digest(read(path)) for path in _files()]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _files() -> list[Path]:
    return sorted(FOLDER.glob("*.json"))


def questions() -> Iterator[Question]:
    """Return all figures of all cases, except those of the draws that a case lists."""
    for path in _files():
        for case in read(path):
            yield from questions_of(case)


def questions_of(case: dict[str, Any]) -> Iterator[Question]:
    """Return the figures of a case of a file."""
    for figure, right in case["figures"].items():
        if "draws" in figure:
            continue
        name, _, at = figure.partition("@")
        name, _, kind = name.partition("/")
        data = _data(case["data"], kind, float(at or "nan"))
        if name in ("auroc_A", "auroc_B"):  # of one system, which any program can tell
            if name == "auroc_B" and data.others is not None:
                data = replace(data, scores=data.others)
            name, data = "auroc", replace(data, others=None)
        if name == "auroc" and len(data.classes) > 1:
            name = "macro_auroc"
        yield Question(
            case["name"],
            figure,
            name,
            data,
            right["value"],
            right["tolerance"],
            right["kind"],
            tuple(right["levels"]),
        )


def _data(data: dict[str, Any], kind: str, threshold: float) -> Case:
    images, classes = data["images"], [kind] if kind else data.get("classes", [""])
    rows = data.get("truth", [])
    crowd = data.get("crowd", [False] * len(rows))
    truth = [(*(*row, "")[:6], flag) for row, flag in zip(rows, crowd, strict=True)]
    boxes = [(*row, "")[:7] for row in data.get("boxes", ())]
    truth = [row for row in truth if row[5] in classes]
    order = {image: number for number, image in enumerate(images)}
    boxes = [row for row in boxes if row[6] in classes]
    boxes.sort(key=lambda row: order.get(row[0], len(order)))
    if "labels" in data:
        labels = [data["labels"][image] for image in images]
        first, *others = [
            [float(scores[image]) for image in images]
            for scores in data.get("systems", {"": data.get("scores")}).values()
        ]
    else:
        labels, first = _of_boxes(images, truth, boxes, classes)
        others = []
    patients = [data["patients"][image] for image in images] if "patients" in data else None
    return Case(
        images,
        truth,
        boxes,
        classes,
        labels,
        first,
        others[0] if others else None,
        patients,
        threshold,
    )


def _of_boxes(
    images: list[str],
    truth: list[tuple[Any, ...]],
    boxes: list[tuple[Any, ...]],
    classes: list[str],
) -> tuple[list[Any], list[Any]]:
    """Return labels and scores of images: whether it has a true box, and its surest box."""
    true = {(row[0], row[5]) for row in truth if not row[6]}
    best: dict[tuple[str, str], float] = {}
    for row in boxes:
        best[row[0], row[6]] = max(best.get((row[0], row[6]), 0.0), float(row[5]))
    labels = [[int((image, c) in true) for c in classes] for image in images]
    scores = [[best.get((image, c), 0.0) for c in classes] for image in images]
    if len(classes) > 1:
        return labels, scores
    return [row[0] for row in labels], [row[0] for row in scores]
