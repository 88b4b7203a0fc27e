"""Sentences of a monitor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.statistics.figure_text import number, range_text
from cxr_compare.hospital.monitor.monitor_result import (
    Change,
    GroupChange,
    MonitoredFigure,
    Monitoring,
)

EARLY = "Nothing is tested yet: there are no answers after the reference, or too few in it."
NO_SENSITIVITY = (
    "Sensitivity is not monitored, because it needs --labels. If more lesions are missed, this "
    "monitor does not notice it, with or without an alarm."
)
FIGURES_LEAD = (
    "Means per patient with 95 % intervals. “Now” is the mean of the most recent patients; after "
    "an alarm, of those since its likely start."
)

_ADVICE = {
    "call_rate": "Look at recent positive calls: patients, devices or processing may have changed. "
    "If labels of recent images show worse decisions, choose the threshold again on them (cxr "
    "tune).",
    "sensitivity": "Read the missed images, and choose the threshold again on recent labels (cxr "
    "tune). Until then, do not rely on negative answers.",
    "specificity": "Read the false positives, and choose the threshold again on recent labels (cxr "
    "tune).",
    "ppv": "Compare with call rate and specificity: the disease has become rarer or more frequent, "
    "or the decisions have changed.",
    "score_mean": "Check recent images for exposure, inversion, cropping and processing, and that "
    "the model in use is the one that was validated. If they are as before, the disease has become "
    "rarer or more frequent, or more lesions are missed: label recent images, and look at "
    "sensitivity and PPV.",
    "score": "Check recent images for exposure, inversion, cropping and processing. Check that the "
    "model in use is the one that was validated.",
    "guard": "Recent images differ from the training images. Check exposure, inversion, cropping "
    "and the devices that send them.",
    "view": "Check that the header is right. Look at sensitivity and specificity in each view.",
    "sex": "Look at who is sent now, and at sensitivity and specificity in each group.",
    "age_band": "Look at who is sent now, and at sensitivity and specificity in each group.",
    "maker": "Devices have changed. Validate the system on their images.",
    "disagreement": "Read images on which the systems disagree, and see whose call rate has "
    "changed.",
    "failed": "Read the reasons in the server's own log: which device or format is refused?",
    "slow": "Check the load of the machine.",
}
"""Advice after an alarm, by the kind of the figure."""
_CHANGES = {
    "lower": "0.1 lower",
    "half_more": "increased by half",
    "prevalence": "prevalence halved",
    "tenth": "a tenth of the images more",
    "away": "changed by 0.1",
    "stuck": "stuck at one value",
    "shifted": "all scores 0.3 standard deviations higher",
    "doubled": "doubled",
    "halved": "halved",
}
_FURTHER_SYSTEMS = {
    "silent": "silent for more than a week",
    "new": "new after the reference and not monitored",
    "few": "with fewer answers, not monitored",
}


# The answer


def changed(figures: Sequence[str], further: int) -> str:
    """Name the changed figures, and the number of further ones."""
    more = f"; {counted(further, 'further figure')}" if further else ""
    return f"Changed: {'; '.join(figures)}{more}."


def changed_figure(title: str, was: float | None, now: float | None, since: str) -> str:
    """Give a changed figure before and after the change."""
    return f"{title} from {number(was)} to {number(now)} since about {since}"


def quiet(tested: int) -> str:
    """Say that nothing has changed."""
    return f"Quiet: none of {counted(tested, 'figure')} has changed."


def blind(patients: int, days: int, fewest: int) -> str:
    """Say that the reference has too few patients."""
    return (
        f"Nothing is tested: the first {days} days have {counted(patients, 'patient')}, and a "
        f"reference needs {fewest}."
    )


def extent(monitor: Monitoring) -> str:
    """Give the numbers of images and patients, and the days."""
    return (
        f"{counted(monitor.n_images, 'image')} of {counted(monitor.n_patients, 'patient')}, "
        f"{monitor.first_day} to {monitor.last_day}"
    )


def scope(error: float) -> str:
    """Give the chance of a false alarm."""
    return (
        "If nothing changes, the chance that this monitor ever raises an alarm, over all figures "
        f"and all time, is at most {100 * error:g} %."
    )


# An alarm


def alarm_figures(figure: MonitoredFigure) -> str:
    """Give a figure now and in the reference."""
    now, was = figure.now, figure.was
    return (
        f"{number(now.mean)} now ({range_text(now.low, now.high)}), {number(was.mean)} in the "
        f"{figure.source} ({range_text(was.low, was.high)})."
    )


def alarm_start(change: Change) -> str:
    """Say when a change began, and when its alarm was raised."""
    return (
        f"The change began about {change.since}, probably between {change.since_low} and "
        f"{change.since_high}. The alarm was raised on {change.on}."
    )


def alarm_evidence(one_in: float) -> str:
    """Say how rare so much evidence is without a change."""
    return (
        f"If nothing changes, at most 1 in {one_in:,.0f} monitors ever shows as much evidence for "
        "this figure. This is not the chance that this alarm is false."
    )


def alarm_mix(column: str, share: float) -> str:
    """Say how much of a change the mix of a column of the log explains."""
    return (
        f"The changed mix by {_header(column)} explains {100 * share:.0f} % of the change (a "
        "description, not a test)."
    )


def alarm_groups(groups: Sequence[GroupChange]) -> str:
    """Name the groups that changed most."""
    parts = [
        f"{_header(group.column)} {group.group} from {number(group.before)} to "
        f"{number(group.since)} ({counted(group.n_patients, 'patient')})"
        for group in groups
    ]
    return f"The change is largest in {listing(parts)} (a description, not a test)."


def _header(column: str) -> str:
    return "age" if column == "age_band" else column


def advice(kind: str) -> str:
    """Say what to do after an alarm of a kind of figure."""
    return f"What to do: {_ADVICE.get(kind, '')}".rstrip()


# Notes


def long_window(window: int, reference: int) -> str:
    """Say what a long window does."""
    return (
        f"A patient counts once in {window} days, which is longer than the reference of "
        f"{reference} days. Later, only patients count who have not been examined for that long. "
        "Where patients return, this alone may look like a change."
    )


def not_monitored(count: int, fewest: int) -> str:
    """Say how many figures have too few patients."""
    verb, them = ("is", "it") if count == 1 else ("are", "them")
    return (
        f"{counted(count, 'figure', 'have')} fewer than {fewest} patients in the reference and "
        f"{verb} not monitored. The table of all figures marks {them}."
    )


def few_positives(has: int, missing: int, days: int) -> str:
    """Say how many audited positive images are missing."""
    verb = "is" if missing == 1 else "are"
    return (
        f"Sensitivity is not monitored, because the reference, the first {days} days, has "
        f"{counted(has, 'patient')} with an audited positive image: {missing} more {verb} needed. "
        "Label more images of these days, or compare with the validation images (--reference). "
        "Until then, only the scores and the call rate can show that more lesions are missed."
    )


# Notes on the log


def lone_days(rows: int, days: Sequence[str], pause: int) -> str:
    """Say which rows before a long pause were left out."""
    when = days[0]
    if len(days) > 1:
        when = f"{counted(len(days), 'day')}, {days[0]} to {days[-1]}"
    verb, they, them = ("was", "it is", "it") if rows == 1 else ("were", "they are", "them")
    return (
        f"{counted(rows, 'row')} of {when} {verb} left out, because {they} "
        f"{counted(pause, 'day')} before all others and would be the reference. If a clock was "
        f"wrong, remove {them} from the log."
    )


def pause(first: str, last: str) -> str:
    """Ask if the log is complete."""
    return f"There is no answer from {first} to {last}. Is the log complete?"


def further_pauses(count: int) -> str:
    """Count further pauses."""
    return f"{counted(count, 'further pause')} of more than a week."


def new_system(system: str, day: str) -> str:
    """Say that a system is new."""
    return f"{system} first answered on {day}, after the reference, and is not monitored."


def few_answers(system: str, most: int) -> str:
    """Say that a system has too few answers."""
    return f"{system} is not monitored, because {most} systems have more answers in the reference."


def silent(system: str, day: str) -> str:
    """Say that a system no longer answers."""
    return f"{system} has not answered since {day}."


def new_threshold(system: str, before: float, after: float, day: str) -> str:
    """Say that a threshold changed."""
    return (
        f"The threshold of {system} changed from {before:.4g} to {after:.4g} on {day}. Figures of "
        "positive calls change with it."
    )


def further_systems(kind: Literal["silent", "new", "few"], count: int) -> str:
    """Count further systems that are not monitored, or no longer answer."""
    return f"{counted(count, 'further system')} {_FURTHER_SYSTEMS[kind]}."


def further_thresholds(count: int) -> str:
    """Count further changes of thresholds."""
    return f"{counted(count, 'further change')} of a threshold."


# Tables and charts


def evidence(value: float, ceiling: float) -> str:
    """Write the evidence of a change, up to a ceiling."""
    return f"over {ceiling:,.0f}" if value > ceiling else f"{value:,.1f}"


def bound(value: float | None) -> str:
    """Write the evidence from which an alarm is raised."""
    return f"from {value:,.0f}" if value else "not monitored"


def delays_lead(streams: int, unchanged: int, daily: int) -> str:
    """Say how delays are simulated."""
    return (
        f"Median of {streams} simulated streams that change after {unchanged} unchanged patients. "
        f"Patients are drawn from the reference, {daily} a day; days are at the rate of this log. "
        "More audited images find smaller changes."
    )


def delay_change(kind: str, was: float, becomes: float) -> str:
    """Describe a simulated change."""
    return f"{_CHANGES[kind]}, {number(was)} to {number(becomes)}"


def delay_found(patients: float | None, days: float | None, longest: int) -> str:
    """Say after how many patients and days a change is found."""
    if patients is None or days is None:
        return f"not within {longest:,} patients in most streams"
    return f"{patients:,.0f} patients, {days:,.0f} days"


REFERENCE = "reference, with its 95 % interval as a band"
