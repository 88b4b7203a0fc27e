"""Preparation of a data set folder from a source folder: tables, pixels, splits and audit.

A call that was interrupted can be repeated, and goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.box_check import misfit
from cxr_compare.data_prep.base.boxes import FIELD_WIDTH_MM, are_scaled
from cxr_compare.data_prep.base.errors import InputError, Remedy, as_typed, counted
from cxr_compare.data_prep.base.files import folder_lock
from cxr_compare.data_prep.base.ids import TEXT, is_member
from cxr_compare.data_prep.base.pseudonyms import (
    KEY_ID_TEXT,
    hide_ids,
    hide_names,
    hide_paths,
    keyed_hash,
    read_id_key,
)
from cxr_compare.data_prep.base.tables import (
    HEADER_FACTS,
    KINDS,
    empty_table,
    frame_digest,
    typed_table,
)
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.new_set import (
    LABEL_TABLES,
    Options,
    begin,
    exclude_listed,
    without,
    write_set,
)
from cxr_compare.data_prep.pixels import JOURNAL, SquareWriter
from cxr_compare.data_prep.preprocess import require_side
from cxr_compare.data_prep.sources.record import ReadRecord
from cxr_compare.data_prep.sources.registry import read_source
from cxr_compare.data_prep.sources.source import SourceTables
from cxr_compare.data_prep.splits import Split, read_split_file

_NAMED = 5  # turned images that a note names


def prepare(source: str | Path, out: str | Path, options: Options) -> DataSet:
    """Make a data set folder (tables, splits, images, checks) from a user's folder of images.

    A complete folder of the same request is opened.

    Raises:
        InputError: The source cannot be read, or the folder holds something else.
    """
    source, out = Path(source), Path(out)
    for size in options.sizes:
        require_side(size)
    key = _read_key(options, out, source)
    id_key = None if key is None else keyed_hash(key, KEY_ID_TEXT)
    # The name of a folder may be that of a patient.
    record = ReadRecord(options.progress.say, hidden="" if key is None else str(source))
    for line in options.said:
        record.keep(line)
    for name, members in options.targets.items():
        if len({*members}) > 1:
            record.add("target", f"{', '.join(members)} = {name}")
    tables = read_source(source, options.format, options.read, record)
    tables = tables.with_targets(options.targets)
    split = _stated_split(options, tables)
    if key is not None:
        tables = _hidden(tables, key, options.read.labels)
        split = None if split is None else (hide_ids(split[0], key), split[1])
    if options.exclude is not None:
        tables = exclude_listed(tables, options.exclude)
    request = _request(tables, options, split, id_key)
    with folder_lock(out):
        if not begin(out, request, options.sizes, _space(tables, options.sizes)):
            tables, decode, squares = _decode(tables, out, options)
            if tables.images.empty:
                first = tables.excluded.iloc[0]
                raise InputError(f"{source}: no usable image; {first['path']}: {first['reason']}")
            write_set(out, tables, decode, request, options, split, key, id_key, squares)
        (out / JOURNAL).unlink(missing_ok=True)
    dataset = DataSet.open(out)
    for size in options.sizes:  # of a set that was complete before
        dataset.make_store(size, options.progress, options.workers)
    return dataset


def _read_key(options: Options, out: Path, source: Path) -> bytes | None:
    if options.id_key is not None:
        if options.keep_ids:
            both = as_typed({"id_key": str(options.id_key), "keep_ids": True})
            raise InputError(f"{both}: choose one of them")
        return read_id_key(options.id_key, out, source)
    if options.format == "dicom" and not options.keep_ids:
        raise InputError(
            f"{source}: holds DICOM files, whose ids and paths may name patients",
            [
                Remedy("they do (the key is made where there is none)", {"id_key": "FILE"}),
                Remedy("the files are de-identified already", {"keep_ids": True}),
            ],
        )
    return None


def _stated_split(options: Options, tables: SourceTables) -> Split | None:
    """Read the user's own split before any image, since it may be refused."""
    if options.split is None or (options.split == "official" and len(tables.official)):
        return None
    if options.split != "official":
        return read_split_file(Path(options.split), tables.images)
    if len(tables.split) and len(tables.split) == len(tables.images):
        return None  # the source gives every image a role, which makes the default split
    given = as_typed({"split": "official"})
    raise InputError(f"{given}: the source has no split of its own; leave it out")


