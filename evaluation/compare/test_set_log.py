"""How often a test split has been looked at: an append-only record beside the split.

Every look at the same test images makes a lucky figure likelier, so `cxr compare` counts them,
whichever systems it was shown and whether or not the report was kept.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.contracts.errors import InputError
from data_prep.store.dataset import DataSet
from data_prep.store.predictions import Predictions
from evaluation.compare.protocol import Protocol

if TYPE_CHECKING:
    from evaluation.compare.comparison import Comparison


@dataclass(frozen=True)
class Looks:
    """What is known of the looks at a test split.

    Attributes:
        entries: Every look, the present one last: ``when, split_id, target, systems,
            protocol``.
        note: Why the record may be incomplete; empty where it is whole.
        protocol: SHA-256 of the present look's protocol; `None` without one.
    """

    entries: Sequence[Mapping[str, Any]] = field(default=())
    note: str = ""
    protocol: str | None = None

    @property
    def before_protocol(self) -> int | None:
        """Looks before the present protocol was first used; `None` where they are unknown."""
        if self.note:
            return None
        used = [entry.get("protocol") for entry in self.entries]
        return used.index(self.protocol) if self.protocol in used else len(used)

    @property
    def words(self) -> str:
        """The count in words.

        Example:
            >>> Looks([{"systems": {"A": ["x"]}}, {"systems": {"A": ["x"]}}]).words
            'The test images of this split were looked at 2 times, with 1 different line-up.'
        """
        if self.note:
            return self.note
        line_ups = {json.dumps(entry.get("systems"), sort_keys=True) for entry in self.entries}
        times = "once" if len(self.entries) == 1 else f"{len(self.entries)} times"
        plural = "" if len(line_ups) == 1 else "s"
        return (
            f"The test images of this split were looked at {times}, with {len(line_ups)} "
            f"different line-up{plural}."
        )

    def to_json(self) -> dict[str, Any]:
        """As the report's provenance holds it."""
        return {
            "count": len(self.entries) if not self.note else None,
            "before_protocol": self.before_protocol if self.protocol else None,
            "words": self.words,
        }

    def told_in(self, comparison: Comparison) -> Comparison:
        """Put the count into a comparison's provenance, and what is unknown into its notes."""
        notes = [*comparison.notes, *filter(None, [self.note])]
        provenance = comparison.provenance | {"looks": self.to_json()}
        return replace(comparison, provenance=provenance, notes=notes)


def looks_file(dataset: DataSet, split: str) -> Path:
    """Where the looks at a split are recorded: one JSON object a line."""
    return dataset.folder / "splits" / f"{split}.looks.jsonl"


def record_look(
    dataset: DataSet,
    split: str,
    target: str,
    systems: Mapping[str, Sequence[Predictions]],
    protocol: Protocol,
) -> Looks:
    """Add a look to the record of a split.

    Args:
        dataset: Its folder gets the line.
        split: Name of the split.
        target: What is judged.
        systems: What is looked at, each system's training seeds.
        protocol: The question asked.

    Returns:
        All looks, this one included; with a note where the data set cannot be written.

    Raises:
        InputError: The record is damaged: a look that cannot be counted is not forgotten.
    """
    path = looks_file(dataset, split)
    split_id = dataset.ids["split_ids"].get(split)
    entry = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "split_id": split_id,
        "target": target,
        "systems": {
            name: [str(each.info.get("inference_id")) for each in members]
            for name, members in systems.items()
        },
        "protocol": protocol.file_sha256,
    }
    try:
        with path.open("a+", encoding="utf-8") as record:
            fcntl.flock(record, fcntl.LOCK_EX)
            record.write(json.dumps(entry) + "\n")
            record.flush()
            record.seek(0)
            lines = record.read().splitlines()
    except OSError as error:
        note = (
            f"How often this test split was looked at is unknown: {path} cannot be written "
            f"({error.strerror})."
        )
        return Looks((), note, protocol.file_sha256)
    # A split drawn anew under the same name has other test images: looks at the old do not count.
    entries = [each for each in _parse(lines, path) if each.get("split_id") == split_id]
    return Looks(entries, "", protocol.file_sha256)


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
