"""Parts of a training: its modules with another loss, augmentation, order, optimiser, a step."""

from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch

from cxr_compare.classification.chexnet import ChestClassifier
from cxr_compare.classification.loss import (
    exclusive_cross_entropy,
    masked_cross_entropy,
    positive_weights,
    probabilities,
)
from cxr_compare.configs.load import (
    config_names,
    dump_config,
    first_difference,
    parse_config,
    read_config,
)
from cxr_compare.configs.settings import (
    AugmentationSettings,
    ClassifierTrainingSettings,
    DetectorConfig,
)
from cxr_compare.data_prep.base.tables import read_table
from cxr_compare.training import machine
from cxr_compare.training import train as training
from cxr_compare.training.augment import A as albumentations  # noqa: N811 - a module
from cxr_compare.training.augment import (
    Augmented,
    augment,
    build_augmentation,
    own_augmentation,
)
from cxr_compare.training.callbacks import _RampedAverage
from cxr_compare.training.data import Batch, EpochSampler, balancing_weights
from cxr_compare.training.module import ClassifierModule, DetectorModule
from cxr_compare.training.optim import build_optimiser, build_schedule
from tests.adapters.sets import put_table

__all__ = [
    "ChestClassifier",
    "ClassifierModule",
    "Constant",
    "DetectorModule",
    "EpochSampler",
    "Failing",
    "Noted",
    "OwnNetwork",
    "Spoilt",
    "albumentations",
    "average_of",
    "balancing_weights",
    "changed",
    "changes",
    "config_names",
    "configuration",
    "defaults",
    "dump_config",
    "exclusive_cross_entropy",
    "figures_of_scores",
    "first_difference",
    "leak",
    "masked_cross_entropy",
    "optimiser",
    "own_augmentation",
    "parse_config",
    "positive_weights",
    "precision",
    "probabilities",
    "rates",
    "step_loss",
    "training_settings",
]


def configuration(name, overrides=()):
    """The configuration of a name with other values."""
    return read_config(name, overrides)


def defaults(kind):
    """The default of each key of a kind of configuration; those without one have no entry."""
    found = {}

    def collect(model, prefix):
        for name, field in model.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                collect(field.annotation, f"{prefix}{name}.")
            elif not field.is_required():
                found[prefix + name] = field.get_default()

    collect(type(read_config({"detector": "retinanet", "classifier": "chexnet"}[kind])), "")
    return found


def changes(**keys):
    """The pipeline of a section ``[augmentation]`` with some keys; None without any."""
    return build_augmentation(AugmentationSettings(**keys))


def changed(pipeline, pixels, boxes, seed):
    """An image as the pipeline changes it by a seed: pixels, boxes, and their numbers."""
    edges = np.asarray(boxes, float).reshape(-1, 4)
    return augment(pipeline, Augmented(pixels, edges, np.arange(len(edges))), seed)


def training_settings(**changes):
    """The section ``[training]`` of a classifier."""
    usual = {"epochs": 4, "batch_size": 4, "learning_rate": 0.05, "monitor": "val_loss"}
    return ClassifierTrainingSettings(**{**usual, **changes})


def optimiser(model, **changes):
    """The optimiser of a model by the section ``[training]``."""
    return build_optimiser(model, training_settings(**changes))


def rates(steps, **changes):
    """The learning rate of each step of a training."""
    settings = training_settings(**changes)
    made = build_optimiser(torch.nn.Linear(2, 1), settings)
    schedule = build_schedule(made, settings, steps=steps, batches=1)["scheduler"]
    found = []
    for _ in range(steps):
        found.append(made.param_groups[0]["lr"])
        made.step()
        schedule.step()
    return found


def average_of(model, decay):
    """The moving average of the weights of a model; `update_parameters` takes a step."""
    return _RampedAverage(model, decay)


def step_loss(name, *overrides):
    """Build the model of a configuration and let it take a step; its loss before and after it."""
    config = read_config(name, overrides)
    model, _ = training.build_model(config, ["opacity"])
    side = config.data.image_size
    images = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (2, 1, side, side), dtype=np.uint8)
    )
    if isinstance(config, DetectorConfig):
        box = torch.tensor([[8.0, 8.0, side - 16.0, side - 24.0, 1.0]])
        batch = Batch(["a", "b"], images, box, [1, 0])
        learner = DetectorModule(model, config.training)
    else:
        batch = Batch(["a", "b"], images, torch.tensor([[1.0], [0.0]]))
        learner = ClassifierModule(model, config.training)
        learner.weight = None
    made = build_optimiser(model, config.training)
    losses = []
    for _ in range(2):
        made.zero_grad()
        loss = sum(learner.losses(batch).values())
        loss.backward()
        made.step()
        losses.append(float(loss.detach()))
    return losses


