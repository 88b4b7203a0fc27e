"""Weights for a trunk: ImageNet's, fetched only when asked for, or those of another network."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from classification.timm_zoo import TIMM, fetch_timm
from data_prep.checkpoint_names import body_key, guess_architecture
from data_prep.errors import InputError

_COUNTER = "num_batches_tracked"


def fetch_weights(name: str, source: WeightsEnum | None) -> dict[str, Tensor]:
    """Read a published weights file from the library's cache, or download it there.

    Args:
        name: The backbone's.
        source: Which file of torchvision's; None where it is not torchvision's.

    Returns:
        Its tensors by name, on the CPU.

    Raises:
        InputError: There is none, or it is not in the cache and cannot be downloaded, or it is
            damaged.
    """
    if source is None and name.startswith(TIMM):
        return fetch_timm(name)
    if source is None:
        raise InputError(f"weights: there are none of {name} from ImageNet; set weights = none")
    try:
        state: Mapping[str, Tensor] = source.get_state_dict(
            progress=True, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        file = Path(source.url).name
        place = Path(torch.hub.get_dir()) / "checkpoints" / file
        raise InputError(
            f"weights {file}: cannot be fetched ({_reason(error)}); put the file from "
            f"{source.url} at {place}, or train with weights = none"
        ) from None
    return dict(state)


def load_features(
    layers: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str,
    name: str,
    known: Collection[str] = (),
    renamed: Mapping[str, str] | None = None,
) -> None:
    """Load a trunk's weights from a checkpoint of any network that has this trunk.

    Names are compared without what holds the trunk. A first layer that reads one grey channel is
    spread over the three that a trunk here reads, which all hold the same picture: each gets a
    third.

    Args:
        layers: A trunk's; untouched when the weights do not fit.
        state: Tensors by name, see `data_prep.checkpoint_names`. Tensors of other layers are left
            out.
        source: Where the weights come from, for errors.
        name: The trunk's, for errors.
        known: Names of trunks that could be chosen instead.
        renamed: Beginnings of names that are others in the trunk.

    Raises:
        InputError: The weights are of another network, of two, or hold a value that is not finite.
    """
    own = {body_key(k): k for k in layers.state_dict() if not k.endswith(_COUNTER)}
    shapes = {short: layers.state_dict()[key].shape for short, key in own.items()}
    parts = {short.split(".")[0] for short in own}
    given: dict[str, Tensor] = {}
    for key, value in state.items():
        short = body_key(key)
        for old, new in (renamed or {}).items():
            short = new + short.removeprefix(old) if short.startswith(old) else short
        if key.endswith(_COUNTER) or short.split(".")[0] not in parts:
            continue
        if short in given:
            raise InputError(f"{source}: holds two networks ({key} twice); save one alone")
        given[short] = value
    stem = next(iter(own))
    if stem in given and given[stem].ndim == 4 and given[stem].shape[1] == 1:
        given[stem] = given[stem].expand(-1, 3, -1, -1) / 3
    missing = [key for key in own if key not in given]
    left = [key for key in given if key not in own]
    other = [key for key in own if key in given and given[key].shape != shapes[key]]
    if missing or left or other:
        counts = {"missing": missing, "of another shape": other, "too many": left}
        told = "; ".join(f"{len(k)} {kind} (first {k[0]})" for kind, k in counts.items() if k)
        problem = _other_network(state, name, known) or (
            f"not weights of {name}, whose {len(own)} tensors were looked for: {told}"
        )
        raise InputError(f"{source}: {problem}")
    if bad := [key for key, value in given.items() if not torch.isfinite(value).all()]:
        raise InputError(
            f"{source}: {bad[0]} holds values that are not finite; its training diverged, take "
            "another checkpoint"
        )
    # Not strict: files from before step counters, and frozen layers, have none.
    layers.load_state_dict({own[short]: value for short, value in given.items()}, strict=False)


def _other_network(state: Mapping[str, Tensor], name: str, known: Collection[str]) -> str | None:
    """What network weights are of, where that shows and is another one."""
    what = guess_architecture(state)
    if what is None or what == name:
        return None
    # A guess may be exact, or name a family or two, of which the wanted network may be one.
    fitting = [other for other in known if other.startswith(tuple(what.split(" or ")))]
    if name in fitting:
        return None
    wanted = f"set model.architecture to {' or '.join(fitting)}" if fitting else "take another file"
    return f"weights of {what}, not of {name}; {wanted}"


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
