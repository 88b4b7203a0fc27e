"""The lung crop: holds both lungs, follows them, and leaves alone what it does not recognise."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.images.image import read_image
from data_prep.store.lung_region import MIN_CONFIDENCE, LungRegion, find_lung_region


def chest(
    left: int = 120, top: int = 60, width: int = 200, shape: tuple[int, int] = (500, 440)
) -> np.ndarray:
    """A schematic film: bright body, two dark lungs in a box of known place, a belly below."""
    film = np.full(shape, 190, np.uint8)
    height = width
    for share in (0.24, 0.76):
        centre = (round(left + share * width), top + height // 2)
        cv2.ellipse(film, centre, (round(0.21 * width), height // 2), 0, 0, 360, 60, -1)
    return cv2.GaussianBlur(film, (0, 0), 4)


def edges(region: LungRegion) -> np.ndarray:
    return np.array([region.x1, region.y1, region.x2, region.y2])


def test_region_holds_both_lungs_and_leaves_out_the_rest() -> None:
    region = find_lung_region(chest())
    assert region.confidence > 0.7
    assert region.x1 <= 120
    assert region.y1 <= 60
    assert region.x2 >= 320
    assert region.y2 >= 260
    assert (region.x2 - region.x1) * (region.y2 - region.y1) < 0.6 * 500 * 440


@pytest.mark.parametrize(("across", "down"), [(30, 0), (-30, 0), (0, 40), (25, 25)])
def test_region_moves_with_the_chest(across: int, down: int) -> None:
    here, there = (find_lung_region(chest(120 + x, 60 + y)) for x, y in ((0, 0), (across, down)))
    moved = edges(there) - edges(here)
    # It cannot move beyond the picture's edge; else it moves along, though chests are expected
    # in the middle.
    inside = (edges(here) > 0) & (edges(there) > 0)
    wanted = np.array([across, down, across, down])
    np.testing.assert_allclose(moved[inside], wanted[inside], atol=16)


def test_mirror_image_has_the_mirrored_region() -> None:
    film = chest(left=150)
    here, mirrored = find_lung_region(film), find_lung_region(film[:, ::-1])
    np.testing.assert_allclose([440 - here.x2, 440 - here.x1], [mirrored.x1, mirrored.x2], atol=16)


@pytest.mark.parametrize("window", [(0.5, 0), (0.3, 120), (1.3, 0)])
def test_window_does_not_move_the_region(window: tuple[float, float]) -> None:
    film = chest()
    windowed = np.clip(film * window[0] + window[1], 0, 255).astype(np.uint8)
    np.testing.assert_allclose(
        edges(find_lung_region(windowed)), edges(find_lung_region(film)), atol=12
    )


def test_white_lung_widens_the_region_rather_than_losing_it() -> None:
    film = chest()
    one_lung = film.copy()
    one_lung[:, 220:] = np.maximum(one_lung[:, 220:], 180)  # the left half is all that is dark
    region = find_lung_region(one_lung)
    assert region.x1 <= 120
    assert region.x2 >= 320


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((200, 200), 128, np.uint8),
        np.zeros((200, 200), np.uint8),
        chest()[:20],
        np.tile(chest(), (1, 6)),
        np.random.default_rng(0).integers(0, 256, (300, 300)).astype(np.uint8),
    ],
    ids=["grey", "black", "thin", "long", "noise"],
)
def test_what_is_no_chest_is_left_whole(pixels: np.ndarray) -> None:
    region = find_lung_region(pixels)
    assert edges(region).tolist() == [0, 0, pixels.shape[1], pixels.shape[0]]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    blur=st.sampled_from([0, 3, 20]),
    seed=st.integers(0, 9),
)
def test_region_lies_in_the_picture_whatever_the_picture(
    height: int, width: int, blur: int, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)
    pixels = cv2.GaussianBlur(pixels, (0, 0), blur) if blur else pixels
    region = find_lung_region(pixels.reshape(height, width))
    assert 0 <= region.x1 < region.x2 <= width
    assert 0 <= region.y1 < region.y2 <= height
    assert region.confidence <= 1
    if region.confidence < MIN_CONFIDENCE:
        assert (region.x1, region.y1, region.x2, region.y2) == (0, 0, width, height)


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_real_opacities_lie_in_the_region(shared_data: Path, every: int) -> None:
    labels = pd.read_csv(shared_data / "rsna/stage_2_train_labels.csv").dropna()
    whole, areas = [], []
    for image_id, boxes in list(labels.groupby("patientId"))[::every]:
        file = shared_data / f"rsna/stage_2_train_images/{image_id}.dcm"
        region = find_lung_region(read_image(file).pixels)
        areas.append((region.x2 - region.x1) * (region.y2 - region.y1) / 1024**2)
        low, high = boxes[["x", "y"]].to_numpy(), boxes[["width", "height"]].to_numpy()
        x1, y1, x2, y2 = edges(region)
        whole += [*((low >= [x1, y1]) & (low + high <= [x2, y2])).all(axis=1)]
    assert len(whole) >= 369 // every * 0.9
    assert len(whole) - sum(whole) <= 4  # 3 of 369 (on 2 films) when this was written
    assert np.mean(areas) < 0.88  # 0.86: most of these films are framed on the lungs already
