"""Average precision against pycocotools, and by hand."""

import contextlib
import io
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.boxes.average_precision import (
    WeightedAveragePrecision,
    average_precision,
)
from cxr_compare.evaluation.boxes.froc import froc
from cxr_compare.evaluation.boxes.matching import IOU_THRESHOLDS, match_boxes
from tests.evaluation.boxes.simulated import simulate as simulate_images

CORNERS = ["x1", "y1", "x2", "y2"]
simulate = partial(simulate_images, n_images=60, jitter=4, most_false=5)


def ap_by_hand(boxes, truth, ids, repeats=None):
    """pycocotools with every known trap avoided, on repeated images."""
    repeats = np.ones(len(ids), int) if repeats is None else repeats
    images, annotations, results = [], [], []
    for image, count in zip(ids, repeats, strict=True):
        for _ in range(count):
            number = len(images) + 1
            images.append({"id": number})
            for kind, frame in ((annotations, truth), (results, boxes)):
                for row in frame[frame["image_id"] == image].itertuples():
                    w, h = row.x2 - row.x1, row.y2 - row.y1
                    kind.append(
                        {"id": len(kind) + 1, "image_id": number, "category_id": 1,
                         "iscrowd": int(getattr(row, "crowd", False)),
                         "bbox": [row.x1, row.y1, w, h], "area": w * h,
                         "score": getattr(row, "score", 1.0)}
                    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"images": images, "categories": [{"id": 1}], "annotations": annotations}
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
    precision = evaluator.eval["precision"][:, :, 0, 0, -1]
    return precision.mean(axis=1)


@pytest.mark.parametrize("seed", range(3))
def test_crowds_are_ignored_as_by_pycocotools(seed):
    boxes, truth, ids = simulate(seed)
    truth["crowd"] = np.random.default_rng(seed).random(len(truth)) < 0.3
    expected = ap_by_hand(boxes, truth, ids)
    figures = average_precision(boxes, truth, ids)
    assert figures["ap50"] == pytest.approx(expected[0], abs=1e-12)
    assert figures["ap"] == pytest.approx(expected.mean(), abs=1e-12)
    assert figures != average_precision(boxes, truth.drop(columns="crowd"), ids)
    as_text = truth.assign(crowd=truth["crowd"].astype(int).astype(str))
    as_named_by_coco = truth.rename(columns={"crowd": "iscrowd"})
    for same in (as_text, as_named_by_coco):
        assert average_precision(boxes, same, ids) == figures
    with pytest.raises(InputError, match="crowd"):
        froc(boxes, truth, ids)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("decimals", [None, 2, 1])  # rounded: many equal scores
def test_average_precision_equals_pycocotools(seed, decimals):
    boxes, truth, ids = simulate(seed, decimals=decimals)
    expected = ap_by_hand(boxes, truth, ids)
    wrapped = average_precision(boxes, truth, ids)
    assert wrapped["ap50"] == pytest.approx(expected[0], abs=1e-12)
    assert wrapped["ap"] == pytest.approx(expected.mean(), abs=1e-12)
    matches = match_boxes(boxes, truth, ids)
    vectorised = WeightedAveragePrecision(matches, np.arange(len(ids)), len(ids))
    ours = vectorised(np.ones((1, len(ids)), dtype=np.int16))[0]
    np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_no_truth_is_undefined():
    boxes, truth, ids = simulate(0)
    assert average_precision(boxes, truth.iloc[:0], ids) == {"ap50": None, "ap": None}


CELL = st.integers(0, 4)
BOX = st.tuples(st.integers(0, 3), CELL, CELL, st.integers(1, 3), st.integers(1, 3))


