"""Reading and writing rows in a thread beside the work on them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

Row = TypeVar("Row")
_END = object()


def read_ahead(rows: Iterable[Row], *, most: int = 2) -> Iterator[Row]:
    """Draw rows in a thread while the caller works on the rows before.

    Args:
        rows: The rows; an error that drawing one raises is raised here in its position.
        most: The most rows that are drawn before the caller asks for them.

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
    """Write each row in a thread while the next row is made.

    At most one row waits for the one before it. However this ends, a row whose writing has begun
    is written to its end before this returns or raises.

    Args:
        write: Function that writes one row.
        rows: The rows, made one by one.

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
