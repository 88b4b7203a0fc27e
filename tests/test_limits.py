"""Small files that stand for much: refused before the work begins, or read as quickly as others."""

import gzip

import openpyxl
import pytest
from openpyxl.styles import Font
from PIL import Image

import cxr_compare
from cxr_compare import InputError

ROWS = [["image", "label"], *([f"i{number}.png", number % 2] for number in range(12))]


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(12):
        pixels = Image.linear_gradient("L").rotate(number).resize((64, 64))
        pixels.save(folder / f"i{number}.png")
    return folder


def prepared(table, images):
    return cxr_compare.prepare(table, images, images.parent / "out", workers=0)


def workbook(path, change):
    book = openpyxl.Workbook()
    for row in ROWS:
        book.active.append(row)
    change(book.active)
    book.save(path)
    return path


def test_a_compressed_text_of_too_many_rows_is_refused(tmp_path, images):
    table = tmp_path / "labels.csv.gz"
    table.write_bytes(gzip.compress(b"image,label\n" + b"\n" * 10_000_001))
    with pytest.raises(InputError, match=r"labels\.csv\.gz"):
        prepared(table, images)


def test_a_compressed_text_in_parts_is_read_and_one_that_is_cut_is_refused(tmp_path, images):
    text = "\n".join(f"{name},{label}" for name, label in ROWS).encode()
    table = tmp_path / "labels.csv.gz"
    table.write_bytes(gzip.compress(text[:50]) + gzip.compress(text[50:]))
    assert len(prepared(table, images).images) == 12
    table.write_bytes(table.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"labels\.csv\.gz"):
        prepared(table, images)


def test_a_format_far_below_the_table_costs_nothing(tmp_path, images):
    def far(sheet):
        sheet.cell(1_048_576, 16_384).font = Font(bold=True)

    assert len(prepared(workbook(tmp_path / "labels.xlsx", far), images).images) == 12


def test_a_value_far_from_the_table_is_refused(tmp_path, images):
    def far(sheet):
        sheet.cell(1_048_576, 16_384).value = "x"

    with pytest.raises(InputError, match=r"labels\.xlsx"):
        prepared(workbook(tmp_path / "labels.xlsx", far), images)


@pytest.mark.parametrize(
    "names", ["[" * 5000 + "]" * 5000, "[" + ", ".join(f"n{k}" for k in range(60_000)) + "]"]
)
def test_a_yaml_file_of_deep_brackets_or_very_many_names_is_refused(tmp_path, images, names):
    (images / "data.yaml").write_text(f"names: {names}")
    (images / "i0.txt").write_text("0 0.5 0.5 0.2 0.2")
    with pytest.raises(InputError, match=r"data\.yaml"):
        cxr_compare.prepare(images, tmp_path / "out", format="yolo", workers=0)
