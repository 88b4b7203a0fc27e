"""The processes that train one model together: how they connect, agree and end.

Importing this module does not import torch, so that a wrong folder is reported at once.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from cxr_compare.data_prep.contracts.errors import InputError, first_line
from cxr_compare.training.rank import Rank

if TYPE_CHECKING:
    from torch import Tensor

Value = TypeVar("Value")

_SILENCE = timedelta(minutes=10)  # a process that does not answer for so long is lost
_PATIENCE = timedelta(days=30)  # the first may decode a whole archive while the others wait
_POLL = 0.05  # seconds
_SAME_TIME = 2.0  # s: a cause that ends all processes ends them within this time
_LINE_BYTES = 2048  # largest size of an error line that is sent to the first process
_LOST = re.compile(r"gloo|NCCL|[Cc]onnection (was )?(closed|reset|refused)|Broken pipe")

GRACE = 6.0  # seconds
"""Seconds in which the cause that ended another process may end this one as well."""


def is_lost_process(error: BaseException) -> bool:
    """Return True if an error means that another process of the training no longer answers.

    Args:
        error: The exception that was raised.

    Example:
        >>> is_lost_process(RuntimeError("[/gloo/pair.cc:534] Connection closed by peer [::1]"))
        True
        >>> is_lost_process(RuntimeError("shape mismatch"))
        False
    """
    import torch.distributed as dist

    if dist.is_available() and isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and _LOST.search(str(error)) is not None


class Processes:
    """Communication between the processes that run one training together, seen from one of them.

    Each process makes one such object. In a training of a single process, `rank` is None and the
    methods only call the given function.

    Args:
        rank: Number and address of this process; None if it trains alone.

    Raises:
        InputError: The first process cannot be reached.
    """

    def __init__(self, rank: Rank | None) -> None:
        self._rank = rank
        self.is_first = rank is None or rank.rank == 0
        if rank is None:
            return
        import torch
        import torch.distributed as dist

        os.environ |= {  # what Lightning's TorchElasticEnvironment reads, whoever started this
            "MASTER_ADDR": rank.address,
            "MASTER_PORT": str(rank.port),
            "RANK": str(rank.rank),
            "LOCAL_RANK": str(rank.local_rank),
            "WORLD_SIZE": str(rank.world_size),
        }
        if rank.local_world_size == rank.world_size:
            # All on this machine: needs no network and no host name.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        cuda = torch.cuda.is_available() and rank.local_rank < torch.cuda.device_count()
        if cuda:
            torch.cuda.set_device(rank.local_rank)
        try:
            store = next(dist.rendezvous("env://", timeout=_SILENCE))[0]
            # torchrun keeps the store when it starts the processes anew: not what they left there.
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            self._store = dist.PrefixStore(f"cxr{attempt}", store)
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if cuda else "gloo",
                store=dist.PrefixStore(f"training{attempt}", store),
                rank=rank.rank,
                world_size=rank.world_size,
                timeout=_SILENCE,
            )
            self._waiting: Any = dist.new_group(backend="gloo", timeout=_PATIENCE)
        except Exception as error:
            if not is_lost_process(error):
                raise
            raise InputError(
                f"{rank}: the first one cannot be reached at {rank.address} port {rank.port} "
                f"({first_line(error)[-160:]}); is the port free, and reachable from this node? "
                "MASTER_PORT chooses another"
            ) from None

    def agree(self, work: Callable[[], Value]) -> Value:
        """Call a function in each process; if it fails in one, end all processes.

        The first process reports the reason of the failure. The processes wait for the slowest one,
        however long it takes.

        Args:
            work: Function that each process calls.

        Returns:
            The value of the function in this process.

        Raises:
            InputError: The function failed in any process; raised in the first process.
            SystemExit: The function failed in any process; raised in all other processes, without a
                message.
        """
        rank = self._rank
        if rank is None:
            return work()
        try:
            value = work()
            problem = None
        except InputError as error:
            problem = error
        lines = self._gather_lines(rank, "" if problem is None else str(problem) or "failed")
        failed = next((number for number, line in enumerate(lines) if line), None)
        if failed is None:
            return value
        if not self.is_first:
            raise SystemExit(2)
        if problem is not None:
            raise problem
        raise InputError(f"process {failed + 1} of {rank.world_size}: {lines[failed]}")

    def first(self, work: Callable[[], Value]) -> Value | None:
        """Call a function in the first process while the others wait. See `agree` for errors.

        Args:
            work: Function that only the first process calls.

        Returns:
            The value of the function in the first process, None in the others.
        """
        return self.agree(work if self.is_first else lambda: None)

    def together(self, work: Callable[[], Value]) -> Value:
        """Call a function in all processes at once. If one process ends, the others end soon.

        Args:
            work: Function that each process calls.

        Returns:
            The value of the function in this process.

        Raises:
            InputError: The function failed in this process, or another process was lost without a
                reason.
            SystemExit: The function failed in another process, which reports the reason.
        """
        rank = self._rank
        if rank is None:
            return work()
        try:
            return work()
        except InputError as error:
            self._store.set(f"problem{rank.rank}", str(error))
            # All may fail for the same reason, which one of them can report.
            until = time.monotonic() + _SAME_TIME
            while (failed := self._n_failed(rank)) < rank.world_size and time.monotonic() < until:
                time.sleep(_POLL)
            if failed == rank.world_size and not self.is_first:
                raise SystemExit(2) from None
            raise
        except Exception as error:
            # The guarantee of one line: a lost process is reported once, without a traceback.
            if not is_lost_process(error):
                raise
            time.sleep(GRACE)
            if self._n_failed(rank):
                raise SystemExit(2) from None
            raise InputError(
                f"{rank}: another process of this training has ended or no longer answers "
                f"({first_line(error)[-160:]}); run the same command again to go on"
            ) from None

    def leave(self) -> None:
        """Close the connection between the processes, after all have finished."""
        if self._rank is not None:
            import torch.distributed as dist

            dist.destroy_process_group()

    def _gather_lines(self, rank: Rank, line: str) -> list[str]:
        import torch
        import torch.distributed as dist

        text = line.encode()[:_LINE_BYTES]
        own = torch.tensor([*text, *bytes(_LINE_BYTES - len(text))], dtype=torch.uint8)
        shares = [torch.zeros_like(own) for _ in range(rank.world_size)]

        def gather_shares() -> None:
            handle: Any = dist.all_gather(shares, own, group=self._waiting, async_op=True)
            while not handle.is_completed():  # Ctrl-C and SIGTERM are handled in between
                time.sleep(_POLL)
            handle.wait()

        self.together(gather_shares)
        lines = [bytes(share.tolist()).rstrip(b"\0") for share in shares]
        return [line.decode(errors="replace") for line in lines]

    def _n_failed(self, rank: Rank) -> int:
        """Return the number of processes that have reported what ended them."""
        try:
            return sum(self._store.check([f"problem{n}"]) for n in range(rank.world_size))
        except RuntimeError:  # the first process kept it, and is gone
            return 0


def gather(value: Value) -> list[Value]:
    """Collect a value from each process. All processes must call this function.

    Args:
        value: Value of this process. It must be picklable.

    Returns:
        One value for each process, in the order of their ranks.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    values: list[Value] = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def reduce_over_processes(values: Tensor) -> Tensor:
    """Return the sum of a CPU tensor over all processes. All processes must call this function.

    Args:
        values: Tensor of this process, on the CPU.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return values
    reduced = values.clone()
    dist.all_reduce(reduced, dist.ReduceOp.SUM)
    return reduced
