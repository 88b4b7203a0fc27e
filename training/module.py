"""The network with its losses and figures; the order of a step stands here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from cxr_compare.classification import loss as classification
from cxr_compare.configs.settings import TrainingSettings
from cxr_compare.data_prep.contracts.boxes import Boxes
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.detection import detector as detection
from cxr_compare.evaluation.boxes.average_precision import unchecked_average_precision
from cxr_compare.evaluation.metrics.image_metrics import auroc, image_average_precision
from cxr_compare.training.optim import build_optimiser, build_schedule


class TrainingModule(LightningModule):
    """A network that learns; a subclass says what its losses and its figures are.

    A batch has ``image_ids``, a method ``to(device)`` and a length.

    Args:
        model: The network.
        settings: The section ``[training]`` of the configuration.
        trainable: Stages of the backbone that learn in each epoch, as
            `networks.store_model.StoreModel.freeze_for_epoch` takes it; None leaves the network as
            it is.
    """

    def __init__(self, model: nn.Module, settings: TrainingSettings, trainable: Any = None) -> None:
        super().__init__()
        self.model = model
        self.training_settings = settings
        self.trainable = trainable
        self._outputs: list[Any] = []  # of this process's validation batches

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Return the losses of a training batch by name; training minimises their sum."""
        raise NotImplementedError

    def validate(self, batch: Any) -> tuple[dict[str, Tensor], Any]:
        """Return the losses of a validation batch, and what `figures` needs of it (picklable)."""
        raise NotImplementedError

    def figures(self, outputs: list[Any]) -> dict[str, float]:
        """Compute the figures of a whole validation from the outputs of all its batches."""
        raise NotImplementedError

    def n_labels(self, batch: Any) -> int:
        """Return the number of labels over which the losses of a batch are means."""
        return len(batch)

    def configure_optimizers(self) -> Any:
        """Build the optimiser and its schedule, both of which step by batch."""
        # Fused steps unscale by themselves, too late for Lightning to clip the gradient.
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        optimiser = build_optimiser(
            self.model, self.training_settings, fused=None if scaled else True
        )
        schedule = build_schedule(
            optimiser,
            self.training_settings,
            steps=int(self.trainer.estimated_stepping_batches),
            batches=int(self.trainer.num_training_batches),
        )
        return {"optimizer": optimiser, "lr_scheduler": schedule}

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient's norm; Lightning refuses to before fused steps, also of bf16."""
        if gradient_clip_val:
            nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, _: int) -> Any:
        """Copy a batch from pinned memory while the GPU computes."""
        return batch.to(device, non_blocking=True) if device.type == "cuda" else batch

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another architecture, before a tensor is replaced."""
        own = _shapes(self.state_dict())
        saved = _shapes(checkpoint["state_dict"])
        different = [name for name in {**own, **saved} if own.get(name) != saved.get(name)]
        if different:
            name = different[0]
            raise InputError(
                f"the checkpoint is of another architecture: '{name.removeprefix('model.')}' has "
                f"shape {saved.get(name)} there and {own.get(name)} in this model; train in a new "
                "folder"
            )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Choose the stages that learn, and seed the draws of the step (such as dropout).

        Not at the epoch's start: Lightning 2.6 calls no such hook in an epoch that it resumes.
        """
        if batch_idx == 0 and self.trainable is not None:
            self.model.freeze_for_epoch(self.trainable, self.current_epoch)  # type: ignore[operator]
        key = [self.training_settings.seed, self.current_epoch, batch_idx, self.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss; Lightning then computes gradients, clips them and takes the step."""
        return self._log_losses("train", self.losses(batch), batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the losses, and keep the output for the figures."""
        losses, output = self.validate(batch)
        self._log_losses("val", losses, batch)
        self._outputs.append(output)

    def on_validation_epoch_end(self) -> None:
        """Log the figures of the outputs of all processes."""
        shares = [self._outputs]
        if self.trainer.world_size > 1:
            shares = [[]] * self.trainer.world_size
            dist.all_gather_object(shares, self._outputs)
        self._outputs = []
        figures = self.figures([output for share in shares for output in share])
        # Equal in all processes: their mean is the figure itself.
        self.log_dict(figures, sync_dist=self.trainer.world_size > 1)

    def _log_losses(self, role: str, losses: dict[str, Tensor], batch: Any) -> Tensor:
        total = torch.stack([*losses.values()]).sum()
        named = {f"{role}_loss": total}
        if len(losses) > 1:  # a single loss is its own sum: naming it once is enough
            named |= {f"{role}_{name}": loss for name, loss in losses.items()}
        self.log_dict(
            {name: value.detach().float() for name, value in named.items()},
            on_step=False,
            on_epoch=True,
            # Lightning averages these counts over processes as integers, and 43.5 becomes 43.
            batch_size=self.n_labels(batch) * self.trainer.world_size,
            sync_dist=self.trainer.world_size > 1,
        )
        return total


class DetectorModule(TrainingModule):
    """A detector of `cxr_compare.detection`."""

    def losses(self, batch: detection.LesionBatch) -> dict[str, Tensor]:
        """Return the losses of classes and boxes."""
        return detection.training_losses(self.model, batch)  # type: ignore[arg-type]

    def validate(self, batch: detection.LesionBatch) -> tuple[dict[str, Tensor], Any]:
        """Return the losses, and the ids with the detected and the true boxes, store px."""
        losses, detected = detection.validation_losses(self.model, batch)  # type: ignore[arg-type]
        true = [
            Boxes(boxes.cpu().numpy(), np.ones(len(boxes)), labels.cpu().numpy())
            for boxes, labels in zip(batch.boxes, batch.labels, strict=True)
        ]
        return losses, (batch.image_ids, detected, true)

    def figures(self, outputs: list[Any]) -> dict[str, float]:
        """Compute AP50 and AP of the boxes, and AUROC of the best box's score by image."""
        ids: list[str] = []
        detected_boxes: list[Boxes | None] = []
        true_boxes: list[Boxes | None] = []
        for batch_ids, batch_detected, batch_true in outputs:
            ids += batch_ids
            detected_boxes += batch_detected
            true_boxes += batch_true
        detected = _box_table(ids, detected_boxes)
        true = _box_table(ids, true_boxes)
        by_finding = [
            unchecked_average_precision(
                detected[detected["finding"] == label],
                true[true["finding"] == label],
                pd.Index(ids),
            )
            for label in sorted(true["finding"].unique())
        ]
        best = detected.groupby("image_id")["score"].max().reindex(ids, fill_value=0.0)
        return {
            "ap50": mean_of_defined([figures["ap50"] for figures in by_finding]),
            "ap": mean_of_defined([figures["ap"] for figures in by_finding]),
            "auroc": mean_of_defined([auroc(np.isin(ids, true["image_id"]), best.to_numpy())]),
        }


class ClassifierModule(TrainingModule):
    """A classifier of `cxr_compare.classification`."""

    def setup(self, stage: str) -> None:
        """Weigh positive labels by the training images, where their data set knows all labels."""
        images = getattr(self.trainer, "datamodule", None)  # None: the user's own loaders
        model: Any = self.model
        unknown = np.zeros((0, model.n_findings))
        targets = getattr(getattr(images, "train", None), "targets", unknown)
        weight = self.training_settings.positive_weight  # type: ignore[attr-defined]
        self.criterion = classification.build_criterion(weight, targets)

    def n_labels(self, batch: classification.LabelBatch) -> int:
        """Return the number of known labels."""
        return int(batch.targets.isfinite().sum())

    def losses(self, batch: classification.LabelBatch) -> dict[str, Tensor]:
        """Return the cross entropy of the known labels."""
        smoothing = self.training_settings.label_smoothing  # type: ignore[attr-defined]
        model: Any = self.model
        return classification.training_losses(model, batch, self.criterion, smoothing=smoothing)

    def validate(self, batch: classification.LabelBatch) -> tuple[dict[str, Tensor], Any]:
        """Return the loss, and the scores (B, K) with the labels (B, K)."""
        model: Any = self.model
        losses, scores = classification.validation_losses(model, batch, self.criterion)
        return losses, (scores.cpu().numpy(), batch.targets.cpu().numpy())

    def figures(self, outputs: list[Any]) -> dict[str, float]:
        """Compute AUROC and average precision, each a mean over the findings that define it."""
        return score_figures(
            np.concatenate([scores for scores, _ in outputs]),
            np.concatenate([targets for _, targets in outputs]),
        )


def score_figures(scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Compute AUROC and average precision of scores (N, K) where labels (N, K) are not NaN.

    Example:
        >>> targets = np.array([[1.0], [0.0], [np.nan]])
        >>> score_figures(np.array([[0.9], [0.2], [0.5]]), targets)["auroc"]
        1.0
    """
    figures = {}
    for name, metric in (("auroc", auroc), ("average_precision", image_average_precision)):
        by_finding = []
        for true, score in zip(targets.T, scores.T, strict=True):
            is_known = ~np.isnan(true)
            by_finding.append(metric(true[is_known], score[is_known]))
        figures[name] = mean_of_defined(by_finding)
    return figures


def mean_of_defined(figures: Sequence[float | None]) -> float:
    """Return the mean of those values that are not None; NaN if all are None.

    Example:
        >>> mean_of_defined([0.5, None, 1.0])
        0.75
    """
    defined = [figure for figure in figures if figure is not None]
    return float(np.mean(defined)) if defined else float("nan")


def _box_table(image_ids: Sequence[str], images: Sequence[Boxes | None]) -> pd.DataFrame:
    """Join the boxes of several images, store px, in one table; None has no rows."""
    boxes = Boxes.joined([image_boxes for image_boxes in images if image_boxes is not None])
    counts = [len(image_boxes or ()) for image_boxes in images]
    box_ids = np.repeat(np.asarray(image_ids, object), counts)
    return boxes.to_table(box_ids, boxes.labels)


def _shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor by name."""
    return {name: tuple(value.shape) for name, value in state.items()}
