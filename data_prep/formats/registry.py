"""The formats that `cxr prepare` reads: detection, help and the table in the docs follow from here.

A new format is a module with a `Format` record, its line here, and its test. Its ``read`` gathers
notes and exclusions in a `SourceBuilder`, which then makes the tables. Then
``python tests/documents.py`` writes the table of the docs anew.
"""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path

from data_prep.contracts.errors import InputError
from data_prep.formats.coco import COCO
from data_prep.formats.covid import COVID_SETS
from data_prep.formats.csv_tables import CSV
from data_prep.formats.dicom_folder import DICOM
from data_prep.formats.kermany import KERMANY
from data_prep.formats.nih import NIH
from data_prep.formats.rsna import RSNA
from data_prep.formats.source import (
    Format,
    ReadOptions,
    SourceBuilder,
    SourceTables,
    WrongFormatError,
)
from data_prep.formats.vindr import VINDR
from data_prep.formats.voc import VOC
from data_prep.formats.yolo import YOLO

# Detection takes the first that fits, so the vague ones stand last.
FORMATS: dict[str, Format] = {
    record.name: record
    for record in (RSNA, CSV, NIH, VINDR, KERMANY, COVID_SETS, VOC, YOLO, COCO, DICOM)
}


def read_source(source: Path, format: str | None, options: ReadOptions) -> SourceTables:  # noqa: A002
    """Read a source folder in the format that the user named."""
    if all((source / name).exists() for name in ("dataset.json", "images.parquet")):
        raise InputError(
            f"{source}: is a prepared set already; to put several into one, say cxr prepare SET "
            "SET ... --out OUT"
        )
    if format not in FORMATS:
        likely = _likely_format(source) if source.is_dir() else None
        what = "no --format given" if format is None else f"--format {format} is not known"
        advice = (
            f"it looks like --format {likely}" if likely else f"use one of {', '.join(FORMATS)}"
        )
        raise InputError(f"{source}: {what}; {advice}")
    for option in fields(options):
        value = getattr(options, option.name)
        if value != option.default and option.name not in FORMATS[format].options:
            raise InputError(
                f"--{option.name.replace('_', '-')}: means nothing to --format {format}; "
                f"only {', '.join(_formats_with(option.name))} uses it"
            )
    _require_folder(source)
    builder = SourceBuilder(FORMATS[format], source, options)
    try:
        if not builder.format.is_deep:
            builder.require_format()
        return builder.format.read(builder)
    except WrongFormatError as error:
        likely = _likely_format(source)
        advice = f"it looks like --format {likely}" if likely else "no known format fits it"
        raise InputError(f"{error}; {advice}") from None
    except UnicodeEncodeError as error:  # tables hold UTF-8, file systems hold bytes
        name = error.object.encode(errors="replace").decode()
        raise InputError(f"{source}: the name {name!r} is not UTF-8; rename the file") from None


def _require_folder(source: Path) -> None:
    """Check that a source is a folder with something in it."""
    if not source.exists():
        raise InputError(f"{source}: no such folder")
    if not source.is_dir():
        raise InputError(f"{source}: a file; give the folder that holds the data set")
    if next(source.iterdir(), None) is None:
        raise InputError(f"{source}: the folder is empty; give the folder that holds the data set")


def _likely_format(folder: Path) -> str | None:
    """The likely ``--format`` of an existing folder; None where nothing fits."""
    return next((name for name, record in FORMATS.items() if record.detect(folder)), None)


def unprepared(folder: Path) -> str | None:
    """Says of a folder, or one right below it, that it holds a download still to be prepared."""
    name, where = _likely_format(folder), folder
    if name in (None, DICOM.name):  # any tree with DICOM files in it fits that
        for below in sorted(path for path in folder.iterdir() if path.is_dir()):
            if (inner := _likely_format(below)) not in (None, DICOM.name):
                name, where = inner, below
                break
    if name is None:
        return None
    return (
        f"looks like a raw download ({name}: {FORMATS[name].title}); run: cxr prepare "
        f"{shlex.quote(str(where))} out/data --format {name}"
    )


def _formats_with(option: str) -> list[str]:
    """Names of the formats that take a `ReadOptions` field."""
    return [name for name, record in FORMATS.items() if option in record.options]
