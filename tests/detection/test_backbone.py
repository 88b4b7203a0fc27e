"""Every backbone gives C3, C4 and C5 at their strides, learns, and is torchvision's own."""

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.misc import FrozenBatchNorm2d

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.detection.backbone import (
    NORMS,
    DetectorStart,
    _body_layers,
    build_body,
    group_norm,
)
from cxr_compare.detection.detector import LesionBatch, training_losses
from cxr_compare.detection.model import build_detector
from cxr_compare.networks.builders import build_network
from cxr_compare.networks.layer_shapes import measure_layers
from cxr_compare.networks.registry import network_names

SIZE = 96
# torchvision's documented number of parameters, and of those in the layers left out here.
PARAMETERS = {
    "resnet18": (11_689_512, 513_000),
    "resnet34": (21_797_672, 513_000),
    "resnet50": (25_557_032, 2_049_000),
    "resnet101": (44_549_160, 2_049_000),
    "resnext50_32x4d": (25_028_904, 2_049_000),
    "mobilenet_v3_small": (2_542_856, 576 * 1024 + 1024 + 1024 * 1000 + 1000),
    "mobilenet_v3_large": (5_483_032, 960 * 1280 + 1280 + 1280 * 1000 + 1000),
    "efficientnet_b0": (5_288_548, 1_281_000),
    "efficientnet_b1": (7_794_184, 1_281_000),
    "efficientnet_b2": (9_109_994, 1_409_000),
    "efficientnet_b3": (12_233_232, 1_537_000),
    "densenet121": (7_978_856, 1_025_000),
    "efficientnet_lite0": (3_371_008, 0),  # features alone; published with 1,281,000 more
    "efficientnet_lite1": (4_135_680, 0),
    "efficientnet_lite2": (4_811_072, 0),
}
# Deeper or wider than another one here, which the same lines build.
VARIANTS = (
    "resnet34",
    "resnet101",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "efficientnet_lite1",
    "efficientnet_lite2",
)
STAGES = {  # by stride 32, 16, 8, 4, 2
    "resnet18": ["layer4", "layer3", "layer2", "layer1", "bn1 conv1"],
    "mobilenet_v3_small": ["10 11 12 9", "4 5 6 7 8", "2 3", "1", "0"],
    "mobilenet_v3_large": ["13 14 15 16", "10 11 12 7 8 9", "4 5 6", "2 3", "0 1"],
    "efficientnet_b0": ["6 7 8", "4 5", "3", "2", "0 1"],
    "densenet121": [
        "denseblock4 norm5 transition3", "denseblock3 transition2", "denseblock2 transition1",
        "denseblock1", "conv0 norm0",
    ],
    "efficientnet_lite0": [
        "block11 block12 block13 block14 block15 last",
        "block10 block5 block6 block7 block8 block9", "block3 block4", "block1 block2",
        "block0 stem",
    ],
}  # fmt: skip


