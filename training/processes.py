"""The processes of one training: who started them, what they agree on, and what ends them.

Imports no torch by itself, so that a wrong folder is named before.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from cxr_compare.data_prep.contracts.errors import InputError, first_line

if TYPE_CHECKING:
    from torch import Tensor

Value = TypeVar("Value")

_SILENCE = timedelta(minutes=10)  # a process that does not answer for so long is lost
_PATIENCE = timedelta(days=30)  # the first may decode a whole archive while the others wait
_POLL = 0.05  # s
_SAME = 2.0  # s: what ends all processes alike ends them within this time
_LINE = 2048  # bytes of an error line that is handed over
_LOST = re.compile(r"gloo|NCCL|[Cc]onnection (was )?(closed|reset|refused)|Broken pipe")
_PORTS = 15_000, 10_000  # of SLURM's jobs: the first, and how many

GRACE = 6.0  # s: who ended the other process may be about to end this one


@dataclass(frozen=True)
class Rank:
    """One process among those of a training."""

    rank: int  # from 0; the first one writes and speaks
    world_size: int  # number of processes on all nodes
    local_rank: int  # among the processes of this node, which is its GPU
    local_world_size: int  # number of processes of this node
    address: str  # where the first process is reached
    port: int  # likewise
    launcher: str  # ``torchrun`` or ``slurm``; who sets torchrun's variables is taken for it

    def __str__(self) -> str:
        return f"process {self.rank + 1} of {self.world_size}"

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Rank | None:
        """What a launcher's variables give; None where there is one process only.

        torchrun's variables count before SLURM's: torchrun may run inside a SLURM job. Of SLURM
        those of the step count: a batch script that starts one process without ``srun`` has a job
        of several tasks and is one process. (Lightning's environments take the job's.)

        Raises:
            InputError: A variable is missing or no number, or the ranks do not fit.

        Example:
            >>> Rank.of({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1",
            ...          "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}).rank
            1
            >>> slurm = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1",
            ...          "SLURM_NODEID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
            ...          "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_JOB_ID": "42"}
            >>> rank = Rank.of(slurm)
            >>> rank.rank, rank.local_rank, rank.local_world_size, rank.address, rank.port
            (5, 1, 4, 'gpu07', 15042)
            >>> Rank.of({}) is None
            True
        """
        if "RANK" in environment and "WORLD_SIZE" in environment:
            launcher, size = "torchrun", "WORLD_SIZE"
        elif "SLURM_STEP_NUM_TASKS" in environment:
            launcher, size = "slurm", "SLURM_STEP_NUM_TASKS"
        else:
            return None
        variables = _Variables(environment, launcher)
        if (world_size := variables.number(size)) == 1:
            return None
        read = cls._of_torchrun if launcher == "torchrun" else cls._of_slurm
        rank = read(variables, world_size)
        if not 0 <= rank.rank < world_size or rank.local_rank < 0:
            raise InputError(
                f"{launcher}: process {rank.rank} of {world_size} is none of them; "
                "are RANK and WORLD_SIZE, or SLURM's variables, left from another command?"
            )
        return rank

    @classmethod
    def _of_torchrun(cls, variables: _Variables, world_size: int) -> Rank:
        return cls(
            rank=variables.number("RANK"),
            world_size=world_size,
            local_rank=variables.number("LOCAL_RANK"),
            local_world_size=variables.number("LOCAL_WORLD_SIZE", world_size),
            address=variables.text("MASTER_ADDR"),
            port=variables.number("MASTER_PORT"),
            launcher="torchrun",
        )

    @classmethod
    def _of_slurm(cls, variables: _Variables, world_size: int) -> Rank:
        nodes = variables.text("SLURM_STEP_NODELIST", "") or variables.text("SLURM_NODELIST", "")
        tasks = _tasks_by_node(variables.text("SLURM_STEP_TASKS_PER_NODE", "1"))
        first, many = _PORTS
        step = variables.number("SLURM_STEP_ID", 0)  # steps of a job may run at once
        port = first + (variables.number("SLURM_JOB_ID", 0) + 131 * step) % many
        return cls(
            rank=variables.number("SLURM_PROCID"),
            world_size=world_size,
            local_rank=variables.number("SLURM_LOCALID"),
            local_world_size=tasks[variables.number("SLURM_NODEID", 0)],
            address=variables.text("MASTER_ADDR", "") or _first_node(nodes),
            port=variables.number("MASTER_PORT", port),
            launcher="slurm",
        )


class _Variables(NamedTuple):
    """A launcher's variables of the environment."""

    environment: Mapping[str, str]
    launcher: str

    def text(self, name: str, default: str | None = None) -> str:
        value = self.environment.get(name, default)
        if value is None:
            raise InputError(
                f"{self.launcher}: the environment lacks {name}; start every process with "
                f"{self.launcher}, or unset RANK and WORLD_SIZE to train in one process"
            )
        return value

    def number(self, name: str, default: int | None = None) -> int:
        text = self.text(name, None if default is None else str(default))
        try:
            return int(text)
        except ValueError:
            raise InputError(f"{self.launcher}: {name}={text} is no number") from None


def _tasks_by_node(text: str) -> list[int]:
    """SLURM's list of tasks on each node.

    Example:
        >>> _tasks_by_node("4(x2),1")
        [4, 4, 1]
    """
    counts: list[int] = []
    for tasks, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        counts += [int(tasks)] * int(times or 1)
    return counts


def _first_node(nodes: str) -> str:
    """The first of SLURM's list of nodes.

    Example:
        >>> [_first_node(text) for text in ("gpu[07-08,11]", "a1,b[2-3]", "rack[1-2]-n[3,5]")]
        ['gpu07', 'a1', 'rack1-n3']
    """
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", first[0]) if first else "127.0.0.1"


def is_lost_process(error: BaseException) -> bool:
    """Whether an error says that another process of the training no longer answers.

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
    """The processes of one training, this one among them; all of them make it.

    One that is alone, of rank None, does all without asking another.
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
        """Do something in each process; where it fails in one, all end, and the first says why.

        However long it takes in one of them, the others wait.

        Raises:
            InputError: In the first process, if it failed anywhere.
            SystemExit: In the others, without a word.
        """
        rank = self._rank
        if rank is None:
            return work()
        try:
            value, problem = work(), None
        except InputError as error:
            problem = error
        said = self._gather_lines(rank, "" if problem is None else str(problem) or "failed")
        failed = next((number for number, line in enumerate(said) if line), None)
        if failed is None:
            return value
        if not self.is_first:
            raise SystemExit(2)
        if problem is not None:
            raise problem
        raise InputError(f"process {failed + 1} of {rank.world_size}: {said[failed]}")

    def first(self, work: Callable[[], Value]) -> Value | None:
        """Do something in the first process while the others wait, with None; see `agree`."""
        return self.agree(work if self.is_first else lambda: None)

    def together(self, work: Callable[[], Value]) -> Value:
        """Do what the processes do together: where one of them ends, the others end soon.

        Raises:
            InputError: It failed here, or another process is lost and did not say why.
            SystemExit: It failed in another process, which says why.
        """
        rank = self._rank
        if rank is None:
            return work()
        try:
            return work()
        except InputError as error:
            self._store.set(f"problem{rank.rank}", str(error))
            until = time.monotonic() + _SAME  # all may fail of the same, which one of them can say
            while (failed := self._failed(rank)) < rank.world_size and time.monotonic() < until:
                time.sleep(_POLL)
            if failed == rank.world_size and not self.is_first:
                raise SystemExit(2) from None
            raise
        except Exception as error:
            # The guarantee of one line: a lost process is told once, without a traceback.
            if not is_lost_process(error):
                raise
            time.sleep(GRACE)
            if self._failed(rank):
                raise SystemExit(2) from None
            raise InputError(
                f"{rank}: another process of this training has ended or no longer answers "
                f"({first_line(error)[-160:]}); run the same command again to go on"
            ) from None

    def leave(self) -> None:
        """End the group, once all of them have done their work."""
        if self._rank is not None:
            import torch.distributed as dist

            dist.destroy_process_group()

    def _gather_lines(self, rank: Rank, line: str) -> list[str]:
        import torch
        import torch.distributed as dist

        text = line.encode()[:_LINE]
        own = torch.tensor([*text, *bytes(_LINE - len(text))], dtype=torch.uint8)
        shares = [torch.zeros_like(own) for _ in range(rank.world_size)]

        def gather_shares() -> None:
            handle: Any = dist.all_gather(shares, own, group=self._waiting, async_op=True)
            while not handle.is_completed():  # Ctrl-C and SIGTERM are heard between the looks
                time.sleep(_POLL)
            handle.wait()

        self.together(gather_shares)
        lines = [bytes(share.tolist()).rstrip(b"\0") for share in shares]
        return [line.decode(errors="replace") for line in lines]

    def _failed(self, rank: Rank) -> int:
        """How many processes have said what ended them."""
        try:
            return sum(self._store.check([f"problem{n}"]) for n in range(rank.world_size))
        except RuntimeError:  # the first process kept it, and is gone
            return 0


def gather(value: Value) -> list[Value]:
    """What each process has, in the order of the processes; every process must call it."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    values: list[Value] = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def reduce_over_processes(values: Tensor) -> Tensor:
    """The sum of each value on the CPU over all processes; all must call it."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return values
    reduced = values.clone()
    dist.all_reduce(reduced, dist.ReduceOp.SUM)
    return reduced
