"""The classifier is torchvision's network on the store's own pixels, and its map its own sum."""

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models import densenet121

from cxr_compare.classification.loss import training_losses
from cxr_compare.classification.model import COLOUR_MEAN, COLOUR_STD
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.networks.registry import NETWORKS

HEAVY = (
    "resnet34", "resnet101", "resnet152", "vgg19", "vgg16_bn", "vgg19_bn",
    "mobilenet_v3_large", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3",
    "efficientnet_b4", "inception_v3",
)  # fmt: skip
TORCHVISION = [
    pytest.param(name, marks=pytest.mark.long) if name in HEAVY else name
    for name, network in NETWORKS.items()
    if network.classifier and isinstance(network.weights, str)
]
# Where our trunk and our last layer are in torchvision's network; None: another head.
PREFIXES = {
    "densenet": ("features.", "classifier."),
    "resnet": ("", "fc."),
    "inception": ("", "fc."),
    "mobilenet_v2": ("features.", "classifier.1."),
    "efficientnet": ("features.", "classifier.1."),
    "convnext": ("features.", "classifier.2."),
    "mobilenet_v3": ("features.", None),
    "squeezenet": ("features.", None),
    "vgg": ("features.", None),
}


def as_torchvision(state: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """Our state dictionary in the names of torchvision's network."""
    trunk, top = next(prefixes for family, prefixes in PREFIXES.items() if name.startswith(family))
    key_prefixes = {"trunk.norm.": "classifier.0.", "trunk.": trunk, "classifier.": top}
    renamed = {}
    for key, value in state.items():
        ours = next(part for part in key_prefixes if key.startswith(part))
        if key_prefixes[ours] is not None:
            renamed[key_prefixes[ours] + key.removeprefix(ours)] = value
    return renamed


def torchvision_network(name: str, state: dict[str, torch.Tensor]) -> tuple[nn.Module, bool]:
    """Torchvision's network with our weights, and whether its head is ours, too."""
    extra = {"aux_logits": False, "init_weights": True} if name == "inception_v3" else {}
    fills = ("kaiming_normal_", "kaiming_uniform_", "normal_", "trunc_normal_", "uniform_")
    with torch.device("meta"), pytest.MonkeyPatch.context() as patch:  # the head of VGG is 500 MB
        for fill in fills:
            patch.setattr(nn.init, fill, lambda tensor, *_, **__: tensor)
        network = models.get_model(name, num_classes=2, **extra)
    renamed = as_torchvision(state, name)
    same_head = network.state_dict().keys() == renamed.keys()
    loaded = network.load_state_dict(renamed, strict=False, assign=True)
    assert loaded.unexpected_keys == []
    assert same_head or all(key.startswith("classifier.") for key in loaded.missing_keys)
    return network.eval(), same_head


@pytest.mark.parametrize("name", TORCHVISION)
def test_logits_equal_torchvision_on_the_same_weights(name, build_small):
    size = max(64, -(-NETWORKS[name].min_size // 32) * 32)
    ours = build_small(name, last_stride=NETWORKS[name].strides[-1], image_size=size).eval()
    if name == "convnext_tiny":
        nn.init.normal_(ours.trunk.norm.weight)
        nn.init.normal_(ours.trunk.norm.bias)
    images = torch.randint(0, 256, (2, 1, size, size), dtype=torch.uint8)
    theirs, same_head = torchvision_network(name, ours.state_dict())
    pixels = ours.preprocess.normalise(images).expand(-1, 3, -1, -1)
    with torch.no_grad():
        if same_head:
            expected, actual = theirs(pixels), ours(images)
        else:
            expected, actual = theirs.features(pixels), ours.features(images)
    assert same_head != name.startswith(("vgg", "squeezenet", "mobilenet_v3"))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["inception_v3", "mobilenet_v3_small", "convnext_tiny"])
def test_imagenet_weights_of_torchvisions_file_reach_the_trunk(name, build_small, monkeypatch):
    theirs = models.get_model(name, **({"init_weights": True} if "inception" in name else {}))
    file = theirs.state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: file)
    ours = build_small(name, weights="imagenet", image_size=96)
    for key, value in as_torchvision(ours.trunk.state_dict(prefix="trunk."), name).items():
        assert torch.equal(value, file[key]), key
    # Inception's file wants other pixels than the rest: (x - 0.5) / 0.5.
    expected = (0.5, 0.5) if name == "inception_v3" else (0.449, 0.226)
    assert (ours.preprocess.mean, ours.preprocess.std) == expected


def test_channels_may_be_normalised_as_imagenets_colours(build_small, batch):
    model = build_small(channels="imagenet", mean=0.3, std=0.1).eval()
    seen = []
    model.trunk.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(batch.images)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (COLOUR_MEAN, COLOUR_STD))
    torch.testing.assert_close(seen[0], (batch.images / 255 - mean) / std, rtol=0, atol=1e-5)
    assert not any("gain" in key or "shift" in key for key in model.state_dict())


