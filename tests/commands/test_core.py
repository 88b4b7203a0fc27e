"""Commands and functions where the packages of `pip install .` are installed, and no others."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from PIL import Image

from tests.adapters.commands import EXTRAS, NAMES
from tests.adapters.documents import code_blocks
from tests.adapters.workers import STARTS_PROCESSES
from tests.project.test_package import CONFIG, ROOT

# Links to packages are on the path in place of the environment of the tests; a module that Python
# lacks on Windows and in a browser is hidden. Each script runs with the same names; of each call of
# cxr the exit status and the lines are returned.
PROGRAM = """
import contextlib, io, json, sys
sys.modules["fcntl"] = None  # importing it is an ImportError
import numpy as np
import pandas as pd
from tests.adapters.commands import cxr

given = json.load(sys.stdin)
names, answers = {}, []
for script in given.get("scripts", ()):
    exec(script, names)
for words in given.get("calls", ()):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        status = cxr(*words)
    answers.append([status, said.getvalue()])
print(json.dumps({"answers": answers, "loaded": sorted(sys.modules)}))
"""
USERS_OWN = """
import json
from pathlib import Path

import numpy as np
import pandas as pd

rng = np.random.default_rng(0)
image_ids = [f"i{number:03d}" for number in range(60)]
patient_ids = np.arange(60) // 2
labels = np.arange(60) % 2
corners = [np.array([[20.0, 20, 60, 60]] * label).reshape(-1, 4) for label in labels]
targets = [{"boxes": each} for each in corners]
outputs = [{"boxes": each + 3, "scores": rng.random(len(each))} for each in corners]
scores, scores_a, scores_b = rng.random((3, 60))
"""
FILES = """
import cxr_compare
from cxr_compare import *

assert sorted(cxr_compare.Result.open("report").figures) and result.plot("roc")
roles = np.repeat(["val", "test"], 30)
truth.assign(role=roles).to_csv("truth.csv", index=False)
true_boxes.to_csv("boxes.csv", index=False)
pd.DataFrame({"image_id": image_ids, "score": scores}).to_csv("scores.csv", index=False)
size = {"width": 90, "height": 80}
images = [{"id": number, "file_name": name, **size} for number, name in enumerate(image_ids)]
found = [
    {"image_id": int(name[1:]), "category_id": 1, "bbox": [20, 30, 15, 25], "id": place}
    for place, name in enumerate(true_boxes["image_id"], start=1)
]
labels = {"images": images, "annotations": found, "categories": [{"id": 1, "name": "mass"}]}
with open("truth.json", "w") as file:
    json.dump(labels, file)
for system, moved in (("a", 2), ("b", 30)):
    with open(f"{system}.json", "w") as file:
        json.dump([each | {"bbox": [20 + moved, 30, 15, 25], "score": 0.5} for each in found], file)
Path("yolo").mkdir()
Path("yolo/data.yaml").write_text("names: [mass]")
for number, name in enumerate(image_ids):
    line = f"0 0.3 0.5 0.2 0.3 {scores[number]}"
    Path(f"yolo/{name}.txt").write_text(line if number % 2 else "")
