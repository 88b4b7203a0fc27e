"""The whole way of the data, through the commands that a user types."""

import io
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.records import write_json
from cxr_compare.scripts.cli import main
from tests.blank_plots import blank_plots
from tests.scripts.launched import FORK_SERVER
from tests.stored_json import stored_json

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "CXR_SKIP_INSTALL": "1",
}
TINY = ["data.image_size=96", "training.epochs=1"]
TINY_DETECTOR = [
    *TINY, "model.backbone=mobilenet_v3_small", "model.fpn_channels=16", "model.head_convs=1",
]  # fmt: skip
TINY_CLASSIFIER = [*TINY, "model.backbone=small_cnn"]


class Done(NamedTuple):
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def cxr(*arguments: object, fails: bool = False) -> Done:
    """Call a command as the console script does, in this process: another imports torch anew."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["cxr", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    done = Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())
    assert (done.returncode != 0) == fails, done.stderr
    return done


def train(config: str, data: Path, out: Path, overrides: list[str]) -> None:
    sets = [argument for override in overrides for argument in ("--set", override)]
    done = cxr("train", config, "--data", data, "--out", out, *sets, "--json")
    assert json.loads(done.stdout) == stored_json(out / "run.json")
    assert f"or:   cxr predict {out} IMAGE" in done.stderr


def link_rsna_slice(source: Path, folder: Path, n_each: int = 20) -> None:
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


@pytest.fixture(scope="module", autouse=True)
def no_drawings() -> Iterator[None]:
    """In this process no plots and no figures are drawn: the quickstart draws them all."""
    with blank_plots():
        yield


@pytest.fixture(scope="module")
def rsna(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real X-rays from DICOM to tuned predictions of both models."""
    out = tmp_path_factory.mktemp("rsna")
    link_rsna_slice(shared_data / "rsna", out / "source")
    cxr("prepare", out / "source", out / "data", "--format", "rsna", "--size", 96, "--test", 0.4)
    train("retinanet_quickstart", out / "data", out / "detector", TINY_DETECTOR)
    train("chexnet_quickstart", out / "data", out / "classifier", TINY_CLASSIFIER)
    predictions = out / "classifier-predictions"
    cxr("predict", out / "classifier", "--data", out / "data", "--out", predictions)
    cxr("tune", predictions, "--data", out / "data")
    return out


def test_real_x_rays_go_from_dicom_to_a_report_of_a_run_and_of_predictions(rsna):
    options = (
        "compare", f"RetinaNet={rsna / 'detector'}", f"CheXNet={rsna / 'classifier-predictions'}",
        "--data", rsna / "data", "--out", rsna / "report",
    )  # fmt: skip
    done = cxr(*options, "--replicates", 100, "--json")
    figures = json.loads(done.stdout)["figures"]
    names = {row["metric"] for row in figures}
    assert {
        "auroc", "average_precision", "accuracy", "precision", "recall", "specificity", "f1",
        "ap50", "ap",
    } <= names  # fmt: skip
    systems = {" - ".join(filter(None, (row["first"], row["second"]))) for row in figures}
    baselines = {name: f"image-blind with {name}'s scores" for name in ("RetinaNet", "CheXNet")}
    assert systems == {
        "RetinaNet - CheXNet", *baselines, *baselines.values(),
        *(f"{name} - {baseline}" for name, baseline in baselines.items()),
    }  # fmt: skip
    n_test = (pd.read_parquet(rsna / "data/splits/default.parquet")["role"] == "test").sum()
    assert {row["n_images"] for row in figures if row["metric"] == "auroc"} >= {n_test}
    assert (rsna / "report/report.html").stat().st_size < 10_000_000
    assert "At the threshold for best F1" in cxr("show", rsna / "report").stderr

    predictions_path = rsna / "report/systems/RetinaNet/predictions.json"
    facts = stored_json(predictions_path)
    write_json(
        predictions_path, "predictions", facts | {"inference_id": f"other{facts['inference_id']}"}
    )
    assert "predictions of another training" in cxr(*options, "--overwrite", fails=True).stderr


