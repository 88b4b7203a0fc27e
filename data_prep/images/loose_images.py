"""Image files that belong to no data set.

This module imports no pandas, so that worker processes start fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.images.image import DecodedImage, read_image
from cxr_compare.data_prep.images.refused_files import DECODER_CRASHED
from cxr_compare.data_prep.parallel import map_images


@dataclass(frozen=True)
class LooseImage:
    """An image file: its decoded image, or the reason in one line why it cannot be read."""

    path: Path
    image: DecodedImage | None = None
    problem: str | None = None


def find_image_files(sources: Sequence[Path]) -> list[Path]:
    """List the files that a user named, and all files below the folders that the user named.

    Each file stands once; hidden files are left out. A source that does not exist, or contains no
    file, is refused.
    """
    files: dict[Path, None] = {}
    for source in sources:
        if not source.exists():
            raise InputError(f"{source}: no such file or folder")
        below = sorted(source.rglob("*")) if source.is_dir() else [source]
        visible = [path for path in below if path.is_file() and not path.name.startswith(".")]
        if not visible:
            raise InputError(f"{source}: holds no files; give a folder with images")
        files.update(dict.fromkeys(visible))
    return list(files)


def read_loose_images(paths: Iterable[Path], *, workers: int = 0) -> Iterator[LooseImage]:
    """Decode image files that belong to no data set, and yield one result for each, in order.

    With 0 or 1 `workers` the files are read in this process.
    """
    return map_images(_read_one, paths, workers, on_crash=_crashed)


def _read_one(path: Path) -> LooseImage:
    try:
        return LooseImage(path, read_image(path))
    except InputError as error:
        return LooseImage(path, problem=str(error))


def _crashed(path: Path) -> LooseImage:
    return LooseImage(path, problem=f"{path}: {DECODER_CRASHED}")
