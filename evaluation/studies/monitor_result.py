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


FEWEST = 50
"""Number of patients of a reference below which no figure is monitored."""


class FigureKind(NamedTuple):
    """A kind of monitored figure, with its part of the chance of a false alarm."""

    share: float
    """Share of `ERROR`; all kinds add up to 1, whether or not a log has what a kind needs."""
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

The mean score has the largest share, because a change of prevalence, of sensitivity or of the
images moves it soonest.
"""


LABELLED = ("sensitivity", "specificity", "ppv")
"""Kinds that need labels of audited images."""


_LEVEL = 0.95
"""Level of the interval of a recent mean."""


@dataclass(frozen=True)
class GroupChange:
    """Change of a figure in one group, as a description and not a test."""

    column: str
    """Header: ``view``, ``sex``, ``age_band`` or ``maker``."""
    group: str
    before: float
    """Mean per patient of the reference."""
    since: float
    """Mean per patient since the likely start of the change."""
    n_patients: int
    """Number of patients since the likely start."""


@dataclass(frozen=True)
class Change:
    """Alarm of a figure: its day, likely start and evidence, and the groups that changed most."""

    on: str
    """Day on which the evidence reached the bound, as 2026-01-31."""
    since: str
    """Most likely first day of the change."""
    since_low: str
    """First likely day; 80 % of the evidence lies between it and `since_high`."""
    since_high: str
    one_in: float
    """Number of monitors without a change of which at most one shows such evidence."""
    groups: tuple[GroupChange, ...]
    """Groups with the two largest differences."""
    mix: str
    """Header whose changed mix explains at least half of the change; empty if none does."""
    mix_share: float
    """Share of the change that the mix explains."""


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

    end: str
    """Last day of the part."""
    mean: float | None
    """Mean per patient."""
    evidence: float
    """Highest e-value; 0 in the reference."""


@dataclass(frozen=True)
class MonitoredFigure:
    """Monitored figure with its reference, recent mean and evidence."""

    key: str
    """Key such as ``call_rate@CheXNet`` or ``view=AP``."""
    kind: str
    """Key of `KINDS`."""
    title: str
    share: float
    """Share of the false alarms; 0 if not monitored, because the reference is too small."""
    source: str
    """Source of the reference: first weeks or validation."""
    n_reference: int
    """Number of patients of the reference."""
    was: MeanInterval
    """Mean of the reference."""
    n_stream: int
    """Number of tested patients."""
    now: MeanInterval
    """Mean of the last patients (at most 5,000).

    After an alarm it is of those since the likely start, with an interval as if that were known.
    """
    evidence: float
    """Highest e-value so far."""
    change: Change | None
    course: tuple[CoursePart, ...]
    values: Floats = field(repr=False)
    """Values of the patients of the reference."""

    @property
    def bound(self) -> float | None:
        """E-value that raises an alarm, 1 over the share of false alarms; None if not monitored."""
        return 1 / self.share if self.share else None


@dataclass(frozen=True)
class Monitoring:
    """Result of a monitor on a log."""

    rows: tuple[MonitoredFigure, ...]
    """Figures: alarms first, by their start; those not monitored last."""
    first_day: str
    last_day: str
    reference_days: int
    """Number of first days that are the reference."""
    window_days: int
    """Days in which a patient counts once."""
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
