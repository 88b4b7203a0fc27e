"""The page and the files of a monitor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.evaluation.metrics.prose import inside_sentence
from cxr_compare.evaluation.report.study_page import (
    Section,
    StudyPage,
    Table,
    text_table,
    write_study,
)
from cxr_compare.hospital.monitor import monitor_sentences
from cxr_compare.hospital.monitor.detection_delay import (
    DAILY,
    STREAMS,
    UNCHANGED,
    DetectionDelay,
    simulate_delays,
)
from cxr_compare.hospital.monitor.monitor_charts import CEILING, bound_text, monitor_charts
from cxr_compare.hospital.monitor.monitor_result import (
    ERROR,
    FEWEST,
    LABELLED,
    MonitoredFigure,
    Monitoring,
)

_MOST_NAMED = 3
"""Largest number of changed figures that the answer names."""
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


@dataclass(frozen=True)
class WrittenMonitor:
    """Page that the command `cxr monitor` wrote, with the command's text and exit status.

    Attributes:
        text: Text for the terminal.
        page: Path of the page ``monitor.html``.
        status: Exit status of the command: 1 if a figure has changed, 2 if no figure is tested
            although the first days of the log, the reference, are over, else 0.
    """

    text: str
    page: Path
    status: int


def _answer(monitoring: Monitoring) -> str:
    """Return the answer in one line: that nothing has changed, or which figures have changed."""
    changed = [
        monitor_sentences.changed_figure(
            inside_sentence(figure.title), figure.was.mean, figure.now.mean, figure.change.since
        )
        for figure in monitoring.alarms
        if figure.change is not None
    ]
    if changed:
        further = max(len(changed) - _MOST_NAMED, 0)
        return monitor_sentences.changed(changed[:_MOST_NAMED], further)
    if monitoring.n_tested:
        return monitor_sentences.quiet(monitoring.n_tested)
    if monitoring.is_blind:
        most = max((figure.n_reference for figure in monitoring.rows), default=0)
        return monitor_sentences.blind(most, monitoring.reference_days, FEWEST)
    return monitor_sentences.EARLY


def _alarm_lines(figure: MonitoredFigure) -> list[str]:
    """Return the sentences on an alarm: figures, start, evidence, groups and advice."""
    change = figure.change
    if change is None:
        return []
    lines = [
        monitor_sentences.alarm_figures(figure),
        monitor_sentences.alarm_start(change),
        monitor_sentences.alarm_evidence(min(change.one_in, CEILING)),
    ]
    if change.mix:
        lines.append(monitor_sentences.alarm_mix(change.mix, change.mix_share))
    if change.groups:
        lines.append(monitor_sentences.alarm_groups(change.groups))
    return [*lines, monitor_sentences.advice(figure.kind)]


def _terminal_text(monitoring: Monitoring, delays: Sequence[DetectionDelay]) -> str:
    lines = [f"{_answer(monitoring)} ({monitor_sentences.extent(monitoring)})"]
    for figure in monitoring.alarms:
        lines.append(figure.title)
        lines += [f"  {line}" for line in _alarm_lines(figure)]
    lines += [f"Note: {note}" for note in _notes(monitoring)]
    lines += map(str, delays)
    return "\n".join(lines)


def write_monitor(monitoring: Monitoring, out: Path, *, simulate: bool) -> WrittenMonitor:
    """Write the results of the monitor of a log: as table, as JSON and as page.

    The files are ``monitor.csv``, ``monitor.json`` and, last, ``monitor.html``. With `simulate`, it
    is also simulated after how many patients a change of each figure would be found.

    Example:
        >>> import tempfile
        >>> monitoring = Monitoring((), "2026-01-01", "2026-01-31", 28, 28, 0, 0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = write_monitor(monitoring, Path(folder), simulate=False)
        >>> written.page.name, written.status
        ('monitor.html', 2)
    """
    delays = simulate_delays(monitoring) if simulate else []
    rows = [_stored(row) for row in monitoring.rows]
    table = pd.json_normalize([row | {"change": row["change"] or {}} for row in rows], sep="_")
    stored = {
        "answer": _answer(monitoring),
        "alarm": bool(monitoring.alarms),
        "error": ERROR,
        **{name: fact for name, fact in vars(monitoring).items() if name != "rows"},
        "notes": _notes(monitoring),
        "figures": rows,
        "delays": [asdict(delay) for delay in delays],
        "provenance": provenance(),
    }
    page = _page(monitoring, delays)
    path = write_study(out, "monitor", table.reindex(columns=_IN_CSV), stored, page)
    status = 0
    if monitoring.alarms:
        status = 1
    elif monitoring.is_blind:
        status = 2
    return WrittenMonitor(_terminal_text(monitoring, delays), path, status)


def _stored(row: MonitoredFigure) -> dict[str, Any]:
    stored = asdict(row)
    del stored["values"]
    return stored | {"bound": row.bound, "alarm": bool(row.change), "text": _alarm_lines(row)}


def _notes(monitoring: Monitoring) -> list[str]:
    notes = list(monitoring.notes)
    if monitoring.window_days > monitoring.reference_days:
        notes.append(
            monitor_sentences.long_window(monitoring.window_days, monitoring.reference_days)
        )
    n_unmonitored = sum(not figure.share for figure in monitoring.rows)
    if n_unmonitored:
        notes.append(monitor_sentences.not_monitored(n_unmonitored, FEWEST))
    notes += _notes_on_sensitivity(monitoring)
    return notes


def _notes_on_sensitivity(monitoring: Monitoring) -> list[str]:
    """Return the reason why sensitivity is not monitored; nothing if it is."""
    by_label = [figure for figure in monitoring.rows if figure.kind in LABELLED]
    if not by_label:
        return [monitor_sentences.NO_SENSITIVITY]
    rows = [figure for figure in by_label if figure.kind == "sensitivity"]
    if any(figure.share for figure in rows):
        return []
    positives = max((figure.n_reference for figure in rows), default=0)
    return [
        monitor_sentences.few_positives(positives, FEWEST - positives, monitoring.reference_days)
    ]


def _page(monitoring: Monitoring, delays: Sequence[DetectionDelay]) -> str:
    sections = [Section("figures", "All figures", tables=[_figures(monitoring)])]
    if delays:
        sections.append(Section("delays", "How fast a change is found", tables=[_delays(delays)]))
    page = StudyPage(
        title="Monitor",
        kicker=f"Monitor · {monitor_sentences.extent(monitoring)}",
        answer=_answer(monitoring),
        scope=[monitor_sentences.scope(ERROR)],
        notes=_notes(monitoring),
        sections=sections,
    )
    return page.render(
        Path(__file__).with_name("monitor.html.jinja"),
        monitoring=monitoring,
        alarms=[
            (row, _alarm_lines(row), monitor_charts(row, monitoring)) for row in monitoring.alarms
        ],
        quiet=[
            (row, monitor_charts(row, monitoring))
            for row in monitoring.rows
            if row.share and not row.change
        ],
        fewest=FEWEST,
    )


def _figures(monitoring: Monitoring) -> Table:
    columns = ("Figure", "Reference", "Its patients", "Now", "Tested patients", "Evidence", "Alarm")
    rows = []
    for figure in monitoring.rows:
        alarm = bound_text(figure)
        if figure.change is not None:
            alarm = f"on {figure.change.on}"
        rows.append(
            (
                figure.title,
                f"{figure.was}, {figure.source}",
                f"{figure.n_reference:,}",
                str(figure.now),
                f"{figure.n_stream:,}",
                monitor_sentences.evidence(figure.evidence, CEILING),
                alarm,
            )
        )
    return text_table("All figures", columns, rows, monitor_sentences.FIGURES_LEAD)


def _delays(delays: Sequence[DetectionDelay]) -> Table:
    rows = [(delay.title, delay.change_text, delay.delay_text) for delay in delays]
    lead = monitor_sentences.delays_lead(STREAMS, UNCHANGED, DAILY)
    columns = ("Figure", "Change", "Found after")
    return text_table("How fast a change is found", columns, rows, lead)
