"""Rows of the benchmark: figures side by side, their ratio, and how far they spread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks.bench_measure import Sample, Timings

_HEADER = ("what", "ours", "peer", "unit", "ratio", "min-max", "n", "rejected")


@dataclass(frozen=True)
class Row:
    """One line of the benchmark: ours, a peer's where there is one, and the ratio.

    Attributes:
        name: What was measured.
        unit: Of ``ours``, ``peer`` and ``limit``.
        ours: Median; None where no sample was quiet.
        ours_range: Least and greatest.
        peer: Median of what ours is held against.
        peer_range: Likewise.
        ratio: Median over the rounds of how many times better ours is (faster, smaller).
        ratio_range: Likewise.
        n: Rounds that count.
        rejected: Samples that did not, because others used the machine.
        limit: What ours must stay below, where that is said.
        note: What the figures do not tell.
    """

    name: str
    unit: str
    ours: float | None
    ours_range: tuple[float, float] | None
    peer: float | None = None
    peer_range: tuple[float, float] | None = None
    ratio: float | None = None
    ratio_range: tuple[float, float] | None = None
    n: int = 0
    rejected: int = 0
    limit: float | None = None
    note: str = ""


def rate(sample: Sample) -> float:
    """Amount a second: more is better."""
    return sample.amount / sample.seconds


def duration(sample: Sample) -> float:
    """Seconds a run: less is better."""
    return sample.seconds / sample.amount


def milliseconds(sample: Sample) -> float:
    """Milliseconds a run: less is better."""
    return 1000 * duration(sample)


def paired_row(
    name: str,
    timings: Timings,
    ours: str,
    peer: str,
    unit: str,
    figure: Callable[[Sample], float],
    note: str = "",
) -> Row:
    """A row from two candidates; a round counts in which both were quiet.

    Args:
        name: What was measured.
        timings: Of all candidates.
        ours: Our candidate.
        peer: The candidate that it is held against.
        unit: Unit of the figure.
        figure: `rate`, `duration` or `milliseconds`.
        note: What the figures do not tell.
    """
    pairs = [
        (figure(mine), figure(other))
        for mine, other in ((taken[ours], taken[peer]) for taken in timings.rounds)
        if mine is not None and other is not None
    ]
    rejected = timings.rejected[ours] + timings.rejected[peer]
    ratios = [a / b if figure is rate else b / a for a, b in pairs]
    return Row(
        name,
        unit,
        *_middle([a for a, _ in pairs]),
        *_middle([b for _, b in pairs]),
        *_middle(ratios),
        n=len(pairs),
        rejected=rejected,
        note=note,
    )


def single_row(
    name: str,
    unit: str,
    values: list[float],
    *,
    rejected: int = 0,
    limit: float | None = None,
    note: str = "",
) -> Row:
    """A row that has no peer, but may have a limit."""
    figures = _middle(values)
    return Row(name, unit, *figures, n=len(values), rejected=rejected, limit=limit, note=note)


def _middle(values: list[float]) -> tuple[float | None, tuple[float, float] | None]:
    return (median(values), (min(values), max(values))) if values else (None, None)


def as_payload(row: Row) -> dict[str, Any]:
    """A row as JSON; ``within_limit`` is None where there is no limit or no figure."""
    known = row.limit is not None and row.ours is not None
    within = row.ours <= row.limit if known else None  # type: ignore[operator]
    return {**asdict(row), "within_limit": within}


def as_sentence(row: Row) -> str:
    """A row in words.

    Example:
        >>> as_sentence(Row("open", "s", 0.5, (0.4, 0.6), peer=1.0, ratio=2.0, n=3))
        'open: 0.5 to 1 s, 2x'
        >>> as_sentence(Row("open", "s", None, None, rejected=4))
        'open: not measured, others use the machine'
    """
    if row.ours is None:
        return f"{row.name}: not measured, others use the machine"
    against = "" if row.peer is None else f" to {_figure(row.peer)}"
    ratio = "" if row.ratio is None else f", {_figure(row.ratio)}x"
    return f"{row.name}: {_figure(row.ours)}{against} {row.unit}{ratio}"


def as_lines(rows: Iterable[Row]) -> list[str]:
    r"""Rows as a plain table; what was not measured stays empty.

    Example:
        >>> print("\n".join(as_lines([Row("open", "s", 0.5, (0.4, 0.6), limit=2.0, n=3)])))
        what  ours        peer  unit  ratio  min-max  n  rejected
        open   0.5  limit    2  s                     3         0
    """
    cells = [_HEADER, *(_cells(row) for row in rows)]
    widths = [max(len(cell[column]) for cell in cells) for column in range(len(_HEADER))]
    right = (1, 2, 4, 6, 7)
    return [
        "  ".join(
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(cell, widths, strict=True))
        ).rstrip()
        for cell in cells
    ]


def _cells(row: Row) -> tuple[str, ...]:
    peer = f"limit {_figure(row.limit)}" if row.limit is not None else _figure(row.peer)
    ratio = "" if row.ratio is None else f"{_figure(row.ratio)}x"
    spread = "" if row.ratio_range is None else "-".join(map(_figure, row.ratio_range))
    counts = str(row.n), str(row.rejected)
    return (row.name, _figure(row.ours), peer, row.unit, ratio, spread, *counts)


def _figure(value: float | None) -> str:
    """Three digits that count.

    Example:
        >>> [_figure(value) for value in (31245.6, 12.34, 0.01234, None)]
        ['31,200', '12.3', '0.0123', '']
    """
    if value is None:
        return ""
    if abs(value) >= 1000:
        digits = len(str(int(abs(value)))) - 3
        return f"{round(value, -digits):,.0f}"
    return f"{value:.3g}"
