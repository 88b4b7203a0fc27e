"""Views: what a user may ask for, and boxes that come back to where they were."""

import numpy as np
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.preprocess import View, parse_views


@pytest.mark.parametrize("view", [View(), View(flip=True), View(scale=0.8), View(scale=1.3)])
@pytest.mark.parametrize("size", [96, 256])
def test_boxes_come_back_exactly(view, size):
    boxes = np.array([[3.0, 5.0, 40.5, 60.25], [0.0, 0.0, size, size]])
    seen = boxes.copy()
    if view.flip:
        seen[:, [0, 2]] = size - boxes[:, [2, 0]]
    seen = seen * view.content(size) / size + view.offset(size)
    np.testing.assert_allclose(view.boxes_back(seen, size), boxes, atol=1e-9)
    assert (seen >= 0).all()
    assert (seen <= view.canvas(size)).all(), "nothing of the image is lost"
    assert view.canvas(size) % 32 == 0


def test_a_box_in_the_black_border_has_no_area_left():
    view = View(scale=0.8)  # 205 px in a square of 224
    x1, _, x2, _ = view.boxes_back(np.array([[0.0, 50.0, 9.0, 60.0]]), 256)[0]
    assert (x1, x2) == (0.0, 0.0)


def test_the_plain_view_is_always_there_and_first():
    assert parse_views("scale1.2, flip") == (View(), View(scale=1.2), View(flip=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mirror", "--tta mirror: 'mirror' is not a view; use flip, scale0.8, scale1.2"),
        ("flip,", "'' is not a view"),
        ("scale", "'scale' is not a view"),
        ("scale0.1", "'scale0.1' is out of range; choose 0.5 to 2.0"),
        ("flip,flip", "'flip' is there already"),
        ("scale1.0", "'scale1.0' is there already"),
    ],
)
def test_what_is_no_view_is_refused(text, message):
    with pytest.raises(InputError) as caught:
        parse_views(text)
    assert message in str(caught.value)
