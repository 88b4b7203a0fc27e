"""The detector learns, from images without boxes too, and refuses what it cannot learn from."""

from dataclasses import replace

import pytest
import torch
from torchvision.ops import box_iou

from data_prep.contracts.errors import InputError
from detection.dataset import LesionDataset, collate
from detection.model import training_losses, validation_losses


def without_boxes(batch):
    none = [boxes[:0] for boxes in batch.boxes]
    return replace(batch, boxes=none, labels=[labels[:0] for labels in batch.labels])


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("norm", ["frozen", "batch", "group"])
def test_a_negative_only_batch_has_finite_losses_and_gradients(version, norm, build_small, batch):
    model = build_small(head=version, norm=norm)
    losses = training_losses(model, without_boxes(batch))
    assert losses["bbox_regression"].item() == 0.0
    sum(losses.values()).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_one_batch_of_one_image_trains(version, build_small, dataset):
    # P7 is one pixel here: group norm over a single value would raise or erase it.
    model = build_small(head=version, norm="group")
    losses = training_losses(model, collate([dataset[0]]))
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_batch_can_be_overfitted(version, build_small, batch):
    torch.manual_seed(0)
    model = build_small(head=version, norm="group", head_convs=2)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(45):
        optimiser.zero_grad()
        losses = training_losses(model, batch)
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    _, found = validation_losses(model, batch)
    for image, truth in zip(found, batch.boxes, strict=True):
        sure = image["boxes"][image["scores"] > 0.3]
        assert len(sure) >= len(truth)
        for box in truth:
            assert box_iou(box[None], sure).max() > 0.5
        if not len(truth):
            assert len(sure) == 0


@pytest.mark.parametrize(
    ("label", "box", "reason"),
    [
        (0, (1.0, 1.0, 9.0, 9.0), "0 is background"),
        (2, (1.0, 1.0, 9.0, 9.0), "is not a finding of this model, which knows 1 to 1"),
        (1, (1.0, 1.0, float("nan"), 9.0), "is not finite"),
        (1, (9.0, 1.0, 9.0, 9.0), "needs x1 < x2 and y1 < y2"),
    ],
)
def test_an_unusable_box_is_refused_with_its_image(label, box, reason, build_small, batch):
    bad = replace(
        batch,
        boxes=[*batch.boxes[:3], torch.tensor([box])],
        labels=[*batch.labels[:3], torch.tensor([label])],
    )
    with pytest.raises(InputError, match=rf"image 'empty': box .* label .*{reason}"):
        training_losses(build_small(), bad)


def test_bf16_training_is_finite_and_keeps_float32_losses(build_small, store, boxes):
    # Not at 64 px, which no configuration may have: see DetectorDataSettings.
    store = type(store)(96)
    rows = LesionDataset(store, store.ids, boxes, ("opacity",))
    batch = collate([rows[row] for row in range(len(rows))])
    model = build_small(head="v2", image_size=96)
    with torch.autocast("cpu", torch.bfloat16):
        losses = training_losses(model, batch)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
