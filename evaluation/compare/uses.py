"""Uses of the test images of a split, as they were logged."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cxr_compare.evaluation.compare.sentences import sentence


@dataclass(frozen=True)
class TestSetUses:
    """Uses of the test images of a split.

    Attributes:
        entries: Every use, the present one last: ``when``, ``split_id``, ``target``, ``systems``,
            ``protocol``.
        problem: Reason why the uses are unknown; empty where they are known.
        protocol: SHA-256 of the protocol of the present use; `None` without one.
    """

    __test__ = False  # pytest would collect a class of this name

    entries: Sequence[Mapping[str, Any]] = ()
    problem: str = ""
    protocol: str | None = None

    @property
    def before_protocol(self) -> int | None:
        """Number of uses before the present protocol was first used; `None` where unknown."""
        if self.problem:
            return None
        protocols = [entry.get("protocol") for entry in self.entries]
        return protocols.index(self.protocol) if self.protocol in protocols else len(protocols)

    @property
    def text(self) -> str:
        """Number of uses in a sentence, or why it is unknown."""
        if self.problem:
            return self.problem
        systems = {json.dumps(entry.get("systems"), sort_keys=True) for entry in self.entries}
        return sentence("uses", count=len(self.entries), n_sets=len(systems))

    def to_dict(self) -> dict[str, Any]:
        """Return the uses as the report's provenance holds them."""
        return {
            "count": None if self.problem else len(self.entries),
            "before_protocol": self.before_protocol if self.protocol else None,
            "text": self.text,
        }
