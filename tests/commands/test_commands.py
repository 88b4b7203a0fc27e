"""The command line: help, wrong words, ends, JSON, each command as a function, and each once."""

import inspect
import json
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from tests.adapters import commands
from tests.adapters.commands import cxr
from tests.small_dicom import chest, write_dicom

BAD_INPUT, BUG, INTERRUPTED, NOBODY_READS = 2, 3, 130, 141


def test_each_command_is_the_public_function_of_its_name():
    for name in commands.NAMES:
        assert inspect.unwrap(commands.public(name)) is commands.function_of(name)
    assert {*commands.NAMES} - {"configs"} | {"configurations"} < {*cxr_compare.__all__}


@pytest.mark.parametrize("name", commands.NAMES)
def test_every_option_is_described_and_no_flag_has_an_opposite(name, capsys):
    options = commands.options_of(name)
    assert options
    assert [names for names, text in options.items() if len(text or "") < 5] == []
    assert [names for names in options if any("--no-" in each for each in names)] == []
    assert cxr(name, "--help") == 0
    shown = capsys.readouterr().out
    assert "--json" in shown
    for names in options:
        assert any(each in shown for each in names), names


@pytest.mark.parametrize("name", commands.NAMES)
def test_help_names_each_argument_in_words_of_the_terminal(name, capsys):
    assert cxr(name, "--help") == 0
    usage, shown = capsys.readouterr().out.split("\n", 1)
    required = re.sub(r"\[.*?\]", "", usage)
    assert required.startswith(f"Usage: cxr {name} ")
    assert [each for each in commands.required_of(name) if each not in required] == []
    python = r"\b(ARGS|STR|INT|FLOAT|BOOL|ANY|None|False|Python|frames?|arrays?|Series|dict)\b"
    assert re.findall(python, usage + shown) == []


WRONG = {
    "a command that is none": (["compair", "a.csv"], ["compair", "compare"]),
    "an option that is none": (["synth", "out", "--imagse", "3"], ["--imagse", "--images"]),
    "an option of another command": (["synth", "out", "--data", "x"], ["--data"]),
    "the opposite of a flag": (["compare", "a.csv", "--no-both"], ["--no-both"]),
    "an argument that is missing": (["synth"], ["OUT"]),
    "an option without its value": (["synth", "out", "--images"], ["--images"]),
    "a word in place of a number": (["synth", "out", "--images", "many"], ["--images", "many"]),
    "a decimal in place of a whole number": (["synth", "out", "--images", "1.5"], ["1.5"]),
    "a whole number as a decimal": (["synth", "out", "--images", "3.0"], ["--images", "3.0"]),
    "a number that is none": (["prepare", "a", "b", "--val", "nan"], ["--val", "nan"]),
    "a number without end": (["prepare", "a", "b", "--val", "inf"], ["--val", "inf"]),
    "a choice that is none": (["compare", "a.csv", "--unit", "lung"], ["--unit", "lung", "study"]),
    "too few resamples": (["compare", "a.csv", "--replicates", "99"], ["--replicates", "99"]),
    "a word too many": (["synth", "out", "more"], ["more"]),
}


@pytest.mark.parametrize(("words", "parts"), WRONG.values(), ids=WRONG)
def test_a_wrong_word_is_one_line_that_names_it(words, parts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cxr(*words) == BAD_INPUT
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("cxr: ")
    assert [part for part in parts if part not in line] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), INTERRUPTED), (ZeroDivisionError("seven"), BUG)]
)
def test_ctrl_c_is_one_line_and_a_fault_of_ours_has_its_traceback(error, status, capsys):
    with commands.failing("configs", error):
        assert cxr("configs") == status
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    if status == INTERRUPTED:
        assert len(lines) == 1
    else:
        assert lines[0].startswith("Traceback")
        assert "seven" in lines[-1]


CHANGING = {"created", "command", "seconds", "wall_s", "latency_ms"}


def without_changing(value):
    """A result without times and the words of its call."""
    if isinstance(value, dict):
        return {k: without_changing(v) for k, v in value.items() if k not in CHANGING}
    if isinstance(value, list):
        return [without_changing(each) for each in value]
    return value


def no_number(text):
    raise AssertionError(f"{text} is no JSON")


def json_of(text, folder):
    """A result without the name of its folder."""
    read = json.loads(text.replace(str(folder), "FOLDER"), parse_constant=no_number)
    return without_changing(read)


CALLS = {
    "synth": (["{out}/x"], {"images": 4, "size": 64, "seed": 2}),
    "prepare": (["{xrays}", "{out}/set"], {"format": "rsna", "size": [64], "workers": 0}),
    "check": (["{data}"], {}),
    "split": (["{data}"], {"name": "again", "seed": 3}),
    "configs": (["chexnet_small"], {}),
    "compare": (
        ["A={tables}/a.csv", "Boxes={tables}/boxes.csv"],
        {
            "truth": "{tables}/truth.csv",
            "boxes": "{tables}/true_boxes.csv",
            "policy": ["max_f1", "sensitivity>=0.9"],
            "replicates": 100,
        },
    ),
    "overlay": (
        ["D={detector_predictions}"],
        {"data": "{data}", "out": "{out}/overlays", "limit": 2},
    ),
    "show": (["{tables_report}"], {}),
    "export": (["{data}", "{out}/coco"], {"format": "coco"}),
    "predict": (["{classifier}", "{xray}"], {"device": "cpu"}),
}


