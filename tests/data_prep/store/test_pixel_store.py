"""A pixel store has the same bytes however it is built, survives kills, and is never half there."""

import errno
import json
import os
import pickle
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cxr_compare.data_prep.contracts.checksums import file_digest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store import decode_writer
from cxr_compare.data_prep.store.build_pixel_store import build_pixel_store
from cxr_compare.data_prep.store.decode import DecodedRow, DecodeTask, decode_row
from cxr_compare.data_prep.store.decode_writer import JOURNAL, DecodeWriter
from cxr_compare.data_prep.store.loose_pixels import LoosePixels
from cxr_compare.data_prep.store.pixel_store import PixelStore, pixels_file, stored_sizes
from cxr_compare.data_prep.store.preprocess import letterbox
from PIL import Image

from cxr_compare.data_prep.images.loose_images import read_loose_images

SIZE = 32


def name_of(value: int) -> str:
    return f"i{value:05d}"


def row(value: int, shade: int | None = None) -> DecodedRow:
    """An image without facts, whose square has one grey level."""
    grey = value % 256 if shade is None else shade
    return DecodedRow(name_of(value), squares={SIZE: np.full((SIZE, SIZE), grey, np.uint8)})


def table(values: Iterable[int]) -> pd.DataFrame:
    return pd.DataFrame({"image_id": list(map(name_of, values)), "width": 60, "height": 40})


def fill(folder: Path, values: Iterable[int]) -> PixelStore:
    """Add images, and complete the store."""
    with DecodeWriter(folder, [SIZE]) as writer:
        for value in values:
            writer.add(row(value))
        writer.finish(
            pd.DataFrame({"image_id": list(writer.rows[SIZE]), "width": 60, "height": 40})
        )
    return PixelStore.open(pixels_file(folder, SIZE))


def abandon(folder: Path, committed: range, lost: range) -> None:
    """Leave a store as a kill leaves it: the last squares written, but in no line."""
    writer = DecodeWriter(folder, [SIZE])
    for value in committed:
        writer.add(row(value))
    writer.commit()
    for value in lost:
        writer.add(row(value, shade=200))
    for array in writer._arrays.values():
        array.close()


def done(folder: Path) -> set[str]:
    with DecodeWriter(folder, [SIZE]) as writer:
        return set(writer.rows[SIZE])


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
    images = pd.DataFrame({"image_id": names, "path": [f"{name}.png" for name in names]})
    digests = [file_digest(root / path, "sha256") for path in images["path"]]
    return root, images.assign(file_sha256=digests, width=60, height=range(40, 52))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "pixels").iterdir())}


def test_store_gives_the_letterboxed_image(tmp_path, source):
    root, images = source
    store = build_pixel_store(tmp_path, images, root, SIZE)

    assert store.size == SIZE
    assert store.ids.tolist() == images["image_id"].tolist()
    for image_id in store.ids:
        pixels, placement = letterbox(np.asarray(Image.open(root / f"{image_id}.png")), SIZE)
        np.testing.assert_array_equal(store.image(image_id), pixels)
        assert store.placement(image_id) == placement
    assert not (tmp_path / JOURNAL).exists()


def test_the_array_is_one_file_that_numpy_reads(tmp_path, source):
    root, images = source
    store = build_pixel_store(tmp_path, images, root, SIZE)
    array = np.load(tmp_path / "pixels" / f"{SIZE}.npy", mmap_mode="r")
    assert array.shape == (12, SIZE, SIZE)
    assert (array[3] == store.image("p03")).all()
    assert stored_sizes(tmp_path) == [SIZE]


