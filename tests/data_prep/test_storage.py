"""Files appear whole, damage is refused, writers do not meet, and names that are hidden stay so."""

import errno
import os
import pickle
from unittest import mock

import numpy as np
import pandas as pd
import pytest

from cxr_compare import InputError
from tests.adapters import storage
from tests.data_prep.test_prepare import (
    DIGITS,
    FINDING,
    LETTERS,
    assert_same_set,
    prepare,
    write_source,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("storage") / "source")


@pytest.fixture(scope="module")
def whole(source):
    prepare(source, source.parent / "whole", size=[32])
    return source.parent / "whole"


# Files and locks


def test_an_interrupted_write_keeps_the_old_file(tmp_path):
    path = storage.write_text(tmp_path / "table", "old")
    with pytest.raises(KeyboardInterrupt):
        write_and_interrupt(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def write_and_interrupt(path):
    with storage.atomic_path(path) as temporary:
        temporary.write_text("new")
        raise KeyboardInterrupt


def test_two_writers_of_one_process_number_do_not_meet(tmp_path):
    """Two containers count their processes from 1."""
    path = tmp_path / "table"
    with storage.atomic_path(path) as first, storage.atomic_path(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_second_writer_is_refused_and_no_lock_file_stays(tmp_path):
    with (
        storage.folder_lock(tmp_path),
        pytest.raises(InputError, match=str(tmp_path)),
        storage.folder_lock(tmp_path),
    ):
        pass
    with storage.folder_lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


# Full disks


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_takes_no_more_is_one_line_and_the_work_goes_on(
    source, whole, tmp_path, reason
):
    out = tmp_path / "set"
    full = OSError(reason, os.strerror(reason))
    with mock.patch.object(os, "fsync", side_effect=full), pytest.raises(InputError) as refused:
        prepare(source, out, size=[32])
    assert str(out) in str(refused.value)
    assert "\n" not in str(refused.value)
    prepare(source, out, size=[32])
    assert_same_set(whole, out)


# Requests


def test_other_options_or_a_changed_source_are_refused_in_a_complete_folder(tmp_path):
    source = write_source(tmp_path / "source")
    out = tmp_path / "set"
    prepare(source, out)
    for other in ({"val": 0.1}, {"target": {"any": [FINDING]}}, {"id_key": tmp_path / "key"}):
        with pytest.raises(InputError, match=str(out)):
            prepare(source, out, **other)
    labels = (source / "labels.csv").read_text()
    (source / "labels.csv").write_text(labels.replace("i002,p01,0", "i002,p01,1"))
    with pytest.raises(InputError, match=str(out)):
        prepare(source, out)


def test_a_folder_with_other_things_is_left_alone(source, tmp_path):
    out = tmp_path / "precious"
    out.mkdir()
    (out / "thesis.txt").write_text("two years of work")
    with pytest.raises(InputError, match=str(out)):
        prepare(source, out)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


# Records


def test_a_record_is_read_as_it_was_written_and_only_as_its_kind(tmp_path):
    path = tmp_path / "bench.json"
    kind, other, record = storage.bench(n=3, parts={"a": {"names": ["x", "y"]}})
    record.write(path)
    assert kind.read(path) == record
    assert "share" not in path.read_text()
    with pytest.raises(InputError, match=str(path)):
        other.read(path)


HEAD = '{"contract": "bench", "schema_version": 3, '


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", ""),
        ("[]", ""),
        (HEAD + '"n": NaN}', ""),
        (HEAD + '"n": 1, "facts": {"a": 1e999}}', ""),
        (HEAD + '"n": 1, "facts": {"a": "\\ud800"}}', ""),
        (HEAD + '"n": 1, "facts": {"a": ' + "[" * 9000 + "]" * 9000 + "}}", ""),
        (HEAD + '"n": 1, "more": 2}', " more: "),
        (HEAD + '"n": true}', " n: "),
        (HEAD + '"n": "1"}', " n: "),
        (HEAD + '"n": 1, "parts": {"a": {"share": "0.5"}}}', " parts.a.share: "),
        (HEAD.replace("3", "1") + '"n": 1}', "version 1"),
    ],
    ids=lambda value: value[:60],
)
def test_a_file_that_is_no_such_record_is_refused_in_one_line(tmp_path, text, named):
    path = tmp_path / "bench.json"
    path.write_text(text)
    kind, _, _ = storage.bench(n=1)
    with pytest.raises(InputError) as refused:
        kind.read(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


# Tables

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
SPLIT = pd.DataFrame({"image_id": ["a", "b"], "role": "train", "fold": [None, 0]})
IMAGES = pd.DataFrame(
    {"image_id": ["a", "b"], "patient_id": "p", "patient_id_source": "given", "source": "s"}
)
MAPS = pd.DataFrame(
    {"image_id": ["a"], "finding": "f", "method": "cam", "grid_h": 2, "grid_w": 2,
     "values": [[1.0, 2.0, 3.0, 4.0]], "x1": 0.0, "y1": 0.0, "x2": 8.0, "y2": 8.0}
)  # fmt: skip


def as_list(cell):
    return list(cell) if isinstance(cell, list | np.ndarray) else cell


@pytest.mark.parametrize(
    ("table", "name"), [(BOXES, "boxes"), (SPLIT, "split"), (IMAGES, "images"), (MAPS, "maps")]
)
def test_a_table_is_read_as_it_was_written(tmp_path, table, name):
    path = tmp_path / f"{name}.parquet"
    files = {path.name: storage.write_table(table, path, name)}
    read = storage.read_table(path, name, files)
    for column in table:
        written = table[column].dropna().tolist()
        assert [*map(as_list, read[column].dropna())] == [*map(as_list, written)]
        assert read[column].isna().tolist() == table[column].isna().tolist()
    with pytest.raises(InputError, match=str(path)):
        storage.read_table(path, name, {path.name: "0" * 64})
    with pytest.raises(InputError, match=str(path)):
        storage.read_table(path, name, {})


@pytest.mark.parametrize(
    ("table", "name", "change", "named"),
    [
        (BOXES, "boxes", {"x2": [3.0, 40.0]}, "row 1 (b): x2=40"),
        (BOXES, "boxes", {"x1": [-1.0, 40.0]}, "row 0 (a): x1=-1"),
        (BOXES, "boxes", {"y2": [3.0, np.nan]}, "row 1 (b): y2=nan"),
        (BOXES, "boxes", {"y2": [np.inf, 4.0]}, "row 0 (a): y2=inf"),
        (BOXES, "boxes", {"image_id": [None, "b"]}, "row 0"),
        (BOXES, "boxes", {"image_id": ["", "b"]}, "row 0"),
        (BOXES, "boxes", {"x1": ["left", 40.0]}, "left"),
        (BOXES, "boxes", {"extra": 1}, "extra"),
        (SPLIT, "split", {"image_id": ["a", "a"]}, "row 1 (a)"),
        (SPLIT, "split", {"role": ["train", "exam"]}, "row 1 (b): role=exam"),
        (SPLIT, "split", {"fold": [None, -1]}, "row 1 (b): fold=-1"),
        (IMAGES, "images", {"path": ["/etc/a.png", None]}, "row 0 (a): path=/etc/a.png"),
        (IMAGES, "images", {"path": ["a..b/c.png", "a/../../b.png"]}, "row 1 (b): path="),
        (IMAGES, "images", {"path": ["..a/b", "a/.."]}, "row 1 (b): path="),
        (IMAGES, "images", {"height": [0, 5]}, "row 0 (a): height=0"),
        (MAPS, "maps", {"grid_h": 3}, "row 0 (a): values"),
    ],
)
def test_a_table_that_breaks_a_rule_is_not_written(tmp_path, table, name, change, named):
    with pytest.raises(InputError) as refused:
        storage.write_table(table.assign(**change), tmp_path / f"{name}.parquet", name)
    assert f"{name}.parquet: " in str(refused.value)
    assert named in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_digest_sees_values_and_not_the_order_of_rows():
    digest = storage.frame_digest(BOXES, ["image_id", "x1"])
    assert digest == storage.frame_digest(BOXES[::-1], ["image_id", "x1"])
    assert digest != storage.frame_digest(BOXES.assign(x1=[0.0, 41.0]), ["image_id", "x1"])


# Hidden ids


def test_ids_and_paths_are_hidden_once_and_alike_in_every_table():
    images = pd.DataFrame(
        {
            "image_id": ["1.2.1", "1.2.2"],
            "patient_id": ["DOE^JANE:1960", "DOE^JANE:1960"],
            "study_id": ["1.2", None],
            "path": ["DOE^JANE/a.dcm", None],
        },
        dtype="str",
    )
    hidden = storage.hidden(images, b"k" * 32)
    labels = storage.hidden(images[["image_id"]][::-1], b"k" * 32)
    assert labels["image_id"].tolist() == hidden["image_id"].tolist()[::-1]
    assert hidden["patient_id"].nunique() == 1
    assert hidden.isna().equals(images.isna())
    assert not hidden.astype(object).map(lambda cell: "DOE" in str(cell)).any(axis=None)
    again = storage.hidden(hidden[["image_id", "path"]], b"k" * 32)
    assert again["path"].equals(hidden["path"])


def test_with_a_key_no_name_is_in_any_file_while_it_works(tmp_path):
    source = write_source(tmp_path / "source", 24)
    table = pd.read_csv(source / "labels.csv")
    table["patient_id"] = [f"{LETTERS}^JANE{n // 2}:{DIGITS}" for n in range(24)]
    table.to_csv(source / "labels.csv", index=False)
    out = tmp_path / "set"
    with mock.patch.object(os, "replace", stopped_at(3)), pytest.raises(KeyboardInterrupt):
        prepare(source, out, id_key=tmp_path / "key", size=[32])
    _require_no_name(out, ["i000", "i023", LETTERS, DIGITS])
    assert (out / "decoded.jsonl").is_file()
    prepare(source, out, id_key=tmp_path / "key", size=[32], page=True)
    _require_no_name(out, ["i000", "i023", LETTERS, DIGITS])


def stopped_at(number, real=os.replace):
    """Rename files, and be interrupted at one of them."""
    names = []

    def replace(*arguments, **options):
        names.append(arguments)
        if len(names) == number:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    return replace


def _require_no_name(folder, names):
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".npy":
            content = path.read_bytes().decode(errors="replace")
            if path.suffix == ".parquet":
                content = pd.read_parquet(path).to_csv()
            text = f"{path.relative_to(folder)}\n{content}"
            assert not [name for name in names if name in text], path


# Predictions


def images(*ids):
    return pd.DataFrame({"image_id": ids, "status": "ok", "reason": None})


# Messages and origin


def test_a_message_is_one_printable_line_of_bounded_length():
    message = str(InputError(f"a.csv: line 2: x='1\n2\x1b[31m\u202e{'x' * 9_000}' is not a number"))
    assert message.startswith("a.csv: line 2: x='1\ufffd2\ufffd[31m\ufffdxxx")
    assert message.endswith("xxx' is not a number")
    assert message.isprintable()
    assert len(message) < 2_000
    error = pickle.loads(pickle.dumps(InputError("a.csv: is empty")))  # noqa: S301 - our own
    assert str(error) == "a.csv: is empty"
