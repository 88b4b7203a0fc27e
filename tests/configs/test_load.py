"""Configurations: the shipped ones are valid, and every slip gets one helpful line."""

import tomllib
from importlib.metadata import EntryPoint, EntryPoints
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
from cxr_compare.configs.protocol_file import read_protocol
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.networks.registry import network_names


@pytest.mark.parametrize("name", packaged_configs())
def test_shipped_config_is_valid_and_survives_a_round_trip(name):
    config = read_config(find_config(name))
    assert parse_config(dump_config(config), "again") == config
    assert first_difference(config, config) is None


@pytest.mark.parametrize("name", packaged_configs())
def test_shipped_config_explains_itself_and_never_flips(name):
    text = find_config(name).read_text()
    assert text.startswith("# ")
    assert tomllib.loads(text)["augmentation"]["horizontal_flip"] == 0  # hearts are on the left


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
        ("training.epoch=3", "--set training.epoch: .*'training.epochs' 'training.epochs'?"),
        ("epochs=3", "--set epochs: unknown key; did you mean 'training.epochs'?"),
        ("model.scale=0.1", "--set model.scale: unknown key; did you mean 'augmentation.scale'?"),
        ("lr=0.01", "--set lr: unknown key; did you mean 'training.learning_rate'?"),
        ("training.lr=0.01", "did you mean 'training.learning_rate'?"),
        ("BS=4", "did you mean 'training.batch_size'?"),
        ("size=256", "did you mean 'data.image_size'?"),
        ("optimizer='sgd'", "did you mean 'training.optimiser'?"),
        ("model.arch=resnet18", "did you mean 'model.backbone'?"),
        ("model.architecture=retina", "--set model.architecture: must be one of retinanet, "),
        ("model.trainable=6", "all, head, head_first, stages or a number of stages, 0 to 5, got 6"),
        ("data.zzz=1", "--set data.zzz: unknown key; known here: data.target, data.split"),
        ("training.epochs=0", "--set training.epochs: input should be greater than or equal to 1"),
        (f"training.epochs={10**22}", "--set training.epochs: input should be less than or equal"),
        ("training.epochs='3'", "--set training.epochs: input should be a valid integer"),
        ("augmentation.scale=1.0", "input should be less than or equal to 0.9, got 1.0"),
        ("augmentation.rotate_degrees=-1.0", "input should be greater than or equal to 0"),
        ("augmentation.stretch=1", "input should be a valid boolean, got 1"),
        ("training.learning_rate=nan", "input should be a finite number, got nan"),
        (
            "model.backbone=vgg16",
            "--set model.backbone: must be one of densenet121, resnet18, resnet34, resnet50,",
        ),
        ("model.anchor_sizes=[1.0, 2.0]", "list should have at least 5 items"),
        ("model.last_stride=16", "unknown key"),  # of a classifier
        ("model.norm=frozen", "norm = 'frozen' keeps pretrained statistics, and weights = 'none'"),
        ("training.monitor=f1", "--set training.monitor: input should be 'ap50', 'ap', 'auroc'"),
        ("model.anchor_sizes=[0.5, 2.0, 4.0, 8.0, 16.0]", "greater than or equal to 1, got 0.5"),
        (
            "model.box_loss=l2",
            "input should be 'auto', 'l1', 'smooth_l1', 'giou', 'diou' or 'ciou'",
        ),
        ("data.image_size=64", "input should be greater than or equal to 96"),  # see settings.py
        ("data.image_size=100", "input should be a multiple of 32, got 100"),
        ("training=3", "--set training: input should be"),
        ("training.draw={positive = 0.5, normal = 0.5}", "--set training.draw: unknown key"),
        ("training.loggers=['neptune']", "input should be 'tensorboard', 'mlflow' or 'wandb'"),
        ("kind=segmenter", 'kind must be one of "detector", "classifier", got \'segmenter\''),
        ("training.epochs", "--set training.epochs: write it as section.key=value"),
        ("training.epochs.x=1", "'epochs' is a value, not a section"),
        ("name=[", "the value is not TOML"),
        ("name=a\nb=1", "the value is not TOML"),
        (f"name={5_000 * '['}", "the value is not TOML"),
    ],
)
def test_wrong_override_gets_one_line(override, message):
    with pytest.raises(InputError) as caught:
        read_config(find_config("retinanet_quickstart"), [override])
    assert message in str(caught.value)


