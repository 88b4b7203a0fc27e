"""The list of formats that `cxr prepare` reads. Detection, help and documents are made from it.

A new format needs a module with a `Format` record, a line here, and a test. Its function ``read``
collects notes and exclusions in a `SourceBuilder`, which then builds the tables. Afterwards,
``python tools/documents.py`` writes the table of formats in the documents.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.table_files import is_table_file
from cxr_compare.data_prep.formats.coco import COCO
from cxr_compare.data_prep.formats.covid import COVID_SETS
from cxr_compare.data_prep.formats.cvat import CVAT
from cxr_compare.data_prep.formats.dicom_folder import DICOM
from cxr_compare.data_prep.formats.folder_scan import IMAGE_SUFFIXES, files_below
from cxr_compare.data_prep.formats.kermany import KERMANY
from cxr_compare.data_prep.formats.label_file_kinds import unread_tool
from cxr_compare.data_prep.formats.label_studio import LABEL_STUDIO
from cxr_compare.data_prep.formats.labelme import LABELME
from cxr_compare.data_prep.formats.nih import NIH
from cxr_compare.data_prep.formats.rsna import RSNA
from cxr_compare.data_prep.formats.source import Format, ReadOptions, SourceTables, WrongFormatError
from cxr_compare.data_prep.formats.table import TABLE, first_table
from cxr_compare.data_prep.formats.via import VIA
from cxr_compare.data_prep.formats.vindr import VINDR
from cxr_compare.data_prep.formats.voc import VOC
from cxr_compare.data_prep.formats.yolo import YOLO

# Detection takes the first format that fits. Formats that fit many folders therefore come last.
_RECORDS = (
    RSNA,
    NIH,
    VINDR,
    KERMANY,
    COVID_SETS,
    CVAT,
    VOC,
    YOLO,
    LABELME,
    VIA,
    LABEL_STUDIO,
    COCO,
    DICOM,
    TABLE,
)
FORMATS: dict[str, Format] = {record.name: record for record in _RECORDS}
_VAGUE = (DICOM.name, TABLE.name)  # many folders with DICOM files or tables fit these


def read_source(
    source: Path,
    format: str | None,  # noqa: A002 - the option's own name
    options: ReadOptions,
    show: Callable[[str], None] = lambda line: None,
    *,
    out: str = "OUT",
) -> SourceTables:
    """Read a user's folder of images and labels in the format that the user named.

    Args:
        source: The folder, which must not be empty.
        format: Name of the format, such as ``coco``. None takes the only format that the folder
            fits, and says so; if several fit, or only a vague one, it raises an error that suggests
            one.
        options: Options that the user gave, such as the files with labels.
        show: Function that is called with each line about what was recognised.
        out: Folder of the data set to make, which the advice in an error names.

    Returns:
        The tables of the data set: images, findings, boxes and others. No pixel is decoded.

    Raises:
        InputError: The folder is not in this format, an option does not apply to the format, or the
            labels contradict each other.
    """
    if all((source / name).exists() for name in ("dataset.json", "images.parquet")):
        raise InputError(
            f"{source}: is a prepared data set already; to combine several, run cxr prepare SET "
            "SET ... --out OUT"
        )
    if format is None and source.is_dir():
        fitting = [name for name in _fitting_formats(source) if name not in _VAGUE]
        if len(fitting) == 1:
            format = fitting[0]  # noqa: A001
            show(f"{source}: read as --format {format}")
    if format not in FORMATS:
        if source.is_dir():
            _require_folder(source)  # an empty folder is refused before its format is discussed
        problem = "no --format given" if format is None else f"--format {format} is not known"
        advice = _format_advice(source, out) if source.is_dir() else None
        advice = advice or f"use one of {', '.join(FORMATS)}"
        raise InputError(f"{source}: {problem}; {advice}")
    for option in fields(options):
        value = getattr(options, option.name)
        if value != option.default and option.name not in FORMATS[format].options:
            users = ", ".join(n for n, record in FORMATS.items() if option.name in record.options)
            raise InputError(
                f"--{option.name.replace('_', '-')}: does not apply to --format {format}; formats "
                f"that take it: {users}"
            )
    _require_folder(source)
    try:
        return FORMATS[format].read_source(source, options, show)
    except WrongFormatError as error:
        raise InputError(
            f"{error}; {_format_advice(source, out) or 'no known format fits it'}"
        ) from None


def _require_folder(source: Path) -> None:
    """Check that a source is a folder with something in it."""
    if not source.exists():
        raise InputError(f"{source}: no such folder")
    if not source.is_dir():
        how = "cxr prepare labels.csv IMAGES OUT" if is_table_file(source) else None
        raise InputError(f"{source}: a file; {how or 'give the folder that holds the data set'}")
    if next(source.iterdir(), None) is None:
        raise InputError(f"{source}: the folder is empty; give the folder that holds the data set")


def likely_format(folder: Path) -> str | None:
    """Return the first format of ``cxr prepare`` that fits a folder of images and labels.

    Args:
        folder: User's folder of images and labels.

    Returns:
        Name as in ``--format``, such as ``coco``; None if no format fits.
    """
    return next(_fitting_formats(folder), None)


def _fitting_formats(folder: Path) -> Iterator[str]:
    return (name for name, record in FORMATS.items() if record.detect(folder))


def _format_advice(folder: Path, out: str = "OUT") -> str | None:
    """Return advice on the format of a folder with a whole command, or None without images.

    Args:
        folder: Source folder.
        out: Folder to make, as the command names it.
    """
    fitting = list(_fitting_formats(folder))
    name = next(iter(fitting), None)
    tool = unread_tool(folder) if name is None or name in _VAGUE else None
    if tool is not None:
        return (
            f"it holds files of {tool}, which are not read; export its labels as COCO, Pascal VOC "
            "or YOLO"
        )
    if name is None:
        images = files_below(folder, IMAGE_SUFFIXES)
        if not images:
            return None
        return (
            f"it has {counted(len(images), 'image file')} but no table of labels, so give one, "
            "with a column for the file names and one for the labels: "
            f"{prepare_command(folder, out)}"
        )
    command = prepare_command(folder, out)
    if name == TABLE.name:
        return f"it looks like a table of labels with images: {command}"
    others = [other for other in fitting[1:] if other not in _VAGUE]
    or_others = "".join(f" or --format {other}" for other in others if name not in _VAGUE)
    advice = f"it looks like --format {name}{or_others}: {command}"
    if name == DICOM.name:
        advice += f"; with labels: {_table_command('LABELS.csv', folder, out)}"
    return advice


def prepare_command(folder: Path, out: str) -> str:
    """Return the command ``cxr prepare`` for a user's folder, in the format that it looks like.

    Args:
        folder: Folder of a download, or of images.
        out: Folder of the data set to make, as the command names it.

    Returns:
        The command line. For a folder in no known format it takes a table of labels.
    """
    name = likely_format(folder)
    if name is None or name == TABLE.name:
        return _table_command(str(first_table(folder) or "LABELS.csv"), folder, out)
    ids = " --id-key KEY_FILE" if name == DICOM.name else ""
    return f"cxr prepare {shlex.quote(str(folder))} {shlex.quote(out)} --format {name}{ids}"


def _table_command(table: str, folder: Path, out: str) -> str:
    return f"cxr prepare {shlex.quote(table)} {shlex.quote(str(folder))} {shlex.quote(out)}"


def describe_raw_download(folder: Path) -> str | None:
    """Return advice if a user gave a downloaded folder where a prepared data set is needed.

    Args:
        folder: Folder that the user gave as a data set. Its subfolders are checked, too.

    Returns:
        Part of a sentence with the command to run; None if the folder fits no known format.
    """
    name = likely_format(folder)
    where = folder
    vague = (None, *_VAGUE)
    if name in vague:
        for below in sorted(path for path in folder.iterdir() if path.is_dir()):
            if (inner := likely_format(below)) not in vague:
                name = inner
                where = below
                break
    if name is None:
        return None
    command = prepare_command(where, "out/data")
    return f"looks like a raw download ({name}: {FORMATS[name].title}); run: {command}"
