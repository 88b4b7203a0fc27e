"""The one exception that means "your input, not our bug"."""

_MOST_CHARACTERS = 2_000


class InputError(ValueError):
    """Bad input from outside: a file, a row, a key or an argument.

    The message is one line: the place (file, row, key), what is wrong with the value, and what
    to do. The command line prints it without a traceback and exits with code 2.

    Example:
        >>> raise InputError("labels.csv: row 3: x1=nan; remove the row")
        Traceback (most recent call last):
        ...
        data_prep.contracts.errors.InputError: labels.csv: row 3: x1=nan; remove the row
    """

    def __init__(self, message: str) -> None:
        # Messages quote what is in files: it must neither break the line nor steer the terminal.
        if len(message) > _MOST_CHARACTERS:
            message = f"{message[: _MOST_CHARACTERS // 2]} ... {message[-_MOST_CHARACTERS // 4 :]}"
        shown = (c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in message)
        super().__init__("".join(shown))
