"""Boxes without scores: the boxes are the decision, and their places count."""

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from tests.oracles import boxes as oracle
from tests.oracles import rebuild

EDGES = ["x1", "y1", "x2", "y2"]
BOX_F1 = "box_f1_50"


def boxes(rows, scores=None):
    table = pd.DataFrame(rows, columns=["image_id", *EDGES])
    return table if scores is None else table.assign(score=scores)


def drawn(seed=0, count=90):
    """Labels with patients of two images, and one to two lesions on two of three images."""
    rng = np.random.default_rng(seed)
    ids = [f"i{number:03d}" for number in range(count)]
    positive = np.arange(count) % 3 > 0
    truth = pd.DataFrame({"image_id": ids, "label": positive.astype(int)})
    truth["patient_id"] = [f"p{number // 2:02d}" for number in range(count)]
    rows = []
    for image, is_positive in zip(ids, positive, strict=True):
        for at in range(rng.integers(1, 3) if is_positive else 0):
            x, y = rng.uniform(100 + 300 * at, 300 + 300 * at, 2)
            rows.append([image, x, y, x + 60, y + 60])
    return truth, boxes(rows)


def moved(lesions, shift, seed):
    rng = np.random.default_rng(seed)
    steps = np.tile(rng.normal(0, shift, (len(lesions), 2)), 2)
    return lesions.assign(**dict(zip(EDGES, (lesions[EDGES].to_numpy() + steps).T, strict=True)))


def compared(systems, truth, lesions, **options):
    return cxr_compare.compare(systems, truth=truth, boxes=lesions, replicates=200, **options)


def figures_of(found, name):
    rows = found.figures.query("first == @name and second == ''")
    return rows.set_index("metric")[["estimate", "ci_low", "ci_high"]]


def by_patient(truth, lesions, called, limit):
    """Hits, called boxes, lesions and IoU of the best box of each patient, box by box."""
    sums = {}
    for row in truth.itertuples():
        hits, n_called, n_true, best = sums.get(row.patient_id, (0, 0, 0, 0.0))
        given = [
            tuple(box) for box in called.loc[called["image_id"] == row.image_id, EDGES].to_numpy()
        ]
        true = [
            tuple(box) for box in lesions.loc[lesions["image_id"] == row.image_id, EDGES].to_numpy()
        ]
        free = [*range(len(true))]
        for box in given:
            over = {n: oracle.iou(box, true[n]) for n in free}
            near = max(over, key=over.get, default=None)
            if near is not None and over[near] >= limit:
                free.remove(near)
                hits += 1
        best += sum(max((oracle.iou(box, lesion) for box in given), default=0) for lesion in true)
        sums[row.patient_id] = hits, n_called + len(given), n_true + len(true), best
    return np.array([*sums.values()], dtype=float).T


def test_figures_and_intervals_are_those_of_the_documented_steps():
    truth, lesions = drawn()
    near = moved(lesions, 9, 1).sample(frac=0.8, random_state=1).sort_index()
    stray = near.assign(image_id=np.roll(near["image_id"], 5)).iloc[::4]
    called = pd.concat([near, stray], ignore_index=True)
    found = figures_of(compared({"A": called}, truth, lesions), "A")
    hits, n_called, n_true, best = by_patient(truth, lesions, called, 0.5)
    expected = {
        "box_precision_50": rebuild.share(hits, n_called)[1:],
        "box_recall_50": rebuild.share(hits, n_true)[1:],
        "mean_iou": rebuild.share(best, n_true)[1:],
    }
    jaccard = hits.sum() / (n_called.sum() + n_true.sum() - hits.sum())
    ends = rebuild.share(hits, n_called + n_true - hits)[1:]
    values = {
        "box_precision_50": hits.sum() / n_called.sum(),
        "box_recall_50": hits.sum() / n_true.sum(),
        "mean_iou": best.sum() / n_true.sum(),
        "box_f1_50": 2 * jaccard / (1 + jaccard),
    }
    expected["box_f1_50"] = tuple(2 * each / (1 + each) for each in ends)
    for metric, value in values.items():
        row = found.loc[metric]
        assert row["estimate"] == pytest.approx(value, abs=1e-12), metric
        assert row[["ci_low", "ci_high"]].tolist() == pytest.approx(expected[metric], abs=1e-9)


def test_a_detector_with_scores_counts_at_its_threshold():
    truth, lesions = drawn()
    near, other = moved(lesions, 5, 1), moved(lesions, 5, 2)
    scored = near.assign(score=np.linspace(0.1, 1, len(near)))
    found = figures_of(
        compared({"A": scored, "B": other}, truth, lesions, policy="threshold=0.5"), "A"
    )
    alone = figures_of(
        compared({"A": near[scored["score"] >= 0.5], "B": other}, truth, lesions), "A"
    )
    for metric in (BOX_F1, "box_precision_50", "mean_iou", "f1"):
        assert found.loc[metric, "estimate"] == alone.loc[metric, "estimate"]


def test_boxes_beside_the_lesions_are_shown_to_be_worse():
    truth, lesions = drawn()
    lesions = lesions.drop_duplicates("image_id")
    systems = {"Near": moved(lesions, 6, 1), "Far": moved(lesions, 45, 2)}
    found = compared(systems, truth, lesions)
    claims = {claim.metric: claim for claim in found.answer.claims}
    assert not claims["f1"].higher  # both call the same images
    assert claims[BOX_F1].higher == "Near"
    assert "F1 of boxes" in found.headline
    pointing = found.figures.query("metric == 'pointing_accuracy' and second == ''")
    assert pointing["estimate"].notna().all()
    several = compared({"A": pd.concat([systems["Near"], systems["Far"]])}, truth, lesions)
    assert "pointing_accuracy" not in figures_of(several, "A").dropna().index
