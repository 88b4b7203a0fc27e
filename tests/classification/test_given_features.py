"""A classifier of given features: maps add up to logits, and whole images have no map."""

import pandas as pd
import pytest
import torch

from cxr_compare.classification.activation_maps import activation_maps
from cxr_compare.classification.given_features import build_feature_classifier
from cxr_compare.classification.inference import predict_scores
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.placement import Placement


def _part(model, features):
    ids = [f"image{row}" for row in range(len(features))]
    # the grid covers the part from (10, 20) to (30, 60) px of each original
    placement = Placement(1 / 20, 1 / 40, -10 / 20, -20 / 40)
    (part,) = predict_scores(model, [(ids, features)], ["mass"], placement=lambda _: placement)
    return part


def test_the_mean_of_a_map_and_the_bias_are_the_logit():
    torch.manual_seed(0)
    model = build_feature_classifier(5, (2, 3)).eval()
    mapped = activation_maps(model, torch.randn(4, 1, 5, 2, 3))
    assert mapped.maps.shape == (4, 1, 2, 3)
    sums = mapped.maps.mean(dim=(2, 3)) + model.classifier.bias
    assert torch.allclose(sums, mapped.logits, atol=1e-6)


def test_maps_have_the_frame_of_their_grid_in_the_original():
    part = _part(build_feature_classifier(5, (2, 3)), torch.randn(2, 1, 5, 2, 3))
    rows = part.tables["maps"]
    assert rows[["grid_h", "grid_w"]].values.tolist() == [[2, 3], [2, 3]]
    assert rows[["x1", "y1", "x2", "y2"]].iloc[0].tolist() == pytest.approx([10, 20, 30, 60])


def test_features_of_whole_images_give_scores_and_no_map():
    part = _part(build_feature_classifier(5), torch.randn(2, 1, 5, 1, 1))
    assert list(part.tables) == ["scores"]
    assert isinstance(part.tables["scores"], pd.DataFrame)
    assert len(part.tables["scores"]) == 2


def test_features_of_another_encoder_are_refused():
    with pytest.raises(InputError, match="5 channels"):
        build_feature_classifier(5)(torch.randn(2, 1, 6, 1, 1))
