"""Scores, activation maps and pooled features of a classifier, one batch at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cxr_compare.classification.activation_maps import activation_maps
from cxr_compare.classification.frames import scores_frames
from cxr_compare.classification.loss import sigmoid_scores
from cxr_compare.classification.model import ImageClassifier
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.placement import Placement
from cxr_compare.data_prep.store.prediction_writer import Part
from cxr_compare.networks.store_model import evaluation_mode, require_findings


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
    """Compute the scores and activation maps of images, batch by batch.

    Memory does not grow with the number of images.

    `batches` are ids and square grey pixels, uint8 (B, 1, S, S). `findings` are in the order of the
    model's outputs. `placement` gives the position of an original image in its resized square. The
    model moves to the device; ``bf16`` computes the backbone in bfloat16 (autocast), and logits and
    maps are always float32. `maps` is a method of `activation_maps`; the scores are the same for
    all. A `Part` is that of `scores_frames`. Raises InputError if `findings` does not fit the
    model, or the method is unknown.
    """
    require_findings(findings, model.n_findings, "classifier")
    device = torch.device(device)
    model.to(device)
    with evaluation_mode(model):
        for image_ids, pixels in batches:
            # Entered anew for each batch: a generator must not leave its caller in this mode.
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                mapped = activation_maps(model, pixels.to(device, non_blocking=True), maps)
            # Joined, so that the host waits for the device once.
            columns = [mapped.logits[..., None], mapped.maps.flatten(2)]
            rows = torch.cat(columns, dim=2).cpu()  # (B, K, 1 + h * w)
            yield scores_frames(
                image_ids,
                sigmoid_scores(rows[..., 0].contiguous()).numpy(),
                rows[..., 1:].reshape(mapped.maps.shape).numpy(),
                model.map_method(maps),
                findings,
                [placement(image_id).frame_to_original(mapped.frame) for image_id in image_ids],
            )


def compute_features(
    model: ImageClassifier,
    batches: Iterable[tuple[Sequence[str], Tensor]],
    *,
    device: torch.device | str = "cpu",
    precision: Literal["fp32", "bf16"] = "fp32",
) -> Iterator[np.ndarray]:
    """Compute the pooled features of images, which the last layer of a classifier reads.

    `batches`, `device` and `precision` are those of `predict_scores`. Features are float32 (B, C).
    Raises InputError, which names the image, if a feature is not finite.
    """
    device = torch.device(device)
    model.to(device)
    for image_ids, images in batches:
        with (
            evaluation_mode(model),
            torch.inference_mode(),
            torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
        ):
            maps = model.features(images.to(device, non_blocking=True))  # (B, C, h, w)
        pooled = maps.float().mean(dim=(2, 3)).cpu().numpy()  # (B, C)
        finite = np.isfinite(pooled).all(axis=1)
        if not finite.all():
            raise InputError(
                f"probe: a feature of image '{image_ids[int((~finite).argmax())]}' is not finite; "
                "look at the image, or choose other weights"
            )
        yield pooled
