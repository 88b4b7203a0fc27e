"""Image files of a folder, for labels in memory: the pixels that a report of them draws on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.tables import typed_table
from cxr_compare.data_prep.formats.image_index import ImageIndex
from cxr_compare.data_prep.formats.image_size import image_size
from cxr_compare.data_prep.store.dataset import DataSet


def with_image_files(dataset: DataSet, folder: Path, say: Callable[[str], None]) -> DataSet:
    """Return a copy of a data set whose images have the image files of a folder.

    A file belongs to the image whose id is its name, with or without the suffix, in any subfolder.
    An image without a file is evaluated but not drawn.

    Args:
        dataset: Data set that was made from labels alone, without image files.
        folder: Folder of PNG, JPEG, DICOM or other image files.
        say: Function that shows the user a sentence, such as how many images have no file.

    Returns:
        A copy of the data set, with the path of each file.

    Raises:
        InputError: The folder is missing, it has no file for any image, or several files for one
            image; or a file has another size than the labels state, or a true box reaches beyond
            it.
    """
    if not folder.is_dir():
        raise InputError(f"--images {folder}: is no folder; give the folder of the image files")
    index = ImageIndex(folder)
    images = dataset.images
    paths = [_file_of(str(image_id), index, folder) for image_id in images["image_id"]]
    absent = [str(i) for i, path in zip(images["image_id"], paths, strict=True) if path is None]
    if len(absent) == len(paths):
        there = ", ".join(index.paths[:3]) or "no image file"
        raise InputError(
            f"--images {folder}: no file has the name of an image; the images are "
            f"{', '.join(absent[:3])}, and the folder holds {there}"
        )
    if absent:
        say(
            f"{counted(len(absent), 'image')} of {len(paths):,} without a file in {folder}, "
            f"evaluated but not drawn: {', '.join(absent[:3])}{', ...' if len(absent) > 3 else ''}"
        )
    with_files = images.assign(path=pd.Series(paths, index=images.index, dtype=object))
    with_files = typed_table(with_files, "images")
    _check_sizes(dataset, with_files, folder)
    return DataSet(
        dataset.folder,
        dataset.info | {"source_root": str(folder.absolute())},
        dataset.targets,
        tables={**dataset.tables, "images": with_files},
        splits=dataset.splits,
    )


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


def _check_sizes(dataset: DataSet, images: pd.DataFrame, folder: Path) -> None:
    """Refuse files whose pixels are not those that the true boxes were drawn on."""
    boxes = dataset.boxes
    far_edges = boxes.groupby("image_id", as_index=False)[["x2", "y2"]].max()
    boxed = images[images["path"].notna()].merge(far_edges, on="image_id")
    for row in boxed.to_dict("records"):
        path = str(row["path"])
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
