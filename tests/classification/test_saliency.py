"""Where a classifier looks: each method against its formula, and exactly in its place."""

import pytest
import torch
from torch import nn

from classification.inference import _grad_cam, _head_gradients, saliency_maps
from classification.model import build_classifier
from data_prep.contracts.errors import InputError

METHODS = ("cam", "gradcam", "layercam")


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


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_with_a_linear_head_grad_cam_is_the_positive_part_of_cam_by_cell(build_small, batch, name):
    model = build_small(name, last_stride=16)
    cam, grad = (saliency_maps(model, batch.images, method) for method in ("cam", "gradcam"))
    assert (cam.maps > 0).any()
    assert (cam.maps < 0).any()
    expected = cam.maps.clamp(min=0) / cam.maps[0, 0].numel()
    torch.testing.assert_close(grad.maps, expected, atol=1e-6, rtol=1e-6)
    assert grad.frame == cam.frame


def test_gradients_of_a_head_that_works_in_place_are_those_of_small_steps(bent, batch):
    with torch.no_grad():
        features = bent.features(batch.images[:1])
    before = features.clone()
    logits, gradients = _head_gradients(bent, features)
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


def test_grad_cam_serves_any_head(bent, batch):
    found = saliency_maps(bent, batch.images, "gradcam")
    with torch.no_grad():
        features = bent.features(batch.images)
    _, gradients = _head_gradients(bent, features)
    torch.testing.assert_close(found.maps, _grad_cam(features, gradients))
    assert (found.maps.flatten(1).max(dim=1).values > 0).any()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_the_scores_of_the_plain_forward(tiny, batch, method):
    model, images = tiny, batch.images
    with torch.no_grad():
        expected = model.eval()(images)
    model.train()
    found = saliency_maps(model, images, method)
    torch.testing.assert_close(found.logits, expected)
    assert model.training
    assert found.maps.shape[:2] == (4, 2)
    assert found.maps.dtype == torch.float32
    assert not found.maps.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_gives_the_maps_of_its_images_one_by_one(tiny, batch, method):
    together = saliency_maps(tiny, batch.images, method).maps
    alone = torch.cat([saliency_maps(tiny, one[None], method).maps for one in batch.images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_layer_cam_is_the_sum_of_early_maps_by_their_positive_gradients(tiny, batch):
    found = saliency_maps(tiny, batch.images, "layercam")
    assert found.maps.shape == (4, 2, 16, 16)  # 4 px a cell, where the last maps have 16
    assert found.frame == (-1.5, -1.5, 62.5, 62.5)
    kept = {}
    hook = tiny.trunk[2].register_forward_hook(lambda *given: kept.update(early=given[-1]))
    logits = tiny.eval()(batch.images)
    hook.remove()
    for finding in range(2):
        (gradient,) = torch.autograd.grad(
            logits[:, finding].sum(), kept["early"], retain_graph=True
        )
        by_hand = (gradient.clamp(min=0) * kept["early"]).sum(dim=1).clamp(min=0).detach()
        torch.testing.assert_close(found.maps[:, finding], by_hand)
    assert (found.maps > 0).any()


def test_cells_of_layer_cam_are_those_before_the_last_halving(build_small, batch):
    for last_stride, cells in ((32, 4), (16, 8)):
        model = build_small("densenet121", last_stride=last_stride)
        assert saliency_maps(model, batch.images, "layercam").maps.shape[2:] == (cells, cells)


def test_layer_cam_of_no_sequence_of_layers_and_an_unknown_method_are_refused(tiny, batch):
    tiny.trunk = nn.ModuleDict({"all": tiny.trunk})
    with pytest.raises(InputError, match="layercam needs a network that is a sequence of layers"):
        saliency_maps(tiny, batch.images, "layercam")
    with pytest.raises(InputError, match=r"expected one of cam, .*, but got 'lime'"):
        saliency_maps(tiny, batch.images, "lime")


def test_cells_of_efficientnet_lite_tile_the_image():
    # By the arithmetic of its padding they would begin 15.5 px into the image and end beyond it.
    model = build_classifier("efficientnet_lite0", image_size=64)
    assert model.map_frame(2, 2) == (0, 0, 64, 64)
    assert model.before_halving[1].frame(4, 4) == (0, 0, 64, 64)


def test_gradients_are_found_where_the_caller_has_turned_them_off(tiny, batch):
    expected = saliency_maps(tiny, batch.images, "gradcam").maps
    with torch.no_grad():
        assert torch.equal(saliency_maps(tiny, batch.images, "gradcam").maps, expected)
