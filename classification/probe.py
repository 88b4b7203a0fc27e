"""A probe: features of a frozen network, and a logistic regression of them for each finding."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch

from cxr_compare.classification.inference import compute_features
from cxr_compare.classification.model import ImageClassifier
from cxr_compare.data_prep.store.pixel_store import PixelSource
from cxr_compare.data_prep.work.background_threads import read_ahead

_MOST_ITERATIONS = 2000
_TOLERANCE = 1e-5  # largest component of the gradient of the mean loss at which a fit ends


@dataclass(frozen=True)
class LabelledFeatures:
    """Features of N images, with the images' labels and patients.

    `features` are means over the image and not standardised, float32 (N, C), finite. `targets` are
    float32 (N, K): 1 present, 0 absent, NaN unknown. `patients` has N ids.
    """

    features: np.ndarray  # float32 (N, C)
    targets: np.ndarray  # float32 (N, K): 1, 0 or NaN
    patients: Sequence[str]


def compute_labelled_features(
    model: ImageClassifier,
    store: PixelSource,
    labels: pd.DataFrame,
    patients: Sequence[str],
    *,
    batch_size: int,
    device: str = "cpu",
    precision: Literal["fp32", "bf16"] = "fp32",
    advance: Callable[[int], None] = lambda n: None,
) -> LabelledFeatures:
    """Compute the pooled features of images, with the network in evaluation mode.

    The model moves to the device. `labels` have a column for each finding, by ``image_id``.
    `advance` is called with the number of images of each batch. Raises InputError, which names the
    image, if a feature is not finite.
    """

    def batches() -> Iterator[tuple[list[str], torch.Tensor]]:
        for start in range(0, len(labels), batch_size):
            ids = [str(name) for name in labels.index[start : start + batch_size]]
            pixels = np.stack([store.image(image_id) for image_id in ids])
            yield ids, torch.from_numpy(pixels).unsqueeze(1)  # (B, 1, S, S)

    parts = []
    for features in compute_features(
        model, read_ahead(batches()), device=device, precision=precision
    ):
        parts.append(features)
        advance(len(features))
    return LabelledFeatures(np.concatenate(parts), labels.to_numpy(np.float32), list(patients))


@dataclass(frozen=True)
class PenaltyTrial:
    """Losses of one fit of a logistic regression with one penalty, for one finding (disease sign).

    `finding` is the position among the labels, from 0. The losses are cross entropies without the
    penalty: the mean of the training images, and the mean over validation patients of the mean of
    their images, NaN if no label is known. `kept` marks the penalty that was chosen; see
    `fit_layer`.
    """

    finding: int
    penalty: float
    train_loss: float
    val_loss: float
    kept: bool


@dataclass(frozen=True)
class FittedLayer:
    """A linear layer that was fitted as logistic regressions, with the trials of their penalties.

    There is one logistic regression for each of the K findings (disease signs), with C features.
    The layer takes features as they are, because the weights include the standardising.

    Attributes:
        weight: Float64 (K, C).
        bias: Float64 (K,).
        trials: Result of the fit for each finding and penalty: all penalties of the first finding,
            the largest first, then those of the second finding, and so on. A finding in `constant`
            has one trial only.
        constant: Positions of findings, from 0, whose known training labels are all equal. Their
            weights are 0.
    """

    weight: np.ndarray  # (K, C)
    bias: np.ndarray  # (K,)
    trials: tuple[PenaltyTrial, ...]
    constant: tuple[int, ...]


@dataclass(frozen=True)
class _Fit:
    """Weights (C,) and bias of one logistic regression, for standardised features."""

    weight: np.ndarray
    bias: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        return np.asarray(features @ self.weight + self.bias, np.float64)


def fit_layer(
    train: LabelledFeatures, validation: LabelledFeatures, penalties: Sequence[float]
) -> FittedLayer:
    """Fit a logistic regression for each finding, and choose its penalty on validation images.

    Features are standardised by the mean and the standard deviation of all training images. The
    loss is the mean cross entropy of the training images plus a penalty: half the squared norm of
    the weights of standardised features, times a factor. The factor with the lowest loss on the
    validation images, which are of other patients, is kept; each patient counts once, however many
    images there are. The returned layer includes the standardising, so that it takes features as
    they are.

    All penalties are above 0. For a finding without a known validation label, the largest is kept.

    Example:
        >>> features = np.array([[0.0], [1.0], [2.0], [3.0]], np.float32)
        >>> targets = np.array([[0], [0], [1], [1]], np.float32)
        >>> images = LabelledFeatures(features, targets, ["a", "b", "c", "d"])
        >>> layer = fit_layer(images, images, [0.01, 100.0])
        >>> bool(layer.weight[0, 0] > 1), round(float(-layer.bias[0] / layer.weight[0, 0]), 3)
        (True, 1.5)
    """
    mean = train.features.mean(axis=0, dtype=np.float64)  # (C,)
    std = train.features.std(axis=0, dtype=np.float64)
    std[std == 0] = 1.0  # a constant feature, whose weight the penalty keeps at 0
    train_features = (train.features - mean) / std  # float64 (N, C)
    val_features = (validation.features - mean) / std
    patients = pd.Series(list(validation.patients))
    weights = []
    biases = []
    trials: list[PenaltyTrial] = []
    constant = []
    for finding in range(train.targets.shape[1]):
        is_known = ~np.isnan(train.targets[:, finding])
        labels = train.targets[is_known, finding].astype(np.float64)
        is_known_in_val = ~np.isnan(validation.targets[:, finding])
        val_labels = validation.targets[is_known_in_val, finding].astype(np.float64)
        shares = _patient_shares(patients[is_known_in_val])
        fits: list[tuple[float, _Fit]]
        if len(np.unique(labels)) < 2:
            constant.append(finding)
            fits = [(max(penalties), _constant_fit(labels, train_features.shape[1]))]
        else:
            fits = _fit_path(train_features[is_known], labels, penalties)
        losses = [
            float(_losses(fit.logits(val_features[is_known_in_val]), val_labels) @ shares)
            for _, fit in fits
        ]
        best = int(np.argmin(losses)) if len(val_labels) else 0  # of equal ones the strongest
        for number, (penalty, fit) in enumerate(fits):
            train_loss = float(_losses(fit.logits(train_features[is_known]), labels).mean())
            val_loss = losses[number] if len(val_labels) else float("nan")
            trials.append(PenaltyTrial(finding, penalty, train_loss, val_loss, number == best))
        kept = fits[best][1]
        weights.append(kept.weight / std)
        biases.append(kept.bias - float(kept.weight @ (mean / std)))
    return FittedLayer(np.array(weights), np.array(biases), tuple(trials), tuple(constant))


def load_layer(model: ImageClassifier, layer: FittedLayer) -> None:
    """Put a fitted layer into a classifier, as its last layer."""
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(layer.weight))
        model.classifier.bias.copy_(torch.from_numpy(layer.bias))


def _fit_path(
    features: np.ndarray, labels: np.ndarray, penalties: Sequence[float]
) -> list[tuple[float, _Fit]]:
    """Fit with each penalty, from the strongest on; each fit starts from the one before."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    regression = LogisticRegression(
        solver="lbfgs", max_iter=_MOST_ITERATIONS, tol=_TOLERANCE, warm_start=True
    )
    fits = []
    with warnings.catch_warnings():
        # A weak penalty on few images needs many steps, and validation rarely chooses it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for penalty in sorted(set(penalties), reverse=True):
            regression.set_params(C=1.0 / (penalty * len(labels)))
            regression.fit(features, labels)
            fit = _Fit(regression.coef_[0].copy(), float(regression.intercept_[0]))
            fits.append((penalty, fit))
    return fits


def _constant_fit(labels: np.ndarray, channels: int) -> _Fit:
    """Return a fit that gives every image the same score, (positives + 1/2) / (images + 1)."""
    positives = labels.sum() + 0.5
    negatives = len(labels) - labels.sum() + 0.5
    return _Fit(np.zeros(channels), float(np.log(positives / negatives)))


def _losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute the cross entropy of each image, without overflow of large logits."""
    return np.asarray(np.logaddexp(0.0, logits) - labels * logits, np.float64)


def _patient_shares(patients: pd.Series) -> np.ndarray:
    """Return the weight of each image in a mean that counts each patient once, shape (N,)."""
    if patients.empty:
        return np.zeros(0)
    images = patients.map(patients.value_counts())
    return np.asarray(1.0 / (images * patients.nunique()), np.float64)
