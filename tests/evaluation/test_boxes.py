"""Boxes: figures against pycocotools and plain loops, also under weights; points, errors, maps."""

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.mask import iou as coco_iou
from torchvision.ops import box_iou as torch_iou

from cxr_compare import InputError, metrics
from tests.adapters import boxes as kernels
from tests.adapters import figures as product
from tests.oracles import boxes as oracles

CELL = st.integers(0, 4)
BOX = st.tuples(st.integers(0, 3), CELL, CELL, st.integers(1, 3), st.integers(1, 3))
IMAGES = [f"i{number}" for number in range(4)]


def with_crowds(boxes, truth, images, weights):
    """AP if every second true box is a crowd."""
    return kernels.weighted_ap(boxes, truth, images, weights, np.arange(len(truth)) % 2 > 0).mean()


FIGURES = {
    "ap with crowds": (
        with_crowds,
        lambda boxes, truth, ids: oracles.average_precision(boxes, truth[::2], ids, truth[1::2])[1],
    ),
    "ap50": (kernels.weighted_ap, lambda *rows: oracles.average_precision(*rows)[0]),
    "froc": (kernels.weighted_froc, oracles.froc),
}


def test_overlap_is_torchvisions_and_pycocotools_and_counted_by_hand():
    random = np.random.default_rng(0)
    centre, half = random.uniform(0.3, 0.7, (50, 2)), random.uniform(0.08, 0.25, (50, 2))
    corners = np.hstack([centre - half, centre + half])
    found = kernels.box_iou(corners[:, None], corners)
    theirs = torch_iou(torch.from_numpy(corners), torch.from_numpy(corners)).numpy()
    np.testing.assert_allclose(found, theirs, rtol=1e-12)
    sides = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])
    np.testing.assert_allclose(found, coco_iou(sides, sides, [0] * 50), rtol=1e-12)
    boxes = np.array([[0.0, 0, 2, 2], [1, 1, 1, 1], [5, 5, 6, 6], [0, 0, 2, 1]])
    assert kernels.box_iou(boxes, boxes[0]).tolist() == [1.0, 0.0, 0.0, 0.5]
    assert kernels.box_iou(boxes[1], boxes[1]) == 0.0  # without area nothing is shared


def rows_on_a_grid(boxes):
    """Boxes on a grid of 8 px, where equal overlaps are common."""
    return [[f"i{i}", 8 * x, 8 * y, 8 * (x + w), 8 * (y + h)] for i, x, y, w, h in boxes]


@pytest.mark.parametrize("name", FIGURES)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.lists(BOX, min_size=1, max_size=7),
    st.lists(BOX, min_size=1, max_size=12),
    st.lists(st.integers(0, 3), min_size=4, max_size=4).filter(any),
)
def test_a_figure_under_weights_is_that_of_repeated_images(name, true, predicted, weights):
    # No two boxes score alike: repeats of a tie would rank in another order.
    scores = np.linspace(0.9, 0.1, len(predicted)).tolist()
    boxes = [[*row, score] for row, score in zip(rows_on_a_grid(predicted), scores, strict=True)]
    truth = rows_on_a_grid(true)
    repeated = [image for image, w in zip(IMAGES, weights, strict=True) for _ in range(w)]
    weighted, loop = FIGURES[name]
    found = np.ravel(weighted(boxes, truth, IMAGES, weights))
    expected = np.ravel(np.array(loop(boxes, truth, repeated), float))
    np.testing.assert_allclose(found[: expected.size], expected, atol=1e-9)


def test_every_called_box_and_every_lesion_has_one_kind_of_error():
    truth = [["a", 0, 0, 10, 10], ["a", 50, 50, 60, 60], ["a", 80, 80, 90, 90], ["b", 0, 0, 10, 10]]
    boxes = [
        ["a", 0, 0, 10, 9, 0.9],  # takes the first lesion
        ["a", 0, 0, 10, 8, 0.8],  # the same lesion again: duplicate
        ["a", 50, 50, 55, 58, 0.7],  # IoU 0.4 with the second: a poor box
        ["a", 30, 0, 40, 10, 0.6],  # nothing there: background
        ["b", 0, 0, 10, 10, 0.2],  # below the threshold: its lesion is missed
        ["c", 0, 0, 10, 10, 0.5],  # at the threshold, on an image without lesions: background
        ["b", 0, 9, 10, 19, 0.5],  # IoU 0.05: background
    ]
    assert kernels.error_types(boxes, truth, ["a", "b", "c"], 0.5) == {
        "lesions": [3, 1, 0],
        "found": [1, 0, 0],
        "poorly_boxed": [1, 0, 0],
        "missed": [1, 1, 0],
        "poor_box": [1, 0, 0],
        "duplicate": [1, 0, 0],
        "background": [1, 1, 1],
    }


