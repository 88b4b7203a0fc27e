"""Pixels of the evaluated images, on which a report draws: of a data set, or files of a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.dataset import DataSet, ImageFile
from cxr_compare.data_prep.sources.image_files import ImageIndex, image_size
from cxr_compare.evaluation.labelled_images import LabelledImages

_READING = ["image_id", "reader", *EDGES]


def _no_readings() -> pd.DataFrame:
    return pd.DataFrame({name: [] for name in _READING})


@dataclass(frozen=True)
class Pixels:
    """Pixels of the evaluated images, and what is known of their files and their single readers.

    `read` returns the grey values of an image at its original size, by image id: uint8, shape
    ``(height, width)``. It raises InputError where a file cannot be read. `read_decoded` and
    `read_readings` return the tables `decoded` and `readings`.
    """

    read: Callable[[str], npt.NDArray[np.uint8]]
    read_decoded: Callable[[], pd.DataFrame] = pd.DataFrame
    read_readings: Callable[[], pd.DataFrame] = _no_readings

    @cached_property
    def decoded(self) -> pd.DataFrame:
        """Facts about the decoding of each file, such as its display window, by image id."""
        return self.read_decoded()

    @cached_property
    def readings(self) -> pd.DataFrame:
        """Boxes of single readers: ``image_id``, ``reader`` and edges in px of the original image.

        A reading without a box has one row without edges.
        """
        return self.read_readings()


def pixels_of_data_set(dataset: DataSet, findings: Sequence[str]) -> Pixels:
    """Return the pixels of a data set, and what its single readers drew of some findings.

    Tables are read when the first image is drawn.
    """

    def readings() -> pd.DataFrame:
        tables = []
        for name in ("findings", "boxes"):
            table = dataset.optional_table(name)
            single = table["reader"] != REFERENCE_READER
            tables.append(table[single & table["finding"].isin(findings)])
        read, boxes = tables
        keys = ["image_id", "reader"]
        return read[keys].drop_duplicates().merge(boxes[_READING], on=keys, how="outer")[_READING]

    def decoded() -> pd.DataFrame:
        return dataset.decode.set_index("image_id")

    return Pixels(dataset.read_original, decoded, readings)


def pixels_of_folder(truth: LabelledImages, folder: Path, say: Callable[[str], None]) -> Pixels:
    """Return the pixels of the image files in a folder, for images that have no data set.

    A file belongs to the image whose id is its name, with or without the suffix, in any subfolder.
    An image without a file is evaluated but not drawn; `say` shows the user how many there are. An
    InputError is raised if the folder is missing, it has no file for any image, or several files
    for one image; or if a file has another size than the labels state, or a true box reaches beyond
    it.
    """
    if not folder.is_dir():
        raise InputError(f"--images {folder}: is no folder; give the folder of the image files")
    index = ImageIndex(folder)
    ids = truth.images["image_id"].astype(str)
    files = {image_id: _file_of(image_id, index, folder) for image_id in ids}
    absent = [image_id for image_id, file in files.items() if file is None]
    if len(absent) == len(files):
        there = ", ".join(index.paths[:3]) or "no image file"
        raise InputError(
            f"--images {folder}: no file has the name of an image; the images are "
            f"{', '.join(absent[:3])}, and the folder holds {there}"
        )
    if absent:
        say(
            f"{counted(len(absent), 'image')} of {len(files):,} without a file in {folder}, "
            f"evaluated but not drawn: {', '.join(absent[:3])}{', ...' if len(absent) > 3 else ''}"
        )
    _check_sizes(truth, ids.map(files), folder)

    def read(image_id: str) -> npt.NDArray[np.uint8]:
        file = files.get(image_id)
        if file is None:
            raise InputError(f"{folder}: has no file of image '{image_id}'")
        return ImageFile(folder / file, None).read()

    return Pixels(read)


def _file_of(image_id: str, index: ImageIndex, folder: Path) -> str | None:
    """Return the path of an image's file relative to the folder; None without one."""
    matches = index.by_name(image_id, [""])
    if len(matches) > 1:  # an id may be a path without its suffix
        wanted = PurePosixPath(image_id).parts
        matches = [
            path
            for path in matches
            if PurePosixPath(path).with_suffix("").parts[-len(wanted) :] == wanted
        ]
    if len(matches) > 1:
        raise InputError(
            f"--images {folder}: image '{image_id}' has the files {matches[0]} and {matches[1]}; "
            "keep one of them"
        )
    return matches[0] if matches else None


def _check_sizes(truth: LabelledImages, files: pd.Series, folder: Path) -> None:
    """Refuse files whose pixels are not those that the true boxes were drawn on."""
    far_edges = truth.true_boxes.groupby("image_id", as_index=False)[["x2", "y2"]].max()
    sizes = truth.images.reindex(columns=["image_id", "width", "height"]).assign(file=files)
    boxed = sizes[sizes["file"].notna()].merge(far_edges, on="image_id")
    for row in boxed.to_dict("records"):
        path = str(row["file"])
        width, height = image_size(folder / path)
        is_stated = pd.notna(row["width"]) and pd.notna(row["height"])
        if is_stated and (row["width"], row["height"]) != (width, height):
            raise InputError(
                f"--images {folder}: {path} has {width} x {height} px, but the labels say "
                f"{row['width']} x {row['height']} px; give the images that the boxes were drawn on"
            )
        if row["x2"] > width + 1 or row["y2"] > height + 1:
            raise InputError(
                f"--images {folder}: a true box of '{row['image_id']}' ends at x={row['x2']:g}, "
                f"y={row['y2']:g}, beyond the {width} x {height} px of {path}; give the images "
                "that the boxes were drawn on"
            )
