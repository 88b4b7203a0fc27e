"""Start a classifier from other weights: the features, and the last layer where it is the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from classification.model import ImageClassifier
from data_prep.checkpoint_names import body_key, guess_architecture
from data_prep.errors import InputError

_LAST = "classifier."
_COUNTER = "num_batches_tracked"


def start_from(
    model: ImageClassifier,
    state: Mapping[str, Tensor],
    *,
    source: str,
    findings: Sequence[str] | None = None,
    own_findings: Sequence[str] | None = None,
) -> str:
    """Load what a classifier can use of a checkpoint, and say what that is.

    Features come from any network that has the model's backbone: a classifier with however many
    findings, or a detector. The last layer comes with them only from a classifier of ours that
    learned the same findings in the same order.

    Args:
        model: From `classification.model.build_classifier`; untouched when the weights do not fit.
        state: Tensors by name, see `data_prep.checkpoint_names`.
        source: Where the weights come from, for errors.
        findings: What the checkpoint's run learned, in order; None where not known.
        own_findings: What the model shall learn, in order.

    Returns:
        A line that says what was taken and what was not.

    Raises:
        InputError: The weights are of another network, or hold a value that is not finite.
    """
    name = model.architecture["arguments"]["name"]
    own = {k: v for k, v in model.trunk.state_dict().items() if not k.endswith(_COUNTER)}
    stem = next(iter(own))
    parts = {key.split(".")[0] for key in own}
    given: dict[str, Tensor] = {}
    for key, value in state.items():
        short = body_key(key)
        if key.endswith(_COUNTER) or short.split(".")[0] not in parts:
            continue
        if short in given:
            raise InputError(f"{source}: holds two networks ({key} twice); save one alone")
        given[short] = value
    if stem in given and given[stem].ndim == 4 and given[stem].shape[1] == 1:
        given[stem] = given[stem].expand(-1, 3, -1, -1) / 3  # one grey channel, shown three times
    if problem := _problem(given, own, name, state):
        raise InputError(f"{source}: {problem}")
    taken = {f"trunk.{key}": value for key, value in given.items()}
    last = {key: value for key, value in state.items() if key.startswith(_LAST)}
    same = findings is not None and tuple(findings) == tuple(own_findings or ())
    shapes = {k: v.shape for k, v in model.state_dict().items() if k.startswith(_LAST)}
    same = same and {key: value.shape for key, value in last.items()} == shapes
    taken |= last if same else {}
    if bad := [key for key, value in taken.items() if not torch.isfinite(value).all()]:
        raise InputError(
            f"{source}: {bad[0]} holds values that are not finite; its training diverged, take "
            "another checkpoint"
        )
    model.load_state_dict(taken, strict=False)
    rest = "and its last layer" if same else "; the last layer starts anew"
    return f"{source}: takes the features of {name}{' ' if same else ''}{rest}"


def _problem(
    given: Mapping[str, Tensor], own: Mapping[str, Tensor], name: str, state: Mapping[str, Tensor]
) -> str | None:
    """Why the features do not fit, and what to do."""
    missing = [key for key in own if key not in given]
    left = [key for key in given if key not in own]
    other = [key for key in own if key in given and given[key].shape != own[key].shape]
    if not (missing or left or other):
        return None
    what = guess_architecture(state)
    if what is not None and what != name:
        return f"weights of {what}, not of {name}; set model.architecture to it, or take another"
    counts = {"missing": missing, "of another shape": other, "too many": left}
    told = "; ".join(f"{len(k)} {kind} (first {k[0]})" for kind, k in counts.items() if k)
    return f"not weights of {name}, whose {len(own)} tensors were looked for: {told}"
