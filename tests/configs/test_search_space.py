"""What `--over` may say, and what each wrong one is answered with."""

from __future__ import annotations

import pytest

from configs.load import find_config, read_config
from configs.search_space import Choice, Range, combinations, read_space, value_at, with_values
from data_prep.contracts.errors import InputError

CHEXNET = read_config(find_config("chexnet_small"))
RETINANET = read_config(find_config("retinanet_small"))
LR = "training.learning_rate"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{LR}=1e-4..1e-3", Range(LR, 1e-4, 1e-3, log=True, whole=False)),  # tenfold
        (f"{LR}=1e-4..5e-4", Range(LR, 1e-4, 5e-4, log=False, whole=False)),
        (f"{LR}=linear:1e-4..1e-3", Range(LR, 1e-4, 1e-3, log=False, whole=False)),
        (f"{LR}=log:1e-4..5e-4", Range(LR, 1e-4, 5e-4, log=True, whole=False)),
        ("model.dropout=0..0.5", Range("model.dropout", 0, 0.5, log=False, whole=False)),
        ("training.batch_size=8..64", Range("training.batch_size", 8, 64, log=False, whole=True)),
        ("training.epochs=2..40", Range("training.epochs", 2, 40, log=True, whole=True)),
        (  # the key's own step, which a log scale has not
            "data.image_size=32..512",
            Range("data.image_size", 32, 512, log=False, whole=True, step=32),
        ),
        ("training.batch_size=8, 16", Choice("training.batch_size", (8, 16))),
        ("training.optimiser=adamw,sgd", Choice("training.optimiser", ("adamw", "sgd"))),
        (
            "training.positive_weight=1,balanced",
            Choice("training.positive_weight", (1, "balanced")),
        ),
        ("model.weights=../a.pth,../b.pth", Choice("model.weights", ("../a.pth", "../b.pth"))),
    ],
)
def test_a_key_with_its_values(text: str, expected: Range | Choice) -> None:
    assert read_space(CHEXNET, [text]) == [expected]


def test_lists_and_booleans_are_values_too() -> None:
    given = [
        "model.anchor_sizes=[8,16,32,64,128],[4,8,16,32,64]",
        "augmentation.stretch=true,false",
    ]
    anchors, stretch = read_space(RETINANET, given)
    assert anchors.words() == "[8, 16, 32, 64, 128], [4, 8, 16, 32, 64]"
    assert stretch.ends == (True, False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{LR}", "write it as section.key=LOW..HIGH"),
        ("training.lr=1e-4..1e-3", f"training.lr: unknown key; did you mean '{LR}'"),
        ("trainin.epochs=1,2", "trainin: unknown key"),
        ("training.learning_rate.x=1..2", "'learning_rate' is a value, not a section"),
        (f"{LR}=0..1e-3", r"learning_rate: input should be greater than 0, got 0"),
        ("model.dropout=0..1", "input should be less than 1"),
        ("training.epochs=1.5..3", "valid integer, got 1.5"),
        ("training.batch_size=8,0", "at least 1, or 'auto', got 0"),
        ("training.optimiser=adamw,adamm", "got 'adamm'"),
        ("data.image_size=100..224", "multiple of 32, got 100"),
        (f"{LR}=1e-3..1e-4", "the low end must be below the high end"),
        (f"{LR}=a..1", "a range has two numbers as its ends"),
        (f"{LR}=nan..1", "a range has two numbers as its ends"),
        (f"{LR}=log:1,2", "a range has two numbers as its ends"),
        ("model.dropout=log:0..0.5", "a log scale starts above 0"),
        ("data.image_size=log:96..224", "in steps of 32, which a log scale does not"),
        ("training.optimiser=1..2", "is no number; list its values"),
        (f"{LR}=1e-3", f"one value is no choice; use --set {LR}=1e-3"),
        (f"{LR}=1e-3,0.001", "a value is listed twice"),
        (f"{LR}=1e-3,,1e-4", "a value is empty"),
        ("data.split=a,b", "changes the validation images"),
        ("training.monitor=auroc,val_loss", "is the figure that trials are compared by"),
        ("model.trainable=all,head", "weights = 'none' has none worth keeping"),
    ],
)
def test_a_wrong_key_or_value_is_one_line_that_names_it(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        read_space(CHEXNET, [text])
    assert str(caught.value).startswith("--over ")
    assert "\n" not in str(caught.value)


def test_a_key_is_given_once_and_there_is_at_least_one() -> None:
    with pytest.raises(InputError, match="is given twice"):
        read_space(CHEXNET, [f"{LR}=1e-4..1e-3", f"{LR}=1,2"])
    with pytest.raises(InputError, match="a sweep needs a key to vary"):
        read_space(CHEXNET, [])


def test_a_value_that_another_varied_key_makes_possible_is_taken() -> None:
    space = read_space(CHEXNET, ["model.trainable=all,head", "model.weights=none,imagenet"])
    assert combinations(space) == 4
    assert combinations(read_space(CHEXNET, [f"{LR}=1e-4..1e-3"])) is None


def test_a_loss_is_not_compared_where_its_own_weights_vary() -> None:
    config = read_config(find_config("chexnet_small"), ["training.monitor=val_loss"])
    with pytest.raises(InputError, match="changes the loss itself"):
        read_space(config, ["training.positive_weight=1..4"])
    assert read_space(config, [f"{LR}=1e-4..1e-3"])


def test_values_replace_keys_and_are_checked_as_if_written() -> None:
    made = with_values(CHEXNET, {LR: 0.5, "name": "Trial"}, "trial 3")
    assert (value_at(made, LR), made.name) == (0.5, "Trial")
    assert made.training.epochs == CHEXNET.training.epochs
    with pytest.raises(InputError, match=r"^trial 3: training\.learning_rate: .* got -1"):
        with_values(CHEXNET, {LR: -1}, "trial 3")


def test_a_range_holds_its_ends_and_steps_and_nothing_else() -> None:
    (size,) = read_space(CHEXNET, ["data.image_size=96..224"])
    assert [value for value in (64, 96, 100, 224, 256, "96", True, None) if size.holds(value)] == [
        96,
        224,
    ]
