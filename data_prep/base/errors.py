"""The exception for wrong input, and functions for the text of messages."""

from __future__ import annotations

import difflib
import html
import importlib.util
from collections.abc import Collection

_IMAGES = ("cv2", "pydicom", "simplejpeg", "openjpeg", "gdcm", "pycocotools", "openpyxl")
_TRAIN = (*_IMAGES, "torch", "torchvision", "lightning", "albumentations", "safetensors")
EXTRAS = {
    "images": _IMAGES,
    "train": _TRAIN,
    "export": (*_TRAIN, "onnx", "onnxruntime"),
    "serve": (*_IMAGES, "fastapi", "uvicorn", "python_multipart"),
    "cluster": (*_IMAGES, "ray"),
}
"""Modules of the pip extras, with those of the extra that each builds on."""
PROGRAM_ERRORS = (ImportError, NameError)
"""Errors that no file causes: of our own code, or of an installation that lacks a part."""
_PLURALS = {"box": "boxes", "study": "studies", "patch": "patches", "copy": "copies"}
_SINGULAR_VERBS = {
    "have": "has",
    "are": "is",
    "were": "was",
    "do": "does",
    "left": "left",
}
_MOST_CHARACTERS = 1400


class InputError(ValueError):
    """An error in input from outside: a file, a row, a key or an argument.

    The message is one line: the position, what is wrong with the value, and what to do. The command
    line prints it without a traceback and exits with status 2.

    Examples:
        >>> import cxr_compare
        >>> raise cxr_compare.InputError("labels.csv: row 3: x1=nan; remove the row")
        Traceback (most recent call last):
        ...
        cxr_compare.data_prep.base.errors.InputError: labels.csv: row 3: x1=nan; remove the row
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(shortened(message)))


def printable(text: str, kept: str = "") -> str:
    """Replace what a terminal would obey, or no file can hold, but for some characters."""
    return "".join(c if c.isprintable() or c in kept else "\N{REPLACEMENT CHARACTER}" for c in text)


def shortened(line: str) -> str:
    """Leave out the middle of a very long line, which quotes a file."""
    if len(line) <= _MOST_CHARACTERS:
        return line
    return f"{line[: _MOST_CHARACTERS // 2]} ... {line[-_MOST_CHARACTERS // 2 :]}"


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its type if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def require_extra(feature: str, extra: str, *modules: str) -> None:
    """Refuse a feature without its pip extra, or without the only modules of it that it needs."""
    for name in modules or EXTRAS[extra]:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:  # the second: a bare folder such as wandb/
            package = name.replace("_", "-")
            raise InputError(
                f"{feature}: {package} is not installed; run in the clone: pip install '.[{extra}]'"
            )


def nearest_name(name: str, names: Collection[str], otherwise: str) -> str:
    """Return "did you mean NAME?" with the known name that is most similar to an unknown one."""
    nearest = difflib.get_close_matches(name, names, 1)
    return f"did you mean '{nearest[0]}'?" if nearest else otherwise


def counted(count: int, noun: str, verb: str = "") -> str:
    """Return a number with its noun in the singular or the plural.

    Examples:
        >>> counted(1, "box", "are"), counted(2000, "image")
        ('1 box is', '2,000 images')
    """
    if count != 1:
        rest, space, last = noun.rpartition(" ")
        noun = f"{rest}{space}{_PLURALS.get(last, last + 's')}"
    elif verb:
        verb = _SINGULAR_VERBS.get(verb, f"{verb}s")
    return f"{count:,} {noun} {verb}".rstrip()


def counted_phrase(count: int, phrase: str) -> str:
    """Return a number with a phrase that begins with a noun and a verb in the plural."""
    nouns, verb, rest = phrase.split(" ", 2)
    singulars = {plural: noun for noun, plural in _PLURALS.items()}
    return f"{counted(count, singulars.get(nouns, nouns.removesuffix('s')), verb)} {rest}"


class ShownAsText:
    """Base class of a result that a session and a notebook display as its text."""

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"
