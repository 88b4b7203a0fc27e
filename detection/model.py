"""The detectors by the name of their architecture, also those of other packages."""

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

from configs.settings import foreign_detector
from data_prep.contracts.errors import InputError
from data_prep.store.preprocess import Preprocess
from detection.backbone import DetectorStart, build_body
from detection.detector import Detector
from detection.detr import LesionDetr
from detection.retinanet import LesionRetinaNet
from detection.torchvision_detectors import LesionFasterRCNN, LesionFCOS, LesionSSDLite
from detection.weights import load_body, start_from
from networks.checkpoints import Checkpoint
from networks.published import fetch_imagenet, find_network

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
    `detection.weights`. Mean and standard deviation of the pixels, in [0, 1], are left out for what
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
        load_body(body, Checkpoint("weights imagenet", fetch_imagenet(backbone)), backbone)
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
