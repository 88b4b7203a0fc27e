"""From pixel batches to lesion boxes in original pixels, one batch at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from data_prep.contracts.errors import InputError
from data_prep.contracts.schemas import EDGES
from data_prep.store.preprocess import Placement
from detection.dataset import LesionBatch
from detection.retinanet import LesionRetinaNet
from networks.inference import evaluating, image_status, require_findings


class PredictedBoxes(NamedTuple):
    """What one batch gives: rows for `data_prep.store.predictions.PredictionWriter.add`.

    Attributes:
        images: ``image_id, status, reason``, one row an image.
        boxes: ``image_id, finding, x1, y1, x2, y2, score``, original px.
    """

    images: pd.DataFrame
    boxes: pd.DataFrame


def predict_boxes(
    model: LesionRetinaNet,
    batches: Iterable[LesionBatch],
    findings: Sequence[str],
    *,
    placement: Callable[[str], Placement],
    images: pd.DataFrame,
    device: torch.device | str = "cpu",
    precision: Literal["fp32", "bf16"] = "fp32",
) -> Iterator[PredictedBoxes]:
    """Find lesions, batch by batch; memory does not grow with the number of images.

    Boxes have scores of at least 0.001, class-wise NMS at IoU 0.6, and at most 100 an image and
    finding.

    Args:
        model: The detector; moved to ``device``.
        batches: Usually a `DataLoader`; boxes in them are not read.
        findings: Names in label order, K of them.
        placement: How each image lies in the store, by image id.
        images: ``image_id, width, height`` of the originals, px; boxes are clipped to them.
        device: Where to compute.
        precision: ``bf16`` runs backbone and heads under autocast; boxes are decoded in float32.

    Yields:
        One pair of frames a batch. An image for which the network's output is not finite is
        ``failed`` and has no boxes.

    Raises:
        InputError: The number of findings is not the model's, or an image has no known size.
    """
    require_findings(findings, model.n_findings, "detector")
    sizes = images.set_index("image_id")[["width", "height"]]
    device = torch.device(device)
    model.to(device)
    with evaluating(model):
        for batch in batches:
            # Entered anew for each batch: a generator must not leave its caller in these modes.
            with (
                torch.inference_mode(),
                torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
            ):
                found = model(batch.images.to(device))
            yield _to_frames(batch.image_ids, found, findings, placement, sizes)


def _to_frames(
    image_ids: list[str],
    found: list[dict[str, Tensor]],
    findings: Sequence[str],
    placement: Callable[[str], Placement],
    sizes: pd.DataFrame,
) -> PredictedBoxes:
    finite = [bool(image["finite"]) for image in found]
    frames = [
        _original_boxes(image_id, image, findings, placement(image_id), _size(sizes, image_id))
        for image_id, image, ok in zip(image_ids, found, finite, strict=True)
        if ok
    ]
    empty = pd.DataFrame(columns=["image_id", "finding", *EDGES, "score"])
    return PredictedBoxes(
        image_status(image_ids, finite), pd.concat(frames, ignore_index=True) if frames else empty
    )


def _size(sizes: pd.DataFrame, image_id: str) -> tuple[int, int]:
    size = sizes.reindex([image_id]).to_numpy(dtype=np.float64, na_value=np.nan)[0]
    if not np.isfinite(size).all():
        raise InputError(f"images: no width and height for image {image_id!r}; prepare it again")
    return int(size[0]), int(size[1])


def _original_boxes(
    image_id: str,
    found: dict[str, Tensor],
    findings: Sequence[str],
    placement: Placement,
    size: tuple[int, int],
) -> pd.DataFrame:
    store_boxes = found["boxes"].cpu().numpy().astype(np.float64)  # (N, 4) xyxy, store px
    boxes = placement.to_original(store_boxes, *size)  # (N, 4) xyxy, original px, clipped
    frame = pd.DataFrame(boxes, columns=EDGES)
    frame.insert(0, "image_id", image_id)
    frame.insert(1, "finding", np.asarray(findings, object)[found["labels"].cpu().numpy() - 1])
    frame["score"] = found["scores"].cpu().numpy().astype(np.float64)
    # A box that lay in the letterbox's padding has no area left.
    return frame[(frame["x2"] > frame["x1"]) & (frame["y2"] > frame["y1"])]
