"""Simulation of how many patients a change takes to be found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxr_compare.evaluation.statistics.betting import change_evidence
from cxr_compare.evaluation.statistics.figure_text import number
from cxr_compare.evaluation.studies.monitor_result import MonitoredFigure, Monitoring

STREAMS = 100


DAILY = 25  # of a simulation: streams, and patients a day


UNCHANGED = 500


_LONGEST = 4_000  # patients before a change, and after it


@dataclass(frozen=True)
class DetectionDelay:
    """Simulated number of patients until a change is found."""

    key: str  # of the figure
    title: str
    change: str  # in words
    was: float  # mean per patient of the reference
    becomes: float
    patients: float | None  # median from the change to the alarm; None: more than were simulated
    days: float | None  # in which as many came

    @property
    def told(self) -> str:
        """Description of the change."""
        return f"{self.change}, {number(self.was)} to {number(self.becomes)}"

    @property
    def found_after(self) -> str:
        """Patients and days until the alarm."""
        if self.patients is None or self.days is None:
            return f"not within {_LONGEST:,} patients in most streams"
        return f"{self.patients:,.0f} patients, {self.days:,.0f} days"

    def __str__(self) -> str:
        return f"{self.title}, {self.told}: {self.found_after}"


def simulate_delays(found: Monitoring, seed: int = 0) -> list[DetectionDelay]:
    """Simulate the median number of patients until a change of each monitored figure is found.

    Patients of the reference are drawn with replacement: 500 unchanged ones, then changed ones, of
    whom so many count as 1 (or as 0) at random that the mean changes as stated.
    """
    rng = np.random.default_rng(seed)
    days = (pd.Timestamp(found.last_day) - pd.Timestamp(found.first_day)).days + 1
    delays = []
    for row in found.rows:
        if not row.share or not row.n_stream:
            continue
        tested = days if row.source == "validation" else days - found.reference_days
        was = float(row.values.mean())
        for change, becomes in _changes(row, was):
            patients = _median_delay(row, was, becomes, rng)
            needed = None if patients is None else patients * tested / row.n_stream
            delays.append(
                DetectionDelay(row.key, row.title, change, was, becomes, patients, needed)
            )
    return delays


def _changes(row: MonitoredFigure, was: float) -> Iterator[tuple[str, float]]:
    """Return the simulated changes of a figure with its new mean."""
    if row.kind in ("sensitivity", "specificity"):
        yield "0.1 lower", max(was - 0.1, 0.0)
    elif row.kind == "call_rate":
        yield "half as many calls again", min(1.5 * was, 1.0)
    elif row.kind == "ppv":  # its odds halve, about
        yield "prevalence halved", was / (2 - was)
    elif row.kind in ("failed", "slow") or row.key.endswith("=new"):
        yield "a tenth of the images", min(was + 0.1, 1.0)
    elif row.kind in ("score", "guard"):
        yield "0.1 away", was + 0.1 if was < 0.9 else was - 0.1
        if ">q50" in row.key:
            yield "stuck at one value", 1.0
    else:
        yield ("doubled", 2 * was) if was < 0.4 else ("halved", was / 2)


def _median_delay(
    row: MonitoredFigure, was: float, becomes: float, rng: np.random.Generator
) -> float | None:
    drawn = rng.choice(row.values, (STREAMS, UNCHANGED + _LONGEST))
    up = becomes > was
    part = (becomes - was) / (1 - was) if up else (was - becomes) / max(was, 1e-9)
    changed = drawn[:, UNCHANGED:]
    changed[rng.random(changed.shape) < part] = float(up)
    days = np.arange(len(row.values) + drawn.shape[1]) - len(row.values)
    known = np.broadcast_to(row.values, (STREAMS, len(row.values)))
    values = np.concatenate([known, drawn], axis=1)
    evidence = change_evidence(values, np.maximum(days // DAILY + 1, 0))
    rings = evidence * row.share >= 1
    before = UNCHANGED // DAILY
    rings = rings[~rings[:, :before].any(axis=1), before:]
    first = np.where(rings.any(axis=1), DAILY * (rings.argmax(axis=1) + 1.0), np.inf)
    median = float(np.median(first))
    return median if np.isfinite(median) else None
