"""A data set folder that is being made: its options, its beginning, its splits and its files.

`prepare` makes one of a source. ``dataset.json`` is written last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.audit import MeasureShortcuts, audit, write_audit
from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.files import require_free_space, write_text
from cxr_compare.data_prep.base.folders import folder_state
from cxr_compare.data_prep.base.ids import is_member
from cxr_compare.data_prep.base.provenance import provenance
from cxr_compare.data_prep.base.pseudonyms import HIDDEN, hide_paths
from cxr_compare.data_prep.base.tables import write_table
from cxr_compare.data_prep.base.user_tables import read_text_table, refuse_line
from cxr_compare.data_prep.copies import copy_keys, find_copies
from cxr_compare.data_prep.dataset import DataSet, DataSetInfo, digests
from cxr_compare.data_prep.parallel import Engine, Progress
from cxr_compare.data_prep.pixels import (
    JOURNAL,
    ImageFile,
    PixelStore,
    pixels_file,
)
from cxr_compare.data_prep.sources.source import ReadOptions, SourceTables
from cxr_compare.data_prep.splits import Split, SplitRule, adopt, draw_split, settle
from cxr_compare.data_prep.stored_splits import write_split

LABEL_TABLES = ("findings", "boxes", "box_coverage", "split", "official")
"""Tables of a source with rows of its images, beside the table of images."""
_LEAST_STORE_PX = 128  # side of squares from which on copies are compared in place of the files


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the function `prepare`, which the command `cxr prepare` explains and gives.

    `said` are lines on the reading that the command has shown before, and `pictures` is False if
    the page of the data set shows no image.
    """

    format: str | None
    read: ReadOptions
    name: str | None
    sizes: tuple[int, ...]
    targets: Mapping[str, Sequence[str]]
    rule: SplitRule
    split: str | None
    exclude: Path | None
    id_key: Path | None
    keep_ids: bool
    workers: int
    engine: Engine
    progress: Progress
    measure_shortcuts: MeasureShortcuts
    said: tuple[str, ...] = ()
    pictures: bool


def begin(out: Path, request: str, sizes: Sequence[int], n_bytes: int) -> bool:
    """Return True for the complete data set of a request; begin one in a new folder.

    `n_bytes` is the space that it takes: without it nothing is begun.
    """
    complete, journal = out / "dataset.json", out / JOURNAL
    head = json.dumps({"request": request, "sizes": sorted(sizes)}) + "\n"
    is_same = True
    state = folder_state(out, "data set")
    if state == "finished":
        is_same = DataSetInfo.read(complete).request == request
    elif state == "interrupted":
        is_same = journal.read_bytes().startswith(head.encode())
    elif state == "foreign":
        raise InputError(f"{out}: not empty and not a cxr data set; choose a new folder")
    if state != "finished" and is_same:
        require_free_space(out, n_bytes)
    if state == "new":
        write_text(journal, head)
    if not is_same:
        raise InputError(
            f"{out}: is a data set of other images, labels or options (files that were copied anew "
            "count as others); give the same, or choose a new folder"
        )
    return state == "finished"


def exclude_listed(tables: SourceTables, path: Path) -> SourceTables:
    """Move the images of the user's list (``image_id``, ``reason``) to the table ``excluded``."""
    listed = read_text_table(path, ["image_id"], ["reason"])
    listed["image_id"] = listed["image_id"].str.normalize("NFC")
    listed = listed.drop_duplicates("image_id")
    images, ids = tables.images, listed["image_id"]
    unknown = pd.Series(~is_member(ids, images["image_id"]), index=ids.index)
    advice = f"whose ids look like {images['image_id'].iloc[0]!r}; correct the line or remove it"
    refuse_line(unknown, path, f" is no image of this source, {advice}", ids)
    if len(ids) == len(images):
        raise InputError(f"{path}: names every image of the source; keep some")
    paths = images.set_index("image_id")["path"].reindex(ids)
    gone = pd.DataFrame(
        {
            "path": paths.fillna(pd.Series(ids.array, ids)).array,
            "stage": "list",
            "reason": listed["reason"].replace("", f"named in {path.name}").array,
        }
    )
    return without(tables, ids, gone)


