"""Where the lungs lie in a frontal chest X-ray, without a learned model.

A matched filter: the picture is reduced to "darker than its surroundings", and a schematic chest
(two dark ovals, a bright band between them, bright flanks) is laid over it at many places and
sizes. The edges are not those of the best match but quantiles over all matches, each weighted by
how well it fits: a clear chest gets a tight region, a white lung or an odd view a wide one.

Only the upper three quarters of the lungs are matched. Opacity and effusion gather at the bases,
so the lower edge is what anatomy expects below the apices, not what looks dark.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

MIN_CONFIDENCE = 0.3
"""Below this correlation with the schematic chest, the region is the whole picture."""
MARGINS = (0.06, 0.08, 0.2)
"""Added at each side, above and below, in widths of the region: keeps 99 % of RSNA's boxes."""

_SIDE = 64  # px: lungs and ribcage survive, ribs and cables do not
_PAD = _SIDE // 3  # lungs may begin outside of the picture
_WIDTHS = np.arange(0.4, 1.0, 0.05)  # of both lungs together, shares of the picture's width
_ASPECTS = (0.8, 1.0, 1.2)  # height over width
_SHOWN = 0.75  # share of the lungs' height that is matched, from the apices down
_TEMPERATURE = 0.07  # correlations this far below the best one count a third
_TAIL = 0.2  # the quantile that makes an edge


@dataclass(frozen=True)
class LungRegion:
    """A part of a picture, in whole px.

    Attributes:
        x1: Left edge.
        y1: Upper edge.
        x2: Right edge.
        y2: Lower edge.
        confidence: Correlation with the schematic chest, at most 1; the edges are the picture's
            own where it is below `MIN_CONFIDENCE`.
    """

    x1: int
    y1: int
    x2: int
    y2: int
    confidence: float


def find_lung_region(pixels: np.ndarray) -> LungRegion:
    """Find the part of a frontal chest X-ray that holds both lungs, with a margin.

    The region is as square as the picture allows: a model reads squares, and what would be a
    black border shows the chest instead.

    Args:
        pixels: uint8, shape ``(H, W)``, lungs dark.

    Returns:
        The region; the whole picture where no chest is recognised.

    Example:
        >>> find_lung_region(np.full((100, 80), 9, np.uint8))
        LungRegion(x1=0, y1=0, x2=80, y2=100, confidence=0.0)
    """
    height, width = pixels.shape
    whole = LungRegion(0, 0, width, height, 0.0)
    if min(height, width) < _SIDE // 2 or max(height, width) > 4 * min(height, width):
        return whole
    field = _dark_field(pixels)
    matches = _match_all(field)
    if not matches:
        return whole
    confidence = float(max(matches, key=lambda match: match.score.max()).correlation)
    if confidence < MIN_CONFIDENCE:
        return LungRegion(0, 0, width, height, round(confidence, 3))
    scale = max(height, width) / max(field.shape)
    x1, y1, x2, y2 = _edges(matches) * scale
    side, above, below = np.array(MARGINS) * (x2 - x1)
    left, right = _fit(x1 - side, x2 + side, width)
    top, bottom = _fit(y1 - above, y2 + below, height)
    longest = max(right - left, bottom - top)
    left, right = _widen(left, right, longest, width)
    top, bottom = _widen(top, bottom, longest, height)
    return LungRegion(
        int(np.floor(left)),
        int(np.floor(top)),
        int(np.ceil(right)),
        int(np.ceil(bottom)),
        round(confidence, 3),
    )


def _dark_field(pixels: np.ndarray) -> np.ndarray:
    """How much darker each place is than its surroundings, float32 in [-1, 1], small.

    The dark air around the body and the edges of the collimator take no part.
    """
    scale = _SIDE / max(pixels.shape)
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    body = (~_outside(small)).astype(np.float32)
    if not body.any():
        return np.zeros_like(body)
    grey = small.astype(np.float32)
    fine, coarse = (_blur_within(grey, body, share * _SIDE) for share in (0.02, 0.14))
    darker = (coarse - fine) * body
    spread = float(np.sqrt((darker[body > 0] ** 2).mean()))
    return np.tanh(1.5 * darker / max(spread, 1.0)).astype(np.float32)


def _outside(small: np.ndarray) -> np.ndarray:
    """The dark part that is connected with the picture's edge; bool, same shape."""
    smooth = cv2.GaussianBlur(small, (0, 0), 0.8)
    dark = smooth < max(10.0, 0.3 * float(np.percentile(smooth, 75)))
    rim = 5
    air = np.pad(_joined_to_edge(dark), rim, constant_values=True).astype(np.uint8)
    # A lung that touches the air by a narrow bridge is not part of it.
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (rim, rim))
    opened = cv2.morphologyEx(air, cv2.MORPH_OPEN, kernel)[rim:-rim, rim:-rim]
    return _joined_to_edge(opened > 0)


def _joined_to_edge(mask: np.ndarray) -> np.ndarray:
    framed = np.pad(mask, 1, constant_values=True).astype(np.uint8)
    labels = cv2.connectedComponents(framed, connectivity=4)[1]
    return (labels == labels[0, 0])[1:-1, 1:-1]


