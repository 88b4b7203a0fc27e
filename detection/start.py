"""Start a detector from a checkpoint: a whole detector where it is one, else its body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from detection.pretrained import load_coco
from detection.retinanet import LesionRetinaNet
from detection.weights import detector_findings, is_detector, load_body, load_detector

COCO_CLASSES = 90  # torchvision's COCO models have 91 outputs, one of them background


def start_from(
    model: LesionRetinaNet,
    state: Mapping[str, Tensor],
    *,
    source: str,
    findings: Sequence[str] | None = None,
    own_findings: Sequence[str] | None = None,
) -> str:
    """Load what a detector can use of a checkpoint, and say what that is.

    Of a detector, everything, but the class layer where that tells other findings apart. Of a
    classifier, or any network that has the model's backbone, the features alone.

    Args:
        model: From `detection.model.build_retinanet`; untouched when the weights do not fit.
        state: Tensors by name.
        source: Where the weights come from, for errors.
        findings: What the checkpoint's detector learned, in order; None where not known.
        own_findings: What the model shall learn, in order.

    Returns:
        A line that says what was taken and what was not.

    Raises:
        InputError: The weights are of another network, normalisation or size, or damaged.
    """
    arguments = model.architecture["arguments"]
    name = arguments["backbone"]
    if not is_detector(state):
        load_body(model.backbone.body, state, name=name, source=source)
        return f"{source}: takes the features of {name}; pyramid and heads start anew"
    if detector_findings(state) == COCO_CLASSES and not findings:
        load_coco(model, backbone=name, head=arguments["head"], norm=arguments["norm"], state=state)
        return f"{source}: takes torchvision's COCO detector, all but its class layer"
    same = findings is None or own_findings is None or tuple(findings) == tuple(own_findings)
    notes = load_detector(model, state, name=name, source=source, same_findings=same)
    return f"{source}: takes the detector" + "".join(f"; {note}" for note in notes)
