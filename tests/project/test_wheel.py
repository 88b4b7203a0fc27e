"""The wheel: complete, usable beside packages of any name, without a network; and its site."""

import ast
import builtins
import os
import re
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.project.test_package import PACKAGES

ROOT = Path(__file__).resolve().parents[2]
TO_BUILD = [*PACKAGES, "cxr_compare", "pyproject.toml", "setup.cfg", "README.md", "LICENSE"]

pytestmark = [pytest.mark.release, pytest.mark.xdist_group("wheel")]


def build(kind: str, source: Path, out: Path) -> Path:
    """Build an sdist or a wheel, without an environment of its own."""
    build = f"from setuptools import build_meta; build_meta.build_{kind}({str(out)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of what the wheel is built from: a build leaves folders in its source."""
    source = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in TO_BUILD:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source)
    return source


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an environment with the wheel; its requirements are those of the testing one."""
    return bare_environment(wheel, tmp_path_factory.mktemp("bare"))


def bare_environment(wheel: Path, folder: Path) -> Path:
    """Make an environment with a wheel; its requirements are those of the testing one."""
    venv = environment(folder)
    _pip(venv, "install", "--quiet", "--no-deps", "--no-index", "--no-compile", wheel)
    return venv


def environment(folder: Path, *sources: Path) -> Path:
    """Make an environment with source folders and what the testing one has, but for this clone."""
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (packages,) = venv.glob("lib/*/site-packages")
    # An editable installation of the testing environment is none here: its .pth file is not read.
    (packages / "needed.pth").write_text("\n".join([*map(str, sources), *site.getsitepackages()]))
    return venv


def _pip(venv: Path, *arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--python", venv / "bin/python", *arguments]
    done = run(command, venv)
    assert done.returncode == 0, done.stderr


def run(command: list[str | Path], cwd: Path, **variables: str) -> subprocess.CompletedProcess:
    """Run a command without PYTHONPATH: a clone named there would count as installed."""
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        command, cwd=cwd, env={**inherited, **variables}, capture_output=True, text=True
    )


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_wheel_contains_every_file_of_its_packages_below_one_name(wheel):
    own = ("__init__.py", "metrics.py", "py.typed")
    expected = {f"cxr_compare/{name}" for name in own} | {
        f"cxr_compare/{path.relative_to(ROOT)}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert _names(wheel) - expected == set()
    of_a_clone = {"environment.sh", "full_size.sh", "full_size.toml", "quickstart"}
    of_a_clone |= {"check", "gate", "test", "test_oldest"}
    assert expected - _names(wheel) == {f"cxr_compare/scripts/{name}" for name in of_a_clone}


USE = """\
import cxr_compare as cxr
report = cxr.compare({"A": [0.1, 0.9]}, truth=[0, 1])
reveal_type(report)
reveal_type(report.table)
reveal_type(cxr.compare({"A": [0.1, 0.9]}, truth="labels.csv", target=["mass", "edema"]))
reveal_type(cxr.DataSet.open("data"))
reveal_type(cxr.train("chexnet", data="data", out="run"))
number: int = cxr.metrics.auroc([0, 1], [0.1, 0.9])
cxr.compare({}, trut=[0, 1])
"""
# What pages use beside the package: reading it takes minutes and tells nothing of ours.
SKIPPED = "albumentations cv2 lightning matplotlib PIL scipy sklearn timm torch torchvision"


@pytest.fixture(scope="module")
def type_checked(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return what mypy says of `USE` and of the Python of README and docs.

    Names that a block takes from the text before it are of any type.
    """
    folder = tmp_path_factory.mktemp("typed")
    (folder / "use.py").write_text(USE)
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
        for number, block in enumerate(blocks):
            module = f"{page.stem}_{number}".replace("-", "_")
            (folder / f"{module}.py").write_text(_given_names(block) + block)
    for script in (ROOT / "docs/examples").glob("*.py"):
        shutil.copy(script, folder)
    skipped = ",".join(f"{name}.*" for name in SKIPPED.split())
    (folder / "mypy.ini").write_text(
        "[mypy]\nignore_missing_imports = True\n"
        "disable_error_code = var-annotated\n"  # of the page's own lists
        f"[mypy-{skipped}]\nfollow_imports = skip\n"
    )
    files = sorted(path.name for path in folder.glob("*.py"))
    assert len(files) > 40
    python = ["--python-executable", bare / "bin/python", "--cache-dir", folder / "cache"]
    done = run([sys.executable, "-m", "mypy", *python, *files], folder)
    return done.stdout.splitlines()


