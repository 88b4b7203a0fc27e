"""The scripts of the documents are run as a user pastes them, on small drawn data sets."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.images.image import read_image
from cxr_compare.data_prep.synth.phantom import write_phantom
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.scripts import console
from cxr_compare.scripts.cli import build_app
from cxr_compare.scripts.commands.export import export
from cxr_compare.scripts.commands.prepare import prepare
from cxr_compare.scripts.commands.train import train
from cxr_compare.serving.predict_folder import freeze_decision
from cxr_compare.serving.run import Run
from tests.scripts.small_sets import cxr, drawn_images, tiny_training
from tests.scripts.untrained import untrained_run
from tests.test_generated_documents import cxr_commands

ROOT = Path(__file__).resolve().parents[1]


def script_of(page: str, heading: str) -> str:
    """The first block of Python below a heading of a page."""
    section = (ROOT / "docs" / page).read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    match = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert match
    return match[1]


def replaced(script: str, old: str, new: str) -> str:
    assert script.count(old) == 1
    return script.replace(old, new)


def run(script: str) -> dict[str, Any]:
    """The names that a script leaves."""
    names: dict[str, Any] = {}
    exec(script, names)  # noqa: S102  our own page
    return names


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which the script runs, on the processor."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path


@pytest.mark.slow
def test_the_sweep_trains_each_trial_and_continues_with_more(folder, capsys):
    pytest.importorskip("optuna")
    (folder / "out").mkdir()
    tiny_training(folder / "out", epochs=1, batch_size=8)
    script = script_of("scale.md", "Sweeps")
    script = replaced(script, '"chexnet_small"', '"out/tiny.toml"')
    script = replaced(script, "n_trials=8", "n_trials=1")
    run(script)
    assert re.match(r"out/sweep/000: .*learning_rate", capsys.readouterr().out)
    run(script)
    trials = sorted(path.parent.name for path in folder.glob("out/sweep/*/run.json"))
    assert trials == ["000", "001"]


def a_set_of_pneumonia(folder: Path) -> Path:
    """A data set in which the finding has another name, in ``folder / "data"``."""
    write_phantom(folder / "source", n_images=30, size=96, seed=8, prevalence=0.4)
    labels = pd.read_csv(folder / "source/stage_2_train_labels.csv").drop_duplicates("patientId")
    label = labels["Target"].map({0: "normal", 1: "pneumonia"})
    table = pd.DataFrame({"file": labels["patientId"], "label": label})
    table.to_csv(folder / "labels.csv", index=False)
    images = folder / "source/stage_2_train_images"
    prepare(folder / "labels.csv", images, folder / "data", size=[64], workers=0)
    return folder / "data"


@pytest.mark.slow
def test_two_models_are_compared_on_a_data_set_of_another_finding(folder, capsys):
    (folder / "rsna").mkdir()
    rsna = tiny_training(folder / "rsna", epochs=1, batch_size=8)
    train(folder / "rsna/tiny.toml", data=rsna, out=folder / "out/retinanet")
    (folder / "out/chexnet").symlink_to("retinanet")
    (folder / "data").mkdir()
    (folder / "data/rsna").symlink_to(rsna)
    (folder / "data/kermany").symlink_to(a_set_of_pneumonia(folder / "kermany"))
    script = script_of("evaluation.md", "Other data sets")
    script = replaced(script, 'out=out / "report"', "replicates=200")
    rows = run(script)["aurocs"].set_index(["data_set", "first", "second"])["estimate"]
    assert len(rows) == 6  # two systems and their difference, on two data sets
    assert rows.between(-1, 1).all()
    printed = capsys.readouterr().out
    assert "kermany" in printed
    run(script)  # what is there is read
    assert capsys.readouterr().out == printed


@pytest.mark.release
def test_the_page_of_classifiers_trains_nine_in_one_line_and_compares_them(shared_data, folder):
    source = shared_data / "kermany_224" / "chest_xray" / "train"
    for kind in ("NORMAL", "PNEUMONIA"):
        (folder / "chest_xray" / "train" / kind).mkdir(parents=True)
        for image in sorted((source / kind).iterdir())[::17][:60]:
            shutil.copy(image, folder / "chest_xray" / "train" / kind)
    section = (ROOT / "docs/zoo.md").read_text().split("A quick trial")[1]
    block = re.search(r"```bash\n(.*?)```", section, re.DOTALL)
    assert block is not None
    for line in block[1].replace("\\\n", " ").strip().splitlines():
        words = shlex.split(line)
        assert words[0] == "cxr"
        done = subprocess.run([sys.executable, "-m", "cxr_compare.scripts.cli", *words[1:]])
        assert done.returncode == 0, line
    table = (folder / "report" / "table.md").read_text()
    names = "CheXNet DenseNet-121 EfficientNet-Lite0 InceptionV3 MobileNetV3 ResNet-50 VGG16 VGG19"
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    assert sorted(rows[2:]) == sorted([*names.split(), "Small CNN"])


_SMALL = {
    "chexnet_quickstart": ["model.backbone=small_cnn"],
    "retinanet_quickstart": [
        "model.backbone=mobilenet_v3_small", "model.fpn_channels=16", "model.head_convs=1",
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def phantom_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of drawn images, which no test changes."""
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom(folder / "phantom", n_images=40, size=96, seed=3)
    prepare(folder / "phantom", folder / "data", workers=0)
    return folder / "data"


