"""What a report folder is made of: each name once, for those who write, read and refuse."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from data_prep.errors import InputError
from data_prep.folders import LOCK

PAGE = "report.html"
METRICS = "metrics.json"  # written last: marks the folder complete
METRICS_TABLE, TESTS_TABLE = "metrics.csv", "tests.csv"
WHERE_TABLE, COSTS_TABLE = "where.csv", "costs.csv"
DECISIONS = "decisions.parquet"
LATEX_TABLE, MARKDOWN_TABLE = "table.tex", "table.md"
FIGURES, OVERLAYS = "figures", "overlays"
SYSTEMS = "systems"  # what runs predicted for this report
MORE_CASES = "cases-*.html"

OF_ONE_TARGET = frozenset({
    PAGE, METRICS, METRICS_TABLE, TESTS_TABLE, WHERE_TABLE, COSTS_TABLE, DECISIONS,
    LATEX_TABLE, MARKDOWN_TABLE, FIGURES, OVERLAYS, SYSTEMS,
})  # fmt: skip
OF_ALL_TARGETS = frozenset({PAGE, METRICS_TABLE, SYSTEMS})  # beside a folder a target


def require_only(out: Path, names: Collection[str], what: str) -> None:
    """Refuse a folder that holds anything else, so that no report is mixed with other work.

    Args:
        out: Report folder; it need not exist.
        names: What it may hold, beside further pages of cases.
        what: What it is, for the message.

    Raises:
        InputError: It holds something else.

    Example:
        >>> require_only(Path("nowhere"), OF_ONE_TARGET, "report")
    """
    held = sorted(out.iterdir()) if out.is_dir() else []
    for path in held:
        if path.name not in {*names, LOCK} and not path.match(MORE_CASES):
            raise InputError(
                f"{out}: holds '{path.name}', which no {what} has; choose another --out"
            )
