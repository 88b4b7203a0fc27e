"""Checkpoints: the tensors that a model starts from, and how they fit the layers of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.networks.builders import build_network, feature_layers
from cxr_compare.networks.registry import NETWORKS, TIMM, ModelKind, network_names
from cxr_compare.networks.tensor_names import name_in_body

Shapes = Mapping[str, tuple[int, ...]]

STEP_COUNTER = "num_batches_tracked"
"""End of the names of batch norm's counters, which old files lack and which change nothing."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights from a file or a training run, from which a model can start.

    Attributes:
        source: File or folder that the weights come from, for messages.
        state: Tensors by their names in the file.
        findings: Findings that the outputs of the network are for, in their order; None if the file
            does not name them.
        network: Name of the network, such as ``resnet18``; None if the file does not name it.
        arguments: Arguments that the network was built with, by name; empty if unknown.
    """

    source: str  # file or run that they come from, for messages
    state: Mapping[str, Any]  # tensors by name
    findings: Sequence[str] | None = None  # names of the outputs, in order; None if not known
    network: str | None = None  # backbone that the run's record names; None if not known
    arguments: Mapping[str, Any] = field(default_factory=dict)  # arguments of the run's builder

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor by its name."""
        return {key: tuple(value.shape) for key, value in self.state.items()}


def fit_layers(
    layers: nn.Module,
    checkpoint: Checkpoint,
    name: str,
    kind: ModelKind,
    rename: Callable[[str], str] = str,
) -> dict[str, Tensor]:
    """Select from a checkpoint the tensors that some layers of a network need.

    The checkpoint may come from any network that contains these layers. Its other tensors, such as
    the last layer of a classifier, are ignored. If its first layer reads one grey channel, the
    weights are divided equally among the channels that the network reads, because all of these show
    the same image.

    `rename` translates the name of a tensor, after `networks.tensor_names.name_in_body` has
    translated it from the file's name, into the name in `layers`. Step counters of batch norm are
    missing in the result, because old files and frozen layers lack them, so load it with
    ``strict=False``. Raises InputError if a tensor of the layers is missing, is unexpected or has
    another shape, two tensors have the same name after translation, or a value is not finite.
    """
    own_state = layers.state_dict()
    source = checkpoint.source
    own_keys = match_names(own_state, name_in_body, source="this network")
    parts = {key.split(".")[0] for key in own_keys}
    new_names = {key: rename(name_in_body(key)) for key in checkpoint.state}
    keys_inside = [key for key, new in new_names.items() if new.split(".")[0] in parts]
    file_keys = match_names(keys_inside, new_names.__getitem__, source=source)
    tensors = {new: checkpoint.state[key] for new, key in file_keys.items()}

    first_name, first_key = next(iter(own_keys.items()))
    first_layer = own_state[first_key]  # (C_out, C_in, kernel, kernel)
    grey_shape = (*first_layer.shape[:1], 1, *first_layer.shape[2:])
    if first_name in tensors and (*tensors[first_name].shape,) == grey_shape:
        tensors[first_name] = tensors[first_name].expand(first_layer.shape) / first_layer.shape[1]

    file_shapes = {new: tuple(value.shape) for new, value in tensors.items()}
    own_shapes = {new: tuple(own_state[key].shape) for new, key in own_keys.items()}
    if file_shapes != own_shapes:
        problem = describe_difference(file_shapes, own_shapes, checkpoint, name, kind)
        raise InputError(f"{source}: {problem}")
    for new, value in tensors.items():
        require_finite(value, file_keys[new], source)
    return {key: tensors[new] for new, key in own_keys.items()}