def _given_names(block: str) -> str:
    """Return declarations of the names that a block uses and does not define."""
    tree = ast.parse(block)
    defined = set(dir(builtins))
    used = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else defined).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
        elif isinstance(node, ast.alias):
            defined.add((node.asname or node.name).partition(".")[0])
    stored: set[str] = set()
    for statement in tree.body:  # such as labels = pd.Series(labels)
        names = [node for node in ast.walk(statement) if isinstance(node, ast.Name)]
        loads = {node.id for node in names if isinstance(node.ctx, ast.Load)}
        new = {node.id for node in names if isinstance(node.ctx, ast.Store)} - stored
        if isinstance(statement, ast.Assign):
            defined -= loads & new
        stored |= new
    lines = [f"{name}: Any\n" for name in sorted(used - defined - {"cxr", "cxr_compare"})]
    return "".join(["from typing import Any\nimport cxr_compare, cxr_compare as cxr\n", *lines])


def test_a_users_type_checker_sees_the_types_of_the_installed_package(type_checked):
    said = [
        [line for line in type_checked if line.startswith(f"use.py:{number}:")]
        for number in range(1, 10)
    ]
    assert said[0] == said[1] == []
    expected = {3: "Result", 4: "DataFrame", 5: "ResultsByTarget", 6: "DataSet", 7: "Run"}
    for number, word in (expected | {8: "float", 9: '"trut"'}).items():
        assert re.search(rf"\b{word}\b" if word.isalpha() else word, said[number - 1][0])
        assert "Any" not in said[number - 1][0].partition("Possible")[0]


@pytest.fixture(scope="module")
def pages(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built where the installed wheel alone has the docstrings."""
    pytest.importorskip("mkdocstrings", reason="without the extra docs the site is not built")
    source = tmp_path_factory.mktemp("pages")
    shutil.copytree(ROOT / "docs", source / "docs")
    (source / "tools").mkdir()
    for name in ("mkdocs.yml", "README.md", "CHANGELOG.md", "tools/site_twins.py"):
        shutil.copy(ROOT / name, source / name)
    # Where git makes no links, as on Windows, a clone has these modules and no other.
    (source / "cxr_compare").mkdir()
    for module in (ROOT / "cxr_compare").glob("*.py"):
        shutil.copy(module, source / "cxr_compare")
    # -P: as the command mkdocs, which looks for no module in the current folder.
    build = [bare / "bin/python", "-P", "-m", "mkdocs", "build", "--strict", "--quiet"]
    done = run(build, source, NO_MKDOCS_2_WARNING="1")
    assert done.returncode == 0, done.stdout + done.stderr
    return source / "site"


def test_no_page_of_the_site_loads_anything_from_a_network(pages):
    tag = r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)="
    loads = re.compile(rf"(?:{tag}|url\(|@import\s*)['\"]?(?:https?:)?//[^>)]*")
    written = [path.read_text() for kind in ("html", "css") for path in pages.rglob(f"*.{kind}")]
    assert len(written) > 25
    assert [address for text in written for address in loads.findall(text)] == []
    assert loads.search('<script src="https://unpkg.com/shim">')
    assert loads.search("src: url('//fonts.example/a.woff2')")


def test_site_opened_as_files_answers_a_search(pages, browser):
    requests: list[str] = []
    browser.page.on("request", lambda request: requests.append(request.url))
    browser.open(pages / "index.html", 1280, 900)
    browser.page.click("input[name=query]")
    browser.page.keyboard.type("Obuchowski")
    browser.page.wait_for_selector(".md-search-result__link", timeout=20_000)
    results = browser.evaluate("document.querySelector('.md-search-result__list').innerText")
    assert "Obuchowski" in results
    assert {address.partition(":")[0] for address in requests} <= {"file", "data", "blob"}
    assert browser.complaints == []
