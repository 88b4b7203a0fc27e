"""The result of a monitor: its figures, their changes, and notes on the log."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd

from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.betting import mean_interval
from cxr_compare.evaluation.statistics.figure_text import number, range_text

ERROR = 0.05
"""Largest probability that any figure ever raises an alarm if nothing changes."""


FEWEST = 50
"""Smallest number of patients in the reference of a figure that is monitored."""


class FigureKind(NamedTuple):
    """A kind of monitored figure, with its share of the probability of a false alarm.

    Attributes:
        share: Share of `ERROR`. The shares of all kinds add up to 1, whether or not a log has the
            columns that a kind needs.
        title: Title of the kind.

    Example:
        >>> KINDS["call_rate"].title
        'Call rate'
    """

    share: float
    title: str


KINDS = {
    "score_mean": FigureKind(0.42, "Mean score"),
    "call_rate": FigureKind(0.10, "Call rate"),
    "sensitivity": FigureKind(0.10, "Sensitivity on audited images"),
    "specificity": FigureKind(0.06, "Specificity on audited images"),
    "ppv": FigureKind(0.04, "PPV on audited images"),
    "score": FigureKind(0.06, "Share of scores"),
    "guard": FigureKind(0.06, "Share of out-of-distribution distances"),
    "view": FigureKind(0.02, "Share of view"),
    "sex": FigureKind(0.01, "Share of sex"),
    "age_band": FigureKind(0.02, "Share of age"),
    "maker": FigureKind(0.03, "Share of maker"),
    "disagreement": FigureKind(0.03, "Disagreement of systems"),
    "failed": FigureKind(0.03, "Share of images without an answer"),
    "slow": FigureKind(0.02, "Share of answer times (s)"),
}
"""Kinds of monitored figures.

