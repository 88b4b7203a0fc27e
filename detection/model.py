"""Building of a detector by the name of its architecture, and loading of its first weights."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import signature
from typing import Any

from torch import Tensor, nn

from cxr_compare.configs.model_settings import (
    detector_settings,
    own_detector,
    settings_that_change,
)
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.detection.backbone import DetectorStart, build_body
from cxr_compare.detection.detector import Detector
from cxr_compare.detection.others.detr import LesionDetr
from cxr_compare.detection.others.torchvision_detectors import (
    LesionFasterRCNN,
    LesionFCOS,
    LesionSSDLite,
)
from cxr_compare.detection.retinanet import LesionRetinaNet
from cxr_compare.networks.builders import find_network
from cxr_compare.networks.checkpoints import (
    STEP_COUNTER,
    Checkpoint,
    fit_layers,
    match_names,
    require_finite,
)
from cxr_compare.networks.tensor_names import detector_renamer
from cxr_compare.networks.weight_files import fetch_imagenet

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
    """Build a detector in training mode, which reads square grey images, uint8 (B, 1, S, S).

    `architecture` is of `networks.registry.DETECTORS`, or ``MODULE:NAME`` (a detector of the user);
    `backbone` and `norm` are those of `build_body`. `weights` are ``imagenet`` (for the backbone),
    ``coco`` (for a RetinaNet, all but the class layer) or None for random ones; published weights
    are downloaded on first use or read from an installed package, and `start_from` loads others.
    Label k is the k-th finding, and 0 is background. `image_size` is S, px. `mean` and `std`
    normalise pixels that are scaled to [0, 1]; None takes those that belong to the published
    weights of the backbone. `configs.model_settings` explains the settings. Raises InputError if an
    argument is outside its range, or the weights are not available.
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
        constructor = _DETECTORS.get(architecture) or own_detector(architecture)
    except ValueError as error:
        raise InputError(f"architecture: {error}") from None
    body = build_body(backbone, norm)
    if weights == "imagenet":
        published = Checkpoint("weights imagenet", fetch_imagenet(backbone))
        load_body(body, published, backbone)
    network = find_network(backbone, "detector")
    mean = network.mean if mean is None else mean
    std = network.std if std is None else std
    preprocess = Preprocess(size=image_size, mean=mean, std=std)
    build = partial(constructor, DetectorStart(backbone, norm, body, preprocess, n_findings))
    bound = signature(build).bind(**settings)
    bound.apply_defaults()
    model: Detector = build(*bound.args, **bound.kwargs)
    model.preprocess = preprocess
    model.n_findings = n_findings
    arguments = {
        "architecture": architecture,
        "backbone": backbone,
        "norm": norm,
        "n_findings": n_findings,
        "image_size": image_size,
        "mean": mean,
        "std": std,
        **bound.arguments,
        **model.resolved,
    }
    model.architecture = {"kind": "detector", "name": architecture, "arguments": arguments}
    if weights == "coco":
        start_from(model, Checkpoint("weights coco", model.fetch_coco()))
    return model


_BATCH_NORM_EPS = 1e-5
_COCO_CLASSES = 91  # outputs of torchvision's COCO models, one of them background


