"""Provenance of a folder: the command, time, package versions and git revision."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from platform import python_version
from typing import Any

from cxr_compare.data_prep.base.records import Record

_PACKAGES = [
    "cxr-compare",
    "albumentations",
    "lightning",
    "matplotlib",
    "numpy",
    "onnxruntime",
    "opencv-python-headless",
    "pandas",
    "pillow",
    "pyarrow",
    "pydicom",
    "pylibjpeg",
    "pylibjpeg-openjpeg",
    "python-gdcm",
    "scikit-learn",
    "scipy",
    "simplejpeg",
    "torch",
    "torchvision",
]
_ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/[^,:;]+")
_PROGRAMS = ("cxr", "cxr-compare", "cli")
_REPOSITORY = Path(__file__).resolve().parents[2]


class MadeRecord(Record):
    """Record of a folder that says how the folder was made, as `provenance` returns it."""

    command: str | None = None
    created: str | None = None
    revision: str | None = None
    versions: dict[str, str] | None = None


def cpu_count() -> int:
    """Return the number of processors that this process may use, in a container, too."""
    import joblib  # type: ignore[import-untyped]

    return int(joblib.cpu_count())


def provenance(*, hides_paths: bool = False) -> dict[str, Any]:
    """Return a record of how a folder was made; absolute paths lose their folders.

    `hides_paths` leaves out every path that exists. From Python there is no command.
    """
    arguments = map(_without_path, sys.argv[1:]) if hides_paths else sys.argv[1:]
    words = [_ABSOLUTE_PATH.sub(lambda match: Path(match[0]).name, word) for word in arguments]
    is_command_line = Path(sys.argv[0]).stem in _PROGRAMS
    return {
        "command": shlex.join(["cxr", *words]) if is_command_line else None,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": git_revision(),
        "versions": dict(package_versions()),
    }


def _without_path(word: str) -> str:
    """Return a word of a command without the path that it is, or that stands behind its sign."""
    option, sign, value = word.rpartition("=")
    return f"{option}{sign}PATH" if value and Path(value).exists() else word


@cache
def git_revision() -> str | None:
    """Return the commit of the checkout from which this runs; None where it is installed."""
    if not (_REPOSITORY / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    with suppress(OSError):
        result = subprocess.run(command, cwd=_REPOSITORY, capture_output=True, text=True)  # noqa: S603
        return result.stdout.strip() or None
    return None


@cache
def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide results."""
    versions = {"python": python_version()}
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions
