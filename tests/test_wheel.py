"""The wheel: complete, usable anywhere, told apart from packages of the same names; its site."""

import os
import re
import shutil
import site
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import cxr_start

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [*cxr_start.ROOMS, "cxr_compare.py", "cxr_start.py"]
TO_BUILD = [*SOURCES, "pyproject.toml", "setup.cfg", "README.md", "LICENSE"]

pytestmark = pytest.mark.xdist_group("wheel")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: the folders that a build leaves would go into the next one."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in TO_BUILD:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / name, source)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel; only what it needs comes from the one that tests it."""
    venv = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (folder,) = venv.glob("lib/*/site-packages")
    (folder / "needed.pth").write_text("\n".join(site.getsitepackages()))
    install = [sys.executable, "-m", "pip", "--python", venv / "bin/python", "install"]
    options = ["--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*install, *options, wheel], check=True)
    return venv


@pytest.fixture
def installed(bare: Path, tmp_path: Path) -> Path:
    """A copy of what the wheel installed, to disturb."""
    (folder,) = bare.glob("lib/*/site-packages")
    return shutil.copytree(folder, tmp_path / "site-packages")


def _run(command: list[str | Path], cwd: Path, **variables: str) -> subprocess.CompletedProcess:
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        command, cwd=cwd, env={**inherited, **variables}, capture_output=True, text=True
    )


