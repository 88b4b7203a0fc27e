"""The one exception that means "your input, not our bug"."""


class InputError(ValueError):
    """Bad input from outside: a file, a row, a key or an argument.

    The message is one line: the place (file, row, key), what is wrong with the value, and what
    to do. The command line prints it without a traceback and exits with code 2.

    Example:
        >>> raise InputError("labels.csv: row 3: x1=nan; remove the row or give a number")
        Traceback (most recent call last):
        ...
        data_prep.errors.InputError: labels.csv: row 3: x1=nan; remove the row or give a number
    """

    def __init__(self, message: str) -> None:
        # Messages quote what is in files: it must not break the line nor steer the terminal.
        shown = message if message.isprintable() else _printable(message)
        super().__init__(shown)


def _printable(message: str) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in message)
