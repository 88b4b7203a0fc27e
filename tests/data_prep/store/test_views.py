"""Views of an image: boxes return to their position, and wrong names are refused."""

import numpy as np
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.views import View, parse_views


@pytest.mark.parametrize("view", [View(), View(flip=True), View(scale=0.8), View(scale=1.3)])
def test_boxes_return_to_their_position_in_the_image(view):
    size = 96
    boxes = np.array([[3.0, 5.0, 40.5, 60.25], [0.0, 0.0, size, size]])
    in_view = boxes.copy()
    if view.flip:
        in_view[:, [0, 2]] = size - boxes[:, [2, 0]]
    in_view = in_view * view.content_size(size) / size + view.offset(size)
    np.testing.assert_allclose(view.boxes_to_image(in_view, size), boxes, atol=1e-9)
    assert (in_view >= 0).all()
    assert (in_view <= view.canvas_size(size)).all(), "nothing of the image is lost"
    assert view.canvas_size(size) % 32 == 0


def test_box_in_the_black_border_has_no_area():
    view = View(scale=0.8)  # 205 px in a square of 224
    x1, _, x2, _ = view.boxes_to_image(np.array([[0.0, 50.0, 9.0, 60.0]]), 256)[0]
    assert (x1, x2) == (0.0, 0.0)


def test_plain_view_is_always_first():
    assert parse_views("scale1.2, flip") == (View(), View(scale=1.2), View(flip=True))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("mirror", "mirror"),
        ("flip,", ""),
        ("scale", "scale"),
        ("scale0.1", "scale0.1"),
        ("flip,flip", "flip"),
        ("scale1.0", "scale1.0"),
    ],
)
def test_wrong_view_is_refused_by_name(text, name):
    with pytest.raises(InputError, match=f"^--tta {text}: '{name}'"):
        parse_views(text)
