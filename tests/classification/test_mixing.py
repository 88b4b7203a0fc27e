"""Softer targets: what is unknown stays so, and pictures and answers are mixed alike."""

import numpy as np
import pytest
import torch

from classification.dataset import LabelBatch
from classification.loss import mix, mix_pairs, smooth

NAN = float("nan")


def _batch(n: int = 64) -> LabelBatch:
    """Images of one grey level each, in proportion to their first target."""
    rng = np.random.default_rng(0)
    present = torch.from_numpy(rng.integers(0, 2, n)).float()
    images = (200 * present).to(torch.uint8).reshape(n, 1, 1, 1).expand(n, 1, 4, 4)
    unknown = torch.where(torch.from_numpy(rng.random(n) < 0.3), NAN, present)
    return LabelBatch([f"image{i}" for i in range(n)], images, torch.stack([present, unknown], 1))


@pytest.mark.parametrize(
    ("target", "smoothing", "expected"),
    [(1.0, 0.1, 0.95), (0.0, 0.1, 0.05), (0.5, 0.3, 0.5), (1.0, 0.0, 1.0), (NAN, 0.1, NAN)],
)
def test_smoothing_moves_towards_one_half(target, smoothing, expected):
    assert smooth(torch.tensor([target]), smoothing).item() == pytest.approx(expected, nan_ok=True)


def test_pictures_and_targets_are_mixed_with_the_same_weights():
    torch.manual_seed(3)
    batch = _batch()
    mixed = mix_pairs(batch, 1.0)
    grey = mixed.images[:, 0, 0, 0] / 200
    assert (grey - mixed.targets[:, 0]).abs().max() <= 0.5 / 200 + 1e-6  # whole grey levels
    between = (mixed.targets[:, 0] > 0) & (mixed.targets[:, 0] < 1)
    assert between.any()
    assert mixed.images.dtype == torch.uint8
    assert mixed.image_ids == batch.image_ids


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_a_pair_of_which_one_is_unknown_stays_unknown(weight):
    images = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    targets = torch.tensor([[1.0], [NAN], [0.0], [1.0]])
    batch = LabelBatch(["a", "b", "c", "d"], images, targets)
    mixed = mix(batch, torch.tensor([1, 0, 3, 2]), weight).targets[:, 0]
    assert mixed.isnan().tolist() == [True, True, False, False]
    assert mixed[2:].tolist() == pytest.approx([weight, 1 - weight])


def test_an_image_mixed_with_itself_is_itself():
    batch = _batch(8)
    mixed = mix(batch, torch.arange(8), 0.37)
    assert torch.equal(mixed.images, batch.images)
    assert torch.equal(mixed.targets.nan_to_num(-1), batch.targets.nan_to_num(-1))


def test_the_batch_given_is_left_alone():
    batch = _batch(8)
    before = batch.images.clone(), batch.targets.clone()
    mix(batch, torch.arange(8).flip(0), 0.4)
    assert torch.equal(batch.images, before[0])
    assert torch.equal(batch.targets.nan_to_num(-1), before[1].nan_to_num(-1))


def _weights(alpha: float, n: int = 400) -> np.ndarray:
    """The weights that are drawn, read from a batch of one image and its opposite."""
    images = torch.zeros(64, 1, 1, 1, dtype=torch.uint8)
    targets = torch.arange(64.0).reshape(-1, 1)
    batch = LabelBatch([""] * 64, images, targets)
    weights = []
    for seed in range(n):
        torch.manual_seed(seed)
        moved = mix_pairs(batch, alpha).targets - targets
        torch.manual_seed(seed)
        torch.distributions.Beta(alpha, alpha).sample()
        partner = torch.randperm(64)
        row = int((partner != torch.arange(64)).nonzero()[0])
        weights.append((moved[row] / (partner[row] - row)).item())
    return np.array(weights)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_weights_are_of_the_beta_distribution(alpha):
    weights = _weights(alpha)
    assert weights.mean() == pytest.approx(0.5, abs=0.07)
    assert weights.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.2)


def test_equal_seeds_mix_alike_and_others_do_not():
    batch = _batch()
    mixed = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        mixed.append(mix_pairs(batch, 0.4).images)
    assert torch.equal(mixed[0], mixed[1])
    assert not torch.equal(mixed[0], mixed[2])
