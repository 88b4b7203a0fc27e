"""Detectors with transformers: RT-DETR, D-FINE and Deformable DETR.

The networks are those of the package transformers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torchvision.ops import box_convert

from cxr_compare.data_prep.contracts.boxes import Boxes
from cxr_compare.data_prep.contracts.errors import require_packages
from cxr_compare.detection.backbone import DetectorStart
from cxr_compare.detection.detector import Detections, Detector, Targets
from cxr_compare.detection.frames import best_boxes

# Weights of Deformable DETR's losses; the other architectures weight theirs inside.
_WEIGHTS = {"ce": 1.0, "bbox": 5.0, "giou": 2.0}
_LOSS_KINDS = {*_WEIGHTS, "vfl", "fgl", "ddf"}
_RARE = 0.01  # share of queries that detect something, for the first biases (Lin et al. 2017)
_STRIDES = (8, 16, 32)  # px from one cell of the maps to the next
_CLASSES = {"rt_detr": "RTDetr", "d_fine": "DFine", "deformable_detr": "DeformableDetr"}


class _Pass(NamedTuple):
    """Output of one pass through the network, in full precision."""

    logits: Tensor  # (B, Q, K)
    boxes: Tensor  # (B, Q, 4), centre and sides as shares of the image's side
    loss: tuple[tuple[Any, ...], dict[str, Any]] | None  # arguments of the package's loss


class _DeferredLoss(NamedTuple):
    """The three values that transformers expects of a loss; the second holds its arguments."""

    loss: None
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    auxiliary_outputs: None


def _defer_loss(*arguments: Any, **keywords: Any) -> _DeferredLoss:
    """Return the arguments of the package's loss, so that it is computed later, in float32."""
    return _DeferredLoss(None, (arguments, keywords), None)


class _MaskedMaps(nn.Module):
    """A backbone as transformers expects it: its maps with masks, in which nothing is padded."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, pixels: Tensor, mask: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Compute maps (B, C, h, w) at strides of 8, 16 and 32 px, each with a mask (B, h, w)."""
        masked_maps = []
        for maps in self.body(pixels).values():
            full_mask = mask.new_ones((len(maps), *maps.shape[2:])).bool()  # (B, h, w)
            masked_maps.append((maps, full_mask))
        return masked_maps


