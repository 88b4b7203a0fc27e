"""Log of test-set uses: each comparison on the test images of a split adds a line."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError, first_line
from cxr_compare.data_prep.contracts.locks import folder_lock
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.compare.uses import TestSetUses
from cxr_compare.evaluation.systems.labelled_split import LabelledSplit


def log_use(
    test_set: LabelledSplit,
    systems: Mapping[str, Sequence[Predictions]],
    protocol: str | None = None,
) -> TestSetUses:
    """Record in a data set's log that its test images are used for a comparison.

    All uses until now are returned.

    Many uses of the same test images make a good result by chance more likely. The log is a file in
    the data set's folder with one JSON object per line.

    Args:
        test_set: The data set, with the finding to evaluate and the division whose test images are
            used.
        systems: Stored predictions of the compared models, one for each training seed, by display
            name.
        protocol: SHA-256 digest of the analysis plan that was fixed before the comparison; None
            without such a plan.

    Returns:
        All uses of these test images, including the new one. If the log cannot be written, or the
        data set is in memory, there are no uses but a sentence with the reason.

    Raises:
        InputError: A line of the log is damaged.
    """
    if test_set.dataset.is_in_memory:
        problem = "How often these test images were used is unknown: labels alone keep no log."
        return TestSetUses((), problem, protocol)
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
        with (
            folder_lock(path.parent, before_wait=lambda: None),
            path.open("a+", encoding="utf-8", errors="replace") as log,
        ):
            log.write(json.dumps({**entry, "crc32": _crc32(entry)}) + "\n")
            log.flush()
            log.seek(0)
            lines = log.read().splitlines()
    except (InputError, OSError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        reason = getattr(cause, "strerror", None) or first_line(error)
        problem = (
            f"How often this test split was looked at is unknown: {path.name} cannot be written "
            f"({reason})."
        )
        return TestSetUses((), problem, protocol)
    # A split that was drawn again under the same name has other test images, so its old uses do not
    # count.
    entries = [entry for entry in read_uses(lines, path) if entry.get("split_id") == split_id]
    return TestSetUses(entries, "", protocol)


def _crc32(entry: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(entry).encode())


def read_uses(lines: Sequence[str], path: Path) -> list[dict[str, Any]]:
    """Read the lines of a log of the uses of test images.

    Args:
        lines: Lines of the log, one JSON object each, perhaps with a checksum under ``crc32``.
        path: Path of the log, for error messages.

    Returns:
        One dictionary for each use, without its checksum.

    Raises:
        InputError: A line is not a JSON object, or its checksum is wrong. The message names the
            line's number.

    Example:
        >>> read_uses(['{"target": "mass"}'], Path("log"))
        [{'target': 'mass'}]
    """
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = dict(json.loads(line))
            # Lines of older versions have no checksum. A damaged name still begins or ends like
            # ``crc32``.
            half_named = [key for key in entry if key.startswith("crc") or key.endswith("32")]
            if half_named and entry.pop("crc32", None) != _crc32(entry):
                raise ValueError(line)
            entries.append(entry)
        except (ValueError, TypeError, RecursionError):
            raise InputError(
                f"{path}: line {number} is not a record of a use; repair it, the count must not "
                "get lost"
            ) from None
    return entries
