"""Has a system in use changed, and when? Figures of its log by patient, watched at any time.

Every figure is the mean per patient of a variable in [0, 1], in a reference, which is the first
weeks of the log, or validation, and day by day in the stream (`change_evidence`). Each has a share
of the false alarms, and the shares add up to `ERROR`: where nothing changes, any figure ever raises
an alarm with at most that chance, however often one looks, if patients are independent of each
other. So each counts once in a window of days.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.metrics.metric import number, span_words
from cxr_compare.evaluation.statistics.betting import (
    change_evidence,
    mean_interval,
    start_quantiles,
    start_shares,
)
from cxr_compare.evaluation.statistics.ranking import Floats, Integers

ERROR = 0.05
"""Chance that any figure ever raises an alarm where nothing changes, at most."""
FEWEST = 50  # patients of a reference, below which it watches nothing


class _Kind(NamedTuple):
    share: float  # of `ERROR`; 1 in all, whether or not a log has what a kind needs
    title: str


KINDS = {
    "call_rate": _Kind(0.16, "Call rate"),
    "sensitivity": _Kind(0.16, "Sensitivity on audited images"),
    "specificity": _Kind(0.12, "Specificity on audited images"),
    "ppv": _Kind(0.08, "PPV on audited images"),
    "score": _Kind(0.16, "Share of scores"),
    "guard": _Kind(0.08, "Share of guard distances"),
    "view": _Kind(0.04, "Share of view"),
    "sex": _Kind(0.02, "Share of sex"),
    "age_band": _Kind(0.04, "Share of age"),
    "maker": _Kind(0.04, "Share of maker"),
    "disagreement": _Kind(0.04, "Disagreement of systems"),
    "failed": _Kind(0.04, "Share of images without an answer"),
    "slow": _Kind(0.02, "Share of answer times (s)"),
}
_HEADERS = ("view", "sex", "age_band", "maker")
_BY_LABEL = ("sensitivity", "specificity")  # whose reference is validation, where it is given
_COMPARED = ("call_rate", "score", "view", "sex", "age_band")  # first weeks with validation
_QUANTILES = {"score": (0.1, 0.5, 0.9), "guard_distance": (0.1, 0.5, 0.9), "seconds": (0.95,)}
_NUMBERS = ("threshold", "score", "guard_distance", "seconds", "decision", "label")
_TEXTS = ("time", "system", "target", "patient", "image", "status")
_ALONE = ("", "")  # key and title of the only figure of a kind
_SILENT = pd.Timedelta(days=7)
_MOST_SYSTEMS = 20  # that are watched: figures, and pairs of systems, grow with them
_MOST_NAMED = 5  # systems, or gaps, of which notes of one kind speak
_BINS = 40  # of a course
_LEVEL = 0.95  # of the interval of what a figure is now
_RECENT = 5_000  # patients who tell it at most
_MOSTLY = 0.5  # of a change, that a changed mix must explain to be named
_TAIL = 0.1  # of the shares of starts, beyond either end of when a change began
_MORE = 1.25  # times the change of all, that a group's must be to be named
_FEWEST_OF_GROUP = 20  # patients, before and since


@dataclass(frozen=True)
class _GroupChange:
    """A description, no test: a figure in one group before and since a change."""

    column: str  # view, sex, age_band or maker
    group: str
    before: float  # mean per patient of the reference
    since: float  # and since the likely start
    n_patients: int  # since then


@dataclass(frozen=True)
class _Change:
    """An alarm: when, since about when, how sure, and where it is strongest."""

    on: str  # day on which the evidence reached the bound, as 2026-01-31
    since: str  # likeliest first day of the change
    since_low: str  # first and last likely day, 80 % of the evidence
    since_high: str
    one_in: float  # of so many monitors without a change at most one shows such evidence
    groups: tuple[_GroupChange, ...]  # the two largest differences
    mix: str  # header whose changed mix explains at least half of the change, or ""
    mix_share: float  # of the change, that it explains


@dataclass(frozen=True)
class _Estimate:
    """A mean per patient in [0, 1] with its 95 % interval; None where there is no patient."""

    mean: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, values: Floats) -> _Estimate:
        """Of the patients' values."""
        if not values.size:
            return cls()
        return cls(float(values.mean()), *mean_interval(values, _LEVEL)[0].tolist())

    def __str__(self) -> str:
        return f"{number(self.mean)} ({span_words(self.low, self.high)})"


