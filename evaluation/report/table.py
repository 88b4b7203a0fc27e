"""Model of the tables on all pages: rows of texts and figures, for HTML, Markdown or LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from string import ascii_lowercase

from cxr_compare.evaluation.statistics.figure_text import interval_text, number
from cxr_compare.evaluation.statistics.intervals import Interval

Ticks = tuple[tuple[float, str], ...]
"""Ticks of an axis: positions in percent of the axis, with their texts."""


@dataclass(frozen=True)
class Whisker:
    """Positions of a value and of its interval on an axis that several table rows share.

    Positions are in percent of the axis, from 0 at the left to 100 at the right.

    Attributes:
        low: Position of the lower end of the interval.
        dot: Position of the value.
        high: Position of the upper end of the interval.
        decided: True if the verdict shows this difference; the dot is then filled.
    """

    low: float
    dot: float
    high: float
    decided: bool = False


@dataclass(frozen=True)
class Cell:
    """Table cell with one value: texts of value and interval, and what is drawn beside them.

    Attributes:
        text: The value as text, such as ``0.912``.
        ends: The interval as text, such as ``0.880 to 0.940``; empty without an interval.
        note: Reason why the value is undefined or has no interval, or a remark on the value; may be
            empty.
        whisker: Positions at which value and interval are drawn; None if they are not drawn.
        known: True if the value is defined.
        corrected: True for a difference whose own interval excludes 0, but which Holm's correction
            for several comparisons withdraws.
        p_value: p-value of a difference as text, not corrected for other comparisons; empty if
            unknown.
        below: Further text below the interval, such as that of the image-blind baseline.
    """

    text: str
    ends: str = ""
    note: str = ""
    whisker: Whisker | None = None
    known: bool = True
    corrected: bool = False
    p_value: str = ""
    below: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.ends})" if self.ends else self.text


P_VALUE = "p"
"""Heading of a column of p-values."""

Row = tuple[str | Cell, ...]
"""Row of a table; its first item is the heading of the row."""


@dataclass(frozen=True)
class RowGroup:
    """Rows of a table below one heading, such as all metrics at one threshold.

    Attributes:
        rows: The rows; the first item of each is the row's title.
        title: The heading; empty without a heading.
        count: Text after the heading, such as the number of images; may be empty.
        thresholds: Threshold of each system (detector or classifier) as text; empty if no threshold
            is used.
        chosen_on: For each system a text that gives the number of positive validation images on
            which its threshold was chosen.
        ticks: Ticks of the axis on which differences are drawn: position in percent of the axis,
            and text.
    """

    rows: tuple[Row, ...]
    title: str = ""
    count: str = ""
    thresholds: tuple[str, ...] = ()
    chosen_on: tuple[str, ...] = ()
    ticks: Ticks = ()

    @property
    def heading(self) -> str:
        """Heading of the rows with the number of images, in one line."""
        return ", ".join(filter(None, (self.title, self.count)))


@dataclass(frozen=True)
class Table:
    """Table of a web page, as texts; its columns may be systems and differences of systems.

    Attributes:
        title: Title of the table.
        columns: Headings of the columns; the first column holds the titles of the rows.
        groups: Rows, divided by headings.
        lead: Text above the table; may be empty.
        n_systems: Number of columns that each belong to one system (detector or classifier). They
            follow the first column; all further columns are differences. 0 for a table of another
            kind.
        systems_in_rows: True if each row belongs to one system, in the order of the comparison.
    """

    title: str
    columns: tuple[str, ...]
    groups: tuple[RowGroup, ...]
    lead: str = ""
    n_systems: int = 0
    systems_in_rows: bool = False

    @classmethod
    def from_rows(
        cls, title: str, lead: str, columns: Iterable[str], rows: Iterable[Row], n_systems: int = 0
    ) -> Table:
        """Make a table whose rows have no heading above them.

        Args:
            title: Title of the table.
            lead: Text above the table; may be empty.
            columns: Headings of the columns.
            rows: Texts or cells of each row, one for each column.
            n_systems: Number of columns after the first that each belong to one system; 0 for none.

        Returns:
            Table with these rows in one group.

        Example:
            >>> Table.from_rows("Ages", "", ("Patient", "Age"), [("p1", "40")]).rows
            (('p1', '40'),)
        """
        return cls(title, tuple(columns), (RowGroup(tuple(rows)),), lead, n_systems)

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows of the table, without the headings between them."""
        return tuple(row for group in self.groups for row in group.rows)

    @property
    def systems(self) -> tuple[str, ...]:
        """Headings of the columns that each belong to one system (detector or classifier)."""
        return self.columns[1 : 1 + self.n_systems]

    @property
    def contrasts(self) -> tuple[str, ...]:
        """Headings of the columns that hold differences between systems, such as ``A − B``."""
        return self.columns[1 + self.n_systems :]

    @property
    def has_p_values(self) -> bool:
        """True if at least one difference has a p-value."""
        return any(cell.p_value for cell in self._cells())

    @property
    def p_value_note(self) -> str:
        """Meaning of the p-values; empty if there is none."""
        if not self.has_p_values:
            return ""
        return (
            "p is the two-sided p-value of the difference, not adjusted for the other comparisons."
        )

    @property
    def text_heads(self) -> tuple[str, ...]:
        """Headings of the columns in LaTeX and Markdown.

        There, if a p-value is known, each difference is followed by a column of p-values.
        """
        heads = list(self.columns[: 1 + self.n_systems])
        for contrast in self.contrasts:
            heads += [contrast, P_VALUE] if self.has_p_values else [contrast]
        return tuple(heads)

    @property
    def has_whiskers(self) -> bool:
        """True if at least one difference is drawn as a dot with its interval."""
        return any(group.ticks for group in self.groups)

    @property
    def has_corrected(self) -> bool:
        """True if Holm's correction withdraws a difference whose own interval excludes 0."""
        return any(cell.corrected for cell in self._cells())

    @property
    def known(self) -> bool:
        """True if at least one value of the table is defined."""
        return any(cell.known for cell in self._cells())

    @property
    def footnotes(self) -> dict[str, str]:
        """Letters of the footnotes, by note on values of the table.

        A note is the reason why a value is undefined or has no interval, or another remark. Many
        values may have the same note, which is written once below the table.
        """
        notes = dict.fromkeys(cell.note for cell in self._cells() if cell.note)
        return {note: _letters(number) for number, note in enumerate(notes)}

    @property
    def reasons(self) -> str:
        """Notes on values of the table, each once, separated by semicolons."""
        return "; ".join(self.footnotes)

    def _cells(self) -> Iterator[Cell]:
        return (cell for row in self.rows for cell in row if isinstance(cell, Cell))


