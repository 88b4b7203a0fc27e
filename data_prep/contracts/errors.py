"""The one exception that means "your input, not our bug", and the words of other messages."""

import importlib.util
import re
from collections.abc import Sequence

TRAIN_PACKAGES = ("torch", "torchvision", "lightning", "timm", "albumentations", "safetensors")
"""What the pip extra `train` brings: to train, and to predict with a run."""
_MOST_CHARACTERS = 2_000
_LONG = re.compile(r"[^\s/]{300,}")  # no name of a file has as many signs
_SINGULAR_VERBS = {
    "have": "has", "are": "is", "were": "was", "do": "does", "carry": "carries",
    "come": "comes", "occur": "occurs", "appear": "appears",
}  # fmt: skip
_IRREGULAR = {"box": "boxes", "study": "studies", "patch": "patches", "copy": "copies"}


class InputError(ValueError):
    """Bad input from outside: a file, a row, a key or an argument.

    The message is one line: the place (file, row, key), what is wrong with the value, and what
    to do. The command line prints it without a traceback and exits with code 2.

    Example:
        >>> raise InputError("labels.csv: row 3: x1=nan; remove the row")
        Traceback (most recent call last):
        ...
        cxr_compare.data_prep.contracts.errors.InputError: labels.csv: row 3: x1=nan; remove the row
    """

    # Commands set this of the environment for those they start, to tell a full disk by its status.
    variable, status = "CXR_FULL_DISK_STATUS", 74

    def __init__(self, message: str, *, full_disk: bool = False) -> None:
        self.full_disk = full_disk  # the same command goes on where there is room again
        # Messages quote what is in files: it must neither break the line nor steer the terminal.
        shown = (c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shortened(message))
        super().__init__("".join(shown))


def shortened(line: str) -> str:
    """Return a line whose long words, and which itself, show their beginning and end alone.

    Messages quote ids and cells of files, which may have any length.

    Example:
        >>> len(shortened("id " + "x" * 300_000)), len(shortened("name " * 10_000))
        (86, 1505)
    """
    line = _LONG.sub(lambda long: f"{long[0][:60]}...{long[0][-20:]}", line)
    if len(line) > _MOST_CHARACTERS:
        line = f"{line[: _MOST_CHARACTERS // 2]} ... {line[-_MOST_CHARACTERS // 4 :]}"
    return line


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, or its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def require_packages(asked: str, extra: str, modules: Sequence[str]) -> None:
    """Refuse what is asked for where a module of its pip extra is not installed."""
    for name in modules:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:  # the second: a bare folder such as wandb/
            raise InputError(
                f"{asked}: {name.replace('_', '-')} is not installed; in a clone: "
                f"pip install '.[{extra}]'"
            )


def counted(count: int, noun: str, verb: str = "") -> str:
    """A number with its noun in the singular or the plural."""
    if count != 1:
        rest, space, last = noun.rpartition(" ")
        noun = f"{rest}{space}{_IRREGULAR.get(last, last + 's')}"
    elif verb:
        verb = _SINGULAR_VERBS[verb]
    return f"{count:,} {noun} {verb}".rstrip()


def counted_phrase(count: int, phrase: str) -> str:
    """A number with a phrase that begins with a noun in the plural, and maybe its verb."""
    if count != 1:
        return f"{count:,} {phrase}"
    noun, space, rest = phrase.partition(" ")
    singulars = {many: one for one, many in _IRREGULAR.items()}
    verb, gap, end = rest.partition(" ")
    rest = f"{_SINGULAR_VERBS.get(verb, verb)}{gap}{end}"
    return f"1 {singulars.get(noun, noun.removesuffix('s'))}{space}{rest}"
