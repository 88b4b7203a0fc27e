"""The list of formats that `cxr prepare` reads. Detection, help and documents are made from it.

A format of another package is an entry point of the group ``cxr_compare.formats`` (CONTRIBUTING.md
shows one). Formats are found by content: the only one that fits a folder is taken, and where
several fit, the error lists them.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import fields
from importlib.metadata import entry_points
from pathlib import Path

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.table_files import is_table_file
from cxr_compare.data_prep.sources.class_folders import FOLDERS, ROBOFLOW
from cxr_compare.data_prep.sources.coco import COCO
from cxr_compare.data_prep.sources.cvat import CVAT
from cxr_compare.data_prep.sources.described import public_formats
from cxr_compare.data_prep.sources.dicom_folder import DICOM
from cxr_compare.data_prep.sources.image_files import IMAGE_SUFFIXES, files_below
from cxr_compare.data_prep.sources.label_studio import LABEL_STUDIO
from cxr_compare.data_prep.sources.labelme import LABELME
from cxr_compare.data_prep.sources.own_table import TABLE, first_table
from cxr_compare.data_prep.sources.source_tables import Format, ReadOptions, SourceTables
from cxr_compare.data_prep.sources.via import VIA
from cxr_compare.data_prep.sources.voc import VOC
from cxr_compare.data_prep.sources.yolo import YOLO

GROUP = "cxr_compare.formats"
"""Group of the entry points by which other packages add formats."""
_RECORDS = (
    *public_formats(),
    ROBOFLOW,
    CVAT,
    VOC,
    YOLO,
    LABELME,
    VIA,
    LABEL_STUDIO,
    COCO,
    FOLDERS,
    DICOM,
    TABLE,
)
FORMATS: dict[str, Format] = {record.name: record for record in _RECORDS}
"""Formats of this package by name; those of other packages are in `all_formats`."""
_MOST_FOLDERS = 50  # in which a format is looked for
_VAGUE = (DICOM.name, TABLE.name)  # many folders with DICOM files or tables fit these
_LABEL_SUFFIXES = (
    ".json", ".jsonl", ".ndjson", ".xml", ".csv", ".tsv", ".xlsx", ".manifest", ".parquet", ".pkl",
)  # fmt: skip
_SHOWN = 3  # of the files that look like labels


def all_formats() -> dict[str, Format]:
    """Return the formats of this package and of others, by name.

    An entry point that is no `Format`, or has the name of another format, is refused.
    """
    found = dict(FORMATS)
    for point in entry_points(group=GROUP):
        package = point.dist.name if point.dist else point.value
        record = point.load()
        if not isinstance(record, Format):
            raise InputError(f"{package}: entry point {point.name} of {GROUP} is no Format")
        if record.name in found:
            raise InputError(f"{package}: there is a format {record.name} already; rename it")
        found[record.name] = record
    return found


def read_source(
    source: Path,
    format: str | None,  # noqa: A002 - the option's own name
    options: ReadOptions,
    show: Callable[[str], None] = lambda line: None,
    *,
    out: str = "OUT",
) -> SourceTables:
    """Read a user's folder of images and labels in a format; no pixel is decoded.

    None for the format takes the only one that the folder fits, and says so. `show` is called with
    each line about what was recognised, and `out` is the folder of the data set to make, which the
    advice in an error names. A folder that is not in this format, an option that does not apply to
    it, and labels that contradict each other are refused.
    """
    formats = all_formats()
    if all((source / name).exists() for name in ("dataset.json", "images.parquet")):
        raise InputError(
            f"{source}: is a prepared data set already; to combine several, run cxr prepare SET "
            "SET ... --out OUT"
        )
    if format is None and source.is_dir():
        fitting = [name for name in fitting_formats(source) if name not in _VAGUE]
        if len(fitting) == 1:
            format = fitting[0]  # noqa: A001
            show(f"{source}: read as --format {format}")
    if format not in formats:
        if source.is_dir():
            _require_folder(source)  # an empty folder is refused before its format is discussed
        problem = "no --format given" if format is None else f"--format {format} is not known"
        advice = _advice(source, out) if source.is_dir() else None
        advice = advice or f"use one of {', '.join(formats)}"
        raise InputError(f"{source}: {problem}; {advice}")
    for option in fields(options):
        value = getattr(options, option.name)
        if value != option.default and option.name not in formats[format].options:
            users = ", ".join(n for n, record in formats.items() if option.name in record.options)
            raise InputError(
                f"--{option.name.replace('_', '-')}: does not apply to --format {format}; formats "
                f"that take it: {users}"
            )
    _require_folder(source)
    return _read(formats[format], source, options, show, out)


def _read(
    record: Format, source: Path, options: ReadOptions, show: Callable[[str], None], out: str
) -> SourceTables:
    try:
        return record.read(source, options, show)
    except UnicodeEncodeError as error:  # tables hold UTF-8, file systems hold bytes
        name = error.object.encode(errors="replace").decode()
        raise InputError(f"{source}: the name {name!r} is not UTF-8; rename the file") from None
    except InputError as error:
        is_of_folder = str(error).startswith(f"{source}: ")  # not of a file in it
        if options.labels or record.detect(source) or not is_of_folder:
            raise
        below = sorted(path for path in source.iterdir() if path.is_dir())
        for folder in (source.parent, *below[:_MOST_FOLDERS]):
            if record.detect(folder):
                raise InputError(
                    f"{source}: not in {record.name} format, but {folder} is; give that folder"
                ) from None
        if any(name not in _VAGUE for name in fitting_formats(source)):
            advice = _advice(source, out)
            raise InputError(f"{source}: not in {record.name} format; {advice}") from None
        raise InputError(str(error)) from None


def _require_folder(source: Path) -> None:
    """Check that a source is a folder with something in it."""
    if not source.exists():
        raise InputError(f"{source}: no such folder")
    if not source.is_dir():
        how = "cxr prepare labels.csv IMAGES OUT" if is_table_file(source) else None
        raise InputError(f"{source}: a file; {how or 'give the folder that holds the data set'}")
    if next(source.iterdir(), None) is None:
        raise InputError(f"{source}: the folder is empty; give the folder that holds the data set")


def fitting_formats(path: Path) -> list[str]:
    """Return the names of the formats that fit a folder of images and labels, or a label file.

    Folders of classes are one only if no other format than a vague one fits.
    """
    names = [name for name, record in all_formats().items() if record.detect(path)]
    if FOLDERS.name in names and len(set(names) - {FOLDERS.name, *_VAGUE}):
        names.remove(FOLDERS.name)
    return names


def likely_format(folder: Path) -> str | None:
    """Return the first format that fits a folder of images and labels; None if none fits."""
    return next(iter(fitting_formats(folder)), None)


def format_beside_tables(folder: Path) -> str:
    """Return the format of a folder of images that is given after label tables.

    It is that of the label files in the folder if they are of one tool, else ``table``.
    """
    formats = all_formats()
    fitting = [name for name in fitting_formats(folder) if name not in _VAGUE]
    if len(fitting) == 1 and "labels" in formats[fitting[0]].options:
        return fitting[0]
    return TABLE.name


def format_of_file(path: Path) -> str | None:
    """Return the format of a file of labels by its content; None if it is of no known format.

    A table is one by its name alone, and so is an XML file, which is then refused by its content.

    Example:
        >>> format_of_file(Path("labels.xlsx")), format_of_file(Path("out/rsna"))
        ('table', None)
    """
    if path.is_dir():
        return None
    fitting = fitting_formats(path) if path.is_file() else []
    by_name = "table" if is_table_file(path) else None
    if path.suffix.lower() == ".xml":
        by_name = "cvat"
    return next(iter(fitting), by_name)


def _advice(folder: Path, out: str = "OUT") -> str | None:
    """Return advice on the format of a folder with a whole command, or None without images."""
    fitting = fitting_formats(folder)
    sure = [name for name in fitting if name not in _VAGUE]
    if sure:
        names = " or ".join(f"--format {name}" for name in sure)
        return f"it looks like {names}: {prepare_command(folder, out)}"
    for below in sorted(path for path in folder.iterdir() if path.is_dir())[:_MOST_FOLDERS]:
        inside = [name for name in fitting_formats(below) if name not in _VAGUE]
        if inside:
            command = prepare_command(below, out)
            return f"its folder {below.name} looks like --format {inside[0]}: {command}"
    others = _unread_files(folder)
    if others and DICOM.name not in fitting:
        return (
            f"it holds files of no format that is read: {others}; export the labels as COCO, "
            f"Pascal VOC or YOLO, or give a table: {_table_command('LABELS.csv', folder, out)}"
        )
    if fitting:
        name = fitting[0]
        if name == TABLE.name:
            command = prepare_command(folder, out)
            return f"it looks like a table of labels with images: {command}"
        with_labels = _table_command("LABELS.csv", folder, out)
        command = prepare_command(folder, out)
        return f"it looks like --format {name}: {command}; with labels: {with_labels}"
    images = files_below(folder, IMAGE_SUFFIXES)
    if not images:
        return None
    return (
        f"it has {counted(len(images), 'image file')} but no table of labels, so give one, with a "
        "column for the file names and one for the labels: "
        f"{_table_command('LABELS.csv', folder, out)}"
    )


def _unread_files(folder: Path) -> str:
    """Return the names of the files of a folder that look like labels, without its own tables."""
    paths = files_below(folder, _LABEL_SUFFIXES)
    tables = (".csv", ".tsv", ".xlsx")
    others = [path for path in paths if "/" in path or not path.lower().endswith(tables)]
    more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    return ", ".join(others[:_SHOWN]) + more


def prepare_command(folder: Path, out: str) -> str:
    """Return the command ``cxr prepare`` for a user's folder, in the format that it looks like.

    For a folder in no known format it takes a table of labels.
    """
    name = likely_format(folder)
    if name is None or name == TABLE.name:
        return _table_command(str(first_table(folder) or "LABELS.csv"), folder, out)
    ids = " --id-key KEY_FILE" if name == DICOM.name else ""
    return f"cxr prepare {shlex.quote(str(folder))} {shlex.quote(out)} --format {name}{ids}"


def _table_command(table: str, folder: Path, out: str) -> str:
    return f"cxr prepare {shlex.quote(table)} {shlex.quote(str(folder))} {shlex.quote(out)}"
