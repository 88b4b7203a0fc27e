"""Where a classifier looks: each method against its formula, and exactly in its place."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from classification.saliency import (
    explain,
    grad_cam,
    grad_cam_plus_plus,
    head_gradients,
    input_gradient,
    occlusion_map,
)
from data_prep.contracts.errors import InputError

METHODS = ("cam", "gradcam", "gradcam++", "occlusion", "gradient")


class BentHead(nn.Module):
    """A head that is not linear, and whose first layer works in place on what it is given."""

    def __init__(self, channels, n_findings):
        super().__init__()
        self.hidden = nn.Linear(channels, 6)
        self.out = nn.Linear(6, n_findings)

    def forward(self, features):
        kept = torch.relu_(features - 0.1)
        # The square keeps places apart: their gradients differ within a channel.
        return self.out(torch.tanh(self.hidden(kept.square().mean(dim=(2, 3)))))


@pytest.fixture
def tiny(build_small):
    """Two layers of convolution with what real networks have: batch norm, in-place rectifiers."""
    model = build_small(last_stride=16)
    model.trunk = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=4, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 12, 3, stride=4, padding=1),
        nn.ReLU(inplace=True),
    )
    model.classifier = nn.Linear(12, 2)
    return model


@pytest.fixture
def bent(tiny, monkeypatch):
    model = tiny.eval()
    head = BentHead(model.classifier.in_features, 2)
    monkeypatch.setattr(model, "logits", head.forward)
    return model


def plain_grad_cam_plus_plus(features, gradients, logit):
    """The paper's formula for one image and finding, place by place."""
    channels, rows, columns = features.shape
    result = np.zeros((rows, columns))
    for k in range(channels):
        weight = 0.0
        for i in range(rows):
            for j in range(columns):
                g = gradients[k, i, j]
                below = 2 * g**2 + features[k].sum() * g**3
                alpha = g**2 / below if below else 0.0
                weight += alpha * max(np.exp(logit) * g, 0.0)
        result += weight * features[k]
    return np.maximum(result, 0.0)


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_with_a_linear_head_grad_cam_is_the_positive_part_of_cam_by_cell(build_small, batch, name):
    model = build_small(name, last_stride=16)
    cam, grad = (explain(model, batch.images, method) for method in ("cam", "gradcam"))
    assert (cam.maps > 0).any()
    assert (cam.maps < 0).any()
    expected = cam.maps.clamp(min=0) / cam.maps[0, 0].numel()
    torch.testing.assert_close(grad.maps, expected, atol=1e-6, rtol=1e-6)
    assert grad.frame == cam.frame


