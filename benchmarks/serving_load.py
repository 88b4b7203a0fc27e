"""``python -m benchmarks.serving_load``: `cxr serve` under load on loopback.

Each number of clients sends the same images, each client one request after another. Every answer
is compared with the answer that the same image got alone. Requests that are refused (429, 503) or
cut off are sent again, as a client would do. Then the server is killed during a load and started
again. Server and clients share the processors, so the rate is lower than the server's own.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.memory import together_kib
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.json_files import write_json
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.store.loose_images import find_image_files
from cxr_compare.scripts import console

_STARTS = 120  # seconds that a server may take to be ready
_TOLERANCE = 0.002  # of a score: another batch rounds otherwise, bf16 most
_PAUSE = 0.05  # seconds before a refused request is sent again
_PAGE = re.compile(r"Page: http://[^ ]*:([0-9]+)/")
_FEW = 48  # images: enough for cxr predict to start its decoding processes
_DOWN = 1.0  # seconds between the kill and the new start


@dataclass
class _Load:
    """Answers and times that the clients saw."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    memory: list[float] = field(default_factory=list)
    wall: float = 0.0

    def row(self, clients: int) -> dict[str, Any]:
        """Return the figures of a number of clients; times in ms, memory in MiB."""
        p50, p95, p99 = np.percentile(1000 * np.array(self.seconds), [50, 95, 99]).tolist()
        return {
            "clients": clients,
            "answers": len(self.seconds),
            "images_per_s": len(self.seconds) / self.wall,
            "p50_ms": p50,
            "p95_ms": p95,
            "p99_ms": p99,
            "wrong": self.wrong,
            "refused": {name: n for name, n in self.statuses.items() if name != "200"},
            "memory_mib": [round(each) for each in (self.memory[0], max(self.memory))],
        }


class _Server:
    """A `cxr serve` in its own process, on a free port, which it keeps when it is started again."""

    def __init__(self, systems: Sequence[str], options: Sequence[str], log: Path) -> None:
        self._systems = list(systems)
        self._options = list(options)
        self._log = log
        self.port = 0

    def start(self) -> None:
        command = [sys.executable, "-P", "-m", "cxr_compare.scripts.cli", "serve", *self._systems]
        command += ["--port", str(self.port), *self._options]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stderr=log)  # noqa: S603 - our own program
        until = time.monotonic() + _STARTS
        while not (found := _PAGE.search(self._log.read_text(encoding="utf-8"))):
            if self._process.poll() is not None or time.monotonic() > until:
                raise InputError(f"cxr serve did not start: {self._log.read_text()[-500:]}")
            time.sleep(_PAUSE)
        self.port = int(found[1])

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        self._process.send_signal(how)
        self._process.wait(timeout=30)

    def memory(self) -> float:
        """Return the resident memory of the server and its workers, MiB."""
        return together_kib(self._process.pid) / 1024


@contextmanager
def _serving(systems: Sequence[str], options: Sequence[str]) -> Iterator[_Server]:
    with tempfile.TemporaryDirectory() as folder:
        server = _Server(systems, options, Path(folder) / "log.txt")
        server.start()
        try:
            asyncio.run(_ready(server))
            yield server
        finally:
            server.end()


