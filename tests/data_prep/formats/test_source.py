"""Tables that people write: read exactly, whichever of the two parsers is quick enough."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.table_files import read_text_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.contracts.text_columns import to_numbers
from cxr_compare.data_prep.formats.views import normal_views

cells = st.sampled_from(["", "a", "0012", "NA", " b ", "é", "1.5", '"x, y"', '"two\nlines"', "'"])
lines = st.lists(st.lists(cells, min_size=1, max_size=3).map(",".join), max_size=8)


def by_pandas(path: Path) -> pd.DataFrame:
    """What `read_text_table` guarantees, by pandas alone."""
    frame = pd.read_csv(
        path, dtype=TEXT, keep_default_na=False, encoding="utf-8-sig", skip_blank_lines=False
    )
    frame = frame.fillna("").apply(lambda column: column.str.strip())
    return frame[(frame != "").any(axis=1)]


@settings(max_examples=60, deadline=None)
@given(lines, st.sampled_from(["\n", "\r\n"]), st.sampled_from(["", "\ufeff"]), st.booleans())
def test_every_parser_reads_the_same(tmp_path_factory, lines, end, mark, open_end):
    path = tmp_path_factory.mktemp("csv") / "table.csv"
    text = end.join(["one,two,three", *lines]) + ("" if open_end else end)
    path.write_text(mark + text, encoding="utf-8", newline="")
    pd.testing.assert_frame_equal(read_text_table(path, ["one"]), by_pandas(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n1,2,3\n", "not readable as CSV.*line 3, saw 3"),
        (b"a,b\n\xff,2\n", "not readable as CSV in UTF-8"),
        (b'a,b\n"open,2\n', "not readable as CSV"),
        (b"", "not readable as CSV"),
        (b"a;c\n1;2\n", "column 'b' is missing; it has a, c"),
    ],
    ids=["longer line", "not UTF-8", "quote left open", "empty", "another column"],
)
def test_the_error_of_a_broken_table_names_the_position(tmp_path, content, message):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_text_table(path, ["b"])


@pytest.mark.parametrize("text", ["a,a\n1,2\n", "a, a\n1,2\n", '"a",b,a\n1,2,3\n'])
def test_a_column_named_twice_is_refused(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(InputError, match="column 'a' appears twice; keep one"):
        read_text_table(path, ["a"])


def test_a_compressed_table_is_read(tmp_path):
    path = tmp_path / "table.csv.gz"
    pd.DataFrame({"a": ["0012"]}).to_csv(path, index=False)
    assert read_text_table(path, ["a"])["a"].tolist() == ["0012"]


def test_numbers_are_exact_and_missing_words_are_missing():
    text = pd.Series(["0.1", "1e-3", "-7", "+3", "", "NA", "none", "1.7976931348623157e308", "inf"])
    numbers = to_numbers(text, Path("t.csv"), "x")
    expected = [0.1, 1e-3, -7, 3, np.nan, np.nan, np.nan, 1.7976931348623157e308, np.inf]
    np.testing.assert_array_equal(numbers.to_numpy(), expected)


@pytest.mark.parametrize("wrong", ["tall", "1,5", "0x10", "nan(5)", "1_000", "--1"])
def test_the_error_of_a_cell_that_is_no_number_names_the_line(wrong):
    text = pd.Series(["1", "2", wrong, "NA"])
    with pytest.raises(InputError, match=r"line 4: x=.* is not a number"):
        to_numbers(text, Path("t.csv"), "x")


def test_views_get_one_of_four_names():
    views = normal_views(pd.Series(["pa", " AP ", "Lateral", "oblique", "", None]))
    assert views.tolist()[:4] == ["PA", "AP", "LL", "other"]
    assert views.isna().tolist() == [False] * 4 + [True] * 2
