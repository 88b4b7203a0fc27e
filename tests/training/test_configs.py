"""Configurations: the defaults are kept, each shipped one trains, and a slip is one line."""

import json
import re
from pathlib import Path

import pytest

import cxr_compare
from tests.adapters.commands import cxr
from tests.adapters.training import (
    configuration,
    defaults,
    dump_config,
    first_difference,
    parse_config,
    step_loss,
)

HERE = Path(__file__).parents[1]
REFUSED = json.loads((HERE / "cases/configs.json").read_text())["cases"]
SHIPPED = {
    "chexnet",
    "chexnet_2017",
    "chexnet_quickstart",
    "chexnet_small",
    "efficientnet_lite",
    "retinanet",
    "retinanet_densenet121",
    "retinanet_lite",
    "retinanet_quickstart",
    "retinanet_small",
    "small_cnn",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_package_of_configurations_is_a_module_beside_the_command():
    assert cxr_compare.configurations("chexnet").startswith("kind")
    assert cxr_compare.configs.__name__.endswith(".configs")  # a package, and no function


def toml_of(name, folder, old="", new=""):
    """A file with the text of a shipped configuration, in which a text is replaced."""
    text = (Path(cxr_compare.__file__).parent / f"configs/{name}.toml").read_text()
    assert old in text
    path = folder / "mine.toml"
    path.write_text(text.replace(old, new, 1))
    return path


@pytest.mark.parametrize("kind", ["detector", "classifier"])
def test_defaults_are_those_that_are_kept(kind):
    assert defaults(kind) == json.loads((HERE / "kept/configs.json").read_text())[kind]


@pytest.mark.parametrize("case", REFUSED, ids=[case["name"] for case in REFUSED])
def test_a_slip_is_refused_in_one_line_that_names_the_key(case, here, capsys):
    config = case["config"]
    if "file" in case:
        config = toml_of(config, here, *case["file"])
    sets = [word for override in case.get("set", []) for word in ("--set", override)]
    assert cxr("configs", config, *sets) == 2
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert all(part in line for part in case["refused"]), line
    assert not shown.out


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_configuration_is_read_again_from_what_is_shown_of_it(name, tmp_path):
    text = cxr_compare.configurations(name, set_={"training.seed": 7})
    (tmp_path / "shown.toml").write_text(text)
    shown = configuration(tmp_path / "shown.toml")
    assert shown == configuration(name, {"training.seed": 7})
    assert first_difference(shown, configuration(name)) == "training.seed was 7, is now 0"


@pytest.mark.parametrize("name", ["chexnet", "retinanet"])
def test_what_is_shown_of_a_configuration_has_every_key_with_its_meaning(name):
    shown, config = cxr_compare.configurations(name), configuration(name)
    for section in (config.augmentation, config.data, config.model, config.training):
        for key, field in type(section).model_fields.items():
            meaning = re.escape(field.description or "")
            assert re.search(rf"^(# )?{key}\b.*{meaning}", shown, re.M), key


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_few_configurations_mirror_hearts_and_none_predicts_views(name):
    config = configuration(name)
    mirrors = {"chexnet_2017", "retinanet_lite", "efficientnet_lite"}
    assert config.augmentation.horizontal_flip == (0.5 if name in mirrors else 0)
    assert not getattr(config.model, "views", [])


BUDGET = (
    *("epochs", "batch_size", "accumulate", "ema_decay", "positive_share", "monitor", "patience"),
    *("schedule", "warmup_epochs", "optimiser"),
)


@pytest.mark.parametrize(
    "pair",
    [
        ("retinanet", "chexnet"),
        ("retinanet_densenet121", "chexnet"),
        ("retinanet_small", "chexnet_small"),
        ("retinanet_lite", "efficientnet_lite"),
        ("retinanet_quickstart", "chexnet_quickstart"),
    ],
    ids="-".join,
)
def test_a_detector_and_its_classifier_have_one_budget(pair):
    detector, classifier = map(configuration, pair)
    assert detector.data.image_size == classifier.data.image_size
    assert detector.augmentation == classifier.augmentation
    for key in BUDGET:
        assert getattr(detector.training, key) == getattr(classifier.training, key), key
    assert classifier.training.positive_weight == 1  # the drawing balances, as for the detector


@pytest.mark.parametrize(
    "name",
    [
        name if name.endswith("_quickstart") else pytest.param(name, marks=pytest.mark.release)
        for name in sorted(SHIPPED)
    ],
)
def test_a_shipped_configuration_builds_its_model_which_takes_a_step(name):
    config = configuration(name)
    smaller = ["data.image_size=96", "model.weights=none", "model.trainable=all"]
    if config.kind == "detector" and config.model.norm == "frozen":
        smaller.append("model.norm=batch")
    first, second = step_loss(name, *smaller)
    assert 0 < first < 20
    assert second != first


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("training.epochs=3", "training", "epochs", 3),
        ("training.learning_rate=1e-4", "training", "learning_rate", 1e-4),
        ("training.clip=1", "training", "clip", 1.0),
        ("model.weights=/some/a b.pth", "model", "weights", "/some/a b.pth"),
        ("model.weights='coco'", "model", "weights", "coco"),
        ("data.split=fold1", "data", "split", "fold1"),
        ("model.views=['flip']", "model", "views", ["flip"]),
        ("training.precision=fp16", "training", "precision", "fp16"),
        ("training.optimiser=rmsprop", "training", "optimiser", "rmsprop"),
    ],
)
def test_an_override_replaces_the_value_of_the_file(override, section, key, value):
    config = configuration("retinanet_quickstart", [override])
    assert getattr(getattr(config, section), key) == value


def test_a_network_gets_what_it_needs_beside_unless_the_user_says_otherwise():
    assert configuration("inception_v3", ["data.image_size=64"]).data.image_size == 96
    assert configuration("vgg19").training.learning_rate == 3e-5
    assert configuration("vgg19", {"training.learning_rate": 0.1}).training.learning_rate == 0.1


def test_a_stored_configuration_keeps_what_is_hard_to_write():
    config = configuration("retinanet", ["training.learning_rate=1e-05"])
    text = 'quote " backslash \\ newline \n tab \t bell \x07 delete \x7f lung \u80ba'
    config = config.model_copy(update={"name": text})
    assert parse_config(dump_config(config), "again") == config
