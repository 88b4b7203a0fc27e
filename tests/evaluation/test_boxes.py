"""Boxes: figures against pycocotools and plain loops, also under weights; points, errors, maps."""

import contextlib
import io

import cv2
import numpy as np
import pandas as pd
import pytest
import supervision
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
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
    assert peaks.loc["i0"].tolist() == [40.0, 20.0, 1.0]
    assert peaks.loc["none"].isna().all()


def test_boxes_are_cut_from_maps_by_one_scale_or_by_their_own_range():
    grid = np.zeros((8, 8))
    grid[1:3, 1:3], grid[6, 5] = 4.0, 2.0
    flat, faint = np.full((8, 8), 3.0), np.eye(8) * 0.05  # 0.05 is 1.25 % of the scale
    scores = pd.Series({"i0": 0.8, "i1": 0.9, "i2": 0.9})
    cut = kernels.map_boxes(maps_of(grid), scores, (0.0, 4.0), 0.4)
    assert cut["score"].tolist() == pytest.approx([0.8, 0.8 * 2 * (15 / 16) ** 2 / 4])
    first = cut[["x1", "y1", "x2", "y2"]].iloc[0]
    np.testing.assert_allclose(first, [10, 10, 30, 30], atol=2)
    of_range = maps_of(grid, flat, faint)
    own = kernels.map_boxes(of_range, scores, (0.0, 4.0), 0.4, relative=True, most=1)
    assert own["image_id"].tolist() == ["i0"]
    above = kernels.map_boxes(maps_of([[50.0]]), scores, (0.0, 5.0), 0.5)
    assert above["score"].tolist() == [0.8]  # beyond the scale: no more than its image
    assert kernels.map_boxes(maps_of(), scores, (0.0, 5.0), 0.5).empty
    for score, n_boxes in ((0.001, 1), (0.00099, 0)):  # one of at least 0.001 is left
        weak = pd.Series({"i0": score})
        assert len(kernels.map_boxes(maps_of([[5.0]]), weak, (0.0, 5.0), 0.5)) == n_boxes


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
        for refused in (metrics.froc, metrics.vinbigdata_score):
            with pytest.raises(InputError):
                refused(boxes, same, ids)
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
    found = metrics.vinbigdata_score(boxes, truth, ids)
    assert found == pytest.approx(oracles.vinbigdata(*loops, ids), abs=1e-12)
    assert 0 < found < 1


def test_both_parts_of_the_vinbigdata_score_equal_pycocotools_at_every_recall():
    boxes, truth, ids = simulate(0)  # jittered boxes hit no second lesion, else the rules differ
    healthy = [image for image in ids if image not in set(truth["image_id"])]
    best = boxes.groupby("image_id")["score"].max().reindex(ids).fillna(0.0)
    best += np.linspace(0, 1e-9, len(ids))  # pycocotools has no steps of ties
    pixel = {"x1": 0.0, "y1": 0.0, "x2": 1.0, "y2": 1.0}
    normal = pd.DataFrame({"image_id": healthy, **pixel})
    called = pd.DataFrame({"image_id": ids, **pixel, "score": 1 - best.to_numpy()})
    parts = [at_every_recall(boxes, truth, ids), at_every_recall(called, normal, ids)]
    order = pd.DataFrame({"image_id": ids, **{c: [500.0] * len(ids) for c in CORNERS}})
    order = order.assign(x2=501.0, y2=501.0, score=best.to_numpy())
    untied = pd.concat(
        [boxes, order[best.to_numpy() < 1e-6]]
    )  # no box: a faint one, which ranks last
    assert metrics.vinbigdata_score(untied, truth, ids) == pytest.approx(np.mean(parts), abs=1e-6)


def at_every_recall(boxes, truth, ids):
    """Precision of pycocotools above an IoU of 0.4, averaged over the recalls of all true boxes."""

    def entries(table):
        for number, row in enumerate(table.itertuples(), start=1):
            size = [row.x2 - row.x1, row.y2 - row.y1]
            yield {
                "id": number,
                "image_id": ids.index(row.image_id),
                "category_id": 1,
                "bbox": [row.x1, row.y1, *size],
                "area": size[0] * size[1],
                "iscrowd": 0,
                "score": getattr(row, "score", 1.0),
            }

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        images = [{"id": number} for number in range(len(ids))]
        coco.dataset = {"images": images, "categories": [{"id": 1}]}
        coco.dataset["annotations"] = list(entries(truth))
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(list(entries(boxes))), "bbox")
        evaluator.params.iouThrs = np.array([np.nextafter(0.4, 1)])
        evaluator.params.recThrs = np.arange(1, len(truth) + 1) / len(truth)
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator.eval["precision"][0, :, 0, 0, -1].mean()


def one_lesion(*boxes):
    """Boxes ``(image, x2, score)`` with one lesion 0, 0, 10, 10 on image a and none on b."""
    columns = ["image_id", *CORNERS]
    true = pd.DataFrame([("a", 0.0, 0.0, 10.0, 10.0)], columns=columns)
    called = [(image, 0.0, 0.0, x2, 10.0, score) for image, x2, score in boxes]
    return pd.DataFrame(called, columns=[*columns, "score"]), true, ["a", "b"]


