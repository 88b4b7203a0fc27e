"""Images and tables: an epoch, preparing, hashing; a million rows read, split and audited."""

from __future__ import annotations

import hashlib
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

from benchmarks.bench import Row, Setting, each, is_dicom, own_process, peak_gib
from benchmarks.synth_tables import synth_tables
from data_prep.contracts import tables
from data_prep.contracts.text_lookup import is_member
from data_prep.contracts.workers import cpu_count
from data_prep.images.decoded_image import pixel_digest
from data_prep.images.image import read_image
from data_prep.images.image_facts import image_facts
from data_prep.store import pixel_writer as stored
from data_prep.store.dataset import DataSet
from data_prep.store.decode import DecodeTask, decode_and_letterbox
from data_prep.store.pixel_store import PixelStore, build_pixel_store
from data_prep.store.preprocess import letterbox

_PREPARED, _ROUNDS = 1000, 3  # with fewer images one would time the start of processes
_BATCH = 8
_TABLE_IMAGES, _QUICK_TABLE_IMAGES = 1_000_000, 2_000
_LIMIT_SECONDS, _LIMIT_GIB = 60.0, 4.0
_STORE_SIZE = 16  # px: opening a store takes as long whatever the size of its images
_LABELS = ("images", "findings", "boxes", "box_coverage")
_PARTS = ("read", "validate", "split", "audit")


def data_rows(setting: Setting) -> Iterator[dict[str, Any]]:
    """Measure images, then tables, one row after the other."""
    sizes = (32,) if setting.quick else (256, 512)
    for size in sizes:
        yield from _epoch_rows(setting, size)
    yield from _prepare_rows(setting, sizes[-1])
    yield from _hashing_rows(setting)
    folder = setting.scratch / "tables"
    n_images = _QUICK_TABLE_IMAGES if setting.quick else _TABLE_IMAGES
    ids = synth_tables(folder, n_images, setting.seed).images["image_id"]
    yield from _table_rows(setting, folder, f"tables of {n_images:,} images")
    yield from _lookup_rows(setting, ids)


def _epoch_rows(setting: Setting, size: int) -> Iterator[dict[str, Any]]:
    """An epoch in random order: our store against files that are decoded each time."""
    images = _as_table(setting.images, len(setting.images))
    store = build_pixel_store(setting.scratch / "set", images, Path("/"), size, workers=1)
    order = np.random.default_rng(setting.seed).permutation(len(images))
    ids = images["image_id"].to_numpy()[order]
    plain = partial(_plain_square, size=size)
    peers: dict[str, tuple[list[Path], Callable[[Path], np.ndarray]]]
    if is_dicom(setting.images[0]):  # in two ways, since decoders differ
        peers = {
            "DICOM (pydicom, cv2)": (setting.images, plain),
            "DICOM (pydicom with Pillow, cv2)": (setting.images, partial(plain, pillow=True)),
        }
    else:
        peers = {"the files (cv2)": (setting.images, plain)}
    for kind, options in (("PNG", []), ("JPEG", [cv2.IMWRITE_JPEG_QUALITY, 95])):
        folder = setting.scratch / f"{kind}-{size}"
        folder.mkdir()
        copies = [folder / f"{image_id}.{kind.lower()}" for image_id in store.ids.sort_values()]
        for path in copies:
            cv2.imwrite(str(path), store.image(path.stem), options)
        peers[f"{kind} copies (cv2)"] = copies, _read_grey
    runs = {"store": partial(_epoch, store.image, ids)}
    rows = []
    kib = _kib_each(store.folder.iterdir(), len(ids))
    for peer, (paths, read) in peers.items():
        runs[peer] = partial(_epoch, read, [paths[place] for place in order])
        title = f"read an epoch at {size} px: store against decoding {peer}"
        note = (
            f"bytes on the disk at {size} px: store {kib:,.0f} KiB an image, "
            f"{peer} {_kib_each(paths, len(paths)):,.0f} KiB"
        )
        rows.append(Row(title, "images/s", "store", peer, note=note))
    return setting.meter.measure(runs, rows)


