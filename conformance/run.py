"""Ask programs the figures of the cases of `figures/`, and show who answers what.

In a clone with the environment of ``scripts/test``, ``.venv/bin/pip install --no-deps -r
conformance/requirements.txt`` brings the programs, and ``.venv/bin/python -m conformance.run
[PROGRAM ...]`` asks those that are named as files of `adapters/`, or all that are installed. With
``--page docs/peers.md`` the tables after the marker in that file are written anew; without it
further ones are shown, to the single answer.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from conformance.cases import LEVELS, Question, questions
from conformance.check import Answer, answer, figures_of, shown

FOLDER = Path(__file__).parent
MARKER = "<!-- answers of python -m conformance.run -->"
TITLES = {
    "ap50": "AP50",
    "ap": "AP",
    "froc_mean": "FROC",
    "pointing_accuracy": "pointing",
    "rsna_score": "RSNA score",
    "auroc": "AUROC",
    "macro_auroc": "mean AUROC",
    "average_precision": "average precision",
    "recall": "recall",
    "specificity": "specificity",
    "precision": "precision",
    "npv": "NPV",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "mcc": "MCC",
    "brier": "Brier score",
    "auroc_low": "interval of an AUROC",
    "auroc_difference": "difference of AUROCs",
    "auroc_difference_se": "standard error of a difference",
    "auroc_difference_low": "interval of a difference",
    "auroc_difference_p": "p of two AUROCs",
    "average_precision_low": "intervals by bootstrap",
}
"""Titles on the page of what programs have, by the name of a figure."""
COLUMNS = ("counted", "other rule", "undefined", "refused")
"""Columns of the page, in one of which each answer that is not equal is counted."""


@dataclass(frozen=True)
class Reason:
    """Reason of other answers: a rule, where it is stated, who follows it, and what it gives."""

    rule: str
    stated: str
    programs: list[str]
    answers: dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class Program:
    """A program with its version, options that the adapter chose, and its answers."""

    name: str
    version: str
    chosen: str
    answers: list[Answer]

    @property
    def title(self) -> str:
        """Return name and version."""
        return f"{self.name} {self.version}"


def ask(adapter: str, asked: Iterable[Question]) -> Program:
    """Ask one program everything that its adapter has; ImportError if it is not installed."""
    name = f"conformance.adapters.{adapter}"
    figures = figures_of(name)
    answers = [answer(figures, question) for question in asked]
    module = importlib.import_module(name)
    has = [each for each in answers if each.outcome != "not offered"]
    return Program(module.PACKAGE, version(module.PACKAGE), getattr(module, "CHOSEN", ""), has)


def reasons() -> list[Reason]:
    """Return the known reasons of other answers."""
    content = json.loads((FOLDER / "reasons.json").read_text(encoding="utf-8"))
    return [Reason(**reason) for reason in content["reasons"]]


def column(answer: Answer) -> str:
    """Return the column of an answer; the README of the cases says what leaves a choice."""
    if answer.outcome in ("equal", "refuses"):
        return "refused" if answer.outcome == "refuses" else "equal"
    if "undefined" in answer.question.levels:
        return "undefined"
    return "counted" if answer.question.kind == "counted" else "other rule"


def explains(reason: Reason, program: Program, answer: Answer) -> bool:
    """Tell whether a reason gives this answer of the program, to the digits that are shown."""
    given = reason.answers.get(answer.question.case, {})
    figure = answer.question.figure
    return (
        program.name in reason.programs and figure in given and shown(given[figure]) == answer.text
    )


def unexplained(program: Program) -> list[Answer]:
    """Return the other answers of a program that no reason gives."""
    known = reasons()
    return [
        each
        for each in program.answers
        if column(each) in ("counted", "other rule")
        and not any(explains(reason, program, each) for reason in known)
    ]


def page(programs: Sequence[Program]) -> str:
    """Return the tables of the page: answers by program, and why some differ."""
    return _sections(
        {
            "All cases": _counts(programs),
            "Why answers are others": _reasons(programs),
        }
    )


def details(programs: Sequence[Program]) -> str:
    """Return further tables: chosen options, answers by level, figures, every other answer."""
    return _sections(
        {
            "Options that were chosen": _chosen(programs),
            "Equal answers by level": _equal(programs),
            "What was asked": _asked(programs),
            "Every other answer": _others(programs),
        }
    )


def _sections(parts: dict[str, str]) -> str:
    return "\n".join(f"## {title}\n\n{text}\n" for title, text in parts.items())


def _asked(programs: Sequence[Program]) -> str:
    rows = []
    for program in programs:
        has = {each.question.name for each in program.answers}
        titles = [title for name, title in TITLES.items() if name in has]
        rows.append([program.name, ", ".join(titles)])
    return _table(["program", "figures"], rows)


def _chosen(programs: Sequence[Program]) -> str:
    rows = [[program.name, program.chosen] for program in programs if program.chosen]
    return _table(["program", "options"], rows)


def _counts(programs: Sequence[Program]) -> str:
    rows = []
    for program in programs:
        count = Counter(column(each) for each in program.answers)
        equal = f"{count['equal']} of {len(program.answers)}"
        levels = ", ".join(level for level in LEVELS if _has_level(program, level))
        rows.append([program.title, equal, *(str(count[k]) for k in COLUMNS), levels])
    return _table(["program", "equal", *COLUMNS, "levels that it has"], rows)


def _has_level(program: Program, level: str) -> bool:
    of_level = {each.outcome for each in program.answers if level in each.question.levels}
    return of_level == {"equal"}


def _equal(programs: Sequence[Program]) -> str:
    rows = []
    for program in programs:
        row = [program.title]
        for level in LEVELS:
            of_level = [column(a) for a in program.answers if level in a.question.levels]
            row.append(f"{of_level.count('equal')} of {len(of_level)}" if of_level else "")
        rows.append(row)
    return _table(["program", *LEVELS], rows)


def _reasons(programs: Sequence[Program]) -> str:
    rows = []
    for reason in reasons():
        count: Counter[str] = Counter()
        for program in programs:
            count.update(column(a) for a in program.answers if explains(reason, program, a))
        if count:
            counts = [str(count[k]) for k in ("counted", "other rule")]
            rows.append([reason.rule, ", ".join(reason.programs), *counts, reason.stated])
    return _table(["rule", "programs", "counted", "other rule", "where it is stated"], rows)


def _others(programs: Sequence[Program]) -> str:
    """Return the table of every figure that one of the programs answers otherwise or refuses."""
    said: dict[Question, list[str]] = {}
    for program in programs:
        for each in program.answers:
            if each.outcome != "equal":
                text = f"{program.name} {each.text} ({column(each)})"
                said.setdefault(each.question, []).append(text)
    rows = [
        [f"`{q.case}`", f"`{q.figure}`", shown(q.value), "; ".join(answers)]
        for q, answers in said.items()
    ]
    return _table(["case", "figure", "right", "other answers"], rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Show the answers of programs, or write them into a page."""
    known = sorted(path.stem for path in (FOLDER / "adapters").glob("[!_]*.py"))
    parser = argparse.ArgumentParser(
        prog="python -m conformance.run", description="Ask programs the figures of all cases."
    )
    parser.add_argument("program", nargs="*", help=f"one of {', '.join(known)}; all if none")
    parser.add_argument(
        "--page", type=Path, help="Markdown file whose tables of all programs are written anew"
    )
    options = parser.parse_args()
    head = ""
    if options.page is not None:
        if options.program:
            parser.error("--page has all programs; name none")
        text = options.page.read_text(encoding="utf-8") if options.page.is_file() else ""
        head, marker, _ = text.partition(MARKER)
        if not marker:
            parser.error(f"{options.page}: is no file with the line {MARKER}")
    if unknown := set(options.program) - {*known}:
        parser.error(f"no adapter {', '.join(sorted(unknown))}; {', '.join(known)} are known")
    asked, programs = list(questions()), []
    for adapter in options.program or known:
        try:
            programs.append(ask(adapter, asked))
        except ImportError as error:
            print(f"{adapter} is not asked: {error}", file=sys.stderr)
    if not programs or (options.page and len(programs) < len(known)):
        parser.error(
            "scripts/test makes .venv; into it: "
            ".venv/bin/pip install --no-deps -r conformance/requirements.txt"
        )
    programs.sort(key=lambda program: (program.name != "cxr-compare", program.name))
    for program in programs:
        for each in unexplained(program):
            print(f"reasons.json has no rule of {program.name} for {each}", file=sys.stderr)
    if options.page is None:
        print(f"{page(programs)}\n{details(programs)}")
        return
    options.page.write_text(f"{head}{MARKER}\n\n{page(programs)}", encoding="utf-8")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
