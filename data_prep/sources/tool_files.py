"""Files in which an annotation tool (CVAT, Label Studio, VIA) exports the labels of many images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.box_readings import BoxReading
from cxr_compare.data_prep.contracts.column_names import column_names, find_column
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.sources.annotations import (
    ImageLabels,
    LabelFiles,
    read_annotations,
)
from cxr_compare.data_prep.sources.image_files import files_below
from cxr_compare.data_prep.sources.label_values import plain_facts
from cxr_compare.data_prep.sources.source_tables import ReadOptions, Show, SourceTables

TOOL_OPTIONS = ("labels", "columns", "reference", "raw_boxes", "patient_pattern")
"""Options of the formats of annotation tools."""
_FACTS = {
    "patient_id": "patient",
    "study_id": "study",
    "view": "view",
    "sex": "sex",
    "age_years": "age",
}
ReadFile = Callable[[LabelFiles, Path], Iterator[ImageLabels]]


def read_tool_files(
    name: str,
    suffixes: tuple[str, ...],
    read: ReadFile,
    is_of_tool: Callable[[Path], bool],
    root: Path,
    options: ReadOptions,
    show: Show,
) -> SourceTables:
    """Read the files that an annotation tool has exported.

    Args:
        name: Name of the format.
        suffixes: Suffixes of the files in lower case, such as ``.xml``.
        read: Function that yields the labels of each image in one file.
        is_of_tool: Function that returns True for a file of the tool.
        root: Folder of images, or one file that is read without them.
        options: Options of the user, which may name the files; if they name none, all files of the
            folder are read.
        show: Function that shows the user a line.
    """
    read_all = partial(_read_all, suffixes, read, is_of_tool)
    # These files name each number of a box: nothing is asked about them.
    reading = BoxReading(affirmed=True)
    # A finding that is only ever a tag or a choice has no boxes.
    return read_annotations(
        name, read_all, root, options, show, reading, ("reader",), coverage="localised"
    )


def _read_all(
    suffixes: tuple[str, ...],
    read: ReadFile,
    is_of_tool: Callable[[Path], bool],
    files: LabelFiles,
) -> Iterator[ImageLabels]:
    """Yield the labels of all files, each of one reader if the user says so."""
    root = files.source.root
    paths = list(files.source.options.labels)
    if root.is_file():
        paths = [root]
    paths = paths or [root / name for name in files_below(root, suffixes)]
    paths = [path for path in paths if is_of_tool(path)] or paths
    if not paths:
        raise InputError(f"{root}: holds no file of --format {files.source.format}")
    column = files.source.options.role("reader")
    if column not in (None, "TABLE"):
        raise InputError(f"--columns reader={column}: say reader=TABLE, for a file of each reader")
    file_of: dict[str, Path] = {}
    for path in paths:
        same = [other for other in paths if other.name == path.name]
        reader = (path.parent if len(same) > 1 else path).name.partition(".")[0]
        for labels in read(files, path):
            first = file_of.setdefault(labels.image, path)
            if column:
                labels.marks = [replace(mark, reader=reader) for mark in labels.marks]
                labels.readers = [reader] if labels.readers else ()
            elif first != path:
                raise InputError(
                    f"{path}: another file marks the same images, such as {labels.image!r}; if "
                    "each file is of one reader, give --columns reader=TABLE"
                )
            yield labels


def value_of_role(values: Mapping[str, Any], role: str) -> Any:
    """Return the value whose name means a role, such as ``reader``; None without one."""
    name = find_column(list(values), (role, *column_names(role)))
    return None if name is None else values[name]


def facts_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return patient, study, view, sex and age among the attributes that a user defined."""
    return plain_facts({fact: value_of_role(values, role) for fact, role in _FACTS.items()})
