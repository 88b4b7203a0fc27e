"""What `--over` may say, and what each wrong one is answered with."""

import pytest

pytest.importorskip("optuna")
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from cxr_compare.configs.load import find_config, read_config
from cxr_compare.configs.search_space import (
    combinations,
    describe_distribution,
    proposal_of,
    read_space,
    values_of,
    with_values,
)
from cxr_compare.data_prep.contracts.errors import InputError

CHEXNET = read_config(find_config("chexnet_small"))
RETINANET = read_config(find_config("retinanet_small"))
LR = "training.learning_rate"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{LR}=1e-4..1e-3", FloatDistribution(1e-4, 1e-3, log=True)),  # tenfold
        (f"{LR}=1e-4..5e-4", FloatDistribution(1e-4, 5e-4)),
        (f"{LR}=linear:1e-4..1e-3", FloatDistribution(1e-4, 1e-3)),
        (f"{LR}=log:1e-4..5e-4", FloatDistribution(1e-4, 5e-4, log=True)),
        ("model.dropout=0..0.5", FloatDistribution(0, 0.5)),
        ("training.batch_size=8..64", IntDistribution(8, 64)),
        ("training.epochs=2..40", IntDistribution(2, 40, log=True)),
        # The key's own step, which a log scale has not.
        ("data.image_size=32..512", IntDistribution(32, 512, step=32)),
    ],
)
def test_a_key_with_its_range(text, expected):
    (distribution,) = read_space(CHEXNET, [text]).values()
    assert distribution == expected


@pytest.mark.parametrize(
    ("config", "text", "values"),
    [
        (CHEXNET, "training.batch_size=8, 16", [8, 16]),
        (CHEXNET, "training.optimiser=adamw,sgd", ["adamw", "sgd"]),
        (CHEXNET, "training.positive_weight=1,balanced", [1, "balanced"]),
        (CHEXNET, "model.weights=../a.pth,../b.pth", ["../a.pth", "../b.pth"]),
        (RETINANET, "augmentation.stretch=true,false", [True, False]),
        (
            RETINANET,
            "model.anchor_sizes=[8,16,32,64,128],[4,8,16,32,64]",
            [[8, 16, 32, 64, 128], [4, 8, 16, 32, 64]],
        ),
    ],
)
def test_a_key_with_listed_values(config, text, values):
    ((key, distribution),) = read_space(config, [text]).items()
    assert isinstance(distribution, CategoricalDistribution)
    assert [values_of({key: choice})[key] for choice in distribution.choices] == values


def test_listed_lists_are_shown_as_toml_writes_them():
    (anchors,) = read_space(
        RETINANET, ["model.anchor_sizes=[8,16,32,64,128],[4,8,16,32,64]"]
    ).values()
    assert describe_distribution(anchors) == "[8, 16, 32, 64, 128], [4, 8, 16, 32, 64]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{LR}", "--over training.learning_rate: .*=LOW..HIGH"),
        ("training.lr=1e-4..1e-3", f"training.lr: .*'{LR}'"),
        ("trainin.epochs=1,2", "trainin.epochs=1,2: trainin: "),
        ("training.learning_rate.x=1..2", "learning_rate.x=1..2: 'learning_rate' "),
        (f"{LR}=0..1e-3", r"learning_rate: .*got 0"),
        ("model.dropout=0..1", "model.dropout: .*got 1"),
        ("training.epochs=1.5..3", "training.epochs: .*got 1.5"),
        ("training.batch_size=8,0", "training.batch_size: .*got 0"),
        ("training.optimiser=adamw,adamm", "training.optimiser: .*got 'adamm'"),
        ("data.image_size=100..224", "data.image_size: .*32, got 100"),
        (f"{LR}=1e-3..1e-4", "learning_rate=1e-3..1e-4: "),
        (f"{LR}=a..1", "learning_rate=a..1: "),
        (f"{LR}=nan..1", "learning_rate=nan..1: "),
        (f"{LR}=log:1,2", "learning_rate=log:1,2: "),
        ("model.dropout=log:0..0.5", "model.dropout=log:0..0.5: "),
        ("data.image_size=log:96..224", "data.image_size=log:96..224: .* 32"),
        ("training.optimiser=1..2", "training.optimiser=1..2: "),
        (f"{LR}=1e-3", f"--over {LR}=1e-3: .*--set {LR}=1e-3"),
        (f"{LR}=1e-3,0.001", "learning_rate=1e-3,0.001: "),
        (f"{LR}=1e-3,,1e-4", "learning_rate=1e-3,,1e-4: "),
        ("data.split=a,b", "data.split"),
        ("training.monitor=auroc,val_loss", "training.monitor"),
        ("model.trainable=all,head", "model.trainable.*weights = 'none'"),
    ],
)
def test_a_wrong_key_or_value_is_one_line_that_names_it(text, message):
    with pytest.raises(InputError, match=message) as caught:
        read_space(CHEXNET, [text])
    assert str(caught.value).startswith("--over ")
    assert "\n" not in str(caught.value)


def test_repeated_key_and_empty_space_are_refused():
    with pytest.raises(InputError, match=r"--over training.learning_rate=1,2: "):
        read_space(CHEXNET, [f"{LR}=1e-4..1e-3", f"{LR}=1,2"])
    with pytest.raises(InputError, match=r"^--over: "):
        read_space(CHEXNET, [])


def test_a_value_that_another_varied_key_makes_possible_is_taken():
    space = read_space(CHEXNET, ["model.trainable=all,head", "model.weights=none,imagenet"])
    assert combinations(space) == 4
    assert combinations(read_space(CHEXNET, [f"{LR}=1e-4..1e-3"])) is None


def test_loss_is_not_compared_where_its_weights_vary():
    config = read_config(find_config("chexnet_small"), ["training.monitor=val_loss"])
    with pytest.raises(InputError, match=r"--over training.positive_weight=1..4: .*val_loss"):
        read_space(config, ["training.positive_weight=1..4"])
    assert read_space(config, [f"{LR}=1e-4..1e-3"])


def test_values_replace_keys_and_are_checked_as_if_written():
    made = with_values(CHEXNET, {LR: 0.5, "name": "Trial"}, "trial 3")
    assert (made.training.learning_rate, made.name) == (0.5, "Trial")
    assert made.training.epochs == CHEXNET.training.epochs
    with pytest.raises(InputError, match=r"^trial 3: training\.learning_rate: .* got -1"):
        with_values(CHEXNET, {LR: -1}, "trial 3")


@pytest.mark.parametrize(
    ("over", "proposal"),
    [
        ("data.image_size=96..224", {"data.image_size": 224}),
        ("data.image_size=96..192", None),
        ("training.batch_size=8,16", {"training.batch_size": "x = 8"}),
        ("training.batch_size=4,16", None),
    ],
)
def test_a_configuration_is_a_trial_where_its_values_are_in_the_space(over, proposal):
    assert proposal_of(CHEXNET, read_space(CHEXNET, [over])) == proposal
    auto = read_config(find_config("chexnet_small"), ["training.batch_size=auto"])
    assert proposal_of(auto, read_space(auto, ["training.batch_size=8..16"])) is None
