"""Files appear whole, damage is refused, writers do not meet, and names that are hidden stay so."""

import errno
import os
import pickle
import shutil
import sys
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import cxr_compare
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


def test_the_next_writer_removes_what_a_killed_one_left_and_nothing_else(tmp_path):
    of_killed = tmp_path / "overlays" / ".a.png.17-0123abcd.tmp"
    of_another_writer = tmp_path / "trial" / ".a.png.17-0123abcd.tmp"
    of_user = tmp_path / ".notes.tmp"
    for path in (of_killed, of_another_writer, tmp_path / "trial" / ".lock", of_user):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    with storage.folder_lock(tmp_path):
        pass
    assert not of_killed.exists()
    assert of_another_writer.exists()
    assert of_user.exists()


def test_a_temporary_file_of_a_writer_that_works_is_left_alone(tmp_path):
    """One writes a folder that it renames, another locks the folder around it."""
    path = tmp_path / "out"
    with storage.path_lock(path), storage.atomic_path(path) as temporary:
        with storage.folder_lock(tmp_path):
            pass
        assert temporary.exists()


def test_a_new_folder_in_which_nothing_was_written_is_removed(tmp_path):
    (tmp_path / "old").mkdir()
    for name in ("new", "old"):
        with pytest.raises(InputError), storage.folder_lock(tmp_path / name):
            raise InputError("refused")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_file_where_a_folder_is_needed_is_named(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match=f"^{tmp_path / 'out' / 'inner'}: "):
        storage.make_folder(tmp_path / "out" / "inner")


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


def test_work_that_cannot_fit_is_refused_before_an_image_is_read(source, tmp_path):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    with (
        mock.patch.object(shutil, "disk_usage", return_value=usage),
        mock.patch.object(Image, "open", side_effect=AssertionError),
        pytest.raises(InputError, match=str(tmp_path / "set")),
    ):
        prepare(source, tmp_path / "set", size=[512])
    assert not (tmp_path / "set").exists()


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


