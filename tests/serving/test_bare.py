"""An export answers where nothing is installed but what its requirements.txt names: no torch."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

from cxr_compare.serving.export import REQUIREMENTS_FILE
from cxr_compare.serving.run import Run
from tests.test_wheel import needed

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.xdist_group("bare")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, systems: dict[str, tuple[Path, Run]]) -> Path:
    """The interpreter of an environment of an export's requirements and what these need."""
    requirements = (systems["boxes"][0] / REQUIREMENTS_FILE).read_text().splitlines()
    venv = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (folder,) = venv.glob("lib/*/site-packages")
    done: set[tuple[str, str]] = set()
    names = {
        name for text in requirements for name in needed(Requirement(text).name, frozenset(), done)
    }
    for distribution in map(metadata.distribution, names):
        for top in {path.parts[0] for path in distribution.files or [] if path.parts[0] != ".."}:
            if not (folder / top).exists():
                (folder / top).symlink_to(str(distribution.locate_file(top)))
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
    command = [str(argument) for argument in (python, *arguments)]
    return subprocess.run(command, env={**inherited, **variables}, capture_output=True, text=True)


def _cxr(python: Path, *arguments: str | Path) -> subprocess.CompletedProcess:
    start = "from cxr_compare.scripts.cli import main; main()"
    return _run(python, "-c", start, *arguments, PYTHONPATH=str(ROOT))


def _nearly(entry: dict[str, Any]) -> dict[str, Any]:
    boxes = [
        {k: v if isinstance(v, str) else pytest.approx(v, abs=1e-2) for k, v in box.items()}
        for box in entry["boxes"]
    ]
    numbers = {k: pytest.approx(v, abs=1e-4) for k, v in entry.items() if isinstance(v, float)}
    findings = pytest.approx(entry["findings"], abs=1e-4)
    return {**entry, **numbers, "findings": findings, "boxes": boxes}


def test_an_export_answers_without_torch_as_its_run_does(bare, systems, images, tmp_path):
    assert "No module named 'torch'" in _run(bare, "-c", "import torch").stderr
    folders = [folder for folder, _ in systems.values()]
    assert all("==" in line for line in (folders[0] / REQUIREMENTS_FILE).read_text().splitlines())
    table, overlays = tmp_path / "answers.csv", tmp_path / "overlays"
    done = _cxr(bare, "predict", *folders, *images, "--json", "--csv", table, "--out", overlays)
    assert done.returncode == 0, done.stderr
    expected = [
        _nearly(loaded.predict(image).to_json())
        for image in images
        for _, loaded in systems.values()
    ]
    assert json.loads(done.stdout) == expected
    assert any(entry["decision"] == "positive" and entry["boxes"] for entry in expected)
    assert "a colour image; X-rays are grey" in done.stderr
    assert len(list(overlays.iterdir())) == len(images)
    assert len(table.read_text().splitlines()) == 1 + len(expected)
