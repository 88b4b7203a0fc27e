"""Benchmark of pictures: an epoch from the pixel store, preparing, and what hashing costs."""

from __future__ import annotations

import hashlib
import itertools
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
from pydicom.uid import JPEGBaseline8Bit

from benchmarks.bench_rows import Row, milliseconds, paired_row, rate
from benchmarks.bench_setting import Setting, is_dicom
from data_prep.contracts.workers import cpu_count
from data_prep.images.decoded_image import pixel_digest
from data_prep.images.image import read_image
from data_prep.images.image_facts import picture_facts
from data_prep.store.decode import DecodeTask, decode_and_letterbox
from data_prep.store.pixel_store import PixelStore, build_pixel_store
from data_prep.store.preprocess import letterbox

_SIZES, _QUICK_SIZES = (256, 512), (32,)
_PREPARED, _PREPARE_ROUNDS = 1000, 3  # with fewer images one would time the start of processes
_BATCH = 8
_JPEG_QUALITY = 95


def rows(setting: Setting) -> Iterator[Row]:
    """Measure the rows of this module, one after the other."""
    for size in _QUICK_SIZES if setting.quick else _SIZES:
        yield from _epoch_rows(setting, size)
    yield from _prepare_rows(setting, _QUICK_SIZES[0] if setting.quick else _SIZES[-1])
    yield from _hashing_rows(setting)


@dataclass(frozen=True)
class _Copies:
    """Files of one kind that an epoch reads."""

    paths: list[Path]
    read: Callable[[Path], np.ndarray]

    @property
    def kib_each(self) -> float:
        """Bytes on the disk, KiB an image."""
        return sum(path.stat().st_size for path in self.paths) / len(self.paths) / 1024


def _epoch_rows(setting: Setting, size: int) -> Iterator[Row]:
    """An epoch in random order: our store against files that are decoded each time."""
    images = _as_table(setting.pictures)
    store = build_pixel_store(setting.scratch / "set", images, Path("/"), size, workers=1)
    store_kib = sum(path.stat().st_size for path in store.folder.iterdir()) / len(images) / 1024
    peers = {**_originals(setting, size), **_copies(setting, store)}
    order = np.random.default_rng(setting.seed).permutation(len(images))
    candidates: dict[str, Callable[[], float]] = {
        "store": partial(_epoch_from_store, store, images["image_id"].to_numpy()[order])
    }
    for peer, copies in peers.items():
        candidates[peer] = partial(_epoch_from_files, copies, order)
    timings = setting.meter.compare(candidates)
    for peer, copies in peers.items():
        note = (
            f"bytes on the disk at {size} px: store {store_kib:,.0f} KiB an image, "
            f"{peer} {copies.kib_each:,.0f} KiB"
        )
        title = f"read an epoch at {size} px: store against decoding {peer}"
        yield paired_row(title, timings, "store", peer, "images/s", rate, note)


def _originals(setting: Setting, size: int) -> dict[str, _Copies]:
    """The files as they came, resized on the way; DICOM in two ways, since decoders differ."""
    if not is_dicom(setting.pictures[0]):
        return {"the files (cv2)": _Copies(setting.pictures, partial(_plain_square, size=size))}
    return {
        f"DICOM ({name}, cv2)": _Copies(
            setting.pictures, partial(_plain_square, size=size, pillow=pillow)
        )
        for name, pillow in (("pydicom", False), ("pydicom with Pillow", True))
    }


def _as_table(paths: list[Path], n_images: int | None = None) -> pd.DataFrame:
    """An images table of files; they come again under other names if more are wanted."""
    chosen = itertools.islice(itertools.cycle(paths), n_images or len(paths))
    names = [str(path.resolve()) for path in chosen]
    return pd.DataFrame({"image_id": [f"i{n:05d}" for n in range(len(names))], "path": names})


def _copies(setting: Setting, store: PixelStore) -> dict[str, _Copies]:
    """Write the store's pictures as PNG and JPEG, as data loaders often have them."""
    read = partial(_read_grey, flags=cv2.IMREAD_GRAYSCALE)
    copies = {}
    for kind, options in (("PNG", []), ("JPEG", [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])):
        folder = setting.scratch / f"{kind}-{store.size}"
        folder.mkdir()
        paths = []
        for image_id in store.ids.sort_values():
            paths.append(folder / f"{image_id}.{kind.lower()}")
            cv2.imwrite(str(paths[-1]), store.image(image_id), options)
        copies[f"{kind} copies (cv2)"] = _Copies(paths, read)
    return copies


