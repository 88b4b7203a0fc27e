"""Images: an epoch, augmenting, preparing; ids looked up, and a pixel store opened."""

from __future__ import annotations

import os
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pydicom
from pydicom.uid import JPEGBaseline8Bit

from benchmarks.bench import Row, Setting, each, is_dicom
from benchmarks.worker import Candidate, Run
from cxr_compare.data_prep.contracts import tables
from cxr_compare.data_prep.contracts.checksums import file_digest
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.processors import cpu_count
from cxr_compare.data_prep.images.image import read_image
from cxr_compare.data_prep.store.build_pixel_store import build_pixel_store, decode_into
from cxr_compare.data_prep.store.decode import DecodeTask
from cxr_compare.data_prep.store.decode_writer import DecodeWriter
from cxr_compare.data_prep.store.pixel_store import PixelStore, index_file, pixels_file

# with fewer images one would time the start of processes
_PREPARED = 400
_ROUNDS = 3
_BATCH = 8
_STORED = 1_000_000  # images
_QUICK_STORED = 300
_STORE_SIZE = 16  # px: opening a store takes as long whatever the size of its images


def epoch_rows(setting: Setting) -> Iterator[dict[str, Any]]:
    """Yield rows of an epoch in random order: our pixel store against files decoded each time."""
    size = 32 if setting.quick else 512
    images = _as_table(setting.images, len(setting.images))
    store = _store(setting.scratch / "set", images, size)
    order = np.random.default_rng(setting.seed).permutation(len(images))
    paths = {"files": setting.images}
    for kind, options in (("PNG", []), ("JPEG", [cv2.IMWRITE_JPEG_QUALITY, 95])):
        folder = setting.scratch / kind
        folder.mkdir()
        paths[kind] = [folder / f"{image_id}.{kind.lower()}" for image_id in images["image_id"]]
        for path in paths[kind]:
            cv2.imwrite(str(path), store.image(path.stem), options)
    listed = {kind: _listed(setting, kind, [of[n] for n in order]) for kind, of in paths.items()}
    ids = _listed(setting, "ids", images["image_id"].to_numpy()[order])
    ours = "pixel store"
    candidates = {
        ours: Candidate.from_setup(store_epoch, path=str(store.path), ids=ids),
        "PNG copies (cv2)": Candidate.from_setup(grey_epoch, paths=listed["PNG"]),
        "JPEG copies (cv2)": Candidate.from_setup(grey_epoch, paths=listed["JPEG"]),
    }
    decoded = partial(Candidate.from_setup, plain_epoch, paths=listed["files"], size=size)
    if is_dicom(setting.images[0]):  # in two ways, since decoders differ
        candidates["DICOM (pydicom, cv2)"] = decoded(pillow=False)
        candidates["DICOM (pydicom with Pillow, cv2)"] = decoded(pillow=True)
    else:
        candidates["the files (cv2)"] = decoded(pillow=False)
    files = [path.stat().st_size for path in store.path.parent.iterdir()]
    note = f"the store takes {sum(files) / len(images) / 1024:,.0f} KiB an image at {size} px"
    moved = "copy", 2.0 * size**2  # bytes that are read, and written into the batch
    work = f"read an epoch at {size} px, batches of {_BATCH}"
    rows = [
        Row(work, "images/s", ours, peer, bound=moved, note=note)
        for peer in candidates
        if peer != ours
    ]
    return setting.meter.measure(candidates, rows)


def _as_table(paths: list[Path], n_images: int) -> pd.DataFrame:
    """Return an images table of files; files are repeated under other names if more are wanted."""
    files = [paths[number % len(paths)].resolve() for number in range(n_images)]
    digests = {path: file_digest(path, "sha256") for path in set(files)}
    table = pd.DataFrame({"image_id": [f"i{n:05d}" for n in range(n_images)]})
    return table.assign(path=list(map(str, files)), file_sha256=[digests[path] for path in files])


