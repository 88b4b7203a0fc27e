"""The image head learns whether a film shows a finding, and ranks boxes without changing them."""

import math
from dataclasses import replace

import pytest
import torch

from data_prep.contracts.errors import InputError
from data_prep.contracts.tables import validate_table
from detection.dataset import LesionDataset, collate
from detection.image_head import ImageHead, has_finding, rescore
from detection.inference import predict_boxes
from detection.model import training_losses, validation_losses
from detection.retinanet import MIN_SCORE


@pytest.fixture
def spread(build_small):
    """Build a detector with many boxes of spread scores; with or without image head."""

    def build(**arguments: object):
        torch.manual_seed(1)
        model = build_small(**arguments)
        torch.manual_seed(2)
        torch.nn.init.normal_(model.head.classification_head.cls_logits.weight, std=0.5)
        torch.nn.init.normal_(model.head.regression_head.bbox_reg.weight, std=0.05)
        if model.image_head is not None:
            torch.nn.init.normal_(model.image_head.score.weight, std=0.2)
        return model.eval()

    return build


def detect(model, batch):
    with torch.no_grad():
        return model(batch.images)


def test_without_being_asked_for_there_is_none(build_small, batch):
    model = build_small()
    assert model.image_head is None
    assert not any("image" in name for name in model.state_dict())
    assert set(training_losses(model, batch)) == {"classification", "bbox_regression"}
    assert "image_scores" not in validation_losses(model, batch)[1][0]