def _read_grey(path: Path, flags: int) -> np.ndarray:
    pixels = cv2.imread(str(path), flags)
    if pixels is None:
        raise ValueError(f"{path}: not readable by OpenCV")
    return pixels


def _plain_pixels(path: Path, *, pillow: bool) -> np.ndarray:
    """What a plain loop would read: no LUT, no window, no check.

    Left alone, pydicom takes another decoder for JPEG than Pillow, which is the fastest.
    """
    if not is_dicom(path):
        return _read_grey(path, cv2.IMREAD_GRAYSCALE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(path)
        if pillow and header.file_meta.TransferSyntaxUID == JPEGBaseline8Bit:
            header.pixel_array_options(decoding_plugin="pillow")
        return header.pixel_array


def _plain_square(path: Path, size: int, *, pillow: bool = False) -> np.ndarray:
    pixels = _plain_pixels(path, pillow=pillow)
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)


def _epoch_from_store(store: PixelStore, ids: np.ndarray) -> float:
    for start in range(0, len(ids), _BATCH):
        np.stack([store.image(image_id) for image_id in ids[start : start + _BATCH]])
    return float(len(ids))


def _epoch_from_files(copies: _Copies, order: np.ndarray) -> float:
    for start in range(0, len(order), _BATCH):
        np.stack([copies.read(copies.paths[row]) for row in order[start : start + _BATCH]])
    return float(len(order))


def _prepare_rows(setting: Setting, size: int) -> Iterator[Row]:
    """Decode, hash, measure, letterbox, store: as `cxr prepare` does with every picture."""
    n_images = len(setting.pictures) if setting.quick else max(_PREPARED, len(setting.pictures))
    images = _as_table(setting.pictures, n_images)
    paths, cores = images["path"].tolist(), cpu_count()
    every, single = f"{cores} processors", "1 processor"
    plain, pillow = "a plain loop", "a plain loop with Pillow"
    timings = setting.meter.compare(
        {
            every: partial(_build, setting.scratch / "built", images, size, cores),
            single: partial(_build, setting.scratch / "built", images, size, 1),
            plain: partial(_plain_loop, setting.scratch / "plain", paths, size, pillow=False),
            pillow: partial(_plain_loop, setting.scratch / "plain", paths, size, pillow=True),
        },
        warm=False,
        most_rounds=_PREPARE_ROUNDS,
    )
    note = (
        "a plain loop decodes with pydicom, resizes with cv2 and saves with np.save on 1 "
        "processor: no LUT or window, no hash, no record, nothing to go on with after a kill"
    )
    for ours, peer in ((every, single), (single, plain), (single, pillow), (every, plain)):
        title = f"prepare at {size} px: {ours} against {peer}"
        yield paired_row(title, timings, ours, peer, "images/s", rate, note)


def _build(folder: Path, images: pd.DataFrame, size: int, workers: int) -> float:
    shutil.rmtree(folder, ignore_errors=True)
    build_pixel_store(folder, images, Path("/"), size, workers=workers)
    return float(len(images))


def _plain_loop(folder: Path, paths: list[str], size: int, *, pillow: bool) -> float:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for number, path in enumerate(paths):
        np.save(folder / f"{number}.npy", _plain_square(Path(path), size, pillow=pillow))
    return float(len(paths))


def _hashing_rows(setting: Setting) -> Iterator[Row]:
    """What of the decoding goes into hashes and facts; the ratio is its inverse share."""
    paths = setting.pictures
    decoded = [read_image(path).pixels for path in paths]
    whole = "all of it"
    parts: dict[str, Callable[[], float]] = {
        "SHA-256 of the file": partial(_each, _file_digest, paths),
        "SHA-256 of the pixels": partial(_each, pixel_digest, decoded),
        "facts for the audit": partial(_each, picture_facts, decoded),
        "letterbox to 512 px": partial(_each, partial(letterbox, size=512), decoded),
    }
    timings = setting.meter.compare({whole: partial(_each, _decode_fully, paths), **parts})
    for part in parts:
        title = f"decode one picture: {part} against {whole}"
        yield paired_row(title, timings, part, whole, "ms/image", milliseconds)


def _each(function: Callable[..., object], values: list) -> float:
    for value in values:
        function(value)
    return float(len(values))


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _decode_fully(path: Path) -> object:
    return decode_and_letterbox(DecodeTask(path.name, path, (512,)))
