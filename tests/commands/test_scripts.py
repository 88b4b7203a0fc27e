"""The quickstart, the full-size study, and real X-rays through the commands of a user."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from tests.adapters.commands import cxr, options_of

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "CXR_SKIP_INSTALL": "1",
    "OMP_NUM_THREADS": "1",
}
SMALL = ["--set", "data.image_size=96", "--set", "training.epochs=1", "--set", "training.workers=0"]


def link_rsna_slice(source, folder, n_each=20):
    """The first positive and negative images of the challenge, linked, with their labels cut."""
    labels = pd.read_csv(source / "stage_2_train_labels.csv")
    ids = labels.drop_duplicates("patientId").groupby("Target")["patientId"].head(n_each)
    (folder / "stage_2_train_images").mkdir(parents=True)
    for image_id in ids:
        link = folder / "stage_2_train_images" / f"{image_id}.dcm"
        link.symlink_to(source / "stage_2_train_images" / link.name)
    for name in ("stage_2_train_labels", "stage_2_detailed_class_info", "rsna_to_nih"):
        table = pd.read_csv(source / f"{name}.csv", dtype={"nih_patient": str})
        table[table["patientId"].isin(ids)].to_csv(folder / f"{name}.csv", index=False)


@pytest.mark.release
def test_real_x_rays_go_from_dicom_to_a_report_and_to_answers(shared_data, tmp_path, capsys):
    source, data, run = (tmp_path / name for name in ("source", "data", "run"))
    link_rsna_slice(shared_data / "rsna", source)
    shares = ("--val", 0.3, "--test", 0.4)
    assert cxr("prepare", source, data, "--format", "rsna", "--size", 96, *shares) == 0
    small = (*SMALL, "--set", "model.backbone=small_cnn")
    assert cxr("train", "chexnet_quickstart", "--data", data, "--out", run, *small) == 0
    assert cxr("predict", run, "--data", data, "--out", tmp_path / "predictions") == 0
    capsys.readouterr()
    systems = [f"Run={run}", f"Predictions={tmp_path / 'predictions'}"]
    options = ("--data", data, "--out", tmp_path / "report", "--replicates", 100)
    assert cxr("compare", *systems, *options, "--json") == 0
    figures = pd.DataFrame(json.loads(capsys.readouterr().out)["figures"])
    of_all = figures[figures["metric"] == "auroc"]
    alone = of_all[of_all["second"] == ""].set_index("first")["estimate"]
    assert alone["Run"] == alone["Predictions"]
    dataset = cxr_compare.DataSet.open(data)
    assert of_all["n_images"].max() == len(dataset.image_ids("test"))
    files = sorted((source / "stage_2_train_images").iterdir())[:2]
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "broken.dcm").write_bytes(files[0].read_bytes()[:900])
    for file in files:
        (folder / file.name).symlink_to(file)
    table = tmp_path / "answers.csv"
    assert cxr("predict", run, folder, "--out", tmp_path / "overlays", "--csv", table) == 1
    assert "left out: " in (shown := capsys.readouterr().out)
    assert "broken.dcm" in shown
    rows = pd.read_csv(table)
    assert set(rows.loc[rows["score"].notna(), "image"].map(lambda name: Path(name).name)) == {
        file.name for file in files
    }


@pytest.mark.release
def test_quickstart_runs_and_a_second_run_changes_nothing(tmp_path):
    out = tmp_path / "out"
    first, second = (run_quickstart(out) for _ in range(2))
    assert (out / "report" / "report.html").is_file()
    assert first.stdout == second.stdout == f"{out}/report/report.html\n"
    assert second.stderr.count("done before") == 5


def run_quickstart(out):
    command = ["bash", ROOT / "scripts/quickstart", "--small", out]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


# --- the full-size study: its commands are those of `cxr`, and none runs twice --------------------

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


@pytest.mark.parametrize(
    ("gap", "unclear", "status"),
    [(0.0, "", 0), (2.0, "", 1), (0.65, "", 4), (0.65, "true", 0)],
    ids=["equal", "worse", "cannot tell", "cannot tell, allowed"],
)
def test_the_gate_ends_as_the_margin_says_and_writes_its_summary(gap, unclear, status, tmp_path):
    rng = np.random.default_rng(4)
    label = np.arange(200) % 3 == 0
    old = rng.normal(size=200) + 2 * label
    new = old + 0.3 * rng.normal(size=200) - gap * label
    truth = pd.DataFrame({"image_id": [f"i{n}" for n in range(200)], "label": label.astype(int)})
    truth.to_csv(tmp_path / "labels.csv", index=False)
    for name, values in (("old", old), ("new one", new)):
        scores = truth[["image_id"]].assign(score=1 / (1 + np.exp(-values)))
        scores.to_csv(tmp_path / f"{name}.csv", index=False)
    given = {
        "SYSTEMS": "old=old.csv\n  new=new one.csv\n",
        "QUESTION": "--truth\nlabels.csv\n--replicates\n100\n",
        "MARGIN": "0.1",
        "ALLOW_UNCLEAR": unclear,
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }
    ended = subprocess.run([ROOT / "scripts/gate"], cwd=tmp_path, env={**ENVIRONMENT, **given})
    assert ended.returncode == status
    summary = (tmp_path / "summary.md").read_text()
    assert summary.startswith("**gate ")
    assert "| old |" in summary


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("sse avx2", "about 5 minutes on 2 cores without bf16"),
        ("sse avx512_bf16", "about 3 minutes on 2 cores that compute in bf16"),
    ],
)
def test_the_minutes_are_those_of_a_processor_with_or_without_bf16(flags, said, tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"flags\t\t: fpu {flags}\n")
    script = f"source {ROOT}/scripts/environment.sh; minutes_here 3 5"
    environment = {**os.environ, "CPUINFO": str(cpuinfo)}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
    assert said in done.stdout
