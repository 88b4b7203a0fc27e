"""Engines, which apply a function to many rows in processes of this machine or a Ray cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

from cxr_compare.data_prep.contracts.errors import InputError, require_packages
from cxr_compare.data_prep.contracts.processors import cpu_count
from cxr_compare.data_prep.work.chunks import Result, Row
from cxr_compare.data_prep.work.local_engine import LocalEngine
from cxr_compare.data_prep.work.ray_engine import RayEngine

EngineName = Literal["local", "ray"]
"""Values of the environment variable ``CXR_ENGINE``."""


class Engine(Protocol):
    """Interface of an engine: it applies a function to many rows on several processes or machines.

    A row is one argument of the function, such as the path of an image.
    """

    def map_rows(
        self,
        function: Callable[[Row], Result],
        rows: Iterable[Row],
        *,
        on_crash: Callable[[Row], Result],
        reads: Sequence[Path] = (),
    ) -> Iterator[Result]:
        """Apply a function to each row, and yield the results in order.

        Args:
            function: A function without side effects that can be imported by its name.
            rows: Arguments of the function, which are read when they are needed.
            on_crash: Function that returns a replacement result for a row on which every process
                crashes.
            reads: Files or folders that the function reads. If a machine cannot read one of them,
                an `InputError` is raised.

        Yields:
            The results in the order of the rows.
        """


@contextlib.contextmanager
def open_engine(
    name: EngineName = "local", *, address: str | None = None, workers: int | None = None
) -> Iterator[Engine]:
    """Yield an object that applies a function to many rows in processes or on a Ray cluster.

    At the end of the ``with`` block, the processes and the cluster that were started for it end.

    Args:
        name: ``local`` for processes of this machine, ``ray`` for a Ray cluster.
        address: Address of a running Ray cluster, which stays running. None starts a cluster on
            this machine at the first row, and ends it with the block.
        workers: Number of processes, or of processors of a cluster that is started here; None uses
            all.

    Yields:
        The engine; see `Engine`.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.

    Example:
        >>> with open_engine(workers=1) as engine:
        ...     list(engine.map_rows(len, ["a", "bcd"], on_crash=lambda row: 0))
        [1, 3]
    """
    if name == "local":
        if address is not None:
            raise InputError("CXR_ADDRESS: is for CXR_ENGINE=ray; set it, or unset CXR_ADDRESS")
        yield LocalEngine(cpu_count() if workers is None else workers)
        return
    require_packages("CXR_ENGINE=ray", "cluster", ("ray",))
    with contextlib.ExitStack() as cluster:
        engine = RayEngine(cluster, address, workers)
        if address is not None:
            engine.connect()  # a wrong address is reported before any work
        yield engine
