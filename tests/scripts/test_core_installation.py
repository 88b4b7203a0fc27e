"""The core alone: without the packages of training, and without what Linux alone has."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import cxr_compare
from cxr_compare.data_prep.contracts.errors import TRAIN_PACKAGES, InputError
from cxr_compare.data_prep.dataset import DataSet
from tests.scripts.small_sets import refusal

ROOT = Path(__file__).resolve().parents[2]
_POSIX = ("fcntl", "grp", "pwd", "resource", "termios")
# Of each process, so of workers, too. Not None in sys.modules: scipy looks there for torch itself.
_HIDE = f"""
import sys

import filelock  # which locks in the way of each system, on this one by fcntl

hidden = {{*{_POSIX!r}, *{TRAIN_PACKAGES!r}}}
for name in hidden & set(sys.modules):
    del sys.modules[name]


class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name in hidden else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


sys.meta_path[:] = map(Hiding, sys.meta_path)
"""
_RUN = """
import os, sys
import cxr_compare.scripts.cli as cli

for line in sys.stdin.read().splitlines():
    sys.argv = ["cxr", *line.split("|")]
    try:
        cli.main()
    except SystemExit as ended:
        if ended.code not in (0, None):
            sys.exit(f"{line}: exit status {ended.code}")
left = {"torch", "lightning", "fcntl", "resource"} & set(sys.modules)
sys.exit(f"imported: {left}" if left else 0)
"""


@pytest.fixture
def hide(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which each Python lacks those modules."""
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "sitecustomize.py").write_text(_HIDE)
    paths = os.pathsep.join([str(tmp_path / "hide"), str(ROOT)])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}


def _run(environment: dict[str, str], cwd: Path, *commands: str) -> None:
    """Run commands, their words with `|` between them, in one process that lacks the modules."""
    done = subprocess.run(
        [sys.executable, "-c", _RUN], input="\n".join(commands), cwd=cwd, env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_core_goes_from_images_to_a_report_and_beyond(hide, tmp_path):
    _run(
        hide, tmp_path,
        "synth|xrays|--images|40|--size|64|--seed|5",
        # two worker processes
        "prepare|xrays|data|--format|rsna|--size|64|--workers|2|--val|0.3|--test|0.4",
        "check|data",
        "split|data|--name|again|--seed|2",
        "show|data",
        "configs|chexnet_small",
    )  # fmt: skip
    images = DataSet.open(tmp_path / "data").images["image_id"]
    for number, name in enumerate(("A", "B"), start=1):
        scores = [(number * 7 * row % 11) / 11 for row in range(len(images))]
        pd.DataFrame({"image_id": images, "score": scores}).to_csv(
            tmp_path / f"{name}.csv", index=False
        )
    days = pd.date_range("2026-01-01", periods=60, freq="D", tz="UTC")
    log = pd.DataFrame(
        {"time": days.repeat(2), "patient": range(120), "score": [0.1, 0.7, 0.4] * 40}
    )
    log.to_csv(tmp_path / "log.csv", index=False)
    rows = [(r, m, c, (c + m) % 3) for r in range(3) for m in (1, 2) for c in range(20)]
    ratings = pd.DataFrame(rows, columns=["reader", "modality", "case", "rating"])
    ratings.to_csv(tmp_path / "ratings.csv", index=False)
    truth = pd.DataFrame({"case": range(20), "label": [case % 2 for case in range(20)]})
    truth.to_csv(tmp_path / "truth.csv", index=False)
    _run(
        hide, tmp_path,
        "import|A.csv|--data|data|--out|a|--name|A",
        "import|B.csv|--data|data|--out|b|--name|B",
        "tune|a|--data|data",
        "tune|b|--data|data",
        "ensemble|a|b|--data|data|--out|both",
        "compare|a|b|--data|data|--out|report|--replicates|200",
        "overlay|a|b|--data|data|--out|overlays|--limit|2",
        "export|data|yolo|--format|yolo",
    )  # fmt: skip
    assert (tmp_path / "data/audit.html").is_file()
    assert (tmp_path / "report/report.html").is_file()
    assert list(tmp_path.rglob(".lock")) == []


_NEED_TRAIN = (
    "train chexnet_small --data set --out o",
    "train chexnet_small --data set --out o --devices 2",
    "export run --format onnx",
    "predict run image.png --out o",
    "predict run image.png --out o --backend auto",
    "predict run --data set --out o",
    "tune run --data set",
    "compare run run --data set --out o",
    "compare run run --data set --out report --overwrite",
    "overlay run --data set --out o",
    "serve run",
)


@pytest.fixture
def without_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a run and a data set, where no package of training is installed."""
    monkeypatch.chdir(tmp_path)
    for name in ("set/dataset.json", "run/run.json", "report/answer.json", "image.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    for name in TRAIN_PACKAGES:
        monkeypatch.setitem(sys.modules, name, None)
    return tmp_path


@pytest.mark.parametrize("command", _NEED_TRAIN)
def test_command_that_needs_torch_is_refused_before_any_work(command, without_train, capsys):
    before = sorted(without_train.rglob("*"))
    line = refusal(capsys, *command.split())
    assert "torch " in line
    assert re.search(r"pip install .*\[\w+\]", line)
    assert sorted(without_train.rglob("*")) == before


def test_python_raises_the_same_message_in_one_line(without_train):
    for call in (cxr_compare.load, cxr_compare.Run.open):
        with pytest.raises(InputError, match=r"^run \(a run\): torch .*pip install .*\[train\]"):
            call("run")
    with pytest.raises(InputError, match=r"torch .*pip install .*\[train\]"):
        cxr_compare.predict("run", "image.png")


def test_folder_that_is_no_run_is_reported_before_missing_packages(without_train, capsys):
    assert "set: is a data set" in refusal(capsys, "predict", "set", "--data", "set", "--out", "o")
