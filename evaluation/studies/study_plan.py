"""A planned study in words and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from evaluation.statistics.sample_size import (
    AssumedPlan,
    CrossedPlan,
    PilotPlan,
    Plan,
    Study,
    fewest_patients,
)

_POWERS = (0.5, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Question:
    """What is asked of one planned study or of several.

    Attributes:
        difference: The true difference that is to be shown.
        half_width: Half the width that an interval is to have on the mean.
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
            each = {"plan": name, **_design(plan)}
            if (difference := self.difference) is not None:
                for power in sorted({self.power, *_POWERS}):
                    row = self._row(plan, self.shows(power, difference))
                    found.append({**each, "power": power, **row})
            if (width := self.half_width) is not None:
                row = self._row(plan, lambda study: study.half_width(self.level) <= width)
                found.append({**each, "wanted_half_width": width, **row})
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
        several = {max(row["seeds"]) > 1 for row in self.rows if "seeds" in row}
        if len(several) == 2:
            yield (
                "With one seed the result is for these trained models alone, with several for the "
                "way in which they were trained"
            )

    def _in_words(self, row: Mapping[str, Any]) -> str:
        shown = "power" in row
        if row["patients"] is None:
            wanted = "shows the difference so often" if shown else "makes the interval so short"
            return (
                f"no number of patients {wanted}: trainings or readers alone differ too much; plan "
                "for more of them"
            )
        who = f"{row['patients']:,} test patients, {row['positives']:,} of them positive"
        if not row["plan"]:  # whose name would tell
            who += _design_in_words(row)
        interval = f"{self.level:.0%} interval"
        if shown:
            text = (
                f"a true difference of {self.difference:g} is shown in {self.power:.0%} of studies "
                f"with {who}; the {interval} then has a half-width of {row['half_width']:.3f} on "
                "the mean"
            )
        else:
            text = f"the {interval} has a half-width of {self.half_width:g} on the mean with {who}"
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


def _design(plan: Plan) -> dict[str, Any]:
    """What a planned study has besides patients; seeds of each system."""
    if isinstance(plan, AssumedPlan):
        seeds = [plan.seeds] * len(plan.aurocs)
        return {"images_of_a_patient": plan.images, "seeds": seeds}
    if isinstance(plan, PilotPlan):
        return {"images_of_a_patient": plan.images, "seeds": plan.seeds}
    return {"readers": plan.readers} if isinstance(plan, CrossedPlan) else {}


def _design_in_words(row: Mapping[str, Any]) -> str:
    if "readers" in row:
        return f", read by {row['readers']} readers"
    images, seeds = row["images_of_a_patient"], list(dict.fromkeys(row["seeds"]))
    each = "1 image each" if images == 1 else f"{images:.3g} images each"
    return f", {each}" + (f", {' and '.join(map(str, seeds))} seeds" if seeds != [1] else "")
