"""Readers of the files of a reader study: truth, lesions, readings and marks."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_compare import Predictions
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.table_files import read_text_table, refuse_line
from cxr_compare.data_prep.store.prediction_writer import is_predictions_folder
from cxr_compare.evaluation.boxes.reading_advice import ReadingAdvice
from cxr_compare.evaluation.sources.files import read_source
from cxr_compare.evaluation.sources.import_options import ImportOptions
from cxr_compare.studies.readers.reader_form import read_review
from cxr_compare.studies.readers.reader_study import LESION

ONLY_MODALITY = "reading"
"""Name of the modality if a file names none."""


KEYS = ["reader", "modality", "case"]
"""Columns that identify a reading."""


VALUES = ("rating", "decision")
"""Columns of a reading that hold its result."""


_PLACES = ("lesion", "x", "y", *EDGES)


_SAME = {
    "case": ("image_id", "case_id"),
    "rating": ("score",),
    "patient": ("patient_id",),
    "label": ("positive",),
}


def read_truth(path: Path) -> pd.DataFrame:
    r"""Read the true label of each case of a reader study from a CSV file.

    The file has the columns ``case`` and ``label`` (0 or 1) and, if several cases belong to one
    patient, ``patient``; without it, each case is its own patient. The table has the columns
    ``label`` (True if the disease is present) and ``patient``; the index is the name of the case.
    Raises InputError if a column is missing, a value is not allowed, or a case appears twice.
    """
    table = _read_csv(path, ["case", "label"], ["patient"])
    _require_unique(path, table, ["case"])
    label = _numbers(path, table, "label", binary=True)
    truth = pd.DataFrame({"case": table["case"], "label": label == 1})
    truth["patient"] = table["patient"] if "patient" in table else table["case"]
    return truth.set_index("case")


def read_lesions(path: Path) -> pd.DataFrame:
    r"""Read the true lesions of the cases of a reader study from a CSV file.

    The file has one row for each lesion. It has the column ``case`` and may have ``lesion`` (name
    of the lesion within its case), ``weight`` (importance of the lesion; the weights of a case add
    up to 1) and the edges ``x1``, ``y1``, ``x2``, ``y2`` of its box in px. Lesions without a name
    are numbered within each case. Raises InputError if a column is missing, a value is not allowed,
    a lesion appears twice, or the weights of a case do not add up to 1.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "lesions.csv"
        ...     _ = path.write_text("case,x1,y1,x2,y2\na,10,20,50,60\na,70,20,90,40\n")
        ...     lesions = read_lesions(path)
        >>> lesions["lesion"].tolist()
        ['1', '2']
    """
    table = _read_csv(path, ["case"], ["lesion", "weight", *EDGES])
    if "lesion" not in table:
        table["lesion"] = (table.groupby("case").cumcount() + 1).astype(str)
    _require_unique(path, table, LESION)
    for name in ("weight", *EDGES):
        if name in table:
            table[name] = _numbers(path, table, name)
    sums = table.groupby("case")["weight"].sum() if "weight" in table else pd.Series(dtype=float)
    for case, total in sums[(sums - 1).abs() > 1e-6].items():
        raise InputError(f"{path}: weights of case {case} sum to {total:g}, not to 1")
    return table


def read_readings(
    path: Path, name: str | None, key: Path | None, findings: Sequence[str]
) -> pd.DataFrame:
    r"""Read the readings of a reader study from a file, of all its readers or of one.

    A reading is the rating or decision of a reader on a case, or a mark at a location.

    `path` is a CSV table of all readers, for which `name` is None; or, for one reader, the
    filled-in form ``review.csv`` of a blind study, a JSON file in the format of COCO results, or a
    folder of predictions. `name` has the modality (way of reading) after a colon if there are
    several, such as ``R1:with AI``. `key` is the file ``key.csv`` of the blind study, which says
    which image each number of the form stands for. The boxes of `findings` in a folder of
    predictions are read as marks.

    Each row is a reading or mark, with the columns ``reader``, ``modality``, ``case`` and the
    results, such as ``rating``, ``decision`` or the edges of a mark. Raises InputError if the file
    is damaged, or has no names of readers and `name` is None.
    """
    folder = is_predictions_folder(path)
    if key is None and not folder and path.suffix != ".json":
        return read_reading_table(path)
    if name is None:
        raise InputError(f"{path}: say who read: READER={path}")
    if folder:
        made = Predictions.open(path)
        table = "boxes" if made.kind == "boxes" else "scores"
        rows = made.rows(table, findings, made.images_run)
        if made.kind == "boxes":
            read = pd.DataFrame({"image_id": made.images_run})
            rows = pd.concat([rows, read], ignore_index=True)
    elif key is not None:
        rows = read_review(path, key)
    else:
        rows = read_source(path, ImportOptions(name, advice=ReadingAdvice())).rows
    reader, _, modality = name.partition(":")
    rows = rows.rename(columns={"image_id": "case", "score": "rating"})
    rows = rows.assign(reader=reader, modality=modality or ONLY_MODALITY)
    return rows[[*KEYS, "rating", *(edge for edge in EDGES if edge in rows)]]


def read_reading_table(path: Path, system: str | None = None) -> pd.DataFrame:
    r"""Read a CSV table with the readings of readers, or with the results of a system.

    A system is a program that read the cases alone. A row whose rating and decision are both empty
    was not read, and is left out. A row is a mark if it has a rating and a location: the point
    ``x``, ``y``, the edges ``x1``, ``y1``, ``x2``, ``y2`` of a box in px, or ``lesion`` (name of
    the lesion that the mark hits, empty if it hits no lesion). In a table of marks, a row without a
    location says that the case was read; a rating in such a row is the rating of the whole case.

    The file has the columns ``reader`` (not for a `system`), ``case`` and ``rating`` (a number,
    higher for disease), ``decision`` (1 for positive, 0 for negative) or both; if there are several
    modalities (ways of reading) also ``modality``. The table has the columns of `read_readings`;
    for a system, ``reader`` is its name and ``modality`` is empty. Raises InputError if a column is
    missing, a value is not allowed, or a reading appears twice.
    """
    keys = ["reader", "case"] if system is None else ["case"]
    table = _read_csv(path, keys, ["modality", *VALUES, *_PLACES])
    if system is not None:
        table = table.assign(reader=system, modality="")
    elif "modality" not in table:
        table["modality"] = ONLY_MODALITY
    return _values(path, table, KEYS if system is None else keys)


def _values(path: Path, table: pd.DataFrame, unique: list[str]) -> pd.DataFrame:
    """Return the rows that were read, with ratings and decisions as numbers, or the marks."""
    columns = [name for name in VALUES if name in table]
    if not columns:
        raise InputError(
            f"{path}: column 'rating' or 'decision' is missing; it has {_listed(table)}"
        )
    if any(name in table for name in _PLACES):
        return _marks(path, table)
    table = table[(table[columns] != "").any(axis=1)]
    if table.empty:
        raise InputError(f"{path}: holds no rating or decision")
    _require_unique(path, table, unique)
    numbers = {name: _numbers(path, table, name, binary=name == "decision") for name in columns}
    return table[KEYS].assign(**numbers).reset_index(drop=True)


def _marks(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Return marks with ratings and lesions or edges; rows without a location are kept."""
    if "rating" not in table:
        raise InputError(f"{path}: marks need a column 'rating'; it has {_listed(table)}")
    table = table.assign(rating=_numbers(path, table, "rating", blank=True))
    if "lesion" in table:
        return table[[*KEYS, "rating", "lesion"]]
    position_columns = EDGES if set(EDGES) <= set(table) else ["x", "y"]
    if not set(position_columns) <= set(table):
        raise InputError(
            f"{path}: marks need x and y, or x1, y1, x2 and y2, or lesion; it has {_listed(table)}"
        )
    places = [_numbers(path, table, name, blank=True) for name in position_columns]
    table = table.assign(
        **dict(zip(EDGES, places if position_columns == EDGES else 2 * places, strict=True))
    )
    marked = table[EDGES].notna()
    bad = marked.any(axis=1) & ~(marked.all(axis=1) & table["rating"].notna())
    bad |= (table["x1"] > table["x2"]) | (table["y1"] > table["y2"])
    if bad.any():
        raise InputError(
            f"{path}: line {table['line'][bad].iloc[0]}: a mark needs a rating and "
            f"{', '.join(position_columns)}, the first edge before the second; leave all empty "
            "for a case without a mark"
        )
    return table[[*KEYS, "rating", *EDGES]]


