"""Fitted anchors lie on the boxes better than the default ones, where anchors really lie."""

import numpy as np
import pytest
import torch
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from data_prep.contracts.errors import InputError
from detection.anchor_fit import MATCH_IOU, best_overlaps, fit_anchors
from detection.anchors import DEFAULT_RATIOS, build_anchors, default_anchor_sizes


def draw_boxes(count: int, size: int, *, width: float, height: float, seed: int = 0) -> np.ndarray:
    """Boxes around a width and a height, inside the image; (N, 4) px."""
    rng = np.random.default_rng(seed)
    sides = np.exp(rng.normal(np.log([width, height]), 0.3, (count, 2))).clip(2, size / 2)
    middle = rng.uniform(sides / 2, size - sides / 2)
    return np.concatenate([middle - sides / 2, middle + sides / 2], axis=1)


def all_anchors(size: int, sizes, ratios) -> torch.Tensor:
    """Every anchor that the detector would make for an image of this size."""
    levels, side = [], size // 8
    for _ in range(5):
        levels.append(torch.zeros(1, 1, side, side))
        side = -(-side // 2)
    images = ImageList(torch.zeros(1, 3, size, size), [(size, size)])
    return build_anchors(size, sizes, ratios)(images, levels)[0].double()


@pytest.mark.parametrize("size", [96, 160, 256])
@pytest.mark.parametrize(
    ("finest", "ratios"), [(16.0, (0.5, 1.0, 2.0)), (5.5, (0.7, 1.3, 2.2)), (32.0, (1.0,))]
)
def test_best_overlaps_are_those_with_every_anchor_of_the_pyramid(size, finest, ratios):
    sizes = [finest * 2**level for level in range(5)]
    boxes = draw_boxes(200, size, width=size / 5, height=size / 4)
    expected = box_iou(torch.from_numpy(boxes), all_anchors(size, sizes, ratios)).amax(1)
    np.testing.assert_allclose(best_overlaps(boxes, size, sizes, ratios), expected, atol=1e-12)


def test_a_fit_is_what_it_says_it_is():
    boxes = draw_boxes(150, 128, width=14, height=34)
    fit = fit_anchors(boxes, 128)
    before = best_overlaps(boxes, 128, default_anchor_sizes(128), DEFAULT_RATIOS)
    after = best_overlaps(boxes, 128, fit.sizes, fit.ratios)
    assert fit.before == (before.mean(), (before >= MATCH_IOU).mean())
    assert fit.after == (after.mean(), (after >= MATCH_IOU).mean())
    assert fit.after.mean_iou > fit.before.mean_iou + 0.03
    assert fit.line().startswith("anchors: fitted to 150 boxes: ")
    assert f"{fit.before.mean_iou:.3f} -> {fit.after.mean_iou:.3f}" in fit.line()
    assert "\n" not in fit.line()


def test_ratios_follow_the_boxes():
    tall = fit_anchors(draw_boxes(100, 128, width=14, height=34), 128)
    wide = fit_anchors(draw_boxes(100, 128, width=34, height=14), 128)
    assert np.median(tall.ratios) > 1.5
    assert np.median(wide.ratios) < 1 / 1.5


def test_a_fit_keeps_the_structure_of_retinanet():
    fit = fit_anchors(draw_boxes(100, 256, width=20, height=30), 256)
    assert [s / fit.sizes[0] for s in fit.sizes] == [1, 2, 4, 8, 16]
    assert len(set(fit.ratios)) == 3
    assert build_anchors(256, fit.sizes, fit.ratios).num_anchors_per_location() == [9] * 5


def test_a_fit_is_never_worse_than_the_default_anchors():
    sizes = default_anchor_sizes(256)
    places = all_anchors(256, sizes, DEFAULT_RATIOS).numpy()
    inside = places[(places[:, 0] >= 0) & (places[:, 3] <= 256)][::97]
    fit = fit_anchors(inside, 256)  # boxes that are anchors: nothing can be better
    assert (fit.sizes, fit.ratios) == (sizes, DEFAULT_RATIOS)
    assert fit.after == fit.before == (1.0, 1.0)


def test_a_fit_is_the_same_for_the_same_seed(monkeypatch):
    monkeypatch.setattr("detection.anchor_fit.MOST_BOXES", 40)
    boxes = draw_boxes(100, 128, width=14, height=34)
    first, again, other = (fit_anchors(boxes, 128, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.n_boxes == 40
    assert first.before != other.before  # another draw


def test_fitted_anchors_reopen_from_the_arguments_of_the_model(build_small, batch):
    fit = fit_anchors(np.concatenate([boxes.numpy() for boxes in batch.boxes]), 64)
    model = build_small(anchor_sizes=fit.sizes, anchor_ratios=fit.ratios)
    arguments = model.architecture["arguments"]
    again = build_small(**arguments)
    with torch.no_grad():
        first, second = (m.eval().run_heads(batch.images).anchors[0] for m in (model, again))
    assert torch.equal(first, second)


@pytest.mark.parametrize("seed", range(5))
def test_a_fit_never_reaches_fewer_boxes(seed):
    boxes = draw_boxes(12, 128, width=18, height=22, seed=seed)
    fit = fit_anchors(boxes, 128)
    assert fit.after.recall >= fit.before.recall
    assert fit.after.mean_iou >= fit.before.mean_iou


@pytest.mark.parametrize("sizes", [(12.6, 25.2, 50.4, 100.8, 201.6), (12, 24, 48, 96, 192)])
def test_sizes_of_part_pixels_survive_a_reopening(build_small, sizes):
    model = build_small(anchor_sizes=sizes)
    again = build_small(**model.architecture["arguments"])
    assert again.anchor_generator.sizes == model.anchor_generator.sizes


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([], "anchors = fitted: the training images have no box"),
        ([[0, 0, 9, 9], [0, 0, float("nan"), 9]], r"anchors = fitted: box 1 is \[0.0, 0.0, nan"),
        ([[9, 0, 3, 9]], "boxes need x1 < x2"),
    ],
)
def test_boxes_that_cannot_be_fitted_are_refused(boxes, message):
    with pytest.raises(InputError, match=message):
        fit_anchors(np.array(boxes, float), 128)
