"""An export answers where nothing is installed but numpy, OpenCV, pydicom and one runtime."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

from serving.answer import LoadedRun
from serving.exported.answers import main
from serving.exported.program import PROGRAM_FILE, program_files

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("numpy", "opencv-python-headless", "pydicom", "onnxruntime")

pytestmark = pytest.mark.xdist_group("bare")


def _distributions(name: str, found: dict[str, metadata.Distribution]) -> None:
    """A distribution and all that it needs."""
    if name in found:
        return
    found[name] = metadata.distribution(name)
    for text in found[name].requires or []:
        need = Requirement(text)
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            _distributions(need.name, found)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds these packages and no others."""
    venv = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (folder,) = venv.glob("lib/*/site-packages")
    found: dict[str, metadata.Distribution] = {}
    for name in PACKAGES:
        _distributions(name, found)
    for each in found.values():
        for top in {path.parts[0] for path in each.files or [] if path.parts[0] != ".."}:
            if not (folder / top).exists():
                (folder / top).symlink_to(str(each.locate_file(top)))
    return venv / "bin/python"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> list[Path]:
    """A JPEG inside DICOM, and files of two more kinds."""
    folder = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(1).integers(0, 256, (90, 120), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "noise.png")
    Image.fromarray(np.dstack([pixels, pixels // 2, pixels])).save(folder / "colour.jpg")
    dicom = next(iter(sorted((shared_data / "rsna").rglob("*.dcm"))))
    return [dicom, folder / "noise.png", folder / "colour.jpg"]


def _run(python: Path, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess:
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [str(each) for each in (python, *arguments)]
    return subprocess.run(command, env={**inherited, **variables}, capture_output=True, text=True)


def _nearly(entry: dict[str, Any]) -> dict[str, Any]:
    boxes = [
        {k: v if isinstance(v, str) else pytest.approx(v, abs=1e-2) for k, v in box.items()}
        for box in entry["boxes"]
    ]
    numbers = {k: pytest.approx(v, abs=1e-4) for k, v in entry.items() if isinstance(v, float)}
    return {**entry, **numbers, "boxes": boxes}


def test_the_program_answers_in_a_bare_environment_as_the_run_does(
    bare: Path, systems: dict[str, tuple[Path, LoadedRun]], images: list[Path]
) -> None:
    folders = [folder for folder, _ in systems.values()]
    done = _run(bare, folders[0] / PROGRAM_FILE, *folders, *images, "--json")
    assert done.returncode == 0, done.stderr
    expected = [
        _nearly(loaded.predict(image).to_json())
        for image in images
        for _, loaded in systems.values()
    ]
    assert json.loads(done.stdout) == expected
    assert any(entry["decision"] == "positive" and entry["boxes"] for entry in expected)
    assert "a colour image; X-rays are grey" in done.stderr


def test_the_program_of_an_export_needs_no_folder_named_and_the_module_none_of_the_program(
    bare: Path, systems: dict[str, tuple[Path, LoadedRun]], images: list[Path]
) -> None:
    folder, loaded = systems["scores"]
    by_program = _run(bare, folder / PROGRAM_FILE, images[0], "--policy", "youden")
    assert by_program.returncode == 0, by_program.stderr
    by_module = _run(
        bare,
        "-m",
        "serving.exported",
        folder,
        images[0],
        "--policy",
        "youden",
        PYTHONPATH=str(ROOT),
    )
    assert by_program.stdout == by_module.stdout
    assert f"{images[0]}  CheXNet  negative  probability 0." in by_program.stdout
    assert loaded.predict(images[0]).score == pytest.approx(
        float(by_program.stdout.split("score ")[1].split()[0]), abs=1e-3
    )


def test_bad_input_is_one_line_and_other_images_are_answered(
    systems: dict[str, tuple[Path, LoadedRun]],
    images: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = str(systems["scores"][0])
    for arguments, said in (
        ([str(images[0])], "is not an export"),
        ([folder], "give images or folders of images behind the export"),
        (
            [folder, str(images[0]), "--policy", "x"],
            "no operating point for the policy 'x'; it has",
        ),
        ([folder, str(tmp_path / "none.dcm")], "no such file or folder"),
        ([f"A={tmp_path}", str(images[0])], "is not an export; NAME=PATH names one of cxr export"),
    ):
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert said in captured.err
        assert captured.err.count("\n") == 1
    (tmp_path / "a.txt").write_text("text")
    assert main([folder, str(tmp_path / "a.txt"), str(images[1])]) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 1
    assert "left out: " in captured.err


def test_the_program_holds_all_modules_it_imports_and_nothing_that_needs_more(
    systems: dict[str, tuple[Path, LoadedRun]], bare: Path
) -> None:
    with zipfile.ZipFile(systems["scores"][0] / PROGRAM_FILE) as archive:
        names = {name for name in archive.namelist() if name != "__main__.py"}
    assert names == {path.relative_to(ROOT).as_posix() for path in program_files()}
    modules = [
        name.removesuffix(".py").replace("/", ".") for name in names if "__init__" not in name
    ]
    # Every one of them is imported from the archive alone, by the bare environment.
    code = f"import importlib\nfor name in {modules!r}: importlib.import_module(name)"
    done = _run(bare, "-c", code, PYTHONPATH=str(systems["scores"][0] / PROGRAM_FILE))
    assert done.returncode == 0, done.stderr
    for path in program_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("serving."):
                inside = node.module.replace(".", "/") + ".py"  # type: ignore[union-attr]
                assert inside in names, f"{path} imports {inside}"