def _as_table(paths: list[Path], n_images: int) -> pd.DataFrame:
    """An images table of files; they come again under other names if more are wanted."""
    names = [str(paths[number % len(paths)].resolve()) for number in range(n_images)]
    return pd.DataFrame({"image_id": [f"i{n:05d}" for n in range(n_images)], "path": names})


def _kib_each(paths: Any, n_images: int) -> float:
    return sum(path.stat().st_size for path in paths) / n_images / 1024


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
    """What a plain loop would read: no LUT, no window, no check; pydicom's own choice or Pillow."""
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


def _prepare_rows(setting: Setting, size: int) -> Iterator[dict[str, Any]]:
    """Decode, hash, measure, letterbox, store: as `cxr prepare` does with every image."""
    n_images = len(setting.images) if setting.quick else max(_PREPARED, len(setting.images))
    images, cores = _as_table(setting.images, n_images), cpu_count()
    folder = setting.scratch / "prepared"

    def build(workers: int) -> float:
        shutil.rmtree(folder, ignore_errors=True)
        build_pixel_store(folder, images, Path("/"), size, workers=workers)
        return float(n_images)

    def loop(*, pillow: bool) -> float:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for number, path in enumerate(images["path"]):
            np.save(folder / f"{number}.npy", _plain_square(Path(path), size, pillow=pillow))
        return float(n_images)

    every, single = f"{cores} processors", "1 processor"
    plain, pillow = "a plain loop", "a plain loop with Pillow"
    runs = {
        every: partial(build, cores),
        single: partial(build, 1),
        plain: partial(loop, pillow=False),
        pillow: partial(loop, pillow=True),
    }
    note = (
        "a plain loop decodes with pydicom, resizes with cv2 and saves with np.save on 1 "
        "processor: no LUT or window, no hash, no record, nothing to go on with after a kill"
    )
    rows = [
        Row(f"prepare at {size} px: {ours} against {peer}", "images/s", ours, peer, note=note)
        for ours, peer in ((every, single), (single, plain), (single, pillow), (every, plain))
    ]
    return setting.meter.measure(runs, rows, warm=False, most=_ROUNDS)


def _hashing_rows(setting: Setting) -> Iterator[dict[str, Any]]:
    """What of the decoding goes into hashes and facts; the ratio is its inverse share."""
    decoded, whole = [read_image(path).pixels for path in setting.images], "all of it"

    def decode(path: Path) -> object:
        return decode_and_letterbox(DecodeTask(path.name, path, (512,)))

    def digest(path: Path) -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    parts: dict[str, partial[float]] = {
        "SHA-256 of the file": partial(each, digest, setting.images),
        "SHA-256 of the pixels": partial(each, pixel_digest, decoded),
        "facts for the audit": partial(each, image_facts, decoded),
        "letterbox to 512 px": partial(each, partial(letterbox, size=512), decoded),
    }
    rows = [
        Row(f"decode one image: {part} against {whole}", "ms/image", part, whole) for part in parts
    ]
    runs = {whole: partial(each, decode, setting.images), **parts}
    return setting.meter.measure(runs, rows)


def _table_rows(setting: Setting, folder: Path, what: str) -> Iterator[dict[str, Any]]:
    """Write tables; read, validate, split and audit them, each time in a fresh process."""
    names = (*_LABELS, "decode")
    frames = {name: tables.read_table(folder / f"{name}.parquet", name) for name in names}
    copy = setting.scratch / "written"
    copy.mkdir()

    def write() -> None:
        for name, frame in frames.items():
            tables.write_table(frame, copy / f"{name}.parquet", name)

    row = Row(f"{what}: write", "s", "write")
    yield from setting.meter.measure({"write": write}, [row], warm=False)
    frames.clear()
    limit, limit_gib = (None, None) if setting.quick else (_LIMIT_SECONDS, _LIMIT_GIB)
    note = "reading checks every rule, so that 'validate' is a second time and a part of 'read'"
    whole = "read, validate, split and audit in one process"
    peak = "greatest memory of that process"
    rows = [
        *(Row(f"{what}: {part}", "s", "check", part=part) for part in _PARTS),
        Row(f"{what}: {whole}", "s", "check", part="together", limit=limit, note=note),
        Row(f"{what}: {peak}", "GiB", "check", part="peak_gib", limit=limit_gib),
    ]
    check = partial(own_process, "benchmarks.bench_data", folder)
    yield from setting.meter.measure({"check": check}, rows, warm=False, most=_ROUNDS)


