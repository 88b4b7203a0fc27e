"""Augmentation: repeatable, boxes stay on their lesions, and none is lost unknowingly."""

import inspect
import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.preprocess import MIN_SIDE, MIN_VISIBLE
from cxr_compare.training.augment import Augmentation, build_augmentation
from cxr_compare.training.mosaic import DroppedBoxes

WIDTH = 120
HEIGHT = 90
EVERYTHING = {
    "rotate_degrees": 20,
    "scale": 0.3,
    "shift": 0.2,
    "brightness": 0.2,
    "contrast": 0.2,
    "blur": 1.5,
    "noise": 0.05,
    "horizontal_flip": 0.5,
    "gamma": 0.3,
    "cutout": 0.2,
}

seeds = st.integers(0, 2**63 - 1)


@st.composite
def boxes_on_canvas(draw: st.DrawFn) -> np.ndarray:
    """Up to five boxes of at least 3 px, some of them on the border."""
    boxes = []
    for _ in range(draw(st.integers(0, 5))):
        x1 = draw(st.integers(0, WIDTH - 3))
        y1 = draw(st.integers(0, HEIGHT - 3))
        x2 = draw(st.integers(x1 + 3, WIDTH))
        y2 = draw(st.integers(y1 + 3, HEIGHT))
        boxes.append((x1, y1, x2, y2))
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def chain(**settings_: Any) -> Augmentation:
    built = build_augmentation(**settings_)
    assert built is not None
    return built


def noise_image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8)


FLIP = chain(horizontal_flip=1.0)
ALL = chain(**EVERYTHING)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(boxes=boxes_on_canvas(), seed=seeds)
def test_two_flips_give_back_image_and_boxes(boxes, seed):
    pixels = noise_image()
    once = FLIP.apply(pixels, boxes, seed)
    twice = FLIP.apply(once[0], once[1], seed)
    np.testing.assert_array_equal(once[0], pixels[:, ::-1])
    np.testing.assert_array_equal(twice[0], pixels)
    np.testing.assert_allclose(twice[1], boxes, atol=1e-3)
    np.testing.assert_array_equal(twice[2], np.arange(len(boxes)))


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, WIDTH, HEIGHT),
        (0, 0, 5, 5),
        (WIDTH - 5, HEIGHT - 5, WIDTH, HEIGHT),
        (WIDTH - 2, 0, WIDTH, HEIGHT),
    ],
)
def test_box_on_the_border_survives_flip(box):
    _, boxes, kept, _ = FLIP.apply(noise_image(), np.array([box], float), seed=3)
    x1, y1, x2, y2 = box
    assert kept.tolist() == [0]
    np.testing.assert_allclose(boxes, [[WIDTH - x2, y1, WIDTH - x1, y2]], atol=1e-3)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(boxes=boxes_on_canvas(), seed=seeds)
def test_boxes_stay_inside_and_in_order(boxes, seed):
    pixels, moved, kept, _ = ALL.apply(noise_image(), boxes, seed)
    assert pixels.shape == (HEIGHT, WIDTH)
    assert pixels.dtype == np.uint8
    assert moved.shape == (len(kept), 4)
    assert moved.dtype == np.float32
    assert kept.dtype == np.int64
    assert (np.diff(kept) > 0).all()
    assert (moved >= 0).all()
    assert (moved <= [WIDTH, HEIGHT, WIDTH, HEIGHT]).all()
    assert (moved[:, 2:] - moved[:, :2] >= MIN_SIDE - 0.02).all()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=seeds, other=seeds)
