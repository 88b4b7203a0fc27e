"""Simulation of the number of patients until the monitor finds a change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.hospital.monitor import monitor_sentences
from cxr_compare.hospital.monitor.figure_evidence import figure_evidence
from cxr_compare.hospital.monitor.monitor_result import MonitoredFigure, Monitoring

STREAMS = 100
"""Number of simulated streams."""
DAILY = 25
"""Number of simulated patients in a day."""
UNCHANGED = 500
"""Number of simulated patients before a change."""
_LONGEST = 4_000
"""Number of simulated patients after a change."""
_SHIFT = 0.3
"""Simulated rise of all scores, in standard deviations of the reference."""


@dataclass(frozen=True)
class DetectionDelay:
    """Simulated number of patients until the monitor of a model in use finds a change.

    The monitor watches figures such as the share of positive calls, and raises an alarm if one has
    changed.

    Attributes:
        key: Key of the monitored figure, such as ``call_rate@CheXNet``.
        title: Title of the monitored figure, such as "Call rate".
        change: Kind of the simulated change, such as ``half_more`` (the figure becomes 1.5 times as
            large) or ``doubled``.
        was: Mean of the figure over the patients of the first weeks, before the change, in [0, 1].
        becomes: Mean of the figure over the patients after the change, in [0, 1].
        patients: Median number of patients from the change to the alarm; None if the alarm was not
            raised within the simulated patients in most streams.
        days: Number of days in which so many patients came; None if `patients` is None.

    Example:
        >>> delay = DetectionDelay("call_rate", "Call rate", "half_more", 0.2, 0.3, 400.0, 80.0)
        >>> delay.delay_text
        '400 patients, 80 days'
    """

    key: str
    title: str
    change: str
    was: float
    becomes: float
    patients: float | None
    days: float | None

    @property
    def change_text(self) -> str:
        """Description of the simulated change as a text, with the means before and after it."""
        return monitor_sentences.delay_change(self.change, self.was, self.becomes)

    @property
    def delay_text(self) -> str:
        """Number of patients and days from the change to the alarm, as a text.

        An example is "400 patients, 80 days".
        """
        return monitor_sentences.delay_found(self.patients, self.days, _LONGEST)

    def __str__(self) -> str:
        return f"{self.title}, {self.change_text}: {self.delay_text}"


def simulate_delays(monitoring: Monitoring, seed: int = 0) -> list[DetectionDelay]:
    """Simulate how many patients pass until each change of each monitored figure is found.

    Patients of the reference, the first weeks of the log, are drawn with replacement: first 500
    unchanged ones, then changed ones. For a mean score, each changed score is 0.3 standard
    deviations higher. For any other figure, randomly chosen patients get the value 1 (or 0), as
    many as it takes for the mean to change from the value ``was`` to the value ``becomes`` that the
    result states.
    """
    rng = np.random.default_rng(seed)
    days = (pd.Timestamp(monitoring.last_day) - pd.Timestamp(monitoring.first_day)).days + 1
    delays = []
    for row in monitoring.rows:
        if not row.share or not row.n_stream:
            continue
        tested = days if row.source == "validation" else days - monitoring.reference_days
        was = float(row.values.mean())
        for change, becomes in _changes(row, was):
            patients = _median_delay(row, was, becomes, rng)
            needed = None if patients is None else patients * tested / row.n_stream
            delays.append(
                DetectionDelay(row.key, row.title, change, was, becomes, patients, needed)
            )
    return delays


def _changes(figure: MonitoredFigure, was: float) -> Iterator[tuple[str, float]]:
    """Return the simulated kinds of change of a figure, each with the new mean of the figure."""
    if figure.kind in ("sensitivity", "specificity"):
        yield "lower", max(was - 0.1, 0.0)
    elif figure.kind == "call_rate":
        yield "half_more", min(1.5 * was, 1.0)
    elif figure.kind == "ppv":
        yield "prevalence", was / (2 - was)  # the odds of the PPV are about halved
    elif figure.kind in ("failed", "slow") or figure.key.endswith("=new"):
        yield "tenth", min(was + 0.1, 1.0)
    elif figure.kind == "score_mean":
        yield "shifted", float(_raised(figure.values, figure.values).mean())
    elif figure.kind in ("score", "guard"):
        yield "away", was + 0.1 if was < 0.9 else was - 0.1
        if ">q50" in figure.key:
            yield "stuck", 1.0
    elif was < 0.4:
        yield "doubled", 2 * was
    else:
        yield "halved", was / 2


def _median_delay(
    row: MonitoredFigure, was: float, becomes: float, rng: np.random.Generator
) -> float | None:
    drawn = rng.choice(row.values, (STREAMS, UNCHANGED + _LONGEST))
    changed = drawn[:, UNCHANGED:]
    if row.kind == "score_mean":
        changed[:] = _raised(changed, row.values)
    else:
        up = becomes > was
        part = (becomes - was) / (1 - was) if up else (was - becomes) / max(was, 1e-9)
        changed[rng.random(changed.shape) < part] = float(up)
    days = np.arange(len(row.values) + drawn.shape[1]) - len(row.values)
    reference = np.broadcast_to(row.values, (STREAMS, len(row.values)))
    values = np.concatenate([reference, drawn], axis=1)
    evidence = figure_evidence(row.kind, values, np.maximum(days // DAILY + 1, 0))
    alarms = evidence * row.share >= 1
    before = UNCHANGED // DAILY
    alarms = alarms[~alarms[:, :before].any(axis=1), before:]
    first = np.where(alarms.any(axis=1), DAILY * (alarms.argmax(axis=1) + 1.0), np.inf)
    median = float(np.median(first))
    return median if np.isfinite(median) else None


def _raised(scores: Floats, reference: Floats) -> Floats:
    """Return scores that are higher by 0.3 standard deviations of the reference, at most 1."""
    return np.asarray(np.minimum(scores + _SHIFT * reference.std(), 1.0))
