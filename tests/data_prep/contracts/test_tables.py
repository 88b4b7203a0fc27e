"""Contracts on disk: checked when written and when read, named errors, nothing half-written."""

import csv
import io
import json
import re

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cxr_compare.data_prep.contracts import tables
from cxr_compare.data_prep.contracts.csv_files import inert_cell, plain_cells, write_csv
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.ids import is_member, positions, renamed
from cxr_compare.data_prep.contracts.json_files import read_json, write_json
from cxr_compare.data_prep.contracts.text import TEXT

BOXES = pd.DataFrame(
    {
        "image_id": ["a", "b"],
        "finding": "mass",
        "x1": [0.0, 40.0],
        "y1": [0.0, 1.0],
        "x2": [3.0, 60.0],
        "y2": [3.0, 4.0],
        "reader": "reference",
    }
)


def test_table_survives_writing_and_reading(tmp_path):
    tables.write_table(BOXES, tmp_path / "boxes.parquet", "boxes")
    pd.testing.assert_frame_equal(
        tables.read_table(tmp_path / "boxes.parquet", "boxes"), tables.typed_table(BOXES, "boxes")
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x2": [3.0, 40.0]}, r"x2 must exceed x1; row 1, image_id 'b': x1=40, y1=1, x2=40"),
        ({"x1": [-1.0, 40.0]}, r"x1 must be at least 0; row 0, image_id 'a': x1=-1.0"),
        ({"y2": [np.nan, 4.0]}, r"row 0, image_id 'a'"),
        ({"y2": [np.inf, 4.0]}, r"y2 must be finite; row 0"),
        ({"image_id": [None, "b"]}, r"image_id must not be missing; row 0"),
        ({"image_id": ["", "b"]}, r"image_id must be not empty; row 0"),
        ({"x1": ["left", "b"]}, r"column 'x1' must be float64"),
        ({"extra": 1}, r"unknown column 'extra'"),
    ],
    ids=["zero width", "outside", "nan", "infinite", "no id", "empty id", "text", "stranger"],
)
def test_broken_rule_names_table_row_and_value(change, message):
    with pytest.raises(InputError, match=message):
        tables.validate_table(BOXES.assign(**change), "boxes", "boxes.parquet")


def test_missing_column_is_named():
    with pytest.raises(InputError, match="column 'reader' is missing"):
        tables.validate_table(BOXES.drop(columns="reader"), "boxes")


def test_repeated_key_is_named():
    frame = pd.DataFrame({"image_id": ["a", "a"], "role": "train", "fold": 0})
    with pytest.raises(InputError, match="image_id must be unique; row 0, image_id 'a'"):
        tables.validate_table(frame, "split")


@pytest.mark.parametrize(
    ("values", "message"), [([1.0, 2.0], "grid_h x grid_w"), (3.0, "values must hold lists")]
)
def test_map_must_have_the_size_it_says(values, message):
    frame = pd.DataFrame(
        {"image_id": ["a"], "finding": "f", "method": "cam", "grid_h": 2, "grid_w": 2,
         "values": [values], "x1": 0.0, "y1": 0.0, "x2": 8.0, "y2": 8.0}
    )  # fmt: skip
    with pytest.raises(InputError, match=message):
        tables.validate_table(frame, "maps")


def test_invalid_table_leaves_no_file(tmp_path):
    with pytest.raises(InputError):
        tables.write_table(BOXES.assign(x1=-1.0), tmp_path / "boxes.parquet", "boxes")
    assert list(tmp_path.iterdir()) == []


def test_parts_are_read_in_order_of_their_names(tmp_path):
    for number, row in enumerate(["b", "a"]):
        part = BOXES.head(1).assign(image_id=row)
        tables.write_table(part, tmp_path / f"part-{number:05d}.parquet", "boxes")
    assert tables.read_table(tmp_path, "boxes")["image_id"].tolist() == ["b", "a"]


def test_columns_are_read_alone(tmp_path):
    tables.write_table(BOXES, tmp_path / "boxes.parquet", "boxes")
    some = tables.read_table(tmp_path / "boxes.parquet", "boxes", ["finding", "x1"])
    pd.testing.assert_frame_equal(some, tables.typed_table(BOXES[["finding", "x1"]], "boxes"))


def test_repeated_text_takes_hardly_any_room(tmp_path):
    rows = pd.concat([BOXES] * 20_000, ignore_index=True)
    tables.write_table(rows, tmp_path / "boxes.parquet", "boxes")
    assert (tmp_path / "boxes.parquet").stat().st_size < 20_000


