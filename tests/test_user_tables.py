"""Tables of users in every dialect, and tables of ours that no spreadsheet takes for formulas."""

import csv
import gzip
import io
import math
import re
import zipfile

import openpyxl
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.adapters import user_tables

ROWS = (["file", "label", "x"], {2: ["a.png", "Maße", "1.5"], 3: ["b.png", "", "20.25"]})
TEXT = "file,label,x\na.png,Maße,1.5\nb.png,,20.25\n"
GERMAN = TEXT.replace(",", ";").replace(".5", ",5").replace(".25", ",25")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", TEXT.encode()),
        ("t.csv", TEXT.encode("utf-8-sig")),
        ("t.csv", TEXT.encode("utf-16")),
        ("t.csv", b"\xfe\xff" + TEXT.encode("utf-16-be")),
        ("t.csv", GERMAN.encode("utf-8-sig")),
        ("t.tsv", TEXT.replace(",", "\t").encode()),
        ("t.txt", TEXT.replace(",", "\t").encode("utf-16")),
        ("t.csv.gz", gzip.compress(TEXT.encode())),
        ("t.tsv.gz", gzip.compress(TEXT.replace(",", "\t").encode("utf-16"))),
    ],
)
def test_every_dialect_gives_the_same_cells(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert user_tables.read(tmp_path / name) == ROWS
    assert user_tables.head(tmp_path / name) == ([] if name.endswith("gz") else ROWS[0])


def test_the_line_of_excel_that_names_the_separator_is_no_head(tmp_path):
    (tmp_path / "t.csv").write_text(f"sep=;\n{GERMAN}", encoding="utf-8")
    head, rows = user_tables.read(tmp_path / "t.csv")
    assert head == ROWS[0]
    assert list(rows) == [3, 4]


CELL = st.sampled_from(["", "a", "0012", "NA", " b ", "é", "1.5", '"x, y"', '"two\nlines"', "'"])
LINES = st.lists(st.lists(CELL, min_size=1, max_size=3).map(",".join), max_size=8)


@settings(max_examples=40, deadline=None)
@given(LINES, st.sampled_from(["\n", "\r\n"]), st.sampled_from(["", "\ufeff"]), st.booleans())
def test_a_csv_has_the_cells_that_pandas_finds(tmp_path_factory, lines, end, mark, open_end):
    path = tmp_path_factory.getbasetemp() / "table.csv"
    text = end.join(["one,two,three", *lines]) + ("" if open_end else end)
    path.write_text(mark + text, encoding="utf-8", newline="")
    expected = pd.read_csv(
        path, dtype="str", keep_default_na=False, encoding="utf-8-sig", skip_blank_lines=False
    )
    expected = expected.fillna("").apply(lambda column: column.str.strip())
    expected = expected[(expected != "").any(axis=1)]
    head, rows = user_tables.read(path)
    assert head == ["one", "two", "three"]
    assert list(rows) == [line + 2 for line in expected.index]
    assert list(rows.values()) == expected.to_numpy().tolist()


@pytest.mark.parametrize("cut", [3, 2000, -30])
def test_a_cut_workbook_is_one_line(tmp_path, cut):
    book = openpyxl.Workbook()
    book.active.append(["file", "label"])
    book.active.append(["a.png", "mass"])
    book.save(tmp_path / "t.xlsx")
    (tmp_path / "t.xlsx").write_bytes((tmp_path / "t.xlsx").read_bytes()[:cut])
    line = user_tables.read(tmp_path / "t.xlsx")
    assert "t.xlsx" in line
    assert "\n" not in line


def workbook(path, rows, change=lambda book: None):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    change(book)
    book.save(path)
    return path


def test_a_workbook_is_known_by_its_content_and_its_hidden_sheets_are_passed_over(tmp_path):
    def add_lists(book):
        book.create_sheet("Empty")
        lists = book.create_sheet("Lists")
        lists.append(["yes", "no"])
        lists.sheet_state = "hidden"

    rows = [["file", "label"], ["a.png", "mass"]]
    path = workbook(tmp_path / "t.xlsx", rows, add_lists).rename(tmp_path / "labels.csv")
    assert user_tables.read(path) == (rows[0], {2: rows[1]})
    assert user_tables.read(path, "Lists") == (["yes", "no"], {})


@pytest.mark.parametrize(
    ("number_format", "shown"),
    [("0000", "0012"), ("0", "12"), ("General", "12"), ("#,##0.00", "12"), ("0.00E+00", "12"),
     ("0%", "12"), ("0000;-0000", None), ("0,000", None)],
)  # fmt: skip
def test_zeros_that_a_number_format_shows_are_kept_or_asked_about(tmp_path, number_format, shown):
    def change(book):
        book.active["A2"].number_format = number_format

    path = workbook(tmp_path / "t.xlsx", [["file", "label"], [12, "mass"]], change)
    found = user_tables.read(path)
    if shown is None:
        assert "A2" in found
    else:
        assert found[1] == {2: [shown, "mass"]}


@pytest.mark.parametrize(
    ("stored", "cell"), [('t="str"><f>"a"</f><v>a.png</v>', "a.png"), ("><f>7</f><v>7</v>", "7"),
                         ("><f>7</f>", None), ("><f>7</f><v></v>", None)],
)  # fmt: skip
def test_of_a_formula_the_stored_value_counts(tmp_path, stored, cell):
    path = workbook(tmp_path / "t.xlsx", [["file", "label"], ["x", "mass"]])
    name = "xl/worksheets/sheet1.xml"
    with zipfile.ZipFile(path) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    sheet = parts[name].decode()
    parts[name] = re.sub(r'(<c r="A2")[^>]*>.*?</c>', rf"\1 {stored}</c>", sheet).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    found = user_tables.read(path)
    assert ("A2" in found) if cell is None else (found[1] == {2: [cell, "mass"]})


def test_a_column_beyond_the_last_of_a_sheet_is_one_line(tmp_path):
    path = workbook(tmp_path / "t.xlsx", [["file", "label"], ["x", "mass"]])
    with zipfile.ZipFile(path) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    name = "xl/worksheets/sheet1.xml"
    parts[name] = parts[name].replace(b"A2", b"ZZZZ2")
    with zipfile.ZipFile(path, "w") as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    assert "t.xlsx" in user_tables.read(path)


def test_numbers_are_exact_and_missing_words_are_missing():
    cells = ["0.1", "1e-3", "-7", "+3", "1.7976931348623157e308"]
    assert user_tables.numbers(cells) == [0.1, 1e-3, -7, 3, 1.7976931348623157e308]
    assert all(map(math.isnan, user_tables.numbers(["", "NA", "none"])))


@pytest.mark.parametrize("wrong", ["1,5", "0x10", "nan(5)", "1_000"])
def test_a_cell_that_is_no_number_is_named_with_its_line(wrong):
    line = user_tables.numbers(["1", "2", wrong, "NA"])
    assert "line 4" in line
    assert wrong in line


SIGNS = st.text('a15.=+-@;," \t\n', max_size=10)


@settings(max_examples=80, deadline=None)
@given(SIGNS, SIGNS)
def test_no_text_of_a_written_table_begins_a_formula_and_reading_gives_it_back(
    tmp_path_factory, first, second
):
    path = tmp_path_factory.getbasetemp() / "ours.csv"
    text = user_tables.written([[first, second]], path)
    _, *cells = csv.reader(io.StringIO(text))
    for cell in (cell for row in cells for cell in row):
        is_number = re.fullmatch(r"\s*[-+]?(\d+\.?\d*|\.\d+)\s*", cell)
        assert is_number or not cell.strip().startswith(("=", "+", "-", "@"))
    if first.strip() or second.strip():
        assert user_tables.read(path)[1][2] == [first.strip(), second.strip()]


@pytest.mark.parametrize("cell", ["-1e-5", "-8.0", "n = 5", "use --data, -0.2 or A - B"])
def test_numbers_and_words_stay_as_they_are_in_a_written_table(cell):
    assert user_tables.inert(cell) == cell
