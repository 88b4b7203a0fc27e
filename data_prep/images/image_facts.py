"""Facts that are measured on every decoded image, and stored in the decode table."""

from __future__ import annotations

from typing import Any

import numpy as np

from cxr_compare.data_prep.images.border_greys import border_greys, mean_grey
from cxr_compare.data_prep.images.burned_in_text import (
    TEXT_BOX_COLUMNS,
    TEXT_LINE_CHARACTERS,
    find_text_line,
)
from cxr_compare.data_prep.images.fingerprint import perceptual_hash


def image_facts(pixels: np.ndarray) -> dict[str, Any]:
    """Measure facts of a decoded image, which a data set stores in its decode table.

    Args:
        pixels: Grey levels, uint8, shape ``(H, W)``.

    Returns:
        By name: ``mean_grey``, ``perceptual_hash``, ``text_score`` (number of characters of the
        longest line of burned-in text), the edges ``text_x1`` to ``text_y2`` of this line in px
        (None unless the line is long enough to matter) and ``border_greys``.

    Example:
        >>> image_facts(np.zeros((64, 64), np.uint8))["mean_grey"]
        0.0
    """
    line = find_text_line(pixels)
    is_suspicious = line.characters >= TEXT_LINE_CHARACTERS
    box = line.box if is_suspicious and line.box is not None else (None,) * 4
    return {
        "mean_grey": mean_grey(pixels),
        "perceptual_hash": perceptual_hash(pixels),
        "text_score": line.characters,
        **dict(zip(TEXT_BOX_COLUMNS, box, strict=True)),
        "border_greys": border_greys(pixels),
    }