async def _ready(server: _Server) -> None:
    import httpx

    until = time.monotonic() + _STARTS
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        while time.monotonic() < until:
            try:
                if (await client.get("/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(_PAUSE)
    raise InputError(f"the server at port {server.port} was not ready within {_STARTS} s")


def _told(answer: Any) -> list[tuple[Any, ...]]:
    return [
        (each["system"], each["decision"], each["score"], len(each["boxes"]))
        for each in answer["systems"]
    ]


def _is_same(one: list[tuple[Any, ...]], other: list[tuple[Any, ...]]) -> bool:
    return len(one) == len(other) and all(
        a[:2] == b[:2] and abs(a[2] - b[2]) <= _TOLERANCE for a, b in zip(one, other, strict=True)
    )


async def _send(
    server: _Server,
    images: Sequence[tuple[str, bytes]],
    expected: dict[str, list[tuple[Any, ...]]],
    clients: int,
    requests: int,
    kill: bool = False,
) -> _Load:
    """Send images again and again by a number of clients at once."""
    import httpx

    load = _Load()
    turn = itertools.cycle(range(len(images)))
    left = itertools.count(1)
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    every = max(1, requests // 50)

    async def one(client: httpx.AsyncClient) -> None:
        while next(left) <= requests:
            name, content = images[next(turn)]
            start = time.monotonic()
            while True:
                try:
                    files = {"file": (name, content)}
                    response = await client.post("/v1/analyze", files=files)
                except httpx.TransportError as error:
                    load.statuses[type(error).__name__] += 1
                    await asyncio.sleep(_PAUSE)
                    continue
                load.statuses[str(response.status_code)] += 1
                if response.status_code in (429, 503):
                    await asyncio.sleep(_PAUSE)
                    continue
                break
            load.seconds.append(time.monotonic() - start)
            answer = response.json()
            good = response.status_code == 200 and answer["image"]["name"] == name
            if not (
                good and _is_same(arguments := _told(answer), expected.setdefault(name, arguments))
            ):
                load.wrong += 1
            if len(load.seconds) % every == 0 and not kill:
                load.memory.append(server.memory())

    async def killer() -> None:
        while len(load.seconds) < requests // 2:
            await asyncio.sleep(_PAUSE)
        await asyncio.to_thread(server.end, signal.SIGKILL)
        await asyncio.sleep(_DOWN)
        await asyncio.to_thread(server.start)

    load.memory.append(server.memory())
    began = time.monotonic()
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{server.port}", limits=limits, timeout=60
    ) as client:
        work = [one(client) for _ in range(clients)]
        await asyncio.gather(*work, *([killer()] if kill else []))
    load.wall = time.monotonic() - began
    return load


def _predict_rate(
    systems: Sequence[str], files: Sequence[Path], options: Sequence[str]
) -> float | None:
    """Return the images per second of `cxr predict` with the same images; None if they are too few.

    The time that the command needs to start is subtracted, as a second, short command measures it.
    """
    if len(files) < 4 * _FEW:
        return None
    seconds = []
    for some in (files[:_FEW], files):
        command = [sys.executable, "-P", "-m", "cxr_compare.scripts.cli", "predict", *systems]
        command += [*map(str, some), "--no-overlay", "--json", *options]
        began = time.monotonic()
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603
        seconds.append(time.monotonic() - began)
    return (len(files) - _FEW) / (seconds[1] - seconds[0])


def measure(
    systems: Annotated[list[str], typer.Argument(help="Runs or exports, as for cxr serve.")],
    images: Annotated[Path, typer.Option(help="Folder of images that are sent.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    clients: Annotated[list[int], typer.Option(help="Clients at once.")] = [1, 8, 64],  # noqa: B006
    requests: Annotated[int, typer.Option(help="Requests for each number of clients.")] = 300,
    most: Annotated[int, typer.Option(help="Images of the folder that are used.")] = 400,
    option: Annotated[list[str] | None, typer.Option(help="Of cxr serve and predict.")] = None,
    endurance: Annotated[int, typer.Option(help="Requests by 8 clients, for the memory.")] = 0,
) -> None:
    """Measure a server under load; exit with 1 if an answer was lost or mixed up."""
    options = list(option or [])
    files = find_image_files([images])[:most]
    contents = [(f"{place}-{path.name}", path.read_bytes()) for place, path in enumerate(files)]
    expected: dict[str, list[tuple[Any, ...]]] = {}
    rows = []
    with _serving(systems, options) as server:
        alone = asyncio.run(_send(server, contents, expected, 1, len(contents)))
        console.say(f"alone: {json.dumps(alone.row(1))}")
        for count in clients:
            rows.append(asyncio.run(_send(server, contents, expected, count, requests)).row(count))
            console.say(json.dumps(rows[-1]))
        if endurance:
            load = asyncio.run(_send(server, contents, expected, 8, endurance))
            rows.append(load.row(8) | {"memory_course_mib": [round(each) for each in load.memory]})
            console.say(json.dumps(rows[-1]))
        killed = asyncio.run(_send(server, contents, expected, 8, requests, kill=True)).row(8)
        console.say(f"killed and started again: {json.dumps(killed)}")
    rate = _predict_rate(systems, files, options)
    best = max(row["images_per_s"] for row in rows)
    if rate is None:
        console.say(f"{len(files)} images are too few for the rate of cxr predict")
    else:
        console.say(f"cxr predict: {rate:.1f} images/s; the server reaches {best / rate:.0%} of it")
    result = {"rows": rows, "killed": killed, "predict_images_per_s": rate, **provenance()}
    write_json(out, "serving load", result)
    if any(row["wrong"] for row in [*rows, killed]):
        raise typer.Exit(1)


if __name__ == "__main__":
    try:
        typer.run(measure)
    except InputError as error:
        console.say(str(error))
        sys.exit(2)
