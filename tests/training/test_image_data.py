"""Batches are the same whoever loads them, and one that fails names its images."""

import multiprocessing
import os
import random
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.decode import DecodedRow
from cxr_compare.data_prep.store.decode_writer import DecodeWriter
from cxr_compare.data_prep.store.pixel_store import PixelStore, pixels_file
from cxr_compare.detection.detector import LesionBatch
from cxr_compare.training.augment import build_augmentation
from cxr_compare.training.datasets import LesionDataset, collate_lesions
from cxr_compare.training.image_data import (
    EpochSampler,
    LazyLoader,
    SeededRows,
    _begin_loader,
    _worker_context,
    balancing_weights,
)
from tests.scripts.launched import command_line, wait_until


class _Sample(NamedTuple):
    image_id: str
    value: int


class _Rows:
    image_ids = ("a", "b", "c")

    def __len__(self) -> int:
        return 3

    def __getitem__(self, key: Any) -> _Sample:
        row = key[0] if isinstance(key, tuple) else key
        if row == 1:
            raise OSError("file is\ncut short")
        return _Sample("abc"[row], row)


@pytest.fixture(scope="module", autouse=True)
def _often_looked_at() -> Iterator[None]:
    """PyTorch looks every 5 seconds whether a process that loads has ended: here at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.05)
        patch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.05,))
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PixelStore:
    folder, rng = tmp_path_factory.mktemp("set"), np.random.default_rng(0)
    images = pd.DataFrame({"image_id": [f"i{number}" for number in range(9)]})
    with DecodeWriter(folder, [64]) as writer:
        for name in images["image_id"]:
            pixels = rng.integers(0, 256, (64, 64), dtype=np.uint8)
            writer.add(DecodedRow(name, squares={64: pixels}))
        writer.finish(images.assign(width=64, height=64))
    return PixelStore.open(pixels_file(folder, 64))


def _loader(rows: Any, collate: Any, size: int, sampler: Any, workers: int = 0) -> LazyLoader:
    started = {"multiprocessing_context": _worker_context(), "worker_init_fn": _begin_loader}
    return LazyLoader(
        SeededRows(rows), size, sampler=sampler, collate_fn=collate, num_workers=workers,
        persistent_workers=workers > 0, **(started if workers else {}),
    )  # fmt: skip


def _epochs(store: PixelStore, loaders: int, first: int = 0) -> list[list[LesionBatch]]:
    """Three epochs, or what is left of them."""
    boxes = pd.DataFrame([[8.0, 8.0, 40.0, 48.0]] * 4, columns=EDGES)
    boxes = boxes.assign(image_id=[f"i{number}" for number in range(4)], finding="opacity")
    augmentation = build_augmentation(rotate_degrees=10.0, scale=0.2, noise=0.1)
    rows = LesionDataset(store, store.ids, boxes, ["opacity"], augmentation, mosaic=0.5)
    sampler = EpochSampler(9, seed=1, step=4, weights=np.arange(1.0, 10.0))
    loader = _loader(rows, collate_lesions, 4, sampler, loaders)
    epochs = []
    for epoch in range(first, 3):
        iterator = iter(loader)  # Lightning makes it before it says which epoch
        sampler.set_epoch(epoch)
        epochs.append(list(iterator))
    return epochs


@pytest.mark.parametrize(("loaders", "first"), [(0, 1), (2, 0), (1, 2)])
def test_batches_do_not_depend_on_who_loads_them_nor_on_an_interruption(store, loaders, first):
    expected = [batch for epoch in _epochs(store, 0)[first:] for batch in epoch]
    batches = [batch for epoch in _epochs(store, loaders, first) for batch in epoch]
    assert [len(batch) for batch in batches] == [4, 4] * (3 - first)
    for one, other in zip(expected, batches, strict=True):
        assert one.image_ids == other.image_ids
        assert torch.equal(one.images, other.images)
        for here, there in zip(one.boxes + one.labels, other.boxes + other.labels, strict=True):
            assert torch.equal(here, there)


class _Deadly(_Rows):
    def __getitem__(self, key: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_loading_process_that_dies_ends_the_training_in_one_line():
    with pytest.raises(InputError, match=r"training.workers: one of 1 processes that load has"):
        list(_loader(_Deadly(), list, 1, range(3), 1))


def _load_and_die(pipe: Connection) -> None:
    loader = _loader(_Rows(), list, 1, [0, 2] * 9, 2)
    iterator = iter(loader)
    next(iterator)
    workers: Any = loader._iterator
    pipe.send([process.pid for process in workers._workers])
    os.kill(os.getpid(), signal.SIGKILL)


def test_loading_processes_end_with_one_that_is_killed():
    context = multiprocessing.get_context("forkserver")
    here, there = context.Pipe(duplex=False)
    killed = context.Process(target=_load_and_die, args=(there,))
    killed.start()
    there.close()
    loaders = here.recv()
    killed.join()
    assert (killed.exitcode, len(loaders)) == (-signal.SIGKILL, 2)
    wait_until(lambda: not any(map(command_line, loaders)))


@pytest.mark.parametrize("workers", [0, 1])
def test_image_that_cannot_be_read_is_named_in_one_line(workers):
    loader = _loader(_Rows(), list, 2, range(3), workers)
    with pytest.raises(InputError, match=r"^image b: cannot be loaded \(OSError: file is\)") as e:
        list(loader)
    assert "\n" not in str(e.value)


class _Noise:
    """Somebody else's data set, which draws from three generators."""

    image_ids = ("a", "b")

    def __len__(self) -> int:
        return 2

    def __getitem__(self, row: int) -> tuple[float, float, float]:
        return torch.rand(1).item(), random.random(), np.random.rand()  # noqa: S311, NPY002


