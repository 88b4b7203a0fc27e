"""Decode every image of a source once, for its tables and all pixel stores, and survive a kill.

The journal is a folder of part files, each with the outcome of a few hundred images, written
after their pixels are on the disk. What a kill can lose is what came after the last part. It stays
with the data set, so that images added to the source later do not cost the old ones again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_prep.assemble.dataset_writer import JOURNAL
from data_prep.audit.audit import MeasureShortcuts
from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import atomic_path, make_folder, require_free_space
from data_prep.contracts.schemas import EDGE_TOLERANCE_PX, FIELD_WIDTH_MM, SCHEMAS
from data_prep.contracts.tables import empty_table, is_member
from data_prep.formats.source import ReadOptions, SourceTables
from data_prep.splits.split import SplitRule
from data_prep.store.decode import DecodedRow, DecodeTask, decode_all
from data_prep.store.pixel_store import PixelStoreWriter
from data_prep.store.preprocess import store_spec
from data_prep.work.engine import Engine
from data_prep.work.pool import LocalEngine, cpu_count

_PART_ROWS = 256

_TEXTS = (
    "image_id", "error_stage", "error", "file_sha256", "view", "sex", "transfer_syntax", "decoder",
    "photometric", "modality_transform", "voi", "orientation", "pixel_sha256", "warnings",
    "burned_in_annotation", "perceptual_hash", "border_greys",
)  # fmt: skip
_NUMBERS = (
    "spacing_row_mm", "spacing_col_mm", "age_years", "window_center", "window_width", "mean_grey",
    "text_score", "text_x1", "text_y1", "text_x2", "text_y2",
)  # fmt: skip
_COUNTS = ("height", "width", "bits", "file_bytes", "file_mtime_ns")
OUTCOME_TYPES: dict[str, str] = {
    **dict.fromkeys(_TEXTS, "str"),
    **dict.fromkeys(_NUMBERS, "float64"),
    **dict.fromkeys(_COUNTS, "Int64"),
    "inverted": "boolean",
}


# ``progress(description, total)`` gives a context manager that yields ``advance(n)``.
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


def _no_progress(description: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    return nullcontext(lambda n: None)


@dataclass(frozen=True)
class PrepareOptions:
    """What is asked of `prepare`, as `cxr prepare` explains it."""

    format: str | None
    read: ReadOptions = field(default_factory=ReadOptions)  # what the format should know
    name: str | None = None
    sizes: tuple[int, ...] = ()  # sides of pixel stores to build now, px
    targets: Mapping[str, Sequence[str]] = field(default_factory=dict)  # name -> findings
    rule: SplitRule = field(default_factory=SplitRule)
    split: str | Path | None = None
    window: str | None = None
    id_key: str | Path | None = None
    keep_ids: bool = False
    add: bool = False
    strict: bool = False
    engine: Engine = field(default_factory=lambda: LocalEngine(cpu_count()))
    progress: Progress = _no_progress
    measure_shortcuts: MeasureShortcuts | None = None


def ingest(
    tables: SourceTables, out: Path, options: PrepareOptions, again: pd.Series
) -> pd.DataFrame | None:
    """Decode the images that the journal does not have yet, and those named; None without files."""
    images, root = tables.images, tables.root
    if images["path"].isna().all():
        return None
    # A row of all tables takes less than 1,000 bytes.
    require_free_space(out, len(images) * (1000 + sum(size * size for size in options.sizes)))
    parts = _Journal(out / JOURNAL)
    earlier = parts.read()
    earlier = earlier[~is_member(earlier["image_id"], again)]
    unusable = set(earlier.loc[earlier["error"].notna(), "image_id"])
    with ExitStack() as stack:
        advance = stack.enter_context(options.progress("Reading images", len(images)))
        stores = {
            size: stack.enter_context(PixelStoreWriter(out / "pixels" / store_spec(size), size))
            for size in options.sizes
        }
        decoded = set(earlier["image_id"])
        complete = set.intersection(decoded, *(s.done | unusable for s in stores.values()))
        todo = images[~is_member(images["image_id"], list(complete))].sort_values("image_id")
        advance(len(images) - len(todo))
        tasks = _tasks(todo, root, tuple(stores), options.window)
        rows = decode_all(tasks, engine=options.engine, reads=_some_files(todo, root))
        sizes = _labelled_sizes(todo, tables.boxes)
        for row, path, labelled in zip(rows, todo["path"], sizes, strict=True):
            outcome = _outcome(row, root / path, labelled)
            if options.strict and outcome["error"]:
                raise InputError(f"{outcome['error']}: {row.image_id} (--strict)")
            if not outcome["error"]:
                for size, store in stores.items():
                    store.add(row.image_id, *row.squares[size])
            if row.image_id not in decoded:
                parts.add(outcome, before_writing=[s.commit for s in stores.values()])
            advance(1)
        parts.flush(before_writing=[s.commit for s in stores.values()])
    outcomes = parts.read()
    return outcomes[is_member(outcomes["image_id"], images["image_id"])].reset_index(drop=True)


def outdated_images(images: pd.DataFrame, root: Path, out: Path) -> pd.DataFrame:
    """Find images whose file is another one than when it was decoded, or could not be used."""
    journal, nothing = out / JOURNAL, pd.DataFrame({"image_id": []})
    decoded = _Journal(journal).read() if journal.is_dir() else _typed(nothing)
    rows = decoded.merge(images[["image_id", "path"]].dropna(), on="image_id")
    now = [_file_state(root / path) for path in rows["path"]]
    stated = rows[["file_bytes", "file_mtime_ns"]].fillna(-1).astype("int64").to_numpy()
    usable = rows["error"].isna().to_numpy()
    changed = (stated != np.array(now, dtype="int64").reshape(-1, 2)).any(axis=1) & usable
    chosen = rows.loc[changed | ~usable, ["image_id"]]
    return chosen.assign(replaced=changed[changed | ~usable])


def _file_state(path: Path) -> tuple[int, int]:
    """Bytes and time of a file; zeros where it is gone, as no journal says."""
    try:
        state = path.stat()
    except OSError:
        return 0, 0
    return state.st_size, state.st_mtime_ns


def _tasks(
    images: pd.DataFrame, root: Path, sizes: tuple[int, ...], window: str | None
) -> Iterable[DecodeTask]:
    pairs = zip(images["image_id"], images["path"], strict=True)
    return (DecodeTask(image_id, root / path, sizes, window=window) for image_id, path in pairs)


def _some_files(images: pd.DataFrame, root: Path) -> list[Path]:
    """The folder, and the first and the last file."""
    return [root, *(root / path for path in images["path"].iloc[[0, -1][: len(images)]])]


def _labelled_sizes(images: pd.DataFrame, boxes: pd.DataFrame) -> np.ndarray:
    """What the labels say of each image's size, NaN where nothing."""
    reach = boxes.groupby("image_id")[["x2", "y2"]].max()
    stated = images.reindex(columns=["width", "height"]).astype("float64").to_numpy()
    return np.hstack([stated, reach.reindex(images["image_id"].to_numpy()).to_numpy()])


