"""Tables as people keep them: every dialect of CSV, and a sheet of a spreadsheet, read as text."""

import datetime
import gzip
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cxr_compare.data_prep.contracts import spreadsheets
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.table_files import (
    is_spreadsheet,
    read_header,
    read_table_file,
    read_text_table,
    to_numbers,
)
from cxr_compare.data_prep.contracts.text import TEXT
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook

ROWS = [["file", "label", "x"], ["a.png", "Maße", "1.5"], ["b.png", "", "20.25"]]
SHEET = "xl/worksheets/sheet1.xml"


def delimited(delimiter: str, decimal: str = ".") -> str:
    lines = (delimiter.join(row).replace("1.5", f"1{decimal}5") for row in ROWS)
    return "".join(f"{line}\n" for line in lines).replace("20.25", f"20{decimal}25")


def write_book(
    path: Path, rows: Sequence[Sequence[Any]], change: Callable[[Any, Any], object] | None = None
) -> Path:
    """Write a workbook with one sheet of rows, changed further by `change(book, sheet)`."""
    book = Workbook()
    for row in rows:
        book.active.append(row)
    if change is not None:
        change(book, book.active)
    book.save(path)
    return path


def with_part(path: Path, name: str, content: bytes) -> Path:
    """Replace a part of a workbook, and let it say that its formulas were calculated."""
    with zipfile.ZipFile(path) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    book = "xl/workbook.xml"
    parts = {**parts, book: parts[book].replace(b'fullCalcOnLoad="1"', b""), name: content}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for part, data in parts.items():
            archive.writestr(part, data)
    return path


def sheet_of(*rows: str) -> bytes:
    """The XML of a sheet: a row of text file,label, and then these."""
    text = '<c r="{}1" t="inlineStr"><is><t>{}</t></is></c>'
    header = f'<row r="1">{text.format("A", "file")}{text.format("B", "label")}</row>'
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    inside = f"<sheetData>{header}{''.join(rows)}</sheetData>"
    return f'<worksheet xmlns="{space}">{inside}</worksheet>'.encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", delimited(",").encode()),
        ("t.csv", delimited(",").encode("utf-8-sig")),
        ("t.csv", delimited(",").encode("utf-16")),
        ("t.csv", b"\xfe\xff" + delimited(",").encode("utf-16-be")),
        ("t.csv", delimited(";", ",").encode("utf-8-sig")),
        ("t.csv", ("sep=;\n" + delimited(";", ",")).encode()),
        ("t.tsv", delimited("\t").encode()),
        ("t.tsv", delimited("\t", ",").encode()),
        ("t.txt", delimited("\t").encode("utf-16")),
        ("t.csv.gz", gzip.compress(delimited(",").encode())),
        ("t.tsv.gz", gzip.compress(delimited("\t").encode("utf-16"), mtime=0)),
    ],
    ids=[
        "commas", "commas-bom", "utf-16", "utf-16-be", "semicolons", "sep-line", "tabs",
        "tabs-decimal-comma", "txt-utf-16", "csv-gz", "tsv-gz",
    ],
)  # fmt: skip
def test_every_dialect_gives_the_same_cells(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    frame = read_text_table(path, ["file"])
    assert [list(frame.columns), *frame.to_numpy().tolist()] == ROWS
    assert read_header(path) == ROWS[0] or content.startswith(b"\x1f\x8b")
    first_line = 3 if content.startswith(b"sep") else 2
    assert frame.index.tolist() == [first_line - 2, first_line - 1]


@pytest.mark.parametrize(
    ("content", "cells"),
    [
        ("file;x\na;1,234\n", ["1.234"]),  # no other reason for semicolons
        ("file\tx\na\t1,234\n", ["1,234"]),  # a thousand, or a decimal comma: nobody knows
        ("file\tx\na\t1,234\nb\t0,5\n", ["1.234", "0.5"]),
        ("file;x\na;1,5\nb;2.5\n", ["1,5", "2.5"]),
        ("file;x\na;mass, left\n", ["mass, left"]),
        ('file,x\na,"1,5"\n', ["1,5"]),
    ],
)
def test_a_decimal_comma_is_read_where_it_is_certain(tmp_path, content, cells):
    path = tmp_path / "t.csv"
    path.write_text(content)
    assert read_text_table(path, ["x"])["x"].tolist() == cells


def test_notes_say_how_a_file_was_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(delimited(";", ","))
    notes = read_table_file(path).notes
    assert any("semicolons" in note for note in notes)
    assert any("decimal commas" in note and note.endswith("x") for note in notes)
    path.write_text(delimited(","))
    assert read_table_file(path).notes == ()


def test_cells_of_a_sheet_are_the_text_that_a_csv_would_hold(tmp_path):
    day, moment = datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2, 3, 4)
    header = ["file", "number", "share", "day", "time", "flag", "id", "NA"]
    row = ["a.png", 3, 0.1, day, moment, True, 19124, "NA"]

    def pad(_: Any, sheet: Any) -> None:
        sheet["G3"].number_format = "00000000"

    path = write_book(tmp_path / "t.xlsx", [header, [], row], pad)
    frame = read_text_table(path, ["file"])
    assert frame.to_numpy().tolist() == [
        ["a.png", "3", "0.1", "2026-01-02", "2026-01-02 03:04:00", "TRUE", "00019124", "NA"]
    ]
    assert frame.index.tolist() == [1]  # row 3 of the sheet


