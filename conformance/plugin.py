"""A pytest plugin that asks a program the cases of `figures/`, one test for each case.

``python -m pytest -p conformance.plugin --conformance MODULE conformance/figures``, called in the
folder that has `conformance/`, asks the adapter MODULE. README.md says what an adapter is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance.cases import FOLDER, LEVELS, Question, questions_of, read
from conformance.check import Figures, answer, figures_of, table

FIGURES = pytest.StashKey[Figures]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the adapter and the level."""
    group = parser.getgroup("conformance")
    group.addoption("--conformance", metavar="MODULE", help="adapter that is asked the cases")
    group.addoption("--conformance-level", choices=LEVELS, help="ask what this level has")


def pytest_configure(config: pytest.Config) -> None:
    """Import the adapter."""
    module = config.getoption("--conformance")
    if module:
        try:
            config.stash[FIGURES] = figures_of(module)
        except (ImportError, ValueError) as error:
            raise pytest.UsageError(f"conformance: {error}") from error


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Take the files of cases if an adapter is named."""
    if file_path.parent != FOLDER.resolve() or file_path.suffix != ".json":
        return None
    return CaseFile.from_parent(parent, path=file_path) if FIGURES in parent.config.stash else None


class CaseFile(pytest.File):
    """A file of cases; one whose values are not those that it states is an error."""

    def collect(self) -> Iterator[pytest.Item]:
        """Return the cases that have a value of the level."""
        level = self.config.getoption("--conformance-level")
        for case in read(self.path):
            asked = [q for q in questions_of(case) if level in (None, *q.levels)]
            if asked:
                yield CaseItem.from_parent(self, name=case["name"], asked=asked)


class CaseItem(pytest.Item):
    """A case: it fails with the answers that are others, and is skipped if none is offered."""

    def __init__(self, *, asked: list[Question], **given: Any) -> None:
        super().__init__(**given)
        self._asked = asked

    def runtest(self) -> None:
        """Ask all figures of the case."""
        figures = self.config.stash[FIGURES]
        answers = [answer(figures, question) for question in self._asked]
        outcomes = [(each.question.levels, each.outcome) for each in answers]
        self.user_properties.append(("conformance", outcomes))
        wrong = [str(each) for each in answers if each.is_wrong]
        if wrong:
            pytest.fail("\n".join(wrong), pytrace=False)
        if all(each.outcome == "not offered" for each in answers):
            pytest.skip("not offered")

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return where the case stands."""
        return self.path, None, self.name


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Show the outcomes by level."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    outcomes = [
        outcome
        for report in reports
        if getattr(report, "when", None) == "call"
        for outcome in dict(report.user_properties).get("conformance", ())
    ]
    if outcomes:
        terminalreporter.section("conformance")
        terminalreporter.write_line(table(outcomes, config.getoption("--conformance-level")))
