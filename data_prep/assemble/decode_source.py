"""Decoding of the images of a source: what is known of them, and what has to be decoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_compare.data_prep.assemble.complete import misfits
from cxr_compare.data_prep.assemble.prepare_options import PrepareOptions
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.tables import read_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.source_tables import SourceTables
from cxr_compare.data_prep.store.build_pixel_store import decode_into
from cxr_compare.data_prep.store.decode import DecodeTask
from cxr_compare.data_prep.store.decode_writer import DecodeWriter, typed_facts


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
