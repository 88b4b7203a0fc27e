"""The classifier learns from what is known, and only from that."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from classification.loss import (
    masked_cross_entropy,
    masked_focal_loss,
    positive_weights,
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


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.5), (0.0, 0.25), (1.5, 0.9), (0.5, 1.0)])
def test_focal_loss_is_torchvisions(gamma, alpha):
    logits = torch.randn(50, 3, requires_grad=True)
    targets = (torch.rand(50, 3) < 0.3).float()
    ours = masked_focal_loss(logits, targets, gamma=gamma, alpha=alpha)
    theirs = sigmoid_focal_loss(logits, targets, alpha, gamma, reduction="mean")
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-8)


def test_focal_loss_of_a_soft_target_is_the_mean_of_both_answers():
    logits = torch.randn(20, 1)
    present, absent = (sigmoid_focal_loss(logits, torch.full((20, 1), t)) for t in (1.0, 0.0))
    soft = masked_focal_loss(logits, torch.full((20, 1), 0.7), gamma=2.0, alpha=0.25)
    assert soft.item() == pytest.approx((0.7 * present + 0.3 * absent).mean().item(), rel=1e-5)


def test_unknown_targets_change_neither_focal_loss_nor_its_gradient():
    logits = torch.tensor([[1.0, -2.0], [0.5, 3.0]], requires_grad=True)
    targets = torch.tensor([[1.0, float("nan")], [0.0, float("nan")]])
    loss = masked_focal_loss(logits, targets)
    loss.backward()
    known = sigmoid_focal_loss(logits[:, 0], targets[:, 0], 0.5, 2.0, reduction="mean")
    assert loss.item() == pytest.approx(known.item())
    assert logits.grad[:, 1].tolist() == [0.0, 0.0]
    assert masked_focal_loss(logits, torch.full((2, 2), float("nan"))).item() == 0.0


@pytest.mark.parametrize("logit", [-1e4, -30.0, 30.0, 1e4])
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_gradient_of_a_sure_answer_is_finite_where_torchvisions_is_not(logit, target):
    logits = torch.tensor([[logit]], requires_grad=True)
    masked_focal_loss(logits, torch.tensor([[target]]), gamma=0.5).backward()
    assert logits.grad.isfinite().all()


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
    assert positive_weights(targets).tolist() == [weight], reason


def test_a_rare_finding_is_weighed_up_to_the_limit_only():
    targets = np.zeros((1001, 1))
    targets[0] = 1
    assert positive_weights(targets, limit=50.0).tolist() == [50.0]


def test_a_batch_can_be_overfitted(build_small, batch):
    model = build_small()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(15):
        optimiser.zero_grad()
        training_losses(model, batch)["classification"].backward()
        optimiser.step()
    with torch.no_grad():
        scores = model(batch.images).sigmoid()  # training mode: batch norm has seen 15 batches
    known = ~batch.targets.isnan()
    assert (scores - batch.targets)[known].abs().max() < 0.1


def test_a_batch_can_be_overfitted_by_focal_loss(build_small, batch):
    model = build_small()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(15):
        optimiser.zero_grad()
        training_losses(model, batch, masked_focal_loss)["classification"].backward()
        optimiser.step()
    with torch.no_grad():
        scores = model(batch.images).sigmoid()
    known = ~batch.targets.isnan()
    assert ((scores > 0.5) == batch.targets.bool())[known].all()


def test_smoothing_and_mixup_change_the_loss_of_training(build_small, batch):
    model = build_small().eval()  # batch norm and dropout as they are: the batch alone decides
    plain = training_losses(model, batch)["classification"]
    smoothed = training_losses(model, batch, smoothing=0.2)["classification"]
    logits, known = model(batch.images), ~batch.targets.isnan()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits[known], batch.targets[known] * 0.8 + 0.1
    )
    assert smoothed.item() == pytest.approx(expected.item())
    torch.manual_seed(1)
    mixed = training_losses(model, batch, mixup=1.0)["classification"]
    torch.manual_seed(1)
    assert training_losses(model, batch, mixup=1.0)["classification"].equal(mixed)
    assert not mixed.isclose(plain)


def test_validation_leaves_mode_and_batch_norm_as_they_were(build_small, batch):
    model = build_small(dropout=0.5).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses, scores = validation_losses(model, batch)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not losses["classification"].requires_grad
    assert torch.equal(scores, validation_losses(model, batch)[1])  # dropout is off


def test_bf16_training_is_finite_and_keeps_a_float32_loss(build_small, batch):
    model = build_small()
    with torch.autocast("cpu", torch.bfloat16):
        loss = training_losses(model, batch)["classification"]
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_sure_scores_keep_their_order():
    scores = scores_of(torch.tensor([[18.0], [19.0], [20.0]]))
    assert (scores.diff(dim=0) > 0).all()  # in float32 all three are 1.0
