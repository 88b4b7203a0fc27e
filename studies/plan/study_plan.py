"""A planned study: the number of patients that answers a question."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isclose
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.notebook import ShownAsText, html_lines, html_records
from cxr_compare.evaluation.statistics.intervals import LEVEL
from cxr_compare.studies.plan import plan_sentences
from cxr_compare.studies.plan.binormal import obuchowski_positives
from cxr_compare.studies.plan.plan_basis import PlanBasis
from cxr_compare.studies.plan.sample_size import (
    AssumedPlan,
    PilotPlan,
    Plan,
    PlannedStudy,
    fewest_patients,
)

_POWER = 0.8


def _protocol_text(plan: AssumedPlan, number: str, power: float, level: float) -> str:
    """Return which number to write into the protocol, and the number that published tables give."""
    positives = obuchowski_positives(
        plan.aurocs,
        correlation=plan.correlation,
        negatives_per_positive=(1 - plan.prevalence) / plan.prevalence,
        power=power,
        level=level,
    )
    return plan_sentences.protocol(number, round(positives / plan.prevalence), round(positives))


@dataclass(frozen=True, repr=False)
class StudyPlan(ShownAsText):
    """Number of patients that a planned study needs, under one or several sets of assumptions.

    The study estimates an AUROC or compares two. A plan computes the precision of the study for any
    number of patients.

    Attributes:
        difference: Difference of two AUROCs that the study must show; None if it need not show a
            difference.
        half_width: Largest allowed mean half-width of the confidence interval; None if there is no
            such limit.
        power: Probability with which the study must show the difference, in (0, 1).
        level: Coverage of the interval, in (0, 1), such as 0.95. The test has the significance
            level 1 - `level`.
        basis: Plans, with the assumptions or the pilot study they come from.
        figures: Paths of the charts that were drawn; empty before.
    """

    difference: float | None
    half_width: float | None
    power: float
    level: float
    basis: PlanBasis
    figures: tuple[Path, ...] = ()

    def __str__(self) -> str:
        lines = list(self.sentences())
        first = self.basis.first
        assumed = self.basis.difference
        own_difference = isclose(self.difference or assumed, assumed)
        answered = all(row["patients"] for row in self.rows)
        if isinstance(first, AssumedPlan) and assumed and own_difference and answered:
            several_plans = len(self.basis.plans) > 1
            number = plan_sentences.protocol_number(self.half_width is not None, several_plans)
            lines.append(_protocol_text(first, number, self.power, self.level))
        lines += [plan_sentences.figure_line(path) for path in self.figures]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return html_records(self.rows) + html_lines(str(self))

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Needed numbers of patients, as one dictionary for each plan and requirement.

        A requirement is a difference to show or a half-width of the interval to reach. The keys are
        ``plan`` (name of the plan, which may be empty); numbers of the design, such as ``seeds`` or
        ``readers``; the requirement, ``power`` or ``wanted_half_width``; ``patients`` (needed
        number of patients, None if no number is enough); and, if there is such a number,
        ``positives``, ``standard_error``, ``half_width`` and, with a pilot study,
        ``patients_range`` (95 % range of the needed number).
        """
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
        """Return a function that is True for a planned study that shows a difference often enough.

        To show a difference means that the two-sided test of the study is significant; that must
        have at least the probability `power`.
        """
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
        if isinstance(plan, PilotPlan):  # the variance of a pilot is itself an estimate
            ends = [fewest_patients(plan.scaled(by), enough) for by in plan.variance_range()]
            row["patients_range"] = [None if end is None else end.patients for end in ends]
        return row

    def sentences(self) -> Iterator[str]:
        """Yield the needed numbers of patients as sentences, then the assumptions."""
        for row in self.rows:
            yield plan_sentences.plan_answer(row["plan"], self._answer(row))
        several = {max(row["seeds"]) > 1 for row in self.rows if "seeds" in row}
        if len(several) == 2:
            yield plan_sentences.SEVERAL_SEEDS
        yield from self.basis.notes

    def _answer(self, row: Mapping[str, Any]) -> str:
        of_difference = "power" in row
        if row["patients"] is None:
            return plan_sentences.NEVER_SHOWN if of_difference else plan_sentences.NEVER_SHORT
        design = "" if row["plan"] else _design_text(row)  # the name of a plan states its design
        patients = plan_sentences.patients(row["patients"], row["positives"], design)
        if of_difference:
            text = plan_sentences.power(
                self.difference, self.power, patients, self.level, row["half_width"]
            )
        else:
            text = plan_sentences.half_width(self.half_width, patients, self.level)
        if "patients_range" in row:
            text = plan_sentences.uncertain(text, *row["patients_range"])
        return text

    def to_dict(self) -> dict[str, Any]:
        """Return the requirements and the needed numbers of patients, as in ``plan.json``."""
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
    """Plan how many patients a study needs to show a difference or to reach a precision.

    `difference` is the smallest that matters; None takes that of the two assumed AUROCs.
    `half_width` is the largest allowed one of the confidence interval, on average. `power` is 0.8
    if None. The plan computes the numbers of patients when they are first read. Raises InputError
    if neither a difference nor a half-width is given, a difference is given for one system, or a
    power without a difference.
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
    """Return the numbers of a planned study other than the number of patients."""
    if isinstance(plan, AssumedPlan):
        seeds = [plan.seeds] * len(plan.aurocs)
        return {"images_of_a_patient": plan.images, "seeds": seeds}
    if isinstance(plan, PilotPlan):
        return {"images_of_a_patient": plan.images, "seeds": plan.seeds}
    return {"readers": plan.readers}


def _design_text(row: Mapping[str, Any]) -> str:
    if "readers" in row:
        return plan_sentences.design_of_readers(row["readers"])
    seeds = list(dict.fromkeys(row["seeds"]))
    return plan_sentences.design_of_images(row["images_of_a_patient"], seeds)
