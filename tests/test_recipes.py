"""The scripts of the documents are run as a user pastes them, on small drawn data sets."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydicom import uid

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.images.image import read_image
from cxr_compare.data_prep.synth.phantom import write_phantom
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.scripts import console
from cxr_compare.scripts.commands.export import export
from cxr_compare.scripts.commands.prepare import prepare
from cxr_compare.scripts.commands.train import train
from cxr_compare.serving.predict_folder import freeze_decision
from cxr_compare.serving.run import Run
from tests.scripts.small_sets import cxr, drawn_images, tiny_training
from tests.scripts.untrained import untrained_run
from tests.small_dicom import chest, dicom_image
from tests.test_generated_documents import cxr_commands

DOCS = Path(__file__).resolve().parents[1] / "docs"


def blocks_of(page: str) -> list[tuple[str, str]]:
    """Every block of code of a page: language and text."""
    return re.findall(r"```(\w+)\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def follow(page: str, names: dict[str, Any]) -> None:
    """Run every Python block and every `cxr` line of the bash blocks of a page, in order."""
    for kind, text in blocks_of(page):
        if kind == "python":
            exec(text, names)  # noqa: S102  our own page
        for command in cxr_commands(text) if kind == "bash" else ():
            assert cxr(*shlex.split(command)[1:]) < 2, command


def require_quoted(page: str, printed: str) -> None:
    """Check that each line of the text blocks of a page was printed; ... stands for anything."""
    for kind, text in blocks_of(page):
        for line in text.splitlines() if kind == "text" else ():
            assert re.search(re.escape(line).replace(r"\.\.\.", ".*"), printed), line


def script_of(page: str, heading: str) -> str:
    """The first block of Python below a heading of a page."""
    section = (DOCS / page).read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
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


@pytest.mark.release
def test_the_page_of_arrays_prints_what_it_quotes(folder, capsys):
    follow("arrays.md", {})
    require_quoted("arrays.md", "".join(capsys.readouterr()))


@pytest.mark.release
def test_the_page_of_detectors_prints_what_it_quotes(folder, capsys):
    rng = np.random.default_rng(0)
    ids = [f"i{number:03d}" for number in range(60)]
    targets = [{"boxes": np.array([[20.0, 20, 60, 60]] * (number % 2))} for number in range(60)]
    outputs = [
        {
            "boxes": target["boxes"] + rng.integers(-9, 9, target["boxes"].shape),
            "scores": rng.random(len(target["boxes"])),
        }
        for target in targets
    ]
    labels = np.arange(60) % 2
    names = {"outputs": outputs, "targets": targets, "image_ids": ids, "labels": labels}
    names |= {"scores": rng.random(60), "patient_ids": np.arange(60) // 2}
    (own, files, single) = (
        text for kind, text in blocks_of("detector-output.md") if kind == "python"
    )
    exec(own + single, names)  # noqa: S102  our own page
    exec(files, {})  # noqa: S102  our own page
    for kind, text in blocks_of("detector-output.md"):
        for command in cxr_commands(text) if kind == "bash" else ():
            assert cxr(*shlex.split(command)[1:]) == 0, command
    require_quoted("detector-output.md", "".join(capsys.readouterr()))


def test_the_recipes_beyond_a_comparison_run(folder, capsys):
    rng = np.random.default_rng(0)
    patients = np.repeat([f"p{number:03d}" for number in range(200)], 2)
    y = np.repeat(rng.random(200) < 0.4, 2).astype(int)
    a, b = (1 / (1 + np.exp(gain / 2 - gain * y - rng.normal(size=400))) for gain in (1.6, 0.9))
    names = {"y": y, "a": a, "b": b, "patients": patients}
    names["image_ids"] = [f"i{number:03d}" for number in range(400)]
    names["features"] = rng.normal(size=(400, 16)) + 0.3 * y[:, None]
    names["train"] = np.isin(patients, np.unique(patients)[:120])
    for kind, text in blocks_of("beyond.md"):
        if kind == "python" and "highdicom" not in text:
            exec(text, names)  # noqa: S102  our own page
    assert "patients show a true difference" in capsys.readouterr().out
    assert len(names["result"].figures)


@pytest.mark.filterwarnings("ignore")
def test_an_overlay_becomes_a_secondary_capture(folder):
    pytest.importorskip("highdicom")
    texts = ("PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID")
    elements = dict.fromkeys((*texts, "StudyDate", "StudyTime", "ReferringPhysicianName"), "")
    header = dicom_image(
        chest(1), SOPClassUID=uid.DigitalXRayImageStorageForPresentation, Modality="DX",
        StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.4", PatientName="", **elements,
    )  # fmt: skip
    header.save_as("image.dcm", enforce_file_format=True)
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save("overlay.png")
    (block,) = (text for kind, text in blocks_of("beyond.md") if "import highdicom" in text)
    assert run(block)["capture"].StudyInstanceUID == "1.2.3"
    assert (folder / "overlay.dcm").is_file()


@pytest.mark.release
def test_the_page_of_own_data_prints_what_it_quotes(folder, capsys):
    write_own_data(folder)
    follow("my-data.md", {})
    require_quoted("my-data.md", "".join(capsys.readouterr()))


def test_two_readers_are_joined_as_the_page_of_studies_says(folder):
    write_own_data(folder)
    commands = [line for kind, text in blocks_of("studies.md") for line in cxr_commands(text)]
    for command in (line for line in commands if "out/two" in line):
        assert cxr(*shlex.split(command)[1:]) < 2, command


def write_own_data(folder: Path) -> None:
    """Files that the page's commands read: 240 images, two a patient; half show an opacity."""
    rng = np.random.default_rng(0)
    names, sick = [f"p{n // 2:03d}-{n % 2}" for n in range(240)], np.arange(240) % 4 < 2
    (folder / "images").mkdir()
    for name in names:
        pixels = Image.fromarray(rng.integers(20, 230, (12, 12), dtype=np.uint8))
        pixels.resize((128, 128)).save(folder / "images" / f"{name}.png")
    table = pd.DataFrame(
        {"file": [f"{name}.png" for name in names], "patient": [name[:4] for name in names]}
    )
    for file, wrong in (("smith", 0.05), ("jones", 0.1)):
        table["label"] = np.where(sick ^ (rng.random(240) < wrong), "opacity", "normal")
        table.to_csv(folder / f"{file}.csv", index=False)
    table["label"] = np.where(sick, "opacity", "normal")
    for edge, at in (("xmin", 20), ("ymin", 30), ("xmax", 60), ("ymax", 70)):
        table[edge] = np.where(sick, str(at), "")
    table.to_csv(folder / "labels.csv", index=False)
    table[["file", "label", "patient"]].to_csv(folder / "diagnoses.csv", index=False)
    box = '<box label="opacity" xtl="20" ytl="30" xbr="60" ybr="70"></box>'
    drawn = "".join(
        f'<image id="{n}" name="{name}.png" width="128" height="128">{shown}</image>'
        for n, (name, shown) in enumerate(zip(names, np.where(sick, box, ""), strict=True))
    )
    (folder / "annotations.xml").write_text(f"<annotations>{drawn}</annotations>")
    pd.DataFrame({"image_id": names[6:8], "reason": "child"}).to_csv(folder / "exclude.csv")


