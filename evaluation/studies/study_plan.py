"""A planned study: numbers of patients that answer the question."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isclose
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.notebook import ShownAsText, html_lines, html_records
from cxr_compare.evaluation.statistics.binormal import obuchowski_positives
from cxr_compare.evaluation.statistics.intervals import LEVEL
from cxr_compare.evaluation.statistics.sample_size import (
    AssumedPlan,
    PilotPlan,
    Plan,
    PlannedStudy,
    fewest_patients,
)
from cxr_compare.evaluation.studies.plan_basis import PlanBasis
from cxr_compare.evaluation.studies.study_sentences import study_sentence

_POWER = 0.8


def _sentence(macro: str, *values: Any) -> str:
    return study_sentence("plan", macro, *values)


def _protocol_text(plan: AssumedPlan, number: str, power: float, level: float) -> str:
    """Return which number to take, and the number that published tables ask for."""
    positives = obuchowski_positives(
        plan.aurocs,
        correlation=plan.correlation,
        negatives_per_positive=(1 - plan.prevalence) / plan.prevalence,
        power=power,
        level=level,
    )
    return _sentence("protocol", number, round(positives / plan.prevalence), round(positives))


@dataclass(frozen=True, repr=False)
class StudyPlan(ShownAsText):
    """Question of a planned study, with its answers for one plan or several."""

    difference: float | None
    half_width: float | None
    power: float
    level: float  # coverage of the interval; 1 - alpha of the test
    basis: PlanBasis
    figures: tuple[Path, ...] = ()  # drawn of it

    def __str__(self) -> str:
        lines = list(self.sentences())
        first = self.basis.first
        assumed = self.basis.difference
        own_difference = isclose(self.difference or assumed, assumed)
        answered = all(row["patients"] for row in self.rows)
        if isinstance(first, AssumedPlan) and assumed and own_difference and answered:
            several_plans = len(self.basis.plans) > 1
            number = _sentence("protocol_number", self.half_width is not None, several_plans)
            lines.append(_protocol_text(first, number, self.power, self.level))
        lines += [_sentence("figure_line", path) for path in self.figures]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return html_records(self.rows) + html_lines(str(self))

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Answers, one for each plan."""
        rows: list[dict[str, Any]] = []
        for name, plan in self.basis.plans.items():
            design = {"plan": name, **_design(plan)}
            if (difference := self.difference) is not None:
                row = self._row(plan, self.shows(self.power, difference))
                rows.append({**design, "power": self.power, **row})
            if (width := self.half_width) is not None:
                row = self._row(plan, lambda study: study.half_width(self.level) <= width)
                rows.append({**design, "wanted_half_width": width, **row})
        return rows

    def shows(self, power: float, difference: float) -> Callable[[PlannedStudy], bool]:
        """Return the condition that a difference is shown with this power."""
        return lambda study: study.power(difference, self.level) >= power

    def _row(self, plan: Plan, enough: Callable[[PlannedStudy], bool]) -> dict[str, Any]:
        study = fewest_patients(plan, enough)
        if study is None:
            return {"patients": None}
        row: dict[str, Any] = {
            "patients": study.patients,
            "positives": study.positives,
            "standard_error": study.error,
            "half_width": study.half_width(self.level),
        }
        if isinstance(plan, PilotPlan):  # its variance is itself an estimate
            ends = [fewest_patients(plan.scaled(by), enough) for by in plan.variance_range()]
            row["patients_range"] = [None if end is None else end.patients for end in ends]
        return row

    def sentences(self) -> Iterator[str]:
        """Return each answer as a sentence, then the assumptions."""
        for row in self.rows:
            yield _sentence("plan_answer", row["plan"], self._answer(row))
        several = {max(row["seeds"]) > 1 for row in self.rows if "seeds" in row}
        if len(several) == 2:
            yield _sentence("several_seeds")
        yield from self.basis.notes

    def _answer(self, row: Mapping[str, Any]) -> str:
        of_difference = "power" in row
        if row["patients"] is None:
            return _sentence("never_shown" if of_difference else "never_short")
        design = "" if row["plan"] else _design_text(row)  # the name of a plan has its design
        patients = _sentence("patients", row["patients"], row["positives"], design)
        if of_difference:
            text = _sentence(
                "power", self.difference, self.power, patients, self.level, row["half_width"]
            )
        else:
            text = _sentence("half_width", self.half_width, patients, self.level)
        if "patients_range" in row:
            text = _sentence("uncertain", text, *row["patients_range"])
        return text

    def to_dict(self) -> dict[str, Any]:
        """Return question and answers, as `plan.json` holds them."""
        return {
            "basis": dict(self.basis.facts),
            "difference": self.difference,
            "half_width": self.half_width,
            "power": self.power,
            "level": self.level,
            "answer": list(self.sentences()),
            "studies": self.rows,
        }


def plan_study(
    basis: PlanBasis,
    difference: float | None = None,
    half_width: float | None = None,
    power: float | None = None,
    level: float = LEVEL,
) -> StudyPlan:
    """Ask for the number of patients that shows a difference, or makes an interval short enough.

    Args:
        basis: One plan or several.
        difference: Smallest difference that matters; that of two assumed AUROCs if left out.
        half_width: Half-width of the interval, on average.
        power: Share of studies that show the difference.
        level: Coverage of the interval.

    Returns:
        The plan, which computes its figures when they are read.

    Raises:
        InputError: Nothing is asked, or a difference is asked for one system.
    """
    difference = difference or basis.difference or None
    if not basis.compares and difference is not None:
        raise InputError("plan: one system has no difference; give two, or --half-width alone")
    if difference is None and half_width is None:
        option = (
            "--difference, the smallest that would matter" if basis.compares else "--half-width"
        )
        raise InputError(f"plan: give {option}")
    if difference is None and power is not None:
        raise InputError("plan --power: is for a difference; give --difference, or leave it out")
    return StudyPlan(difference, half_width, power or _POWER, level, basis)


def _design(plan: Plan) -> dict[str, Any]:
    """Return what a planned study has besides patients."""
    if isinstance(plan, AssumedPlan):
        seeds = [plan.seeds] * len(plan.aurocs)
        return {"images_of_a_patient": plan.images, "seeds": seeds}
    if isinstance(plan, PilotPlan):
        return {"images_of_a_patient": plan.images, "seeds": plan.seeds}
    return {"readers": plan.readers}


def _design_text(row: Mapping[str, Any]) -> str:
    if "readers" in row:
        return _sentence("design", row["readers"], None, None)
    seeds = list(dict.fromkeys(row["seeds"]))
    return _sentence("design", None, row["images_of_a_patient"], seeds)
