"""The RSNA 2018 score and FROC against plain loops, and by hand."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.boxes import EDGES, box_iou
from cxr_compare.evaluation.boxes.afroc import WeightedAfroc
from cxr_compare.evaluation.boxes.froc import FROC_RATES, WeightedFroc, froc_curve
from cxr_compare.evaluation.boxes.iobb import WeightedIobb
from cxr_compare.evaluation.boxes.lesion_hits import HIT_RULES, find_lesions
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.boxes.rsna_score import WeightedRsnaScore
from cxr_compare.evaluation.metrics.registry import family
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from tests.evaluation.boxes.simulated import simulate as drawn

CUTS = [0.1, 0.35, 0.6]
simulate = partial(drawn, n_images=16)


def rows_of(frame, image):
    mine = frame[frame["image_id"] == image]
    return mine[EDGES].to_numpy(), mine.get("score", pd.Series(dtype=float)).to_numpy()


def overlap(one, other):
    return box_iou(one[None], other[None])[0]


def rsna_by_hand(boxes, truth, images, cut):
    """The evaluation page of the challenge, word by word."""
    scores = []
    for image in images:
        found, score = rows_of(boxes, image)
        called = [found[k] for k in np.argsort(-score, kind="stable") if score[k] >= cut]
        lesions, _ = rows_of(truth, image)
        if not len(called) and not len(lesions):
            continue
        value = 0.0
        for t in range(40, 80, 5):
            free, hits = list(range(len(lesions))), 0
            for box in called:
                near = [(overlap(box, lesions[k]), k) for k in free]
                near = [pair for pair in near if pair[0] > t / 100]
                if near:
                    free.remove(max(near)[1])
                    hits += 1
            value += hits / (len(called) + len(lesions) - hits) / 8
        scores.append(value)
    return float(np.mean(scores)) if scores else None


def hits(mark, lesion, how):
    """Word by word: enough overlap, or the mark's centre on the lesion or its border."""
    if how == "iou":
        return overlap(mark, lesion) >= 0.2
    x, y = (mark[0] + mark[2]) / 2, (mark[1] + mark[3]) / 2
    return lesion[0] <= x <= lesion[2] and lesion[1] <= y <= lesion[3]


def froc_points_by_hand(boxes, truth, images, how):
    """Every score as a threshold: false marks an image, and share of lesions found."""
    points, n_lesions = [(0.0, 0.0)], sum(len(rows_of(truth, image)[0]) for image in images)
    every = []
    for image in images:
        (marks, score), (lesions, _) = rows_of(boxes, image), rows_of(truth, image)
        near = np.array([[hits(mark, box, how) for box in lesions] for mark in marks], dtype=bool)
        every.append((near.reshape(len(marks), len(lesions)), score))
    for threshold in np.unique(boxes["score"])[::-1]:
        called = [near[score >= threshold] for near, score in every]
        found = sum(near.any(axis=0).sum() for near in called)
        false = sum((~near.any(axis=1)).sum() for near in called)
        points.append((false / len(images), found / n_lesions))
    return points


def froc_by_hand(boxes, truth, images, how="iou"):
    """Mean, then each rate: of the points that keep it, the most sensitive."""
    points = froc_points_by_hand(boxes, truth, images, how)
    at_rates = [max(s for f, s in points if f <= rate) for rate in FROC_RATES]
    return [np.mean(at_rates), *at_rates]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("decimals", [None, 1])  # rounded: many equal scores
def test_figures_equal_plain_loops(seed, decimals):
    boxes, truth, ids = simulate(seed, decimals=decimals)
    pairs = pair_boxes(boxes, truth, ids)
    once, each = np.ones((1, len(ids)), int), np.arange(len(ids))
    expected = [rsna_by_hand(boxes, truth, ids, cut) for cut in CUTS]
    ours = WeightedRsnaScore(pairs, each, len(ids), CUTS)(once)[0]
    np.testing.assert_allclose(ours, expected, atol=1e-12)
    assert 0 <= min(expected) < max(expected) < 1


