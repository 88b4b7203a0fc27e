"""Weights for a classifier's trunk: ImageNet's, or those of another network or training."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from classification.backbones import RENAMED, TimmTrunk
from networks.checkpoints import (
    Checkpoint,
    body_key,
    describe_difference,
    fit_layers,
    guess_architecture,
    require_finite,
)
from networks.published import find_network, recognise
from networks.registry import Network, network_names

_OWN_LAST = ("classifier.weight", "classifier.bias")


def load_features(
    layers: nn.Module, checkpoint: Checkpoint, network: Network, known: Collection[str] = ()
) -> None:
    """Load a trunk's weights from a checkpoint of any network that has this trunk.

    `known` are the networks that could be chosen instead, for errors.
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
        what=checkpoint.network or guess_architecture(checkpoint.state),
        known=known,
        setting="model.backbone",
    )
    if isinstance(layers, TimmTrunk):
        checkpoint = replace(checkpoint, state=layers.fit_places(checkpoint.state))
    state = fit_layers(layers, checkpoint, describe=describe, rename=rename)
    layers.load_state_dict(state, strict=False)


def start_from(model: Any, checkpoint: Checkpoint, own_findings: Sequence[str] = ()) -> str:
    """Load what a classifier can use of a checkpoint, and say what that is.

    Features come from any network that has the model's backbone: a classifier with however many
    findings, or a detector. Of the last layer come the rows of those findings that both know, by
    name: where the checkpoint is of a run of ours, or a public one whose findings are known.

    Args:
        model: From `classification.model.build_classifier`; untouched when the weights do not fit.
        checkpoint: The weights, and what is known of them.
        own_findings: What the model shall learn, in order.

    Returns:
        A line that says what was taken and what was not.

    Raises:
        InputError: The weights are of another network, or hold a value that is not finite.
    """
    name, theirs = model.architecture["arguments"]["backbone"], checkpoint.network
    rows = _shared_rows(model, checkpoint, own_findings)
    known = (*network_names("classifier"), *([theirs] if theirs else []))
    load_features(model.trunk, checkpoint, find_network(name, "classifier"), known)
    with torch.no_grad():
        for row, finding in enumerate(own_findings):
            if finding in rows:
                model.classifier.weight[row], model.classifier.bias[row] = rows[finding]
    taken = f"{checkpoint.source}: takes the features of {name}"
    if not rows:
        return f"{taken}; the last layer starts anew"
    new = [finding for finding in own_findings if finding not in rows]
    if not new:
        return f"{taken} and its last layer"
    return f"{taken} and its last layer for {', '.join(rows)}; it starts anew for {', '.join(new)}"


def _shared_rows(
    model: Any, checkpoint: Checkpoint, own_findings: Sequence[str]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Rows of a checkpoint's last layer for the findings that the model has, too."""
    public, state = recognise(checkpoint), checkpoint.state
    keys = (public.weight, public.bias) if public else _OWN_LAST
    learned = list(public.findings if public else checkpoint.findings or ())
    if any(key not in state for key in keys):
        return {}
    weight, bias = (state[key] for key in keys)
    if weight.shape != (len(learned), model.classifier.in_features) or len(bias) != len(learned):
        return {}
    for key in keys:
        require_finite(state[key], key, checkpoint.source)
    rows = {finding: learned.index(finding) for finding in own_findings if finding in learned}
    return {finding: (weight[row], bias[row]) for finding, row in rows.items()}
