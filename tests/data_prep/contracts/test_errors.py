"""Messages quote what is in files, and stay one line that a terminal can show."""

import pickle

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts import console


def test_message_is_one_printable_line_of_bounded_length():
    message = str(InputError(f"a.csv: line 2: x='1\n2\x1b[31m\u202e{'x' * 9_000}' is not a number"))
    assert message.startswith("a.csv: line 2: x='1\ufffd2\ufffd[31m\ufffdxxx")
    assert message.endswith("xxx' is not a number")
    assert message.isprintable()
    assert len(message) < 2_000


def test_long_names_in_what_a_command_says_are_cut_and_other_lines_stay(capsys):
    table = "system  AUROC\n" + "A       0.9\n" * 1000
    console.say(table + "id " + "x" * 300_000 + "\n" + "column, " * 10_000)
    said = capsys.readouterr().err
    assert said.startswith(table)
    assert len(said) < len(table) + 3_000


def test_message_comes_back_whole_from_another_process():
    error = pickle.loads(pickle.dumps(InputError("a.csv: is empty")))  # noqa: S301 - our own
    assert str(error) == "a.csv: is empty"
