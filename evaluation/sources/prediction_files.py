"""Predictions in files of other software: CSV, COCO results, and YOLO's text files.

A DataFrame is read like a CSV file. Rows are not checked against a data set here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.box_classes import class_column
from cxr_compare.data_prep.contracts.box_readings import BoxForm, BoxReading, BoxUnit
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.column_names import (
    column_names,
    find_column,
    headless_problem,
    image_names,
    missing_columns,
)
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.table_files import read_text_table, refuse_other_kind
from cxr_compare.evaluation.boxes.box_checks import refuse_box_texts
from cxr_compare.evaluation.sources.prediction_strings import (
    PredictionStrings,
    read_prediction_strings,
    string_columns,
)
from cxr_compare.evaluation.sources.raw_predictions import RawPredictions
from cxr_compare.evaluation.sources.reading_advice import ReadingAdvice

_WITHOUT_OPTIONS = ReadingAdvice()
_MOST_UNUSED = 10  # largest number of unused columns that a note lists


@dataclass(frozen=True)
class ColumnNames:
    """Names of the columns of a table of predictions.

    If a column with one of the default names is absent, a column with a similar name is used.

    Attributes:
        image: Column of the image ids.
        score: Column of the scores, in [0, 1] or, if the user named it, in any range.
        finding: Column of the findings (disease signs). In a table without this column, all rows
            are about one finding. Empty if no column of a table of boxes holds their classes.
        score_is_named: True if the user named the column of scores. It is then not asked whether
            they are the confidence of a predicted class, and they may have any range.
        box_form: Form of the boxes that the user states; None takes that of the file.
        box_unit: Unit of the boxes that the user states; None takes that of the file.

    Example:
        >>> ColumnNames(image="Image Index").score
        'score'
    """

    image: str = "image_id"
    score: str = "score"
    finding: str = "finding"
    score_is_named: bool = False
    box_form: BoxForm | None = None
    box_unit: BoxUnit | None = None


def read_source(
    source: str | Path | pd.DataFrame,
    names: ColumnNames,
    coco_truth: str | Path | None = None,
    class_names: str | Path | Sequence[str] | None = None,
    advice: ReadingAdvice = _WITHOUT_OPTIONS,
) -> RawPredictions:
    """Read every row of predictions from a DataFrame, YOLO folder, COCO results or CSV file.

    Args:
        source: The file, folder or DataFrame to read.
        names: Names of the columns of a CSV file or DataFrame.
        coco_truth: COCO annotation file in which the image and category numbers of COCO results
            have names; None if they need no names.
        class_names: Names of YOLO's class numbers, in their order: a sequence, a text with commas
            such as ``"mass,nodule"``, or a ``data.yaml`` file. None uses the ``data.yaml`` beside
            the text files; without such a file, all boxes must be of class 0. In a submission with
            a column ``PredictionString``, None takes VinBigData's classes. Not used for other
            sources.
        advice: What error messages tell the user to do.

    Returns:
        The rows, with images and findings (disease signs) named as in the source, and remarks on
        how they were read.

    Raises:
        InputError: The source is missing or malformed. The message names the row or entry.

    Example:
        >>> frame = pd.DataFrame({"image_id": ["a"], "score": [0.5]})
        >>> read_source(frame, ColumnNames()).rows["score"].tolist()
        [0.5]
    """
    if isinstance(source, pd.DataFrame):
        return _read_frame(source, names, advice, class_names)
    source = Path(source)
    if source.is_dir():
        from cxr_compare.evaluation.sources.coco_and_yolo import read_yolo

        return read_yolo(source, class_names, advice)
    if not source.is_file():
        raise InputError(f"{source}: no such file or folder")
    refuse_other_kind(source)
    if _looks_like_json(source):
        from cxr_compare.evaluation.sources.coco_and_yolo import read_coco

        truth = None if coco_truth is None else Path(coco_truth)
        return read_coco(source, truth, advice, image_ids=names.image)
    return _read_csv(source, names, advice, class_names)


def _looks_like_json(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"[", b"{")


@dataclass(frozen=True)
class _Columns:
    """Names of the columns of a table that are read, by their meaning."""

    image: str
    score: str
    finding: str | None
    box: dict[str, str]  # columns by role, such as xmin or width; empty if rows have no boxes
    guessed: tuple[str, ...]  # phrases such as "Image Index as image_id"
    unused: tuple[str, ...]  # names of columns that are not read
    advice: ReadingAdvice  # how the user names other columns

    @property
    def read(self) -> list[str]:
        """Names of the columns to read, each name once."""
        finding = [] if self.finding is None else [self.finding]
        return list(dict.fromkeys([self.image, self.score, *self.box.values(), *finding]))

    @property
    def notes(self) -> list[str]:
        """Sentence on the columns that were guessed or not used; empty if none was."""
        parts = []
        if self.guessed:
            parts.append(f"recognised: {', '.join(self.guessed)}")
        if self.unused:
            more = ", ..." if len(self.unused) > _MOST_UNUSED else ""
            parts.append(f"not used: {', '.join(self.unused[:_MOST_UNUSED])}{more}")
        return [f"Columns {'; '.join(parts)} ({self.advice.name_others})."] if parts else []

    @property
    def class_advice(self) -> str:
        """Phrase on how the user names another column of classes; empty if none was guessed."""
        if self.finding is None or not self.box:
            return ""
        return f"; {self.advice.other_class(self.finding)}"

    @property
    def reading(self) -> BoxReading:
        """Form and unit of the boxes."""
        form: BoxForm = "cxcywh" if "xcenter" in self.box else "xywh"
        return BoxReading(form=form if "width" in self.box else "xyxy", stated="width" in self.box)


def _find_columns(
    table: pd.DataFrame, names: ColumnNames, where: str, advice: ReadingAdvice
) -> _Columns:
    """Find the columns by the configured names, else by names that `cxr prepare` recognises."""
    header = [str(column) for column in table.columns]

    image = _one_column(header, "image", names.image, image_names(header), where)
    score = _one_column(header, "score", names.score, column_names("score"), where)
    if image is None or score is None:
        wanted = {"image": (image, names.image), "score": (score, names.score)}
        missing = {kind: name for kind, (column, name) in wanted.items() if column is None}
        raise InputError(_missing_columns(header, missing, where, advice))
    finding = names.finding if names.finding in header else None
    if finding is None and names.finding not in (ColumnNames.finding, ""):
        raise InputError(_missing_columns(header, {"finding": names.finding}, where, advice))
    box = _box_columns([column for column in header if column not in (image, score)], where)
    if box and names.finding == ColumnNames.finding:
        is_used = [column in (image, score, *box.values()) for column in header]
        finding = class_column(table.loc[:, ~np.array(is_used)])
    guessed = [
        f"{column} as {meaning}"
        for meaning, configured, column in (
            ("image_id", names.image, image),
            ("score", names.score, score),
            ("finding", names.finding, finding),
        )
        if column is not None and column != configured
    ]
    if box and list(box.values()) != EDGES:
        guessed.append(f"{', '.join(box.values())} as {_FORMS[tuple(box)]}")
    read = {image, score, finding, *box.values()}
    unused = tuple(column for column in header if column not in read)
    columns = _Columns(image, score, finding, box, tuple(guessed), unused, advice)
    for column in columns.read:
        if header.count(column) > 1:
            raise InputError(f"{where}: column '{column}' appears twice; keep one")
    return columns


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


def _missing_columns(
    header: list[str], missing: Mapping[str, str], where: str, advice: ReadingAdvice
) -> str:
    """Return the error message about columns, by their kind, that a table does not have."""
    problem = headless_problem(header)
    if problem:
        return f"{where}: {problem}"
    how = "; ".join(advice.name_column(kind, getattr(ColumnNames, kind)) for kind in missing)
    absent = missing_columns([*missing.values()])
    return f"{where}: {absent}; it has {', '.join(header[:20])}; {how}"


_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_SIDES = ("xmin", "ymin", "width", "height")
_CENTRE = ("xcenter", "ycenter", "width", "height")
_FORMS: dict[tuple[str, ...], str] = {
    _CORNERS: "x1, y1, x2, y2",
    _SIDES: "x, y, width, height",
    _CENTRE: "x and y of the centre, width, height",
}
"""Sets of roles of columns that define a box, with a phrase for each set."""


def _box_columns(header: list[str], where: str) -> dict[str, str]:
    """Find the columns of boxes by role; the result is empty if rows are scores of images."""
    if set(EDGES) <= set(header):
        return dict(zip(_CORNERS, EDGES, strict=True))
    roles = dict.fromkeys(role for form in _FORMS for role in form)
    matches = {role: find_column(header, column_names(role)) for role in roles}
    present = {role: column for role, column in matches.items() if column is not None}
    for form in _FORMS:
        if set(form) <= set(present):
            return {role: present[role] for role in form}
    edges = [column for role, column in present.items() if role not in ("width", "height")]
    has_horizontal = bool({"xmin", "xmax", "xcenter"} & set(present))
    has_vertical = bool({"ymin", "ymax", "ycenter"} & set(present))
    if set(EDGES) & set(header) or (has_horizontal and has_vertical):
        raise InputError(
            f"{where}: has {', '.join(edges)}; boxes need x1, y1, x2 and y2, or x, y, width and "
            "height: name the columns so, or leave these out for scores of whole images"
        )
    return {}


def _plain_table(table: pd.DataFrame, columns: _Columns, where: str) -> pd.DataFrame:
    """Return the rows with the package's column names, numeric cells, and boxes as corners."""
    rows = pd.DataFrame({"image_id": table[columns.image], "place": table["place"]})
    rows["score"] = as_numbers(rows.assign(score=table[columns.score]), "score", where)
    if columns.finding is not None:
        rows["finding"] = table[columns.finding]
    values = {}
    for role, column in columns.box.items():
        named = rows[["image_id", "place"]].assign(**{column: table[column]})
        values[role] = as_numbers(named, column, where)
    if "xmax" in values:
        edges = [values[role] for role in _CORNERS]
    elif "xmin" in values:
        x, y, width, height = (values[role] for role in _SIDES)
        edges = [x, y, x + width, y + height]
    elif values:
        x, y, width, height = (values[role] for role in _CENTRE)
        edges = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    else:
        edges = []
    return rows.assign(**dict(zip(EDGES, edges, strict=False)))


