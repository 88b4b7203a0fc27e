"""Draw the gallery: each case once as a PNG and once, as SVG over one picture, for the report."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image

from data_prep.contracts.folders import make_folder
from data_prep.contracts.tables import InputError
from evaluation.overlays.draw import fit_panel
from evaluation.overlays.reading import (
    Reading,
    Truth,
    describe_score,
    describe_truth,
    outcome,
    outcome_kind,
    reading_shapes,
    truth_shapes,
)
from evaluation.overlays.shapes import TRUTH_COLOUR
from evaluation.overlays.sheet import draw_overlay, save_overlay
from evaluation.overlays.vector import svg_shapes
from evaluation.report.image_facts import ImageFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from data_prep.store.dataset import DataSet
    from evaluation.report.cases import CaseReader
    from evaluation.report.gallery import Category

MAX_PICTURE_BYTES = 120_000
"""The most that one picture may take; less where a page has more than 45."""

_ENCODINGS = ((640, 82), (640, 50), (320, 40))  # longer side in px, quality; the last always fits


@dataclass(frozen=True)
class Panel:
    """One picture of a case, with its words."""

    title: str
    words: str
    alt: str
    drawing: Markup
    colour: str = ""
    sign: str = ""
    score: str = ""


@dataclass(frozen=True)
class DrawnCase:
    """One case: a picture (data URL) that all its panels share.

    Args:
        image_id: The image.
        anchor: Unique within the report and its further pages.
        facts: View, sex, age and the window, in words.
        width: Original px.
        height: Original px.
        picture: Data URL.
        panels: The plain image, the truth, one per system.
        outcomes: What became of it in each system: keys of `overlays.OUTCOMES`.
        lesion: Area of the largest true lesion, in percent of the image; None without a box.
        gap: How far apart the systems see it, 0 to 1.
    """

    image_id: str
    anchor: str
    facts: str
    width: int
    height: int
    picture: str
    panels: tuple[Panel, ...]
    outcomes: tuple[str, ...] = ()
    lesion: float | None = None
    gap: float = 0.0


Drawn = list[tuple["Category", list[DrawnCase]]]


def draw_cases(
    categories: list[Category],
    reader: CaseReader,
    dataset: DataSet,
    *,
    finding: str,
    folder: Path,
    gaps: Mapping[str, float] | None = None,
    most: int = MAX_PICTURE_BYTES,
    progress: Callable[..., None] | None = None,
) -> tuple[Drawn, list[str]]:
    """Draw every case of every category, one image in memory at a time.

    Args:
        categories: The chosen cases.
        reader: Truth and readings.
        dataset: Where the pixels come from.
        finding: Display name of the target.
        folder: Gets one PNG a case; made if absent.
        gaps: How far apart the systems see each image.
        most: Bytes that one embedded picture may take.
        progress: Called once per case.

    Returns:
        The drawn cases by category, and the images whose file cannot be read any more.
    """
    make_folder(folder)
    drawn, lost = [], []
    facts = ImageFacts(dataset)
    for category in categories:
        cases = []
        for position, image_id in enumerate(category.image_ids):
            try:
                pixels = dataset.read_original(image_id)
            except InputError:
                lost.append(image_id)
                continue
            stem = f"{category.key}-{position + 1:02d}"
            truth, readings = reader.truth(image_id), reader.readings(image_id)
            told = facts.words(image_id)
            sheet = draw_overlay(
                pixels, truth, readings, finding=finding, title=image_id, facts=told
            )
            save_overlay(sheet, folder / f"{stem}.png")
            case = draw_case(
                image_id, pixels, truth, readings, finding=finding, anchor=stem, most=most
            )
            cases.append(replace(case, facts=told, gap=(gaps or {}).get(image_id, 0.0)))
            if progress is not None:
                progress()
        drawn.append((category, cases))
    return drawn, lost


def draw_case(
    image_id: str,
    pixels: npt.NDArray[np.uint8],
    truth: Truth,
    readings: list[Reading],
    *,
    finding: str,
    anchor: str,
    most: int = MAX_PICTURE_BYTES,
) -> DrawnCase:
    """Draw one case as SVG over one embedded picture.

    Args:
        image_id: The image.
        pixels: uint8, shape ``(H, W)``, original size.
        truth: What is known of it.
        readings: One per system.
        finding: Display name of the target.
        anchor: Unique id of the picture within the page.
        most: Bytes that the picture may take; the coarsest form is kept whatever it takes.
    """
    height, width = pixels.shape
    told = describe_truth(truth, finding)
    panels = [
        Panel("Image", "", f"chest X-ray {image_id}", Markup("")),
        Panel(
            "Truth",
            told,
            f"truth on {image_id}: {told}",
            svg_shapes(truth_shapes(truth)),
            colour=TRUTH_COLOUR,
        ),
        *(_panel(image_id, reading, truth, max(height, width)) for reading in readings),
    ]
    return DrawnCase(
        image_id,
        anchor,
        "",
        width,
        height,
        _embed(pixels, most),
        tuple(panels),
        outcomes=tuple(outcome_kind(reading, truth) for reading in readings),
        lesion=_largest_lesion(truth, width * height),
    )


def _largest_lesion(truth: Truth, area: int) -> float | None:
    if truth.boxes is None or not len(truth.boxes):
        return None
    sides = truth.boxes[:, 2:4] - truth.boxes[:, :2]
    return round(float(sides.prod(axis=1).max()) / area * 100, 2)


def _panel(image_id: str, reading: Reading, truth: Truth, side: float) -> Panel:
    sign, words = outcome(reading, truth)
    score = describe_score(reading)
    return Panel(
        reading.system,
        words,
        f"{reading.system} on {image_id}: {words}, {score}",
        svg_shapes(reading_shapes(reading, truth, side)),
        colour=reading.colour,
        sign=sign,
        score=score,
    )


def _embed(pixels: npt.NDArray[np.uint8], most: int) -> str:
    """Return the picture as a data URL, coarser where it would take more than its share."""
    for side, quality in _ENCODINGS:
        small, _ = fit_panel(pixels, min(side, max(pixels.shape)))
        buffer = io.BytesIO()
        Image.fromarray(small).save(buffer, format="WEBP", quality=quality, method=3)
        if buffer.tell() <= most:
            break
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
