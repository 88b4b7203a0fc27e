"""Fixtures of the verbs' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib.figure import Figure


@pytest.fixture(scope="module", autouse=True)
def blank_plots(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tiny trainings leave empty plots, whose drawing took a third of their time.

    Those of ``test_train.py`` are drawn, as are those of ``tests/test_end_to_end.py``.
    """
    with pytest.MonkeyPatch.context() as patch:
        if request.path.name != "test_train.py":
            patch.setattr("training.plots._save", _touch)
        yield


def _touch(figure: Figure, path: Path) -> None:
    path.touch()
