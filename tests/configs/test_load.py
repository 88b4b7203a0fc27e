"""Configurations: the shipped ones are valid, and every slip gets one helpful line."""

import re
import tomllib
from pathlib import Path

import pytest

from cxr_compare.configs.describe import annotated, summaries
from cxr_compare.configs.load import (
    dump_config,
    find_config,
    first_difference,
    packaged_configs,
    parse_config,
    read_config,
)
from cxr_compare.configs.model_settings import (
    RetinaNetSettings,
    RtDetrSettings,
    settings_that_change,
)
from cxr_compare.configs.protocol_file import read_protocol
from cxr_compare.configs.settings import ProbeConfig
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.detection.model import build_detector
from cxr_compare.detection.retinanet import LesionRetinaNet
from cxr_compare.networks.registry import network_names


@pytest.mark.parametrize("name", ["retinanet", "fcos_small", "rt_detr_small", "chexnet", "probe"])
def test_shipped_config_survives_a_round_trip(name):
    config = read_config(find_config(name))
    assert parse_config(dump_config(config), "again") == config
    assert first_difference(config, config) is None


def test_shipped_configs_never_flip():
    for name in packaged_configs():
        content = tomllib.loads(find_config(name).read_text())
        if content["model"].get("trainable") == "none":  # a probe is never augmented
            assert "augmentation" not in content, name
        else:  # hearts are on the left
            assert content["augmentation"]["horizontal_flip"] == 0, name


@pytest.mark.parametrize("size", ["", "_small", "_quickstart"])
def test_detector_and_classifier_learn_from_the_same_augmentation(size):
    detector, classifier = (
        read_config(find_config(name + size)).augmentation for name in ("retinanet", "chexnet")
    )
    # A mosaic joins boxes, of which a classifier has none.
    assert detector.model_copy(update={"mosaic": 0.0}) == classifier


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epoch=3", "--set training.epoch: .*'training.epochs'"),
        ("epochs=3", "--set epochs: .*'training.epochs'"),
        ("model.scale=0.1", "--set model.scale: .*'augmentation.scale'"),
        ("lr=0.01", "--set lr: .*'training.learning_rate'"),
        ("model.arch=resnet18", "--set model.arch: .*'model.backbone'"),
        ("model.architecture=retina", "--set model.architecture: .*retinanet, "),
        ("model.trainable=6", "all, head, head_first, stages .* 0 to 5, got 6"),
        ("data.zzz=1", "--set data.zzz: .*data.target, data.split"),
        ("training.epochs=0", "--set training.epochs: .* 1, got 0"),
        (f"training.epochs={10**22}", "--set training.epochs: .*got 1000"),
        ("training.epochs='3'", "--set training.epochs: .*integer.*got '3'"),
        ("training.learning_rate=nan", "training.learning_rate: .*got nan"),
        (
            "model.backbone=vgg16",
            "--set model.backbone: .*densenet121, resnet18, resnet34, resnet50,",
        ),
        ("model.anchor_sizes=[1.0, 2.0]", "model.anchor_sizes: .* 5 "),
        ("model.last_stride=16", "--set model.last_stride: "),  # of a classifier
        ("model.norm=frozen", "norm = 'frozen' .*weights = 'none'"),
        (
            "model.box_loss=l2",
            "model.box_loss: .*'auto', 'l1', 'smooth_l1', 'giou', 'diou' or 'ciou'",
        ),
        ("data.image_size=64", "data.image_size: .* 96, got 64"),  # see settings.py
        ("training=3", "--set training: .*got 3"),
        ("training.loggers=['neptune']", "training.loggers.*'tensorboard', 'mlflow' or 'wandb'"),
        ("training.draw={positive = 0.5, normal = 0.5}", "--set training.draw: "),
        ("kind=segmenter", "kind .*detector.*classifier.*'segmenter'"),
        ("training.epochs", "--set training.epochs: .*section.key=value"),
        ("training.epochs.x=1", "--set training.epochs.x: .*'epochs'"),
        ("name=[", "(?s)--set name=.*TOML"),
        (f"name={5_000 * '['}", "(?s)--set name=.*TOML"),
    ],
)
def test_wrong_override_gets_one_line(override, message):
    with pytest.raises(InputError) as caught:
        read_config(find_config("retinanet_quickstart"), [override])
    assert re.search(message, str(caught.value))
    assert "\n" not in str(caught.value)


