"""A pixel store has the same bytes however it is built, survives kills, and is never half there."""

import errno
import os
import pickle
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_compare.data_prep.contracts.checksums import file_digest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.loose_images import read_loose_images
from cxr_compare.data_prep.store import build_pixel_store as builder
from cxr_compare.data_prep.store import pixel_store_writer
from cxr_compare.data_prep.store.build_pixel_store import build_pixel_store
from cxr_compare.data_prep.store.decode import DecodeTask, decode_row
from cxr_compare.data_prep.store.loose_pixels import LoosePixels
from cxr_compare.data_prep.store.pixel_store import PixelStore, store_folder
from cxr_compare.data_prep.store.pixel_store_writer import PixelStoreWriter
from cxr_compare.data_prep.store.placement import Placement
from cxr_compare.data_prep.store.preprocess import letterbox

SIZE = 32
IDENTITY = Placement(1.0, 1.0, 0.0, 0.0)


def square(value: int) -> np.ndarray:
    return np.full((SIZE, SIZE), value % 256, np.uint8)


def fill(folder: Path, values: Iterable[int]) -> None:
    with PixelStoreWriter(folder, SIZE) as writer:
        for value in values:
            writer.add(f"i{value:05d}", square(value), IDENTITY)


def abandon(folder: Path, committed: range, lost: range) -> None:
    """Leave a store as a kill leaves it: the last rows written, but in no index."""
    writer = PixelStoreWriter(folder, SIZE)
    for value in (*committed, *lost):
        writer.add(f"i{value:05d}", square(value), IDENTITY)
        if committed and value == committed[-1]:
            writer.commit()
    assert writer._open_file is not None
    writer._open_file.close()


@pytest.fixture
def source(tmp_path: Path) -> tuple[Path, pd.DataFrame]:
    """Twelve small images of different shapes, and their images table."""
    rng = np.random.default_rng(0)
    root = tmp_path / "source"
    root.mkdir()
    names = [f"p{i:02d}" for i in range(12)]
    for number, name in enumerate(names):
        pixels = rng.integers(0, 256, (40 + number, 60)).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{name}.png")
    table = pd.DataFrame({"image_id": names, "path": [f"{name}.png" for name in names]})
    digests = [file_digest(root / path, "sha256") for path in table["path"]]
    return root, table.assign(file_sha256=digests)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_store_gives_the_letterboxed_image(tmp_path, source):
    root, table = source
    store = build_pixel_store(tmp_path, table, root, SIZE)

    assert store.size == SIZE
    assert store.ids.tolist() == table["image_id"].tolist()
    for image_id in store.ids:
        pixels, placement = letterbox(np.asarray(Image.open(root / f"{image_id}.png")), SIZE)
        np.testing.assert_array_equal(store.image(image_id), pixels)
        assert store.placement(image_id) == placement


def test_processes_do_not_change_a_byte(tmp_path, source):
    root, table = source
    for workers in (1, 2):
        build_pixel_store(tmp_path / str(workers), table, root, SIZE, workers=workers)
    one, two = (contents(store_folder(tmp_path / w, SIZE)) for w in ("1", "2"))
    assert one == two


def test_new_images_are_added_without_decoding_the_old(tmp_path, source):
    root, table = source
    first = build_pixel_store(tmp_path, table[:5], root, SIZE)
    (root / "p00.png").unlink()  # would be an error if it were read again
    decoded: list[int] = []

    store = build_pixel_store(tmp_path, table, root, SIZE, on_decoded=decoded.append)

    assert len(decoded) == 7
    assert len(store.ids) == 12
    assert store.pixels_id != first.pixels_id
    np.testing.assert_array_equal(store.image("p03"), first.image("p03"))


def test_complete_store_is_opened_and_not_touched(tmp_path, source, monkeypatch):
    root, table = source
    build_pixel_store(tmp_path, table, root, SIZE)
    monkeypatch.delattr(builder, "PixelStoreWriter")
    assert len(build_pixel_store(tmp_path, table[:4], root, SIZE).ids) == 12


def test_a_lock_that_a_kill_left_in_a_complete_store_is_removed(tmp_path, source):
    root, table = source
    build_pixel_store(tmp_path, table, root, SIZE)
    before = contents(store_folder(tmp_path, SIZE))
    (store_folder(tmp_path, SIZE) / ".lock").touch()
    build_pixel_store(tmp_path, table, root, SIZE)
    assert contents(store_folder(tmp_path, SIZE)) == before


