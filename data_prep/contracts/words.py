"""What is said to the person who waits: lines, progress, numbers with their nouns."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

_SINGULAR_VERBS = {
    "have": "has", "are": "is", "were": "was", "do": "does", "carry": "carries",
    "come": "comes", "occur": "occurs", "appear": "appears",
}  # fmt: skip
_IRREGULAR = {"box": "boxes", "study": "studies", "patch": "patches", "copy": "copies"}


def counted(count: int, noun: str, verb: str = "") -> str:
    """A number with its noun in the singular or the plural."""
    said = verb if count != 1 or not verb else _SINGULAR_VERBS[verb]
    return f"{count:,} {noun if count == 1 else _plural(noun)}{' ' * bool(verb)}{said}"


def counted_phrase(count: int, phrase: str) -> str:
    """A number with a phrase that begins with a noun in the plural, and maybe its verb."""
    if count != 1:
        return f"{count:,} {phrase}"
    noun, space, rest = phrase.partition(" ")
    singulars = {many: one for one, many in _IRREGULAR.items()}
    verb, gap, end = rest.partition(" ")
    rest = f"{_SINGULAR_VERBS.get(verb, verb)}{gap}{end}"
    return f"1 {singulars.get(noun, noun.removesuffix('s'))}{space}{rest}"


def _plural(noun: str) -> str:
    """A noun in the plural."""
    rest, space, last = noun.rpartition(" ")
    return f"{rest}{space}{_IRREGULAR.get(last, last + 's')}"


class Terminal(Protocol):
    """Shows lines and progress; the module `scripts.console` is one."""

    def say(self, text: str = "") -> None:
        """Show a line."""

    def progress(
        self, description: str, total: int | None
    ) -> AbstractContextManager[Callable[..., None]]:
        """Show how far a block is; gives a function to call with how many are done."""