@pytest.mark.parametrize(
    ("marks", "vinbigdata", "rsna"),
    [
        ([("a", 10.0, 0.9)], 1, 1),
        ([("a", 4.0, 0.9)], 1 / 2, 0),  # an IoU of 0.4 is none above 0.4
        ([("a", 5.0, 0.9)], 1, 2 / 8),  # 0.5 is above 0.40 and 0.45, and not above 0.50
        ([("a", 10.0, 0.4), ("b", 10.0, 0.9)], 1 / 2, 0),
        ([("a", 10.0, 0.9), ("b", 10.0, 0.4)], 1, 1),  # RSNA: nothing is called on b
        ([("a", 10.0, 0.9), ("a", 9.0, 0.8)], 1, 1 / 2),  # after the last lesion: no matter
        ([("a", 10.0, 0.8), ("b", 10.0, 0.8)], 3 / 4, 1 / 2),  # both are equally sure to be healthy
        ([], 1 / 4, 0),
    ],
)
def test_scores_of_challenges_of_hand_counted_marks(marks, vinbigdata, rsna):
    given = one_lesion(*marks)
    assert metrics.vinbigdata_score(*given) == pytest.approx(vinbigdata)
    assert metrics.rsna_score(*given, threshold=0.5) == pytest.approx(rsna)


def test_in_the_vinbigdata_score_a_box_matches_no_second_best_lesion():
    columns = ["image_id", *CORNERS]
    true = pd.DataFrame([("a", 0, 0, 10, 10), ("a", 4, 0, 14, 10)], columns=columns)
    called = [("a", 0, 0, 10, 10, 0.9), ("a", 1, 0, 11, 10, 0.8)]  # IoU 0.54 with the second lesion
    boxes = pd.DataFrame(called, columns=[*columns, "score"])
    assert metrics.vinbigdata_score(boxes, true, ["a", "b"]) == pytest.approx((1 / 2 + 1) / 2)


# Confusion of findings

MASS, NODULE = ("a", 0, 0, 10, 10, "mass"), ("a", 0, 2, 10, 12, "nodule")  # their IoU is 2 / 3


def confusion_of(boxes, truth, ids=("a", "b"), threshold=0.5):
    """Numbers of the confusion matrix as rows, each of a true finding."""
    true = pd.DataFrame(truth, columns=["image_id", *CORNERS, "finding"])
    called = pd.DataFrame(boxes, columns=["image_id", *CORNERS, "score", "finding"])
    return metrics.box_confusion(called, true, ids, threshold=threshold)


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        # Rows and columns are mass, nodule and background.
        ([("a", 0, 0, 10, 10, 0.9, "mass")], [[1, 0, 0], [0, 0, 1], [0, 0, 0]]),
        ([("a", 0, 0, 10, 10, 0.5, "Mass")], [[1, 0, 0], [0, 0, 1], [0, 0, 0]]),
        ([("a", 0, 0, 10, 10, 0.4, "mass")], [[0, 0, 1], [0, 0, 1], [0, 0, 0]]),
        # The IoU with the mass is 1/2, which is enough, and 4/10.
        ([("a", 0, 0, 10, 5, 0.9, "mass")], [[1, 0, 0], [0, 0, 1], [0, 0, 0]]),
        ([("a", 0, 0, 10, 4, 0.9, "mass")], [[0, 0, 1], [0, 0, 1], [1, 0, 0]]),
        # A box finds the lesion of its own finding although the other one overlaps more.
        ([("a", 0, 2, 10, 12, 0.9, "mass")], [[1, 0, 0], [0, 0, 1], [0, 0, 0]]),
        # A surer box of the other finding does not take the lesion from the right one.
        (
            [("a", 0, 0, 10, 10, 0.9, "nodule"), ("a", 0, 1, 10, 11, 0.6, "mass")],
            [[1, 0, 0], [0, 1, 0], [0, 0, 0]],
        ),
        # The second box of the mass is left, and so is the nodule: it is mistaken for a mass.
        (
            [("a", 0, 0, 10, 10, 0.9, "mass"), ("a", 0, 1, 10, 11, 0.8, "mass")],
            [[1, 0, 0], [1, 0, 0], [0, 0, 0]],
        ),
        # The surer box takes the mass, although the other one overlaps it more.
        (
            [("a", 0, 0, 10, 6, 0.9, "mass"), ("a", 0, 0, 10, 10, 0.8, "mass")],
            [[1, 0, 0], [1, 0, 0], [0, 0, 0]],
        ),
        # The third box has no lesion left, the fourth has none on its image.
        (
            [("a", 0, 1, 10, 11, score, "mass") for score in (0.9, 0.8, 0.7)]
            + [("b", 0, 0, 10, 10, 0.9, "nodule")],
            [[1, 0, 0], [1, 0, 0], [1, 1, 0]],
        ),
    ],
)
def test_a_hand_counted_confusion_matrix(boxes, expected):
    found = confusion_of(boxes, [MASS, NODULE])
    assert found.to_numpy().tolist() == expected
    assert [*found.index] == [*found.columns] == ["mass", "nodule", "background"]