def _hidden(tables: SourceTables, key: bytes, labels: Sequence[Path]) -> SourceTables:
    """Hide ids in all tables and texts; paths of images stay until the images are read.

    Tables of labels are numbered, as one may be called after a patient or a hospital.
    """
    images = tables.images
    columns = images.reindex(columns=["image_id", "patient_id", "study_id", "path"])
    names = pd.Series([*columns.to_numpy().ravel(), *tables.excluded["path"]], dtype=TEXT)
    reasons = hide_names(tables.excluded["reason"], names)
    hidden: dict[str, Any] = {n: hide_ids(getattr(tables, n), key) for n in LABEL_TABLES}
    notes = hide_names(pd.Series(tables.notes, dtype=TEXT), names)
    is_line = tables.read["fact"].isna()  # facts are words of ours and numbers
    lines = hide_names(tables.read.loc[is_line, "text"], names)
    for number, path in enumerate(labels, start=1):
        notes = notes.str.replace(path.name, f"table {number}", regex=False)
        lines = lines.str.replace(path.name, f"table {number}", regex=False)
    return replace(
        tables,
        images=hide_ids(images, key),
        excluded=hide_paths(tables.excluded, key).assign(reason=reasons),
        notes=tuple(notes),
        read=tables.read.assign(text=tables.read["text"].mask(is_line, lines)),
        **hidden,
    )


def _request(
    tables: SourceTables, options: Options, split: Split | None, id_key: str | None
) -> str:
    """Return a digest of what defines the data set: all tables and files, and the options."""
    frames = [getattr(tables, name) for name in ("images", *LABEL_TABLES, "excluded")]
    frames += [] if split is None else [split[0]]
    choices = (
        str(tables.root.resolve()),
        options.rule,
        {name: target.any_of for name, target in tables.targets.items()},
        options.read.reference,
        options.split,
        id_key,
    )
    digest = hashlib.sha256(repr(choices).encode())
    for frame in frames:
        digest.update(frame_digest(frame.astype(TEXT), frame.columns).encode())
    for path in tables.images["path"].dropna():
        try:
            state = (tables.root / path).stat()
            digest.update(f"{state.st_size} {state.st_mtime_ns};".encode())
        except OSError:  # found and listed when it is decoded
            digest.update(b"-;")
    return digest.hexdigest()[:16]


def _space(tables: SourceTables, sizes: Sequence[int]) -> int:
    """Return the bytes that the facts and squares of all images take."""
    n_images = 0 if tables.images["path"].isna().all() else len(tables.images)
    return n_images * (1000 + sum(size * size for size in sizes))


