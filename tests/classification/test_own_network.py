"""A network of the user's own is the trunk of a classifier, and is built again from its name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cxr_compare.classification.model import build_classifier
from cxr_compare.data_prep.contracts.errors import InputError


class Plain(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU(), nn.MaxPool2d(2))


class NoMaps(nn.Module):
    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.mean(dim=(2, 3))


class WithArguments(Plain):
    def __init__(self, width: int) -> None:
        super().__init__()


def test_it_has_logits_maps_and_stages_and_is_built_again():
    model = build_classifier(f"{__name__}:Plain", n_findings=2, image_size=64).eval()
    images = torch.randint(0, 255, (3, 1, 64, 64), dtype=torch.uint8)
    features = model.features(images)
    assert features.shape == (3, 8, 8, 8)
    assert model.map_frame(8, 8) == (0, 0, 64, 64)
    assert torch.allclose(
        model.maps(features).mean(dim=(2, 3)) + model.classifier.bias, model(images), atol=1e-5
    )
    again = build_classifier(**model.architecture["arguments"]).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(images), model(images))
    model.freeze_for_epoch("head")
    assert not any(parameter.requires_grad for parameter in model.trunk.parameters())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{__name__}:NoMaps", "NoMaps: its output is not a grid"),
        (f"{__name__}:WithArguments", "WithArguments: TypeError"),
        (f"{__name__}:pytest", "no subclass of torch"),
        ("nowhere:Net", "nowhere cannot be imported"),
    ],
)
def test_what_is_no_network_is_refused_in_one_line(name, message):
    with pytest.raises(InputError, match=message):
        build_classifier(name, image_size=64)


def test_there_are_no_published_weights_of_it():
    with pytest.raises(InputError, match="there are none"):
        build_classifier(f"{__name__}:Plain", image_size=64, weights="imagenet")