def test_processes_do_not_change_a_byte(tmp_path, source):
    root, images = source
    for workers in (1, 2):
        build_pixel_store(tmp_path / str(workers), images, root, SIZE, workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_new_images_are_added_without_decoding_the_old(tmp_path, source):
    root, images = source
    first = build_pixel_store(tmp_path, images[:5], root, SIZE)
    (root / "p00.png").unlink()  # would be an error if it were read again
    decoded: list[int] = []

    store = build_pixel_store(tmp_path, images, root, SIZE, on_decoded=decoded.append)

    assert len(decoded) == 7
    assert len(store.ids) == 12
    np.testing.assert_array_equal(store.image("p03"), first.image("p03"))


def test_complete_store_is_opened_and_not_touched(tmp_path, source):
    root, images = source
    build_pixel_store(tmp_path, images, root, SIZE)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert len(build_pixel_store(tmp_path, images[:4], root, SIZE).ids) == 12
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_unreadable_image_is_named_and_the_others_are_kept(tmp_path, source):
    root, images = source
    (root / "p04.png").write_bytes(b"nothing")

    with pytest.raises(InputError, match=r"p04\.png"):
        build_pixel_store(tmp_path, images, root, SIZE)

    with pytest.raises(InputError):
        PixelStore.open(pixels_file(tmp_path, SIZE))
    assert done(tmp_path) == set(images["image_id"]) - {"p04"}


def test_image_without_a_file_is_refused(tmp_path, source):
    root, images = source
    with pytest.raises(InputError, match="'p02'"):
        build_pixel_store(tmp_path, images.replace("p02.png", None), root, SIZE)


def test_added_twice_is_replaced(tmp_path):
    with DecodeWriter(tmp_path, [SIZE]) as writer:
        for value in range(15):
            writer.add(row(value))
        for value in (3, 14):
            writer.add(row(value, shade=value + 100))
        writer.finish(table(range(15)))
    store = PixelStore.open(pixels_file(tmp_path, SIZE))
    assert len(np.load(store.path)) == 15
    assert [int(store.image(name_of(v))[0, 0]) for v in (2, 3, 4, 13, 14)] == [2, 103, 4, 13, 114]


def test_the_index_names_the_images_of_the_set_alone(tmp_path):
    with DecodeWriter(tmp_path, [SIZE]) as writer:
        for value in range(5):
            writer.add(row(value))
        writer.finish(table([4, 1]))
    store = PixelStore.open(pixels_file(tmp_path, SIZE))
    assert store.ids.tolist() == [name_of(1), name_of(4)]
    assert store.image(name_of(4))[0, 0] == 4


# Kills


@pytest.mark.parametrize(("committed", "lost"), [(8, 0), (8, 3), (13, 9), (0, 4)])
def test_next_writer_continues_after_a_kill(tmp_path, committed, lost):
    fill(tmp_path / "whole", range(25))
    killed = tmp_path / "killed"
    abandon(killed, range(committed), range(committed, committed + lost))

    with pytest.raises(InputError):
        PixelStore.open(pixels_file(killed, SIZE))
    assert done(killed) == set(map(name_of, range(committed)))
    fill(killed, range(committed, 25))

    assert contents(killed) == contents(tmp_path / "whole")


def test_a_complete_store_is_read_while_it_grows(tmp_path):
    fill(tmp_path, range(5))
    abandon(tmp_path, range(5, 8), range(8, 9))
    store = PixelStore.open(pixels_file(tmp_path, SIZE))
    assert [int(store.image(image_id)[0, 0]) for image_id in store.ids] == list(range(5))
    assert done(tmp_path) == set(map(name_of, range(8)))


@pytest.mark.parametrize("tail", [b'{"image_id": "i0', b'["x"]["y"]\n', b"\xff\xfe\n", b"7\n"])
def test_journal_cut_short_loses_its_last_line_only(tmp_path, tail):
    abandon(tmp_path, range(5), range(0))
    with (tmp_path / JOURNAL).open("ab") as journal:
        journal.write(tail)
    store = fill(tmp_path, range(5, 7))
    assert [int(store.image(image_id)[0, 0]) for image_id in store.ids] == list(range(7))


def test_lines_do_not_count_without_their_array(tmp_path):
    abandon(tmp_path, range(5), range(0))
    pixels_file(tmp_path, SIZE).unlink()
    abandon(tmp_path, range(5, 6), range(0))  # long enough for none of the five
    assert done(tmp_path) == {name_of(5)}
    store = fill(tmp_path, range(7))
    assert [int(store.image(image_id)[0, 0]) for image_id in store.ids] == list(range(7))


def test_interrupt_keeps_what_was_added_and_marks_nothing_complete(tmp_path):
    def values() -> Iterator[int]:
        yield 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path, values())
    assert stored_sizes(tmp_path) == []
    assert done(tmp_path) == {name_of(1)}


def test_full_disk_names_the_folder_and_the_next_writer_goes_on(tmp_path, monkeypatch):
    abandon(tmp_path, range(2), range(0))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=str(tmp_path)):
            fill(tmp_path, range(2, 5))
    assert stored_sizes(tmp_path) == []
    assert done(tmp_path) == set(map(name_of, range(2)))
    assert len(fill(tmp_path, range(2, 5)).ids) == 5


def test_facts_are_those_of_the_last_line_of_an_image(tmp_path, source, monkeypatch):
    monkeypatch.setattr(decode_writer, "_COMMIT_IMAGES", 2)
    root, images = source
    rows = [decode_row(DecodeTask(i, root / f"{i}.png", (SIZE,))) for i in images["image_id"]]
    changed = DecodedRow("p01", facts={**rows[1].facts, "width": 7, "window_center": None})
    with DecodeWriter(tmp_path, [SIZE]) as writer:
        for each in (*rows, changed, DecodedRow("p02", squares=rows[2].squares)):
            writer.add(each)
    with DecodeWriter(tmp_path, []) as writer:
        facts = writer.facts().set_index("image_id")
    assert facts["width"].to_dict() == {**dict.fromkeys(images["image_id"], 60), "p01": 7}
    for each in rows[2:]:
        stored = facts.loc[each.image_id]
        for name in ("file_mtime_ns", "mean_grey", "pixel_sha256", "inverted", "height"):
            assert stored[name] == each.facts[name]
        assert pd.isna(stored["header_view"])


