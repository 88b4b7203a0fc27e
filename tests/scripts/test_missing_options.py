"""A call without a required option is answered with the whole command."""

import shlex

import pytest

from cxr_compare.scripts.options import config_names
from tests.scripts.small_sets import refusal


@pytest.mark.parametrize(
    ("call", "added"),
    [
        (["import", "p/effnet b0.csv", "--data", "d", "--out", "o"], ["--name", "effnet b0"]),
        (["import", "p/effnet.csv", "--name=E"], ["--data", "DATA", "--out", "OUT"]),
        (["train", "chexnet_small", "--data", "d"], ["--out", "OUT"]),
        (["split", "set"], ["--name", "NAME"]),  # a split is not named after its data set
    ],
)
def test_the_whole_command_is_shown_with_a_suggested_name(call, added, capsys):
    line = refusal(capsys, *call)
    assert shlex.split(line.partition("run: ")[2]) == ["cxr", *call, *added]
    assert all(option in line.partition("run: ")[0] for option in added if option[0] == "-")


def test_a_missing_configuration_is_answered_with_those_that_are_shipped(capsys):
    line = refusal(capsys, "train", "--data", "d")
    command, _, meaning = line.partition("run: ")[2].partition(". ")
    assert command == "cxr train CONFIG --data d --out OUT"
    assert "cxr configs" in meaning
    assert all(name in meaning for name in config_names())
