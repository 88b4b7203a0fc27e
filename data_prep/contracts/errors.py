"""The exception for wrong input, and functions for the text of messages."""

import difflib
import importlib.util
import json
import re
import shlex
import traceback
from collections.abc import Collection, Sequence
from importlib import metadata

TRAIN_PACKAGES = ("torch", "torchvision", "lightning", "albumentations", "safetensors")
"""Packages of the pip extra `train`, which training and prediction with a run need."""
_MAX_CHARACTERS = 2_000
_LONG = re.compile(r"[^\s/]{300,}")  # no name of a file has as many signs
_SINGULAR_VERBS = {
    "have": "has",
    "are": "is",
    "were": "was",
    "do": "does",
    "carry": "carries",
    "come": "comes",
    "count": "counts",
    "occur": "occurs",
    "appear": "appears",
}
_IRREGULAR = {"box": "boxes", "study": "studies", "patch": "patches", "copy": "copies"}


class InputError(ValueError):
    """An error in input from outside: a file, a row, a key or an argument.

    The message is one line. It names the position (file, row, key), says what is wrong with the
    value, and says what to do. The command line prints it without a traceback and exits with status
    2.

    Args:
        message: The message. Very long words are shortened, and characters that cannot be printed
            are replaced.
        full_disk: True if the disk is full, so that the same call can continue once there is free
            space.

    Example:
        >>> import cxr_compare
        >>> raise cxr_compare.InputError("labels.csv: row 3: x1=nan; remove the row")
        Traceback (most recent call last):
        ...
        cxr_compare.data_prep.contracts.errors.InputError: labels.csv: row 3: x1=nan; remove the row
    """

    # A command sets this environment variable for those it starts: a full disk then ends them with
    # this exit status.
    variable = "CXR_FULL_DISK_STATUS"
    status = 74

    def __init__(self, message: str, *, full_disk: bool = False) -> None:
        self.full_disk = full_disk  # the same command can continue once there is room again
        # Messages quote what is in files: it must neither break the line nor steer the terminal.
        shown = (c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shortened(message))
        super().__init__("".join(shown))

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows of the error: the user's own lines, and the message."""
        package = __name__.partition(".")[0]
        own = []
        for frame, line in traceback.walk_tb(self.__traceback__):
            module = str(frame.f_globals.get("__name__")).partition(".")[0]
            if module == package:
                break
            if module != "IPython":
                own.append((frame, line))
        lines = traceback.StackSummary.extract(iter(own)).format()
        return [*(line.rstrip() for line in lines), f"InputError: {self}"]


def shortened(line: str) -> str:
    """Shorten a line to about 1,500 characters, and words in it to 83, by leaving out the middle.

    Messages quote ids and cells of files, which may have any length.

    Example:
        >>> len(shortened("id " + "x" * 300_000)), len(shortened("name " * 10_000))
        (86, 1505)
    """
    line = _LONG.sub(lambda long: f"{long[0][:60]}...{long[0][-20:]}", line)
    if len(line) > _MAX_CHARACTERS:
        line = f"{line[: _MAX_CHARACTERS // 2]} ... {line[-_MAX_CHARACTERS // 4 :]}"
    return line


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its type if it has none.

    Example:
        >>> first_line(OSError("no route")), first_line(KeyboardInterrupt())
        ('no route', 'KeyboardInterrupt')
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def require_packages(feature: str, extra: str, modules: Sequence[str]) -> None:
    """Refuse a feature, such as ``--engine local``, if a module that it needs is not installed.

    The message begins with the feature and names the pip extra, such as ``train``. `modules` are
    import names.
    """
    for name in modules:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:  # the second: a bare folder such as wandb/
            raise InputError(
                f"{feature}: {name.replace('_', '-')} is not installed; run: "
                f"{_install_command(extra)}"
            )


def _install_command(extra: str) -> str:
    """Return the command that adds an extra: from the clone or wheel that was installed."""
    from urllib.request import url2pathname  # takes long to import, and is seldom needed

    # A clone on the search path has a record of its own, which does not say where it was installed.
    found = metadata.distributions(name="cxr-compare")
    records = (distribution.read_text("direct_url.json") for distribution in found)
    origin = json.loads(next(filter(None, records), "{}"))
    url = origin.get("url", "")
    source = url2pathname(url.removeprefix("file://")) if url.startswith("file://") else "."
    option = "-e " if origin.get("dir_info", {}).get("editable") else ""
    return f"pip install {option}{shlex.quote(f'{source}[{extra}]')}"


def nearest_name(name: str, names: Collection[str], otherwise: str) -> str:
    """Return "did you mean NAME?" with the known name that is most similar to an unknown one.

    Error messages about an unknown name end with it. If none is similar, it is `otherwise`.

    Example:
        >>> nearest_name("patient", ["truth", "patients"], "it has truth, patients")
        "did you mean 'patients'?"
    """
    nearest = difflib.get_close_matches(name, names, 1, 0.5)
    return f"did you mean '{nearest[0]}'?" if nearest else otherwise


def counted(count: int, noun: str, verb: str = "") -> str:
    """Return a number with its noun in the singular or the plural.

    The noun is given in the singular, a verb that follows it in the plural.

    Example:
        >>> counted(1, "image", "have"), counted(1200, "box", "have")
        ('1 image has', '1,200 boxes have')
    """
    if count != 1:
        rest, space, last = noun.rpartition(" ")
        noun = f"{rest}{space}{_IRREGULAR.get(last, last + 's')}"
    elif verb:
        verb = _SINGULAR_VERBS[verb]
    return f"{count:,} {noun} {verb}".rstrip()


def counted_phrase(count: int, phrase: str) -> str:
    """Return a number with a phrase that begins with a noun in the plural.

    Example:
        >>> counted_phrase(1, "images have no box"), counted_phrase(2, "images have no box")
        ('1 image has no box', '2 images have no box')
    """
    if count != 1:
        return f"{count:,} {phrase}"
    noun, space, rest = phrase.partition(" ")
    singulars = {many: one for one, many in _IRREGULAR.items()}
    verb, gap, end = rest.partition(" ")
    rest = f"{_SINGULAR_VERBS.get(verb, verb)}{gap}{end}"
    return f"1 {singulars.get(noun, noun.removesuffix('s'))}{space}{rest}"
