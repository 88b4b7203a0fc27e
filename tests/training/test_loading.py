"""Batches are the same whoever loads them, and one that fails names its images."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from types import SimpleNamespace
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
from cxr_compare.training.augment import build_augmentation
from cxr_compare.training.datasets import AugmentedLesionBatch, LesionDataset, collate_lesions
from cxr_compare.training.loading import (
    BatchLoader,
    NamedRows,
    Unreadable,
    errors_name_images,
    is_out_of_memory,
    require_loaded,
)
from cxr_compare.training.sampling import SeededSampler
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


def _epochs(store: PixelStore, loaders: int, first: int = 0) -> list[list[AugmentedLesionBatch]]:
    """Three epochs, or what is left of them."""
    boxes = pd.DataFrame([[8.0, 8.0, 40.0, 48.0]] * 4, columns=EDGES)
    boxes = boxes.assign(image_id=[f"i{number}" for number in range(4)], finding="opacity")
    augmentation = build_augmentation(rotate_degrees=10.0, scale=0.2, noise=0.1)
    rows = LesionDataset(store, store.ids, boxes, ["opacity"], augmentation, mosaic=0.5)
    sampler = SeededSampler(9, seed=1, weights=np.arange(1.0, 10.0))
    loader = BatchLoader(rows, collate_lesions, 4, sampler, loaders=loaders)
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
    assert [len(batch) for batch in batches] == [4, 4, 1] * (3 - first)
    for one, other in zip(expected, batches, strict=True):
        assert (one.image_ids, one.dropped) == (other.image_ids, other.dropped)
        assert torch.equal(one.images, other.images)
        for here, there in zip(one.boxes + one.labels, other.boxes + other.labels, strict=True):
            assert torch.equal(here, there)


def test_an_epoch_waits_for_its_batches_and_not_for_its_steps(monkeypatch):
    clock = 0.0

    def load(samples: Any) -> Any:
        nonlocal clock
        clock += 3.0
        return samples

    monkeypatch.setattr(
        "cxr_compare.training.loading.time", SimpleNamespace(perf_counter=lambda: clock)
    )
    loader = BatchLoader(_Rows(), load, 1, [0, 2])
    for _ in range(2):  # epochs
        for _ in loader:
            clock += 50.0
        assert loader.seconds_waiting == 6.0


class _Deadly(_Rows):
    def __getitem__(self, key: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_loading_process_that_dies_ends_the_training_in_one_line():
    with pytest.raises(InputError, match=r"training.workers: one of 1 processes that load has"):
        list(BatchLoader(_Deadly(), list, 1, range(3), loaders=1))


def _load_and_die(pipe: Connection) -> None:
    loader = BatchLoader(_Rows(), list, 1, [0, 2] * 9, loaders=2)
    next(iter(loader))
    pipe.send([process.pid for process in loader._iterator._workers])
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


def _refuse(samples: Any) -> Any:
    raise ValueError("all input arrays must have the same shape")


@pytest.mark.parametrize("workers", [0, 1])
def test_image_that_cannot_be_read_is_named_in_one_line(workers):
    loader = BatchLoader(_Rows(), list, 2, range(3), loaders=workers)
    with pytest.raises(InputError, match=r"image b: cannot be loaded \(OSError: file is\)") as e:
        [require_loaded(batch) for batch in loader]
    assert "\n" not in str(e.value)


def test_row_with_a_seed_is_named_too():
    assert isinstance(NamedRows(_Rows(), list)[(1, 99)], Unreadable)
    assert NamedRows(_Rows(), list)[(2, 99)] == _Sample("c", 2)


def test_samples_that_do_not_fit_together_are_named():
    batch = NamedRows(_Rows(), _refuse).batch([_Sample("a", 0), _Sample("c", 2)])
    with pytest.raises(InputError, match=r"images a, c: do not make a batch \(ValueError: all"):
        require_loaded(batch)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (lambda: RuntimeError("shapes differ\nat line 3"), InputError),
        (lambda: InputError("image 'x': box is reversed"), InputError),
        (lambda: torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError),
        (KeyboardInterrupt, KeyboardInterrupt),
    ],
)
def test_step_that_fails_names_its_images_but_not_for_want_of_memory(error, kind):
    raised = error()
    with pytest.raises(kind) as caught, errors_name_images(["a", "b"], "epoch 2: learning"):
        raise raised
    if type(raised) is RuntimeError:
        assert str(caught.value).startswith(
            "epoch 2: learning failed on the images a, b (RuntimeError: shapes differ);"
        )
        assert caught.value.__cause__ is raised
    else:
        assert caught.value is raised


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_lack_of_memory_is_distinguished_from_other_errors(error, expected):
    assert is_out_of_memory(error) is expected