def without(tables: SourceTables, ids: pd.Series, gone: pd.DataFrame) -> SourceTables:
    """Take images out of all tables; `gone` are their rows of the table ``excluded``."""
    remaining: dict[str, Any] = {}
    for name in ("images", *LABEL_TABLES):
        table = getattr(tables, name)
        remaining[name] = table[~is_member(table["image_id"], ids)].reset_index(drop=True)
    excluded = pd.concat([tables.excluded, gone], ignore_index=True)
    return replace(tables, excluded=excluded, **remaining)


def write_set(
    out: Path,
    tables: SourceTables,
    decode: pd.DataFrame,
    request: str,
    options: Options,
    split: Split | None,
    key: bytes | None,
    id_key: str | None,
    squares: dict[str, str],
) -> None:
    """Write all files of a data set folder but the squares, ``dataset.json`` last.

    `squares` are the digests of the indices of the squares, by name.
    """
    frames = {n: getattr(tables, n) for n in ("images", "findings", "boxes", "box_coverage")}
    frames |= {"excluded": tables.excluded, "decode": decode, "read": tables.read}
    frames["findings"] = frames["findings"].drop(columns="implied")
    frames["copies"] = find_copies(decode, _reader(out, tables, squares))
    links = copy_keys(decode, frames["copies"])
    splits = _make_splits(tables, links, split, options)
    if key is not None:
        frames |= {name: hide_paths(frames[name], key) for name in ("images", "excluded")}
    files = {f"{n}.parquet": write_table(f, out / f"{n}.parquet", n) for n, f in frames.items()}
    split_ids = {}
    for name, new_split in splits.items():
        split_ids[name], written = write_split(out, name, new_split, frames["images"], links)
        files |= written
    info = DataSetInfo(
        name=options.name or "",
        source_root=str(tables.root.resolve()) if id_key is None else HIDDEN,
        targets=tables.targets,
        ids=digests(frames).with_values(split_ids=split_ids),
        request=request,
        id_key=id_key,
        notes=tuple(tables.notes),
        pictures=options.pictures,
        files=files | squares,
        **provenance(hides_paths=id_key is not None),
    )
    write_audit(audit(DataSet(out, info), options.measure_shortcuts))
    info.write(out / "dataset.json")


def _reader(
    out: Path, tables: SourceTables, squares: Mapping[str, str]
) -> Callable[[str], np.ndarray]:
    """Return a function that reads an image: its square without the border, or else its file."""
    sizes = sorted(int(Path(name).stem) for name in squares)
    size = next((size for size in sizes if size >= _LEAST_STORE_PX), None)
    if size is not None:
        return PixelStore.open(pixels_file(out, size), squares).image_without_border
    files: Any = tables.images.set_index("image_id")[["path", "file_sha256"]]

    def read(image_id: str) -> np.ndarray:
        path, sha256 = files.loc[image_id]
        return ImageFile(tables.root / path, sha256).read()

    return read


def _make_splits(
    tables: SourceTables, links: pd.Series | None, split: Split | None, options: Options
) -> dict[str, Split]:
    """Make the default split, and the official one if the publisher has one."""
    splits: dict[str, Split] = {}
    if len(tables.official):
        splits["official"] = adopt(
            tables.official, tables.images, tables.findings, options.rule, links
        )
    if split is not None:
        splits["default"] = settle(split, tables.images, links)
    elif options.split == "official" and "official" in splits:
        splits["default"] = splits["official"]
    else:
        splits["default"] = draw_split(
            tables.images, tables.findings, tables.split, options.rule, links
        )
    return splits