def _decode(
    tables: SourceTables, out: Path, options: Options
) -> tuple[SourceTables, pd.DataFrame, dict[str, str]]:
    """Decode the images of a source; return its tables with the measured facts, and squares."""
    images = tables.images.sort_values("image_id", ignore_index=True)
    if images["path"].isna().all():
        if options.sizes:
            raise InputError(f"{tables.root}: the source gives no images, so size is left out")
        facts = images.reindex(columns=["image_id", "file_sha256", "height", "width"])
        return _with_facts(tables, facts), empty_table("decode"), {}
    squares = {}
    with SquareWriter(out, out / JOURNAL, images["image_id"], options.sizes) as writer:
        with options.progress.track("Reading images", len(images)) as advance:
            errors = writer.decode(
                images[["image_id", "path"]], tables.root, options.workers, advance, options.engine
            )
        facts = _without_lone_machines(writer.facts(), images)
        sizes = _misfits(images, facts)
        reasons = pd.Series({**errors, **sizes}, dtype=TEXT)
        paths = images.set_index("image_id")["path"]
        stages = ["size" if image_id in sizes else "decode" for image_id in reasons.index]
        gone = pd.DataFrame(
            {"path": paths[reasons.index], "stage": stages, "reason": reasons}, dtype=TEXT
        )
        tables = _with_facts(without(tables, reasons.index.to_series(), gone), facts)
        if len(tables.images):
            squares = writer.finish(tables.images)
    is_kept = is_member(facts["image_id"], tables.images["image_id"])
    decode = facts.loc[is_kept, list(KINDS["decode"].columns)]
    notes = [*tables.label_notes(options.read.reference), *tables.word_notes, *tables.notes]
    is_turned = decode["orientation"].str.startswith("exif-").fillna(False)
    turned = decode.loc[is_turned, "image_id"].tolist()
    if turned and len(tables.boxes):
        names = ", ".join(turned[:_NAMED] + ["..."] * (len(turned) > _NAMED))
        notes.append(
            f"{counted(len(turned), 'image', 'were')} turned as their EXIF says ({names}); boxes "
            "must be of the turned images: if yours are of the stored pixels, turn them, too, or "
            "remove the orientation from the files"
        )
    implied = pd.DataFrame({"text": tables.implied_notes}, dtype=TEXT)
    reading = typed_table(pd.concat([tables.read, implied]), "read")
    return replace(tables, notes=tuple(notes), read=reading), decode, squares


def _without_lone_machines(facts: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Remove names of machines that the headers of one patient alone have: they may name people."""
    facts = facts.copy()
    patients = facts["image_id"].map(images.set_index("image_id")["patient_id"])
    for column in ("header_manufacturer", "header_model"):
        n_patients = patients.groupby(facts[column]).transform("nunique")
        facts[column] = facts[column].where(n_patients > 1)
    return facts


def _misfits(images: pd.DataFrame, facts: pd.DataFrame) -> dict[str, str]:
    """Return why images are left out whose file has another shape than the source states."""
    sides = ["width", "height"]
    measured = facts.set_index("image_id")[sides].astype("float64")
    stated = images.set_index("image_id").reindex(columns=sides).astype("float64")
    stated = stated.reindex(measured.index)
    differ = (stated.notna() & (stated != measured)).any(axis=1)
    differ &= ~are_scaled(stated.to_numpy(), measured.to_numpy())
    sizes = zip(stated[differ].to_numpy(), measured[differ].to_numpy(), strict=True)
    return {name: misfit(*pair) for name, pair in zip(measured.index[differ], sizes, strict=True)}


def _with_facts(tables: SourceTables, facts: pd.DataFrame) -> SourceTables:
    """Add facts of the image files to the table of images; a value of the source has priority.

    The spacing comes from the true field size if it is known. Absurd spacings are dropped.
    """
    header = {f"header_{column}": column for column in HEADER_FACTS}
    columns = ["image_id", "file_sha256", "height", "width", *header]
    measured = facts.reindex(columns=columns).rename(columns=header)
    images = tables.images.drop(columns=["file_sha256", "height", "width"], errors="ignore")
    images = images.merge(measured, on="image_id", suffixes=("", "_found")).sort_values("image_id")
    for column in HEADER_FACTS:
        if f"{column}_found" in images:
            images[column] = images[column].fillna(images[f"{column}_found"])
    for spacing, field_mm, side in (
        ("spacing_col_mm", "field_width_mm", "width"),
        ("spacing_row_mm", "field_height_mm", "height"),
    ):
        if field_mm in images:
            stated = images[field_mm] / images[side].astype("float64")
            images[spacing] = stated.fillna(images[spacing])
    width_mm = images["spacing_col_mm"].astype("float64") * images["width"].astype("float64")
    is_absurd = ~width_mm.between(*FIELD_WIDTH_MM)
    images.loc[is_absurd, ["spacing_col_mm", "spacing_row_mm"]] = np.nan
    extra_columns = [column for column in images.columns if column.startswith("x_")]
    images = typed_table(
        images.reindex(columns=[*KINDS["images"].columns, *extra_columns]), "images"
    )
    return replace(tables, images=images)
