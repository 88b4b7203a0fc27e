"""A cell of a map lies where the network looks, and only networks with such cells are taken."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torchvision.models.convnext import LayerNorm2d
from torchvision.ops import SqueezeExcitation

from cxr_compare.classification.backbones import PooledNorm, build_trunk, trunk_stages
from cxr_compare.classification.feature_grid import Grid, trace_grid
from cxr_compare.classification.model import build_classifier
from cxr_compare.networks.registry import NETWORKS, network_names

HEAVY = ("resnet101", "resnet152", "vgg19", "vgg16_bn", "vgg19_bn", "inception_v3")
HEAVY += tuple(f"efficientnet_b{n}" for n in range(1, 5))
HEAVY += ("efficientnet_lite1", "efficientnet_lite2")
ALL = [
    # Layers are those of the smaller members of a family.
    pytest.param(name, stride, marks=[pytest.mark.long] if name in HEAVY else [])
    for name in network_names("classifier")
    for stride in NETWORKS[name].strides
]


class _Mean(nn.Module):
    """A pooling by the mean where there was one by the maximum: it looks at the same places."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.how = (pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, *self.how)


def looking_evenly(network: nn.Module) -> None:
    """Make each layer look evenly at its field: then the middle of the gradient is its middle."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.MaxPool2d):
                setattr(module, name, _Mean(child))
            elif isinstance(child, SqueezeExcitation | LayerNorm2d | PooledNorm | nn.LayerNorm):
                setattr(module, name, nn.Identity())  # looks at the whole image, or at channels
            elif isinstance(child, nn.Linear):
                nn.init.constant_(child.weight, 1 / child.in_features)
            elif isinstance(child, nn.Conv2d):
                odd = child.kernel_size[0] % 2 == 1
                middle = tuple(k // 2 for k in child.kernel_size)
                nn.init.zeros_(child.weight)
                # Of an odd kernel the middle alone: else the field would be wider than the image.
                index = (..., *middle) if odd else ...
                child.weight.data[index] = (
                    1
                    / child.weight[0].numel()
                    * (child.kernel_size[0] * child.kernel_size[1] if odd else 1)
                )
            if isinstance(child, nn.Linear | nn.Conv2d) and child.bias is not None:
                nn.init.zeros_(child.bias)


@pytest.mark.parametrize(("name", "last_stride"), ALL)
def test_gradient_of_a_cell_lies_in_its_middle(name, last_stride, monkeypatch):
    size = 224 if name == "inception_v3" else 128
    for random in ("kaiming_normal_", "kaiming_uniform_", "trunc_normal_", "normal_", "uniform_"):
        monkeypatch.setattr(nn.init, random, lambda tensor, *_, **__: tensor.data.zero_())
    trunk = build_trunk(name, last_stride, size)
    grid = trace_grid(trunk.layers, size)[0]
    assert trunk.grid == (grid.tiling() if "lite" in name else grid)
    looking_evenly(trunk.layers)
    mean = F.avg_pool2d
    monkeypatch.setattr(F, "max_pool2d", mean)  # Inception calls its poolings so
    # Those that keep the size look evenly around, but beyond the image, too: they would lean.
    monkeypatch.setattr(
        F, "avg_pool2d", lambda x, *how, **by: x if by.get("stride") == 1 else mean(x, *how, **by)
    )
    pixels = torch.full((1, 3, size, size), 1e-5, requires_grad=True)  # no ReLU6 is at its end
    maps = trunk.layers.eval()(pixels).sum(dim=1)[0]  # (h, w)
    centres = np.arange(size) + 0.5
    # Inner cells only: the outer ones' fields reach beyond the image.
    rows = {1, len(maps) - 2}
    assert len(rows) == 2
    for row in rows:
        (gradient,) = torch.autograd.grad(maps[row, row], pixels, retain_graph=True)
        for axis in (1, 2):
            weight = gradient[0].sum(dim=(0, 3 - axis)).double().numpy()
            middle = (weight * centres).sum() / weight.sum()
            assert middle == pytest.approx(grid.centre + row * grid.stride, abs=0.01)


def test_map_frame_follows_the_cells_of_the_network():
    model = build_classifier("squeezenet1_1", image_size=64, last_stride=16)
    rows = model.features(torch.zeros(1, 1, 64, 64, dtype=torch.uint8)).shape[2]
    assert rows == 3
    assert model.map_frame(rows, rows) == (7.5, 7.5, 55.5, 55.5)  # not padded: the rim is not seen


def test_branches_that_meet_apart_are_taken_at_the_middle_between_them():
    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool = nn.Conv2d(3, 3, 3, 2, 1), nn.AvgPool2d(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x) + self.pool(x)

    assert trace_grid(Apart(), 64)[0] == Grid(2, 0.75)  # 0.5 and 1.0


def test_padding_by_itself_moves_the_cells():
    class Same(nn.Module):  # as timm's networks from TensorFlow do it
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(F.pad(x, (0, 1, 0, 1)))

    assert trace_grid(Same(), 64) == (Grid(2, 1.5), 8)


def test_tracing_changes_nothing():
    layers = build_trunk("mobilenet_v3_small", 32).layers.train()
    before = {key: value.clone() for key, value in layers.state_dict().items()}
    state = torch.get_rng_state()
    trace_grid(layers, 64)
    assert layers.training
    assert all(torch.equal(value, before[key]) for key, value in layers.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(child._forward_hooks for child in layers.children())


@pytest.mark.parametrize("name", ["densenet121", "vgg16", "mobilenet_v3_small", "convnext_tiny"])
def test_stages_contain_every_layer_once_in_forward_order(name):
    children = [child for child, _ in build_trunk(name, 32).layers.named_children()]
    stages = trunk_stages(name)
    assert [child for stage in stages for child in stage] == children
    assert 4 <= len(stages) <= 5
