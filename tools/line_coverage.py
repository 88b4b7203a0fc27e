"""Measure which lines of the packages the tests run: ``pytest -p tools.line_coverage``.

SlipCover marks lines in the bytecode, which costs a few percent of the time, where a tracing
function costs half of it. Processes that a test starts are not measured. Each row of the table
that is printed at the end also has the seconds of the tests that mirror the package.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from slipcover import FileMatcher, ImportManager, Slipcover

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = sorted(link.name for link in (ROOT / "cxr_compare").iterdir() if link.is_symlink())


def package_of(path: str) -> str:
    """Return the package or subpackage of a file, or of the tests that mirror it.

    Example:
        >>> package_of("evaluation/boxes/matching.py"), package_of("tests/scripts/test_cli.py")
        ('evaluation/boxes', 'scripts')
    """
    folders = Path(path).parts[:-1]
    return "/".join(folders[1:] if folders[:1] == ("tests",) else folders) or "several packages"


class LineCoverage:
    """Lines run by the tests of this process, or by those of all workers together."""

    def __init__(self) -> None:
        self._measured = Slipcover()
        matcher = FileMatcher(sources=[ROOT / name for name in PACKAGES])
        self._imports = ImportManager(self._measured, matcher)
        self._imports.__enter__()
        self._lines: dict[str, set[int]] = {}  # of each file, with those that ran
        self._lines_run: dict[str, set[int]] = defaultdict(set)
        self._seconds: Counter[str] = Counter()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._imports.__exit__()
        files = self._measured.get_coverage()["files"]
        measured = {
            str((ROOT / name).resolve()): [lines["executed_lines"], lines["missing_lines"]]
            for name, lines in files.items()
        }
        if (output := getattr(session.config, "workeroutput", None)) is not None:
            output["line_coverage"] = json.dumps(measured)
        else:
            self._add(measured)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Add the lines of a worker that has ended; a lost one has none."""
        output = getattr(node, "workeroutput", {})
        self._add(json.loads(output.get("line_coverage", "{}")))

    def _add(self, measured: dict[str, list[list[int]]]) -> None:
        for name, (run, missed) in measured.items():
            self._lines_run[name].update(run)
            self._lines.setdefault(name, set()).update(run, missed)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[package_of(report.location[0])] += report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        lines_of = Counter[str]()
        run_of = Counter[str]()
        for path in sorted(p for name in PACKAGES for p in (ROOT / name).rglob("*.py")):
            lines = self._lines.get(str(path))
            if lines is None:  # no test imported it
                code = compile(path.read_bytes(), str(path), "exec")
                lines = set(Slipcover.lines_from_code(code))
            package = package_of(str(path.relative_to(ROOT)))
            lines_of[package] += len(lines)
            run_of[package] += len(lines & self._lines_run[str(path)])
        terminalreporter.section("lines of each package that the tests run")
        terminalreporter.line(
            f"{'package':30s} {'lines':>7s} {'run':>6s} {'seconds of its tests':>21s}"
        )
        for package, count in [*sorted(lines_of.items()), ("all", lines_of.total())]:
            run = run_of.total() if package == "all" else run_of[package]
            seconds = self._seconds.total() if package == "all" else self._seconds[package]
            share = f"{run / max(1, count):.0%}"
            terminalreporter.line(f"{package:30s} {count:7,} {share:>6s} {seconds:21.0f}")
        for package in sorted(self._seconds.keys() - lines_of.keys()):
            terminalreporter.line(f"{package:30s} {'':7s} {'':6s} {self._seconds[package]:21.0f}")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Begin before any conftest imports a package."""
    early_config.pluginmanager.register(LineCoverage(), "line_coverage")
