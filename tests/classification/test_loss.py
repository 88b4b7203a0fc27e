"""The classifier learns from what is known, and only from that; smoothed targets."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cxr_compare.classification.dataset import LabelBatch
from cxr_compare.classification.loss import (
    _positive_weights,
    masked_cross_entropy,
    scores_of,
    training_losses,
    validation_losses,
)


def test_unknown_targets_change_neither_loss_nor_gradient():
    logits = torch.tensor([[1.0, -2.0], [0.5, 3.0]], requires_grad=True)
    targets = torch.tensor([[1.0, float("nan")], [0.0, float("nan")]])
    loss = masked_cross_entropy(logits, targets)
    loss.backward()
    known = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], targets[:, 0])
    assert loss.item() == pytest.approx(known.item())
    assert logits.grad[:, 1].tolist() == [0.0, 0.0]


def test_a_batch_without_any_label_has_zero_loss_and_finite_gradients(build_small, batch):
    model = build_small()
    unknown = replace(batch, targets=torch.full_like(batch.targets, float("nan")))
    loss = training_losses(model, unknown)["classification"]
    loss.backward()
    assert loss.item() == 0.0
    assert all((p.grad == 0).all() for p in model.parameters() if p.grad is not None)


def test_pos_weight_counts_positives_as_often_as_it_says():
    logits, targets = torch.zeros(2, 1), torch.tensor([[1.0], [0.0]])
    plain = masked_cross_entropy(logits, targets)
    weighted = masked_cross_entropy(logits, targets, torch.tensor([3.0]))
    assert weighted.item() == pytest.approx(2 * plain.item())  # (3 + 1) / 2


@pytest.mark.parametrize(
    ("column", "weight", "reason"),
    [
        ([1, 0, 0, 0], 3.0, "three negatives for one positive"),
        ([1, np.nan, np.nan, 0], 1.0, "unknown ones do not count"),
        ([0, 0, 0, 0], 1.0, "no positive: nothing to weigh"),
        ([1, 1, 1, 1], 1.0, "no negative: a weight of 0 would stop all learning"),
        ([np.nan] * 4, 1.0, "nothing known"),
    ],
)
def test_positive_weights(column, weight, reason):
    targets = np.array(column, dtype=np.float64)[:, None]
    assert _positive_weights(targets).tolist() == [weight], reason


def test_a_rare_finding_is_weighed_up_to_the_limit_only():
    targets = np.zeros((1001, 1))
    targets[0] = 1
    assert _positive_weights(targets).tolist() == [100.0]
    assert _positive_weights(1 - targets).tolist() == [np.float32(0.01)]


def test_smoothing_changes_the_loss_of_training(build_small, batch):
    model = build_small().eval()  # batch norm and dropout as they are: the batch alone decides
    smoothed = training_losses(model, batch, smoothing=0.2)["classification"]
    logits, known = model(batch.images), ~batch.targets.isnan()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits[known], batch.targets[known] * 0.8 + 0.1
    )
    assert smoothed.item() == pytest.approx(expected.item())


def test_sure_scores_keep_their_order():
    scores = scores_of(torch.tensor([[18.0], [19.0], [20.0]]))
    assert (scores.diff(dim=0) > 0).all()  # in float32 all three are 1.0


NAN = float("nan")


def _batch(n: int = 64) -> LabelBatch:
    """Images of one grey level each, in proportion to their first target."""
    rng = np.random.default_rng(0)
    present = torch.from_numpy(rng.integers(0, 2, n)).float()
    images = (200 * present).to(torch.uint8).reshape(n, 1, 1, 1).expand(n, 1, 4, 4)
    unknown = torch.where(torch.from_numpy(rng.random(n) < 0.3), NAN, present)
    return LabelBatch([f"image{i}" for i in range(n)], images, torch.stack([present, unknown], 1))


def test_features_that_are_kept_give_the_same_losses_and_gradients_without_the_trunk(
    build_small, batch, monkeypatch
):
    model, kept = build_small(), {}
    model.freeze_for_epoch("head")
    expected = training_losses(model, batch)["classification"]
    (plain,) = torch.autograd.grad(expected, model.classifier.weight)
    training_losses(
        model,
        replace(
            batch, image_ids=batch.image_ids[:1], images=batch.images[:1], targets=batch.targets[:1]
        ),
        kept=kept,
    )
    assert list(kept) == batch.image_ids[:1]  # those that it lacks come with the next batch
    first = training_losses(model, batch, kept=kept)["classification"]
    monkeypatch.setattr(model, "trunk", None)
    again = training_losses(model, batch, kept=kept)["classification"]
    (gradient,) = torch.autograd.grad(again, model.classifier.weight)
    assert torch.equal(first, again)
    torch.testing.assert_close(first, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(gradient, plain, atol=1e-6, rtol=1e-6)
    losses, _ = validation_losses(model, batch, kept=kept)
    torch.testing.assert_close(losses["classification"], expected.detach(), atol=1e-6, rtol=1e-6)
