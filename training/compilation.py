"""Whether this machine can compile a model."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

from data_prep.contracts.errors import InputError


def require_compiler(device: str) -> None:
    """Refuse to compile where torch could not: it would say so minutes later, over many lines.

    Args:
        device: ``cpu``, where torch writes C++, or ``cuda``, where Triton needs a C compiler.

    Raises:
        InputError: There is no compiler, Python's headers are missing, or there is no Triton.
    """
    variable, usual = ("CXX", "g++") if device == "cpu" else ("CC", "gcc")
    compiler = os.environ.get(variable, usual)
    if shutil.which(compiler) is None:
        raise InputError(
            f"training.compile: needs the compiler {compiler}, which is not installed; install it "
            f"(apt install {usual}), name another in {variable}, or leave training.compile out"
        )
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        raise InputError(
            "training.compile: Python's headers (Python.h) are not installed; install them (apt "
            "install python3-dev), or leave training.compile out"
        )
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        raise InputError(
            "training.compile: needs the package triton on a GPU; install it, or leave "
            "training.compile out"
        )
