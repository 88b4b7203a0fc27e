"""Local copies of folders in a store, on fsspec's in memory: nothing is lost or half whole."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.json_files import write_json
from cxr_compare.data_prep.contracts.locks import folder_lock
from cxr_compare.data_prep.store.pixel_store import PixelStore
from cxr_compare.data_prep.store.pixel_store_writer import PixelStoreWriter
from cxr_compare.data_prep.store.placement import Placement
from cxr_compare.data_prep.store.prediction_writer import PredictionWriter, image_status
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.data_prep.work import image_files, local_copies, object_store
from cxr_compare.data_prep.work.image_files import open_image
from cxr_compare.data_prep.work.local_copies import local_folder, local_folders
from cxr_compare.data_prep.work.shard_cache import fetch_shard
from cxr_compare.data_prep.work.store_addresses import local_path, store_address

DATA = "memory://bkt/data"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """The content of the store by name; set through `put`."""
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    yield fs.store
    fs.store.clear()


def put(name: str, content: bytes) -> None:
    fsspec.filesystem("memory").pipe_file(f"/bkt/data/{name}", content)


def stored_files(store: dict) -> dict[str, bytes]:
    return {name.removeprefix("/bkt/data/"): file.getvalue() for name, file in store.items()}


@contextmanager
def working(*words: str) -> Iterator[list[str]]:
    """A command whose arguments are these; they come with local folders for addresses."""
    with local_folders({"words": list(words)}) as arguments:
        yield arguments["words"]


def killed(address: str, work) -> None:
    """A command that is killed: nothing is sent, nothing is cleaned up."""
    work(local_folder(address))


def test_small_files_come_at_once_and_images_when_they_are_read(store):
    put("labels.csv", b"a,b\n")
    put("images/1.dcm", b"\1" * 5000)
    copy = local_folder(DATA)
    assert (copy / "labels.csv").read_bytes() == b"a,b\n"
    placeholder = copy / "images" / "1.dcm"
    assert placeholder.stat().st_size == 5000
    assert not placeholder.read_bytes().strip(b"\0")
    with open_image(placeholder) as image:
        assert image.read_bytes() == b"\1" * 5000
        assert image.stat().st_mtime_ns == placeholder.stat().st_mtime_ns
        assert image.name == "1.dcm"
    assert (image.exists(), placeholder.read_bytes().strip(b"\0")) == (False, b"")


def test_an_image_is_read_where_there_is_no_local_copy(store, tmp_path):
    """A worker on another machine has the path alone, made in another user's home."""
    put("images/1.dcm", b"pixels")
    path = Path("/home/other/.cache/cxr-compare/cxr-remote/memory/bkt/data/images/1.dcm")
    with open_image(path) as copy:
        assert copy.read_bytes() == b"pixels"


def test_a_large_image_is_refused_unfetched_and_a_lost_one_by_its_name(store, monkeypatch):
    monkeypatch.setattr(image_files, "MAX_FILE_BYTES", 9)
    put("a.png", b"0123456789")
    copy = local_folder(DATA)
    for name, reason in (("a.png", "0 MiB is larger than the limit"), ("b.png", "no such file")):
        with pytest.raises(InputError, match=f"{name}: {reason}"), open_image(copy / name):
            pytest.fail("was fetched")


def test_what_goes_wrong_with_a_borrowed_image_names_the_image(store):
    put("a.png", b"no image")
    path = local_folder(DATA) / "a.png"
    with pytest.raises(InputError) as caught, open_image(path) as copy:
        raise InputError(f"{copy}: is no image")
    assert str(caught.value) == f"{path}: is no image"


@pytest.mark.parametrize("key", ["../../escaped.csv", "a/../../b.csv", "a//b.csv", "./c.csv"])
def test_a_key_cannot_leave_the_local_copy(store, key):
    fs = fsspec.filesystem("memory")
    put("good.csv", b"")
    fs.store[f"/bkt/data/{key}"] = fs.store["/bkt/data/good.csv"]
    with pytest.raises(InputError, match="cannot be a file's name here"):
        local_folder(DATA)


