"""Wrong input of every command: exit status 2, one line with file, place and value, no traces."""

import base64
import shutil
import socket
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cxr_compare
from tests.adapters.commands import cxr
from tests.adapters.sets import data_page_only_if
from tests.advised import assert_leads_on, options_as_in_python, words_after
from tests.cases import load
from tests.dicom_files import file_content

REFUSED = 2
QUICK = {"prepare": ["--workers", "0"], "compare": ["--replicates", "100"]}  # advice is followed


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """24 images of 12 patients with labels of two findings."""
    folder = tmp_path_factory.mktemp("refusals") / "source"
    (folder / "images").mkdir(parents=True)
    lines = ["image_id,patient_id,mass,nodule"]
    rng = np.random.default_rng(5)
    for number in range(24):
        name = f"i{number:02d}"
        lines.append(f"{name},p{number // 2:02d},{number // 2 % 2},{number // 4 % 2}")
        pixels = rng.integers(0, 256, (5, 4), dtype=np.uint8)  # coarse, so that none is a copy
        Image.fromarray(pixels).resize((40, 50)).save(folder / "images" / f"{name}.png")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def data_set(source):
    """The data set of these images, without boxes."""
    out = source.parent / "set"
    cxr_compare.prepare(source / "labels.csv", source / "images", out, workers=0)
    return out


@pytest.fixture
def taken():
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


_WORLD = {
    "data": lambda world: world.data,
    "xrays": lambda world: world.xrays,
    "xray": lambda world: min((world.xrays / "stage_2_train_images").iterdir()),
    "report": lambda world: world.report,
    "tables_report": lambda world: world.tables_report,
    "classifier": lambda world: world.run("classifier"),
    "detector": lambda world: world.run("detector"),
    "classifier_predictions": lambda world: world.predictions("classifier"),
    "detector_predictions": lambda world: world.predictions("detector"),
}
_FIXTURES = {"source": "source", "set": "data_set", "taken": "taken"}


def parts_of(case, request):
    """The parts of the small world that a call names, each made when it is first asked for."""
    names = {name for word in case["call"] for _, name, _, _ in string.Formatter().parse(word)}
    names = {name for name in names if name is not None}
    return {
        name: request.getfixturevalue(_FIXTURES[name])
        if name in _FIXTURES
        else _WORLD[name](request.getfixturevalue("world"))
        for name in sorted(names)
    }


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content)
        elif "image" in content:
            width, height = content["image"]
            seed = sum(name.encode())
            coarse = np.random.default_rng(seed).integers(0, 256, (5, 4), dtype=np.uint8)
            Image.fromarray(coarse).resize((width, height)).save(path)
        elif "dicom" in content:
            path.write_bytes(file_content(content["dicom"]))
        elif "base64" in content:
            path.write_bytes(base64.b64decode(content["base64"]))
        else:
            path.write_text(content["text"])
            path.chmod(int(content["mode"], 8))


def damage(path, change, parts):
    """Take a file away, cut it, or put something in its place."""
    if change is None:
        path.unlink()
    elif "cut" in change:
        path.write_bytes(path.read_bytes()[: -change["cut"]])
    elif "copy" in change:
        shutil.copy(change["copy"].format(**parts), path)
    else:
        path.write_text(change["text"])


def state_of(folder):
    """Every file below a folder with its size and time; a folder as itself."""
    found = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
        facts = path.stat()
        found[path] = (facts.st_size, facts.st_mtime_ns) if path.is_file() else "folder"
    return found


def outcome(words, capsys):
    """Call `cxr` as far as possible in this process: ("read", None), or ("refused", line)."""
    with data_page_only_if(False):
        status = cxr(*words, *(word for word in QUICK[words[0]] if word not in words))
    lines = capsys.readouterr().err.splitlines()
    return ("refused", lines[-1].removeprefix("cxr: ")) if status else ("read", None)


@pytest.mark.parametrize("case", load("inputs/refusals.json"))
def test_wrong_input_is_one_line_and_leaves_no_trace(case, request, tmp_path, monkeypatch, capsys):
    if case.get("needs") == "no GPU" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    parts = parts_of(case, request)
    here = tmp_path / "here"
    here.mkdir()
    write(here, case.get("files", {}))
    damaged = {name[1:].partition("}")[0] for name in case.get("damage", ())}
    for name in parts if case.get("copied") else damaged:
        parts[name] = shutil.copytree(parts[name], tmp_path / name)
    for name, change in case.get("damage", {}).items():
        damage(Path(name.format(**parts)), change, parts)
    monkeypatch.chdir(here)
    monkeypatch.delenv("CXR_TOKEN", raising=False)
    watched = [here, *(part for part in parts.values() if not isinstance(part, int))]
    before = [state_of(folder) for folder in watched]
    capsys.readouterr()
    status = cxr(*(word.format(**parts) for word in case["call"]))
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if not line.startswith("WARNING")]
    if case.get("reads_first"):
        lines = [line for line in lines[:-1] if line.startswith("cxr: ")] + lines[-1:]
    assert status == REFUSED, shown.err
    assert shown.out == ""
    assert all(line.startswith("  ") for line in lines[1:]), shown.err  # a way on each
    whole = " ".join(line.strip() for line in lines)
    assert options_as_in_python(whole) == []
    named = [part.format(**parts) for part in case["refused"]]
    assert [part for part in named if part not in whole] == []
    assert [state_of(folder) for folder in watched] == before
    if case["call"][0] in QUICK and not parts:
        line = whole.removeprefix("cxr: ")
        assert_leads_on(line, case["call"], lambda words: outcome(words, capsys), words_after)
