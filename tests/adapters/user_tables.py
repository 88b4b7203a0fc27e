"""Tables that people write and that we write, as plain values."""

from pathlib import Path

import pandas as pd

from cxr_compare import InputError
from cxr_compare.data_prep.base.user_tables import (
    read_header,
    read_table_file,
    to_numbers,
    write_csv,
)


def read(path, sheet=None):
    """The head and the cells of each row by its line in the file; or the line of the refusal."""
    try:
        text = read_table_file(path, sheet).text
    except InputError as error:
        return str(error)
    rows = {
        int(line) + 2: cells
        for line, cells in zip(text.index, text.to_numpy().tolist(), strict=True)
    }
    return list(text.columns), rows


def head(path):
    """The names of the columns by the first line alone."""
    return read_header(path)


def numbers(cells):
    """The numbers in a column of cells; or the line of the refusal."""
    try:
        return to_numbers(pd.Series(cells, dtype="str"), Path("t.csv"), "x").tolist()
    except InputError as error:
        return str(error)


def written(rows, path):
    """The text of a CSV file of ours with two columns of texts."""
    write_csv(pd.DataFrame(rows, columns=["a", "b"], dtype="str"), path)
    return path.read_text(encoding="utf-8")
