"""A server under many requests, and under a clock that jumps.

Usage: ``python -m tools.attacks.server memory|clock EXPORT [--requests N] [--clients N]``. EXPORT
is a folder that ``cxr export`` made.

``memory`` prints the memory of the server and of its processes after each twentieth of the
requests, and how much it grows with each request over the second half. In ``clock`` the server
reads the time from a file (by a library that gcc compiles and LD_PRELOAD loads), which jumps
between requests. Each answer must have status 200, and each row must be in the file of the day that
the server saw. Otherwise the exit status is 1.
"""

import argparse
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from http.client import HTTPConnection
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.memory import together_kib
from tools.attacks import material

_BOUNDARY = "cxr"
_SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long offset(void) {
    long seconds = 0;
    FILE *file = fopen(getenv("CXR_CLOCK"), "r");
    if (file) { if (fscanf(file, "%ld", &seconds) != 1) seconds = 0; fclose(file); }
    return seconds;
}
int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(clock, time);
    if (clock == CLOCK_REALTIME) time->tv_sec += offset();
    return status;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"""
_DAY = 86_400
_JUMPS = (0, 3600, -3600, 40 * _DAY, -40 * _DAY, 3650 * _DAY, -20_000 * _DAY, -20_700 * _DAY, 0)


def png(seed: int, side: int) -> bytes:
    """Return an image of noise as PNG.

    Args:
        seed: Random seed.
        side: Width and height, px.

    Returns:
        Content of the file.
    """
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def body_of(content: bytes) -> bytes:
    """Return the body of a form with one file."""
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    )
    return head.encode() + content + f"\r\n--{_BOUNDARY}--\r\n".encode()


class Server:
    """A `cxr serve` in its own process."""

    def __init__(self, export: Path, *options: object, **variables: str) -> None:
        surroundings = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(material.ROOT),
            **variables,
        }
        words = material.cxr_command("serve", export, "--port", 0, *options)
        self.process = subprocess.Popen(
            words, env=surroundings, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self.said: list[str] = []
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                break
        else:
            raise SystemExit("".join(self.said))
        # A pipe that nobody reads would fill.
        threading.Thread(target=self._read, daemon=True).start()
        while not self._is_ready():
            time.sleep(0.2)

    def _is_ready(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
        connection.close()
        return status == 200

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if "Traceback" in line or "WARNING" in line or "failed" in line:
                self.said.append(line)

    def ask(self, connection: HTTPConnection, body: bytes) -> int:
        """Send an image, and return the status of the answer.

        Args:
            connection: Open connection to the server.
            body: Body of the request.

        Returns:
            HTTP status.
        """
        kind = f"multipart/form-data; boundary={_BOUNDARY}"
        connection.request("POST", "/v1/analyze", body, {"Content-Type": kind})
        answer = connection.getresponse()
        answer.read()
        return answer.status

    def close(self) -> int:
        """End the server, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