@pytest.mark.parametrize(
    ("number_format", "shown"),
    [
        ("0000", "0012"), ("0", "12"), ("General", "12"), ("#,##0.00", "12"), ("0.00E+00", "12"),
        ("0%", "12"), ("0000;-0000", None), ('"img"0000', None), ("0,000", None),
    ],
)  # fmt: skip
def test_zeros_that_a_number_format_shows_are_kept_or_asked_about(tmp_path, number_format, shown):
    def change(book, sheet):
        sheet["A2"].number_format = number_format

    path = write_book(tmp_path / "t.xlsx", [["file", "label"], [12, "mass"]], change)
    if shown is None:
        with pytest.raises(InputError, match="cell A2"):
            read_text_table(path, ["file"])
    else:
        assert read_text_table(path, ["file"])["file"].tolist() == [shown]


def test_rows_that_a_filter_hides_are_counted(tmp_path):
    def change(book, sheet):
        sheet.row_dimensions[3].hidden = True

    table = read_table_file(write_book(tmp_path / "t.xlsx", ROWS, change))
    assert len(table.text) == 2
    assert any("1 row is hidden" in note for note in table.notes)


def test_a_cell_in_the_last_column_adds_one_column(tmp_path):
    def change(book, sheet):
        sheet["XFD3"] = "far"

    frame = read_table_file(write_book(tmp_path / "t.xlsx", ROWS, change)).text
    assert frame.columns.tolist() == ["file", "label", "x", "column XFD"]
    assert frame["column XFD"].tolist() == ["", "far"]


@pytest.mark.parametrize("mark", ['"', "'"])
def test_merged_cells_are_found_in_every_way_of_writing_xml(tmp_path, mark):
    rows = '<row r="2"><c r="A2" t="inlineStr"><is><t>a.png</t></is></c></row>'
    merge = f"</sheetData><mergeCells><mergeCell ref={mark}B2:B3{mark}/></mergeCells>"
    content = sheet_of(rows).replace(b"</sheetData>", merge.encode())
    path = write_book(tmp_path / "t.xlsx", ROWS)
    with pytest.raises(InputError, match="B2:B3 are merged"):
        read_text_table(with_part(path, SHEET, content), ["file"])
    utf_16 = '<?xml version="1.0" encoding="UTF-16"?>' + content.decode()
    with pytest.raises(InputError, match="B2:B3 are merged"):
        read_text_table(with_part(path, SHEET, utf_16.encode("utf-16")), ["file"])


def test_a_spreadsheet_is_known_by_its_content_whatever_its_name(tmp_path):
    book = write_book(tmp_path / "t.xlsx", ROWS).rename(tmp_path / "labels.csv")
    assert is_spreadsheet(book)
    assert read_text_table(book, ["file"])["file"].tolist() == ["a.png", "b.png"]


def test_one_sheet_is_taken_and_several_are_asked_for(tmp_path):
    def add(book: Any, _: Any) -> None:
        book.create_sheet("Empty")
        lists = book.create_sheet("Lists")
        lists.append(["yes"])
        lists.sheet_state = "hidden"

    path = write_book(tmp_path / "t.xlsx", ROWS, add)
    table = read_table_file(path)
    assert table.text["file"].tolist() == ["a.png", "b.png"]
    assert "'Sheet'" in table.notes[0]

    def two(book: Any, _: Any) -> None:
        book.create_sheet("Second").append(["id", "label"])

    path = write_book(tmp_path / "t.xlsx", ROWS, two)
    with pytest.raises(InputError, match=r"2 sheets .*'Sheet', 'Second'.*--sheet NAME"):
        read_table_file(path)
    assert list(read_table_file(path, "Second").text.columns) == ["id", "label"]
    with pytest.raises(InputError, match=r"'Third'.*'Sheet', 'Second'"):
        read_table_file(path, "Third")
    (tmp_path / "t.csv").write_text(delimited(","))
    with pytest.raises(InputError, match=r"t\.csv: "):
        read_table_file(tmp_path / "t.csv", "Sheet")


