"""How often a test split was used: an append-only log beside the split.

Every use of the same test images makes a lucky figure likelier, so `cxr compare` counts them,
whichever systems it compared and whether or not the report was kept.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_prep.contracts.errors import InputError
from data_prep.store.predictions import Predictions
from evaluation.decisions.test_set import TestSet


@dataclass(frozen=True)
class TestSetUses:
    """The uses of a test split.

    Attributes:
        entries: Every use, the present one last: ``when, split_id, target, systems, protocol``.
        problem: Why the uses are unknown; empty where they are known.
        protocol: SHA-256 of the present use's protocol; `None` without one.
    """

    __test__ = False  # a name that pytest would collect

    entries: Sequence[Mapping[str, Any]] = field(default=())
    problem: str = ""
    protocol: str | None = None

    @property
    def before_protocol(self) -> int | None:
        """Uses before the present protocol was first used; `None` where they are unknown."""
        if self.problem:
            return None
        protocols = [entry.get("protocol") for entry in self.entries]
        return protocols.index(self.protocol) if self.protocol in protocols else len(protocols)

    @property
    def words(self) -> str:
        """The count in words."""
        if self.problem:
            return self.problem
        systems = {json.dumps(entry.get("systems"), sort_keys=True) for entry in self.entries}
        times = "once" if len(self.entries) == 1 else f"{len(self.entries)} times"
        return (
            f"The test images of this split were used {times}, with {len(systems)} "
            f"{'set' if len(systems) == 1 else 'different sets'} of systems."
        )

    def to_dict(self) -> dict[str, Any]:
        """As the report's provenance holds it."""
        return {
            "count": len(self.entries) if not self.problem else None,
            "before_protocol": self.before_protocol if self.protocol else None,
            "words": self.words,
        }


def log_use(
    test_set: TestSet,
    systems: Mapping[str, Sequence[Predictions]],
    protocol: str | None = None,
) -> TestSetUses:
    """Add a use to the log of a split.

    Args:
        test_set: What is judged; the folder of its data set gets the line.
        systems: What is compared, each system's training seeds.
        protocol: SHA-256 of the protocol's file, where there is one.

    Returns:
        All uses, this one included; with a problem where the data set cannot be written.

    Raises:
        InputError: The log is damaged: a use that cannot be counted is not forgotten.
    """
    # One JSON object a line.
    path = test_set.dataset.folder / "splits" / f"{test_set.split}.looks.jsonl"
    split_id = test_set.ids["split_id"]
    entry = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "split_id": split_id,
        "target": test_set.target.name,
        "systems": {
            name: [str(seed.info.get("inference_id")) for seed in members]
            for name, members in systems.items()
        },
        "protocol": protocol,
    }
    try:
        with path.open("a+", encoding="utf-8") as log:
            fcntl.flock(log, fcntl.LOCK_EX)
            log.write(json.dumps(entry) + "\n")
            log.flush()
            log.seek(0)
            lines = log.read().splitlines()
    except OSError as error:
        problem = (
            f"How often this test split was looked at is unknown: {path} cannot be written "
            f"({error.strerror})."
        )
        return TestSetUses((), problem, protocol)
    # A split drawn anew under the same name has other test images: uses of the old do not count.
    entries = [entry for entry in _parse(lines, path) if entry.get("split_id") == split_id]
    return TestSetUses(entries, "", protocol)


def _parse(lines: Sequence[str], path: Path) -> list[dict[str, Any]]:
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            raise InputError(
                f"{path}: line {number} is not a record of a look; repair it, the count must not "
                "get lost"
            ) from None
    return entries
