"""The images that the page of an audit shows, with their boxes and captions."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import pandas as pd

from cxr_compare.data_prep.audit.burned_in_text import TEXT_CHECK
from cxr_compare.data_prep.audit.problem import Problem
from cxr_compare.data_prep.audit.thumbnails import (
    ILLEGIBLE_PX,
    THUMBNAIL_PX,
    open_images,
    thumbnail,
)
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.duplicates.image_reader import ImageReader
from cxr_compare.data_prep.store.dataset import DataSet, ImageFile

_MAX_IMAGES = 60  # beside those with burned-in text
_CROP_PX = 220  # longest side of a crop around a line of text
_CROP_HEIGHTS = 1.5  # height of the crop on each side of the line, in heights of the line
_LEAST_MARGIN = 12  # px


@dataclass(frozen=True)
class PageImage:
    """An image on the HTML page about problems of a data set.

    Boxes are in px of the original image.

    Attributes:
        image_id: Image id to show below the image; "" if the image beside it has the caption.
        label: Text that describes the image, for screen readers.
        source: Encoded thumbnail as a ``data:`` URL, for the attribute ``src``.
        longest: Longer side of the thumbnail on the page, px.
        width: Width of the original image, px.
        height: Height of the original image, px.
        boxes: Boxes to draw, each as x and y of the upper left corner, width and height.
        lines: Lines of the caption below the id: patient, role (train, val, test) and labels, path.
    """

    image_id: str
    label: str
    source: str
    longest: int
    width: float
    height: float
    boxes: list[tuple[float, float, float, float]]
    lines: Sequence[str] = ()

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height of the thumbnail on the page, px."""
        scale = self.longest / max(self.width, self.height)
        return max(round(self.width * scale), 1), max(round(self.height * scale), 1)


def label_texts(dataset: DataSet) -> pd.Series:
    """Return for each image a text with the targets for which it is positive, by image id.

    A target is one or several findings under one name. The text is "negative" or "unlabelled" for
    an image that is positive for none of them.

    Args:
        dataset: A prepared data set.
    """
    labels = {t.display_name: dataset.labels(t) for t in dataset.targets.values()}
    ids = pd.Index(dataset.images["image_id"])
    texts = pd.Series("", ids)
    for title, label in labels.items():
        texts += np.where(label == 1, f", {title}", "")
    known = pd.DataFrame(labels, index=ids).notna().any(axis=1)
    otherwise = known.map({True: "negative", False: "unlabelled"})
    return texts.str.removeprefix(", ").where(texts != "", otherwise)


def roles_by_image(dataset: DataSet, split: str) -> pd.Series:
    """Return the role (train, val, test or unused) of each image, indexed by image id.

    Args:
        dataset: A prepared data set.
        split: Name of the split, that is, of the assignment of images to these roles; "" takes the
            split ``default``.
    """
    with suppress(InputError):  # a set may have other splits only
        return dataset.split(split or "default").set_index("image_id")["role"]
    return pd.Series(dtype=TEXT)


def excluded_boxes(dataset: DataSet) -> pd.DataFrame:
    """Return, for each excluded image file, the invalid box because of which it was excluded.

    Args:
        dataset: A prepared data set.

    Returns:
        Table indexed by path, with the digest ``file_sha256`` and the edges ``x1, y1, x2, y2`` in
        px; the edges are missing if another reason excluded the file.
    """
    table = dataset.optional_table("excluded").drop_duplicates("path").set_index("path")
    return table.reindex(columns=["file_sha256", *EDGES])


