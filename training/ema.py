"""The exponential moving average (EMA) of a model's weights."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import nn
from torch.optim.swa_utils import AveragedModel


class WeightAverage(WeightAveraging):
    """Lightning's moving average of the weights, computed without waiting for the GPU.

    Args:
        decay: Weight of the old average in each step, in [0, 1), such as 0.999.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self._decay = decay

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Create the moving average of the weights on the device of the model.

        Args:
            trainer: Lightning's trainer, which runs the training.
            pl_module: Lightning's module, which holds the model and the task.
            stage: Stage of Lightning, such as ``fit``.
        """
        self._average_model = RampedAverage(pl_module, self._decay)
        self._average_model.module.to(pl_module.device)  # its layers are not on the device yet


class RampedAverage(AveragedModel):
    """A moving average of the weights whose decay rises to its final value.

    At first the decay is small and the average follows the weights quickly, so that the random
    initial weights do not dominate the average of early epochs. The number of steps is stored in
    main memory, where it can be read without waiting for the GPU.

    Args:
        model: Model whose weights are averaged.
        decay: Final weight of the old average in each step, in [0, 1), such as 0.999.

    Source:
        TensorFlow's ``ExponentialMovingAverage(num_updates=...)``.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> average = RampedAverage(model, decay=0.9)
        >>> average.update_parameters(model)
        >>> int(average.n_averaged)
        1
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self._decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Update the average in place with the present weights of the model.

        Args:
            model: Model that is being trained.
        """
        n = float(self.n_averaged)
        # The first update copies the model.
        share = 1 - min(self._decay, (1 + n) / (10 + n)) if n else 1.0
        averages = [*self.module.parameters(), *self.module.buffers()]
        current = [*model.parameters(), *model.buffers()]
        pairs = list(zip(averages, current, strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_(
            [average for average, _ in floats], [value for _, value in floats], share
        )
        for average, value in pairs:
            if not average.is_floating_point():  # a batch norm's counter
                average.copy_(value)
        self.n_averaged += 1
