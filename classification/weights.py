"""Weights for a trunk: ImageNet's, fetched only when asked for, or those of another network."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

from torch import Tensor, nn
from torchvision.models import WeightsEnum

from classification.timm_zoo import TIMM, fetch_timm
from data_prep.contracts.errors import InputError
from networks.checkpoint_names import body_key, guess_architecture
from networks.checkpoints import match_body, tell_difference
from networks.packaged import PackagedWeights
from networks.published import fetch_weights


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
