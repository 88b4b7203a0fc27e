"""Removed options say what to do instead, and renamed ones work under both names."""

import inspect

import pytest

import cxr_compare
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts.cli import command_function
from cxr_compare.scripts.command_line import command_name
from cxr_compare.scripts.former_options import REMOVED, RENAMED, current_words
from cxr_compare.scripts.parameters import parameters_of
from tests.scripts.small_sets import refusal

CASES = [(command, option) for command, options in REMOVED.items() for option in options]


@pytest.mark.parametrize(("command", "option"), CASES)
def test_a_removed_option_is_refused_with_advice(command, option, capsys):
    flag = f"--{option.replace('_', '-')}"
    line = refusal(capsys, command_name(command), flag, "1")
    assert line.endswith(REMOVED[command][option])
    with pytest.raises(InputError, match=f"{command_name(command)} {option}: "):
        getattr(cxr_compare, command)(**{option: 1})


@pytest.mark.parametrize("command", sorted(REMOVED.keys() | RENAMED.keys()))
def test_a_former_option_is_no_present_one(command):
    present = {parameter.name for parameter in parameters_of(command_function(command))}
    assert not present & REMOVED.get(command, {}).keys()
    assert not present & RENAMED.get(command, {}).keys()
    assert set(RENAMED.get(command, {}).values()) <= present


def test_the_negated_form_of_a_removed_switch_is_refused_too():
    with pytest.raises(InputError, match="--no-resume"):
        current_words("train", ["--no-resume"])


@pytest.mark.parametrize("arguments", [["--promise", "a"], ["--promise=a"]])
def test_former_name_of_guarantee_is_a_hidden_alias(arguments, capsys):
    assert "=".join(current_words("tune", arguments)) == "--guarantee=a"
    assert "promise" not in inspect.getdoc(cxr_compare.tune).lower()


def test_value_that_resembles_a_removed_option_is_accepted():
    assert current_words("train", ["--set", "training.resume=1"]) == ["--set", "training.resume=1"]
