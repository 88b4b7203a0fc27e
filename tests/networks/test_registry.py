"""The registry of networks is what torchvision publishes, and what the documentation says."""

import pytest
from torchvision import models
from typer.testing import CliRunner

from networks.registry import NETWORKS, network_names
from scripts.cli import build_app

PUBLISHED = [name for name, network in NETWORKS.items() if network.weights == "torchvision"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_weights_and_smallest_image_are_torchvisions(name):
    weights = models.get_model_weights(name)["IMAGENET1K_V1"]
    assert NETWORKS[name].min_size == max(weights.meta["min_size"])


def test_help_of_train_names_every_network():
    shown = " ".join(CliRunner().invoke(build_app(), ["train", "--help"]).output.split())
    assert all(name in shown for name in NETWORKS)


def test_every_network_serves_a_model_under_its_own_name():
    assert all(name == network.name for name, network in NETWORKS.items())
    assert {*network_names("detector"), *network_names("classifier")} == set(NETWORKS)
