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

    Args:
        rows: Iterable of objects of any type, called rows. If reading a row raises an error, the
            error is raised here after the rows before it.
        most: Largest number of rows that are read before the caller requests them.

    Yields:
        The rows in their order.

    Example:
        >>> list(read_ahead(range(4)))
        [0, 1, 2, 3]
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

    Args:
        write: Function that writes one row.
        rows: Iterable of objects of any type, called rows. Each is computed when it is requested.

    Example:
        >>> written = []
        >>> write_behind(written.append, range(3))
        >>> written
        [0, 1, 2]
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