def _store(folder: Path, images: pd.DataFrame, size: int) -> PixelStore:
    """Build a pixel store of an images table, with the sizes of its images."""
    shapes = {path: read_image(Path(path)).pixels.shape for path in images["path"].unique()}
    heights, widths = zip(*images["path"].map(shapes), strict=True)
    return build_pixel_store(folder, images.assign(width=widths, height=heights), Path("/"), size)


def _listed(setting: Setting, name: str, values: Any) -> str:
    """Write values into a file, one in each line, for another process; return the path."""
    path = setting.scratch / f"{name}.txt"
    path.write_text("\n".join(map(str, values)), encoding="utf-8")
    return str(path)


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").split("\n")


def _epoch(read: Callable[[Any], np.ndarray], images: list[Any]) -> float:
    for start in range(0, len(images), _BATCH):
        np.stack([read(image) for image in images[start : start + _BATCH]])
    return float(len(images))


def store_epoch(path: str, ids: str) -> Run:
    """Set up an epoch from our pixel store, which returns views of a memory-mapped file.

    `ids` is a file with one image id in each line.
    """
    return partial(_epoch, PixelStore.open(Path(path)).image, _lines(ids))


def grey_epoch(paths: str) -> Run:
    """Set up an epoch from copies of the images that already have the right size."""
    return partial(_epoch, _read_grey, [Path(line) for line in _lines(paths)])


def plain_epoch(paths: str, size: int, pillow: bool) -> Run:
    """Set up an epoch from files that are decoded and resized each time.

    `paths` is a file with one path in each line. `pillow` decodes JPEG in DICOM by Pillow.
    """
    read = partial(plain_square, size=size, pillow=pillow)
    return partial(_epoch, read, [Path(line) for line in _lines(paths)])


def _read_grey(path: Path) -> np.ndarray:
    pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise ValueError(f"{path}: not readable by OpenCV")
    return pixels


def plain_square(path: Path, size: int, *, pillow: bool = False) -> np.ndarray:
    """Read an image as a plain loop does, ``(size, size)``: without lookup table, window or check.

    `pillow` decodes JPEG in DICOM by Pillow.
    """
    if is_dicom(path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path)
            if pillow and header.file_meta.TransferSyntaxUID == JPEGBaseline8Bit:
                header.pixel_array_options(decoding_plugin="pillow")
            pixels = header.pixel_array
    else:
        pixels = _read_grey(path)
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)


def augment_rows(setting: Setting) -> Iterator[dict[str, Any]]:
    """Yield rows of random changes of images with boxes: ours against the same in a Compose."""
    images = _as_table(setting.images, len(setting.images))
    ids = _listed(setting, "augmented", images["image_id"])
    ours = "ours"
    peer = "albumentations.Compose"
    for size in (32,) if setting.quick else (224, 512):
        store = _store(setting.scratch / f"set-{size}", images, size)
        for n_boxes in (0, 2):
            arguments: dict[str, Any] = {
                "path": str(store.path),
                "ids": ids,
                "n_boxes": n_boxes,
            }
            candidates = {
                ours: Candidate.from_setup(augmented_epoch, tuned=True, **arguments),
                peer: Candidate.from_setup(composed_epoch, **arguments),
            }
            work = f"augment an epoch at {size} px, {n_boxes} boxes an image"
            yield from setting.meter.measure(candidates, [Row(work, "images/s", ours, peer)])


def augmented_epoch(path: str, ids: str, n_boxes: int) -> Run:
    """Set up an epoch with our augmentation, as `chexnet.toml` and `retinanet.toml` define it.

    `path` is the file of the squares, `ids` one with an image id in each line. An image has 0 to 2
    boxes.
    """
    from cxr_compare.training.augment import build_augmentation

    augmentation = build_augmentation(
        rotate_degrees=10.0, scale=0.1, shift=0.05, brightness=0.15, contrast=0.15
    )
    if augmentation is None:
        raise ValueError("nothing is drawn")
    store = PixelStore.open(Path(path))
    boxes = _two_boxes(store.size)[:n_boxes]

    def read(numbered: tuple[int, str]) -> np.ndarray:
        return augmentation.apply(store.image(numbered[1]), boxes, numbered[0]).pixels

    return partial(_epoch, read, list(enumerate(_lines(ids))))


