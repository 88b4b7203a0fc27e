"""The package: its architecture, what it imports at its start, and the licences that it needs."""

import ast
import configparser
import functools
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import cxr_compare
from tests.adapters.commands import NAMES, home_of

ROOT = Path(__file__).resolve().parents[2]
CONFIG = configparser.ConfigParser()
CONFIG.read(ROOT / "setup.cfg")
MAPPING = dict(line.split(" = ") for line in CONFIG["options"]["package_dir"].split("\n") if line)
PACKAGES = sorted(set(MAPPING.values()) - {"cxr_compare"})
FOLDERS = sorted(
    path.parent
    for package in [*PACKAGES, "benchmarks"]
    for path in (ROOT / package).rglob("__init__.py")
)
# The package imports its functions when they are called; its imports for type checkers name them.
PACKAGE = ast.parse((ROOT / "cxr_compare/__init__.py").read_text(encoding="utf-8"))


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """Parse a file once for all tests."""
    return ast.parse(path.read_text(encoding="utf-8"))


def test_packages_are_mapped_in_setup_cfg_and_linked_in_git():
    assert {f"cxr_compare.{name}": name for name in PACKAGES} | {
        "cxr_compare": "cxr_compare"
    } == MAPPING
    product = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert product - {"benchmarks", "conformance", "cxr_compare", "tools"} == set(PACKAGES)
    for name in PACKAGES:  # which mypy, import-linter and editors follow
        assert (ROOT / "cxr_compare" / name).resolve() == ROOT / name
    listed = subprocess.run(
        ["git", "ls-files", "--stage"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    links = [line.split("\t")[1] for line in listed.stdout.splitlines() if line[:6] == "120000"]
    assert links == [f"cxr_compare/{name}" for name in PACKAGES]


@pytest.mark.network
@pytest.mark.parametrize("python", ["3.11.9", "3.12", "3.13", "3.14"])
def test_all_extras_have_wheels_for_each_python(tmp_path, python):
    """With the tested versions, as scripts/environment.sh installs them."""
    lists = [CONFIG["options"]["install_requires"], *CONFIG["options.extras_require"].values()]
    lines = [line for each in lists for line in each.splitlines() if "cxr-compare" not in line]
    (tmp_path / "wanted.txt").write_text("\n".join(lines))
    resolve = 'source scripts/environment.sh; venv=$1/venv; make_venv; get_uv; "$venv/bin/uv" pip'
    resolve += " compile --python-version $2 --only-binary :all: --constraint constraints.txt"
    command = ["bash", "-c", resolve + " $1/wanted.txt", "bash", tmp_path, python]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "torch==" in done.stdout


def test_setup_cfg_lists_every_package_and_no_tests():
    folders = [".".join(("cxr_compare", *folder.relative_to(ROOT).parts)) for folder in FOLDERS]
    expected = [name for name in folders if name != "cxr_compare.benchmarks"]
    assert sorted(CONFIG["options"]["packages"].split()) == sorted(["cxr_compare", *expected])


def test_a_public_name_loads_the_module_that_type_checkers_see():
    """Editors read the imports of TYPE_CHECKING, Python the table of modules."""
    (block,) = (node for node in PACKAGE.body if isinstance(node, ast.If))
    seen = {
        alias.asname or alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cxr_compare.")
        for alias in node.names
    }
    assert seen == cxr_compare._HOMES
    for name in cxr_compare.__all__:
        assert getattr(cxr_compare, name) is not None
    with pytest.raises(AttributeError, match=r"'cxr_compare' .*'teleport'"):
        _ = cxr_compare.teleport


def test_each_command_of_the_command_line_is_a_public_function():
    modules = {path.stem for path in (ROOT / "commands").glob("[!_]*.py")}
    assert modules - {"compared_systems", "console", "options", "questions"} == set(NAMES)
    of_functions = {"configs": "configurations"}  # `configs` is a package
    assert {name: cxr_compare._HOMES.get(of_functions.get(name, name)) for name in NAMES} == {
        name: home_of(name) for name in NAMES
    }


def _imports_of(tree: ast.Module) -> list[tuple[int, str]]:
    """Return the level and the full name of everything that a module imports."""
    imports = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            imports.append((node.level, module))
            imports += [(node.level, f"{module}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Import):
            imports += [(0, alias.name) for alias in node.names]
    return imports


def test_only_adapters_of_the_tests_name_internal_modules():
    """A module can be moved or split without a change of tests; `cxr_compare` alone is public."""
    internal = re.compile(rf"\bcxr_compare\.({'|'.join(PACKAGES)})\b(?!\()")
    found = set()
    for path in (ROOT / "tests").rglob("*.py"):
        if path.parent.name == "adapters":
            continue
        tree = tree_of(path)
        texts = {name for _, name in _imports_of(tree)}
        texts |= {
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        if any(map(internal.search, texts)):
            found.add(str(path.relative_to(ROOT)))
    assert found == set()


# --- what must start at once does not import what takes long to import ----------------------------

CLI = "from tests.adapters.commands import main; sys.argv = 'cxr {}'.split(); main()"
HELPS = """
from tests.adapters.commands import NAMES, cxr
print({cxr(name, "--help") for name in NAMES})
"""
FEW = """
import os
from PIL import Image
from tests.adapters.commands import cxr

for number in range(20):
    os.makedirs(folder := ("s/normal", "s/mass")[number % 2], exist_ok=True)
    Image.linear_gradient("L").rotate(9 * number).save(f"{folder}/{number}.png")
print(cxr("prepare", "s", "d", "--workers", "0"))
"""
IN_HELP = "torch pandas sklearn matplotlib numpy scipy pydantic cv2 PIL"
COMMANDS = "import cxr_compare; [getattr(cxr_compare, name) for name in cxr_compare.__all__]"


@pytest.mark.parametrize(
    ("code", "heavy", "message"),
    [
        (CLI.format("--help"), IN_HELP, "compare"),
        (HELPS, IN_HELP, "{0}"),
        (FEW, "torch sklearn matplotlib", "\n0\n"),  # too few images to measure a shortcut
        (CLI.format("show ."), "torch sqlite3", "data set"),
        (COMMANDS, "torch sklearn matplotlib", ""),
    ],
    ids=["help", "help of each command", "prepare", "show", "commands"],
)
def test_it_imports_nothing_heavy(code, heavy, message, tmp_path):
    for name in ("run/run.json", "run/config.toml", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    at_exit = f"print('LOADED', sorted({set(heavy.split())} & set(sys.modules)))"
    program = f"import atexit, sys; atexit.register(lambda: {at_exit}); {code}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "LOADED []" in done.stdout, done.stderr
    assert message in done.stdout + done.stderr


def test_what_trains_is_imported_without_a_word():
    done = subprocess.run(
        [sys.executable, "-c", "import tests.adapters.training"], cwd=ROOT, capture_output=True,
        text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


# --- licences -------------------------------------------------------------------------------------

FORBIDDEN = re.compile(r"\bA?GPL|Affero|(?<!Lesser )General Public License", re.IGNORECASE)
# The CUDA toolkit of torch on Linux (NVIDIA EULA), and a package under Apache-2.0.
WITHOUT_METADATA = {"cuda-toolkit", "faster-coco-eval"}


def licence_of(about):
    """Licence that a distribution states: its expression, its classifiers, or its field."""
    classifiers = [text for text in about.get_all("Classifier", []) if text.startswith("License")]
    return about.get("License-Expression") or "; ".join(classifiers) or about.get("License") or ""


def test_no_package_is_under_the_gpl():
    licences = {
        each.metadata["Name"]: licence_of(each.metadata) for each in metadata.distributions()
    }
    assert {"numpy", "torch", "lightning", "fastapi", "onnxruntime"} <= licences.keys()
    assert {name for name, text in licences.items() if not text} <= WITHOUT_METADATA
    first_lines = {name: text.partition("\n")[0] for name, text in licences.items()}
    assert {name: text for name, text in first_lines.items() if FORBIDDEN.search(text)} == {}
