"""The result of a monitor: its figures, their changes and what to know of the log."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd

from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.betting import mean_interval
from cxr_compare.evaluation.statistics.figure_text import number, range_text

ERROR = 0.05
"""Chance that any figure ever raises an alarm where nothing changes, at most."""


FEWEST = 50  # patients of a reference, below which it watches nothing


class FigureKind(NamedTuple):
    """A kind of monitored figure, with its part of the chance of a false alarm."""

    share: float  # of `ERROR`; 1 in all, whether or not a log has what a kind needs
    title: str


KINDS = {
    "call_rate": FigureKind(0.16, "Call rate"),
    "sensitivity": FigureKind(0.16, "Sensitivity on audited images"),
    "specificity": FigureKind(0.12, "Specificity on audited images"),
    "ppv": FigureKind(0.08, "PPV on audited images"),
    "score": FigureKind(0.16, "Share of scores"),
    "guard": FigureKind(0.08, "Share of guard distances"),
    "view": FigureKind(0.04, "Share of view"),
    "sex": FigureKind(0.02, "Share of sex"),
    "age_band": FigureKind(0.04, "Share of age"),
    "maker": FigureKind(0.04, "Share of maker"),
    "disagreement": FigureKind(0.04, "Disagreement of systems"),
    "failed": FigureKind(0.04, "Share of images without an answer"),
    "slow": FigureKind(0.02, "Share of answer times (s)"),
}


_LEVEL = 0.95  # of the interval of what a figure is now


@dataclass(frozen=True)
class GroupChange:
    """Change of a figure in one group, as a description and not a test."""

    column: str  # view, sex, age_band or maker
    group: str
    before: float  # mean per patient of the reference
    since: float  # and since the likely start
    n_patients: int  # since then


@dataclass(frozen=True)
class Change:
    """Alarm of a figure: its day, likely start and evidence, and the groups that changed most."""

    on: str  # day on which the evidence reached the bound, as 2026-01-31
    since: str  # likeliest first day of the change
    since_low: str  # first and last likely day, 80 % of the evidence
    since_high: str
    one_in: float  # of so many monitors without a change at most one shows such evidence
    groups: tuple[GroupChange, ...]  # the two largest differences
    mix: str  # header whose changed mix explains at least half of the change, or ""
    mix_share: float  # of the change, that it explains


@dataclass(frozen=True)
class MeanInterval:
    """Mean per patient in [0, 1] with its 95 % interval; None where there is no patient."""

    mean: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def from_values(cls, values: Floats) -> MeanInterval:
        """Compute mean and 95 % interval from one value for each patient.

        Args:
            values: Values in [0, 1], shape ``(patients,)``.
        """
        if not values.size:
            return cls()
        return cls(float(values.mean()), *mean_interval(values, _LEVEL)[0].tolist())

    def __str__(self) -> str:
        return f"{number(self.mean)} ({range_text(self.low, self.high)})"


@dataclass(frozen=True)
class CoursePart:
    """Part of the course of a figure."""

    end: str  # its last day
    mean: float | None  # a patient
    evidence: float  # the highest e-value; 0 in the reference


@dataclass(frozen=True)
class MonitoredFigure:
    """Monitored figure with its reference, recent mean and evidence."""

    key: str  # as `call_rate@CheXNet` or `view=AP`
    kind: str  # a key of `KINDS`
    title: str  # in words
    share: float  # of the false alarms; 0 where it is not watched: its reference is too small
    source: str  # of the reference: first weeks or validation
    n_reference: int  # patients
    was: MeanInterval  # the reference
    n_stream: int  # patients
    # The last patients (at most 5,000); after an alarm those since the likely start, with an
    # interval as if that had been known.
    now: MeanInterval
    evidence: float  # highest e-value so far
    change: Change | None
    course: tuple[CoursePart, ...]
    values: Floats = field(repr=False)  # of the patients of the reference

    @property
    def bound(self) -> float | None:
        """E-value that raises an alarm, 1 over the share of false alarms; None if not monitored."""
        return 1 / self.share if self.share else None


@dataclass(frozen=True)
class Monitoring:
    """Result of a monitor on a log."""

    rows: tuple[MonitoredFigure, ...]  # alarms first, by their start; those not watched last
    first_day: str
    last_day: str
    reference_days: int  # days from the first on that are the reference
    window_days: int  # in which a patient counts once
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
        """True if nothing is tested although the days of the reference are over."""
        days = (pd.Timestamp(self.last_day) - pd.Timestamp(self.first_day)).days + 1
        return not self.n_tested and days > self.reference_days
