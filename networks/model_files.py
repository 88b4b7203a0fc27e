"""Files of a model, which hold its architecture and its weights."""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import init
from torch.overrides import TorchFunctionMode

from cxr_compare.data_prep.contracts.atomic_files import atomic_path
from cxr_compare.data_prep.contracts.errors import InputError, first_line
from cxr_compare.data_prep.contracts.records import Record

WEIGHTS_FILE = "model.safetensors"


ARCHITECTURE_FILE = "model.json"


_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


_REFUSED_CLASS = re.compile(r"(?:GLOBAL|global) `?([\w.]+)")  # the class that weights_only refused


# NumPy classes in which checkpoints store figures, such as the best loss, besides the weights.
_SAFE_CLASSES: list[Any] = [
    np.dtype,
    np.float64(0).__reduce__()[0],  # rebuilds a scalar; its module moves between versions
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")),
]


_INITIALISERS = {init.kaiming_uniform_, init.normal_, init.uniform_}


_WRAPPER_KEYS = ("state_dict", "model", "model_state_dict")  # under which others store weights


def save_model(model: nn.Module, folder: Path) -> None:
    """Write a model to a folder: its weights, and its architecture (how the network is built).

    Each of the two files appears only when it is complete.

    The files are ``model.safetensors`` and ``model.json``. The model has an attribute
    ``architecture``: a dictionary with ``kind``, ``name`` and ``arguments``.
    """
    # Contiguous and on the CPU: the file then does not depend on where the model was trained.
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_weights(state, folder / WEIGHTS_FILE)
    save_architecture(model, folder)


def write_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Write contiguous CPU tensors to a safetensors file. Equal tensors give equal files."""
    with atomic_path(path) as temporary:
        content = save(dict(state), metadata={"format": "pt"})  # transformers needs this entry
        # save() writes the entries of the header in any order: here they get a fixed one.
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:end])
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        temporary.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])


class Architecture(Record):
    """The network of a training run, to which the stored weights belong.

    `name` is that of its family, such as ``retinanet`` or ``classifier``. The arguments are those
    of the function that builds the network again.
    """

    kind: Literal["detector", "classifier"]
    name: str
    arguments: dict[str, Any]


class ModelInfo(Record, kind="model"):
    """Content of ``model.json``, which says how the network of a training run is built."""

    architecture: Architecture


def save_architecture(model: nn.Module, folder: Path) -> None:
    """Write the architecture of a network to ``model.json`` in the folder of its training."""
    architecture: Any = model.architecture
    ModelInfo(architecture=Architecture(**architecture)).write(folder / ARCHITECTURE_FILE)


def read_architecture(folder: Path) -> Architecture:
    """Read the architecture of a network from ``model.json`` in the folder of its training.

    Raises InputError if the file is missing or damaged.
    """
    stored = ModelInfo.read(folder / ARCHITECTURE_FILE).architecture
    # A run from elsewhere has weights of its own, and must not make this machine download others.
    arguments = {key: value for key, value in stored.arguments.items() if key != "weights"}
    if stored.kind == "detector":
        arguments["architecture"] = stored.name
    return stored.with_values(arguments=arguments)


class _WithoutRandomWeights(TorchFunctionMode):
    """Mode that draws no random weights, which takes most of the time: a file replaces them."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _INITIALISERS:
            return args[0] if args else kwargs["tensor"]
        # A constant that such a distribution can give: init.trunc_normal_ draws until all values
        # lie within its limits.
        if func is Tensor.normal_:
            return args[0].fill_(_argument(args, kwargs, 1, "mean", 0.0))
        if func is Tensor.uniform_:
            low = _argument(args, kwargs, 1, "from", 0.0)
            return args[0].fill_((low + _argument(args, kwargs, 2, "to", 1.0)) / 2)
        return func(*args, **kwargs)


def _argument(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], position: int, name: str, usual: float
) -> float:
    return float(args[position] if len(args) > position else kwargs.get(name, usual))


