"""The boxes of a batch as the losses want them, checked: a wrong one names its image."""

import torch
from torch import Tensor

from data_prep.contracts.errors import InputError
from detection.dataset import LesionBatch
from detection.retinanet import Targets


def torchvision_targets(batch: LesionBatch, n_findings: int) -> Targets:
    """The boxes of a batch as torchvision wants them.

    torchvision takes NaN boxes, and learns label 0 as background without a word.

    Args:
        batch: Images with their boxes.
        n_findings: Number of findings K; labels are 1 to K.

    Returns:
        Per image ``boxes`` and ``labels``.

    Raises:
        InputError: A box is not finite, not positive in size or wholly beside the image, or a
            label is outside 1 to K.
    """
    for image_id, boxes, labels in zip(batch.image_ids, batch.boxes, batch.labels, strict=True):
        if boxes.shape != (len(labels), 4):
            raise InputError(
                f"image {image_id!r}: expected boxes of shape ({len(labels)}, 4), "
                f"but got {tuple(boxes.shape)}"
            )
    boxes, labels = torch.cat(batch.boxes), torch.cat(batch.labels)
    wrongs = _wrongs(boxes, labels, batch.images.shape[-1], n_findings)
    bad = torch.stack(list(wrongs.values()))  # (4, N)
    if bad.any():
        row = int(bad.any(0).nonzero()[0])
        owner = [i for i, b in zip(batch.image_ids, batch.boxes, strict=True) for _ in b][row]
        reason = next(why for why, found in zip(wrongs, bad[:, row], strict=True) if found)
        raise InputError(
            f"image {owner!r}: box {boxes[row].tolist()} px with label {int(labels[row])} "
            f"{reason}; correct it, or leave the image out"
        )
    return [
        {"boxes": b, "labels": label} for b, label in zip(batch.boxes, batch.labels, strict=True)
    ]


def _wrongs(boxes: Tensor, labels: Tensor, size: int, n_findings: int) -> dict[str, Tensor]:
    """What may be wrong with boxes (N, 4), and with which (N,) it is."""
    first, last = boxes[:, :2], boxes[:, 2:]
    unknown = f"is not a finding of this model, which knows 1 to {n_findings} (0 is background)"
    return {
        "is not finite": ~boxes.isfinite().all(1),
        "needs x1 < x2 and y1 < y2": ~(last > first).all(1),
        f"lies outside the image of {size} px": ~((first < size) & (last > 0)).all(1),
        unknown: (labels < 1) | (labels > n_findings),
    }
