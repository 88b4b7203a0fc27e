"""Activation maps: the peak in original pixels, one scale, and boxes cut out of them."""

import numpy as np
import pandas as pd
import pytest

from evaluation.boxes.map_boxes import boxes_from_map, map_peak, map_points, map_scale, upsample
from evaluation.overlays.shapes import ActivationGrid, map_shapes


def table(*grids, frame=(0.0, 0.0, 80.0, 80.0)):
    rows = []
    for number, grid in enumerate(grids):
        values = np.asarray(grid, dtype=np.float32)
        rows.append((f"i{number}", "f", "cam", *values.shape, values.ravel(), *frame))
    names = ["image_id", "finding", "method", "grid_h", "grid_w", "values", "x1", "y1", "x2", "y2"]
    return pd.DataFrame(rows, columns=names)


def test_bilinear_upsampling_keeps_cell_centres_and_bounds():
    grid = np.random.default_rng(0).normal(size=(3, 4))
    fine = upsample(grid, factor=5)  # odd: each cell's centre is a pixel of its own
    np.testing.assert_allclose(fine[2::5, 2::5], grid)
    assert fine.shape == (15, 20)
    assert grid.min() <= fine.min()
    assert fine.max() <= grid.max()


@pytest.mark.parametrize("row", [2, 5])
@pytest.mark.parametrize("column", [2, 4])
def test_a_bump_is_pointed_at_boxed_and_drawn_where_it_lies(row, column):
    frame = (-12.0, 30.0, 244.0, 158.0)  # cells of 32 x 16 px, beside the origin
    centre = np.array([frame[0] + (column + 0.5) * 32, frame[1] + (row + 0.5) * 16])
    x, y = frame[0] + (np.arange(8) + 0.5) * 32, frame[1] + (np.arange(8) + 0.5) * 16
    bump = np.exp(-(((x - centre[0]) / 32) ** 2) - ((y[:, None] - centre[1]) / 16) ** 2)
    assert map_peak(bump, frame) == (*centre, 1.0)
    boxes = boxes_from_map(
        table(bump, frame=frame), pd.Series({"i0": 1.0}), scale=(0.0, 1.0), level=0.5
    )
    corners = boxes[["x1", "y1", "x2", "y2"]].to_numpy()[0]
    np.testing.assert_allclose((corners[:2] + corners[2:]) / 2, centre, atol=1e-9)
    for area in map_shapes(ActivationGrid(bump, frame, (0.0, 1.0)), "#56B4E9"):
        (ring,) = area.paths
        middle = (ring.min(axis=0) + ring.max(axis=0)) / 2
        np.testing.assert_allclose(middle, centre, atol=1e-6)


def test_upsampling_equals_that_of_opencv():
    cv2 = pytest.importorskip("cv2")
    grid = np.random.default_rng(1).normal(size=(7, 7)).astype(np.float32)
    expected = cv2.resize(grid, (56, 56), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(upsample(grid, 8), expected, atol=1e-5)


def test_the_peak_is_where_the_upsampled_map_is_highest():
    grid = np.random.default_rng(2).normal(size=(5, 5))
    grid[3, 1] = 5.0  # inside: at the rim the held edge makes a plateau
    x, y, value = map_peak(grid, (10.0, 20.0, 60.0, 70.0))
    fine = upsample(grid, 9)
    row, column = np.unravel_index(fine.argmax(), fine.shape)
    assert x == pytest.approx(10 + (column + 0.5) / 45 * 50)
    assert y == pytest.approx(20 + (row + 0.5) / 45 * 50)
    assert value == grid.max()


def test_among_equal_cells_the_first_in_reading_order_is_the_peak():
    assert map_peak(np.ones((2, 2)), (0, 0, 4, 4))[:2] == (1.0, 1.0)


def test_a_frame_beyond_the_image_is_read_as_it_stands():
    # A letterboxed 40 x 80 image: the grid's frame starts left of the image.
    points = map_points(table([[0, 1], [0, 0]], frame=(-20.0, 0.0, 60.0, 80.0)), pd.Index(["i0"]))
    assert points[["point_x", "point_y"]].to_numpy().tolist() == [[40.0, 20.0]]


def test_an_image_without_a_map_has_no_point():
    assert map_points(table([[1.0]]), pd.Index(["other"])).isna().all(axis=None)


def test_the_scale_is_one_for_all_images_and_starts_at_no_evidence():
    low, high = map_scale(table(*[[[float(peak)]] for peak in range(1, 101)]))
    assert low == 0.0
    assert high == pytest.approx(99.01)


def test_maps_that_never_speak_for_the_target_still_have_a_scale():
    assert map_scale(table([[-3.0, -1.0]])) == (0.0, 1.0)


def test_boxes_are_the_connected_parts_above_the_level():
    grid = np.zeros((8, 8))
    grid[1:3, 1:3] = 4.0  # rows 1-2, columns 1-2: 10 to 30 px
    grid[6, 5] = 2.0
    maps = table(grid)
    boxes = boxes_from_map(maps, pd.Series({"i0": 0.8}), scale=(0.0, 4.0), level=0.4)
    assert len(boxes) == 2
    first, second = boxes.sort_values("score", ascending=False).itertuples()
    assert first.score == pytest.approx(0.8)
    # Four fine pixels share the lone cell's top, each half a fine pixel off its centre.
    assert second.score == pytest.approx(0.8 * 2 * (15 / 16) ** 2 / 4)
    assert (first.x1, first.y1) == pytest.approx((10, 10), abs=2)
    assert (first.x2, first.y2) == pytest.approx((30, 30), abs=2)


def test_a_quiet_map_gives_no_box_whatever_its_own_maximum():
    # The known mistake: a map normalised by itself makes a healthy lung glow.
    quiet, loud = [[0.1, 0.0]], [[5.0, 0.0]]
    boxes = boxes_from_map(
        table(quiet, loud), pd.Series({"i0": 0.9, "i1": 0.9}), scale=(0.0, 5.0), level=0.3
    )
    assert boxes["image_id"].tolist() == ["i1"]


def test_a_peak_beyond_the_scale_scores_no_more_than_its_image():
    boxes = boxes_from_map(table([[50.0]]), pd.Series({"i0": 0.6}), scale=(0.0, 5.0), level=0.5)
    assert boxes["score"].tolist() == [0.6]


def test_no_maps_give_an_empty_table_of_boxes():
    boxes = boxes_from_map(table(), pd.Series(dtype=float), scale=(0.0, 1.0), level=0.5)
    assert boxes.columns.tolist() == ["image_id", "x1", "y1", "x2", "y2", "score"]
    assert boxes.empty
