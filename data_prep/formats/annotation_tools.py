"""Formats of annotation tools: CVAT's XML ("CVAT for images 1.1") and Label Studio's JSON.

Each file becomes a label table (`data_prep.formats.table`): a row a shape or label of an image, and
one without a label where somebody looked and marked nothing; docs/formats.md says what counts.
Source: https://docs.cvat.ai/docs/other/xml_format and https://labelstud.io/guide/task_format
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted, counted_phrase
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.table_files import read_text_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.formats.folder_scan import files_below
from cxr_compare.data_prep.formats.label_values import to_edges
from cxr_compare.data_prep.formats.source import SourceBuilder

PATIENTS = "patients.csv"
_MOST_BYTES = 1 << 26
BOX_SIDES = ("xmin", "ymin", "xmax", "ymax")
_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
_ANGLES = np.deg2rad(np.arange(360))
_ELLIPSE = np.column_stack([np.cos(_ANGLES), np.sin(_ANGLES)])
_MOST_DEGREES = 360
_NAMED = 5
UNKNOWN = "unknown"  # as a label: what the image shows beside its other labels is not known
LabelRow = dict[str, str]


@dataclass
class MarkNotes:
    """What the user must know of files of a tool."""

    counts: Counter[str] = field(default_factory=Counter)  # of each sentence, how often it holds
    unread: list[str] = field(default_factory=list)  # images with marks that say nothing to us

    def notes(self) -> list[str]:
        """A sentence for each."""
        notes = [counted_phrase(n, text) for text, n in self.counts.items() if n]
        images = list(dict.fromkeys(self.unread))
        if images:
            named = ", ".join(images[:_NAMED]) + (", ..." if len(images) > _NAMED else "")
            notes.append(
                f"WARNING: {counted(len(images), 'image', 'have')} marks that say nothing here, "
                f"such as a box without a class or a text: findings that no other mark names are "
                f"unknown there, not absent ({named}); give the marks a class, or remove them"
            )
        return notes


ReadMarks = Callable[[Path, MarkNotes], Iterator[LabelRow]]


def box_cells(
    shape: Mapping[str, Any],
    size: Any,
    seen: MarkNotes,
    scale: Any = 1,
    *,
    turns: str = "middle",
) -> LabelRow:
    """Cells of a box, or of the box around a shape, whose numbers have the names of CVAT."""

    def numbers(*names: str) -> Any:
        return np.array(to_edges(map(shape.get, names))) * scale

    turn = np.deg2rad(_degrees(shape.get("rotation", 0)))
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
        given = to_edges(shape["points"])
        whole = given if len(given) % 2 == 0 < len(given) else [np.nan, np.nan]
        points = np.reshape(whole, (-1, 2)) * scale
    if turn:
        # clockwise, as y runs down
        cos = np.cos(turn)
        sin = np.sin(turn)
        points = (points - pivot) @ np.array([[cos, sin], [-sin, cos]]) + pivot
    if turn or shape.keys() & {"rx", "points", "rle"}:
        around = np.concatenate([points.min(axis=0), points.max(axis=0)])
        edges = np.clip(around, 0, [*size, *size])
        seen.counts["shapes have no upright box: the box around each is taken"] += 1
    edges = np.where(np.isnan(edges), np.inf, edges)  # which rules out the image
    return dict(zip(BOX_SIDES, edges.round(4).astype(str), strict=True))


def _degrees(value: Any) -> float:
    """A rotation; NaN where it is none."""
    (degrees,) = to_edges([value])
    return degrees if abs(degrees) <= _MOST_DEGREES else np.nan


def label_tables_of_tool(
    builder: SourceBuilder, suffix: str, read: ReadMarks
) -> dict[Path, pd.DataFrame]:
    """The label tables of a tool's files: those that the user gave, else all in the folder."""
    root = builder.root
    seen = MarkNotes()
    tables = dict[Path, pd.DataFrame]()
    given = [path for path in builder.options.labels if path.suffix == suffix]
    for path in given or [root / name for name in files_below(root, suffix)]:
        frame = pd.DataFrame(list(read(path, seen)))
        if frame.empty:
            raise InputError(f"{path}: says nothing of an image")
        columns = list(dict.fromkeys([*frame.columns, "label", *BOX_SIDES]))
        table = frame.reindex(columns=columns, fill_value="").fillna("").astype(TEXT)
        tables[path] = table.replace({"reader": {"": REFERENCE_READER}})
    if not tables:
        builder.require_format()
    builder.notes += seen.notes()
    named = Counter(name for t in tables.values() if "file" in t for name in t["file"].unique())
    if named and named.most_common(1)[0][1] > 1 and not builder.options.columns:
        raise InputError(
            f"{path}: another file marks the same images, such as {named.most_common(1)[0][0]!r}; "
            "is each a reader's? Say --columns reader=TABLE"
        )
    for path in {folder / PATIENTS: 0 for folder in [root, *(p.parent for p in tables)]}:
        tables |= {path: read_text_table(path, ())} if path.is_file() else {}
    return tables
