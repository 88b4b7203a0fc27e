"""Published weights of ImageNet and COCO brought into a detector, only when asked for."""

from collections.abc import Mapping

from torch import Tensor, nn
from torchvision.models import WeightsEnum
from torchvision.models.detection import (
    RetinaNet,
    RetinaNet_ResNet50_FPN_V2_Weights,
    RetinaNet_ResNet50_FPN_Weights,
    retinanet_resnet50_fpn,
    retinanet_resnet50_fpn_v2,
)

from data_prep.contracts.errors import InputError
from detection.backbone import BACKBONES
from detection.weights import CLASS_LAYER, is_retinanet_key, load_body
from networks.published import fetch_weights

COCO: dict[str, WeightsEnum] = {
    "v1": RetinaNet_ResNet50_FPN_Weights.COCO_V1,
    "v2": RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1,
}
COCO_MODELS = {"v1": retinanet_resnet50_fpn, "v2": retinanet_resnet50_fpn_v2}
BATCH_NORM_EPS = 1e-5


def load_imagenet(body: nn.Module, name: str, norm: str) -> None:
    """Load ImageNet weights into a body.

    Args:
        body: From `detection.backbone.build_body`.
        name: Its name, a key of `BACKBONES`.
        norm: Its normalisation.

    Raises:
        InputError: Group norm, which these weights do not have; or `fetch_weights` fails.
    """
    _refuse_group_norm("imagenet", norm)
    load_body(body, fetch_weights(BACKBONES[name].imagenet), name=name, source="weights imagenet")


def load_coco(
    model: RetinaNet,
    *,
    backbone: str,
    head: str,
    norm: str,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Load torchvision's COCO RetinaNet, all but the layer that names COCO's classes.

    Args:
        model: A RetinaNet of torchvision's size (ResNet-50, 256 channels, four convolutions).
        backbone: Must be ``resnet50``.
        head: ``v1`` or ``v2``.
        norm: ``frozen`` or ``batch``.
        state: The published file's tensors; None fetches them.

    Raises:
        InputError: The model is not of the published size; or `fetch_weights` fails.
    """
    _refuse_group_norm("coco", norm)
    own = {
        key: value.shape
        for key, value in model.state_dict().items()
        if is_retinanet_key(key)
        and not key.startswith(CLASS_LAYER)
        and not key.endswith("num_batches_tracked")
    }
    # Shapes are compared before the download, and torchvision's model renames the file's keys.
    published = COCO_MODELS[head](weights=None, weights_backbone=None)
    shapes = {key: value.shape for key, value in published.state_dict().items()}
    misfits = [key for key, shape in own.items() if shapes.get(key) != shape]
    if backbone != "resnet50" or misfits:
        raise InputError(
            "weights coco: need backbone resnet50, fpn_channels 256, head_convs 4 and three "
            f"anchor_ratios; {len(misfits)} tensors do not fit, first {misfits[:1]}"
        )
    published.load_state_dict(fetch_weights(COCO[head]) if state is None else state)
    kept = {key: value for key, value in published.state_dict().items() if key in own}
    if head == "v1":
        # Published with a batch-norm epsilon of 0. Ours keeps 1e-5 in every model, so that a
        # saved state needs no second number beside it, and takes it off the variance.
        for key in kept:
            if key.endswith("running_var"):
                kept[key] = kept[key] - BATCH_NORM_EPS
    model.load_state_dict(kept, strict=False)


def _refuse_group_norm(weights: str, norm: str) -> None:
    if norm == "group":
        raise InputError(
            f"weights {weights}: were made with batch norm; set norm to frozen or batch, not group"
        )
