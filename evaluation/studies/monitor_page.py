"""The page and files of a monitor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.evaluation.metrics.prose import inside_sentence, listing
from cxr_compare.evaluation.report.table import Table
from cxr_compare.evaluation.statistics.figure_text import number, range_text
from cxr_compare.evaluation.studies.detection_delay import (
    DAILY,
    STREAMS,
    UNCHANGED,
    DetectionDelay,
    simulate_delays,
)
from cxr_compare.evaluation.studies.monitor_charts import CEILING, bound_text, monitor_charts
from cxr_compare.evaluation.studies.monitor_result import ERROR, FEWEST, MonitoredFigure, Monitoring
from cxr_compare.evaluation.studies.prometheus import prometheus_text
from cxr_compare.evaluation.studies.study_page import Section, StudyPage, write_study

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
            f"days are too few for a reference, {FEWEST} are needed."
        )
    return "Nothing is tested yet: no answers after the reference, or too few in it."


def _alarm_words(row: MonitoredFigure) -> list[str]:
    """What an alarm says: what, since when, how sure, where, what to do."""
    change = row.change
    if change is None:
        return []
    was = row.was
    now = row.now
    lines = [
        f"{number(now.mean)} now ({range_text(now.low, now.high)}), {number(was.mean)} in the "
        f"{row.source} ({range_text(was.low, was.high)}).",
        f"Since about {change.since}, likely between {change.since_low} and {change.since_high}; "
        f"alarm on {change.on}.",
        "How sure: where nothing changes, at most 1 in "
        f"{min(change.one_in, CEILING):,.0f} monitors ever shows as much evidence of this figure. "
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


def _text(found: Monitoring, delays: Sequence[DetectionDelay]) -> str:
    """All that a terminal shows."""
    lines = [f"{_answer(found)} ({_extent(found)})"]
    for row in found.alarms:
        lines += [row.title, *(f"  {line}" for line in _alarm_words(row))]
    lines += [f"Note: {note}" for note in _notes(found)]
    return "\n".join([*lines, *map(str, delays)])


def write_monitor(found: Monitoring, out: Path, *, simulate: bool) -> tuple[str, Path, int]:
    """Write ``monitor.prom``, ``.csv``, ``.json`` and, last, ``.html`` of what `monitor_log` found.

    Args:
        found: Result of `monitor_log`.
        out: Folder of the files.
        simulate: Also simulate how fast a change of each figure would be found.
    """
    delays = simulate_delays(found) if simulate else []
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
    write_text(out / "monitor.prom", prometheus_text(found))
    page = _page(found, delays)
    path = write_study(out, "monitor", table.reindex(columns=_IN_CSV), stored, page)
    status = 1 if found.alarms else 2 if found.is_blind else 0
    return _text(found, delays), path, status


def _stored(row: MonitoredFigure) -> dict[str, Any]:
    stored = asdict(row)
    del stored["values"]
    return stored | {"bound": row.bound, "alarm": bool(row.change), "words": _alarm_words(row)}


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


def _page(found: Monitoring, delays: Sequence[DetectionDelay]) -> str:
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
        alarms=[(row, _alarm_words(row), monitor_charts(row, found)) for row in found.alarms],
        quiet=[
            (row, monitor_charts(row, found)) for row in found.rows if row.share and not row.change
        ],
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
            f"over {CEILING:,.0f}" if row.evidence > CEILING else f"{row.evidence:,.1f}",
            f"on {row.change.on}" if row.change else bound_text(row),
        )
        for row in found.rows
    ]
    lead = (
        "Means per patient with 95 % intervals. Now: the last patients, after an alarm those since "
        "its likely start."
    )
    return Table.from_rows("All figures", lead, columns, rows)


def _delays(delays: Sequence[DetectionDelay]) -> Table:
    rows = [(delay.title, delay.told, delay.found_after) for delay in delays]
    lead = (
        f"Median of {STREAMS} simulated streams that change after {UNCHANGED} unchanged "
        f"patients, drawn from the reference, {DAILY} a day; days at the rate of this log. "
        "More audited images find smaller changes."
    )
    return Table.from_rows(
        "How fast a change is found", lead, ("Figure", "Change", "Found after"), rows
    )
