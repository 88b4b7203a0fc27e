"""The script of the full-size study: its commands are those of `cxr`, and none runs twice."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.adapters.commands import options_of

ROOT = Path(__file__).resolve().parents[1]
# In place of `cxr`: notes its words, and makes the files by which the script knows that it ended.
_RECORDS = r"""() {
  printf '%q ' "$@" >>"$LOG"
  echo >>"$LOG"
  local words=("$@") out name folds markers marker number
  for ((number = 1; number < $#; number++)); do
    case "${words[number]}" in
      --out) out=${words[number + 1]} ;;
      --name) name=${words[number + 1]} ;;
      --folds) folds=${words[number + 1]} ;;
    esac
  done
  case "$1" in
    prepare) markers=("$3/dataset.json") ;;
    split) markers=("$2/splits/$name.json") ;;
    train) markers=("$out/run.json") ;;
    predict) markers=("$out/predictions.json") ;;
    compare) markers=("$out/answer.json") ;;
    folds) markers=("$out/folds.json" "$out/folds.csv") ;;
  esac
  for ((number = 0; number < ${folds:-0}; number++)); do
    markers+=("$2/splits/$name-$number.json")
  done
  for marker in "${markers[@]}"; do
    mkdir -p "${marker%/*}"
    : >"$marker"
  done
}"""


@pytest.fixture
def study(tmp_path: Path):
    """Run the script with commands that are only recorded; return its messages and the commands."""
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    for name in ("full_size.sh", "full_size.toml", "environment.sh"):
        shutil.copy(ROOT / "scripts" / name, scripts)
    log = tmp_path / "commands"

    def run(out: Path, status: int = 0) -> tuple[str, list[list[str]]]:
        log.write_text("")
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "CXR_SKIP_INSTALL": "1",
            "LOG": str(log),
            "BASH_FUNC_cxr%%": _RECORDS,
        }
        done = subprocess.run(
            ["bash", scripts / "full_size.sh", "rsna", out],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, done.stderr
        return done.stderr, [shlex.split(line) for line in log.read_text().splitlines()]

    return run


def value_of(words, option):
    return words[words.index(option) + 1]


def test_each_system_is_trained_on_each_fold_with_each_seed(study, tmp_path):
    _, commands = study(tmp_path / "out")
    for words in commands:
        known = {name for names in options_of(words[0]) for name in names}
        assert {word for word in words if word.startswith("--")} <= known, words
    trained = [words for words in commands if words[0] == "train"]
    assert len(trained) == 2 * 5 * 3
    assert {words[1] for words in trained} == {"retinanet", "chexnet"}
    assert len({value_of(words, "--out") for words in trained}) == len(trained)
    compared = [words for words in commands if words[0] == "compare"]
    assert len({value_of(words, "--out") for words in compared}) == 5 * 3
    joined = [words for words in commands if words[0] == "folds"]
    assert len(joined) == 3
    for words in joined:
        reports = words[1 : words.index("--out")]
        assert len(set(reports)) == 5
        assert set(reports) <= {value_of(each, "--out") for each in compared}


def test_a_second_call_runs_only_what_is_missing(study, tmp_path):
    out = tmp_path / "out"
    study(out)
    shutil.rmtree(out / "runs" / "fold-1" / "CheXNet-2")
    _, commands = study(out)
    assert [(words[0], words[1]) for words in commands] == [("train", "chexnet")]


def test_a_folder_of_another_protocol_is_refused(study, tmp_path):
    out = tmp_path / "out"
    study(out)
    protocol = tmp_path / "scripts" / "full_size.toml"
    protocol.write_text(protocol.read_text().replace("epochs = 15", "epochs = 16"))
    message, commands = study(out, status=2)
    assert "another protocol" in message
    assert commands == []
