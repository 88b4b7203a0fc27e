"""The one exception that means "your input, not our bug"."""

import importlib.util
import re
from collections.abc import Sequence

_MOST_CHARACTERS = 2_000
_LONG = re.compile(r"[^\s/]{300,}")  # no name of a file has as many signs


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

    # Commands set this of the environment for those they start, to tell a full disk by its status.
    variable, status = "CXR_FULL_DISK_STATUS", 74

    def __init__(self, message: str, *, full_disk: bool = False) -> None:
        self.full_disk = full_disk  # the same command goes on where there is room again
        # Messages quote what is in files: it must neither break the line nor steer the terminal.
        message = _clipped(message)
        if len(message) > _MOST_CHARACTERS:
            message = f"{message[: _MOST_CHARACTERS // 2]} ... {message[-_MOST_CHARACTERS // 4 :]}"
        shown = (c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in message)
        super().__init__("".join(shown))


def _clipped(text: str) -> str:
    """A text whose ids and cells of hundreds of signs show their beginning and end alone."""
    return _LONG.sub(lambda long: f"{long[0][:60]}...{long[0][-20:]}", text)


def require_packages(asked: str, extra: str, modules: Sequence[str]) -> None:
    """Refuse what is asked for where a module of its pip extra is not installed."""
    for name in modules:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:  # the second: a bare folder such as wandb/
            raise InputError(
                f"{asked}: {name.replace('_', '-')} is not installed; pip install "
                f"'cxr-compare[{extra}]'"
            )
