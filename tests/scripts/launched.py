"""Runs `cxr` in several processes as a launcher does, from one that has imported everything."""

import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from cxr_compare.scripts.child_processes import free_port

ROOT = Path(__file__).resolve().parents[2]

FORK_SERVER = multiprocessing.get_context("forkserver")  # `tests/conftest.py` says what it has
_PROGRAM = """
import os, sys
for name in [name for name in os.environ if name.startswith(("SLURM_", "RANK", "WORLD_SIZE"))]:
    del os.environ[name]
os.environ.update({environment!r})
log = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.dup2(log, 1)
os.dup2(log, 2)
sys.argv = ["cxr", *{words!r}]
from cxr_compare.training import plots
plots.save_figure = lambda figure, path: path.touch()
{before}
from cxr_compare.scripts.cli import main
main()
"""
# For the start of each Python: modules that behave otherwise.
_HOOK = """
import sys
from importlib.machinery import PathFinder
AFTER = {after!r}
class Hook:
    def find_spec(self, name, path=None, target=None):
        if name not in AFTER:
            return None
        spec = PathFinder.find_spec(name, path)
        run = spec.loader.exec_module
        def changed(module):
            run(module)
            exec(AFTER[name], vars(module))
        spec.loader.exec_module = changed
        return spec
sys.meta_path.insert(0, Hook())
"""
_DECODER = """
import os, signal, time
as_written = read_image
def read_image(path, **options):
    {does}
    return as_written(path, **options)
"""
# Of these a file may tell when, by which command and how fast it was made.
_VARYING = {"sha256_of_this_file", "created", "command", "cost"}


def hooked_path(folder: Path, decoding: str = "pass", **after: str) -> str:
    """A `PYTHONPATH` to our code under which modules behave otherwise.

    Args:
        folder: For the hook.
        decoding: What else is done to decode the file `path`.
        after: What else is run when a module was imported, by its name with __ for a dot.
    """
    changed = {name.replace("__", "."): code for name, code in after.items()}
    changed["cxr_compare.data_prep.images.image"] = _DECODER.format(does=decoding)
    (folder / "sitecustomize.py").write_text(_HOOK.format(after=changed))
    return os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")])


def contents(folder: Path) -> dict[str, Any]:
    """Digest of each file of a folder; JSON without what may differ."""
    files: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".json":
            files[name] = settled(json.loads(path.read_text()))
        else:
            files[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return files


def settled(value: Any, *more: str) -> Any:
    """JSON without what may differ, and without more keys."""
    if isinstance(value, Mapping):
        keys = value.keys() - _VARYING - {*more}
        return {key: settled(item, *more) for key, item in value.items() if key in keys}
    return [settled(item, *more) for item in value] if isinstance(value, list) else value


def below(process: int) -> list[int]:
    """Processes that a process started, and those that they did."""
    children = []
    with suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            for child in map(int, (thread / "children").read_text().split()):
                children += [child, *below(child)]
    return children


def command_line(process: int) -> str:
    """What a process was started as; empty where it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def workers_below(process: int) -> list[int]:
    """Ray's processes that work on tasks, of those that a process started."""
    return [pid for pid in below(process) if command_line(pid).startswith("ray::_run")]


def naming(text: str) -> list[int]:
    """Processes whose command line holds a text."""
    processes = [int(pid.name) for pid in Path("/proc").glob("[0-9]*")]
    return [pid for pid in processes if text in command_line(pid)]


def environment(path: str) -> dict[str, str]:
    """Of a command: one thread; Ray's settings and the folder of earlier commands here unset."""
    unset = ("RAY_", "TMPDIR")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(unset)}
    return {**variables, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}


def start(
    surroundings: dict[str, str], *arguments: object, folder: Path | None = None
) -> subprocess.Popen[str]:
    """A command in a process group of its own, as a shell starts it."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "cxr_compare.scripts.cli", *map(str, arguments)],
        env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
        start_new_session=True,
    )  # fmt: skip


def ended(command: subprocess.Popen[str], seconds: float = 300) -> str:
    """What a command that succeeds has said."""
    _, output = command.communicate(timeout=seconds)
    assert command.returncode == 0, output
    return output


def wait_until(condition: Callable[[], Any], seconds: float = 150) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def torchrun(world_size: int) -> Iterator[dict[str, str]]:
    """Variables of each process, as torchrun sets them."""
    port = free_port()
    for rank in range(world_size):
        yield {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size),
            "LOCAL_WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }  # fmt: skip


def slurm(tasks: int, nodes: int = 1) -> Iterator[dict[str, str]]:
    """Variables of each task, as srun sets them; all nodes are this machine."""
    port, by_node = free_port(), tasks // nodes
    for rank in range(tasks):
        yield {
            "SLURM_JOB_ID": "42", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": str(tasks),
            "SLURM_NTASKS": str(tasks), "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(rank % by_node), "SLURM_NODEID": str(rank // by_node),
            "SLURM_STEP_TASKS_PER_NODE": f"{by_node}(x{nodes})",
            "SLURM_STEP_NODELIST": "localhost", "MASTER_PORT": str(port),
            "GLOO_SOCKET_IFNAME": "lo",
        }  # fmt: skip


@dataclass
class Launched:
    """Processes of one command.

    Attributes:
        processes: In the order of their ranks.
        logs: What each writes.
    """

    processes: list[BaseProcess]
    logs: list[Path]

    def wait(self, seconds: float = 240) -> list[int | None]:
        """Exit statuses; fails where one does not end in time."""
        until = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, until - time.monotonic()))
            assert process.exitcode is not None, f"still running: {self.outputs()}"
        return [process.exitcode for process in self.processes]

    def outputs(self) -> list[str]:
        """Return what each process wrote so far."""
        return [log.read_text() if log.exists() else "" for log in self.logs]


@contextmanager
def launched(
    arguments: Sequence[object],
    environments: Iterator[dict[str, str]],
    logs: Path,
    before: Sequence[str] = (),
) -> Iterator[Launched]:
    """Run a `cxr` command in one process for each environment.

    Args:
        words: The command's, without `cxr`.
        environments: What the launcher sets.
        logs: Folder for what they write.
        before: Python that some processes run first, by rank.
    """
    logs.mkdir(parents=True, exist_ok=True)
    processes, files = [], []
    for rank, environment in enumerate(environments):
        files.append(logs / f"{rank}-{time.monotonic_ns()}.txt")
        code = _PROGRAM.format(
            environment={**environment, "OMP_NUM_THREADS": "1"},
            log=str(files[-1]),
            words=[str(argument) for argument in arguments],
            before=before[rank] if rank < len(before) else "",
        )
        processes.append(FORK_SERVER.Process(target=exec, args=(code, {})))
    for process in processes:
        process.start()
    try:
        yield Launched(processes, files)
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
            process.join()


def alone(arguments: Sequence[object], logs: Path, before: str = "") -> str:
    """Run a `cxr` command in one process that must succeed; what it wrote."""
    with launched(arguments, iter([{}]), logs, before=[before]) as one:
        assert one.wait() == [0], one.outputs()
        return one.outputs()[0]


def wait_for(path: Path, running: Launched, seconds: float = 120) -> None:
    """Wait until a file is there, while the processes run."""
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, running.outputs()
        assert all(process.is_alive() for process in running.processes), running.outputs()
        time.sleep(0.02)