@pytest.mark.parametrize(
    "address",
    ["s3://me:secret@bucket/a", "s3://KEY@bucket", "s3://bucket/../a", "s3://", "s3://b//a",
     "s3://bucket/a?X-Amz-Signature=secret"],
)  # fmt: skip
def test_an_address_with_a_password_is_refused_without_being_repeated(address):
    with pytest.raises(InputError) as caught:
        local_path(address)
    assert "secret" not in str(caught.value)
    assert "KEY" not in str(caught.value)


def test_what_a_command_changes_is_sent_and_what_it_only_reads_is_not(store, monkeypatch):
    put("images.parquet", b"table")
    put("a.png", b"image")
    sent = []
    real = object_store.send
    monkeypatch.setattr(object_store, "send", lambda p, url: sent.append(p.name) or real(p, url))
    with working(DATA) as (folder,):
        assert Path(folder, "images.parquet").read_bytes() == b"table"
        with folder_lock(Path(folder)):
            pass
    assert sent == []
    with working(f"A={DATA},{DATA}") as (word,):
        folder = word.removeprefix("A=").split(",")[0]
        assert word == f"A={folder},{folder}"
        Path(folder, "audit.html").write_bytes(b"page")
        Path(folder, ".x.123.tmp").write_bytes(b"half")
    assert sent == ["audit.html"]
    assert stored_files(store) == {
        "images.parquet": b"table",
        "a.png": b"image",
        "audit.html": b"page",
    }


def test_a_folder_looks_complete_at_no_moment_that_it_is_not(store, monkeypatch):
    """A set that is rewritten: its JSON goes first and comes last, whenever one looks."""
    states = []

    def note(function):
        def noted(*arguments):
            result = function(*arguments)
            states.append(stored_files(store))
            return result

        return noted

    def write(folder: Path, content: bytes) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "dataset.json").unlink(missing_ok=True)
        for name in ("images.parquet", "boxes.parquet", "dataset.json"):
            (folder / name).write_bytes(content)

    monkeypatch.setattr(object_store, "send", note(object_store.send))
    monkeypatch.setattr(object_store, "remove", note(object_store.remove))
    for content in (b"old", b"new!"):
        with working(DATA) as (folder,):
            write(Path(folder), content)
    assert len(states) == 7
    for state in states:
        if "dataset.json" in state:
            assert len(state) == 3
            assert len(set(state.values())) == 1


def test_parts_are_sent_while_the_work_goes_on_and_growing_files_at_its_end(store, monkeypatch):
    monkeypatch.setattr(local_copies, "SEND_INTERVAL_S", 0.02)
    with working(DATA) as (folder,):
        Path(folder, "shard-00000.npy").parent.mkdir(parents=True, exist_ok=True)
        Path(folder, "shard-00000.npy").write_bytes(b"growing")
        Path(folder, "part-0.parquet").write_bytes(b"done")
        for _ in range(500):
            if "part-0.parquet" in stored_files(store):
                break
            time.sleep(0.01)
        assert stored_files(store) == {"part-0.parquet": b"done"}
    assert stored_files(store).keys() == {"part-0.parquet", "shard-00000.npy"}


def test_a_killed_prediction_goes_on_where_it_was_and_loses_and_doubles_nothing(store):
    info = {"system": "A", "kind": "scores", "inference_id": "1", "data_set": {}}

    def add(writer: PredictionWriter, name: str) -> None:
        row = {"image_id": [name], "finding": ["opacity"], "score": [0.5]}
        writer.add(image_status([name], [True]), scores=pd.DataFrame(row))

    def begin(folder: Path) -> None:
        writer = PredictionWriter(folder, info)
        writer.__enter__()
        add(writer, "a")
        add(writer, "b")
        writer._lock.__exit__(None, None, None)

    killed(DATA, begin)
    assert not store
    with working(DATA) as (folder,), PredictionWriter(Path(folder), info) as writer:
        assert writer.done == {"a", "b"}
        add(writer, "c")
    shutil.rmtree(os.environ["CXR_CACHE"])
    predictions = Predictions.open(DATA)
    assert predictions.scores["image_id"].tolist() == ["a", "b", "c"]
    assert "unfinished.json" not in stored_files(store)


