"""Weights for a trunk: ImageNet's, fetched only when asked for, or those of another network."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from classification.backbones import BACKBONES, find_recipe
from classification.timm_zoo import TIMM, fetch_timm
from data_prep.contracts.errors import InputError
from networks.checkpoints import (
    body_key,
    guess_architecture,
    match_body,
    require_finite,
    tell_difference,
)
from networks.public_checkpoints import recognise
from networks.published import PackagedWeights, fetch_weights

if TYPE_CHECKING:
    from classification.model import ImageClassifier


def fetch_features(name: str, source: WeightsEnum | PackagedWeights | None) -> dict[str, Tensor]:
    """Published weights of a backbone, downloaded where they are neither cached nor installed.

    Args:
        name: The backbone's.
        source: Which file of torchvision's or of a package; None where it is neither.

    Returns:
        Its tensors by name, on the CPU.

    Raises:
        InputError: There are none, or they cannot be had.
    """
    if source is not None:
        return fetch_weights(source)
    if name.startswith(TIMM):
        return fetch_timm(name)
    raise InputError(f"weights: there are none of {name} from ImageNet; set weights = none")


def load_features(
    layers: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str,
    name: str,
    what: str | None = None,
    known: Collection[str] = (),
    renamed: Mapping[str, str] | None = None,
) -> None:
    """Load a trunk's weights from a checkpoint of any network that has this trunk.

    See `networks.checkpoints.match_body` for what fits.

    Args:
        layers: A trunk's; untouched when the weights do not fit.
        state: Tensors by name, those of other layers among them.
        source: Where the weights come from, for errors.
        name: The trunk's, for errors.
        what: The network that the weights are of, for errors; None guesses.
        known: Names of trunks that could be chosen instead.
        renamed: Beginnings of names that are others in the trunk.

    Raises:
        InputError: The weights are of another network, of two, or hold a value that is not finite.
    """

    def rename(key: str) -> str:
        short = body_key(key)
        for old, new in (renamed or {}).items():
            short = new + short.removeprefix(old) if short.startswith(old) else short
        return short

    describe = partial(
        tell_difference,
        name=name,
        what=what or guess_architecture(state),
        known=known,
        setting="model.architecture",
    )
    own = layers.state_dict()
    values = match_body(state, own, source=source, describe=describe, rename=rename)
    # Not strict: files from before step counters, and frozen layers, have none.
    layers.load_state_dict(values, strict=False)


_OWN_LAST = ("classifier.weight", "classifier.bias")


def start_from(
    model: ImageClassifier,
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
    theirs = tuple(findings or (public.findings if public else ()))
    keys = (public.weight, public.bias) if public and findings is None else _OWN_LAST
    rows = _shared_rows(model, state, keys, theirs, tuple(own_findings or ()), source)
    load_features(
        model.trunk,
        state,
        source=source,
        name=name,
        what=network,
        known=tuple({**BACKBONES, **({network: None} if network else {})}),
        renamed=find_recipe(name).renamed,
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
    model: ImageClassifier,
    state: Mapping[str, Tensor],
    keys: tuple[str, str],
    theirs: tuple[str, ...],
    own: tuple[str, ...],
    source: str,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Rows of a checkpoint's last layer for the findings that the model has, too."""
    if any(key not in state for key in keys):
        return {}
    weight, bias = (state[key] for key in keys)
    if weight.shape != (len(theirs), model.classifier.in_features) or len(bias) != len(theirs):
        return {}
    for key in keys:
        require_finite(state[key], key, source)
    return {f: (weight[theirs.index(f)], bias[theirs.index(f)]) for f in own if f in theirs}
