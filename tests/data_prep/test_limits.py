"""Small files that stand for much: refused before the work begins, or read as quickly as others."""

import gzip
import hashlib
import os
import socket
from pathlib import Path
from unittest import mock

import pytest
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


def special(folder):
    """A pipe, a socket, a device without end, and a link to itself, by what they are."""
    os.mkfifo(folder / "pipe.csv")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(folder / "socket.csv"))
    (folder / "device.csv").symlink_to("/dev/zero")
    (folder / "link.csv").symlink_to("link.csv")
    return sorted(folder.glob("*.csv"))


GIVEN_AS = {
    "a system": lambda path: cxr_compare.compare(path, truth="truth.csv"),
    "labels": lambda path: cxr_compare.compare({"A": [0.1, 0.9]}, truth=path),
    "boxes": lambda path: cxr_compare.compare({"A": [0.1, 0.9]}, truth="truth.csv", boxes=path),
    "labels of images": lambda path: cxr_compare.prepare(path, "images", "out"),
    "a source": lambda path: cxr_compare.prepare(path, "out"),
    "a split": cxr_compare.check,
}


@pytest.mark.parametrize("call", GIVEN_AS.values(), ids=GIVEN_AS)
def test_what_is_no_plain_file_is_refused_as_that_and_not_waited_for(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "special").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "truth.csv").write_text("image_id,label,role\na,1,test\nb,0,test\n")
    for path in special(tmp_path / "special"):
        with pytest.raises(InputError, match=rf"{path.name}: is no plain file"):
            call(path)


def test_a_file_that_is_too_long_is_refused_before_it_is_read(tmp_path):
    long = tmp_path / "long.csv"
    with long.open("wb") as file:
        file.truncate((512 << 20) + 1)
    for systems, labels in ((long, [0, 1]), ({"A": [0.1, 0.9]}, long)):
        with (
            mock.patch.object(hashlib, "file_digest", side_effect=AssertionError),
            mock.patch.object(Path, "read_bytes", side_effect=AssertionError),
            pytest.raises(InputError, match=r"long\.csv"),
        ):
            cxr_compare.compare(systems, truth=labels)


NO_DISK = Path("/proc/self/mem")


@pytest.mark.skipif(not NO_DISK.exists(), reason="no file here that cannot be read")
def test_a_disk_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "truth.csv").write_text("image_id,label\na,1\nb,0\n")
    bad = tmp_path / "bad.csv"
    bad.symlink_to(NO_DISK)
    with pytest.raises(InputError, match=r"bad\.csv: Input/output error"):
        cxr_compare.compare(bad, truth=tmp_path / "truth.csv")


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


@pytest.mark.parametrize(
    "names", ["[" * 5000 + "]" * 5000, "[" + ", ".join(f"n{k}" for k in range(60_000)) + "]"]
)
def test_a_yaml_file_of_deep_brackets_or_very_many_names_is_refused(tmp_path, images, names):
    (images / "data.yaml").write_text(f"names: {names}")
    (images / "i0.txt").write_text("0 0.5 0.5 0.2 0.2")
    with pytest.raises(InputError, match=r"data\.yaml"):
        cxr_compare.prepare(images, tmp_path / "out", format="yolo", workers=0)
