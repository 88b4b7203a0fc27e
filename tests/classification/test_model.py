"""The classifier is torchvision's network on the store's own pixels, and its map its own sum."""

from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision.models import densenet121, resnet18

from classification.inference import activation_map
from classification.model import build_chexnet
from data_prep.tables import InputError

PEERS = {"densenet121": densenet121, "resnet18": resnet18}


def as_torchvision(state: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """Our state dictionary in the names of torchvision's network."""
    trunk, top = {"densenet121": ("features.", "classifier."), "resnet18": ("", "fc.")}[name]
    return {
        key.replace("trunk.", trunk, 1).replace("classifier.", top, 1): value
        for key, value in state.items()
    }


@pytest.mark.parametrize("name", PEERS)
def test_logits_equal_torchvision_on_the_same_weights(name, build_small, batch):
    ours = build_small(name).eval()
    theirs = PEERS[name](num_classes=2)
    theirs.load_state_dict(as_torchvision(ours.state_dict(), name))
    pixels = ours.preprocess.normalise(batch.images).expand(-1, 3, -1, -1)
    with torch.no_grad():
        expected, logits = theirs.eval()(pixels), ours(batch.images)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


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


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize(("last_stride", "cells"), [(32, 2), (16, 4)])
def test_the_mean_of_a_map_plus_the_bias_is_the_logit(name, last_stride, cells, build_small, batch):
    model = build_small(name, last_stride=last_stride).eval()
    nn.init.normal_(model.classifier.bias)
    with torch.no_grad():
        logits, maps = model(batch.images), activation_map(model, batch.images)
    assert maps.shape == (4, 2, cells, cells)
    torch.testing.assert_close(maps.mean(dim=(2, 3)) + model.classifier.bias, logits)


@pytest.mark.parametrize("name", PEERS)
def test_a_finer_map_has_the_same_parameters(name, build_small):
    coarse, fine = build_small(name), build_small(name, last_stride=16)
    fine.load_state_dict(coarse.state_dict())
    assert sum(p.numel() for p in coarse.parameters()) == sum(p.numel() for p in fine.parameters())


def test_chexnet_is_densenet121_with_one_output_a_finding():
    model = build_chexnet(14)
    published = sum(p.numel() for p in densenet121(num_classes=14).parameters())
    assert sum(p.numel() for p in model.parameters()) == published
    assert model.architecture["arguments"]["name"] == "densenet121"


def test_the_architecture_rebuilds_the_model(build_small):
    from classification.model import build_classifier

    model = build_small(last_stride=16, dropout=0.3, prior=0.2)
    again = build_classifier(**model.architecture["arguments"])
    again.load_state_dict(model.state_dict())
    assert again.architecture == model.architecture
    assert again.dropout.p == 0.3
    assert model.classifier.bias.sigmoid().tolist() == pytest.approx([0.2, 0.2])


def test_bf16_gives_float32_logits_near_the_full_ones(build_small, batch):
    model = build_small().eval()
    with torch.no_grad():
        expected = model(batch.images)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(batch.images)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "vgg"}, "backbone: expected one of densenet121, resnet18, but got 'vgg'"),
        ({"name": "vgg", "weights": "imagenet"}, "backbone: expected one of"),
        ({"last_stride": 8}, "last_stride: expected 16 or 32"),
        ({"dropout": 1.0}, "dropout: expected a share"),
        ({"prior": 0.0}, "prior: expected a probability"),
        ({"n_findings": 0}, "n_findings: expected at least 1"),
        ({"weights": "coco"}, "weights: expected none or imagenet"),
    ],
)
def test_a_bad_argument_is_named(build_small, arguments, message):
    with pytest.raises(InputError, match=message):
        build_small(**arguments)


def test_images_of_another_size_are_refused(build_small, batch):
    with pytest.raises(InputError, match=r"expected uint8 images of shape \(B, 1, 96, 96\)"):
        build_small(image_size=96)(batch.images)


def offline(*_, **__):
    raise URLError("no network")


def test_offline_weights_say_which_file_to_put_where(build_small, monkeypatch, tmp_path):
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with pytest.raises(InputError, match=r"densenet121-a639ec97\.pth.*no network.*put the") as e:
        build_small("densenet121", weights="imagenet")
    assert str(tmp_path / "checkpoints" / "densenet121-a639ec97.pth") in str(e.value)


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
