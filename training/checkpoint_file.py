"""The checkpoint file of a training, which is written completely or not at all.

The CRC of its parts is checked before the file is loaded.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn

from cxr_compare.data_prep.contracts.atomic_files import atomic_path
from cxr_compare.data_prep.contracts.errors import InputError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writer of Lightning's checkpoint file that leaves the old file complete if interrupted."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint to a temporary file, then replace the old checkpoint by it.

        Args:
            checkpoint: State of the training.
            path: Path of the checkpoint file.
            storage_options: Not used; an argument of Lightning's interface.
        """
        # Into memory first: torch turns a full disk into an error about its own file format.
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with atomic_path(Path(path)) as temporary:
            temporary.write_bytes(buffer.getbuffer())


def require_same_architecture(module: nn.Module, checkpoint: Path) -> None:
    """Check that a checkpoint is complete and has the tensors of a module, before it is loaded.

    Args:
        module: Module into which the checkpoint is to be loaded.
        checkpoint: Path of the checkpoint file.

    Raises:
        InputError: The file is damaged, or its tensors differ from those of the module by name or
            shape.
    """
    try:
        with zipfile.ZipFile(checkpoint) as archive:  # torch checks no CRC when it reads
            if damaged := archive.testzip():
                raise InputError(f"the CRC of {damaged} differs")
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    except Exception as error:  # noqa: BLE001  torch raises many kinds for a damaged file
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{checkpoint}: cannot be read ({reason}); train again in a new folder"
        ) from None
    own_shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    saved_shapes = {name: tuple(value.shape) for name, value in saved.items()}
    for name in sorted(own_shapes.keys() | saved_shapes.keys()):
        own_shape = own_shapes.get(name)
        saved_shape = saved_shapes.get(name)
        if own_shape != saved_shape:
            raise InputError(
                f"{checkpoint}: is of another architecture: '{name.removeprefix('model.')}' has "
                f"shape {saved_shape} there and {own_shape} in this model; train in a new folder"
            )
