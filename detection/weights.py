"""Weights of other networks and of other trainings, checked before a detector takes them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from data_prep.contracts.errors import InputError
from detection.backbone import BACKBONES, body_shapes
from networks.checkpoint_names import body_key, detector_key, guess_architecture
from networks.checkpoints import (
    STEP_COUNTER,
    Shapes,
    match_body,
    match_names,
    require_finite,
    tell_difference,
)

BODY = "backbone.body."
CLASS_LAYER = "head.classification_head.cls_logits."
_HEADS = ("head.classification_head.", "head.regression_head.")
_STATISTICS = ("running_mean", "running_var")
_SIZES = {  # what tells two RetinaNets apart, and the key that sets it
    "fpn_channels": "model.fpn_channels",
    "head_convs": "model.head_convs",
    "head": "model.head",
    "anchors at a place": "model.anchor_ratios",
}


def is_retinanet_key(name: str) -> bool:
    """Whether torchvision's RetinaNet has such a tensor, too: in its backbone or its two heads."""
    return name.startswith(("backbone.", *_HEADS))


def is_detector(state: Mapping[str, Tensor]) -> bool:
    """Whether a checkpoint is of a RetinaNet, torchvision's or ours, not of a classifier."""
    names = {detector_key(key) for key in state}
    return f"{CLASS_LAYER}weight" in names and any(name.startswith(BODY) for name in names)


def load_body(body: nn.Module, state: Mapping[str, Tensor], *, name: str, source: str) -> None:
    """Load a body's weights from a checkpoint of any network that has this body.

    Other layers of the checkpoint, such as the last one of a classifier with however many
    classes, are left out; see `networks.checkpoints.match_body`.

    Args:
        body: From `detection.backbone.build_body`, or as it lies under a pyramid; untouched when
            the weights do not fit.
        state: Tensors by name, see `networks.checkpoint_names`.
        name: The body's, a key of `BACKBONES`.
        source: Where the weights come from, for errors.

    Raises:
        InputError: The checkpoint is of another network or another normalisation, holds two
            networks, or a value that is not finite; one line names it and says what to do.
    """
    describe = partial(_body_problem, given=_shapes(state), name=name)
    values = match_body(state, body.state_dict(), source=source, describe=describe)
    body.load_state_dict(values, strict=False)  # strict would ask for the step counters


def load_detector(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    name: str,
    source: str,
    same_findings: bool = True,
) -> list[str]:
    """Load a whole RetinaNet, but the class layer where that has other findings.

    Args:
        model: From `detection.model.build_retinanet`; untouched when the weights do not fit.
        state: Tensors by name, of our detector or of torchvision's.
        name: The model's backbone.
        source: Where the weights come from, for errors.
        same_findings: Whether the checkpoint's findings are the model's, in their order.

    Returns:
        What is not taken over, in words; empty where all is.

    Raises:
        InputError: As `load_body`, or the pyramid or the heads are of another size.
    """
    places = match_names(state, detector_key, source=source)
    given = {name: state[place] for name, place in places.items()}
    own = {k: v for k, v in model.state_dict().items() if not k.endswith(STEP_COUNTER)}
    theirs, ours = _sizes(given), _sizes(own)
    found, wanted = (
        {k.removeprefix(BODY): v for k, v in _shapes(s).items() if k.startswith(BODY)}
        for s in (given, own)
    )
    if found != wanted:
        raise InputError(f"{source}: {_body_problem(found, wanted, given=found, name=name)}")
    if differing := [key for key in _SIZES if theirs.get(key) != ours[key]]:
        told = ", ".join(f"{key} {theirs.get(key)} instead of {ours[key]}" for key in differing)
        raise InputError(
            f"{source}: a detector of another size: {told}; set "
            f"{' and '.join(_SIZES[key] for key in differing)} as it was"
        )
    notes = []
    if not same_findings or theirs["findings"] != ours["findings"]:
        given = {k: v for k, v in given.items() if not k.startswith(CLASS_LAYER)}
        notes.append(
            f"its class layer ({theirs['findings']} findings) is left out: this model's "
            f"{ours['findings']} are not the same"
        )
    needed = {k for k in own if is_retinanet_key(k) and not k.startswith(CLASS_LAYER)}
    bad = [k for k in own if k in given and given[k].shape != own[k].shape]
    bad += [k for k in needed if k not in given]
    if bad:
        raise InputError(
            f"{source}: {len(bad)} tensors of the detector are missing or of another shape, first "
            f"{sorted(bad)[0]}; take the settings that it was trained with"
        )
    new = [k for k in own if k not in given and not k.startswith(CLASS_LAYER)]
    if new:
        notes.append(f"{len(new)} tensors that it lacks start anew, first {new[0]}")
    left = [k for k in given if k not in own]
    if left:
        notes.append(f"{len(left)} tensors have no place in this model, first {left[0]}")
    kept = {key: value for key, value in given.items() if key in own}
    for key, value in kept.items():
        require_finite(value, places[key], source)
    model.load_state_dict(kept, strict=False)
    return notes


def detector_findings(state: Mapping[str, Tensor]) -> int:
    """Number of findings that a RetinaNet's checkpoint tells apart, background not counted."""
    return int(_sizes({detector_key(key): value for key, value in state.items()})["findings"])


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {k: tuple(v.shape) for k, v in state.items() if not k.endswith(STEP_COUNTER)}


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What of a RetinaNet's size shows in its tensors."""
    anchors = state["head.regression_head.bbox_reg.weight"].shape[0] // 4
    convs = [k for k in state if k.startswith(f"{_HEADS[0]}conv.") and k.endswith(".0.weight")]
    return {
        "fpn_channels": state["backbone.fpn.inner_blocks.0.0.weight"].shape[0],
        "head_convs": len(convs),
        "head": "v2" if f"{_HEADS[0]}conv.0.1.weight" in state else "v1",
        "anchors at a place": anchors,
        "findings": state[f"{CLASS_LAYER}weight"].shape[0] // anchors - 1,
    }


def _body_problem(found: Shapes, wanted: Shapes, *, given: Shapes, name: str) -> str:
    """Why a checkpoint's body is not the wanted one, and what to do; `given` is all of it."""
    if _without_statistics(found) == _without_statistics(wanted):
        if len(found) > len(wanted):
            return "was made with batch norm; set model.norm to frozen or batch, not group"
        return "has no batch statistics: it was made with group norm; set model.norm to group"
    what = _exact_body(given) or guess_architecture(given)
    return tell_difference(
        found, wanted, name=name, what=what, known=BACKBONES, setting="model.backbone"
    )


def _exact_body(given: Shapes) -> str | None:
    """The backbone that a checkpoint has tensor by tensor."""
    given = {body_key(key): shape for key, shape in given.items()}
    for name in BACKBONES:
        wanted = _without_statistics(body_shapes(name))
        parts = {key.split(".")[0] for key in wanted}
        part = {key: shape for key, shape in given.items() if key.split(".")[0] in parts}
        if _without_statistics(part) == wanted:
            return name
    return None


def _without_statistics(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    return {key: shape for key, shape in shapes.items() if not key.endswith(_STATISTICS)}
