"""A model on disk: weights in `model.safetensors`, architecture in `model.json`."""

import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from data_prep.contracts.folders import atomic_path
from data_prep.contracts.tables import InputError, read_json, write_json

WEIGHTS_FILE = "model.safetensors"
ARCHITECTURE_FILE = "model.json"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_BLOCKED = re.compile(r"(?:GLOBAL|global) `?([\w.]+)")  # the class that weights_only refused
# Checkpoints hold figures of NumPy's beside the weights, such as the best loss.
_HARMLESS: list[Any] = [
    np.dtype,
    np.float64(0).__reduce__()[0],  # what rebuilds a scalar; its module moves between versions
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")),
]
_WRAPPERS = ("state_dict", "model", "model_state_dict")  # keys that others nest their weights in


def save_model(model: nn.Module, folder: Path) -> None:
    """Write a model's weights and architecture; each file appears whole or not at all.

    Args:
        model: Has ``architecture``, a dictionary with ``kind``, ``name`` and ``arguments``.
        folder: Existing folder.

    Raises:
        InputError: The disk is full.
    """
    # Contiguous and on the CPU: the file then does not depend on where the model was trained.
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        temporary.write_bytes(save(state, metadata={"format": "pt"}))
    save_architecture(model, folder)


def save_architecture(model: nn.Module, folder: Path) -> None:
    """Write a model's architecture alone, as `save_model` does; its weights may change yet."""
    write_json(folder / ARCHITECTURE_FILE, "model", {"architecture": model.architecture})


def load_model(folder: Path, builders: Mapping[str, Callable[..., nn.Module]]) -> nn.Module:
    """Build the model that a folder describes and load its weights.

    Args:
        folder: Made by `save_model`.
        builders: Builder of each architecture, by its name.

    Returns:
        The model in evaluation mode, on the CPU.

    Raises:
        InputError: A file is missing or damaged, the architecture is unknown here, or the
            weights are of another architecture.
    """
    path = folder / ARCHITECTURE_FILE
    architecture = read_json(path, "model").get("architecture", {})
    name, arguments = architecture.get("name"), architecture.get("arguments")
    if name not in builders or not isinstance(arguments, dict):
        raise InputError(
            f"{path}: architecture {name!r} is not one of {', '.join(sorted(builders))}; "
            "was it written by another version?"
        )
    try:
        model = builders[name](**arguments)
    except TypeError as error:
        raise InputError(f"{path}: {error}; was it written by another version?") from None
    load_weights(model, read_weights(folder / WEIGHTS_FILE), folder / WEIGHTS_FILE)
    return model.eval()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a weights file; never runs code from it.

    Args:
        path: ``.safetensors``, or a ``.pth``, ``.pt`` or ``.ckpt`` of PyTorch; a state dictionary
            nested under ``state_dict``, ``model`` or ``model_state_dict`` is found.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        InputError: The file is missing, damaged, or holds something else.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    with path.open("rb") as file:
        start = file.read(len(_HDF5))
    if start == _HDF5:
        raise InputError(
            f"{path}: is an HDF5 file, as Keras writes it; only weights of PyTorch can be read: "
            "take another file"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(_HARMLESS):
            warnings.simplefilter("ignore", UserWarning)  # about pickles that it then refuses
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if blocked := _BLOCKED.search(str(error)):
            raise InputError(
                f"{path}: holds Python objects ({blocked[1]}), and reading those could run code; "
                "where you trust it, convert it as docs/weights.md shows, with its own program and "
                "torch.save(model.state_dict(), FILE)"
            ) from None
        raise _unreadable(path, error) from None
    except (safetensors.SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: expected a dictionary of tensors, but got {type(content)}")
    strange = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if strange:
        raise InputError(
            f"{path}: {strange[0]!r} is no tensor; save the model's state_dict() alone"
        )
    return content


def _unreadable(path: Path, error: Exception) -> InputError:
    # Of a damaged pickle torch tells at length what changed in its version 2.6; the cause is last.
    text = str(error).split("WeightsUnpickler error:")[-1].strip()
    reason = text.splitlines()[0].split(". ")[0][:200] if text else "empty"
    return InputError(
        f"{path}: cannot be read as weights ({reason}); is it damaged, or of another program?"
    )


def load_weights(model: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Load weights that must fit a model exactly.

    Args:
        model: Changed in place; untouched when the weights do not fit.
        state: Tensors by name, for instance from `read_weights`.
        source: Shown in errors.

    Raises:
        InputError: Names are missing, left over, or have another shape; one line names them.
    """
    own = model.state_dict()
    # Batch norm's step counters are absent from frozen layers and old files, and change nothing.
    given = {key: value for key, value in state.items() if not _is_counter(key)}
    wanted = {key: value for key, value in own.items() if not _is_counter(key)}
    shared = [key for key in wanted if key in given]
    problems = {
        "missing": [key for key in wanted if key not in given],
        "unexpected": [key for key in given if key not in wanted],
        "of another shape": [
            f"{key} {tuple(given[key].shape)} instead of {tuple(wanted[key].shape)}"
            for key in shared
            if given[key].shape != wanted[key].shape
        ],
    }
    told = [f"{len(keys)} {kind} ({_first(keys)})" for kind, keys in problems.items() if keys]
    if told:
        raise InputError(
            f"{source}: weights of another architecture: {'; '.join(told)}; check the model's "
            "settings, or take the file that belongs to them"
        )
    counters = {key: value for key, value in state.items() if _is_counter(key) and key in own}
    model.load_state_dict({**own, **given, **counters})


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def _first(keys: list[str], limit: int = 2) -> str:
    return ", ".join(keys[:limit]) + (", ..." if len(keys) > limit else "")