def test_the_trunk_sees_the_pixels_of_the_store(build_small, batch):
    model = build_small(mean=0.4, std=0.2).eval()
    seen = []
    model.trunk.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(batch.images)
    assert seen[0].shape == (4, 3, 64, 64)
    grey = (seen[0] * (255 * 0.2) + 255 * 0.4).round().to(torch.uint8)
    for channel in range(3):
        assert torch.equal(grey[:, channel], batch.images[:, 0])


@pytest.mark.parametrize(
    ("name", "last_stride", "cells"),
    [
        ("densenet121", 16, 4), ("resnet18", 16, 4), ("resnet18", 32, 2), ("vgg16", 32, 2),
        ("mobilenet_v3_small", 16, 4), ("efficientnet_lite0", 32, 2), ("small_cnn", 16, 4),
    ],
)  # fmt: skip
def test_the_mean_of_a_map_plus_the_bias_is_the_logit(name, last_stride, cells, build_small, batch):
    model = build_small(name, last_stride=last_stride).eval()
    model.load_state_dict(build_small(name).state_dict())  # a finer map has the same parameters
    nn.init.normal_(model.classifier.bias)
    with torch.no_grad():
        logits, maps = model(batch.images), model.maps(model.features(batch.images))
    assert maps.shape == (4, 2, cells, cells)
    torch.testing.assert_close(maps.mean(dim=(2, 3)) + model.classifier.bias, logits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "vgg"}, "backbone: .*densenet121, .*'vgg19'"),
        ({"name": "ResNet121"}, "backbone: .*ResNet121.*densenet121 .*resnet101"),
        ({"name": "inception_v3"}, "inception_v3: .*75 px.* 64; .*data.image_size"),
        (
            {"name": "inception_v3", "image_size": 96, "last_stride": 16},
            "last_stride: inception_v3 .*32 px, not 16",
        ),
        (
            {"name": "squeezenet1_1", "last_stride": 32},
            "squeezenet1_1 .*16 px, not 32",
        ),
        ({"name": "small_cnn", "weights": "imagenet"}, "weights: .*small_cnn.* none$"),
        ({"channels": "grey"}, "channels: .*'grey'"),
        ({"n_findings": 0}, "n_findings: .* 0$"),
        ({"weights": "coco"}, "weights: expected none or imagenet"),
    ],
)
def test_a_bad_argument_is_named(build_small, arguments, message):
    with pytest.raises(InputError, match=message):
        build_small(**arguments)


def test_the_old_names_in_densenets_file_are_understood(build_small, monkeypatch):
    state = densenet121().state_dict()
    old = {
        key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: old)
    trunk = build_small("densenet121", weights="imagenet").trunk.state_dict()
    assert all(torch.equal(value, state[f"features.{key}"]) for key, value in trunk.items())


def step(model, batch) -> set[str]:
    """Take one optimiser step; the children of the trunk, and the head, that changed by it."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    training_losses(model, batch)["classification"].backward()
    optimiser.step()
    return {
        key.split(".")[1] if key.startswith("trunk.") else "head"
        for key, value in model.state_dict().items()
        if not torch.equal(value, before[key])
    }


@pytest.mark.parametrize(
    ("how", "epoch", "changed"),
    [
        ("head", 0, {"head"}),
        ("stages", 0, {"head"}),
        ("stages", 1, {"head", "layer4"}),
        ("head_first", 0, {"head"}),
        ("head_first", 1, {"head", "layer4", "layer3", "layer2", "layer1", "conv1", "bn1"}),
        ("stages", 5, {"head", "layer4", "layer3", "layer2", "layer1", "conv1", "bn1"}),
        ("all", 0, {"head", "layer4", "layer3", "layer2", "layer1", "conv1", "bn1"}),
    ],
)
def test_only_what_shall_learn_changes(how, epoch, changed, build_small, batch):
    model = build_small().train()
    model.freeze_for_epoch(how, epoch)
    model.train()  # as a trainer does at any time: the statistics must not begin to move
    assert step(model, batch) == changed


def test_later_stages_begin_to_learn_without_another_call_of_train(build_small):
    model = build_small().train()
    model.freeze_for_epoch("stages", 0)
    assert not model.trunk.layer4.training
    model.freeze_for_epoch("stages", 1)
    assert model.trunk.layer4.training
    assert not model.trunk.layer3.training
    model.eval()
    model.freeze_for_epoch("stages", 2)
    assert not model.trunk.layer3.training


@pytest.mark.parametrize("name", ["densenet121", "inception_v3"])
def test_the_head_alone_is_a_linear_layer(name, build_small):
    model = build_small(name, image_size=96)
    model.freeze_for_epoch("head", 0)
    learning = [name for name, p in model.named_parameters() if p.requires_grad]
    assert learning == ["classifier.weight", "classifier.bias"]
