"""The one place that resizes and normalises images; and views of a square for test-time changes."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import cv2
import numpy as np

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.json_files import read_json, write_json

MIN_VISIBLE = 0.3
"""A box is dropped where less than this share of its area stays inside the image."""
MIN_SIDE = 2.0
"""A box is dropped where augmentation makes a side shorter than this, in px."""


Frame = tuple[float, float, float, float]
"""Outer frame of a grid of cells: ``x1, y1, x2, y2``."""


@dataclass(frozen=True)
class Placement:
    """Where an image lies in its square: store = original x scale + offset, edges continuous.

    Example:
        >>> placement = Placement(scale_x=0.5, scale_y=0.5, offset_x=0.0, offset_y=64.0)
        >>> placement.to_store(np.array([[100.0, 100.0, 300.0, 200.0]])).tolist()
        [[50.0, 114.0, 150.0, 164.0]]
    """

    scale_x: float  # store pixels per original pixel along x
    scale_y: float  # the same along y; differs from `scale_x` by the rounding to whole pixels only
    offset_x: float  # black columns to the left, in store pixels
    offset_y: float  # black rows above, in store pixels

    def to_store(self, boxes: np.ndarray) -> np.ndarray:
        """Move boxes from the original into the square."""
        return _as_boxes(boxes) * self._scales() + self._offsets()

    def to_original(self, boxes: np.ndarray, width: float, height: float) -> np.ndarray:
        """Move boxes from the square, px, back into the original, px, and clip them to it.

        A box that lay in the black border has no width or no height left; dropping it is the
        caller's.
        """
        ends = np.array([width, height, width, height], dtype=np.float64)
        return np.clip(self._moved_back(boxes), 0.0, ends)

    def frame_back(self, frame: Frame) -> Frame:
        """A map's frame from the square to original px, not clipped: border cells lie beyond."""
        x1, y1, x2, y2 = self._moved_back(np.array([frame]))[0].tolist()
        return x1, y1, x2, y2

    def _moved_back(self, boxes: np.ndarray) -> np.ndarray:
        return (_as_boxes(boxes) - self._offsets()) / self._scales()

    def _scales(self) -> np.ndarray:
        return np.array([self.scale_x, self.scale_y] * 2)

    def _offsets(self) -> np.ndarray:
        return np.array([self.offset_x, self.offset_y] * 2)


def _as_boxes(boxes: np.ndarray) -> np.ndarray:
    array = np.asarray(boxes, dtype=np.float64)
    if array.size == 0:
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"boxes must have shape (N, 4), got {array.shape}")
    return array


MIN_SIZE, MAX_SIZE = 16, 4096
"""Sides of the square that images may be brought to, in pixels."""

Pixels = TypeVar("Pixels", bound=Any)


def letterbox(pixels: np.ndarray, size: int) -> tuple[np.ndarray, Placement]:
    """Bring an image into a square: same aspect, centred, black border."""
    if pixels.ndim != 2 or pixels.dtype != np.uint8 or pixels.size == 0:
        raise ValueError(f"pixels must be uint8 (H, W), got {pixels.dtype} {pixels.shape}")
    height, width = pixels.shape
    image = _resize(pixels, size)
    new_height, new_width = image.shape
    left, top = (size - new_width) // 2, (size - new_height) // 2
    square = np.zeros((size, size), dtype=np.uint8)
    square[top : top + new_height, left : left + new_width] = image
    return square, Placement(new_width / width, new_height / height, float(left), float(top))


