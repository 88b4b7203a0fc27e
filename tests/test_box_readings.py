"""Boxes in every form and unit: read as the user answers, and else equal or refused."""

import itertools

import numpy as np
import pytest

from tests.adapters import sources

WHOLE = {"px": None, "share": 1, "percent": 100, "thousandth": 1000}
WRITTEN = list(itertools.product(["xyxy", "xywh", "cxcywh"], WHOLE))
# How formats read boxes, and whether their columns name the four numbers.
READ_AS = {
    "COCO": ("xywh", "px", False),
    "YOLO": ("cxcywh", "share", False),
    "VOC": ("xyxy", "px", False),
    "table of corners": ("xyxy", "px", True),
    "table of sides": ("xywh", "px", True),
    "table of centres": ("cxcywh", "px", True),
    "table of shares": ("xyxy", "share", True),
    "table of sides in shares": ("xywh", "share", True),
}


def drawn(seed, shortest, longest):
    """Corners of 40 lesions of 5 to 40 % of the sides, and the sizes of their images."""
    random = np.random.default_rng(seed)
    sizes = random.integers(shortest, longest, (40, 2)).astype(float)
    sides = random.uniform(0.05, 0.4, (40, 2)) * sizes
    start = random.uniform(0, 1, (40, 2)) * (sizes - sides)
    return np.hstack([start, start + sides]), sizes


def written(corners, sizes, form, unit):
    first, second = corners[:, :2], corners[:, 2:]
    numbers = {
        "xyxy": [first, second],
        "xywh": [first, second - first],
        "cxcywh": [(first + second) / 2, second - first],
    }[form]
    scale = WHOLE[unit]
    return np.hstack(numbers) * (1 if scale is None else scale / np.hstack([sizes, sizes]))


@pytest.mark.parametrize(("form", "unit"), WRITTEN)
def test_a_box_that_is_read_as_it_was_written_is_itself(form, unit):
    for seed in range(5):
        corners, sizes = drawn(seed, 150, 4000)
        read = sources.check_boxes(
            written(corners, sizes, form, unit), sizes, form, unit, False, True
        )
        np.testing.assert_allclose(read, corners, rtol=0, atol=1e-6)


@pytest.mark.parametrize("reader", READ_AS)
@pytest.mark.parametrize(("form", "unit"), WRITTEN)
def test_a_box_in_a_form_that_nobody_stated_is_itself_or_refused(reader, form, unit):
    """Numbers to 1000 may be px of an image of 1,000 to 4,000 px, too: no reader can tell them."""
    sides = (4000, 8000) if unit == "thousandth" else (400, 2000)
    for seed in range(5):
        corners, sizes = drawn(seed, *sides)
        read = sources.check_boxes(written(corners, sizes, form, unit), sizes, *READ_AS[reader])
        if (form, unit) == READ_AS[reader][:2]:
            assert not isinstance(read, str), read
        if not isinstance(read, str):
            kept = ~np.isnan(read).any(axis=1)
            assert kept.mean() > 0.9
            np.testing.assert_allclose(read[kept], corners[kept], rtol=0, atol=1e-6)
