"""One model's figures on the evaluated images, as they are and under patient weights."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as oracle

from cxr_compare.evaluation.metrics.calibration_figures import CalibrationFigures
from cxr_compare.evaluation.metrics.image_metrics import classification_metrics
from cxr_compare.evaluation.metrics.metric import ALL, NEEDS, VERSUS_NORMAL, MetricKey
from cxr_compare.evaluation.metrics.registry import family, why_undefined
from cxr_compare.evaluation.replicates import FiguresOfWeights
from cxr_compare.evaluation.statistics.calibration import RawScores
from cxr_compare.evaluation.thresholds import ThresholdChoice
from tests.evaluation.evaluated_images import evaluated_images, model_of, once

N = 120


@pytest.fixture
def evaluated():
    rng = np.random.default_rng(4)
    y_true = rng.random(N) < 0.4
    kinds = np.where(y_true, "lung_opacity", np.where(rng.random(N) < 0.5, "normal", "other"))
    return evaluated_images(y_true, np.arange(N) // 2, x_class=pd.Series(kinds))


@pytest.fixture
def scores(evaluated):
    rng = np.random.default_rng(5)
    return 1 / (1 + np.exp(-rng.normal(1.2 * evaluated.y_true - 0.5, 1.0)))


THRESHOLDS = {"max_f1": ThresholdChoice("max_f1", 0.4)}


def test_every_figure_is_there_with_its_probability(evaluated, scores):
    found = once(model_of(evaluated, scores, THRESHOLDS, calibration=RawScores()))
    plain = CalibrationFigures(evaluated.y_true, scores).figures()
    for name in family("calibration"):
        assert found[MetricKey(ALL, "", name)] == pytest.approx(plain[name][0])
    brier = oracle.brier_score_loss(evaluated.y_true, scores)
    assert found[MetricKey(ALL, "", "brier")] == pytest.approx(brier)
    expected = classification_metrics(evaluated.y_true, scores, 0.4)
    for name in family("decision"):
        assert found[MetricKey(ALL, "max_f1", name)] == pytest.approx(expected[name])
        assert why_undefined(name) != why_undefined("unheard of")


def test_against_normal_other_negatives_do_not_count_at_a_threshold_either(evaluated, scores):
    found = once(model_of(evaluated, scores, THRESHOLDS))
    kept = evaluated.versus_normal
    expected = classification_metrics(evaluated.y_true[kept], scores[kept], 0.4)
    for name in family("decision"):
        assert found[MetricKey(VERSUS_NORMAL, "max_f1", name)] == pytest.approx(expected[name])
    assert (
        found[MetricKey(VERSUS_NORMAL, "max_f1", "recall")]
        == found[MetricKey(ALL, "max_f1", "recall")]
    )
    assert evaluated.population(MetricKey(VERSUS_NORMAL, "max_f1", "f1")).sum() == kept.sum()


def test_calibration_under_weights_draws_patients_and_not_images(evaluated, scores):
    weights = np.random.default_rng(0).multinomial(N // 2, np.full(N // 2, 2 / N), size=3)
    model = model_of(evaluated, scores, calibration=RawScores())
    brier = FiguresOfWeights(model)(weights)[MetricKey(ALL, "", "brier")]
    of_image = weights[:, evaluated.patients]
    loss = (scores - evaluated.y_true) ** 2
    assert brier == pytest.approx((of_image * loss).sum(axis=1) / of_image.sum(axis=1))


def test_without_a_probability_calibration_is_missing_with_the_reason(evaluated, scores):
    missing = model_of(evaluated, scores).missing()
    assert {missing[MetricKey(ALL, "", name)] for name in family("calibration")} == {
        NEEDS["probability"]
    }


def test_a_score_at_the_threshold_is_called_in_every_figure_of_a_policy(evaluated, scores):
    # The known mistake: > for >=, which turns every score at the threshold into a negative.
    tied = scores.round(1)
    model = model_of(evaluated, tied, THRESHOLDS)
    at = tied == 0.4
    assert at[evaluated.y_true].any()
    assert at[~evaluated.y_true].any()
    called = tied >= 0.4
    assert model.called("max_f1")[at].all()
    tp, fp = int((called & evaluated.y_true).sum()), int((called & ~evaluated.y_true).sum())
    counts = model.confusion("max_f1")
    assert (counts["tp"], counts["fp"]) == (tp, fp)
    found = once(model)
    assert found[MetricKey(ALL, "max_f1", "tp")] == tp
    assert found[MetricKey(ALL, "max_f1", "fp")] == fp
    assert found[MetricKey(ALL, "max_f1", "recall")] == pytest.approx(tp / evaluated.y_true.sum())


def test_a_point_beside_a_lesion_does_not_count():
    """Five boxed images, the lesion at 40 to 60 px; scores call all but the last positive."""
    ids = pd.Index(["on it", "9 px beside", "11 px beside", "6 px below", "missed"])
    truth = pd.DataFrame({"image_id": ids, "x1": 40.0, "y1": 40.0, "x2": 60.0, "y2": 60.0})
    y_true = np.ones(5, dtype=bool)
    images = evaluated_images(y_true, image_ids=ids, is_boxed=y_true, true_boxes=truth)
    x, y = np.array([50.0, 69.0, 71.0, 50.0, 50.0]), np.array([50.0, 50.0, 50.0, 66.0, 50.0])
    boxes = pd.DataFrame(
        {"image_id": ids, "x1": x - 5, "y1": y - 5, "x2": x + 5, "y2": y + 5,
         "score": [0.9, 0.8, 0.7, 0.6, 0.1]}
    )  # fmt: skip
    model = model_of(images, None, THRESHOLDS, boxes=boxes)
    assert model.localised.tolist() == [True, False, False, False, True]
    found = once(model)
    for metric, policy, hand_counted in (
        ("pointing_accuracy", "", 2 / 5),
        ("localised_sensitivity", "max_f1", 1 / 5),
    ):
        assert found[MetricKey(ALL, policy, metric)] == pytest.approx(hand_counted)
    assert not model.missing().keys() & found.keys()
