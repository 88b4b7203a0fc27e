"""Rank of a process in a training of several processes, as torchrun or SLURM sets it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cxr_compare.data_prep.contracts.errors import InputError

if TYPE_CHECKING:
    pass


_FIRST_PORT = 15_000  # first of the ports for SLURM's jobs


_N_PORTS = 10_000


@dataclass(frozen=True)
class Rank:
    """Number and address of one process among those that train together.

    Attributes:
        rank: Number of this process among all, from 0. The first one writes files and messages.
        world_size: Number of all processes.
        local_rank: Number of this process on its machine, from 0, which is also that of its GPU.
        local_world_size: Number of processes on this machine.
        address: Host of the first process.
        port: Port of the first process.
        launcher: Program that started the processes, such as ``torchrun``, for messages.
    """

    rank: int  # from 0; the first one writes and reports
    world_size: int  # number of processes on all nodes
    local_rank: int  # number among the processes of this node, which is its GPU
    local_world_size: int  # number of processes of this node
    address: str  # host of the first process
    port: int  # port of the first process
    launcher: str  # ``torchrun``, or whatever sets its variables, or ``slurm``

    def __str__(self) -> str:
        return f"process {self.rank + 1} of {self.world_size}"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Rank | None:
        """Read the variables that a launcher has set; return None if there is only one process.

        torchrun's variables take precedence over SLURM's, because torchrun may run inside a SLURM
        job. The function reads SLURM's variables of the job step, not those of the job (which
        Lightning reads): a batch script without ``srun`` is one process, even in a job of several
        tasks.

        Args:
            environment: Environment variables by name.

        Returns:
            The rank; None if there is only one process.

        Raises:
            InputError: A variable is missing or no number, or the ranks contradict each other.

        Example:
            >>> Rank.from_environment({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1",
            ...          "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}).rank
            1
            >>> slurm = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1",
            ...          "SLURM_NODEID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
            ...          "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_JOB_ID": "42"}
            >>> rank = Rank.from_environment(slurm)
            >>> rank.rank, rank.local_rank, rank.local_world_size, rank.address, rank.port
            (5, 1, 4, 'gpu07', 15042)
            >>> Rank.from_environment({}) is None
            True
        """
        if "RANK" in environment and "WORLD_SIZE" in environment:
            launcher = "torchrun"
            size = "WORLD_SIZE"
        elif "SLURM_STEP_NUM_TASKS" in environment:
            launcher = "slurm"
            size = "SLURM_STEP_NUM_TASKS"
        else:
            return None
        variables = _Variables(environment, launcher)
        world_size = variables.number(size)
        if world_size == 1:
            return None
        read = cls._from_torchrun if launcher == "torchrun" else cls._from_slurm
        rank = read(variables, world_size)
        if not 0 <= rank.rank < world_size or rank.local_rank < 0:
            raise InputError(
                f"{launcher}: process {rank.rank} of {world_size} is none of them; "
                "are RANK and WORLD_SIZE, or SLURM's variables, left from another command?"
            )
        return rank

    @classmethod
    def _from_torchrun(cls, variables: _Variables, world_size: int) -> Rank:
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
    def _from_slurm(cls, variables: _Variables, world_size: int) -> Rank:
        nodes = variables.text("SLURM_STEP_NODELIST", "") or variables.text("SLURM_NODELIST", "")
        tasks = _tasks_by_node(variables.text("SLURM_STEP_TASKS_PER_NODE", "1"))
        step = variables.number("SLURM_STEP_ID", 0)  # steps of a job may run at once
        port = _FIRST_PORT + (variables.number("SLURM_JOB_ID", 0) + 131 * step) % _N_PORTS
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
    """Read SLURM's list of the number of tasks on each node.

    Example:
        >>> _tasks_by_node("4(x2),1")
        [4, 4, 1]
    """
    counts: list[int] = []
    for tasks, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        counts += [int(tasks)] * int(times or 1)
    return counts


def _first_node(nodes: str) -> str:
    """Return the first node of SLURM's list.

    Example:
        >>> [_first_node(text) for text in ("gpu[07-08,11]", "a1,b[2-3]", "rack[1-2]-n[3,5]")]
        ['gpu07', 'a1', 'rack1-n3']
    """
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", first[0]) if first else "127.0.0.1"
