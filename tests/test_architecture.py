"""The rules of the house that a newcomer must not break by accident."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import cli

ROOT = Path(__file__).resolve().parents[1]
ROOMS = sorted(p.parent.name for p in ROOT.glob("*/__init__.py"))
FILES = sorted(path for room in ROOMS for path in (ROOT / room).glob("*.py"))


def test_setup_cfg_lists_every_room_and_no_tests() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    packages = config["options"]["packages"].split()
    assert packages == ROOMS == list(cli.ROOMS)  # the last guards against strangers
    assert "tests" not in packages


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_no_second_level_of_folders(room: str) -> None:
    folders = [p.name for p in (ROOT / room).iterdir() if p.is_dir() and p.name != "__pycache__"]
    assert folders == []


@pytest.mark.parametrize("room", ROOMS)
def test_init_holds_only_a_docstring(room: str) -> None:
    body = ast.parse((ROOT / room / "__init__.py").read_text()).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_file_is_at_most_300_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_names_say_what_things_do(path: Path) -> None:
    banned = {"data", "utils", "helper", "helpers", "manager", "process"}
    assert path.stem not in banned
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            assert not node.name.startswith("do_")
            assert node.name.lower() not in banned


@pytest.mark.parametrize("room", ["data_prep", "evaluation"])
def test_room_imports_without_torch(room: str) -> None:
    modules = [f"{room}.{p.stem}" for p in (ROOT / room).glob("*.py") if p.stem != "__init__"]
    # A finder that refuses, not None in sys.modules: scipy looks there for torch itself.
    code = (
        "import importlib, sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'torch', 'torchvision', 'lightning'}:\n"
        "            raise ModuleNotFoundError(name + ' is blocked', name=name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom scripts.cli import build_app\n"
        "try: build_app()(['--help'], standalone_mode=False)\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'pandas', 'sklearn', 'matplotlib', 'numpy', 'scipy', 'rich'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "LOADED []" in done.stdout
    assert "compare" in done.stdout


def test_every_public_function_and_class_has_a_docstring() -> None:
    missing = []
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"
            if public and ast.get_docstring(node) is None:
                missing.append(f"{path.relative_to(ROOT)}:{node.name}")
    assert missing == []


def test_every_public_name_is_found_where_it_is_said_to_be() -> None:
    import cxr_compare

    for name in cxr_compare.__all__:
        assert getattr(cxr_compare, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'teleport'"):
        _ = cxr_compare.teleport


def test_importing_the_public_names_loads_nothing_heavy() -> None:
    code = "import sys, cxr_compare; print({'torch', 'pandas', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_version_is_the_same_everywhere() -> None:
    import cxr_compare

    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["metadata"]["version"] == cxr_compare.__version__
    assert f"version: {cxr_compare.__version__}" in (ROOT / "CITATION.cff").read_text()
