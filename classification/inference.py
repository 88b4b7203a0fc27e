"""From pixel batches to scores and activation maps, one batch at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import torch

from classification.dataset import LabelBatch
from classification.frames import PredictedScores, scores_frames
from classification.loss import scores_of
from classification.model import ImageClassifier
from classification.saliency import MapMethod, saliency_maps
from data_prep.store.preprocess import Placement, frame_in_original
from networks.inference import evaluating, require_findings


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

    Yields:
        Frames of one batch. An image for which the network's output is not finite is ``failed``
        and has neither score nor map.

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
            yield scores_frames(
                batch.image_ids,
                scores_of(found.logits).cpu().numpy(),
                found.maps.cpu().numpy(),
                maps,
                findings,
                [frame_in_original(found.frame, placement(i)) for i in batch.image_ids],
            )
