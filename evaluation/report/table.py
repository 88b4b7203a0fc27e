"""Model of the tables on all pages: rows of texts and figures, for HTML, Markdown or LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cxr_compare.evaluation.statistics.figure_text import interval_text, number
from cxr_compare.evaluation.statistics.intervals import Interval

Ticks = tuple[tuple[float, str], ...]
"""Ticks of an axis: positions in percent of the axis, with their texts."""


@dataclass(frozen=True)
class Whisker:
    """Dot with its interval on a shared axis, in percent of the axis."""

    low: float
    dot: float
    high: float
    decided: bool = False
    """True if the interval excludes 0, so that the dot is filled."""


@dataclass(frozen=True)
class Cell:
    """Figure in a table, with text, interval and, for a difference, a whisker."""

    text: str
    ends: str = ""
    note: str = ""
    whisker: Whisker | None = None
    known: bool = True
    fixed: str = ""
    """Interval in which the choices on validation images are kept fixed."""
    corrected: bool = False
    """True for a difference whose interval excludes 0 but which Holm's correction does not show."""
    p_value: str = ""
    """Text of the p-value of a difference, for this difference alone; empty where unknown."""

    def __str__(self) -> str:
        return f"{self.text} ({self.ends})" if self.ends else self.text


P_VALUE = "p"
"""Heading of a column of p-values."""

Row = tuple[str | Cell, ...]
"""Row of a table; its first item is the heading of the row."""


@dataclass(frozen=True)
class RowGroup:
    """Rows that share a heading, such as those at one threshold."""

    rows: tuple[Row, ...]
    title: str = ""
    count: str = ""
    thresholds: tuple[str, ...] = ()
    """Threshold of each system."""
    chosen_on: tuple[str, ...] = ()
    """Number of validation positives behind each system's threshold."""
    ticks: Ticks = ()
    """Ticks of the axis of the whiskers."""

    @property
    def heading(self) -> str:
        """Title and count in one line."""
        return ", ".join(filter(None, (self.title, self.count)))


@dataclass(frozen=True)
class Table:
    """Table of a page. In a table that compares systems, their columns follow the first column."""

    title: str
    columns: tuple[str, ...]
    groups: tuple[RowGroup, ...]
    lead: str = ""
    n_systems: int = 0

    @classmethod
    def from_rows(
        cls, title: str, lead: str, columns: Iterable[str], rows: Iterable[Row], n_systems: int = 0
    ) -> Table:
        """Make a table of one group of rows without a heading.

        Args:
            title: Title of the table.
            lead: Text above the table.
            columns: Headings of the columns.
            rows: Rows of the table.
            n_systems: Number of columns of systems, which follow the first column.

        Returns:
            Table with these rows in one group.

        Example:
            >>> Table.from_rows("Ages", "", ("Patient", "Age"), [("p1", "40")]).rows
            (('p1', '40'),)
        """
        return cls(title, tuple(columns), (RowGroup(tuple(rows)),), lead, n_systems)

    @property
    def rows(self) -> tuple[Row, ...]:
        """Rows of all groups."""
        return tuple(row for group in self.groups for row in group.rows)

    @property
    def systems(self) -> tuple[str, ...]:
        """Names of the systems, which are headings of columns."""
        return self.columns[1 : 1 + self.n_systems]

    @property
    def contrasts(self) -> tuple[str, ...]:
        """Names of the differences between systems, which are headings of columns."""
        return self.columns[1 + self.n_systems :]

    @property
    def has_p_values(self) -> bool:
        """True if a p-value of any difference is known, so that a column of p-values is shown."""
        return any(cell.p_value for cell in self._cells())

    @property
    def text_heads(self) -> tuple[str, ...]:
        """Headings of the columns in texts, with a column of p-values after each difference."""
        heads = list(self.columns[: 1 + self.n_systems])
        for contrast in self.contrasts:
            heads += [contrast, P_VALUE] if self.has_p_values else [contrast]
        return tuple(heads)

    @property
    def has_whiskers(self) -> bool:
        """True if any difference has an interval to draw."""
        return any(group.ticks for group in self.groups)

    @property
    def has_corrected(self) -> bool:
        """True if any difference is marked as not shown after Holm's correction."""
        return any(cell.corrected for cell in self._cells())

    @property
    def known(self) -> bool:
        """True if any figure is defined."""
        return any(cell.known for cell in self._cells())

    @property
    def reasons(self) -> str:
        """Reasons why figures are undefined, each reason once."""
        return "; ".join(dict.fromkeys(cell.note for cell in self._cells() if cell.note))

    def _cells(self) -> Iterator[Cell]:
        return (cell for row in self.rows for cell in row if isinstance(cell, Cell))


@dataclass(frozen=True)
class TextSection:
    """Texts of a part of a table: title and rows."""

    title: str
    rows: list[list[str]]


def figure_text(figure: Interval) -> str:
    """Return a figure with its interval, or the reason why it is undefined.

    Args:
        figure: The figure with its interval.

    Returns:
        The text for a cell.

    Example:
        >>> figure_text(Interval(0.5, 0.4, 0.6))
        '0.500 (0.400 to 0.600)'
    """
    note = f" ({figure.note})" if not figure.known and figure.note else ""
    return str(Cell(number(figure.estimate) + note, interval_text(figure)))


def text_sections(table: Table) -> list[TextSection]:
    """Return the texts of title and rows of every group, for LaTeX and Markdown.

    Args:
        table: The table to convert.

    Returns:
        One section for each group of rows.
    """
    sections = []
    for group in table.groups:
        thresholds = [
            f"{name} {threshold}"
            for name, threshold in zip(table.systems, group.thresholds, strict=False)
        ]
        title = group.heading
        if thresholds:
            title += f" ({'; '.join(thresholds)})"
        sections.append(TextSection(title, [_row_texts(table, row) for row in group.rows]))
    return sections


def _row_texts(table: Table, row: Row) -> list[str]:
    """Return the texts of a row, in the order of `Table.text_heads`."""
    texts = list(map(str, row[: 1 + table.n_systems]))
    for cell in row[1 + table.n_systems :]:
        texts.append(str(cell))
        if table.has_p_values:
            texts.append(cell.p_value or "–" if isinstance(cell, Cell) else "–")
    return texts