def composed_epoch(path: str, ids: str, n_boxes: int) -> Run:
    """Set up an epoch with the same changes as users of albumentations write them.

    The arguments are those of `augmented_epoch`.
    """
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations

    boxed: dict[str, Any] = {}
    if n_boxes:
        boxed["bbox_params"] = albumentations.BboxParams(
            "pascal_voc", ["labels"], min_visibility=0.3, min_width=2, min_height=2, clip=True
        )
    chain = albumentations.Compose(
        [
            albumentations.Affine(
                rotate=(-10, 10),
                scale=(0.9, 1.1),
                keep_ratio=True,
                translate_percent=(-0.05, 0.05),
                rotate_method="ellipse",
                p=1.0,
            ),
            albumentations.RandomBrightnessContrast(0.15, 0.15, p=1.0),
        ],
        **boxed,
    )
    store = PixelStore.open(Path(path))
    boxes: dict[str, Any] = {}
    if n_boxes:
        boxes = {"bboxes": _two_boxes(store.size), "labels": [1, 2]}

    def read(image_id: str) -> np.ndarray:
        changed: np.ndarray = chain(image=store.image(image_id), **boxes)["image"]
        return changed

    return partial(_epoch, read, _lines(ids))


def _two_boxes(size: int) -> np.ndarray:
    """Return two boxes where lesions of both lungs could be."""
    return size * np.array([[0.2, 0.3, 0.4, 0.6], [0.6, 0.3, 0.8, 0.7]])


def prepare_rows(setting: Setting) -> Iterator[dict[str, Any]]:
    """Return rows of decoding, hashing, measuring, resizing and storing, as by `cxr prepare`."""
    size = 32 if setting.quick else 512
    cores = cpu_count()
    n_images = len(setting.images) if setting.quick else max(_PREPARED, len(setting.images))
    paths = _listed(setting, "prepared", _as_table(setting.images, n_images)["path"])
    arguments: dict[str, Any] = {"paths": paths, "size": size, "scratch": str(setting.scratch)}
    single = "1 processor"
    every = f"{cores} processors"
    measured = " with hashes, fingerprint and text search"
    plain = "a loop of pydicom, cv2, np.save"
    pillow = "a loop with Pillow for JPEG"
    candidates = {
        single: Candidate.from_setup(prepare, workers=1, measure=False, **arguments),
        single + measured: Candidate.from_setup(prepare, workers=1, measure=True, **arguments),
        plain: Candidate.from_setup(plain_prepare, pillow=False, **arguments),
        pillow: Candidate.from_setup(plain_prepare, pillow=True, **arguments),
    }
    if cores > 1:
        for name, measure in ((every, False), (every + measured, True)):
            candidates[name] = Candidate.from_setup(
                prepare, workers=cores, measure=measure, **arguments
            )
    note = (
        "the loop has no LUT or window, no hash, no record, nothing to go on with after a kill, "
        "and no processes beside it"
    )
    work = f"prepare {n_images:,} images at {size} px"
    pairs = [(single, plain), (single, pillow), (every, plain), (every, pillow), (every, single)]
    pairs += [(single + measured, pillow), (every + measured, single + measured)]
    rows = [Row(work, "images/s", a, b, note=note) for a, b in pairs if a in candidates]
    return setting.meter.measure(candidates, rows, warm=False, most=_ROUNDS)


def prepare(paths: str, size: int, scratch: str, workers: int, measure: bool) -> Run:
    """Set up the preparation of images by our program.

    `paths` is a file with one path in each line. `measure` computes the hashes, the fingerprint and
    the other facts of each image as well, as ``cxr prepare`` does; False stores pixels only, as for
    a second size.
    """
    images = _as_table(named := [Path(line) for line in _lines(paths)], len(named))
    folder = Path(scratch) / f"prepared-{workers}-{measure}"
    tasks = [
        DecodeTask(image_id, Path(path), (size,), sha256=None if measure else sha256)
        for image_id, path, sha256 in images.itertuples(index=False)
    ]

    def build() -> float:
        shutil.rmtree(folder, ignore_errors=True)
        with DecodeWriter(folder, [size]) as writer:
            for failed in decode_into(writer, tasks, workers=workers):
                raise ValueError(failed.error)
        return float(len(tasks))

    return build