class LesionDetr(Detector):
    """A DETR (transformer that detects) for grey images: RT-DETR, D-FINE or Deformable DETR.

    It reads images of the pixel store, a folder of images resized to squares.

    The class differs from the networks of the package transformers in three points:

    - Losses are divided by the number of images of a batch, not by the number of boxes, so that a
      batch has the same weight on two devices as on one.
    - Losses and matching are computed in float32 under autocast.
    - An image whose output is not finite gets None instead of boxes.

    `configs.model_settings.RtDetrSettings` explains the settings. Deformable DETR makes no
    denoising queries. RT-DETR and D-FINE have at most as many queries as their maps have cells.

    Source:
        Zhao et al. 2024, DETRs Beat YOLOs on Real-time Object Detection (RT-DETR); Peng et al.
        2025, D-FINE; Zhu et al. 2021, Deformable DETR.
    """

    class_layers = ("class_embed", "enc_score_head", "denoising_class_embed")
    body_path = "network.model.backbone.body"

    def __init__(
        self,
        architecture: str,
        start: DetectorStart,
        *,
        queries: int = 300,
        channels: int = 256,
        encoder_layers: int = 1,
        decoder_layers: int = 6,
        denoising: int = 0,
    ) -> None:
        super().__init__()
        require_packages(f"architecture: {architecture}", "detr", ["transformers"])
        import transformers

        body, widths = start.maps(*_STRIDES)
        # A small backbone that transformers builds, and that the body then replaces.
        placeholder = transformers.RTDetrResNetConfig(
            embedding_size=8,
            hidden_sizes=[8] * 4,
            depths=[1] * 4,
            layer_type="basic",
            out_indices=[2, 3, 4],
        )
        settings: dict[str, Any] = {
            "backbone_config": placeholder,
            "num_labels": start.n_findings,
            "num_queries": queries,
            "d_model": channels,
            "encoder_layers": encoder_layers,
            "encoder_ffn_dim": 4 * channels,
            "decoder_layers": decoder_layers,
            "decoder_ffn_dim": 4 * channels,
            "auxiliary_loss": True,
        }
        if architecture == "deformable_detr":
            settings |= {"with_box_refine": True, "disable_custom_kernels": True}
        else:  # the best cells of all maps are its queries
            n_cells = sum((start.preprocess.size // stride) ** 2 for stride in _STRIDES)
            settings |= {"num_queries": min(queries, n_cells), "num_denoising": denoising}
            settings |= {"encoder_hidden_dim": channels, "decoder_in_channels": [channels] * 3}
            settings |= {"freeze_backbone_batch_norms": False}
        name = _CLASSES[architecture]
        config = getattr(transformers, f"{name}Config")(**settings)
        self.network: Any = getattr(transformers, f"{name}ForObjectDetection")(config)
        _replace_backbone(self.network, _MaskedMaps(body), widths)
        for name, layer in self.network.named_modules():
            if isinstance(layer, nn.Linear) and any(part in name for part in self.class_layers):
                nn.init.constant_(layer.bias, -math.log((1 - _RARE) / _RARE))
        _share_layers(self.network)
        self._loss = self.network.loss_function
        self.network.loss_function = _defer_loss

    def run(self, images: Tensor, targets: Targets | None = None) -> _Pass:
        """Run the network on a batch of images.

        RT-DETR and D-FINE make denoising queries of the targets in training. Without targets the
        method `losses` cannot be called. The result has the logits and boxes of the queries, and
        the arguments of the loss.
        """
        labels = None if targets is None else [self._package_target(target) for target in targets]
        output = self.network(pixel_values=self.pixels(images), labels=labels)
        logits = output.logits.float()  # (B, Q, K)
        boxes = output.pred_boxes.float()  # (B, Q, 4)
        if output.get("denoising_meta_values"):  # those queries come first
            queries = self.network.config.num_queries
            logits = logits[:, -queries:]
            boxes = boxes[:, -queries:]
        return _Pass(logits, boxes, output.loss_dict)

    def _package_target(self, target: Mapping[str, Tensor]) -> dict[str, Tensor]:
        boxes = box_convert(target["boxes"], "xyxy", "cxcywh") / self.preprocess.size
        return {"class_labels": target["labels"] - 1, "boxes": boxes}

    def losses(self, passed: _Pass, targets: Targets) -> dict[str, Tensor]:
        """Compute the losses with the package transformers, divided by the number of images.

        The losses, such as ``bbox``, are summed over all decoder layers and over matched and
        denoising queries. Raises ValueError if `run` was called without targets.
        """
        if passed.loss is None:
            raise ValueError("Expected a pass with targets, but got one without")
        arguments, keywords = tree_map_only(
            Tensor, lambda value: value.float() if value.is_floating_point() else value, passed.loss
        )
        with torch.autocast(passed.logits.device.type, enabled=False):
            _, parts, _ = self._loss(*arguments, **keywords)
        n_boxes = sum(len(target["labels"]) for target in targets)
        weights = _WEIGHTS if "loss_ce" in parts else {}
        losses: dict[str, Tensor] = {}
        for name, value in parts.items():
            kind = name.removeprefix("loss_").split("_")[0]  # loss_bbox_aux_2, loss_bbox_dn_0, ...
            if kind in _LOSS_KINDS:
                part = weights.get(kind, 1.0) * max(n_boxes, 1) / len(targets) * value
                losses[kind] = losses[kind] + part if kind in losses else part
        # Without a box in the batch there are no denoising queries, but several devices wait for
        # the gradient of their embedding.
        if embedding := getattr(self.network.model, "denoising_class_embed", None):
            losses["bbox"] = losses["bbox"] + 0.0 * embedding.weight.sum()
        return losses

    def detections(self, passed: _Pass) -> Detections:
        """Return the boxes of the highest-scoring queries of each finding, for each image.

        A DETR predicts a box for each of a fixed number of queries. They are trained not to repeat
        a box, so no suppression of overlaps is needed.

        Boxes are at most 100 of each finding, in px of the square images, by falling score; None
        for an image whose output is not finite.
        """
        corners = box_convert(passed.boxes.detach(), "cxcywh", "xyxy") * self.preprocess.size
        scores = passed.logits.detach().sigmoid()
        rows = torch.cat([corners, scores], dim=2).cpu()  # (B, Q, 4 + K); one wait for the device
        return [
            self._best_boxes(image_rows) if np.isfinite(image_rows).all() else None
            for image_rows in rows.numpy()
        ]

    def _best_boxes(self, rows: np.ndarray) -> Boxes:
        """Make boxes of an image's queries (Q, 4 + K), one for each query and finding."""
        corners, scores = rows[:, :4].clip(0, self.preprocess.size), rows[:, 4:]
        labels = np.broadcast_to(np.arange(1, self.n_findings + 1), scores.shape)
        boxes = Boxes(corners.repeat(self.n_findings, axis=0), scores.ravel(), labels.ravel())
        return best_boxes(boxes)


def _share_layers(network: nn.Module) -> None:
    """Replace layers that share weights by one layer, named once in the state, as files need it.

    Sharing only the weights would end when a move to a device makes new parameters.
    """
    first_names = {weight: name for name, weight in network.named_parameters()}
    repeated = {}
    for name, weight in network.named_parameters(remove_duplicate=False):
        if first_names[weight] != name:
            repeated[name] = first_names[weight]
    for name, first in repeated.items():
        shared = network.get_submodule(first.rpartition(".")[0])
        network.set_submodule(name.rpartition(".")[0], shared)

    def leave_out(_: nn.Module, state: dict[str, Any], prefix: str, __: Any) -> None:
        for name in repeated:
            state.pop(prefix + name, None)

    def put_back(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
        for name, first in repeated.items():
            if prefix + first in state:
                state[prefix + name] = state[prefix + first]

    network.register_state_dict_post_hook(leave_out)
    network.register_load_state_dict_pre_hook(put_back)


def _replace_backbone(network: Any, maps: _MaskedMaps, widths: list[int]) -> None:
    """Put a body with maps of these widths in place of the package's small backbone."""
    network.model.backbone = maps
    projections = getattr(network.model, "encoder_input_proj", None) or network.model.input_proj
    for level, projection in enumerate(projections):
        before = projection[0]
        projection[0] = nn.Conv2d(
            widths[min(level, 2)],  # a fourth level is made of the third
            before.out_channels,
            before.kernel_size,
            before.stride,
            before.padding,
            bias=before.bias is not None,
        )
        network._init_weights(projection[0])
