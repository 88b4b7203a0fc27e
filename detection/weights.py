"""Weights of other networks and of other trainings, checked before a detector takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection import (
    retinanet_resnet50_fpn,
    retinanet_resnet50_fpn_v2,
)

from data_prep.contracts.errors import InputError
from data_prep.store.preprocess import Preprocess
from detection.backbone import body_shapes, build_body
from detection.detector import Detector
from networks.checkpoints import (
    STEP_COUNTER,
    Checkpoint,
    Shapes,
    body_key,
    describe_difference,
    detector_key,
    guess_architecture,
    load_layers,
    match_names,
    require_finite,
)
from networks.published import fetch_coco, fetch_imagenet, find_network
from networks.registry import network_names

_BODY = "backbone.body."
_CLASS_LAYER = "head.classification_head.cls_logits."
_HEADS = ("head.classification_head.", "head.regression_head.")
_STATISTICS = ("running_mean", "running_var")
_SIZES = {  # what tells two RetinaNets apart, and the key that sets it
    "fpn_channels": "model.fpn_channels",
    "head_convs": "model.head_convs",
    "head": "model.head",
    "anchors at a place": "model.anchor_ratios",
}
_COCO_MODELS = {"v1": retinanet_resnet50_fpn, "v2": retinanet_resnet50_fpn_v2}
_BATCH_NORM_EPS = 1e-5
_MIN_IMAGE = 32  # px: C5 is then one pixel
_COCO_CLASSES = 90  # torchvision's COCO models have 91 outputs, one of them background


def start_from(model: Detector, checkpoint: Checkpoint, own_findings: Sequence[str] = ()) -> str:
    """Load what a detector can use of a checkpoint, and say what that is.

    Of a detector, everything, but the class layer where that tells other findings apart. Of a
    classifier, or any network that has the model's backbone, the features alone.

    Args:
        model: From `detection.model.build_detector`; untouched when the weights do not fit.
        checkpoint: The weights, and what is known of them.
        own_findings: What the model shall learn, in order; empty where not known.

    Returns:
        A line that says what was taken and what was not.

    Raises:
        InputError: The weights are of another network, normalisation or size, or damaged.
    """
    arguments, source = model.architecture["arguments"], checkpoint.source
    name, findings = arguments["backbone"], checkpoint.findings
    state = {detector_key(key): value for key, value in checkpoint.state.items()}
    if not _is_detector(state):
        _load_body(model.body, checkpoint, name)
        return f"{source}: takes the features of {name}; pyramid and heads start anew"
    if _sizes(state)["findings"] == _COCO_CLASSES and not findings:
        kind = {key: arguments[key] for key in ("backbone", "head", "norm")}
        load_coco(model, **kind, state=checkpoint.state)
        return f"{source}: takes torchvision's COCO detector, all but its class layer"
    same = findings is None or not own_findings or tuple(findings) == tuple(own_findings)
    notes = _load_detector(model, checkpoint, name, same_findings=same)
    return f"{source}: takes the detector" + "".join(f"; {note}" for note in notes)


def _load_body(body: nn.Module, checkpoint: Checkpoint, name: str) -> None:
    """Load a body's weights from a checkpoint of any network that has this body."""
    given = {k: v for k, v in checkpoint.shapes.items() if not k.endswith(STEP_COUNTER)}
    load_layers(body, checkpoint, describe=partial(_body_problem, given=given, name=name))


def build_start(
    backbone: str,
    norm: str,
    weights: str | None,
    image_size: int,
    mean: float | None,
    std: float | None,
    **arguments: Any,
) -> tuple[nn.Module, Preprocess]:
    """The body that a detector starts with, random or ImageNet's, and the pixels it looks at.

    `mean` and `std` are None for what the body's published weights want.
    """
    if weights not in (None, "imagenet"):
        raise InputError(f"weights: expected none, imagenet, a file or a run, but got {weights!r}")
    if image_size < _MIN_IMAGE:
        raise InputError(f"image_size: expected at least {_MIN_IMAGE} px, but got {image_size}")
    body = build_body(backbone, norm, **arguments)
    if weights == "imagenet":
        load_imagenet(body, backbone, norm)
    network = find_network(backbone, "detector")
    mean = network.mean if mean is None else mean
    return body, Preprocess(image_size, mean, network.std if std is None else std)


def load_imagenet(body: nn.Module, name: str, norm: str) -> None:
    """Load ImageNet weights into a body from `detection.backbone.build_body`."""
    _refuse_group_norm("imagenet", norm)
    _load_body(body, Checkpoint("weights imagenet", fetch_imagenet(name)), name)