def test_files_are_answered_by_both_models_and_bad_ones_named(rsna, tmp_path):
    files = sorted((rsna / "source/stage_2_train_images").glob("*.dcm"))[:2]
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "broken.dcm").write_bytes(files[0].read_bytes()[:900])
    (folder / "notes.txt").write_text("no image")
    for file in files:
        (folder / file.name).symlink_to(file)
    out, table = tmp_path / "overlays", tmp_path / "answers.csv"
    runs = [f"Boxes={rsna / 'detector'}", rsna / "classifier"]
    done = cxr("predict", *runs, folder, "--out", out, "--csv", table, "--verbose", fails=True)

    assert done.returncode == 1
    assert "left out: " in done.stderr
    assert "notes.txt: " in done.stderr
    assert "2 files left out of 4" in done.stderr
    said = done.stdout.splitlines()
    lines = [line for line in said if line.startswith(str(folder)) and "CAUTION: " not in line]
    systems = ["Boxes", json.loads((rsna / "classifier/run.json").read_text())["name"]]
    assert [line.split("  ")[:2] for line in lines] == [
        [str(folder / file.name), system] for file in files for system in systems
    ]
    rows_of = {name: [line for line in said if line.startswith(f"{name} ")] for name in systems}
    for name, (row,) in rows_of.items():  # the table has one row for each system
        assert row.removeprefix(name).split()[0] == "2"
    rows = pd.read_csv(table)
    assert rows["problem"].notna().sum() == 2
    answered = rows[rows["problem"].isna()]
    assert len(answered) == 4
    for line, row in zip(lines, answered.itertuples(), strict=True):
        assert f"probability {row.probability:.2f}" in line
        assert str(row.decision) in line.lower()
    assert {path.name for path in out.iterdir()} == {f"{f.stem}-overlay.png" for f in files}

    done = cxr("predict", *runs, *files, "--json", "--no-overlay")
    entries = json.loads(done.stdout)
    assert [entry["system"] for entry in entries] == systems * 2
    np.testing.assert_allclose(
        [entry["score"] for entry in entries], answered["score"], rtol=1e-4, atol=1e-6
    )
    assert all(set(box) == {"finding", "x1", "y1", "x2", "y2", "score"}
               for entry in entries for box in entry["boxes"])  # fmt: skip


@pytest.mark.long
def test_ctrl_c_in_prepare_leaves_a_folder_that_goes_on(tmp_path, shared_data):
    link_rsna_slice(shared_data / "rsna", tmp_path / "source", n_each=200)
    command = [
        sys.executable, "-m", "cxr_compare.scripts.cli", "prepare", str(tmp_path / "source"),
        str(tmp_path / "data"), "--format", "rsna", "--size", "64",
    ]  # fmt: skip
    running = subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # pytest's may be ignored
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list((tmp_path / "data").glob("pixels/*.npy")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    output = running.communicate(timeout=60)[1]
    assert running.returncode == 130, output
    assert "Traceback" not in output
    assert not (tmp_path / "data" / "dataset.json").exists()
    cxr("prepare", tmp_path / "source", tmp_path / "data", "--format", "rsna", "--size", 64)
    assert "data set, complete" in cxr("show", tmp_path / "data").stderr


# Importing torch and Lightning takes longer than the rest of a small quickstart. So all but the
# first command are answered by forks of a process that has imported what `tests/conftest.py` says.
SERVER = """
import os, signal, socket, sys
from cxr_compare.scripts.cli import main

signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
while True:
    caller, _ = listener.accept()
    words, files, _, _ = socket.recv_fds(caller, 1 << 16, 3)
    if os.fork() == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, file in enumerate(files):
            os.dup2(file, number)
        sys.argv = words.decode().split("\\0")
        try:
            main()
        except SystemExit as ended:
            sys.stdout.flush(), sys.stderr.flush()
            caller.send(bytes([int(ended.code or 0)]))
        os._exit(0)
    for file in (*files, caller.detach()):
        os.close(file)
"""
CALLER = """
import socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect(sys.argv[1])
words = "\\0".join(["cxr", *sys.argv[2:]]).encode()
socket.send_fds(server, [words], [0, 1, 2])
sys.exit((server.recv(1) or b"\\1")[0])
"""


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A small quickstart, in a folder that its last line leads to."""
    folder = tmp_path_factory.mktemp("quickstart")
    arguments = [sys.executable, "-S", "-c", CALLER, str(folder / "server")]
    ask = f'case $1 in synth) command cxr "$@" ;; *) {shlex.join(arguments)} "$@" ;; esac'
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "server"))
        listener.listen()
        server = FORK_SERVER.Process(target=exec, args=(SERVER, {"listener": listener}))
        server.start()
        try:
            done = run_quickstart(folder / "out", {"BASH_FUNC_cxr%%": f"() {{ {ask}\n}}"})
        finally:
            server.kill()
            server.join()
    assert done.returncode == 0, done.stderr
    return done


def run_quickstart(out: Path, functions: dict[str, str] | None = None) -> Done:
    command = ["bash", str(ROOT / "scripts/quickstart"), "--small", str(out)]
    environment = {**ENVIRONMENT, **(functions or {})}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    return Done(run.returncode, run.stdout, run.stderr)


def folder_of(quickstart: Done) -> Path:
    return Path(quickstart.stdout.strip().splitlines()[-1]).parents[1]


@pytest.mark.slow
def test_quickstart_runs_and_a_second_run_changes_nothing(quickstart):
    out = folder_of(quickstart)
    assert (out / "report" / "report.html").is_file()
    assert (out / "report" / "figures" / "charts.pdf").is_file()
    second = run_quickstart(out)
    assert second.returncode == 0, second.stderr
    assert second.stderr.count("done before") == 5
    assert second.stdout == quickstart.stdout
