"""A card that only waits: what its training would learn, images a second, with some loaders.

``chrt -r 1 python -m tests.pretended_card DATA --split fold-1`` measures against ``min(card,
loaders)``; by hand. In real time other programs wait, and the process that learns goes first.
"""

from __future__ import annotations

import argparse
import os
import time
from itertools import chain, islice
from pathlib import Path

import numpy as np

from configs.load import find_config, read_config
from data_prep.augment.augment import build_augmentation
from data_prep.store.dataset import DataSet
from data_prep.work.pool import cpu_count
from detection.dataset import LesionDataset, collate
from scripts import console
from scripts.runtime import tune_cpu
from tests.pretended_device import pretended_cuda
from training.loading import BatchLoader, SeededSampler, start_loaders

_SECONDS = 2.0  # of a cell


def _busy() -> float:
    """Processor time that all programs have used, s."""
    line = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return sum(map(int, line[1:4])) / os.sysconf("SC_CLK_TCK")


def _own(loader: BatchLoader) -> float:
    """Of it, this process and its loaders, s."""
    pids = [process.pid for process in getattr(loader._iterator, "_workers", [])]
    ticks = 0
    for pid in [os.getpid(), *pids]:
        ticks += sum(
            map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])
        )
    return ticks / os.sysconf("SC_CLK_TCK")


def _learn(batches: list[object], seconds: float, spins: bool) -> None:
    until = time.perf_counter() + seconds
    if not spins:
        time.sleep(seconds)
    while time.perf_counter() < until:
        pass


def measure(
    rows: LesionDataset, batch: int, loaders: int, card: float, expected: float, spins: bool
) -> tuple[float, float, float]:
    """Images a second, the share of the time that it waited, and what other programs used."""
    warm = 3 * loaders + 3
    n = batch * (warm + max(10, int(_SECONDS * expected / batch)))
    draws = islice(chain.from_iterable(SeededSampler(len(rows), seed=s) for s in range(10**6)), n)
    loader = BatchLoader(rows, collate, batch, list(draws), loaders=loaders, pin=True)
    for number, images in enumerate(loader):
        if number == warm:
            began, waited = time.perf_counter(), loader.seconds_waiting
            busy, own = _busy(), _own(loader)
        _learn(images, card * len(images), spins)
    seconds = time.perf_counter() - began
    others = (_busy() - busy - _own(loader) + own) / seconds
    if loaders:
        loader._iterator._shutdown_workers()  # type: ignore[union-attr]
    return (n - batch * warm) / seconds, (loader.seconds_waiting - waited) / seconds, others


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="default")
    parser.add_argument("--size", type=int, nargs="+", default=[224, 512])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument(
        "--card", type=float, nargs="+", default=[0.5, 2.0, 10.0], help="ms an image"
    )
    parser.add_argument("--loaders", type=int, nargs="+", default=[0, 1, 2, 4, 8])
    parser.add_argument(
        "--spins", action="store_true", help="the host waits with a whole processor"
    )
    parser.add_argument("--set", nargs="*", default=[], help="as cxr train")
    asked = parser.parse_args()
    tune_cpu(workers=1)
    if os.sched_getscheduler(0) == os.SCHED_RR:
        start_loaders()  # as they are; this process before them
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(2))
    dataset, how = (
        DataSet.open(asked.data),
        read_config(find_config("retinanet"), asked.set).augmentation,
    )
    target = dataset.target()
    ids = dataset.image_ids("train", asked.split).intersection(dataset.boxes_trusted(target))
    print(
        "| px | card, ms | card, images/s | loaders | images/s | model | ratio | waited | others |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for size in asked.size:
        store = dataset.make_store(size, console)
        augmentation = build_augmentation(**how.model_dump(exclude={"mosaic"}))
        boxes = dataset.target_boxes(target)
        rows = LesionDataset(store, ids, boxes, target.any_of, augmentation, mosaic=how.mosaic)
        rates = [measure(rows, asked.batch, 0, 0.0, 1000.0, False)[0] for _ in range(3)]
        rate = float(np.median(rates))
        print(f"| {size} | | | alone | {rate:.0f} | | | | |", flush=True)
        for ms in asked.card:
            for loaders in asked.loaders:
                card = ms / 1000
                model = min(1 / card, min(loaders, cpu_count()) * rate)
                model = model or 1 / (card + 1 / rate)
                found, waited, others = measure(
                    rows, asked.batch, loaders, card, model, asked.spins
                )
                cells = f"{size} | {ms:g} | {1000 / ms:.0f} | {loaders} | {found:.0f} | {model:.0f}"
                print(
                    f"| {cells} | {found / model:.2f} | {waited:.0%} | {others:.2f} |", flush=True
                )


if __name__ == "__main__":
    with pretended_cuda():
        main()
