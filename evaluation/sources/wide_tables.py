"""Tables of labels that also hold scores: which column has the labels, and several systems."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.column_names import column_names, find_column, image_names
from cxr_compare.data_prep.contracts.table_files import is_table_file, read_header, read_text_table

LABEL_NAMES = ("label", "y_true", "target", "truth", "ground_truth", "gt", "y", "present")
"""Names of a column of labels in a table that Python or a result file holds, the usual first."""


def label_column(path: Path) -> str | None:
    """Return the name of the column of labels in a table file; None in any other file."""
    if not path.is_file() or not is_table_file(path):
        return None
    return find_column(read_header(path), LABEL_NAMES)


def systems_in_table(table: Path | pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the scores of each system in a table that has a column of labels and no score column.

    Args:
        table: Table with a column of images, one of labels, and numbers in [0, 1] for each system.

    Returns:
        Scores by the name of their column, each as ``image_id, score``; empty for a table of
        another kind.

    Example:
        >>> table = pd.DataFrame({"image_id": ["a", "b", "c"], "label": [1, 0, 1]})
        >>> table = table.assign(A=[0.9, 0.2, 0.6], age=[61, 40, 55])
        >>> systems_in_table(table)["A"]["score"].tolist()
        [0.9, 0.2, 0.6]
    """
    if isinstance(table, Path):
        if label_column(table) is None:
            return {}
        table = read_text_table(table, ())
    columns = [str(column) for column in table.columns]
    table = table.set_axis(columns, axis=1)
    image = find_column(columns, image_names(columns))
    label = find_column(columns, LABEL_NAMES)
    if image is None or label is None or find_column(columns, column_names("score")):
        return {}
    systems = {}
    for column in columns:
        if column in (image, label):
            continue
        numbers = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64)
        if len(numbers) and ((numbers >= 0) & (numbers <= 1)).all() and len(set(numbers)) > 2:
            systems[column] = pd.DataFrame({"image_id": table[image], "score": numbers})
    return systems