@pytest.mark.parametrize("how", ["iou", "centre"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("decimals", [None, 1])  # rounded: many equal scores
def test_froc_at_each_rate_and_its_curve_equal_a_plain_loop(seed, decimals, how):
    boxes, truth, ids = simulate(seed, decimals=decimals)
    pairs = pair_boxes(boxes, truth, ids)
    froc = WeightedFroc(find_lesions(pairs, HIT_RULES[how]), np.arange(len(ids)), len(ids))
    ours = froc.figures(np.ones((1, len(ids)), int))[0]
    np.testing.assert_allclose(ours, froc_by_hand(boxes, truth, ids, how), atol=1e-12)
    assert len(ours) == 1 + len(FROC_RATES)
    curve = froc_curve(find_lesions(pairs, HIT_RULES[how]))
    drawn = list(zip(*curve, strict=True))
    points = froc_points_by_hand(boxes, truth, ids, how)
    for rate in (*FROC_RATES, 0.3, 3.3):  # the same step everywhere, from fewer points
        expected = max(s for f, s in points if f <= rate)
        assert max(s for f, s in drawn if f <= rate) == pytest.approx(expected)
    assert drawn[-1] == pytest.approx(points[-1])


def test_weights_mean_the_same_as_repeated_images():
    boxes, truth, ids = simulate(7, n_images=12)
    pairs, each = pair_boxes(boxes, truth, ids), np.arange(len(ids))
    weights = next(Resamples(len(ids), 4, seed=2).chunks())
    rsna = WeightedRsnaScore(pairs, each, len(ids), [0.35])(weights)[:, 0]
    finds = {how: find_lesions(pairs, rule) for how, rule in HIT_RULES.items()}
    froc = {
        how: WeightedFroc(found, each, len(ids)).figures(weights) for how, found in finds.items()
    }
    for number, (row, one_rsna) in enumerate(zip(weights, rsna, strict=True)):
        repeated = ids.repeat(row)
        assert one_rsna == pytest.approx(rsna_by_hand(boxes, truth, repeated, 0.35), abs=1e-12)
        for how, ours in froc.items():
            expected = froc_by_hand(boxes, truth, repeated, how)
            np.testing.assert_allclose(ours[number], expected, atol=1e-12)


def one_lesion(*boxes):
    """One lesion 0,0,10,10 on image a, none on b; boxes as ``(image, x2, score)``."""
    true = pd.DataFrame({"image_id": ["a"], "x1": 0.0, "y1": 0.0, "x2": 10.0, "y2": 10.0})
    rows = [(image, 0.0, 0.0, x2, 10.0, score) for image, x2, score in boxes]
    frame = pd.DataFrame(rows, columns=["image_id", *EDGES, "score"])
    return pair_boxes(frame, true, pd.Index(["a", "b"]))


def rsna(pairs, weights=((1, 1),)):
    return WeightedRsnaScore(pairs, np.arange(2), 2, [0.5])(np.array(weights))[0, 0]


def froc(pairs, weights=((1, 1),), how="iou"):
    froc = WeightedFroc(find_lesions(pairs, HIT_RULES[how]), np.arange(2), 2)
    return froc.figures(np.array(weights))[0, 0]


@pytest.mark.parametrize(
    ("marks", "of_rsna", "of_froc"),
    [
        ([("a", 5.0, 0.9)], 2 / 8, 1),  # IoU 0.5 is a hit at 0.40 and 0.45, at 0.50 it is none
        ([("a", 10.0, 0.9), ("b", 10.0, 0.4)], 1, 1),  # nothing is called on b: it is left out
        ([("a", 10.0, 0.9), ("a", 9.0, 0.8)], 1 / 2, 1),  # a second mark: no false one to FROC
        # One false mark on two images is a rate of 0.5: kept by 1/2 to 8, not by 1/8 and 1/4.
        ([("a", 10.0, 0.8), ("b", 10.0, 0.9)], 1 / 2, 5 / 7),
        ([("a", 10.0, 0.8), ("b", 10.0, 0.8)], 1 / 2, 5 / 7),
        ([], 0, 0),
    ],
)
def test_marks_by_hand(marks, of_rsna, of_froc):
    pairs = one_lesion(*marks)
    assert rsna(pairs) == pytest.approx(of_rsna)
    assert froc(pairs) == pytest.approx(of_froc)


def test_a_second_mark_between_two_finds_costs_the_low_rates_nothing():
    # The known mistake: duplicates counted twice. As a false mark it would be 1/2 an image, and
    # the second lesion would be missed at 1/8 and 1/4.
    true = pd.DataFrame({"image_id": ["a", "b"], "x1": 0.0, "y1": 0.0, "x2": 10.0, "y2": 10.0})
    marks = true.iloc[[0, 0, 1]].assign(score=[0.9, 0.8, 0.7])
    assert froc(pair_boxes(marks, true, pd.Index(["a", "b"]))) == 1


def test_each_rate_stands_by_itself():
    pairs = one_lesion(("b", 10.0, 0.9), ("a", 10.0, 0.8))
    at_rates = WeightedFroc(find_lesions(pairs), np.arange(2), 2).figures(np.ones((1, 2), int))[0]
    named = dict(zip(family("froc_iou"), at_rates, strict=True))
    assert named["froc_at_1_4"] == 0
    assert named["froc_at_1_2"] == named["froc_at_8"] == 1


@pytest.mark.parametrize(
    ("x2", "by_iou", "by_centre"),
    [
        (1.5, 0.0, 1.0),  # too small to overlap by 0.2, its centre on the lesion
        (20.0, 1.0, 1.0),  # its centre on the lesion's border counts
        (24.0, 1.0, 0.0),  # overlaps enough, its centre beside the lesion
    ],
)
def test_the_centre_in_the_box_is_another_hit_than_the_overlap(x2, by_iou, by_centre):
    pairs = one_lesion(("a", x2, 0.9))
    assert (froc(pairs), froc(pairs, how="centre")) == (by_iou, by_centre)


def test_without_lesions_and_boxes_the_figures_are_undefined():
    only_b = [[0, 1]]
    assert np.isnan([froc(one_lesion(), only_b), rsna(one_lesion(), only_b)]).all()


def table(rows, *more):
    return pd.DataFrame(rows, columns=["image_id", *EDGES, *more])


def figures(boxes, truth, ids, cut=0.5, weights=None):
    pairs = pair_boxes(boxes, truth, pd.Index(ids))
    evaluate = WeightedIobb(pairs, np.arange(len(ids)), len(ids))
    weights = np.ones((1, len(ids)), dtype=int) if weights is None else weights
    rows = evaluate.at(weights, np.full(len(weights), cut))
    return [dict(zip(family("iobb"), row.tolist(), strict=True)) for row in rows]


def test_a_hand_counted_case():
    truth = table([("a", 0, 0, 10, 10), ("a", 50, 50, 60, 60), ("b", 0, 0, 10, 10)])
    boxes = table(
        [
            ("a", 0, 0, 10, 40, 0.9),  # a quarter of it on the first lesion: found at .1 and .25
            ("a", 2, 2, 4, 4, 0.8),  # wholly on it, however small: found at all
            ("a", 52, 52, 58, 58, 0.4),  # wholly on the second, but below the cut
            ("b", 5, 0, 55, 10, 0.5),  # a tenth, at the cut
            ("c", 0, 0, 5, 5, 0.7),  # no lesion in this image: false at all
        ],
        "score",
    )
    (found,) = figures(boxes, truth, ["a", "b", "c", "d"])
    assert found == {
        "iobb_accuracy_10": pytest.approx(2 / 3),
        "iobb_accuracy_25": pytest.approx(1 / 3),
        "iobb_accuracy_50": pytest.approx(1 / 3),
        "iobb_false_marks_10": 1 / 4,
        "iobb_false_marks_25": 2 / 4,
        "iobb_false_marks_50": 3 / 4,
    }


LESION = ("a", 0, 0, 10, 10)


@pytest.mark.parametrize(
    ("box", "lesions", "accuracy", "false"),
    [
        # By IoU's other half, intersection over the true area, it would find every lesion.
        ([("a", 0, 0, 100, 100, 1.0)], [("a", 40, 40, 50, 50)], 0.0, 1.0),
        ([("a", 0, 0, 20, 10, 1.0)], [LESION, ("a", 10, 0, 20, 10)], 1.0, 0.0),
        ([("a", 0, 0, 9, 9, 1.0)], [], np.nan, 1.0),
        ([], [LESION], 0.0, 0.0),
    ],
    ids=["whole image", "one box on two lesions", "no lesions", "no boxes"],
)
def test_one_box_or_none_by_hand(box, lesions, accuracy, false):
    (found,) = figures(table(box, "score"), table(lesions), ["a"])
    expected = [accuracy] * 3 + [false] * 3
    assert [found[name] for name in family("iobb")] == pytest.approx(expected, nan_ok=True)


def test_a_weight_counts_an_image_as_often_as_repeating_it_does():
    rng = np.random.default_rng(5)
    ids = [f"i{k}" for k in range(12)]
    corner = rng.uniform(0, 60, (40, 2))
    names = rng.choice(ids, 40)
    low, high = corner, corner + rng.uniform(5, 30, (40, 2))
    boxes = pd.DataFrame(np.hstack([low, high]), columns=EDGES)
    boxes.insert(0, "image_id", names)
    truth, found = boxes[:15], boxes[15:].assign(score=rng.random(25))
    weights = rng.integers(0, 4, (3, 12))
    for row, given in zip(weights, figures(found, truth, ids, 0.3, weights), strict=True):
        copies = [(name, f"{name}-{n}") for name, w in zip(ids, row, strict=True) for n in range(w)]
        again = pd.DataFrame(copies, columns=["image_id", "copy"])
        parts = [
            part.merge(again, on="image_id")
            .drop(columns="image_id")
            .rename(columns={"copy": "image_id"})
            for part in (found, truth)
        ]
        (expected,) = figures(*parts, [copy for _, copy in copies], 0.3)
        assert given == pytest.approx(expected)


def afroc_by_hand(boxes, truth, images, how="iou", weighted=True):
    """Chakraborty and Zhai 2016, equation by equation: psi of every lesion and normal image."""
    lesions, normals = [], []
    for image in images:
        marks = boxes[boxes["image_id"] == image]
        true = truth[truth["image_id"] == image][EDGES].to_numpy()
        best, highest_false = [-np.inf] * len(true), -np.inf
        for _, mark in marks.iterrows():
            near = [hits_by_hand(mark[EDGES].to_numpy(float), lesion, how) for lesion in true]
            best = [max(b, mark["score"]) if hit else b for b, hit in zip(best, near, strict=True)]
            if not any(near):
                highest_false = max(highest_false, mark["score"])
        if len(true):
            share = 1 / len(true) if weighted else 1
            lesions += [(one, share) for one in best]
        else:
            normals.append(highest_false)
    psi = [
        share * (1.0 if normal < one else 0.5 if normal == one else 0.0)
        for normal in normals
        for one, share in lesions
    ]
    return sum(psi) / (len(normals) * sum(share for _, share in lesions))


def hits_by_hand(mark, lesion, how):
    if how == "iou":
        return box_iou(mark, lesion) >= 0.2
    x, y = (mark[0] + mark[2]) / 2, (mark[1] + mark[3]) / 2
    return lesion[0] <= x <= lesion[2] and lesion[1] <= y <= lesion[3]


@pytest.mark.parametrize("how", ["iou", "centre"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("decimals", [None, 1])  # rounded: many equal scores
def test_afroc_equals_every_pair_of_lesion_and_normal_image(seed, decimals, how):
    boxes, truth, ids = simulate(seed, decimals=decimals)
    finds = find_lesions(pair_boxes(boxes, truth, ids), HIT_RULES[how])
    each, once = np.arange(len(ids)), np.ones((1, len(ids)), int)
    ones = np.ones(len(finds.best))
    shares = 1 / np.bincount(finds.lesion_image)[finds.lesion_image]
    areas = {True: WeightedAfroc.shared(finds, each), False: WeightedAfroc(finds, ones, each)}
    for weighted, area in areas.items():
        expected = afroc_by_hand(boxes, truth, ids, how, weighted)
        assert area(once)[0] == pytest.approx(expected, abs=1e-12)
        x, y = finds.afroc_curve(shares if weighted else ones)
        assert np.trapezoid(y, x) == pytest.approx(expected, abs=1e-12)  # the curve has this area


def test_afroc_under_weights_is_that_of_repeated_images():
    boxes, truth, ids = simulate(7, n_images=12)
    finds = find_lesions(pair_boxes(boxes, truth, ids))
    weights = next(Resamples(len(ids), 4, seed=2).chunks())
    ours = WeightedAfroc.shared(finds, np.arange(len(ids)))(weights)
    for row, one in zip(weights, ours, strict=True):
        repeated = list(ids.repeat(row))
        assert one == pytest.approx(afroc_by_hand(boxes, truth, repeated), abs=1e-12)


def test_an_image_with_many_lesions_weighs_as_one_with_a_single_one():
    """One of three lesions found, and the only one of another image: 2/3 weighted, 1/2 not."""
    x1 = np.array([0.0, 20.0, 40.0, 0.0])
    true = pd.DataFrame({"image_id": list("aaab"), "x1": x1, "y1": 0.0, "x2": x1 + 10, "y2": 10.0})
    marks = true.iloc[[0, 3]].assign(score=0.9)
    finds = find_lesions(pair_boxes(marks, true, pd.Index(["a", "b", "c"])))
    once, each = np.ones((1, 3), int), np.arange(3)
    # A lesion that nobody found is a tie with the normal image that nobody marked.
    assert WeightedAfroc.shared(finds, each)(once)[0] == pytest.approx((1 / 3 + 2 / 6 + 1) / 2)
    assert WeightedAfroc(finds, np.ones(4), each)(once)[0] == pytest.approx((2 + 2 * 0.5) / 4)


def test_afroc_without_lesions_or_without_normal_images_is_undefined():
    finds = find_lesions(one_lesion(("a", 10.0, 0.9)))
    area = WeightedAfroc.shared(finds, np.arange(2))(np.array([[0, 1], [1, 0], [1, 1]]))
    assert [np.isnan(one) for one in area] == [True, True, False]