def plain_prepare(paths: str, size: int, scratch: str, pillow: bool) -> Run:
    """Set up the preparation of images by a plain loop in one process.

    `paths` is a file with one path in each line. `pillow` decodes JPEG in DICOM by Pillow.
    """
    named = [Path(line) for line in _lines(paths)]
    folder = Path(scratch) / f"plain-{pillow}"

    def loop() -> float:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for number, path in enumerate(named):
            np.save(folder / f"{number}.npy", plain_square(path, size, pillow=pillow))
        return float(len(named))

    return loop


def lookup_rows(setting: Setting) -> Iterator[dict[str, Any]]:
    """Yield rows of looking up ids, and of opening a pixel store against only reading its index."""
    n_images = _QUICK_STORED if setting.quick else _STORED
    ids = pd.Series([f"{number:09d}_{number % 7:03d}" for number in range(n_images)])
    path = pixels_file(setting.scratch / "store", _STORE_SIZE)
    _write_empty_store(path, ids)
    arguments: dict[str, Any] = {"path": str(path), "seed": setting.seed}
    rows = [Row(f"find half of {n_images:,} ids", "s", "is_member", "pandas isin")]
    candidates = {
        name: Candidate.from_setup(find_ids, how=name, **arguments)
        for name in ("is_member", "pandas isin")
    }
    yield from setting.meter.measure(candidates, rows, most=_ROUNDS)
    ours = "open it"
    shown = "open it, show an image"
    peer = "pandas reads its index"
    candidates = {
        name: Candidate.from_setup(open_store, how=name, **arguments)
        for name in (ours, shown, peer)
    }
    work = f"a store of {n_images:,} images"
    rows = [Row(work, "s", name, peer) for name in (ours, shown)]
    yield from setting.meter.measure(candidates, rows, most=_ROUNDS)


def find_ids(path: str, seed: int, how: str) -> Run:
    """Set up finding half of the ids of an index among all.

    `path` is the file of the squares. `how` is ``is_member`` for ours, or the name of the peer.
    """
    ids = pd.read_parquet(index_file(Path(path)))["image_id"]
    some = ids.sample(frac=0.5, random_state=seed)
    found = partial(is_member, ids) if how == "is_member" else ids.isin
    return lambda: each(found, [some])


def open_store(path: str, seed: int, how: str) -> Run:
    """Set up opening a store, showing one of its images, or reading its index alone.

    `path` is the file of the squares. `how` is the name of the candidate, which says what is done.
    """
    if how.startswith("pandas"):
        return lambda: each(pd.read_parquet, [index_file(Path(path))])
    if "show" not in how:
        return lambda: each(PixelStore.open, [Path(path)])
    one = pd.read_parquet(index_file(Path(path)))["image_id"].sample(1, random_state=seed)
    return lambda: each(PixelStore.open(Path(path)).image, [one.iloc[0]])


def _write_empty_store(path: Path, ids: pd.Series) -> None:
    """Write a pixel store of black images, whose file takes no space on the disk."""
    path.parent.mkdir(parents=True)
    shape = (len(ids), _STORE_SIZE, _STORE_SIZE)
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    black = zlib.crc32(bytes(_STORE_SIZE**2))
    index = pd.DataFrame({"image_id": ids, "row": np.arange(len(ids)), "crc32": black})
    sides = {"width": _STORE_SIZE, "height": _STORE_SIZE}
    tables.write_table(index.assign(**sides), index_file(path), "pixel_index")


BLOCKS = {"data": (epoch_rows, augment_rows, prepare_rows, lookup_rows)}
