"""Scores and maps come from one forward, lie in the original, and are never silently missing."""

import numpy as np
import pytest
import torch

from cxr_compare.classification.inference import predict_scores
from cxr_compare.classification.model import build_classifier
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.tables import validate_table
from cxr_compare.data_prep.store.prediction_writer import concat_parts
from cxr_compare.training.datasets import collate_labels

FINDINGS = ("opacity", "nodule")


@pytest.fixture
def samples(dataset):
    return [dataset[row] for row in range(len(dataset))]


@pytest.fixture
def predict(store):
    """Run `predict_scores` over batches of samples and join what it yields, checked."""

    def run(model, batches, findings=FINDINGS, **options):
        pixels = ((batch.image_ids, batch.images) for batch in map(collate_labels, batches))
        parts = list(predict_scores(model, pixels, findings, placement=store.placement, **options))
        whole = concat_parts(parts)
        tables = {"predicted_images": whole.images, **whole.tables}
        return tuple(validate_table(table, name) for name, table in tables.items())

    return run


def test_a_map_and_its_score_agree(build_small, samples, predict):
    model = build_small(last_stride=16).eval()
    torch.nn.init.normal_(model.classifier.bias)
    bias = dict(zip(FINDINGS, model.classifier.bias.tolist(), strict=True))
    _, scores, maps = predict(model, [samples])
    joined = scores.merge(maps, on=["image_id", "finding"])
    assert len(joined) == len(samples) * len(FINDINGS)
    logits = joined["values"].map(np.mean) + joined["finding"].map(bias)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), joined["score"], atol=1e-5)


def test_a_map_frames_the_store_image_in_the_original(build_small, samples, predict):
    _, _, maps = predict(build_small("densenet121", last_stride=16), [samples])
    frame = maps[maps["finding"] == "opacity"].set_index("image_id")[["x1", "y1", "x2", "y2"]]
    # 64 px store: the frame lies 1.5 of its px before each image (see `map_frame`).
    assert frame.loc["square"].tolist() == [-3, -3, 125, 125]
    assert frame.loc["wide"].tolist() == [-4.6875, -54.6875, 195.3125, 145.3125]  # 50 px border
    assert frame.loc["high"].tolist() == [-70, -6, 186, 250]
    assert set(zip(maps["grid_h"], maps["grid_w"], strict=True)) == {(4, 4)}


@pytest.mark.parametrize("name", ["densenet121", "resnet18"])
@pytest.mark.parametrize("last_stride", [16, 32])
def test_a_cell_lies_where_it_looks(name, last_stride):
    """A network that only samples reads off, from a ramp, the place that each cell looks at."""
    size = 128
    model = build_classifier(name, image_size=size, last_stride=last_stride, mean=0.0, std=1.0)
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):  # the mean of the channels at the kernel's middle
            middle = layer.kernel_size[0] // 2
            torch.nn.init.zeros_(layer.weight)
            layer.weight.data[:, :, middle, middle] = 1 / layer.in_channels
    torch.nn.init.ones_(model.classifier.weight)
    model.eval()

    @torch.no_grad()
    def reading(rows):
        pixels = rows.to(torch.uint8).reshape(1, 1, size, 1).expand(1, 1, size, size)
        return model.maps(model.features(pixels))[0, 0, :, 0].double()

    ramp = torch.arange(size)
    dark, bright = reading(torch.zeros(size)), reading(torch.full((size,), size - 1))
    # Maximum pooling leans towards the bright side: up and down the ramp, it cancels out.
    rising = (reading(ramp) - dark) / (bright - dark) * (size - 1)
    falling = (reading(ramp.flip(0)) - dark) / (bright - dark) * (size - 1)
    seen = ((rising + (size - 1) - falling) / 2 + 0.5).numpy()  # a pixel's middle is at + 0.5
    top, bottom = model.map_frame(len(seen), len(seen))[1::2]
    drawn = top + (np.arange(len(seen)) + 0.5) * (bottom - top) / len(seen)
    # The first cell's pooling has no neighbour above, which moves its reading by less than 1 px.
    np.testing.assert_allclose(seen[1:], drawn[1:], atol=0.01)
    np.testing.assert_allclose(seen[0], drawn[0], atol=1.01)


def test_rows_of_a_map_run_down_the_image(build_small, samples, predict, monkeypatch):
    model = build_small(last_stride=16).eval()
    gradient = torch.arange(16.0).reshape(1, 1, 4, 4).expand(4, 2, 4, 4)
    monkeypatch.setattr(model, "maps", lambda _: gradient)
    _, _, maps = predict(model, [samples])
    assert list(maps["values"][0]) == list(range(16))


def test_an_image_with_a_non_finite_output_is_failed_and_has_no_score(
    build_small, samples, predict, monkeypatch
):
    model = build_small().eval()
    features = model.features

    def poisoned(images):
        values = features(images)
        values[2] = float("inf")
        return values

    monkeypatch.setattr(model, "features", poisoned)
    images, scores, maps = predict(model, [samples])
    assert images["status"].tolist() == ["ok", "ok", "failed", "ok"]
    assert images["reason"].tolist()[2] == "the network's output is not finite"
    assert "high" not in set(scores["image_id"]) | set(maps["image_id"])


def test_the_generator_is_lazy_and_leaves_modes_alone(build_small, samples, store):
    model = build_small().train()
    drawn = []

    def batches():
        for sample in samples:
            drawn.append(sample.image_id)
            yield [sample.image_id], collate_labels([sample]).images

    stream = predict_scores(model, batches(), FINDINGS, placement=store.placement)
    next(stream)
    assert drawn == ["square"]
    assert not torch.is_inference_mode_enabled()
    stream.close()
    assert model.training


def test_a_wrong_number_of_findings_is_refused(build_small, samples, predict):
    with pytest.raises(InputError, match=r"classifier: .* 2 .* 1: opacity$"):
        predict(build_small(), [samples], ("opacity",))
