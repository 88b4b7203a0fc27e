"""Positions of labels in an image."""

import numpy as np
import pytest

from cxr_compare.evaluation.overlays.shapes import (
    LabelRequest,
    place_labels,
)

COLOUR = "#56B4E9"


@pytest.mark.parametrize("seed", range(4))
def test_texts_stay_inside_the_image_and_off_each_other(seed):
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 500, (6, 2, 2)), axis=1).reshape(6, 4)  # xyxy
    corners[0] = (0, 0, 500, 500)  # no space outside
    labels = place_labels(
        [LabelRequest("boxes", box, "0.91", COLOUR) for box in corners], (500, 500), 20.0
    )
    assert labels[0].corner == (0.0, 0.0)
    for rank, label in enumerate(labels):
        assert 0 <= label.corner[0] <= 500 - label.width
        assert 0 <= label.corner[1] <= 500 - label.size
        for other in labels[:rank]:
            apart = np.abs(np.subtract(label.corner, other.corner))
            assert apart[1] >= 20 or apart[0] >= label.width


def test_text_without_free_space_is_left_out():
    box = np.array([0.0, 0.0, 40.0, 20.0])
    labels = place_labels([LabelRequest("boxes", box, "0.91", COLOUR)] * 9, (60.0, 40.0), 20.0)
    assert len(labels) == 2  # in the box and below it