def test_the_seed_alone_decides(seed, other):
    boxes = np.array([[10.0, 10.0, 60.0, 60.0]])
    first = ALL.apply(noise_image(), boxes, seed)
    ALL.apply(noise_image(1), None, other)  # whatever happens in between
    for again in (
        ALL.apply(noise_image(), boxes, seed),
        chain(**EVERYTHING).apply(noise_image(), boxes, seed),
    ):
        for one, two in zip(first, again, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("first", [0, 2**40])
def test_different_seeds_differ(first):
    images = {ALL.apply(noise_image(), None, first + n)[0].tobytes() for n in range(20)}
    assert len(images) == 20


@pytest.mark.parametrize(
    "settings_", [{"shift": 0.1}, {"scale": 0.3}, {"scale": 0.2, "shift": 0.1}]
)
def test_box_moves_with_the_lesion(settings_):
    pixels = np.zeros((200, 300), np.uint8)
    pixels[80:130, 100:190] = 255
    for seed in range(20):
        changed, boxes, *_ = chain(**settings_).apply(
            pixels, np.array([[100.0, 80.0, 190.0, 130.0]]), seed
        )
        rows, columns = np.nonzero(changed > 127)
        drawn = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(boxes[0], drawn, atol=0.51)


def test_box_of_a_turned_ellipse_stays_tight():
    y, x = np.mgrid[:200, :300] + 0.5
    pixels = (((x - 140) / 50) ** 2 + ((y - 90) / 25) ** 2 <= 1).astype(np.uint8) * 255
    for seed in range(20):
        changed, boxes, *_ = chain(rotate_degrees=40).apply(
            pixels, np.array([[90.0, 65.0, 190.0, 115.0]]), seed
        )
        rows, columns = np.nonzero(changed > 127)
        drawn = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(boxes[0], drawn, atol=1.5)


def test_scaling_keeps_the_shape_of_the_heart():
    box = np.array([[140.0, 90.0, 160.0, 110.0]])
    for seed in range(20):
        changed = chain(scale=0.5).apply(np.zeros((200, 300), np.uint8), box, seed)
        x1, y1, x2, y2 = changed.boxes[0]
        assert x2 - x1 == pytest.approx(y2 - y1, abs=1e-3)


def test_box_mostly_out_of_the_image_is_dropped_and_the_rest_clipped():
    corner = np.array([[0.0, 0.0, 10.0, 10.0], [40.0, 30.0, 80.0, 60.0]])
    seen = set()
    for seed in range(40):
        _, boxes, kept, _ = chain(shift=0.3).apply(noise_image(), corner, seed)
        assert 1 in kept
        seen.add(tuple(kept.tolist()))
        for box, row in zip(boxes, kept, strict=True):
            left = (box[2] - box[0]) * (box[3] - box[1])
            whole = np.prod(corner[row, 2:] - corner[row, :2])
            assert left >= 0.3 * whole - 1
    assert seen == {(0, 1), (1,)}


def test_no_augmentation_leaves_the_image_unchanged():
    assert build_augmentation() is None


def test_hearts_are_not_mirrored_unless_asked():
    left = np.zeros((64, 64), np.uint8)
    left[:, :20] = 200
    settings_ = {**EVERYTHING, "horizontal_flip": 0.0, "noise": 0, "shift": 0.05}
    for seed in range(30):
        changed = chain(**settings_).apply(left, None, seed)[0].astype(int)
        assert changed[:, :32].sum() > changed[:, 32:].sum()


_MOVES = {"rotate_degrees": 20.0, "scale": 0.3, "shift": 0.2, "horizontal_flip": 0.5}
_GREYS = {"brightness": 0.2, "contrast": 0.2}


def draws(ours: Augmentation, seed: int, width: int, height: int) -> Any:
    """What `apply` draws: the move; what greys are multiplied by, and what is added."""
    rng = random.Random(seed)  # noqa: S311
    return ours.draw_move(rng, width, height), ours.draw_greys(rng)


@pytest.mark.parametrize("stretch", [False, True])
def test_images_and_boxes_are_what_albumentations_makes_of_the_same_draws(stretch):
    import albumentations  # after augment.py, which keeps it from asking the network

    ours = chain(**_MOVES, **_GREYS, stretch=stretch)
    rng = np.random.default_rng(0)
    far = 0
    kept = []
    for seed in range(60):
        pixels = noise_image(seed)
        corners = rng.uniform(0, [WIDTH - 8, HEIGHT - 8], (4, 2))
        boxes = np.hstack([corners, corners + rng.uniform(3, 8, (4, 2))])
        move, (contrast, brightness) = draws(ours, seed, WIDTH, HEIGHT)
        oracle = albumentations.Compose(
            [
                albumentations.HorizontalFlip(p=float(move.mirrored)),
                albumentations.Affine(
                    scale={"x": (move.scale_x,) * 2, "y": (move.scale_y,) * 2},
                    rotate=(move.degrees,) * 2,
                    translate_px={"x": (move.shift_x,) * 2, "y": (move.shift_y,) * 2},
                    rotate_method="ellipse",
                    p=1.0,
                ),
                albumentations.RandomBrightnessContrast(
                    (brightness / 255,) * 2, (contrast - 1,) * 2, p=1.0
                ),
            ],
            bbox_params=albumentations.BboxParams(
                "pascal_voc",
                ["rows"],
                min_visibility=MIN_VISIBLE,
                min_width=MIN_SIDE,
                min_height=MIN_SIDE,
            ),
        )(image=pixels, bboxes=boxes, rows=np.arange(4))
        changed = ours.apply(pixels, boxes, seed)
        far += int((np.abs(changed.pixels.astype(int) - oracle["image"]) > 1).sum())
        assert changed.kept.tolist() == list(oracle["rows"])
        np.testing.assert_allclose(changed.boxes, oracle["bboxes"], atol=0.01)
        kept += changed.kept.tolist()
    assert far <= 1e-5 * 60 * WIDTH * HEIGHT
    assert 60 < len(kept) < 4 * 60, "some boxes are dropped, not all"


# Kept, so that a training that is repeated or resumed with a later version sees the same images.
_OF_A_SEED = {
    7: (
        [[0, 51, 0], [0, 142, 198], [0, 21, 78]],
        [[17.817, 8.438, 62.58, 53.2], [77.049, 34.768, 111.342, 79.321]],
    ),
    2**40 + 5: (
        [[39, 39, 39], [39, 200, 255], [39, 255, 115]],
        [[19.372, 16.682, 65.901, 63.211], [84.709, 34.649, 120.0, 81.177]],
    ),
}


@pytest.mark.parametrize("seed", list(_OF_A_SEED))
def test_images_of_a_configuration_and_seed_stay_what_they_were(seed):
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = ((x * 2 + y * 3) % 256).astype(np.uint8)
    small = chain(rotate_degrees=10.0, scale=0.15, shift=0.08, brightness=0.2, contrast=0.2)
    given_boxes = np.array([[10.0, 10.0, 60.0, 60.0], [80.0, 30.0, 118.0, 80.0]])
    changed, boxes, *_ = small.apply(pixels, given_boxes, seed)
    np.testing.assert_allclose(changed[::30, ::40], _OF_A_SEED[seed][0], atol=1)
    np.testing.assert_allclose(boxes, _OF_A_SEED[seed][1], atol=2e-3)


def test_each_draw_is_even_over_its_range_and_follows_no_other():
    ours = chain(**_MOVES, **_GREYS, stretch=True)
    drawn = []
    for seed in range(2000):
        move, greys = draws(ours, seed, 1000, 1000)
        drawn.append([*move, *greys])
    table = np.array(drawn, dtype=float)
    assert np.abs(np.corrcoef(table.T) - np.eye(table.shape[1])).max() < 0.1
    assert table[:, 0].mean() == pytest.approx(0.5, abs=0.04)
    for column, low, high in (
        (1, 0.7, 1.3),
        (2, 0.7, 1.3),
        (3, -20, 20),
        (4, -200, 200),
        (5, -200, 200),
        (6, 0.8, 1.2),
        (7, -51, 51),
    ):
        assert kstest((table[:, column] - low) / (high - low), "uniform").pvalue > 1e-4, column


def test_threads_that_share_an_augmentation_get_what_one_gets_alone():
    boxes = np.array([[10.0, 10.0, 60.0, 60.0]])

    def images(_: int) -> list[bytes]:
        return [ALL.apply(noise_image(), boxes, seed).pixels.tobytes() for seed in range(40)]

    alone = images(0)
    with ThreadPoolExecutor(4) as threads:
        assert all(shared == alone for shared in threads.map(images, range(4)))


def test_stretching_draws_width_and_height_apart_within_one_range():
    box = np.array([[50.0, 35.0, 70.0, 55.0]])
    sides = np.array(
        [
            [x2 - x1, y2 - y1]
            for seed in range(200)
            for x1, y1, x2, y2 in chain(scale=0.2, stretch=True).apply(noise_image(), box, seed)[1]
        ]
    )
    assert sides.min() >= 16 - 0.01
    assert sides.max() <= 24 + 0.01
    ratios = sides[:, 0] / sides[:, 1]
    assert ratios.min() < 0.8
    assert ratios.max() > 1.25
    assert abs(np.corrcoef(sides.T)[0, 1]) < 0.2


def test_gamma_keeps_black_white_and_the_order_of_greys():
    ramp = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
    middles = set()
    for seed in range(20):
        changed = chain(gamma=0.5).apply(ramp, None, seed).pixels
        assert changed[0, [0, 255]].tolist() == [0, 255]
        assert (np.diff(changed[0].astype(int)) >= 0).all()
        middles.add(int(changed[0, 128]))
    low, high = (255 * (128 / 255) ** power for power in (1.5, 1 / 1.5))
    assert low - 1 <= min(middles) < 128 < max(middles) <= high + 1


def test_a_box_goes_when_a_hole_covers_most_of_it_and_stays_as_it_is_otherwise():
    given_boxes = np.array([[10.3, 10.2, 40.7, 40.6], [60.5, 30.5, 66.5, 36.5]])
    white = np.full((HEIGHT, WIDTH), 255, np.uint8)
    gone = 0
    for seed in range(200):
        changed, boxes, kept, counts = chain(cutout=0.5).apply(white, given_boxes, seed)
        np.testing.assert_array_equal(boxes, given_boxes[kept].astype(np.float32))
        for row, (x1, y1, x2, y2) in enumerate(given_boxes.astype(int)):
            seen = (changed[y1 : y2 + 1, x1 : x2 + 1] == 255).mean()
            assert (row in kept) == (seen >= 0.3), (seed, row)
        assert counts == DroppedBoxes(2, covered=2 - len(kept))
        gone += counts.total
    assert gone > 5


def test_each_dropped_box_is_counted_under_its_reason():
    corner = [0.0, 0.0, 10.0, 10.0]
    tiny = [50.0, 40.0, 53.0, 43.0]
    for box, settings_, reason in (
        (corner, {"shift": 0.3}, DroppedBoxes(1, outside=1)),
        (tiny, {"scale": 0.5}, DroppedBoxes(1, small=1)),
    ):
        counts = {
            chain(**settings_).apply(noise_image(), np.array([box]), seed).dropped
            for seed in range(40)
        }
        assert counts == {DroppedBoxes(1), reason}


def test_boxes_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(N, 4\)"):
        FLIP.apply(noise_image(), np.zeros((2, 5)), seed=0)


def test_albumentations_is_kept_from_the_network_before_it_is_imported():
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"
    source = inspect.getsource(sys.modules[Augmentation.__module__])
    assert source.index('os.environ["NO_ALB') < source.index("\nimport albumentations")


def darker(image: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    return (image * draw.uniform(0.2, 0.8)).astype(np.uint8)


def cropped(image: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    return image[1:]


def broken(image: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    raise KeyError("grey")


def test_a_function_of_the_users_own_changes_grey_values_by_its_seed_and_no_box():
    augmentation = chain(function=f"{__name__}:darker")
    image, boxes = noise_image(), np.array([[3.0, 4.0, 30.0, 40.0]])
    first, same, other = (augmentation.apply(image, boxes, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.pixels, same.pixels)
    assert not np.array_equal(first.pixels, other.pixels)
    assert first.pixels.mean() < image.mean()
    assert first.boxes.tolist() == boxes.tolist()


@pytest.mark.parametrize(
    ("name", "message"), [("cropped", "uint8"), ("broken", "KeyError: 'grey'")]
)
def test_a_function_of_the_users_own_that_fails_is_named(name, message):
    augmentation = chain(function=f"{__name__}:{name}")
    with pytest.raises(InputError, match=f"{name}: .*{message}"):
        augmentation.apply(noise_image(), None, 0)