def maps_of(*grids, frame=(0.0, 0.0, 80.0, 80.0)):
    """A table of maps of images i0, i1, ..., which cover the frame (x1, y1, x2, y2) in px."""
    rows = [
        (f"i{number}", *np.shape(grid), np.asarray(grid, float).ravel(), *frame)
        for number, grid in enumerate(grids)
    ]
    columns = ["image_id", "grid_h", "grid_w", "values", "x1", "y1", "x2", "y2"]
    return pd.DataFrame(rows, columns=columns)


def test_a_map_is_upsampled_as_by_opencv_and_its_peak_is_the_highest_cell():
    grid = np.random.default_rng(1).normal(size=(7, 7)).astype(np.float32)
    expected = cv2.resize(grid, (56, 56), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(kernels.upsample(grid, 8), expected, atol=1e-5)
    maps = maps_of([[0, 1], [0, 0]], frame=(-20.0, 0.0, 60.0, 80.0))  # beyond the image, too
    peaks = kernels.map_peaks(maps, pd.Index(["i0", "none"]))
    assert peaks.loc["i0"].tolist() == [40.0, 20.0]
    assert peaks.loc["none"].isna().all()


def test_boxes_are_cut_from_maps_by_one_scale_or_by_their_own_range():
    grid = np.zeros((8, 8))
    grid[1:3, 1:3], grid[6, 5] = 4.0, 2.0
    flat, faint = np.full((8, 8), 3.0), np.eye(8) * 0.05  # 0.05 is 1.25 % of the scale
    scores = pd.Series({"i0": 0.8, "i1": 0.9, "i2": 0.9})
    cut = kernels.map_boxes(maps_of(grid), scores, 4.0, 0.4)
    assert cut["score"].tolist() == pytest.approx([0.8, 0.8 * 2 * (15 / 16) ** 2 / 4])
    first = cut[["x1", "y1", "x2", "y2"]].iloc[0]
    np.testing.assert_allclose(first, [10, 10, 30, 30], atol=2)
    of_range = maps_of(grid, flat, faint)
    own = kernels.map_boxes(of_range, scores, 4.0, 0.4, relative=True, most=1)
    assert own["image_id"].tolist() == ["i0"]
    above = kernels.map_boxes(maps_of([[50.0]]), scores, 5.0, 0.5)
    assert above["score"].tolist() == [0.8]  # beyond the scale: no more than its image
    assert kernels.map_boxes(maps_of(), scores, 5.0, 0.5).empty
    for score, n_boxes in ((0.001, 1), (0.00099, 0)):  # one of at least 0.001 is left
        weak = pd.Series({"i0": score})
        assert len(kernels.map_boxes(maps_of([[5.0]]), weak, 5.0, 0.5)) == n_boxes


CORNERS = ["x1", "y1", "x2", "y2"]


def simulate(seed, n_images=16, decimals=None, jitter=3.0, most_false=4):
    """Lesions on a third of the images, jittered predictions of them, and false boxes."""
    rng = np.random.default_rng(seed)
    ids = [f"i{number:03d}" for number in range(n_images)]
    truth, predicted = [], []
    for image in ids:
        for _ in range(rng.integers(1, 4) if rng.random() < 1 / 3 else 0):
            x, y, w, h = rng.uniform([0, 0, 20, 20], [60, 60, 40, 40])
            truth.append((image, x, y, x + w, y + h))
            for _ in range(rng.integers(0, 3)):
                dx, dy = rng.normal(0, jitter, 2)
                predicted.append((image, x + dx, y + dy, x + w + dx, y + h + dy, rng.beta(4, 2)))
        for _ in range(rng.integers(0, most_false + 1)):
            x, y, w, h = rng.uniform([0, 0, 10, 10], [60, 60, 40, 40])
            predicted.append((image, x, y, x + w, y + h, rng.beta(1, 3)))
    boxes = pd.DataFrame(predicted, columns=["image_id", *CORNERS, "score"])
    if decimals is not None:
        boxes["score"] = boxes["score"].round(decimals)
    return boxes, pd.DataFrame(truth, columns=["image_id", *CORNERS]), ids


def rows(table):
    return table.to_numpy(object).tolist()


def as_loops(boxes, truth):
    return rows(boxes[["image_id", *CORNERS, "score"]]), rows(truth[["image_id", *CORNERS]])


# Average precision


@pytest.mark.parametrize("n_crowded", [0, 12], ids=["no crowds", "crowds"])
@pytest.mark.parametrize("decimals", [None, 1])
def test_average_precision_of_drawn_sets_is_that_of_pycocotools(decimals, n_crowded):
    for seed in range(15):
        boxes, truth, ids = simulate(seed, 12, decimals)
        crowds = simulate(seed + 100, n_crowded)[1]
        crowded = boxes.sample(120, replace=True, random_state=seed)  # more than count
        boxes = pd.concat([boxes, crowded.assign(image_id=ids[seed % 12])], ignore_index=True)
        listed = [*ids[2:], "empty"]  # boxes of the first two are of no image of the set
        expected = oracles.average_precision(*as_loops(boxes, truth), listed, rows(crowds))
        marked = pd.concat([truth.assign(crowd=False), crowds.assign(crowd=True)])
        found = metrics.box_average_precision(boxes, marked, listed)
        assert found["ap50"] == expected[0]
        assert found["ap"] == pytest.approx(expected[1], rel=0, abs=1e-15)


def on_a_grid(boxes):
    """Boxes on a grid of 8 px, where equal overlaps are common."""
    corners = [(f"i{i}", 8.0 * x, 8.0 * y, 8.0 * (x + w), 8.0 * (y + h)) for i, x, y, w, h in boxes]
    return pd.DataFrame(corners, columns=["image_id", *CORNERS])


def test_crowds_are_ignored_as_by_pycocotools_in_each_form_of_their_column():
    boxes, truth, ids = simulate(0, 60, jitter=4, most_false=5)
    crowd = np.random.default_rng(0).random(len(truth)) < 0.3
    expected = oracles.average_precision(
        *as_loops(boxes, truth[~crowd]), ids, rows(truth[crowd][["image_id", *CORNERS]])
    )
    marked = truth.assign(crowd=crowd)
    as_text = marked.assign(crowd=crowd.astype(int).astype(str))
    as_named_by_coco = marked.rename(columns={"crowd": "iscrowd"})
    for same in (marked, as_text, as_named_by_coco):
        found = metrics.box_average_precision(boxes, same, ids)
        assert (found["ap50"], found["ap"]) == pytest.approx(expected, abs=1e-12)
        with pytest.raises(InputError):
            metrics.froc(boxes, same, ids)
        with pytest.raises(InputError):
            metrics.rsna_score(boxes, same, ids, threshold=0.3)
    plain = metrics.box_average_precision(boxes, truth, ids)
    assert plain["ap"] != pytest.approx(expected[1])


# FROC and the scores of two challenges


@pytest.mark.parametrize("decimals", [None, 1])
def test_froc_at_each_rate_and_its_curve_equal_a_plain_loop(decimals):
    boxes, truth, ids = simulate(1, 30, decimals=decimals)
    expected = oracles.froc(*as_loops(boxes, truth), ids)
    once = np.ones((1, len(ids)), int)
    found = product.box_figures(boxes, truth, ids, np.arange(len(ids)), once)
    named = ["froc_mean", *(f"froc_at_{rate}" for rate in product.FROC_RATES)]
    assert [found[name][0] for name in named] == pytest.approx(expected, abs=1e-12)
    points = list(zip(*metrics.froc(boxes, truth, ids), strict=True))
    for rate, value in zip(product.FROC_RATES.values(), expected[1:], strict=True):
        assert max(s for f, s in points if f <= rate) == pytest.approx(value)
    assert points[0] == (0, 0)
    assert points[-1][0] * len(ids) == pytest.approx(len(boxes) - hitting(boxes, truth))


def hitting(boxes, truth):
    """Number of boxes that hit a lesion."""
    true = [(row[0], row[1:]) for row in rows(truth)]
    return sum(
        any(image == row[0] and oracles.finds(row[1:5], lesion) for image, lesion in true)
        for row in rows(boxes)
    )


@pytest.mark.parametrize("decimals", [None, 1])
def test_scores_of_challenges_equal_plain_loops(decimals):
    boxes, truth, ids = simulate(1, 30, decimals=decimals)
    loops = as_loops(boxes, truth)
    for cut in (0.1, 0.35, 0.6):
        found = metrics.rsna_score(boxes, truth, ids, threshold=cut)
        assert found == pytest.approx(oracles.rsna(*loops, ids, cut), abs=1e-12)


def one_lesion(*boxes):
    """Boxes ``(image, x2, score)`` with one lesion 0, 0, 10, 10 on image a and none on b."""
    columns = ["image_id", *CORNERS]
    true = pd.DataFrame([("a", 0.0, 0.0, 10.0, 10.0)], columns=columns)
    called = [(image, 0.0, 0.0, x2, 10.0, score) for image, x2, score in boxes]
    return pd.DataFrame(called, columns=[*columns, "score"]), true, ["a", "b"]


@pytest.mark.parametrize(
    ("marks", "rsna"),
    [
        ([("a", 10.0, 0.9)], 1),
        ([("a", 4.0, 0.9)], 0),  # an IoU of 0.4 is none above 0.4
        ([("a", 5.0, 0.9)], 2 / 8),  # 0.5 is above 0.40 and 0.45, and not above 0.50
        ([("a", 10.0, 0.4), ("b", 10.0, 0.9)], 0),
        ([("a", 10.0, 0.9), ("b", 10.0, 0.4)], 1),  # RSNA: nothing is called on b
        ([("a", 10.0, 0.9), ("a", 9.0, 0.8)], 1 / 2),  # after the last lesion: no matter
        ([("a", 10.0, 0.8), ("b", 10.0, 0.8)], 1 / 2),  # both are equally sure to be healthy
        ([], 0),
    ],
)
def test_the_score_of_a_challenge_of_hand_counted_marks(marks, rsna):
    given = one_lesion(*marks)
    assert metrics.rsna_score(*given, threshold=0.5) == pytest.approx(rsna)


def test_a_threshold_that_is_no_number_is_refused():
    columns = ["image_id", *CORNERS]
    true = pd.DataFrame([("a", 0, 0, 10, 10)], columns=columns)
    with pytest.raises(InputError, match="threshold"):
        metrics.rsna_score(true.assign(score=0.9), true, ["a"], threshold=np.nan)


# Scores and points of images


def test_the_rule_of_map_boxes_is_the_best_by_froc_and_then_ap50_in_each_resample():
    systems = [simulate(seed, 15, jitter=jitter)[0] for seed, jitter in ((1, 3), (1, 9), (2, 2))]
    _, truth, ids = simulate(1, 15)
    rules = [(boxes, truth, pd.Index(ids)) for boxes in [*systems, systems[0]]]
    patients = np.arange(15) // 2
    weights = np.random.default_rng(3).multinomial(8, np.ones(8) / 8, size=12)
    found = product.best_rule(rules, weights, patients)
    for row, chosen in zip(weights, found, strict=True):
        repeated = [i for i, p in zip(ids, patients, strict=True) for _ in range(row[p])]
        figures = []
        for boxes, *_ in rules:
            loops = as_loops(boxes, truth)
            froc = oracles.froc(*loops, repeated)[0] or 0.0
            ap50 = oracles.average_precision(*loops, repeated)[0] or 0.0
            figures.append((round(froc, 9), round(ap50, 9)))
        assert chosen == figures.index(max(figures))
    assert len(set(found.tolist())) > 1


def test_the_101st_box_of_an_image_finds_nothing():
    lesion = pd.DataFrame({"image_id": ["a"], "x1": [0.0], "y1": [0.0], "x2": [10.0], "y2": [10.0]})
    false = lesion.assign(x1=50.0, y1=50.0, x2=60.0, y2=60.0, score=0.9)
    hit = lesion.assign(score=0.5)
    for count, found in ((99, 1.0), (100, 0.0)):
        boxes = pd.concat([*[false] * count, hit], ignore_index=True)
        assert metrics.froc(boxes, lesion, ["a"]).sensitivity[-1] == found


def test_boxes_of_two_classes_are_refused_even_where_the_truth_names_none():
    lesion = pd.DataFrame({"image_id": ["a"], "x1": [0.0], "y1": [0.0], "x2": [10.0], "y2": [10.0]})
    boxes = pd.concat([lesion.assign(score=0.9, finding=name) for name in ("mass", "nodule")])
    for figure in (metrics.froc, metrics.box_average_precision):
        with pytest.raises(InputError) as refused:
            figure(boxes, lesion, ["a"])
        assert all(name in str(refused.value) for name in ("mass", "nodule"))
