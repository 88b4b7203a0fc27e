"""Passes with dropout: a mean, a spread, and a model left as it was."""

import numpy as np
import pytest
import torch

from classification.inference import predict_scores
from classification.loss import scores_of
from classification.mc_dropout import check_dropout, dropout_scores
from classification.model import build_classifier
from data_prep.contracts.errors import InputError
from data_prep.store.preprocess import Placement


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_classifier("resnet18", image_size=32, n_findings=2, dropout=0.5).eval()


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8, generator=generator)


def test_mean_and_spread_are_those_of_the_passes(model, images):
    mean, spread = dropout_scores(model, images, passes=4, seed=3)
    torch.manual_seed(3)
    with torch.inference_mode():
        features = model.features(images)
        model.dropout.train()
        each = torch.stack([scores_of(model.logits(features)) for _ in range(4)]).numpy()
        model.dropout.eval()
    np.testing.assert_allclose(mean, each.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(spread, each.std(axis=0), rtol=1e-4, atol=1e-7)
    assert (spread > 0).all()


def test_the_model_and_the_random_state_are_left_as_they_were(model, images):
    state = torch.get_rng_state()
    first = dropout_scores(model, images, passes=2)
    assert not any(layer.training for layer in model.modules())
    assert torch.equal(state, torch.get_rng_state())
    second = dropout_scores(model, images, passes=2)
    assert torch.equal(first[0], second[0])  # the same seed, the same answer


def test_dropout_inside_the_trunk_is_passed_through_each_time(images):
    torch.manual_seed(0)
    model = build_classifier("resnet18", image_size=32, dropout=0.0).eval()
    with pytest.raises(InputError, match="has no dropout"):
        check_dropout(model)
    model.trunk = torch.nn.Sequential(model.trunk, torch.nn.Dropout2d(0.5)).eval()
    assert (dropout_scores(model, images, passes=4)[1] > 0).all()


def test_predictions_carry_the_spread(model, images):
    class Batch:
        image_ids = ("a", "b", "c")

    Batch.images = images
    whole = Placement(1.0, 1.0, 0.0, 0.0)
    with_spread, plain = (
        next(
            predict_scores(model, [Batch], ["x", "y"], placement=lambda _: whole, mc_dropout=passes)
        ).scores
        for passes in (4, 0)
    )
    mean, spread = dropout_scores(model, images, passes=4)
    np.testing.assert_allclose(with_spread["spread"], spread.ravel(), rtol=1e-6)
    np.testing.assert_allclose(with_spread["score"], mean.ravel(), rtol=1e-6)
    assert "spread" not in plain


def test_one_pass_has_no_spread(model, images):
    with pytest.raises(InputError, match="at least 2 passes"):
        dropout_scores(model, images, passes=1)
