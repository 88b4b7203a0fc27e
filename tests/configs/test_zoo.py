"""A list of models: each a whole configuration, and every slip told with the model's name."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from configs.schema import (
    ConfigError,
    dump_config,
    find_config,
    folder_name,
    is_zoo,
    parse_config,
    read_config,
    read_zoo,
    shipped_configs,
    shipped_zoos,
)
from networks.registry import network_names

_TEXT = """
kind = "zoo"
[data]
image_size = 64
[model]
dropout = 0.1
[training]
epochs = 2
batch_size = 4
learning_rate = 1e-3
[[models]]
name = "One"
[[models]]
name = "Two"
model.architecture = "vgg16"
training.learning_rate = 1e-4
"""


def _zoo(folder: Path, text: str = _TEXT) -> Path:
    path = folder / "zoo.toml"
    path.write_text(text)
    return path


def test_each_model_has_what_is_shared_and_what_is_its_own(tmp_path: Path) -> None:
    one, two = read_zoo(_zoo(tmp_path))
    assert (one.name, one.model.architecture, one.training.learning_rate) == (
        "One", "densenet121", 1e-3,
    )  # fmt: skip
    assert (two.name, two.model.architecture, two.training.learning_rate) == ("Two", "vgg16", 1e-4)
    assert one.model.dropout == two.model.dropout == 0.1
    assert (one.data, one.training.epochs) == (two.data, two.training.epochs)


def test_an_override_holds_for_every_model_even_over_its_own_value(tmp_path: Path) -> None:
    models = read_zoo(_zoo(tmp_path), ["training.learning_rate=0.5", "data.split=fold-1"])
    assert {model.training.learning_rate for model in models} == {0.5}
    assert {model.data.split for model in models} == {"fold-1"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 2", "epoch = 2", "One: training.epoch: unknown key; did you mean 'training.ep"),
        (
            '"vgg16"',
            '"resnet5"',
            r"Two: model.architecture: .*got 'resnet5'; did you mean 'resnet50'",
        ),
        ('"vgg16"', '"ResNet121"', "there is no ResNet121, though a published comparison names it"),
        ('"vgg16"', "3", "Two: model.architecture: must be one of densenet121"),
        ('name = "Two"', "", "model 2: name: is missing"),
        ('name = "Two"', 'name = "one"', "another model has this name, or one as good as it"),
        ('name = "Two"', 'name = "Two"\nkind = "detector"', "all models of a zoo are classifiers"),
        ("[data]", "[date]", "One: date: unknown key"),
        ('kind = "zoo"', 'kind = "classifier"', 'kind must be "zoo"'),
        ("[[models]]", "[[model_list]]", r"has no models; add a table \[\[models\]\] for each"),
        ("dropout = 0.1", 'trainable = "head"', "weights = 'none' has none worth keeping"),
    ],
)
def test_a_slip_is_told_in_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_zoo(_zoo(tmp_path, _TEXT.replace(old, new)))
    assert "\n" not in str(caught.value)


def test_a_wrong_override_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--set training\.epoch: unknown key"):
        read_zoo(_zoo(tmp_path), ["training.epoch=3"])


@pytest.mark.parametrize("name", shipped_zoos())
def test_a_shipped_zoo_is_valid_and_each_model_survives_a_round_trip(name: str) -> None:
    path = find_config(name)
    assert is_zoo(path)
    text = path.read_text()
    assert text.startswith("# ")
    assert tomllib.loads(text)["augmentation"]["horizontal_flip"] == 0  # hearts are on the left
    models = read_zoo(path)
    assert len(models) >= 5
    assert all(parse_config(dump_config(model), "again") == model for model in models)
    assert {model.model.architecture for model in models} <= set(network_names("classifier"))
    assert len({folder_name(model.name) for model in models}) == len(models)


def test_the_zoo_has_every_network_that_the_comparison_names() -> None:
    networks = {model.model.architecture for model in read_zoo(find_config("zoo"))}
    assert networks >= {
        "densenet121", "vgg16", "vgg19", "resnet50", "resnet101", "resnet152", "inception_v3",
        "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "convnext_tiny", "small_cnn",
        *(f"efficientnet_b{n}" for n in range(5)),
    }  # fmt: skip


def test_a_single_configuration_is_no_zoo() -> None:
    assert not any(is_zoo(find_config(name)) for name in shipped_configs())
    with pytest.raises(ConfigError, match='kind must be one of "detector", "classifier", got'):
        read_config(find_config("zoo"))
