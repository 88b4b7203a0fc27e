"""The scripts of the documents are run as a user pastes them, on small drawn data sets."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cxr_compare import metrics
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.synth.phantom import write_phantom
from cxr_compare.scripts.commands.compare import compare
from cxr_compare.scripts.commands.prepare import prepare
from cxr_compare.scripts.commands.train import train
from cxr_compare.serving.run import Run
from tests.scripts.small_sets import tiny_training
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


@pytest.mark.slow
def test_the_page_of_own_parts_is_followed(folder, capfd):
    page = (ROOT / "docs/own-parts.md").read_text()
    (folder / "myparts.py").write_text(
        "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    )
    (folder / "out").mkdir()
    write_phantom(folder / "phantom", n_images=40, size=96, seed=3)
    prepare(folder / "phantom", "out/data")
    for line in cxr_commands(page):
        _, _, name, *words = shlex.split(line)
        options = dict(zip(words[::2], words[1::2], strict=True))
        keys = [options["--set"], "data.image_size=96", "training.epochs=1", *_SMALL[name]]
        train(name, data=options["--data"], out=options["--out"], set_=keys)
        assert bool(capfd.readouterr().out) == ("TellRate" in line)
    runs = [Run.open(path.parent) for path in Path("out").rglob("run.json")]
    assert {run.name for run in runs} == {"CheXNet", "RetinaNet"}
    compare("out/focal", data="out/data", out="out/report", replicates=100)
    methods = Path("out/report/report.html").read_text()
    assert "computed by the class myparts:Focal" in methods
    assert "The loss was cross-entropy" not in methods
    names = {}
    exec((folder / "myparts.py").read_text(), names)  # noqa: S102  our own page
    labels, scores = [0, 1] * 40, [number / 80 for number in range(80)]
    share, (low, high) = names["sensitivity_interval"](labels, scores, range(80))
    assert low < share < high
    assert share == metrics.estimate("recall", labels, scores, threshold=0.5).estimate


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("training.module=nowhere:Loss", "training.module: nowhere cannot be imported"),
        ("training.module=json:Loss", "json has no Loss"),
        ("training.module=json:JSONDecoder", "no subclass of"),
        ("training.module=focal", "is no MODULE:NAME"),
    ],
)
def test_an_own_part_that_is_none_is_refused_in_one_line(folder, key, message):
    (folder / "out").mkdir()
    write_phantom(folder / "phantom", n_images=40, size=96, seed=3)
    prepare(folder / "phantom", "out/data")
    with pytest.raises(InputError, match=message):
        train("chexnet_quickstart", data="out/data", out="out/run", set_=[key])


def test_a_callback_that_fails_is_named_in_one_line(folder):
    (folder / "out").mkdir()
    write_phantom(folder / "phantom", n_images=40, size=96, seed=3)
    prepare(folder / "phantom", "out/data")
    (folder / "failing_calls.py").write_text(
        "from lightning.pytorch import Callback\n"
        "class Fails(Callback):\n"
        "    def on_train_start(self, trainer, module):\n"
        "        raise KeyError('auroc')\n"
    )
    keys = ['training.callbacks=["failing_calls:Fails"]', "data.image_size=96"]
    keys += ["training.epochs=1", *_SMALL["chexnet_quickstart"]]
    with pytest.raises(InputError, match="callbacks: failing_calls:Fails: KeyError"):
        train("chexnet_quickstart", data="out/data", out="out/run", set_=keys)
