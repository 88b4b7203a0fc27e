"""One source file into everything that a data set keeps of it: a pure function of one row.

Imports no pandas: worker processes start with this module, and start fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_compare.data_prep.contracts.checksums import file_digest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.image import DecodedImage, read_image
from cxr_compare.data_prep.images.image_facts import image_facts
from cxr_compare.data_prep.store.preprocess import Placement, letterbox
from cxr_compare.data_prep.work.image_files import open_image
from cxr_compare.data_prep.work.local_engine import LocalEngine
from cxr_compare.data_prep.work.object_store import StoreError

if TYPE_CHECKING:
    import pandas as pd

    from cxr_compare.data_prep.work.engine import Engine


@dataclass(frozen=True)
class DecodeTask:
    """A file to decode."""

    image_id: str  # name of the image
    path: Path  # its file
    sizes: tuple[int, ...] = ()  # sides of the squares wanted, in px; may be empty
    window: str | None = None  # name of the DICOM window wanted; None for the first
    # whether to hash the file and to measure the image; pixels alone need neither
    measure: bool = True
    sha256: str | None = None  # the one that the file must have; None for any


@dataclass(frozen=True)
class DecodedRow:
    """What came of a `DecodeTask`: an image's facts and squares, or the reason for none."""

    image_id: str  # name of the image
    error: str | None = None  # none, or one line that says why there is nothing else
    # columns of the decode table except `image_id`, and of the images table: `height` and `width`
    # of the original in px, `spacing_row_mm`, `spacing_col_mm`, `view`, `sex` and `age_years` as
    # the header states them, and where measured `file_sha256`
    facts: dict[str, Any] = field(default_factory=dict)
    # per size, uint8 `(size, size)` and the image's place in it
    squares: dict[int, tuple[np.ndarray, Placement]] = field(default_factory=dict)


def _decode_and_letterbox(task: DecodeTask) -> DecodedRow:
    """Decode one file and bring it to the wanted sizes."""
    try:
        with open_image(task.path, task.sha256) as path:
            return _decode(task, path)
    except StoreError:
        raise
    except InputError as error:
        return DecodedRow(task.image_id, error=str(error))


def _decode(task: DecodeTask, path: Path) -> DecodedRow:
    image = read_image(path, window=task.window)
    height, width = image.pixels.shape
    facts = {
        "height": height,
        "width": width,
        "spacing_row_mm": image.spacing_row_mm,
        "spacing_col_mm": image.spacing_col_mm,
        **{key: image.header.get(key) for key in ("view", "sex", "age_years")},
        **image.record,
    }
    if task.measure:
        state = path.stat()
        facts |= {"file_bytes": state.st_size, "file_mtime_ns": state.st_mtime_ns}
        facts |= {"file_sha256": file_digest(path, "sha256"), **image_facts(image.pixels)}
    squares = {size: letterbox(image.pixels, size) for size in task.sizes}
    return DecodedRow(task.image_id, facts=facts, squares=squares)


def decode_all(
    tasks: Iterable[DecodeTask], *, engine: Engine, reads: Sequence[Path] = ()
) -> Iterator[DecodedRow]:
    """Decode files in worker processes; one that ends its process gives a row with an error."""
    return engine.map_rows(
        _decode_and_letterbox,
        tasks,
        on_crash=lambda task: DecodedRow(task.image_id, error=f"{task.path}: {_CRASHED}"),
        reads=reads,
    )


_CRASHED = "the decoder crashed or ran out of memory on this file"


@dataclass
class LoosePixels:
    """Images that no pixel store holds, as a model reads them; reads like a pixel store."""

    size: int  # side S of the squares, px
    ids: pd.Index  # the images
    images: dict[str, np.ndarray]  # uint8 (S, S) by image id
    placements: dict[str, Placement]  # where each original lies in its square
    sizes: pd.DataFrame  # `image_id, width, height` of the originals, px

    @classmethod
    def of(cls, originals: Mapping[str, np.ndarray], size: int) -> LoosePixels:
        """Bring displayed 8-bit images to a size."""
        import pandas as pd  # the decoding workers start without it

        from cxr_compare.data_prep.contracts.text import TEXT

        squares = {image_id: letterbox(pixels, size) for image_id, pixels in originals.items()}
        sizes = [(image_id, *pixels.shape[::-1]) for image_id, pixels in originals.items()]
        return cls(
            size,
            pd.Index(list(squares), name="image_id", dtype=TEXT),
            {image_id: square for image_id, (square, _) in squares.items()},
            {image_id: placement for image_id, (_, placement) in squares.items()},
            pd.DataFrame(sizes, columns=["image_id", "width", "height"]),
        )

    def image(self, image_id: str) -> np.ndarray:
        """The letterboxed image, uint8 (S, S)."""
        return self.images[image_id]

    def placement(self, image_id: str) -> Placement:
        """Where the original lies in the square."""
        return self.placements[image_id]


@dataclass(frozen=True)
class LooseImage:
    """A file that is no part of a data set."""

    path: Path  # as it was given, or below the folder that was given
    image: DecodedImage | None = None  # what it shows; None where it cannot be read
    problem: str | None = None  # why not, in one line that names it; None where it can


def find_files(sources: Sequence[Path]) -> list[Path]:
    """The files to read: files as given, folders with all that lies in them, each once.

    Hidden files are skipped.
    """
    found: dict[Path, None] = {}
    for source in sources:
        if not source.exists():
            raise InputError(f"{source}: no such file or folder")
        paths = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
        paths = [p for p in paths if not p.name.startswith(".")]
        if not paths:
            raise InputError(f"{source}: holds no files; give a folder with images")
        found |= dict.fromkeys(paths)
    return list(found)


def read_loose(paths: Iterable[Path], *, workers: int = 0) -> Iterator[LooseImage]:
    """Read files, in their order; one that cannot be read says why."""
    return LocalEngine(workers).map_rows(
        _read_one, paths, on_crash=lambda path: LooseImage(path, problem=f"{path}: {_CRASHED}")
    )


def _read_one(path: Path) -> LooseImage:
    try:
        with open_image(path) as file:
            return LooseImage(path, read_image(file))
    except StoreError:
        raise
    except InputError as error:
        return LooseImage(path, problem=str(error))
