"""Contours of activation maps at fixed evidence."""

import numpy as np
import pytest

from cxr_compare.evaluation.overlays.contours import ActivationGrid, contour_levels, map_shapes

COLOUR = "#56B4E9"
FRAME = (0.0, 0.0, 64.0, 64.0)
LEVELS = (1.0, 2.0, 3.0)


def blob(height: float) -> np.ndarray:
    rows, columns = np.mgrid[:8, :8]
    return height * np.exp(-((rows - 3) ** 2 + (columns - 3) ** 2) / 3)


@pytest.mark.parametrize(
    ("values", "levels"),
    [(blob(0.5), LEVELS), (blob(4.0), ()), (np.full((4, 4), np.nan), LEVELS)],
    ids=["below the levels", "no levels", "broken values"],
)
def test_map_below_the_levels_has_no_contour(values, levels):
    assert map_shapes(ActivationGrid(values, FRAME, levels), COLOUR) == []


def test_map_is_never_normalised_per_image():
    strong, weak = (map_shapes(ActivationGrid(blob(h), FRAME, LEVELS), COLOUR) for h in (4, 2))
    assert len(strong) == 3
    assert len(weak) == 1  # half the evidence reaches fewer of the same levels


def test_contours_lie_at_the_systems_own_probabilities():
    rng = np.random.default_rng(0)
    peaks = rng.uniform(-4, 8, 4000)
    noisy = 1 / (1 + np.exp(-(peaks - 2 + rng.normal(0, 0.3, 4000))))
    levels = contour_levels(peaks, noisy)
    expected = {p: 2 + np.log(p / (1 - p)) for p in (0.25, 0.5, 0.75)}
    assert levels == pytest.approx(expected, abs=0.15)
    assert contour_levels(peaks, np.minimum(noisy, 0.6)).keys() == {0.25, 0.5}
    assert contour_levels(np.r_[peaks, np.nan], np.r_[noisy, 0.9]) == levels


def test_negative_evidence_has_no_contour():
    assert contour_levels([-2.0, -1.0], [0.3, 0.9]) == {}
    assert contour_levels([np.nan], [0.9]) == {}


def test_map_of_few_cells_shows_the_cell_of_its_peak():
    values = np.zeros((5, 5))
    values[1, 3] = 4.0  # reaches all three levels
    grid = ActivationGrid(values, (0.0, 0.0, 50.0, 100.0), LEVELS)
    assert (grid.shows_cell, grid.contoured, grid.size_text) == (True, (), "5 × 5")
    (cell,) = map_shapes(grid, COLOUR)
    (corners,) = cell.paths
    assert corners.tolist() == [[30.0, 20.0], [40.0, 20.0], [40.0, 40.0], [30.0, 40.0]]
    assert cell.tint > 0  # so that it does not look like a predicted box
    below = ActivationGrid(values / 8, (0.0, 0.0, 50.0, 100.0), LEVELS)
    assert map_shapes(below, COLOUR) == []


def test_contour_that_fills_the_chest_is_left_out_and_a_small_one_stays():
    values = np.full((10, 10), 1.5)  # the whole map reaches the first level, and four cells all
    values[4:6, 4:6] = 4.0
    grid = ActivationGrid(values, FRAME, LEVELS)
    assert grid.contoured == (2.0, 3.0)
    assert not grid.shows_cell
    assert len(map_shapes(grid, COLOUR)) == 2
    flat = ActivationGrid(np.full((10, 10), 1.5), FRAME, LEVELS)
    assert (flat.reached, flat.contoured, flat.shows_cell) == ((1.0,), (), True)
    assert map_shapes(flat, COLOUR)[0].paths[0][0].tolist() == [0.0, 0.0]  # the first of equals
