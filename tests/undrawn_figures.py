"""Reports of tests, without the files of their figures or with figures drawn in this process."""

import pytest


def leave_figures_out(patch: pytest.MonkeyPatch) -> None:
    """Let no report write its figures, which take a second a report."""
    patch.setattr("cxr_compare.evaluation.report.report.save_figures", lambda *given, **named: None)
    draw_figures_in_a_thread(patch)


def draw_figures_in_a_thread(patch: pytest.MonkeyPatch) -> None:
    """Let reports draw their figures in this process, as in one that must not start others."""
    patch.setattr("cxr_compare.evaluation.report.figure_process._is_daemon", lambda: True)
