"""Weights of other networks and of other trainings, checked before a detector takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from data_prep.checkpoint_names import (
    body_key,
    detector_key,
    guess_architecture,
)
from data_prep.errors import InputError
from detection.backbone import BACKBONES, body_shapes

BODY = "backbone.body."
CLASS_LAYER = "head.classification_head.cls_logits."
_HEADS = ("head.classification_head.", "head.regression_head.")
_COUNTER = "num_batches_tracked"
_STATISTICS = ("running_mean", "running_var")
_SIZES = {  # what tells two RetinaNets apart, and the key that sets it
    "fpn_channels": "model.fpn_channels",
    "head_convs": "model.head_convs",
    "head": "model.head",
    "anchors at a place": "model.anchor_ratios",
}
# Guesses that name no one network: of such a file the tensors tell more.
_FAMILIES_HERE = ("resnet", "densenet", "mobilenet or efficientnet")


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
    classes, are left out. A first layer that reads one grey channel is spread over the three
    that a body here reads, which all hold the same picture: each gets a third.

    Args:
        body: From `detection.backbone.build_body`, or as it lies under a pyramid; untouched when
            the weights do not fit.
        state: Tensors by name, see `data_prep.checkpoint_names`.
        name: The body's, a key of `BACKBONES`.
        source: Where the weights come from, for errors.

    Raises:
        InputError: The checkpoint is of another network or another normalisation, holds two
            networks, or a value that is not finite; one line names it and says what to do.
    """
    own = {key: value for key, value in body.state_dict().items() if not key.endswith(_COUNTER)}
    parts = {key.split(".")[0] for key in own}
    renamed = _renamed(state, body_key, source)
    given = {key: value for key, value in renamed.items() if key.split(".")[0] in parts}
    stem = next(iter(own))
    if stem in given and _is_grey_stem(given[stem], own[stem]):
        given[stem] = given[stem].expand(-1, own[stem].shape[1], -1, -1) / own[stem].shape[1]
    if _shapes(given) != _shapes(own):
        raise InputError(f"{source}: {_body_problem(given, own, name, state)}")
    _require_finite(given, source)
    body.load_state_dict(given, strict=False)  # strict would ask for the step counters


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
    given = _renamed(state, detector_key, source)
    own = {k: v for k, v in model.state_dict().items() if not k.endswith(_COUNTER)}
    theirs, ours = _sizes(given), _sizes(own)
    bodies = [{k: v for k, v in s.items() if k.startswith(BODY)} for s in (given, own)]
    if _shapes(bodies[0]) != _shapes(bodies[1]):
        found, wanted = ({k.removeprefix(BODY): v for k, v in b.items()} for b in bodies)
        raise InputError(f"{source}: {_body_problem(found, wanted, name, bodies[0])}")
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
    _require_finite(kept, source)
    model.load_state_dict(kept, strict=False)
    return notes


def detector_findings(state: Mapping[str, Tensor]) -> int:
    """Number of findings that a RetinaNet's checkpoint tells apart, background not counted."""
    return int(_sizes({detector_key(key): value for key, value in state.items()})["findings"])


def _renamed(
    state: Mapping[str, Tensor], rename: Callable[[str], str], source: str
) -> dict[str, Tensor]:
    """Tensors under their normal names, without the step counters of batch norm."""
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.endswith(_COUNTER):
            continue
        if rename(key) in renamed:
            raise InputError(
                f"{source}: holds two networks ({key} and another of that name); save one alone"
            )
        renamed[rename(key)] = value
    return renamed


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


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


def _is_grey_stem(given: Tensor, own: Tensor) -> bool:
    return given.ndim == 4 and given.shape[1] == 1 and given.shape[::2] == own.shape[::2]


def _body_problem(
    given: Mapping[str, Tensor], own: Mapping[str, Tensor], name: str, state: Mapping[str, Tensor]
) -> str:
    """Why a checkpoint's body is not the wanted one, and what to do."""
    found, wanted = _shapes(given), _shapes(own)
    if _without_statistics(found) == _without_statistics(wanted):
        if len(found) > len(wanted):
            return "was made with batch norm; set model.norm to frozen or batch, not group"
        return "has no batch statistics: it was made with group norm; set model.norm to group"
    what = _exact_body(state) or guess_architecture(state)
    known = ", ".join(BACKBONES)
    if what in BACKBONES and what != name:
        return f"weights of {what}, not of {name}; set model.backbone to {what}"
    if what is not None and what not in (name, *_FAMILIES_HERE):
        return f"weights of {what}, which is not one of the backbones here: {known}"
    missing = [key for key in wanted if key not in found]
    other = [key for key in wanted if key in found and found[key] != wanted[key]]
    left = [key for key in found if key not in wanted]
    counts = {"missing": missing, "of another shape": other, "too many": left}
    told = "; ".join(f"{len(k)} {kind} (first {k[0]})" for kind, k in counts.items() if k)
    return (
        f"not weights of {name}, whose {len(wanted)} tensors were looked for: {told}; take a file "
        f"of one of {known}"
    )


def _exact_body(state: Mapping[str, Tensor]) -> str | None:
    """The backbone that a checkpoint has tensor by tensor."""
    given = {body_key(k): tuple(v.shape) for k, v in state.items() if not k.endswith(_COUNTER)}
    for name in BACKBONES:
        wanted = _without_statistics(body_shapes(name))
        parts = {key.split(".")[0] for key in wanted}
        part = {key: shape for key, shape in given.items() if key.split(".")[0] in parts}
        if _without_statistics(part) == wanted:
            return name
    return None


def _without_statistics(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {key: shape for key, shape in shapes.items() if not key.endswith(_STATISTICS)}


def _require_finite(state: Mapping[str, Tensor], source: str) -> None:
    for key, value in state.items():
        if not torch.isfinite(value).all():
            raise InputError(
                f"{source}: {key} holds values that are not finite; its training diverged, take "
                "another checkpoint"
            )
