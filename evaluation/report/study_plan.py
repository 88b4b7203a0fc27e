"""A planned study in words and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from evaluation.statistics.sample_size import PilotPlan, Plan, Study, fewest_patients

_POWERS = (0.5, 0.8, 0.9, 0.95)


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
