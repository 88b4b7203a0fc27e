"""From pixel batches to scores and saliency maps: CAM, Grad-CAM, LayerCAM, one batch at a time.

Gradients are taken with respect to tensors that were cut out of the graph, not caught by module
hooks: a rectifier that works in place breaks those, and cannot touch these.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from classification.dataset import LabelBatch
from classification.frames import PredictedScores, scores_frames
from classification.loss import scores_of
from classification.model import ImageClassifier
from data_prep.contracts.errors import InputError
from data_prep.store.preprocess import Frame, Placement, frame_in_original
from networks.inference import evaluating, require_findings

MapMethod = Literal["cam", "gradcam", "layercam"]


def predict_scores(
    model: ImageClassifier,
    batches: Iterable[LabelBatch],
    findings: Sequence[str],
    *,
    placement: Callable[[str], Placement],
    device: torch.device | str = "cpu",
    precision: Literal["fp32", "bf16"] = "fp32",
    maps: MapMethod = "cam",
) -> Iterator[PredictedScores]:
    """Score images, batch by batch; memory does not grow with the number of images.

    Args:
        model: The classifier; moved to ``device``.
        batches: Usually a `DataLoader`; targets in them are not read.
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
        for batch in batches:
            # Entered anew for each batch: a generator must not leave its caller in this mode.
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                found = saliency_maps(model, batch.images.to(device, non_blocking=True), maps)
            # In one piece, (B, K, 1 + h * w): the host waits for the device once.
            rows = torch.cat([found.logits[..., None], found.maps.flatten(2)], dim=2).cpu()
            yield scores_frames(
                batch.image_ids,
                scores_of(rows[..., 0].contiguous()).numpy(),
                rows[..., 1:].reshape(found.maps.shape).numpy(),
                maps,
                findings,
                [frame_in_original(found.frame, placement(i)) for i in batch.image_ids],
            )


class _Saliency(NamedTuple):
    """Scores of a batch, and maps of the evidence for them."""

    logits: Tensor  # float32 (B, K), the same for every method
    maps: Tensor  # float32 (B, K, h, w), raw: one scale for all images
    frame: Frame  # outer frame of the grid, x1, y1, x2, y2 in store px


def saliency_maps(model: ImageClassifier, images: Tensor, method: MapMethod = "cam") -> _Saliency:
    """Score a batch and show where each finding's evidence lies.

    ``cam``: what each place adds to the logit. ``gradcam``: its positive part, for any head.
    ``layercam``: finer maps, from before the last halving, weighed by their gradients.
    """
    if method not in get_args(MapMethod):
        raise InputError(
            f"maps: expected one of {', '.join(get_args(MapMethod))}, but got {method!r}"
        )
    with evaluating(model):
        if method == "layercam":
            return _layer_cam(model, images)
        if method == "cam":
            with torch.inference_mode():
                features = model.features(images)
                logits, maps = model.logits(features), model.maps(features)
        else:
            with torch.no_grad():
                features = model.features(images)
            logits, gradients = _head_gradients(model, features)
            maps = _grad_cam(features, gradients)
    return _Saliency(logits, maps, model.map_frame(maps.shape[2], maps.shape[3]))


def _layer_cam(model: ImageClassifier, images: Tensor) -> _Saliency:
    """LayerCAM (Jiang et al. 2021): early maps weighed by their positive gradients, at least 0."""
    with torch.no_grad():
        early = model.early_features(images)
    maps = []
    with torch.enable_grad():
        leaf = early.detach().requires_grad_()
        logits = model.logits(model.late_features(leaf.clone()))  # (B, K)
        for one in logits.unbind(1):
            (gradient,) = torch.autograd.grad(one.sum(), leaf, retain_graph=True)
            maps.append(F.relu((F.relu(gradient.float()) * early.float()).sum(dim=1)))
    height, width = early.shape[2:]
    return _Saliency(logits.detach(), torch.stack(maps, dim=1), model.early_frame(height, width))


def _head_gradients(model: ImageClassifier, features: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, K), and their gradients (B, K, C, h, w) by features (B, C, h, w), float32."""
    with torch.enable_grad():
        leaf = features.detach().requires_grad_()
        # A copy goes in: a head may begin with a layer that works in place.
        logits = model.logits(leaf.clone())
        gradients = [
            torch.autograd.grad(one.sum(), leaf, retain_graph=True)[0] for one in logits.unbind(1)
        ]
    return logits.detach(), torch.stack(gradients, dim=1)


def _grad_cam(features: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017), (B, K, h, w): maps weighed by mean gradient, at least 0.

    Where the head is a mean and one linear layer: the positive CAM divided by the number of cells.
    """
    weights = gradients.mean(dim=(3, 4))  # (B, K, C)
    return F.relu(torch.einsum("bkc,bchw->bkhw", weights, features))
