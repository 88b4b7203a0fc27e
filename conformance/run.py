"""Ask programs the figures of the cases of `figures/`, and show who answers what.

In a clone with the environment of ``scripts/test``, ``.venv/bin/pip install --no-deps -r
conformance/requirements.txt`` brings the programs, and ``.venv/bin/python -m conformance.run
[PROGRAM ...]`` asks those that are named as files of `adapters/`, or all that are installed. With
``--page docs/peers.md`` all that follows the marker in that file is written anew.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from conformance.cases import RATES, Question, questions
from conformance.check import OUTCOMES, Answer, answer, figures_of, shown

FOLDER = Path(__file__).parent
MARKER = "<!-- answers of python -m conformance.run -->"
GROUPS = {
    "Boxes": {
        "AP50": ("ap50",),
        "AP": ("ap",),
        "FROC": ("froc_mean", *(f"froc_at_{rate}" for rate in RATES)),
        "pointing": ("pointing_accuracy",),
        "RSNA score": ("rsna_score",),
        "VinBigData score": ("vinbigdata_score",),
    },
    "Images": {
        "AUROC": ("auroc", "macro_auroc"),
        "average precision": ("average_precision",),
        "recall, specificity": ("recall", "specificity"),
        "precision, NPV": ("precision", "npv"),
        "accuracy, balanced": ("accuracy", "balanced_accuracy"),
        "F1, MCC": ("f1", "mcc"),
        "Brier": ("brier",),
    },
    "Differences and intervals": {
        "interval of the AUROC": ("auroc_low", "auroc_high"),
        "difference of AUROCs": ("auroc_difference",),
        "its standard error": ("auroc_difference_se", "auroc_difference_se_by_image"),
        "its interval": ("auroc_difference_low", "auroc_difference_high"),
        "its p-value": ("auroc_difference_p",),
        "average precision by bootstrap": (
            "average_precision_low",
            "average_precision_high",
            "average_precision_difference",
            "average_precision_difference_low",
            "average_precision_difference_high",
        ),
    },
}
"""Columns of each table: the names of figures that one column counts."""


@dataclass(frozen=True)
class Program:
    """A program with its version and its answers; a figure that it lacks has none."""

    name: str
    version: str
    answers: list[Answer]


def ask(adapter: str, asked: Iterable[Question]) -> Program:
    """Ask one program everything that its adapter has; ImportError if it is not installed."""
    name = f"conformance.adapters.{adapter}"
    figures = figures_of(name)
    answers = [answer(figures, question) for question in asked]
    package = importlib.import_module(name).PACKAGE
    has = [each for each in answers if each.outcome != "not offered"]
    return Program(package, version(package), has)


def right(question: Question) -> str:
    """Return the right answer, and whether it is counted or a convention."""
    return shown(question.value) + f" ({question.kind})" * (question.value is not None)


def page(programs: Sequence[Program]) -> str:
    """Return the tables of programs: how many figures each answers how."""
    parts = []
    for group, columns in GROUPS.items():
        rows = [row for program in programs if (row := _row(program, columns.values()))]
        if rows:
            parts.append(f"## {group}\n\n{_table(['program', *columns], rows)}\n")
    return "\n".join(parts)


def _row(program: Program, columns: Iterable[tuple[str, ...]]) -> list[str]:
    cells = []
    for names in columns:
        count = Counter(a.outcome for a in program.answers if a.question.name in names)
        cells.append(", ".join(f"{count[k]} {k}" for k in OUTCOMES if count[k]) or "–")
    return [f"{program.name} {program.version}", *cells] if set(cells) != {"–"} else []


def others(programs: Sequence[Program]) -> str:
    """Return the table of every figure that one of the programs answers otherwise or refuses."""
    said: dict[Question, list[str]] = {}
    for program in programs:
        for each in program.answers:
            if each.outcome != "equal":
                said.setdefault(each.question, []).append(f"{program.name} {each.text}")
    rows = [
        [f"`{q.case}`", f"`{q.figure}`", right(q), "; ".join(answers)]
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
    if options.page is None:
        print(f"{page(programs)}\n## Every other answer\n\n{others(programs)}")
        return
    options.page.write_text(f"{head}{MARKER}\n\n{page(programs)}", encoding="utf-8")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
