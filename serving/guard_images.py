"""Image statistics of the out-of-distribution check, and the images that it learns to refuse.

The images to refuse are derived from training images (negatives, turned, shuffled, cropped) or
drawn (noise, pages, ellipses, rods), so that no other data are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, Self

import cv2
import numpy as np

from cxr_compare.data_prep.images.fingerprint import grey_ranks
from cxr_compare.data_prep.store.preprocess import letterbox

STATISTICS_VERSION = 1  # version of these statistics; a guard of another version is refused
_SIDE = 128  # longest side, px, at which an image is looked at
_LAYOUT_SIDE = 24
_SQUARE = 64
_CELLS = 4
_DIRECTIONS = 8
MEASURES = (
    _LAYOUT_SIDE**2,
    _CELLS**2 * _DIRECTIONS,
    12,
)  # numbers in `ImageStatistics`
_FLAT_RANGE = 12  # grey values between the 8th and the 92nd percentile of a row of a border
_DRAWN_SIDE = 128
_TINY = 1e-6


@dataclass(frozen=True)
class ImageStatistics:
    """Statistics of N images that tell chest X-rays from other images, float32, one row each.

    Attributes:
        layout: Ranks of the grey values of a copy of 24 x 24 px, (N, 576). Any rising grey curve
            gives the same ranks.
        edges: Square roots of the shares of the gradient that fall into each of 4 x 4 cells of the
            image and 8 directions, (N, 128).
        overall: Entropy, edge strength, spectrum, symmetry, and shares of flat and saturated
            pixels, (N, 12).
    """

    layout: np.ndarray
    edges: np.ndarray
    overall: np.ndarray

    @classmethod
    def from_images(cls, images: Iterable[np.ndarray]) -> Self:
        """Compute the statistics of images, uint8 ``(H, W)`` of any shape, one row for each."""
        rows = [_statistics(image) for image in images]
        return cls(
            layout=np.array([row.layout for row in rows], np.float32),
            edges=np.array([row.edges for row in rows], np.float32),
            overall=np.array([row.overall for row in rows], np.float32),
        )

    def __getitem__(self, rows: np.ndarray) -> ImageStatistics:
        return ImageStatistics(self.layout[rows], self.edges[rows], self.overall[rows])

    def __add__(self, other: ImageStatistics) -> ImageStatistics:
        columns = zip(vars(self).values(), vars(other).values(), strict=True)
        return ImageStatistics(*map(np.concatenate, columns))


def visible_part(pixels: np.ndarray, size: int) -> np.ndarray:
    """Scale an image to a square of `size` px, then to 128 px at most, and cut off flat borders.

    An image that was already resized to that square gives the same result as its original.

    The result is uint8 ``(h, w)`` with h and w at most 128.
    """
    square = pixels if pixels.shape == (size, size) else letterbox(pixels, size)[0]
    if size > _SIDE:
        square = cv2.resize(square, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return _without_borders(square)


def _without_borders(image: np.ndarray) -> np.ndarray:
    """Cut rows and columns at the margin that show next to nothing; at least 16 px stay."""
    for _ in range(2):  # repeated after a cut, because a border may have another one inside it
        before = image.size
        for _ in range(2):  # rows, then columns
            ordered = np.sort(image, axis=1, kind="stable")
            few = image.shape[1] * 8 // 100
            shows = np.flatnonzero(ordered[:, -1 - few] > ordered[:, few] + np.uint16(_FLAT_RANGE))
            if len(shows) and shows[-1] - shows[0] >= 15:
                image = image[shows[0] : shows[-1] + 1]
            image = image.T
        if image.size == before:
            break
    return image


class _Statistics(NamedTuple):
    """Statistics of one image; see `ImageStatistics`."""

    layout: np.ndarray
    edges: np.ndarray
    overall: np.ndarray


def _statistics(image: np.ndarray) -> _Statistics:
    image = _without_borders(image)
    method = cv2.INTER_AREA if min(image.shape) >= _SQUARE else cv2.INTER_LINEAR
    square = cv2.resize(np.ascontiguousarray(image), (_SQUARE, _SQUARE), interpolation=method)
    small = cv2.resize(square, (_LAYOUT_SIDE, _LAYOUT_SIDE), interpolation=cv2.INTER_AREA)
    ranks = grey_ranks(small) + 0.5
    values = square.astype(np.float32)
    gradient_x = cv2.Sobel(values, cv2.CV_32F, 1, 0)
    gradient_y = cv2.Sobel(values, cv2.CV_32F, 0, 1)
    size, angle = cv2.cartToPolar(gradient_x, gradient_y)
    overall = _overall(image, values, ranks, float(size.mean()))
    return _Statistics(ranks.ravel(), _directions(size, angle), overall)


def _directions(size: np.ndarray, angle: np.ndarray) -> np.ndarray:
    turn = angle.ravel() * (_DIRECTIONS / (2 * np.pi))
    lower = np.floor(turn).astype(np.int64)
    share = turn - lower
    cell = _cell_of_pixel() * _DIRECTIONS
    total = np.zeros(_CELLS * _CELLS * _DIRECTIONS)
    for offset, weight in ((0, 1 - share), (1, share)):
        place = cell + (lower + offset) % _DIRECTIONS
        total += np.bincount(place, size.ravel() * weight, minlength=len(total))
    return np.sqrt(total / (total.sum() + _TINY))


@cache
def _cell_of_pixel() -> np.ndarray:
    rows, columns = np.mgrid[0:_SQUARE, 0:_SQUARE] // (_SQUARE // _CELLS)
    return (rows * _CELLS + columns).ravel()


class _SpectrumRings(NamedTuple):
    """Rings of equal frequency in the spectrum of a square image, and the window before it."""

    ring_of_frequency: np.ndarray
    ring_sizes: np.ndarray
    window: np.ndarray


@cache
def _rings() -> _SpectrumRings:
    """Return the ring of each frequency of a spectrum, the size of each ring, and the window."""
    rows, columns = np.mgrid[-_SQUARE // 2 : _SQUARE // 2, -_SQUARE // 2 : _SQUARE // 2]
    ring = np.fft.ifftshift(np.hypot(rows, columns).astype(np.int64)).ravel()
    window = np.hanning(_SQUARE).astype(np.float32)
    return _SpectrumRings(ring, np.bincount(ring), np.outer(window, window))


def _overall(
    image: np.ndarray, values: np.ndarray, ranks: np.ndarray, gradient: float
) -> np.ndarray:
    counts = np.bincount(image.ravel(), minlength=256) / image.size
    seen = counts[counts > 0]
    spread = float(values.std()) + 1e-3
    laplacian = float(np.abs(cv2.Laplacian(values, cv2.CV_32F)).mean())
    rings = _rings()
    power = np.abs(np.fft.fft2((values - values.mean()) * rings.window)) ** 2
    power = np.bincount(rings.ring_of_frequency, power.ravel())[1:31] / rings.ring_sizes[1:31]
    logs = np.log(power + 1e-3)
    scale = np.log(np.arange(1, 31))
    slope, level = np.polyfit(scale, logs, 1)
    centred = ranks - ranks.mean()
    variance = float((centred * centred).sum()) + _TINY
    numbers = [
        -float((seen * np.log(seen)).sum()),
        np.log(laplacian / spread + 1e-3),
        np.log(gradient / spread + 1e-3),
        slope,
        float(np.std(logs - slope * scale - level)),
        float((centred * centred[:, ::-1]).sum()) / variance,
        float((centred * centred[::-1]).sum()) / variance,
        np.log(counts.max() + 1e-4),
        np.log(counts[:3].sum() + 0.01),
        np.log(counts[253:].sum() + 0.01),
        np.log(spread),
        float(values.mean()) / 64,
    ]
    return np.array(numbers)


def vary(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change a radiograph as another exposure would: contrast, crop, tilt and sharpness."""
    height, width = image.shape
    cut = rng.random(4) * 0.08
    if rng.random() < 0.7:
        image = image[
            int(cut[0] * height) : height - int(cut[1] * height),
            int(cut[2] * width) : width - int(cut[3] * width),
        ]
    height, width = image.shape
    if rng.random() < 0.5:
        width = max(16, int(width * np.exp(rng.uniform(-0.18, 0.18))))
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.4:
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-9, 9), 1.0)
        border = cv2.BORDER_REPLICATE if rng.random() < 0.4 else cv2.BORDER_CONSTANT
        image = cv2.warpAffine(image, turn, (width, height), borderMode=border)
    if rng.random() < 0.3:
        share = rng.uniform(0.35, 1.0)
        small = (max(24, int(width * share)), max(24, int(height * share)))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    values = image.astype(np.float32) / 255
    if rng.random() < 0.8:
        values = values ** np.exp(rng.uniform(-0.5, 0.5))
    if rng.random() < 0.6:
        contrast = rng.uniform(0.6, 1.0)
        values = values * contrast + rng.uniform(0, 1 - contrast)
    elif rng.random() < 0.5:
        values = (values - 0.5) * rng.uniform(1, 1.5) + 0.5 + rng.uniform(-0.1, 0.1)
    if rng.random() < 0.3:
        values = values + rng.normal(0, rng.uniform(0, 0.04), values.shape)
    image = _grey(values)
    if rng.random() < 0.15:
        image = cv2.equalizeHist(image)
    return image