def test_rule_over_several_keys_names_the_options_that_broke_it_else_the_file(tmp_path):
    shipped = find_config("retinanet_small")
    with pytest.raises(InputError) as caught:
        read_config(shipped, ["model.norm=frozen", "model.head=v1"])
    assert str(caught.value).startswith(f"--set model.norm: on {shipped}: norm = 'frozen'")
    assert "norm = 'batch'" in str(caught.value)
    path = tmp_path / "own.toml"
    path.write_text(shipped.read_text().replace('norm = "batch"', 'norm = "frozen"'))
    with pytest.raises(InputError) as caught:
        read_config(path, ["model.head=v1"])
    assert str(caught.value).startswith(f"{path}: model: norm = 'frozen'")
    with pytest.raises(InputError) as caught:  # a rule over sections
        read_config(find_config("chexnet"), ["augmentation.mosaic=0.5"])
    assert str(caught.value).startswith("--set augmentation.mosaic: on ")


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("training.epochs=3", "training", "epochs", 3),
        ("training.learning_rate=1e-4", "training", "learning_rate", 1e-4),  # not a text
        ("training.clip=1", "training", "clip", 1.0),  # an integer is a number
        ("model.weights=/tmp/a b.pth", "model", "weights", "/tmp/a b.pth"),  # noqa: S108
        ("model.weights='coco'", "model", "weights", "coco"),
        ("data.split=fold1", "data", "split", "fold1"),
    ],
)
def test_override_replaces_the_value_of_the_file(override, section, key, value):
    config = read_config(find_config("retinanet_quickstart"), [override])
    assert getattr(getattr(config, section), key) == value


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("chexnet_quickstart", ["augmentation.mosaic=0.5"], "augmentation.mosaic = 0.5 "),
        (
            "chexnet_quickstart",
            ["augmentation.scale=0", "augmentation.stretch=true"],
            "stretch = true .*scale = 0.2",
        ),
        ("chexnet", ["training.label_smoothing=1"], "--set training.label_smoothing: .*got 1$"),
        ("retinanet_quickstart", ["training.label_smoothing=0.1"], "unknown key"),
        (
            "retinanet_quickstart",
            ["training.schedule=plateau", "training.monitor=epoch"],
            "schedule = 'plateau' .*monitor = 'epoch' .*'val_loss'",
        ),
        (
            "retinanet_quickstart",
            ["training.schedule=plateau", "training.patience=3"],
            "patience = 3 .*schedule = 'plateau' ",
        ),
        ("retinanet_small", ["model.fpn_channels=20"], "--set model.*fpn_channels = 24"),
        ("retinanet_small", ["model.trainable=none"], r"model\.trainable"),
        ("retinanet_lite", ['training.tta=["mirror"]'], "^--set training.tta"),
        ("probe", ["model.weights=none"], "weights = 'none'"),
        ("probe", ["augmentation.scale=0.1"], "augmentation: unknown key"),
        ("probe", ["training.penalties=[]"], "--set training.penalties"),
        ("probe", ["training.penalties=[1.0, 0.0]"], "training.penalties"),
        ("probe", ["model.backbone=resnet5"], "'resnet50'"),
        ("probe", ["model.trainable=head"], "training.epochs: "),
    ],
)
def test_changes_that_do_not_go_together_are_refused(name, overrides, message):
    with pytest.raises(InputError, match=message):
        read_config(find_config(name), overrides)


