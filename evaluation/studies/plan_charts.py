"""A planned study as a folder: its answers, and charts of power and interval against patients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.contracts.folders import provenance
from data_prep.contracts.json_files import write_json
from evaluation.report.files import require_only
from evaluation.report.plot import Axis, Chart, Curve, Point, draw_with_legend, save_figure
from evaluation.statistics.sample_size import fewest_patients
from evaluation.studies.study_plan import Question

STORED = "plan.json"
_FIGURES = "figures"
_SHARES = (0.5, 1.0, 1.5)
"""Of the difference: whoever plans for one should see what a smaller one would take."""


def write_plan(question: Question, found: Mapping[str, Any], out: Path) -> list[Path]:
    """Write ``figures/`` and, last, ``plan.json`` into a folder that is new or of a plan.

    Args:
        question: What is asked.
        found: What `plan.json` holds.
        out: The folder.

    Returns:
        The figures, as PNG.

    Raises:
        InputError: The folder holds something else.
    """
    require_only(out, {STORED, _FIGURES}, "plan")
    figures = out / _FIGURES
    figures.mkdir(parents=True, exist_ok=True)
    drawn = []
    for chart in _charts(question):
        drawn += save_figure(draw_with_legend(chart, []), figures / f"{chart.key}.png")
    write_json(out / STORED, "plan", {**found, "provenance": provenance()})
    return [path for path in drawn if path.suffix == ".png"]


def _charts(question: Question) -> Iterator[Chart]:
    known = [row["patients"] for row in question.rows if row["patients"]]
    if not known:
        return
    fewest = min(plan.least for plan in question.plans.values())
    low, high = max(min(known) / 5, fewest, 8), max(known) * 3
    patients = np.unique(np.geomspace(low, high, 60).astype(int))
    axis = Axis("Test patients", _decades(low, high), low, high, "log")
    if question.difference is not None:
        curves = tuple(_power_curves(question, patients))
        yield Chart(
            key="power",
            title="How often the difference is shown",
            x=axis,
            y=Axis("Power"),
            curves=curves,
            guides=(((low, high), (question.power, question.power)),),
            guide_label=f"{question.power:.0%}",
            description="; ".join(question.sentences()),
        )
    widths = tuple(
        Curve(name or "planned study", at, patients.astype(float), np.array(heights))
        for at, (name, plan) in enumerate(question.plans.items())
        for heights in [[plan.study(int(n)).half_width(question.level) for n in patients]]
    )
    top = float(max(curve.y.max() for curve in widths))
    ticks = tuple((tick, f"{tick:g}".removeprefix("0") or "0") for tick in _steps(top))
    yield Chart(
        key="half_width",
        title="Half-width of the interval, on the mean",
        x=axis,
        y=Axis(f"Mean half-width of the {question.level:.0%} interval", ticks, 0.0, ticks[-1][0]),
        curves=widths,
        guides=()
        if question.half_width is None
        else (((low, high), (question.half_width, question.half_width)),),
        guide_label="" if question.half_width is None else f"{question.half_width:g}",
        description="; ".join(question.sentences()),
    )


def _power_curves(question: Question, patients: np.ndarray) -> Iterator[Curve]:
    difference = question.difference or 0.0
    several = len(question.plans) > 1
    each = [
        (name, plan, share)
        for name, plan in question.plans.items()
        for share in ((1.0,) if several else _SHARES)
    ]
    for at, (name, plan, share) in enumerate(each):
        true = difference * share
        power = [plan.study(int(n)).power(true, question.level) for n in patients]
        label = name if several else f"difference {true:g}"
        study = fewest_patients(plan, question.shows(question.power, true))
        points: tuple[Point, ...] = ()
        if study is not None and study.patients <= patients[-1]:
            points = (Point(study.patients, question.power, f"{study.patients:,} patients"),)
        figure = "" if study is None else f"({study.patients:,} patients)"
        yield Curve(label, at, patients.astype(float), np.array(power), points, figure=figure)


def _decades(low: float, high: float) -> tuple[tuple[float, str], ...]:
    """Ticks at 1, 2 and 5 times the powers of ten, fewer over many decades."""
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 100 else (1,)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    return tuple((tick, f"{tick:,.0f}") for tick in ticks if low <= tick <= high)


def _steps(top: float) -> list[float]:
    """Four or five round ticks from 0 to at least `top`."""
    size = 10.0 ** np.floor(np.log10(top))
    step = next(size * each / 10 for each in (2, 2.5, 5, 10, 20, 25) if size * each / 10 * 5 >= top)
    return [float(round(step * n, 10)) for n in range(int(np.ceil(top / step)) + 1)]