@dataclass(frozen=True)
class _Bin:
    """A part of a course."""

    end: str  # its last day
    mean: float | None  # a patient
    evidence: float  # the highest e-value; 0 in the reference


@dataclass(frozen=True)
class Watched:
    """One figure and what became of it."""

    key: str  # as `call_rate@CheXNet` or `view=AP`
    kind: str  # a key of `KINDS`
    title: str  # in words
    share: float  # of the false alarms; 0 where it is not watched: its reference is too small
    source: str  # of the reference: first weeks or validation
    n_reference: int  # patients
    was: _Estimate  # the reference
    n_stream: int  # patients
    # The last patients (at most 5,000); after an alarm those since the likely start, with an
    # interval as if that had been known.
    now: _Estimate
    evidence: float  # highest e-value so far
    change: _Change | None
    course: tuple[_Bin, ...]
    values: Floats = field(repr=False)  # of the patients of the reference

    @property
    def bound(self) -> float | None:
        """The e-value that raises an alarm, 1 over the share; None: not watched."""
        return 1 / self.share if self.share else None


@dataclass(frozen=True)
class Monitoring:
    """What a monitor found in a log."""

    rows: tuple[Watched, ...]  # alarms first, by their start; those not watched last
    first_day: str
    last_day: str
    reference_days: int  # days from the first on that are the reference
    window_days: int  # in which a patient counts once
    n_images: int
    n_patients: int
    notes: tuple[str, ...] = ()

    @property
    def alarms(self) -> list[Watched]:
        """The figures that have changed."""
        return [row for row in self.rows if row.change is not None]

    @property
    def n_tested(self) -> int:
        """How many figures are tested: they have a reference, and patients after it."""
        return sum(row.share > 0 and row.n_stream > 0 for row in self.rows)

    @property
    def is_blind(self) -> bool:
        """Whether nothing is tested though the days of the reference are over."""
        days = (pd.Timestamp(self.last_day) - pd.Timestamp(self.first_day)).days + 1
        return not self.n_tested and days > self.reference_days


class _Known(NamedTuple):
    """How the first weeks cut what a log holds into figures."""

    systems: list[str]  # those with the most answers, at most `_MOST_SYSTEMS`
    cuts: dict[tuple[str, str], Floats]  # quantiles, by system and column
    patients: dict[str, pd.Series]  # of each class of each header, how many
    window: int  # days in which a patient counts once


class _Block(NamedTuple):
    """Figures that are known of the same images, of the days on which their patients count."""

    of: tuple[str, str]  # kind and system, "" of what is no system's
    titles: dict[str, str]  # by key
    values: Floats  # in [0, 1], shape (images, figures)
    headers: pd.DataFrame  # of the images
    patient: Integers  # of each image: place in what follows, which is in the order of time
    means: Floats  # shape (figures, patients)
    day: Integers  # on which a patient counts, from the first of the log

    @property
    def kind(self) -> str:
        """A key of `KINDS`."""
        return self.of[0]

    @property
    def n(self) -> int:
        """How many patients."""
        return len(self.day)


