"""The scripts of the documents are run as a user pastes them, on small drawn data sets."""

import fcntl
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import mypy.api
import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import ExifTags, Image
from sklearn.linear_model import LogisticRegression

import cxr_compare
from tests.adapters.commands import PROGRAM, cxr
from tests.adapters.documents import code_blocks, cxr_commands
from tests.adapters.sets import table_set

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXAMPLES = DOCS / "examples"  # which readers copy
EDGES = ["x1", "y1", "x2", "y2"]
IDS_OF_HEADERS = ("SOPInstanceUID", "StudyInstanceUID")
ONE_EPOCH = {"data.image_size": 96, "training.epochs": 1}
SMALL_MODELS = {  # of the configurations that pages name
    "chexnet_quickstart": {"model.backbone": "small_cnn"},
    "chexnet_small": {"model.backbone": "small_cnn"},
    "retinanet_quickstart": {"model.fpn_channels": 16, "model.head_convs": 1},
}


def blocks_of(page, kind="python"):
    """The blocks of a page in one language."""
    return [text for language, text in code_blocks(DOCS / page) if language == kind]


def run(script, names=None):
    """Run a script, and return the names that it leaves."""
    names = {} if names is None else names
    exec(script, names)  # noqa: S102  our own page
    return names


def run_commands(page, only="", ends_with=0):
    for text in blocks_of(page, "bash"):
        for command in cxr_commands(text):
            if only in command:
                assert cxr(*shlex.split(command)[1:]) <= ends_with, command


def follow(page, names):
    """Run every Python block and every ``cxr`` line of a page, in their order."""
    for kind, text in code_blocks(DOCS / page):
        if kind == "python":
            run(text, names)
        for command in cxr_commands(text) if kind == "bash" else ():
            assert cxr(*shlex.split(command)[1:]) < 2, command


def require_quoted(page, printed):
    """Check that each line of the text blocks of a page was printed; ... stands for anything."""
    for text in blocks_of(page, "text"):
        for line in text.splitlines():
            assert re.search(re.escape(line).replace(r"\.\.\.", ".*"), printed), line


def replaced(script, old, new):
    assert script.count(old) == 1
    return script.replace(old, new)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder in which the script runs, on the processor."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path


def test_the_scripts_of_the_readme_run_and_the_first_prints_its_table(folder, capsys):
    rng = np.random.default_rng(0)
    ids, patients = [f"i{number:03d}" for number in range(300)], np.arange(300) // 2
    labels = (rng.random(150) < 0.4)[patients].astype(int)
    names = {"labels": labels, "image_ids": ids, "patient_ids": patients}
    for end in ("", "_a", "_b"):
        names[f"scores{end}"] = 1 / (1 + np.exp(1 - 2 * labels - rng.normal(size=300)))
    lesions = [rng.integers(10, 200, (label, 2)) for label in labels]
    names["targets"] = [{"boxes": np.hstack([at, at + 60.0])} for at in lesions]
    names["outputs"] = []
    for at in lesions:  # a box near the lesion, and another one anywhere
        at = np.vstack([at + rng.integers(-10, 10, at.shape), rng.integers(10, 200, (1, 2))])
        box_scores = np.append(rng.beta(4, 3, len(at) - 1), rng.beta(2, 5))
        names["outputs"].append({"boxes": np.hstack([at, at + 60.0]), "scores": box_scores})
    first, *others = blocks_of("../README.md")
    run(first, names)
    require_quoted("../README.md", capsys.readouterr().out)
    rows = {"AUROC", "Accuracy", "Precision", "Sensitivity (recall)", "F1"}
    (printed,) = blocks_of("../README.md", "text")
    assert [row for row in (*rows, "Localised sensitivity", "AP50") if row not in printed] == []
    assert set(names["result"].figures["first"]) >= {"Detector", "Classifier"}
    assert "Confusion matrices" in (folder / "report/report.html").read_text()
    for text in others:
        run(text, names)
    assert rows <= {*names["result"].table}