@pytest.mark.slow
def test_the_page_of_own_parts_is_followed(folder, phantom_set, capfd):
    page = (ROOT / "docs/own-parts.md").read_text()
    (folder / "myparts.py").write_text(
        "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    )
    (folder / "out").mkdir()
    (folder / "out/data").symlink_to(phantom_set)
    app = build_app()
    for line in cxr_commands(page):
        words = shlex.split(line)[1:]
        if words[0] == "train":
            keys = ["data.image_size=96", "training.epochs=1", *_SMALL[words[1]]]
            words[2:2] = [word for key in keys for word in ("--set", key)]  # the page's come last
        if words[0] == "compare":
            words += ["--replicates", "100"]
        assert app(words) == 0, line
        assert bool(capfd.readouterr().out) == ("TellRate" in line)
    runs = [Run.open(path.parent) for path in Path("out").rglob("run.json")]
    assert {run.name for run in runs} == {"CheXNet", "RetinaNet"}
    assert list(Path("out/all-trainings").rglob("metrics.csv"))
    spots = DataSet.open("out/spots")
    assert len(spots.boxes) == 40
    assert spots.images["patient_id"].nunique() == 40
    report = Path("out/report/report.html").read_text()
    assert "that of myparts:Focal" in report  # the loss
    assert "Geometric mean of sensitivity and specificity at a score of 0.5." in report
    figures = pd.read_csv("out/report/figures.csv")
    assert figures.loc[figures["metric"] == "g_mean", "estimate"].notna().sum() == 3
    del METRICS["g_mean"]
    assert "Score against score" in report
    names: dict[str, Any] = {}
    exec((folder / "myparts.py").read_text(), names)  # noqa: S102  our own page
    targets = [{"boxes": torch.tensor([[9.0, 9, 30, 30]] * n)} for n in (1, 0) * 8]
    outputs = [{**each, "scores": torch.full((len(each["boxes"]),), 0.9)} for each in targets]
    found = names["figures_of_epoch"](outputs, targets, range(16))
    assert (found["ap50"], found["auroc"]) == (1, 1)
    assert found["auroc_low"] < 1


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("training.module=nowhere:Loss", "training.module: nowhere cannot be imported"),
        ("training.module=json:Loss", "json has no Loss"),
        ("training.module=json:JSONDecoder", "no subclass of"),
        ("training.module=focal", "is no MODULE:NAME"),
        ("model.backbone=nowhere:Net", "model.backbone: nowhere cannot be imported"),
        ("training.loggers=['json:JSONDecoder']", "training.loggers: json:JSONDecoder is no"),
        ("augmentation.function=json:darker", "augmentation.function: the module json has no"),
    ],
)
def test_an_own_part_that_is_none_is_refused_in_one_line(folder, phantom_set, key, message):
    with pytest.raises(InputError, match=message):
        train("chexnet_quickstart", data=phantom_set, out="run", set_=[key])


