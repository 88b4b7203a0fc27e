"""Literature references of a report, numbered in the order in which its methods cite them."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

Cite = Callable[[str], str]
"""Function from the key of a reference to the text that cites it, such as " [3]"."""


@cache
def read_references() -> dict[str, dict[str, Any]]:
    """Return the fields of each entry in ``references.toml`` by its ``key``, in their order."""
    text = Path(__file__).with_name("references.toml").read_text(encoding="utf-8")
    return {entry["key"]: entry for entry in tomllib.loads(text)["entry"]}


@dataclass(frozen=True)
class Citations:
    """References that a text cites, numbered when they are first cited.

    Example:
        >>> citations = Citations()
        >>> citations.cite("platt2000"), citations.cite("holm1979"), citations.cite("platt2000")
        (' [1]', ' [2]', ' [1]')
    """

    cited: dict[str, dict[str, Any]] = field(default_factory=dict)

    def cite(self, *keys: str) -> str:
        """Return the numbers of references in brackets; empty without a key."""
        for key in keys:
            self.cited.setdefault(key, read_references()[key])
        numbers = [str(list(self.cited).index(key) + 1) for key in keys]
        return f" [{', '.join(numbers)}]" if numbers else ""

    def cite_for(self, kind: str, *names: str) -> str:
        """Cite the references on the named ``networks``, ``detectors`` or ``sources`` of images."""
        keys = []
        for key, reference in read_references().items():
            prefixes = tuple(reference.get(kind, ()))
            if prefixes and any(name.startswith(prefixes) for name in names):
                keys.append(key)
        return self.cite(*keys)

    @property
    def texts(self) -> list[str]:
        """Cited references as a list of references has them."""
        return [_reference_text(reference) for reference in self.cited.values()]


@cache
def network_titles() -> dict[str, str]:
    """Return how networks and detectors are printed, by their names in a configuration."""
    titles: dict[str, str] = {}
    for reference in read_references().values():
        titles |= reference.get("networks", {})
        titles |= reference.get("detectors", {})
    return titles


def _reference_text(reference: Mapping[str, Any]) -> str:
    authors = ", ".join(reference["author"]).replace("others", "et al")
    text = f"{authors}. {reference['title']}."
    if reference.get("journal"):
        volume = f";{reference['volume']}" if reference.get("volume") else ""
        pages = f":{reference['pages']}" if reference.get("pages") else ""
        text += f" {reference['journal']} {reference['year']}{volume}{pages}."
    return f"{text} doi:{reference['doi']}" if reference.get("doi") else text
