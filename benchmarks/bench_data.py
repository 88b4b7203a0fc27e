"""Images and tables: an epoch, preparing, hashing; a million rows read, split and audited."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pydicom
from pydicom.uid import JPEGBaseline8Bit

from benchmarks.bench import (
    Row,
    Run,
    Setting,
    duration,
    is_dicom,
    milliseconds,
    paired_row,
    peak_gib,
    rate,
    single_row,
)
from benchmarks.synth_tables import synth_tables
from data_prep.contracts.tables import (
    read_json,
    read_table,
    validate_table,
    write_json,
    write_table,
)
from data_prep.contracts.text_lookup import is_member
from data_prep.contracts.workers import cpu_count
from data_prep.images.decoded_image import pixel_digest
from data_prep.images.image import read_image
from data_prep.images.image_facts import image_facts
from data_prep.store.dataset import DataSet
from data_prep.store.decode import DecodeTask, decode_and_letterbox
from data_prep.store.pixel_store import PixelStore, build_pixel_store
from data_prep.store.pixel_writer import (
    INDEX_NAME,
    INFO_KIND,
    INFO_NAME,
    SHARD_IMAGES,
    PixelStoreWriter,
    shard_name,
)
from data_prep.store.preprocess import letterbox

_PREPARED, _ROUNDS = 1000, 3  # with fewer images one would time the start of processes
_BATCH = 8
_TABLE_IMAGES, _QUICK_TABLE_IMAGES = 1_000_000, 2_000
_LIMIT_SECONDS, _LIMIT_GIB = 60.0, 4.0
_STORE_SIZE = 16  # px: opening a store takes as long whatever the size of its images


def data_rows(setting: Setting) -> Iterator[Row]:
    """Measure images, then tables, one row after the other."""
    sizes = (32,) if setting.quick else (256, 512)
    for size in sizes:
        yield from _epoch_rows(setting, size)
    yield from _prepare_rows(setting, sizes[-1])
    yield from _hashing_rows(setting)
    n_images = _QUICK_TABLE_IMAGES if setting.quick else _TABLE_IMAGES
    folder = setting.scratch / "tables"
    synth_tables(folder, n_images, setting.seed)
    what = f"tables of {n_images:,} images"
    yield _writing_row(setting, folder, what)
    yield from _checking_rows(setting, folder, what)
    ids = read_table(folder / "images.parquet", "images", ["image_id"])["image_id"]
    yield _membership_row(setting, ids)
    yield from _store_rows(setting, ids)


def _epoch_rows(setting: Setting, size: int) -> Iterator[Row]:
    """An epoch in random order: our store against files that are decoded each time."""
    images = _as_table(setting.images)
    store = build_pixel_store(setting.scratch / "set", images, Path("/"), size, workers=1)
    store_kib = _kib_each(list(store.folder.iterdir()), len(images))
    order = np.random.default_rng(setting.seed).permutation(len(images))
    ids = images["image_id"].to_numpy()[order]
    peers: dict[str, tuple[list[Path], Callable[[Path], np.ndarray]]] = {}
    plain = partial(_plain_square, size=size)
    if is_dicom(setting.images[0]):  # in two ways, since decoders differ
        peers["DICOM (pydicom, cv2)"] = setting.images, plain
        peers["DICOM (pydicom with Pillow, cv2)"] = setting.images, partial(plain, pillow=True)
    else:
        peers["the files (cv2)"] = setting.images, plain
    for kind, options in (("PNG", []), ("JPEG", [cv2.IMWRITE_JPEG_QUALITY, 95])):
        copies = _copies(setting.scratch / f"{kind}-{size}", store, kind.lower(), options)
        peers[f"{kind} copies (cv2)"] = copies, _read_grey
    candidates: dict[str, Run] = {"store": partial(_epoch, store.image, ids)}
    for peer, (paths, read) in peers.items():
        candidates[peer] = partial(_epoch, read, [paths[row] for row in order])
    timings = setting.meter.compare(candidates)
    for peer, (paths, _) in peers.items():
        note = (
            f"bytes on the disk at {size} px: store {store_kib:,.0f} KiB an image, "
            f"{peer} {_kib_each(paths, len(paths)):,.0f} KiB"
        )
        title = f"read an epoch at {size} px: store against decoding {peer}"
        yield paired_row(title, timings, "store", peer, "images/s", rate, note)


def _as_table(paths: list[Path], n_images: int | None = None) -> pd.DataFrame:
    """An images table of files; they come again under other names if more are wanted."""
    chosen = itertools.islice(itertools.cycle(paths), n_images or len(paths))
    names = [str(path.resolve()) for path in chosen]
    return pd.DataFrame({"image_id": [f"i{n:05d}" for n in range(len(names))], "path": names})


def _kib_each(paths: list[Path], n_images: int) -> float:
    return sum(path.stat().st_size for path in paths) / n_images / 1024


def _copies(folder: Path, store: PixelStore, suffix: str, options: list[int]) -> list[Path]:
    """Write the store's images as files, as data loaders often have them."""
    folder.mkdir()
    paths = []
    for image_id in store.ids.sort_values():
        paths.append(folder / f"{image_id}.{suffix}")
        cv2.imwrite(str(paths[-1]), store.image(image_id), options)
    return paths


