"""Summary of the answers for many images: one row for each system, and what limits its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from cxr_compare.serving.answer import Answer
from cxr_compare.serving.known_limits import seen_summary

SUMMARY_COLUMNS = (
    "system",
    "images",
    "positive",
    "negative",
    "no_answer",
    "warnings",
    "seconds",
)
"""Columns of the summary of predictions for many images, which has one row for each system."""
_HEADINGS = ("system", "images", "positive", "negative", "no answer", "warnings", "time")
_GAP = "  "


@dataclass
class SystemTally:
    """Counts of one system's predictions for a number of images.

    Attributes:
        images: Images that could be read and that the system was to predict.
        no_answer: Images without a decision: they have a warning, or the system has no threshold.
        seconds: Time that the system computed.
        trained_equal: Images from which the system learned (equal pixels).
        trained_near: Images of which the system learned from a near copy.
        selected: Images that served, themselves or as near copies, to select the system's weights
            and its threshold.
        run_cautions: Sentences on what limits all predictions of the system.
    """

    system: str
    images: int = 0
    positive: int = 0
    negative: int = 0
    no_answer: int = 0
    warnings: int = 0
    seconds: float = 0.0
    trained_equal: int = 0
    trained_near: int = 0
    selected: int = 0
    run_cautions: tuple[str, ...] = field(default=(), repr=False)

    def count(self, answer: Answer) -> None:
        """Add the system's prediction for one more image to the counts."""
        self.images += 1
        self.positive += answer.decision is True
        self.negative += answer.decision is False
        self.no_answer += answer.decision is None
        self.warnings += bool(answer.warnings)
        if answer.seen is not None and answer.seen.role == "train":
            self.trained_equal += not answer.seen.is_near
            self.trained_near += answer.seen.is_near
        self.selected += answer.seen is not None and answer.seen.role == "val"

    @property
    def row(self) -> tuple[str | float, ...]:
        """The counts in the order of the columns `SUMMARY_COLUMNS`, the system's name first."""
        values: tuple[str | float, ...] = tuple(getattr(self, name) for name in SUMMARY_COLUMNS)
        return values

    @property
    def cautions(self) -> tuple[str, ...]:
        """Sentences on what limits the predictions; empty if nothing is known to do so.

        They are `run_cautions`, and one on how many of the images the training used.
        """
        seen = seen_summary(
            self.system, self.images, self.trained_equal, self.trained_near, self.selected
        )
        return self.run_cautions if seen is None else (*self.run_cautions, seen)


def summary_frame(tallies: Sequence[SystemTally]) -> pd.DataFrame:
    """Return a row with the counts of each system, with the columns `SUMMARY_COLUMNS`."""
    return pd.DataFrame([tally.row for tally in tallies], columns=list(SUMMARY_COLUMNS))


def summary_lines(tallies: Sequence[SystemTally]) -> list[str]:
    """Return a heading, a line for the counts of each system, and a line for each caution.

    A caution is a sentence on what limits the predictions of a system.

    Example:
        >>> tally = SystemTally("CheXNet", images=3, positive=1, negative=2, seconds=0.51)
        >>> for line in summary_lines([tally]):
        ...     print(line)
        system   images  positive  negative  no answer  warnings   time
        CheXNet       3         1         2          0         0  0.5 s
    """
    rows: list[tuple[str, ...]] = [_HEADINGS]
    for tally in tallies:
        name, *counts, seconds = tally.row
        rows.append((str(name), *(f"{count:,}" for count in counts), f"{seconds:.1f} s"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append(_GAP.join([name.ljust(widths[0]), *padded]))
    cautions = dict.fromkeys(caution for tally in tallies for caution in tally.cautions)
    return [*lines, *(f"CAUTION: {caution}" for caution in cautions)]