def grid_boxes(rows):
    """Boxes ``image, x, y, width, height`` on a grid of 8 px: equal overlaps are common."""
    corners = [(f"i{i}", 8 * x, 8 * y, 8 * (x + w), 8 * (y + h)) for i, x, y, w, h in rows]
    frame = pd.DataFrame(corners, columns=["image_id", *CORNERS])
    return frame.astype(dict.fromkeys(CORNERS, float))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(BOX, min_size=1, max_size=8),
    st.lists(st.tuples(BOX, st.integers(1, 5)), min_size=1, max_size=14),
    st.permutations(range(4)),
)
def test_both_forms_equal_plain_pycocotools_whatever_the_ties(true, scored, order):
    # Equal scores rank in the order of the images, then of the rows; 4 images, some without boxes.
    truth, ids = grid_boxes(true), pd.Index([f"i{image}" for image in order])
    boxes = grid_boxes([box for box, _ in scored]).assign(score=[score / 5 for _, score in scored])
    expected = ap_by_hand(boxes, truth, ids)
    coco = average_precision(boxes, truth, ids)
    np.testing.assert_allclose([coco["ap50"], coco["ap"]], [expected[0], expected.mean()], 0, 1e-12)
    vectorised = WeightedAveragePrecision(match_boxes(boxes, truth, ids), np.arange(4), 4)
    np.testing.assert_allclose(vectorised(np.ones((1, 4), int))[0], expected, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(BOX, min_size=1, max_size=8),
    st.lists(BOX, min_size=1, max_size=14),
    st.lists(st.integers(0, 3), min_size=4, max_size=4).filter(any),
)
def test_any_weights_equal_plain_pycocotools_on_repeated_images(true, predicted, weights):
    # No two boxes of an image score the same: repeats of a tie would be laid in another order.
    truth, ids = grid_boxes(true), pd.Index([f"i{image}" for image in range(4)])
    boxes = grid_boxes(predicted).assign(score=np.linspace(0.9, 0.1, len(predicted)))
    vectorised = WeightedAveragePrecision(match_boxes(boxes, truth, ids), np.arange(4), 4)
    (ours,) = vectorised(np.array([weights]))
    if not np.repeat(ids, weights).isin(truth["image_id"]).any():
        assert np.isnan(ours).all()
    elif not np.repeat(ids, weights).isin(boxes["image_id"]).any():
        assert (ours == 0).all()
    else:
        np.testing.assert_allclose(ours, ap_by_hand(boxes, truth, ids, weights), atol=1e-12)


def one_box_on(*images):
    rows = [(image, 0.0, 0.0, 9.0, 9.0) for image in images]
    return pd.DataFrame(rows, columns=["image_id", *CORNERS])


def test_an_image_without_boxes_costs_recall():
    # Trap 1: images without boxes left out. Half of the lesions are found: recall 0 to 0.5.
    figures = average_precision(
        one_box_on("a").assign(score=0.9), one_box_on("a", "b"), pd.Index(["a", "b", "c"])
    )
    assert figures["ap50"] == pytest.approx(51 / 101, abs=1e-12)


def test_a_system_that_finds_nothing_at_all_scores_zero():
    # Trap 2: pycocotools' loadRes fails on an empty list. The last boxes could match none.
    for boxes in (one_box_on().assign(score=[]), one_box_on("b").assign(score=0.9)):
        figures = average_precision(boxes, one_box_on("a"), pd.Index(["a", "b"]))
        assert figures == {"ap50": 0.0, "ap": 0.0}


def test_a_more_confident_box_on_a_negative_image_halves_the_precision():
    # Trap 4: negative images omitted. The find has one false box before it.
    boxes = one_box_on("a", "b").assign(score=[0.8, 0.9])
    figures = average_precision(boxes, one_box_on("a"), pd.Index(["a", "b"]))
    assert figures["ap"] == pytest.approx(0.5, abs=1e-12)
    tied = boxes.assign(score=0.8)  # the image that comes first ranks first
    both = [
        average_precision(tied, one_box_on("a"), pd.Index(list(ids)))["ap50"]
        for ids in ("ab", "ba")
    ]
    assert both == pytest.approx([1.0, 0.5], abs=1e-12)


def test_only_the_hundred_most_confident_boxes_of_an_image_count():
    boxes = one_box_on(*["a"] * 101).assign(score=np.linspace(0.9, 0.5, 101))
    boxes.loc[:99, "x1"] = 8.5  # all but the last, which alone would match, are slivers
    figures = average_precision(boxes, one_box_on("a"), pd.Index(["a"]))
    assert figures == {"ap50": 0.0, "ap": 0.0}


def test_the_first_annotation_counts_and_a_second_box_on_its_lesion_is_false():
    # Trap 3: pycocotools takes annotation id 0 for "not matched": a single perfect box scored 0.
    true, ids = one_box_on("a"), pd.Index(["a"])
    assert average_precision(true.assign(score=0.9), true, ids)["ap"] == pytest.approx(1)
    twice = pd.concat([true.assign(score=0.9), true.assign(score=0.8)])
    assert match_boxes(twice, true, ids, [0.5]).hit[:, 0].tolist() == [True, False]


def test_pycocotools_prints_nothing(capsys):
    boxes, truth, ids = simulate(1, n_images=5)
    average_precision(boxes, truth, ids)
    assert capsys.readouterr().out == ""


def test_boxes_of_images_that_are_not_evaluated_are_ignored():
    boxes, truth, ids = simulate(2)
    fewer = ids[:30]
    inside = [frame[frame["image_id"].isin(fewer)] for frame in (boxes, truth)]
    assert average_precision(boxes, truth, fewer) == average_precision(*inside, fewer)


def test_the_thresholds_are_those_of_coco():
    np.testing.assert_array_equal(IOU_THRESHOLDS, COCOeval(iouType="bbox").params.iouThrs)