def test_other_options_are_refused_in_a_folder_that_was_begun(source, tmp_path):
    out = tmp_path / "set"
    with (
        mock.patch.object(Image, "open", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        prepare(source, out, size=[32])
    for other in ({"val": 0.1, "size": [32]}, {"size": [48]}):
        with pytest.raises(InputError, match=str(out)):
            prepare(source, out, **other)


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


def test_a_written_number_is_finite_and_a_refused_write_keeps_the_old_file(tmp_path):
    kind, _, record = storage.bench(n=3)
    record.write(tmp_path / "bench.json")
    with pytest.raises(ValueError, match="float"):
        record.with_values(facts={"auroc": float("nan")}).write(tmp_path / "bench.json")
    assert kind.read(tmp_path / "bench.json") == record
    with pytest.raises(ValueError, match="n"):
        record.with_values(n="4")


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


def test_a_table_without_a_column_and_a_foreign_file_are_refused(tmp_path):
    path = tmp_path / "boxes.parquet"
    with pytest.raises(InputError, match="reader"):
        storage.write_table(BOXES.drop(columns="reader"), path, "boxes")
    with pytest.raises(InputError, match=str(path)):
        storage.read_table(path, "boxes")
    path.write_bytes(b"not parquet")
    with pytest.raises(InputError, match=str(path)):
        storage.read_table(path, "boxes")


def test_a_digest_sees_values_and_not_the_order_of_rows():
    digest = storage.frame_digest(BOXES, ["image_id", "x1"])
    assert digest == storage.frame_digest(BOXES[::-1], ["image_id", "x1"])
    assert digest != storage.frame_digest(BOXES.assign(x1=[0.0, 41.0]), ["image_id", "x1"])


# Hidden ids


def test_a_key_is_made_once_for_its_owner_alone(tmp_path):
    path = tmp_path / "id.key"
    key = storage.read_id_key(path, tmp_path / "out")
    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert storage.read_id_key(path, tmp_path / "out") == key
    assert storage.read_id_key(tmp_path / "second.key") != key


def test_an_unfit_key_is_refused(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "link.key").symlink_to(out / "id.key")
    short, readable = tmp_path / "short.key", tmp_path / "readable.key"
    short.write_bytes(b"0123456789")
    short.chmod(0o600)
    readable.write_bytes(b"0" * 32)
    readable.chmod(0o640)
    long = tmp_path / "long.key"
    long.write_bytes(b"0" * 5000)
    long.chmod(0o600)
    for path in (
        out / "id.key",
        tmp_path / "link.key",
        short,
        readable,
        long,
        tmp_path,
        tmp_path / "no-such-folder" / "id.key",
    ):
        with pytest.raises(InputError, match=str(path)):
            storage.read_id_key(path, out)
    assert list(out.iterdir()) == []


@given(st.lists(st.text(max_size=64), min_size=2, unique=True, max_size=30))
def test_different_names_get_different_hashes(names):
    table = pd.DataFrame({"image_id": names}, dtype="str")
    of_key = storage.hidden(table, b"k" * 32)["image_id"]
    assert of_key.is_unique
    assert of_key.str.fullmatch("[0-9a-f]{24}").all()
    assert not set(of_key) & set(storage.hidden(table, b"o" * 32)["image_id"])


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


def test_words_of_ids_and_paths_leave_sentences():
    names = pd.Series(["i003", "hosp:DOE^JANE", "images/SMITH/x 1.dcm"], dtype="str")
    texts = pd.Series(
        ["2 images found (such as 'i003' for DOE^JANE)", "images/SMITH/x 1.dcm: cut"], dtype="str"
    )
    assert storage.hide_names(texts, names).tolist() == [
        "2 images found (such as '...' for ...)",
        "... ...: cut",
    ]


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


def scores(*ids):
    return pd.DataFrame({"image_id": ids, "finding": "f", "score": 0.5})


def write_and_stop(folder):
    with storage.PredictionWriter(folder, storage.predictions_info()) as writer:
        writer.add(images("a"), scores=scores("a"))
        raise KeyboardInterrupt


def test_interrupted_predictions_are_gone_on_with(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_and_stop(tmp_path)
    with pytest.raises(InputError, match=str(tmp_path)):
        cxr_compare.Predictions.open(tmp_path)
    # As if killed between the scores and the images of the second part.
    part = tmp_path / "scores.parquet" / "part-00000.parquet"
    (tmp_path / "scores.parquet" / "part-00001.parquet").write_bytes(part.read_bytes())
    with storage.PredictionWriter(tmp_path, storage.predictions_info()) as writer:
        assert writer.done == {"a"}
        writer.add(images("b"), scores=scores("b"))
    predictions = cxr_compare.Predictions.open(tmp_path)
    assert predictions.images["image_id"].tolist() == ["a", "b"]
    assert predictions.scores["image_id"].tolist() == ["a", "b"]
    assert predictions.boxes.empty


def test_predictions_of_another_model_and_complete_ones_are_not_overwritten(tmp_path):
    begun, done, strange = tmp_path / "begun", tmp_path / "done", tmp_path / "strange"
    with pytest.raises(KeyboardInterrupt):
        write_and_stop(begun)
    with storage.PredictionWriter(done, storage.predictions_info()) as writer:
        writer.add(images("a"), scores=scores("a"))
    strange.mkdir()
    (strange / "thesis.docx").write_text("")
    for folder, model in ((begun, "other"), (done, "m"), (strange, "m")):
        with (
            pytest.raises(InputError, match=str(folder)),
            storage.PredictionWriter(folder, storage.predictions_info(model)),
        ):
            pass


def test_a_score_of_an_image_that_did_not_run_is_not_written(tmp_path):
    with (
        pytest.raises(InputError, match="'b'"),
        storage.PredictionWriter(tmp_path, storage.predictions_info()) as writer,
    ):
        writer.add(images("a"), scores=scores("a", "b"))


# Messages and origin


def test_a_message_is_one_printable_line_of_bounded_length():
    message = str(InputError(f"a.csv: line 2: x='1\n2\x1b[31m\u202e{'x' * 9_000}' is not a number"))
    assert message.startswith("a.csv: line 2: x='1\ufffd2\ufffd[31m\ufffdxxx")
    assert message.endswith("xxx' is not a number")
    assert message.isprintable()
    assert len(message) < 2_000
    error = pickle.loads(pickle.dumps(InputError("a.csv: is empty")))  # noqa: S301 - our own
    assert str(error) == "a.csv: is empty"


def test_a_folder_names_the_command_without_folders_of_the_machine(monkeypatch, whole):
    words = ["compare", "A=/home/ann lee/a,/b c/d", "--data", "/data/set", "--out", "s3://bucket/x"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/cxr", *words])
    made = storage.provenance()
    assert made["command"] == "cxr compare A=a,d --data set --out s3://bucket/x"
    assert {"python", "numpy", "pydicom"} <= set(made["versions"])
    assert cxr_compare.DataSet.open(whole).info.command is None
