"""Reports of tests, without the files of their figures."""

import pytest


def leave_figures_out(patch: pytest.MonkeyPatch) -> None:
    """Let no report draw its charts, which take a second a report."""
    patch.setattr("cxr_compare.evaluation.report.result.Result._shown_charts", lambda result: {})
