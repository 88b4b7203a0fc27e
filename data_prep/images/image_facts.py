"""What is measured on every decoded picture, for the audit: columns of the decode table."""

from __future__ import annotations

from typing import Any

import numpy as np

from data_prep.images.burned_in_text import text_score
from data_prep.images.fingerprint import perceptual_hash
from data_prep.images.picture_border import border_greys


def picture_facts(pixels: np.ndarray) -> dict[str, Any]:
    """Measure a picture once, where it is decoded.

    Args:
        pixels: uint8, shape ``(H, W)``.

    Returns:
        ``mean_grey``, 0 to 255; ``perceptual_hash``, by which the audit finds copies;
        ``text_score``, characters in the longest line of burned-in text; ``border_greys``, mean
        greys of the outer tenth.

    Example:
        >>> picture_facts(np.full((2, 2), 7, np.uint8))["mean_grey"]
        7.0
    """
    return {
        "mean_grey": float(pixels.mean()),
        "perceptual_hash": perceptual_hash(pixels),
        "text_score": text_score(pixels),
        "border_greys": border_greys(pixels),
    }
