"""Written CSV files: no cell is a formula."""

import csv
import io
import re

import pandas as pd
import pytest
from cxr_compare.data_prep.contracts.csv_files import inert_cell, plain_cells, write_csv
from cxr_compare.data_prep.contracts.text import TEXT
from hypothesis import example, given, settings
from hypothesis import strategies as st

_SIGNS = "=+-@\u2212\ufe62\ufe63\ufe66\ufe6b\uff0b\uff0d\uff1d\uff20"
_INVISIBLE = "\ufeff\u200b\u2060\xad\xa0\u3000\"'\x01"
_CELLS = st.text("a15." + _SIGNS + _INVISIBLE + "=+-@;;,|: \t\n\r\x0b\x0c\u2028", max_size=12)


def _is_formula(cell: str) -> bool:
    """Return True if a spreadsheet that strips invisible characters may read a formula."""
    bare = re.sub(f"^[\\s{_INVISIBLE.replace(chr(39), '')}]+", "", cell)
    # A comma that does not split leaves a number and the inert cell behind it in one cell.
    number = re.fullmatch(r"[-+]?[\d.]+(?:[\s,:]+[-+]?[\d.]+)*(?:[\s,:;|\"]*|,\"?'[\s\S]*)", bare)
    return bare.startswith(tuple(_SIGNS)) and not number and len(bare.strip()) > 1


@settings(max_examples=200, deadline=None)
@given(first=_CELLS, second=_CELLS)
@example(first="-1", second=":")  # a number and a separator
@example(first="-1", second=";")  # a number and another separator
@example(first="-1", second="=")  # a number and a cell that was made inert
@example(first="-1", second="")  # a number and an empty cell, also where lines alone split
def test_no_cell_of_a_written_table_is_a_formula_whatever_splits_it(
    tmp_path_factory, first, second
):
    path = tmp_path_factory.getbasetemp() / "inert.csv"
    write_csv(pd.DataFrame({"a": [first], "b": [second]}), path)
    content = path.read_bytes().decode().removeprefix("a,b\n")
    for split in (";", "\t", "|", "[;\t|\n\r\x0b\x0c\u2028]"):
        for cell in re.split(split, content):
            assert not _is_formula(cell), (cell, content)
    rows = [cell for row in csv.reader(io.StringIO(content, newline="")) for cell in row]
    assert not any(map(_is_formula, rows))
    written = pd.Series([str(inert_cell(cell)) for cell in (first, second)], dtype=TEXT)
    assert plain_cells(written).tolist() == [first.strip(), second.strip()]


@pytest.mark.parametrize(
    "cell",
    [
        "-8.0,0.0,16.0,8.0,0.5000;-1.0,2.0,3.0,4.0,0.1",
        "-1e-5",
        "n = 5",
        "use --data, -0.2 or A - B",
    ],
)
def test_numbers_and_words_stay_as_they_are_in_a_written_table(cell):
    assert inert_cell(cell) == cell
