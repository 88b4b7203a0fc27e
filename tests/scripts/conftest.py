"""Fixtures of the commands' tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from tests.scripts.small_sets import drawn_images
from tests.undrawn_figures import leave_figures_out


@pytest.fixture(scope="module", autouse=True)
def blank_plots() -> Iterator[None]:
    """Tiny trainings leave empty plots, and reports no figures beside their page.

    Their drawing took a third of a training's time and two thirds of a report's.
    The whole runs of ``test_train.py`` are drawn, as are those of ``scripts/quickstart``.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cxr_compare.training.plots.save_figure", _touch)
        leave_figures_out(patch)
        yield


def _touch(figure: Figure, path: Path) -> None:
    path.touch()


@pytest.fixture(scope="session")
def drawn_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared set of thirty drawn images at 96 and 64 px; whoever changes it makes a copy."""
    return drawn_images(tmp_path_factory.mktemp("drawn"), 30, 96, [96, 64], prevalence=0.4)


@pytest.fixture(scope="session")
def data(drawn_set: Path) -> Path:
    """What the tests of training learn from, unless their file has a set of its own."""
    return drawn_set
