"""The processes of one training: who started them, what they agree on, and what ends them.

Imports no torch by itself: who is one of several must be known before torch is set up.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from data_prep.contracts.errors import InputError

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
class Place:
    """One process among those of a training.

    Attributes:
        rank: From 0; the first one writes and speaks.
        world_size: Number of processes on all nodes.
        local_rank: Place among the processes of this node, which is its GPU.
        local_world_size: Number of processes of this node.
        address: Where the first process is reached.
        port: Likewise.
        launcher: ``torchrun`` or ``slurm``; who sets torchrun's variables is taken for it.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    address: str
    port: int
    launcher: str

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Place | None:
        """The place that a launcher's variables give; None where there is one process only.

        torchrun's variables count before SLURM's: torchrun may run inside a SLURM job. Of SLURM
        those of the step count: a batch script that starts one process without ``srun`` has a job
        of several tasks and is one process.

        Args:
            environment: ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR``,
                ``MASTER_PORT`` and ``LOCAL_WORLD_SIZE``, or what ``srun`` sets.

        Raises:
            InputError: A variable is missing or no number, or the ranks do not fit.

        Example:
            >>> Place.of({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1",
            ...           "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}).rank
            1
            >>> slurm = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1",
            ...          "SLURM_NODEID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
            ...          "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_JOB_ID": "42"}
            >>> place = Place.of(slurm)
            >>> place.rank, place.local_rank, place.local_world_size, place.address, place.port
            (5, 1, 4, 'gpu07', 15042)
            >>> Place.of({}) is None
            True
        """
        if "RANK" in environment and "WORLD_SIZE" in environment:
            place = cls._of_torchrun(environment)
        elif "SLURM_STEP_NUM_TASKS" in environment:
            place = cls._of_slurm(environment)
        else:
            return None
        if not 0 <= place.rank < place.world_size or place.local_rank < 0:
            raise InputError(
                f"{place.launcher}: process {place.rank} of {place.world_size} is none of them; "
                "are RANK and WORLD_SIZE, or SLURM's variables, left from another command?"
            )
        return place if place.world_size > 1 else None

    @classmethod
    def _of_torchrun(cls, environment: Mapping[str, str]) -> Place:
        world_size = _number(environment, "WORLD_SIZE", "torchrun")
        alone = world_size == 1
        return cls(
            rank=_number(environment, "RANK", "torchrun"),
            world_size=world_size,
            local_rank=_number(environment, "LOCAL_RANK", "torchrun", 0 if alone else None),
            local_world_size=_number(environment, "LOCAL_WORLD_SIZE", "torchrun", world_size),
            address=_text(environment, "MASTER_ADDR", "torchrun", "localhost" if alone else None),
            port=_number(environment, "MASTER_PORT", "torchrun", 0 if alone else None),
            launcher="torchrun",
        )

    @classmethod
    def _of_slurm(cls, environment: Mapping[str, str]) -> Place:
        nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_NODELIST", "")
        counts = environment.get("SLURM_STEP_TASKS_PER_NODE", "1")
        node = _number(environment, "SLURM_NODEID", "slurm", 0)
        first, many = _PORTS
        step = _number(environment, "SLURM_STEP_ID", "slurm", 0)  # steps of a job may run at once
        port = first + (_number(environment, "SLURM_JOB_ID", "slurm", 0) + 131 * step) % many
        return cls(
            rank=_number(environment, "SLURM_PROCID", "slurm"),
            world_size=_number(environment, "SLURM_STEP_NUM_TASKS", "slurm"),
            local_rank=_number(environment, "SLURM_LOCALID", "slurm"),
            local_world_size=_tasks_by_node(counts)[node],
            address=environment.get("MASTER_ADDR") or _first_node(nodes),
            port=_number(environment, "MASTER_PORT", "slurm", port),
            launcher="slurm",
        )


def _text(
    environment: Mapping[str, str], name: str, launcher: str, default: str | None = None
) -> str:
    value = environment.get(name, default)
    if value is None:
        raise InputError(
            f"{launcher}: the environment lacks {name}; start every process with {launcher}, or "
            "unset RANK and WORLD_SIZE to train in one process"
        )
    return value


