"""The pictures on the page of an audit: small images with their boxes and captions."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd

from cxr_compare.data_prep.audit.images import TEXT_CHECK
from cxr_compare.data_prep.audit.problem import Problem
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.duplicates.image_reader import open_reader

_PICTURE_PX = 166
_CROP_PX = 220  # longest side of a crop around a line of text
ILLEGIBLE_PX = 72
"""Longest side of images that may show a name, px; text cannot be read at this size."""
_CROP_HEIGHTS = 1.5  # height of the crop on each side of the line, in heights of the line
_LEAST_MARGIN = 12  # px
_YELLOW = (66, 228, 240)  # as OpenCV has it: blue, green, red
_JPEG_QUALITY = 80


@dataclass(frozen=True)
class Picture:
    """A picture with its caption.

    Attributes:
        name: Image id, or path of a file that was left out.
        source: The picture as a ``data:`` URL, of `width` and `height` px.
        lines: Lines of the caption below the name.
    """

    name: str
    source: str
    width: int
    height: int
    lines: Sequence[str]


def draw_picture(
    name: str,
    pixels: np.ndarray,
    boxes: np.ndarray,
    lines: Sequence[str],
    longest: int = _PICTURE_PX,
) -> Picture:
    """Shrink an image, uint8 ``(H, W)``, and draw boxes on it.

    The boxes are ``(N, 4)``, ``xyxy`` in shares of the image's width and height. A picture is never
    larger than its image.
    """
    height, width = pixels.shape
    scale = min(longest / max(height, width), 1.0)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    small = cv2.cvtColor(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2BGR)
    corners = np.rint(np.clip(boxes, -1, 2) * [*size, *size]).astype(int)
    for x1, y1, x2, y2 in corners.tolist():
        cv2.rectangle(small, (x1, y1), (x2 - 1, y2 - 1), _YELLOW, 1)
    encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    source = "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
    return Picture(name, source, *size, lines)


def label_texts(dataset: DataSet) -> pd.Series:
    """Return by image id the targets for which an image is positive, "negative" or "unlabelled"."""
    labels = {t.display_name: dataset.labels(t) for t in dataset.targets.values()}
    ids = pd.Index(dataset.images["image_id"])
    texts = pd.Series("", ids)
    for title, label in labels.items():
        texts += np.where(label == 1, f", {title}", "")
    known = pd.DataFrame(labels, index=ids).notna().any(axis=1)
    otherwise = known.map({True: "negative", False: "unlabelled"})
    return texts.str.removeprefix(", ").where(texts != "", otherwise)


def roles_by_image(dataset: DataSet, split: str) -> pd.Series:
    """Return the role of each image by image id; without a name those of the split ``default``."""
    with suppress(InputError):  # a set may have other splits only
        return dataset.split(split or "default").set_index("image_id")["role"]
    return pd.Series(dtype=TEXT)


class Pictures:
    """Pictures of the cases of problems, read from the smallest pixel store or from the files."""

    def __init__(self, dataset: DataSet, problems: Iterable[Problem], *, pixels: bool) -> None:
        has_paths = dataset.images["path"].notna().any()
        self.read = open_reader(dataset)[0] if pixels and has_paths else None
        if self.read is None:
            return
        self.dataset = dataset
        texts = [problem.cases for problem in problems if problem.check == TEXT_CHECK]
        columns = pd.DataFrame(columns=["image_id", *EDGES])
        self.texts = pd.concat([columns, *texts]).set_index("image_id")
        self.images = dataset.images.set_index("image_id")
        self.labels = label_texts(dataset)

    def cases(self, problem: Problem) -> list[list[Picture]]:
        """Return the pictures of each shown case of a problem; none if no image can be read."""
        if self.read is None:
            return []
        draw = self._draw_text if problem.check == TEXT_CHECK else self._draw_image
        roles = roles_by_image(self.dataset, problem.split)
        cases = []
        for names in problem.images:
            pictures = []
            for name in names:
                with suppress(InputError):  # the audit has said that images are gone
                    pictures.append(draw(name, roles))
            cases.append([picture for picture in pictures if picture is not None])
        return [case for case in cases if case]

    def _draw_image(self, image_id: str, roles: pd.Series) -> Picture | None:
        if self.read is None or image_id not in self.images.index:
            return None
        longest = ILLEGIBLE_PX if image_id in self.texts.index else _PICTURE_PX
        pixels = self.read(image_id)
        boxes = self.dataset.boxes.loc[self.dataset.boxes["image_id"] == image_id, EDGES]
        size = self.images.loc[image_id, ["width", "height"]].astype("float64").to_numpy()
        shares = boxes.to_numpy(dtype="float64") / np.tile(size, 2)
        shares = shares[np.isfinite(shares).all(axis=1)]
        return draw_picture(image_id, pixels, shares, self._caption(image_id, roles), longest)

    def _caption(self, image_id: str, roles: pd.Series) -> list[str]:
        patient, path = self.images.loc[image_id, ["patient_id", "path"]]
        role = roles.get(image_id)
        label = self.labels[image_id]
        shown = f"{role}: {label}" if isinstance(role, str) else str(label)
        return [f"patient {patient}", shown, str(path)]

    def _draw_text(self, image_id: str, roles: pd.Series) -> Picture | None:
        """Draw the crop around a line of text; an image whose header alone says so is illegible."""
        corners = self.texts.loc[image_id].to_numpy(dtype="float64")
        if np.isnan(corners).any():
            return self._draw_image(image_id, roles)
        pixels = self.dataset.read_original(image_id)  # a small store has lost the text
        x1, y1, x2, y2 = corners
        margin = max(_CROP_HEIGHTS * (y2 - y1), _LEAST_MARGIN)
        left, top = int(max(x1 - margin, 0)), int(max(y1 - margin, 0))
        crop = pixels[top : int(y2 + margin), left : int(x2 + margin)]
        lines = ["suspected text", *self._caption(image_id, roles)]
        return draw_picture(image_id, crop, np.empty((0, 4)), lines, _CROP_PX)