def _file(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("epochs", "message"),
    [("epoch =", "training.epoch: .*'training.epochs'"), ("# ", "training.epochs: ")],
)
def test_a_wrong_or_missing_key_of_a_file_names_the_file(tmp_path, epochs, message):
    text = find_config("chexnet").read_text().replace("epochs =", epochs, 1)
    with pytest.raises(InputError, match=f"mine.toml: {message}"):
        read_config(_file(tmp_path, text))


def test_a_file_of_windows_notepad_is_read(tmp_path):
    text = find_config("chexnet").read_text()
    plain = read_config(_file(tmp_path, text))
    assert read_config(_file(tmp_path, f"\ufeff{text}")) == plain
    (tmp_path / "mine.toml").write_text(text, encoding="utf-16")
    assert read_config(tmp_path / "mine.toml") == plain


@pytest.mark.parametrize(
    "text",
    ["kind = ", "kind = 'detector'\nkind = 'classifier'", f"a={5_000 * '['}", f"a={9_999 * '9'}"],
    ids=["no value", "twice", "deep", "long number"],
)
def test_file_that_cannot_be_read_is_named(tmp_path, text):
    with pytest.raises(InputError, match=r"mine.toml: .*TOML"):
        read_config(_file(tmp_path, text))
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"mine.toml: cannot be read"):
        read_config(tmp_path / "mine.toml")
    with pytest.raises(InputError, match="cannot be read"):
        read_protocol(tmp_path / "none.toml")


def test_unknown_name_lists_the_shipped_ones_and_the_nearest():
    with pytest.raises(InputError, match=r"^retinnet: .*chexnet, .*'retinanet'"):
        find_config("retinnet")


def test_configuration_file_is_read_from_its_path(tmp_path):
    path = _file(tmp_path, "")
    assert find_config(str(path)) == path


def test_dumped_config_keeps_what_is_hard_to_write():
    config = read_config(find_config("retinanet"), ["training.learning_rate=1e-05"])
    text = 'quote " backslash \\ newline \n tab \t bell \x07 delete \x7f lung \u80ba'
    config = config.model_copy(update={"name": text})
    assert parse_config(dump_config(config), "again") == config


def test_difference_between_kinds_is_named():
    old, new = (read_config(find_config(name)) for name in ("retinanet", "chexnet"))
    assert first_difference(old, new) is not None


@pytest.fixture
def write(tmp_path):
    def written(text):
        (tmp_path / "protocol.toml").write_text(text)
        return tmp_path / "protocol.toml"

    return written


def test_a_protocol_is_complete_with_its_defaults_and_names_its_file(write):
    path = write('target = "opacity"\nmetric = "recall"\npolicy = "max_f1"\nmargin = 0.05\n')
    protocol, digest = read_protocol(path)
    assert (protocol.metric, protocol.policy, protocol.margin) == (["recall"], "max_f1", 0.05)
    assert (protocol.subgroups, protocol.unit, protocol.reference) == ([], None, None)
    path.write_text(path.read_text() + "\n")
    assert len(digest) == 64
    assert read_protocol(path)[1] != digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('target = "a"\nmargn = 0.1', "margn: unknown key; did you mean 'margin'"),
        ("margin = 0.1", "target: is missing; add it"),
        ('target = "a"\nmargin = "0.1"', "margin: input should be a valid number, got '0.1'"),
        ('target = "a"\nunit = "lung"', "unit: input should be 'image', 'study' or 'patient'"),
        ("target = ", "is not TOML"),
    ],
)
def test_a_slip_in_a_protocol_is_one_line(write, text, message):
    with pytest.raises(InputError) as error:
        read_protocol(write(text))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_classifiers_may_be_every_network_that_published_comparisons_name():
    assert set(network_names("classifier")) >= {
        "densenet121", "vgg16", "vgg19", "resnet50", "resnet101", "resnet152", "inception_v3",
        "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "convnext_tiny", "small_cnn",
        *(f"efficientnet_b{n}" for n in range(5)),
    }  # fmt: skip


