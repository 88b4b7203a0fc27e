"""Letterboxed images and boxes: a drawn lesion and its box stay together."""

import numpy as np
import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.records import write_json
from cxr_compare.data_prep.store.placement import Placement
from cxr_compare.data_prep.store.preprocess import Preprocess, letterbox
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stored_json import stored_json

sides = st.integers(1, 700)
sizes = st.integers(16, 300)
shares = st.tuples(*[st.floats(0, 1) for _ in range(4)])


def box_in(width: int, height: int, share: tuple[float, ...]) -> np.ndarray:
    """A box of any position and extent inside an image."""
    left, right = sorted((share[0] * width, share[1] * width))
    top, bottom = sorted((share[2] * height, share[3] * height))
    return np.array([[left, top, right, bottom]])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(width=sides, height=sides, size=sizes, share=shares)
def test_boxes_return_from_the_square_unchanged(width, height, size, share):
    _, placement = letterbox(np.zeros((height, width), np.uint8), size)
    box = box_in(width, height, share)
    stored = placement.to_store(box)
    assert stored.min() >= 0
    assert stored.max() <= size + 1e-9
    np.testing.assert_allclose(placement.to_original(stored, width, height), box, atol=1e-6)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(width=sides, height=sides, size=sizes)
def test_aspect_is_kept_and_the_rest_is_black(width, height, size):
    square, placement = letterbox(np.full((height, width), 200, np.uint8), size)
    assert square.shape == (size, size)
    x1, y1, x2, y2 = placement.to_store(np.array([[0, 0, width, height]]))[0]
    outside = np.ones_like(square, dtype=bool)
    outside[round(y1) : round(y2), round(x1) : round(x2)] = False
    assert (square[outside] == 0).all()
    assert (square[~outside] == 200).all()
    # Rounding to whole pixels is the only distortion.
    assert abs((x2 - x1) - width * size / max(width, height)) <= 1
    assert abs((y2 - y1) - height * size / max(width, height)) <= 1


@pytest.mark.parametrize(("width", "height"), [(1024, 1024), (600, 400), (100, 80), (333, 517)])
def test_drawn_rectangle_stays_under_its_box(width, height):
    pixels = np.zeros((height, width), np.uint8)
    box = np.array([[width // 4, height // 3, width // 2, height * 3 // 4]], dtype=float)
    x1, y1, x2, y2 = box[0].astype(int)
    pixels[y1:y2, x1:x2] = 255

    square, placement = letterbox(pixels, 256)

    rows, columns = np.nonzero(square > 127)
    drawn = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(placement.to_store(box)[0], drawn, atol=0.75)


def test_image_of_the_right_size_is_not_touched():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    square, placement = letterbox(pixels, 64)
    np.testing.assert_array_equal(square, pixels)
    assert placement == Placement(1.0, 1.0, 0.0, 0.0)


def test_shrinking_averages_areas():
    pixels = np.indices((64, 64)).sum(axis=0).astype(np.uint8) % 2 * 200
    assert set(np.unique(letterbox(pixels, 32)[0])) == {100}


def test_box_beyond_the_border_is_clipped_to_the_original():
    placement = letterbox(np.zeros((50, 100), np.uint8), 64)[1]
    clipped = placement.to_original(np.array([[0.0, 0.0, 64.0, 64.0]]), 100, 50)
    np.testing.assert_allclose(clipped, [[0, 0, 100, 50]])


def test_empty_boxes_are_accepted_and_other_shapes_refused():
    placement = Placement(1.0, 1.0, 0.0, 0.0)
    assert placement.to_store(np.zeros((0, 4))).shape == (0, 4)
    assert placement.to_original(np.array([]), 10, 10).shape == (0, 4)
    with pytest.raises(ValueError, match=r"shape \(N, 4\)"):
        placement.to_store(np.zeros(4))


@pytest.mark.parametrize("pixels", [np.zeros((4, 4)), np.zeros((4, 4, 3), np.uint8)])
def test_other_images_are_refused(pixels):
    with pytest.raises(ValueError, match="uint8"):
        letterbox(pixels, 64)


def test_numpy_and_torch_are_normalised_alike():
    torch = pytest.importorskip("torch")
    preprocess = Preprocess(size=64, mean=0.449, std=0.226)
    pixels = np.arange(256, dtype=np.uint8)
    expected = (pixels / 255 - 0.449) / 0.226

    np.testing.assert_allclose(preprocess.normalise(pixels), expected, atol=1e-6)
    tensor = preprocess.normalise(torch.from_numpy(pixels))
    assert tensor.dtype == torch.float32
    np.testing.assert_allclose(tensor.numpy(), expected, atol=1e-6)
    assert preprocess.normalise(torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_preprocess_survives_its_file(tmp_path):
    preprocess = Preprocess(size=512, mean=0.5, std=0.25)
    preprocess.write(tmp_path / "preprocess.json")
    assert Preprocess.read(tmp_path / "preprocess.json") == preprocess


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", "big"),
        ("mean", None),
    ],
)
def test_wrong_value_in_preprocess_json_is_refused_by_key(tmp_path, key, value):
    path = tmp_path / "preprocess.json"
    Preprocess(size=512, mean=0.5, std=0.25).write(path)
    write_json(path, "preprocess", {**stored_json(path), key: value})
    with pytest.raises(InputError, match=rf"preprocess.json: {key}\b"):
        Preprocess.read(path)


@pytest.mark.parametrize(
    ("size", "mean", "std"), [(8, 0.5, 0.2), (9999, 0.5, 0.2), (64, 0.5, 0), (64, float("nan"), 1)]
)
def test_impossible_settings_are_refused(size, mean, std):
    with pytest.raises(ValueError, match=r"image size|greater than 0|finite"):
        Preprocess(size=size, mean=mean, std=std)