def start_from(model: Detector, checkpoint: Checkpoint, findings: Sequence[str] = ()) -> str:
    """Load into a detector those weights of a checkpoint that fit it.

    From a detector of the same architecture all weights are loaded; if the findings differ, as in
    torchvision's COCO files, the class layers keep their random weights. From any other network
    with the same backbone only the features are loaded.

    `findings` are those that the model is to learn, in the order of the labels; empty if unknown.
    The sentence says which part was loaded and which was not. Raises InputError if the weights
    belong to another network, normalisation or size, or are damaged; the model then stays
    unchanged.
    """
    source = checkpoint.source
    backbone = model.architecture["arguments"]["backbone"]
    file_keys = match_names(checkpoint.state, detector_renamer(checkpoint.state), source=source)
    tensors = {key: checkpoint.state[file_key] for key, file_key in file_keys.items()}
    body_prefix = f"{model.body_path}."
    features = {key.removeprefix(body_prefix): value for key, value in tensors.items()}
    body = fit_layers(model.body, Checkpoint(source, features), backbone, "detector")
    own_tensors = {
        key: value
        for key, value in model.state_dict().items()
        if not key.startswith(body_prefix) and not key.endswith(STEP_COUNTER)
    }
    if not _is_same_architecture(model, checkpoint, own_tensors, tensors):
        model.body.load_state_dict(body, strict=False)
        return f"{source}: takes the features of {backbone}; pyramid and heads start anew"

    class_keys = [
        key for key in own_tensors if any(f".{part}." in f".{key}" for part in model.class_layers)
    ]
    other_keys = own_tensors.keys() - set(class_keys)
    _require_shapes(model, checkpoint, {key: own_tensors[key] for key in other_keys}, tensors)
    notes = []
    taken = "the detector"
    if not _class_layers_fit(checkpoint, findings, class_keys, own_tensors, tensors):
        biases = [key for key in class_keys if key in tensors and key.endswith("bias")]
        n_outputs = [len(tensors[key]) for key in biases]
        is_coco = any(count % _COCO_CLASSES == 0 for count in n_outputs)
        if checkpoint.findings is None and is_coco:
            taken = "torchvision's COCO detector, all but its class layer"
            if model.coco_without_epsilon:
                # Our models keep an epsilon of 1e-5, so it is taken off the variance.
                for key in body:
                    if key.endswith("running_var"):
                        body[key] = body[key] - _BATCH_NORM_EPS
        else:
            notes.append("its class layer is left out: it tells other findings apart")
        tensors = {key: value for key, value in tensors.items() if key not in class_keys}
    new = [key for key in own_tensors if key not in tensors and key not in class_keys]
    if new:
        notes.append(f"{len(new)} tensors that it lacks start anew, first {new[0]}")
    unused = [key for key in tensors if key not in own_tensors and not key.startswith(body_prefix)]
    if unused:
        notes.append(f"{len(unused)} tensors have no place in this model, first {unused[0]}")
    used = {key: value for key, value in tensors.items() if key in own_tensors}
    for key, value in used.items():
        require_finite(value, file_keys[key], source)
    model.load_state_dict(used, strict=False)
    model.body.load_state_dict(body, strict=False)
    return f"{source}: takes {taken}" + "".join(f"; {note}" for note in notes)


def _class_layers_fit(
    checkpoint: Checkpoint,
    findings: Sequence[str],
    class_keys: Sequence[str],
    own_tensors: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
) -> bool:
    """Return True if the class layers of a checkpoint are of the model's findings and shapes."""
    both_known = checkpoint.findings is not None and bool(findings)
    if both_known and tuple(checkpoint.findings or ()) != tuple(findings):
        return False
    return all(
        key in tensors and tensors[key].shape == own_tensors[key].shape for key in class_keys
    )


def _is_same_architecture(
    model: Detector,
    checkpoint: Checkpoint,
    own_tensors: Mapping[str, Any],
    tensors: Mapping[str, Any],
) -> bool:
    """Return True if a checkpoint is of the model's architecture, by its run or its tensors' names.

    Other detectors share some names, but only of layers that depend on the findings.
    """
    if checkpoint.arguments:
        return bool(checkpoint.arguments.get("architecture") == model.architecture["name"])
    head_keys = [key for key in own_tensors if not key.startswith("backbone.")]
    return sum(key in tensors for key in head_keys) > len(head_keys) / 2


def _require_shapes(
    model: Detector,
    checkpoint: Checkpoint,
    own_tensors: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
) -> None:
    """Refuse a detector whose layers are of other sizes, or are missing in part."""
    modules = {key.split(".")[0] for key in tensors}
    bad = [
        key
        for key in own_tensors
        if key in tensors and tensors[key].shape != own_tensors[key].shape
    ]
    bad += [key for key in own_tensors if key not in tensors and key.split(".")[0] in modules]
    if not bad:
        return
    before = checkpoint.arguments
    now = model.architecture["arguments"]
    sized = settings_that_change(detector_settings(model.architecture["name"]), "shape")
    differing = [key for key in now if key in before.keys() & sized and before[key] != now[key]]
    if differing:
        sizes = ", ".join(f"{key} {before[key]} instead of {now[key]}" for key in differing)
        keys = " and ".join(f"model.{key}" for key in differing)
        problem = f"a detector of another size: {sizes}; set {keys} as it was"
    else:
        problem = (
            f"{len(bad)} tensors of the detector are missing or of another shape, first "
            f"{min(bad)}; take the settings that it was trained with"
        )
    raise InputError(f"{checkpoint.source}: {problem}")


def load_body(body: nn.Module, checkpoint: Checkpoint, name: str) -> None:
    """Load the weights of a backbone from a checkpoint of any network that contains it.

    The body is that of `build_body`; `name` serves messages. Raises InputError if the weights
    belong to another network, or contain a value that is not finite.
    """
    body.load_state_dict(fit_layers(body, checkpoint, name, "detector"), strict=False)
