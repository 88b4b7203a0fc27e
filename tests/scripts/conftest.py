"""Fixtures of the verbs' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from data_prep.assemble.ingest import PrepareOptions
from data_prep.assemble.prepare import prepare
from data_prep.synth.phantom import write_phantom
from data_prep.work.pool import LocalEngine


@pytest.fixture(scope="module", autouse=True)
def blank_plots() -> Iterator[None]:
    """Tiny trainings leave empty plots, and reports no figures beside their page.

    Their drawing took a third of a training's time and two thirds of a report's.
    The whole runs of ``test_train.py`` are drawn, as are those of ``scripts/quickstart``.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.plots._save", _touch)
        patch.setattr("evaluation.report.report.save_figures", lambda *given: [])
        yield


def _touch(figure: Figure, path: Path) -> None:
    path.touch()


@pytest.fixture(scope="session")
def drawn_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared set of thirty drawn images at 96 and 64 px; whoever changes it makes a copy."""
    folder = tmp_path_factory.mktemp("drawn")
    write_phantom(folder / "source", n_images=30, seed=3, size=96, prevalence=0.4)
    options = PrepareOptions("rsna", sizes=(96, 64), engine=LocalEngine(0))
    prepare(folder / "source", folder / "data", options)
    return folder / "data"
