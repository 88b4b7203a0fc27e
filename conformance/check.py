"""Ask one program the figures of the cases of `figures/`, with the standard library alone.

``python -m conformance.check MODULE``, called in the folder that has `conformance/`, asks the
adapter MODULE, and ends with exit status 1 if an answer is another one or none. README.md says what
an adapter is.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conformance.cases import LEVELS, SUITE, Case, Question, questions, suite_digest

OUTCOMES = ("equal", "other", "refuses", "not offered")
Figures = Mapping[str, Callable[[Case], Any]]
"""Functions of an adapter by the name of their figure."""


@dataclass(frozen=True)
class Answer:
    """Answer of a program to a question: the outcome, and its number or exception as text."""

    question: Question
    outcome: str
    text: str

    @property
    def is_wrong(self) -> bool:
        """True for another answer and for a refusal."""
        return self.outcome in ("other", "refuses")

    def __str__(self) -> str:
        right = shown(self.question.value)
        return f"{self.question.case}: {self.question.figure} is {right}, not {self.text}"


def figures_of(module: str) -> Figures:
    """Return the functions of an adapter by its module; ValueError if it has none."""
    with contextlib.redirect_stdout(io.StringIO()):
        figures = getattr(importlib.import_module(module), "FIGURES", None)
    if figures is None:
        raise ValueError(f"{module}: has no FIGURES, functions of a case by the name of a figure")
    return figures


def answer(figures: Figures, question: Question) -> Answer:
    """Ask an adapter one question; NotImplemented is a figure that it does not offer here."""
    if question.name not in figures:
        return Answer(question, "not offered", "")
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            value = figures[question.name](question.data)
            if value is NotImplemented:
                return Answer(question, "not offered", "")
            value = None if value is None or math.isnan(value) else float(value)
    except Exception as error:  # noqa: BLE001 what it refuses is its answer
        return Answer(question, "refuses", type(error).__name__)
    return Answer(question, "equal" if question.is_equal(value) else "other", shown(value))


def shown(value: float | None) -> str:
    """Return a number as text, and None as undefined."""
    return "undefined" if value is None else f"{value:.4g}"


def table(outcomes: Iterable[tuple[Sequence[str], str]], level: str | None) -> str:
    """Return counts of outcomes of a level, or of all, by levels and outcome of each question."""
    counts: dict[str, Counter[str]] = {}
    for levels, outcome in outcomes:
        for row in (*(levels or ["no level"]), "all"):
            counts.setdefault(row, Counter())[outcome] += 1
    lines = [f"{'level':10}" + "".join(f"{outcome:>13}" for outcome in OUTCOMES)]
    for row in [level] if level else [*LEVELS, "no level", "all"]:
        count = counts.get(row, Counter())
        lines.append(f"{row:10}" + "".join(f"{count[outcome]:13}" for outcome in OUTCOMES))
    return "\n".join(lines)


def main() -> None:
    """Show the wrong answers of a program, and its outcomes by level."""
    parser = argparse.ArgumentParser(
        prog="python -m conformance.check", description="Ask a program the figures of all cases."
    )
    parser.add_argument("module", help="adapter: a module with FIGURES, as README.md says")
    parser.add_argument("--level", choices=LEVELS, help="ask what this level has, and no more")
    options = parser.parse_args()
    try:
        figures = figures_of(options.module)
        asked = [q for q in questions() if options.level in (None, *q.levels)]
    except (ImportError, ValueError) as error:
        parser.error(str(error))
    answers = [answer(figures, question) for question in asked]
    wrong = [each for each in answers if each.is_wrong]
    for each in wrong:
        print(each)
    print(f"suite {SUITE}, SHA-256 {suite_digest()}")
    outcomes = [(each.question.levels, each.outcome) for each in answers]
    print(table(outcomes, options.level))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