def test_missing_table_and_foreign_file_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such table"):
        tables.read_table(tmp_path / "boxes.parquet", "boxes")
    (tmp_path / "boxes.parquet").write_bytes(b"not parquet")
    with pytest.raises(InputError, match="cannot be read as a table"):
        tables.read_table(tmp_path / "boxes.parquet", "boxes")


def test_other_schema_version_is_refused(tmp_path):
    path = tmp_path / "boxes.parquet"
    tables.write_table(BOXES, path, "boxes")
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"cxr_schema_version": "99"}), path)
    with pytest.raises(InputError, match="schema version 99, this program reads 1"):
        tables.read_table(path, "boxes")


def test_json_keeps_kind_and_refuses_nan(tmp_path):
    path = tmp_path / "run.json"
    write_json(path, "run", {"n": np.int64(3)})
    assert read_json(path, "run")["n"] == 3
    with pytest.raises(InputError, match="holds 'run', expected 'dataset'"):
        read_json(path, "dataset")
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, "run", {"auroc": float("nan")})
    assert json.loads(path.read_text())["n"] == 3, "the refused write left the old file whole"


def test_digest_sees_values_not_row_order():
    digest = tables.frame_digest(BOXES, ["image_id", "x1"])
    assert digest == tables.frame_digest(BOXES[::-1], ["image_id", "x1"])
    assert digest != tables.frame_digest(BOXES.assign(x1=[0.0, 41.0]), ["image_id", "x1"])


# Fast look-ups give what pandas gives.

texts = st.lists(st.one_of(st.none(), st.sampled_from(["", "a", "b", "é", "NA"])), max_size=12)


def as_series(values: list[str | None]) -> pd.Series:
    return pd.Series(values, index=range(5, 5 + len(values)), dtype=TEXT)


@given(texts, texts)
def test_members_are_those_of_isin_but_nothing_missing(values, members):
    series = as_series(values)
    expected = series.isin([m for m in members if m is not None]).to_numpy()
    assert is_member(series, as_series(members)).tolist() == expected.tolist()
    assert is_member(pd.Index(series), [m for m in members if m]).tolist() == [
        v in members and bool(v) for v in values
    ]


@given(texts, st.lists(st.sampled_from(["a", "b", "é", "z"]), unique=True))
def test_positions_are_those_of_get_indexer(values, members):
    index = pd.Index(members, dtype=TEXT)
    expected = index.get_indexer(pd.Index(as_series(values)))
    np.testing.assert_array_equal(positions(as_series(values), index), expected)


def test_of_equal_members_the_first_counts_and_a_missing_one_is_no_match():
    assert positions(as_series(["a", None]), pd.Series(["z", None, "a", "a"])).tolist() == [2, -1]


@given(texts)
def test_new_names_are_those_of_map_with_the_same_index(values):
    names = {"a": "present", "": "empty"}
    series = as_series(values)
    pd.testing.assert_series_equal(renamed(series, names), series.map(names).astype(TEXT))


def test_joined_parts_are_looked_up_whole():
    joined = pd.concat([as_series(["a"]), as_series(["b", None])])
    assert is_member(joined, joined.iloc[1:]).tolist() == [False, True, False]
    assert positions(joined, joined.iloc[:2]).tolist() == [0, 1, -1]


_SIGNS = "=+-@\u2212\ufe62\ufe63\ufe66\ufe6b\uff0b\uff0d\uff1d\uff20"
_INVISIBLE = "\ufeff\u200b\u2060\xad\xa0\u3000\"'\x01"
_CELLS = st.text("a15." + _SIGNS + _INVISIBLE + "=+-@;;,|: \t\n\r\x0b\x0c\u2028", max_size=12)


def _is_formula(cell: str) -> bool:
    """Whether a spreadsheet that strips what is not seen may take a cell for a formula."""
    bare = re.sub(f"^[\\s{_INVISIBLE.replace(chr(39), '')}]+", "", cell)
    number = re.fullmatch(r"[-+]?[\d.]+(?:[\s,:]+[-+]?[\d.]+)*[\s,\"]*", bare)
    return bare.startswith(tuple(_SIGNS)) and not number and len(bare.strip()) > 1


@settings(max_examples=200)
@given(first=_CELLS, second=_CELLS)
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


@pytest.mark.parametrize("path", ["/etc/a.png", "../a.png", "a/../../b.png", "a/..", "a\0.png"])
def test_a_path_that_leaves_the_source_is_refused(path):
    rule = tables.SCHEMAS["images"].columns["path"].rules[0]
    assert not rule.holds(pd.Series([path], dtype=TEXT)).any()
    assert rule.holds(pd.Series(["a..b/c.png", "..a/b", "c d.png"], dtype=TEXT)).all()
