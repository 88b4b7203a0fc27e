"""What a monitor says: its answer in words, its page, its files, and how fast it finds a change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.evaluation.metrics.metric import inside_sentence, listing, number, span_words
from cxr_compare.evaluation.report.page import Table
from cxr_compare.evaluation.report.plot import Axis, Chart, Curve, legend_sample
from cxr_compare.evaluation.statistics.betting import change_evidence
from cxr_compare.evaluation.studies.monitoring import ERROR, FEWEST, Monitoring, Watched
from cxr_compare.evaluation.studies.study_page import Section, ShownChart, StudyPage, write_study

_MIX = "Look at who is sent now, and at sensitivity and specificity in each group."
_ADVICE = {
    "call_rate": "Look at recent calls: patients, devices or processing may have changed. Where "
    "labels of recent images show worse calls, choose the threshold again on them (cxr tune).",
    "sensitivity": "Read the missed images, and choose the threshold again on recent labels "
    "(cxr tune); until then do not rely on negative answers.",
    "specificity": "Read the false positives; choose a new threshold on recent labels (cxr tune).",
    "ppv": "Compare with call rate and specificity: the disease has become rarer or more "
    "frequent, or the calls have changed.",
    "score": "Look at recent images for exposure, inversion, cropping and processing; check that "
    "the model in use is the one that was validated.",
    "guard": "Recent images differ otherwise from those of the training: look at exposure, "
    "inversion, cropping and the devices that send them.",
    "view": "Check that the header is right; look at sensitivity and specificity in each view.",
    "sex": _MIX,
    "age_band": _MIX,
    "maker": "Devices have changed: validate the system on their images.",
    "disagreement": "Read images on which they disagree; see whose call rate has changed.",
    "failed": "Read the reasons in the server's own log: which device or format is refused?",
    "slow": "Look at the load of the machine.",
}
_HEADERS = {"view": "view", "sex": "sex", "age_band": "age", "maker": "maker"}
_IN_CSV = [
    "key",
    "title",
    "alarm",
    "evidence",
    "bound",
    "share",
    "source",
    "n_reference",
    "was_mean",
    "was_low",
    "was_high",
    "n_stream",
    "now_mean",
    "now_low",
    "now_high",
    "change_since",
    "change_since_low",
    "change_since_high",
    "change_on",
]
_MOST_TOLD = 3  # figures in the answer
_CEILING = 1e6  # of evidence in a chart
_POWERS = ((1.0, "1"), (1e2, "100"), (1e4, "10⁴"), (1e6, "10⁶"))
_STREAMS = 100
_DAILY = 25  # of a simulation: streams, and patients a day
_UNCHANGED = 500
_LONGEST = 4_000  # patients before a change, and after it


def _answer(found: Monitoring) -> str:
    """In one line whether all is quiet, or what changed."""
    told = [
        f"{inside_sentence(row.title)} from {number(row.was.mean)} to {number(row.now.mean)} "
        f"since about {row.change.since}"
        for row in found.alarms
        if row.change is not None
    ]
    if len(told) > _MOST_TOLD:
        told[_MOST_TOLD:] = [counted(len(told) - _MOST_TOLD, "further figure")]
    if told:
        return f"Changed: {'; '.join(told)}."
    if found.n_tested:
        return f"Quiet: none of {counted(found.n_tested, 'figure')} has changed."
    if found.is_blind:
        most = max((row.n_reference for row in found.rows), default=0)
        return (
            f"Nothing is tested: {counted(most, 'patient')} in the first {found.reference_days} "
            f"days are too few for a reference, {FEWEST} are needed; give a longer --first."
        )
    return "Nothing is tested yet: no answers after the reference, or too few in it."


def _alarm_words(row: Watched) -> list[str]:
    """What an alarm says: what, since when, how sure, where, what to do."""
    change = row.change
    if change is None:
        return []
    was = row.was
    now = row.now
    lines = [
        f"{number(now.mean)} now ({span_words(now.low, now.high)}), {number(was.mean)} in the "
        f"{row.source} ({span_words(was.low, was.high)}).",
        f"Since about {change.since}, likely between {change.since_low} and {change.since_high}; "
        f"alarm on {change.on}.",
        "How sure: where nothing changes, at most 1 in "
        f"{min(change.one_in, _CEILING):,.0f} monitors ever shows as much evidence of this figure. "
        "That is not the chance that this alarm is false.",
    ]
    if change.mix:
        lines.append(
            f"The changed mix by {_HEADERS[change.mix]} explains {100 * change.mix_share:.0f} % "
            "of the change (description, not tested)."
        )
    if change.groups:
        told = [
            f"{_HEADERS[group.column]} {group.group} from {number(group.before)} to "
            f"{number(group.since)} ({counted(group.n_patients, 'patient')})"
            for group in change.groups
        ]
        lines.append(f"Largest in {listing(told)} (description, not tested).")
    return [*lines, f"What to do: {_ADVICE[row.kind]}"]


def _text(found: Monitoring, delays: Sequence[_Delay]) -> str:
    """All that a terminal shows."""
    lines = [f"{_answer(found)} ({_extent(found)})"]
    for row in found.alarms:
        lines += [row.title, *(f"  {line}" for line in _alarm_words(row))]
    lines += [f"Note: {note}" for note in _notes(found)]
    return "\n".join([*lines, *map(str, delays)])


@dataclass(frozen=True)
class _Delay:
    """How fast a change would be found."""

    key: str  # of the figure
    title: str
    change: str  # in words
    was: float  # mean per patient of the reference
    becomes: float
    patients: float | None  # median from the change to the alarm; None: more than were simulated
    days: float | None  # in which as many came

    @property
    def told(self) -> str:
        """What changes, in words."""
        return f"{self.change}, {number(self.was)} to {number(self.becomes)}"

    @property
    def found_after(self) -> str:
        """In words."""
        if self.patients is None or self.days is None:
            return f"not within {_LONGEST:,} patients in most streams"
        return f"{self.patients:,.0f} patients, {self.days:,.0f} days"

    def __str__(self) -> str:
        return f"{self.title}, {self.told}: {self.found_after}"


def _simulated(found: Monitoring, seed: int = 0) -> list[_Delay]:
    """How many patients a change of each watched figure takes to be found, in the median.

    Patients of the reference are drawn anew with replacement, 500 unchanged ones and then changed
    ones: so many of them, at random, count as 1 (or as 0) that the mean changes as named.
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
            delays.append(_Delay(row.key, row.title, change, was, becomes, patients, needed))
    return delays


