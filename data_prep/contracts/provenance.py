"""Provenance of a folder: the command, time, package versions, git revision and hardware."""

from __future__ import annotations

import hashlib
import platform
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.processors import cpu_count
from cxr_compare.data_prep.contracts.records import Record

_PACKAGES_THAT_DECIDE_RESULTS = (
    "cxr-compare",
    "albumentations",
    "lightning",
    "nncf",
    "numpy",
    "onnxruntime",
    "opencv-python-headless",
    "openvino",
    "pandas",
    "pillow",
    "pyarrow",
    "pydicom",
    "pyjpegls",
    "pylibjpeg",
    "pylibjpeg-openjpeg",
    "python-gdcm",
    "scipy",
    "simplejpeg",
    "torch",
    "torchvision",
)
_ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/[^,:;]+")
_CODE = Path(__file__).absolute().parents[2]  # the folder cxr_compare
_PROGRAMS = {"cxr", "cxr-compare", "cli"}


class MadeRecord(Record):
    """Record of a folder that says how the folder was made, as `provenance` returns it."""

    command: str | None = None
    created: str | None = None
    revision: str | None = None
    versions: dict[str, str] | None = None
    hardware: dict[str, Any] | None = None


def provenance() -> dict[str, Any]:
    """Return a record of how a folder was made, for the folder's JSON file.

    Its keys are ``command`` (without paths of this machine; None from Python), ``created`` (UTC),
    ``revision`` (of
    git; None outside a clone), ``versions`` (of packages) and ``hardware`` (type of the machine and
    number of its processors).
    """
    without_folders = [
        _ABSOLUTE_PATH.sub(lambda match: Path(match[0]).name, argument) for argument in sys.argv[1:]
    ]
    is_command_line = Path(sys.argv[0]).stem in _PROGRAMS
    return {
        "command": shlex.join(["cxr", *without_folders]) if is_command_line else None,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": _git_revision(),
        "versions": dict(_package_versions()),
        "hardware": {"machine": platform.machine(), "cpus": cpu_count()},
    }


@cache
def _git_revision() -> str | None:
    repository = Path(__file__).resolve().parents[2]
    if not (repository / ".git").exists():
        return None
    command = ["git", "-C", str(repository), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None


@cache
def _package_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES_THAT_DECIDE_RESULTS:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


@cache
def software_versions() -> dict[str, str]:
    """Return versions, and a digest of our code, as a version does not tell two clones apart."""
    digest = hashlib.sha256()
    for package in sorted(_CODE.iterdir()):  # links in a clone, which rglob alone does not follow
        for path in sorted(package.rglob("*.py")):
            digest.update(path.relative_to(_CODE).as_posix().encode())
            digest.update(path.read_bytes())
    return {"code of cxr-compare": digest.hexdigest()[:16], **_package_versions()}
