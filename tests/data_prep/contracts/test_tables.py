"""Tables on disk: checked when written and when read, with errors that name the row."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from cxr_compare.data_prep.contracts import tables
from cxr_compare.data_prep.contracts.errors import InputError
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
        ({"x2": [3.0, 40.0]}, r"boxes\.parquet: .*row 1, image_id 'b': x1=40, y1=1, x2=40"),
        ({"x1": [-1.0, 40.0]}, r"row 0, image_id 'a': x1=-1\.0"),
        ({"y2": [np.nan, 4.0]}, r"row 0, image_id 'a'"),
        ({"y2": [np.inf, 4.0]}, r"y2 .*row 0"),
        ({"image_id": [None, "b"]}, r"image_id .*row 0"),
        ({"image_id": ["", "b"]}, r"image_id .*row 0"),
        ({"x1": ["left", "b"]}, r"'x1'.*float64"),
        ({"extra": 1}, r"'extra'"),
    ],
    ids=["zero width", "outside", "nan", "infinite", "no id", "empty id", "text", "stranger"],
)
def test_broken_rule_names_table_row_and_value(change, message):
    with pytest.raises(InputError, match=message):
        tables.validate_table(BOXES.assign(**change), "boxes", "boxes.parquet")


def test_missing_column_is_named():
    with pytest.raises(InputError, match="'reader'"):
        tables.validate_table(BOXES.drop(columns="reader"), "boxes")


@pytest.mark.parametrize("ids", ["ab", "ba"])
def test_ids_in_any_order_are_accepted(ids):
    frame = pd.DataFrame({"image_id": list(ids), "role": "train", "fold": 0})
    assert tables.validate_table(frame, "split")["image_id"].tolist() == list(ids)


@pytest.mark.parametrize(("ids", "row"), [("abb", 1), ("bab", 0)])
def test_repeated_key_is_named(ids, row):
    frame = pd.DataFrame({"image_id": list(ids), "role": "train", "fold": 0})
    with pytest.raises(InputError, match=f"row {row}, image_id '{ids[row]}'"):
        tables.validate_table(frame, "split")


@pytest.mark.parametrize(("ids", "row"), [("abb", 1), ("bab", 0)])
def test_repeated_key_of_several_columns_is_named(ids, row):
    frame = pd.DataFrame({"image_id": list(ids), "finding": "mass", "score": 0.5})
    with pytest.raises(InputError, match=f"row {row}, image_id '{ids[row]}'"):
        tables.validate_table(frame, "scores")
    distinct = frame.assign(finding=[f"f{number}" for number in range(len(ids))])
    assert len(tables.validate_table(distinct, "scores")) == len(ids)


def test_broken_row_is_named_also_where_values_are_missing_before_it():
    frame = pd.DataFrame({"image_id": list("abc"), "role": "train", "fold": [None, -1, 0]})
    with pytest.raises(InputError, match=r"row 1, image_id 'b': fold=-1$"):
        tables.validate_table(frame, "split")


@pytest.mark.parametrize("greys", ["f" * 33, "F" * 32, "f" * 32 + "\n"])
def test_pattern_of_a_column_covers_the_whole_text(greys):
    *_, rule = tables.SCHEMAS["decode"].columns["border_greys"].rules
    assert rule.holds(pd.Series(["0f" * 16], dtype=TEXT)).all()
    assert not rule.holds(pd.Series([greys], dtype=TEXT)).any()


@pytest.mark.parametrize(("values", "message"), [([1.0, 2.0], "grid_h x grid_w"), (3.0, "values")])
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


def test_repeated_text_takes_little_space(tmp_path):
    rows = pd.concat([BOXES] * 20_000, ignore_index=True)
    tables.write_table(rows, tmp_path / "boxes.parquet", "boxes")
    assert (tmp_path / "boxes.parquet").stat().st_size < 20_000


def test_missing_table_and_foreign_file_are_refused(tmp_path):
    with pytest.raises(InputError, match=str(tmp_path / "boxes.parquet")):
        tables.read_table(tmp_path / "boxes.parquet", "boxes")
    (tmp_path / "boxes.parquet").write_bytes(b"not parquet")
    with pytest.raises(InputError, match=str(tmp_path / "boxes.parquet")):
        tables.read_table(tmp_path / "boxes.parquet", "boxes")


def test_other_schema_version_is_refused(tmp_path):
    path = tmp_path / "boxes.parquet"
    tables.write_table(BOXES, path, "boxes")
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"cxr_schema_version": "99"}), path)
    with pytest.raises(InputError, match=r"boxes\.parquet.*\b99\b.*\b2\b"):
        tables.read_table(path, "boxes")


def test_digest_sees_values_not_row_order():
    digest = tables.frame_digest(BOXES, ["image_id", "x1"])
    assert digest == tables.frame_digest(BOXES[::-1], ["image_id", "x1"])
    assert digest != tables.frame_digest(BOXES.assign(x1=[0.0, 41.0]), ["image_id", "x1"])


@pytest.mark.parametrize("path", ["/etc/a.png", "../a.png", "a/../../b.png", "a/..", "a\0.png"])
def test_a_path_that_leaves_the_source_is_refused(path):
    rule = tables.SCHEMAS["images"].columns["path"].rules[0]
    assert not rule.holds(pd.Series([path], dtype=TEXT)).any()
    assert rule.holds(pd.Series(["a..b/c.png", "..a/b", "c d.png"], dtype=TEXT)).all()
