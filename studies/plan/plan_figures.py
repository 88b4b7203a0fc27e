"""The files and charts of a planned study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxr_compare.data_prep.contracts.output_folders import require_only_files
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.contracts.records import write_json
from cxr_compare.evaluation.report.study_page import (
    GUIDE,
    add_legend,
    draw_line,
    line_style,
    log_axis,
    marker_style,
    new_chart,
    save_chart,
    share_axis,
)
from cxr_compare.studies.plan.sample_size import fewest_patients
from cxr_compare.studies.plan.study_plan import StudyPlan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STORED = "plan.json"


_FIGURES = "figures"


# Shares of the difference that are drawn, so that the cost of a smaller one is seen.
_SHARES = (0.5, 1.0, 1.5)


def write_plan(plan: StudyPlan, out: Path) -> tuple[Path, ...]:
    """Draw the charts of a planned study into a folder, and write ``plan.json`` last.

    The charts lie in the subfolder ``figures`` as SVG, whose paths are returned, and PDF. The
    folder is new or contains files of an earlier plan only; else InputError is raised.
    """
    require_only_files(out, {_STORED, _FIGURES}, "plan")
    figures = out / _FIGURES
    figures.mkdir(parents=True, exist_ok=True)
    drawn = []
    answers = [row["patients"] for row in plan.rows if row["patients"]]
    if answers:
        fewest = min(each.least for each in plan.basis.plans.values())
        ends = max(min(answers) / 5, fewest, 8), max(answers) * 3
        if plan.difference is not None:
            drawn += save_chart(_power_chart(plan, *ends), figures / "power.svg")
        drawn += save_chart(_width_chart(plan, *ends), figures / "half_width.svg")
    write_json(out / _STORED, "plan", {**plan.to_dict(), "provenance": provenance()})
    return tuple(path for path in drawn if path.suffix == ".svg")


def _patients(low: float, high: float) -> np.ndarray:
    return np.unique(np.geomspace(low, high, 60).astype(int))


def _power_chart(question: StudyPlan, low: float, high: float) -> Figure:
    """Draw how often a difference is shown, by the number of test patients."""
    figure, axes = new_chart("How often the difference is shown", "Test patients", "Power")
    _draw_power(axes, question, _patients(low, high))
    goal = question.power
    axes.plot([low, high], [goal, goal], **GUIDE, label=f"{goal:.0%}")
    log_axis(axes, "x", low, high)
    share_axis(axes, "y")
    add_legend(axes)
    return figure


def _width_chart(question: StudyPlan, low: float, high: float) -> Figure:
    """Draw the mean half-width of the interval, by the number of test patients."""
    figure, axes = new_chart(
        "Half-width of the interval, on the mean",
        "Test patients",
        f"Mean half-width of the {question.level:.0%} interval",
    )
    patients = _patients(low, high)
    top = 0.0
    for position, (name, plan) in enumerate(question.basis.plans.items()):
        widths = np.array([plan.study(int(n)).half_width(question.level) for n in patients])
        top = max(top, float(widths.max()))
        label = name or "planned study"
        draw_line(axes, patients, widths, **line_style(position), label=label)
    goal = question.half_width
    if goal is not None:
        axes.plot([low, high], [goal, goal], **GUIDE, label=f"{goal:g}")
    ticks = _steps(top)
    log_axis(axes, "x", low, high)
    axes.set(ylim=(0.0, ticks[-1]))
    axes.set_yticks(ticks, [f"{tick:g}".removeprefix("0") or "0" for tick in ticks])
    add_legend(axes)
    return figure


def _draw_power(axes: Axes, question: StudyPlan, patients: Sequence[int] | np.ndarray) -> None:
    difference = question.difference or 0.0
    several = len(question.basis.plans) > 1
    shown = [
        (name, plan, share)
        for name, plan in question.basis.plans.items()
        for share in ((1.0,) if several else _SHARES)
    ]
    for position, (name, plan, share) in enumerate(shown):
        true_difference = difference * share
        power = [plan.study(int(n)).power(true_difference, question.level) for n in patients]
        label = name if several else f"difference {true_difference:g}"
        study = fewest_patients(plan, question.shows(question.power, true_difference))
        if study is not None:
            label = f"{label} ({study.patients:,} patients)"
            if study.patients <= patients[-1]:
                dot = marker_style(".", line_style(position)["color"])
                axes.plot([study.patients], [question.power], **dot)
        draw_line(axes, patients, power, **line_style(position), label=label)


def _steps(top: float) -> list[float]:
    """Return four or five round ticks from 0 to at least `top`."""
    size = 10.0 ** np.floor(np.log10(top))
    step = next(size * n / 10 for n in (2, 2.5, 5, 10, 20, 25) if size * n / 10 * 5 >= top)
    return [float(round(step * n, 10)) for n in range(int(np.ceil(top / step)) + 1)]