def monitor_log(
    log: pd.DataFrame, validation: pd.DataFrame | None = None, *, first: int = 28, window: int = 28
) -> Monitoring:
    """Watch every figure of a log.

    First days that stand alone, so that the reference would be too small, are left out with a note:
    a machine whose clock was wrong writes such. Time and memory grow with the rows, whatever their
    dates.

    Args:
        log: A row an image and system, as `read_log` gives it, and, where images were audited,
            ``label`` (1 or 0, missing where unknown). Needs ``time``, ``patient`` and ``score``.
        validation: The same columns of validation images, but for ``time``: the reference of
            sensitivity and specificity.
        first: Days from the first on that are the reference of all else.
        window: Days in which a patient counts once.

    Example:
        >>> days = pd.date_range("2026-01-01", periods=600, freq="4h", tz="UTC")
        >>> scores = np.random.default_rng(0).random(600)
        >>> log = pd.DataFrame({"time": days, "patient": range(600), "score": scores})
        >>> found = monitor_log(log)
        >>> len(found.rows), found.alarms
        (4, [])
    """
    stream, notes = _without_lone_days(_completed(log), first)
    weeks = stream[stream["day"] < first]
    known = _known(weeks, window)
    references = {block.of: block for block in _blocks(weeks, known, weeks=True)}
    validated: dict[tuple[str, str], _Block] = {}
    notes += [*_gap_notes(stream), *_system_notes(stream, weeks, known)]
    if validation is not None:
        table = _completed(validation.assign(time=stream["time"].iloc[0]))
        if not known.systems[1:]:  # whatever it is called there
            table["system"] = known.systems[0]
        for block in _blocks(table, known):
            if block.kind in _BY_LABEL:
                validated[block.of] = block
            elif block.kind in _COMPARED and block.of in references:
                notes += _differences(references[block.of], block)
    references |= validated
    figures = Counter[str]()  # that divide the share of their kind
    for block in references.values():
        figures[block.kind] += len(block.titles) * (block.n >= FEWEST)
    calendar = _Calendar(stream["time"].iloc[0].normalize(), int(stream["day"].iloc[-1]) + 1)
    rows: list[Watched] = []
    for block in _blocks(stream, known):
        nothing = block._replace(means=block.means[:, :0], day=block.day[:0])
        was = references.get(block.of, nothing)
        share = ERROR * KINDS[block.kind].share / figures[block.kind] if was.n >= FEWEST else 0.0
        source = "first weeks"
        tested = first
        if block.of in validated:
            source = "validation"
            tested = 0
        rows += _Test(block, was, source, min(tested, calendar.n_days), share, calendar).rows()
    rows.sort(key=lambda row: (row.change is None, row.change and row.change.since, not row.share))
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
    """The days of a log."""

    begin: pd.Timestamp  # midnight of the first
    n_days: int  # from the first to the last, whether or not they have rows

    def date(self, day: int) -> str:
        """A day, counted from 0, as 2026-01-31."""
        return f"{self.begin + pd.Timedelta(days=day):%Y-%m-%d}"


