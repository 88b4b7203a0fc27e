"""The detectors by the name of their architecture, also those of other packages."""

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

from configs.settings import foreign_detector
from data_prep.contracts.errors import InputError
from detection.detector import Detector
from detection.detr import build_detr
from detection.retinanet import build_retinanet
from detection.torchvision_detectors import build_faster_rcnn, build_fcos, build_ssdlite

_BUILDERS: dict[str, Callable[..., Detector]] = {
    "retinanet": build_retinanet,
    "rt_detr": partial(build_detr, "rt_detr"),
    "d_fine": partial(build_detr, "d_fine"),
    "deformable_detr": partial(build_detr, "deformable_detr"),
    "fcos": build_fcos,
    "faster_rcnn": build_faster_rcnn,
    "ssdlite": build_ssdlite,
}


def build_detector(
    architecture: str, *, n_findings: int = 1, weights: str | None = None, **arguments: Any
) -> Detector:
    """Build a detector in training mode; it reads uint8 (B, 1, S, S).

    Args:
        architecture: ``retinanet``, or another of `configs.settings.detector_names`.
        n_findings: Findings to tell apart; label k is the k-th, 0 is background.
        weights: Published ones, which are downloaded or come from an installed package; None for
            random ones. Those of a file or a run are loaded into the built model.
        arguments: ``image_size``, side of the pixel store's images, px; ``mean`` and ``std`` of the
            pixels, where they are not those of the backbone's weights; and the keys of the
            architecture's settings.

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
    try:
        build = _BUILDERS.get(architecture) or foreign_detector(architecture).build
    except ValueError as error:
        raise InputError(f"architecture: {error}") from None
    given = signature(build).bind(n_findings=n_findings, weights=weights, **arguments)
    given.apply_defaults()
    model: Detector = build(*given.args, **given.kwargs)
    pixels = {"mean": model.preprocess.mean, "std": model.preprocess.std}
    arguments = {**given.arguments, **model.resolved, **pixels, "architecture": architecture}
    del arguments["weights"]
    model.architecture = {"kind": "detector", "name": architecture, "arguments": arguments}
    return model
