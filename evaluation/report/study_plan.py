"""A planned study in words, as JSON, and as pictures: power and interval against patients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.contracts.folders import provenance
from data_prep.contracts.json_files import write_json
from evaluation.report.files import require_only
from evaluation.report.plot import Axis, Chart, Curve, Point, draw_with_legend, save_figure
from evaluation.statistics.sample_size import PilotPlan, Plan, Study, fewest_patients

STORED = "plan.json"
_PICTURES = "figures"
_POWERS = (0.5, 0.8, 0.9, 0.95)
_SHARES = (0.5, 1.0, 1.5)
"""Of the difference: whoever plans for one should see what a smaller one would take."""


@dataclass(frozen=True)
class Question:
    """What is asked of one planned study or of several.

    Attributes:
        difference: The true difference that is to be shown.
        half_width: How far an interval is to reach to either side.
        power: How often the difference is to be shown.
        level: Coverage of the interval; ``1 - alpha`` of the test.
        plans: By name; one alone has an empty name.
    """

    difference: float | None
    half_width: float | None
    power: float
    level: float
    plans: Mapping[str, Plan]

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """An answer for each plan, and for the difference at other powers, too."""
        found: list[dict[str, Any]] = []
        for name, plan in self.plans.items():
            if (difference := self.difference) is not None:
                for power in sorted({self.power, *_POWERS}):
                    row = self._row(plan, self.shows(power, difference))
                    found.append({"plan": name, "power": power, **row})
            if (width := self.half_width) is not None:
                row = self._row(plan, lambda study: study.half_width(self.level) <= width)
                found.append({"plan": name, "wanted_half_width": width, **row})
        return found

    def shows(self, power: float, difference: float) -> Callable[[Study], bool]:
        """Whether a difference of this size is shown so often."""
        return lambda study: study.power(difference, self.level) >= power

    def _row(self, plan: Plan, enough: Callable[[Study], bool]) -> dict[str, Any]:
        study = fewest_patients(plan, enough)
        if study is None:
            return {"patients": None}
        row: dict[str, Any] = {
            "patients": study.patients,
            "positives": study.positives,
            "standard_error": study.error,
            "half_width": study.half_width(self.level),
        }
        if isinstance(plan, PilotPlan):  # which is not sure of its own variance
            ends = [fewest_patients(plan.scaled(each), enough) for each in plan.variance_range()]
            row["patients_range"] = [None if end is None else end.patients for end in ends]
        return row

    def sentences(self) -> Iterator[str]:
        """Each answer in words; of the powers the one that was asked for."""
        for row in self.rows:
            if row.get("power", self.power) != self.power:
                continue
            text = (f"{row['plan']}: " if row["plan"] else "") + self._in_words(row)
            yield text[0].upper() + text[1:]

    def _in_words(self, row: Mapping[str, Any]) -> str:
        shown = "power" in row
        if row["patients"] is None:
            wanted = "shows the difference so often" if shown else "makes the interval so short"
            return (
                f"no number of patients {wanted}: trainings or readers alone differ too much; plan "
                "for more of them"
            )
        who = f"{row['patients']:,} test patients, {row['positives']:,} of them positive"
        interval = f"{self.level:.0%} interval"
        if shown:
            text = (
                f"a true difference of {self.difference:g} is shown in {self.power:.0%} of studies "
                f"with {who}; the {interval} then reaches {row['half_width']:.3f} to either side"
            )
        else:
            text = f"the {interval} reaches {self.half_width:g} to either side with {who}"
        if "patients_range" in row:
            low, high = (f"{each:,}" if each else "no number" for each in row["patients_range"])
            text += f". The pilot is not sure of its variance: from {low} to {high} patients"
        return text

    def to_json(self) -> dict[str, Any]:
        """The question and its answers."""
        return {
            "difference": self.difference,
            "half_width": self.half_width,
            "power": self.power,
            "level": self.level,
            "answer": list(self.sentences()),
            "studies": self.rows,
        }


def write_plan(question: Question, found: Mapping[str, Any], out: Path) -> list[Path]:
    """Write ``figures/`` and, last, ``plan.json`` into a folder that is new or of a plan.

    Args:
        question: What is asked.
        found: What `plan.json` holds.
        out: The folder.

    Returns:
        The pictures, as PNG.

    Raises:
        InputError: The folder holds something else.
    """
    require_only(out, {STORED, _PICTURES}, "plan")
    pictures = out / _PICTURES
    pictures.mkdir(parents=True, exist_ok=True)
    drawn = []
    for chart in _charts(question):
        drawn += save_figure(draw_with_legend(chart, []), pictures / f"{chart.key}.png")
    write_json(out / STORED, "plan", {**found, "provenance": provenance()})
    return [path for path in drawn if path.suffix == ".png"]


def _charts(question: Question) -> Iterator[Chart]:
    known = [row["patients"] for row in question.rows if row["patients"]]
    if not known:
        return
    low, high = max(min(known) / 5, 8), max(known) * 3
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
        title="How far the interval reaches to either side",
        x=axis,
        y=Axis(f"Half the {question.level:.0%} interval", ticks, 0.0, ticks[-1][0]),
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
        yield Curve(label, at, patients.astype(float), np.array(power), points)


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
