"""Detectors by the name of their architecture, of other packages too, and how they start."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import signature
from typing import Any

from torch import Tensor, nn

from cxr_compare.configs.settings import foreign_detector
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.detection.backbone import DetectorStart, build_body
from cxr_compare.detection.detector import Detector
from cxr_compare.detection.detr import LesionDetr
from cxr_compare.detection.retinanet import LesionRetinaNet
from cxr_compare.detection.torchvision_detectors import LesionFasterRCNN, LesionFCOS, LesionSSDLite
from cxr_compare.networks.published import (
    STEP_COUNTER,
    Checkpoint,
    detector_keys,
    fetch_imagenet,
    find_network,
    fit_layers,
    match_names,
    require_finite,
)

_DETECTORS: dict[str, Callable[..., Detector]] = {
    "retinanet": LesionRetinaNet,
    **{name: partial(LesionDetr, name) for name in ("rt_detr", "d_fine", "deformable_detr")},
    "fcos": LesionFCOS,
    "faster_rcnn": LesionFasterRCNN,
    "ssdlite": LesionSSDLite,
}
_MIN_IMAGE = 32  # px: C5 is then one pixel


def build_detector(
    architecture: str,
    *,
    backbone: str = "resnet50",
    norm: str = "group",
    weights: str | None = None,
    n_findings: int = 1,
    image_size: int = 512,
    mean: float | None = None,
    std: float | None = None,
    **settings: Any,
) -> Detector:
    """Build a detector in training mode; it reads uint8 (B, 1, S, S), S the `image_size`, px.

    `configs.settings` says what the keys of each architecture are. Published weights are downloaded
    on first use, or from an installed package: ``imagenet`` (the backbone's) or ``coco`` (a
    RetinaNet's, all but the class layer). Those of a file or a run are loaded into the built model:
    `detection.model`. Mean and standard deviation of the pixels, in [0, 1], are left out for what
    the backbone's published weights want. Label k is the k-th finding, 0 is background.

    Raises:
        InputError: An argument is outside its range, or the weights cannot be had.

    Example:
        >>> model = build_detector(
        ...     "retinanet", n_findings=1, image_size=64, backbone="resnet18", fpn_channels=16
        ... )
        >>> len(model.stages)
        5
    """
    if n_findings < 1:
        raise InputError(f"n_findings: expected at least 1, but got {n_findings}")
    if weights not in (None, "imagenet", "coco"):
        raise InputError(f"weights: expected none, imagenet or coco, but got {weights!r}")
    if image_size < _MIN_IMAGE:
        raise InputError(f"image_size: expected at least {_MIN_IMAGE} px, but got {image_size}")
    if weights == "imagenet" and norm == "group":
        raise InputError(
            "weights imagenet: were made with batch norm; set norm to frozen or batch, not group"
        )
    try:
        make = _DETECTORS.get(architecture) or foreign_detector(architecture)
    except ValueError as error:
        raise InputError(f"architecture: {error}") from None
    body = build_body(backbone, norm)
    if weights == "imagenet":
        _load_body(body, Checkpoint("weights imagenet", fetch_imagenet(backbone)), backbone)
    network = find_network(backbone, "detector")
    mean, std = network.mean if mean is None else mean, network.std if std is None else std
    preprocess = Preprocess(image_size, mean, std)
    build = partial(make, DetectorStart(backbone, norm, body, preprocess, n_findings))
    given = signature(build).bind(**settings)
    given.apply_defaults()
    model: Detector = build(*given.args, **given.kwargs)
    model.preprocess, model.n_findings = preprocess, n_findings
    arguments = {
        "architecture": architecture,
        "backbone": backbone,
        "norm": norm,
        "n_findings": n_findings,
        "image_size": image_size,
        "mean": mean,
        "std": std,
        **given.arguments,
        **model.resolved,
    }
    model.architecture = {"kind": "detector", "name": architecture, "arguments": arguments}
    if weights == "coco":
        start_from(model, Checkpoint("weights coco", model.fetch_coco()))
    return model


_BATCH_NORM_EPS = 1e-5
_COCO_CLASSES = 91  # outputs of torchvision's COCO models, one of them background
# What two runs of one architecture may differ in, and have tensors of the same shapes.
_FREE = {"n_findings", "image_size", "mean", "std", "norm", "anchor_sizes", "box_loss"}


def start_from(model: Detector, checkpoint: Checkpoint, own_findings: Sequence[str] = ()) -> str:
    """Load what a detector can use of a checkpoint, and say what that is.

    Of a detector of the same architecture, everything, but the class layers where those tell other
    findings apart, as in torchvision's COCO files. Of any other network that has the model's
    backbone, the features alone.

    Args:
        model: From `detection.model.build_detector`; untouched when the weights do not fit.
        checkpoint: The weights, and what is known of them.
        own_findings: What the model shall learn, in order; empty where not known.

    Returns:
        A line that says what was taken and what was not.

    Raises:
        InputError: The weights are of another network, normalisation or size, or damaged.
    """
    source, backbone = checkpoint.source, model.architecture["arguments"]["backbone"]
    places = match_names(checkpoint.state, detector_keys(checkpoint.state), source=source)
    given = {key: checkpoint.state[place] for key, place in places.items()}
    prefix = f"{model.body_place}."
    features = {key.removeprefix(prefix): value for key, value in given.items()}
    body = fit_layers(model.body, Checkpoint(source, features), backbone, "detector")
    own = {
        key: value
        for key, value in model.state_dict().items()
        if not key.startswith(prefix) and not key.endswith(STEP_COUNTER)
    }
    if not _same_architecture(model, checkpoint, own, given):
        model.body.load_state_dict(body, strict=False)
        return f"{source}: takes the features of {backbone}; pyramid and heads start anew"
    classes = [k for k in own if any(f".{layer}." in f".{k}" for layer in model.class_layers)]
    _require_size(model, checkpoint, {k: own[k] for k in own.keys() - set(classes)}, given)
    findings, notes, taken = checkpoint.findings, [], "the detector"
    same = findings is None or not own_findings or tuple(findings) == tuple(own_findings)
    if not same or any(k not in given or given[k].shape != own[k].shape for k in classes):
        outputs = [len(given[key]) for key in classes if key in given and key.endswith("bias")]
        if findings is None and any(count % _COCO_CLASSES == 0 for count in outputs):
            taken = "torchvision's COCO detector, all but its class layer"
            if model.coco_without_epsilon:
                # Ours keeps 1e-5 in every model, and takes it off the variance.
                body = {k: v - _BATCH_NORM_EPS * k.endswith("running_var") for k, v in body.items()}
        else:
            notes.append("its class layer is left out: it tells other findings apart")
        given = {key: value for key, value in given.items() if key not in classes}
    if new := [key for key in own if key not in given and key not in classes]:
        notes.append(f"{len(new)} tensors that it lacks start anew, first {new[0]}")
    if left := [key for key in given if key not in own and not key.startswith(prefix)]:
        notes.append(f"{len(left)} tensors have no place in this model, first {left[0]}")
    kept = {key: value for key, value in given.items() if key in own}
    for key, value in kept.items():
        require_finite(value, places[key], source)
    model.load_state_dict(kept, strict=False)
    model.body.load_state_dict(body, strict=False)
    return f"{source}: takes {taken}" + "".join(f"; {note}" for note in notes)


def _same_architecture(
    model: Detector, checkpoint: Checkpoint, own: Mapping[str, Any], given: Mapping[str, Any]
) -> bool:
    """Whether a checkpoint is of a detector of the model's architecture, as its run or names say.

    Of other detectors some names are the same, of layers that know the findings alone.
    """
    if checkpoint.arguments:
        return bool(checkpoint.arguments.get("architecture") == model.architecture["name"])
    heads = [key for key in own if not key.startswith("backbone.")]
    return sum(key in given for key in heads) > len(heads) / 2


def _require_size(
    model: Detector, checkpoint: Checkpoint, own: Mapping[str, Tensor], given: Mapping[str, Tensor]
) -> None:
    """Refuse a detector whose layers are of other sizes, or are missing in part."""
    parts = {key.split(".")[0] for key in given}
    bad = [k for k in own if k in given and given[k].shape != own[k].shape]
    bad += [k for k in own if k not in given and k.split(".")[0] in parts]
    if not bad:
        return
    was, now = checkpoint.arguments, model.architecture["arguments"]
    if differing := [key for key in now if key in was.keys() - _FREE and was[key] != now[key]]:
        sizes = ", ".join(f"{key} {was[key]} instead of {now[key]}" for key in differing)
        keys = " and ".join(f"model.{key}" for key in differing)
        problem = f"a detector of another size: {sizes}; set {keys} as it was"
    else:
        problem = (
            f"{len(bad)} tensors of the detector are missing or of another shape, first "
            f"{min(bad)}; take the settings that it was trained with"
        )
    raise InputError(f"{checkpoint.source}: {problem}")


def _load_body(body: nn.Module, checkpoint: Checkpoint, name: str) -> None:
    """Load a body's weights from a checkpoint of any network that has this body."""
    body.load_state_dict(fit_layers(body, checkpoint, name, "detector"), strict=False)
