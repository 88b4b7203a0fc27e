"""The formats that `cxr prepare` reads: detection, help and the table in the docs follow from here.

A new format is a module with a `Format` record, its line here, and its test. Its ``read`` gathers
notes and exclusions in a `SourceBuilder`, which then makes the tables. Then
``python tools/documents.py`` writes the table of the docs anew.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.table_files import is_table_file
from cxr_compare.data_prep.formats.coco import COCO
from cxr_compare.data_prep.formats.covid import COVID_SETS
from cxr_compare.data_prep.formats.csv_files import CSV
from cxr_compare.data_prep.formats.cvat import CVAT
from cxr_compare.data_prep.formats.dicom_folder import DICOM
from cxr_compare.data_prep.formats.kermany import KERMANY
from cxr_compare.data_prep.formats.label_studio import LABEL_STUDIO
from cxr_compare.data_prep.formats.nih import NIH
from cxr_compare.data_prep.formats.rsna import RSNA
from cxr_compare.data_prep.formats.source import Format, ReadOptions, SourceTables, WrongFormatError
from cxr_compare.data_prep.formats.structured_reports import SR
from cxr_compare.data_prep.formats.table import TABLE, first_table
from cxr_compare.data_prep.formats.vindr import VINDR
from cxr_compare.data_prep.formats.voc import VOC
from cxr_compare.data_prep.formats.yolo import YOLO

# Detection takes the first that fits, so the vague ones stand last.
_RECORDS = (
    RSNA,
    CSV,
    NIH,
    VINDR,
    KERMANY,
    COVID_SETS,
    CVAT,
    VOC,
    YOLO,
    LABEL_STUDIO,
    COCO,
    DICOM,
    SR,
    TABLE,
)
FORMATS: dict[str, Format] = {record.name: record for record in _RECORDS}


def read_source(
    source: Path,
    format: str | None,  # noqa: A002 - the option's own name
    options: ReadOptions,
    say: Callable[[str], None] = lambda line: None,
) -> SourceTables:
    """Read a source folder in the format that the user named; `say` shows what was recognised."""
    if all((source / name).exists() for name in ("dataset.json", "images.parquet")):
        raise InputError(
            f"{source}: is a prepared set already; to put several into one, say cxr prepare SET "
            "SET ... --out OUT"
        )
    if format not in FORMATS:
        if source.is_dir():
            _require_folder(source)  # that it is empty is what to say first
        what = "no --format given" if format is None else f"--format {format} is not known"
        advice = _likely(source) if source.is_dir() else None
        raise InputError(f"{source}: {what}; {advice or 'use one of ' + ', '.join(FORMATS)}")
    for option in fields(options):
        value = getattr(options, option.name)
        if value != option.default and option.name not in FORMATS[format].options:
            users = ", ".join(n for n, record in FORMATS.items() if option.name in record.options)
            raise InputError(
                f"--{option.name.replace('_', '-')}: means nothing to --format {format}; only "
                f"{users} uses it"
            )
    _require_folder(source)
    try:
        return FORMATS[format].tables(source, options, say)
    except WrongFormatError as error:
        raise InputError(f"{error}; {_likely(source) or 'no known format fits it'}") from None


def _require_folder(source: Path) -> None:
    """Check that a source is a folder with something in it."""
    if not source.exists():
        raise InputError(f"{source}: no such folder")
    if not source.is_dir():
        how = "cxr prepare labels.csv IMAGES OUT" if is_table_file(source) else None
        raise InputError(f"{source}: a file; {how or 'give the folder that holds the data set'}")
    if next(source.iterdir(), None) is None:
        raise InputError(f"{source}: the folder is empty; give the folder that holds the data set")


def _likely_format(folder: Path) -> str | None:
    """The likely ``--format`` of an existing folder; None where nothing fits."""
    return next((name for name, record in FORMATS.items() if record.detect(folder)), None)


def _likely(folder: Path) -> str | None:
    """What to say of a folder that some format fits; None where none does."""
    name = _likely_format(folder)
    if name == TABLE.name:
        return f"it looks like a table of labels with images: {_command(name, folder, 'OUT')}"
    return name and f"it looks like --format {name}"


def _command(name: str, folder: Path, out: str) -> str:
    """The command that prepares a folder."""
    source = shlex.quote(str(folder))
    if name == TABLE.name:
        return f"cxr prepare {shlex.quote(str(first_table(folder)))} {source} {out}"
    return f"cxr prepare {source} {out} --format {name}"


def unprepared(folder: Path) -> str | None:
    """Says of a folder, or one right below it, that it holds a download still to be prepared."""
    name = _likely_format(folder)
    where = folder
    vague = (None, DICOM.name, TABLE.name)  # many a tree with DICOM files or tables fits those
    if name in vague:
        for below in sorted(path for path in folder.iterdir() if path.is_dir()):
            if (inner := _likely_format(below)) not in vague:
                name = inner
                where = below
                break
    if name is None:
        return None
    command = _command(name, where, "out/data")
    return f"looks like a raw download ({name}: {FORMATS[name].title}); run: {command}"
