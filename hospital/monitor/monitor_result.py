"""The result of a monitor: its figures, their changes, and notes on the log."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd

from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.figure_text import number, range_text
from cxr_compare.hospital.betting import mean_interval

ERROR = 0.05
"""Largest probability that any figure ever raises an alarm if nothing changes."""


FEWEST = 50
"""Smallest number of patients in the reference of a figure that is monitored."""


class FigureKind(NamedTuple):
    """A kind of monitored figure, such as the call rate, with its printed title.

    Attributes:
        share: Part of the probability of a false alarm that is for figures of this kind, in (0, 1).
            The probability that any figure ever raises a false alarm is at most `ERROR`, 0.05; for
            this kind it is at most `share` x 0.05. The shares of all kinds add up to 1, whether or
            not a log has the columns that a kind needs.
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
    """A monitored figure, such as the call rate, in a group of patients before and after a change.

    It describes the change and is not a test.

    Attributes:
        column: Column of the log that defines the group: ``view``, ``sex``, ``age_band`` or
            ``maker``.
        group: Value of this column, such as ``AP``.
        before: Mean of the figure over the patients of the reference (the first weeks), in [0, 1].
        since: Mean of the figure over the patients since the likely start of the change, in [0, 1].
        n_patients: Number of patients of the group since the likely start.
    """

    column: str
    group: str
    before: float
    since: float
    n_patients: int


@dataclass(frozen=True)
class Change:
    """Alarm of a monitored figure: its day, the likely start of the change, and who is affected.

    Attributes:
        on: Day of the alarm, such as ``2026-01-31``: the evidence reached the limit of the figure.
        since: Most likely first day of the change.
        since_low: Lower end of the likely first days. The change began between this day and
            `since_high` with a share of 80 % of the evidence.
        since_high: Upper end of the likely first days.
        one_in: Evidence as a number N: if nothing changes, this figure ever shows so much evidence
            with a probability of at most 1 / N.
        groups: The groups of patients, at most two, in which the figure has changed most.
        mix: Column of the log, such as ``view``, whose values now occur with other frequencies, if
            this shift explains at least half of the change; empty if no column does.
        mix_share: Share of the change that this shift explains, in [0, 1]; 0 if `mix` is empty.
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
    """Mean in [0, 1] over patients of a monitored figure, with its 95 % interval.

    All fields are None if there is no patient.

    Example:
        >>> str(MeanInterval(0.2, 0.15, 0.26))
        '0.200 (0.150 to 0.260)'
    """

    mean: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def from_values(cls, values: Floats) -> MeanInterval:
        """Compute the mean and its 95 % interval from one value in [0, 1] for each patient.

        Source:
            Waudby-Smith and Ramdas 2024, see `hospital.betting.mean_interval`.
        """
        if not values.size:
            return cls()
        return cls(float(values.mean()), *mean_interval(values, _LEVEL)[0].tolist())

    def __str__(self) -> str:
        return f"{number(self.mean)} ({range_text(self.low, self.high)})"


@dataclass(frozen=True)
class CoursePart:
    """One period of a log, for the course of one monitored figure over time.

    The days of the log are divided into successive periods. An e-value is the evidence that the
    figure has changed since the reference, the first days of the log.

    Attributes:
        end: Last day of the period, such as ``2026-01-31``.
        mean: Mean of the monitored figure, such as the share of positive calls, over the patients
            of this period, in [0, 1]. None if the period has no patient.
        evidence: Highest e-value on any day of this period, at least 0. It is 0 in the reference. A
            value above 1 speaks for a change.
    """

    end: str
    mean: float | None
    evidence: float


@dataclass(frozen=True)
class MonitoredFigure:
    """One monitored figure of a log: its reference, its recent mean, and the evidence of a change.

    A figure is, for example, the share of positive calls (call rate) of a model in use; the log has
    the model's answers. The reference is the first weeks of the log, or validation images. An
    e-value is a number that measures the evidence: if nothing changes, it ever reaches N with a
    probability of at most 1 / N.

    Attributes:
        key: Key such as ``call_rate@CheXNet`` (call rate of the model CheXNet) or ``view=AP``
            (share of images with this view).
        kind: Kind of the figure, a key of `KINDS`.
        title: Title of the figure as it is printed, such as "Call rate".
        share: Largest probability that this figure ever raises a false alarm; 0 if the figure is
            not monitored because the reference is too small.
        source: Where the reference comes from: ``first weeks`` or ``validation``.
        n_reference: Number of patients of the reference.
        was: Mean over the patients of the reference, with its interval.
        n_stream: Number of patients after the reference, who are tested for a change.
        now: Mean of the most recent tested patients, at most 5,000. After an alarm it is the mean
            of those since the likely start, and its interval treats this start as known.
        evidence: Highest e-value on any day so far.
        change: Details of the change that raised the alarm; None without an alarm.
        course: Mean and evidence in successive periods of the log.
        values: One value in [0, 1] for each patient of the reference, shape ``(n_reference,)``.
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
        """Evidence (e-value) from which the figure raises an alarm: 1 divided by `share`.

        None if `share` is 0, so that the figure is not monitored.
        """
        return 1 / self.share if self.share else None


@dataclass(frozen=True)
class Monitoring:
    """Result of testing the figures in a log of a model's answers for changes.

    A figure is, for example, the share of positive calls of a model in use.

    Attributes:
        rows: Monitored figures. Those with an alarm come first, by the start of their change; those
            that are not monitored come last.
        first_day: First day of the log, such as ``2026-01-31``.
        reference_days: Number of days at the beginning of the log that serve as the reference.
        window_days: Number of days within which all images of a patient count as one value.
        notes: Sentences on the log, such as on missing days.
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
        """Figures whose change is statistically shown, which raise an alarm."""
        return [row for row in self.rows if row.change is not None]

    @property
    def n_tested(self) -> int:
        """Number of figures that are tested for a change.

        These figures have a reference (the first weeks or validation images), and patients after
        the days of the reference.
        """
        return sum(row.share > 0 and row.n_stream > 0 for row in self.rows)

    @property
    def is_blind(self) -> bool:
        """True if no figure is tested although the days of the reference are over.

        The reference is the first days of the log (`reference_days`).
        """
        days = (pd.Timestamp(self.last_day) - pd.Timestamp(self.first_day)).days + 1
        return not self.n_tested and days > self.reference_days