USERS_OWN = """
# mypy: disallow-any-generics, disallow-untyped-calls, no-implicit-reexport, strict-equality
import numpy as np, numpy.typing as npt, torch
labels: npt.NDArray[np.int64]
patient_ids: npt.NDArray[np.int64]
image_ids: list[str]
scores_a: npt.NDArray[np.float64]
scores_b: npt.NDArray[np.float64]
scores: npt.NDArray[np.float64]
outputs: list[dict[str, torch.Tensor]]
targets: list[dict[str, torch.Tensor]]
"""


@pytest.mark.release
def test_the_scripts_of_the_readme_pass_a_type_checker(tmp_path, monkeypatch):
    monkeypatch.chdir(DOCS.parent)  # whose configuration mypy reads
    script = tmp_path / "readme.py"
    script.write_text("\n".join([USERS_OWN, *blocks_of("../README.md")]))
    printed, _, status = mypy.api.run([str(script)])
    assert status == 0, printed


@pytest.mark.release
def test_the_page_of_arrays_prints_what_it_quotes(folder, capsys):
    follow("arrays.md", {})
    require_quoted("arrays.md", "".join(capsys.readouterr()))


def test_a_report_that_is_made_again_has_equal_files(folder, world, capsys):
    for name in ("truth", "a", "b"):
        shutil.copy(world.tables / f"{name}.csv", folder)
    assert cxr("compare", "A=a.csv", "B=b.csv", "--truth", "truth.csv", "--out", "report") == 0
    follow("check-a-report.md", {})
    assert "All tables are equal." in capsys.readouterr().out
    first, again = (
        {path.relative_to(out): path.read_bytes() for path in Path(out).rglob("*.*")}
        for out in ("report", "again")
    )
    assert [*first] == [*again]
    differing = {str(path) for path, content in first.items() if again[path] != content}
    assert differing <= {"answer.json", "report.html"}  # by their command and date


