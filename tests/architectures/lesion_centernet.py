"""A detector of a user: a map of lesion centres, and one box for each cell of the map."""

from typing import Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from cxr_compare.configs.settings import DetectorModelSettings
from cxr_compare.detection.detector import Detector

STRIDE = 8  # px of a cell


class CenterNetSettings(DetectorModelSettings):
    backbone: str = Field(default="resnet18", description="a network of docs/models.md")
    norm: Literal["frozen", "batch", "group"] = Field(default="group", description="of the body")
    channels: int = Field(default=64, ge=8, le=512, description="width of the maps")


class CenterNet(Detector):
    Settings = CenterNetSettings
    class_layers = ("centres",)
    body_path = "maps"

    def __init__(self, start, *, channels=64):
        super().__init__()
        self.maps, widths = start.maps(8, 16, 32)
        self.laterals = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.hidden = nn.Conv2d(channels, channels, 3, padding=1)
        self.centres = nn.Conv2d(channels, start.n_findings, 1)
        self.sides = nn.Conv2d(channels, 4, 1)
        nn.init.constant_(self.centres.bias, -4.6)  # a lesion in 1 % of the cells

    def run(self, images, targets=None):
        maps = list(self.maps(self.pixels(images)).values())
        joined = sum(
            functional.interpolate(lateral(each), size=maps[0].shape[-2:])
            for lateral, each in zip(self.laterals, maps, strict=True)
        )
        hidden = self.hidden(joined.relu()).relu()
        logits, sides = (
            head(hidden).float().flatten(2).transpose(1, 2) for head in (self.centres, self.sides)
        )
        steps = (torch.arange(maps[0].shape[-1], device=images.device) + 0.5) * STRIDE
        places = torch.cartesian_prod(steps, steps).flip(1)  # (P, 2) x, y
        reach = 2 * STRIDE * functional.softplus(sides)
        boxes = torch.cat([places - reach[..., :2], places + reach[..., 2:]], dim=2)
        return logits, boxes  # (B, P, K), (B, P, 4) xyxy

    def losses(self, passed, targets):
        logits, boxes = passed
        wanted, overlap = torch.zeros_like(logits), 0.0 * boxes.sum()
        for image, target in enumerate(targets):
            centres = (target["boxes"][:, :2] + target["boxes"][:, 2:]) / (2 * STRIDE)
            columns, rows = centres.long().clamp(0, self.preprocess.size // STRIDE - 1).unbind(1)
            places = rows * (self.preprocess.size // STRIDE) + columns
            wanted[image, places, target["labels"] - 1] = 1.0
            overlap = overlap + generalized_box_iou_loss(
                boxes[image, places], target["boxes"], reduction="sum"
            )
        focal = sigmoid_focal_loss(logits, wanted, reduction="sum")
        return {"centres": focal / len(targets), "boxes": overlap / len(targets)}

    def detections(self, passed):
        logits, boxes = (each.detach() for each in passed)
        finite = logits.isfinite().all((1, 2)) & boxes.isfinite().all((1, 2))
        labels = torch.arange(1, self.n_findings + 1, device=logits.device).expand_as(logits)
        candidates = boxes.repeat_interleave(self.n_findings, dim=1)  # one for each finding
        return self.suppress_overlaps(
            candidates, logits.sigmoid().flatten(1), labels.flatten(1), finite
        )
