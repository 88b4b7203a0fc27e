"""Boxes: figures under any weights against plain loops, kinds of errors, boxes of maps."""

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools.mask import iou as coco_iou
from scipy.ndimage import find_objects, label
from torchvision.ops import box_iou as torch_iou

from tests.adapters import boxes as product
from tests.oracles import boxes as oracles

CELL = st.integers(0, 4)
BOX = st.tuples(st.integers(0, 3), CELL, CELL, st.integers(1, 3), st.integers(1, 3))
IMAGES = [f"i{number}" for number in range(4)]
FIGURES = {
    "ap50": (product.weighted_ap, lambda *rows: oracles.average_precision(*rows)[0]),
    "froc": (product.weighted_froc, oracles.froc),
}


def test_overlap_is_torchvisions_and_pycocotools_and_counted_by_hand():
    random = np.random.default_rng(0)
    centre, half = random.uniform(0.3, 0.7, (50, 2)), random.uniform(0.08, 0.25, (50, 2))
    corners = np.hstack([centre - half, centre + half])
    found = product.box_iou(corners[:, None], corners)
    theirs = torch_iou(torch.from_numpy(corners), torch.from_numpy(corners)).numpy()
    np.testing.assert_allclose(found, theirs, rtol=1e-12)
    sides = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])
    np.testing.assert_allclose(found, coco_iou(sides, sides, [0] * 50), rtol=1e-12)
    boxes = np.array([[0.0, 0, 2, 2], [1, 1, 1, 1], [5, 5, 6, 6], [0, 0, 2, 1]])
    assert product.box_iou(boxes, boxes[0]).tolist() == [1.0, 0.0, 0.0, 0.5]
    assert product.box_iou(boxes[1], boxes[1]) == 0.0  # without area nothing is shared


def on_a_grid(boxes):
    """Boxes on a grid of 8 px, where equal overlaps are common."""
    return [[f"i{i}", 8 * x, 8 * y, 8 * (x + w), 8 * (y + h)] for i, x, y, w, h in boxes]


@pytest.mark.parametrize("name", FIGURES)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.lists(BOX, min_size=1, max_size=7),
    st.lists(BOX, min_size=1, max_size=12),
    st.lists(st.integers(0, 3), min_size=4, max_size=4).filter(any),
)
def test_a_figure_under_weights_is_that_of_repeated_images(name, true, predicted, weights):
    # No two boxes score alike: repeats of a tie would rank in another order.
    scores = np.linspace(0.9, 0.1, len(predicted)).tolist()
    boxes = [[*row, score] for row, score in zip(on_a_grid(predicted), scores, strict=True)]
    truth = on_a_grid(true)
    repeated = [image for image, w in zip(IMAGES, weights, strict=True) for _ in range(w)]
    weighted, loop = FIGURES[name]
    found = np.ravel(weighted(boxes, truth, IMAGES, weights))
    expected = np.ravel(np.array(loop(boxes, truth, repeated), float))
    np.testing.assert_allclose(found[: expected.size], expected, atol=1e-9)


def test_every_called_box_and_every_lesion_has_one_kind_of_error():
    truth = [["a", 0, 0, 10, 10], ["a", 50, 50, 60, 60], ["a", 80, 80, 90, 90], ["b", 0, 0, 10, 10]]
    boxes = [
        ["a", 0, 0, 10, 9, 0.9],  # takes the first lesion
        ["a", 0, 0, 10, 8, 0.8],  # the same lesion again: duplicate
        ["a", 50, 50, 55, 58, 0.7],  # IoU 0.4 with the second: a poor box
        ["a", 30, 0, 40, 10, 0.6],  # nothing there: background
        ["b", 0, 0, 10, 10, 0.2],  # below the threshold: its lesion is missed
        ["c", 0, 0, 10, 10, 0.5],  # at the threshold, on an image without lesions: background
        ["b", 0, 9, 10, 19, 0.5],  # IoU 0.05: background
    ]
    assert product.error_types(boxes, truth, ["a", "b", "c"], 0.5) == {
        "lesions": [3, 1, 0],
        "found": [1, 0, 0],
        "poorly_boxed": [1, 0, 0],
        "missed": [1, 1, 0],
        "poor_box": [1, 0, 0],
        "duplicate": [1, 0, 0],
        "background": [1, 1, 1],
    }


