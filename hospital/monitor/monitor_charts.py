"""Charts of a monitored figure: its values over time, and the evidence of a change."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from cxr_compare.evaluation.report.study_page import Axis, Chart, Curve, ShownChart
from cxr_compare.evaluation.statistics.figure_text import number
from cxr_compare.hospital.monitor import monitor_sentences
from cxr_compare.hospital.monitor.monitor_result import MonitoredFigure, Monitoring

CEILING = 1e6  # largest evidence that a chart shows


_POWERS = ((1.0, "1"), (1e2, "100"), (1e4, "10⁴"), (1e6, "10⁶"))


def bound_text(row: MonitoredFigure) -> str:
    """Return the evidence at which a monitored figure raises an alarm, as the text of a table.

    Args:
        row: A monitored figure, such as the call rate.

    Returns:
        The text, such as "from 48" (the evidence is an e-value); "not monitored" if no alarm can be
        raised.

    Example:
        >>> from cxr_compare.hospital.monitor.monitor_result import MeanInterval
        >>> row = MonitoredFigure(
        ...     key="call_rate",
        ...     kind="call_rate",
        ...     title="Call rate",
        ...     share=0.005,
        ...     source="first weeks",
        ...     n_reference=2,
        ...     was=MeanInterval(0.5),
        ...     n_stream=0,
        ...     now=MeanInterval(),
        ...     evidence=1.0,
        ...     change=None,
        ...     course=(),
        ...     values=np.array([0.0, 1.0]),
        ... )
        >>> bound_text(row)
        'from 200'
    """
    return monitor_sentences.bound(row.bound)


def monitor_charts(row: MonitoredFigure, monitoring: Monitoring) -> Iterator[ShownChart]:
    """Draw two charts of a monitored figure: its mean over time, and the evidence of a change.

    The first chart also shows the mean in the reference (the first weeks of the log). The second
    one shows the evidence from which an alarm is raised.

    Args:
        row: The monitored figure, such as the call rate.
        monitoring: Result of `hospital.monitor.monitoring.monitor_log`, which has the days of the
            log.

    Yields:
        The chart of the means with a legend, then the chart of the evidence.
    """
    begin = pd.Timestamp(monitoring.first_day)
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
    was, now = number(row.was.mean), number(row.now.mean)
    description = f"{row.title}: {was} in the reference, {now} now"
    weeks = [(np.full(2, monitoring.reference_days - 0.5), [y.low, y.high])]
    in_weeks = row.source == "first weeks"
    yield ShownChart(
        Chart(
            key=f"course-{key}",
            title=row.title,
            x=x,
            y=y,
            curves=curves,
            description=description,
            guides=tuple(weeks) if in_weeks else (),
            guide_label="end of the reference" if in_weeks else "",
        ),
        ["mean per patient", monitor_sentences.reference_legend(in_weeks)],
    )
    evidence = np.array([part.evidence or np.nan for part in row.course]).clip(0.1, CEILING)
    yield ShownChart(
        Chart(
            key=f"evidence-{key}",
            title="Evidence of a change",
            x=x,
            y=Axis("e-value, log scale", _POWERS, 0.1, 2 * CEILING, "log"),
            curves=(Curve("evidence", 0, at, evidence),),
            guides=((both, np.full(2, row.bound)),),
            guide_label=f"alarm {bound_text(row)}",
            description=f"Evidence of a change: at most {row.evidence:.3g}",
        )
    )


def _share_axis(low: float, high: float) -> Axis:
    """Return an axis around shares with three to six ticks."""
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / step <= 5)
    first = np.floor(low / step + 1e-9)
    last = np.ceil(high / step - 1e-9)
    ticks = np.arange(first, max(last, first + 1) + 1) * step
    labels = tuple((float(tick), f"{tick:.2f}") for tick in ticks)
    return Axis("Mean per patient", labels, float(ticks[0]), float(ticks[-1]))
