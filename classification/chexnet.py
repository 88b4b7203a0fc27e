"""CheXNet and its rivals: a network's maps, their mean, and one linear layer over it."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from cxr_compare.data_prep.base.errors import InputError, Remedy
from cxr_compare.data_prep.preprocess import Frame, Preprocess
from cxr_compare.networks.trunks import NETWORKS, build_trunk


class ChestClassifier(nn.Module):
    """Scores and activation maps of findings, of uint8 squares ``(B, 1, S, S)``.

    The arguments are stored in ``model.json``, and build the network again.

    Attributes:
        preprocess: Size and normalisation of its input.
        arguments: What it was built with.
    """

    kind: Literal["scores"] = "scores"

    def __init__(
        self,
        preprocess: Preprocess,
        n_findings: int,
        *,
        backbone: str = "densenet121",
        last_stride: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.trunk = build_trunk(backbone, last_stride)
        smallest = NETWORKS[backbone].smallest
        if preprocess.size < smallest:
            problem = f"{backbone}: images of {preprocess.size} px are too small for it"
            raise InputError(problem, [Remedy(options={"set_": f"data.image_size={smallest}"})])
        with torch.no_grad():
            n_channels = self.trunk.eval()(torch.zeros(1, 3, 96, 96)).shape[1]
        self.trunk.train()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(n_channels, n_findings)
        nn.init.zeros_(self.classifier.bias)
        self.arguments: dict[str, Any] = {
            "n_findings": n_findings,
            "backbone": backbone,
            "last_stride": last_stride,
            "dropout": dropout,
        }

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits ``(B, K)`` and maps ``(B, K, h, w)``, whose mean is the logit less bias."""
        features = self.trunk(self.preprocess.normalise(images).expand(-1, 3, -1, -1)).float()
        with torch.autocast(features.device.type, enabled=False):
            logits = self.classifier(self.dropout(features.mean(dim=(2, 3))))
            maps = torch.einsum("kc,bchw->bkhw", self.classifier.weight, features)
        return logits, maps

    def map_frame(self) -> Frame:
        """Return the outer edges x1, y1, x2, y2 of the cells of the maps, px of the square."""
        size, centres = self.preprocess.size, NETWORKS[self.arguments["backbone"]].centre
        stride = self.arguments["last_stride"] or max(centres)
        with torch.no_grad():
            cells = self.trunk.eval()(torch.zeros(1, 3, size, size)).shape[3]
        start = centres[stride] - stride / 2
        return (start, start, start + cells * stride, start + cells * stride)