@pytest.mark.release
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


@pytest.mark.release
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


@pytest.mark.long
def test_the_page_of_models_trains_nine_in_one_line_and_compares_them(shared_data, folder):
    source = shared_data / "kermany_224" / "chest_xray" / "train"
    for kind in ("NORMAL", "PNEUMONIA"):
        (folder / "children" / kind.lower()).mkdir(parents=True)
        for number, image in enumerate(sorted((source / kind).iterdir())[::17][:60]):
            shutil.copy(image, folder / "children" / kind.lower() / f"{kind}-{number}.jpeg")
    assert cxr("prepare", "children", "out/data") == 0
    (block,) = (text for kind, text in blocks_of("models.md") if "--out out/zoo" in text)
    for command in cxr_commands(block):
        assert cxr(*shlex.split(command)[1:]) == 0, command
    assert len(list(Path("out/zoo").glob("*/run.json"))) == 9
    assert Path("out/zoo-report/report.html").is_file()


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


@pytest.mark.release
@pytest.mark.filterwarnings("ignore")  # of Lightning and matplotlib
def test_the_page_of_own_parts_is_followed(folder, phantom_set, capfd):
    (folder / "out").mkdir()
    (folder / "out/data").symlink_to(phantom_set)
    names: dict[str, Any] = {"__name__": "pasted"}
    for kind, text in blocks_of("own-parts.md"):
        if kind != "python":
            continue
        for name, keys in _SMALL.items():  # smaller models
            keys = ["data.image_size=96", "training.epochs=1", *keys]
            text = text.replace(
                f'read_named_config("{name}")', f"read_named_config({name!r}, {keys})"
            )
        exec(text, names)  # noqa: S102  our own page
    assert {Run.open(path.parent).name for path in Path("out").rglob("run.json")} == {
        "CheXNet", "RetinaNet"
    }  # fmt: skip
    assert list(Path("out/all-trainings").rglob("metrics.csv"))
    assert len(DataSet.open("out/spots").boxes) == 40
    assert len(names["draws"]) > 100
    targets = [{"boxes": np.array([[9.0, 9, 30, 30]] * n).reshape(-1, 4)} for n in (1, 0) * 8]
    outputs = [{**each, "scores": np.full(len(each["boxes"]), 0.9)} for each in targets]
    found = names["figures_of_epoch"](outputs, targets, range(16))
    assert (found["ap50"], found["auroc"]) == (1, 1)


@pytest.mark.release
@pytest.mark.filterwarnings("ignore")
def test_the_tutorial_runs_on_a_small_set(folder):
    names: dict[str, Any] = {}
    for kind, text in blocks_of("tutorial.md"):
        if kind == "python" and "tour-output" in text:
            text = "from pathlib import Path\n"
            text += 'folder, images, replicates = Path("tour-output"), 60, 200\n'
            text += 'detector, classifier = {"epochs": 1}, {"epochs": 1}'
        if kind == "python":
            exec(text, names)  # noqa: S102  our own page
    assert len(names["result"].figures)
    assert Path("tour-output/report/report.html").is_file()


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