def _epoch(read: Callable[[Any], np.ndarray], images: Any) -> float:
    for start in range(0, len(images), _BATCH):
        np.stack([read(image) for image in images[start : start + _BATCH]])
    return float(len(images))


def _read_grey(path: Path) -> np.ndarray:
    pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise ValueError(f"{path}: not readable by OpenCV")
    return pixels


def _plain_square(path: Path, size: int, *, pillow: bool = False) -> np.ndarray:
    """What a plain loop would read: no LUT, no window, no check.

    By default pydicom takes another decoder for JPEG than Pillow, which is the fastest.
    """
    if is_dicom(path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path)
            if pillow and header.file_meta.TransferSyntaxUID == JPEGBaseline8Bit:
                header.pixel_array_options(decoding_plugin="pillow")
            pixels = header.pixel_array
    else:
        pixels = _read_grey(path)
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)


def _prepare_rows(setting: Setting, size: int) -> Iterator[Row]:
    """Decode, hash, measure, letterbox, store: as `cxr prepare` does with every image."""
    n_images = len(setting.images) if setting.quick else max(_PREPARED, len(setting.images))
    images = _as_table(setting.images, n_images)
    paths, cores = images["path"].tolist(), cpu_count()
    every, single = f"{cores} processors", "1 processor"
    plain, pillow = "a plain loop", "a plain loop with Pillow"
    built, copied = setting.scratch / "built", setting.scratch / "plain"
    timings = setting.meter.compare(
        {
            every: partial(_build, built, images, size, cores),
            single: partial(_build, built, images, size, 1),
            plain: partial(_plain_loop, copied, paths, size, pillow=False),
            pillow: partial(_plain_loop, copied, paths, size, pillow=True),
        },
        warm=False,
        most_rounds=_ROUNDS,
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
    paths = setting.images
    decoded = [read_image(path).pixels for path in paths]
    whole = "all of it"
    parts: dict[str, Run] = {
        "SHA-256 of the file": partial(_each, _file_digest, paths),
        "SHA-256 of the pixels": partial(_each, pixel_digest, decoded),
        "facts for the audit": partial(_each, image_facts, decoded),
        "letterbox to 512 px": partial(_each, partial(letterbox, size=512), decoded),
    }
    timings = setting.meter.compare({whole: partial(_each, _decode_fully, paths), **parts})
    for part in parts:
        title = f"decode one image: {part} against {whole}"
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


def _writing_row(setting: Setting, folder: Path, what: str) -> Row:
    """Validate and write the tables that were read before."""
    names = ("images", "findings", "boxes", "box_coverage", "decode")
    frames = {name: read_table(folder / f"{name}.parquet", name) for name in names}
    copy = setting.scratch / "written"
    copy.mkdir()

    def write() -> None:
        for name, frame in frames.items():
            write_table(frame, copy / f"{name}.parquet", name)

    timings = setting.meter.compare({"write": write}, warm=False)
    seconds = timings.values("write", duration)
    return single_row(f"{what}: write", "s", seconds, rejected=timings.rejected["write"])


def _checking_rows(setting: Setting, folder: Path, what: str) -> Iterator[Row]:
    """Read, validate, split and audit, each time in a fresh process."""
    runs, rejected = setting.meter.answers("benchmarks.bench_data", folder, most_rounds=_ROUNDS)
    for part in ("read", "validate", "split", "audit"):
        seconds = [run["seconds"][part] for run in runs]
        yield single_row(f"{what}: {part}", "s", seconds, rejected=rejected)
    together = [sum(run["seconds"].values()) for run in runs]
    title = f"{what}: read, validate, split and audit in one process"
    note = "reading checks every rule, so that 'validate' is a second time and a part of 'read'"
    limit = None if setting.quick else _LIMIT_SECONDS
    yield single_row(title, "s", together, rejected=rejected, limit=limit, note=note)
    peaks = [run["peak_gib"] for run in runs]
    title = f"{what}: greatest memory of that process"
    limit = None if setting.quick else _LIMIT_GIB
    yield single_row(title, "GiB", peaks, rejected=rejected, limit=limit)


def _check_tables(folder: Path) -> dict[str, float]:
    """Read a data set with all its rules, validate it again, split it, audit it: seconds each."""
    from data_prep.audit.audit import audit
    from data_prep.formats.source import no_roles
    from data_prep.splits.add_split import SplitRule, draw_split
    from evaluation.systems.shortcuts import measure_shortcuts

    times = [time.perf_counter()]
    dataset = DataSet.open(folder)
    decode = read_table(folder / "decode.parquet", "decode")
    frames = {"decode": decode, "split": dataset.split()}
    for name in ("images", "findings", "boxes", "box_coverage"):
        frames[name] = getattr(dataset, name)
    times.append(time.perf_counter())
    for name, frame in frames.items():
        validate_table(frame, name)
    times.append(time.perf_counter())
    draw_split(dataset.images, dataset.findings, decode, no_roles(), SplitRule())
    times.append(time.perf_counter())
    del decode, frames
    audit(dataset, measure_shortcuts=measure_shortcuts)
    times.append(time.perf_counter())
    parts = ("read", "validate", "split", "audit")
    return {name: times[n + 1] - times[n] for n, name in enumerate(parts)}


def _membership_row(setting: Setting, ids: pd.Series) -> Row:
    """Which of the ids are among half of them, in another order."""
    some = ids.sample(frac=0.5, random_state=setting.seed)
    ours, peer = "is_member", "pandas isin"
    timings = setting.meter.compare(
        {ours: partial(_once, is_member, ids, some), peer: partial(_once, ids.isin, some)}
    )
    title = f"find {len(some):,} ids among {len(ids):,}: is_member against pandas isin"
    return paired_row(title, timings, ours, peer, "s", duration)


def _store_rows(setting: Setting, ids: pd.Series) -> Iterator[Row]:
    """Open a pixel store, against reading its index with pandas and checking nothing."""
    folder = setting.scratch / "store"
    _write_empty_store(folder, ids)
    opened, first, floor = "open", "open, first image", "pandas"
    timings = setting.meter.compare(
        {
            opened: partial(_once, PixelStore.open, folder),
            first: lambda: _once(PixelStore.open(folder).image, ids.iloc[-1]),
            floor: partial(_once, pd.read_parquet, folder / INDEX_NAME),
        }
    )
    what = f"store of {len(ids):,} images"
    title = f"{what}: open it, against pandas reading its index"
    yield paired_row(title, timings, opened, floor, "s", duration)
    title = f"{what}: open it and show one image, against the same"
    yield paired_row(title, timings, first, floor, "s", duration)


def _write_empty_store(folder: Path, ids: pd.Series) -> None:
    """A store of black images; its shards are holes that take no room on the disk."""
    with PixelStoreWriter(folder, _STORE_SIZE) as writer:
        black = np.zeros((_STORE_SIZE, _STORE_SIZE), np.uint8)
        writer.add(ids.iloc[0], *letterbox(black, _STORE_SIZE))
    place = np.arange(len(ids))
    index = pd.DataFrame({"image_id": ids, "shard": place // SHARD_IMAGES})
    index = index.assign(row=place % SHARD_IMAGES, scale_x=1.0, scale_y=1.0)
    write_table(index.assign(offset_x=0.0, offset_y=0.0), folder / INDEX_NAME, "pixel_index")
    for shard, n_images in enumerate(np.bincount(index["shard"])):
        shape = (int(n_images), _STORE_SIZE, _STORE_SIZE)
        path = folder / shard_name(shard)
        np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    info = read_json(folder / INFO_NAME, INFO_KIND)
    write_json(folder / INFO_NAME, INFO_KIND, {**info, "n_images": len(ids)})


def _once(function: Callable[..., object], *arguments: object) -> None:
    function(*arguments)


if __name__ == "__main__":
    found = {"seconds": _check_tables(Path(sys.argv[1])), "peak_gib": peak_gib()}
    sys.stdout.write(json.dumps(found))
