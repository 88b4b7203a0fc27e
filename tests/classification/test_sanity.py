"""The sanity check tells maps of what was learned from maps that any weights would give."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from classification.sanity import SHARES, randomisation_check, rank_correlations, rounds


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(4)
    return torch.randint(0, 256, (3, 1, 64, 64), dtype=torch.uint8, generator=generator)


class Brightness(nn.Module):
    """A trunk that learns nothing: its one layer's weights do not reach the maps' order."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Conv2d(3, 4, 1)

    def forward(self, pixels):
        light = nn.functional.avg_pool2d(pixels.mean(dim=1, keepdim=True), 16)
        return torch.exp(light) * self.scale.weight.abs().mean().expand(1, 4, 1, 1)


def test_rank_correlations_are_scipys():
    rng = np.random.default_rng(0)
    maps, others = rng.integers(0, 5, (2, 4, 3, 5, 6)).astype(float)
    expected = [
        spearmanr(a.ravel(), b.ravel()).statistic
        for a, b in zip(maps.reshape(12, 30), others.reshape(12, 30), strict=True)
    ]
    np.testing.assert_allclose(rank_correlations(maps, others), expected, atol=1e-12)


def test_a_map_without_an_order_is_left_out():
    flat, slope = np.zeros((1, 1, 2, 2)), np.arange(4.0).reshape(1, 1, 2, 2)
    assert rank_correlations(flat, slope) == []
    assert rank_correlations(slope, flat) == []
    assert rank_correlations(slope, slope) == pytest.approx([1.0])


@pytest.fixture
def tiny(build_small):
    """Four layers of convolution, each with batch norm and an in-place rectifier."""
    model = build_small(last_stride=16)
    layers, channels = [], 3
    for _ in range(4):
        convolution = nn.Conv2d(channels, 16, 3, stride=2, padding=1)
        layers += [convolution, nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
        channels = 16
    model.trunk, model.classifier = nn.Sequential(*layers), nn.Linear(16, 2)
    return model


@pytest.mark.parametrize("mode", ["cascading", "independent"])
def test_maps_of_weights_change_with_them(tiny, images, mode):
    found = randomisation_check(tiny, images, mode=mode, draws=2)
    assert [stage["share"] for stage in found["stages"]] == list(SHARES)
    assert all(stage["n_maps"] == 2 * 3 * 2 for stage in found["stages"])  # draws, images, findings
    layers = [stage["layers"] for stage in found["stages"]]
    assert layers == ([1, 2, 4, 9] if mode == "cascading" else [1, 1, 2, 5])
    last = found["stages"][-1 if mode == "cascading" else 0]
    assert abs(last["spearman"]) < 0.6
    assert last["spearman_abs"] < 0.9


def test_maps_of_the_picture_alone_are_found_out(build_small, images):
    model = build_small(n_findings=1).eval()
    model.trunk = Brightness()
    model.classifier = nn.Linear(4, 1)
    model.classifier.weight.data.fill_(1.0)
    model.classifier.weight.requires_grad_(False)
    # The gradient's map of this network is that of its light, whatever the weights' size or sign.
    found = randomisation_check(model, images, "gradient", draws=2)
    for stage in found["stages"]:
        assert stage["spearman"] == pytest.approx(1.0, abs=1e-6)


def test_the_check_tells_of_each_network_that_it_has_done(tiny, images):
    done: list[int] = []
    randomisation_check(tiny, images, draws=2, progress=done.append)
    assert sum(done) == rounds(draws=2) == 1 + 2 * len(SHARES)


def test_the_check_repeats_and_leaves_the_model_as_it_was(tiny, images):
    model = tiny.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    first = randomisation_check(model, images, "gradcam", draws=1, seed=3)
    assert first == randomisation_check(model, images, "gradcam", draws=1, seed=3)
    assert first != randomisation_check(model, images, "gradcam", draws=1, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