def _number(
    environment: Mapping[str, str], name: str, launcher: str, default: int | None = None
) -> int:
    text = _text(environment, name, launcher, None if default is None else str(default))
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{launcher}: {name}={text} is no number") from None


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

    Args:
        place: Of this one.

    Raises:
        InputError: The others cannot be reached.
    """

    def __init__(self, place: Place) -> None:
        import torch
        import torch.distributed as dist

        self.place = place
        os.environ |= {
            "MASTER_ADDR": place.address,
            "MASTER_PORT": str(place.port),
            "RANK": str(place.rank),
            "WORLD_SIZE": str(place.world_size),
        }
        if place.local_world_size == place.world_size:
            # All on this machine: needs no network and no host name.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        cuda = torch.cuda.is_available() and place.local_rank < torch.cuda.device_count()
        if cuda:
            torch.cuda.set_device(place.local_rank)
        try:
            store, rank, world_size = next(dist.rendezvous("env://", timeout=_SILENCE))
            # torchrun keeps the store when it starts the processes anew: not what they left there.
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            self._store = dist.PrefixStore(f"cxr{attempt}", store)
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if cuda else "gloo",
                store=dist.PrefixStore(f"training{attempt}", store),
                rank=rank,
                world_size=world_size,
                timeout=_SILENCE,
            )
            self._waiting: Any = dist.new_group(backend="gloo", timeout=_PATIENCE)
        except Exception as error:
            if not is_lost_process(error):
                raise
            raise InputError(
                f"process {place.rank + 1} of {place.world_size}: the first one cannot be reached "
                f"at {place.address} port {place.port} ({_first_line(error)}); is the port free, "
                "and reachable from this node? MASTER_PORT chooses another"
            ) from None

    def agree(self, work: Callable[[], Value]) -> Value:
        """Do something in each process; where it fails in one, all end, and the first says why.

        However long it takes in one of them, the others wait.

        Raises:
            InputError: In the first process, if it failed anywhere.
            SystemExit: In the others, without a word.
        """
        try:
            value, problem = work(), None
        except InputError as error:
            problem = error
        said = self._gather_lines("" if problem is None else str(problem) or "failed")
        first = next((rank for rank, line in enumerate(said) if line), None)
        if first is None:
            return value
        if self.place.rank:
            raise SystemExit(2)
        if problem is not None:
            raise problem
        raise InputError(f"process {first + 1} of {self.place.world_size}: {said[first]}")

    def share_fate(self, work: Callable[[], Value]) -> Value:
        """Do what the processes do together: where one of them ends, the others end soon.

        Raises:
            InputError: It failed here, or another process is lost and did not say why.
            SystemExit: It failed in another process, which says why.
        """
        try:
            return work()
        except InputError as error:
            self._store.set(f"problem{self.place.rank}", str(error))
            if self._all_failed() and self.place.rank:
                raise SystemExit(2) from None
            raise
        except Exception as error:
            if not is_lost_process(error):
                raise
            time.sleep(GRACE)
            if self._any_failed():
                raise SystemExit(2) from None
            raise InputError(
                f"process {self.place.rank + 1} of {self.place.world_size}: another process of "
                f"this training has ended or no longer answers ({_first_line(error)}); run the "
                "same command again to go on"
            ) from None

    def leave(self) -> None:
        """End the group, once all of them have done their work."""
        import torch.distributed as dist

        dist.destroy_process_group()

    def _gather_lines(self, line: str) -> list[str]:
        import torch
        import torch.distributed as dist

        text = line.encode()[:_LINE]
        own = torch.tensor([*text, *bytes(_LINE - len(text))], dtype=torch.uint8)
        shares = [torch.zeros_like(own) for _ in range(self.place.world_size)]

        def gather() -> None:
            handle: Any = dist.all_gather(shares, own, group=self._waiting, async_op=True)
            while not handle.is_completed():  # signals are heard between the looks
                time.sleep(_POLL)
            handle.wait()

        self.share_fate(gather)
        lines = [bytes(share.tolist()).rstrip(b"\0") for share in shares]
        return [line.decode(errors="replace") for line in lines]

    def _all_failed(self) -> bool:
        """Whether all processes fail within a moment: of the same, which one of them can say."""
        names = [f"problem{rank}" for rank in range(self.place.world_size)]
        until = time.monotonic() + _SAME
        while time.monotonic() < until:
            if self._has(names):
                return True
            time.sleep(_POLL)
        return False

    def _any_failed(self) -> bool:
        ranks = range(self.place.world_size)
        return any(self._has([f"problem{rank}"]) for rank in ranks)

    def _has(self, names: list[str]) -> bool:
        try:
            return bool(self._store.check(names))
        except RuntimeError:  # the first process kept it, and is gone
            return False


def gather(value: Value) -> list[Value]:
    """What each process has, in the order of the processes; alone, a list of one.

    Every process must call it.

    Example:
        >>> gather("alone")
        ['alone']
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    values: list[Value] = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def add_up(value: float) -> float:
    """The sum of a number over all processes; every process must call it.

    Example:
        >>> add_up(2.0)
        2.0
    """
    import torch
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return value
    total = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(total)
    return float(total)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][-160:] if lines else type(error).__name__
