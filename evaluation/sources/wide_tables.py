"""Tables with several columns of scores: of systems beside labels, or of findings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.column_names import column_names, find_column, image_names
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.table_files import is_table_file, read_header, read_text_table

LABEL_NAMES = ("label", "y_true", "target", "truth", "ground_truth", "gt", "y", "present")
"""Names of a column of labels in a table that Python or a result file holds, the usual first."""
FINDING = "finding"
"""Name of the finding if the labels have no name."""


def label_column(path: Path) -> str | None:
    """Return the name of the column of labels in a table file; None in any other file."""
    if not path.is_file() or not is_table_file(path):
        return None
    return find_column(read_header(path), LABEL_NAMES)


def finding_name(text: str) -> str:
    """Return the name of a finding from that of a column: lower case, with underscores.

    Example:
        >>> finding_name("Lung Opacity")
        'lung_opacity'
    """
    return re.sub(r"[^0-9a-z]+", "_", text.lower()).strip("_") or FINDING


def score_columns(
    columns: Sequence[Any], findings: Sequence[str], where: str = "the table"
) -> dict[str, Any]:
    """Return the column of scores of each finding, such as ``mass`` or ``prob_Mass``.

    A name that says so, such as ``prob_mass``, counts before ``mass``, which may hold labels.
    Findings without a column are missing. An InputError is raised if two columns may hold the
    scores of one finding; `where` is the name of the table for its message.

    Example:
        >>> score_columns(["image_id", "prob_Mass", "Mass", "Edema"], ["mass", "edema", "hernia"])
        {'mass': 'prob_Mass', 'edema': 'Edema'}
    """
    words = {*column_names("score"), "p", "pred"}
    found = {}
    for finding in findings:
        names = {f"{word}_{finding}" for word in words} | {f"{finding}_{word}" for word in words}
        named = [column for column in columns if finding_name(str(column)) in names]
        bare = [column for column in columns if finding_name(str(column)) == finding]
        candidates = named or bare
        if len(candidates) > 1:
            both = " and ".join(f"'{column}'" for column in candidates[:2])
            raise InputError(
                f"{where}: do {both} both hold scores of '{finding}'? Leave out the other column"
            )
        if candidates:
            found[finding] = candidates[0]
    return found


def scores_by_finding(
    table: Path | pd.DataFrame, findings: Sequence[str], where: str = "the table"
) -> pd.DataFrame | None:
    """Return a table with a column of scores for each finding as rows of one finding each.

    The columns are ``image_id, finding, score``. None for a file of another kind and a table that
    has no two such columns. `where` is the name of a table in memory, for messages.
    """
    header: Sequence[Any]
    if isinstance(table, pd.DataFrame):
        header = list(table.columns)
    elif table.is_file() and is_table_file(table):
        header = read_header(table)
    else:
        return None
    columns = score_columns(header, findings, str(table) if isinstance(table, Path) else where)
    names = [str(column) for column in header]
    image = find_column(names, image_names(names))
    if image is None or len(columns) < 2:
        return None
    if isinstance(table, Path):
        table = read_text_table(table, ())
    ids = table[header[names.index(image)]]
    rows = [
        pd.DataFrame({"image_id": ids, "finding": finding, "score": table[column]})
        for finding, column in columns.items()
    ]
    return pd.concat(rows, ignore_index=True)
