"""Reading and writing in a background thread while the caller computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

Row = TypeVar("Row")
_END = object()


def read_ahead(rows: Iterable[Row], *, most: int = 2) -> Iterator[Row]:
    """Take rows from an iterable in a background thread while the caller works on earlier rows.

    At most `most` rows are read before the caller requests them. If reading a row raises an error,
    the error is raised here after the rows before it.
    """
    source = iter(rows)
    context = copy_context()  # a thread starts without the context variables of the caller

    def draw() -> Any:
        return context.run(next, source, _END)

    with ThreadPoolExecutor(1, "read-ahead") as reader:
        pending = deque(reader.submit(draw) for _ in range(most))
        try:
            while (row := pending.popleft().result()) is not _END:
                pending.append(reader.submit(draw))
                yield row
        finally:
            reader.shutdown(cancel_futures=True)


def write_behind(write: Callable[[Row], object], rows: Iterable[Row]) -> None:
    """Write each row in a background thread while the caller's next row is computed.

    At most one row waits to be written. Even after an error, a row whose writing has begun is
    written completely before the function returns or raises.
    """
    run_in_context = copy_context().run
    with ThreadPoolExecutor(1, "write-behind") as writer:
        previous: Future[object] | None = None
        for row in rows:
            if previous is not None:
                previous.result()
            previous = writer.submit(run_in_context, write, row)
        if previous is not None:
            previous.result()
