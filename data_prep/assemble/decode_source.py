"""Decoding of the images of a source: what is known of them, and what has to be decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_compare.data_prep.assemble.complete import misfits
from cxr_compare.data_prep.assemble.prepare_options import PrepareOptions
from cxr_compare.data_prep.contracts.disk_space import require_free_space
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.locks import folder_lock
from cxr_compare.data_prep.contracts.output_folders import require_only_files
from cxr_compare.data_prep.contracts.tables import read_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.source_tables import SourceTables
from cxr_compare.data_prep.store.build_pixel_store import decode_into
from cxr_compare.data_prep.store.decode import DecodeTask
from cxr_compare.data_prep.store.decode_writer import (
    JOURNAL,
    DecodedImages,
    DecodeWriter,
    typed_facts,
)
from cxr_compare.data_prep.work.shards import Shard, ShardedWork


def decode_source(
    tables: SourceTables, writer: DecodeWriter, stored: pd.DataFrame, options: PrepareOptions
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Decode the images of a source that are not yet known.

    `stored` has the facts of a complete data set to which images are added, and the writer those of
    an interrupted call. Returned are the facts of the images that can be used, and a table
    ``image_id, stage, reason`` of those that cannot.
    """
    images = tables.images
    known = unchanged_facts(tables, _latest(stored, writer.facts()))["image_id"]
    done = known[[writer.has_squares(image_id) for image_id in known]]
    todo = images[~is_member(images["image_id"], done)].sort_values("image_id")
    paths = todo.set_index("image_id")["path"]
    sizes = tuple(writer.rows)
    tasks = (DecodeTask(str(name), tables.root / path, sizes) for name, path in paths.items())
    # Files that every machine must be able to read.
    ends = [tables.root / path for path in paths.iloc[[0, -1][: len(paths)]]]
    errors: dict[str, str] = {}
    with options.progress.track("Reading images", len(images)) as advance:
        advance(len(images) - len(paths))
        for row in decode_into(
            writer, tasks, workers=options.workers, reads=[tables.root, *ends], on_decoded=advance
        ):
            path = tables.root / paths[row.image_id]
            errors[row.image_id] = str(row.error).removeprefix(f"{path}: ")  # it may hold a name
    facts = _latest(stored, writer.facts())
    usable = is_member(facts["image_id"], images["image_id"])
    facts = facts[usable & ~is_member(facts["image_id"], list(errors))]
    unfit = misfits(tables, facts)
    unread = pd.DataFrame({"image_id": list(errors), "reason": list(errors.values())}, dtype=TEXT)
    unusable = pd.concat([unread.assign(stage="decode"), unfit], ignore_index=True)
    return facts[~is_member(facts["image_id"], unfit["image_id"])], unusable


def decode_shard(
    tables: SourceTables, folder: Path, work: ShardedWork, shard: Shard, options: PrepareOptions
) -> int:
    """Decode every n-th image of a source into a folder of its own, and return their number.

    A repeated call goes on. What depends on all images, such as copies, splits and the audit, is
    made when the shards are joined, by the code that makes it without shards. A folder with other
    files, or with a shard of other work, is refused.
    """
    if tables.images["path"].isna().all():
        raise InputError(f"{tables.root}: the source gives no images, so it has no shards")
    images = tables.images[is_member(tables.images["image_id"], shard.take(work.rows))]
    with folder_lock(folder):
        require_only_files(folder, (f"{work.kind}.json", JOURNAL, "pixels"), "shard")
        work.begin(folder, shard)
        with DecodeWriter(folder, options.sizes) as writer:
            require_free_space(folder, bytes_of(images, options.sizes))
            none_known = typed_facts(pd.DataFrame({"image_id": []}))
            decode_source(replace(tables, images=images), writer, none_known, options)
            facts = writer.facts()
            stored = facts[[writer.has_squares(image_id) for image_id in facts["image_id"]]]
            writer.finish(stored)
        work.end(folder, shard, {})  # the journal states the CRC32 of each square
    return len(stored)


def take_shards(
    folders: Sequence[Path], tables: SourceTables, writer: DecodeWriter, options: PrepareOptions
) -> None:
    """Take over the images of all shards in the order in which one call would decode them.

    The folders stand in the order of their numbers; without any, nothing happens. An image that a
    shard could not decode is tried again afterwards, as by a call that goes on. A damaged shard is
    refused.
    """
    if not folders:
        return
    shards = [DecodedImages(folder, options.sizes) for folder in folders]
    known = writer.facts()["image_id"]
    done = {image_id for image_id in known if writer.has_squares(image_id)}
    image_ids = sorted(tables.images["image_id"])
    with options.progress.track("Joining shards", len(image_ids)) as advance:
        for position, image_id in enumerate(image_ids):
            if image_id not in done:
                image = shards[position % len(shards)].get(image_id)
                if image is not None:
                    writer.add(image)
            advance(1)


def bytes_of(images: pd.DataFrame, sizes: Sequence[int]) -> int:
    """Estimate the bytes of squares and tables; a row in all tables takes less than 1,000 bytes."""
    return len(images) * (1000 + sum(size * size for size in sizes))


def stored_facts(folder: Path) -> pd.DataFrame:
    """Return the facts of the images of a complete data set, as its tables hold them."""
    if not ((folder / "decode.parquet").is_file() and (folder / "images.parquet").is_file()):
        return typed_facts(pd.DataFrame({"image_id": []}))
    measured = ["image_id", "file_sha256", "height", "width"]
    images = read_table(folder / "images.parquet", "images", measured)
    decode = read_table(folder / "decode.parquet", "decode")
    return typed_facts(decode.merge(images, on="image_id"))


def unchanged_facts(tables: SourceTables, facts: pd.DataFrame) -> pd.DataFrame:
    """Return the facts of those images of a source whose file is as it was decoded."""
    rows = facts.merge(tables.images[["image_id", "path"]].dropna(), on="image_id")
    now = [_file_state(tables.root / path) for path in rows["path"]]
    stated = rows[["file_bytes", "file_mtime_ns"]].fillna(-1).astype("int64").to_numpy()
    is_unchanged = (stated == np.array(now, dtype="int64").reshape(-1, 2)).all(axis=1)
    return rows[is_unchanged]


def _latest(stored: pd.DataFrame, journaled: pd.DataFrame) -> pd.DataFrame:
    """Join facts of two sources; the later of an image counts."""
    both = pd.concat([stored, journaled], ignore_index=True)
    return both.drop_duplicates("image_id", keep="last", ignore_index=True)


def _file_state(path: Path) -> tuple[int, int]:
    """Return size and modification time of a file; zeros if it is gone."""
    try:
        state = path.stat()
    except OSError:
        return 0, 0
    return state.st_size, state.st_mtime_ns
