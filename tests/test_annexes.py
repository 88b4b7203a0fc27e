"""An annex can be deleted: besides its folders and its pages, marked lines alone name it."""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.test_wheel import ROOT, TO_BUILD, bare_environment, build, environment, run
from tools import annexes

ANNEXES = annexes.annexes()
# The commands are on generated pages, which are written anew; a history names what was there.
_NOT_MARKED = {"docs/reference.md", "docs/api.md", "CHANGELOG.md"}
_TREE = re.compile("<!-- tree -->.*<!-- end of tree -->", re.DOTALL)
# What shows within minutes whether the core still stands by itself.
_CORE_TESTS = (
    "tests/test_architecture.py",
    "tests/test_documents.py",
    "tests/test_generated_documents.py",
    "tests/test_imports.py",
    "tests/test_annexes.py::test_no_unmarked_line_names_an_annex",
    "tests/test_every_command.py::test_no_command_is_left_out",
    "tests/scripts/test_cli.py",
    "tests/scripts/test_option_help.py",
    "tests/scripts/test_added_commands.py",
    "tests/tools/test_simulation.py",
    "tests/evaluation/test_compare.py",
    "tests/evaluation/test_core_takes_tables.py",
    "tests/evaluation/statistics",
    "tests/evaluation/verdict",
)

in_order = pytest.mark.xdist_group("wheel")


@pytest.mark.parametrize("annex", ANNEXES)
def test_no_unmarked_line_names_an_annex(annex):
    naming = annexes.naming(annex)
    found = {}
    for path, text in annexes.texts().items():
        name = str(path.relative_to(ROOT))
        if name not in _NOT_MARKED and not annexes.belongs(path, annex):
            kept, _ = annexes.split_marked(_TREE.sub("", text), annex)
            found[name] = naming.findall(kept)
    assert {name: lines for name, lines in found.items() if lines} == {}


@dataclass(frozen=True)
class Clone:
    """A copy of this clone without an annex, and an environment that has the copy installed."""

    folder: Path
    python: Path
    naming: re.Pattern[str]

    def passes(self, *words: str | Path) -> None:
        done = run([*words], self.folder, OMP_NUM_THREADS="1")
        assert done.returncode == 0, f"{words}: {done.stdout[-5000:]}{done.stderr[-5000:]}"

    def passes_pytest(self, *words: str) -> None:
        self.passes(self.python, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *words)


@pytest.fixture(scope="module", params=ANNEXES)
def clone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    folder = tmp_path_factory.mktemp("without") / "clone"
    for path in annexes.files():
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    for words in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    naming = annexes.naming(request.param, folder)
    annexes.delete(request.param, folder)
    clone = Clone(folder, environment(folder.parent, folder) / "bin/python", naming)
    clone.passes("scripts/link")
    clone.passes(clone.python, "-c", "import setuptools; setuptools.setup()", "-q", "egg_info")
    clone.passes(clone.python, "tools/documents.py")
    return clone


@pytest.mark.release
@in_order
def test_a_clone_without_an_annex_passes_the_checks(clone):
    ruff = Path(sys.executable).with_name("ruff")
    clone.passes(ruff, "check", ".")
    clone.passes(ruff, "format", "--check", ".")
    lint = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    clone.passes(clone.python, "-c", lint)
    left = {
        path.name for path, text in annexes.texts(clone.folder).items() if clone.naming.search(text)
    }
    assert left <= {"CHANGELOG.md"}
    if find_spec("mkdocstrings") is not None:
        clone.passes(clone.python, "-m", "mkdocs", "build", "--strict", "--quiet")
    clone.passes_pytest("--collect-only", "-m", "", "tests", "benchmarks", "tools")


@pytest.mark.release
@in_order
def test_a_clone_without_an_annex_passes_tests_of_the_core(clone):
    clone.passes_pytest(*_CORE_TESTS)


@pytest.mark.release
@in_order
@pytest.mark.parametrize("annex", ANNEXES)
def test_without_an_annex_the_wheel_is_built_and_the_core_works(annex, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    ignored = shutil.ignore_patterns("__pycache__")
    for name in set(TO_BUILD) - {annex}:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source)
    (source / "cxr_compare" / annex).unlink(missing_ok=True)  # the link of a clone
    path = source / "setup.cfg"
    kept, _ = annexes.split_marked(path.read_text(encoding="utf-8"), annex)
    path.write_text(kept, encoding="utf-8")
    (tmp_path / "wheel").mkdir()
    bare = bare_environment(build("wheel", source, tmp_path / "wheel"), tmp_path)
    helped = run([bare / "bin/cxr", "--help"], tmp_path)
    assert helped.returncode == 0, helped.stderr
    assert f"─ {annex.capitalize()} ─" not in helped.stdout
    imports = (
        "import importlib, pkgutil, sys, cxr_compare\n"
        "found = [m.name for m in pkgutil.walk_packages(cxr_compare.__path__, 'cxr_compare.')]\n"
        "for name in found: importlib.import_module(name)\n"
        "print(len(found))"
    )
    done = run([bare / "bin/python", "-c", imports], tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 300
    for command in (
        "synth xrays --images 80 --size 64",
        "prepare xrays data --format rsna --size 64 --workers 2",
        "train retinanet_small --data data --out det --set training.epochs=1",
        "train chexnet_small --data data --out cls --set training.epochs=1",
        "compare A=det B=cls --both --data data --out report --replicates 100",
    ):
        done = run([bare / "bin/cxr", *command.split()], tmp_path)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    assert (tmp_path / "report/report.html").is_file()