def _resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Bring the longer side to a size, and keep the aspect to the rounding of whole pixels."""
    height, width = pixels.shape
    scale = size / max(height, width)
    new_width, new_height = (max(1, round(side * scale)) for side in (width, height))
    if (new_height, new_width) == (height, width):
        return pixels
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(pixels, (new_width, new_height), interpolation=method)


@dataclass(frozen=True)
class Preprocess:
    """What a model expects of its input; travels with the weights as ``preprocess.json``.

    Example:
        >>> preprocess = Preprocess(size=256, mean=0.5, std=0.25)
        >>> preprocess.spec
        'letterbox-256'
        >>> preprocess.normalise(np.array([0, 255], np.uint8)).tolist()
        [-2.0, 2.0]
    """

    size: int  # side of the square, in px, 16 to 4,096
    mean: float  # mean of the pixel values on a scale of 0 to 1
    std: float  # standard deviation on that scale, above 0

    def __post_init__(self) -> None:
        store_spec(self.size)  # refuses a size that no image may have
        if not (np.isfinite(self.mean) and np.isfinite(self.std) and self.std > 0):
            raise InputError(f"mean {self.mean}, std {self.std}: must be finite, and std above 0")

    @property
    def spec(self) -> str:
        """Name of the pixel store that holds such images."""
        return store_spec(self.size)

    def normalise(self, images: Pixels) -> Pixels:
        """Turn grey levels into what the model sees: ``(x / 255 - mean) / std``."""
        if isinstance(images, np.ndarray):
            if not np.issubdtype(images.dtype, np.floating):
                images = images.astype(np.float32)  # type: ignore[assignment]
        elif not images.dtype.is_floating_point:
            images = images.float()
        return (images - 255.0 * self.mean) / (255.0 * self.std)

    def to_json(self, path: Path) -> None:
        """Write ``preprocess.json``."""
        write_json(path, "preprocess", {"resize": "letterbox", **asdict(self)})

    @classmethod
    def from_json(cls, path: Path) -> Self:
        """Read ``preprocess.json``; `InputError` where it is missing or broken."""
        content = read_json(path, "preprocess")
        try:
            return cls(content["size"], content["mean"], content["std"])
        except InputError as error:
            raise InputError(f"{path}: {error}") from None


def store_spec(size: int) -> str:
    """Name of the pixel store of a size; refuses one that no store may have."""
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise InputError(f"image size {size} px; choose {MIN_SIZE} to {MAX_SIZE}")
    return f"letterbox-{size}"


_GRID = 32
"""A view's side is a multiple of this, px: what networks of five halvings want."""
_SCALES = (0.5, 2.0)


@dataclass(frozen=True)
class View:
    """One way to look at a square image of side S.

    The image is scaled to a whole number of px, mirrored if asked, and laid into the middle of
    the smallest black square whose side is a multiple of 32 px, so nothing of it is lost. A model
    whose anchors are px sees lesions at another size.

    Example:
        >>> view = View(scale=0.8)
        >>> view.content(256), view.canvas(256)
        (205, 224)
        >>> view.boxes_back(np.array([[9.0, 9.0, 214.0, 214.0]]), 256).tolist()
        [[0.0, 0.0, 256.0, 256.0]]
    """

    flip: bool = False  # mirrored left to right
    scale: float = 1.0  # asked for; `content` says what whole pixels make of it

    @property
    def name(self) -> str:
        """As a user writes it; ``plain`` for the image as it is."""
        return "flip" if self.flip else "plain" if self.scale == 1.0 else f"scale{self.scale:g}"

    def content(self, size: int) -> int:
        """Side of the scaled image, px."""
        return round(size * self.scale)

    def canvas(self, size: int) -> int:
        """Side of the square that it is laid into, px."""
        return size if self.scale == 1.0 else -(-self.content(size) // _GRID) * _GRID

    def offset(self, size: int) -> int:
        """Black columns to the left, and rows above, px."""
        return (self.canvas(size) - self.content(size)) // 2

    def boxes_back(self, boxes: np.ndarray, size: int) -> np.ndarray:
        """Move boxes from the view to the image, and clip them to it."""
        moved = (np.asarray(boxes, np.float64) - self.offset(size)) * (size / self.content(size))
        if self.flip:
            moved = np.stack([size - moved[:, 2], moved[:, 1], size - moved[:, 0], moved[:, 3]], 1)
        return np.clip(moved, 0.0, float(size))


def parse_views(text: str) -> tuple[View, ...]:
    """Read what a user asks for; the plain view always comes first."""
    views = [View()]
    for word in (part.strip() for part in text.split(",")):
        number = re.fullmatch(r"scale(\d+(?:\.\d+)?)", word)
        if word != "flip" and number is None:
            raise InputError(f"--tta {text}: '{word}' is not a view; use flip, scale0.8, scale1.2")
        view = View(flip=True) if number is None else View(scale=float(number[1]))
        if not _SCALES[0] <= view.scale <= _SCALES[1]:
            low, high = _SCALES
            raise InputError(f"--tta {text}: '{word}' is out of range; choose {low} to {high}")
        if view in views:
            raise InputError(f"--tta {text}: '{word}' is there already; leave it out")
        views.append(view)
    return tuple(views)
