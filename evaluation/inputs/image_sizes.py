"""Sizes of the images of a truth, of the headers of their files, and boxes in px of these."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.box_check import (
    BoxReading,
    BoxRules,
    fit,
    numbers_in_form,
    size_text,
)
from cxr_compare.data_prep.base.boxes import EDGES, are_scaled
from cxr_compare.data_prep.base.errors import InputError, Remedy, require_extra
from cxr_compare.data_prep.base.ids import IMAGE_SUFFIXES
from cxr_compare.data_prep.base.image_names import Names
from cxr_compare.data_prep.images.stored_size import image_size
from cxr_compare.data_prep.sources.image_files import image_names
from cxr_compare.evaluation.notes import reading_notes
from cxr_compare.evaluation.truth import Size, Truth, numbers_of

_SIDES = ["width", "height"]


@dataclass(eq=False)
class ImageFiles:
    """Image files by the ids of their images. A size is read once, and no pixel is decoded.

    Attributes:
        find: Function from an image id to the file of the image; None without one.
        where: Folder of the files, for messages.
        named: True if the user says that these are the images, False if they lie beside the truth.
    """

    find: Callable[[str], Path | None]
    where: str
    named: bool = True
    _sizes: dict[str, Size | None] = field(default_factory=dict)

    def size(self, image_id: str) -> Size | None:
        """Return width and height of an image in px; None without a file that states them."""
        if image_id not in self._sizes:
            path = self.find(image_id)
            if path is not None and not self._sizes:
                require_extra(f"{path}: its size", "images")
            try:
                self._sizes[image_id] = None if path is None else image_size(path)
            except InputError:  # said where the pixels are read
                self._sizes[image_id] = None
        return self._sizes[image_id]


def files_of_folder(folder: Path) -> ImageFiles:
    """Return the image files in a folder, in any subfolder.

    A file belongs to the image whose id is its name, with or without the suffix. `find` refuses an
    image of several files.
    """
    if not folder.is_dir():
        raise InputError(f"images: {folder} is neither all nor common, nor a folder of images")
    names = image_names(folder)

    def find(image_id: str) -> Path | None:
        matches = names.find(image_id)
        if len(matches) > 1:
            raise InputError(
                f"images: {folder}: image '{image_id}' has the files {matches[0]} and {matches[1]}"
            )
        return folder / matches[0] if matches else None

    return ImageFiles(find, str(folder))


def files_beside(truth: Path) -> ImageFiles:
    """Return the image files in the folder of a file of labels, or in its folder ``images``."""

    @cache
    def names_below(subfolder: str) -> list[tuple[Path, Names]]:
        """Return the names of the image files in a subfolder of each, if it has some."""
        folders = [truth.parent / "images" / subfolder, truth.parent / subfolder]
        names_of = {folder: _names_in(folder) for folder in folders}
        return [(folder, names) for folder, names in names_of.items() if names.images]

    def find(image_id: str) -> Path | None:
        subfolder, name = os.path.split(image_id)
        for folder, names in names_below(subfolder):
            matches = names.find(name)
            if len(matches) == 1:
                return folder / matches[0]
        return None

    return ImageFiles(find, str(truth.parent), named=False)


def _names_in(folder: Path) -> Names:
    """Return the names of the image files in a folder, which may not exist."""
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        names = []
    return Names(name for name in names if name.lower().endswith(IMAGE_SUFFIXES))


def with_measured_sizes(truth: Truth, files: ImageFiles | None) -> Truth:
    """Return a truth that knows the sizes in the headers of image files, where none is stated.

    InputError for files that the user named and of which none has the name of an image.
    """
    if files is None:
        return truth
    if files.named and not any(map(files.find, truth.ids)):
        raise InputError(
            f"images: {files.where}: no file has the name of an image; the images are "
            f"{', '.join(truth.ids[:3])}"
        )
    return replace(truth, measure=files.size, presumed=not files.named and truth.boxes.empty)


def with_files(truth: Truth, files: ImageFiles | None, reading: BoxReading | None = None) -> Truth:
    """Return a truth of image files: with their sizes, and with boxes in px of the files.

    Boxes are scaled to a file of the shape that the truth states, as `cxr prepare` does; `reading`
    is how they were written. A true box that does not fit its file shows that the boxes are of
    other images: InputError for files that the user named; those beside the truth then state no
    size.
    """
    with_sizes = with_measured_sizes(truth, files)
    if files is None or with_sizes.presumed:
        return with_sizes
    stated = numbers_of(truth.images, _SIDES)
    owners = truth.boxes["image_id"]
    needed = stated.index[stated.notna().all(axis=1)].union(pd.Index(owners.unique()))
    own_sizes = [files.size(image_id) or (np.nan, np.nan) for image_id in map(str, needed)]
    file_sizes = pd.DataFrame(np.reshape(own_sizes, (-1, 2)), needed, _SIDES).reindex(stated.index)
    is_copy = are_scaled(stated.to_numpy(), file_sizes.to_numpy())
    corners = truth.boxes[EDGES].to_numpy(np.float64)
    if not files.named:
        leaves = np.any(corners[:, 2:] > file_sizes.reindex(owners).to_numpy() + 1, axis=1)
        if owners[leaves].isin(stated.index[~is_copy]).any():
            return truth
        file_sizes = file_sizes.where(is_copy[:, None] | stated.isna())
    reading = reading or BoxReading()
    file_reading = replace(
        reading,
        unit="px",
        where=f"images: {files.where}",
        answered=reading.answered or reading.unit != "px",
    )
    numbers = numbers_in_form(corners, reading.form)
    stated_of_box, file_of_box = (
        sizes.reindex(owners).to_numpy() for sizes in (stated, file_sizes)
    )
    advice = "give the images that the boxes were drawn on"
    try:
        fitted = fit(numbers, file_reading, truth.boxes, stated_of_box, file_of_box, BoxRules())
    except InputError as error:
        raise InputError(error.problem, [*error.remedies, Remedy(words=advice)]) from None
    wrong = fitted.faults != ""
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"{file_reading.where}: image '{owners[row]}', of {size_text(file_of_box[row])}: "
            f"{fitted.faults[row]}; {advice}"
        )
    images = truth.images.copy()
    for side in _SIDES if is_copy.any() else ():
        images[side] = file_sizes[side].where(is_copy, images[side])
    return replace(
        with_sizes,
        images=images,
        boxes=truth.boxes.assign(**dict(zip(EDGES, fitted.corners.T, strict=True))),
        labelled=stated[is_copy],
        notes=(*truth.notes, *reading_notes([f"{note}." for note in fitted.notes], "True boxes")),
    )