"""
QUICK = ["--replicates", "100"]
CALLS = [
    *([name, "--help"] for name in NAMES),
    ["compare", "--truth", "truth.json", "A=a.json", "B=b.json", "Y=yolo", "--out", "coco",
     *QUICK],
    ["compare", "--truth", "truth.csv", "--boxes", "boxes.csv", "S=scores.csv", "--out", "csv",
     *QUICK],
    ["show", "csv"],
    ["configs", "chexnet"],
]  # fmt: skip


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    """Return a folder with links to the packages that `pip install .` installs."""
    folder = tmp_path_factory.mktemp("core")
    _link(metadata.distribution("cxr-compare"), folder)  # of a clone: its version
    waiting = CONFIG["options"]["install_requires"].split("\n")
    installed = set()
    while waiting:
        wanted = waiting.pop()
        if not wanted or (named := Requirement(wanted)).name in installed:
            continue
        if named.marker is None or named.marker.evaluate({"extra": ""}):
            installed.add(named.name)
            package = metadata.distribution(named.name)
            _link(package, folder)
            waiting += package.requires or ()
    return folder


def _link(package: metadata.Distribution, folder: Path) -> None:
    for name in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
        if not (folder / name).exists():
            (folder / name).symlink_to(package.locate_file(name))


def _usual(name: str) -> str:
    """Return the name of a package as requirements write it."""
    return name.lower().replace("_", "-")


def run(core: Path, cwd: Path, **given):
    """Run scripts and commands in the environment, and return what they answered."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", PROGRAM],
        input=json.dumps(given), text=True, capture_output=True, cwd=cwd, check=False,
        env={**os.environ, "PYTHONPATH": f"{core}{os.pathsep}{ROOT}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_arrays_boxes_and_files_are_compared_saved_and_shown(core, tmp_path):
    readme = [text for kind, text in code_blocks(ROOT / "README.md") if kind == "python"]
    answer = run(core, tmp_path, scripts=[USERS_OWN, *readme, FILES], calls=CALLS)
    assert [(status, said) for status, said in answer["answers"] if status] == []
    for name in ("report", "coco", "csv"):
        assert (tmp_path / name / "report.html").is_file()
    names = metadata.packages_distributions()
    used = {_usual(each) for name in answer["loaded"] for each in names.get(name, ())}
    required = CONFIG["options"]["install_requires"].split("\n")
    assert {Requirement(line).name for line in required if line} <= used
    unused = {each for modules in EXTRAS.values() for each in modules}
    assert (unused | {STARTS_PROCESSES}).isdisjoint(answer["loaded"])


def test_what_needs_an_extra_is_refused_in_one_line_that_names_it(core, world, tmp_path):
    tables, data = world.tables, world.data
    truth = ["compare", f"D={tables / 'boxes.csv'}", "--truth", tables / "truth.csv"]
    (tmp_path / "truth.xlsx").write_bytes(b"PK\x03\x04")
    (tmp_path / "yolo").mkdir()
    Image.new("L", (90, 80)).save(tmp_path / "yolo/a.png")
    (tmp_path / "yolo/a.txt").write_text("0 0.5 0.5 0.2 0.2")
    run_folder, out = world.run("classifier"), tmp_path / "out"
    refused = {
        "images": [
            ["synth", out],
            ["prepare", world.xrays, out],
            ["check", data],
            ["split", data, "--name", "new"],
            ["overlay", world.predictions("detector"), "--data", data, "--out", out],
            ["predict", world.export("classifier"), world.pictures],
            [*truth, "--images", world.pictures],
            ["export", data, out, "--format", "yolo"],
            ["compare", "--truth", "yolo", f"D={tables / 'boxes.csv'}"],
            ["compare", "--truth", "truth.xlsx", f"D={tables / 'boxes.csv'}"],
        ],
        "train": [
            ["train", "chexnet_small", "--data", data, "--out", out],
            ["predict", run_folder, world.pictures],
            ["compare", run_folder, "--data", data],
        ],
        "serve": [["serve", run_folder]],
        "export": [["export", run_folder, out, "--format", "onnx"]],
    }
    calls = [[str(word) for word in call] for of in refused.values() for call in of]
    extras = [extra for extra, of in refused.items() for _ in of]
    answers = run(core, tmp_path, calls=calls)["answers"]
    for call, extra, (status, said) in zip(calls, extras, answers, strict=True):
        assert (status, said.count("\n")) == (2, 1), (call, said)
        assert f"pip install '.[{extra}]'" in said, (call, said)
    assert not out.exists()


def test_an_extra_is_refused_by_the_packages_that_setup_cfg_installs_for_it():
    """An extra holds those that it builds on, and its modules are of packages that it names."""
    names = metadata.packages_distributions()
    required = {
        extra: [Requirement(line) for line in lines.split("\n") if line]
        for extra, lines in CONFIG["options.extras_require"].items()
    }
    for extra, modules in EXTRAS.items():
        below = [each for line in required[extra] for each in line.extras]
        inherited = {module for name in below for module in EXTRAS[name]}
        assert inherited <= {*modules}
        of_packages = {line.name for line in required[extra]}
        for module in {*modules} - inherited:
            assert of_packages & {_usual(name) for name in names[module]}, module