def test_a_line_holds_no_path(tmp_path, source):
    root, images = source
    with DecodeWriter(tmp_path, [SIZE]) as writer:
        writer.add(decode_row(DecodeTask("hidden", root / images["path"][0], (SIZE,))))
    (line,) = (tmp_path / JOURNAL).read_text().splitlines()
    assert json.loads(line)["image_id"] == "hidden"
    assert "p00" not in line


# Damage


def test_damaged_stores_are_refused(tmp_path):
    damages: dict[str, Callable[[Path], object]] = {
        "array gone": lambda path: path.unlink(),
        "array cut": lambda path: os.truncate(path, 500),
        "index gone": lambda path: path.with_suffix(".parquet").unlink(),
        "another size": lambda path: np.save(path, np.zeros((3, 8, 8), np.uint8)),
        "fewer images": lambda path: np.save(path, np.zeros((2, SIZE, SIZE), np.uint8)),
    }
    for name, damage in damages.items():
        fill(tmp_path / name, range(3))
        path = pixels_file(tmp_path / name, SIZE)
        damage(path)
        with pytest.raises(InputError, match=name):
            PixelStore.open(path)


def test_a_changed_byte_is_noticed_when_its_image_is_read(tmp_path):
    path = fill(tmp_path, range(3)).path
    with path.open("r+b") as file:
        file.seek(-SIZE * SIZE - 1, os.SEEK_END)  # the last byte of the second image
        file.write(b"\x63")
    store = PixelStore.open(path)
    for value in (0, 2):
        assert store.image(name_of(value))[0, 0] == value
    with pytest.raises(InputError, match=f"'{name_of(1)}'"):
        store.image(name_of(1))


def test_writer_starts_a_damaged_store_again(tmp_path):
    path = fill(tmp_path, range(3)).path
    os.truncate(path, 500)
    assert done(tmp_path) == set()
    assert len(fill(tmp_path, range(3)).ids) == 3


def test_unknown_image_and_wrong_shape_are_refused(tmp_path):
    with pytest.raises(InputError, match="'z'"):
        fill(tmp_path, range(3)).image("z")
    with DecodeWriter(tmp_path, [SIZE]) as writer, pytest.raises(ValueError, match="uint8"):
        writer.add(DecodedRow("z", squares={SIZE: np.zeros((SIZE, SIZE))}))


# Reading


def test_one_image_is_shown_without_a_python_object_for_each_id(tmp_path):
    store = PixelStore.open(fill(tmp_path, range(2_000)).path)
    tracemalloc.start()
    assert store.image("i01234")[0, 0] == 1234 % 256
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000  # a dictionary of 2,000 ids takes 250 kB


def test_many_images_are_found_as_one_is(tmp_path):
    store = fill(tmp_path, range(50))
    for number in [*reversed(range(50)), *range(50)]:
        assert store.image(name_of(number))[0, 0] == number
    with pytest.raises(InputError, match="'z'"):
        store.image("z")


def test_images_are_read_only_views(tmp_path):
    image = fill(tmp_path, range(3)).image("i00001")
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0] = 1


def test_pickled_store_is_small_and_reads_the_same(tmp_path):
    store = fill(tmp_path, range(300))
    store.image("i00007")
    pickled = pickle.dumps(store)
    assert len(pickled) < 300 * SIZE * SIZE / 4
    assert (pickle.loads(pickled).image("i00007") == 7).all()  # noqa: S301


# Worker processes


def test_loose_files_get_the_pixels_of_the_store(tmp_path, source):
    root, images = source
    store = build_pixel_store(tmp_path, images, root, SIZE)
    files = [root / f"{image_id}.png" for image_id in images["image_id"]]

    *read, broken = read_loose_images([*files, tmp_path / "none.png"])

    assert broken.image is None
    assert "none.png" in str(broken.problem)
    originals = {loose.path.stem: loose.image.pixels for loose in read if loose.image}
    loose = LoosePixels(originals, SIZE)
    assert loose.ids.tolist() == images["image_id"].tolist()
    for image_id in loose.ids:
        np.testing.assert_array_equal(loose.image(image_id), store.image(image_id))
        assert loose.placement(image_id) == store.placement(image_id)
    sizes = loose.sizes.set_index("image_id")[["width", "height"]]
    expected = [pixels.shape[::-1] for pixels in originals.values()]
    assert list(sizes.itertuples(index=False, name=None)) == expected


def test_a_known_file_is_not_measured_again_and_another_is_refused(source):
    root, images = source
    path = root / "p00.png"
    measured = decode_row(DecodeTask("a", path, (SIZE,)))
    known = decode_row(DecodeTask("a", path, (SIZE,), sha256=images["file_sha256"][0]))
    assert len(measured.facts["file_sha256"]) == 64
    assert known.facts == {}
    np.testing.assert_array_equal(known.squares[SIZE], measured.squares[SIZE])
    assert decode_row(DecodeTask("a", path, (SIZE,), sha256="0" * 64)).error