def test_its_loss_is_cross_entropy_against_having_a_box(build_small, batch):
    model = build_small(image_head=True, image_head_weight=0.25, n_findings=2)
    two = replace(batch, labels=[torch.tensor([1, 2]), *batch.labels[1:]])
    shown = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    heads = model.run_heads(two.images)
    losses = training_losses(model, two)
    scores = heads.image_logits.sigmoid()
    expected = -(shown * scores.log() + (1 - shown) * (1 - scores).log()).mean() * 0.25
    assert losses["image"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert set(losses) == {"classification", "bbox_regression", "image"}


def test_a_batch_without_any_box_trains_it(build_small, batch):
    model = build_small(image_head=True)
    bare = replace(batch, boxes=[b[:0] for b in batch.boxes], labels=[b[:0] for b in batch.labels])
    losses = training_losses(model, bare)
    assert losses["image"].item() == pytest.approx(0.5 * math.log(2), rel=0.2)  # starts unsure
    losses["image"].backward()
    assert (model.image_head.score.bias.grad > 0).all()  # towards "no lesion"


def test_it_teaches_the_backbone_too(build_small, batch):
    model = build_small(image_head=True)
    training_losses(model, batch)["image"].backward()
    assert model.backbone.body.conv1.weight.grad.abs().sum() > 0


def test_it_learns_which_images_have_a_lesion(build_small, batch):
    torch.manual_seed(0)
    model = build_small(image_head=True, norm="batch")
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(12):
        optimiser.zero_grad()
        training_losses(model, batch)["image"].backward()
        optimiser.step()
    with torch.no_grad():
        scores = model.train().run_heads(batch.images).image_logits.sigmoid()[:, 0]
    assert (scores[:3] > 0.6).all()  # square, wide and high have boxes
    assert scores[3] < 0.4  # empty has none


def test_multiply_takes_the_geometric_mean_and_keeps_the_order_of_boxes(spread, batch):
    plain, ranked = spread(), spread(image_head=True, n_findings=1)
    ranked.load_state_dict(plain.state_dict() | ranked.image_head.state_dict(prefix="image_head."))
    for before, after in zip(detect(plain, batch), detect(ranked, batch), strict=True):
        p = after["image_scores"][0]
        expected = (before["scores"] * p).sqrt()
        kept = expected >= MIN_SCORE
        torch.testing.assert_close(after["scores"], expected[kept])
        assert torch.equal(after["boxes"], before["boxes"][kept])
        assert len(after["boxes"]) > 0


def test_mode_none_leaves_every_box_as_it_is(spread, batch):
    plain, learned = spread(), spread(image_head=True, image_head_mode="none")
    learned.load_state_dict(
        plain.state_dict() | learned.image_head.state_dict(prefix="image_head.")
    )
    for before, after in zip(detect(plain, batch), detect(learned, batch), strict=True):
        assert torch.equal(after["boxes"], before["boxes"])
        assert torch.equal(after["scores"], before["scores"])
        assert 0 < after["image_scores"].item() < 1


def test_each_finding_is_ranked_by_its_own_score():
    found = {
        "boxes": torch.arange(12.0).reshape(3, 4),
        "scores": torch.tensor([0.9, 0.5, 0.4]),
        "labels": torch.tensor([1, 2, 1]),
    }
    ranked = rescore(found, torch.tensor([0.1, 0.8]), least=0.25)
    torch.testing.assert_close(ranked["scores"], torch.tensor([0.4, 0.09]).sqrt())
    assert ranked["labels"].tolist() == [2, 1]  # the last box fell below the floor
    assert ranked["boxes"].tolist() == [found["boxes"][1].tolist(), found["boxes"][0].tolist()]


def test_a_sure_box_steps_back_in_an_image_that_looks_normal():
    box = {"boxes": torch.zeros(1, 4), "labels": torch.tensor([1])}
    normal = rescore(box | {"scores": torch.tensor([0.8])}, torch.tensor([0.05]), 0.0)
    lesion = rescore(box | {"scores": torch.tensor([0.5])}, torch.tensor([0.95]), 0.0)
    assert normal["scores"] < lesion["scores"]


def test_predicted_boxes_keep_their_contract(spread, batch, store, boxes, originals):
    model = spread(image_head=True)
    model.image_head.score.bias.data.fill_(-9.0)  # "normal", very surely: many boxes fall
    samples = LesionDataset(store, store.ids, boxes, ("opacity",))
    batches = [collate([samples[row] for row in range(4)])]
    part = next(
        predict_boxes(model, batches, ("opacity",), placement=store.placement, images=originals)
    )
    frame = validate_table(part.boxes, "predicted_boxes")
    assert (frame["score"] >= MIN_SCORE).all()
    assert part.images["status"].tolist() == ["ok"] * 4


def test_an_image_score_that_is_not_finite_fails_its_image(spread, batch):
    model = spread(image_head=True)
    heads = model.run_heads(batch.images)
    heads.image_logits.data[2] = float("nan")
    assert [bool(image["finite"]) for image in model.detections(heads)] == [True, True, False, True]


def test_it_stays_float32_under_autocast(build_small, batch):
    model = build_small(image_head=True).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        heads = model.run_heads(batch.images)
    assert heads.image_logits.dtype == torch.float32


def test_published_weights_are_loaded_before_there_is_one(build_small, monkeypatch):
    # COCO's file has no image head: a model that already has one would not fit it.
    seen = []
    monkeypatch.setattr(
        "detection.model.load_coco", lambda model, **_: seen.append(model.image_head)
    )
    assert build_small(image_head=True, weights="coco").image_head is not None
    assert seen == [None]


def test_many_boxes_of_one_finding_count_once():
    labels = [torch.tensor([3, 3, 1]), torch.tensor([], dtype=torch.int64)]
    assert has_finding(labels, 3).tolist() == [[True, False, True], [False, False, False]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": 0.0}, "image_head_weight: expected a number above 0, but got 0"),
        ({"weight": float("inf")}, "image_head_weight"),
        ({"mode": "gate"}, "image_head_mode: expected multiply or none, but got 'gate'"),
    ],
)
def test_a_bad_setting_is_named(arguments, message):
    with pytest.raises(InputError, match=message):
        ImageHead(16, 1, **arguments)
