"""Where a classifier looks: each method against its formula, and exactly in its place."""

import pytest
import torch
from torch import nn

from cxr_compare.classification.activation_maps import activation_maps
from cxr_compare.classification.model import build_classifier
from cxr_compare.data_prep.contracts.errors import InputError

METHODS = ("cam", "gradcam", "layercam")


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


def test_grad_cam_weighs_the_last_maps_by_their_mean_gradients(tiny, batch):
    maps = activation_maps(tiny, batch.images, "gradcam")
    features = tiny.eval().features(batch.images).detach().requires_grad_()
    logits = tiny.logits(features)
    for finding in range(2):
        (gradient,) = torch.autograd.grad(logits[:, finding].sum(), features, retain_graph=True)
        weights = gradient.mean(dim=(2, 3), keepdim=True)
        by_hand = (weights * features).sum(dim=1).clamp(min=0).detach()
        torch.testing.assert_close(maps.maps[:, finding], by_hand, atol=1e-6, rtol=1e-6)
    assert (maps.maps > 0).any()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_the_scores_of_the_plain_forward(tiny, batch, method):
    model, images = tiny, batch.images
    with torch.no_grad():
        expected = model.eval()(images)
    model.train()
    maps = activation_maps(model, images, method)
    torch.testing.assert_close(maps.logits, expected)
    assert model.training
    assert maps.maps.shape[:2] == (4, 2)
    assert maps.maps.dtype == torch.float32
    assert not maps.maps.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_gives_the_maps_of_its_images_one_by_one(tiny, batch, method):
    together = activation_maps(tiny, batch.images, method).maps
    alone = torch.cat([activation_maps(tiny, one[None], method).maps for one in batch.images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_layer_cam_is_the_sum_of_early_maps_by_their_positive_gradients(tiny, batch):
    maps = activation_maps(tiny, batch.images, "layercam")
    assert maps.maps.shape == (4, 2, 16, 16)  # 4 px a cell, where the last maps have 16
    assert maps.frame == (-1.5, -1.5, 62.5, 62.5)
    activations = {}
    hook = tiny.trunk[2].register_forward_hook(
        lambda *arguments: activations.update(early=arguments[-1])
    )
    logits = tiny.eval()(batch.images)
    hook.remove()
    for finding in range(2):
        (gradient,) = torch.autograd.grad(
            logits[:, finding].sum(), activations["early"], retain_graph=True
        )
        by_hand = (gradient.clamp(min=0) * activations["early"]).sum(dim=1).clamp(min=0).detach()
        torch.testing.assert_close(maps.maps[:, finding], by_hand)
    assert (maps.maps > 0).any()


def test_cells_of_layer_cam_are_those_before_the_last_halving(build_small, batch):
    for last_stride, cells in ((32, 4), (16, 8)):
        model = build_small("densenet121", last_stride=last_stride)
        assert activation_maps(model, batch.images, "layercam").maps.shape[2:] == (cells, cells)


def test_layer_cam_of_no_sequence_of_layers_and_an_unknown_method_are_refused(tiny, batch):
    tiny.trunk = nn.ModuleDict({"all": tiny.trunk})
    with pytest.raises(InputError, match=r"^maps: layercam .*cam or gradcam"):
        activation_maps(tiny, batch.images, "layercam")
    with pytest.raises(InputError, match=r"^maps: .* cam, .*'lime'"):
        activation_maps(tiny, batch.images, "lime")


def test_cells_of_efficientnet_lite_tile_the_image():
    # By the arithmetic of its padding they would begin 15.5 px into the image and end beyond it.
    model = build_classifier("efficientnet_lite0", image_size=64)
    assert model.map_frame(2, 2) == (0, 0, 64, 64)
    assert model.before_halving[1].frame(4, 4) == (0, 0, 64, 64)


def test_gradients_are_computed_where_the_caller_has_turned_them_off(tiny, batch):
    expected = activation_maps(tiny, batch.images, "layercam").maps
    with torch.no_grad():
        assert torch.equal(activation_maps(tiny, batch.images, "layercam").maps, expected)
