"""Fixtures of the commands' tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.blank_plots import blank_plots
from tests.scripts.small_sets import drawn_images


@pytest.fixture(scope="module", autouse=True)
def no_drawings() -> Iterator[None]:
    """Tiny trainings and reports draw nothing."""
    with blank_plots():
        yield


@pytest.fixture(scope="session")
def drawn_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared set of thirty drawn images at 96 and 64 px; whoever changes it makes a copy."""
    return drawn_images(tmp_path_factory.mktemp("drawn"), 30, 96, [96, 64], prevalence=0.4)


@pytest.fixture(scope="session")
def data(drawn_set: Path) -> Path:
    """What the tests of training learn from, unless their file has a set of its own."""
    return drawn_set
