"""The table model of all pages: rows of texts and figures, laid out as HTML, Markdown or LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cxr_compare.evaluation.statistics.figure_text import interval_text, number
from cxr_compare.evaluation.statistics.intervals import Interval

Ticks = tuple[tuple[float, str], ...]  # of an axis: places in percent of it, and their words


@dataclass(frozen=True)
class Whisker:
    """A dot with its interval on a shared axis, all in percent of the axis."""

    low: float
    dot: float
    high: float
    decided: bool = False


@dataclass(frozen=True)
class Cell:
    """One figure: its text, its interval below, and a whisker where it is a difference."""

    text: str
    ends: str = ""
    note: str = ""
    whisker: Whisker | None = None
    known: bool = True
    held: str = ""  # the interval with thresholds held

    def __str__(self) -> str:
        return f"{self.text} ({self.ends})" if self.ends else self.text


ForestRow = tuple[str, int | None, Cell, Whisker]  # name, place of the system or a difference


ForestPart = tuple[str, list[ForestRow], Ticks]  # rows on one axis, with their title


Row = tuple[str | Cell, ...]
"""The first is the heading of the row."""


@dataclass(frozen=True)
class RowGroup:
    """Rows that share a heading, as those at one threshold."""

    rows: tuple[Row, ...]
    title: str = ""
    count: str = ""
    thresholds: tuple[str, ...] = ()  # of each system
    chosen_on: tuple[str, ...] = ()  # how many validation positives each threshold
    ticks: Ticks = ()  # of the whiskers' axis

    @property
    def heading(self) -> str:
        """Title and count in one line."""
        return ", ".join(filter(None, (self.title, self.count)))


@dataclass(frozen=True)
class Table:
    """A table; after the first column stand `n_systems` systems where it compares them."""

    title: str
    columns: tuple[str, ...]
    groups: tuple[RowGroup, ...]
    lead: str = ""
    n_systems: int = 0

    @classmethod
    def of(
        cls, title: str, lead: str, columns: Iterable[str], rows: Iterable[Row], n_systems: int = 0
    ) -> Table:
        """A table of one group without a heading."""
        return cls(title, tuple(columns), (RowGroup(tuple(rows)),), lead, n_systems)

    @property
    def rows(self) -> tuple[Row, ...]:
        """Those of all groups."""
        return tuple(row for group in self.groups for row in group.rows)

    @property
    def systems(self) -> tuple[str, ...]:
        """Columns of systems."""
        return self.columns[1 : 1 + self.n_systems]

    @property
    def contrasts(self) -> tuple[str, ...]:
        """Columns of differences between systems."""
        return self.columns[1 + self.n_systems :]

    @property
    def has_whiskers(self) -> bool:
        """Whether any difference has an interval to draw."""
        return any(group.ticks for group in self.groups)

    @property
    def known(self) -> bool:
        """Whether any figure is defined."""
        return any(cell.known for cell in self._cells())

    @property
    def reasons(self) -> str:
        """Why figures are undefined, each reason once."""
        return "; ".join(dict.fromkeys(cell.note for cell in self._cells() if cell.note))

    def _cells(self) -> Iterator[Cell]:
        return (cell for row in self.rows for cell in row if isinstance(cell, Cell))


def figure_words(figure: Interval) -> str:
    """Return a figure with its interval, or why there is none.

    Example:
        >>> figure_words(Interval(0.5, 0.4, 0.6))
        '0.500 (0.400 to 0.600)'
    """
    note = f" ({figure.note})" if not figure.known and figure.note else ""
    return str(Cell(number(figure.estimate) + note, interval_text(figure)))


def text_sections(table: Table) -> list[tuple[str, list[list[str]]]]:
    """Title and rows of every section."""
    groups = []
    for group in table.groups:
        limits = [
            f"{name} {limit}" for name, limit in zip(table.systems, group.thresholds, strict=False)
        ]
        title = group.heading + (f" ({'; '.join(limits)})" if limits else "")
        groups.append((title, [list(map(str, row)) for row in group.rows]))
    return groups
