"""Keys of a configuration that are written as options are answered with the right command."""

import shlex

import pytest

import cxr_compare
from cxr_compare.configs.load import find_config, read_config
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts.configuration_options import _SYNONYMS, configuration_key
from tests.scripts.small_sets import refusal


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        (["--epochs", "3"], "training.epochs=3"),
        (["--epochs=3"], "training.epochs=3"),
        (["--batch-size", "8"], "training.batch_size=8"),
        (["--batch_size", "8"], "training.batch_size=8"),
        (["--lr", "0.001"], "training.learning_rate=0.001"),
        (["--learning-rate", "1e-3"], "training.learning_rate=1e-3"),
        (["--image-size", "512"], "data.image_size=512"),
        (["--imgsz", "512"], "data.image_size=512"),
        (["--seed", "1"], "training.seed=1"),
        (["--weights"], "model.weights=VALUE"),
        (["--target", "mass"], "data.target=mass"),
        (["--training.epochs", "3"], "training.epochs=3"),
    ],
)
def test_a_key_that_is_written_as_an_option_is_answered_with_set(words, setting, capsys):
    call = ["train", "chexnet_small", "--data", "set", "--out", "run"]
    line = refusal(capsys, *call, *words)
    command = shlex.split(line.partition("run: ")[2])
    assert command == ["cxr", *call, "--set", setting]


def test_several_keys_are_answered_together_and_own_options_stay(capsys):
    line = refusal(
        capsys, "train", "chexnet_small", "--epochs", "3", "--data", "set", "--lr=0.1", "--out", "s"
    )
    expected = "cxr train chexnet_small --data set --out s --set training.epochs=3"
    assert f"{expected} --set training.learning_rate=0.1" in line


@pytest.mark.parametrize("call", [["train", "--no-such", "1"], ["tune", "p", "--epochs", "1"]])
def test_another_unknown_option_is_no_key(call, capsys):
    assert "--set" not in refusal(capsys, *call)


def test_from_python_a_key_is_answered_with_the_argument(tmp_path):
    with pytest.raises(InputError, match=r'epochs: .*set_=\{"training.epochs": VALUE\}'):
        cxr_compare.train("chexnet_small", data=tmp_path, out=tmp_path / "run", epochs=3)
    with pytest.raises(InputError, match="no_such"):
        cxr_compare.train("chexnet_small", data=tmp_path, out=tmp_path / "run", no_such=3)


def test_each_name_of_another_program_is_a_key_that_a_configuration_has():
    settings = read_config(find_config("retinanet")).model_dump()
    for name in _SYNONYMS:
        section, key = str(configuration_key(name)).split(".")
        assert key in settings[section]