def _batch() -> LesionBatch:
    """Two noise images, one with a lesion."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 1, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    boxes = [torch.tensor([[20.0, 20.0, 60.0, 70.0]]), torch.zeros(0, 4)]
    labels = [torch.ones(1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)]
    return LesionBatch(["a", "b"], images, boxes, labels)


def test_every_backbone_of_the_registry_is_counted_here():
    assert set(network_names("detector")) == set(PARAMETERS)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.long) if n in VARIANTS else n for n in PARAMETERS]
)
def test_detector_on_every_backbone_has_five_levels_and_learns(name):
    model = build_detector(
        "retinanet",
        backbone=name,
        norm="group",
        head="v2",
        fpn_channels=16,
        head_convs=1,
        image_size=SIZE,
    )
    taken = []
    hook = model.backbone.body.register_forward_hook(lambda _, __, out: taken.append(out))
    levels = []
    model.backbone.register_forward_hook(lambda _, __, out: levels.extend(out.values()))
    assert not {type(m) for m in model.modules()} & {nn.BatchNorm2d, FrozenBatchNorm2d}
    sum(training_losses(model, _batch()).values()).backward()
    hook.remove()
    # C3, C4, C5 at strides 8, 16, 32, as wide as what the pyramid reads.
    widths = [block[0].in_channels for block in model.backbone.fpn.inner_blocks]
    assert [tuple(c.shape[1:]) for c in taken[0].values()] == [
        (width, SIZE // stride, SIZE // stride)
        for width, stride in zip(widths, (8, 16, 32), strict=True)
    ]
    assert [level.shape[-1] for level in levels] == [12, 6, 3, 2, 1]
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert missing == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("mobilenet_v3_small", "frozen"), ("mobilenet_v3_small", "batch"),
        ("efficientnet_b0", "batch"), ("efficientnet_lite0", "frozen"), ("densenet121", "batch"),
    ],
)  # fmt: skip
def test_body_learns_with_batch_norm_of_either_kind(name, norm):
    model = build_detector(
        "retinanet", backbone=name, norm=norm, fpn_channels=16, head_convs=1, image_size=SIZE
    )
    before = {key: value.clone() for key, value in model.named_buffers()}
    sum(training_losses(model, _batch()).values()).backward()
    assert all(p.grad is not None for p in model.parameters())
    moved = [key for key, value in model.named_buffers() if not torch.equal(value, before[key])]
    assert bool(moved) == (norm == "batch")


@pytest.mark.parametrize("name", list(PARAMETERS))
def test_body_is_the_published_network_less_the_last_layers(name):
    with torch.device("meta"):
        body = build_body(name, "batch")
        whole = build_network(name)
    total, last = PARAMETERS[name]
    assert sum(p.numel() for p in whole.parameters()) == total
    assert sum(p.numel() for p in body.parameters()) == total - last


TIMM = [
    ("timm:resnet10t", "frozen"), ("timm:resnet10t", "group"), ("timm:convnext_atto", "batch"),
    ("timm:mobilenetv3_small_050", "frozen"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "norm"), TIMM)
def test_network_of_timm_has_the_requested_norm(name, norm):
    kinds = {"frozen": FrozenBatchNorm2d, "group": nn.GroupNorm, "batch": nn.LayerNorm}
    layers = list(build_body(name, norm).modules())
    assert any(isinstance(layer, kinds[norm]) for layer in layers)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in layers)


def test_norms_keep_the_activation_that_timm_puts_into_its_batch_norm():
    live = build_body("timm:mobilenetv3_small_050", "batch").eval()
    frozen = build_body("timm:mobilenetv3_small_050", "frozen").eval()
    grouped = build_body("timm:mobilenetv3_small_050", "group").eval()
    frozen.load_state_dict(live.state_dict(), strict=False)
    maps = torch.randn(1, live.bn1.num_features, 4, 4)
    torch.testing.assert_close(frozen.bn1(maps), live.bn1(maps))
    expected = live.bn1.act(nn.functional.group_norm(maps, 2))
    torch.testing.assert_close(grouped.bn1(maps), expected)


@pytest.mark.parametrize(
    ("name", "norm", "message"),
    [
        ("timm:convnext_atto", "group", "norm: timm:convnext_atto .*model.norm = batch"),
        ("timm:vit_tiny_patch16_224", "batch", "backbone: timm:vit_tiny_patch16_224 "),
        ("timm:resnet5", "batch", "backbone: .*'resnet5'"),
    ],
)
def test_unsuitable_network_of_a_pyramid_is_refused_in_one_line(name, norm, message):
    with pytest.raises(InputError, match=message):
        build_detector("retinanet", backbone=name, norm=norm, fpn_channels=16, image_size=SIZE)


def start_on(name: str) -> DetectorStart:
    """A random body with batch norm."""
    return DetectorStart(
        name, "batch", build_body(name, "batch"), Preprocess(size=SIZE, mean=0.5, std=0.2), 1
    )


@pytest.mark.parametrize("name", ["densenet121", "resnet18", "timm:resnet10t"])
def test_a_pyramid_may_begin_at_another_stride_and_end_pooled(name):
    pyramid = start_on(name).pyramid(8, strides=(4, 8, 16, 32), pooled_top=True).eval()
    with torch.no_grad():
        levels = pyramid(torch.rand(1, 3, 64, 64)).values()
    assert [level.shape[-1] for level in levels] == [16, 8, 4, 2, 1]
    with pytest.raises(InputError, match=f"backbone: {name} has no maps of 64 px .*4, 8, 16, 32"):
        start_on(name).pyramid(8, strides=(8, 64))


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("resnet18", (16,)), ("densenet121", (32, 8)), ("densenet121", (4, 8, 16, 32)),
        ("mobilenet_v3_small", (4, 8, 16, 32)),
    ],
)  # fmt: skip
def test_maps_of_any_strides_of_a_backbone_come_from_fine_to_coarse(name, strides):
    body, widths = start_on(name).maps(*strides)
    with torch.no_grad():
        maps = list(body.eval()(torch.rand(1, 3, 64, 64)).values())
    assert [64 // level.shape[-1] for level in maps] == sorted(strides)
    assert [level.shape[1] for level in maps] == widths


def test_maps_that_a_backbone_lacks_are_named():
    with pytest.raises(InputError, match=r"densenet121 has no maps of 2, 64 px .* 4, 8, 16, 32;"):
        start_on("densenet121").maps(2, 8, 64)


def test_densenet_under_a_pyramid_is_torchvisions_densenet():
    network = models.densenet121(weights=None).eval()
    pyramid = start_on("densenet121").pyramid(8, p6_from_c5=True)
    pyramid.body.load_state_dict(network.features.state_dict())  # the names are its own
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        features = pyramid.eval().body(image)
        assert torch.equal(features["2"], network.features(image).relu())
        # C4 is what the network's own last transition rectifies.
        seen = []
        network.features.transition3.conv.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
        network(image)
    assert torch.equal(features["1"], seen[0])


@pytest.mark.parametrize("name", list(STAGES))
def test_stages_thaw_from_the_top_by_their_stride(name):
    with torch.device("meta"):
        model = build_detector("retinanet", backbone=name, norm="batch", fpn_channels=16)
    for layers in (0, 2, 5):
        model.freeze_for_epoch(layers)
        parameters = model.body.named_parameters()
        learning = {key.split(".")[0] for key, p in parameters if p.requires_grad}
        assert learning == {child for stage in STAGES[name][:layers] for child in stage.split()}
    assert all(p.requires_grad for p in model.backbone.fpn.parameters())
    assert all(p.requires_grad for p in model.head.parameters())


@pytest.mark.parametrize("name", ["efficientnet_lite0", "densenet121"])
def test_frozen_batch_norm_computes_what_batch_norm_does_in_evaluation(name):
    live, frozen = build_body(name, "batch").eval(), build_body(name, "frozen")
    for module in live.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(1e-3, 2.0)  # small ones show a wrong epsilon
    missing = frozen.load_state_dict(live.state_dict(), strict=False)
    assert missing.missing_keys == []
    assert all(key.endswith("num_batches_tracked") for key in missing.unexpected_keys)
    assert any(isinstance(module, FrozenBatchNorm2d) for module in frozen.modules())
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(frozen.double().train()(image), live.double()(image))


def test_frozen_batch_norm_keeps_the_precision_of_autocast_forward_and_backward():
    torch.manual_seed(0)
    ours = NORMS["frozen"](nn.BatchNorm2d(16))
    for value, (low, high) in zip(
        ours.buffers(), [(0.5, 2), (-1, 1), (-1, 1), (0.1, 2)], strict=True
    ):
        value.uniform_(low, high)
    parent = FrozenBatchNorm2d(16)
    parent.load_state_dict(ours.state_dict())
    exact = torch.randn(2, 16, 5, 5, requires_grad=True)
    maps = exact.detach().bfloat16().to(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        normed = ours(maps)
    assert normed.dtype == torch.bfloat16
    assert normed.is_contiguous(memory_format=torch.channels_last)
    expected = parent(maps.detach().float())
    torch.testing.assert_close(normed, expected.bfloat16())
    normed.sum().backward()
    parent(exact).sum().backward()
    torch.testing.assert_close(maps.grad, exact.grad.bfloat16())
    assert torch.equal(ours(exact), parent(exact))  # in float32 it is torchvision's, bit for bit


@pytest.mark.parametrize(("channels", "groups"), [(8, 1), (136, 17), (264, 24)])
def test_groups_hold_eight_channels_or_more(channels, groups):
    assert group_norm(channels).num_groups == groups


@pytest.mark.parametrize("channels", [0, 12])
def test_channels_that_make_no_groups_of_eight_are_refused(channels):
    with pytest.raises(InputError, match=f"8 channels.* {channels}$"):
        group_norm(channels)


def test_pyramid_of_a_resnet_has_the_names_of_torchvision():
    with torch.device("meta"):
        ours = start_on("resnet18").pyramid(16)
        body = models.resnet18(weights=None)
    stages = {"layer2": "0", "layer3": "1", "layer4": "2"}
    theirs = BackboneWithFPN(body, stages, [128, 256, 512], 16)
    names = {k for k in ours.state_dict() if not k.startswith("fpn.extra_blocks.")}
    assert names == set(theirs.state_dict())


def test_looking_for_strides_draws_no_random_number():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    _body_layers.cache_clear()
    _body_layers("resnet18")
    assert torch.equal(torch.rand(1), expected)


class _OutOfOrder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last, self.first = nn.Conv2d(8, 8, 3), nn.Conv2d(3, 8, 3)


def test_body_that_cannot_be_measured_is_refused_with_the_requirement():
    with pytest.raises(TypeError, match=r"'last' .*\(RuntimeError"):
        measure_layers(_OutOfOrder(), 64)
