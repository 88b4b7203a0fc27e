"""Mosaics: every lesion stays on its pixels, in its part, or is dropped and counted."""

import numpy as np
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.preprocess import MIN_SIDE
from cxr_compare.training.mosaic import DroppedBoxes, join_mosaic

SIZE = 100


def lesion(box: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.zeros((SIZE, SIZE), np.uint8)
    x1, y1, x2, y2 = box
    pixels[y1:y2, x1:x2] = 255
    return pixels, np.array([box], np.float32)


BOXES = [(50, 50, 90, 80), (10, 40, 50, 90), (60, 10, 80, 50), (5, 5, 45, 35)]


def test_boxes_lie_on_their_lesions_wherever_the_parts_meet():
    images, boxes = zip(*map(lesion, BOXES), strict=True)
    for seed in range(30):
        mosaic = join_mosaic(images, boxes, seed)
        assert mosaic.pixels.shape == (SIZE, SIZE)
        assert [len(rows) for rows in mosaic.kept] == [1, 1, 1, 1]
        assert mosaic.dropped == DroppedBoxes(4)
        inside = np.zeros((SIZE, SIZE), bool)
        for x1, y1, x2, y2 in mosaic.boxes.round().astype(int):
            inside[max(y1 - 1, 0) : y2 + 1, max(x1 - 1, 0) : x2 + 1] = True
            assert mosaic.pixels[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].min() > 120
        assert mosaic.pixels[~inside].max() < 130


def test_the_seed_alone_decides_where_the_parts_meet():
    images, boxes = zip(*map(lesion, BOXES), strict=True)
    first, again = (join_mosaic(images, boxes, 5) for _ in range(2))
    np.testing.assert_array_equal(first.pixels, again.pixels)
    met = {join_mosaic(images, boxes, seed).boxes.tobytes() for seed in range(20)}
    assert len(met) > 15


def test_boxes_that_are_cut_off_or_become_too_small_are_counted():
    images = [np.zeros((SIZE, SIZE), np.uint8)] * 4
    edge = np.array([[0.0, 0.0, 20.0, 20.0], [48.0, 48.0, 50.5, 52.0]])  # outermost; tiny
    none = np.zeros((0, 4))
    outside = small = 0
    for seed in range(40):
        mosaic = join_mosaic(images, [edge, none, none, none], seed)
        assert (mosaic.boxes[:, 2:] - mosaic.boxes[:, :2] >= MIN_SIDE).all()
        assert len(mosaic.boxes) == 2 - mosaic.dropped.total == len(mosaic.kept[0])
        outside += mosaic.dropped.outside
        small += mosaic.dropped.small
    assert outside > 0
    assert small > 0


def test_images_of_different_sizes_are_refused():
    with pytest.raises(InputError, match="needs 4 squares of one size"):
        join_mosaic([np.zeros((8, 8), np.uint8)] * 3, [np.zeros((0, 4))] * 3, 0)