FORMULA = '<row r="2"><c r="A2"{}><f>"a"</f>{}</c><c r="B2"><v>1</v></c></row>'


@pytest.mark.parametrize(
    ("kind", "value", "cell"),
    [(' t="str"', "<v>a.png</v>", "a.png"), ("", "<v>7</v>", "7"), (' t="str"', "<v></v>", "")],
)
def test_of_a_formula_the_stored_value_counts(tmp_path, kind, value, cell):
    sheet = sheet_of(FORMULA.format(kind, value))
    path = with_part(write_book(tmp_path / "t.xlsx", ROWS), SHEET, sheet)
    assert read_text_table(path, ["file"])["file"].tolist() == [cell]


@pytest.mark.parametrize("value", ["", "<v></v>"])
def test_a_formula_that_was_never_calculated_is_refused_and_not_empty(tmp_path, value):
    path = with_part(
        write_book(tmp_path / "t.xlsx", ROWS), SHEET, sheet_of(FORMULA.format("", value))
    )
    with pytest.raises(InputError, match=r"\bA2\b"):
        read_text_table(path, [])
    book = write_book(tmp_path / "t.xlsx", [*ROWS, ["c.png", "=B2"]])  # as a program writes it
    with pytest.raises(InputError, match=r"\bB4\b"):
        read_text_table(book, [])


BAD_SHEETS: dict[str, tuple[Sequence[Sequence[Any]], Any, str]] = {
    "merged": (ROWS, lambda book, sheet: sheet.merge_cells("B2:B3"), "cells B2:B3 are merged"),
    "title": ([["My labels"], *ROWS], None, "row 1 has one cell, row 2 more"),
    "empty": ([], None, "no sheet has a cell"),
    "twice": ([["file", "file"], ["a", "b"]], None, "column 'file' appears twice"),
    "long id": ([["file", "id"], ["a", 10**16 + 1]], None, "cell B2 holds a number of more than"),
}


@pytest.mark.parametrize(("rows", "change", "message"), BAD_SHEETS.values(), ids=BAD_SHEETS)
def test_a_sheet_without_a_certain_meaning_is_one_line(tmp_path, rows, change, message):
    path = write_book(tmp_path / "t.xlsx", rows, change)
    with pytest.raises(InputError, match=message) as caught:
        read_text_table(path, [])
    assert "\n" not in str(caught.value)


def test_an_error_of_a_formula_is_named_and_not_available_stays_a_word(tmp_path):
    row = '<row r="2"><c r="A2" t="e"><v>{}</v></c></row>'
    path = write_book(tmp_path / "t.xlsx", ROWS)
    with pytest.raises(InputError, match=r"\bA2\b.*#REF!"):
        read_text_table(with_part(path, SHEET, sheet_of(row.format("#REF!"))), [])
    path = with_part(path, SHEET, sheet_of(row.format("#N/A")))
    assert read_text_table(path, [])["file"].tolist() == ["#N/A"]


BOMBS = {
    "spaces": (SHEET, b" " * (129 << 20)),
    "long texts": ("xl/sharedStrings.xml", b" " * (33 << 20)),
}


@pytest.mark.parametrize(("part", "content"), BOMBS.values(), ids=BOMBS)
def test_what_unpacks_to_too_much_is_refused_before_it_is_parsed(
    tmp_path, part, content, monkeypatch
):
    path = with_part(write_book(tmp_path / "t.xlsx", ROWS), part, content)
    monkeypatch.setattr(spreadsheets, "ExcelReader", None)
    with pytest.raises(InputError, match="CSV"):
        read_text_table(path, [])


WIDE = '<row r="{0}"><c r="XFD{0}"><v>1</v></c></row>'


@pytest.mark.parametrize(
    "rows",
    [[WIDE.format(n) for n in range(2, 160)], ['<row r="1048577"><c><v>1</v></c></row>']],
    ids=["cells", "rows"],
)
def test_a_sheet_of_too_many_cells_is_refused(tmp_path, rows):
    path = with_part(write_book(tmp_path / "t.xlsx", ROWS), SHEET, sheet_of(*rows))
    with pytest.raises(InputError, match="CSV"):
        read_text_table(path, [])