def _completed(log: pd.DataFrame) -> pd.DataFrame:
    """A log with all columns, by time, with patients and days as numbers."""
    table = log.reindex(columns=[*_TEXTS, *_NUMBERS, *_HEADERS])
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
    """Leave out first days that stand alone, as a clock that was wrong makes them, and say so.

    A longer pause than a reference has days parts the log. What lies before the first part that has
    patients enough for a reference is left out. Where no part has so many, all stays.
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
    named = (
        f"{days[0]}" if len(days) == 1 else f"{counted(len(days), 'day')}, {days[0]} to {days[-1]}"
    )
    pause = int(kept["day"].iloc[0] - left["day"].iloc[-1])
    note = (
        f"Left out: {counted(len(left), 'row')} of {named}, {counted(pause, 'day')} before all "
        f"others, since they would be the reference. Was a clock wrong? If so, remove "
        f"{'it' if len(left) == 1 else 'them'} from the log."
    )
    return kept.assign(day=kept["day"] - kept["day"].iloc[0]), [note]


def _gap_notes(stream: pd.DataFrame) -> Iterator[str]:
    """Pauses of more than a week, in which no system answered: files may be missing."""
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


def _known(weeks: pd.DataFrame, window: int) -> _Known:
    answered = weeks[weeks["status"] == "ok"]
    cuts = {
        (str(system), column): np.quantile(values, quantiles)
        for system, rows in answered.groupby("system")
        for column, quantiles in _QUANTILES.items()
        if (values := rows[column].dropna().to_numpy()).size
    }
    patients = {column: weeks.groupby(column)["patient"].nunique() for column in _HEADERS}
    answers = weeks["system"].value_counts()
    by_answers = sorted(answers.index, key=lambda system: (-answers[system], system))
    return _Known(sorted(by_answers[:_MOST_SYSTEMS]), cuts, patients, window)


def _blocks(log: pd.DataFrame, known: _Known, *, weeks: bool = False) -> Iterator[_Block]:
    """The figures of a log, or of the first weeks: of each system, of each two, of the headers."""
    for system in known.systems:
        yield from _of_system(log[log["system"] == system], system, known)
    for one, other in combinations(known.systems, 2):
        pair = [log[log["system"] == system].drop_duplicates("image") for system in (one, other)]
        both = pair[0].merge(pair[1][["image", "decision"]], on="image", suffixes=("", "_other"))
        calls = both[["decision", "decision_other"]]
        differ = calls["decision"] != calls["decision_other"]
        shown = calls.notna().all(axis=1)
        of = "disagreement", f"{one} and {other}"
        yield from _block(of, both, shown, {_ALONE: differ}, known.window)
    images = log.drop_duplicates("image")
    for column, patients in known.patients.items():
        classes = list(patients.index)
        watched = classes[:1] if len(classes) == 2 else classes  # one of two tells the other
        title = KINDS[column].title
        figures = {(f"={name}", f"{title} {name}"): images[column] == name for name in watched}
        if classes:
            new = f"{title} not seen in the first weeks"
            # In the first weeks: by those of all other patients, as chance has it later on.
            own = images[column].isin(patients.index[patients == 1])
            figures["=new", new] = own if weeks else ~images[column].isin(classes)
        yield from _block((column, ""), images, images[column].notna(), figures, known.window)


def _of_system(log: pd.DataFrame, system: str, known: _Known) -> Iterator[_Block]:
    called = log["decision"]
    label = log["label"]
    answered = log["status"] == "ok"
    name = system if known.systems[1:] else ""
    audited = called.notna() & label.notna()
    figures = [
        ("call_rate", called.notna(), {_ALONE: called}),
        ("sensitivity", audited & (label == 1), {_ALONE: called}),
        ("specificity", audited & (label == 0), {_ALONE: 1 - called}),
        ("ppv", audited & (called == 1), {_ALONE: label}),
    ]
    for kind, column in (("score", "score"), ("guard", "guard_distance"), ("slow", "seconds")):
        cuts = zip(_QUANTILES[column], known.cuts.get((system, column), ()), strict=False)
        above = {
            (f">q{100 * quantile:g}", f"{KINDS[kind].title} above {cut:.3g}"): log[column] > cut
            for quantile, cut in cuts
        }
        figures.append((kind, answered & log[column].notna(), above))
    figures.append(("failed", log["status"].notna(), {_ALONE: ~answered}))
    for kind, shown, of_kind in figures:
        yield from _block((kind, name), log, shown, of_kind, known.window)


def _block(
    of: tuple[str, str],
    log: pd.DataFrame,
    shown: pd.Series,  # images of which the figures are known
    figures: Mapping[tuple[str, str], pd.Series],  # by the last part of the key, and the title
    window: int,
) -> Iterator[_Block]:
    """The figures by patient, where there are any: the mean of the images of a day that counts."""
    if not figures or not shown.any():
        return
    kind, system = of
    words, at = (f", {system}", f"@{system}") if system else ("", "")
    titles = {
        f"{kind}{part}{at}": f"{title or KINDS[kind].title}{words}" for part, title in figures
    }
    images = log[shown]
    images = images[_first_days(images["patient"].to_numpy(), images["day"].to_numpy(), window)]
    values = np.stack([each[images.index].to_numpy(float) for each in figures.values()], axis=1)
    units = images.groupby(["patient", "day"], sort=False)
    patient = units.ngroup().to_numpy()
    day = units["day"].first().to_numpy()
    means = np.stack([np.bincount(patient, column) for column in values.T]) / np.bincount(patient)
    yield _Block(of, titles, values, images[[*_HEADERS]], patient, means, day)


def _first_days(patient: Integers, day: Integers, window: int) -> npt.NDArray[np.bool_]:
    """Which images are of a day that counts: a patient's first, and the first a window later.

    Example:
        >>> _first_days(np.array([0, 0, 1, 0, 0]), np.array([1, 1, 2, 300, 366]), 365).tolist()
        [True, True, True, False, True]
    """
    counts = np.zeros(len(day), dtype=bool)
    if not len(day):
        return counts
    last = int(day.max())
    window = min(window, last + 1)
    key = patient * np.int64(last + window + 1) + day
    keys = np.unique(key)  # a day of a patient, in the order of patients and days
    whose = keys // (last + window + 1)
    following = np.searchsorted(keys, keys + window)  # the first a window later, or who comes next
    chosen = np.zeros(len(keys), dtype=bool)
    front = np.flatnonzero(np.diff(whose, prepend=-1))  # each patient's first
    while front.size:
        chosen[front] = True
        after = following[front]
        inside = after < len(keys)
        front = front[inside]
        after = after[inside]
        front = after[whose[after] == whose[front]]
    return np.asarray(chosen[np.searchsorted(keys, key)])


class _Test(NamedTuple):
    """A block of the stream against its reference."""

    block: _Block
    was: _Block
    source: str  # of the reference
    first: int  # day that is tested
    share: float  # of the false alarms, of each figure; 0: not watched
    calendar: _Calendar  # of the log

    @property
    def begin(self) -> int:
        """The first patient who is tested."""
        return int(np.searchsorted(self.block.day, self.first))

    def rows(self) -> Iterator[Watched]:
        """What became of each figure."""
        means = self.block.means
        was = self.was.means
        # The reference is of day 0, the stream from day 1 on.
        values = np.concatenate([was, means[:, self.begin :]], axis=1)
        day = np.append(np.zeros_like(self.was.day), self.block.day[self.begin :] - self.first + 1)
        # After each day that has patients, from the first tested on.
        evidence = np.zeros((len(means), len(np.unique(day[day > 0]))))
        if self.share:
            evidence = change_evidence(values, day)
        for row, (key, title) in enumerate(self.block.titles.items()):
            start = self.begin
            change = None
            if self.share and evidence[row].max(initial=0.0) >= 1 / self.share:
                start, change = self._change(row, evidence[row], values[row], day)
            now = means[row, max(start, self.block.n - _RECENT) :]
            yield Watched(
                key=key,
                kind=self.block.kind,
                title=title,
                share=self.share,
                source=self.source,
                n_reference=self.was.n,
                was=_Estimate.of(was[row]),
                n_stream=self.block.n - self.begin,
                now=_Estimate.of(now),
                evidence=float(evidence[row].max(initial=1.0)),
                change=change,
                course=tuple(self._course(means[row], evidence[row], day)),
                values=was[row],
            )

    def _course(self, values: Floats, evidence: Floats, day: Integers) -> Iterator[_Bin]:
        days = self.calendar.n_days
        tested = self.first - 1 + np.unique(day[day > 0])  # days of the log
        ends = np.linspace(0, days, min(_BINS, days) + 1)[1:].round().astype(int)
        start = begin = 0
        for end, stop in zip(ends, np.searchsorted(self.block.day, ends), strict=True):
            mean = float(values[start:stop].mean()) if stop > start else None
            # On a day without patients the evidence is that of the day before.
            low = max(int(np.searchsorted(tested, begin, side="right")) - 1, 0)
            shown = evidence[low : int(np.searchsorted(tested, end))]
            yield _Bin(self.calendar.date(end - 1), mean, float(shown.max(initial=0.0)))
            start = stop
            begin = end

    def _change(
        self, row: int, evidence: Floats, values: Floats, day: Integers
    ) -> tuple[int, _Change]:
        """The likely first patient of a change, and all that is said of it."""
        most = int(evidence.argmax())
        days = np.unique(day)  # 0: the reference, then those that have patients
        until = day <= days[most + 1]
        shares = start_shares(values[until], day[until])
        likely = start_quantiles(shares, day[until], [_TAIL, 1 - _TAIL])
        first = self.first + int(days[int(shares.argmax())])
        start = int(np.searchsorted(self.block.day, first))
        rang = self.first - 1 + int(days[1 + int(np.argmax(evidence >= 1 / self.share))])
        on, since, low, high = (
            self.calendar.date(int(when)) for when in (rang, first, *(self.first + likely))
        )
        one_in = float(evidence[most])
        return start, _Change(on, since, low, high, one_in, *self._where(row, start))

    def _where(self, row: int, start: int) -> tuple[tuple[_GroupChange, ...], str, float]:
        """The groups of the largest differences, and the header whose mix explains the most."""
        changes: list[_GroupChange] = []
        mixes = {"": 0.0}
        overall = self.block.means[row, start:].mean() - self.was.means[row].mean()
        for column in (name for name in _HEADERS if name != self.block.kind):
            before = _by_group(self.was, row, column, 0)
            since = _by_group(self.block, row, column, start)
            both = before.add_suffix("_was").join(since, how="inner")
            total = (both["mean"] * both["share"] - both["mean_was"] * both["share_was"]).sum()
            mixed = ((both["share"] - both["share_was"]) * both["mean_was"]).sum()
            if total and mixed / total >= _MOSTLY:
                mixes[column] = float(mixed / total)
            enough = both[(both[["n", "n_was"]] >= _FEWEST_OF_GROUP).all(axis=1)]
            enough = enough[(enough["mean"] - enough["mean_was"]) / overall >= _MORE]
            changes += [
                _GroupChange(column, str(group), float(was), float(now), int(n))
                for group, was, now, n in enough[["mean_was", "mean", "n"]].itertuples()
            ]
        changes.sort(key=lambda each: -abs(each.since - each.before))
        mix = max(mixes, key=lambda column: mixes[column])
        return tuple(changes[:2]), mix, mixes[mix]


def _by_group(block: _Block, row: int, column: str, start: int) -> pd.DataFrame:
    """Mean per patient, patients and their share by group, of the patients from `start` on."""
    kept = block.patient >= start
    groups = block.headers[column].to_numpy(object)[kept]
    patients = block.patient[kept]
    values = pd.Series(block.values[kept, row])
    means = values.groupby([groups, patients]).mean()
    table = means.groupby(level=0).agg(["mean", "size"]).set_axis(["mean", "n"], axis=1)
    return table.assign(share=table["n"] / table["n"].sum())


def _system_notes(stream: pd.DataFrame, weeks: pd.DataFrame, known: _Known) -> Iterator[str]:
    """Systems that came, went or got another threshold while the log was written."""
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
                f"{system}: not watched, since {_MOST_SYSTEMS} systems have more answers in the "
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
    """The first notes of a kind, and how many there are beside them."""
    yield from notes[:_MOST_NAMED]
    if len(notes) > _MOST_NAMED:
        yield f"{counted(len(notes) - _MOST_NAMED, noun)}{words}."


def _differences(weeks: _Block, validation: _Block) -> Iterator[str]:
    """Figures of which the first weeks and validation have intervals apart."""
    if min(weeks.n, validation.n) < FEWEST:
        return
    here, there = (mean_interval(each.means) for each in (weeks, validation))
    for row, title in enumerate(weeks.titles.values()):
        if here[row, 0] > there[row, 1] or here[row, 1] < there[row, 0]:
            told = [_Estimate.of(each.means[row]) for each in (weeks, validation)]
            yield f"{title}: {told[0]} in the first weeks, {told[1]} in validation."
