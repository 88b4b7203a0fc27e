"""From pixel batches to lesion boxes in original pixels, one batch at a time."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

import pandas as pd
import torch
from torch import Tensor

from data_prep.contracts.boxes import Boxes
from data_prep.store.preprocess import Placement
from detection.dataset import LesionBatch
from detection.detector import Detector
from detection.frames import PredictedBoxes, boxes_frames, sizes_by_image
from networks.inference import evaluating, require_findings


def predict_boxes(
    model: Detector,
    batches: Iterable[LesionBatch],
    findings: Sequence[str],
    *,
    placement: Callable[[str], Placement],
    images: pd.DataFrame,
    device: torch.device | str = "cpu",
    precision: Literal["fp32", "bf16"] = "fp32",
) -> Iterator[PredictedBoxes]:
    """Find lesions, batch by batch; memory does not grow with the number of images.

    Args:
        model: The detector; moved to ``device``.
        batches: Usually a `DataLoader`; boxes in them are not read.
        findings: Names in label order, K of them.
        placement: How each image lies in the store, by image id.
        images: ``image_id, width, height`` of the originals, px; boxes are clipped to them.
        device: Where to compute.
        precision: ``bf16`` runs backbone and heads under autocast; boxes are decoded in float32.

    Raises:
        InputError: The number of findings is not the model's, or an image has no known size.
    """
    require_findings(findings, model.n_findings, "detector")
    sizes = sizes_by_image(images)
    device = torch.device(device)
    model.to(device)
    with evaluating(model):
        for batch in batches:
            # Entered anew for each batch: a generator must not leave its caller in these modes.
            with (
                torch.inference_mode(),
                torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
            ):
                detections = model(batch.images.to(device, non_blocking=True))
            yield boxes_frames(batch.image_ids, _to_numpy(detections), findings, placement, sizes)


def _to_numpy(detections: Sequence[Mapping[str, Tensor]]) -> list[Boxes | None]:
    return [
        Boxes(*(image[name].numpy() for name in ("boxes", "scores", "labels")))
        if image["finite"]
        else None
        for image in detections
    ]