def test_rule_over_several_keys_names_the_options_that_broke_it_else_the_file(tmp_path):
    shipped = find_config("retinanet_small")
    with pytest.raises(InputError) as caught:
        read_config(shipped, ["model.norm=frozen", "model.head=v1"])
    assert str(caught.value).startswith(f"--set model.norm: on {shipped}: norm = 'frozen'")
    assert "choose norm = 'batch'" in str(caught.value)
    own = tmp_path / "own.toml"
    own.write_text(shipped.read_text().replace('norm = "batch"', 'norm = "frozen"'))
    with pytest.raises(InputError) as caught:
        read_config(own, ["model.head=v1"])
    assert str(caught.value).startswith(f"{own}: model: norm = 'frozen'")
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
def test_override_replaces_what_the_file_says(override, section, key, value):
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
    ("epochs", "says"),
    [("epoch =", "training.epoch: .*'training.epochs'"), ("# ", "training.epochs: ")],
)
def test_a_wrong_or_missing_key_of_a_file_names_the_file(tmp_path, epochs, says):
    text = find_config("chexnet").read_text().replace("epochs =", epochs, 1)
    with pytest.raises(InputError, match=f"mine.toml: {says}"):
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


def test_own_file_is_found_by_its_path(tmp_path):
    path = _file(tmp_path, "")
    assert find_config(str(path)) == path


def test_dumped_config_keeps_what_is_hard_to_write():
    config = read_config(find_config("retinanet"), ["training.learning_rate=1e-05"])
    text = 'quote " backslash \\ newline \n tab \t bell \x07 delete \x7f lung \u80ba'
    config = config.model_copy(update={"name": text})
    assert parse_config(dump_config(config), "again") == config


def test_difference_between_kinds_is_told():
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
    ("text", "says"),
    [
        ('target = "a"\nmargn = 0.1', "margn: unknown key; did you mean 'margin'"),
        ("margin = 0.1", "target: is missing; add it"),
        ('target = "a"\nmargin = "0.1"', "margin: input should be a valid number, got '0.1'"),
        ('target = "a"\nmargin = 0.0', "margin: input should be greater than 0"),
        ('target = "a"\nunit = "lung"', "unit: input should be 'image', 'study' or 'patient'"),
        ("target = ", "is not TOML"),
    ],
)
def test_a_slip_in_a_protocol_is_one_line(write, text, says):
    with pytest.raises(InputError) as told:
        read_protocol(write(text))
    assert says in str(told.value)
    assert "\n" not in str(told.value)


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
    for section in ("data", "model", "augmentation", "training"):
        for key in type(getattr(config, section)).model_fields:
            lines = [each for each in text.splitlines() if each.lstrip("# ").startswith(f"{key} =")]
            assert len(lines) == 1, key
            assert lines[0].partition("  # ")[2].strip(), f"configs/settings.py: {key} says nothing"


def test_every_shipped_configuration_says_what_it_suits():
    listed = summaries()
    assert {each.name for each in listed} == set(packaged_configs())
    assert [each.kind for each in listed if each.name == "retinanet_lite"] == ["detector"]
    assert all("CPU" in each.suits or "GPU" in each.suits for each in listed)


def test_another_architecture_leaves_keys_out_that_it_does_not_have():
    file = find_config("retinanet_small")  # which sets head_convs and box_loss
    config = read_config(file, ["model.architecture=rt_detr", "model.queries=20"])
    assert config.model.backbone == "resnet18"
    assert config.model.queries == 20
    assert config.name == "rt_detr"
    assert parse_config(dump_config(config), "again") == config
    with pytest.raises(InputError, match=r"--set model\.head_convs: "):
        read_config(file, ["model.architecture=rt_detr", "model.head_convs=2"])


def test_configurations_of_before_november_2026_are_renewed():
    old = dump_config(read_config(find_config("retinanet"), ["model.weights=imagenet"]))
    old = old.replace("trainable = 3", "trainable_layers = 3").replace(
        'architecture = "retinanet"\n', ""
    )
    assert parse_config(old, "run").model.trainable == 3
    old = dump_config(read_config(find_config("small_cnn"))).replace("backbone =", "architecture =")
    assert parse_config(old, "run").model.backbone == "small_cnn"


def test_a_damaged_configuration_of_a_run_is_one_line():
    for text in ('kind = "classifier"\nmodel = 3', 'kind = "detector"\nmodel = []\ntraining = 1'):
        with pytest.raises(InputError, match=r"run: .*"):
            parse_config(text, "run")


def test_a_detector_that_cannot_be_imported_is_one_line(monkeypatch):
    broken = EntryPoint("mine", "no_such_module:Mine", "cxr_compare.detectors")
    monkeypatch.setattr(
        "cxr_compare.configs.model_settings.entry_points",
        lambda group, **by: EntryPoints([broken]).select(**by),
    )
    with pytest.raises(InputError, match=r"--set model\.architecture: mine .*no_such_module"):
        read_config(find_config("retinanet_small"), ["model.architecture=mine"])
