"""From a source folder to a data set folder: tables, pixels, split, audit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from data_prep.assemble import assemble
from data_prep.dataset import DataSet
from data_prep.draw_split import SplitRule
from data_prep.folders import folder_lock, require_free_space
from data_prep.ingest import ingest
from data_prep.parallel import cpu_count
from data_prep.pixel_store import PixelStore, build_pixel_store, store_folder
from data_prep.prepare_summary import Summary, summarise
from data_prep.preprocess import require_size
from data_prep.readers import read_source
from data_prep.set_writer import begin_set, is_complete, write_set
from data_prep.sources import ReadOptions, SourceTables
from data_prep.tables import InputError, frame_digest

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


def _no_progress(description: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    return nullcontext(lambda n: None)


@dataclass(frozen=True)
class _Effort:
    """How the pictures are read; it does not change what comes out."""

    sizes: tuple[int, ...]
    strict: bool
    workers: int
    progress: Progress


def prepare(
    source: Path,
    out: Path,
    *,
    format: str | None,  # noqa: A002 - the option's own name
    options: ReadOptions | None = None,
    name: str | None = None,
    sizes: Iterable[int] = (),
    rule: SplitRule | None = None,
    strict: bool = False,
    workers: int | None = None,
    progress: Progress = _no_progress,
) -> Summary:
    """Make a data set folder from a source folder.

    Every picture is decoded once. The work may be killed at any moment: the same call goes on
    where it stopped. A complete folder is left as it is, but gets the pixel stores it lacks.

    Args:
        source: The data set as its publisher gives it.
        out: Folder to make; new, empty, or begun by the same call.
        format: A name of `data_prep.readers.READERS`.
        options: What the reader should know beside the folder.
        name: The data set's name in reports; the folder's name by default.
        sizes: Sides of pixel stores to build now, px; a training builds the one it needs.
        rule: How the default split is drawn.
        strict: Stop at the first file or label that cannot be used, instead of leaving it out.
        workers: Processes that decode; all available processors by default.
        progress: ``progress(description, total)`` gives a context manager that yields
            ``advance(n)``.

    Returns:
        What came in and what was left out.

    Raises:
        InputError: The source is not of this format, holds nothing usable, or has changed; the
            folder holds something else; or, if strict, anything would be left out.
    """
    source, out = Path(source), Path(out)
    rule = rule or SplitRule()
    sizes = tuple(dict.fromkeys(sizes))
    for size in sizes:
        require_size(size)
    effort = _Effort(sizes, strict, cpu_count() if workers is None else workers, progress)
    tables = _read(source, format, options or ReadOptions(), strict)
    settings = {
        "source_format": format,
        "source_root": str(source.resolve()),
        "source_id": _source_id(tables),
        **asdict(rule),
    }
    is_complete(out, settings)  # refuses a wrong folder before a lock file is put into it
    with folder_lock(out):
        complete = is_complete(out, settings)
        if not complete:
            _build(tables, out, settings, name or out.resolve().name, rule, effort)
        dataset = DataSet.open(out)
        _add_stores(dataset, effort)
    return summarise(dataset, already_complete=complete)


def _read(
    source: Path,
    format: str | None,  # noqa: A002
    options: ReadOptions,
    strict: bool,
) -> SourceTables:
    tables = read_source(source, format, options)
    if strict and len(tables.excluded):
        first = tables.excluded.iloc[0]
        raise InputError(
            f"{source}: {first['path']}: {first['reason']} ({len(tables.excluded)} such images; "
            "without --strict they are left out)"
        )
    return tables


def _source_id(tables: SourceTables) -> str:
    """Digest all that the reader found, to see later whether the source has changed."""
    frames = (tables.images, tables.findings, tables.boxes, tables.split, tables.excluded)
    parts = [frame_digest(frame.astype("str"), frame.columns) for frame in frames]
    return frame_digest(pd.DataFrame({"part": parts}), ["part"])


def _build(
    tables: SourceTables,
    out: Path,
    settings: dict[str, Any],
    name: str,
    rule: SplitRule,
    effort: _Effort,
) -> None:
    """Write every file of the data set; ``dataset.json`` comes last and completes it."""
    work = begin_set(out, settings)
    tables, decode = assemble(tables, _ingest(tables, out, work, effort))
    if tables.images.empty:
        first = tables.excluded.iloc[0]
        raise InputError(f"{tables.root}: no usable image; {first['path']}: {first['reason']}")
    write_set(out, tables, decode, name=name, rule=rule, settings=settings)


def _ingest(tables: SourceTables, out: Path, work: Path, effort: _Effort) -> pd.DataFrame | None:
    if tables.images["path"].isna().all():
        return None
    n_images = len(tables.images)
    # A row of all tables takes less than 1,000 bytes.
    require_free_space(out, n_images * (1000 + sum(size * size for size in effort.sizes)))
    with effort.progress("Reading images", n_images) as advance:
        return ingest(
            tables.images,
            tables.boxes,
            tables.root,
            out,
            journal=work,
            sizes=effort.sizes,
            workers=effort.workers,
            strict=effort.strict,
            advance=advance,
        )


def _add_stores(dataset: DataSet, effort: _Effort) -> None:
    """Build the wanted pixel stores that are not complete yet."""
    if effort.sizes and not dataset.has_pixels:
        raise InputError(f"{dataset.folder}: the source gives no images, so --size does not apply")
    for size in effort.sizes:
        if (store_folder(dataset.folder, size) / "pixels.json").is_file():
            PixelStore.open(store_folder(dataset.folder, size))
            continue
        with effort.progress(f"Pixels at {size} px", len(dataset.images)) as advance:
            build_pixel_store(
                dataset.folder,
                dataset.images,
                dataset.source_root,
                size,
                workers=effort.workers,
                progress=advance,
            )