@pytest.mark.parametrize("name", packaged_configs())
def test_a_configuration_shown_in_full_reads_back_and_explains_every_key(name, tmp_path):
    config = read_config(find_config(name), ["training.seed=7"])
    text = annotated(config)
    (tmp_path / "shown.toml").write_text(text)
    assert read_config(tmp_path / "shown.toml") == config
    for section in type(config).model_fields.keys() - {"kind", "name"}:
        for key in type(getattr(config, section)).model_fields:
            lines = [line for line in text.splitlines() if line.lstrip("# ").startswith(f"{key} =")]
            assert len(lines) == 1, key
            assert lines[0].partition("  # ")[2].strip(), f"configs/settings.py: {key} says nothing"


def test_every_shipped_configuration_states_its_purpose():
    listed = summaries()
    assert {entry.name for entry in listed} == set(packaged_configs())
    assert [entry.kind for entry in listed if entry.name == "retinanet_lite"] == ["detector"]
    assert all("CPU" in entry.suits or "GPU" in entry.suits for entry in listed)


def test_a_classifier_becomes_a_probe_without_the_keys_of_a_training():
    overrides = ["model.trainable=none", "model.weights=own.safetensors"]
    config = read_config(find_config("chexnet_small"), overrides)
    assert isinstance(config, ProbeConfig)
    assert config.name == "Probe"
    assert (config.model.backbone, config.model.last_stride) == ("densenet121", 16)
    assert (config.data.image_size, config.training.batch_size) == (224, 16)
    assert parse_config(dump_config(config), "run") == config


def test_another_architecture_leaves_keys_out_that_it_does_not_have():
    file = find_config("retinanet_small")  # which sets head_convs and box_loss
    config = read_config(file, ["model.architecture=rt_detr", "model.queries=20"])
    assert config.model.backbone == "resnet18"
    assert config.model.queries == 20
    assert config.name == "rt_detr"
    assert parse_config(dump_config(config), "again") == config
    with pytest.raises(InputError, match=r"--set model\.head_convs: "):
        read_config(file, ["model.architecture=rt_detr", "model.head_convs=2"])


def test_a_damaged_configuration_of_a_run_is_one_line():
    for text in ('kind = "classifier"\nmodel = 3', 'kind = "detector"\nmodel = []\ntraining = 1'):
        with pytest.raises(InputError, match=r"run: .*"):
            parse_config(text, "run")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Mine", "no_such_module cannot be imported"),
        ("json:Mine", "json has no Mine"),
        ("json:JSONDecoder", "has no Settings"),
        ("retinane", "did you mean 'retinanet'"),
    ],
)
def test_a_detector_that_is_none_is_refused_in_one_line(name, message):
    with pytest.raises(InputError, match=rf"--set model\.architecture: .*{message}"):
        read_config(find_config("retinanet_small"), [f"model.architecture={name}"])


def test_a_subclass_with_another_loss_has_the_keys_of_its_parent():
    name = "tests.configs.own_loss:HeavyBoxes"
    keys = [f"model.architecture={name}", "model.head_convs=2", "model.backbone=resnet18"]
    config = read_config(find_config("retinanet_small"), keys)
    assert (config.model.head_convs, config.name) == (2, "HeavyBoxes")
    settings = config.model.model_dump(exclude={"weights", "trainable", "compile"})
    model = build_detector(**settings, image_size=96)
    assert isinstance(model, LesionRetinaNet)
    assert model.architecture["name"] == name


def test_what_a_setting_changes_is_said_by_its_field():
    sized = settings_that_change(RetinaNetSettings, "shape")
    assert {"backbone", "fpn_channels", "head", "head_convs", "anchor_ratios"} == sized
    assert settings_that_change(RetinaNetSettings, "loss") == {"box_loss"}
    assert "queries" in settings_that_change(RtDetrSettings, "shape")