def test_unreadable_image_is_named_and_the_others_are_kept(tmp_path, source):
    root, table = source
    (root / "p04.png").write_bytes(b"nothing")

    with pytest.raises(InputError, match=r"p04\.png"):
        build_pixel_store(tmp_path, table, root, SIZE)

    folder = store_folder(tmp_path, SIZE)
    with pytest.raises(InputError, match=r"pixels\.json"):
        PixelStore.open(folder)
    assert PixelStoreWriter(folder, SIZE).done == set(table["image_id"]) - {"p04"}


def test_image_without_a_file_is_refused(tmp_path, source):
    root, table = source
    with pytest.raises(InputError, match="'p02'"):
        build_pixel_store(tmp_path, table.replace("p02.png", None), root, SIZE)


# Shards


def test_shards_split_where_they_are_full(tmp_path, monkeypatch):
    monkeypatch.setattr(pixel_store_writer, "SHARD_IMAGES", 10)
    fill(tmp_path, range(25))

    store = PixelStore.open(tmp_path)

    shapes = [np.load(path).shape for path in sorted(tmp_path.glob("shard-*.npy"))]
    assert shapes == [(10, SIZE, SIZE), (10, SIZE, SIZE), (5, SIZE, SIZE)]
    for value in range(25):
        assert (store.image(f"i{value:05d}") == value).all()


def test_added_twice_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(pixel_store_writer, "SHARD_IMAGES", 10)
    with PixelStoreWriter(tmp_path, SIZE) as writer:
        for value in (*range(15), 3, 14):
            shade = value + 100 if f"i{value:05d}" in writer.done else value
            writer.add(f"i{value:05d}", square(shade), IDENTITY)
    store = PixelStore.open(tmp_path)
    assert len(store.ids) == 15
    assert [int(store.image(f"i{v:05d}")[0, 0]) for v in (2, 3, 4, 13, 14)] == [2, 103, 4, 13, 114]


# Kills


@pytest.mark.parametrize(("committed", "lost"), [(8, 0), (8, 3), (10, 0), (10, 3), (13, 9), (0, 4)])
def test_next_writer_continues_after_a_kill(tmp_path, committed, lost, monkeypatch):
    monkeypatch.setattr(pixel_store_writer, "SHARD_IMAGES", 10)
    fill(tmp_path / "whole", range(25))
    killed = tmp_path / "killed"
    abandon(killed, range(committed), range(committed, committed + lost))

    with pytest.raises(InputError, match=r"pixels\.json"):
        PixelStore.open(killed)
    writer = PixelStoreWriter(killed, SIZE)
    assert writer.done == {f"i{value:05d}" for value in range(committed)}
    fill(killed, range(committed, 25))

    assert contents(killed) == contents(tmp_path / "whole")


def test_kill_while_a_complete_store_grows_keeps_what_was_there(tmp_path):
    fill(tmp_path, range(5))
    abandon(tmp_path, range(5, 8), range(8, 9))
    with pytest.raises(InputError, match=r"pixels\.json"):
        PixelStore.open(tmp_path)
    assert len(PixelStoreWriter(tmp_path, SIZE).done) == 8


@pytest.mark.parametrize("tail", [b'["i0', b'["x"]["y"]\n', b"\xff\xfe\n"])
def test_journal_cut_short_loses_its_last_line_only(tmp_path, tail):
    abandon(tmp_path, range(5), range(0))
    with (tmp_path / "journal.jsonl").open("ab") as journal:
        journal.write(tail)
    fill(tmp_path, range(5, 7))
    store = PixelStore.open(tmp_path)
    assert [int(store.image(image_id)[0, 0]) for image_id in store.ids] == list(range(7))


def test_interrupt_keeps_what_was_added_and_marks_nothing_complete(tmp_path):
    def values() -> Iterator[int]:
        yield 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path, values())
    assert PixelStoreWriter(tmp_path, SIZE).done == {"i00001"}
    assert not (tmp_path / "pixels.json").exists()