def _outcome(row: DecodedRow, path: Path, labelled: np.ndarray) -> dict[str, Any]:
    """Turn a decoded row into a journal row."""
    if row.error:
        reason = row.error.removeprefix(f"{path}: ")  # a path may say what must not be told
        return {"image_id": row.image_id, "error_stage": "decode", "error": reason}
    stage, error = _misfit(row, labelled)
    header = {key: row.header.get(key) for key in ("view", "sex", "age_years")}
    spacing = {"spacing_row_mm": row.spacing_row_mm, "spacing_col_mm": row.spacing_col_mm}
    return {
        "image_id": row.image_id,
        "error_stage": stage,
        "error": error,
        "file_sha256": row.file_sha256,
        "height": row.height,
        "width": row.width,
        **spacing,
        **header,
        **row.record,
    }


def _misfit(row: DecodedRow, labelled: np.ndarray) -> tuple[str | None, str | None]:
    """Say why the labels cannot belong to this image, as stage and reason."""
    width, height, reach_x, reach_y = (float(value) for value in labelled)
    for name, stated, actual in (("width", width, row.width), ("height", height, row.height)):
        if not math.isnan(stated) and stated != actual:
            return "size", f"not of the stated size: {name} {stated:g}, the image has {actual} px"
    for name, reach, actual in (("width", reach_x, row.width), ("height", reach_y, row.height)):
        if reach > actual + EDGE_TOLERANCE_PX:
            return "boxes", f"box outside the image: reaches {reach:g}, {name} is {actual} px"
    return None, None