def test_a_wrong_dimension_and_a_cell_far_away_cost_nothing(tmp_path):
    far = '<row r="9"><c r="XFD9" t="inlineStr"><is><t>x</t></is></c></row>'
    sheet = sheet_of(far).replace(b"<sheetData>", b'<dimension ref="A1:XFD1048576"/><sheetData>')
    path = with_part(write_book(tmp_path / "t.xlsx", ROWS), SHEET, sheet)
    frame = read_text_table(path, [])
    assert frame.to_numpy().tolist() == [["", "", "x"]]
    assert frame.index.tolist() == [7]


ENTITIES = b'<!DOCTYPE a [<!ENTITY b "c"><!ENTITY x SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("part", "content"),
    [
        (SHEET, b"<worksheet>"),
        (SHEET, ENTITIES + sheet_of('<row r="2"><c r="A2"><v>&x;</v></c></row>')),
        ("xl/workbook.xml", b"<workbook"),
    ],
)
def test_a_broken_workbook_is_one_line(tmp_path, part, content):
    path = with_part(write_book(tmp_path / "t.xlsx", ROWS), part, content)
    with pytest.raises(InputError, match=r"t\.xlsx") as caught:
        read_text_table(path, [])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [3, 2_000])
def test_a_cut_workbook_is_one_line(tmp_path, length):
    path = write_book(tmp_path / "t.xlsx", ROWS)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match=r"t\.xlsx"):
        read_text_table(path, ["file"])


@pytest.mark.parametrize(
    ("name", "content", "advice"),
    [
        ("t.xls", b"", r"CSV or \.xlsx"),
        ("t.csv", b"PAR1", "Parquet"),
        ("t.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1", "without a password"),
        ("t.csv.zip", b"PK", r"CSV or \.xlsx"),
        ("results.pkl", b"\x80\x04", "COCO results or a CSV"),
        ("t.csv", b"\x80\x04\x95", "pickle"),
        ("t.csv", bytes(128) + b"DICM", "image"),
    ],
)
def test_a_table_of_another_kind_says_what_to_do(tmp_path, name, content, advice):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=advice):
        read_text_table(tmp_path / name, ["file"])


def test_text_of_another_encoding_is_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(delimited(";").encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        read_text_table(path, ["file"])
    path.write_bytes(delimited(",").encode("utf-16")[:-1])
    with pytest.raises(InputError, match="UTF-16"):
        read_text_table(path, ["file"])


cells = st.sampled_from(["", "a", "0012", "NA", " b ", "é", "1.5", '"x, y"', '"two\nlines"', "'"])
lines = st.lists(st.lists(cells, min_size=1, max_size=3).map(",".join), max_size=8)


def by_pandas(path: Path) -> pd.DataFrame:
    """Read a table as `read_text_table` must, by pandas alone."""
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
        (b"a,b\n1,2\n1,2,3\n", "line 3 "),
        (b"a,b\n\xff,2\n", "UTF-8.*line 2"),
        (b'a,b\n"open,2\n', "not readable as CSV"),
        (b"", "not readable as CSV"),
        (b"a;c\n1;2\n", "'b'.*a, c"),
    ],
    ids=["longer line", "not UTF-8", "quote left open", "empty", "another column"],
)
def test_the_error_of_a_broken_table_names_the_position(tmp_path, content, message):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_text_table(path, ["b"])


@pytest.mark.parametrize("text", ["a,a\n1,2\n", "a, a\n1,2\n"])
def test_a_column_named_twice_is_refused(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(InputError, match="'a'"):
        read_text_table(path, ["a"])


def test_numbers_are_exact_and_missing_words_are_missing():
    text = pd.Series(["0.1", "1e-3", "-7", "+3", "", "NA", "none", "1.7976931348623157e308", "inf"])
    numbers = to_numbers(text, Path("t.csv"), "x")
    expected = [0.1, 1e-3, -7, 3, np.nan, np.nan, np.nan, 1.7976931348623157e308, np.inf]
    np.testing.assert_array_equal(numbers.to_numpy(), expected)


@pytest.mark.parametrize("wrong", ["1,5", "0x10", "nan(5)", "1_000"])
def test_the_error_of_a_cell_that_is_no_number_names_the_line(wrong):
    text = pd.Series(["1", "2", wrong, "NA"])
    with pytest.raises(InputError, match=r"line 4: x="):
        to_numbers(text, Path("t.csv"), "x")
