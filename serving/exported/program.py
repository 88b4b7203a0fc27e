"""The program that an export carries: `predict.pyz`, and what must be installed for it.

The archive holds those modules of this project that an export answers with, and no others: found
by following imports from the program on. What pulls in anything beyond numpy, OpenCV, pydicom and
the two runtimes is left out, since it could not run there.
"""

from __future__ import annotations

import ast
import sys
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

from data_prep.contracts.folders import atomic_path
from serving.exported.spec import Format

PROGRAM_FILE, REQUIREMENTS_FILE = "predict.pyz", "requirements.txt"
_ROOT = Path(__file__).resolve().parents[2]
_ROOMS = ("data_prep", "detection", "evaluation", "serving")  # an export needs no other
_START = "serving.exported.answers"
_NEEDED = {"numpy": "numpy", "cv2": "opencv-python-headless", "pydicom": "pydicom"}
"""Packages by the name they are imported by; beside them one runtime."""
_RUNTIMES: dict[Format, str] = {"onnx": "onnxruntime", "openvino": "openvino"}
_MAIN = """\
import os
import sys
from pathlib import Path
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
try:
    from serving.exported.answers import main
except ModuleNotFoundError as error:
    sys.exit(f"cxr: {error.name} is not installed: pip install -r requirements.txt")
sys.exit(main(own_folder=Path(sys.argv[0]).resolve().parent))
"""


def write_program(folder: Path, format: Format) -> None:  # noqa: A002
    """Write ``predict.pyz`` and ``requirements.txt`` into an export.

    ``python FOLDER/predict.pyz image.dcm`` then needs neither this project nor torch.

    Args:
        folder: The export.
        format: Of its network; its runtime is among the requirements.
    """
    lines = [_with_version(name) for name in (*_NEEDED.values(), _RUNTIMES[format])]
    with atomic_path(folder / REQUIREMENTS_FILE) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    content = {path.relative_to(_ROOT).as_posix(): path.read_bytes() for path in program_files()}
    with (
        atomic_path(folder / PROGRAM_FILE) as temporary,
        zipfile.ZipFile(temporary, "w") as archive,
    ):
        for name, text in {"__main__.py": _MAIN.encode(), **content}.items():
            archive.writestr(_entry(name), text)


def _with_version(package: str) -> str:
    """As it is installed here, where it is; a runtime for GPUs has another name."""
    try:
        return f"{package}=={metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return package


def _entry(name: str) -> zipfile.ZipInfo:
    """Without the time: the same program is the same file."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def program_files() -> list[Path]:
    """The files of the modules that an export answers with, and of the packages they lie in."""
    found: set[str] = set()
    pending = [_START]
    while pending:
        name = pending.pop()
        if name in found:
            continue
        found.add(name)
        at_once, later = _imports(name)
        pending += at_once
        # What a function imports is taken along wherever it could run.
        pending += [each for each in later if _runs_bare(each)]
    paths = {path for name in found if (path := _path(name))}
    return sorted(paths | {above / "__init__.py" for path in paths for above in _packages(path)})


def _packages(path: Path) -> Iterator[Path]:
    return (above for above in path.parents if above != _ROOT and above.is_relative_to(_ROOT))


@cache
def _runs_bare(name: str) -> bool:
    """Whether a module, with all that it imports at once, needs no other package."""
    seen: set[str] = set()
    pending = [name]
    while pending:
        each = pending.pop()
        if each in seen:
            continue
        seen.add(each)
        if _path(each) is None:
            if not _is_there(each):
                return False
            continue
        pending += _imports(each)[0]
    return True


def _is_there(name: str) -> bool:
    top = name.partition(".")[0]
    return top in sys.stdlib_module_names or top in _NEEDED or top in _RUNTIMES.values()


def _path(name: str) -> Path | None:
    """The file of one of our modules, None for those of other packages."""
    path = _ROOT.joinpath(*name.split(".")).with_suffix(".py")
    return path if name.partition(".")[0] in _ROOMS and path.is_file() else None


@cache
def _imports(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a module imports: at once, and when one of its functions is called."""
    path = _path(name)
    if path is None:
        return (), ()
    at_once: list[str] = []
    later: list[str] = []
    pending: list[tuple[ast.AST, list[str]]] = [
        (node, at_once) for node in ast.parse(path.read_text(encoding="utf-8")).body
    ]
    while pending:
        node, found = pending.pop()
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [each if _path(each) else node.module for each in inside]
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            pending += [(child, found) for child in node.orelse]
        else:
            called = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            inner = later if called else found
            pending += [
                (child, inner) for child in ast.iter_child_nodes(node) if isinstance(child, ast.AST)
            ]
    return tuple(at_once), tuple(later)
