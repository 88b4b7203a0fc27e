"""Rules of the architecture: packages, imports and names."""

import ast
import configparser
import graphlib
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from cxr_compare.scripts.command_list import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
CONFIG = configparser.ConfigParser()
CONFIG.read(ROOT / "setup.cfg")
MAPPING = dict(line.split(" = ") for line in CONFIG["options"]["package_dir"].split("\n") if line)
PACKAGES = sorted(set(MAPPING.values()) - {"cxr_compare"})
FOLDERS = sorted(
    path.parent
    for package in [*PACKAGES, "benchmarks"]
    for path in (ROOT / package).rglob("__init__.py")
)
FILES = sorted(path for folder in FOLDERS for path in folder.glob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def test_packages_are_mapped_in_setup_cfg_and_linked_by_scripts_link():
    assert {f"cxr_compare.{name}": name for name in PACKAGES} | {
        "cxr_compare": "cxr_compare"
    } == MAPPING
    product = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert product - {"benchmarks", "cxr_compare", "tools"} == set(PACKAGES)
    for name in PACKAGES:  # which mypy, import-linter and editors follow
        assert (ROOT / "cxr_compare" / name).resolve() == ROOT / name, "run: scripts/link"


def test_no_link_is_in_git():
    listed = subprocess.run(
        ["git", "ls-files", "--stage"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert [line for line in listed.stdout.splitlines() if line.startswith("120000")] == []


def test_setup_cfg_lists_every_package_and_no_tests():
    folders = [".".join(("cxr_compare", *folder.relative_to(ROOT).parts)) for folder in FOLDERS]
    expected = [name for name in folders if name != "cxr_compare.benchmarks"]
    assert sorted(CONFIG["options"]["packages"].split()) == sorted(["cxr_compare", *expected])


def test_list_of_commands_names_every_module_of_the_package():
    modules = {path.stem for path in (ROOT / "scripts/commands").glob("[!_]*.py")}
    assert modules == set(COMMANDS)


def test_packages_have_at_most_one_level_of_subpackages():
    modules = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert [path for path in modules if len(path.relative_to(ROOT).parts) > 3] == []
    assert [path for path in modules if path.parent not in FOLDERS] == []


def test_init_of_a_package_contains_only_a_docstring():
    for folder in FOLDERS:
        body = TREES[folder / "__init__.py"].body
        assert len(body) == 1, folder
        assert isinstance(body[0], ast.Expr), folder


def test_names_are_descriptive():
    banned = {"data", "utils", "helper", "helpers", "manager", "process"}
    assert [path for path in FILES if path.stem in banned] == []
    definitions = [
        node
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    assert [
        node.name
        for node in definitions
        if node.name.lower() in banned or node.name.startswith("do_")
    ] == []


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


# Modules and functions that Python on Windows lacks. cxr serve keeps uploads in memory as Linux
# alone does.
POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
POSIX_FUNCTIONS = {
    "chown", "fchmod", "fork", "geteuid", "getppid", "getuid", "killpg", "mkfifo", "nice", "pread",
    "pwrite", "sched_getaffinity", "setsid", "statvfs", "sysconf", "uname",
}  # fmt: skip
FOR_LINUX = ("serving/web", "training", "benchmarks", "scripts/child_processes.py")


def test_the_core_uses_nothing_that_one_system_alone_has():
    """It runs on Linux, macOS and Windows; a function that one lacks is asked for by hasattr."""
    uses = set()
    for path, tree in TREES.items():
        module_path = str(path.relative_to(ROOT))
        imported = {name.partition(".")[0] for _, name in _imports_of(tree)}
        uses |= {(module_path, name) for name in imported & POSIX_MODULES}
        if module_path.startswith(FOR_LINUX):
            continue
        guarded = set(re.findall(r"hasattr\(os, \"(\w+)\"\)", path.read_text(encoding="utf-8")))
        used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        uses |= {(module_path, name) for name in POSIX_FUNCTIONS - guarded if f"os.{name}" in used}
    assert uses == set()


def test_modules_are_imported_by_their_full_name():
    """In a clone `import evaluation` would load a second copy of a module; elsewhere, nothing."""
    programs = [path for name in ("tests", "tools") for path in (ROOT / name).rglob("*.py")]
    files = [*FILES, *programs, ROOT / "cxr_compare/__init__.py"]
    bare = [
        (path, name)
        for path in files
        for level, name in _imports_of(ast.parse(path.read_text(encoding="utf-8")))
        if level or name.partition(".")[0] in PACKAGES
    ]
    assert bare == []


def test_no_modules_import_each_other_in_a_circle():
    names = {
        path: ".".join(("cxr_compare", *path.relative_to(ROOT).with_suffix("").parts))
        for path in FILES
    }
    modules = set(names.values())
    imports = defaultdict(set)
    for path, tree in TREES.items():
        imports[names[path]] = {name for _, name in _imports_of(tree) if name in modules}
    assert sum(map(len, imports.values())) > 1_000
    graphlib.TopologicalSorter(imports).prepare()  # names the circle


def test_data_prep_and_evaluation_import_without_torch():
    files = [
        path for path in FILES if path.relative_to(ROOT).parts[0] in {"data_prep", "evaluation"}
    ]
    paths = [path.relative_to(ROOT).with_suffix("") for path in files if path.stem != "__init__"]
    modules = [".".join(("cxr_compare", *path.parts)) for path in paths]
    # Exported models decode and build tables, too.
    modules += ["cxr_compare.detection.frames", "cxr_compare.classification.frames"]
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


def test_every_public_function_and_class_has_a_docstring():
    missing = []
    for path, tree in TREES.items():
        for node in tree.body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"
            decorators = {
                ast.unparse(decorator) for decorator in getattr(node, "decorator_list", [])
            }
            if public and "overload" not in decorators and ast.get_docstring(node) is None:
                missing.append(f"{path.relative_to(ROOT)}:{node.name}")
    assert missing == []


def test_every_public_name_is_importable_from_its_documented_module():
    import cxr_compare

    for name in cxr_compare.__all__:
        assert getattr(cxr_compare, name) is not None
    with pytest.raises(AttributeError, match=r"'cxr_compare' .*'teleport'"):
        _ = cxr_compare.teleport


def test_wrong_data_folder_is_reported_before_anything_heavy_is_imported():
    commands = (
        "check N", "split N --name x", "tune N --data N", "ensemble N N --data N --out o",
        "overlay N --data N --out o", "import N --data N --out o --name x",
        "compare N N --data N --out o", "export N o --format yolo", "prepare N N --out o",
        "train chexnet_small --data N --out o",
    )  # fmt: skip
    code = (
        "import sys\nfrom cxr_compare.scripts.cli import main\n"
        f"for command in {(*commands, 'prepare N o')!r}:\n"
        "    sys.argv = ['cxr', *command.replace('N', 'no-such-folder').split()]\n"
        "    try: main()\n"
        "    except SystemExit as ended: assert ended.code == 2, command\n"
        "heavy = {'torch', 'sklearn', 'scipy.stats', 'matplotlib', 'pydicom'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
    assert done.stderr.count("no-such-folder: no such folder; give a data set folder") == len(
        commands
    )
    assert "no-such-folder: " in done.stderr


def test_version_is_the_same_everywhere():
    import cxr_compare

    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["metadata"]["version"] == cxr_compare.__version__
    assert f"version: {cxr_compare.__version__}" in (ROOT / "CITATION.cff").read_text()
