"""Predictions as rows: ``image_id``, ``position``, ``score``, ``finding``, numbers of a box."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.box_check import BoxForm
from cxr_compare.data_prep.base.boxes import NUMBERS
from cxr_compare.data_prep.base.errors import InputError, Remedy, counted
from cxr_compare.data_prep.base.ids import is_member
from cxr_compare.data_prep.base.user_tables import cell_text, cell_texts
from cxr_compare.data_prep.sources.words import states_of_cells


@dataclass
class Rows:
    """Rows of predictions with how their boxes are written, before anything is checked.

    The rows of COCO results (`is_coco`) have ``file_name``, and the number of the class as
    ``category``, too.

    Attributes:
        form: How the numbers of a box are written: ``xyxy``, ``xywh`` or ``cxcywh``.
        unit: Unit of these numbers: ``px`` or ``share``.
        stated: True if the source names each number.
        ran: Images that the source lists, with and without a box; None if it lists boxes alone.
        listed: Images with a file of their own; others without a box may have been run, too.
        where: File or system that the rows are of, for messages.
        image_scores: Scores of images that stand beside the boxes; None without.
        unused: Further columns of a table, one row for each row of ``table`` unless it has boxes.
        class_column: Column that is read as the finding of each row; empty if none names it.
        score_column: Column that is read as the score.
    """

    table: pd.DataFrame
    form: BoxForm = "xyxy"
    unit: str = "px"
    stated: bool = False
    ran: list[str] | None = None
    listed: Sequence[str] = ()
    where: str = "predictions"
    notes: list[str] = field(default_factory=list)
    image_scores: Rows | None = None
    unused: pd.DataFrame = field(default_factory=pd.DataFrame)
    class_column: str = ""
    score_column: str = "score"
    is_coco: bool = False

    @property
    def are_boxes(self) -> bool:
        """True for boxes, False for scores of images."""
        return NUMBERS[0] in self.table


def with_numbers(
    table: pd.DataFrame,
    columns: Sequence[str],
    where: str,
    called: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return a table with some columns as float64 and a position for each row; refuse other cells.

    `called` has the user's name of a column, for messages.
    """
    if "position" not in table:
        table = table.assign(position=[f"row {label}" for label in table.index])
    for column in columns:
        cells = table[column]
        cells = cells.astype(str) if cells.dtype == object else cells  # a cell may hold anything
        numbers = pd.to_numeric(cells, errors="coerce").astype(np.float64)
        wrong = numbers.isna().to_numpy()
        if wrong.any():
            row, cell = table[wrong].iloc[0], cells[wrong].iloc[0]
            wrong_text = repr(cell[:80]) if isinstance(cell, str) else str(cell)
            states = states_of_cells(cell_texts(cells[wrong]))
            advice = "write the number alone"
            if are_blank(cells[wrong]).all():
                advice = "fill it in, or leave out the row of an image on which the system failed"
            elif states.isin(["present", "absent"]).all():
                advice = "write 1 for present and 0 for absent"
            raise InputError(
                f"{where}: {row['position']}, image '{row['image_id']}': "
                f"{(called or {}).get(column, column)}={wrong_text} is no number; {advice} "
                f"({counted(int(wrong.sum()), 'row', 'are')} so)"
            )
        table = table.assign(**{column: numbers})
    return table.reset_index(drop=True)


def numbers_in(table: pd.DataFrame) -> list[str]:
    """Return the columns of a table that hold numbers of boxes or scores."""
    return [column for column in (*NUMBERS, "score") if column in table]


def texts_of(values: Iterable[Any]) -> list[str]:
    """Return ids or classes as texts; a whole number has no point."""
    return [cell_text(value) for value in values]


def are_blank(cells: pd.Series) -> pd.Series:
    """Return True for cells that are missing or hold spaces alone."""
    if pd.api.types.is_numeric_dtype(cells):
        return cells.isna()
    return cells.isna() | (cells.astype(str).str.strip() == "")


def require_filled(cells: pd.Series, where: str, noun: str = "") -> None:
    """Refuse a column with a missing cell, which is named by its row."""
    missing = are_blank(cells).to_numpy()
    if missing.any():
        row = cells.index[int(missing.argmax())]
        raise InputError(f"{where}: row {row}: {noun or cells.name} is missing; fill it in")


def refuse_row(
    table: pd.DataFrame, wrong: Any, where: str, problem: str, ways: Sequence[Remedy] = ()
) -> None:
    """Refuse the first row that is wrong by its position and image; its cells fill in `problem`."""
    flags = np.asarray(wrong)
    if flags.any():
        row = table[flags].iloc[0]
        start = f"{where}: {row['position']}, image '{row['image_id']}'"
        raise InputError(f"{start}: {problem.format_map(row)}", ways)


def require_probabilities(table: pd.DataFrame, where: str) -> None:
    """Refuse scores of boxes outside [0, 1]."""
    problem = (
        "score={score}; scores of boxes lie in [0, 1]: are these logits or per cent? Convert them"
    )
    refuse_row(table, ~table["score"].between(0, 1), where, problem)


def crowd_flags(cells: pd.Series, where: str) -> pd.Series:
    """Return True for COCO's crowds; a missing flag is none, and any other cell is refused."""
    states = states_of_cells(cell_texts(cells))
    is_unknown = ~is_member(states, ["present", "absent", ""])
    if is_unknown.any():
        row = int(is_unknown.argmax())
        raise InputError(
            f"{where}: row {cells.index[row]}: crowd={cells.iloc[row]!r} is neither 0 nor 1"
        )
    return states == "present"


def way(name: str, role: str, column: str = "COLUMN", when: str = "") -> Remedy:
    """Return the option of a system `name` that names a column, or how boxes are written."""
    return Remedy(when, {"columns": {f"{name}.{role}": column}})
