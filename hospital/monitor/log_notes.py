"""Notes on a log of answers: pauses, systems that came or went, and changed thresholds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pandas as pd

from cxr_compare.hospital.betting import mean_interval
from cxr_compare.hospital.monitor import monitor_sentences
from cxr_compare.hospital.monitor.monitor_result import FEWEST, MeanInterval
from cxr_compare.hospital.monitor.monitored_figures import MOST_SYSTEMS, FigureBlock, FirstWeeks

_SILENT = pd.Timedelta(days=7)
"""Time without an answer after which a note is made."""
_MOST_NAMED = 5
"""Largest number of systems or pauses that notes of one kind name."""


def gap_notes(stream: pd.DataFrame) -> Iterator[str]:
    """Yield notes on pauses of more than a week in a log, ordered by the column ``time``.

    Files of the log may be missing if there are such pauses. There is a sentence for each of the
    five longest pauses, in the order of time, and one with the number of further pauses.

    Example:
        >>> days = pd.to_datetime(["2026-01-01", "2026-01-20"])
        >>> list(gap_notes(pd.DataFrame({"time": days})))
        ['There is no answer from 2026-01-02 to 2026-01-19. Is the log complete?']
    """
    day = stream["time"].dt.normalize()
    pauses = day.diff()
    ends = np.flatnonzero(pauses > _SILENT)
    longest = sorted(ends, key=lambda end: -pauses.iloc[end])[:_MOST_NAMED]
    one_day = pd.Timedelta(days=1)
    for end in sorted(longest):
        first = day.iloc[end - 1] + one_day
        last = day.iloc[end] - one_day
        yield monitor_sentences.pause(f"{first:%Y-%m-%d}", f"{last:%Y-%m-%d}")
    if len(ends) > len(longest):
        yield monitor_sentences.further_pauses(len(ends) - len(longest))


def system_notes(
    stream: pd.DataFrame, weeks: pd.DataFrame, first_weeks: FirstWeeks
) -> Iterator[str]:
    """Yield notes on systems (models) that appear, stop or change threshold within a log.

    `stream` is the log, ordered by ``time``, and `weeks` are its rows of the first weeks, which are
    the reference for later changes. First come sentences on systems that are new, are ignored
    because there are too many, or no longer answer, then those on changed thresholds.
    """
    in_weeks = set(weeks["system"].unique())
    end_of_log = stream["time"].iloc[-1]
    notes: dict[Literal["silent", "new", "few"], list[str]] = {"silent": [], "new": [], "few": []}
    thresholds = []
    for name, rows in stream.groupby("system"):
        system = str(name)
        begin, end = rows["time"].iloc[[0, -1]]
        if system not in in_weeks:
            notes["new"].append(monitor_sentences.new_system(system, f"{begin:%Y-%m-%d}"))
        elif system not in first_weeks.systems:
            notes["few"].append(monitor_sentences.few_answers(system, MOST_SYSTEMS))
        if end_of_log - end > _SILENT:
            notes["silent"].append(monitor_sentences.silent(system, f"{end:%Y-%m-%d}"))
        with_threshold = rows.dropna(subset="threshold")
        values = with_threshold["threshold"].to_numpy()
        for row in np.flatnonzero(np.diff(values))[:3]:
            day = f"{with_threshold['time'].iloc[row + 1]:%Y-%m-%d}"
            thresholds.append(
                monitor_sentences.new_threshold(system, values[row], values[row + 1], day)
            )
    for kind, of_kind in notes.items():
        yield from of_kind[:_MOST_NAMED]
        if len(of_kind) > _MOST_NAMED:
            yield monitor_sentences.further_systems(kind, len(of_kind) - _MOST_NAMED)
    yield from thresholds[:_MOST_NAMED]
    if len(thresholds) > _MOST_NAMED:
        yield monitor_sentences.further_thresholds(len(thresholds) - _MOST_NAMED)


def validation_notes(weeks: FigureBlock, validation: FigureBlock) -> Iterator[str]:
    """Yield notes on figures that differ between a log's first weeks and validation images.

    There is a sentence for each figure whose two 95 % intervals do not overlap; nothing if one of
    the two has fewer than 50 patients. Both blocks have the same figures.
    """
    if min(weeks.n, validation.n) < FEWEST:
        return
    in_weeks = mean_interval(weeks.means)
    in_validation = mean_interval(validation.means)
    for row, title in enumerate(weeks.titles.values()):
        is_above = in_weeks[row, 0] > in_validation[row, 1]
        is_below = in_weeks[row, 1] < in_validation[row, 0]
        if is_above or is_below:
            first = MeanInterval.from_values(weeks.means[row])
            second = MeanInterval.from_values(validation.means[row])
            yield f"{title}: {first} in the first weeks, {second} in validation."