def test_rows_of_another_data_set_follow_the_seed_alone():
    rows = SeededRows(_Noise())
    before = torch.random.get_rng_state()
    assert rows[0, 2**40] == rows[1, 2**40]
    assert rows[0, 1] != rows[0, 2]
    assert torch.equal(torch.random.get_rng_state(), before)


def _epoch(sampler: EpochSampler, epoch: int) -> list[tuple[int, int]]:
    sampler.set_epoch(epoch)
    return list(sampler)


def test_an_epoch_repeats_exactly_whatever_was_drawn_before():
    first, second = (EpochSampler(50, seed=7, step=5) for _ in range(2))
    for epoch in range(3):
        _epoch(first, epoch)
    assert _epoch(first, 3) == _epoch(second, 3)


def test_epochs_and_seeds_differ_in_order_and_in_augmentation():
    sampler = EpochSampler(50, seed=7, step=5)
    rows, seeds = zip(*_epoch(sampler, 0), strict=True)
    rows_next, seeds_next = zip(*_epoch(sampler, 1), strict=True)
    assert sorted(rows) == sorted(rows_next) == list(range(50))
    assert rows != rows_next
    assert not set(seeds) & set(seeds_next)
    assert _epoch(sampler, 0) != _epoch(EpochSampler(50, seed=8, step=5), 0)


@pytest.mark.parametrize(("n_rows", "world_size"), [(24, 2), (29, 3), (11, 6), (6, 2)])
def test_processes_share_the_whole_steps_of_one_process(n_rows, world_size):
    size = 6
    whole = _epoch(EpochSampler(n_rows, seed=1, step=size), 2)
    assert len(whole) == n_rows // size * size
    share = size // world_size
    together = [
        _epoch(EpochSampler(n_rows, 1, size, None, rank, world_size), 2)
        for rank in range(world_size)
    ]
    for step in range(len(whole) // size):
        batch = [pair for part in together for pair in part[step * share : (step + 1) * share]]
        assert sorted(batch) == sorted(whole[step * size : (step + 1) * size])


def test_fewer_images_than_a_step_takes_are_refused():
    with pytest.raises(InputError, match=r"training.batch_size: .* 8 images .* 7 training images"):
        EpochSampler(7, seed=0, step=8)


def test_balancing_draws_the_wanted_share_of_positives():
    positive = np.arange(2000) < 200
    sampler = EpochSampler(2000, seed=0, step=1, weights=balancing_weights(positive, 0.5))
    assert np.mean([positive[row] for row, _ in sampler]) == pytest.approx(0.5, abs=0.05)


def test_draws_of_a_configuration_and_seed_stay_what_they_were():
    # Runs of before must be repeatable: these figures may not change.
    weights = balancing_weights(np.arange(6) < 2, 0.5)
    weighted = EpochSampler(6, seed=3, step=1, weights=weights)
    assert next(iter(weighted)) == (0, 4418468347491149041)
    assert [row for row, _ in _epoch(weighted, 1)] == [1, 1, 1, 1, 2, 5]
    plain = list(EpochSampler(4, seed=3, step=1))
    assert [row for row, _ in plain] == [3, 2, 1, 0]
    assert plain[0][1] == 7390452496230446619