def load_model(folder: Path, builders: Mapping[str, Callable[..., nn.Module]]) -> nn.Module:
    """Build the model of a folder, and load its weights.

    The folder is that of `save_model`. A builder is found by the name of the architecture or else
    by its kind. The model is in evaluation mode, on the CPU. Raises InputError if a file is missing
    or damaged, or the tensors differ from those of the built model.
    """
    path = folder / ARCHITECTURE_FILE
    architecture = read_architecture(folder)
    build = builders.get(architecture.name) or builders[architecture.kind]
    arguments = architecture.arguments
    state = read_weights(folder / WEIGHTS_FILE)
    is_foreign = ":" in str(arguments.get("backbone"))  # of timm or the user's own
    try:
        with _WithoutRandomWeights():
            if not is_foreign:  # they may read values while they are built
                # Shapes alone first: an absurd size in a damaged file then takes no memory.
                with torch.device("meta"):
                    _require_fit(build(**arguments), state, folder / WEIGHTS_FILE)
            model = build(**arguments)
    except InputError as error:
        prefix = "" if str(error).startswith(str(folder)) else f"{path}: "
        raise InputError(f"{prefix}{error}") from None
    except (TypeError, ValueError, RuntimeError, AttributeError, ArithmeticError) as error:
        reason = first_line(error)
        raise InputError(f"{path}: {reason}; was it written by another version?") from None
    load_weights(model, state, folder / WEIGHTS_FILE)
    return model.eval()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a weights file by name, to the CPU. No code in the file is run.

    The file may be ``.safetensors``, or ``.pth``, ``.pt`` or ``.ckpt`` of PyTorch. The state
    dictionary may be nested under ``state_dict``, ``model`` or ``model_state_dict``.

    Raises InputError if the file is missing or damaged, or contains something else than tensors by
    name.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    with path.open("rb") as file:
        start = file.read(len(_HDF5_SIGNATURE))
    if start == _HDF5_SIGNATURE:
        raise InputError(
            f"{path}: is an HDF5 file, as Keras writes it; only weights of PyTorch can be read: "
            "take another file"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(_SAFE_CLASSES):
            warnings.simplefilter("ignore", UserWarning)  # about pickles that are then refused
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = _REFUSED_CLASS.search(str(error))
        if refused:
            raise InputError(
                f"{path}: holds Python objects ({refused[1]}), and reading those could run code; "
                "where you trust it, convert it as docs/models.md shows, with its own program and "
                "torch.save(model.state_dict(), FILE)"
            ) from None
        raise _unreadable(path, error) from None
    except Exception as error:  # noqa: BLE001  torch's reader raises any kind on what is no pickle
        raise _unreadable(path, error) from None
    for wrapper in _WRAPPER_KEYS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: expected a dictionary of tensors, but got {type(content)}")
    others = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise InputError(f"{path}: {others[0]!r} is no tensor; save the model's state_dict() alone")
    return content


def _unreadable(path: Path, error: Exception) -> InputError:
    """Explain why a file is no weights file."""
    # For a damaged pickle torch first explains a change of its version 2.6; the cause is last.
    text = str(error).split("WeightsUnpickler error:")[-1].strip()
    reason = text.splitlines()[0].split(". ")[0][:200] if text else "empty"
    return InputError(
        f"{path}: cannot be read as weights ({reason}); is it damaged, or of another program?"
    )


def load_weights(model: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Load weights into a model. All names and shapes must agree.

    The model stays on its device. Step counters of batch norm may be missing in `state`. Raises
    InputError if another tensor is missing, is unexpected or has another shape.
    """
    _require_fit(model, state, source)
    model.load_state_dict(state, strict=False)


def _require_fit(model: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Refuse weights that are not exactly those of a model, by name and shape."""
    expected = _without_step_counters(model.state_dict())
    weights = _without_step_counters(state)
    shared = [key for key in expected if key in weights]
    differences = {
        "missing": [key for key in expected if key not in weights],
        "unexpected": [key for key in weights if key not in expected],
        "of another shape": [
            f"{key} {tuple(weights[key].shape)} instead of {tuple(expected[key].shape)}"
            for key in shared
            if weights[key].shape != expected[key].shape
        ],
    }
    lines = []
    for kind, keys in differences.items():
        if keys:
            dots = ", ..." if len(keys) > 2 else ""
            lines.append(f"{len(keys)} {kind} ({', '.join(keys[:2])}{dots})")
    if lines:
        raise InputError(
            f"{source}: weights of another architecture: {'; '.join(lines)}; check the model's "
            "settings, or take the file that belongs to them"
        )


def _without_step_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Batch norm's step counters are absent from frozen layers and old files, and change nothing.
    return {key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