def _changes(row: Watched, was: float) -> Iterator[tuple[str, float]]:
    """What may become of a figure: in words, and its new mean."""
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
    row: Watched, was: float, becomes: float, rng: np.random.Generator
) -> float | None:
    drawn = rng.choice(row.values, (_STREAMS, _UNCHANGED + _LONGEST))
    up = becomes > was
    part = (becomes - was) / (1 - was) if up else (was - becomes) / max(was, 1e-9)
    changed = drawn[:, _UNCHANGED:]
    changed[rng.random(changed.shape) < part] = float(up)
    days = np.arange(len(row.values) + drawn.shape[1]) - len(row.values)
    known = np.broadcast_to(row.values, (_STREAMS, len(row.values)))
    values = np.concatenate([known, drawn], axis=1)
    evidence = change_evidence(values, np.maximum(days // _DAILY + 1, 0))
    rings = evidence * row.share >= 1
    before = _UNCHANGED // _DAILY
    rings = rings[~rings[:, :before].any(axis=1), before:]
    first = np.where(rings.any(axis=1), _DAILY * (rings.argmax(axis=1) + 1.0), np.inf)
    median = float(np.median(first))
    return median if np.isfinite(median) else None


def write_monitor(found: Monitoring, out: Path, *, simulate: bool) -> tuple[str, Path, int]:
    """Write ``monitor.prom``, ``.csv``, ``.json`` and, last, ``.html`` of what `monitor_log` found.

    Returns what a terminal shows, the page, and the exit status: 1 where something has changed, 2
    where nothing can be tested though the days of the reference are over, else 0. With `simulate`
    it says how fast a change of each figure would be found.
    """
    delays = _simulated(found) if simulate else []
    rows = [_stored(row) for row in found.rows]
    table = pd.json_normalize([row | {"change": row["change"] or {}} for row in rows], sep="_")
    stored = {
        "answer": _answer(found),
        "alarm": bool(found.alarms),
        "error": ERROR,
        **{name: fact for name, fact in vars(found).items() if name != "rows"},
        "notes": _notes(found),
        "figures": rows,
        "delays": [asdict(delay) for delay in delays],
        "provenance": provenance(),
    }
    write_text(out / "monitor.prom", _prometheus(found))
    page = _page(found, delays)
    path = write_study(out, "monitor", table.reindex(columns=_IN_CSV), stored, page)
    status = 1 if found.alarms else 2 if found.is_blind else 0
    return _text(found, delays), path, status


def _stored(row: Watched) -> dict[str, Any]:
    stored = asdict(row)
    del stored["values"]
    return stored | {"bound": row.bound, "alarm": bool(row.change), "words": _alarm_words(row)}


def _prometheus(found: Monitoring) -> str:
    """The text format of the textfile collector of node_exporter."""
    escapes = str.maketrans({"\\": r"\\", '"': r"\"", "\n": " "})
    watched = {f'{{row="{row.key.translate(escapes)}"}}': row for row in found.rows if row.share}
    last = int(pd.Timestamp(found.last_day, tz="UTC").timestamp())
    lines = []
    for name, words, samples in (
        (
            "alarm",
            "1 where the figure has changed.",
            {of: int(bool(row.change)) for of, row in watched.items()},
        ),
        (
            "evidence",
            "The highest e-value so far.",
            {of: f"{row.evidence:.6g}" for of, row in watched.items()},
        ),
        (
            "bound",
            "The e-value that raises an alarm.",
            {of: f"{row.bound:.6g}" for of, row in watched.items()},
        ),
        ("tested", "Figures that are tested; 0: nothing would be noticed.", {"": found.n_tested}),
        ("last_day_seconds", "Unix time of the last day of the log.", {"": last}),
    ):
        lines += [f"# HELP cxr_monitor_{name} {words}", f"# TYPE cxr_monitor_{name} gauge"]
        lines += [f"cxr_monitor_{name}{of} {value}" for of, value in samples.items()]
    return "\n".join([*lines, ""])


def _extent(found: Monitoring) -> str:
    images = counted(found.n_images, "image")
    patients = counted(found.n_patients, "patient")
    return f"{images} of {patients}, {found.first_day} to {found.last_day}"


def _notes(found: Monitoring) -> list[str]:
    notes = list(found.notes)
    if found.window_days > found.reference_days:
        notes.append(
            f"A patient counts once in {found.window_days} days, which is longer than the "
            f"reference of {found.reference_days}: later on only patients count who have not been "
            "there for so long, and where patients return this alone may look like a change."
        )
    if few := [inside_sentence(row.title) for row in found.rows if not row.share]:
        notes.append(f"Not watched, fewer than {FEWEST} patients in the reference: {listing(few)}.")
    if not any(row.kind == "sensitivity" and row.share for row in found.rows):
        notes.append(
            "Sensitivity is not watched (it needs --labels): whether more lesions are missed is "
            "not known, with or without an alarm."
        )
    return notes


def _page(found: Monitoring, delays: Sequence[_Delay]) -> str:
    sections = [Section("figures", "All figures", tables=[_figures(found)])]
    if delays:
        sections.append(Section("delays", "How fast a change is found", tables=[_delays(delays)]))
    page = StudyPage(
        title="Monitor",
        kicker=f"Monitor · {_extent(found)}",
        answer=_answer(found),
        scope=[
            f"Where nothing changes, the chance that this monitor ever raises an alarm, over all "
            f"figures and all time, is at most {100 * ERROR:g} %."
        ],
        notes=_notes(found),
        sections=sections,
    )
    return page.render(
        "monitor.html.jinja",
        found=found,
        alarms=[(row, _alarm_words(row), _charts(row, found)) for row in found.alarms],
        quiet=[(row, _charts(row, found)) for row in found.rows if row.share and not row.change],
        fewest=FEWEST,
    )


def _figures(found: Monitoring) -> Table:
    columns = ("Figure", "Reference", "Its patients", "Now", "Tested patients", "Evidence", "Alarm")
    rows = [
        (
            row.title,
            f"{row.was}, {row.source}",
            f"{row.n_reference:,}",
            str(row.now),
            f"{row.n_stream:,}",
            f"over {_CEILING:,.0f}" if row.evidence > _CEILING else f"{row.evidence:,.1f}",
            f"on {row.change.on}" if row.change else _bound_words(row),
        )
        for row in found.rows
    ]
    lead = (
        "Means per patient with 95 % intervals. Now: the last patients, after an alarm those since "
        "its likely start."
    )
    return Table.of("All figures", lead, columns, rows)


def _delays(delays: Sequence[_Delay]) -> Table:
    rows = [(delay.title, delay.told, delay.found_after) for delay in delays]
    lead = (
        f"Median of {_STREAMS} simulated streams that change after {_UNCHANGED} unchanged "
        f"patients, drawn from the reference, {_DAILY} a day; days at the rate of this log. A "
        "longer reference (--first) and more audited images find smaller changes."
    )
    return Table.of("How fast a change is found", lead, ("Figure", "Change", "Found after"), rows)


def _bound_words(row: Watched) -> str:
    return f"from {row.bound:,.0f} on" if row.bound else "not watched"


def _charts(row: Watched, found: Monitoring) -> Iterator[ShownChart]:
    """The course of a figure with its reference, and the evidence with its bound."""
    begin = pd.Timestamp(found.first_day)
    at = (pd.to_datetime([part.end for part in row.course]) - begin).days.to_numpy(np.float64)
    end = max(float(at[-1]), 1.0)
    dates = ((day, begin + pd.Timedelta(day, "D")) for day in (0.1 * end, 0.75 * end))
    x = Axis("Day", tuple((day, f"{date:%d %b %Y}") for day, date in dates), 0.0, end)
    means = np.array([part.mean for part in row.course], dtype=np.float64)
    low = row.was.low or 0.0
    high = 1.0 if row.was.high is None else row.was.high
    y = _share_axis(np.nanmin([*means, low]), np.nanmax([*means, high]))
    both = np.array([0.0, end])
    band = both, np.full(2, low), np.full(2, high)
    curves = (
        Curve("reference", 1, both, np.full(2, row.was.mean), band=band),
        Curve("mean per patient", 0, at, means),
    )
    key = "".join(sign if sign.isalnum() else "-" for sign in row.key)
    told = f"{row.title}: {number(row.was.mean)} in the reference, {number(row.now.mean)} now"
    weeks = [(np.full(2, found.reference_days - 0.5), [y.low, y.high])]
    in_weeks = row.source == "first weeks"
    yield ShownChart(
        Chart(
            key=f"course-{key}",
            title=row.title,
            x=x,
            y=y,
            curves=curves,
            description=told,
            guides=tuple(weeks) if in_weeks else (),
            guide_label="end of the reference" if in_weeks else "",
        ),
        [
            (legend_sample(f"course-{key}", 0), "mean per patient"),
            (
                legend_sample(f"course-{key}", 1),
                "reference; band: its 95 % interval"
                + ("; dotted: end of the first weeks" if in_weeks else ""),
            ),
        ],
    )
    evidence = np.array([part.evidence or np.nan for part in row.course]).clip(0.1, _CEILING)
    yield ShownChart(
        Chart(
            key=f"evidence-{key}",
            title="Evidence of a change",
            x=x,
            y=Axis("e-value, log scale", _POWERS, 0.1, 2 * _CEILING, "log"),
            curves=(Curve("evidence", 0, at, evidence),),
            guides=((both, np.full(2, row.bound)),),
            guide_label=f"alarm {_bound_words(row)}",
            description=f"Evidence of a change: at most {row.evidence:.3g}",
        )
    )


def _share_axis(low: float, high: float) -> Axis:
    """An axis around shares, with three to six ticks."""
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / step <= 5)
    first = np.floor(low / step + 1e-9)
    last = np.ceil(high / step - 1e-9)
    ticks = np.arange(first, max(last, first + 1) + 1) * step
    words = tuple((float(tick), f"{tick:.2f}") for tick in ticks)
    return Axis("Mean per patient", words, float(ticks[0]), float(ticks[-1]))
