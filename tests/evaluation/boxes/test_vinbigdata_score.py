"""The VinBigData score by hand, against a plain loop, and against pycocotools."""

import contextlib
import io
from functools import partial

import numpy as np
import pytest
from pycocotools.cocoeval import COCOeval

from cxr_compare.evaluation.boxes.average_precision import _coco, coco_annotations
from cxr_compare.evaluation.boxes.matching import match_pairs, pair_boxes
from cxr_compare.evaluation.boxes.vinbigdata_score import WeightedVinBigDataScore
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from tests.evaluation.boxes.simulated import boxes_of_image, one_lesion, overlap
from tests.evaluation.boxes.simulated import simulate as simulate_images

simulate = partial(simulate_images, n_images=16)


def image_scores(boxes, ids):
    return boxes.groupby("image_id")["score"].max().reindex(ids).fillna(0.0).to_numpy()


def area(hits, groups, n_true):
    """Return the area under the best precision at or beyond each recall, by its definition.

    Items of one group (equal scores) form one step.
    """
    points = []
    true = 0
    for called, hit in enumerate(hits, start=1):
        true += hit
        if called == len(hits) or groups[called] != groups[called - 1]:
            points.append((true / n_true, true / called))
    total = last = 0.0
    for recall, _ in points:
        total += (recall - last) * max(p for r, p in points if r >= recall)
        last = recall
    return total


def vinbigdata_by_hand(boxes, truth, images, scores):
    """Compute the score as the challenge and VOC's development kit of 2010 define it."""
    called = []
    n_lesions = 0
    for number, image in enumerate(images):
        predicted, score = boxes_of_image(boxes, image)
        lesions, _ = boxes_of_image(truth, image)
        n_lesions += len(lesions)
        taken = set()
        for k in np.argsort(-score, kind="stable"):
            overlaps = [overlap(predicted[k], lesion) for lesion in lesions]
            best = int(np.argmax(overlaps)) if overlaps else -1
            is_hit = bool(overlaps) and overlaps[best] > 0.4 and best not in taken
            if is_hit:
                taken.add(best)
            called.append((-score[k], number, len(called), is_hit))
    called.sort()
    of_boxes = area([hit for *_, hit in called], range(len(called)), n_lesions)
    is_empty = np.array([not len(boxes_of_image(truth, image)[0]) for image in images])
    order = np.argsort(scores, kind="stable")  # the surest "No finding" first
    of_images = area(is_empty[order], scores[order], is_empty.sum())
    return (of_boxes + of_images) / 2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("decimals", [None, 1])  # rounded: many equal scores
def test_score_equals_a_plain_loop(seed, decimals):
    boxes, truth, ids = simulate(seed, decimals=decimals)
    scores = image_scores(boxes, ids)
    pairs = pair_boxes(boxes, truth, ids)
    ours = WeightedVinBigDataScore(pairs, scores, np.arange(len(ids)), len(ids))
    expected = vinbigdata_by_hand(boxes, truth, ids, scores)
    assert ours(np.ones((1, len(ids)), int))[0] == pytest.approx(expected, abs=1e-12)
    assert 0 < expected < 1


def test_score_under_weights_is_that_of_repeated_images():
    boxes, truth, ids = simulate(7, n_images=12)
    scores = image_scores(boxes, ids)
    pairs = pair_boxes(boxes, truth, ids)
    weights = next(Resamples(len(ids), 4, seed=2).chunks())
    ours = WeightedVinBigDataScore(pairs, scores, np.arange(len(ids)), len(ids))(weights)
    for row, score in zip(weights, ours, strict=True):
        expected = vinbigdata_by_hand(boxes, truth, ids.repeat(row), scores.repeat(row))
        assert score == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_both_parts_equal_pycocotools_at_every_recall(seed):
    boxes, truth, ids = simulate(seed)
    pairs = pair_boxes(boxes, truth, ids)
    free = match_pairs(pairs, [0.4]).hit
    assert (free == match_pairs(pairs, [0.4], best_only=True).hit).all()  # else the rules differ
    scores = np.random.default_rng(seed).random(len(ids))  # pycocotools has no steps of ties
    is_empty = pairs.truth.per_image == 0
    images = np.arange(len(ids))
    pixel = np.tile([0.0, 0.0, 1.0, 1.0], (len(ids), 1))
    of_boxes = (
        coco_annotations(pairs.truth.image, pairs.truth.corners),
        coco_annotations(pairs.boxes.image, pairs.boxes.corners, pairs.boxes.score),
    )
    of_images = (
        coco_annotations(images[is_empty], pixel[is_empty]),
        coco_annotations(images, pixel, 1 - scores),
    )
    parts = []
    for true, predicted in (of_boxes, of_images):
        with contextlib.redirect_stdout(io.StringIO()):
            evaluator = COCOeval(_coco(true, images), _coco(predicted, images), "bbox")
            evaluator.params.iouThrs = np.array([np.nextafter(0.4, 1)])
            evaluator.params.recThrs = np.arange(1, len(true) + 1) / len(true)
            evaluator.params.maxDets = [100]
            evaluator.evaluate()
            evaluator.accumulate()
        parts.append(evaluator.eval["precision"][0, :, 0, 0, 0].mean())
    ours = WeightedVinBigDataScore(pairs, scores, images, len(ids))
    assert ours(np.ones((1, len(ids)), int))[0] == pytest.approx(np.mean(parts), abs=1e-9)


@pytest.mark.parametrize(
    ("marks", "scores", "expected"),
    [
        ([("a", 10.0, 0.9)], (0.9, 0.0), 1),  # lesion found, and the healthy image is surest
        ([("a", 4.0, 0.9)], (0.9, 0.0), 1 / 2),  # an IoU of 0.4 is none above 0.4
        ([("a", 10.0, 0.4), ("b", 10.0, 0.9)], (0.4, 0.9), 1 / 2),  # each part is one in two
        ([("a", 10.0, 0.4), ("b", 10.0, 0.9)], (0.4, 0.1), 3 / 4),  # a better image score alone
        ([("a", 10.0, 0.9), ("a", 9.0, 0.8)], (0.9, 0.0), 1),  # after the last lesion: no matter
        ([], (0.0, 0.0), 1 / 4),  # no box; both images are equally sure to be healthy
    ],
)
def test_score_of_hand_counted_marks(marks, scores, expected):
    score = WeightedVinBigDataScore(one_lesion(*marks), np.array(scores), np.arange(2), 2)
    assert score(np.ones((1, 2), int))[0] == pytest.approx(expected)


def test_score_needs_images_with_and_without_lesions():
    score = WeightedVinBigDataScore(one_lesion(("a", 10.0, 0.9)), np.zeros(2), np.arange(2), 2)
    assert np.isnan(score(np.array([[1, 0], [0, 1]]))).all()


def test_a_joint_image_score_alone_raises_it():
    boxes, truth, ids = simulate(1)
    pairs = pair_boxes(boxes, truth, ids)
    truth_of_image = (pairs.truth.per_image > 0).astype(float)
    weights = np.ones((1, len(ids)), int)
    own, perfect = (
        WeightedVinBigDataScore(pairs, scores, np.arange(len(ids)), len(ids))(weights)[0]
        for scores in (image_scores(boxes, ids), truth_of_image)
    )
    assert perfect > own