def test_of_lesions_of_equal_overlap_the_later_one_is_matched_as_in_coco():
    lesions = [("a", 0, 0, 10, 10, "mass"), ("a", 0, 4, 10, 14, "mass")]
    boxes = [("a", 0, 2, 10, 12, 0.9, "mass"), ("a", 0, 0, 10, 8, 0.8, "mass")]
    assert confusion_of(boxes, lesions).to_numpy().tolist() == [[2, 0], [0, 0]]


def test_a_finding_that_is_only_predicted_has_an_empty_row():
    found = confusion_of([("b", 0, 0, 10, 10, 0.9, "edema")], [MASS])
    assert found.to_dict("index") == {
        "edema": {"edema": 0, "mass": 0, "background": 0},
        "mass": {"edema": 0, "mass": 0, "background": 1},
        "background": {"edema": 1, "mass": 0, "background": 0},
    }


FINDING = st.sampled_from(["edema", "mass", "nodule"])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(BOX, FINDING), max_size=8),
    st.lists(st.tuples(BOX, FINDING, st.integers(1, 5)), max_size=14),
    st.integers(1, 5),
)
def test_a_confusion_matrix_equals_a_plain_loop_and_counts_each_lesion_and_box_once(
    true, predicted, least
):
    truth = on_a_grid([box for box, _ in true]).assign(finding=[each for _, each in true])
    boxes = on_a_grid([box for box, *_ in predicted])
    boxes = boxes.assign(score=[score / 5 for *_, score in predicted])
    boxes["finding"] = [each for _, each, _ in predicted]
    cut = least / 5
    found = metrics.box_confusion(boxes, truth, IMAGES, threshold=cut)
    loop = oracles.confusion(rows(boxes), rows(truth), IMAGES, cut)
    assert found.stack()[lambda cell: cell > 0].to_dict() == dict(loop)
    called = boxes[boxes["score"] >= cut]
    assert found.loc["background", "background"] == 0
    for finding in found.index[:-1]:
        own, lesions = boxes[boxes["finding"] == finding], truth[truth["finding"] == finding]
        assert found.loc[finding].sum() == len(lesions)
        assert found[finding].sum() == (called["finding"] == finding).sum()
        alone = kernels.error_types(*as_loops(own, lesions), IMAGES, cut)  # as a report counts it
        assert found.loc[finding, finding] == sum(alone["found"])


def test_a_confusion_matrix_is_supervisions_where_scores_rank_as_overlaps_do():
    # Lesions lie apart, and no IoU is exactly 0.5; supervision ranks pairs by IoU, not by score.
    rng = np.random.default_rng(4)
    names = ["edema", "mass", "nodule"]
    outputs, targets, predictions, truth = [], [], [], []
    for _ in range(40):
        left = 100.0 * rng.permutation(6)[: rng.integers(0, 5), None]
        corners = left * [1, 0, 1, 0] + np.array([0, 0, 50, 50])
        boxes = np.repeat(corners, 2, axis=0)
        boxes = np.vstack([boxes, [[0, 200, 50, 250]]]) + rng.normal(0, 6, (len(boxes) + 1, 4))
        best = [max((oracles.iou(box, one) for one in corners), default=0.1) for box in boxes]
        scores = np.clip(best, 0.05, 1)
        true_class, called_class = rng.integers(0, 3, len(corners)), rng.integers(0, 3, len(boxes))
        targets.append({"boxes": corners, "labels": [names[k] for k in true_class]})
        labels = [names[k] for k in called_class]
        outputs.append({"boxes": boxes, "scores": scores, "labels": labels})
        truth.append(supervision.Detections(corners, class_id=true_class))
        predictions.append(supervision.Detections(boxes, None, scores, called_class))
    theirs = supervision.ConfusionMatrix.from_detections(predictions, truth, names, 0.3, 0.5)
    found = metrics.box_confusion(outputs, targets, threshold=0.3)
    np.testing.assert_array_equal(found, theirs.matrix)
    assert (found.to_numpy()[:3, :3] > 0).all()


def test_boxes_without_a_class_or_of_a_crowd_have_no_confusion_matrix():
    boxes = [("a", 0, 0, 10, 10, 0.9, "mass")]
    true = pd.DataFrame([MASS, NODULE], columns=["image_id", *CORNERS, "finding"])
    called = pd.DataFrame(boxes, columns=["image_id", *CORNERS, "score", "finding"])
    for wrong in (
        (called, true.drop(columns="finding")),
        (called.drop(columns="finding"), true),
        (called.drop(columns="score"), true),
        (called, true.assign(finding=["mass", "background"])),
        (called, true.assign(crowd=[0, 1])),
        (called.assign(finding="1"), true),
    ):
        with pytest.raises(InputError):
            metrics.box_confusion(*wrong, ["a"], threshold=0.5)
    for figure in (metrics.box_confusion, metrics.rsna_score):
        one_class = true.assign(finding="mass")
        with pytest.raises(InputError, match="threshold"):
            figure(called, one_class, ["a"], threshold=np.nan)


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