@pytest.mark.parametrize("seed", range(3))
def test_grad_cam_plus_plus_is_the_papers_formula(seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(2, 5, 3, 4, generator=generator, dtype=torch.float64)
    gradients = torch.randn(2, 3, 5, 3, 4, generator=generator, dtype=torch.float64)
    gradients[0, 0, 2] = 0.0  # a channel that the logit does not read
    logits = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    maps = grad_cam_plus_plus(features, gradients, logits).numpy()
    for image in range(2):
        for finding in range(3):
            expected = plain_grad_cam_plus_plus(
                features[image].numpy(),
                gradients[image, finding].numpy(),
                float(logits[image, finding]),
            )
            np.testing.assert_allclose(maps[image, finding], expected, rtol=1e-12)


def test_an_extreme_logit_keeps_a_finite_map():
    features, gradients = torch.rand(1, 5, 3, 4), torch.rand(1, 1, 5, 3, 4)
    maps = grad_cam_plus_plus(features, gradients, torch.tensor([[500.0]]))
    usual = grad_cam_plus_plus(features, gradients, torch.tensor([[0.0]]))
    torch.testing.assert_close(maps / maps.max(), usual / usual.max())


def test_gradients_of_a_head_that_works_in_place_are_those_of_small_steps(bent, batch):
    with torch.no_grad():
        features = bent.features(batch.images[:1])
    before = features.clone()
    logits, gradients = head_gradients(bent, features)
    assert torch.equal(features, before)  # the head did not eat the features
    step = 1e-2
    for channel, row, column in ((0, 0, 0), (3, 1, 2), (7, 3, 3), (11, 2, 0)):
        for finding in range(2):
            moved = []
            for sign in (1, -1):
                near = features.clone()
                near[0, channel, row, column] += sign * step
                with torch.no_grad():
                    moved.append(float(bent.logits(near)[0, finding]))
            slope = (moved[0] - moved[1]) / (2 * step)
            assert float(gradients[0, finding, channel, row, column]) == pytest.approx(
                slope, abs=2e-4
            )
    torch.testing.assert_close(logits, bent.logits(features.clone()).detach())


@pytest.mark.parametrize("method", ["gradcam", "gradcam++"])
def test_gradient_maps_serve_any_head(bent, batch, method):
    found = explain(bent, batch.images, method)
    with torch.no_grad():
        features = bent.features(batch.images)
    logits, gradients = head_gradients(bent, features)
    expected = (
        grad_cam(features, gradients)
        if method == "gradcam"
        else grad_cam_plus_plus(features, gradients, logits)
    )
    torch.testing.assert_close(found.maps, expected)
    assert (found.maps.flatten(1).max(dim=1).values > 0).any()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_the_scores_of_the_plain_forward(tiny, batch, method):
    model, images = tiny, batch.images
    with torch.no_grad():
        expected = model.eval()(images)
    model.train()
    found = explain(model, images, method)
    torch.testing.assert_close(found.logits, expected)
    assert model.training
    assert found.maps.shape[:2] == (4, 2)
    assert found.maps.dtype == torch.float32
    assert not found.maps.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_gives_the_maps_of_its_images_one_by_one(tiny, batch, method):
    together = explain(tiny, batch.images, method).maps
    alone = torch.cat([explain(tiny, one[None], method).maps for one in batch.images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


class Window(nn.Module):
    """Hands through the picture's quarter of columns 16 to 31 of a 64 px image."""

    def forward(self, pixels):
        return nn.functional.pad(pixels[..., 16:32], (16, 32))


@pytest.fixture
def window(build_small):
    """A classifier made by hand: its logit is 2 x the mean of rows and columns that it sees."""
    model = build_small(n_findings=1, mean=0.0, std=1.0, last_stride=16).eval()
    model.trunk = Window()
    model.classifier = nn.Linear(3, 1)
    nn.init.constant_(model.classifier.weight, 2 / 3)
    nn.init.zeros_(model.classifier.bias)
    return model


def test_occlusion_is_the_light_that_the_square_hides(window):
    # Squares of 16 px in steps of 8 px; the network sees columns 16 to 31 only.
    images = torch.full((2, 1, 64, 64), 255, dtype=torch.uint8)
    images[1] = 51
    with torch.no_grad():
        maps, frame = occlusion_map(window, images, window(images))
    assert frame == (0.0, 0.0, 64.0, 64.0)
    assert maps.shape == (2, 1, 8, 8)
    # The square of cell i covers px 8i - 4 to 8i + 12, at the border the part inside.
    columns = [max(0, min(32, 8 * i + 12) - max(16, 8 * i - 4)) for i in range(8)]
    rows = [min(64, 8 * i + 12) - max(0, 8 * i - 4) for i in range(8)]
    expected = 2 * np.outer(rows, columns) / 64**2
    np.testing.assert_allclose(maps[0, 0].numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(maps[1, 0].numpy(), expected / 5, atol=1e-6)


def test_occlusion_looks_at_each_whole_picture_once(window, monkeypatch):
    looked, features = [], window.features
    monkeypatch.setattr(window, "features", lambda x: looked.append(len(x)) or features(x))
    explain(window, torch.full((2, 1, 64, 64), 255, dtype=torch.uint8), "occlusion")
    assert sum(looked) == 2 + 2 * 8 * 8  # whole, and with each cell's square over it


def test_the_input_gradient_lies_where_the_network_looks(window):
    images = torch.full((1, 1, 64, 64), 128, dtype=torch.uint8)
    maps, frame = input_gradient(window, images)
    assert frame == (0.0, 0.0, 64.0, 64.0)
    expected = np.zeros((16, 16))
    expected[:, 4:8] = 2 / 64**2  # a pixel's share of the mean, whatever the noise
    np.testing.assert_allclose(maps[0, 0].numpy(), expected, atol=1e-9)


def test_the_input_gradient_is_the_derivative_at_each_pixel(window):
    window.trunk = nn.Tanh()
    images = torch.randint(1, 256, (1, 1, 64, 64), dtype=torch.uint8)
    maps, _ = input_gradient(window, images, draws=1, noise=0.0)
    grey = images[0, 0].double().numpy() / 255
    slope = 2 * (1 - np.tanh(grey) ** 2) / 64**2
    expected = slope.reshape(16, 4, 16, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(maps[0, 0].numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize("method", ["occlusion", "gradient"])
def test_cells_that_do_not_divide_the_image_reach_beyond_it(window, method):
    window.preprocess = replace(window.preprocess, size=70)
    found = explain(window, torch.full((1, 1, 70, 70), 128, dtype=torch.uint8), method)
    side = {"occlusion": 8, "gradient": 4}[method]
    cells = -(-70 // side)
    assert found.maps.shape[2:] == (cells, cells)
    assert found.frame == (0.0, 0.0, cells * side, cells * side)


def test_an_unknown_method_is_refused(tiny, batch):
    with pytest.raises(InputError, match=r"expected one of cam, .*, but got 'lime'"):
        explain(tiny, batch.images, "lime")


@pytest.mark.parametrize("method", ["gradcam", "gradient"])
def test_gradients_are_found_where_the_caller_has_turned_them_off(tiny, batch, method):
    expected = explain(tiny, batch.images, method).maps
    with torch.no_grad():
        assert torch.equal(explain(tiny, batch.images, method).maps, expected)
