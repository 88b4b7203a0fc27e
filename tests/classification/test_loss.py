"""The classifier learns from what is known, and only from that; smoothed targets."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cxr_compare.classification.loss import (
    build_criterion,
    masked_cross_entropy,
    sigmoid_scores,
    training_losses,
)


def test_unknown_targets_change_neither_loss_nor_gradient():
    logits = torch.tensor([[1.0, -2.0], [0.5, 3.0]], requires_grad=True)
    targets = torch.tensor([[1.0, float("nan")], [0.0, float("nan")]])
    loss = masked_cross_entropy(logits, targets)
    loss.backward()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], targets[:, 0])
    assert loss.item() == pytest.approx(expected.item())
    assert logits.grad[:, 1].tolist() == [0.0, 0.0]


def test_a_batch_without_any_label_has_zero_loss_and_finite_gradients(build_small, batch):
    model = build_small()
    unknown = replace(batch, targets=torch.full_like(batch.targets, float("nan")))
    loss = training_losses(model, unknown)["classification"]
    loss.backward()
    assert loss.item() == 0.0
    assert all((p.grad == 0).all() for p in model.parameters() if p.grad is not None)


def test_pos_weight_counts_positives_as_often_as_it_says():
    logits = torch.zeros(2, 1)
    targets = torch.tensor([[1.0], [0.0]])
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
def test_positives_and_negatives_are_balanced(column, weight, reason):
    targets = np.array(column, dtype=np.float64)[:, None]
    assert weight_of_positives(targets) == pytest.approx(weight), reason


def weight_of_positives(targets: np.ndarray) -> float:
    """Weight that a criterion balanced on these training targets (N, 1) gives to a positive."""
    balanced = build_criterion("balanced", targets)
    positive = (torch.zeros(1, 1), torch.ones(1, 1))
    return float(balanced(*positive) / masked_cross_entropy(*positive))


def test_the_weight_of_a_rare_finding_is_limited():
    targets = np.zeros((1001, 1))
    targets[0] = 1
    assert weight_of_positives(targets) == pytest.approx(100.0)
    assert weight_of_positives(1 - targets) == pytest.approx(0.01)


def test_smoothing_changes_the_loss_of_training(build_small, batch):
    model = build_small().eval()  # batch norm and dropout as they are: the batch alone decides
    smoothed = training_losses(model, batch, smoothing=0.2)["classification"]
    logits = model(batch.images)
    labelled = ~batch.targets.isnan()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits[labelled], batch.targets[labelled] * 0.8 + 0.1
    )
    assert smoothed.item() == pytest.approx(expected.item())


def test_sure_scores_keep_their_order():
    scores = sigmoid_scores(torch.tensor([[18.0], [19.0], [20.0]]))
    assert (scores.diff(dim=0) > 0).all()  # in float32 all three are 1.0
