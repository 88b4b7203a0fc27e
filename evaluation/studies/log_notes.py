"""Notes on a log: pauses, systems that came or went, and changed thresholds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.statistics.betting import mean_interval
from cxr_compare.evaluation.studies.monitor_result import FEWEST, MeanInterval
from cxr_compare.evaluation.studies.monitored_figures import MOST_SYSTEMS, FigureBlock, FirstWeeks

_SILENT = pd.Timedelta(days=7)


_MOST_NAMED = 5  # systems, or gaps, of which notes of one kind speak


def gap_notes(stream: pd.DataFrame) -> Iterator[str]:
    """Return notes on pauses of more than a week without an answer: files may be missing."""
    time = stream["time"].dt.normalize()
    pauses = time.diff()
    ends = np.flatnonzero(pauses > _SILENT)
    longest = sorted(ends, key=lambda end: -pauses.iloc[end])[:_MOST_NAMED]
    for end in sorted(longest):
        yield (
            f"No answer from {time.iloc[end - 1] + pd.Timedelta(days=1):%Y-%m-%d} to "
            f"{time.iloc[end] - pd.Timedelta(days=1):%Y-%m-%d}: is the log whole?"
        )
    if len(ends) > len(longest):
        yield f"{counted(len(ends) - len(longest), 'further pause')} of more than a week."


def system_notes(stream: pd.DataFrame, weeks: pd.DataFrame, known: FirstWeeks) -> Iterator[str]:
    """Return notes on systems that came, went or got another threshold within the log."""
    in_weeks = set(weeks["system"].unique())
    end_of_log = stream["time"].iloc[-1]
    new = []
    few = []
    silent = []
    thresholds = []
    for system, rows in stream.groupby("system"):
        begin, end = rows["time"].iloc[[0, -1]]
        if system not in in_weeks:
            new.append(
                f"{system}: first answer on {begin:%Y-%m-%d}, after the reference: not watched."
            )
        elif system not in known.systems:
            few.append(
                f"{system}: not watched, since {MOST_SYSTEMS} systems have more answers in the "
                "reference."
            )
        if end_of_log - end > _SILENT:
            silent.append(f"{system}: no answer since {end:%Y-%m-%d}.")
        cut = rows.dropna(subset="threshold")
        values = cut["threshold"].to_numpy()
        thresholds += [
            f"{system}: the threshold went from {values[place]:.4g} to {values[place + 1]:.4g} "
            f"on {cut['time'].iloc[place + 1]:%Y-%m-%d}; figures of calls change with it."
            for place in np.flatnonzero(np.diff(values))[:3]
        ]
    yield from _first_notes(silent, "further system", " silent for more than a week")
    yield from _first_notes(new, "further system", " new after the reference: not watched")
    yield from _first_notes(few, "further system", " with fewer answers: not watched")
    yield from _first_notes(thresholds, "further change of a threshold", "")


def _first_notes(notes: Sequence[str], noun: str, words: str) -> Iterator[str]:
    """Return the first notes of a kind, and a note on the number of further ones."""
    yield from notes[:_MOST_NAMED]
    if len(notes) > _MOST_NAMED:
        yield f"{counted(len(notes) - _MOST_NAMED, noun)}{words}."


def validation_notes(weeks: FigureBlock, validation: FigureBlock) -> Iterator[str]:
    """Return notes on figures that differ between the first weeks and validation."""
    if min(weeks.n, validation.n) < FEWEST:
        return
    here, there = (mean_interval(each.means) for each in (weeks, validation))
    for row, title in enumerate(weeks.titles.values()):
        if here[row, 0] > there[row, 1] or here[row, 1] < there[row, 0]:
            told = [MeanInterval.from_values(each.means[row]) for each in (weeks, validation)]
            yield f"{title}: {told[0]} in the first weeks, {told[1]} in validation."