def describe_difference(
    file_shapes: Shapes, own_shapes: Shapes, checkpoint: Checkpoint, name: str, kind: ModelKind
) -> str:
    """Return a sentence on how the tensors of a checkpoint differ from a network, and what to do.

    The shapes are by this program's names. `name` is the network that the tensors were expected to
    be of. The sentence is the end of an error message.

    Example:
        >>> checkpoint = Checkpoint("w.pth", {}, network="resnet18")
        >>> describe_difference({}, {"a": (1,)}, checkpoint, "vgg16", "classifier")
        'weights of resnet18, not of vgg16; set model.backbone to resnet18'
    """
    if kind == "detector" and _without_norm_state(file_shapes) == _without_norm_state(own_shapes):
        if len(file_shapes) > len(own_shapes):
            return "was made with batch norm; set model.norm to frozen or batch, not group"
        return "has no batch statistics: it was made with group norm; set model.norm to group"
    file_network = checkpoint.network or guess_network(checkpoint.shapes)
    supported = network_names(kind)
    if file_network and file_network != name:
        advice = f"take a file of one of {', '.join(supported)}"
        if file_network in supported or file_network.startswith(TIMM):
            advice = f"set model.backbone to {file_network}"
        return f"weights of {file_network}, not of {name}; {advice}"
    shared = [key for key in own_shapes if key in file_shapes]
    differences = {
        "missing": [key for key in own_shapes if key not in file_shapes],
        "of another shape": [key for key in shared if file_shapes[key] != own_shapes[key]],
        "too many": [key for key in file_shapes if key not in own_shapes],
    }
    problems = "; ".join(
        f"{len(keys)} {label} (first {keys[0]})" for label, keys in differences.items() if keys
    )
    return (
        f"not weights of {name}, whose {len(own_shapes)} tensors were looked for: {problems}; take "
        "another file, or set model.backbone to the network that it is of"
    )


def guess_network(shapes: Shapes, names: Iterable[str] = tuple(NETWORKS)) -> str | None:
    """Guess which network of the registry the tensors of a checkpoint belong to.

    All tensors before the last layer must have the same names and shapes as in the network, with
    two exceptions: statistics of batch norms may be missing, and the first layer may read one grey
    channel instead of three colours.

    The shapes are by the names in the file. The result is the first of `names` that fits; None if
    none does.
    """
    file_shapes = {name_in_body(key): shape for key, shape in _without_norm_state(shapes).items()}
    for name in names:
        if not NETWORKS[name].weights:
            continue
        network_shapes = _feature_shapes(name)
        parts = {key.split(".")[0] for key in network_shapes}
        inside = {key: shape for key, shape in file_shapes.items() if key.split(".")[0] in parts}
        first_name, (width, _, *kernel) = next(iter(network_shapes.items()))
        grey_shapes = {**network_shapes, first_name: (width, 1, *kernel)}
        if inside in (network_shapes, grey_shapes):
            return name
    return None


def _without_norm_state(shapes: Shapes) -> Shapes:
    """Leave out the statistics and counters that only batch norm stores."""
    norm_state = (STEP_COUNTER, "running_mean", "running_var")
    return {key: shape for key, shape in shapes.items() if not key.endswith(norm_state)}


@cache
def _feature_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a network's learned tensors before its pooling, by `name_in_body`."""
    with torch.device("meta"):
        features = feature_layers(build_network(name))
    return {name_in_body(key): tuple(value.shape) for key, value in features.named_parameters()}


def match_names(
    keys: Iterable[str], rename: Callable[[str], str], *, source: str
) -> dict[str, str]:
    """Find this program's name for each tensor of a checkpoint.

    The step counters of batch norm are left out, because they change nothing.

    Raises InputError if `rename` gives two tensors the same name.

    Example:
        >>> match_names(["module.fc.bias"], name_in_body, source="w.pth")
        {'fc.bias': 'module.fc.bias'}
    """
    key_by_name: dict[str, str] = {}
    for key in keys:
        if key.endswith(STEP_COUNTER):
            continue
        first = key_by_name.setdefault(rename(key), key)
        if first != key:
            raise InputError(f"{source}: holds two networks ({first} and {key}); save one alone")
    return key_by_name


def require_finite(value: Any, key: str, source: str) -> None:
    """Raise InputError, which names the tensor, if a value of it is NaN or infinite."""
    if not value.isfinite().all():
        raise InputError(
            f"{source}: {key} holds values that are not finite; its training diverged, take "
            "another checkpoint"
        )