def _grey(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def spoil(image: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Make an image that is no frontal chest X-ray from one training image or two.

    The out-of-distribution check learns to recognise such images, such as negatives and crops.

    The images are uint8 ``(H, W)``; `other` serves the changes that need two. A crop is smaller
    than the original.
    """
    ways = (
        _negative,
        _negative,
        _turned,
        _turned,
        _shuffled,
        _shuffled,
        _cropped,
        _joined,
        _page_of,
    )
    return np.ascontiguousarray(ways[int(rng.integers(len(ways)))](image, other, rng))


def _negative(image: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 255 - image


def _turned(image: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    turn = int(rng.integers(4))
    return np.rot90(image, turn) if turn else image[::-1]


def _shuffled(image: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    n = int(rng.integers(2, 6))
    side = 120 // n
    square = cv2.resize(image, (120, 120), interpolation=cv2.INTER_AREA)
    square = 255 - square if rng.random() < 0.3 else square
    order = np.roll(rng.permutation(n * n), 1)
    while (order == np.arange(n * n)).mean() > 0.5:
        order = rng.permutation(n * n)
    turns = rng.integers(0, 4 if n > 2 else 1, n * n)
    corners = [(k // n * side, k % n * side) for k in order]
    blocks = [
        np.rot90(square[row : row + side, column : column + side], int(turn))
        for (row, column), turn in zip(corners, turns, strict=True)
    ]
    return np.vstack([np.hstack(blocks[row * n : (row + 1) * n]) for row in range(n)])


def _cropped(image: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = (max(12, int(side * rng.uniform(0.2, 0.45))) for side in image.shape)
    top = int(rng.integers(max(1, image.shape[0] - height)))
    left = int(rng.integers(max(1, image.shape[1] - width)))
    return image[top : top + height, left : left + width]


def _joined(image: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return two images side by side, one above the other, or halves of both."""
    height, width = image.shape
    other = cv2.resize(other, (width, height), interpolation=cv2.INTER_AREA)
    halves = [other[height // 2 :], image[: height // 2]]
    ways = (np.hstack([image, other]), np.vstack([image, other]), np.vstack(halves))
    return ways[int(rng.integers(3))]


def _page_of(image: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a page that shows the X-ray above lines of text."""
    height, width = image.shape
    page = np.full((height * 2, width), 255, np.uint8)
    page[:height] = image
    for top in range(height + 6, 2 * height - 4, 9):
        page[top : top + 3, 6 : int(width * rng.uniform(0.3, 0.95))] = rng.integers(0, 90)
    return page


def draw(number: int, rng: np.random.Generator) -> np.ndarray:
    """Draw an image that is no X-ray, such as noise, a page of text or rods.

    It is uint8 ``(height, width)``. Consecutive numbers give different kinds.
    """
    kinds: tuple[Callable[[np.random.Generator], np.ndarray], ...] = (
        _noise,
        _shapes,
        _page,
        _slice,
        _rods,
        _shapes,
        _slope,
        _rods,
    )
    values = np.clip(kinds[number % len(kinds)](rng), 0, 1) ** np.exp(rng.uniform(-0.5, 0.5))
    values = (values - values.min()) / (np.ptp(values) + _TINY) * rng.uniform(0.6, 1)
    shape = [int(_DRAWN_SIDE * rng.uniform(0.6, 1)) for _ in range(2)]
    return cv2.resize(_grey(values), shape, interpolation=cv2.INTER_AREA)


def _fractal(power: float, rng: np.random.Generator) -> np.ndarray:
    """Draw noise whose spectrum falls with a power of the frequency, in [0, 1]."""
    spectrum = np.fft.rfft2(rng.normal(size=(_DRAWN_SIDE, _DRAWN_SIDE)))
    noise: np.ndarray = np.fft.irfft2(spectrum * np.exp(_log_frequency() * -power))
    return (noise - noise.min()) / (np.ptp(noise) + _TINY)


@cache
def _log_frequency() -> np.ndarray:
    rows = np.fft.fftfreq(_DRAWN_SIDE)[:, None]
    columns = np.fft.rfftfreq(_DRAWN_SIDE)
    distance = np.hypot(rows, columns)
    distance[0, 0] = 1
    return np.log(distance)


def _noise(rng: np.random.Generator) -> np.ndarray:
    return _fractal(rng.uniform(0, 2.5), rng) * rng.uniform(0.1, 1)


def _slope(rng: np.random.Generator) -> np.ndarray:
    rows, columns = np.mgrid[:_DRAWN_SIDE, :_DRAWN_SIDE] / _DRAWN_SIDE
    turn = rng.uniform(0, 2 * np.pi)
    return 0.5 + 0.4 * (np.cos(turn) * columns + np.sin(turn) * rows) + 0.2 * _fractal(1.5, rng)


def _shapes(rng: np.random.Generator) -> np.ndarray:
    """Draw discs, ellipses and quadrangles upon each other, a model of photographs.

    Source: "dead leaves", Lee, Mumford and Huang, IJCV 2001.
    """
    canvas = _fractal(rng.uniform(1, 2), rng)
    for _ in range(int(rng.integers(5, 120))):
        radius = int(3 / (rng.random() ** 0.6 + 0.03))
        place = [int(p) for p in rng.integers(0, _DRAWN_SIDE, 2)]
        value = float(rng.random())
        kind = rng.random()
        if kind < 0.7:
            axes = (radius, max(1, int(radius * (1 if kind < 0.4 else rng.uniform(0.2, 1)))))
            cv2.ellipse(canvas, place, axes, float(rng.uniform(0, 180)), 0, 360, value, -1)
        else:
            corners = np.array(place) + rng.integers(-2 * radius, 2 * radius + 1, (4, 2))
            cv2.fillPoly(canvas, [corners.astype(np.int32)], value)
    canvas = canvas + 0.1 * _fractal(1, rng)
    return cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.3, 2.5))


def _page(rng: np.random.Generator) -> np.ndarray:
    """Draw lines of text, light or dark, some with a picture."""
    paper = float(rng.choice([1, 1, 0.9, 0.1]))
    canvas = np.full((_DRAWN_SIDE, _DRAWN_SIDE), paper)
    margin = int(rng.integers(2, 20))
    line = int(rng.integers(3, 10))
    top = margin
    while top < _DRAWN_SIDE - margin:
        left = margin
        while left < _DRAWN_SIDE - margin and rng.random() > 0.05:
            word = int(rng.integers(2, 16))
            right = min(left + word, _DRAWN_SIDE - margin)
            ink = rng.uniform(0, 0.5) if paper > 0.5 else rng.uniform(0.6, 0.9)
            canvas[top : top + max(1, line // 2), left:right] = ink
            left += word + 2
        top += line * (3 if rng.random() < 0.05 else 1)
    if rng.random() < 0.4:
        row, column = rng.integers(0, _DRAWN_SIDE // 2, 2)
        height, width = rng.integers(20, 64, 2)
        picture = _fractal(1.5, rng)[:height, :width]
        canvas[row : row + height, column : column + width] = picture
    return canvas


def _slice(rng: np.random.Generator) -> np.ndarray:
    """Draw ellipses inside an ellipse, a model of a cross-section through a body."""
    canvas = np.full((_DRAWN_SIDE, _DRAWN_SIDE), 0.0 if rng.random() < 0.8 else rng.random())
    centre = [int(_DRAWN_SIDE * share) for share in rng.uniform(0.4, 0.6, 2)]
    axes = [int(_DRAWN_SIDE * share) for share in rng.uniform(0.2, 0.5, 2)]
    tilt = float(rng.uniform(-20, 20))
    cv2.ellipse(canvas, centre, axes, tilt, 0, 360, float(rng.uniform(0.3, 1)), -1)
    if rng.random() < 0.7:
        rim = int(rng.integers(1, 6))
        cv2.ellipse(canvas, centre, axes, tilt, 0, 360, float(rng.uniform(0.6, 1)), rim)
    for _ in range(int(rng.integers(0, 9))):
        place = [int(c + rng.normal(0, 0.4 * a)) for c, a in zip(centre, axes, strict=True)]
        inner = [int(a) for a in rng.integers(2, _DRAWN_SIDE // 5, 2)]
        turn = float(rng.uniform(0, 180))
        cv2.ellipse(canvas, place, inner, turn, 0, 360, float(rng.random()), -1)
    return cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.5, 2)) + 0.12 * _fractal(1.2, rng)


def _rods(rng: np.random.Generator) -> np.ndarray:
    """Draw bright rods with knobs in a paler shadow, a model of bones."""
    canvas = np.zeros((_DRAWN_SIDE, _DRAWN_SIDE))
    if rng.random() < 0.6:
        for _ in range(int(rng.integers(1, 6))):
            start, end = ([int(p) for p in rng.integers(0, _DRAWN_SIDE, 2)] for _ in range(2))
            flesh = float(rng.uniform(0.2, 0.45))
            cv2.line(canvas, start, end, flesh, int(rng.integers(14, 50)))
    for _ in range(int(rng.integers(1, 14))):
        start = [int(p) for p in rng.integers(0, _DRAWN_SIDE, 2)]
        turn = rng.uniform(0, 2 * np.pi)
        length = rng.uniform(10, 90)
        end = [int(start[0] + length * np.cos(turn)), int(start[1] + length * np.sin(turn))]
        width = int(rng.integers(3, 20))
        value = float(rng.uniform(0.5, 1))
        cv2.line(canvas, start, end, value, width)
        cv2.circle(canvas, end, int(width * 0.8), value, -1)
    return cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.7, 2.5)) + 0.1 * _fractal(1.3, rng)