def test_what_another_machine_has_completed_wins_over_work_that_was_never_sent(store):
    killed(
        DATA, lambda copy: copy.mkdir(parents=True) or (copy / "part-9.parquet").write_bytes(b"")
    )
    put("part-0.parquet", b"theirs")
    put("dataset.json", b"{}")
    with working(DATA) as (folder,):
        assert {p.name for p in Path(folder).iterdir()} == {"part-0.parquet", "dataset.json"}
    assert stored_files(store) == {"part-0.parquet": b"theirs", "dataset.json": b"{}"}


def test_a_rewriting_that_was_killed_is_not_mixed_with_what_the_store_has(store):
    """The set's JSON was removed here and is there still: it must not mark the mixture complete."""
    put("images.parquet", b"old")
    put("dataset.json", b"{}")

    def rewrite(copy: Path) -> None:
        (copy / "dataset.json").unlink()
        (copy / "images.parquet").write_bytes(b"new rows")

    killed(DATA, rewrite)
    copy = local_folder(DATA)
    assert (copy / "images.parquet").read_bytes() == b"new rows"
    assert not (copy / "dataset.json").exists()


def test_a_kill_between_sending_and_noting_it_sends_again_or_not_at_all(store, monkeypatch):
    real = object_store.send

    def die(path: Path, url: str):
        real(path, url)
        raise KeyboardInterrupt

    monkeypatch.setattr(object_store, "send", die)
    local_folder(DATA).mkdir(parents=True)
    names = ("shard-00000.npy", "a.csv", "b.csv")
    for name in names:
        (local_path(DATA) / name).write_bytes(name.encode())
    with pytest.raises(KeyboardInterrupt), working(DATA):
        pass
    monkeypatch.setattr(object_store, "send", real)
    with working(DATA):
        pass
    (local_path(DATA) / "shard-00000.npy").unlink()  # as where room is made
    with working(DATA):
        pass
    assert stored_files(store) == {name: name.encode() for name in names}


@pytest.mark.parametrize("part", ["", "memory/bkt/data", "memory/bkt/data/sub"])
def test_whoever_empties_the_cache_does_not_empty_the_store(store, part):
    for name in ("sub/a.csv", "b.csv", "dataset.json", "sub/c.png", "pixels/x/shard-00000.npy"):
        put(name, b"kept")
    before = stored_files(store)
    root = local_folder(DATA).parents[2]
    shutil.rmtree(root / part)
    with working(DATA) as (folder,):
        assert Path(folder, "sub", "a.csv").read_bytes() == b"kept"
    with working(DATA) as (folder,):
        shutil.rmtree(folder)
    assert stored_files(store) == before


def test_what_is_removed_there_goes_here_and_what_is_new_comes(store):
    put("a.csv", b"1")
    put("b.csv", b"1")
    copy = local_folder(DATA)
    put("b.csv", b"22")
    put("c.csv", b"3")
    del store["/bkt/data/a.csv"]
    local_folder(DATA)
    assert {p.name: p.read_bytes() for p in copy.iterdir()} == {"b.csv": b"22", "c.csv": b"3"}


def test_a_folder_and_one_inside_it_know_the_same(store, monkeypatch):
    put("sub/a.csv", b"1")
    local_folder(DATA)
    with working(f"{DATA}/sub") as (inner,):
        Path(inner, "a.csv").write_bytes(b"22")
    monkeypatch.setattr(object_store, "send", lambda *_: pytest.fail("was sent before"))
    with working(DATA) as (folder,):
        assert Path(folder, "sub", "a.csv").read_bytes() == b"22"
    assert stored_files(store) == {"sub/a.csv": b"22"}