def _numbers(
    path: Path, table: pd.DataFrame, column: str, *, binary: bool = False, blank: bool = False
) -> pd.Series:
    """Return a column as numbers.

    Only 0 and 1 are allowed if `binary` is True. Empty values become NaN if `blank` is True, and
    are refused otherwise.
    """
    values = pd.to_numeric(table[column], errors="coerce").astype(np.float64)
    good = values.isin([0.0, 1.0]) if binary else pd.Series(np.isfinite(values), table.index)
    good |= blank & (table[column] == "")
    if not good.all():
        requirement = "0 or 1" if binary else "a number"
        row = table.iloc[int(np.argmin(good))]
        raise InputError(
            f"{path}: line {row['line']}: {column} '{row[column]}' is not {requirement}"
        )
    return values


def _require_unique(path: Path, table: pd.DataFrame, columns: list[str]) -> None:
    repeats = table.duplicated(columns)
    if repeats.any():
        again = table[repeats].iloc[0]
        same = (table[columns] == again[columns]).all(axis=1)
        position = ", ".join(f"{name} {again[name]}" for name in columns)
        raise InputError(
            f"{path}: line {again['line']}: {position} appears again (first in line "
            f"{table.loc[same, 'line'].iloc[0]})"
        )


def _read_csv(path: Path, needed: Sequence[str], allowed: Sequence[str]) -> pd.DataFrame:
    """Return columns as text without surrounding spaces, with the line numbers in ``line``."""
    if path.is_dir():
        raise InputError(f"{path}: a folder; give a CSV file")
    table = read_text_table(path, ())
    for name, others in _SAME.items():
        other = next((column for column in others if column in table), None)
        if name not in table and other is not None:
            table = table.rename(columns={other: name})
    for name in needed:
        if name not in table:
            raise InputError(
                f"{path}: column '{name}' is missing; it has {_listed(table)}"
                f"{_suggestion(name, list(table.columns))}"
            )
    columns = [name for name in (*needed, *allowed) if name in table]
    table = table[columns]
    empty = (table[list(needed)] == "").any(axis=1)
    refuse_line(empty, path, f"{' or '.join(needed)} is empty")
    return table.assign(line=table.index + 2).reset_index(drop=True)


def _listed(table: pd.DataFrame) -> str:
    return ", ".join(map(str, table.columns[:20]))


def _suggestion(name: str, columns: list[str]) -> str:
    """Suggest what to do about a missing column.

    Example:
        >>> _suggestion("case", ["Case ID", "x"]), _suggestion("case", ["reader;case"])
        ("; rename 'Case ID' to 'case'?", '; save it with commas')
    """
    if len(columns) == 1:
        return "; save it with commas"
    plain = {column.lower(): column for column in columns}
    near = [column for column in plain if name in column]
    near = near or difflib.get_close_matches(name, plain, n=1)
    return f"; rename '{plain[near[0]]}' to '{name}'?" if near else ""