def test_full_disk_names_the_folder_and_leaves_no_complete_store(tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=str(tmp_path)):
        fill(tmp_path, range(3))
    assert not (tmp_path / "pixels.json").exists()


# Damage


def test_damaged_stores_are_refused(tmp_path):
    damages = {
        "shard gone": lambda folder: (folder / "shard-00000.npy").unlink(),
        "shard cut": lambda folder: os.truncate(folder / "shard-00000.npy", 500),
        "index gone": lambda folder: (folder / "index.parquet").unlink(),
        "shard of another size": lambda folder: np.save(
            folder / "shard-00000.npy", np.zeros((3, 8, 8), np.uint8)
        ),
    }
    for name, damage in damages.items():
        folder = tmp_path / name
        fill(folder, range(3))
        damage(folder)
        with pytest.raises(InputError, match=name):
            PixelStore.open(folder)


def test_writer_starts_a_damaged_store_again(tmp_path):
    fill(tmp_path, range(3))
    os.truncate(tmp_path / "shard-00000.npy", 500)
    assert PixelStoreWriter(tmp_path, SIZE).done == set()
    fill(tmp_path, range(3))
    assert len(PixelStore.open(tmp_path).ids) == 3


def test_unknown_image_and_wrong_shape_are_refused(tmp_path):
    fill(tmp_path, range(3))
    with pytest.raises(InputError, match="'z'"):
        PixelStore.open(tmp_path).image("z")
    with pytest.raises(ValueError, match="uint8"):
        PixelStoreWriter(tmp_path, SIZE).add("z", np.zeros((SIZE, SIZE)), IDENTITY)


# Reading


def test_one_image_is_shown_without_a_python_object_for_each_id(tmp_path):
    fill(tmp_path, range(2_000))
    store = PixelStore.open(tmp_path)
    tracemalloc.start()
    assert store.image("i01234")[0, 0] == 1234 % 256
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000  # a dictionary of 2,000 ids takes 250 kB


def test_many_images_are_found_as_one_is(tmp_path):
    fill(tmp_path, range(50))
    store = PixelStore.open(tmp_path)
    for number in [*reversed(range(50)), *range(50)]:
        assert store.image(f"i{number:05d}")[0, 0] == number
    with pytest.raises(InputError, match="'z'"):
        store.image("z")


def test_images_are_read_only_views(tmp_path):
    fill(tmp_path, range(3))
    image = PixelStore.open(tmp_path).image("i00001")
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0] = 1


def test_pickled_store_is_small_and_reads_the_same(tmp_path):
    fill(tmp_path, range(300))
    store = PixelStore.open(tmp_path)
    store.image("i00007")
    pickled = pickle.dumps(store)
    assert len(pickled) < 300 * SIZE * SIZE / 4
    assert (pickle.loads(pickled).image("i00007") == 7).all()  # noqa: S301


# Worker processes


def test_loose_files_get_the_pixels_of_the_store(tmp_path, source):
    root, table = source
    store = build_pixel_store(tmp_path, table, root, SIZE)
    files = [root / f"{image_id}.png" for image_id in table["image_id"]]

    *read, broken = read_loose_images([*files, tmp_path / "none.png"])

    assert broken.image is None
    assert "none.png" in str(broken.problem)
    originals = {loose.path.stem: loose.image.pixels for loose in read if loose.image}
    loose = LoosePixels.from_arrays(originals, SIZE)
    assert loose.ids.tolist() == table["image_id"].tolist()
    for image_id in loose.ids:
        np.testing.assert_array_equal(loose.image(image_id), store.image(image_id))
        assert loose.placement(image_id) == store.placement(image_id)
    sizes = loose.sizes.set_index("image_id")[["width", "height"]]
    expected = [pixels.shape[::-1] for pixels in originals.values()]
    assert list(sizes.itertuples(index=False, name=None)) == expected


def test_pixels_alone_are_not_measured(tmp_path, source):
    path = source[0] / "p00.png"
    measured = decode_row(DecodeTask("a", path, (SIZE,)))
    alone = decode_row(DecodeTask("a", path, (SIZE,), measure=False))
    assert len(measured.facts["file_sha256"]) == 64
    assert {"mean_grey", "file_sha256"} & set(alone.facts) == set()
    np.testing.assert_array_equal(alone.squares[SIZE][0], measured.squares[SIZE][0])
