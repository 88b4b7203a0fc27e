"""Files and folders of images that belong to no data set, brought to a model's size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.images.image import read_image
from data_prep.store.placement import Placement
from data_prep.store.preprocess import PLAIN, Treatment


@dataclass
class LoosePixels:
    """A stretch of decoded files; reads like a pixel store.

    Attributes:
        size: Side S of the squares, px.
        ids: The images that were decoded.
        pictures: uint8 (S, S) by image id.
        placements: Where each original lies in its square.
        sizes: ``image_id, width, height`` of the originals, px.
        failed: ``image_id, status, reason`` of the files that could not be decoded.
    """

    size: int
    ids: pd.Index
    pictures: dict[str, np.ndarray]
    placements: dict[str, Placement]
    sizes: pd.DataFrame
    failed: pd.DataFrame

    def image(self, image_id: str) -> np.ndarray:
        """The letterboxed picture, uint8 (S, S)."""
        return self.pictures[image_id]

    def placement(self, image_id: str) -> Placement:
        """Where the original lies in the square."""
        return self.placements[image_id]


def list_images(sources: Sequence[Path]) -> dict[str, Path]:
    """Name the files to predict: files as given, folders with all that lies in them.

    Args:
        sources: Files and folders.

    Returns:
        Path by image id: the file's name, or its path below the folder. Hidden files are skipped.

    Raises:
        InputError: A source does not exist, a folder is empty, or two files get one id.
    """
    found: dict[str, Path] = {}
    for source in sources:
        if not source.exists():
            raise InputError(f"{source}: no such file or folder")
        paths = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
        root = source if source.is_dir() else source.parent
        paths = [p for p in paths if not p.name.startswith(".")]
        if not paths:
            raise InputError(f"{source}: holds no files; give a folder with images")
        for path in paths:
            image_id = path.relative_to(root).as_posix()
            if image_id in found:
                raise InputError(
                    f"{path}: has the same name as {found[image_id]}; predict the folders apart"
                )
            found[image_id] = path
    return found


def decode_loose(
    files: dict[str, Path], size: int, treatment: Treatment = PLAIN, *, chunk: int = 256
) -> Iterator[LoosePixels]:
    """Decode files and bring them to a size, a stretch at a time, so that memory stays bounded.

    Args:
        files: Path by image id.
        size: Side of the model's square, px.
        treatment: Crop and enhancement that the model was trained with.
        chunk: Files in one stretch.

    Yields:
        One stretch of files; those that cannot be decoded are in ``failed`` with the reason.
    """
    ids = list(files)
    for start in range(0, len(ids), chunk):
        pictures, placements, sizes, failed = {}, {}, [], []
        for image_id in ids[start : start + chunk]:
            try:
                pixels = read_image(files[image_id]).pixels
            except InputError as error:
                failed.append((image_id, "failed", str(error)))
                continue
            sizes.append((image_id, pixels.shape[1], pixels.shape[0]))
            pictures[image_id], placements[image_id] = treatment.apply(pixels, size)
        yield LoosePixels(
            size,
            pd.Index(list(pictures), name="image_id", dtype="str"),
            pictures,
            placements,
            pd.DataFrame(sizes, columns=["image_id", "width", "height"]),
            pd.DataFrame(failed, columns=["image_id", "status", "reason"]),
        )
