"""Benchmark of tables at a million images; what must not take much memory runs on its own."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.bench_rows import Row, duration, paired_row, single_row
from benchmarks.bench_setting import Setting
from benchmarks.synth_tables import synth_tables
from data_prep.contracts.tables import read_json, read_table, write_json, write_table
from data_prep.contracts.text_lookup import is_member
from data_prep.store.pixel_store import PixelStore
from data_prep.store.pixel_writer import (
    INDEX_NAME,
    INFO_KIND,
    INFO_NAME,
    SHARD_IMAGES,
    PixelStoreWriter,
    shard_name,
)
from data_prep.store.preprocess import letterbox
from scripts.runtime import answer_of

_IMAGES, _QUICK_IMAGES = 1_000_000, 2_000
_LIMIT_SECONDS, _LIMIT_GIB = 60.0, 4.0
_ROUNDS = 3
_STORE_SIZE = 16  # px: opening a store takes as long whatever the size of its pictures


def rows(setting: Setting) -> Iterator[Row]:
    """Measure the rows of this module, one after the other."""
    n_images = _QUICK_IMAGES if setting.quick else _IMAGES
    folder = setting.scratch / "tables"
    synth_tables(folder, n_images, setting.seed)
    what = f"tables of {n_images:,} images"
    yield _writing_row(setting, folder, what)
    yield from _checking_rows(setting, folder, what)
    ids = read_table(folder / "images.parquet", "images", ["image_id"])["image_id"]
    yield _membership_row(setting, ids)
    yield from _store_rows(setting, ids)


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
    runs: list[dict[str, Any]] = []
    counted, rejected = [], 0
    for _ in range(min(_ROUNDS, setting.meter.rounds)):
        sample, noisy = setting.meter.quiet_sample(
            lambda: runs.append(answer_of("benchmarks.bench_child", folder))
        )
        rejected += noisy
        if sample is not None:
            counted.append(runs[-1])
    for part in ("read", "validate", "split", "audit"):
        seconds = [run["seconds"][part] for run in counted]
        yield single_row(f"{what}: {part}", "s", seconds, rejected=rejected)
    together = [sum(run["seconds"].values()) for run in counted]
    title = f"{what}: read, validate, split and audit in one process"
    note = "reading checks every rule, so that 'validate' is a second time and a part of 'read'"
    limit = None if setting.quick else _LIMIT_SECONDS
    yield single_row(title, "s", together, rejected=rejected, limit=limit, note=note)
    peaks = [run["peak_gib"] for run in counted]
    title = f"{what}: greatest memory of that process"
    limit = None if setting.quick else _LIMIT_GIB
    yield single_row(title, "GiB", peaks, rejected=rejected, limit=limit)


def _membership_row(setting: Setting, ids: pd.Series) -> Row:
    """Which of the ids are among half of them, in another order."""
    some = ids.sample(frac=0.5, random_state=setting.seed)
    ours, theirs = "is_member", "pandas isin"
    timings = setting.meter.compare(
        {
            ours: partial(_no_amount, is_member, ids, some),
            theirs: partial(_no_amount, ids.isin, some),
        }
    )
    title = f"find {len(some):,} ids among {len(ids):,}: is_member against pandas isin"
    return paired_row(title, timings, ours, theirs, "s", duration)


def _store_rows(setting: Setting, ids: pd.Series) -> Iterator[Row]:
    """Open a pixel store, against reading its index with pandas and checking nothing."""
    folder = setting.scratch / "store"
    _write_empty_store(folder, ids)
    opened, first, floor = "open", "open, first picture", "pandas"
    timings = setting.meter.compare(
        {
            opened: partial(_no_amount, PixelStore.open, folder),
            first: partial(_no_amount, _first_picture, folder, ids.iloc[-1]),
            floor: partial(_no_amount, pd.read_parquet, folder / INDEX_NAME),
        }
    )
    what = f"store of {len(ids):,} pictures"
    title = f"{what}: open it, against pandas reading its index"
    yield paired_row(title, timings, opened, floor, "s", duration)
    title = f"{what}: open it and show one picture, against the same"
    yield paired_row(title, timings, first, floor, "s", duration)


def _write_empty_store(folder: Path, ids: pd.Series) -> None:
    """A store of black pictures; its shards are holes that take no room on the disk."""
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


def _first_picture(folder: Path, image_id: str) -> int:
    return int(PixelStore.open(folder).image(image_id).sum())


def _no_amount(function: Any, *arguments: object) -> None:
    function(*arguments)
