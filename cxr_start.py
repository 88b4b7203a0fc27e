"""Where `cxr` starts: the packages have common names, so what stands under them is checked first.

pip merges two distributions that hold a folder of the same name, and says nothing: the files of
the one that came last stay, and removing either takes files of the other along. A folder on
Python's path may stand before the installed one, too. Both are found here, before any of these
packages is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

ROOMS = (
    "classification",
    "configs",
    "data_prep",
    "detection",
    "evaluation",
    "networks",
    "scripts",
    "serving",
    "training",
)

_HOME = Path(__file__).resolve().parent
_STARTS = tuple(f"{room}/" for room in ROOMS)
_CODE = {"py", "so"}
_OWN_PLACE = "an environment of its own (python -m venv, or pipx)"


def main() -> None:
    """Run `cxr`; exit 2 where another package stands in the place of one of its own."""
    try:
        require_own_rooms()
    except ImportError as error:
        sys.stderr.write(f"cxr: {error}\n")
        sys.exit(2)
    from scripts.cli import main as run

    run()


@cache
def require_own_rooms() -> None:
    """Check, once a process, that each top-level package is this project's own and whole.

    Raises:
        ImportError: One is not; in one line, with what to do.
    """
    for record in _HOME.glob("cxr_compare-*.dist-info/RECORD"):  # none of a clone
        _require_sole_owner(record)
    for room in ROOMS:
        place = _place(room)
        if place is None or place.parent.parent != _HOME:
            raise ImportError(
                f"package '{room}' comes from {place or 'nowhere'}, expected {_HOME / room}; "
                f"{_way_out(place)}"
            )


def _place(room: str) -> Path | None:
    """The file or the bare folder that `import` takes for a package now."""
    spec = getattr(sys.modules[room], "__spec__", None) if room in sys.modules else find_spec(room)
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or [])
    found = spec.origin or (folders[0] if folders else None)
    return Path(found).resolve() if found else None


def _way_out(place: Path | None) -> str:
    if place is not None:
        for path, owner in _files_of_others(place.parent.parent):
            if place.parent.parent / path == place:
                return f"it is of {owner}: install cxr-compare in {_OWN_PLACE}"
        return "rename that folder, take it off PYTHONPATH, or start from elsewhere"
    return f"install cxr-compare again, in {_OWN_PLACE}"


def _require_sole_owner(record: Path) -> None:
    """Check that no other distribution has files in the place of ours, and that ours are there."""
    recorded = _recorded(record.read_bytes())
    own = {path: size for path, size in recorded if size and path.startswith(_STARTS)}
    modules = {_module(path) for path in own}
    for path, owner in _files_of_others(_HOME):
        if _module(path) in modules:
            raise ImportError(
                f"{_HOME / path} belongs to two distributions, cxr-compare and {owner}, and one "
                f"has overwritten the other: install cxr-compare in {_OWN_PLACE}, remove it here, "
                f"and install {owner.split()[0]} again"
            )
    for path, size in own.items():
        found = _size(_HOME / path)
        # Anybody may change a module by hand, but only an installer writes an __init__.py.
        if found is None or (found != size and path.endswith("/__init__.py")):
            raise ImportError(
                f"{_HOME / path} is not there any more as cxr-compare installed it; was another "
                f"distribution removed? Install cxr-compare again, in {_OWN_PLACE}"
            )


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _recorded(record: bytes) -> Iterator[tuple[str, int | None]]:
    """The files of a distribution and their bytes, where the installer noted them."""
    for line in record.decode(errors="replace").splitlines():
        path, *noted = line.rsplit(",", 2)
        yield path.strip('"'), int(noted[1]) if noted[1:] and noted[1].isdigit() else None


def _files_of_others(folder: Path) -> Iterator[tuple[str, str]]:
    """What other distributions of the same folder put into packages of our names, and whose."""
    for path in sorted(folder.glob("*.dist-info/RECORD")):
        name, _, version = path.parent.stem.replace("_", "-").rpartition("-")
        record = b"\n" + path.read_bytes()
        # Of bytes first: an environment's records are megabytes, and few of them matter.
        if name == "cxr-compare" or not any(b"\n" + s.encode() in record for s in _STARTS):
            continue
        for file, _ in _recorded(record[1:]):
            if file.startswith(_STARTS):
                yield file, f"{name} {version}"


def _module(path: str) -> str:
    """What is imported from a file, as a path; of other files the path itself.

    Example:
        >>> _module("scripts/train.py"), _module("scripts/train/__init__.py")
        ('scripts/train', 'scripts/train')
        >>> _module("configs/chexnet.toml")
        'configs/chexnet.toml'
    """
    if path.rpartition(".")[2] not in _CODE:
        return path
    folder, _, name = path.rpartition("/")
    name = name.partition(".")[0]
    return folder if name == "__init__" else f"{folder}/{name}"
