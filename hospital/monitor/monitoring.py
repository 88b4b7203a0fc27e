"""Monitoring of a system in use: which figures of its log have changed, and when.

Every figure is the mean per patient of a variable in [0, 1]. It is computed in a reference (the
first weeks of the log, or validation) and day by day afterwards. `figure_evidence` tests it. Each
figure has a share of the probability of a false alarm, and the shares add up to `ERROR`. If nothing
changes, the probability that any figure ever raises an alarm is at most `ERROR`, however often the
monitor is run, provided that patients are independent of each other. A patient therefore counts
once in a window of days.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.hospital.betting import start_quantiles
from cxr_compare.hospital.monitor import monitor_sentences
from cxr_compare.hospital.monitor.figure_evidence import figure_evidence, figure_start_shares
from cxr_compare.hospital.monitor.log_notes import gap_notes, system_notes, validation_notes
from cxr_compare.hospital.monitor.monitor_result import (
    ERROR,
    FEWEST,
    KINDS,
    Change,
    CoursePart,
    GroupChange,
    MeanInterval,
    MonitoredFigure,
    Monitoring,
)
from cxr_compare.hospital.monitor.monitored_figures import (
    HEADERS,
    FigureBlock,
    figure_blocks,
    read_first_weeks,
)

# Kinds whose reference is the validation images, if they are given.
_BY_LABEL = ("sensitivity", "specificity")


# Kinds that are compared between the first weeks and validation.
_COMPARED = ("call_rate", "score_mean", "score", "view", "sex", "age_band")


_NUMBERS = ("threshold", "score", "guard_distance", "seconds", "decision", "label")


_TEXTS = ("time", "system", "target", "patient", "image", "status")


_BINS = 40  # largest number of parts into which the course of a figure is divided


_RECENT = 5_000  # largest number of most recent patients whose mean is shown as the present one


_MOSTLY = 0.5  # smallest share of a change that a changed mix must explain to be named


_TAIL = 0.1  # share of the evidence for starts beyond either end of the likely first days


_MORE = 1.25  # smallest change of a group that is named, relative to the change of all patients


_FEWEST_OF_GROUP = 20  # smallest number of patients of a named group, before and since the start


def monitor_log(
    log: pd.DataFrame, validation: pd.DataFrame | None = None, *, first: int = 28, window: int = 28
) -> Monitoring:
    """Test every monitored figure of a log of a model's answers for a change.

    Figures are, for example, the share of positive calls, the mean score, and the shares of views.
    The first days of a log are left out, with a note, if a long pause follows them and they have
    too few patients for a reference, as a machine with a wrong clock writes them. Time and memory
    grow with the number of rows, whatever their dates are.

    The log is as `hospital.answers.answer_log_reader.read_log` returns it; the columns ``time``,
    ``patient`` and ``score`` are needed, and a column ``label`` (1 or 0, missing if unknown) holds
    the true labels of audited images. `validation` has rows of validation images with the same
    columns except ``time``; they are the reference of sensitivity and specificity. The `first` days
    are that of all other figures. Within `window` days all images of a patient count as one value.

    Example:
        >>> days = pd.date_range("2026-01-01", periods=600, freq="4h", tz="UTC")
        >>> scores = np.random.default_rng(0).random(600)
        >>> log = pd.DataFrame({"time": days, "patient": range(600), "score": scores})
        >>> monitoring = monitor_log(log)
        >>> len(monitoring.rows), monitoring.alarms
        (5, [])
    """
    stream, notes = _without_lone_days(_completed(log), first)
    weeks = stream[stream["day"] < first]
    first_weeks = read_first_weeks(weeks, window)
    references = {
        block.kind_and_system: block
        for block in figure_blocks(weeks, first_weeks, is_first_weeks=True)
    }
    validated: dict[tuple[str, str], FigureBlock] = {}
    notes += [*gap_notes(stream), *system_notes(stream, weeks, first_weeks)]
    if validation is not None:
        table = _completed(validation.assign(time=stream["time"].iloc[0]))
        if len(first_weeks.systems) == 1:  # the system may have another name in validation
            table["system"] = first_weeks.systems[0]
        for block in figure_blocks(table, first_weeks):
            key = block.kind_and_system
            if block.kind in _BY_LABEL:
                validated[key] = block
            elif block.kind in _COMPARED and key in references:
                notes += validation_notes(references[key], block)
    references |= validated
    figures = Counter[str]()  # number of figures among which the share of each kind is divided
    for block in references.values():
        figures[block.kind] += len(block.titles) * (block.n >= FEWEST)
    calendar = _Calendar(stream["time"].iloc[0].normalize(), int(stream["day"].iloc[-1]) + 1)
    rows: list[MonitoredFigure] = []
    for block in figure_blocks(stream, first_weeks):
        empty = block._replace(means=block.means[:, :0], day=block.day[:0])
        reference = references.get(block.kind_and_system, empty)
        share = 0.0
        if reference.n >= FEWEST:
            share = ERROR * KINDS[block.kind].share / figures[block.kind]
        source = "first weeks"
        tested = first
        if block.kind_and_system in validated:
            source = "validation"
            tested = 0
        tested = min(tested, calendar.n_days)
        rows += _Test(block, reference, source, tested, share, calendar).rows()
    # Alarms come first, the earliest change at the top; figures that are not monitored come last.
    rows.sort(key=lambda row: not row.share)
    rows.sort(key=lambda row: "" if row.change is None else row.change.since)
    rows.sort(key=lambda row: row.change is None)
    images = stream["image"].nunique()
    patients = stream["patient"].nunique()
    return Monitoring(
        tuple(rows),
        calendar.date(0),
        calendar.date(calendar.n_days - 1),
        first,
        window,
        images,
        patients,
        tuple(notes),
    )


class _Calendar(NamedTuple):
    """Days of a log.

    Attributes:
        begin: Midnight at the beginning of the first day.
        n_days: Number of days from the first to the last, whether or not they have rows.
    """

    begin: pd.Timestamp
    n_days: int

    def date(self, day: int) -> str:
        """Return a day, counted from 0, as text such as 2026-01-31."""
        return f"{self.begin + pd.Timedelta(days=day):%Y-%m-%d}"


def _completed(log: pd.DataFrame) -> pd.DataFrame:
    """Return a log with all columns, ordered by time, with patients and days as numbers."""
    table = log.reindex(columns=[*_TEXTS, *_NUMBERS, *HEADERS])
    for column, usual in (("system", "system"), ("status", "ok")):
        table[column] = table[column].astype(object).where(table[column].notna(), usual)
    if table["image"].isna().all():
        table["image"] = np.arange(len(table))
    for column in _NUMBERS:
        table[column] = (
            pd.to_numeric(table[column]).astype("Float64").to_numpy(float, na_value=np.nan)
        )
    if table["target"].nunique() > 1:
        table["system"] = table["system"] + ", " + table["target"].astype(object)
    table["patient"] = pd.factorize(table["patient"])[0]
    table = table.sort_values("time", kind="stable", ignore_index=True)
    days = (table["time"] - table["time"].iloc[0].normalize()) // pd.Timedelta(days=1)
    return table.assign(day=days.to_numpy(np.int64))


def _without_lone_days(stream: pd.DataFrame, first: int) -> tuple[pd.DataFrame, list[str]]:
    """Leave out isolated first days, which a wrong clock can cause, and note it.

    A pause that is longer than the reference divides the log into parts. All parts before the first
    one with enough patients for a reference are left out. If no part has enough, the whole log is
    kept.
    """
    part = (stream["day"].diff() > first).cumsum()
    patients = stream.groupby(part)["patient"].nunique()
    enough = patients.index[patients >= FEWEST]
    if not len(enough) or enough[0] == 0:
        return stream, []
    is_left = part < enough[0]
    left = stream[is_left]
    kept = stream[~is_left].reset_index(drop=True)
    days = left["time"].dt.strftime("%Y-%m-%d").unique()
    pause = int(kept["day"].iloc[0] - left["day"].iloc[-1])
    note = monitor_sentences.lone_days(len(left), list(days), pause)
    return kept.assign(day=kept["day"] - kept["day"].iloc[0]), [note]


class _Explanation(NamedTuple):
    """Groups of patients, at most two with the largest differences, that explain a change.

    Attributes:
        mix: Column of the log whose changed mix explains most of the change; empty if none does.
        mix_share: Share of the change that the mix explains.
    """

    groups: tuple[GroupChange, ...]
    mix: str
    mix_share: float


class _Test(NamedTuple):
    """Comparison of a block of figures with its reference.

    Attributes:
        block: Figures of the whole log.
        source: Origin of the reference: ``first weeks`` or ``validation``.
        first: First day that is tested.
        share: Largest probability of a false alarm of each figure; 0 if the figures are not
            monitored.
    """

    block: FigureBlock
    reference: FigureBlock
    source: str
    first: int
    share: float
    calendar: _Calendar

    @property
    def begin(self) -> int:
        """Index of the first patient who is tested."""
        return int(np.searchsorted(self.block.day, self.first))

    def rows(self) -> Iterator[MonitoredFigure]:
        """Return the result of each figure."""
        means = self.block.means
        was = self.reference.means
        # All patients of the reference have day 0; tested patients have days from 1 on.
        values = np.concatenate([was, means[:, self.begin :]], axis=1)
        day = np.append(
            np.zeros_like(self.reference.day), self.block.day[self.begin :] - self.first + 1
        )
        # One e-value after each tested day that has patients.
        evidence = np.zeros((len(means), len(np.unique(day[day > 0]))))
        if self.share:
            evidence = figure_evidence(self.block.kind, values, day)
        for row, (key, title) in enumerate(self.block.titles.items()):
            start = self.begin
            change = None
            if self.share and evidence[row].max(initial=0.0) >= 1 / self.share:
                start, change = self._change(row, evidence[row], values[row], day)
            now = means[row, max(start, self.block.n - _RECENT) :]
            yield MonitoredFigure(
                key=key,
                kind=self.block.kind,
                title=title,
                share=self.share,
                source=self.source,
                n_reference=self.reference.n,
                was=MeanInterval.from_values(was[row]),
                n_stream=self.block.n - self.begin,
                now=MeanInterval.from_values(now),
                evidence=float(evidence[row].max(initial=1.0)),
                change=change,
                course=tuple(self._course(means[row], evidence[row], day)),
                values=was[row],
            )

    def _course(self, values: Floats, evidence: Floats, day: Integers) -> Iterator[CoursePart]:
        days = self.calendar.n_days
        tested = self.first - 1 + np.unique(day[day > 0])  # days of the log
        ends = np.linspace(0, days, min(_BINS, days) + 1)[1:].round().astype(int)
        start = begin = 0
        for end, stop in zip(ends, np.searchsorted(self.block.day, ends), strict=True):
            mean = float(values[start:stop].mean()) if stop > start else None
            # On a day without patients the evidence is that of the day before.
            low = max(int(np.searchsorted(tested, begin, side="right")) - 1, 0)
            shown = evidence[low : int(np.searchsorted(tested, end))]
            yield CoursePart(self.calendar.date(end - 1), mean, float(shown.max(initial=0.0)))
            start = stop
            begin = end

    def _change(
        self, row: int, evidence: Floats, values: Floats, day: Integers
    ) -> tuple[int, Change]:
        """Return the likely first patient of a change, and the description of the change."""
        most = int(evidence.argmax())
        days = np.unique(day)  # 0 for the reference, then the days that have patients
        until = day <= days[most + 1]
        shares = figure_start_shares(self.block.kind, values[until], day[until])
        likely = start_quantiles(shares, day[until], [_TAIL, 1 - _TAIL])
        first = self.first + int(days[int(shares.argmax())])
        start = int(np.searchsorted(self.block.day, first))
        alarm_day = self.first - 1 + int(days[1 + int(np.argmax(evidence >= 1 / self.share))])
        low, high = (self.calendar.date(int(day)) for day in self.first + likely)
        explanation = self._explain(row, start)
        change = Change(
            on=self.calendar.date(alarm_day),
            since=self.calendar.date(first),
            since_low=low,
            since_high=high,
            one_in=float(evidence[most]),
            groups=explanation.groups,
            mix=explanation.mix,
            mix_share=explanation.mix_share,
        )
        return start, change

    def _explain(self, row: int, start: int) -> _Explanation:
        changes: list[GroupChange] = []
        mixes = {"": 0.0}
        overall = self.block.means[row, start:].mean() - self.reference.means[row].mean()
        for column in (name for name in HEADERS if name != self.block.kind):
            before = _by_group(self.reference, row, column, 0)
            since = _by_group(self.block, row, column, start)
            both = before.add_suffix("_was").join(since, how="inner")
            total = (both["mean"] * both["share"] - both["mean_was"] * both["share_was"]).sum()
            mixed = ((both["share"] - both["share_was"]) * both["mean_was"]).sum()
            if total and mixed / total >= _MOSTLY:
                mixes[column] = float(mixed / total)
            enough = both[(both[["n", "n_was"]] >= _FEWEST_OF_GROUP).all(axis=1)]
            enough = enough[(enough["mean"] - enough["mean_was"]) / overall >= _MORE]
            changes += [
                GroupChange(column, str(group), float(was), float(now), int(n))
                for group, was, now, n in enough[["mean_was", "mean", "n"]].itertuples()
            ]
        changes.sort(key=lambda change: -abs(change.since - change.before))
        mix = max(mixes, key=lambda column: mixes[column])
        return _Explanation(tuple(changes[:2]), mix, mixes[mix])


def _by_group(block: FigureBlock, row: int, column: str, start: int) -> pd.DataFrame:
    """Return mean per patient, number of patients and their share, by group, from `start` on."""
    since_start = block.patient >= start
    groups = block.headers[column].to_numpy(object)[since_start]
    patients = block.patient[since_start]
    values = pd.Series(block.values[since_start, row])
    means = values.groupby([groups, patients]).mean()
    table = means.groupby(level=0).agg(["mean", "size"]).set_axis(["mean", "n"], axis=1)
    return table.assign(share=table["n"] / table["n"].sum())
