"""Each command of `cxr` once, on one small set: what `scripts/test_oldest` runs.

The commands build on each other, and run in order. What each command does is checked by the other
tests, with the pinned versions of ``constraints.txt``; this file shows that every command also
works with the lowest versions that ``setup.cfg`` allows.
"""

import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.scripts.command_line import command_name
from cxr_compare.scripts.command_list import all_commands
from tests.scripts.launched import free_port, wait_until
from tests.scripts.small_sets import cxr
from tests.small_dicom import chest, write_dicom

pytestmark = pytest.mark.oldest

_CONFIG = """
kind = "{kind}"
name = "{kind}"
[data]
image_size = 96
[model]
{model}
[training]
epochs = 1
batch_size = 8
learning_rate = 1e-3
warmup_epochs = 0.0
"""
_MODELS = {
    "detector": """
backbone = "resnet18"
norm = "batch"
weights = "none"
trainable = "all"
fpn_channels = 32
anchor_sizes = [8.0, 16.0, 32.0, 64.0, 96.0]
""",
    "classifier": 'backbone = "small_cnn"',
}

_FOLDS = [
    line
    for fold in range(3)
    for line in (
        f"import A.csv --data data --out folds/A{fold} --name A --split cv-{fold}",
        f"import B.csv --data data --out folds/B{fold} --name B --split cv-{fold}",
        f"compare folds/A{fold} folds/B{fold} --data data --split cv-{fold} --out folds/{fold} "
        "--replicates 200",
    )
]
BEFORE_TRAINING = [
    "synth xrays --images 60 --size 96 --seed 5",
    "prepare xrays data --format rsna --size 96 --val 0.2 --test 0.3 --workers 2",
    "CXR_ENGINE=ray prepare xrays by-ray --format rsna --size 96 --workers 2",
    "check data",
    "split data --name cv --folds 3 --test-folds --seed 2",
    "show data",
    "configs chexnet_small",
    "export data yolo --format yolo",
    *_FOLDS,
    "ensemble folds/A0 folds/B0 --data data --out both",
    "folds folds/0 folds/1 folds/2 --out folds/all",
    "explain boxes.csv --truth true_boxes.csv",
    "readers ratings.csv --truth truth.csv --out readers",
    "plan --auroc 0.85,0.80 --prevalence 0.3",
]
WITH_MODELS = [
    "train detector.toml --data data --out detector --device cpu",
    "train classifier.toml --data data --out classifier --device cpu",
    "train rt_detr_small --data data --out rt_detr --device cpu --set data.image_size=96 "
    "--set training.epochs=1 --set training.loggers=['tensorboard','mlflow','wandb']",
    "predict classifier --data data --out predictions --device cpu",
    "tune predictions --data data",
    "compare detector predictions --data data --out report --replicates 200",
    "overlay detector classifier --data data --out overlays --limit 2",
    "export classifier classifier-onnx --format onnx",
    "export detector detector-openvino --format openvino",
    "predict classifier detector-openvino film.dcm --out answers",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the commands read and do not make."""
    folder = tmp_path_factory.mktemp("commands")
    for kind, model in _MODELS.items():
        (folder / f"{kind}.toml").write_text(_CONFIG.format(kind=kind, model=model))
    true = pd.DataFrame(
        {"image_id": ["a", "b"], "finding": "opacity", "x1": 0, "y1": 0, "x2": 40, "y2": [20, 30]}
    )
    true.to_csv(folder / "true_boxes.csv", index=False)
    true.assign(score=[0.9, 0.4]).to_csv(folder / "boxes.csv", index=False)
    rows = [(r, m, c, (c + m) % 3) for r in range(3) for m in (1, 2) for c in range(20)]
    ratings = pd.DataFrame(rows, columns=["reader", "modality", "case", "rating"])
    ratings.to_csv(folder / "ratings.csv", index=False)
    truth = pd.DataFrame({"case": range(20), "label": [case % 2 for case in range(20)]})
    truth.to_csv(folder / "truth.csv", index=False)
    study = {"PatientID": "P1", "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.1"}
    write_dicom(
        folder / "film.dcm", chest(1).astype(np.uint8), Modality="DX", ViewPosition="PA", **study
    )
    return folder


def _write_scores(folder: Path) -> None:
    """Write scores of two systems for every image: the label, hidden in noise."""
    dataset = DataSet.open(folder / "data")
    labels = dataset.labels(dataset.target(None))
    for seed, name in enumerate("AB"):
        noise = np.random.default_rng(seed).random(len(labels))
        score = 0.3 * labels.fillna(0.0).to_numpy() + 0.7 * noise
        table = pd.DataFrame({"image_id": labels.index, "score": score})
        table.to_csv(folder / f"{name}.csv", index=False)


@pytest.mark.parametrize("command", BEFORE_TRAINING)
def test_a_command_without_a_model(command, folder, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    if command.startswith("import A.csv") and not Path("A.csv").exists():
        _write_scores(folder)
    arguments = command.split()
    if "=" in arguments[0]:  # an environment variable, as in a shell
        monkeypatch.setenv(*arguments.pop(0).split("="))
    assert cxr(*arguments) == 0, capfd.readouterr().err


@pytest.mark.parametrize("command", WITH_MODELS)
def test_a_command_with_models(command, folder, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert cxr(*command.split()) == 0, capfd.readouterr().err


def test_a_plain_script_prepares_trains_and_compares_with_worker_processes(folder):
    """The lines of docs/python.md, without ``if __name__ == "__main__"``."""
    (folder / "script.py").write_text("""
print("the script runs")
import cxr_compare

data = cxr_compare.prepare(
    "xrays", "script/data", format="rsna", size=96, val=0.2, test=0.3, workers=2
)  # the same split as of the data set on which the detector was trained
few = {"training.epochs": 1, "training.workers": 2}
run = cxr_compare.train("classifier.toml", data=data, out="script/run", set_=few, device="cpu")
other = cxr_compare.predict("detector", data=data, out="script/other", device="cpu")
result = cxr_compare.compare({"A": run, "B": other}, data=data, replicates=200)
print(result.headline)
""")
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the script runs") == 1


def test_export_quantises(folder, monkeypatch, capfd):
    """So small a model may change too much to be kept; it was quantised and evaluated then."""
    monkeypatch.chdir(folder)
    arguments = "export classifier int8 --format openvino --precision int8 --data data"
    status, error = cxr(*arguments.split()), capfd.readouterr().err
    assert status == 0 or "is not kept" in error


def test_serve_answers_for_an_uploaded_image(folder, monkeypatch):
    monkeypatch.chdir(folder)
    port = free_port()
    arguments = ["serve", "classifier-onnx", "--port", str(port)]
    server = subprocess.Popen([sys.executable, "-m", "cxr_compare.scripts.cli", *arguments])
    address = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        assert server.poll() is None
        with suppress(httpx.TransportError):
            return httpx.get(f"{address}/healthz").is_success
        return False

    try:
        wait_until(is_ready)
        assert "<html" in httpx.get(address).text
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)


def _name(line: str) -> str:
    return next(argument for argument in line.split() if "=" not in argument)


def test_no_command_is_left_out():
    named = {_name(line) for line in [*BEFORE_TRAINING, *WITH_MODELS]} | {"serve"}
    # Needs a data set of several readers, as in its own tests.
    assert named == {command_name(command) for command in all_commands()}