def memory(export: Path, requests: int, clients: int) -> int:
    """Send requests, and print the memory of the server meanwhile.

    Args:
        export: Folder of the export.
        requests: Number of requests.
        clients: Number of clients at the same time.

    Returns:
        1 if an answer was wrong, else 0.
    """
    with tempfile.TemporaryDirectory() as folder:
        server = Server(export, "--log", Path(folder) / "log")
        bodies = [body_of(png(seed, side)) for seed, side in enumerate((64, 256, 512, 1024, 96))]
        numbers = count()
        statuses = {}
        lock = threading.Lock()
        points: list[tuple[int, float]] = []
        step = max(requests // 20, 1)

        def client() -> None:
            connection = HTTPConnection("127.0.0.1", server.port, timeout=120)
            while (number := next(numbers)) < requests:
                status = server.ask(connection, bodies[number % len(bodies)])
                with lock:
                    statuses[status] = statuses.get(status, 0) + 1
                    if sum(statuses.values()) % step == 0:
                        points.append(
                            (sum(statuses.values()), together_kib(server.process.pid) / 1024)
                        )
                        print(f"{points[-1][0]:7} {points[-1][1]:7.1f} MiB", flush=True)

        began = time.monotonic()
        threads = [threading.Thread(target=client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.monotonic() - began
        status = server.close()
    late = np.array([point for point in points if point[0] > requests // 2])
    slope = np.polyfit(late[:, 0], late[:, 1], 1)[0] if len(late) > 1 else float("nan")
    print(f"{requests} requests by {clients} clients in {took:.0f} s: {statuses}; ends {status}")
    print(f"second half: {1024 * slope:.2f} KiB a request, {1000 * slope:.2f} MiB a thousand")
    return int(set(statuses) != {200})


def clock(export: Path) -> int:
    """Let the server's clock jump; each row must be in the file of the day that it saw."""
    wrong = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "shim.c").write_text(_SHIM)
        shim = folder / "shim.so"
        offset = folder / "offset"
        compiler = ["gcc", "-shared", "-fPIC", "-o", shim, folder / "shim.c", "-ldl"]
        subprocess.run(compiler, check=True)
        offset.write_text("0")
        log = folder / "log"
        server = Server(export, "--log", log, LD_PRELOAD=str(shim), CXR_CLOCK=str(offset))
        connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
        sent = 0
        for jump in _JUMPS:
            (folder / "next").write_text(str(jump))
            (folder / "next").replace(offset)
            began = time.monotonic()
            for seed in range(3):
                status = server.ask(connection, body_of(png(seed, 96)))
                sent += 1
                if status != 200:
                    wrong.append(f"jump of {jump} s: status {status}")
            day = datetime.fromtimestamp(time.time() + jump, UTC).date()
            file = log / f"answers-{day}.jsonl"
            took = time.monotonic() - began
            is_there = file.is_file()
            print(
                f"jump {jump:12} s: {day}, {took:5.1f} s, row {'there' if is_there else 'MISSING'}"
            )
            wrong += [] if is_there else [f"jump of {jump} s: no {file.name}"]
        status = server.close()
        print(f"server ends with {status}")
        wrong += wrong_rows(log, sent) + wrong_monitor(log, folder / "monitor")
    for line in wrong:
        print(line)
    return int(bool(wrong))


def wrong_rows(log: Path, sent: int) -> list[str]:
    """Return one line for each row that is missing, or is in the file of another day.

    Args:
        log: Folder of the log.
        sent: Number of requests.

    Returns:
        The lines.
    """
    rows = [
        (file.name, json.loads(line)["time"])
        for file in sorted(log.glob("answers-*.jsonl"))
        for line in file.read_text().splitlines()
    ]
    print(f"{sent} requests, {len(rows)} rows")
    wrong = [f"{name}: holds {when}" for name, when in rows if when[:10] not in name]
    return wrong + [f"{sent} requests, {len(rows)} rows"] * (len(rows) != sent)


def wrong_monitor(log: Path, out: Path) -> list[str]:
    """Return the problems of a monitor, which must name rows of the future and read the rest.

    Args:
        log: Folder of the log.
        out: Folder of the monitor.

    Returns:
        One line for each problem.
    """
    wrong = []
    done = material.cxr("monitor", log, "--out", out)
    print(f"monitor: exit {done.returncode}: {done.stderr.strip().splitlines()[-1][-200:]}")
    if done.returncode != 2 or "lies in the future" not in done.stderr:
        wrong.append("the monitor does not name the rows of the future")
    for file in log.glob("answers-*.jsonl"):
        if file.name > f"answers-{datetime.now(UTC).date()}.jsonl":
            file.unlink()
    done = material.cxr("monitor", log, "--out", out)
    print(f"monitor without them: exit {done.returncode}: {done.stderr.splitlines()[0][:200]}")
    if done.returncode not in (0, 2) or "Traceback" in done.stderr:
        wrong.append(done.stderr[-800:])
    return wrong


def main() -> int:
    """Run one of the attacks; return 1 if the server failed the test."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("attack", choices=["memory", "clock"])
    parser.add_argument("export", type=Path)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=4)
    given = parser.parse_args()
    if given.attack == "memory":
        return memory(given.export.resolve(), given.requests, given.clients)
    return clock(given.export.resolve())


if __name__ == "__main__":
    sys.exit(main())