@pytest.mark.release
def test_the_page_of_detectors_prints_what_it_quotes(folder, capsys):
    rng = np.random.default_rng(0)
    targets = [{"boxes": np.array([[20.0, 20, 60, 60]] * (number % 2))} for number in range(60)]
    outputs = [
        {
            "boxes": target["boxes"] + rng.integers(-9, 9, target["boxes"].shape),
            "scores": rng.random(len(target["boxes"])),
        }
        for target in targets
    ]
    names = {"outputs": outputs, "targets": targets, "labels": np.arange(60) % 2}
    names |= {"image_ids": [f"i{number:03d}" for number in range(60)]}
    names |= {"scores": rng.random(60), "patient_ids": np.arange(60) // 2}
    own, files, second, counts = blocks_of("detector-output.md")
    run(own, names)
    run(second, run(files))
    run_commands("detector-output.md")
    run(counts, names)
    require_quoted("detector-output.md", "".join(capsys.readouterr()))


@pytest.mark.release
def test_the_recipes_beyond_a_comparison_run(folder, world, capsys):
    shutil.copytree(world.data, "out/data")
    rng = np.random.default_rng(0)
    patients = np.repeat([f"p{number:03d}" for number in range(200)], 2)
    y = np.repeat(rng.random(200) < 0.4, 2).astype(int)
    a, b = (1 / (1 + np.exp(gain / 2 - gain * y - rng.normal(size=400))) for gain in (1.6, 0.9))
    names = {"y": y, "a": a, "b": b, "patients": patients}
    names["image_ids"] = [f"i{number:03d}" for number in range(400)]
    names["features"] = rng.normal(size=(400, 16)) + 0.3 * y[:, None]
    names["train"] = np.isin(patients, np.unique(patients)[:120])
    one = pd.DataFrame([["i0", 0, 0, 9, 9, 0.9], ["i1", 0, 0, 9, 9, 0.3]])
    names["boxes_a"] = one.set_axis(["image_id", *EDGES, "score"], axis=1)
    names["boxes_b"] = names["boxes_a"].assign(x1=1, score=[0.2, 0.4])
    for text in blocks_of("beyond.md"):
        run(text, names)
    printed = capsys.readouterr().out
    assert "patients for an interval of ±" in printed
    require_quoted("beyond.md", printed)
    assert len(names["result"].figures)
    called, positive = a >= 0.5, y == 1
    right, wrong = (called & positive).sum() / y.sum(), (called & ~positive).sum() / (1 - y).sum()
    assert names["lr_positive"] == pytest.approx(right / wrong)
    assert names["lr_negative"] == pytest.approx((1 - right) / (1 - wrong))
    log_odds = np.log(a / (1 - a))
    line = LogisticRegression(C=np.inf, tol=1e-10).fit(log_odds[:, None], y)
    assert names["slope"].params[1] == pytest.approx(line.coef_[0, 0], rel=1e-4)
    shifted = 1 / (1 + np.exp(-log_odds - names["large"].params[0]))
    assert shifted.sum() == pytest.approx(y.sum())
    ends = [*names["slope"].conf_int()[1], *names["large"].conf_int()[0]]
    assert ends[0] < line.coef_[0, 0] < ends[1]
    assert ends[2] < names["large"].params[0] < ends[3]
    joined = names["joined"].sort_index()  # of two boxes on one lesion the higher one
    assert joined[["image_id", "score"]].to_numpy().tolist() == [["i0", 0.9], ["i1", 0.4]]
    few, more = (names["parts"][f"healthy-{share}"] for share in (10, 30))
    assert cxr("split", "out/data", "--name", "healthy-10", "--file", "healthy.csv") == 0
    split = cxr_compare.DataSet.open("out/data").split("healthy-10").set_index("image_id")["role"]
    assert (split[few.index] == few).all()
    left_out = names["roles"][few == "unused"]
    assert not names["has_lesion"].reindex(left_out.index[left_out == "train"]).any()
    assert (few == "unused").sum() > (more == "unused").sum() >= (names["roles"] == "unused").sum()
    corners = [np.array([[0.0, 0, 10, 10]]), np.array([[5.0, 0, 25, 10], [20, 20, 30, 30]])]
    assert names["iobb"](*corners).tolist() == [[0.5, 0]]


def test_parts_of_a_split_are_nested_and_keep_patients_and_the_test_set(folder):
    ids = [f"i{n:03d}" for n in range(400)]
    patients = [f"nih:{n // 2}" for n in range(400)]
    labels = {"mass": [int(n // 2 % 3 == 0) for n in range(400)]}
    shutil.copytree(table_set(folder / "in", ids, labels, patient_id=patients), "out/data")
    (script,) = [text for text in blocks_of("splits.md") if "part-" in text]
    run(script)
    run_commands("splits.md", only="--name part-")
    data = cxr_compare.DataSet.open("out/data")
    default = data.split().set_index("image_id")["role"]
    patient_of = data.images.set_index("image_id")["patient_id"]
    smaller = set()
    for share in ("0.25", "0.5", "1"):
        part = data.split(f"part-{share}").set_index("image_id")["role"]
        kept = part[part != "unused"]
        assert (kept == default[kept.index]).all()
        assert (kept == "test").sum() == (default == "test").sum()
        assert smaller <= set(kept.index)
        assert (part.groupby(patient_of).nunique() == 1).all()
        smaller = set(kept.index)
        for role in ("train", "val"):
            n_kept, n_all = ((table == role).sum() for table in (kept, default))
            assert n_kept == pytest.approx(float(share) * n_all, abs=4)  # 2 images of 2 classes


@pytest.mark.release
def test_the_nightly_job_of_a_hospital_answers_each_night_once(folder, world, monkeypatch, capsys):
    for name, kind in (("retinanet", "detector"), ("chexnet", "classifier")):
        (folder / name).symlink_to(world.run(kind))
    (folder / "venv/bin").mkdir(parents=True)
    today = 'case "$*" in +%F) echo 2026-11-28;; *yesterday*) echo 2026-11-27;; *) echo now;; esac'
    for name, line in (("cxr", f'exec {shlex.join(PROGRAM)} "$@"'), ("date", today)):
        program = folder / "venv/bin" / name
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{folder / 'venv/bin'}{os.pathsep}{os.environ['PATH']}")
    films = sorted(world.xrays.rglob("*.dcm"))[:4]
    nights = {"2026-11-24": films[3:], "2026-11-25": [], "2026-11-26": films[:3]}
    nights |= {"2026-11-27": [], "2026-11-28": films[3:]}
    for night, files in nights.items():
        (folder / "inbox" / night).mkdir(parents=True)
        for file in files:
            shutil.copy(file, folder / "inbox" / night)
    for night in ("2026-11-25", "2026-11-26"):
        (folder / f"inbox/{night}/cut.dcm").write_bytes(films[0].read_bytes()[:500])
    script = (EXAMPLES / "night.sh").read_text()
    for command in cxr_commands(blocks_of("hospital.md", "sh")[0]):  # which the page quotes
        assert " ".join(command.split()) in " ".join(script.replace("\\\n", " ").split())
    (folder / "night").write_text(replaced(script, "/srv/cxr", str(folder)))
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))

    def mail():
        """What cron would mail of a call: the nights that are named."""
        done = subprocess.run(["sh", "night"], capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return re.findall(r"night (\S+): ", done.stdout)

    assert mail() == ["2026-11-25", "2026-11-26", "2026-11-27"]
    log = (folder / "nights.log").read_text()
    assert re.findall(r"night (\S+): exit status (\d+)", log) == [
        ("2026-11-24", "0"),
        ("2026-11-25", "1"),
        ("2026-11-26", "1"),
        ("2026-11-27", "0"),
    ]
    ids = [str(pydicom.dcmread(file)[name].value) for file in films for name in IDS_OF_HEADERS]
    printed = log + "".join(path.read_text() for path in (folder / "nights").glob("*.txt"))
    assert not [text for text in ids if text in printed]
    tables = {path: path.read_bytes() for path in sorted((folder / "nights").glob("*.csv"))}
    assert [path.stem for path in tables] == sorted(nights)[:4]
    assert [len(pd.read_csv(path)) for path in tables] == [2, 1, 7, 0]
    assert oct(next(iter(tables)).stat().st_mode & 0o777) == "0o600"
    assert mail() == []  # is done
    with (folder / "night.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        second = subprocess.run(["sh", "night"], capture_output=True, text=True, check=False)
    assert (second.returncode, bool(second.stdout)) == (2, True)
    shutil.rmtree(folder / "inbox/2026-11-27")
    assert mail() == ["2026-11-27"]  # no folder came
    assert (folder / "nights.log").read_text() == log

    watch = (EXAMPLES / "watch.py").read_text()

    def watched(*files):
        monkeypatch.setattr(sys, "argv", ["watch.py", *map(str, files)])
        return pd.DataFrame(run(watch)["rows"]).set_index("system")

    rows = watched(*tables)
    assert rows["images"].to_dict() == {"RetinaNet": 6, "CheXNet": 6}
    assert rows[["nights", "empty"]].to_numpy().tolist() == [[4, 1]] * 2
    np.testing.assert_allclose(rows["unreadable"], 2 / 6)
    of_none = watched(*list(tables)[1::2])
    assert of_none[["images", "nights", "empty", "unreadable"]].to_numpy().tolist() == [
        [1, 2, 1, 1]
    ]
    capsys.readouterr()


@pytest.mark.release
@pytest.mark.filterwarnings("ignore")
def test_an_overlay_becomes_a_secondary_capture(folder, world):
    pytest.importorskip("highdicom")
    header = pydicom.dcmread(next(world.xrays.rglob("*.dcm")))
    for name in ("PatientBirthDate", "AccessionNumber", "StudyID", "StudyDate", "StudyTime"):
        setattr(header, name, getattr(header, name, ""))
    header.ReferringPhysicianName = ""
    header.save_as("image.dcm")
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save("overlay.png")
    script = (EXAMPLES / "secondary_capture.py").read_text()
    assert run(script)["capture"].StudyInstanceUID == header.StudyInstanceUID
    assert (folder / "overlay.dcm").is_file()


@pytest.mark.release
def test_the_page_of_own_data_prints_what_it_quotes(folder, capsys):
    write_own_data(folder)
    follow("my-data.md", {})
    require_quoted("my-data.md", "".join(capsys.readouterr()))


def test_the_page_on_a_paper_takes_table_figures_and_names_of_files(folder, world):
    (folder / "out").mkdir()
    (folder / "out/report").symlink_to(world.report)
    (folder / "out/data").symlink_to(world.data)
    names = {}
    for text in blocks_of("paper.md"):
        run(text, names)
    assert Path("small.tex").read_text().startswith("\\begin{tabular}")
    assert Path("forest.pdf").is_file()
    assert names["counts"]["image_id"].sum() == len(names["data"].images) == names["sexes"].sum()
    answers = pd.read_csv("answers.csv")
    assert len(answers) == len(names["result"].decisions)
    assert all((world.xrays / path).is_file() for path in answers["path"])


@pytest.mark.release
def test_two_readers_are_joined_as_the_page_of_formats_says(folder):
    write_own_data(folder)
    (block,) = (text for text in blocks_of("formats.md") if "readers.csv" in text)
    run(block)
    run_commands("formats.md", only="out/two", ends_with=1)


def write_coco(path, names, side, label, boxes):
    """A COCO file of images with one box each, or none."""
    images = [
        {"id": n, "file_name": name, "width": side, "height": side} for n, name in enumerate(names)
    ]
    annotations = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": box}
        for n, box in enumerate(boxes)
        if box
    ]
    content = {"images": images, "annotations": annotations}
    path.write_text(json.dumps({**content, "categories": [{"id": 1, "name": label}]}))


def write_own_data(folder):
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
    boxes = [[70, 60, 40, 45] if is_sick else None for is_sick in sick]
    write_coco(
        folder / "annotations.json", [f"{name}.png" for name in names], 128, "opacity", boxes
    )
    pd.DataFrame({"image_id": names[6:8], "reason": "child"}).to_csv(folder / "exclude.csv")
    for hospital, rows in (("north", table[:120]), ("south", table[120:])):  # two sets as one
        rows[["file", "label", "patient"]].to_csv(folder / f"{hospital}.csv", index=False)
        (folder / "hospitals" / hospital).mkdir(parents=True)
        for file in rows["file"]:
            shutil.copy(folder / "images" / file, folder / "hospitals" / hospital)
    films = {"normal": "film-n{:03d}.png", "pneumonia": "film-p{:03d}.png"}  # two class folders
    for kind, name in films.items():
        (folder / "xrays" / kind).mkdir(parents=True)
        for number in range(60):
            pixels = Image.fromarray(rng.integers(20, 230, (12, 12), dtype=np.uint8))
            pixels.resize((64, 64)).save(folder / "xrays" / kind / name.format(number))
    names = [f"film-p{n:03d}.png" for n in range(0, 60, 2)]
    write_coco(folder / "boxes.json", names, 64, "pneumonia", [[35, 30, 20, 20]] * 30)


def small_training(config, *, set_=None, **given):
    """In place of `cxr_compare.train` in a script: one epoch of a small model."""
    small = {**(set_ or {}), **ONE_EPOCH, **SMALL_MODELS[config]}
    return cxr_compare.train(config, set_=small, **given)


def run_small(script, names=None):
    """Run a script whose trainings are small, and return the names that it leaves."""
    names = {} if names is None else names
    names["small_training"] = small_training
    return run(script.replace("cxr_compare.train(", "small_training("), names)


@pytest.mark.release
@pytest.mark.filterwarnings("ignore")  # of optuna
def test_the_sweep_trains_each_trial_and_continues_with_more(folder, world, capsys):
    pytest.importorskip("optuna")
    (folder / "out").mkdir()
    (folder / "out/data").symlink_to(world.data)
    script = (EXAMPLES / "sweep.py").read_text()
    script = replaced(script, "n_trials=8", "n_trials=1")
    run_small(script)
    assert re.match(r"out/sweep/000: .*learning_rate", capsys.readouterr().out)
    run_small(script)
    trials = sorted(path.parent.name for path in folder.glob("out/sweep/*/run.json"))
    assert trials == ["000", "001"]


def test_a_training_in_plain_pytorch_learns_the_boxes_and_its_report_has_its_scores(
    folder, world, monkeypatch
):
    monkeypatch.setattr(sys, "argv", ["train_retinanet.py", str(world.data), "report"])
    script = (EXAMPLES / "train_retinanet.py").read_text()
    script = replaced(script, "RATE = 128, 4,", "RATE = 96, 1,")
    names = run(script, {"__name__": "__main__"})
    true, found = names["data"].boxes, names["systems"]["RetinaNet"]
    learned = np.vstack([target["boxes"] for _, target in names["squares"]])
    is_learned = true["image_id"].isin(names["squares"].image_ids)
    # The images have 96 px, as their squares have.
    drawn = true[is_learned].sort_values("image_id", kind="stable")[EDGES].to_numpy()
    assert learned == pytest.approx(drawn, abs=1e-3)
    result = cxr_compare.Result.open("report")
    scores = result.decisions.set_index("image_id")["score"]
    best = found.groupby("image_id")["score"].max().reindex(scores.index, fill_value=0.0)
    assert scores.to_numpy() == pytest.approx(best.to_numpy())
    of_test = [t[t["image_id"].isin(scores.index)] for t in (found, true[["image_id", *EDGES]])]
    figures = result.figures.query("metric == 'ap50' and first == 'RetinaNet' and second == ''")
    (ap50,) = figures["estimate"]
    expected = cxr_compare.metrics.box_average_precision(*of_test, [*scores.index])
    assert ap50 == pytest.approx(expected["ap50"])


@pytest.mark.release
@pytest.mark.filterwarnings("ignore")  # of Lightning and matplotlib
def test_the_page_of_own_parts_is_followed(folder, world, capfd):
    (folder / "out").mkdir()
    (folder / "out/data").symlink_to(world.data)
    names = {"__name__": "pasted"}
    for text in blocks_of("own-parts.md"):
        run_small(text, names)
    assert list(Path("out/all-trainings").rglob("metrics.csv"))
    assert len(cxr_compare.DataSet.open("out/spots").boxes) == 40
    assert len(names["answers"]) == 80
    assert len(names["draws"]) > 100
    targets = [{"boxes": np.array([[9.0, 9, 30, 30]] * n).reshape(-1, 4)} for n in (1, 0) * 8]
    outputs = [{**each, "scores": np.full(len(each["boxes"]), 0.9)} for each in targets]
    found = names["figures_of_epoch"](outputs, targets, range(16))
    assert (found["ap50"], found["auroc"]) == (1, 1)


@pytest.mark.release
@pytest.mark.filterwarnings("ignore")
def test_the_notebook_of_the_tutorial_runs_on_a_small_set(folder):
    names = {}
    for cell in json.loads((DOCS / "tutorial.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            script = "".join(cell["source"])
            run_small(script.replace('"), 400, 1000', '"), 60, 200'), names)
    assert len(names["result"].figures)
    assert Path("tour-output/report/report.html").is_file()


@pytest.fixture
def exported(folder, world):
    """The export of a detector, and an image of its own that a threshold calls positive."""
    shutil.copytree(world.export("detector"), folder / "out/retinanet-onnx")
    file = next(world.xrays.rglob("*.dcm"))
    pixels = cxr_compare.DataSet.open(world.data).read_original(file.stem)[:, 6:]
    description = Image.Exif()
    description[ExifTags.Base.ImageDescription] = (
        "Synthetic chest X-ray"  # else a run of drawings has no answer
    )
    Image.fromarray(pixels).save("xray.png", exif=description)
    return folder / "out/retinanet-onnx"


def test_onnx_runtime_alone_gives_the_answer_of_predict(exported, capsys):
    assert cxr("predict", exported, "xray.png", "--policy", "threshold=0.001", "--json") == 0
    (answer,) = json.loads(capsys.readouterr().out)
    script = (EXAMPLES / "onnx_answer.py").read_text()
    names = run(replaced(script, "threshold = 0.31", "threshold = 0.001"))
    assert names["score"] == pytest.approx(answer["score"], abs=1e-5)
    assert capsys.readouterr().out.splitlines()[0].endswith("positive")
    assert answer["boxes"]
    for box in answer["boxes"]:
        apart = np.abs(names["boxes"] - [box[edge] for edge in EDGES]).max(axis=1)
        near = int(apart.argmin())
        assert apart[near] < 0.1
        assert names["scores"][near] == pytest.approx(box["score"], abs=1e-4)
