"""Losses of FCOS: which cell learns which box, and the losses of each image.

The figures are torchvision's. Its functions select rows by masks and read a number of each image,
for which the host waits; here the host waits once for a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.detection._utils import BoxLinearCoder
from torchvision.ops import sigmoid_focal_loss

from cxr_compare.detection.detector import Targets
from cxr_compare.detection.retinanet import iou_losses

_LARGEST_AREA = 1e8
_UNMATCHED = 1e-5


def match_cells(boxes: Tensor, cells: Tensor, level_sizes: Sequence[int], radius: float) -> Tensor:
    """Find which true box each cell of the feature maps learns to predict, for the detector FCOS.

    A cell learns a box that contains the cell's middle, if the middle lies near the centre of the
    box, and if the size of the box belongs to the cell's level of the feature pyramid. If several
    boxes fit, the cell learns the one with the smallest area.

    Boxes (T, 4) and the squares `cells` (A, 4), of all levels from the finest to the coarsest, are
    xyxy in px of the square image; the sum of `level_sizes` is A. `radius` is the largest distance
    of a cell's middle from the centre of a box, in sides of the cell. The result (A,) has the row
    of the box, -1 for a cell that learns no box.

    Source:
        Tian et al. 2019, FCOS; the same matches as ``torchvision.models.detection.FCOS``.

    Example:
        >>> cells = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8], [0, 0, 16, 16]])
        >>> match_cells(torch.tensor([[1.0, 1, 9, 8]]), cells, [2, 1], 1.5).tolist()
        [0, -1, -1]
    """
    if not len(boxes):
        return torch.full_like(cells[:, 0], -1, dtype=torch.int64)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2  # (T, 2)
    middles = (cells[:, :2] + cells[:, 2:]) / 2  # (A, 2)
    sides = cells[:, 2] - cells[:, 0]
    distance = (middles[:, None, :] - centres[None, :, :]).abs().amax(dim=2)  # (A, T)
    matches = distance < radius * sides[:, None]
    to_edges = torch.cat(
        [middles[:, None] - boxes[None, :, :2], boxes[None, :, 2:] - middles[:, None]], 2
    )
    matches &= to_edges.amin(dim=2) > 0
    finest = level_sizes[0]
    coarsest = level_sizes[-1]
    least = torch.cat([torch.zeros_like(sides[:finest]), sides[finest:] * 4])
    most = torch.cat([sides[:-coarsest] * 8, torch.full_like(sides[-coarsest:], torch.inf)])
    reach = to_edges.amax(dim=2)
    matches &= (reach > least[:, None]) & (reach < most[:, None])
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    preferred, row = (matches.to(torch.float32) * (_LARGEST_AREA - areas[None, :])).max(dim=1)
    return torch.where(preferred < _UNMATCHED, -1, row)


def fcos_losses(
    outputs: dict[str, Tensor], cells: Tensor, matched: Tensor, targets: Targets
) -> dict[str, Tensor]:
    """Compute the losses of the detector FCOS for a batch: means over the images.

    The losses of an image are sums over cells, divided by the number of cells that learn a box (by
    1 if there are none). There are B images, A cells of the feature maps and K findings.

    `outputs` are float32: ``cls_logits`` ``(B, A, K + 1)``, ``bbox_regression`` ``(B, A, 4)`` and
    ``bbox_ctrness`` ``(B, A, 1)``. `cells` and `matched` ``(B, A)`` are those of `match_cells`. The
    losses are ``classification`` (focal loss), ``bbox_regression`` (generalised IoU) and
    ``bbox_ctrness`` (cross entropy of the centredness: how near the middle of the cell is to the
    centre of its box).

    Source:
        Tian et al. 2019, FCOS; the losses of ``torchvision.models.detection.fcos.FCOSHead``.
    """
    coder = BoxLinearCoder(normalize_by_size=True)
    learns = matched >= 0
    counts = learns.sum(dim=1).tolist()  # the host waits here
    losses: dict[str, list[Tensor]] = {}
    for image, (target, count) in enumerate(zip(targets, counts, strict=True)):
        rows = learns[image].nonzero_static(size=count)[:, 0]
        box_rows = matched[image][rows]
        logits = outputs["cls_logits"][image]
        class_targets = torch.zeros_like(logits)
        class_targets[rows, target["labels"][box_rows]] = class_targets.new_ones(())
        boxes = target["boxes"][box_rows]
        learning = cells[rows]
        predicted = coder.decode(outputs["bbox_regression"][image][rows], learning)
        centredness = outputs["bbox_ctrness"][image][rows, 0]
        image_losses = {
            "classification": sigmoid_focal_loss(logits, class_targets, reduction="sum"),
            "bbox_regression": iou_losses("giou", predicted, boxes).sum(),
            "bbox_ctrness": functional.binary_cross_entropy_with_logits(
                centredness, _centredness(coder.encode(learning, boxes)), reduction="sum"
            ),
        }
        for name, loss in image_losses.items():
            losses.setdefault(name, []).append(loss / max(1, count))
    return {name: torch.stack(parts).mean() for name, parts in losses.items()}


def _centredness(distances: Tensor) -> Tensor:
    """Return how near a cell's middle is to the centre of its box, 1 at the centre, ``(M,)``.

    Distances ``(M, 4)`` are those to the left, upper, right and lower edge.
    """
    across = distances[:, 0::2]
    down = distances[:, 1::2]
    return torch.sqrt((across.amin(1) / across.amax(1)) * (down.amin(1) / down.amax(1)))
