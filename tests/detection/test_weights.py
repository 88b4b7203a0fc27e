"""A detector takes the weights that fit it, from whatever they came in, and refuses the others."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.detection import (
    fasterrcnn_mobilenet_v3_large_fpn,
    fasterrcnn_resnet50_fpn,
    fcos_resnet50_fpn,
    retinanet_resnet50_fpn,
)

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.detection.backbone import build_body
from cxr_compare.detection.model import build_detector, load_body, start_from
from cxr_compare.detection.retinanet import LesionRetinaNet
from cxr_compare.networks.builders import build_network
from cxr_compare.networks.checkpoints import Checkpoint
from cxr_compare.networks.public_checkpoints import recognise_public_checkpoint
from cxr_compare.networks.registry import NETWORKS, network_names
from tests.detection.test_backbone import VARIANTS

State = dict[str, Tensor]


def _random(state: Mapping[str, Tensor], seed: int = 0) -> State:
    """Other values in a state's shapes; variances stay above 0."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.rand(value.shape, generator=generator) + 0.01
        if value.is_floating_point()
        else torch.zeros(value.shape, dtype=value.dtype)
        for key, value in state.items()
    }


def _network(name: str) -> State:
    """A whole classifier's tensors, under torchvision's names."""
    with torch.device("meta"):  # the shapes alone: no time for their initial values
        network = getattr(models, name)(weights=None)
    return _random(network.state_dict())


def _shapes_of(name: str) -> State:
    """As `_network`, of one value everywhere, which takes no memory and no time."""
    with torch.device("meta"):
        network = build_network(name) if name in NETWORKS else getattr(models, name)()
    return {k: torch.tensor(0.5).expand(v.shape) for k, v in network.state_dict().items()}


def _empty_body(name: str, norm: str) -> nn.Module:
    """A body of zeros, without the time that initial values take."""
    with torch.device("meta"):
        body = build_body(name, norm)
    body = body.to_empty(device="cpu")
    for value in body.state_dict().values():
        value.zero_()
    return body


