"""Search for the near duplicates of a data set, whose result is stored in its folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.records import Items, Record, Whole
from cxr_compare.data_prep.contracts.tables import frame_digest
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.dataset import DataSet, ImageFile
from cxr_compare.data_prep.duplicates.image_reader import ImageReader, open_reader
from cxr_compare.data_prep.duplicates.near_duplicates import (
    PAIR_COLUMNS,
    SEARCH,
    NearDuplicates,
    find_near_duplicates,
    near_duplicates_from_pairs,
    small_image,
)
from cxr_compare.data_prep.work.map_images import Workers, map_images

_COPIES = "near_duplicates.json"
"""File in the folder of a data set that stores the near duplicates."""
_WORTH_PROCESSES = 100  # files: starting a process costs as much as decoding these


def find_dataset_copies(
    dataset: DataSet,
    decode: pd.DataFrame | None = None,
    *,
    pixels: bool = True,
    workers: Workers = 1,
) -> NearDuplicates:
    """Find images of a data set that are nearly equal copies of each other.

    The result is stored in the data set folder, and used again as long as the images stay the same.
    Without `decode`, the decode table of the folder is read. With `pixels`, the pixels of two
    images are compared, too, if their fingerprints are too different to be sure that they are
    copies.
    """
    if decode is None:
        decode = dataset.optional_table("decode")
    with_images = pixels and dataset.images["path"].notna().any()
    read = open_reader(dataset)[0] if with_images else None
    key = _key(decode)
    stored = _read_stored(dataset.folder / _COPIES, key)
    if stored is not None and (read is None or _images_add_nothing(stored, read.source)):
        rows = pd.DataFrame(stored.pairs, columns=list(PAIR_COLUMNS))
        return near_duplicates_from_pairs(
            decode, rows, stored.candidates, stored.undecided, stored.complete
        )
    read_many = None
    if read is not None and read.store is None:
        read_many = partial(_read_files, read, workers)
    near = find_near_duplicates(decode, read, read_many=read_many)
    if os.access(dataset.folder, os.W_OK):
        _store(dataset.folder / _COPIES, key, read.source if read else None, near)
    return near


def _read_files(
    reader: ImageReader, workers: Workers, image_ids: Sequence[str]
) -> Iterator[np.ndarray | None]:
    dataset = reader.dataset
    files = [dataset.image_file(image_id) for image_id in image_ids]
    if len(files) < _WORTH_PROCESSES:
        return map(_read_small_file, files)
    reads = [dataset.source_root]
    return map_images(_read_small_file, files, workers, on_crash=lambda file: None, reads=reads)


def _read_small_file(file: ImageFile) -> np.ndarray | None:
    try:
        return small_image(file.read())
    except InputError:
        return None


def _key(decode: pd.DataFrame) -> str:
    """Return a text that changes with the images or the limits of the search."""
    columns = ["image_id", "pixel_sha256", "perceptual_hash"]
    images = frame_digest(decode.reindex(columns=columns).astype(TEXT), columns)
    return f"{images} {SEARCH}"


class _StoredCopies(Record, kind="near_duplicates"):
    """Content of ``near_duplicates.json``: pairs of images of a data set that look alike.

    Attributes:
        key: Digest of the images and settings of the search; another key makes the stored pairs
            invalid.
        pixels: Name of the folder with resized images whose pixels were compared, such as
            ``letterbox-160``; None if only fingerprints were compared.
        candidates: As in `NearDuplicates`; so are `undecided` and `complete`.
        pairs: For each pair: both image ids, number of differing bits of the fingerprints, how the
            second image is turned, and correlation of the pixels (None if they were not compared).
    """

    key: str
    pixels: str | None
    candidates: Whole
    undecided: Whole
    complete: bool
    pairs: Items[tuple[str, str, float, str, float | None]]


def _read_stored(path: Path, key: str) -> _StoredCopies | None:
    if not path.is_file():
        return None
    try:
        stored = _StoredCopies.read(path)
    except InputError:
        return None  # written by another version; the search is done again
    return stored if stored.key == key else None


def _images_add_nothing(stored: _StoredCopies, source: str) -> bool:
    """Return True if reading the images now would not change the stored result."""
    is_decided = all(row[-1] is not None for row in stored.pairs) and not stored.undecided
    return is_decided or stored.pixels == source


def _store(path: Path, key: str, pixels: str | None, near: NearDuplicates) -> None:
    rows = [
        (one, other, distance, turn, None if np.isnan(correlation) else correlation)
        for one, other, distance, turn, correlation in near.pairs.itertuples(index=False)
    ]
    record = _StoredCopies(
        key=key,
        pixels=pixels,
        candidates=near.candidates,
        undecided=near.undecided,
        complete=near.complete,
        pairs=tuple(rows),
    )
    record.write(path)
