"""Label tables from the files of the annotation tools CVAT, Label Studio and VIA.

Each file becomes a label table with one row for each shape or label of an image, and a row without
a label for an image on which an annotator marked nothing. It is then read as the user's own tables
are: attributes are columns, and a table beside it adds to it.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.box_numbers import finite_or_nan
from cxr_compare.data_prep.contracts.box_readings import sorted_corners
from cxr_compare.data_prep.contracts.boxes import turned_points
from cxr_compare.data_prep.contracts.errors import InputError, counted, counted_phrase
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.table_files import read_text_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.image_files import IMAGE_SUFFIXES, files_below
from cxr_compare.data_prep.sources.own_table import read_own_tables
from cxr_compare.data_prep.sources.source_tables import ReadOptions, Show, SourceTables
from cxr_compare.data_prep.sources.statements import Source
from cxr_compare.data_prep.sources.table_roles import read_tables, recognise_tables

BOX_SIDES = ("xmin", "ymin", "xmax", "ymax")
UNKNOWN = "unknown"
"""Label which means that all other findings of the image are unknown."""
LabelRow = dict[str, str]
_PATIENTS = "patients.csv"
_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
_ANGLES = np.deg2rad(np.arange(360))
_ELLIPSE = np.column_stack([np.cos(_ANGLES), np.sin(_ANGLES)])
_MOST_DEGREES = 360
_IMAGES_NAMED = 5


@dataclass
class MarkNotes:
    """Notes about labels of an annotation tool that cannot be read without loss.

    Attributes:
        counts: Number of shapes by the text of a note, such as a note on rotated boxes.
        unread: Ids of images with a shape or text that states no finding, such as a box without a
            class.
        files: Names of the image files in the user's folder.
    """

    counts: Counter[str] = field(default_factory=Counter)
    unread: list[str] = field(default_factory=list)
    files: frozenset[str] = frozenset()

    def sentences(self) -> list[str]:
        """Return the notes as sentences, each with its number of shapes or images."""
        notes = [counted_phrase(n, text) for text, n in self.counts.items() if n]
        images = list(dict.fromkeys(self.unread))
        if images:
            named = ", ".join(images[:_IMAGES_NAMED])
            if len(images) > _IMAGES_NAMED:
                named += ", ..."
            notes.append(
                f"WARNING: {counted(len(images), 'image', 'have')} marks that state no finding, "
                f"such as a box without a class or a text ({named}). Findings that no other mark "
                "names "
                "are unknown on these images, not absent; give the marks a class, or remove them"
            )
        return notes


ReadMarks = Callable[[Path, MarkNotes], Iterator[LabelRow]]


def read_tool_files(
    name: str,
    suffixes: str | tuple[str, ...],
    read: ReadMarks,
    is_of_tool: Callable[[Path], bool],
    root: Path,
    options: ReadOptions,
    show: Show,
) -> SourceTables:
    """Read the files that an annotation tool has exported, and tables beside them.

    Args:
        name: Name of the format.
        suffixes: Suffix of the files in lower case, such as ``.xml``, or several.
        read: Function that returns the rows of one file, one row for each label of an image.
        is_of_tool: Function that returns True for a file of the tool; other files with the suffix
            are passed over.
        root: Folder of images, or one file that is read without them.
        options: Options of the user, which may name the files; if they name none, all files of the
            folder are read.
        show: Function that shows the user a line.
    """
    source = Source(name, root, options, show)
    made = _tables_of_files(source, suffixes, read, is_of_tool)
    return read_own_tables(source, recognise_tables(read_tables(source, made), source))


def _tables_of_files(
    source: Source,
    suffixes: str | tuple[str, ...],
    read: ReadMarks,
    is_of_tool: Callable[[Path], bool],
) -> dict[Path, pd.DataFrame]:
    """Return one label table by the path of each file of a tool, and of tables of patients."""
    root = source.root
    images = [] if root.is_file() else files_below(root, IMAGE_SUFFIXES)
    notes = MarkNotes(files=frozenset(map(posixpath.basename, images)))
    tables: dict[Path, pd.DataFrame] = {}
    given = [path for path in source.options.labels if path.name.lower().endswith(suffixes)]
    listed = [path for path in given if is_of_tool(path)]
    if root.is_file():
        listed = [root]
    for path in listed or [root / name for name in files_below(root, suffixes)]:
        if not is_of_tool(path):
            continue
        frame = pd.DataFrame(list(read(path, notes)))
        if frame.empty:
            raise InputError(f"{path}: labels no image")
        columns = list(dict.fromkeys([*frame.columns, "label", *BOX_SIDES]))
        table = frame.reindex(columns=columns, fill_value="").fillna("").astype(TEXT)
        tables[path] = table.replace({"reader": {"": REFERENCE_READER}})
    if not tables:
        raise InputError(f"{root}: holds no file of --format {source.format}")
    source.notes += notes.sentences()
    named = Counter(name for t in tables.values() if "file" in t for name in t["file"].unique())
    if named and named.most_common(1)[0][1] > 1 and not source.options.columns:
        raise InputError(
            f"{path}: another file marks the same images, such as {named.most_common(1)[0][0]!r}; "
            "if each file is of one reader, give --columns reader=TABLE"
        )
    for path in {folder / _PATIENTS: 0 for folder in [root, *(p.parent for p in tables)]}:
        if path.is_file():
            tables[path] = read_text_table(path, ())
    return tables


def box_cells(
    shape: Mapping[str, Any],
    size: Any,
    notes: MarkNotes,
    scale: Any = 1,
    *,
    turns: str = "middle",
) -> LabelRow:
    """Return the box of a shape as cells of a row of a label table.

    A shape that is no box is replaced by the upright box around it. Rectangles may be drawn from
    any corner.

    Args:
        shape: Numbers of the shape, under the names that CVAT gives them, such as ``xtl`` for the
            left edge.
        size: Width and height of the image, px.
        notes: Object that counts the shapes that are no upright box.
        scale: Factor from the unit of the shape to px of the image, one number or one each for x
            and y.
        turns: Centre of the shape's rotation: its "middle" or its upper left "corner".

    Returns:
        Cells of one row of a label table as text: ``xmin``, ``ymin``, ``xmax`` and ``ymax``, px.
    """

    def numbers(*names: str) -> Any:
        return np.array(finite_or_nan(map(shape.get, names))) * scale

    turn = _degrees(shape.get("rotation", 0))
    low = numbers("xtl", "ytl")
    high = numbers("xbr", "ybr")
    if "left" in shape:
        low = numbers("left", "top")
        high = low + numbers("width", "height")
    edges = np.concatenate([low, high])
    points = low + (high - low) * _CORNERS
    pivot = low if turns == "corner" else (low + high) / 2
    if "rx" in shape:
        pivot = numbers("cx", "cy")
        points = pivot + numbers("rx", "ry") * _ELLIPSE
    elif "points" in shape:
        numbers_of_points = finite_or_nan(shape["points"])
        if not numbers_of_points or len(numbers_of_points) % 2:
            numbers_of_points = [np.nan, np.nan]
        points = np.reshape(numbers_of_points, (-1, 2)) * scale
    if turn:
        points = turned_points(points, turn, pivot)
    if turn or shape.keys() & {"rx", "points", "rle"}:
        around = np.concatenate([points.min(axis=0), points.max(axis=0)])
        edges = np.clip(around, 0, [*size, *size])
        notes.counts["shapes have no upright box: the box around each of these is taken"] += 1
    elif (low > high).any():
        edges = sorted_corners(edges[None])[0]
        notes.counts[
            "boxes were drawn from another corner than the upper left: corners are sorted"
        ] += 1
    edges = np.where(np.isnan(edges), np.inf, edges)  # an infinite edge excludes the image
    return dict(zip(BOX_SIDES, edges.round(4).astype(str), strict=True))


def _degrees(value: Any) -> float:
    """Return a rotation in degrees, or NaN if the value is none."""
    (degrees,) = finite_or_nan([value])
    return degrees if abs(degrees) <= _MOST_DEGREES else np.nan