class PageImages:
    """Thumbnails of images with problems, for the HTML page about a data set.

    The page shows at most 60 images, so that it stays small.

    Args:
        dataset: Data set that the page is about.
        pixels: True to read the images and show thumbnails; False to show none.
        problems: Problems of the page. Images in which text was found are shown too small to read.
    """

    def __init__(self, dataset: DataSet, pixels: bool, problems: Sequence[Problem]) -> None:
        self.read: ImageReader | None = open_images(dataset)[0] if pixels else None
        self.n_left = _MAX_IMAGES
        self.dataset = dataset
        if self.read is None:
            return
        texts = [problem.cases for problem in problems if problem.check == TEXT_CHECK]
        columns = pd.DataFrame(columns=["image_id", *EDGES])
        self.texts = pd.concat([columns, *texts]).set_index("image_id")
        self.rows = pd.Index(dataset.images["image_id"])
        self.sizes = dataset.images[["width", "height"]].astype("float64").to_numpy()
        self.boxes = dataset.boxes
        self.paths = dataset.images[["patient_id", "path"]]
        self.labels = label_texts(dataset)
        self.left_out = excluded_boxes(dataset)
        self.roles_of = cache(partial(roles_by_image, dataset))

    def cases(self, problem: Problem) -> list[list[PageImage]]:
        """Return the thumbnails that the page shows for one problem.

        Args:
            problem: Problem that was found in the data set.

        Returns:
            One list of thumbnails for each case (an image, or images that belong together); empty
            if no image can be shown.
        """
        if self.read is None:
            return []
        self.roles = self.roles_of(problem.split)
        of_text = problem.check == TEXT_CHECK
        of_file = problem.unit == "file"
        if of_text:
            self.n_left += 2 * len(problem.images)
        show = self._show_left_out if of_file else self._show
        cases = [
            self._show_text(case[0]) if of_text else [show(name) for name in case]
            for case in problem.images
        ]
        shown = [[image for image in case if image is not None] for case in cases]
        return [case for case in shown if case]

    def _show_left_out(self, path: str) -> PageImage | None:
        """Return an image that was excluded for a wrong box, with that box if it can be drawn."""
        sha256, *edges = self.left_out.loc[[path]].to_numpy()[0].tolist()
        try:
            file = self.dataset.source_root / path
            pixels = ImageFile(file, str(sha256)).read()
        except InputError:
            return None  # moved, or hidden behind a hash
        height, width = pixels.shape
        x1, y1, x2, y2 = edges
        least = max(width, height) / 100  # a box of zero size would not be seen
        box = (x1, y1, max(x2 - x1, least), max(y2 - y1, least))
        numbers = ", ".join(f"{name} {edge:g}" for name, edge in zip(EDGES, edges, strict=True))
        return PageImage(
            path,
            f"Image {path}, left out",
            thumbnail(pixels),
            THUMBNAIL_PX,
            width,
            height,
            [box] if np.isfinite(edges).all() else [],
            [numbers.replace("nan", "missing"), f"of {width} × {height} px"],
        )

    def _show_text(self, image_id: str) -> list[PageImage | None]:
        """Return the image, too small to read, with a frame, and a crop around the text."""
        image = self._show(image_id)
        corners = tuple(self.texts.loc[image_id])
        if image is None or np.isnan(corners).any():  # only the header states that there is text
            return [image]
        try:  # a small store has lost the text
            pixels = self.dataset.read_original(image_id)
        except InputError:
            return [image]  # the audit has said that images are gone
        x1, y1, x2, y2 = corners
        framed = replace(image, boxes=[(x1, y1, x2 - x1, y2 - y1)])
        return [framed, _crop(image_id, pixels, corners)]

    def _show(self, image_id: str) -> PageImage | None:
        if self.read is None or self.n_left <= 0 or image_id not in self.rows:
            return None
        try:
            pixels = self.read(image_id)
        except InputError:
            return None  # the audit has said that images are gone
        self.n_left -= 1
        longest = ILLEGIBLE_PX if image_id in self.texts.index else THUMBNAIL_PX
        width, height = self.sizes[self.rows.get_loc(image_id)].tolist()
        if np.isnan(width) or np.isnan(height):
            height, width = (float(side) for side in pixels.shape)
        return PageImage(
            image_id,
            f"Image {image_id}",
            thumbnail(pixels, longest),
            longest,
            width,
            height,
            self._boxes_of(image_id),
            self._caption_lines(image_id),
        )

    def _boxes_of(self, image_id: str) -> list[tuple[float, float, float, float]]:
        rows = self.boxes[self.boxes["image_id"] == image_id]
        edges = rows[EDGES].to_numpy(dtype="float64")
        edges = edges[np.isfinite(edges).all(axis=1)].round(1)
        return [(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in edges.tolist()]

    def _caption_lines(self, image_id: str) -> list[str]:
        patient, path = self.paths.iloc[self.rows.get_loc(image_id)]
        role = self.roles.get(image_id)
        label = self.labels[image_id]
        return [f"patient {patient}", f"{role}: {label}" if isinstance(role, str) else label, path]


def _crop(image_id: str, pixels: np.ndarray, corners: tuple[float, ...]) -> PageImage:
    """Crop the image around a line of text, and frame the line."""
    x1, y1, x2, y2 = corners
    margin = max(_CROP_HEIGHTS * (y2 - y1), _LEAST_MARGIN)
    left = int(max(x1 - margin, 0))
    top = int(max(y1 - margin, 0))
    crop = pixels[top : int(y2 + margin), left : int(x2 + margin)]
    height, width = crop.shape
    frame = (x1 - left - 2, y1 - top - 2, x2 - x1 + 4, y2 - y1 + 4)
    label = f"Suspected text of image {image_id}"
    source = thumbnail(crop, _CROP_PX)
    return PageImage("", label, source, _CROP_PX, width, height, [frame])