The mean score has the largest share, because it is the first to move if the prevalence, the
sensitivity or the images change.
"""


LABELLED = ("sensitivity", "specificity", "ppv")
"""Kinds that need labels of audited images."""


_LEVEL = 0.95
"""Level of the interval of a mean."""


@dataclass(frozen=True)
class GroupChange:
    """Change of a figure in one group of patients, as a description and not a test.

    Attributes:
        column: Column of the log that defines the group: ``view``, ``sex``, ``age_band`` or
            ``maker``.
        group: Value of this column.
        before: Mean per patient of the reference, in [0, 1].
        since: Mean per patient since the likely start of the change, in [0, 1].
        n_patients: Number of patients since the likely start.

    Example:
        >>> GroupChange("view", "AP", 0.2, 0.35, 120).n_patients
        120
    """

    column: str
    group: str
    before: float
    since: float
    n_patients: int


@dataclass(frozen=True)
class Change:
    """Alarm of a figure: its day, its likely start, its evidence, and the groups that changed most.

    Attributes:
        on: Day on which the evidence reached the bound, such as ``2026-01-31``.
        since: Most likely first day of the change.
        since_low: Lower end of the likely first days. Between this day and `since_high` lies 80 %
            of the evidence.
        since_high: Upper end of the likely first days.
        one_in: Evidence as a number of monitors: if nothing changes, at most one in so many ever
            shows as much evidence for this figure.
        groups: At most two groups of patients, with the largest differences.
        mix: Column of the log whose changed mix of values explains at least half of the change;
            empty if none does.
        mix_share: Share of the change that the mix explains; 0 if `mix` is empty.

    Example:
        >>> days = ("2026-03-10", "2026-03-02", "2026-02-27", "2026-03-04")
        >>> Change(*days, one_in=2000.0, groups=(), mix="", mix_share=0.0).on
        '2026-03-10'
    """

    on: str
    since: str
    since_low: str
    since_high: str
    one_in: float
    groups: tuple[GroupChange, ...]
    mix: str
    mix_share: float


@dataclass(frozen=True)
class MeanInterval:
    """Mean over patients with its 95 % interval, in [0, 1]; None if there is no patient.

    Attributes:
        mean: The mean.
        low: Lower end of the interval.
        high: Upper end of the interval.

    Example:
        >>> str(MeanInterval(0.2, 0.15, 0.26))
        '0.200 (0.150 to 0.260)'
    """

    mean: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def from_values(cls, values: Floats) -> MeanInterval:
        """Compute the mean and its 95 % interval from one value for each patient.

        Args:
            values: Values in [0, 1], shape ``(patients,)``.

        Returns:
            Mean and interval; None in all fields if there is no value.

        Source:
            Waudby-Smith and Ramdas 2024, see `evaluation.statistics.betting.mean_interval`.

        Example:
            >>> import numpy as np
            >>> MeanInterval.from_values(np.array([0.0, 1.0])).mean
            0.5
        """
        if not values.size:
            return cls()
        return cls(float(values.mean()), *mean_interval(values, _LEVEL)[0].tolist())

    def __str__(self) -> str:
        return f"{number(self.mean)} ({range_text(self.low, self.high)})"


@dataclass(frozen=True)
class CoursePart:
    """One of the successive periods into which the days of a log are divided.

    Attributes:
        end: Last day of the part, such as ``2026-01-31``.
        mean: Mean per patient of this part, in [0, 1]; None without a patient.
        evidence: Highest e-value in this part; 0 in the reference.

    Example:
        >>> CoursePart("2026-01-31", 0.2, 1.5).evidence
        1.5
    """

    end: str
    mean: float | None
    evidence: float


@dataclass(frozen=True)
class MonitoredFigure:
    """Monitored figure with its reference, recent mean and evidence of a change.

    Attributes:
        key: Key such as ``call_rate@CheXNet`` or ``view=AP``.
        kind: Kind of the figure, a key of `KINDS`.
        title: Title of the figure.
        share: Largest probability that this figure ever raises a false alarm; 0 if the figure is
            not monitored because the reference is too small.
        source: Source of the reference: ``first weeks`` or ``validation``.
        n_reference: Number of patients of the reference.
        was: Mean of the reference.
        n_stream: Number of tested patients.
        now: Mean of the most recent tested patients, at most 5,000. After an alarm it is the mean
            of those since the likely start, and its interval treats this start as known.
        evidence: Highest e-value so far.
        change: Change that raised the alarm; None without an alarm.
        course: Successive parts of the course of the figure.
        values: Values of the patients of the reference, shape ``(n_reference,)``.

    Example:
        >>> import numpy as np
        >>> figure = MonitoredFigure(
        ...     key="call_rate",
        ...     kind="call_rate",
        ...     title="Call rate",
        ...     share=0.005,
        ...     source="first weeks",
        ...     n_reference=2,
        ...     was=MeanInterval(0.5),
        ...     n_stream=0,
        ...     now=MeanInterval(),
        ...     evidence=1.0,
        ...     change=None,
        ...     course=(),
        ...     values=np.array([0.0, 1.0]),
        ... )
        >>> figure.bound
        200.0
    """

    key: str
    kind: str
    title: str
    share: float
    source: str
    n_reference: int
    was: MeanInterval
    n_stream: int
    now: MeanInterval
    evidence: float
    change: Change | None
    course: tuple[CoursePart, ...]
    values: Floats = field(repr=False)

    @property
    def bound(self) -> float | None:
        """E-value that raises an alarm, 1 divided by `share`; None if `share` is 0."""
        return 1 / self.share if self.share else None


@dataclass(frozen=True)
class Monitoring:
    """Result of a monitor on a log.

    Attributes:
        rows: Figures. Those with an alarm come first, by the start of their change; those that are
            not monitored come last.
        first_day: First day of the log, such as ``2026-01-31``.
        last_day: Last day of the log.
        reference_days: Number of first days that are the reference.
        window_days: Number of days in which a patient counts once.
        n_images: Number of images in the log.
        n_patients: Number of patients in the log.
        notes: Sentences on the log.

    Example:
        >>> Monitoring((), "2026-01-01", "2026-01-31", 28, 28, 0, 0).is_blind
        True
    """

    rows: tuple[MonitoredFigure, ...]
    first_day: str
    last_day: str
    reference_days: int
    window_days: int
    n_images: int
    n_patients: int
    notes: tuple[str, ...] = ()

    @property
    def alarms(self) -> list[MonitoredFigure]:
        """Figures that have changed."""
        return [row for row in self.rows if row.change is not None]

    @property
    def n_tested(self) -> int:
        """Number of figures that are tested: they have a reference, and patients after it."""
        return sum(row.share > 0 and row.n_stream > 0 for row in self.rows)

    @property
    def is_blind(self) -> bool:
        """True if no figure is tested although the days of the reference are over."""
        days = (pd.Timestamp(self.last_day) - pd.Timestamp(self.first_day)).days + 1
        return not self.n_tested and days > self.reference_days
