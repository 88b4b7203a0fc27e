"""The exception for wrong input, and functions for the text of messages."""

from __future__ import annotations

import difflib
import html
import importlib.util
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

_IMAGES = ("cv2", "pydicom", "simplejpeg", "openjpeg", "gdcm", "openpyxl")
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
_PLURALS = {
    "box": "boxes",
    "class": "classes",
    "study": "studies",
}
_SINGULAR_VERBS = {
    "have": "has",
    "are": "is",
    "were": "was",
    "do": "does",
    "left": "left",
}
_MOST_CHARACTERS = 1400


Write: TypeAlias = Callable[[Mapping[str, Any]], str]
"""Function that writes options of a call, as `in_shell` or `in_python` does."""


@dataclass(frozen=True)
class Remedy:
    """A way on after an error: options that the user adds to the call, and what they do.

    Attributes:
        when: The case in which it is right, in words that follow "if"; empty if there is one way.
        options: Values by the name of the option in Python: a text, True, several texts, or texts
            by role. COLUMN and other capitals leave a name to the user.
        words: What the user does instead, where no option does it.
        verb: "write" for options in place of those that were given.
    """

    when: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    words: str = ""
    verb: str = "add"

    def text(self, write: Write) -> str:
        """Return the way on in words, with its options as `write` writes them."""
        case = f"if {self.when}, " if self.when else ""
        action = f"{self.verb} {write(self.options)}" if self.options else self.words
        return f"{case}{action}"


def in_shell(options: Mapping[str, Any]) -> str:
    """Return options as words of a command line.

    Examples:
        >>> in_shell({"columns": {"finding": ["TB", "old scar"]}, "keep_ids": True})
        "--columns 'finding=TB,finding=old scar' --keep-ids"
    """
    words: list[str] = []
    for name, value in options.items():
        option = f"--{name.rstrip('_').replace('_', '-')}"
        if isinstance(value, Mapping):
            texts = [f"{role}={column}" for role, column in role_columns(value)]
            # A value of a configuration may have commas.
            texts = texts if name == "set_" else [",".join(texts)]
        elif value is True:
            texts = []
        else:
            texts = [str(value) if isinstance(value, str | int | float) else ",".join(value)]
        words += [word for text in texts for word in (option, text)] or [option]
    return shlex.join(words)


def in_python(options: Mapping[str, Any]) -> str:
    """Return options as keyword arguments.

    Examples:
        >>> in_python({"columns": {"finding": ["TB", "old scar"]}, "keep_ids": True})
        "columns={'finding': ['TB', 'old scar']}, keep_ids=True"
    """
    return ", ".join(f"{name}={value!r}" for name, value in options.items())


_write: ContextVar[Write] = ContextVar("_write", default=in_python)


def as_typed(options: Mapping[str, Any]) -> str:
    """Return options as the user types them: as keyword arguments, or in `on_command_line`."""
    return _write.get()(options)


@contextmanager
def on_command_line() -> Iterator[None]:
    """Let sentences have options as words of a command line."""
    before = _write.set(in_shell)
    try:
        yield
    finally:
        _write.reset(before)


def role_columns(columns: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return each role with its column, once for each of its columns."""
    listed = ((role, [c] if isinstance(c, str | float) else c) for role, c in columns.items())
    return [(role, str(column)) for role, names in listed for column in names]


class InputError(ValueError):
    """An error in input from outside: a file, a row, a key or an argument.

    The message is one line: the position, what is wrong with the value, and what to do. The command
    line prints it without a traceback and exits with status 2. Ways on that are options are its
    `remedies`: the text has them as keyword arguments, the command line as words. `others` are
    questions that the same input leaves open.

    Examples:
        >>> import cxr_compare
        >>> raise cxr_compare.InputError("labels.csv: row 3: x1=nan; remove the row")
        Traceback (most recent call last):
        ...
        cxr_compare.data_prep.base.errors.InputError: labels.csv: row 3: x1=nan; remove the row
    """

    def __init__(
        self, problem: str, remedies: Sequence[Remedy] = (), others: Sequence[InputError] = ()
    ) -> None:
        self.problem, self.remedies = printable(shortened(problem)), tuple(remedies)
        self.points = (self, *others)
        super().__init__(" ".join(line.strip() for line in self.lines(in_python)))

    def lines(self, write: Write) -> list[str]:
        """Return the message: a line, or one for each question and each of several ways on."""
        is_one = len(self.points) == 1
        lines = [] if is_one else [f"{len(self.points)} points are open:"]
        for number, point in enumerate(self.points, start=1):
            ways = [way.text(write) for way in point.remedies]
            question = point.problem if is_one else f"[{number}] {point.problem}"
            if ways and not question.endswith("?"):
                question += ";"
            if len(ways) == 1:
                lines.append(f"{question} {ways[0]}")
            else:
                lines += [question, *(f"  {way};" for way in ways[:-1])]
                lines += [f"  {way}" for way in ways[-1:]]
        if not is_one and all(point.remedies for point in self.points):
            lines.append(f"Answer all at once: {write({'columns': self._answers})}")
        return [printable(line) for line in lines]

    def to_dict(self) -> dict[str, Any]:
        """Return the questions and their ways on as data."""
        points = [
            {"problem": point.problem, "remedies": [asdict(way) for way in point.remedies]}
            for point in self.points
        ]
        return {"refused": points}

    @property
    def _answers(self) -> list[str]:
        """The only answer of each question; of one with several answers its number."""
        answers = []
        for number, point in enumerate(self.points, start=1):
            ways = [role_columns(way.options.get("columns", {})) for way in point.remedies]
            only = [f"{role}={column}" for role, column in ways[0]] if len(ways) == 1 else []
            answers += only or [f"[{number}]"]
        return answers


def ask(questions: Sequence[InputError]) -> None:
    """Raise all questions that an input leaves open as one error; do nothing without any."""
    if questions:
        raise InputError(questions[0].problem, questions[0].remedies, questions[1:])


def printable(text: str, also_kept: str = "") -> str:
    """Replace what a terminal would obey, or no file can hold, but for some characters."""
    return "".join(
        c if c.isprintable() or c in also_kept else "\N{REPLACEMENT CHARACTER}" for c in text
    )


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
