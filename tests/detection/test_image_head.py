"""The image head: what it learns from, what it leaves as it was, and where its weights go."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from cxr_compare.detection.detector import (
    LesionBatch,
    build_targets,
    predict_boxes,
    training_losses,
)
from cxr_compare.detection.model import start_from
from cxr_compare.networks.checkpoints import Checkpoint


@pytest.fixture
def pair(build_small):
    """The same detector without and with an image head, from one seed."""
    torch.manual_seed(0)
    plain = build_small()
    torch.manual_seed(0)
    return plain, build_small(image_head=True)


def test_a_head_changes_no_other_weight_loss_or_box(pair, batch):
    plain, model = (each.eval() for each in pair)
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in plain.state_dict().items())
    losses, others = (each.train()(batch.images, build_targets(batch, 1)) for each in pair)
    assert set(others) - set(losses) == {"image"}
    assert all(torch.equal(value, others[name]) for name, value in losses.items())


def test_an_image_has_the_findings_of_its_boxes(build_small):
    model = build_small(image_head=True, image_head_weight=0.5, n_findings=3).train()
    boxes = torch.tensor([[8.0, 8.0, 24.0, 24.0], [30.0, 30.0, 50.0, 50.0]])
    images = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    labels = [torch.tensor([3, 1]), torch.zeros(0, dtype=torch.int64)]
    pairs = LesionBatch(["a", "b"], images, [boxes, boxes[:0]], labels)
    losses = training_losses(model, pairs)
    logits = model.run(images).image_logits
    truth = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    expected = 0.5 * functional.binary_cross_entropy_with_logits(logits, truth)
    torch.testing.assert_close(losses["image"], expected)


def _predict(model, batch, store, originals, findings):
    pixels = [(batch.image_ids, batch.images)]
    (part,) = predict_boxes(model, pixels, findings, placement=store.placement, images=originals)
    return part


def test_predictions_hold_its_scores_beside_the_boxes(build_small, batch, store, originals):
    model = build_small(image_head=True, n_findings=2).eval()
    part = _predict(model, batch, store, originals, ("opacity", "nodule"))
    with torch.no_grad():
        expected = model.run(batch.images).image_logits.double().sigmoid()
    scores = part.tables["scores"].pivot(index="image_id", columns="finding", values="score")
    rows = scores.loc[batch.image_ids, ["opacity", "nodule"]]
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-6)
    assert (
        "scores"
        not in _predict(
            build_small(n_findings=2), batch, store, originals, ("opacity", "nodule")
        ).tables
    )


def test_an_image_whose_head_is_not_finite_fails(build_small, batch, store, originals):
    model = build_small(image_head=True).eval()
    run = model.run

    def poisoned(images, targets):
        passed = run(images, targets)
        passed.image_logits[1] = torch.nan
        return passed

    model.run = poisoned
    part = _predict(model, batch, store, originals, ("opacity",))
    status = part.images.set_index("image_id")["status"]
    assert status.tolist() == ["ok", "failed", "ok", "ok"]
    for table in part.tables.values():
        assert batch.image_ids[1] not in set(table["image_id"])


def test_bf16_scores_do_not_tie(build_small, batch):
    model = build_small(image_head=True).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert model.run(batch.images).image_logits.dtype == torch.float32


def test_weights_load_with_and_without_a_head(pair):
    plain, model = pair
    with torch.no_grad():
        for value in plain.parameters():
            value.add_(1.0)
    head = model.image_head.linear.weight.clone()
    note = start_from(model, Checkpoint("plain", plain.state_dict(), ("opacity",)), ("opacity",))
    assert "image_head" in note
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in plain.state_dict().items())
    assert torch.equal(model.image_head.linear.weight, head)

    with torch.no_grad():
        for value in model.parameters():
            value.add_(1.0)
    start_from(plain, Checkpoint("with head", model.state_dict(), ("opacity",)), ("opacity",))
    assert all(
        torch.equal(value, model.state_dict()[name]) for name, value in plain.state_dict().items()
    )


def test_a_head_of_other_findings_starts_anew(pair, build_small):
    _, model = pair
    other = build_small(image_head=True)
    head = other.image_head.linear.weight.clone()
    start_from(other, Checkpoint("run", model.state_dict(), ("mass",)), ("opacity",))
    assert torch.equal(other.image_head.linear.weight, head)
    start_from(other, Checkpoint("run", model.state_dict(), ("opacity",)), ("opacity",))
    assert torch.equal(other.image_head.linear.weight, model.image_head.linear.weight)