def write_store(folder: Path, images: int) -> None:
    with PixelStoreWriter(folder, 16) as writer:
        for number in range(images):
            pixels = np.full((16, 16), number % 251, np.uint8)
            writer.add(f"{number:05d}", pixels, Placement(1.0, 1.0, 0.0, 0.0))


@pytest.fixture
def shards(store, monkeypatch, tmp_path) -> Path:
    """A pixel store of three shards of 4 images, and what the store in memory holds of it."""
    monkeypatch.setattr("cxr_compare.data_prep.store.pixel_store_writer.SHARD_IMAGES", 4)
    write_store(tmp_path / "letterbox-16", 12)
    for path in (tmp_path / "letterbox-16").iterdir():
        put(f"pixels/letterbox-16/{path.name}", path.read_bytes())
    return local_path(DATA) / "pixels" / "letterbox-16"


def names_here(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("shard-*")}


def test_shards_come_when_they_are_read_and_the_least_used_goes(shards, monkeypatch):
    local_folder(DATA)
    size = 4 * 16 * 16 + 128
    monkeypatch.setenv("CXR_CACHE_GIB", repr(2.5 * size / 2**30))
    pixels = PixelStore.open(shards)
    assert names_here(shards) == set()
    for image, expected in ((0, {0}), (5, {0, 1}), (1, {0, 1}), (9, {1, 2}), (2, {0, 2})):
        assert pixels.image(f"{image:05d}")[3, 3] == image
        assert names_here(shards) == {f"shard-{number:05d}.npy" for number in expected}
    monkeypatch.setenv("CXR_CACHE_GIB", repr(0.5 * size / 2**30))
    with pytest.raises(InputError, match="more than the cache may hold"):
        pixels.image("00005")


def test_a_shard_that_is_not_what_was_written_is_refused(shards, store):
    name = "pixels/letterbox-16/shard-00001.npy"
    content = stored_files(store)[name]
    put(name, content[:-1] + b"\xff")
    local_folder(DATA)
    pixels = PixelStore.open(shards)
    assert pixels.image("00000")[0, 0] == 0
    with pytest.raises(InputError, match=r"shard-00001\.npy: .*SHA"):
        pixels.image("00004")
    assert names_here(shards) == {"shard-00000.npy"}


def test_a_remote_store_grows_by_the_images_that_it_lacks(shards, store, tmp_path):
    with working(DATA):
        write_store(shards, 14)
    write_store(tmp_path / "local", 14)
    remote = {k: v for k, v in stored_files(store).items() if "/shard-" in k or "index" in k}
    local = {
        f"pixels/letterbox-16/{p.name}": p.read_bytes() for p in (tmp_path / "local").iterdir()
    }
    assert remote == {name: local[name] for name in remote}
    assert len(remote) == 5
    shutil.rmtree(os.environ["CXR_CACHE"])
    local_folder(DATA)
    assert PixelStore.open(shards).image("00013")[0, 0] == 13


@pytest.mark.parametrize("limit", ["0", "-1", "many", "nan", "inf"])
def test_wrong_limit_of_the_cache_is_refused_before_anything_is_fetched(store, monkeypatch, limit):
    monkeypatch.setenv("CXR_CACHE_GIB", limit)
    wrong = pytest.raises(InputError, match=f"CXR_CACHE_GIB={limit}: ")
    with wrong, working(DATA):
        pytest.fail("went on")


def test_a_launched_process_beside_the_first_sends_nothing(store, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with working(DATA) as (folder,):
        Path(folder).mkdir(parents=True)
        write_json(Path(folder) / "run.json", "run", {})
    assert not store


def test_local_shards_and_images_are_themselves(tmp_path):
    path = tmp_path / "shard-00000.npy"
    assert fetch_shard(path, None) is path
    with open_image(path) as same:
        assert same is path
    assert store_address(path) is None