OF_RELEASE = dict.fromkeys(("synth", "split"), pytest.mark.release)


@pytest.mark.filterwarnings("ignore::UserWarning")  # what was left out of a file is said
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=OF_RELEASE.get(name, ())) for name in CALLS]
)
def test_a_command_gives_its_function_s_result_and_json_alone(name, world, tmp_path, capsys):
    words, options = CALLS[name]
    shown = []
    for number in range(2):
        folder = tmp_path / f"call-{number}"
        folder.mkdir()
        parts = world_parts(world, folder, copied=name in ("split", "check"))
        given = [word.format(**parts) for word in words]
        named = {key: filled(value, parts) for key, value in options.items()}
        capsys.readouterr()
        if number:
            commands.as_json(commands.public(name)(*given, **named))
        else:
            assert cxr(name, *given, *option_words(named), "--json") == 0
        shown.append(json_of(capsys.readouterr().out, folder))
    assert shown[0] == shown[1]
    assert shown[0]


def world_parts(world, folder, *, copied):
    """The parts of the small world; a data set that a command changes is a copy."""
    data = shutil.copytree(world.data, folder / "data") if copied else world.data
    return {
        "out": folder,
        "xrays": world.xrays,
        "xray": min((world.xrays / "stage_2_train_images").iterdir()),
        "data": data,
        "tables": world.tables,
        "tables_report": world.tables_report,
        "classifier": world.run("classifier"),
        "detector_predictions": world.predictions("detector"),
    }


def filled(value, parts):
    if isinstance(value, list):
        return [filled(each, parts) for each in value]
    return value.format(**parts) if isinstance(value, str) else value


def option_words(options):
    """Options of a Python call as words."""
    words = []
    for name, value in options.items():
        for each in value if isinstance(value, list) else [value]:
            words += [f"--{name}", str(each)]
    return words


def test_json_may_stand_anywhere_and_has_no_undefined_number(world, tmp_path, capsys):
    truth = pd.DataFrame({"image_id": [*"abcd"], "label": [1, 0, 1, 0]})
    truth.to_csv(tmp_path / "truth.csv", index=False)
    scores = pd.DataFrame({"image_id": [*"abcd"], "score": [0.9, 0.1, 0.8, 0.7]})
    scores.to_csv(tmp_path / "a.csv", index=False)
    call = [tmp_path / "a.csv", "--truth", tmp_path / "truth.csv", "--replicates", "100"]
    texts = []
    for words in (["--json", "compare", *call], ["compare", "--json", *call]):
        assert cxr(*words) == 0
        texts.append(json_of(capsys.readouterr().out, tmp_path))
    assert texts[0] == texts[1]
    assert None in [row["ci_low"] for row in texts[0]["figures"]]


# --- each command once ----------------------------------------------------------------------------
# On one small set, in this order, since they build on each other: `scripts/test_oldest` runs these
# lines to show that every command also works with the lowest versions that setup.cfg allows.

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with what the commands read and do not make."""
    folder = tmp_path_factory.mktemp("commands")
    true = pd.DataFrame(
        {"image_id": ["a", "b"], "finding": "opacity", "x1": 0, "y1": 0, "x2": 40, "y2": [20, 30]}
    )
    true.assign(label=1).to_csv(folder / "true_boxes.csv", index=False)
    true.assign(score=[0.9, 0.4]).to_csv(folder / "boxes.csv", index=False)
    study = {"PatientID": "P1", "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.1"}
    pixels = chest(1).astype(np.uint8)
    write_dicom(folder / "film.dcm", pixels, Modality="DX", ViewPosition="PA", **study)
    return folder


def write_scores(folder):
    """Scores of two systems for every image: the label, hidden in noise."""
    dataset = cxr_compare.DataSet.open(folder / "data")
    labels = dataset.labels(dataset.target())
    for seed, name in enumerate("AB"):
        noise = np.random.default_rng(seed).random(len(labels))
        score = 0.3 * labels.fillna(0.0).to_numpy() + 0.7 * noise
        table = pd.DataFrame({"image_id": labels.index, "score": score})
        table.to_csv(folder / f"{name}.csv", index=False)


@pytest.mark.oldest
@pytest.mark.parametrize("line", LINES)
def test_a_command_runs(line, folder, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    if "A.csv" in line and not (folder / "A.csv").exists():
        write_scores(folder)
    assert cxr(*shlex.split(line)) == 0, capfd.readouterr().err


@pytest.mark.oldest
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


def test_no_command_is_left_out():
    assert {line.split()[0] for line in LINES} | {"serve"} == set(commands.NAMES)