def _blur_within(grey: np.ndarray, mask: np.ndarray, sigma: float) -> np.ndarray:
    """A blur that reads only what the mask shows."""
    weight = cv2.GaussianBlur(mask, (0, 0), sigma)
    return cv2.GaussianBlur(grey * mask, (0, 0), sigma) / np.maximum(weight, 1e-3)


@lru_cache(maxsize=256)
def _schematic_chest(width: int, height: int) -> np.ndarray:
    """The filter: 1 in the lungs, -1 between them, -0.5 in flanks and shoulders; float32.

    Args:
        width: Of both lungs together, px.
        height: From the apices to the diaphragm, px; the filter ends at `_SHOWN` of it.
    """
    border = _border(width)
    rows, columns = round(_SHOWN * height) + border, width + 2 * border
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    x, y = (x - border + 0.5) / width, (y - border + 0.5) / height
    chest = np.full((rows, columns), -0.5, np.float32)
    chest[np.abs(x - 0.5) < 0.1] = -1
    for centre in (0.24, 0.76):
        leaning = centre + 0.3 * (0.5 - centre) * (0.5 - y)  # the apices are nearer the midline
        chest[((x - leaning) / 0.22) ** 2 + ((y - 0.5) / 0.5) ** 2 < 1] = 1
    return cv2.GaussianBlur(chest, (0, 0), max(0.03 * width, 0.6))


def _border(width: int) -> int:
    return round(0.1 * width)


@dataclass(frozen=True)
class _Match:
    """The filter at one size, everywhere.

    Attributes:
        score: Correlation plus what is expected of size and place, shape ``(Y, X)``.
        x: Left edge of the lungs for each column of `score`, px of the field.
        y: Their upper edge for each row.
        width: Their width, px of the field.
        height: Their height.
        correlation: Where the score is highest.
    """

    score: np.ndarray
    x: np.ndarray
    y: np.ndarray
    width: int
    height: int
    correlation: float


def _match_all(field: np.ndarray) -> list[_Match]:
    if not field.any():
        return []
    padded = np.pad(field, _PAD)
    # A correlation with a constant is undefined; this is less than any tissue, and not constant.
    padded += 1e-3 * (np.indices(padded.shape).sum(axis=0) % 2).astype(np.float32)
    return [
        _match(padded, field.shape, width, round(width * aspect))
        for width in np.round(_WIDTHS * field.shape[1]).astype(int).tolist()
        for aspect in _ASPECTS
        if round(_SHOWN * round(width * aspect)) + _border(width) <= padded.shape[0]
    ]


def _match(padded: np.ndarray, shape: tuple[int, ...], width: int, height: int) -> _Match:
    correlation = cv2.matchTemplate(padded, _schematic_chest(width, height), cv2.TM_CCOEFF_NORMED)
    x = np.arange(correlation.shape[1]) - _PAD + _border(width)
    y = np.arange(correlation.shape[0]) - _PAD + _border(width)
    # Chests are usually in the middle, begin below the neck, and fill the width.
    from_middle = ((x + width / 2) / shape[1] - 0.5) / 0.16
    from_usual_top = (y / shape[0] - 0.14) / 0.16
    expected = -0.1 * (from_middle[None, :] ** 2 + from_usual_top[:, None] ** 2)
    score = correlation + expected + 0.3 * np.log(width / shape[1])
    return _Match(score, x, y, width, height, correlation.flat[score.argmax()])


def _edges(matches: list[_Match]) -> np.ndarray:
    """Quantiles of the four edges over all matches: ``x1, y1, x2, y2``, px of the field."""
    best = max(float(match.score.max()) for match in matches)
    weights = [np.exp((match.score - best) / _TEMPERATURE) for match in matches]
    across = [weight.sum(axis=0) for weight in weights]
    down = [weight.sum(axis=1) for weight in weights]
    return np.array(
        [
            _quantile([m.x for m in matches], across, _TAIL),
            _quantile([m.y for m in matches], down, _TAIL),
            _quantile([m.x + m.width for m in matches], across, 1 - _TAIL),
            _quantile([m.y + m.height for m in matches], down, 1 - _TAIL),
        ]
    )


def _quantile(places: list[np.ndarray], weights: list[np.ndarray], share: float) -> float:
    every_place = np.concatenate(places)
    total = np.bincount(every_place - every_place.min(), np.concatenate(weights))
    return float(np.interp(share, total.cumsum() / total.sum(), np.arange(len(total)))) + float(
        every_place.min()
    )


def _fit(low: float, high: float, length: int) -> tuple[float, float]:
    return max(0.0, min(low, length - 1.0)), min(float(length), max(high, 1.0))


def _widen(low: float, high: float, wanted: float, length: int) -> tuple[float, float]:
    """Make a span as long as wanted, or as long as the picture, moving it where it must."""
    wanted = min(wanted, float(length))
    low = (low + high - wanted) / 2
    low = min(max(low, 0.0), length - wanted)
    return low, low + wanted
