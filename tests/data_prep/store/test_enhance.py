"""Contrast enhancement: the same for every picture, and blind to what is not tissue."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.store.enhance import Enhancement, enhance, equalise_locally, match_reference


@pytest.fixture
def film() -> np.ndarray:
    """Soft gradients with noise, grey levels 30 to 160."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:96, 0:80]
    return np.round(30 + 60 * x / 80 + 60 * y / 96 + rng.random((96, 80)) * 10).astype(np.uint8)


def test_none_changes_nothing(film: np.ndarray) -> None:
    np.testing.assert_array_equal(enhance(film, "none"), film)


@pytest.mark.parametrize("how", ["clahe", "histogram"])
def test_enhancing_is_repeatable_and_spares_its_input(film: np.ndarray, how: Enhancement) -> None:
    before = film.copy()
    first, second = enhance(film, how), enhance(film, how)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(film, before)
    assert first.dtype == np.uint8
    assert first.shape == film.shape
    assert not np.array_equal(first, film)


def test_clahe_raises_the_contrast_of_each_part(film: np.ndarray) -> None:
    parts = np.s_[:40, :40], np.s_[50:, 40:]
    clear = equalise_locally(film)
    for part in parts:
        assert clear[part].std() > 1.2 * film[part].std()


@pytest.mark.parametrize("gamma", [0.6, 1.0, 1.8])
def test_matching_undoes_another_grey_curve(film: np.ndarray, gamma: float) -> None:
    curved = np.round(255 * (film / 255.0) ** gamma).clip(9, 246).astype(np.uint8)
    difference = match_reference(curved).astype(float) - match_reference(film)
    assert np.abs(difference).mean() < 3
    assert abs(match_reference(curved).mean() - 127.5) < 3
    assert abs(match_reference(curved).std() - 51) < 4


def test_black_border_and_white_letters_do_not_count(film: np.ndarray) -> None:
    framed = np.pad(film, 30)
    framed[2:8, 2:20] = 255
    matched = match_reference(framed)
    np.testing.assert_array_equal(matched[30:-30, 30:-30], match_reference(film))
    assert (matched[2:8, 2:20] == 255).all()
    assert (matched[-30:] == 0).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 99), low=st.integers(0, 200), span=st.integers(0, 55))
def test_darker_stays_darker(seed: int, low: int, span: int) -> None:
    pixels = np.random.default_rng(seed).integers(low, low + span + 1, (20, 20)).astype(np.uint8)
    order = np.argsort(pixels, axis=None, kind="stable")
    assert (np.diff(match_reference(pixels).ravel()[order].astype(int)) >= 0).all()


@pytest.mark.parametrize("level", [0, 100, 255])
def test_blank_picture_stays_blank(level: int) -> None:
    blank = np.full((64, 64), level, np.uint8)
    blank[::2] = min(level + 2, 255)  # noise
    np.testing.assert_array_equal(match_reference(blank), blank)


@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (7, 64), (8, 8), (64, 3), (33, 65)])
def test_pictures_of_any_shape_are_taken(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    for how in ("clahe", "histogram"):
        assert enhance(pixels, how).shape == shape
