"""From pixel batches to scores and saliency maps: CAM, Grad-CAM, LayerCAM, one batch at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from cxr_compare.classification.backbones import TimmTrunk
from cxr_compare.classification.frames import scores_frames
from cxr_compare.classification.loss import scores_of
from cxr_compare.classification.model import ImageClassifier
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.predictions import Part
from cxr_compare.data_prep.store.preprocess import Frame, Placement
from cxr_compare.networks.inference import evaluating, require_findings

MapMethod = Literal["cam", "gradcam", "layercam"]


def predict_scores(
    model: ImageClassifier,
    batches: Iterable[tuple[Sequence[str], Tensor]],
    findings: Sequence[str],
    *,
    placement: Callable[[str], Placement],
    device: torch.device | str = "cpu",
    precision: Literal["fp32", "bf16"] = "fp32",
    maps: str = "cam",
) -> Iterator[Part]:
    """Score images, batch by batch; memory does not grow with the number of images.

    Args:
        model: The classifier; moved to ``device``.
        batches: Ids and store pixels, uint8 (B, 1, S, S), of some images at a time.
        findings: Names in the order of the model's outputs, K of them.
        placement: How each image lies in the store, by image id.
        device: Where to compute.
        precision: ``bf16`` runs the trunk under autocast; logits and maps are float32.
        maps: How maps are made; scores are the same for all.

    Raises:
        InputError: The number of findings is not the model's, or the method is unknown.
    """
    require_findings(findings, model.n_findings, "classifier")
    device = torch.device(device)
    model.to(device)
    with evaluating(model):
        for image_ids, pixels in batches:
            # Entered anew for each batch: a generator must not leave its caller in this mode.
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                found = saliency_maps(model, pixels.to(device, non_blocking=True), maps)
            # In one piece, (B, K, 1 + h * w): the host waits for the device once.
            rows = torch.cat([found.logits[..., None], found.maps.flatten(2)], dim=2).cpu()
            yield scores_frames(
                image_ids,
                scores_of(rows[..., 0].contiguous()).numpy(),
                rows[..., 1:].reshape(found.maps.shape).numpy(),
                model.map_method(maps),
                findings,
                [placement(i).frame_back(found.frame) for i in image_ids],
            )


class _Saliency(NamedTuple):
    """Scores of a batch, and maps of the evidence for them."""

    logits: Tensor  # float32 (B, K), the same for every method
    maps: Tensor  # float32 (B, K, h, w), raw: one scale for all images
    frame: Frame  # outer frame of the grid, x1, y1, x2, y2 in store px


def saliency_maps(model: ImageClassifier, images: Tensor, method: str = "cam") -> _Saliency:
    """Score a batch and show where each finding's evidence lies.

    ``cam``: what each place adds to the logit. ``gradcam`` (Selvaraju et al. 2017): for a head that
    is a mean and one linear layer, its positive part divided by the number of cells. ``layercam``:
    finer maps, from before the last halving, weighed by their gradients. Where the head reads a
    class token, each place of the last block's input is weighed by its gradients.
    """
    with evaluating(model):
        if model.map_method(method) == "token_gradcam":
            return _token_grad_cam(model, images)
        if method not in get_args(MapMethod):
            raise InputError(
                f"maps: expected one of {', '.join(get_args(MapMethod))}, but got {method!r}"
            )
        if method == "layercam":
            return _layer_cam(model, images)
        with torch.inference_mode():
            features = model.features(images)
            logits, maps = model.logits(features), model.maps(features)
            if method == "gradcam":
                maps = F.relu(maps) / maps[0, 0].numel()
    return _Saliency(logits, maps, model.map_frame(maps.shape[2], maps.shape[3]))


def _layer_cam(model: ImageClassifier, images: Tensor) -> _Saliency:
    """LayerCAM (Jiang et al. 2021): early maps weighed by their positive gradients, at least 0."""
    layer, grid = model.before_halving
    logits, early, gradients = _gradients_at(model, images, layer)
    maps = [F.relu((F.relu(each.float()) * early.float()).sum(dim=1)) for each in gradients]
    return _Saliency(logits, torch.stack(maps, dim=1), grid.frame(*early.shape[2:]))


def _token_grad_cam(model: ImageClassifier, images: Tensor) -> _Saliency:
    """Grad-CAM of the tokens that the last block reads: channels weighed by their mean gradient."""
    trunk = cast("TimmTrunk", model.trunk)
    last_block = cast("Any", trunk.network).blocks[-1]  # it still looks from place to place
    logits, tokens, gradients = _gradients_at(model, images, last_block)
    features = trunk.as_maps(tokens).float()
    means = [trunk.as_maps(gradient).float().mean(dim=(2, 3)) for gradient in gradients]
    with torch.autocast(features.device.type, enabled=False):
        maps = torch.einsum("bkc,bchw->bkhw", torch.stack(means, dim=1), features)
    return _Saliency(logits, F.relu(maps), model.map_frame(*maps.shape[2:]))


def _gradients_at(
    model: ImageClassifier, images: Tensor, layer: nn.Module
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Logits (B, K), what a layer reads, and its gradients for each finding."""
    read: list[Tensor] = []

    def begin(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        torch.set_grad_enabled(True)  # from here on, until the caller's mode comes back
        read.append(given[0].detach().requires_grad_())
        return (read[0].clone(), *given[1:])  # a copy: the layer may work in place

    hook = layer.register_forward_pre_hook(begin)
    try:
        with torch.no_grad():
            logits = model(images)
            gradients = [
                torch.autograd.grad(each.sum(), read[0], retain_graph=True)[0]
                for each in logits.unbind(1)
            ]
    finally:
        hook.remove()
    return logits.detach(), read[0].detach(), gradients