def load_coco(
    model: nn.Module,
    *,
    backbone: str,
    head: str,
    norm: str,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Load torchvision's COCO RetinaNet, all but its class layer.

    `state` holds the published file's tensors; None fetches them.
    """
    _refuse_group_norm("coco", norm)
    own = {
        key: value.shape
        for key, value in model.state_dict().items()
        if _is_retinanet_key(key)
        and not key.startswith(_CLASS_LAYER)
        and not key.endswith("num_batches_tracked")
    }
    # Shapes are compared before the download, and torchvision's model renames the file's keys.
    published = _COCO_MODELS[head](weights=None, weights_backbone=None)
    shapes = {key: value.shape for key, value in published.state_dict().items()}
    misfits = [key for key, shape in own.items() if shapes.get(key) != shape]
    if backbone != "resnet50" or misfits:
        raise InputError(
            "weights coco: need backbone resnet50, fpn_channels 256, head_convs 4 and three "
            f"anchor_ratios; {len(misfits)} tensors do not fit, first {misfits[:1]}"
        )
    published.load_state_dict(fetch_coco(head) if state is None else state)
    kept = {key: value for key, value in published.state_dict().items() if key in own}
    if head == "v1":
        # Published with a batch-norm epsilon of 0. Ours keeps 1e-5 in every model, so that a
        # saved state needs no second number beside it, and takes it off the variance.
        for key in kept:
            if key.endswith("running_var"):
                kept[key] = kept[key] - _BATCH_NORM_EPS
    model.load_state_dict(kept, strict=False)


def _refuse_group_norm(weights: str, norm: str) -> None:
    if norm == "group":
        raise InputError(
            f"weights {weights}: were made with batch norm; set norm to frozen or batch, not group"
        )


def _is_retinanet_key(name: str) -> bool:
    """Whether torchvision's RetinaNet has such a tensor, too: in its backbone or its two heads."""
    return name.startswith(("backbone.", *_HEADS))


def _is_detector(state: Mapping[str, Tensor]) -> bool:
    """Whether a checkpoint is of a RetinaNet, torchvision's or ours, not of a classifier."""
    return f"{_CLASS_LAYER}weight" in state and any(key.startswith(_BODY) for key in state)


def _load_detector(
    model: nn.Module, checkpoint: Checkpoint, name: str, *, same_findings: bool
) -> list[str]:
    """Load a whole RetinaNet, but the class layer where that has other findings."""
    source, state = checkpoint.source, checkpoint.state
    places = match_names(state, detector_key, source=source)
    given = {key: state[place] for key, place in places.items()}
    own = {k: v for k, v in model.state_dict().items() if not k.endswith(STEP_COUNTER)}
    given_sizes, own_sizes = _sizes(given), _sizes(own)
    found, wanted = (
        {k.removeprefix(_BODY): v for k, v in _shapes(s).items() if k.startswith(_BODY)}
        for s in (given, own)
    )
    if found != wanted:
        raise InputError(f"{source}: {_body_problem(found, wanted, given=found, name=name)}")
    if differing := [key for key in _SIZES if given_sizes.get(key) != own_sizes[key]]:
        sizes = ", ".join(
            f"{key} {given_sizes.get(key)} instead of {own_sizes[key]}" for key in differing
        )
        raise InputError(
            f"{source}: a detector of another size: {sizes}; set "
            f"{' and '.join(_SIZES[key] for key in differing)} as it was"
        )
    notes = []
    if not same_findings or given_sizes["findings"] != own_sizes["findings"]:
        given = {k: v for k, v in given.items() if not k.startswith(_CLASS_LAYER)}
        notes.append(
            f"its class layer ({given_sizes['findings']} findings) is left out: this model's "
            f"{own_sizes['findings']} are not the same"
        )
    needed = {k for k in own if _is_retinanet_key(k) and not k.startswith(_CLASS_LAYER)}
    bad = [k for k in own if k in given and given[k].shape != own[k].shape]
    bad += [k for k in needed if k not in given]
    if bad:
        raise InputError(
            f"{source}: {len(bad)} tensors of the detector are missing or of another shape, first "
            f"{sorted(bad)[0]}; take the settings that it was trained with"
        )
    new = [k for k in own if k not in given and not k.startswith(_CLASS_LAYER)]
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
        "findings": state[f"{_CLASS_LAYER}weight"].shape[0] // anchors - 1,
    }


def _body_problem(found: Shapes, wanted: Shapes, *, given: Shapes, name: str) -> str:
    """Why a checkpoint's body is not the wanted one, and what to do; `given` is all of it."""
    if _without_statistics(found) == _without_statistics(wanted):
        if len(found) > len(wanted):
            return "was made with batch norm; set model.norm to frozen or batch, not group"
        return "has no batch statistics: it was made with group norm; set model.norm to group"
    what = _exact_body(given) or guess_architecture(given)
    return describe_difference(
        found,
        wanted,
        name=name,
        what=what,
        known=network_names("detector"),
        setting="model.backbone",
    )


def _exact_body(given: Shapes) -> str | None:
    """The backbone that a checkpoint has tensor by tensor."""
    given = {body_key(key): shape for key, shape in given.items()}
    for name in network_names("detector"):
        wanted = _without_statistics(body_shapes(name))
        parts = {key.split(".")[0] for key in wanted}
        part = {key: shape for key, shape in given.items() if key.split(".")[0] in parts}
        if _without_statistics(part) == wanted:
            return name
    return None


def _without_statistics(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    return {key: shape for key, shape in shapes.items() if not key.endswith(_STATISTICS)}
