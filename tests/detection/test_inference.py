"""Predicted boxes are in original pixels, complete, bounded, and never silently missing."""

import numpy as np
import pytest
import torch

from cxr_compare.data_prep.contracts.boxes import Boxes
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.tables import validate_table
from cxr_compare.data_prep.store.prediction_writer import concat_parts
from cxr_compare.detection.detector import predict_boxes
from cxr_compare.detection.frames import MAX_PER_FINDING, MIN_SCORE
from cxr_compare.training.datasets import LesionDataset, collate_lesions


@pytest.fixture
def samples(store, boxes):
    dataset = LesionDataset(store, store.ids, boxes, ("opacity",))
    return [dataset[row] for row in range(len(dataset))]


@pytest.fixture
def predict(store, originals):
    """Run `predict_boxes` over batches of samples and join what it yields."""

    def run(model, batches, findings=("opacity",), **options):
        pixels = ((batch.image_ids, batch.images) for batch in map(collate_lesions, batches))
        parts = list(
            predict_boxes(
                model,
                pixels,
                findings,
                placement=store.placement,
                images=originals,
                **options,
            )
        )
        whole = concat_parts(parts)
        return whole.images, validate_table(whole.tables["boxes"], "predicted_boxes")

    return run


@pytest.fixture
def spread_model(build_small):
    """A random detector whose scores spread widely, so that thresholds and NMS have work."""
    torch.manual_seed(1)
    model = build_small()
    torch.nn.init.normal_(model.head.classification_head.cls_logits.weight, std=0.5)
    torch.nn.init.normal_(model.head.regression_head.bbox_reg.weight, std=0.05)
    return model


def test_boxes_are_original_pixels_inside_the_image(spread_model, samples, predict, originals):
    _, boxes = predict(spread_model, [samples])
    sized = boxes.merge(originals, on="image_id")
    assert (sized["x2"] <= sized["width"]).all()
    assert (sized["y2"] <= sized["height"]).all()
    assert sized.loc[sized["image_id"] == "high", "y2"].max() > 64  # the store is 64 px high
    assert (boxes["score"] >= MIN_SCORE).all()


def test_predicted_boxes_are_in_original_pixels(build_small, samples, predict, boxes):
    model = build_small()
    truth = {sample.image_id: sample.boxes for sample in samples}
    ids = iter([sample.image_id for sample in samples])

    def detections(_):
        predicted = truth[next(ids)]
        return [Boxes(predicted, np.ones(len(predicted)), np.ones(len(predicted), int))]

    model.detections = detections
    _, predicted = predict(model, [[sample] for sample in samples])
    edges = ["x1", "y1", "x2", "y2"]
    np.testing.assert_allclose(predicted[edges], boxes[edges], atol=1e-3)


def test_an_image_with_a_non_finite_output_is_failed_and_not_silently_empty(
    build_small, samples, predict
):
    model = build_small().eval()
    run = model.run

    def poisoned(images, targets):
        passed = run(images, targets)
        passed.outputs["cls_logits"][1, 0, 1] = float("nan")
        return passed

    model.run = poisoned
    images, boxes = predict(model, [samples])
    assert images["status"].tolist() == ["ok", "failed", "ok", "ok"]
    assert images["reason"].tolist()[1] == "the network's output is not finite"
    assert validate_table(images, "predicted_images") is not None
    assert set(boxes["image_id"]) == {"square", "high", "empty"}


def test_every_finding_has_up_to_a_hundred_boxes_and_background_none(build_small, samples, predict):
    model = build_small(n_findings=2, image_size=64)
    # All anchors of one level, hardly overlapping after NMS, for background and both findings.
    bias = model.head.classification_head.cls_logits.bias
    with torch.no_grad():
        bias.copy_(torch.tensor([5.0, 2.0, -2.0]).repeat(9))
    _, boxes = predict(model, [samples[:1]], ("opacity", "nodule"))
    counts = boxes["finding"].value_counts()
    assert set(counts.index) == {"opacity", "nodule"}  # background scores highest of all
    assert counts["nodule"] == counts["opacity"] <= MAX_PER_FINDING


def test_the_generator_is_lazy_and_leaves_modes_alone(build_small, samples, store, originals):
    model = build_small().train()
    drawn = []

    def batches():
        for sample in samples:
            drawn.append(sample.image_id)
            yield [sample.image_id], collate_lesions([sample]).images

    stream = predict_boxes(
        model, batches(), ("opacity",), placement=store.placement, images=originals
    )
    next(stream)
    assert drawn == ["square"]
    assert not torch.is_inference_mode_enabled()
    stream.close()
    assert model.training


def test_a_wrong_number_of_findings_is_refused(build_small, samples, predict):
    with pytest.raises(InputError, match=r"detector: .* 1 .* 2: a, b$"):
        predict(build_small(), [samples], ("a", "b"))
