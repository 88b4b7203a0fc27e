"""Files in which an annotation tool (CVAT, Label Studio, VIA) exports the labels of many images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.box_readings import BoxReading
from cxr_compare.data_prep.contracts.column_names import column_names, find_column
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.table_files import is_table_file
from cxr_compare.data_prep.sources.annotations import (
    ImageLabels,
    read_annotations,
)
from cxr_compare.data_prep.sources.image_files import files_below, role_from_path
from cxr_compare.data_prep.sources.label_values import plain_facts
from cxr_compare.data_prep.sources.source_tables import ReadOptions, Show, SourceTables
from cxr_compare.data_prep.sources.statements import Source

_FACTS = {
    "patient_id": "patient",
    "study_id": "study",
    "view": "view",
    "sex": "sex",
    "age_years": "age",
}
ReadFile = Callable[[Source, Path], Iterator[ImageLabels]]


def read_tool_files(
    name: str,
    suffixes: tuple[str, ...],
    read: ReadFile,
    is_of_tool: Callable[[Path], bool],
    root: Path,
    options: ReadOptions,
    show: Show,
) -> SourceTables:
    """Read the files that an annotation tool has exported, and the user's tables beside them.

    `suffixes` are those of the files in lower case, such as ``.xml``; `read` yields the labels of
    each image in one file. `root` is a folder of images, or one file that is read without them. The
    options may name the files; if they name none, all files of the folder are read.
    """
    if options.class_names and not options.labels:
        raise InputError(
            f"--class-names: files of --format {name} name their classes; leave it out"
        )
    tables = [path for path in options.labels if is_table_file(path) and not is_of_tool(path)]
    paths = [path for path in options.labels if path not in tables]
    if root.is_file():
        paths = [root]
    if not paths:
        found = [root / path for path in files_below(root, suffixes)]
        paths = [path for path in found if is_of_tool(path)]
        # A file of another kind is read, too, if it is alone: its reader says what is wrong.
        paths = paths or [path for path in found if not is_table_file(path)]
    if not paths:
        raise InputError(f"{root}: holds no file of --format {name}")
    return read_annotations(
        name,
        partial(_read_all, read, paths),
        root,
        options,
        show,
        # These files name each number of a box: nothing is asked about them.
        BoxReading(affirmed=True, where=str(paths[0])),
        roles=("reader",),
        coverage="localised",  # a finding that is only ever a tag or a choice has no boxes
        tables=tables,
    )


def _read_all(read: ReadFile, paths: Sequence[Path], source: Source) -> Iterator[ImageLabels]:
    """Yield the labels of all files, each of one reader if the user says so."""
    of_file = source.options.role("reader") == "TABLE"
    file_of: dict[str, Path] = {}
    for path in paths:
        same = [other for other in paths if other.name == path.name]
        reader = (path.parent if len(same) > 1 else path).name.partition(".")[0]
        for labels in read(source, path):
            first = file_of.setdefault(labels.image, path)
            if of_file:
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
    """Return the facts of an image among the attributes that a user defined.

    These are patient, study, view, sex, age and role, and attributes ``x_NAME`` of any name.
    """
    facts = plain_facts({fact: value_of_role(values, role) for fact, role in _FACTS.items()})
    role = role_from_path(str(value_of_role(values, "split") or ""))
    own = {name: str(value) for name, value in values.items() if name.startswith("x_")}
    return facts | own | ({"split": role} if role else {})
