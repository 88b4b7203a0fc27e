"""Boxes read from maps: the rule on hand-made maps, and its choice on validation alone."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import find_objects, label

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.evaluation.boxes.map_boxes import (
    MapBoxRule,
    map_parts,
    map_peaks,
    map_scale,
    upsample,
)
from cxr_compare.evaluation.overlays.contours import ActivationGrid, map_shapes
from cxr_compare.evaluation.sources.read_predictions import store_decision, stored_decision
from cxr_compare.evaluation.sources.stored_predictions import (
    read_decision,
    tune_predictions,
)
from tests.compared import compare_predictions


def maps_of(*grids, frame=(0.0, 0.0, 80.0, 80.0)):
    rows = []
    for number, grid in enumerate(grids):
        values = np.asarray(grid, dtype=np.float32)
        rows.append((f"i{number}", "f", "cam", *values.shape, values.ravel(), *frame))
    names = ["image_id", "finding", "method", "grid_h", "grid_w", "values", *EDGES]
    return pd.DataFrame(rows, columns=names)


@pytest.fixture
def classifier(predict):
    return predict("C", maps=True, skill=2.5, seed=3)


def test_a_classifier_enters_the_table_of_places(classifier, predict, test_set, target):
    decision = tune_predictions(classifier, test_set)
    store_decision(classifier, decision)
    read = stored_decision(classifier, target.name)
    assert (read.map_boxes, read.box_cut) == (decision.map_boxes, decision.box_cut)
    assert read.map_boxes is not None
    assert read.box_cut is not None
    checked = read_decision("C", classifier, test_set, ())
    assert checked.map_boxes == decision.map_boxes
    systems = {"A": predict("A", "boxes", seed=1), "C": classifier}
    comparison = compare_predictions(systems, test_set, replicates=50)
    places = ["ap50", "rsna_score", "froc_mean", "pointing_accuracy"]
    for name in systems:
        for metric in places:
            assert comparison.figures.get(name, metric).estimate is not None, metric


@pytest.mark.parametrize("row", [2, 5])
@pytest.mark.parametrize("column", [2, 4])
def test_a_bump_is_pointed_at_boxed_and_drawn_where_it_lies(row, column):
    frame = (-12.0, 30.0, 244.0, 158.0)  # cells of 32 x 16 px, beside the origin
    centre = np.array([frame[0] + (column + 0.5) * 32, frame[1] + (row + 0.5) * 16])
    x, y = frame[0] + (np.arange(8) + 0.5) * 32, frame[1] + (np.arange(8) + 0.5) * 16
    bump = np.exp(-(((x - centre[0]) / 32) ** 2) - ((y[:, None] - centre[1]) / 16) ** 2)
    peak = map_peaks(maps_of(bump, frame=frame), pd.Index(["i0"]))
    assert peak.loc["i0"].tolist() == [*centre, 1.0]
    boxes = MapBoxRule(0.5).apply(maps_of(bump, frame=frame), pd.Series({"i0": 1.0}), (0.0, 1.0))
    corners = boxes[["x1", "y1", "x2", "y2"]].to_numpy()[0]
    np.testing.assert_allclose((corners[:2] + corners[2:]) / 2, centre, atol=1e-9)
    for area in map_shapes(ActivationGrid(bump, frame, (0.25, 0.5, 0.75)), "#56B4E9"):
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
    maps = maps_of(grid, frame=(10.0, 20.0, 60.0, 70.0))
    x, y, value = map_peaks(maps, pd.Index(["i0"])).loc["i0"]
    fine = upsample(grid, 9)
    row, column = np.unravel_index(fine.argmax(), fine.shape)
    assert x == pytest.approx(10 + (column + 0.5) / 45 * 50)
    assert y == pytest.approx(20 + (row + 0.5) / 45 * 50)
    assert value == np.float32(grid.max())


def test_among_equal_cells_the_first_in_reading_order_is_the_peak():
    maps = maps_of(np.ones((2, 2)), frame=(0.0, 0.0, 4.0, 4.0))
    assert map_peaks(maps, pd.Index(["i0"])).loc["i0", ["point_x", "point_y"]].tolist() == [
        1.0,
        1.0,
    ]


def test_a_frame_beyond_the_image_is_read_as_it_stands():
    # A letterboxed 40 x 80 image: the grid's frame starts left of the image.
    points = map_peaks(maps_of([[0, 1], [0, 0]], frame=(-20.0, 0.0, 60.0, 80.0)), pd.Index(["i0"]))
    assert points[["point_x", "point_y"]].to_numpy().tolist() == [[40.0, 20.0]]


def test_an_image_without_a_map_has_no_point():
    assert map_peaks(maps_of([[1.0]]), pd.Index(["other"])).isna().all(axis=None)


def test_the_scale_is_one_for_all_images_and_starts_at_no_evidence():
    low, high = map_scale(maps_of(*[[[float(peak)]] for peak in range(1, 101)]))
    assert low == 0.0
    assert high == pytest.approx(99.01)


def test_maps_that_never_speak_for_the_target_still_have_a_scale():
    assert map_scale(maps_of([[-3.0, -1.0]])) == (0.0, 1.0)


def test_boxes_are_the_connected_parts_above_the_level():
    grid = np.zeros((8, 8))
    grid[1:3, 1:3] = 4.0  # rows 1-2, columns 1-2: 10 to 30 px
    grid[6, 5] = 2.0
    maps = maps_of(grid)
    boxes = MapBoxRule(0.4).apply(maps, pd.Series({"i0": 0.8}), (0.0, 4.0))
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
    scores = pd.Series({"i0": 0.9, "i1": 0.9})
    boxes = MapBoxRule(0.3).apply(maps_of(quiet, loud), scores, (0.0, 5.0))
    assert boxes["image_id"].tolist() == ["i1"]


def test_a_peak_beyond_the_scale_scores_no_more_than_its_image():
    boxes = MapBoxRule(0.5).apply(maps_of([[50.0]]), pd.Series({"i0": 0.6}), (0.0, 5.0))
    assert boxes["score"].tolist() == [0.6]


def test_no_maps_give_an_empty_table_of_boxes():
    boxes = MapBoxRule(0.5).apply(maps_of(), pd.Series(dtype=float), (0.0, 1.0))
    assert boxes.columns.tolist() == ["image_id", "x1", "y1", "x2", "y2", "score"]
    assert boxes.empty


@given(
    arrays(np.float64, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.floats(-1, 4)),
    st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]),
)
@settings(max_examples=60, deadline=None)
def test_connected_parts_are_those_of_scipy_in_their_order(grid, level):
    fine = upsample(grid)
    parts, n_parts = label(fine >= 4 * level, structure=np.ones((3, 3)))
    expected = [
        (along.start, down.start, along.stop, down.stop, fine[parts == number].max())
        for number, (down, along) in enumerate(find_objects(parts), start=1)
    ]
    edges, peaks = map_parts(grid, 4 * level)
    assert [(*edge, peak) for edge, peak in zip(edges.tolist(), peaks, strict=True)] == expected
    assert len(expected) == n_parts
