"""Draw the gallery: each case once as a PNG and once, as SVG over one picture, for the report."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
from markupsafe import Markup
from PIL import Image

from data_prep.folders import make_folder
from data_prep.tables import InputError
from evaluation.contours import LEVELS
from evaluation.overlays import (
    Reading,
    Truth,
    describe_score,
    describe_truth,
    outcome,
    reading_shapes,
    truth_shapes,
)
from evaluation.raster import fit_panel
from evaluation.shapes import TRUTH_COLOUR
from evaluation.sheet import draw_overlay, save_overlay
from evaluation.vector import svg_shapes
from evaluation.wording import number

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from data_prep.dataset import DataSet
    from evaluation.cases import CaseReader
    from evaluation.gallery import Category

MAX_PICTURE_BYTES = 120_000
"""The most that one picture may take; less where the report has more than 45."""

_ALL_PICTURES_BYTES = 5_400_000  # 7.2 MB in base64

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
    """One case: a picture (data URL) that all its panels share."""

    image_id: str
    anchor: str
    facts: str
    width: int
    height: int
    picture: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Gallery:
    """The drawn cases by category, or the reason why there are none."""

    cases: list[tuple[Category, list[DrawnCase]]] = field(default_factory=list)
    policy: str = ""
    intro: str = ""
    map_words: tuple[str, ...] = ()
    reason: str = ""

    @classmethod
    def empty(cls, reason: str) -> Gallery:
        """Return a gallery without cases.

        Example:
            >>> Gallery.empty("No pixels.").reason
            'No pixels.'
        """
        return cls(reason=reason)


def build_gallery(
    categories: list[Category],
    reader: CaseReader,
    dataset: DataSet,
    *,
    finding: str,
    policy: str,
    folder: Path,
    progress: Callable[..., None] | None = None,
) -> Gallery:
    """Draw every case of every category, one image in memory at a time.

    An image that cannot be read any more is left out, and the introduction says so.

    Args:
        categories: The chosen cases.
        reader: Truth and readings.
        dataset: Where the pixels come from.
        finding: Display name of the target.
        policy: The threshold policy in words.
        folder: Gets one PNG a case; made if absent.
        progress: Called once per case.
    """
    make_folder(folder)
    drawn, lost = [], []
    count = sum(len(category.image_ids) for category in categories)
    most = min(MAX_PICTURE_BYTES, _ALL_PICTURES_BYTES // max(count, 1))
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
            sheet = draw_overlay(pixels, truth, readings, finding=finding, title=image_id)
            save_overlay(sheet, folder / f"{stem}.png")
            case = draw_case(
                image_id, pixels, truth, readings, finding=finding, anchor=stem, most=most
            )
            cases.append(replace(case, facts=_facts(dataset, image_id)))
            if progress is not None:
                progress()
        drawn.append((category, cases))
    intro = "Choose a picture to enlarge it."
    if lost:
        intro += f" Left out, as the file could not be read: {', '.join(lost)}."
    return Gallery(drawn, policy, intro, tuple(_map_words(reader)))


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
        image_id, f"x-{anchor}", "", width, height, _embed(pixels, most), tuple(panels)
    )


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


def _facts(dataset: DataSet, image_id: str) -> str:
    """View, sex and age of an image, where the data set has them."""
    row = dataset.images.loc[dataset.images["image_id"] == image_id].iloc[0]
    words = [str(row[name]) for name in ("view", "sex") if not pd.isna(row.get(name))]
    if not pd.isna(row.get("age_years")):
        words.append(f"{row['age_years']:.0f} years")
    return ", ".join(words)


def _map_words(reader: CaseReader) -> list[str]:
    """Say for each system with maps where its contours lie."""
    words = []
    for system in reader.systems:
        if system.maps is None or not len(system.maps) or system.scale is None:
            continue
        low, high = system.scale
        levels = ", ".join(number(low + share * (high - low), 2) for share in LEVELS)
        words.append(f"map of {system.name}: contours at {levels} (same for all images)")
    return words