def as_numbers(table: pd.DataFrame, column: str, where: str) -> pd.Series:
    """Convert the cells of a column to numbers, which may be infinite.

    Args:
        table: Rows with this column, and with ``place`` (such as ``row 3``) and ``image_id``, which
            error messages name.
        column: Name of the column to convert.
        where: Name of the file, for error messages.

    Returns:
        The numbers, float64, in the order of the rows.

    Raises:
        InputError: A cell is not a number. The message names its row.
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


def _read_csv(
    path: Path,
    names: ColumnNames,
    advice: ReadingAdvice,
    class_names: str | Path | Sequence[str] | None,
) -> RawPredictions:
    table = read_text_table(path, ())
    of_strings = string_columns([*table.columns], names.image)
    if of_strings is not None:
        places = [f"row {line}" for line in table.index + 2]
        from cxr_compare.evaluation.sources.coco_and_yolo import given_class_names

        named = given_class_names(class_names)
        return _from_strings(
            read_prediction_strings(table, of_strings, places, str(path), named), path.read_bytes()
        )
    if len(table.columns) == 1:
        table = read_text_table(path, (names.image, names.score))
    columns = _find_columns(table, names, str(path), advice)
    if not columns.box:
        refuse_box_texts(table.drop(columns=columns.read, errors="ignore"), str(path), first_row=2)
    asked = _columns_to_ask_about(table, columns, names)
    places = [f"row {line}" for line in table.index + 2]  # line 1 is the header
    table = table[columns.read].reset_index(drop=True).assign(place=places)
    return _from_table(table, columns, str(path), path.read_bytes(), asked)


def _from_table(
    table: pd.DataFrame, columns: _Columns, where: str, content: bytes, asked: dict[str, Any]
) -> RawPredictions:
    """Return the rows of a table whose columns were recognised."""
    return RawPredictions(
        _plain_table(table, columns, where),
        content,
        notes=columns.notes,
        class_advice=columns.class_advice,
        reading=columns.reading,
        **asked,
    )


def _from_strings(strings: PredictionStrings, content: bytes) -> RawPredictions:
    """Return the boxes of a submission file, whose images were all run."""
    return RawPredictions(
        strings.rows,
        content,
        listed=strings.images,
        ran=strings.images,
        notes=strings.notes,
        reading=strings.reading,
    )


def _read_frame(
    frame: pd.DataFrame,
    names: ColumnNames,
    advice: ReadingAdvice,
    class_names: str | Path | Sequence[str] | None,
) -> RawPredictions:
    of_strings = string_columns([str(column) for column in frame.columns], names.image)
    if of_strings is not None:
        places = [f"row {label}" for label in frame.index]
        content = frame.to_csv(index=False).encode()
        from cxr_compare.evaluation.sources.coco_and_yolo import given_class_names

        named = given_class_names(class_names)
        return _from_strings(
            read_prediction_strings(frame, of_strings, places, advice.frame, named), content
        )
    columns = _find_columns(frame, names, advice.frame, advice)
    if not columns.box:
        refuse_box_texts(frame.drop(columns=columns.read, errors="ignore"), advice.frame)
    asked = {} if "is_array" in frame.attrs else _columns_to_ask_about(frame, columns, names)
    table = frame[columns.read].reset_index(drop=True)
    content = table.to_csv(index=False).encode()
    for column in (columns.image, columns.finding):
        if column is None:
            continue
        missing = table[column].isna()
        if missing.any():
            label = frame.index[int(missing.to_numpy().argmax())]
            also = columns.class_advice if column == columns.finding else ""
            raise InputError(f"{advice.frame}: row {label}: {column} is missing; fill it in{also}")
        table[column] = table[column].astype(str)
    table["place"] = [f"row {label}" for label in frame.index]
    return _from_table(table, columns, advice.frame, content, asked)


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


def _columns_to_ask_about(
    table: pd.DataFrame, columns: _Columns, names: ColumnNames
) -> dict[str, Any]:
    """Return what shows whether scores are the confidence of a predicted class."""
    is_answered = names.score_is_named or names.score != ColumnNames.score
    if columns.box or columns.finding is not None or is_answered:
        return {}
    known = (*_PREDICTED_CLASS, *column_names("label"))
    unused = [str(column) for column in table.columns if str(column) not in columns.read]
    candidates = [column for column in unused if find_column([column], known)]
    classes = table[candidates].reset_index(drop=True)
    two = [column for column in candidates if classes[column].replace("", None).nunique() == 2]
    return {"score_column": columns.score, "classes": classes[two]}


def file_stem(name: Any) -> str:
    r"""Return the name of a file without folders and without its suffix.

    Args:
        name: Name or path of the file, with ``/`` (Linux) or backslashes (Windows) between folders.

    Returns:
        The name without folders and suffix.

    Example:
        >>> file_stem(r"images\a.b.png")
        'a.b'
    """
    file = str(name).replace("\\", "/").rstrip("/").rpartition("/")[2]
    return file[:dot] if 0 < (dot := file.rfind(".")) < len(file) - 1 else file
