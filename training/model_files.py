"""Stored models: ``model.safetensors`` and ``model.json``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from cxr_compare.classification.chexnet import ChestClassifier
from cxr_compare.data_prep.base.errors import InputError, first_line
from cxr_compare.data_prep.base.files import atomic_path, require_unchanged
from cxr_compare.data_prep.base.records import Record
from cxr_compare.data_prep.preprocess import Preprocess
from cxr_compare.detection.retinanet import LesionRetinaNet
from cxr_compare.training.run_info import MODEL_FILE, PREPROCESS_FILE, WEIGHTS_FILE

Model = LesionRetinaNet | ChestClassifier
_CLASSES: dict[str, type[Model]] = {"boxes": LesionRetinaNet, "scores": ChestClassifier}
_COUNTER = "num_batches_tracked"
_MARGIN = 2**31
"""Bytes that reading takes whatever the size of the file: libraries, threads and their stacks."""
# Classes of NumPy's numbers, as which checkpoints store figures beside the weights.
_FIGURES: list[Any] = [
    np.dtype,
    np.float64(0).__reduce__()[0],
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64")),
]


class ModelInfo(Record, kind="model"):
    """Content of ``model.json``: what a network is built with."""

    gives: Literal["boxes", "scores"]
    arguments: dict[str, Any]


def write_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors; the same tensors give the same bytes."""
    content = save(dict(state), metadata={"format": "pt"})
    end = 8 + int.from_bytes(content[:8], "little")
    # safetensors writes the keys of its header in the order of a hash, and pads it to 8 bytes.
    header = json.dumps(json.loads(content[8:end]), separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with atomic_path(path) as temporary:
        temporary.write_bytes(len(header).to_bytes(8, "little") + header + content[end:])


@contextmanager
def limited_memory(path: Path) -> Iterator[None]:
    """Let this process grow by four times the size of a file, which may unpack to any size.

    Memory beyond that raises an error, where the system would end a process that took it all.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    needed = in_use + 4 * path.stat().st_size + _MARGIN
    if soft == resource.RLIM_INFINITY or needed < soft:
        resource.setrlimit(resource.RLIMIT_AS, (needed, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file of safetensors or torch, by name."""
    if not path.is_file():
        raise InputError(f"{path}: no such weights; give none, imagenet, a file or a run folder")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with limited_memory(path), torch.serialization.safe_globals(_FIGURES):
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - of a damaged or foreign file
        raise InputError(f"{path}: cannot be read as weights ({first_line(error)})") from None
    for wrapper in ("state_dict", "model", "model_state_dict"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    state = content if isinstance(content, dict) else {}
    if not any(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path}: holds no tensors by name; save the model's state_dict()")
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}


def save_architecture(model: Model, folder: Path) -> None:
    """Write what the network is built with, and its preprocessing."""
    model.preprocess.write(folder / PREPROCESS_FILE)
    ModelInfo(gives=model.kind, arguments=model.arguments).write(folder / MODEL_FILE)


def load_model(
    folder: Path, files: Mapping[str, str], build_own: Callable[..., Any] | None = None
) -> Any:
    """Build the network of a folder and load its weights; it is in evaluation mode.

    `files` are the SHA-256 digests in the record of the folder. `build_own` builds a network
    of the user's own from preprocessing and number of findings.
    """
    for name in (MODEL_FILE, PREPROCESS_FILE, WEIGHTS_FILE):
        require_unchanged(folder / name, files.get(name))
    path = folder / MODEL_FILE
    info = ModelInfo.read(path)
    preprocess = Preprocess.read(folder / PREPROCESS_FILE)
    if build_own is not None:
        model = build_own(preprocess, n_findings=info.arguments["n_findings"])
    else:
        with limited_memory(folder / WEIGHTS_FILE):
            model = _build(info, preprocess, path)
    state = read_weights(folder / WEIGHTS_FILE)
    shapes = {key: value.shape for key, value in model.state_dict().items() if _COUNTER not in key}
    stored_shapes = {key: value.shape for key, value in state.items() if _COUNTER not in key}
    wrong = [
        key for key in {**shapes, **stored_shapes} if shapes.get(key) != stored_shapes.get(key)
    ]
    if wrong:
        raise InputError(
            f"{folder / WEIGHTS_FILE}: {len(wrong)} tensors are not those of the network in "
            f"{MODEL_FILE}, first {wrong[0]}; a network of your own is given as model"
        )
    model.load_state_dict(state, strict=False)
    return model.eval()


def _build(info: ModelInfo, preprocess: Preprocess, path: Path) -> Model:
    try:
        return _CLASSES[info.gives](preprocess, **info.arguments)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # noqa: BLE001 - of a network that its file does not describe
        raise InputError(f"{path}: no network can be built ({first_line(error)})") from None


def count_flops(model: nn.Module, size: int) -> int:
    """Count the floating-point operations for one image of a side, px."""
    from torch.utils.flop_counter import FlopCounterMode

    device = next(model.parameters()).device
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 1, size, size, dtype=torch.uint8, device=device))
    return int(counter.get_total_flops())
