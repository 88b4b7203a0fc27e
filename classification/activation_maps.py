"""Class activation maps: CAM, Grad-CAM, LayerCAM, and Grad-CAM of class tokens."""

from typing import Any, Literal, NamedTuple, cast, get_args

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from cxr_compare.classification.backbones import TimmTrunk
from cxr_compare.classification.model import ImageClassifier
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.placement import Frame
from cxr_compare.networks.store_model import evaluation_mode

MapMethod = Literal["cam", "gradcam", "layercam"]


class ScoredMaps(NamedTuple):
    """Logits of a batch, and activation maps that show which regions support them.

    `logits` are float32 (B, K), and do not depend on the method by which the maps are made. `maps`
    are float32 (B, K, h, w), not rescaled, so that maps of different images have the same scale.
    `frame` has their outer edges ``(x1, y1, x2, y2)``, in px of the square images that the network
    reads.
    """

    logits: Tensor
    maps: Tensor
    frame: Frame


class _LayerGradients(NamedTuple):
    """Logits, the input of a layer, and the gradients of the logits there."""

    logits: Tensor  # (B, K)
    layer_input: Tensor  # (B, ...)
    gradients: list[Tensor]  # for each finding, of the shape of the input


def activation_maps(model: ImageClassifier, images: Tensor, method: str = "cam") -> ScoredMaps:
    """Compute the logits of a batch, and for each finding a map of the regions that support it.

    ``cam`` gives the contribution of each cell to the logit. ``gradcam`` gives the positive part of
    ``cam`` divided by the number of cells, which is what Grad-CAM computes for a head of a mean and
    one linear layer. ``layercam`` gives finer maps: those before the last halving, weighted by
    their gradients. ``none`` gives the maps of ``cam``. If the last layer reads the class token of
    a transformer, every method gives the tokens that the last block reads, weighted by their
    gradients.

    Images are square and grey, uint8 (B, 1, S, S). The mode of the model does not change. Raises
    InputError if there is no such method, or the network has no maps for it.

    Source:
        Zhou et al. 2016 (CAM), Selvaraju et al. 2017 (Grad-CAM), Jiang et al. 2021 (LayerCAM).
    """
    with evaluation_mode(model):
        if model.map_method(method) == "token_gradcam":
            return _token_grad_cam(model, images)
        if method not in get_args(MapMethod):
            raise InputError(
                f"maps: expected one of {', '.join(get_args(MapMethod))}, but got {method!r}"
            )
        if method == "layercam":
            return _layer_cam(model, images)
        with torch.inference_mode():
            features = model.features(images)  # (B, C, h, w)
            logits = model.logits(features)
            maps = model.maps(features)
            if method == "gradcam":
                maps = F.relu(maps) / maps[0, 0].numel()
    return ScoredMaps(logits, maps, model.map_frame(maps.shape[2], maps.shape[3]))


def _layer_cam(model: ImageClassifier, images: Tensor) -> ScoredMaps:
    """Weight early maps by their positive gradients; the result is at least 0."""
    layer, grid = model.before_halving
    logits, early_maps, gradients = _gradients_at(model, images, layer)
    maps = []
    for gradient in gradients:
        weighted = F.relu(gradient.float()) * early_maps.float()  # (B, C, h, w)
        maps.append(F.relu(weighted.sum(dim=1)))  # (B, h, w)
    return ScoredMaps(logits, torch.stack(maps, dim=1), grid.frame(*early_maps.shape[2:]))


def _token_grad_cam(model: ImageClassifier, images: Tensor) -> ScoredMaps:
    """Weight the tokens that the last block reads by the mean gradient of each channel."""
    trunk = cast("TimmTrunk", model.trunk)
    last_block = cast("Any", trunk.network).blocks[-1]  # its tokens still lie over the image
    logits, tokens, gradients = _gradients_at(model, images, last_block)
    features = trunk.as_maps(tokens).float()  # (B, C, h, w)
    means = [trunk.as_maps(gradient).float().mean(dim=(2, 3)) for gradient in gradients]
    with torch.autocast(features.device.type, enabled=False):
        maps = torch.einsum("bkc,bchw->bkhw", torch.stack(means, dim=1), features)
    return ScoredMaps(logits, F.relu(maps), model.map_frame(*maps.shape[2:]))


def _gradients_at(model: ImageClassifier, images: Tensor, layer: nn.Module) -> _LayerGradients:
    """Compute the gradient of each finding's logit at the input of a layer."""
    layer_inputs: list[Tensor] = []

    def start_gradients(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        torch.set_grad_enabled(True)  # from here on, until the caller's mode comes back
        layer_inputs.append(arguments[0].detach().requires_grad_())
        return (layer_inputs[0].clone(), *arguments[1:])  # a copy: the layer may work in place

    hook = layer.register_forward_pre_hook(start_gradients)
    try:
        with torch.no_grad():
            logits = model(images)
            gradients = [
                torch.autograd.grad(finding.sum(), layer_inputs[0], retain_graph=True)[0]
                for finding in logits.unbind(1)
            ]
    finally:
        hook.remove()
    return _LayerGradients(logits.detach(), layer_inputs[0].detach(), gradients)