def test_wheel_holds_every_file_of_its_folders_and_nothing_else(wheel):
    files = {path for name in SOURCES for path in [ROOT / name, *(ROOT / name).rglob("*")]}
    expected = {
        str(path.relative_to(ROOT))
        for path in files
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names - expected == set()
    assert expected - names == {"scripts/environment.sh", "scripts/quickstart", "scripts/test"}


def test_installed_command_works_beside_a_folder_of_the_same_name(bare, tmp_path):
    """As `pipx run` does: an environment of its own, started from any folder."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation/__init__.py").write_text("raise RuntimeError('not meant')")
    cxr = bare / "bin/cxr"
    assert "cxr-compare 0." in _run([cxr, "--version"], tmp_path).stdout
    made = _run([cxr, "synth", "xrays", "--images", "4", "--size", "64"], tmp_path)
    assert made.returncode == 0, made.stderr
    assert len(list((tmp_path / "xrays/stage_2_train_images").glob("*.dcm"))) == 4


def _theirs(site_packages: Path, *paths: str, overwrite: bool = True) -> None:
    """What pip leaves of another distribution, installed after ours or before it."""
    for path in paths:
        (site_packages / path).parent.mkdir(parents=True, exist_ok=True)
        if overwrite or not (site_packages / path).exists():
            (site_packages / path).write_text("")
    record = site_packages / "their_tools-1.2.dist-info/RECORD"
    record.parent.mkdir(parents=True)
    # Not every installer notes sizes, and an empty line is no reason to fail.
    record.write_text("\n\n".join(["their/own.py,sha256=47DEQ,0", *(f"{p},," for p in paths)]))


def _changed_by_hand(site_packages: Path) -> None:
    with (site_packages / "scripts/train.py").open("a") as file:
        file.write("# a remark\n")


_SAME = ("evaluation/__init__.py", "evaluation/score.py")
_TWO = "belongs to two distributions"


@pytest.mark.parametrize(
    ("disturb", "says"),
    [
        (lambda at: _theirs(at, *_SAME), f"evaluation/__init__.py {_TWO}, cxr-compare and"),
        (lambda at: _theirs(at, *_SAME, overwrite=False), f"evaluation/__init__.py {_TWO}, cxr-co"),
        (lambda at: _theirs(at, "scripts/__init__.py", overwrite=False), f"__init__.py {_TWO}"),
        (lambda at: _theirs(at, "scripts/train/__init__.py"), f"scripts/train/__init__.py {_TWO}"),
        (lambda at: (at / _SAME[0]).unlink(), "is not there any more as cxr-compare installed it"),
        (lambda at: _theirs(at, "scripts/deploy.py", "training/plan.txt"), None),
        (_changed_by_hand, None),
        (lambda at: None, None),
    ],
    ids=["installed after", "installed before", "overwritten by ours", "shadows a module",
         "removed again", "shares a folder", "changed by hand", "left alone"],
)  # fmt: skip
def test_distributions_merged_into_one_folder_are_told_apart(disturb, says, installed, tmp_path):
    disturb(installed)
    path = [str(installed), *site.getsitepackages()]
    code = f"import sys; sys.path[:0] = {path!r}; import cxr_start; cxr_start.main()"
    done = _run([sys.executable, "-I", "-S", "-c", code, "--help"], tmp_path)
    if says is None:
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "environment of its own" in done.stderr
    assert ("their-tools 1.2" in done.stderr) == (_TWO in says)


def test_python_names_the_folder_or_distribution_that_comes_first(bare, tmp_path):
    code = "import cxr_compare; cxr_compare.InputError"
    (tmp_path / "scripts").mkdir()  # a bare folder gives way to a package
    assert _run([bare / "bin/python", "-c", code], tmp_path).returncode == 0

    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation/__init__.py").touch()
    done = _run([bare / "bin/python", "-c", code], tmp_path)
    assert f"ImportError: package 'evaluation' comes from {tmp_path}" in done.stderr
    assert "rename that folder" in done.stderr

    before = "import sys, evaluation; sys.path.remove(''); "  # as an earlier cell of a notebook did
    done = _run([bare / "bin/python", "-c", before + code], tmp_path)
    assert f"ImportError: package 'evaluation' comes from {tmp_path}" in done.stderr

    _theirs(tmp_path, "evaluation/__init__.py")
    done = _run([bare / "bin/python", "-c", code], tmp_path)
    assert "it is of their-tools 1.2" in done.stderr


def test_container_is_given_what_the_wheel_is_built_from_and_nothing_else():
    """A data set or a run that lies in a checkout must not get into an image."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert "*" in lines
    assert let_in == {*TO_BUILD, "constraints.txt"}
    copied = re.findall(r"^COPY (?!--from)(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert copied == [".", "constraints.txt"]


@pytest.fixture(scope="module")
def pages(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built where the installed wheel alone has the docstrings."""
    pytest.importorskip("mkdocstrings", reason="without the extra docs the site is not built")
    source = tmp_path_factory.mktemp("pages")
    shutil.copytree(ROOT / "docs", source / "docs")
    for name in ("mkdocs.yml", "README.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, source)
    build = [bare / "bin/python", "-m", "mkdocs", "build", "--strict", "--quiet"]
    done = _run(build, source, NO_MKDOCS_2_WARNING="1")
    assert done.returncode == 0, done.stdout + done.stderr
    return source / "site"


def test_no_page_of_the_site_loads_anything_from_a_network(pages):
    tag = r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)="
    loads = re.compile(rf"(?:{tag}|url\(|@import\s*)['\"]?(?:https?:)?//[^>)]*")
    written = [path.read_text() for kind in ("html", "css") for path in pages.rglob(f"*.{kind}")]
    assert len(written) > 25
    assert [found for text in written for found in loads.findall(text)] == []
    assert loads.search('<script src="https://unpkg.com/shim">')
    assert loads.search("src: url('//fonts.example/a.woff2')")


def test_site_opened_as_files_answers_a_search(pages, browser):
    asked: list[str] = []
    browser.page.on("request", lambda request: asked.append(request.url))
    browser.open(pages / "index.html", 1280, 900)
    browser.page.click("input[name=query]")
    browser.page.keyboard.type("Obuchowski")
    browser.page.wait_for_selector(".md-search-result__link", timeout=20_000)
    found = browser.evaluate("document.querySelector('.md-search-result__list').innerText")
    assert "Obuchowski" in found
    assert {address.partition(":")[0] for address in asked} <= {"file", "data", "blob"}
    assert browser.complaints == []


GPL = re.compile(r"(?<![A-Za-z])A?GPL|GNU (Affero )?General Public")


def needed(name: str, extras: frozenset[str], done: set[tuple[str, str]]) -> Iterator[str]:
    """The distributions that one brings along, itself first; those not installed are left out."""
    fresh = {(name, extra) for extra in {"", *extras}} - done
    done |= fresh
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return
    yield name
    for text in distribution.requires or [] if fresh else []:
        need = Requirement(text)
        if need.marker is None or any(need.marker.evaluate({"extra": e}) for _, e in fresh):
            yield from needed(need.name, frozenset(need.extras), done)


def test_nothing_that_the_wheel_needs_is_under_the_gpl():
    optional = frozenset({"docs", "export", "lite", "tensorboard", "mlflow", "wandb"})
    said = {}
    for name in needed("cxr-compare", optional, set()):
        about = metadata.metadata(name)
        kinds = [kind for kind in about.get_all("Classifier") or [] if kind.startswith("License")]
        # Its first line: some give the whole text, with the licences of what is built in.
        first = (about.get("License") or "").strip().split("\n")[0]
        said[name] = "; ".join([about.get("License-Expression") or "", first, *kinds])
    assert {"torch", "numpy", "aiohttp"} <= said.keys()  # the last is an extra of a need's need
    assert {name: text for name, text in said.items() if GPL.search(text)} == {}
    assert GPL.search("License :: OSI Approved :: GNU Affero General Public License v3")
    assert GPL.search("AGPL-3.0-or-later")
    assert not GPL.search("LGPL-2.1-only")
