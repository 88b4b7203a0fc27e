"""Pixels of the evaluated images, on which a report draws, and what single readers drew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.tables import REFERENCE_READER
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.pixels import ImageFile
from cxr_compare.data_prep.sources.image_files import ImageIndex, image_size
from cxr_compare.evaluation.report.cases import Pixels
from cxr_compare.evaluation.truth import Truth


def readings_of(dataset: DataSet, findings: Sequence[str]) -> pd.DataFrame:
    """Return the boxes of the single readers of a data set, for some findings.

    They have ``image_id``, ``reader`` and edges; a reader without a box has a row without edges.
    """
    tables = []
    for name in ("findings", "boxes"):
        table = dataset.table(name)
        is_single = table["reader"] != REFERENCE_READER
        tables.append(table[is_single & table["finding"].isin(findings)])
    read, boxes = tables
    keys = ["image_id", "reader"]
    columns = [*keys, *EDGES]
    return read[keys].drop_duplicates().merge(boxes[columns], on=keys, how="outer")[columns]


def pixels_of_folder(truth: Truth, folder: Path) -> Pixels:
    """Return the pixels of the image files in a folder, for images that have no data set.

    A file belongs to the image whose id is its name, with or without the suffix, in any subfolder.
    InputError if the folder has no file for any image, several files for one image, or a file that
    is smaller than its true boxes.
    """
    if not folder.is_dir():
        raise InputError(f"images: {folder}: is no folder; give the folder of the image files")
    index = ImageIndex(folder)
    files = {image_id: _file_of(image_id, index, folder) for image_id in truth.ids}
    if not any(files.values()):
        there = ", ".join(index.paths[:3]) or "no image file"
        raise InputError(
            f"images: {folder}: no file has the name of an image; the images are "
            f"{', '.join(truth.ids[:3])}, and the folder holds {there}"
        )
    for image_id, edges in truth.boxes.groupby("image_id")[["x2", "y2"]].max().iterrows():
        file = files.get(image_id)
        if file is None:
            continue
        width, height = image_size(folder / file)
        if edges["x2"] > width + 1 or edges["y2"] > height + 1:
            raise InputError(
                f"images: {folder}: a true box of '{image_id}' reaches beyond the {width} x "
                f"{height} px of {file}; give the images that the boxes were drawn on"
            )

    def read(image_id: str) -> npt.NDArray[np.uint8]:
        file = files.get(image_id)
        if file is None:
            raise InputError(f"{folder}: has no file of image '{image_id}'")
        return ImageFile(folder / file, None).read()

    return read


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
            f"images: {folder}: image '{image_id}' has the files {matches[0]} and {matches[1]}"
        )
    return matches[0] if matches else None
