"""The reader of tables of scores, predicted or true boxes, from files and as DataFrames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.box_classes import class_column
from cxr_compare.data_prep.contracts.box_readings import BoxForm
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.column_names import (
    column_names,
    find_column,
    headless_problem,
    image_names,
    missing_columns,
)
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.evaluation.boxes.answer_texts import answer_columns, read_answers
from cxr_compare.evaluation.boxes.box_checks import refuse_box_texts
from cxr_compare.evaluation.boxes.prediction_strings import read_prediction_strings, string_columns
from cxr_compare.evaluation.boxes.read_table import (
    ColumnNames,
    ReadTable,
    as_numbers,
    crowd_flags,
    texts_of,
)
from cxr_compare.evaluation.boxes.reading_advice import ReadingAdvice

_MOST_UNUSED = 10  # largest number of unused columns that a note lists
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_FORMS: dict[tuple[str, ...], tuple[BoxForm, str]] = {
    _CORNERS: ("xyxy", "x1, y1, x2, y2"),
    ("xmin", "ymin", "width", "height"): ("xywh", "x, y, width, height"),
    ("xcenter", "ycenter", "width", "height"): ("cxcywh", "x and y of the centre, width, height"),
}
"""Form and phrase of each set of roles of columns that define a box."""
_PREDICTED_CLASS = (
    "predictedclass",
    "predclass",
    "predictedlabel",
    "predlabel",
    "predicted",
    "prediction",
    "pred",
    "ypred",
    "decision",
)


def read_frame(
    frame: pd.DataFrame,
    names: ColumnNames,
    where: str,
    advice: ReadingAdvice,
    *,
    of_boxes: bool = False,
    class_names: Mapping[int, str] | None = None,
) -> ReadTable:
    """Read a table of scores or of boxes, whose columns have usual names or those that are given.

    With `of_boxes`, the table must hold boxes, their scores may be absent, and rows whose numbers
    are all empty stand for images without boxes. The index numbers the rows in messages. A column
    that is missing or twice there, and a cell that is missing or no number, raise InputError.
    Without `class_names`, the class numbers in a submission file are those of VinBigData.
    """
    frame = frame.set_axis([str(column) for column in frame.columns], axis=1)
    of_texts = _read_texts(frame, names, where, class_names)
    if of_texts is not None:
        return of_texts
    has_boxes = bool(box_columns([*frame.columns]))
    image, score = _image_and_score(frame, names, where, advice, of_boxes=of_boxes or has_boxes)
    header = [column for column in frame.columns if column not in (image, score)]
    box = box_columns(header)
    if not box:
        _refuse_incomplete_boxes([*frame.columns], where, required=of_boxes)
    numbers = [*box.values(), *([] if score is None else [score])]
    ran = None
    if of_boxes or (score is None and box):
        _refuse_twice(frame, numbers, where)
        is_blank = _are_blank(frame[numbers]).all(axis=1)
        ran = frame[image].dropna().astype(str).tolist() if is_blank.any() else None
        frame = frame[~is_blank]
    columns = _Columns(image, score, _finding_column(frame, names, numbers, image, box), box)
    _refuse_twice(frame, columns.read, where)
    if not box:
        refuse_box_texts(frame.drop(columns=columns.read), where)
    class_advice = columns.class_advice(advice)
    if not of_boxes:
        _ask_for_scores(frame, columns, names, where, advice)
    rows = _named_rows(frame, columns, where, class_advice)
    table = pd.concat([rows[["image_id", "place"]], frame[numbers].reset_index(drop=True)], axis=1)
    cells = {column: as_numbers(table, column, where) for column in numbers}
    if score is not None:
        rows["score"] = cells[score]
    read = ReadTable(
        rows,
        frame[columns.read],
        notes=columns.notes(frame, names, advice),
        ran=None if of_boxes else ran,
        class_advice=class_advice,
        where=where,
    )
    if box:
        form, _ = _FORMS[tuple(box)]
        values = np.column_stack([cells[column] for column in box.values()]).reshape(-1, 4)
        rows[EDGES], read.reading = names.corners(values, form, stated=form != "xyxy")
        crowds = crowd_flags(frame, where) if of_boxes else None
        if crowds is not None:
            rows["crowd"] = crowds
    elif not (names.score_is_named or names.score != ColumnNames.score or columns.finding):
        read.score_column = str(score)
        read.classes = _columns_of_two_classes(frame, columns)
    return read


def _named_rows(
    frame: pd.DataFrame, columns: _Columns, where: str, class_advice: str
) -> pd.DataFrame:
    """Return the place, the image and, where known, the finding of each row."""
    rows = pd.DataFrame({"place": [f"row {label}" for label in frame.index]}, dtype=TEXT)
    for meaning, column in (("image_id", columns.image), ("finding", columns.finding)):
        if column is None:
            continue
        _refuse_missing(frame, column, where, class_advice if meaning == "finding" else "")
        is_class = meaning == "finding"
        cells = texts_of(frame[column]) if is_class else frame[column].astype(str).astype(TEXT)
        rows[meaning] = cells.to_numpy()
    return rows


def _refuse_missing(frame: pd.DataFrame, column: str, where: str, advice: str = "") -> None:
    missing = _are_blank(frame[[column]]).to_numpy().any(axis=1)
    if missing.any():
        row = frame.index[int(missing.argmax())]
        raise InputError(f"{where}: row {row}: {column} is missing; fill it in{advice}")


def _read_texts(
    frame: pd.DataFrame, names: ColumnNames, where: str, class_names: Mapping[int, str] | None
) -> ReadTable | None:
    """Read a table with all boxes of an image in one cell; None for any other table."""
    of_strings = string_columns([*frame.columns], names.image)
    if of_strings is not None:
        _refuse_missing(frame, of_strings[0], where)
        return read_prediction_strings(frame, of_strings, names, where, class_names)
    has_boxes = bool(box_columns([*frame.columns]))
    of_answers = None if has_boxes else answer_columns(frame, names.image)
    if of_answers is None:
        return None
    _refuse_missing(frame, of_answers[0], where)
    return read_answers(frame, of_answers, where)


@dataclass(frozen=True)
class _Columns:
    """Names of the columns of a table that are read, by their meaning."""

    image: str
    score: str | None
    finding: str | None
    box: Mapping[str, str]  # columns by role, such as xmin or width; empty without boxes

    @property
    def read(self) -> list[str]:
        """Names of the columns to read, each name once."""
        names = [self.image, self.score, *self.box.values(), self.finding]
        return list(dict.fromkeys(name for name in names if name is not None))

    def notes(self, frame: pd.DataFrame, names: ColumnNames, advice: ReadingAdvice) -> list[str]:
        """Return a sentence on the columns that were guessed or not used, if there are any."""
        guessed = [
            f"{column} as {meaning}"
            for meaning, configured, column in (
                ("image_id", names.image, self.image),
                ("score", names.score, self.score),
                ("finding", names.finding, self.finding),
            )
            if column is not None and column != configured
        ]
        if self.box and list(self.box.values()) != EDGES:
            guessed.append(f"{', '.join(self.box.values())} as {_FORMS[tuple(self.box)][1]}")
        unused = [column for column in frame.columns if column not in self.read]
        parts = []
        if guessed:
            parts.append(f"recognised: {', '.join(guessed)}")
        if unused:
            more = ", ..." if len(unused) > _MOST_UNUSED else ""
            parts.append(f"not used: {', '.join(unused[:_MOST_UNUSED])}{more}")
        return [f"Columns {'; '.join(parts)} ({advice.name_others})."] if parts else []

    def class_advice(self, advice: ReadingAdvice) -> str:
        """Return how the user names another column of classes; empty if none was guessed."""
        if self.finding is None or not self.box:
            return ""
        return f"; {advice.other_class(self.finding)}"


def _image_and_score(
    frame: pd.DataFrame,
    names: ColumnNames,
    where: str,
    advice: ReadingAdvice,
    *,
    of_boxes: bool,
) -> tuple[str, str | None]:
    """Find the columns by the configured names, else by names that `cxr prepare` recognises."""
    header = [*frame.columns]
    image = _one_column(header, "image", names.image, image_names(header), where)
    score = _one_column(header, "score", names.score, column_names("score"), where)
    missing = {}
    if image is None:
        missing["image"] = names.image
    if score is None and not (of_boxes and names.score in (ColumnNames.score, "")):
        missing["score"] = names.score
    if names.finding not in (ColumnNames.finding, "", *header):
        missing = missing or {"finding": names.finding}
    if image is not None and not missing:
        return image, score
    problem = headless_problem(header)
    if problem:
        raise InputError(f"{where}: {problem}")
    how = "; ".join(advice.name_column(kind, getattr(ColumnNames, kind)) for kind in missing)
    absent = missing_columns([*missing.values()])
    raise InputError(f"{where}: {absent}; it has {', '.join(header[:20])}; {how}")


def _one_column(
    header: list[str], kind: str, configured: str, synonyms: Sequence[str], where: str
) -> str | None:
    """Find the column of image ids or of scores; None if there is no such column."""
    if header.count(configured) == 1:
        return configured
    if configured in header:
        raise InputError(f"{where}: column '{configured}' appears twice; keep one")
    is_default = configured == getattr(ColumnNames, kind)
    return find_column(header, (configured, *synonyms)) if is_default else None


def _ask_for_scores(
    frame: pd.DataFrame, columns: _Columns, names: ColumnNames, where: str, advice: ReadingAdvice
) -> None:
    """Ask about a column without a known name that may hold the scores of boxes."""
    if columns.score is not None or not names.score:
        return
    for column in frame.columns:
        if column in columns.read:
            continue
        numbers = pd.to_numeric(frame[column], errors="coerce").to_numpy(np.float64)
        is_share = bool(len(numbers)) and bool(((numbers >= 0) & (numbers <= 1)).all())
        if is_share and (numbers % 1 != 0).any():
            raise InputError(
                f"{where}: does '{column}' hold the scores of the boxes? "
                f"{advice.scores_of_boxes(str(column))}"
            )


def _finding_column(
    frame: pd.DataFrame,
    names: ColumnNames,
    numbers: Sequence[str],
    image: str,
    box: Mapping[str, str],
) -> str | None:
    if box and names.finding == ColumnNames.finding:
        is_free = [column not in (image, *numbers) for column in frame.columns]
        return class_column(frame.loc[:, is_free])
    return names.finding if names.finding in frame.columns else None


def box_columns(header: Sequence[str]) -> dict[str, str]:
    """Find the columns of boxes by role, such as ``xmin`` or ``width``; empty without four.

    Example:
        >>> box_columns(["image_id", "left", "top", "right", "bottom"])
        {'xmin': 'left', 'ymin': 'top', 'xmax': 'right', 'ymax': 'bottom'}
    """
    if set(EDGES) <= set(header):
        return dict(zip(_CORNERS, EDGES, strict=True))
    matches = _columns_by_role(header)
    for roles in _FORMS:
        if set(roles) <= set(matches):
            return {role: matches[role] for role in roles}
    return {}


def _columns_by_role(header: Sequence[str]) -> dict[str, str]:
    roles = dict.fromkeys(role for form in _FORMS for role in form)
    matches = {role: find_column(header, column_names(role)) for role in roles}
    return {role: column for role, column in matches.items() if column is not None}


def _refuse_incomplete_boxes(header: Sequence[str], where: str, *, required: bool) -> None:
    """Refuse a table with some edges of boxes, or without any if boxes are required."""
    matches = _columns_by_role(header)
    edges = [column for role, column in matches.items() if role not in ("width", "height")]
    has_horizontal = bool({"xmin", "xmax", "xcenter"} & set(matches))
    has_vertical = bool({"ymin", "ymax", "ycenter"} & set(matches))
    missing = [edge for edge in EDGES if edge not in header]
    forms = "boxes need x1, y1, x2 and y2, or x, y, width and height: name the columns so"
    if not required:
        forms += ", or leave these out for scores of whole images"
    if len(missing) < len(EDGES):
        columns = ", ".join(header[:20])
        raise InputError(f"{where}: {missing_columns(missing)}; it has {columns}; {forms}")
    if has_horizontal and has_vertical:
        raise InputError(f"{where}: has {', '.join(edges)}; {forms}")
    if required:
        raise InputError(
            f"{where}: no four columns are the edges of boxes; it has {', '.join(header[:20])}: "
            "call them x1, y1, x2, y2, or x, y, width, height"
        )


def _refuse_twice(frame: pd.DataFrame, columns: Sequence[str], where: str) -> None:
    header = [*frame.columns]
    for column in columns:
        if header.count(column) > 1:
            raise InputError(f"{where}: column '{column}' appears twice; keep one")


def _are_blank(cells: pd.DataFrame) -> pd.DataFrame:
    blank = cells.isna()
    for column in cells.select_dtypes(exclude=["number", "bool"]):
        blank[column] |= cells[column].astype(str).str.strip() == ""
    return blank


def _columns_of_two_classes(frame: pd.DataFrame, columns: _Columns) -> pd.DataFrame:
    """Return columns that show whether scores are the confidence of a predicted class."""
    known = (*_PREDICTED_CLASS, *column_names("label"))
    unused = [column for column in frame.columns if column not in columns.read]
    candidates = [column for column in unused if find_column([column], known)]
    classes = frame[candidates].reset_index(drop=True)
    two = [column for column in candidates if classes[column].replace("", None).nunique() == 2]
    return classes[two]