def _letters(number: int) -> str:
    """Return the letters of a footnote: a to z, then aa to zz."""
    repeats, letter = divmod(number, len(ascii_lowercase))
    return ascii_lowercase[letter] * (repeats + 1)


@dataclass(frozen=True)
class TextSection:
    """Rows of a table below one heading as plain texts, for LaTeX and Markdown.

    Attributes:
        title: The heading.
        rows: Text of each cell, row by row.
    """

    title: str
    rows: list[list[str]]


def figure_text(figure: Interval) -> str:
    """Return a value with its interval as text, or the reason why the value is undefined.

    Args:
        figure: The value with its interval.

    Returns:
        The text for a table cell.

    Example:
        >>> figure_text(Interval(0.5, 0.4, 0.6))
        '0.500 (0.400 to 0.600)'
    """
    note = f" ({figure.note})" if not figure.known and figure.note else ""
    return str(Cell(number(figure.estimate) + note, interval_text(figure)))


def text_sections(table: Table) -> list[TextSection]:
    """Return the headings and rows of a table as plain texts, for LaTeX and Markdown.

    A value with a note ends with the letter of its footnote, such as ``[a]``; see
    `footnote_lines`.

    Args:
        table: The table to convert.

    Returns:
        One object for each heading of the table, which also names the systems' thresholds.
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
    texts = [_marked(table, cell) for cell in row[: 1 + table.n_systems]]
    for cell in row[1 + table.n_systems :]:
        texts.append(_marked(table, cell))
        if table.has_p_values:
            texts.append(cell.p_value or "–" if isinstance(cell, Cell) else "–")
    return texts


def _marked(table: Table, cell: str | Cell) -> str:
    """Return the text of a cell with the letter of its footnote."""
    if isinstance(cell, Cell) and cell.note:
        return f"{cell} [{table.footnotes[cell.note]}]"
    return str(cell)


def footnote_lines(table: Table) -> list[str]:
    """Return the footnotes of a table as plain texts, for LaTeX and Markdown.

    Args:
        table: The table.

    Returns:
        One line for each footnote, such as ``[a] no image is called positive``.
    """
    return [f"[{letters}] {note}" for note, letters in table.footnotes.items()]