def _check_tables(folder: Path) -> dict[str, float]:
    """Read a data set with all its rules, validate it again, split it, audit it: seconds each."""
    from data_prep.audit.audit import audit
    from data_prep.duplicates.near_duplicates import find_near_duplicates
    from data_prep.formats.source import no_roles
    from data_prep.splits.add_split import SplitRule, draw_split, image_links
    from evaluation.systems.shortcuts import measure_shortcuts

    times = [time.perf_counter()]
    dataset = DataSet.open(folder)
    decode = tables.read_table(folder / "decode.parquet", "decode")
    frames = {name: getattr(dataset, name) for name in _LABELS}
    frames |= {"decode": decode, "split": dataset.split()}
    times.append(time.perf_counter())
    for name, frame in frames.items():
        tables.validate_table(frame, name)
    times.append(time.perf_counter())
    near = find_near_duplicates(decode)
    linked = image_links(decode, near)
    draw_split(dataset.images, dataset.findings, no_roles(), SplitRule(), linked)
    times.append(time.perf_counter())
    del decode, frames, linked
    audit(dataset, near=near, measure_shortcuts=measure_shortcuts)
    times.append(time.perf_counter())
    took = dict(zip(_PARTS, np.diff(times).tolist(), strict=True))
    return {**took, "together": sum(took.values()), "peak_gib": peak_gib()}


def _lookup_rows(setting: Setting, ids: pd.Series) -> Iterator[dict[str, Any]]:
    """Look ids up; open a pixel store, against reading its index and checking nothing."""
    some = ids.sample(frac=0.5, random_state=setting.seed)
    title = f"find {len(some):,} ids among {len(ids):,}: is_member against pandas isin"
    runs = {
        "is_member": lambda: each(partial(is_member, ids), [some]),
        "isin": lambda: each(ids.isin, [some]),
    }
    yield from setting.meter.measure(runs, [Row(title, "s", "is_member", "isin")])
    folder = setting.scratch / "store"
    _write_empty_store(folder, ids)
    runs = {
        "open": lambda: each(PixelStore.open, [folder]),
        "open, first image": lambda: each(PixelStore.open(folder).image, [ids.iloc[-1]]),
        "pandas": lambda: each(pd.read_parquet, [folder / stored.INDEX_NAME]),
    }
    what = f"store of {len(ids):,} images: open it"
    rows = [
        Row(f"{what}, against pandas reading its index", "s", "open", "pandas"),
        Row(f"{what} and show one image, against the same", "s", "open, first image", "pandas"),
    ]
    yield from setting.meter.measure(runs, rows)


def _write_empty_store(folder: Path, ids: pd.Series) -> None:
    """A store of black images; its shards are holes that take no room on the disk."""
    with stored.PixelStoreWriter(folder, _STORE_SIZE) as writer:
        black = np.zeros((_STORE_SIZE, _STORE_SIZE), np.uint8)
        writer.add(ids.iloc[0], *letterbox(black, _STORE_SIZE))
    place = np.arange(len(ids))
    index = pd.DataFrame({"image_id": ids, "shard": place // stored.SHARD_IMAGES})
    index = index.assign(row=place % stored.SHARD_IMAGES, scale_x=1.0, scale_y=1.0)
    tables.write_table(
        index.assign(offset_x=0.0, offset_y=0.0), folder / stored.INDEX_NAME, "pixel_index"
    )
    for shard, n_images in enumerate(np.bincount(index["shard"])):
        shape = (int(n_images), _STORE_SIZE, _STORE_SIZE)
        path = folder / stored.shard_name(shard)
        np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    info = tables.read_json(folder / stored.INFO_NAME, stored.INFO_KIND)
    tables.write_json(folder / stored.INFO_NAME, stored.INFO_KIND, {**info, "n_images": len(ids)})


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_check_tables(Path(sys.argv[1]))))
