"""Build the detector, and its losses for training and validation."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from data_prep.contracts.errors import InputError
from data_prep.store.preprocess import Preprocess
from detection.backbone import Norm, build_body, build_pyramid, freeze_stages
from detection.dataset import LesionBatch
from detection.retinanet import (
    DEFAULT_RATIOS,
    BoxLoss,
    Detections,
    HeadVersion,
    LesionRetinaNet,
    Targets,
    build_anchors,
    build_head,
    default_anchor_sizes,
)
from detection.weights import load_coco, load_imagenet
from networks.inference import evaluating
from networks.registry import NETWORKS


def torchvision_targets(batch: LesionBatch, n_findings: int) -> Targets:
    """The boxes of a batch as torchvision wants them: per image ``boxes`` and ``labels``, 1 to K.

    They are checked where they lie, in main memory, and sent to the images in one piece.

    torchvision takes NaN boxes, and learns label 0 as background without a word.

    Raises:
        InputError: A box is not finite, not positive in size or wholly beside the image, or a
            label is outside 1 to K.
    """
    for image_id, boxes, labels in zip(batch.image_ids, batch.boxes, batch.labels, strict=True):
        if boxes.shape != (len(labels), 4):
            raise InputError(
                f"image {image_id!r}: expected boxes of shape ({len(labels)}, 4), "
                f"but got {tuple(boxes.shape)}"
            )
    boxes, labels = torch.cat(batch.boxes), torch.cat(batch.labels)
    wrongs = _wrongs(boxes, labels, batch.images.shape[-1], n_findings)
    bad = torch.stack(list(wrongs.values()))  # (4, N)
    if bad.any():
        row = int(bad.any(0).nonzero()[0])
        owner = [i for i, b in zip(batch.image_ids, batch.boxes, strict=True) for _ in b][row]
        reason = next(why for why, found in zip(wrongs, bad[:, row], strict=True) if found)
        raise InputError(
            f"image {owner!r}: box {boxes[row].tolist()} px with label {int(labels[row])} "
            f"{reason}; correct it, or leave the image out"
        )
    counts = [len(image) for image in batch.boxes]
    there = (each.to(batch.images.device, non_blocking=True) for each in (boxes, labels))
    parts = (each.split(counts) for each in there)
    return [{"boxes": own, "labels": names} for own, names in zip(*parts, strict=True)]


def _wrongs(boxes: Tensor, labels: Tensor, size: int, n_findings: int) -> dict[str, Tensor]:
    """What may be wrong with boxes (N, 4), and with which (N,) it is."""
    first, last = boxes[:, :2], boxes[:, 2:]
    unknown = f"is not a finding of this model, which knows 1 to {n_findings} (0 is background)"
    return {
        "is not finite": ~boxes.isfinite().all(1),
        "needs x1 < x2 and y1 < y2": ~(last > first).all(1),
        f"lies outside the image of {size} px": ~((first < size) & (last > 0)).all(1),
        unknown: (labels < 1) | (labels > n_findings),
    }


Weights = Literal["imagenet", "coco"]


def build_retinanet(
    *,
    backbone: str = "resnet50",
    head: HeadVersion = "v1",
    norm: Norm = "group",
    fpn_channels: int = 256,
    head_convs: int = 4,
    n_findings: int = 1,
    image_size: int = 512,
    anchor_sizes: Sequence[float] | None = None,
    anchor_ratios: Sequence[float] = DEFAULT_RATIOS,
    trainable_layers: int | None = None,
    weights: Weights | None = None,
    mean: float | None = None,
    std: float | None = None,
    box_loss: BoxLoss = "auto",
) -> LesionRetinaNet:
    """Build a RetinaNet with a feature pyramid, P3 to P7.

    Head ``v1`` is torchvision's ``retinanet_resnet50_fpn``: plain convolutions, L1 box loss, P6
    from P5. ``v2`` is its ``retinanet_resnet50_fpn_v2``: group norm in the heads, generalised
    IoU loss, P6 from C5.

    Args:
        backbone: A detector's backbone in `networks.registry`, such as ``resnet50``.
        head: ``v1`` or ``v2``.
        norm: Backbone's normalisation: ``frozen`` batch norm for pretrained weights, ``group``
            (or live ``batch``) for random ones.
        fpn_channels: Channels of every pyramid level; a multiple of 8 for ``v2``.
        head_convs: Hidden convolutions in each head, 1 to 4.
        n_findings: Findings to tell apart; label k is the k-th, 0 is background.
        image_size: Side of the pixel store's images, px.
        anchor_sizes: Side of the smallest anchor on each of P3 to P7, store px; each level has
            it three times, at 2^0, 2^(1/3) and 2^(2/3). None scales torchvision's (32 to 512 px)
            to the image; see `detection.retinanet.default_anchor_sizes`.
        anchor_ratios: Height over width.
        trainable_layers: Backbone stages that learn, 0 to 5 from the top, see
            `detection.backbone.freeze_stages`; None means 3 with ``weights`` and 5 without.
        weights: None, ``imagenet`` (backbone) or ``coco`` (everything but the class layer);
            downloaded on first use, or from an installed package. Weights from a file or a run
            are loaded into the built model, see `detection.weights`.
        mean: Mean of the pixels, in [0, 1]; None for what the backbone's published weights want,
            mostly ImageNet's averaged over colours.
        std: Standard deviation of the pixels, likewise.
        box_loss: ``l1``, ``smooth_l1``, ``giou``, ``diou`` or ``ciou``; ``auto`` is the head
            version's own.

    Returns:
        The model in training mode. It reads uint8 (B, 1, S, S).

    Raises:
        InputError: An argument is outside its range, or the weights cannot be had.

    Source:
        Lin et al. 2017, Focal Loss for Dense Object Detection.

    Example:
        >>> model = build_retinanet(
        ...     backbone="resnet18", fpn_channels=16, head_convs=1, image_size=64
        ... ).eval()
        >>> with torch.inference_mode():
        ...     found = model(torch.zeros(1, 1, 64, 64, dtype=torch.uint8))
        >>> sorted(found[0])
        ['boxes', 'finite', 'labels', 'scores']
    """
    arguments = {name: value for name, value in locals().items() if name != "weights"}
    if weights not in (None, "imagenet", "coco"):
        raise InputError(f"weights: expected none, imagenet or coco, but got {weights!r}")
    if n_findings < 1:
        raise InputError(f"n_findings: expected at least 1, but got {n_findings}")
    if trainable_layers is None:
        trainable_layers = 5 if weights is None else 3
    body = build_body(backbone, norm)
    network = NETWORKS[backbone]
    mean = network.mean if mean is None else mean
    std = network.std if std is None else std
    if weights == "imagenet":
        load_imagenet(body, backbone, norm)
    pyramid = build_pyramid(backbone, body, fpn_channels, p6_from_c5=head == "v2")
    sizes = default_anchor_sizes(image_size) if anchor_sizes is None else tuple(anchor_sizes)
    anchors = build_anchors(image_size, sizes, anchor_ratios)
    model = LesionRetinaNet(
        pyramid,
        build_head(
            fpn_channels,
            anchors.num_anchors_per_location()[0],
            n_findings,
            version=head,
            convs=head_convs,
            box_loss=box_loss,
        ),
        anchors,
        Preprocess(image_size, mean, std),
        n_findings,
        frozen=freeze_stages(backbone, pyramid, trainable_layers),
    )
    if weights == "coco":
        load_coco(model, backbone=backbone, head=head, norm=norm)
    arguments |= {
        "anchor_sizes": list(sizes),
        "anchor_ratios": list(anchor_ratios),
        "mean": mean,
        "std": std,
        "trainable_layers": trainable_layers,
    }
    model.architecture = {"kind": "detector", "name": "retinanet", "arguments": arguments}
    return model


def training_losses(model: LesionRetinaNet, batch: LesionBatch) -> dict[str, Tensor]:
    """``classification`` (focal) and ``bbox_regression`` of a batch, by a model in training mode.

    Training minimises the sum. Any number of the images may have no boxes.

    Raises:
        InputError: A box or label is not usable; the image is named.
    """
    return model(batch.images, torchvision_targets(batch, model.n_findings))


def validation_losses(
    model: LesionRetinaNet, batch: LesionBatch
) -> tuple[dict[str, Tensor], Detections]:
    """Losses without gradient, and `Detections`, of one validation batch.

    One forward in evaluation mode: batch-norm statistics and the model's mode stay as they are.
    """
    targets = torchvision_targets(batch, model.n_findings)
    with evaluating(model), torch.no_grad():
        heads = model.run_heads(batch.images)
        return model.losses(heads, targets), model.detections(heads)
