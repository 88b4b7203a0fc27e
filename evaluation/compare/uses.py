"""Logged uses of the test images of a split: how often systems were evaluated on them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cxr_compare.evaluation.compare.sentences import sentence


@dataclass(frozen=True)
class TestSetUses:
    """Log of all comparisons that used the same test images.

    The more often the same test images are used, the likelier it is that a result is due to chance.

    Attributes:
        entries: All uses from the first to the present one, each a dictionary with ``when`` (time
            in UTC, ISO 8601), ``split_id`` (id of the division into training, validation and test
            images), ``target`` (finding), ``systems`` (names) and ``protocol`` (SHA-256 of the
            protocol file).
        problem: Reason why the uses are unknown; empty if they are known.
        protocol: SHA-256 of the file that declared the question of the present comparison; `None`
            without such a file.

    Example:
        >>> TestSetUses([{"systems": ["A"]}, {"systems": ["A", "B"]}]).text
        'The test images of this split were used 2 times, with 2 different sets of systems.'
    """

    __test__ = False  # pytest would collect a class of this name

    entries: Sequence[Mapping[str, Any]] = ()
    problem: str = ""
    protocol: str | None = None

    @property
    def before_protocol(self) -> int | None:
        """Number of uses of the test images before the present protocol file was first used.

        `None` if the number is unknown. Without a protocol file the number has no meaning.
        """
        if self.problem:
            return None
        protocols = [entry.get("protocol") for entry in self.entries]
        return protocols.index(self.protocol) if self.protocol in protocols else len(protocols)

    @property
    def text(self) -> str:
        """Sentence with the number of uses, or with the reason why the number is unknown."""
        if self.problem:
            return self.problem
        systems = {json.dumps(entry.get("systems"), sort_keys=True) for entry in self.entries}
        return sentence("uses", count=len(self.entries), n_sets=len(systems))

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers of uses as a dictionary of JSON values, to be stored with a report.

        The keys are ``count`` (all uses; None if unknown), ``before_protocol`` (uses before the
        protocol file was first used; None if unknown or without a file) and ``text`` (a sentence).
        """
        return {
            "count": None if self.problem else len(self.entries),
            "before_protocol": self.before_protocol if self.protocol else None,
            "text": self.text,
        }
