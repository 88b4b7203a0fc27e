"""Rows of scores or boxes as they were read, of any file or object, before they are checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.box_readings import (
    BoxForm,
    BoxOrder,
    BoxReading,
    BoxUnit,
    corners_of,
    in_order,
)
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.text import TEXT


@dataclass(frozen=True)
class ColumnNames:
    """Names of the columns of a table, and what the user states about its boxes.

    If a column with one of the default names is absent, a column with a similar name is used.

    Attributes:
        image: Column of the image ids. Of COCO results, ``id`` or ``file_name`` says what their
            ``image_id`` is.
        score: Column of the scores, in [0, 1] or, if the user named it, in any range. Empty if no
            column of a table of boxes holds scores.
        finding: Column of the findings (disease signs). In a table without this column, all rows
            are about one finding. Empty if no column of a table of boxes holds their classes.
        score_is_named: True if the user named the column of scores. It is then not asked whether
            they are the confidence of a predicted class, and they may have any range.
        box_form: Form of the boxes that the user states; None takes that of the source.
        box_unit: Unit of the boxes that the user states; None takes that of the source.
        box_order: Order of the axes, ``yxyx`` for boxes with y before x.
    """

    image: str = "image_id"
    score: str = "score"
    finding: str = "finding"
    score_is_named: bool = False
    box_form: BoxForm | None = None
    box_unit: BoxUnit | None = None
    box_order: BoxOrder = "xyxy"

    def corners(
        self, values: np.ndarray, form: BoxForm, unit: BoxUnit = "px", *, stated: bool = False
    ) -> tuple[np.ndarray, BoxReading]:
        """Return boxes, shape ``(N, 4)``, as corners in their unit, and how they were read.

        `form` and `unit` are those of the source, which count if the user states none; `stated` is
        True if the source names each number.
        """
        reading = BoxReading(
            form=self.box_form or form,
            unit=self.box_unit or unit,
            stated=stated,
            affirmed=self.box_form is not None or self.box_unit is not None,
        )
        unknown = np.full((len(values), 2), np.nan)
        corners = corners_of(values, reading.form, "px", unknown)
        return in_order(corners, self.box_order), reading


def no_rows() -> pd.DataFrame:
    """Return a table of boxes without a row."""
    texts = {name: pd.Series([], dtype=TEXT) for name in ("image_id", "place")}
    return pd.DataFrame({**texts, **{name: np.zeros(0) for name in (*EDGES, "score")}})


@dataclass
class ReadTable:
    """Scores or boxes as read from a file or an object, with notes on how they were read.

    Attributes:
        rows: One row for each score or box: ``image_id``, possibly ``score``, ``finding`` and
            ``x1, y1, x2, y2``, and ``place``, a text for messages such as ``row 3``.
        content: Bytes of the file or files, or the columns that were read of a table in memory,
            from which an id of the predictions is computed.
        reading: How the boxes of the source are written; rows have corners in its unit.
        notes: Assumptions that were made in reading, one sentence each.
        listed: Names of the images that have a file in a YOLO folder, or a row in a challenge's
            submission, even without a box.
        ran: Names of the images that a COCO annotation file or a challenge's submission lists, on
            all of which the detector ran; None without such a file.
        crowds: True boxes that a COCO annotation file marks as ``iscrowd``, with the columns of
            ``rows``.
        advice: Advice to append to an error message about unknown image names; may be empty.
        class_advice: Advice to append to an error message about classes of boxes that are no
            findings of the truth; may be empty.
        score_column: Name of the column of image scores that was recognised; empty if the user
            named it, and without such a column.
        has_scores: False for boxes without scores, to which readers give the score 1.
        classes: Further columns with two classes, one row for each row of ``rows``.
        where: Name of the file or object in messages.
    """

    rows: pd.DataFrame
    content: bytes | pd.DataFrame = b""
    reading: BoxReading = field(default_factory=BoxReading)
    notes: list[str] = field(default_factory=list)
    listed: Sequence[str] = ()
    ran: Sequence[str] | None = None
    crowds: pd.DataFrame = field(default_factory=no_rows)
    advice: str = ""
    class_advice: str = ""
    score_column: str = ""
    has_scores: bool = True
    classes: pd.DataFrame = field(default_factory=pd.DataFrame)
    where: str = ""

    @property
    def holds_boxes(self) -> bool:
        """True for boxes, False for scores of images."""
        return "x1" in self.rows

    @property
    def in_shares(self) -> bool:
        """True if the coordinates of boxes are shares of the image's sides, or per cent of them."""
        return self.reading.unit != "px"

    @property
    def content_bytes(self) -> bytes:
        """Content as bytes."""
        if isinstance(self.content, bytes):
            return self.content
        return self.content.to_csv(index=False).encode()


def as_numbers(table: pd.DataFrame, column: str, where: str) -> pd.Series:
    """Convert the cells of a column to float64, which may be infinite.

    InputError for a cell that is no number names its ``place`` (such as ``row 3``) and
    ``image_id``.
    """
    cells = table[column]
    cells = cells.astype(str) if cells.dtype == object else cells  # a cell may hold anything
    numbers = pd.to_numeric(cells, errors="coerce").astype(np.float64)
    is_wrong = numbers.isna().to_numpy()
    if is_wrong.any():
        row = table[is_wrong].iloc[0]
        cell = str(cells[is_wrong].iloc[0])
        raise InputError(
            f"{where}: {row['place']}, image '{row['image_id']}': {column}={cell!r} is no "
            f"number; correct it ({counted(int(is_wrong.sum()), 'row', 'are')} so)"
        )
    return numbers


_FLAGS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


def crowd_flags(frame: pd.DataFrame, where: str) -> np.ndarray | None:
    """Return True for the rows that are COCO's crowds, ``(N,)``; None without such a column."""
    column = next((name for name in ("crowd", "iscrowd") if name in frame), None)
    if column is None:
        return None
    cells = frame[column]
    flags = cells.astype(str).str.lower().map(_FLAGS).mask(cells.isna(), False)
    unknown = flags.isna().to_numpy()
    if unknown.any():
        row = int(unknown.argmax())
        raise InputError(
            f"{where}: row {frame.index[row]}: {column}={cells.iloc[row]!r} is neither 0 nor 1"
        )
    return flags.to_numpy(bool)


def file_stem(name: Any) -> str:
    r"""Return the name of a file without folders (Linux or Windows) and without its suffix.

    Example:
        >>> file_stem(r"images\a.b.png")
        'a.b'
    """
    file = str(name).replace("\\", "/").rstrip("/").rpartition("/")[2]
    dot = file.rfind(".")
    return file[:dot] if 0 < dot < len(file) - 1 else file


def texts_of(values: Iterable[Any]) -> pd.Series:
    """Return ids or classes as texts; 1.0, as pandas and JavaScript write it, is 1."""
    return pd.Series([_text(value) for value in values], dtype=TEXT)


def _text(value: Any) -> str:
    value = value.item() if hasattr(value, "item") else value
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