class _Journal:
    """Part files of outcomes; each appears whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = make_folder(folder)
        self._rows: list[dict[str, Any]] = []
        self._parts = len(list(self.folder.glob("part-*.parquet")))

    def add(self, outcome: dict[str, Any], before_writing: list[Callable[[], None]]) -> None:
        self._rows.append(outcome)
        if len(self._rows) >= _PART_ROWS:
            self.flush(before_writing)

    def flush(self, before_writing: list[Callable[[], None]]) -> None:
        if not self._rows:
            return
        for commit in before_writing:  # pixels first: a part promises that they are there
            commit()
        with atomic_path(self.folder / f"part-{self._parts:06d}.parquet") as temporary:
            _typed(pd.DataFrame(self._rows, dtype=object)).to_parquet(temporary, compression="zstd")
        self._parts += 1
        self._rows = []

    def read(self) -> pd.DataFrame:
        parts = [pd.read_parquet(path) for path in sorted(self.folder.glob("part-*.parquet"))]
        if not parts:
            return _typed(pd.DataFrame({"image_id": []}))
        rows = _typed(pd.concat(parts, ignore_index=True))
        return rows.drop_duplicates("image_id", keep="last", ignore_index=True)


# Rows come as objects: by way of float64, a time in nanoseconds would lose its last digits.
def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.reindex(columns=list(OUTCOME_TYPES)).astype(OUTCOME_TYPES)


_FROM_HEADER = ("view", "sex", "age_years")


def assemble(
    tables: SourceTables, outcomes: pd.DataFrame | None
) -> tuple[SourceTables, pd.DataFrame]:
    """Complete the tables of a data set."""
    if outcomes is None:
        stated = tables.images.assign(
            **{
                c: np.nan
                for c in ("spacing_row_mm", "spacing_col_mm", "height", "width")
                if c not in tables.images.columns
            }
        )
        images = _with_spacing(stated).reindex(columns=_columns(tables.images))
        return replace(tables, images=images.sort_values("image_id")), empty_table("decode")
    usable = outcomes["error"].isna()
    images = _complete_images(tables.images, outcomes[usable])
    ids = images["image_id"]
    boxes = tables.boxes[is_member(tables.boxes["image_id"], ids)]
    return replace(
        tables,
        images=images,
        findings=tables.findings[is_member(tables.findings["image_id"], ids)],
        boxes=_trim(boxes, images),
        box_coverage=tables.box_coverage[is_member(tables.box_coverage["image_id"], ids)],
        excluded=pd.concat(
            [tables.excluded, _failures(tables.images, outcomes[~usable])], ignore_index=True
        ),
        split=tables.split[is_member(tables.split["image_id"], ids)],
    ), outcomes.loc[usable, list(SCHEMAS["decode"].columns)].sort_values("image_id")


def _columns(images: pd.DataFrame) -> list[str]:
    free = [c for c in images.columns if c.startswith("x_")]
    return [*SCHEMAS["images"].columns, *free]


def _complete_images(images: pd.DataFrame, outcomes: pd.DataFrame) -> pd.DataFrame:
    """Add what the images tell; where the source's table has a value too, the table's stands."""
    measured = ["image_id", "file_sha256", "height", "width", "spacing_row_mm", "spacing_col_mm"]
    # A stated height or width equals the measured one by now.
    stated = images.drop(columns=[c for c in ("height", "width") if c in images.columns])
    joined = stated.merge(
        outcomes[[*measured, *_FROM_HEADER]], on="image_id", suffixes=("", "_header")
    )
    for column in (*_FROM_HEADER, "spacing_row_mm", "spacing_col_mm"):
        if f"{column}_header" in joined.columns:
            joined[column] = joined[column].fillna(joined[f"{column}_header"])
    return _with_spacing(joined).reindex(columns=_columns(images)).sort_values("image_id")


def _with_spacing(images: pd.DataFrame) -> pd.DataFrame:
    """Spacing from the field's true size where known, else from the header; absurd ones dropped."""
    width, height = images["width"].astype("float64"), images["height"].astype("float64")
    spacing_col, spacing_row = images["spacing_col_mm"], images["spacing_row_mm"]
    if "field_width_mm" in images.columns:
        spacing_col = (images["field_width_mm"] / width).fillna(spacing_col)
        spacing_row = (images["field_height_mm"] / height).fillna(spacing_row)
    believable = (spacing_col * width).between(*FIELD_WIDTH_MM)
    return images.assign(
        spacing_col_mm=spacing_col.where(believable), spacing_row_mm=spacing_row.where(believable)
    )


def _trim(boxes: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Take rounding off the right and lower edges; what is further out was excluded before."""
    sizes = images.set_index("image_id")[["width", "height"]].astype("float64")
    limits = sizes.reindex(boxes["image_id"].to_numpy())
    edges = boxes[["x2", "y2"]].to_numpy()
    over = edges - limits.to_numpy()
    trimmed = np.where((over > 0) & (over <= EDGE_TOLERANCE_PX), limits.to_numpy(), edges)
    return boxes.assign(x2=trimmed[:, 0], y2=trimmed[:, 1])


def _failures(images: pd.DataFrame, failed: pd.DataFrame) -> pd.DataFrame:
    paths = images.set_index("image_id")["path"]
    return pd.DataFrame(
        {
            "path": failed["image_id"].map(paths),
            "stage": failed["error_stage"],
            "reason": failed["error"],
        }
    )
