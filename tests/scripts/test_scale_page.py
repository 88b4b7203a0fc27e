"""The jobs on docs/scale.md are taken by SLURM, Ray, torchrun and `cxr`."""

import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from cxr_compare.scripts.cli import build_app

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
# Of sbatch(1), with what each takes.
_SBATCH = {
    "job-name": r"[\w-]+", "nodes": r"\d+", "ntasks-per-node": r"\d+", "gpus-per-node": r"\d+",
    "cpus-per-task": r"\d+", "time": r"\d+:\d\d:\d\d", "signal": r"(B:)?[A-Z0-9]+@\d+",
    "requeue": "", "open-mode": "append|truncate", "output": r"[\w%.-]+",
}  # fmt: skip
# Of srun(1).
_SRUN = {"kill-on-bad-exit": "[01]"}


def _block(kind: str, text: str) -> str:
    blocks = re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    (matching,) = [block for block in blocks if text in block]
    return str(matching)


def _words(command: str) -> list[str]:
    return shlex.split(command.replace("\\\n", " "))


def sbatch_words() -> list[str]:
    """The words of the page's `cxr` command under srun, without `cxr`."""
    command = re.search(r"^srun .*?(?=&$)", _block("sbatch", "srun"), re.DOTALL | re.MULTILINE)
    assert command is not None
    arguments = _words(command[0])
    start = arguments.index("cxr")
    for option in arguments[1:start]:
        name, _, value = option.removeprefix("--").partition("=")
        assert re.fullmatch(_SRUN[name], value), option
    return arguments[start + 1 :]


def _require_own(tokens: list[str]) -> None:
    """Check that a `cxr` command has options that there are."""
    name, *words = tokens
    assert name == "cxr"
    build_app(words[0]).parse_args(words)


def _torchrun(tokens: list[str]) -> list[str]:
    """The words of the program that a torchrun command starts."""
    name, *arguments = tokens
    assert name == "torchrun"
    parsed = get_args_parser().parse_args(arguments)
    assert parsed.standalone
    assert parsed.no_python
    return [parsed.training_script, *parsed.training_script_args]


def test_options_of_the_slurm_job_are_those_of_sbatch():
    lines = _block("sbatch", "srun").splitlines()
    assert lines[0] == "#!/bin/bash"
    options = [line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")]
    assert len(options) == 10
    for option in options:
        name, _, value = option.partition("=")
        assert re.fullmatch(_SBATCH[name], value), option
    _require_own(["cxr", *sbatch_words()])


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """A folder of programs that write down what SLURM's would have been asked for."""
    # srun waits for its tasks, as srun does, and ends with them.
    programs = {
        "srun": 'echo srun "$@" >> asked\ntouch started\n'
        "until [ -e ended ]; do sleep 0.02; done; exit $(cat ended)",
        "scontrol": 'echo scontrol "$@" >> asked\necho 143 > ended',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "job").write_text(_block("sbatch", "srun"))
    return tmp_path


def _start(cluster: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PATH": f"{cluster}:{os.environ['PATH']}", "SLURM_JOB_ID": "42"}
    return subprocess.Popen(["bash", "job"], cwd=cluster, env=environment)


def test_slurm_job_requeues_itself_before_its_time_ends(cluster):
    subprocess.run(["bash", "-n", "job"], cwd=cluster, check=True)
    with _start(cluster) as job:
        while not (cluster / "started").exists():
            assert job.poll() is None
        job.send_signal(signal.SIGUSR1)
        assert job.wait(30) != 0
    first, second = (cluster / "asked").read_text().splitlines()
    assert first == shlex.join(["srun", "--kill-on-bad-exit=1", "cxr", *sbatch_words()])
    assert second == "scontrol requeue 42"


@pytest.mark.parametrize("status", [0, 2])
def test_slurm_job_ends_with_the_status_of_its_training(cluster, status):
    (cluster / "ended").write_text(str(status))
    with _start(cluster) as job:
        assert job.wait(30) == status
    assert "requeue" not in (cluster / "asked").read_text()


def test_torchrun_command_starts_a_training():
    _require_own(_torchrun(_words(_block("bash", "--out out/chexnet"))))


def test_ray_job_prepares_with_ray_and_trains_with_torchrun():
    arguments = _words(_block("bash", "ray job submit"))
    index = arguments.index("--")
    assert arguments[: index + 1] == [
        "ray", "job", "submit", "--address", "http://ray-head:8265", "--entrypoint-num-gpus", "4",
        "--",
    ]  # fmt: skip
    shell, option, script = arguments[index + 1 :]
    assert (shell, option) == ("bash", "-c")
    subprocess.run(["bash", "-n", "-c", script], check=True)
    variables, prepare, train = (_words(part) for part in script.split("&&"))
    assert variables == ["export", "CXR_ENGINE=ray", "CXR_ADDRESS=auto"]
    _require_own(prepare)
    data = train[train.index("--data") + 1]
    assert prepare[3] == data
    _require_own(_torchrun(train))
