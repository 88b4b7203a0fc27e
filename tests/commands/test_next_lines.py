"""Each line ``Next:`` that a command prints is run as it is printed, to the end of the chain."""

import json
import re
import shlex
from pathlib import Path

import pytest

import cxr_compare
from tests.adapters.commands import cxr
from tests.cases import write_file

QUICK = {  # a training of the printed configuration takes minutes: one epoch of a small network
    "retinanet_small": ["data.image_size=96", "model.fpn_channels=16", "model.head_convs=1"],
    "chexnet_small": ["data.image_size=64", "model.backbone=small_cnn"],
}
NAMES = [f"p{n // 2:02d}_{n % 2}" for n in range(40)]
IS_SICK = {name: n // 2 % 2 for n, name in enumerate(NAMES)}
PICTURE = {"image": [64, 64]}
IMAGES = {f"images/{name}.png": PICTURE for name in NAMES}


def table(head, row):
    """A table with a row for each image."""
    lines = [row(name, n // 2, IS_SICK[name]) for n, name in enumerate(NAMES)]
    return "\n".join([head, *lines, ""])


ONE = table("image_id,patient_id,opacity", lambda name, n, sick: f"{name},{n},{sick}")
SEVERAL = table(
    "image_id,patient_id,opacity,nodule",
    lambda name, n, sick: f"{name},{n},{sick * (n % 4 == 1)},{sick}",
)
KINDS = ("No Finding", "Mass", "Nodule")
NIH = table(
    "Image Index,Finding Labels,Patient ID,Patient Age,Patient Gender,View Position",
    lambda name, n, sick: f"{name}.png,{KINDS[sick * (1 + n % 4 // 2)]},{n},50,M,PA",
)
COCO = {
    "images": [
        {"id": n, "file_name": f"{name}.png", "width": 64, "height": 64}
        for n, name in enumerate(NAMES)
    ],
    "annotations": [
        {"id": 2 * n + kind, "image_id": n, "category_id": kind, "bbox": [8 + 20 * kind, 9, 16, 20]}
        for n, name in enumerate(NAMES)
        for kind in (0, 1)
        if IS_SICK[name] and (kind or n % 8 == 2)
    ],
    "categories": [{"id": 0, "name": "opacity"}, {"id": 1, "name": "nodule"}],
}
SETS = {
    "one finding": {"labels.csv": ONE, **IMAGES},
    "several findings": {"labels.csv": SEVERAL, **IMAGES},
    "class folders": {
        f"train/PNEUMONIA/person{n}_{('bacteria', 'virus')[n % 4 // 2]}_{n}.jpeg"
        if IS_SICK[name]
        else f"train/NORMAL/IM-{n:04d}-0001.jpeg": PICTURE
        for n, name in enumerate(NAMES)
    },
    "nih": {"Data_Entry_2017.csv": NIH, **IMAGES},
    "coco": {"annotations.json": json.dumps(COCO), **IMAGES},
}

CLASSES = {
    "radiography": (
        ("Normal", "COVID", "Lung_Opacity", "Viral Pneumonia"),
        "covid,lung_opacity,viral_pneumonia",
    ),
    "folders": (("NORMAL", "BACTERIA", "VIRUS"), "bacteria,virus"),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a blank in its name, in which the lines are run."""
    folder = tmp_path / "my sets"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


# What follows is the same for each set: it is run for one with boxes, and below for one without.
COMPARE = "compare RUN --data 'a set' --out REPORT"
WHOLE = "coco"


def follow(words, capsys, until=None):
    """Run a command and what it says is next, up to a command; return all lines ``Next:``."""
    lines = []
    while words and words[0] != until:
        more = ["--replicates", "100"] if words[0] == "compare" else []
        if words[0] == "train":
            keys = [*QUICK.get(words[1], []), "training.epochs=1", "training.workers=0"]
            more = [word for key in keys for word in ("--set", key)]
        capsys.readouterr()
        assert cxr(*words, *more) == 0, (words, capsys.readouterr().err)
        shown = capsys.readouterr()
        said = re.findall("^Next: cxr (.*)$", shown.out + shown.err, re.MULTILINE)
        assert len(said) == (words[0] != "compare"), words
        lines += said
        words = shlex.split(said[0]) if said else []
    return lines


def prepared(name, world):
    """The words that prepare a set in the current folder."""
    for path, content in SETS.get(name, {}).items():
        write_file(Path("source"), path, content, noise=True)
    source = [world.xrays] if name == "phantom" else ["source"]
    labels = ["source/labels.csv"] if "finding" in name else []
    return ["prepare", *labels, *source, "a set", "--workers", "0"]


@pytest.mark.parametrize("name", ["phantom", *SETS])
def test_what_is_next_runs_as_it_is_printed(name, here, capsys, world):
    train, *compare = follow(prepared(name, world), capsys, None if name == WHOLE else "train")
    assert compare == [COMPARE] * (name == WHOLE)
    assert ("retinanet_small" in train) == (name in ("phantom", "coco"))
    # Of several targets the one with most boxes, or else with most positive images.
    most = {"several findings": "nodule", "nih": "any_finding"}
    target = {**most, "coco": "nodule"}.get(name)
    assert train.partition(" --set ")[2] == (f"data.target={target}" if target else "")
    assert cxr_compare.DataSet.open("a set").target(target)
    assert (here / "REPORT/report.html").is_file() == (name == WHOLE)


OF_RELEASE = {"folders": pytest.mark.release}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=OF_RELEASE.get(name, ())) for name in CLASSES]
)
def test_one_model_of_all_classes_is_trained_and_compared_as_it_is_printed(name, here, capsys):
    folders, findings = CLASSES[name]
    for folder in folders:
        for number in range(1, 17):
            path = f"{folder}/images/{folder}-{number}.png"
            write_file(Path("source"), path, PICTURE, noise=True)
    form = ["--format", "folders"] if name == "folders" else []  # names that no finding has
    assert cxr("prepare", "source", "a set", *form, "--workers", "0") == 0
    printed = capsys.readouterr().out
    assert "unknown" not in printed.replace("of unknown patients", "")
    (line,) = re.findall("^Next: cxr (.*)$", printed, re.MULTILINE)
    assert shlex.split(line)[-1] == "training.loss=softmax"
    said = follow(shlex.split(line), capsys)
    assert said == [f"{COMPARE} --target {findings}"]
    run = cxr_compare.Run.open("RUN", device="cpu")
    assert len(run.network.info.classes) == len(folders)
    answer = json.loads(Path("REPORT/classes.json").read_text())
    assert answer
