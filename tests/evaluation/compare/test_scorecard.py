"""One system's figures on the judged images, as they are and under patient weights."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as oracle

from cxr_compare.evaluation.compare.scorecard import Scorecard
from cxr_compare.evaluation.decisions.thresholds import ThresholdChoice
from cxr_compare.evaluation.metrics.image_metrics import CalibrationFigures, classification_metrics
from cxr_compare.evaluation.metrics.metric import ALL, NEEDS, VERSUS_NORMAL, MetricKey
from cxr_compare.evaluation.metrics.registry import family, why_undefined
from tests.evaluation.judged_images import judged_images

N = 120


@pytest.fixture
def judged():
    rng = np.random.default_rng(4)
    y_true = rng.random(N) < 0.4
    kinds = np.where(y_true, "lung_opacity", np.where(rng.random(N) < 0.5, "normal", "other"))
    return judged_images(y_true, np.arange(N) // 2, x_class=pd.Series(kinds))


@pytest.fixture
def scores(judged):
    rng = np.random.default_rng(5)
    return pd.Series(1 / (1 + np.exp(-rng.normal(1.2 * judged.y_true - 0.5, 1.0))))


THRESHOLDS = {"max_f1": ThresholdChoice("max_f1", 0.4)}


def test_every_figure_is_there_with_its_probability(judged, scores):
    probability = scores.to_numpy() ** 2
    found = Scorecard(judged, scores, THRESHOLDS, probability=probability).estimates()
    plain = CalibrationFigures(judged.y_true, probability).figures()
    for name in family("calibration"):
        assert found[MetricKey(ALL, "", name)] == pytest.approx(plain[name][0])
    brier = oracle.brier_score_loss(judged.y_true, probability)
    assert found[MetricKey(ALL, "", "brier")] == pytest.approx(brier)
    expected = classification_metrics(judged.y_true, scores, 0.4)
    for name in family("decision"):
        assert found[MetricKey(ALL, "max_f1", name)] == pytest.approx(expected[name])
        assert why_undefined(name) != why_undefined("unheard of")


def test_against_normal_other_negatives_do_not_count_at_a_threshold_either(judged, scores):
    found = Scorecard(judged, scores, THRESHOLDS).estimates()
    kept = judged.versus_normal
    expected = classification_metrics(judged.y_true[kept], scores[kept], 0.4)
    for name in family("decision"):
        assert found[MetricKey(VERSUS_NORMAL, "max_f1", name)] == pytest.approx(expected[name])
    assert (
        found[MetricKey(VERSUS_NORMAL, "max_f1", "recall")]
        == found[MetricKey(ALL, "max_f1", "recall")]
    )
    assert judged.population(MetricKey(VERSUS_NORMAL, "max_f1", "f1")).sum() == kept.sum()


def test_calibration_under_weights_draws_patients_and_not_images(judged, scores):
    weights = np.random.default_rng(0).multinomial(N // 2, np.full(N // 2, 2 / N), size=3)
    card = Scorecard(judged, scores, {}, probability=scores.to_numpy())
    brier = card(weights)[MetricKey(ALL, "", "brier")]
    of_image = weights[:, judged.patients]
    loss = (scores.to_numpy() - judged.y_true) ** 2
    assert brier == pytest.approx((of_image * loss).sum(axis=1) / of_image.sum(axis=1))


def test_without_a_probability_calibration_is_missing_with_the_reason(judged, scores):
    missing = Scorecard(judged, scores, {}).missing()
    assert {missing[MetricKey(ALL, "", name)] for name in family("calibration")} == {
        NEEDS["probability"]
    }


def test_a_score_at_the_threshold_is_called_in_every_figure_of_a_policy(judged, scores):
    # The known mistake: > for >=, which turns every score at the threshold into a negative.
    tied = scores.round(1)
    card = Scorecard(judged, tied, {"max_f1": ThresholdChoice("max_f1", 0.4)})
    at = (tied == 0.4).to_numpy()
    assert at[judged.y_true].any()
    assert at[~judged.y_true].any()
    called = (tied >= 0.4).to_numpy()
    assert card.called("max_f1")[at].all()
    tp, fp = int((called & judged.y_true).sum()), int((called & ~judged.y_true).sum())
    assert (card.confusion("max_f1")["tp"], card.confusion("max_f1")["fp"]) == (tp, fp)
    found = card.estimates()
    assert (found[MetricKey(ALL, "max_f1", "tp")], found[MetricKey(ALL, "max_f1", "fp")]) == (
        tp,
        fp,
    )
    assert found[MetricKey(ALL, "max_f1", "recall")] == pytest.approx(tp / judged.y_true.sum())


def _pointing(tolerance):
    """Five boxed images, the lesion at 40 to 60 px; scores call all but the last positive."""
    ids = pd.Index(["on it", "9 px beside", "11 px beside", "6 px below", "missed"])
    truth = pd.DataFrame({"image_id": ids, "x1": 40.0, "y1": 40.0, "x2": 60.0, "y2": 60.0})
    y_true = np.ones(5, dtype=bool)
    judged = judged_images(
        y_true, image_ids=ids, boxes_trusted=y_true, truth=truth, tolerance=tolerance
    )
    points = pd.DataFrame(
        {"point_x": [50.0, 69.0, 71.0, 50.0, 50.0], "point_y": [50.0, 50.0, 50.0, 66.0, 50.0]},
        index=ids,
    )
    scores = pd.Series([0.9, 0.8, 0.7, 0.6, 0.1])
    return Scorecard(judged, scores, THRESHOLDS, points=points)


def test_a_point_within_one_cell_of_a_lesion_counts_with_the_tolerance():
    cells = np.tile([10.0, 5.0], (5, 1))  # across and down
    card = _pointing(cells)
    assert card.localised_tolerant.tolist() == [True, True, False, False, True]
    found = card.estimates()
    for metric, policy, hand_counted in (
        ("pointing_accuracy", "", 2 / 5),
        ("pointing_accuracy_tolerant", "", 3 / 5),
        ("localised_sensitivity", "max_f1", 1 / 5),
        ("localised_sensitivity_tolerant", "max_f1", 2 / 5),
    ):
        assert found[MetricKey(ALL, policy, metric)] == pytest.approx(hand_counted)
    assert not card.missing().keys() & found.keys()


def test_without_maps_there_is_no_cell_to_tolerate_and_it_says_so():
    card = _pointing(None)
    assert card.localised_tolerant is None
    missing = card.missing()
    for metric, policy in (
        ("pointing_accuracy_tolerant", ""), ("localised_sensitivity_tolerant", "max_f1"),
    ):  # fmt: skip
        assert missing[MetricKey(ALL, policy, metric)] == NEEDS["cell"]
    assert MetricKey(ALL, "max_f1", "localised_sensitivity") not in missing
