"""Check that a machine of a cluster has the same code, packages and files as the driver.

The driver is the process that runs the command. Results of a machine are accepted only if it has
the same code and the same package versions.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import cv2

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.work.freed_memory import keep_freed_memory

_CODE = Path(__file__).absolute().parents[2]  # the folder cxr_compare


@dataclass(frozen=True)
class MachineRequirements:
    """Code, packages and files that each machine of a Ray cluster must have.

    Attributes:
        code: SHA-256 of the modules of this program on the machine that starts the work.
        packages: Pairs of the name and version of packages that must be installed.
        folder: Working folder of the program, from which relative paths start.
        reads: Files and folders that every machine must be able to read.
    """

    code: str = ""
    packages: tuple[tuple[str, str], ...] = ()
    folder: str = ""
    reads: tuple[str, ...] = ()

    @classmethod
    def from_this_machine(cls, reads: Sequence[Path]) -> MachineRequirements:
        """Return requirements that equal the code, packages and files of this machine.

        This machine starts the work; the machines of the cluster must be like it.

        Args:
            reads: Files and folders that the work reads.
        """
        return cls(
            code=_code_digest(),
            packages=tuple(provenance()["versions"].items()),
            folder=str(Path.cwd()),
            reads=tuple(str(path) for path in reads if path.exists()),
        )


@lru_cache(maxsize=8)
def prepare_machine(requirements: MachineRequirements) -> None:
    """Check, once in each worker process, that its machine has the required code and files.

    The process then changes to the folder in which the work was started.

    Args:
        requirements: Code, packages and files of the machine that started the work.

    Raises:
        InputError: The machine has other code or another version of a package, or cannot read a
            file. The message names the machine.
    """
    with contextlib.suppress(OSError):  # relative paths are then missing, which is reported below
        os.chdir(requirements.folder)
    # Set before torch is imported. Other tasks have the other processors, and sums that several
    # threads share are rounded in another order.
    os.environ["OMP_NUM_THREADS"] = "1"
    cv2.setNumThreads(1)
    keep_freed_memory()
    machine = f"CXR_ENGINE=ray: the machine {platform.node()}"
    if requirements.code != _code_digest():
        raise InputError(
            f"{machine} has other code of cxr-compare in {_CODE}; install the same version on all"
        )
    installed = provenance()["versions"]
    for package, version in requirements.packages:
        if installed.get(package) != version:
            raise InputError(
                f"{machine} has {package} {installed.get(package, 'not installed')}, where the "
                f"command runs it is {version}; install the same on all"
            )
    for path in requirements.reads:
        if not os.access(path, os.R_OK):
            raise InputError(
                f"{machine} cannot read {path}; put it where all machines see it under the same "
                "path"
            )


@cache
def _code_digest() -> str:
    """Return a digest of all our modules: a version number does not tell two clones apart."""
    digest = hashlib.sha256()
    for package in sorted(_CODE.iterdir()):  # links in a clone, which rglob alone does not follow
        for path in sorted(package.rglob("*.py")):
            digest.update(path.relative_to(_CODE).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