def test_a_callback_that_fails_is_named_in_one_line(folder, phantom_set):
    (folder / "failing_calls.py").write_text(
        "from lightning.pytorch import Callback\n"
        "class Fails(Callback):\n"
        "    def on_train_start(self, trainer, module):\n"
        "        raise KeyError('auroc')\n"
    )
    keys = ['training.callbacks=["failing_calls:Fails"]', "data.image_size=96"]
    keys += ["training.epochs=1", *_SMALL["chexnet_quickstart"]]
    with pytest.raises(InputError, match="callbacks: failing_calls:Fails: KeyError"):
        train("chexnet_quickstart", data=phantom_set, out="run", set_=keys)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained detector, its ONNX export and an image that it calls positive."""
    folder = tmp_path_factory.mktemp("exported")
    data = drawn_images(folder, 24, 64, [32])
    (folder / "out").mkdir()
    made = untrained_run("detector", data, folder / "out/retinanet")
    dataset = DataSet.open(data)
    with console.silent():
        freeze_decision(made, LabelledSplit(dataset, dataset.target()), console)
    export(made, format="onnx")
    system = Run.open(made / "exports/onnx-fp32")
    files = sorted((folder / "source").glob("stage_2_t*_images/*.dcm"))
    images = [read_image(file).pixels[:, 6:] for file in files]
    positive = next(image for image in images if system.predict(image).computed_decision)
    Image.fromarray(positive).save(folder / "xray.png")
    return folder


def printed_answer(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return what `cxr predict --json` prints for ``xray.png``."""
    capsys.readouterr()
    system = folder / "out/retinanet/exports/onnx-fp32"
    assert cxr("predict", system, folder / "xray.png", "--json", "--no-overlay") == 0
    (answer,) = json.loads(capsys.readouterr().out)
    return answer


def test_onnx_runtime_alone_gives_the_answer_of_predict(exported, monkeypatch, capsys):
    answer = printed_answer(exported, capsys)
    monkeypatch.chdir(exported)
    script = script_of("exports.md", "With ONNX Runtime alone")
    names = run(script)
    assert answer["boxes"]
    assert names["score"][0] == pytest.approx(answer["score"], abs=1e-5)
    assert names["threshold"] == answer["threshold"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(answer["computed_decision"])
    assert len(lines) == 1 + len(answer["boxes"])
    for box, line in zip(answer["boxes"], lines[1:], strict=True):
        assert line.startswith(box["finding"])
    for box, corners in zip(answer["boxes"], names["boxes"], strict=False):
        assert corners.tolist() == pytest.approx([box[edge] for edge in EDGES], abs=0.05)


def test_a_web_service_of_few_lines_gives_the_answer_of_predict(exported, monkeypatch, capsys):
    from fastapi.testclient import TestClient

    answer = printed_answer(exported, capsys)
    monkeypatch.chdir(exported)
    names = run(script_of("exports.md", "In your own web service"))
    client = TestClient(names["app"])
    image = (exported / "xray.png").read_bytes()
    sent = client.post("/analyze", files={"file": ("xray.png", image)})
    assert sent.status_code == 200
    assert sent.json() == answer | {"image": "xray.png"}
    sent = client.post("/analyze", files={"file": ("notes.png", b"no image")})
    assert sent.status_code == 422
