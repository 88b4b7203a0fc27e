"""What Lightning does with a batch: losses, and figures on validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from cxr_compare.classification.loss import (
    exclusive_cross_entropy,
    masked_cross_entropy,
    positive_weights,
    probabilities,
)
from cxr_compare.configs.settings import ClassifierTrainingSettings, TrainingSettings
from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.evaluation.boxes.average_precision import box_precision
from cxr_compare.evaluation.image_metrics import auroc, average_precision
from cxr_compare.training.data import Batch
from cxr_compare.training.optim import build_optimiser, build_schedule


class TrainingModule(LightningModule):
    """A network in training. A subclass says its losses and its figures on validation.

    Give `cxr_compare.train` a subclass of `DetectorModule` or `ClassifierModule` with another
    `losses` to train by another loss.
    """

    def __init__(self, model: nn.Module, settings: TrainingSettings) -> None:
        super().__init__()
        self.model: Any = model
        self.settings = settings
        self._outputs: list[Any] = []

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of a batch, by name; their sum is what is learned."""
        raise NotImplementedError

    def validate(self, batch: Batch) -> tuple[dict[str, Tensor], Any]:
        """Return the losses of a validation batch, and what its figures need."""
        raise NotImplementedError

    def figures(self, outputs: list[Any]) -> dict[str, float]:
        """Return the figures of all validation images."""
        raise NotImplementedError

    def n_labels(self, batch: Batch) -> int:
        """Return the weight of a batch in the mean loss of an epoch."""
        return len(batch)

    def configure_optimizers(self) -> Any:
        """Build optimiser and schedule."""
        is_scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        optimiser = build_optimiser(self.model, self.settings, fused=not is_scaled)
        steps = int(self.trainer.estimated_stepping_batches)
        batches = int(self.trainer.num_training_batches)
        schedule = build_schedule(optimiser, self.settings, steps=steps, batches=batches)
        return {"optimizer": optimiser, "lr_scheduler": schedule}

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm: Lightning refuses a fused optimiser, also where no loss is scaled."""
        if gradient_clip_val:
            nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, _: int) -> Batch:
        """Copy a batch to the device of the network."""
        return batch.to(device) if device.type == "cuda" else batch

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed what the network draws by the place of the batch, for a resumed epoch, too."""
        key = [self.settings.seed, self.current_epoch, batch_idx, self.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the sum of the losses."""
        return self._logged("train", self.losses(batch), batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep what the figures of the epoch need."""
        losses, output = self.validate(batch)
        self._logged("val", losses, batch)
        self._outputs.append(output)

    def on_validation_epoch_end(self) -> None:
        """Compute the figures, of all processes together."""
        shares = [self._outputs]
        if self.trainer.world_size > 1:
            shares = [[]] * self.trainer.world_size
            dist.all_gather_object(shares, self._outputs)
        self._outputs = []
        figures = self.figures([output for share in shares for output in share])
        self.log_dict(figures, sync_dist=self.trainer.world_size > 1)

    def _logged(self, role: str, losses: dict[str, Tensor], batch: Batch) -> Tensor:
        if not isinstance(losses, Mapping) or not losses:
            raise InputError(
                f"module: losses returned {type(losses).__name__}; return a dictionary of losses "
                'by name, such as {"focal": loss}'
            )
        total = torch.stack([*losses.values()]).sum()
        logged_values = {f"{role}_loss": total}
        if len(losses) > 1:
            logged_values |= {f"{role}_{name}": loss for name, loss in losses.items()}
        world_size = self.trainer.world_size
        self.log_dict(
            {name: value.detach().float() for name, value in logged_values.items()},
            on_step=False,
            on_epoch=True,
            batch_size=self.n_labels(batch) * world_size,
            sync_dist=world_size > 1,
        )
        return total


class DetectorModule(TrainingModule):
    """A detector in training: torchvision's losses, and AP of boxes."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of classes and boxes."""
        losses, _ = self.model(batch.images, batch.targets)
        return losses

    def validate(self, batch: Batch) -> tuple[dict[str, Tensor], Any]:
        """Return the losses, and the numbers and rows of detected and true boxes."""
        losses, detections = self.model(batch.images, batch.targets)
        rows = [
            torch.cat(
                [detection["boxes"], detection["labels"][:, None], detection["scores"][:, None]],
                dim=1,
            )
            for detection in detections
        ]
        detected = [len(image_rows) for image_rows in rows], torch.cat(rows).cpu().double().numpy()
        return losses, (batch.image_ids, detected, (batch.n_boxes, batch.truth.double().numpy()))

    def figures(self, outputs: list[Any]) -> dict[str, float]:
        """Return the mean AP50 and AP of the findings, and AUROC of the images."""
        ids = [image_id for output in outputs for image_id in output[0]]
        detected, true = (_table(ids, [output[part] for output in outputs]) for part in (1, 2))
        by_finding = [
            box_precision(
                detected[detected["finding"] == label],
                true[true["finding"] == label],
                pd.Index(ids),
            )
            for label in sorted(true["finding"].unique())
        ]
        best = detected.groupby("image_id")["score"].max().reindex(ids, fill_value=0.0)
        is_positive = np.isin(ids, true["image_id"])
        return {
            "ap50": _mean([figures["ap50"] for figures in by_finding]),
            "ap": _mean([figures["ap"] for figures in by_finding]),
            "auroc": _mean([auroc(is_positive, best.to_numpy())]),
        }


class ClassifierModule(TrainingModule):
    """A classifier in training: cross entropy of known labels or of classes, and AUROC."""

    settings: ClassifierTrainingSettings

    def setup(self, stage: str) -> None:
        """Weigh positive labels by those of the training images."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        weight = positive_weights(
            self.settings.positive_weight, data.train.targets, exclusive=self._is_exclusive
        )
        # No buffer: the average of the weights, which is made before, would not have it.
        device = self.trainer.strategy.root_device
        self.weight = None if weight is None else weight.to(device)

    @property
    def _is_exclusive(self) -> bool:
        return self.settings.loss == "softmax"

    def _cross_entropy(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        compute = exclusive_cross_entropy if self._is_exclusive else masked_cross_entropy
        return {"classification": compute(logits, batch.targets, self.weight)}

    def n_labels(self, batch: Batch) -> int:
        """Return the number of known labels."""
        return int(batch.truth.isfinite().sum())

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross entropy of the known labels, or of the class of each image."""
        logits, _ = self.model(batch.images)
        return self._cross_entropy(logits, batch)

    def validate(self, batch: Batch) -> tuple[dict[str, Tensor], Any]:
        """Return the loss, and scores and labels."""
        logits, _ = self.model(batch.images)
        scores = probabilities(logits.double(), exclusive=self._is_exclusive).cpu().numpy()
        return self._cross_entropy(logits, batch), (scores, batch.truth.numpy())

    def figures(self, outputs: list[Any]) -> dict[str, float]:
        """Return the mean AUROC and average precision of the findings, over known labels."""
        scores = np.concatenate([scores for scores, _ in outputs])
        targets = np.concatenate([targets for _, targets in outputs])
        figures = {}
        for name, metric in (("auroc", auroc), ("average_precision", average_precision)):
            values = []
            for true, score in zip(targets.T, scores.T, strict=True):
                is_known = ~np.isnan(true)
                values.append(metric(true[is_known], score[is_known]))
            figures[name] = _mean(values)
        return figures


def _mean(figures: Sequence[float | None]) -> float:
    defined = [figure for figure in figures if figure is not None]
    return float(np.mean(defined)) if defined else float("nan")


def _table(
    image_ids: Sequence[str], shares: Sequence[tuple[list[int], np.ndarray]]
) -> pd.DataFrame:
    """Return the table of the boxes of images, from numbers of boxes and their rows."""
    names = np.repeat(np.asarray(image_ids, object), [n for counts, _ in shares for n in counts])
    rows = np.concatenate([rows for _, rows in shares])
    table = pd.DataFrame(rows, columns=[*EDGES, "finding", "score"][: rows.shape[1]])
    return table.assign(image_id=names, finding=table["finding"].astype(int))
