"""The registry of networks is what torchvision publishes, and what the documentation says."""

from pathlib import Path

import pytest
import torch
from torchvision import models

from cxr_compare.networks.builders import build_network
from cxr_compare.networks.checkpoints import guess_network
from cxr_compare.networks.registry import NETWORKS, network_names
from tests.scripts.small_sets import cxr

PUBLISHED = [name for name, network in NETWORKS.items() if network.weights == "torchvision"]


def test_weights_and_smallest_images_are_torchvisions():
    for name in PUBLISHED:
        weights = models.get_model_weights(name)["IMAGENET1K_V1"]
        assert NETWORKS[name].min_size == max(weights.meta["min_size"]), name


@pytest.mark.parametrize("name", ["densenet121", "resnext50_32x4d", "vgg19", "efficientnet_lite1"])
def test_a_network_is_recognised_by_its_tensors_whatever_its_norms_and_colours(name):
    with torch.device("meta"):
        state = build_network(name).state_dict()
    shapes = {f"module.{key}": tuple(value.shape) for key, value in state.items()}
    assert guess_network(shapes) == name
    shapes = {key: shape for key, shape in shapes.items() if "running_" not in key}
    stem = next(iter(shapes))
    shapes[stem] = (shapes[stem][0], 1, *shapes[stem][2:])
    assert guess_network(shapes) == name
    assert guess_network(shapes | {stem: (1, 1, 1, 1)}) is None


def test_a_shown_configuration_names_a_page_that_exists(capsys):
    assert cxr("configs", "chexnet") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "docs/models.md" in shown
    assert (Path(__file__).parents[2] / "docs" / "models.md").is_file()


def test_every_network_serves_a_model_under_its_name():
    assert all(name == network.name for name, network in NETWORKS.items())
    assert {*network_names("detector"), *network_names("classifier")} == set(NETWORKS)
