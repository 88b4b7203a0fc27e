"""The files and charts of a planned study."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cxr_compare.data_prep.contracts.json_files import write_json
from cxr_compare.data_prep.contracts.output_folders import require_only_files
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.evaluation.report.study_page import (
    Axis,
    Chart,
    Curve,
    Point,
    save_chart,
)
from cxr_compare.studies.plan.sample_size import fewest_patients
from cxr_compare.studies.plan.study_plan import StudyPlan

_STORED = "plan.json"


_FIGURES = "figures"


# Shares of the difference that are drawn, so that the cost of a smaller one is seen.
_SHARES = (0.5, 1.0, 1.5)


def write_plan(plan: StudyPlan, out: Path) -> tuple[Path, ...]:
    """Draw the charts of a planned study into a folder, and write ``plan.json`` last.

    The charts are written into the subfolder ``figures``.

    Args:
        plan: Plan of a comparison of AUROCs.
        out: New folder, or a folder that contains the files of an earlier plan only.

    Returns:
        Paths of the charts as PNG files.

    Raises:
        InputError: The folder contains files that do not belong to a plan.

    Example:
        >>> import tempfile
        >>> from cxr_compare.studies.plan.plan_basis import plans_assumed
        >>> from cxr_compare.studies.plan.study_plan import plan_study
        >>> plan = plan_study(plans_assumed([0.85, 0.9], prevalence=0.3))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     figures = write_plan(plan, Path(folder))
        >>> [path.name for path in figures]
        ['power.png', 'half_width.png']
    """
    require_only_files(out, {_STORED, _FIGURES}, "plan")
    figures = out / _FIGURES
    figures.mkdir(parents=True, exist_ok=True)
    drawn = []
    for chart in _charts(plan):
        drawn += save_chart(chart, figures / f"{chart.key}.png")
    write_json(out / _STORED, "plan", {**plan.to_dict(), "provenance": provenance()})
    return tuple(path for path in drawn if path.suffix == ".png")


def _charts(question: StudyPlan) -> Iterator[Chart]:
    answers = [row["patients"] for row in question.rows if row["patients"]]
    if not answers:
        return
    fewest = min(plan.least for plan in question.basis.plans.values())
    low = max(min(answers) / 5, fewest, 8)
    high = max(answers) * 3
    patients = np.unique(np.geomspace(low, high, 60).astype(int))
    axis = Axis.log("Test patients", low, high)
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
    widths = []
    goals = [] if question.half_width is None else [question.half_width]
    for position, (name, plan) in enumerate(question.basis.plans.items()):
        heights = np.array([plan.study(int(n)).half_width(question.level) for n in patients])
        title = name or "planned study"
        widths.append(Curve(title, position, patients.astype(float), heights))
    top = float(max(curve.y.max() for curve in widths))
    ticks = tuple((tick, f"{tick:g}".removeprefix("0") or "0") for tick in _steps(top))
    yield Chart(
        key="half_width",
        title="Half-width of the interval, on the mean",
        x=axis,
        y=Axis(f"Mean half-width of the {question.level:.0%} interval", ticks, 0.0, ticks[-1][0]),
        curves=tuple(widths),
        guides=tuple(((low, high), (width, width)) for width in goals),
        guide_label="".join(f"{width:g}" for width in goals),
        description="; ".join(question.sentences()),
    )


def _power_curves(question: StudyPlan, patients: np.ndarray) -> Iterator[Curve]:
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
        points: tuple[Point, ...] = ()
        if study is not None and study.patients <= patients[-1]:
            points = (Point(study.patients, question.power, f"{study.patients:,} patients"),)
        figure = "" if study is None else f"({study.patients:,} patients)"
        heights = np.array(power)
        yield Curve(label, position, patients.astype(float), heights, points, figure=figure)


def _steps(top: float) -> list[float]:
    """Return four or five round ticks from 0 to at least `top`."""
    size = 10.0 ** np.floor(np.log10(top))
    step = next(size * n / 10 for n in (2, 2.5, 5, 10, 20, 25) if size * n / 10 * 5 >= top)
    return [float(round(step * n, 10)) for n in range(int(np.ceil(top / step)) + 1)]
