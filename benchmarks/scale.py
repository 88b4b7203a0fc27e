"""``python -m benchmarks.scale``: the time of Ray against the local pool, and the driver's memory.

A row is the path of a PNG that a worker reads, shrinks and returns, as in `cxr prepare`. A small
PNG costs a fortieth of a radiograph, so that the cost of the engine itself is visible. Both engines
work on the same rows with the same number of workers, in turn, each round in the other order. Ray
is started before, and its start is not counted.
"""

from __future__ import annotations

import time
from functools import partial
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import cv2
import numpy as np
import typer

from benchmarks.scale_growth import ENGINES, growth, in_process, origin
from benchmarks.scale_stages import stages
from benchmarks.worker import peak_gib
from cxr_compare.data_prep.contracts.json_files import write_json
from cxr_compare.data_prep.contracts.processors import cpu_count
from cxr_compare.data_prep.work.engine import EngineName, open_engine
from cxr_compare.scripts import console

_SMALL = 64  # px

app = typer.Typer(add_completion=False, no_args_is_help=True)
app.command()(growth)
app.command()(stages)


def _png(side: int) -> bytes:
    """Return a smooth image with noise as PNG."""
    rng = np.random.default_rng(0)
    grey = cv2.GaussianBlur(rng.normal(128, 60, (side, side)), (0, 0), 9) * 2
    found, content = cv2.imencode(".png", (grey + rng.normal(0, 4, grey.shape)).astype(np.uint8))
    assert found  # noqa: S101 - OpenCV writes PNG
    return content.tobytes()


def shrink(path: Path) -> np.ndarray:
    """Read an image and shrink it; this is the work on a row."""
    grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise ValueError(f"{path}: cannot be decoded")
    return cv2.resize(grey, (_SMALL, _SMALL), interpolation=cv2.INTER_AREA)


def _none(row: Any) -> None:
    return None


def _seconds(name: EngineName, rows: int, side: int) -> float:
    """Return the seconds that the rows take once the engine's workers have started."""
    with TemporaryDirectory() as folder, open_engine(name, workers=cpu_count()) as engine:
        path = Path(folder) / "image.png"
        path.write_bytes(_png(side))
        list(engine.map_rows(shrink, repeat(path, 64), on_crash=_none))  # starts them
        began = time.perf_counter()
        count = sum(1 for _ in engine.map_rows(shrink, repeat(path, rows), on_crash=_none))
        took = time.perf_counter() - began
    if count != rows:
        raise RuntimeError(f"{name}: {count} results of {rows} rows")
    return took


@app.command()
def engines(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    rows: Annotated[int, typer.Option(min=100, help="Rows of each run.")] = 100_000,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each engine, in turn.")] = 3,
    side: Annotated[int, typer.Option(min=16, help="Width and height of the PNG, px.")] = 256,
) -> None:
    """Measure the time that Ray takes for the same rows, as a ratio to the local pool.

    Example: python -m benchmarks.scale engines --out engines.json
    """
    taken: dict[str, list[float]] = {name: [] for name in ENGINES}
    for number in range(rounds):
        for name in ENGINES if number % 2 == 0 else ENGINES[::-1]:
            taken[name].append(_seconds(name, rows, side))
            console.say(f"{name}: {taken[name][-1]:.1f} s, {rows / taken[name][-1]:.0f} rows/s")
    ratios = [ray / local for local, ray in zip(taken["local"], taken["ray"], strict=True)]
    console.emit(
        f"Ray / local: {np.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}), "
        f"{rows:,} rows of {side} px, {rounds} rounds, {cpu_count()} workers"
    )
    write_json(
        out,
        "engines",
        {"rows": rows, "side": side, "seconds": taken, "ratios": ratios, **origin()},
    )


def _driver(name: EngineName, rows: int) -> float:
    """Return the peak memory of a driver, MiB."""
    with open_engine(name, workers=cpu_count()) as engine:
        total = sum(1 for _ in engine.map_rows(partial(max, 0), range(rows), on_crash=_none))
    if total != rows:
        raise RuntimeError(f"{name}: {total} results of {rows} rows")
    return peak_gib() * 1024


@app.command()
def memory(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    rows: Annotated[list[int] | None, typer.Option(help="Numbers of rows.")] = None,
) -> None:
    """Measure the driver's peak memory by the number of rows, with each engine.

    Example: python -m benchmarks.scale memory --out memory.json
    """
    counts = rows or [10_000, 100_000, 1_000_000]
    found = [
        {"engine": name, "rows": count, "mib": in_process(partial(_driver, name, count))}
        for name in ENGINES
        for count in counts
    ]
    for each in found:
        console.emit(f"{each['engine']}: {each['mib']:.0f} MiB at {each['rows']:,} rows")
    write_json(out, "driver memory", {"rows": found, **origin()})


if __name__ == "__main__":
    app()
