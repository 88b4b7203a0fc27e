"""A checkpoint's tensors are found under any name, and what differs is said with what to do."""

import pytest
import torch
from torch import Tensor, nn

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.networks.checkpoints import (
    Checkpoint,
    describe_difference,
    fit_layers,
    match_names,
)
from cxr_compare.networks.tensor_names import detector_renamer, name_in_body


@pytest.mark.parametrize(
    ("key", "inside"),
    [
        ("layer4.2.bn3.weight", "layer4.2.bn3.weight"),
        ("module.resnet50.layer1.0.downsample.0.weight", "layer1.0.downsample.0.weight"),
        ("model.backbone.layer1.0.conv1.weight", "layer1.0.conv1.weight"),
        ("trunk.conv1.weight", "conv1.weight"),
        ("model.features.norm0.weight", "norm0.weight"),  # Lightning, Hugging Face
        ("_orig_mod.module.features.conv0.weight", "conv0.weight"),  # torch.compile
        ("backbone.body.4.1.block.0.0.weight", "4.1.block.0.0.weight"),
        ("features.16.0.weight", "16.0.weight"),
        ("backbone.fpn.layer_blocks.0.0.bias", "fpn.layer_blocks.0.0.bias"),
        # lukemelas' EfficientNets: a block's norms by what they follow, and what Lite lacks stays
        ("_bn0.weight", "stem.norm.weight"),
        ("module._conv_head.weight", "last.conv.weight"),
        ("_blocks.10._bn0.running_var", "block10.expand.norm.running_var"),
        ("_blocks.0._depthwise_conv.weight", "block0.depthwise.conv.weight"),
        ("_blocks.0._se_reduce.bias", "block0._se_reduce.bias"),
    ],
)
def test_name_inside_a_body_drops_its_prefix(key, inside):
    assert name_in_body(key) == inside
    assert name_in_body(inside) == inside  # twice is once


@pytest.mark.parametrize(
    ("key", "today"),
    [
        ("head.classification_head.conv.0.weight", "head.classification_head.conv.0.0.weight"),
        ("module.backbone.fpn.layer_blocks.2.bias", "backbone.fpn.layer_blocks.2.0.bias"),
        ("head.regression_head.conv.3.0.weight", "head.regression_head.conv.3.0.weight"),
        ("head.classification_head.cls_logits.bias", "head.classification_head.cls_logits.bias"),
        ("backbone.fpn.extra_blocks.p6.weight", "backbone.fpn.extra_blocks.p6.weight"),
        ("backbone.body.conv1.weight", "backbone.body.conv1.weight"),
    ],
)  # fmt: skip
def test_retinanet_of_older_torchvision_gets_the_names_of_today(key, today):
    assert detector_renamer([key])(key) == today
    assert detector_renamer([today])(today) == today


def weights(stem: tuple[int, ...] = (8, 3, 7, 7)) -> dict[str, Tensor]:
    return {"module.conv1.weight": torch.ones(stem), "bn1.bias": torch.ones(8)}


LAYERS = nn.ModuleDict({"conv1": nn.Conv2d(3, 8, 7, bias=False), "bn1": nn.Module()})
LAYERS["bn1"].bias = nn.Parameter(torch.zeros(8))


def fit(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return fit_layers(LAYERS, Checkpoint("w.pth", state), "resnet18", "classifier")


def test_tensors_of_other_layers_may_repeat_a_name_those_of_the_body_may_not():
    state = weights() | {"fc.weight": torch.ones(9, 8), "module.fc.weight": torch.ones(9, 8)}
    state |= {"bn1.num_batches_tracked": torch.ones(())}
    fitted = fit(state)
    assert list(fitted) == ["conv1.weight", "bn1.bias"]
    assert fitted["conv1.weight"] is state["module.conv1.weight"]
    state["model.bn1.bias"] = torch.ones(8)
    message = r"^w.pth: holds two networks \(bn1.bias and model.bn1.bias\); save one alone$"
    with pytest.raises(InputError, match=message):
        fit(state)
    with pytest.raises(InputError, match=r"fc\.weight and module\.fc\.weight"):
        match_names(state, name_in_body, source="w.pth")


@pytest.mark.parametrize("shape", [(8, 1, 5, 5), (4, 1, 7, 7), (8, 2, 7, 7)])
def test_only_a_grey_first_layer_of_the_same_size_stands_for_one_in_colour(shape):
    assert fit(weights((8, 1, 7, 7)))["conv1.weight"].shape == (8, 3, 7, 7)
    with pytest.raises(InputError, match=r"^w.pth: .*resnet18.* 1 of .*\(first conv1.weight\)"):
        fit(weights(shape))


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("resnet18", "classifier", "weights of resnet18, not of vgg16; set model.backbone to resn"),
        ("timm:vit_tiny", "detector", "not of vgg16; set model.backbone to timm:vit_tiny"),
        ("resnet152", "detector", "not of vgg16; take a file of one of densenet121, resnet18, re"),
        ("vgg16", "classifier", "1 missing (first a); 1 too many (first d)"),
        (None, "classifier", "(first d); take another file, or set model.backbone to the"),
    ],
)
def test_differing_tensors_are_listed_with_a_remedy(source, kind, message):
    shapes, expected = {"b": (1,), "c": (2,), "d": (4,)}, {"a": (1,), "b": (1,), "c": (2,)}
    assert message in describe_difference(
        shapes, expected, Checkpoint("w.pth", {}, network=source), "vgg16", kind
    )