def _dotted(key: str) -> str:
    """torchvision's name of a dense layer's tensor before 2018."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key)


def _chexnet(layout: str) -> State:
    """DenseNet-121 as a public CheXNet has it."""
    state = {k: v for k, v in _network("densenet121").items() if not k.startswith("classifier")}
    last = {"weight": torch.zeros(14, 1024), "bias": torch.zeros(14)}
    if layout == "arnoweng":
        renamed = {f"module.densenet121.{_dotted(k)}": v for k, v in state.items()}
        renamed = {k: v for k, v in renamed.items() if not k.endswith("num_batches_tracked")}
        return renamed | {f"module.densenet121.classifier.0.{k}": v for k, v in last.items()}
    if layout == "zoogzog":
        renamed = {f"module.densenet121.{k}": v for k, v in state.items()}
        return renamed | {f"module.densenet121.classifier.0.{k}": v for k, v in last.items()}
    if layout == "torchvision":
        return {_dotted(k): v for k, v in state.items()} | {
            f"classifier.{k}": v for k, v in last.items()
        }
    if layout == "ours":
        trunk = {k.replace("features.", "trunk."): v for k, v in state.items()}
        return trunk | {f"classifier.{k}": v[:1] for k, v in last.items()}
    assert layout == "torchxrayvision"
    state["features.conv0.weight"] = state["features.conv0.weight"][:, :1]
    return state | {"classifier.weight": torch.zeros(18, 1024), "op_threshs": torch.zeros(18)}


def _densenet(**arguments: Any) -> LesionRetinaNet:
    small = {"norm": "frozen", "fpn_channels": 16, "head_convs": 1, "image_size": 64}
    return build_detector("retinanet", backbone="densenet121", **{**small, **arguments})


@pytest.mark.parametrize("layout", ["arnoweng", "zoogzog", "torchvision", "ours"])
def test_chexnet_of_any_layout_gives_its_features(layout):
    model, state = _densenet(), _chexnet(layout)
    note = start_from(model, Checkpoint("chexnet.pth", state))
    assert note == ("chexnet.pth: takes the features of densenet121; pyramid and heads start anew")
    expected = _network("densenet121")
    for name, value in model.backbone.body.state_dict().items():
        assert torch.equal(value, expected[f"features.{name}"]), name


def test_grey_network_of_torchxrayvision_sees_what_it_saw_there():
    state = _chexnet("torchxrayvision")
    public = recognise_public_checkpoint(Checkpoint("file", state))
    model = _densenet(mean=public.mean, std=public.std)
    start_from(model, Checkpoint("xrv.pth", state))
    image = torch.randint(0, 256, (1, 1, 64, 64), dtype=torch.uint8)
    theirs = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    theirs.weight.data = state["features.conv0.weight"]
    # datasets.normalize of torchxrayvision: pixels from -1024 to 1024.
    expected = theirs((2 * (image / 255.0) - 1.0) * 1024)
    features = model.backbone.body.conv0(model.pixels(image))
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=0.1)


def test_public_chexnet_wants_the_pixels_that_a_detector_gives_unasked():
    state = _chexnet("arnoweng")
    public = recognise_public_checkpoint(Checkpoint("file", state))
    usual = _densenet().preprocess
    assert (public.mean, public.std) == (usual.mean, usual.std)


@pytest.mark.parametrize("name", sorted(set(network_names("detector")) - set(VARIANTS)))
def test_imagenet_file_of_every_backbone_fits_it(name):
    body = _empty_body(name, "frozen")
    load_body(body, Checkpoint("weights imagenet", _shapes_of(name)), name)
    assert all((value == 0.5).all() for value in body.state_dict().values())


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("resnet18", "resnet34"),  # all of resnet18's tensors are in resnet34, too
        ("resnet50", "resnext50_32x4d"),  # the same names
        ("efficientnet_b0", "efficientnet_b1"),
        ("efficientnet_lite0", "efficientnet_b0"),
        ("densenet121", "resnet18"),
    ],
)
def test_another_backbone_is_named_with_the_key_to_set(name, other):
    body = _empty_body(name, "frozen")
    message = f"^w.pth: .*{other}.*{name}.*model.backbone"
    with pytest.raises(InputError, match=message):
        load_body(body, Checkpoint("w.pth", _shapes_of(other)), name)
    assert not any(value.any() for value in body.state_dict().values())  # nothing was written


def test_network_that_is_no_backbone_here_is_guessed(shared_data):
    state = torch.load(shared_data / "weights" / "squeezenet1_1_model.pth", weights_only=True)
    for name in ("resnet18", "mobilenet_v3_small", "densenet121"):
        with pytest.raises(InputError, match="densenet121, resnet18, "):
            load_body(_empty_body(name, "frozen"), Checkpoint("squeeze.pth", state), name)
    body, state = _empty_body("densenet121", "batch"), _shapes_of("densenet169")
    with pytest.raises(InputError, match=r"densenet121"):
        load_body(body, Checkpoint("w.pth", state), "densenet121")


def _truncated(state: State) -> State:
    return dict(list(state.items())[:-20])


def _not_finite(state: State) -> State:
    return {**state, "layer1.0.conv1.weight": torch.full((64, 64, 3, 3), torch.nan)}


def _twice(state: State) -> State:
    return {**state, **{f"module.{key}": value for key, value in state.items()}}


def _without_statistics(state: State) -> State:
    return {key: value for key, value in state.items() if "running_" not in key}


@pytest.mark.parametrize(
    ("damage", "norm", "message"),
    [
        (_truncated, "frozen", r"resnet18.* 100 .* 15 missing .*layer4.0.downsample"),
        (_not_finite, "frozen", "layer1.0.conv1.weight "),
        (_twice, "frozen", "\\(conv1.weight and module.conv1.weight\\)"),
        (_without_statistics, "frozen", "model.norm .*group"),
        (dict, "group", "batch.*model.norm .*frozen .*batch.*group"),
        (lambda _: {"alpha": torch.zeros(1)}, "batch", r"resnet18.*100 missing"),
    ],
)  # fmt: skip
def test_unusable_weights_say_why_and_change_nothing(damage, norm, message):
    body = build_body("resnet18", norm)
    before = {key: value.clone() for key, value in body.state_dict().items()}
    with pytest.raises(InputError, match=f"^w.pth: .*{message}") as caught:
        load_body(body, Checkpoint("w.pth", damage(_network("resnet18"))), "resnet18")
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in body.state_dict().items())


def test_detector_comes_back_whole_under_a_wrapper(build_small):
    old, new = build_small(norm="batch"), build_small(norm="frozen")
    state = {f"module.{k}": v for k, v in _random(old.state_dict()).items()}
    assert start_from(new, Checkpoint("run", state)) == "run: takes the detector"
    for name, value in new.state_dict().items():
        assert torch.equal(value, state[f"module.{name}"]), name


@pytest.mark.parametrize(
    ("k", "findings", "findings_here"),
    [
        (2, ("mass", "nodule"), ("opacity",)),
        (2, None, None),
        (1, ("mass",), ("opacity",)),  # as many, but others
    ],
)
def test_detector_of_other_findings_gives_all_but_its_class_layer(
    build_small, k, findings, findings_here
):
    old, new = build_small(n_findings=k), build_small()
    state, layer = _random(old.state_dict()), new.head.classification_head.cls_logits
    before = layer.weight.clone(), layer.bias.clone()
    note = start_from(new, Checkpoint("run", state, findings), findings_here or ())
    assert (
        note
        == "run: takes the detector; its class layer is left out: it tells other findings apart"
    )
    assert torch.equal(layer.weight, before[0])
    assert torch.equal(layer.bias, before[1])
    for name, value in new.state_dict().items():
        if "cls_logits" not in name:
            assert torch.equal(value, state[name]), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "resnet34"}, "resnet34.* resnet18.*model.backbone "),
        ({"norm": "batch"}, "batch.*model.norm "),
        ({"fpn_channels": 64}, "fpn_channels 64 .*32.*model.fpn_channels "),
        (
            {"head_convs": 2, "head": "v2"},
            "head v2 .*v1, head_convs 2 .*1.*model.head .*model.head_convs",
        ),
        (
            {"anchor_ratios": (1.0,)},
            "anchor_ratios \\[1.0\\] .*\\[0.5, 1.0, 2.0\\].*model.anchor_ratios",
        ),
    ],
)
def test_detector_of_another_size_is_refused_with_the_keys(build_small, arguments, message):
    old, new = build_small(**arguments), build_small()
    state, was = old.state_dict(), old.architecture["arguments"]
    before = {key: value.clone() for key, value in new.state_dict().items()}
    with pytest.raises(InputError, match=f"^run: .*{message}"):
        start_from(new, Checkpoint("run", state, arguments=was))
    assert all(torch.equal(value, before[key]) for key, value in new.state_dict().items())


def test_damaged_detector_is_refused(build_small):
    new, state = build_small(), build_small().state_dict()
    state.pop("backbone.fpn.layer_blocks.1.0.weight")
    with pytest.raises(InputError, match=r"run: 1 tensors .*backbone.fpn.layer_blocks.1.0.weight"):
        start_from(new, Checkpoint("run", state))


def test_layers_that_a_detector_lacks_start_anew_and_its_others_are_left_out(build_small):
    state, new = build_small().state_dict(), build_small()
    new.add_module("extra", nn.Linear(2, 1))
    note = start_from(new, Checkpoint("run", state | {"image_head.score.bias": torch.zeros(1)}))
    assert "2 tensors " in note
    assert "first extra.weight" in note
    assert "1 tensors " in note
    assert "first image_head.score.bias" in note


COCO_MODELS = {
    "retinanet": (retinanet_resnet50_fpn, {"head": "v1"}, "head.regression_head.bbox_reg.weight"),
    "fcos": (fcos_resnet50_fpn, {}, "head.regression_head.bbox_ctrness.weight"),
    "faster_rcnn": (fasterrcnn_resnet50_fpn, {}, "rpn.head.bbox_pred.weight"),
}


@pytest.mark.parametrize("architecture", COCO_MODELS)
def test_coco_file_of_torchvision_gives_all_but_its_class_layer(architecture):
    build, settings, last = COCO_MODELS[architecture]
    published = build(weights=None, weights_backbone=None).state_dict()
    state = _random(published)
    model = build_detector(architecture, norm="frozen", image_size=64, **settings)
    note = start_from(model, Checkpoint("coco.pth", state))
    assert note == "coco.pth: takes torchvision's COCO detector, all but its class layer"
    weights = model.state_dict()
    assert torch.equal(weights[last], state[last])
    # Some were published for an epsilon of 0; ours adds 1e-5.
    name = "backbone.body.bn1.running_var"
    epsilon = 0.0 if architecture == "fcos" else 1e-5
    assert torch.equal(weights[name], state[name] - epsilon)


def test_a_file_of_another_architecture_gives_its_features(build_small):
    small = {"backbone": "resnet18", "fpn_channels": 32, "head_convs": 1, "image_size": 64}
    fcos = build_detector("fcos", **small)
    for model, state in ((build_small(), fcos.state_dict()), (fcos, build_small().state_dict())):
        note = start_from(model, Checkpoint("w.pth", state))
        assert note == "w.pth: takes the features of resnet18; pyramid and heads start anew"


def test_other_detectors_give_their_features():
    with torch.device("meta"):
        peer = fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None)
    state = _random(peer.state_dict())
    model = build_detector(
        "retinanet",
        backbone="mobilenet_v3_large",
        norm="frozen",
        fpn_channels=16,
        head_convs=1,
        image_size=64,
    )
    assert "features of mobilenet_v3_large" in start_from(model, Checkpoint("rcnn.pth", state))