def maps_of(*grids, frame=(0.0, 0.0, 80.0, 80.0)):
    """A table of maps of images i0, i1, ..., which cover the frame (x1, y1, x2, y2) in px."""
    rows = [
        (f"i{number}", *np.shape(grid), np.asarray(grid, float).ravel(), *frame)
        for number, grid in enumerate(grids)
    ]
    columns = ["image_id", "grid_h", "grid_w", "values", "x1", "y1", "x2", "y2"]
    return pd.DataFrame(rows, columns=columns)


def test_a_map_is_upsampled_as_by_opencv_and_its_peak_is_the_highest_cell():
    grid = np.random.default_rng(1).normal(size=(7, 7)).astype(np.float32)
    expected = cv2.resize(grid, (56, 56), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(product.upsample(grid, 8), expected, atol=1e-5)
    maps = maps_of([[0, 1], [0, 0]], frame=(-20.0, 0.0, 60.0, 80.0))  # beyond the image, too
    peaks = product.map_peaks(maps, pd.Index(["i0", "none"]))
    assert peaks.loc["i0"].tolist() == [40.0, 20.0, 1.0]
    assert peaks.loc["none"].isna().all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    arrays(np.float64, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.floats(-1, 4)),
    st.sampled_from([0.1, 0.5, 0.9]),
)
def test_parts_of_a_map_are_those_of_scipy_in_their_order(grid, level):
    fine = product.upsample(grid)
    parts, _ = label(fine >= 4 * level, structure=np.ones((3, 3)))
    expected = [
        ([along.start, down.start, along.stop, down.stop], fine[parts == number].max())
        for number, (down, along) in enumerate(find_objects(parts), start=1)
    ]
    edges, peaks = product.map_parts(grid, 4 * level)
    assert list(zip(edges.tolist(), peaks, strict=True)) == expected


def test_boxes_are_cut_from_maps_by_one_scale_or_by_their_own_range():
    grid = np.zeros((8, 8))
    grid[1:3, 1:3], grid[6, 5] = 4.0, 2.0
    flat, faint = np.full((8, 8), 3.0), np.eye(8) * 0.05  # 0.05 is 1.25 % of the scale
    scores = pd.Series({"i0": 0.8, "i1": 0.9, "i2": 0.9})
    cut = product.map_boxes(maps_of(grid), scores, (0.0, 4.0), 0.4)
    assert cut["score"].tolist() == pytest.approx([0.8, 0.8 * 2 * (15 / 16) ** 2 / 4])
    first = cut[["x1", "y1", "x2", "y2"]].iloc[0]
    np.testing.assert_allclose(first, [10, 10, 30, 30], atol=2)
    of_range = maps_of(grid, flat, faint)
    own = product.map_boxes(of_range, scores, (0.0, 4.0), 0.4, relative=True, most=1)
    assert own["image_id"].tolist() == ["i0"]
    above = product.map_boxes(maps_of([[50.0]]), scores, (0.0, 5.0), 0.5)
    assert above["score"].tolist() == [0.8]  # beyond the scale: no more than its image
    assert product.map_boxes(maps_of(), scores, (0.0, 5.0), 0.5).empty
    for score, n_boxes in ((0.001, 1), (0.00099, 0)):  # one of at least 0.001 is left
        weak = pd.Series({"i0": score})
        assert len(product.map_boxes(maps_of([[5.0]]), weak, (0.0, 5.0), 0.5)) == n_boxes
