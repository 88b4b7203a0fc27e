"""The last layer of a probe: equal to scikit-learn's pipeline, its penalty chosen by patient."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxr_compare.classification.probe import LabelledFeatures, fit_layer

PENALTIES = [0.001, 0.03, 1.0, 30.0]


def _images(n: int, seed: int, channels: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Features of very different scales, and labels that depend on the first of them."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, channels)) * 10.0 ** np.arange(channels) + 3.0
    labels = (features[:, 0] - 3.0 + rng.normal(size=n) > 0).astype(np.float32)
    return features.astype(np.float32), labels


def _labelled(n: int, seed: int) -> LabelledFeatures:
    features, labels = _images(n, seed)
    return LabelledFeatures(features, labels[:, None], [f"patient{row}" for row in range(n)])


def _scores(layer, features, finding=0):
    logits = features.astype(np.float64) @ layer.weight[finding] + layer.bias[finding]
    return 1 / (1 + np.exp(-logits))


@pytest.mark.parametrize("penalty", PENALTIES)
def test_layer_gives_the_scores_of_a_pipeline_of_scikit_learn(penalty):
    train, val = _labelled(200, 0), _labelled(60, 1)
    layer = fit_layer(train, val, [penalty])
    # scikit-learn weighs the sum of the losses by C, where the penalty is weighed by 1
    oracle = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (penalty * 200), tol=1e-8))
    oracle.fit(train.features.astype(np.float64), train.targets[:, 0])
    expected = oracle.predict_proba(val.features.astype(np.float64))[:, 1]
    assert np.allclose(_scores(layer, val.features), expected, atol=2e-4)


def test_kept_penalty_has_the_lowest_loss_on_validation():
    layer = fit_layer(_labelled(40, 0), _labelled(200, 1), PENALTIES)
    assert [trial.penalty for trial in layer.trials] == sorted(PENALTIES, reverse=True)
    (kept,) = [trial for trial in layer.trials if trial.kept]
    assert kept.val_loss == min(trial.val_loss for trial in layer.trials)
    train_losses = [trial.train_loss for trial in layer.trials]
    assert train_losses == sorted(train_losses, reverse=True)  # a weaker penalty fits better


def test_a_patient_with_many_images_counts_once():
    train, val = _labelled(40, 0), _labelled(30, 1)
    rows = [0] * 50 + list(range(1, 30))  # patient 0 has fifty equal images
    repeated = LabelledFeatures(
        val.features[rows], val.targets[rows], [val.patients[row] for row in rows]
    )
    by_patient = fit_layer(train, val, PENALTIES)
    of_repeated = fit_layer(train, repeated, PENALTIES)
    losses = [[trial.val_loss for trial in layer.trials] for layer in (by_patient, of_repeated)]
    assert np.allclose(*losses)
    by_image = LabelledFeatures(
        repeated.features, repeated.targets, [f"patient{row}" for row in range(len(rows))]
    )
    of_images = [trial.val_loss for trial in fit_layer(train, by_image, PENALTIES).trials]
    assert not np.allclose(losses[0], of_images)


def test_unknown_labels_are_left_out_finding_by_finding():
    train, val = _labelled(80, 0), _labelled(40, 1)
    known = fit_layer(train, val, PENALTIES)
    unknown_rows = np.zeros((20, 2), np.float32)
    unknown_rows[:, 0] = np.nan
    other = (np.arange(100) % 2).astype(np.float32)
    both = LabelledFeatures(
        np.concatenate([train.features, train.features[:20]]),
        np.concatenate([np.column_stack([train.targets[:, 0], other[:80]]), unknown_rows]),
        [*train.patients, *train.patients[:20]],
    )
    val_targets = np.column_stack([val.targets[:, 0], other[:40]])
    layer = fit_layer(both, LabelledFeatures(val.features, val_targets, val.patients), PENALTIES)
    assert layer.weight.shape == (2, 6)
    # The mean and the deviation are of all images, so the fit differs a little.
    assert np.corrcoef(_scores(layer, val.features), _scores(known, val.features))[0, 1] > 0.99


def test_a_finding_without_a_negative_gives_every_image_the_same_score():
    train, val = _labelled(19, 0), _labelled(8, 1)
    layer = fit_layer(
        LabelledFeatures(train.features, np.ones((19, 1), np.float32), train.patients),
        LabelledFeatures(val.features, np.full((8, 1), np.nan, np.float32), val.patients),
        PENALTIES,
    )
    assert layer.constant == (0,)
    assert np.allclose(_scores(layer, val.features), 19.5 / 20)
    (trial,) = layer.trials
    assert trial.kept
    assert np.isnan(trial.val_loss)


def test_a_constant_feature_has_no_effect():
    train, val = _labelled(50, 0), _labelled(20, 1)

    def with_constant(images: LabelledFeatures) -> LabelledFeatures:
        features = np.column_stack([images.features, np.full(len(images.features), 7, np.float32)])
        return LabelledFeatures(features, images.targets, images.patients)

    plain = fit_layer(train, val, PENALTIES)
    layer = fit_layer(with_constant(train), with_constant(val), PENALTIES)
    assert layer.weight[0, -1] == 0
    assert np.allclose(_scores(layer, with_constant(val).features), _scores(plain, val.features))
