"""Calibrations learned on validation, against scikit-learn and scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sklearn import metrics as oracle
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.records import write_json
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.statistics.calibration import (
    CLIP,
    METHODS,
    choose_calibration,
    clipped_logit,
    fit_calibration,
    fit_platt,
)


@pytest.fixture
def sample():
    """Scores whose log-odds are 2.5 times too large."""
    rng = np.random.default_rng(3)
    logits = rng.normal(-0.5, 1.0, 500)
    return rng.random(500) < expit(logits), expit(2.5 * logits)


def test_a_temperature_is_that_of_least_log_loss(sample):
    y_true, y_score = sample
    logits = clipped_logit(y_score)
    best = minimize_scalar(
        lambda t: oracle.log_loss(y_true, expit(logits / t)), bounds=(0.1, 10), method="bounded",
        options={"xatol": 1e-9},
    )  # fmt: skip
    found = fit_calibration("temperature", y_true, y_score)
    assert 1 / found.slope == pytest.approx(best.x, abs=1e-4)
    assert found.intercept == 0
    assert 1 / found.slope == pytest.approx(2.5, abs=0.4)


@pytest.mark.parametrize(
    ("y_true", "slope"),
    [
        ([0, 0, 1, 1], 100.0),  # parted: the steeper the better, so the bound is taken
        ([1, 1, 0, 0], 0.01),  # the wrong way round: order is kept, not turned
    ],
)
def test_a_temperature_stays_within_its_bounds(y_true, slope):
    assert fit_calibration("temperature", y_true, [0.2, 0.4, 0.6, 0.8]).slope == slope


def test_an_isotonic_curve_is_that_of_scikit_learn_and_level_beyond_its_ends(sample):
    y_true, y_score = sample
    found = fit_calibration("isotonic", y_true, y_score)
    theirs = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(y_score, y_true)
    asked = np.linspace(0, 1, 101)
    np.testing.assert_allclose(found.probability(asked), theirs.predict(asked), atol=1e-12)
    assert found.probability([0.0])[0] == found.probabilities[0]


@settings(max_examples=40, deadline=None)
@given(
    arrays.arrays(np.float64, 14, elements=st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9, 1.0])),
    arrays.arrays(np.int8, 14, elements=st.integers(0, 1)),
    st.sampled_from(METHODS),
)
def test_order_is_kept_and_probabilities_stay_in_bounds(y_score, y_true, method):
    found = fit_calibration(method, y_true, y_score)
    if found is None:
        assert y_true.all() or not y_true.any()
        return
    p = found.probability(np.sort(y_score))
    if method != "platt" or found.slope >= 0:  # Platt's line may turn the order
        assert (np.diff(p) >= 0).all()
    assert p.min() >= 0
    assert p.max() <= 1


def test_an_isotonic_curve_tells_how_many_levels_are_left():
    found = fit_calibration("isotonic", [0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4])
    assert len(set(found.probabilities)) == 3
    assert found.probability([0.2, 0.25, 0.3]).tolist() == [0.5, 0.5, 0.5]  # ties, stated


@pytest.mark.parametrize("method", METHODS)
def test_a_calibration_survives_its_file(method, sample, tmp_path):
    found = fit_calibration(method, *sample)
    stored = Choices(target="opacity", chosen_on={}, calibration=found)
    stored.write(tmp_path / "opacity.json")
    assert Choices.read(tmp_path / "opacity.json").calibration == found


def test_an_unknown_rule_or_calibration_is_refused_by_its_key(tmp_path):
    path = tmp_path / "opacity.json"
    for key, value in (
        ("reduction", {"rule": "learned", "min_score": 0.0}),
        ("calibration", {"method": "platt", "slope": "steep", "intercept": 0.0}),
        ("calibration", {"method": "learned"}),
    ):
        write_json(path, "decision", {"target": "opacity", "chosen_on": {}, key: value})
        with pytest.raises(InputError, match=rf"opacity\.json: {key}"):
            Choices.read(path)


def test_none_is_the_score_itself_since_the_clip_is_for_logarithms():
    found = fit_calibration("none", [0, 1], [0.2, 0.8])
    assert found.probability([0.0, 0.3, 1.0]).tolist() == [0.0, 0.3, 1.0]


def _detector_scores(n, seed):
    """Six in ten negative and one in twelve positive images have no box; of the others beta."""
    rng = np.random.default_rng(seed)
    y_true = rng.random(n) < 0.3
    scores = np.where(y_true, rng.beta(3, 2, n), rng.beta(1.5, 4, n))
    return y_true, np.where(rng.random(n) < np.where(y_true, 1 / 12, 0.6), 0.0, scores)


def test_no_box_is_a_level_of_its_own_in_the_logistic_regression():
    y_true, scores = _detector_scores(600, 1)
    found = fit_platt(y_true, scores)
    n = int(y_true.sum())
    wanted = np.where(y_true, (n + 1) / (n + 2), 1 / (602 - n))
    empty = scores == 0
    design = np.column_stack([np.where(empty, 0, clipped_logit(scores)), empty])
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=2000)
    weights = np.concatenate([wanted, 1 - wanted])
    model.fit(np.tile(design, (2, 1)), np.repeat([1, 0], 600), sample_weight=weights)
    theirs = model.predict_proba(design)[:, 1]
    shown = theirs >= theirs[empty][0] * 1.05  # below, the level is pooled and holds
    np.testing.assert_allclose(found.probability(scores)[shown], theirs[shown], rtol=1e-4)
    # The pooled level is that of an isotonic curve through the level and the others above it.
    order = np.lexsort((theirs, scores))
    pooled = IsotonicRegression().fit_transform(np.arange(600), theirs[order])
    np.testing.assert_allclose(found.probability(scores)[order], pooled, rtol=1e-4)


@pytest.mark.parametrize("n", [60, 600])
def test_platt_scaling_of_a_detector_is_no_worse_than_its_scores(n):
    """With images without a box at logit(1e-4), the Brier score was 0.124 against 0.107."""
    test_true, test_scores = _detector_scores(5000, 99)
    brier = dict.fromkeys(("none", "platt", "isotonic"), 0.0)
    for seed in range(10):
        validation = _detector_scores(n, seed)
        for method in brier:
            p = fit_calibration(method, *validation).probability(test_scores)
            brier[method] += oracle.brier_score_loss(test_true, p) / 10
    assert brier["platt"] < brier["none"]
    assert brier["platt"] < brier["isotonic"]


def test_one_image_without_a_box_does_not_raise_the_faint_boxes():
    y_true = np.array([True] + [False] * 60 + [True] * 30)
    scores = np.array([0.0, *np.linspace(0.01, 0.4, 60), *np.linspace(0.3, 0.95, 30)])
    found = fit_platt(y_true, scores)
    assert found.no_box < 0.1
    assert found.probability([0.01])[0] == found.no_box


def test_the_choice_is_that_of_the_out_of_fold_log_loss(sample):
    y_true, y_score = sample
    folds = np.arange(500) % 5
    chosen, losses = choose_calibration(y_true, y_score, folds, METHODS)
    expected = dict.fromkeys(METHODS, 0.0)
    for fold in range(5):
        held = folds == fold
        for method in METHODS:
            fit = fit_calibration(method, y_true[~held], y_score[~held])
            p = np.clip(fit.probability(y_score[held]), CLIP, 1 - CLIP)
            expected[method] += oracle.log_loss(y_true[held], p, labels=[0, 1]) / 5
    assert losses == pytest.approx(expected)
    assert chosen.method == min(losses, key=losses.get) == "temperature"


def test_an_unknown_method_is_refused():
    with pytest.raises(InputError, match="'beta'"):
        fit_calibration("beta", [0, 1], [0.2, 0.8])
