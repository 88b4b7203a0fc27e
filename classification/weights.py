"""Weights for a trunk: ImageNet's, fetched only when asked for, or those of another network."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from classification.backbones import RENAMED, find_network
from classification.timm_zoo import fetch_timm
from networks.checkpoints import (
    body_key,
    describe_difference,
    guess_architecture,
    load_layers,
    require_finite,
)
from networks.public_checkpoints import recognise
from networks.published import fetch_imagenet
from networks.registry import Network, network_names


class _Startable(Protocol):
    """What of a classifier its weights go into."""

    trunk: nn.Module
    classifier: nn.Linear
    architecture: dict[str, Any]


def fetch_features(network: Network) -> dict[str, Tensor]:
    """Published weights of a network, downloaded where they are neither cached nor installed."""
    return fetch_timm(network.name) if network.family == "timm" else fetch_imagenet(network)


def load_features(
    layers: nn.Module,
    state: Mapping[str, Tensor],
    network: Network,
    *,
    source: str,
    what: str | None = None,
    known: Collection[str] = (),
) -> None:
    """Load a trunk's weights from a checkpoint of any network that has this trunk.

    `what` is the checkpoint's network, `known` those that could be chosen instead, for errors.
    """
    renamed = RENAMED.get(network.family, {})

    def rename(key: str) -> str:
        short = body_key(key)
        for old, new in renamed.items():
            short = new + short.removeprefix(old) if short.startswith(old) else short
        return short

    describe = partial(
        describe_difference,
        name=network.name,
        what=what or guess_architecture(state),
        known=known,
        setting="model.architecture",
    )
    load_layers(layers, state, source=source, describe=describe, rename=rename)


_OWN_LAST = ("classifier.weight", "classifier.bias")


def start_from(
    model: _Startable,
    state: Mapping[str, Tensor],
    *,
    source: str,
    findings: Sequence[str] | None = None,
    own_findings: Sequence[str] | None = None,
    network: str | None = None,
) -> str:
    """Load what a classifier can use of a checkpoint, and say what that is.

    Features come from any network that has the model's backbone: a classifier with however many
    findings, or a detector. Of the last layer come the rows of those findings that both know, by
    name: where the checkpoint is of a run of ours, or a public one whose findings are known.

    Args:
        model: From `classification.model.build_classifier`; untouched when the weights do not fit.
        state: Tensors by name, see `networks.checkpoints`.
        source: Where the weights come from, for errors.
        findings: What the checkpoint's run learned, in order; None where not known.
        own_findings: What the model shall learn, in order.
        network: Backbone that the checkpoint's run says it has; None where not known.

    Returns:
        A line that says what was taken and what was not.

    Raises:
        InputError: The weights are of another network, or hold a value that is not finite.
    """
    name = model.architecture["arguments"]["name"]
    public = recognise({key: tuple(value.shape) for key, value in state.items()})
    learned = tuple(findings or (public.findings if public else ()))
    keys = (public.weight, public.bias) if public and findings is None else _OWN_LAST
    rows = _shared_rows(model, state, keys, learned, tuple(own_findings or ()), source)
    load_features(
        model.trunk,
        state,
        find_network(name),
        source=source,
        what=network,
        known=(*network_names("classifier"), *([network] if network else [])),
    )
    own = tuple(own_findings or ())
    with torch.no_grad():
        for finding, (weight, bias) in rows.items():
            model.classifier.weight[own.index(finding)] = weight
            model.classifier.bias[own.index(finding)] = bias
    what = f"{source}: takes the features of {name}"
    if not rows:
        return f"{what}; the last layer starts anew"
    new = [finding for finding in own if finding not in rows]
    if not new:
        return f"{what} and its last layer"
    return f"{what} and its last layer for {', '.join(rows)}; it starts anew for {', '.join(new)}"


def _shared_rows(
    model: _Startable,
    state: Mapping[str, Tensor],
    keys: tuple[str, str],
    learned: tuple[str, ...],
    own: tuple[str, ...],
    source: str,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Rows of a checkpoint's last layer for the findings that the model has, too."""
    if any(key not in state for key in keys):
        return {}
    weight, bias = (state[key] for key in keys)
    if weight.shape != (len(learned), model.classifier.in_features) or len(bias) != len(learned):
        return {}
    for key in keys:
        require_finite(state[key], key, source)
    return {f: (weight[learned.index(f)], bias[learned.index(f)]) for f in own if f in learned}
