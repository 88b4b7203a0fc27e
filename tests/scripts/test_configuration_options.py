"""Keys of a configuration that are written as options are answered with the option --set."""

import pytest

import cxr_compare
from cxr_compare.configs.load import find_config, read_config
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts.configuration_options import _SYNONYMS, configuration_key
from tests.scripts.small_sets import refusal

CALL = ["train", "chexnet_small", "--data", "set", "--out", "run"]


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["--epochs", "3"], "training.epochs"),
        (["--batch_size", "8"], "training.batch_size"),
        (["--lr", "0.001"], "training.learning_rate"),
        (["--weights"], "model.weights"),
        (["--training.epochs", "3"], "training.epochs"),
    ],
)
def test_a_key_that_is_written_as_an_option_is_answered_with_set(words, key, capsys):
    assert f"write --set {key}=VALUE" in refusal(capsys, *CALL, *words)


def test_a_key_is_answered_before_a_missing_option(capsys):
    line = refusal(capsys, "train", "chexnet_small", "--data", "set", "--lr=0.1")
    assert "--set training.learning_rate=VALUE" in line


def test_a_misspelt_key_is_answered_with_the_nearest_one(capsys):
    line = refusal(capsys, "configs", "chexnet", "--set", "training.epohs=3")
    assert "did you mean 'training.epochs'" in line


@pytest.mark.parametrize("call", [[*CALL, "--no-such", "1"], ["tune", "p", "--epochs", "1"]])
def test_another_unknown_option_is_no_key(call, capsys):
    assert "--set" not in refusal(capsys, *call).partition(" See ")[0]


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
