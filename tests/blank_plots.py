"""Trainings and reports without drawings, for tests of something else."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from tests.undrawn_figures import leave_figures_out


@contextmanager
def blank_plots() -> Iterator[None]:
    """Trainings leave empty plots, and reports no figures beside their page.

    Their drawing takes a third of a tiny training's time and two thirds of a report's. Whole runs
    with all drawings are those of ``tests/scripts/test_train.py`` and of ``scripts/quickstart``.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cxr_compare.training.plots.save_figure", _touch)
        leave_figures_out(patch)
        yield


def _touch(figure: Figure, path: Path) -> None:
    path.touch()
