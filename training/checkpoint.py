"""The state that a training resumes from: written whole, read with care."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import atomic_path


class WholeFiles(TorchCheckpointIO):
    """Lightning's checkpoint file, beside its place first: an interruption leaves the old one."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            InputError: The disk is full.
        """
        # By way of memory: torch turns a full disk into an error about its own file format.
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with atomic_path(Path(path)) as temporary:
            temporary.write_bytes(buffer.getbuffer())


def require_same_architecture(module: nn.Module, checkpoint: Path) -> None:
    """Check that a checkpoint belongs to a module, before anything is loaded.

    Raises:
        InputError: The file is damaged, or names or shapes of its weights differ.
    """
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    except Exception as error:  # noqa: BLE001  torch raises many kinds for a damaged file
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{checkpoint}: cannot be read ({reason}); train again in a new folder"
        ) from None
    own = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in saved.items()}
    for name in sorted(own.keys() | found.keys()):
        if own.get(name) != found.get(name):
            raise InputError(
                f"{checkpoint}: is of another architecture: '{name.removeprefix('model.')}' has "
                f"shape {found.get(name)} there and {own.get(name)} in this model; train in a "
                "new folder"
            )
