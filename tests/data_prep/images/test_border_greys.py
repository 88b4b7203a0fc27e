"""Greys of the outer tenth of an image."""

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.images.border_greys import N_PIECES, border_greys, read_border_greys


def test_pieces_go_along_the_top_the_bottom_and_the_sides():
    image = np.zeros((40, 80), np.uint8)
    image[:4, :20], image[-4:, 60:], image[4:12, :8], image[28:36, 72:] = 10, 20, 30, 40
    greys = read_border_greys(pd.Series([border_greys(image)]))[0]
    assert np.flatnonzero(greys).tolist() == [0, 7, 8, 15]
    assert greys[[0, 7, 8, 15]].tolist() == [10, 20, 30, 40]


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 2), (7, 400), (10_000, 12)])
def test_any_shape_has_all_its_pieces(shape):
    assert border_greys(np.full(shape, 9, np.uint8)) == "09" * N_PIECES


def test_greys_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"\b32\b"):
        read_border_greys(pd.Series(["ff"]))
