"""Damaged label files of every format: the tables of what is left, or one line."""

import json
import os
import re

import numpy as np
import pytest

from tests.adapters import sources
from tests.cases import CONFORMANCE
from tests.test_conformance_sources import FILES, outcome, write_file

CELLS = (
    "", " ", "0", "-1", "1e400", "nan", "inf", "9" * 400, "0x1F", "1,5", "1;5", "é中", "\ufeff",
    "\u202eabc", "\x00", "\x1b[31m", '"', "'", "a\nb", "../../etc/passwd", "/", ".", "None", "true",
    "{}", "[[]]", "<a>", "&#0;", "%s", "{0}", "1" + "0" * 18, "x" * 5000,
)  # fmt: skip
NAMES = (b"\xff\xfe", "é中".encode(), b"new\nline\x1b[31m", b" ", b"x" * 200, b"a,b'\"{0}")


def is_text(content):
    return bool(content) and (isinstance(content, str) or "text" in content)


def damaged(text, random):
    """A text with another cell, without a line or with one twice, cut, or with flipped bits."""
    kind = int(random.integers(5))
    if kind <= 1:
        cells = re.split(r"([,\s\"<>:\[\]{}|]+)", text)
        cells[2 * int(random.integers((len(cells) + 1) // 2))] = str(random.choice(CELLS))
        return "".join(cells)
    if kind == 2:
        lines = text.splitlines(keepends=True)
        line = lines.pop(int(random.integers(len(lines))))
        return "".join([*lines, *[line] * int(random.choice([0, 2]))])
    if kind == 3:
        return text[: int(random.integers(len(text)))]
    changed = bytearray(text.encode())
    for position in random.integers(0, len(changed), 3):
        changed[position] ^= 1 << int(random.integers(8))
    return changed.decode("latin-1")


def check(kind, found, folder):
    if kind == "refused":
        assert "\n" not in found
        assert found.isprintable(), ascii(found)
        assert len(found.replace(str(folder), "")) < 1600, found
        return
    for images in found["states"].values():
        assert images.keys() <= found["images"].keys()
    assert {box[0] for box in found["boxes"]} <= found["images"].keys()


def whole_cases():
    """Return the first case of each format that is read and has label files in text."""
    chosen = {}
    for path in FILES:
        cases = json.loads((CONFORMANCE / path).read_text(encoding="utf-8"))["cases"]
        for case in cases:
            has_text = any(map(is_text, case["files"].values()))
            if "expect" in case and "not_yet" not in case and has_text:
                chosen.setdefault(path, case)
    return [pytest.param(case, id=path) for path, case in chosen.items()]


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 2, 3))])
@pytest.mark.parametrize("case", whole_cases())
def test_a_damaged_label_file_gives_tables_or_one_line(case, seed, tmp_path):
    random = np.random.default_rng([seed, *case["name"].encode()])
    texts = {name: content for name, content in case["files"].items() if is_text(content)}
    for number, (name, content) in enumerate(texts.items()):
        text = content if isinstance(content, str) else content["text"]
        folder = tmp_path / str(number)
        folder.mkdir()
        files = {**case["files"], name: damaged(text, random)}
        check(*outcome({**case, "files": files}, folder), folder)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("format", ["table", "folders"])
def test_an_oddly_named_image_is_read_or_refused_in_one_line(format, name, tmp_path):  # noqa: A002
    for folder in ("NORMAL", "PNEUMONIA"):
        write_file(tmp_path / "set" / folder / "a.png", {"image": [8, 8]})
    image = tmp_path / "set" / "NORMAL" / "a.png"
    image.rename(image.with_name(os.fsdecode(name) + ".png"))
    table = tmp_path / "labels.csv"
    table.write_text("file,label\nPNEUMONIA/a.png,mass\n", encoding="utf-8")
    labels = [table] if format == "table" else []
    check(*sources.read(tmp_path / "set", format, labels, {}), tmp_path)
