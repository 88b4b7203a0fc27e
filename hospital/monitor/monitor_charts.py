"""Charts of a monitored figure: its values over time, and the evidence of a change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cxr_compare.evaluation.report.study_page import (
    GUIDE,
    ShownChart,
    add_legend,
    draw_band,
    draw_line,
    line_style,
    new_chart,
)
from cxr_compare.evaluation.statistics.figure_text import number
from cxr_compare.hospital.monitor import monitor_sentences
from cxr_compare.hospital.monitor.monitor_result import MonitoredFigure, Monitoring

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CEILING = 1e6  # largest evidence that a chart shows


_POWERS = {1.0: "1", 1e2: "100", 1e4: "10⁴", 1e6: "10⁶"}


def bound_text(row: MonitoredFigure) -> str:
    """Return the evidence at which a monitored figure raises an alarm, such as "from 48".

    The evidence is an e-value. The text is "not monitored" if no alarm can be raised.
    """
    return monitor_sentences.bound(row.bound)


def monitor_charts(row: MonitoredFigure, monitoring: Monitoring) -> Iterator[ShownChart]:
    """Draw two charts of a monitored figure: its mean over time, and the evidence of a change.

    The first chart also shows the mean in the reference (the first weeks of the log). The second
    one shows the evidence from which an alarm is raised. The days of the log are those of
    `monitoring`.
    """
    begin = pd.Timestamp(monitoring.first_day)
    at = (pd.to_datetime([part.end for part in row.course]) - begin).days.to_numpy(np.float64)
    end = max(float(at[-1]), 1.0)
    means = np.array([part.mean for part in row.course], dtype=np.float64)
    low = row.was.low or 0.0
    high = 1.0 if row.was.high is None else row.was.high
    both = [0.0, end]
    figure, axes = new_chart(row.title, "Day", "Mean per patient")
    draw_band(axes, both, [low, low], [high, high], 1)
    draw_line(axes, at, means, **line_style(0), label="mean per patient")
    of_reference = monitor_sentences.REFERENCE
    draw_line(axes, both, [row.was.mean] * 2, **line_style(1), label=of_reference)
    if row.source == "first weeks":
        border = monitoring.reference_days - 0.5
        axes.axvline(border, **GUIDE, label="end of the first weeks")
    _share_axis(axes, np.nanmin([*means, low]), np.nanmax([*means, high]))
    _day_axis(axes, begin, end)
    add_legend(axes)
    was, now = number(row.was.mean), number(row.now.mean)
    yield ShownChart(figure, description=f"{was} in the reference, {now} now")
    evidence = np.array([part.evidence or np.nan for part in row.course]).clip(0.1, CEILING)
    figure, axes = new_chart("Evidence of a change", "Day", "e-value, log scale")
    axes.set(yscale="log", ylim=(0.1, 2 * CEILING))
    axes.set_yticks(list(_POWERS), list(_POWERS.values()))
    axes.minorticks_off()
    draw_line(axes, at, evidence, **line_style(0), label="evidence")
    if row.bound is not None:
        axes.axhline(row.bound, **GUIDE, label=f"alarm {bound_text(row)}")
    _day_axis(axes, begin, end)
    add_legend(axes)
    yield ShownChart(figure, description=f"at most {row.evidence:.3g}")


def _day_axis(axes: Axes, begin: pd.Timestamp, end: float) -> None:
    """Let an axis of days go from the first day of the log to its last, with two dates."""
    days = [0.1 * end, 0.75 * end]
    axes.set(xlim=(0.0, end))
    axes.set_xticks(days, [f"{begin + pd.Timedelta(day, 'D'):%d %b %Y}" for day in days])


def _share_axis(axes: Axes, low: float, high: float) -> None:
    """Let the y axis of a plot lie around shares, with three to six ticks."""
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / step <= 5)
    first = np.floor(low / step + 1e-9)
    last = np.ceil(high / step - 1e-9)
    ticks = np.arange(first, max(last, first + 1) + 1) * step
    axes.set(ylim=(ticks[0], ticks[-1]))
    axes.set_yticks(ticks, [f"{tick:.2f}" for tick in ticks])
