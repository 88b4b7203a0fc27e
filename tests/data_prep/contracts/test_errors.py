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


def test_notebook_shows_the_line_of_the_user_and_the_message(tmp_path):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    shown: list[str] = []
    shell._showtraceback = lambda kind, value, lines: shown.extend(lines)
    cell = f"import cxr_compare\npath = {str(tmp_path / 'none')!r}\ncxr_compare.Run.open(path)"
    try:
        shell.run_cell(cell)
    finally:
        InteractiveShell.clear_instance()
    text = "\n".join(shown)
    assert "line 3" in text
    assert "cxr_compare.Run.open(path)" in text
    assert text.count("File ") == 1  # no line of the package
    assert shown[-1].startswith(f"InputError: {tmp_path / 'none'}: ")