def precision(wanted, *, began=None, gpu=None, bf16=False, capability=(8, 0), folder=None):
    """The number format that a training takes on a pretended machine.

    `gpu` is True where there is one; `began` is the format in which the training began.
    """
    run = machine.RunFolder(Path(folder or "none"))
    config = read_config("chexnet", {"training.precision": wanted})
    started = mock.Mock(precision=began)
    with (
        mock.patch.object(machine.RunFolder, "started_in", return_value=began),
        mock.patch.object(machine.RunFolder, "started", started),
        mock.patch("torch.cuda.is_bf16_supported", return_value=bf16),
        mock.patch("torch.cuda.get_device_capability", return_value=capability),
        mock.patch.object(machine, "_has_bf16_instructions", return_value=bf16),
    ):
        return machine.choose_precision(config, run, is_cuda=bool(gpu))


def leak(data):
    """Give a patient of a data set two roles, as no command does, and forget its audit."""
    images = read_table(data / "images.parquet", "images").set_index("image_id")["patient_id"]
    split = read_table(data / "splits/default.parquet", "split")
    several = images.index[images.duplicated(keep=False) & ~images.duplicated()]
    split["role"] = split["role"].mask(split["image_id"].isin(several), "test")
    put_table(split, data / "splits/default.parquet", "split")
    (data / "audit.json").unlink(missing_ok=True)


class OwnNetwork(torch.nn.Module):
    """A network of the user's own: three layers, with what `Run` asks of a classifier."""

    kind = "scores"

    def __init__(self, preprocess, n_findings):
        super().__init__()
        self.preprocess = preprocess
        self.arguments = {"n_findings": n_findings}
        self.trunk = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 8, 8), torch.nn.ReLU())
        self.classifier = torch.nn.Linear(4, n_findings)

    def forward(self, images):
        """Logits and maps."""
        features = self.trunk(self.preprocess.normalise(images))
        maps = torch.einsum("kc,bchw->bkhw", self.classifier.weight, features)
        return self.classifier(features.mean(dim=(2, 3))), maps

    def map_frame(self):
        """The maps cover the square."""
        return (0.0, 0.0, float(self.preprocess.size), float(self.preprocess.size))


class Failing(albumentations.ImageOnlyTransform):
    """A change of grey values that fails."""

    def apply(self, img, **_):
        """Fail as a fault in somebody's code does."""
        raise KeyError("grey")


class Noted(ClassifierModule):
    """A classifier in training whose figures on validation are given, epoch by epoch."""

    aurocs = (0.5, 0.5, 0.5, 0.5)
    val_losses = (1.0, 1.0, 1.0, 1.0)

    def validate(self, batch):
        """Return the loss of this epoch."""
        _, output = super().validate(batch)
        return {"classification": torch.tensor(self.val_losses[self.current_epoch])}, output

    def figures(self, outputs):
        """Return the AUROC of this epoch."""
        return {**super().figures(outputs), "auroc": self.aurocs[self.current_epoch]}


class Spoilt(ClassifierModule):
    """A classifier in training whose loss is not a number in the second epoch."""

    def losses(self, batch):
        """Return a loss, or NaN."""
        factor = float("nan") if self.current_epoch == 1 else 1.0
        return {name: factor * loss for name, loss in super().losses(batch).items()}


class Constant(ClassifierModule):
    """A classifier in training with a loss of the user's own."""

    def losses(self, batch):
        """Return a loss whose value is known."""
        (loss,) = super().losses(batch).values()
        return {"own": loss - loss.detach() + 3.0}

    def validate(self, batch):
        """Return the number of images as the loss of a batch."""
        _, output = super().validate(batch)
        return {"own": torch.tensor(float(len(batch)))}, output


def figures_of_scores(scores, targets):
    """The figures of a classifier on validation."""
    return ClassifierModule.figures(None, [(scores, targets)])


def figures_of_boxes(ids, detected, true):
    """The figures of a detector on validation, of one box on each image and one lesion."""
    parts = [([1] * len(ids), np.array(rows, float)) for rows in (detected, true)]
    return DetectorModule.figures(None, [(ids, *parts)])


def draw_of_step(seed, epoch, step):
    """What a network draws first in a step of a training, such as for its dropout."""
    place = {"settings": SimpleNamespace(seed=seed), "current_epoch": epoch, "global_rank": 0}
    with torch.random.fork_rng(devices=[]):
        DetectorModule.on_train_batch_start(SimpleNamespace(**place), None, step)
        return float(torch.rand(()))
