"""Each command of `cxr` once, on one small set: what `scripts/test_oldest` runs.

The commands build on each other, and run in order. What each command does is checked by the other
tests, with the pinned versions of ``constraints.txt``; this file shows that every command also
works with the lowest versions that ``setup.cfg`` allows.
"""

import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

import httpx
import numpy as np
import pandas as pd
import pytest

from cxr_compare import DataSet
from tests.adapters import commands
from tests.adapters.commands import cxr
from tests.small_dicom import chest, write_dicom

pytestmark = pytest.mark.oldest

SMALL = "--device cpu --set data.image_size=96 --set training.epochs=1 --set training.workers=0"
DETECTOR = "--set model.backbone=resnet18 --set model.weights=none --set model.trainable=all"
LINES = [
    "synth xrays --images 60 --size 96 --seed 5",
    "prepare xrays data --format rsna --size 96 --val 0.2 --test 0.3 --workers 2",
    "prepare xrays by-ray --format rsna --size 96 --workers 2 --engine ray",
    "check data",
    "split data --name cv --folds 3 --seed 2",
    "show data",
    "configs chexnet_small",
    "export data yolo --format yolo",
    *[
        f"compare A=A.csv B=B.csv --data data --split cv-{fold} --out folds/{fold} --replicates 100"
        for fold in range(3)
    ],
    "folds folds/0 folds/1 folds/2 --out folds/all",
    "explain boxes.csv --truth true_boxes.csv",
    "readers ratings.csv --truth truth.csv --out readers",
    "plan --auroc 0.85,0.80 --prevalence 0.3",
    f"train retinanet_quickstart --data data --out detector {SMALL} {DETECTOR} "
    "--set model.norm=batch --set model.fpn_channels=32",
    f"train chexnet_quickstart --data data --out classifier {SMALL} --set model.backbone=small_cnn",
    "predict classifier --data data --out predictions --device cpu",
    "predict detector --data data --out boxes --device cpu",
    "compare detector predictions --both --data data --out report --replicates 200",
    "overlay boxes predictions --data data --out overlays --limit 2",
    "show report",
    "export classifier classifier-onnx --format onnx",
    "export detector detector-onnx --format onnx",
    "predict classifier detector-onnx film.dcm --out answers",
]
START_S = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with what the commands read and do not make."""
    folder = tmp_path_factory.mktemp("commands")
    true = pd.DataFrame(
        {"image_id": ["a", "b"], "finding": "opacity", "x1": 0, "y1": 0, "x2": 40, "y2": [20, 30]}
    )
    true.assign(label=1).to_csv(folder / "true_boxes.csv", index=False)
    true.assign(score=[0.9, 0.4]).to_csv(folder / "boxes.csv", index=False)
    rows = [(r, m, c, (c + m) % 3) for r in range(3) for m in (1, 2) for c in range(20)]
    ratings = pd.DataFrame(rows, columns=["reader", "modality", "case", "rating"])
    ratings.to_csv(folder / "ratings.csv", index=False)
    truth = pd.DataFrame({"case": range(20), "label": [case % 2 for case in range(20)]})
    truth.to_csv(folder / "truth.csv", index=False)
    study = {"PatientID": "P1", "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.1"}
    pixels = chest(1).astype(np.uint8)
    write_dicom(folder / "film.dcm", pixels, Modality="DX", ViewPosition="PA", **study)
    return folder


def write_scores(folder):
    """Scores of two systems for every image: the label, hidden in noise."""
    dataset = DataSet.open(folder / "data")
    labels = dataset.labels(dataset.target())
    for seed, name in enumerate("AB"):
        noise = np.random.default_rng(seed).random(len(labels))
        score = 0.3 * labels.fillna(0.0).to_numpy() + 0.7 * noise
        table = pd.DataFrame({"image_id": labels.index, "score": score})
        table.to_csv(folder / f"{name}.csv", index=False)


@pytest.mark.parametrize("line", LINES)
def test_a_command(line, folder, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    if "A.csv" in line and not (folder / "A.csv").exists():
        write_scores(folder)
    assert cxr(*shlex.split(line)) == 0, capfd.readouterr().err


def test_a_plain_script_prepares_trains_and_compares_with_worker_processes(folder):
    """The lines of docs/python.md, without ``if __name__ == "__main__"``."""
    (folder / "script.py").write_text("""
print("the script runs")
import cxr_compare

data = cxr_compare.prepare(
    "xrays", "script/data", format="rsna", size=[96], val=0.2, test=0.3, workers=2
)  # the same split as of the data set on which the detector was trained
few = {
    "data.image_size": 96,
    "model.backbone": "small_cnn",
    "training.epochs": 1,
    "training.workers": 2,
}
run = cxr_compare.train(
    "chexnet_quickstart", data=data, out="script/run", set_=few, device="cpu"
)
other = cxr_compare.predict("detector", data=data, out="script/other", device="cpu")
result = cxr_compare.compare({"A": run, "B": other}, data=data, replicates=200)
print(result.headline)
""")
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the script runs") == 1


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def is_ready(address):
    with suppress(httpx.TransportError):
        return httpx.get(f"{address}/healthz").is_success
    return False


def test_serve_answers_for_an_uploaded_image(folder):
    port = free_port()
    program = [sys.executable, "-m", "cxr_compare.scripts.cli"]
    server = subprocess.Popen(
        [*program, "serve", "classifier-onnx", "--port", str(port)], cwd=folder
    )
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + START_S
        while not is_ready(address):
            assert server.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        assert "<html" in httpx.get(address).text
        film = {"file": ("film.dcm", (folder / "film.dcm").read_bytes())}
        assert httpx.post(f"{address}/v1/analyze", files=film).is_success
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)


def test_no_command_is_left_out():
    assert {line.split()[0] for line in LINES} | {"serve"} == set(commands.NAMES)
