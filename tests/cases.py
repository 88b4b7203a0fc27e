"""Cases of `conformance/` as parameters of tests, and the files that they describe."""

import base64
import gzip
import json
import os
import zlib
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from PIL import Image

from tests.small_dicom import write_radiograph

CONFORMANCE = Path(__file__).resolve().parents[1] / "conformance"
ORIENTATION = 0x0112  # of EXIF


def load(*names):
    """The cases of files below `conformance/`; one that is not yet true must fail."""
    cases = []
    for name in names:
        for case in json.loads((CONFORMANCE / name).read_text(encoding="utf-8"))["cases"]:
            today = case.get("not_yet")
            marks = pytest.mark.xfail(strict=True, reason=today) if today else ()
            cases.append(pytest.param(case, id=case["name"], marks=marks))
    return cases


def write_file(folder, name, content, *, noise=False):
    """Write a file of a case; with noise no two images are copies, without they are black."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        path.write_bytes(content.encode())
    elif "text" in content:
        written = content["text"].encode(content.get("encoding", "utf-8"))
        path.write_bytes(gzip.compress(written) if content.get("gzip") else written)
    elif "base64" in content:
        path.write_bytes(base64.b64decode(content["base64"]))
    elif "sheets" in content:
        write_workbook(path, content)
    elif "dicom" in content:
        values = _noise(name, (64, 64), 4096) if noise else np.zeros((64, 64))
        write_radiograph(path, values.astype(np.uint16), content["dicom"])
    else:
        _write_image(path, name, content, noise=noise)


def _noise(name, shape, end):
    return np.random.default_rng(zlib.crc32(os.fsencode(name))).integers(0, end, shape)


def _write_image(path, name, content, *, noise):
    width, height = content["image"]
    if noise and "grey" not in content:
        image = Image.fromarray(_noise(name, (height, width), 256).astype(np.uint8))
    else:
        image = Image.new(content.get("mode", "L"), (width, height), content.get("grey", 0))
    exif = image.getexif()
    if "turned" in content:
        exif[ORIENTATION] = content["turned"]
    image.save(path, exif=exif)


def write_workbook(path, content):
    """A cell is a value, or a value with the number format that shows it."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in content["sheets"].items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append([cell["value"] if isinstance(cell, dict) else cell for cell in row])
            for number, cell in enumerate(row, start=1):
                if isinstance(cell, dict):
                    sheet.cell(sheet.max_row, number).number_format = cell["shown_as"]
        for cells in content.get("merged", {}).get(name, []):
            sheet.merge_cells(cells)
    book.save(path)
